//! What a batch does.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use super::{Conflict, Number};
use crate::change::{Dot, RegionId, Row, Seq, Table, TableChange, Vector};
use crate::clock::Hlc;
use crate::mutant::{self, Mutant};
use crate::version::{BatchId, Index, KeyError, Role, RowKey, Write};

/// A peer's transaction, or one part of it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Its name.
    pub dot: Dot,
    /// Its stamp.
    pub hlc: Hlc,
    /// What its author had seen.
    pub deps: &'a Arc<Vector>,
    /// The source's own name of it.
    pub gtid: &'a str,
    /// Its changes, in binlog order.
    pub changes: &'a [TableChange],
}

/// A change relative to the row that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeRow {
    /// The row to insert when none is there; `set` columns are taken from it.
    pub row: Row,
    /// Its author made the row: it has to be there afterwards, also where nothing is set
    /// or added.
    pub insert: bool,
    /// Places of columns to set.
    pub set: Vec<usize>,
    /// Places of columns to add to, and what.
    pub add: Vec<(usize, Number)>,
}

impl MergeRow {
    /// Whether it makes the row or changes it: else there is nothing to run.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.insert || !self.set.is_empty() || !self.add.is_empty()
    }
}

/// The operations on one table: at most one per key, so their order is free.
#[derive(Clone, Debug, PartialEq)]
pub struct TablePlan {
    /// As it is at the origin.
    pub table: Table,
    /// Rows whose key must not exist afterwards.
    pub removes: Vec<Row>,
    /// Rows that must stand as given afterwards.
    pub puts: Vec<Row>,
    /// Rows that change relative to what is there.
    pub merges: Vec<MergeRow>,
    /// How many of the first of each find their row.
    pub found: Found,
}

/// How many of the first operations find a row with their key: its author had found it,
/// and nothing that he had not seen was written where it stands. One that is not there was
/// taken away by no write that anybody knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Of the removes.
    pub removes: usize,
    /// Of the puts.
    pub puts: usize,
    /// Of the merges.
    pub merges: usize,
}

impl TablePlan {
    /// No operation yet.
    #[must_use]
    pub const fn new(table: Table) -> Self {
        let found = Found { removes: 0, puts: 0, merges: 0 };
        Self { table, removes: Vec::new(), puts: Vec::new(), merges: Vec::new(), found }
    }

    /// The rows that are found.
    pub fn found(&self) -> impl Iterator<Item = &Row> {
        self.found_by(|_| true)
    }

    /// Those that a statement counts: a merge that leaves its row as it is runs none.
    pub fn counted(&self) -> impl Iterator<Item = &Row> {
        self.found_by(MergeRow::writes)
    }

    fn found_by(&self, merged: fn(&MergeRow) -> bool) -> impl Iterator<Item = &Row> {
        let Found { removes, puts, merges } = self.found;
        let merges = self.merges[..merges].iter().filter(move |merge| merged(merge));
        let rows = self.removes[..removes].iter().chain(&self.puts[..puts]);
        rows.chain(merges.map(|merge| &merge.row))
    }
}

/// What a batch does.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What to run, per table.
    pub tables: Vec<TablePlan>,
    /// What enters the index when it commits.
    pub writes: Vec<Write>,
    /// Conflicts met.
    pub conflicts: Vec<Conflict>,
    /// [`Index::local_writes`] when the plan was made.
    pub local_writes: u64,
    /// Rows that go because of a write that is not theirs, and because of which.
    pub hidden: Vec<(RowKey, Dot)>,
    /// Rows without their parent as a part leaves them that is not the last, with its write: told
    /// of with the last one, unless a later part puts them right.
    pub(super) orphans: Vec<(Write, Conflict)>,
    /// Places of which nothing was known: in a large transaction nearly all.
    pub(super) fresh: Vec<RowKey>,
    /// Per other place the transactions that were here.
    pub(super) basis: Vec<(RowKey, SmallVec<[Dot; 2]>)>,
    /// Per row that was referenced the deletes of it that were here: an update of it
    /// changes nothing for those who reference it.
    pub(super) parents: HashMap<RowKey, SmallVec<[Dot; 1]>>,
    /// Per value that was looked at in whose writes it stood, the transactions.
    pub(super) filed: Vec<(RowKey, Role, Vec<Dot>)>,
}

/// What earlier parts of a transaction wrote, by row: a later part may write the same rows
/// again, or those that they reference.
#[derive(Debug, Default)]
pub struct Earlier {
    rows: HashMap<RowKey, SmallVec<[Write; 1]>>,
    pub(super) orphans: Vec<(Write, Conflict)>,
}

