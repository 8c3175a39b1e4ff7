//! From a transaction's changes to its writes: what capture enters as local, the
//! applier plans and a restart reads again is made here, so that it is the same.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use super::{Allow, Incoming, Policy, Rulebook};
use crate::change::{Row, RowChange, Table};
use crate::version::{Action, Body, Foreign, KeyError, Released, RowKey, Touch, Version, Write};

/// One write with what its row was and is.
#[derive(Clone, Debug)]
pub struct Touched<'a> {
    /// What enters the index.
    pub write: Write,
    /// The row's table.
    pub table: Arc<Table>,
    /// The table's policy.
    pub policy: Arc<Policy>,
    /// The row before, if it was there.
    pub before: Option<&'a Row>,
    /// The row after, if it is there.
    pub after: Option<&'a Row>,
}

impl Touched<'_> {
    /// Whether the table's policy takes no such write from anybody.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.policy.allow == Allow::Inserts && self.write.version.action != Action::Insert
    }
}

/// Which rows of a transaction win or lose together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Group {
    /// A row that changed its key, and those that changed it with it.
    Moved,
    /// All rows of tables under one number.
    Atomic(u16),
}

/// All that a transaction did to one row.
struct Joined<'a> {
    touch: Touch<'a>,
    table: Arc<Table>,
    policy: Arc<Policy>,
    group: Option<Group>,
    is_kept: bool,
}

/// The writes of a transaction, or of one part of it: one for each row, in the order in
/// which they were first written, and those that are kept last.
///
/// # Errors
/// [`KeyError`] for a row without an exact identity.
pub fn touched<'a>(book: &Rulebook, txn: &Incoming<'a>) -> Result<Vec<Touched<'a>>, KeyError> {
    let moved = moved(txn)?;
    let mut joined: Vec<Joined<'a>> = Vec::new();
    let mut places: HashMap<RowKey, usize> = HashMap::new();
    for change in txn.changes {
        let (table, policy) = book.of(&change.table);
        let key = table.key_columns();
        let keeps = policy.keeps(&table);
        for row in &change.rows {
            for touch in RowKey::touched(&table, &key, row)? {
                if let Some(&at) = places.get(&touch.key) {
                    joined[at].touch.after = touch.after;
                    continue;
                }
                places.insert(touch.key, joined.len());
                let group = match policy.atomic {
                    Some(number) => Some(Group::Atomic(number)),
                    None => (moved.contains(&touch.key) && policy.groups()).then_some(Group::Moved),
                };
                let (table, policy) = (Arc::clone(&table), Arc::clone(&policy));
                let is_kept = keeps || group.is_some();
                joined.push(Joined { touch, table, policy, group, is_kept });
            }
        }
    }
    // What was not there before and is not after was never seen.
    joined.retain(|one| one.touch.before.is_some() || one.touch.after.is_some());
    let (kept, plain): (Vec<_>, Vec<_>) = joined.into_iter().partition(|one| one.is_kept);
    let mut groups: HashMap<Group, Vec<RowKey>> = HashMap::new();
    for Joined { touch, group, .. } in &kept {
        if let Some(group) = group {
            groups.entry(*group).or_default().push(touch.key);
        }
    }
    let groups: HashMap<Group, Arc<[RowKey]>> = groups
        .into_iter()
        .filter(|(_, keys)| keys.len() > 1)
        .map(|(group, keys)| (group, keys.into()))
        .collect();
    let plain = plain.into_iter().map(|one| write(txn, one.touch, (&one.table, &one.policy), None));
    let kept = kept.into_iter().map(|one| {
        let group = one.group.and_then(|group| groups.get(&group).cloned());
        let body = Body {
            before: one.touch.before.cloned(),
            after: one.touch.after.cloned(),
            group,
            claims: claims(&one.table, one.touch.after),
            adds_up: one.policy.merge.is_some(),
            table: Arc::clone(&one.table),
        };
        write(txn, one.touch, (&one.table, &one.policy), Some(Arc::new(body)))
    });
    Ok(plain.chain(kept).collect())
}

