//! One batch's plan.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use smallvec::SmallVec;

use super::{Verdict, latest};
use crate::change::{Dot, RegionId, Row, Seq, Table, TableChange, Vector};
use crate::clock::Hlc;
use crate::version::{BatchId, Index, KeyError, RowKey, Version, Versions, Write};

/// A peer's transaction, or one part of it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Its name.
    pub dot: Dot,
    /// Its stamp.
    pub hlc: Hlc,
    /// What its author had seen.
    pub deps: &'a Arc<Vector>,
    /// Its changes, in binlog order.
    pub changes: &'a [TableChange],
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
}

/// Two concurrent writes of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `schema.table`.
    pub table: String,
    /// The write that came.
    pub incoming: Version,
    /// The best that was here.
    pub existing: Version,
    /// Whether the incoming one stands.
    pub incoming_wins: bool,
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
    /// Per key the versions that were here.
    basis: Vec<(RowKey, SmallVec<[Dot; 2]>)>,
}

impl Plan {
    /// Whether some row changed since the plan, staged as batch `id`, was made.
    #[must_use]
    pub fn is_stale(&self, index: &Index, id: BatchId) -> bool {
        let moved = |(key, dots): &(RowKey, SmallVec<[Dot; 2]>)| {
            dots_of(&index.versions_before(*key, id)) != *dots
        };
        index.local_writes() != self.local_writes && self.basis.iter().any(moved)
    }

    /// The highest local transaction that a decision stands on: it must be durable
    /// in the outbox before this commits.
    #[must_use]
    pub fn stands_on(&self, region: RegionId) -> Option<Seq> {
        let dots = self.basis.iter().flat_map(|(_, dots)| dots);
        dots.filter(|dot| dot.origin == region).map(|dot| dot.seq).max()
    }

    /// Adds another plan of the same transaction, whose operations are done.
    pub fn join(&mut self, part: Self) {
        if self.basis.is_empty() {
            self.local_writes = part.local_writes;
        }
        self.writes.extend(part.writes);
        self.conflicts.extend(part.conflicts);
        self.basis.extend(part.basis);
    }

    /// Rows to write.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.tables.iter().map(|t| t.puts.len() + t.removes.len()).sum()
    }
}

fn dots_of(versions: &Versions) -> SmallVec<[Dot; 2]> {
    let mut dots: SmallVec<[Dot; 2]> = versions.iter().map(|v| v.dot).collect();
    dots.sort_unstable();
    dots
}

/// Why a transaction can't join the plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A row has no exact identity.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The table's shape changed: it belongs in a batch of its own.
    #[error("the shape of {0} changed")]
    Shape(String),
}

#[derive(Debug)]
struct RowState {
    versions: Versions,
    /// Its place in its table's operations.
    op: Option<usize>,
}

#[derive(Debug)]
enum Op {
    Put(Row),
    Remove(Row),
}

#[derive(Debug)]
struct TableOps {
    table: Table,
    key: Vec<usize>,
    ops: Vec<Op>,
}

/// Makes the plan of one batch.
#[derive(Debug)]
pub struct Planner<'a> {
    index: &'a Index,
    rows: HashMap<RowKey, RowState>,
    tables: Vec<TableOps>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    /// An empty batch over the versions known here.
    #[must_use]
    pub fn new(index: &'a Index) -> Self {
        let plan = Plan { local_writes: index.local_writes(), ..Plan::default() };
        Self { index, rows: HashMap::new(), tables: Vec::new(), plan }
    }

    /// Adds a transaction, after those added before.
    ///
    /// # Errors
    /// [`PlanError`]; the planner must then be thrown away.
    pub fn add(&mut self, txn: &Incoming<'_>) -> Result<(), PlanError> {
        for change in txn.changes {
            let Some(table) = &change.table else { continue };
            let at = self.table(table)?;
            for row in &change.rows {
                let key = |row| RowKey::of(&self.tables[at].table, &self.tables[at].key, row);
                match (&row.before, &row.after) {
                    (Some(before), Some(after)) => {
                        let (old, new) = (key(before)?, key(after)?);
                        if old != new {
                            self.write(txn, at, old, Op::Remove(before.clone()));
                        }
                        self.write(txn, at, new, Op::Put(after.clone()));
                    }
                    (None, Some(after)) => {
                        let new = key(after)?;
                        self.write(txn, at, new, Op::Put(after.clone()));
                    }
                    (Some(before), None) => {
                        let old = key(before)?;
                        self.write(txn, at, old, Op::Remove(before.clone()));
                    }
                    (None, None) => {}
                }
            }
        }
        Ok(())
    }

    /// The plan.
    #[must_use]
    pub fn finish(mut self) -> Plan {
        for ops in self.tables {
            let mut table = TablePlan { table: ops.table, removes: vec![], puts: vec![] };
            for op in ops.ops {
                match op {
                    Op::Put(row) => table.puts.push(row),
                    Op::Remove(row) => table.removes.push(row),
                }
            }
            if !(table.puts.is_empty() && table.removes.is_empty()) {
                self.plan.tables.push(table);
            }
        }
        self.plan
    }

    fn table(&mut self, table: &Table) -> Result<usize, PlanError> {
        let same_name =
            |ops: &TableOps| ops.table.name == table.name && ops.table.schema == table.schema;
        if let Some(at) = self.tables.iter().position(same_name) {
            if self.tables[at].table != *table {
                return Err(PlanError::Shape(table.full_name().to_string()));
            }
            return Ok(at);
        }
        let key = table.key_columns();
        self.tables.push(TableOps { table: table.clone(), key, ops: Vec::new() });
        Ok(self.tables.len() - 1)
    }

    fn write(&mut self, txn: &Incoming<'_>, table: usize, key: RowKey, op: Op) {
        let removed = matches!(op, Op::Remove(_));
        let version = Version { dot: txn.dot, hlc: txn.hlc, removed };
        let write = Write { key, version, deps: Arc::clone(txn.deps) };
        let state = match self.rows.entry(key) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(free) => {
                let versions = self.index.versions(key);
                self.plan.basis.push((key, dots_of(&versions)));
                free.insert(RowState { versions, op: None })
            }
        };
        let verdict = latest(&write, &state.versions);
        if verdict != Verdict::Follows {
            let concurrent = state.versions.iter().filter(|v| !write.saw(v));
            if let Some(best) = concurrent.max_by_key(|v| v.rank()) {
                self.plan.conflicts.push(Conflict {
                    table: self.tables[table].table.full_name().to_string(),
                    incoming: version,
                    existing: *best,
                    incoming_wins: verdict == Verdict::Wins,
                });
            }
        }
        write.enter(&mut state.versions);
        self.plan.writes.push(write);
        if verdict == Verdict::Loses {
            return;
        }
        let ops = &mut self.tables[table].ops;
        match state.op {
            Some(at) => ops[at] = op,
            None => {
                state.op = Some(ops.len());
                ops.push(op);
            }
        }
    }
}

#[cfg(test)]
mod tests;
