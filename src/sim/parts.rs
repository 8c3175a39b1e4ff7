//! Transactions that go out in parts: one change a part.

use std::borrow::Cow;

use super::region::Key;
use super::schema::{self, ID};
use crate::change::{Dot, TableChange};
use crate::resolve::{
    Earlier, Gather, Incoming, Parts, Picked, Plan, PlanError, Planner, Rulebook, Touched, touched,
};
use crate::version::{Index, Write};

/// Whether it has parts, and is a batch by itself: one in three of several changes.
pub(super) fn is_large(dot: Dot, changes: &[TableChange]) -> bool {
    dot.seq.0.is_multiple_of(3) && changes.len() > 1
}

/// What is judged together of a transaction, one after the other.
fn judged<'a>(
    book: &Rulebook,
    dot: Dot,
    changes: &'a [TableChange],
) -> Vec<Cow<'a, [TableChange]>> {
    let size = if is_large(dot, changes) { 1 } else { changes.len().max(1) };
    let (mut parts, count) = (Parts::default(), changes.chunks(size).len());
    let chunks = changes.chunks(size).enumerate();
    let taken = chunks.map(|(n, part)| parts.take(book, part, n + 1 == count));
    taken.collect::<Result<_, _>>().expect("simulated keys are exact")
}

/// What `of` makes of the writes that are judged together, one after the other.
fn each<T>(book: &Rulebook, txn: &Incoming<'_>, of: impl Fn(Vec<Touched<'_>>) -> Vec<T>) -> Vec<T> {
    let judged = judged(book, txn.dot, txn.changes).into_iter();
    let each = judged.flat_map(|changes| {
        let touched = touched(book, &Incoming { changes: &changes, ..*txn });
        of(touched.expect("simulated keys are exact"))
    });
    each.collect()
}

/// The writes of a transaction.
pub(super) fn writes(book: &Rulebook, txn: &Incoming<'_>) -> Vec<Write> {
    let of = |touched: Vec<Touched<'_>>| touched.into_iter().map(|one| one.write).collect();
    let mut writes = each(book, txn, of);
    Parts::settle(&mut writes);
    writes
}

/// What is of interest of it.
pub(super) fn picked(book: &Rulebook, txn: &Incoming<'_>, gather: &Gather) -> Vec<Picked> {
    each(book, txn, |touched| gather.pick(&touched))
}

/// The plan of all parts, each made after those before it.
pub(super) fn plan(index: &Index, book: &Rulebook, txn: &Incoming<'_>) -> Result<Plan, PlanError> {
    let (mut whole, mut earlier) = (Plan::default(), Earlier::default());
    let all = judged(book, txn.dot, txn.changes);
    for (n, changes) in all.iter().enumerate() {
        let mut planner = Planner::new(index, book).part(&earlier, n + 1 == all.len());
        planner.add(&Incoming { changes, ..*txn })?;
        let mut part = planner.finish();
        earlier.take(&mut part);
        whole.tables.append(&mut part.tables);
        whole.join(part);
    }
    Parts::settle(&mut whole.writes);
    Ok(whole)
}

/// Whether a row is judged more than once: with each part that writes it while nothing of it
/// is kept, and, should it change its key, with the last one.
pub(super) fn is_split(dot: Dot, changes: &[TableChange], key: Key) -> bool {
    let ids = |change: &TableChange| -> Vec<Option<i64>> {
        let images = change.rows.iter().flat_map(|row| [&row.before, &row.after]);
        images.flatten().map(|row| schema::int(row, ID)).collect()
    };
    let of = |change: &&TableChange| {
        schema::of(&change.table) == key.0 && ids(change).contains(&Some(key.1))
    };
    let moves = |change: &TableChange| {
        let ids = ids(change);
        ids.windows(2).any(|pair| pair[0] != pair[1])
    };
    let writes: Vec<&TableChange> = changes.iter().filter(of).collect();
    let alone = writes.iter().position(|change| moves(change)).unwrap_or(writes.len());
    is_large(dot, changes) && key.0.is_plain() && alone > 0 && writes.len() > 1
}