/// The keys that rows moved from or to.
fn moved(txn: &Incoming<'_>) -> Result<HashSet<RowKey>, KeyError> {
    let mut moved = HashSet::new();
    for change in txn.changes {
        let table = &change.table;
        let key = table.key_columns();
        for row in change.rows.iter().filter(|row| moves(&key, row)) {
            let touched = RowKey::touched(table, &key, row)?;
            moved.extend(touched.iter().filter(|touch| touch.moved).map(|touch| touch.key));
        }
    }
    Ok(moved)
}

/// Whether a row has another key after the change, or spells its own in another way; `key` is
/// the places of the primary key's columns.
#[must_use]
pub fn moves(key: &[usize], row: &RowChange) -> bool {
    let (Some(before), Some(after)) = (&row.before, &row.after) else { return false };
    key.iter().any(|&at| before.values.get(at) != after.values.get(at))
}

fn claims(table: &Table, after: Option<&Row>) -> SmallVec<[RowKey; 1]> {
    let Some(row) = after else { return SmallVec::new() };
    let keys = table.unique_keys.iter();
    keys.filter_map(|key| {
        let columns: Option<Vec<usize>> =
            key.columns.iter().map(|&at| usize::try_from(at).ok()).collect();
        RowKey::claim(table, &columns?, row)
    })
    .collect()
}

/// What a write has to do with rows of other tables.
fn foreign(table: &Arc<Table>, touch: &Touch<'_>) -> Option<Foreign> {
    if table.foreign_keys.is_empty() && table.unique_keys.is_empty() {
        return None;
    }
    let keys = table.foreign_keys.iter().enumerate();
    let references: SmallVec<[(usize, RowKey); 1]> =
        touch.after.map_or_else(SmallVec::new, |row| {
            keys.filter_map(|(n, key)| Some((n, RowKey::referenced(table, key, row)?))).collect()
        });
    let released = released(table, touch);
    if references.is_empty() && released.is_empty() {
        return None;
    }
    let mut places: SmallVec<[usize; 4]> = table.key_columns().into();
    let columns = table.foreign_keys.iter().flat_map(|key| &key.columns);
    places.extend(columns.filter_map(|&at| usize::try_from(at).ok()));
    places.sort_unstable();
    places.dedup();
    let row = touch.after.or(touch.before)?;
    let held = places.into_iter().filter_map(|at| Some((at, row.values.get(at)?.compact())));
    Some(Foreign { table: Arc::clone(table), held: held.collect(), references, released })
}

fn released(table: &Table, touch: &Touch<'_>) -> SmallVec<[Released; 1]> {
    let Some(before) = touch.before else { return SmallVec::new() };
    let released = table.unique_keys.iter().filter_map(|key| {
        let columns = key.columns.iter().map(|&at| usize::try_from(at).ok());
        let columns: SmallVec<[usize; 4]> = columns.collect::<Option<_>>()?;
        let value = RowKey::value(table, &columns, before)?;
        if touch.after.and_then(|row| RowKey::value(table, &columns, row)) == Some(value) {
            return None;
        }
        Some(Released { value, claim: RowKey::claim(table, &columns, before)? })
    });
    released.collect()
}

fn write<'a>(
    txn: &Incoming<'a>,
    touch: Touch<'a>,
    (table, policy): (&Arc<Table>, &Arc<Policy>),
    body: Option<Arc<Body>>,
) -> Touched<'a> {
    let action = Action::of(touch.before.is_some(), touch.after.is_some());
    let version = Version { dot: txn.dot, hlc: txn.hlc, action };
    let foreign = foreign(table, &touch).map(Arc::new);
    let write = Write { key: touch.key, version, deps: Arc::clone(txn.deps), body, foreign };
    let (table, policy) = (Arc::clone(table), Arc::clone(policy));
    Touched { write, table, policy, before: touch.before, after: touch.after }
}
