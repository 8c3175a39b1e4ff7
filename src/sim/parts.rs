//! Transactions that go out in parts: one change a part. Each part is judged for itself
//! where rows stand or fall together, so those with such rows stay whole here.

use std::sync::Arc;

use super::schema::{self, ID, Name};
use crate::change::{Dot, Record, RecordBody, TableChange};
use crate::resolve::{Earlier, Incoming, Plan, PlanError, Planner, Rulebook};
use crate::version::Index;

/// The parts of a transaction: of one in three each change by itself.
pub(super) fn parts(dot: Dot, changes: &[TableChange]) -> Vec<&[TableChange]> {
    if is_large(dot, changes) { changes.chunks(1).collect() } else { vec![changes] }
}

/// Whether it has parts, and is a batch by itself.
pub(super) fn is_large(dot: Dot, changes: &[TableChange]) -> bool {
    dot.seq.0.is_multiple_of(3) && changes.len() > 1 && changes.iter().all(stands_alone)
}

/// The same of the transaction that stands in this log.
pub(super) fn was_large(log: &[Arc<Record>], dot: Dot) -> bool {
    log.iter().filter(|record| record.seq == dot.seq).any(|record| match &record.body {
        RecordBody::Transaction(txn) => is_large(dot, &txn.changes),
        RecordBody::Heartbeat(_) | RecordBody::Start(_) => false,
    })
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
