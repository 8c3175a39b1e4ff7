//! Transactions that go out in parts: one change a part. Each part is judged for itself
//! where rows stand or fall together, so those with such rows stay whole here.

use std::sync::Arc;

use super::region::Key;
use super::schema::{self, ID, Name};
use crate::change::{Dot, Record, RecordBody, RegionId, TableChange};
use crate::resolve::{Conflict, Earlier, Incoming, Plan, PlanError, Planner, Rulebook};
use crate::version::Index;

/// The parts of a transaction: of one in three each change by itself.
pub(super) fn parts(dot: Dot, changes: &[TableChange]) -> Vec<&[TableChange]> {
    if is_large(dot, changes) { changes.chunks(1).collect() } else { vec![changes] }
}

/// Whether it has parts, and is a batch by itself.
pub(super) fn is_large(dot: Dot, changes: &[TableChange]) -> bool {
    dot.seq.0.is_multiple_of(3) && changes.len() > 1 && changes.iter().all(stands_alone)
}

/// Whether several parts of it write the row.
pub(super) fn is_split(dot: Dot, changes: &[TableChange], (name, id): Key) -> bool {
    let writes = |change: &&TableChange| {
        let images = change.rows.iter().flat_map(|row| [&row.before, &row.after]);
        change.table.as_ref().map(schema::of) == Some(name)
            && images.flatten().any(|row| schema::int(row, ID) == Some(id))
    };
    is_large(dot, changes) && changes.iter().filter(writes).count() > 1
}

/// The orphans of which no other part of the child's transaction writes the child again. A
/// part is told by itself, whatever a later one does.
pub(super) fn told_whole<'a>(
    told: &[Conflict],
    logs: impl Fn(RegionId) -> &'a Vec<Arc<Record>>,
) -> Vec<Conflict> {
    let whole = |met: &&Conflict| {
        let Some(orphan) = met.orphan.as_deref() else { return false };
        let child = if orphan.child_came { &met.incoming } else { &met.existing };
        let Some(id) = schema::int(&orphan.child, ID) else { return true };
        let (key, dot) = ((schema::of(&orphan.child_table), id), child.version.dot);
        let mut records = logs(dot.origin).iter().filter(|record| record.seq == dot.seq);
        !records.any(|record| match &record.body {
            RecordBody::Transaction(txn) => is_split(dot, &txn.changes, key),
            RecordBody::Heartbeat(_) | RecordBody::Start(_) => false,
        })
    };
    told.iter().filter(whole).cloned().collect()
}

fn stands_alone(change: &TableChange) -> bool {
    let Some(table) = &change.table else { return false };
    let together = matches!(schema::of(table), Name::Unique | Name::Atomic | Name::AtomicToo);
    !together
        && change.rows.iter().all(|row| match (&row.before, &row.after) {
            (Some(before), Some(after)) => schema::int(before, ID) == schema::int(after, ID),
            (None, _) => true,
            // A row put back in a later part is not told from one that was changed.
            (_, None) => false,
        })
}

/// The plan of all parts, each made after those before it.
pub(super) fn plan(index: &Index, book: &Rulebook, txn: &Incoming<'_>) -> Result<Plan, PlanError> {
    let (mut whole, mut earlier) = (Plan::default(), Earlier::default());
    for changes in parts(txn.dot, txn.changes) {
        let mut planner = Planner::new(index, book).after(&earlier);
        planner.add(&Incoming { changes, ..*txn })?;
        let mut part = planner.finish();
        earlier.take(&part);
        whole.tables.append(&mut part.tables);
        whole.join(part);
    }
    Ok(whole)
}
