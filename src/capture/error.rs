//! Every condition in which capture stops, with its way out.

use crate::change::{Column, TableName};

/// How the agent goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It passes: connect again.
    Retry,
    /// Someone must act.
    Halt,
}

/// Why capture stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The connection broke or is silent.
    #[error("the database is away: {0}")]
    Away(String),
    /// The server refused.
    #[error("the database refused the binlog: error {code}: {message}")]
    Refused {
        /// The server's error number.
        code: u16,
        /// The server's text.
        message: String,
    },
    /// The binlog from the position on is gone.
    #[error("the binlog from {position} on is not there any more: {message}")]
    Purged {
        /// The position asked for.
        position: String,
        /// The server's text.
        message: String,
    },
    /// The server has never executed what was shipped from another one of its region.
    #[error("the database lacks transactions that were already shipped: {missing}")]
    Lacks {
        /// Their GTIDs.
        missing: String,
    },
    /// An event can't be what it says it is.
    #[error("a binlog event is corrupt: {0}")]
    Corrupt(&'static str),
    /// An event's checksum is wrong.
    #[error("a binlog event's checksum is wrong")]
    Checksum,
    /// An event type that this version does not know.
    #[error("binlog event type {0} is not known")]
    UnknownEvent(u8),
    /// A row event without all columns.
    #[error("a change of {0} lacks columns: binlog_row_image is not FULL")]
    PartialImage(String),
    /// A statement that changes rows was logged as text.
    #[error("rows were changed by a statement ({0}…): binlog_format is not ROW")]
    Statement(String),
    /// A distributed transaction.
    #[error("an XA transaction was prepared")]
    Xa,
    /// A transaction without a GTID.
    #[error("a transaction has no GTID")]
    Anonymous,
    /// A GTID with a tag between uuid and number, which MySQL gives from 8.3 on when it is
    /// asked to.
    #[error("a transaction has a GTID with a tag")]
    Tagged,
    /// The source noted that events are missing.
    #[error("the source's binlog has an incident: events are missing")]
    Incident,
    /// A column type that is not shipped.
    #[error("column {column} of {table} has a type that is not replicated: {what}")]
    Type {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The type.
        what: String,
    },
    /// A primary key whose equality only the server can tell.
    #[error("the primary key of {table} covers only the first part of column {column}")]
    CutKey {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A table's definition is not the one that its rows were written with.
    #[error("the definition of {0} is not the one that the binlog's rows were written with")]
    Moved(String),
}

impl CaptureError {
    pub(super) fn cut_key(table: &TableName, column: &Column) -> Self {
        Self::CutKey { table: table.to_string(), column: column.name.clone() }
    }

    /// How the agent goes on.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Away(_) | Self::Checksum => ErrorKind::Retry,
            Self::Refused { .. }
            | Self::Purged { .. }
            | Self::Lacks { .. }
            | Self::Corrupt(_)
            | Self::UnknownEvent(_)
            | Self::PartialImage(_)
            | Self::Statement(_)
            | Self::Xa
            | Self::Anonymous
            | Self::Tagged
            | Self::Incident
            | Self::Type { .. }
            | Self::CutKey { .. }
            | Self::Moved(_) => ErrorKind::Halt,
        }
    }

    /// The operator's next step.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Away(_) | Self::Checksum => "none: it is tried again",
            Self::Refused { .. } => {
                "give the agent's user its privileges: causeway doctor --fix-sql prints them"
            }
            Self::Purged { .. } | Self::Incident => {
                "seed this region anew from a peer; keep binlogs longer than the longest outage"
            }
            Self::Lacks { .. } => {
                "make the old primary the writable one again if it still has them, else seed this \
                 region anew from a peer; promote only a replica that has applied everything"
            }
            Self::Corrupt(_) | Self::UnknownEvent(_) => {
                "check the binlog with mysqlbinlog; if it is sound, this server's version is not \
                 supported yet"
            }
            Self::PartialImage(_) => {
                "set binlog_row_image=FULL and find the session that changed it; seed anew"
            }
            Self::Statement(_) => {
                "set binlog_format=ROW and find the session that changed it; compare the tables \
                 it wrote in all regions"
            }
            Self::Xa => "do not use XA transactions on replicated tables",
            Self::Anonymous => "set gtid_mode=ON",
            Self::Tagged => {
                "let no session set a tag (gtid_next=AUTOMATIC:tag; who may is who has \
                 TRANSACTION_GTID_TAG), then seed this region anew from a peer"
            }
            Self::Type { .. } => "exclude the table in the topology, or change the column's type",
            Self::CutKey { .. } => {
                "exclude the table in the topology, or let its primary key cover whole columns in \
                 all regions and seed this table anew: causeway doctor names the columns"
            }
            Self::Moved(_) => {
                "the table was altered while capture was behind, and these rows do not describe \
                 themselves: seed this region anew; binlog_row_metadata=FULL (MariaDB 10.5, MySQL \
                 8) keeps it from happening again"
            }
        }
    }
}
