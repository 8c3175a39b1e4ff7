//! Rows whose columns have rules of their own: sums, and groups resolved apart.
//!
//! The last delete, by stamp, is the floor: what is older than it is gone, what is
//! later stands on nothing. Without a floor a change is relative to the row that is
//! there, whatever it holds: so it needs no reading of that row, and applies in any
//! order.

use super::align::{self, Lacks, Unlike};
use super::plan::MergeRow;
use super::{ColumnGroup, Contest, Merge, Number, Order, Outcome, Policy};
use crate::change::{Row, Table, Value};
use crate::mutant::{self, Mutant};
use crate::version::{Body, Write};

/// What a write makes of its row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    Put(Row),
    Remove(Row),
    Merge(MergeRow),
}

/// A kept write with its body.
type Held<'a> = (&'a Write, &'a Body);

fn held(history: &[Write]) -> Vec<Held<'_>> {
    history.iter().filter_map(|write| Some((write, write.body.as_deref()?))).collect()
}

/// The last delete, by stamp.
fn last_delete<'a>(held: &[Held<'a>]) -> Option<Held<'a>> {
    let deletes = held.iter().copied().filter(|(_, body)| body.after.is_none());
    deletes.max_by_key(|(write, _)| write.version.rank())
}

/// What is later than that.
fn above<'a>(held: &[Held<'a>], (floor, _): Held<'_>) -> Vec<Held<'a>> {
    let rank = floor.version.rank();
    held.iter().copied().filter(|(write, _)| write.version.rank() > rank).collect()
}

/// What `write`, which `history` holds with all others of its row, makes of it. `None`
/// when a sum has too many digits or a column is no exact number.
pub(super) fn effect(
    merge: &Merge,
    table: &Table,
    (history, lacks): (&[Write], &Lacks),
    write: Held<'_>,
) -> Option<Effect> {
    let held = held(history);
    let floor = last_delete(&held)
        .filter(|_| !(mutant::is(Mutant::DeltaIgnoresDeletes) && write.1.after.is_some()));
    let groups = || merge.groups.iter().cloned().chain([Policy::rest(merge, table)]);
    let Some(floor) = floor else {
        return relative(merge, table, (&held, lacks), write).map(Effect::Merge);
    };
    let live = above(&held, floor);
    let Some((_, last)) = live.iter().max_by_key(|(w, _)| w.version.rank()) else {
        return Some(Effect::Remove(floor.1.before.clone()?));
    };
    let mut row = last.after.clone()?;
    for &at in &merge.deltas {
        let mut sum = Number::ZERO;
        for (_, body) in &live {
            sum = sum.plus(change(body, at)?)?;
        }
        row.values[at] = sum.to_value(&row.values[at])?;
    }
    for group in groups() {
        for ((_, winner), columns) in winners(group, &live, lacks) {
            copy(&mut row, winner.after.as_ref()?, &columns);
        }
    }
    Some(Effect::Put(row))
}

