//! What is said of two concurrent writes.

use std::sync::Arc;

use crate::change::{ForeignKey, Row, Table, TableName};
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
    /// One row references another that is gone.
    ForeignKey,
    /// The row that a write had found is not here, and nothing that its author had not
    /// seen took it away.
    RowMissing,
}

impl ConflictKind {
    /// The names of all kinds.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        use Action::{Delete, Insert, Update};
        let all = [Insert, Update, Delete];
        let rows = all
            .into_iter()
            .flat_map(|existing| all.map(|incoming| Self::Row { existing, incoming }))
            // Two concurrent deletes are none.
            .filter(|kind| *kind != Self::Row { existing: Delete, incoming: Delete });
        rows.chain([Self::UniqueKey, Self::ForeignKey, Self::RowMissing]).map(Self::name).collect()
    }

    /// Its name in logs and metrics: what was here, then what came.
    #[must_use]
    pub const fn name(self) -> &'static str {
        use Action::{Delete, Insert, Update};
        match self {
            Self::UniqueKey => "unique_key",
            Self::ForeignKey => "foreign_key",
            Self::RowMissing => "row_missing",
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

/// Which of two writes in conflict stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The one that came.
    Incoming,
    /// The one that was here.
    Existing,
    /// Both, each in its columns or as a sum.
    Both,
    /// Of the columns that both had changed each group goes to one of them. One group at
    /// least; their sums, and what one alone had changed, stand.
    Columns(Vec<Contest>),
}

/// Columns that two writes changed, and that are resolved together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    /// Their places in the incoming row's table.
    pub columns: Vec<usize>,
    /// The order that decides between the two, by its name.
    pub policy: &'static str,
    /// Whether they go to the incoming write.
    pub incoming_wins: bool,
}

impl Outcome {
    /// Who stands: `incoming`, `existing`, or `both` where each has its columns or its
    /// share of a sum.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Existing => "existing",
            Self::Both => "both",
            Self::Columns(contests) => {
                let first = contests.first().is_some_and(|contest| contest.incoming_wins);
                match contests.iter().all(|contest| contest.incoming_wins == first) {
                    true if first => "incoming",
                    true => "existing",
                    false => "both",
                }
            }
        }
    }
}

/// What a row lacks: the row that it references.
#[derive(Clone, Debug, PartialEq)]
pub struct Orphan {
    /// The child came, and the parent had gone here; else the parent's end came.
    pub child_came: bool,
    /// The child's foreign key.
    pub key: ForeignKey,
    /// The child's table.
    pub child_table: Arc<Table>,
    /// The child, its key and what it references at least.
    pub child: Row,
    /// The parent's table, where it is known.
    pub parent_table: Option<Arc<Table>>,
}

/// Two concurrent writes of one row, of one unique value, or of a row and of one that it
/// references; or a write of a row that is missing.
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
    /// The best that was here; of [`ConflictKind::RowMissing`] nothing, and it says no more.
    pub existing: Side,
    /// Whether the row that is here is the one that `existing` wrote: had another come
    /// since that stands above it, the table would say what that one wrote.
    pub shows: bool,
    /// Which of the two stands.
    pub outcome: Outcome,
    /// Which row lacks which; only of [`ConflictKind::ForeignKey`].
    pub orphan: Option<Arc<Orphan>>,
}

impl Conflict {
    /// The table that it is told of: the child's, where one row references another.
    #[must_use]
    pub fn told_of(&self) -> TableName {
        self.orphan.as_ref().map_or(&self.table, |orphan| &orphan.child_table).full_name()
    }

    /// The row that was here before, as it can be looked up: its table, and a row with its
    /// key. None when it is known, or gone: deleted, or overwritten.
    #[must_use]
    pub fn unread(&self) -> Option<(&Arc<Table>, &Row)> {
        let known = self.existing.after.is_some() || self.kind == ConflictKind::RowMissing;
        if known || !self.shows || self.existing.version.action == Action::Delete {
            return None;
        }
        match &self.orphan {
            Some(orphan) if orphan.child_came => None,
            Some(orphan) => Some((&orphan.child_table, &orphan.child)),
            None => {
                let row = self.incoming.after.as_ref().or(self.incoming.before.as_ref())?;
                Some((&self.table, row))
            }
        }
    }
}
