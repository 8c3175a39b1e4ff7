//! From a transaction's changes to its writes: what capture enters as local, the
//! applier plans and a restart reads again is made here, so that it is the same.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use super::{Allow, Incoming, Policy, Rulebook};
use crate::change::{Row, Table};
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

struct Kept<'a> {
    touch: Touch<'a>,
    table: Arc<Table>,
    policy: Arc<Policy>,
    group: Option<Group>,
}

/// The writes of a transaction, or of one part of it. Rows that are kept come last,
/// once each; the others as often as they were written, in that order.
///
/// # Errors
/// [`KeyError`] for a row without an exact identity.
pub fn touched<'a>(book: &Rulebook, txn: &Incoming<'a>) -> Result<Vec<Touched<'a>>, KeyError> {
    let moved = moved(txn)?;
    let mut plain = Vec::new();
    let mut kept: Vec<Kept<'a>> = Vec::new();
    let mut places: HashMap<RowKey, usize> = HashMap::new();
    let mut children: HashMap<RowKey, usize> = HashMap::new();
    for change in txn.changes {
        let Some(table) = &change.table else { continue };
        let key = table.key_columns();
        let (table, policy) = book.of(table);
        let keeps = policy.keeps(&table);
        for row in &change.rows {
            for touch in RowKey::touched(&table, &key, row)? {
                let group = match policy.atomic {
                    Some(number) => Some(Group::Atomic(number)),
                    None => (moved.contains(&touch.key) && policy.groups()).then_some(Group::Moved),
                };
                if !keeps && group.is_none() {
                    // Of a row written twice the last write says what it references.
                    if !table.foreign_keys.is_empty()
                        && let Some(before) = children.insert(touch.key, plain.len())
                    {
                        let before: &mut Touched<'_> = &mut plain[before];
                        before.write.foreign = None;
                    }
                    plain.push(write(txn, touch, (&table, &policy), None));
                    continue;
                }
                match places.get(&touch.key) {
                    Some(&at) => kept[at].touch.after = touch.after,
                    None => {
                        places.insert(touch.key, kept.len());
                        let (table, policy) = (Arc::clone(&table), Arc::clone(&policy));
                        kept.push(Kept { touch, table, policy, group });
                    }
                }
            }
        }
    }
    // What was not there before and is not after was never seen.
    kept.retain(|kept| kept.touch.before.is_some() || kept.touch.after.is_some());
    let mut groups: HashMap<Group, Vec<RowKey>> = HashMap::new();
    for Kept { touch, group, .. } in &kept {
        if let Some(group) = group {
            groups.entry(*group).or_default().push(touch.key);
        }
    }
    let groups: HashMap<Group, Arc<[RowKey]>> = groups
        .into_iter()
        .filter(|(_, keys)| keys.len() > 1)
        .map(|(group, keys)| (group, keys.into()))
        .collect();
    plain.extend(kept.into_iter().map(|kept| {
        let group = kept.group.and_then(|group| groups.get(&group).cloned());
        let body = Body {
            before: kept.touch.before.cloned(),
            after: kept.touch.after.cloned(),
            group,
            claims: claims(&kept.table, kept.touch.after),
            adds_up: kept.policy.merge.is_some(),
            table: Arc::clone(&kept.table),
        };
        write(txn, kept.touch, (&kept.table, &kept.policy), Some(Arc::new(body)))
    }));
    Ok(plain)
}

/// The keys that rows moved from or to.
fn moved(txn: &Incoming<'_>) -> Result<HashSet<RowKey>, KeyError> {
    let mut moved = HashSet::new();
    for change in txn.changes {
        let Some(table) = &change.table else { continue };
        let key = table.key_columns();
        for row in &change.rows {
            let (Some(before), Some(after)) = (&row.before, &row.after) else { continue };
            if key.iter().all(|&at| before.values.get(at) == after.values.get(at)) {
                continue;
            }
            let touched = RowKey::touched(table, &key, row)?;
            moved.extend(touched.iter().filter(|touch| touch.moved).map(|touch| touch.key));
        }
    }
    Ok(moved)
}

fn claims(table: &Table, after: Option<&Row>) -> SmallVec<[RowKey; 1]> {
    let Some(row) = after else { return SmallVec::new() };
    let keys = table.unique_keys.iter().enumerate();
    keys.filter_map(|(number, key)| {
        let columns: Option<Vec<usize>> =
            key.columns.iter().map(|&at| usize::try_from(at).ok()).collect();
        RowKey::claim(table, number, &columns?, row)
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
    let keys = table.unique_keys.iter().enumerate();
    let released = keys.filter_map(|(number, key)| {
        let columns = key.columns.iter().map(|&at| usize::try_from(at).ok());
        let columns: SmallVec<[usize; 4]> = columns.collect::<Option<_>>()?;
        let value = RowKey::value(table, &columns, before)?;
        if touch.after.and_then(|row| RowKey::value(table, &columns, row)) == Some(value) {
            return None;
        }
        Some(Released { value, claim: RowKey::claim(table, number, &columns, before)? })
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
