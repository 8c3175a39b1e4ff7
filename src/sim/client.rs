//! A region's database as its clients and the applier write it.

use std::collections::{BTreeMap, BTreeSet};

use super::invariants::rows_found;
use super::region::{Key, Region};
use super::schema::{self, A, B, ID, N, Name, U};
use super::script::Op;
use crate::change::{Kind, Row, RowChange, TableChange, Value};
use crate::resolve::{MergeRow, Number, Plan};

type Rows = BTreeMap<Key, Row>;

/// What a batch in flight holds: rows, and unique values.
struct Locks {
    rows: BTreeSet<Key>,
    values: BTreeSet<i64>,
    /// As they will be.
    made: Vec<(Name, Row)>,
}

/// Whether a row references this value, or a batch in flight makes one that does: the
/// database refuses to let it go.
fn is_referenced(rows: &Rows, locks: &Locks, (parent, column): (Name, usize), value: i64) -> bool {
    let made = locks.made.iter().map(|(name, row)| (*name, row));
    let mut all = rows.iter().map(|((name, _), row)| (*name, row)).chain(made);
    all.any(|(name, row)| {
        name.references().iter().any(|&(at, target, there)| {
            (target, there) == (parent, column) && schema::int(row, at) == Some(value)
        })
    })
}

/// Whether the rows are there that a new row references.
fn has_parents(rows: &Rows, locks: &Locks, name: Name, before: Option<&Row>, row: &Row) -> bool {
    name.references().iter().all(|&(at, parent, column)| {
        let value = schema::int(row, at);
        let Some(value) = value.filter(|_| before.is_none_or(|b| schema::int(b, at) != value))
        else {
            return true;
        };
        let (id, locked) = match column {
            U => (holder(rows, value), locks.values.contains(&value)),
            _ => (rows.contains_key(&(parent, value)).then_some(value), false),
        };
        id.is_some_and(|id| !locked && !locks.rows.contains(&(parent, id)))
    })
}

/// Runs a transaction as far as the database lets it; commits when something is left.
pub(super) fn commit(region: &mut Region, ops: &[Op], now_us: u64) {
    let locks =
        Locks { rows: region.locked(), values: region.locked_values(), made: region.in_flight() };
    let mut changes = Vec::new();
    for op in ops {
        match *op {
            Op::Write { table, id, a, b, n, u } => {
                changes.extend(write(&mut region.rows, &locks, (table, id), (a, b, n, u)));
            }
            Op::Delete { table, id } if may_go(&region.rows, &locks, (table, id)) => {
                let before = region.rows.remove(&(table, id));
                changes.extend(before.map(|row| change(table, Some(row), None)));
            }
            Op::Move { table, id, to } => {
                changes.extend(shift(&mut region.rows, &locks, table, id, to))
            }
            Op::Swap { id, with } => changes.extend(swap(&mut region.rows, &locks, id, with)),
            Op::Delete { .. } => {}
        }
    }
    if !changes.is_empty() {
        region.committed(changes, now_us);
    }
}

/// Whether a row's key and unique value can go.
fn may_go(rows: &Rows, locks: &Locks, key: Key) -> bool {
    let value = rows.get(&key).and_then(|row| schema::int(row, U));
    !locks.rows.contains(&key)
        && !is_referenced(rows, locks, (key.0, ID), key.1)
        && !value.is_some_and(|value| is_referenced(rows, locks, (key.0, U), value))
}

pub(super) fn change(name: Name, before: Option<Row>, after: Option<Row>) -> TableChange {
    TableChange { table: name.table(), rows: vec![RowChange { before, after }] }
}

/// The row that holds a unique value.
fn holder(rows: &Rows, value: i64) -> Option<i64> {
    let mut held = rows.iter().filter(|((name, _), _)| *name == Name::Unique);
    held.find(|(_, row)| schema::int(row, U) == Some(value)).map(|((_, id), _)| *id)
}