/// The change to a row that is there, or to nothing.
fn relative(
    merge: &Merge,
    table: &Table,
    (held, lacks): (&[Held<'_>], &Lacks),
    (_, body): Held<'_>,
) -> Option<MergeRow> {
    let mut row = body.after.clone()?;
    let (mut set, mut add) = (Vec::new(), Vec::new());
    let groups = merge.groups.iter().cloned().chain([Policy::rest(merge, table)]);
    for group in groups.filter(|group| touches(body, &group.columns)) {
        for ((_, winner), columns) in winners(group, held, lacks) {
            copy(&mut row, winner.after.as_ref()?, &columns);
            set.extend(columns);
        }
    }
    for &at in &merge.deltas {
        let change = change(body, at)?;
        if mutant::is(Mutant::DeltaSets) {
            set.push(at);
        } else if !change.is_zero() {
            add.push((at, change));
        }
    }
    Some(MergeRow { row, insert: body.before.is_none(), set, add })
}

/// The row that the base left, with what the writes of `history` made of it that its author
/// had not seen, in any order. `None` as with [`effect`].
pub(super) fn onto(
    merge: &Merge,
    history: &[Write],
    (_, base): Held<'_>,
    unseen: impl Fn(&&Write) -> bool,
) -> Option<Row> {
    let held = held(history);
    let rest: Vec<&Body> = held.iter().filter(|(w, _)| unseen(w)).map(|&(_, body)| body).collect();
    let mut row = base.after.clone()?;
    let groups = merge.groups.iter().cloned().chain([Policy::rest(merge, &base.table)]);
    for group in groups.filter(|group| rest.iter().any(|body| touches(body, &group.columns))) {
        let (_, winner) = winner(&group, &held)?;
        copy(&mut row, winner.after.as_ref()?, &group.columns);
    }
    for &at in &merge.deltas {
        let value: &mut Value = row.values.get_mut(at)?;
        *value = added(value, at, &rest)?;
    }
    Some(row)
}

/// Whether `next` found the row that `first`, of the same region, had left, with what the
/// writes between them made of it. `None` as with [`effect`].
pub(super) fn follows(
    merge: &Merge,
    (first, next): (&Body, &Body),
    between: &[&Body],
) -> Option<bool> {
    let left = first.after.as_ref()?;
    let Some(found) = &next.before else { return Some(false) };
    for group in merge.groups.iter().cloned().chain([Policy::rest(merge, &first.table)]) {
        let changed = between.iter().any(|body| touches(body, &group.columns));
        if !changed && !Policy::same(left, found, &group.columns) {
            return Some(false);
        }
    }
    for &at in &merge.deltas {
        let sum = added(left.values.get(at)?, at, between)?;
        if found.values.get(at) != Some(&sum) {
            return Some(false);
        }
    }
    Some(true)
}

/// A column's value with what these writes add to it.
fn added(value: &Value, at: usize, writes: &[&Body]) -> Option<Value> {
    let mut sum = Number::ZERO;
    for body in writes {
        sum = sum.plus(change(body, at)?)?;
    }
    if sum.is_zero() {
        return Some(value.clone());
    }
    Number::of(value)?.plus(sum)?.to_value(value)
}

fn copy(row: &mut Row, from: &Row, columns: &[usize]) {
    for &at in columns {
        if let (Some(to), Some(value)) = (row.values.get_mut(at), from.values.get(at)) {
            to.clone_from(value);
        }
    }
}

/// What a write adds to a column: an insert all of its value.
fn change(body: &Body, at: usize) -> Option<Number> {
    let of = |row: &Option<Row>| {
        row.as_ref().and_then(|row| row.values.get(at)).map_or(Some(Number::ZERO), Number::of)
    };
    of(&body.after)?.minus(of(&body.before)?)
}

fn touches(body: &Body, columns: &[usize]) -> bool {
    match (&body.before, &body.after) {
        (Some(before), Some(after)) => !Policy::same(before, after, columns),
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

/// The write that a group of columns takes its values from. Of each region its last one
/// stands for all: it had seen the earlier ones, and what they had seen.
fn winner<'a>(group: &ColumnGroup, held: &[Held<'a>]) -> Option<Held<'a>> {
    let mut touching: Vec<Held<'a>> = Vec::new();
    for &one in held.iter().filter(|(_, body)| touches(body, &group.columns)) {
        let dot = one.0.version.dot;
        match touching.iter_mut().find(|(w, _)| w.version.dot.origin == dot.origin) {
            Some(last) if last.0.version.dot.seq <= dot.seq => *last = one,
            Some(_) => {}
            None => touching.push(one),
        }
    }
    let survives = |write: &Write| {
        !touching.iter().any(|(w, _)| w.version.dot != write.version.dot && w.saw(&write.version))
    };
    let survivors = touching.iter().copied().filter(|(w, _)| survives(w));
    survivors.max_by_key(|(w, body)| group.order.rank(&w.version, Some(body)))
}

/// The writes that a group of columns takes its values from, each with its columns: one for
/// all, but for columns that some who changed the group did not have.
fn winners<'a>(
    group: ColumnGroup,
    held: &[Held<'a>],
    lacks: &Lacks,
) -> Vec<(Held<'a>, Vec<usize>)> {
    if lacks.is_empty() {
        return winner(&group, held).map(|winner| (winner, group.columns)).into_iter().collect();
    }
    let touching = || held.iter().filter(|(_, body)| touches(body, &group.columns));
    let has = |(write, _): &Held<'_>, at: &usize| {
        lacks.get(&write.version.dot).is_none_or(|lacking| !lacking.contains(at))
    };
    let (common, rare): (Vec<usize>, Vec<usize>) =
        group.columns.iter().partition(|at| touching().all(|held| has(held, at)));
    let one = winner(&group, held).map(|winner| (winner, common));
    let apart = rare.into_iter().filter_map(|at| {
        let having = touching().copied().filter(|held| has(held, &at));
        Some((winner(&group, &having.collect::<Vec<_>>())?, vec![at]))
    });
    one.into_iter().chain(apart).collect()
}