impl Earlier {
    /// Takes a part in, after those before it and before another: what it wrote to rows of
    /// which something is known, as most rows of a large transaction are not, and what it
    /// has to tell of rows without their parent.
    pub fn take(&mut self, part: &mut Plan) {
        self.orphans = part.without_again(std::mem::take(&mut self.orphans));
        let orphans = std::mem::take(&mut part.orphans);
        let told: HashSet<RowKey> = orphans.iter().map(|(write, _)| write.key).collect();
        let fresh: HashSet<RowKey> = part.fresh.iter().copied().collect();
        let counts = |write: &&Write| !fresh.contains(&write.key) || told.contains(&write.key);
        for write in part.writes.iter().filter(counts) {
            self.rows.entry(write.key).or_default().push(write.clone());
        }
        self.orphans.extend(orphans);
    }

    pub(super) fn of(&self, row: RowKey) -> &[Write] {
        self.rows.get(&row).map_or(&[], |held| held.as_slice())
    }
}

impl Plan {
    /// Whether some row changed since the plan, staged as batch `id`, was made. What has
    /// become stable meanwhile may be gone from the index: it counts on neither side. A
    /// local write that came since is not stable before the batch has committed, for what
    /// tells that all have applied it comes behind the batch.
    #[must_use]
    pub fn is_stale(&self, index: &Index, id: BatchId) -> bool {
        let written = |place: &RowKey| differs(index, &index.seen_before(*place, id).dots(), &[]);
        let moved = |(place, dots): &(RowKey, SmallVec<[Dot; 2]>)| {
            differs(index, &index.seen_before(*place, id).dots(), dots)
        };
        let deleted = |(row, dots): (&RowKey, &SmallVec<[Dot; 1]>)| {
            differs(index, &index.deletes(*row, id), dots)
        };
        let filed = |(value, role, dots): &(RowKey, Role, Vec<Dot>)| {
            let held = index.filed(*value, *role, id).map(|held| held.version.dot);
            differs(index, &held.collect::<Vec<_>>(), dots)
        };
        index.local_writes() != self.local_writes
            && (self.fresh.iter().any(written)
                || self.basis.iter().any(moved)
                || self.parents.iter().any(deleted)
                || self.filed.iter().any(filed))
            && !mutant::is(Mutant::NoSecondLook)
    }

    /// The highest local transaction that a decision stands on: it must be durable
    /// in the outbox before this commits.
    #[must_use]
    pub fn stands_on(&self, region: RegionId) -> Option<Seq> {
        let dots = self.basis.iter().flat_map(|(_, dots)| dots);
        let dots = dots.chain(self.parents.values().flatten());
        let dots = dots.chain(self.filed.iter().flat_map(|(.., dots)| dots));
        dots.filter(|dot| dot.origin == region).map(|dot| dot.seq).max()
    }

    /// What earlier parts told of, but for rows that this one writes again.
    pub(super) fn without_again(&self, mut told: Vec<(Write, Conflict)>) -> Vec<(Write, Conflict)> {
        if !told.is_empty() {
            let again: HashSet<RowKey> = self.writes.iter().map(|write| write.key).collect();
            told.retain(|(write, _)| !again.contains(&write.key));
        }
        told
    }

    /// Adds another plan of the same transaction, whose operations are done.
    pub fn join(&mut self, part: Self) {
        if self.fresh.is_empty() && self.basis.is_empty() {
            self.local_writes = part.local_writes;
        }
        self.writes.extend(part.writes);
        self.conflicts.extend(part.conflicts);
        self.hidden.extend(part.hidden);
        self.fresh.extend(part.fresh);
        self.basis.extend(part.basis);
        for (row, dots) in part.parents {
            // The first look counts: what came after it was not judged.
            self.parents.entry(row).or_insert(dots);
        }
        self.filed.extend(part.filed);
    }

    /// Rows to write.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.tables.iter().map(|t| t.puts.len() + t.removes.len() + t.merges.len()).sum()
    }
}

fn differs(index: &Index, here: &[Dot], then: &[Dot]) -> bool {
    let open = |dot: &&Dot| !index.stable().covers(**dot);
    !here.iter().filter(open).eq(then.iter().filter(open))
}

/// Why a transaction can't join the plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A row has no exact identity.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It was written with other columns than what it meets: it belongs in a batch of its
    /// own, or a column that one of the two lacks has no default that is known, or holds what
    /// the other's can't.
    #[error("rows of {0} were written with columns that can't be told in each other")]
    Shape(String),
    /// An update or a delete under `insert_only`.
    #[error("a row of {table}, which is insert_only, was changed by an {action}")]
    NotInsert {
        /// The table.
        table: String,
        /// What came.
        action: &'static str,
    },
    /// Two regions wrote one row under `home`.
    #[error("two regions wrote one row of {0}, which is home")]
    NotHome(String),
    /// The rule does not fit the table.
    #[error("the rule of {table} does not fit it: {why}")]
    Unfit {
        /// The table.
        table: String,
        /// What does not fit.
        why: String,
    },
    /// A sum of changes is no exact number of at most 38 digits.
    #[error("a changed column of {0} does not add up")]
    Sum(String),
}
