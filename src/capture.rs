//! Capture: follows the binlog as a replica does and gives typed transactions.
//!
//! Owns the event formats of MariaDB (10.5 on) and MySQL (5.6.20 to 8.4) and the
//! reading of the source's table definitions. It decides nothing: stamps, versions
//! and shipping are the agent's. Whatever it can't read exactly ends in a named
//! [`CaptureError`], never in a guess. Formats after the MySQL internals manual
//! ("Binary Log Event") and MariaDB's knowledge base ("Replication Protocol").

mod additive;
mod ahead;
mod assemble;
mod bytes;
mod catalog;
mod default;
mod definition;
mod described;
mod error;
mod event;
mod file;
mod foreign;
mod frame;
mod gtid;
mod json;
mod keeps;
mod pace;
mod query;
mod reader;
mod rows;
mod search;
mod stream;
mod table_map;
mod tail;
#[cfg(test)]
mod tests;
mod value;

pub use additive::additive;
pub use assemble::{Assembler, Source};
pub use catalog::TableInfo;
pub use error::{CaptureError, ErrorKind};
pub use file::{read_file, read_file_alone};
pub use query::ALL_TABLES;
pub use stream::{CaptureConfig, Files, Replicates, current, run};

use crate::change::{BinlogPoint, Position, RegionId, Seq, TableChange, TableName};
use crate::clock::{CommitTime, Hlc};

/// Where the binlog has been read up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// For a restart.
    pub position: Position,
    /// For the applier's gate.
    pub point: BinlogPoint,
}

/// A marker row of an applied transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedMark {
    /// Whose transactions were applied.
    pub origin: RegionId,
    /// The epoch of the agent that shipped the last of them.
    pub epoch: u64,
    /// Up to and with this one.
    pub seq: Seq,
    /// Its stamp.
    pub hlc: Hlc,
}

/// What the binlog says next.
#[derive(Clone, Debug, PartialEq)]
pub enum CaptureEvent {
    /// A local transaction, or one part of a large one.
    Changes {
        /// The source's name of it.
        gtid: String,
        /// When it committed.
        commit: CommitTime,
        /// 0, 1, 2 …
        part: u32,
        /// No part follows; `after` counts only then.
        last: bool,
        /// Changes of replicated tables, in order; the last part may have none.
        changes: Vec<TableChange>,
        /// Where it ends.
        after: Checkpoint,
    },
    /// The transaction was rolled back: its parts are void.
    Aborted,
    /// A transaction of the applier, or a repair.
    Applied {
        /// Its marker rows; none of a repair.
        marks: Vec<AppliedMark>,
        /// Where it ends.
        after: Checkpoint,
    },
    /// Nothing that is replicated.
    Skipped {
        /// Where it ends.
        after: Checkpoint,
    },
    /// A schema change of replicated tables: the consumer takes nothing more until
    /// an operator releases it.
    Ddl {
        /// The source's name of it.
        gtid: String,
        /// The statement.
        statement: String,
        /// The tables it names.
        tables: Vec<TableName>,
        /// Where it ends.
        after: Checkpoint,
    },
}