/// An effect on a row of one table as that on a row of another, with its columns and
/// perhaps more.
pub(super) fn relaid(effect: Effect, from: &Table, to: &Table) -> Result<Effect, Unlike> {
    if align::is_laid_out(from, to) {
        return Ok(effect);
    }
    let row = |row: &Row| align::relaid(row, from, to);
    Ok(match effect {
        Effect::Put(held) => Effect::Put(row(&held)?),
        Effect::Remove(held) => Effect::Remove(row(&held)?),
        Effect::Merge(MergeRow { row: held, insert, set, add }) => {
            let place = |at: usize| to.place(&from.columns.get(at)?.name);
            let set = set.into_iter().filter_map(place).collect();
            let add = add.into_iter().filter_map(|(at, sum)| Some((place(at)?, sum))).collect();
            Effect::Merge(MergeRow { row: row(&held)?, insert, set, add })
        }
    })
}

/// Whether a write does not show in all of these columns, nor will, or a later one shows the
/// same in them. A later delete takes it away; one that had seen it and changed what it left
/// stands in for it, whatever comes; and so, where a group's order follows the stamps, does
/// any later one that wins the group, and leaves other values there. What an earlier one left
/// there may go with a delete between the two that is yet to come, and a group whose order
/// does not follow causality may yet fall back to a write that touched it.
pub(super) fn loses(
    merge: &Merge,
    table: &Table,
    (history, (write, body)): (&[Write], Held<'_>),
    columns: &[usize],
) -> bool {
    let rank = write.version.rank();
    let held = held(history);
    let floor = last_delete(&held);
    if floor.is_some_and(|(floor, _)| floor.version.rank() > rank) {
        return true;
    }
    let Some(after) = body.after.as_ref().filter(|_| !mutant::is(Mutant::OrphanOfLoser)) else {
        return false;
    };
    let live = floor.map_or_else(|| held.clone(), |floor| above(&held, floor));
    let later = |(w, _): &&Held<'_>| w.version.rank() > rank;
    let leaves_same = |(_, body): &Held<'_>, columns: &[usize]| {
        body.after.as_ref().is_some_and(|left| Policy::same(left, after, columns))
    };
    let next: Vec<Held<'_>> =
        live.iter().filter(later).filter(|(w, _)| w.saw(&write.version)).copied().collect();
    if next.iter().any(|held| leaves_same(held, columns)) {
        return true;
    }
    // As in `effect`: above a delete the last write makes the row.
    let last = live.iter().copied().filter(|_| floor.is_some());
    let last = last.max_by_key(|(w, _)| w.version.rank());
    let mut groups = merge.groups.iter().cloned().chain([Policy::rest(merge, table)]);
    groups.any(|group| {
        let shared: Vec<usize> =
            group.columns.iter().copied().filter(|at| columns.contains(at)).collect();
        let touching = next.iter().filter(|(_, body)| touches(body, &group.columns));
        let settled = group.order == Order::Latest || !touches(body, &group.columns);
        let winner = winner(&group, &live).or(last).filter(|held| later(&held) && settled);
        touching.copied().chain(winner).any(|held| !leaves_same(&held, &shared))
    })
}

