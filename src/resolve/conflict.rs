//! What is said of two concurrent writes.

use std::sync::Arc;

use crate::change::{Row, Table};
use crate::version::{Action, Version};

/// What two concurrent writes met over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConflictKind {
    /// One row: what was here, and what came.
    Row {
        /// What was here.
        existing: Action,
        /// What came.
        incoming: Action,
    },
    /// Two rows hold one value of a further unique key.
    UniqueKey,
}

impl ConflictKind {
    /// Its name in logs and metrics: what was here, then what came.
    #[must_use]
    pub const fn name(self) -> &'static str {
        use Action::{Delete, Insert, Update};
        match self {
            Self::UniqueKey => "unique_key",
            Self::Row { existing, incoming } => match (existing, incoming) {
                (Insert, Insert) => "insert_insert",
                (Insert, Update) => "insert_update",
                (Insert, Delete) => "insert_delete",
                (Update, Insert) => "update_insert",
                (Update, Update) => "update_update",
                (Update, Delete) => "update_delete",
                (Delete, Insert) => "delete_insert",
                (Delete, Update) => "delete_update",
                (Delete, Delete) => "delete_delete",
            },
        }
    }
}

/// One of two writes in conflict.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Which write.
    pub version: Version,
    /// The source's name of its transaction, where it is known.
    pub gtid: Option<String>,
    /// The row before it, where it is known.
    pub before: Option<Row>,
    /// The row after it, where it is known; none of a delete.
    pub after: Option<Row>,
}

/// Two concurrent writes of one row, or of one unique value.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The incoming row's table.
    pub table: Arc<Table>,
    /// What they met over.
    pub kind: ConflictKind,
    /// The policy that decided.
    pub policy: &'static str,
    /// The write that came.
    pub incoming: Side,
    /// The best that was here.
    pub existing: Side,
    /// Whether the incoming one stands.
    pub incoming_wins: bool,
    /// Both stand, each in its columns or as a sum.
    pub merged: bool,
}