fn write(
    rows: &mut Rows,
    locks: &Locks,
    key: Key,
    (a, b, n, u): (Option<i64>, Option<i64>, i64, i64),
) -> Option<TableChange> {
    let (table, id) = key;
    let before = rows.get(&key).cloned();
    let held = |at| before.as_ref().and_then(|row| schema::int(row, at));
    let u = if u < 0 { held(U) } else { (u > 0).then_some(u) };
    let u = u.filter(|_| table == Name::Unique);
    let taken = u.is_some_and(|u| {
        holder(rows, u).is_some_and(|holder| holder != id)
            || held(U) != Some(u) && locks.values.contains(&u)
    });
    if taken || locks.rows.contains(&key) {
        return None;
    }
    let values = [Some(id), a.or(held(A)), b.or(held(B)), Some(n + held(N).unwrap_or(0)), u];
    let after = schema::row(values);
    if before.as_ref() == Some(&after) {
        return None;
    }
    let kept = held(U).is_none_or(|held| u == Some(held))
        || !is_referenced(rows, locks, (table, U), held(U).unwrap_or(0));
    if !kept || !has_parents(rows, locks, table, before.as_ref(), &after) {
        return None;
    }
    rows.insert(key, after.clone());
    Some(change(table, before, Some(after)))
}

fn shift(rows: &mut Rows, locks: &Locks, table: Name, id: i64, to: i64) -> Option<TableChange> {
    let (old, new) = ((table, id), (table, to));
    if rows.contains_key(&new) || locks.rows.contains(&old) || locks.rows.contains(&new) {
        return None;
    }
    if is_referenced(rows, locks, (table, ID), id) {
        return None;
    }
    let before = rows.remove(&old)?;
    let mut after = before.clone();
    after.values[ID] = Value::new(Kind::Int(to));
    rows.insert(new, after.clone());
    Some(change(table, Some(before), Some(after)))
}

/// By way of NULL, as SQL has to.
fn swap(rows: &mut Rows, locks: &Locks, id: i64, with: i64) -> Vec<TableChange> {
    let (one, other) = ((Name::Unique, id), (Name::Unique, with));
    let (Some(a), Some(b)) = (rows.get(&one).cloned(), rows.get(&other).cloned()) else {
        return Vec::new();
    };
    let referenced = [&a, &b]
        .iter()
        .filter_map(|row| schema::int(row, U))
        .any(|value| is_referenced(rows, locks, (Name::Unique, U), value));
    if id == with || referenced || locks.rows.contains(&one) || locks.rows.contains(&other) {
        return Vec::new();
    }
    let with_value = |row: &Row, value: Value| {
        let mut row = row.clone();
        row.values[U] = value;
        row
    };
    let bare = with_value(&a, Value::NULL);
    let (new_a, new_b) = (with_value(&a, b.values[U].clone()), with_value(&b, a.values[U].clone()));
    rows.insert(one, new_a.clone());
    rows.insert(other, new_b.clone());
    vec![
        change(Name::Unique, Some(a), Some(bare.clone())),
        change(Name::Unique, Some(b), Some(new_b)),
        change(Name::Unique, Some(bare), Some(new_a)),
    ]
}

/// The row that a merge leaves; `None` when a sum does not fit.
pub(super) fn merged(held: Option<&Row>, merge: &MergeRow) -> Option<Row> {
    let Some(mut row) = held.cloned() else { return Some(merge.row.clone()) };
    for &at in &merge.set {
        row.values[at] = merge.row.values[at].clone();
    }
    for &(at, add) in &merge.add {
        let sum = Number::of(&row.values[at])?.plus(add)?;
        row.values[at] = sum.to_value(&Value::new(Kind::Int(0)))?;
    }
    Some(row)
}

/// Runs a plan as the applier's statements would. An error is what the server would
/// refuse.
pub(super) fn run_plan(rows: &mut Rows, plan: &Plan) -> Result<(), String> {
    for table in &plan.tables {
        let name = schema::of(&table.table);
        let key = |row: &Row| (name, schema::int(row, ID).expect("a key"));
        rows_found::check(rows, table)?;
        for row in &table.removes {
            rows.remove(&key(row));
        }
        // As src/apply/sql.rs does where there are further unique keys.
        for row in table.puts.iter().filter(|_| name == Name::Unique) {
            rows.remove(&key(row));
        }
        for row in &table.puts {
            if name == Name::Unique
                && let Some(value) = schema::int(row, U)
                && let Some(id) = holder(rows, value)
            {
                return Err(format!("a stream halts: rows {id} and {row:?} both hold {value}"));
            }
            rows.insert(key(row), row.clone());
        }
        for merge in table.merges.iter().filter(|merge| merge.writes()) {
            let key = key(&merge.row);
            let row = merged(rows.get(&key), merge).ok_or("a sum does not fit")?;
            rows.insert(key, row);
        }
    }
    Ok(())
}