/// Joins a later effect on a row with an earlier one of the same batch. `None` when a
/// sum does not fit.
pub(super) fn join(earlier: Effect, later: Effect) -> Option<Effect> {
    let Effect::Merge(later) = later else { return Some(later) };
    match earlier {
        Effect::Put(mut row) => {
            copy(&mut row, &later.row, &later.set);
            for (at, change) in later.add {
                let value: &mut Value = row.values.get_mut(at)?;
                *value = Number::of(value)?.plus(change)?.to_value(value)?;
            }
            Some(Effect::Put(row))
        }
        Effect::Merge(mut row) => {
            row.insert |= later.insert;
            copy(&mut row.row, &later.row, &later.set);
            for at in later.set {
                if !row.set.contains(&at) {
                    row.set.push(at);
                }
            }
            for (at, change) in later.add {
                let value = row.row.values.get_mut(at)?;
                *value = Number::of(value)?.plus(change)?.to_value(value)?;
                match row.add.iter_mut().find(|(held, _)| *held == at) {
                    Some((_, held)) => *held = held.plus(change)?,
                    None => row.add.push((at, change)),
                }
            }
            Some(Effect::Merge(row))
        }
        // The row was gone: what comes stands on nothing.
        Effect::Remove(_) => Some(Effect::Put(later.row)),
    }
}

/// What a write that leaves a row meets in it, beside sums: of what is concurrent with it
/// the last delete, unless somebody had seen the row go and put it back, and of each group of
/// columns that it changes the write that holds these.
pub(super) fn met<'a>(
    merge: &Merge,
    table: &Table,
    history: &'a [Write],
    (write, body): (&Write, &Body),
) -> Vec<(Held<'a>, Outcome)> {
    let concurrent = |(held, _): &Held<'_>| !write.saw(&held.version);
    let held: Vec<Held<'_>> = held(history).into_iter().filter(concurrent).collect();
    let mut found: Vec<(Held<'_>, Outcome)> = Vec::new();
    let mut live = held.clone();
    if let Some(floor) = last_delete(&held) {
        if floor.0.version.rank() > write.version.rank() {
            return vec![(floor, Outcome::Existing)];
        }
        live = above(&held, floor);
        if !live.iter().any(|(later, _)| later.saw(&floor.0.version)) {
            found.push((floor, Outcome::Incoming));
        }
    }
    let groups = merge.groups.iter().cloned().chain([Policy::rest(merge, table)]);
    for group in groups.filter(|group| touches(body, &group.columns)) {
        let Some(other) = winner(&group, &live) else { continue };
        let rank = |write: &Write, body| group.order.rank(&write.version, Some(body));
        let incoming_wins = match mutant::is(Mutant::ContestByStamp) {
            true => write.version.rank() > other.0.version.rank(),
            false => rank(write, body) > rank(other.0, other.1),
        };
        let policy = group.order.name();
        let contest = Contest { columns: group.columns, policy, incoming_wins };
        let same = |(held, _): &&mut (Held<'_>, Outcome)| held.0.version.dot == other.0.version.dot;
        match found.iter_mut().find(same) {
            Some((_, Outcome::Columns(contests))) => contests.push(contest),
            _ => found.push((other, Outcome::Columns(vec![contest]))),
        }
    }
    found
}
