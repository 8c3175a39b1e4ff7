//! What the applier is told, and what it tells.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Flavor;
use super::batch::BatchLimits;
use super::gate::SharedIndex;
use super::stream::{Arrival, StreamState};
use crate::change::{BinlogPoint, Dot, RegionId, Seq, Vector};
use crate::clock::Hlc;
use crate::resolve::{Conflict, Rulebook};

/// What the applier is told at start.
#[derive(Debug)]
pub struct ApplyConfig {
    /// This region.
    pub region: RegionId,
    /// The writable database.
    pub opts: mysql_async::Opts,
    /// Its kind.
    pub flavor: Flavor,
    /// This agent's fencing token.
    pub epoch: u64,
    /// Bounds of a batch.
    pub limits: BatchLimits,
    /// How long a batch may hold its locks while it waits for capture and outbox.
    pub wait_max: Duration,
    /// The tables' policies.
    pub book: Rulebook,
    /// How far a record's stamp may lie ahead of the trusted time.
    pub ahead_us_max: u64,
}

/// What this region no longer knows, since its topics no longer hold it.
#[derive(Clone, Debug, Default)]
pub struct Gone {
    /// Per origin up to where the index lacks what not every region has applied: with
    /// what in it a transaction is in conflict can't be told unless its author had seen
    /// all of that.
    pub floor: Vector,
    /// Peers of which nothing is held any more, so that what they had seen is not known.
    pub silent: BTreeSet<RegionId>,
}

/// What the applier listens to.
#[derive(Debug)]
pub struct ApplyInputs {
    /// Per peer its records, in order.
    pub arrivals: BTreeMap<RegionId, mpsc::Receiver<Arrival>>,
    /// Per origin what the database holds at start.
    pub applied: Vector,
    /// Recent versions.
    pub index: SharedIndex,
    /// What is missing in it.
    pub gone: Gone,
    /// The point of the binlog up to which the index knows all local writes.
    pub captured: watch::Receiver<BinlogPoint>,
    /// How many batches wait, with their locks held, for `captured`: set here, so that
    /// capture makes haste.
    pub awaited: watch::Sender<u32>,
    /// The highest local transaction durable in the outbox.
    pub acked: watch::Receiver<Seq>,
    /// Counts the schema changes of replicated tables here, each before capture's
    /// point passes it.
    pub schema: watch::Receiver<u64>,
    /// Orders of operators.
    pub orders: mpsc::Receiver<Order>,
    /// Microseconds to add to the wall clock for the majority's time.
    pub offset_us: watch::Receiver<i64>,
}

/// An operator's order for one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop after the batch in flight.
    Pause(RegionId),
    /// Go on, also after a halt: the transaction is tried again.
    Resume(RegionId),
}

/// What the applier tells.
#[derive(Debug)]
pub enum Report {
    /// A batch has committed.
    Applied {
        /// Transactions, in order.
        txns: Vec<AppliedTxn>,
        /// Row operations after coalescing.
        rows: usize,
        /// Microseconds since the Unix epoch.
        at_us: u64,
        /// What all regions have applied.
        stable: Vector,
    },
    /// Concurrent writes met, of a committed batch.
    Conflicts(Vec<Conflict>),
    /// A stream's state has changed.
    State(RegionId, StreamState),
    /// A batch is done again, and why.
    Retry(String),
    /// The loop goes round, about once a second, also when it has nothing to do.
    Round,
}

/// One transaction of a committed batch.
#[derive(Clone, Debug)]
pub struct AppliedTxn {
    /// Its name.
    pub dot: Dot,
    /// Its stamp.
    pub hlc: Hlc,
    /// When its source committed it.
    pub commit_us: u64,
    /// The source's name of it.
    pub gtid: String,
}
