//! What every row must hold in the end, worked out from all transactions at once, with
//! none of the core's code: no index, no order of arrival, nothing forgotten.

use std::collections::{BTreeMap, BTreeSet};

use super::parts::is_split;
use super::region::Key;
use super::schema::{self, A, B, ID, N, Name, U};
use super::world::World;
use crate::change::{Dot, RecordBody, Row, Seq, Vector};
use crate::clock::Hlc;

/// One transaction's write of one row, from first to last.
#[derive(Clone, Debug)]
pub(super) struct Wrote {
    pub(super) dot: Dot,
    pub(super) hlc: Hlc,
    /// What its author truly had seen.
    pub(super) seen: Vector,
    pub(super) before: Option<Row>,
    pub(super) after: Option<Row>,
    /// It came by a change of a key.
    moved: bool,
}

impl Wrote {
    pub(super) fn saw(&self, other: &Self) -> bool {
        if self.dot.origin == other.dot.origin {
            self.dot.seq >= other.dot.seq
        } else {
            self.seen.covers(other.dot)
        }
    }

    pub(super) fn is_concurrent(&self, other: &Self) -> bool {
        !self.saw(other) && !other.saw(self)
    }

    fn rank(&self) -> (Hlc, u8) {
        (self.hlc, self.dot.origin.get())
    }

    /// Whether it changed one of these columns, or put the row there.
    pub(super) fn touches(&self, columns: &[usize]) -> bool {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => {
                columns.iter().any(|&at| before.values[at] != after.values[at])
            }
            (before, _) => before.is_none(),
        }
    }

    fn beats(&self, other: &Self) -> bool {
        self.is_concurrent(other) && self.rank() > other.rank()
    }

    fn int(&self, at: usize) -> Option<i64> {
        self.after.as_ref().and_then(|row| schema::int(row, at))
    }
}

pub(super) type History = BTreeMap<Key, Vec<Wrote>>;

/// All writes of all regions, per row.
pub(super) fn history(world: &World) -> History {
    let mut history = History::new();
    for region in &world.regions {
        for record in &region.log {
            let RecordBody::Transaction(txn) = &record.body else { continue };
            if region.repairs.contains(&record.seq) {
                continue;
            }
            let dot = Dot { origin: record.origin, seq: record.seq };
            let seen = &region.truth[usize::try_from(record.seq.0).expect("small") - 1];
            let mut rows: BTreeMap<Key, (Option<Row>, Option<Row>, bool)> = BTreeMap::new();
            for change in &txn.changes {
                let name = schema::of(&change.table);
                for row in &change.rows {
                    let id = |row: &Row| (name, schema::int(row, ID).expect("a key"));
                    let old = row.before.as_ref().map(id);
                    let new = row.after.as_ref().map(id);
                    let moved = old.is_some() && new.is_some() && old != new;
                    for key in [old, new].into_iter().flatten().collect::<BTreeSet<_>>() {
                        let before = row.before.clone().filter(|_| old == Some(key));
                        let after = row.after.clone().filter(|_| new == Some(key));
                        let held = rows.entry(key).or_insert((before.clone(), None, false));
                        // What came before the change of its key has been judged.
                        if moved && !held.2 && is_split(dot, &txn.changes, key) {
                            held.0 = before;
                        }
                        held.1 = after;
                        held.2 |= moved;
                    }
                }
            }
            for (key, (before, after, moved)) in rows {
                let is_split = is_split(dot, &txn.changes, key);
                if before.is_none() && after.is_none() && !is_split {
                    continue;
                }
                let (hlc, seen) = (record.hlc, seen.clone());
                let wrote = Wrote { dot, hlc, seen, before, after, moved };
                history.entry(key).or_default().push(wrote);
            }
        }
    }
    history
}

/// The rows that must stand.
pub(super) fn rows(history: &History) -> BTreeMap<Key, Row> {
    let shown = history.keys().filter_map(|&key| Some((key, shown(history, key)?)));
    shown.collect()
}

/// The write that a row has a column's value by; none where it shows no write of its own.
pub(super) fn standing_at(history: &History, key: Key, at: usize) -> Option<&Wrote> {
    if !key.0.merges() {
        return standing(history, key);
    }
    let live = live(&history[&key]);
    winner(&live, key.0, at).or_else(|| live.into_iter().max_by_key(|w| w.rank()))
}

/// The write that a row stands by; none of a row that shows no write of its own.
pub(super) fn standing(history: &History, key: Key) -> Option<&Wrote> {
    let all = &history[&key];
    let best = if matches!(key.0, Name::Priority | Name::Ward) {
        survivors(all).max_by_key(|w| (strength(w), w.rank()))
    } else {
        all.iter().max_by_key(|w| w.rank())
    };
    best.filter(|best| !is_void(history, key, best))
}

fn shown(history: &History, key: Key) -> Option<Row> {
    let all = &history[&key];
    match key.0 {
        Name::Journal => all.iter().max_by_key(|w| w.rank())?.after.clone(),
        Name::Latest
        | Name::Unique
        | Name::Atomic
        | Name::AtomicToo
        | Name::Parent
        | Name::Child => {
            let best = all.iter().max_by_key(|w| w.rank())?;
            if !is_void(history, key, best) {
                return best.after.clone();
            }
            if key.0 == Name::Unique { None } else { best.before.clone() }
        }
        Name::Priority | Name::Ward => {
            survivors(all).max_by_key(|w| (strength(w), w.rank()))?.after.clone()
        }
        Name::Timestamp => {
            let value = |w: &Wrote| {
                w.after.as_ref().or(w.before.as_ref()).and_then(|row| schema::int(row, B))
            };
            survivors(all).max_by_key(|w| (value(w), w.rank()))?.after.clone()
        }
        Name::Delta | Name::Groups | Name::Line | Name::Member => merged(all, key.0),
    }
}

/// 3, 5, 1, 4, 2: the first is the strongest.
fn strength(wrote: &Wrote) -> u8 {
    [0, 3, 1, 5, 2, 4][usize::from(wrote.dot.origin.get())]
}

fn survivors(all: &[Wrote]) -> impl Iterator<Item = &Wrote> {
    all.iter().filter(|w| !all.iter().any(|other| other.dot != w.dot && other.saw(w)))
}

/// The rows of one transaction that win or lose with this one.
fn partners<'a>(history: &'a History, key: Key, wrote: &'a Wrote) -> Vec<(Key, &'a Wrote)> {
    let atomic = |name| matches!(name, Name::Atomic | Name::AtomicToo);
    let grouped = |other: &Key, w: &Wrote| {
        w.dot == wrote.dot
            && (*other == key
                || atomic(key.0) && atomic(other.0)
                || wrote.moved && w.moved && !atomic(key.0) && !atomic(other.0) && groups(other.0))
    };
    let rows = history.iter().flat_map(|(key, all)| all.iter().map(move |w| (*key, w)));
    rows.filter(|(other, w)| grouped(other, w)).collect()
}

fn groups(name: Name) -> bool {
    !name.merges() && !matches!(name, Name::Priority | Name::Ward | Name::Timestamp)
}

fn is_void(history: &History, key: Key, wrote: &Wrote) -> bool {
    let partners = partners(history, key, wrote);
    let together = partners.len() > 1;
    partners.iter().any(|(key, half)| {
        let row_lost = together && history[key].iter().any(|other| other.beats(half));
        row_lost || claim_lost(history, *key, half)
    })
}

fn claim_lost(history: &History, key: Key, half: &Wrote) -> bool {
    let Some(value) = half.int(U).filter(|_| key.0 == Name::Unique) else { return false };
    history
        .iter()
        .filter(|(other, _)| other.0 == Name::Unique && **other != key)
        .any(|(_, all)| all.iter().any(|other| other.int(U) == Some(value) && other.beats(half)))
}

/// The writes above the last delete.
fn live(all: &[Wrote]) -> Vec<&Wrote> {
    let floor = all.iter().filter(|w| w.after.is_none()).map(Wrote::rank).max();
    all.iter().filter(|w| Some(w.rank()) > floor).collect()
}

/// The groups of columns of a row whose columns are resolved apart.
pub(super) fn column_groups(name: Name) -> &'static [&'static [usize]] {
    if matches!(name, Name::Delta | Name::Line) { &[&[A, B, U]] } else { &[&[A], &[B], &[U]] }
}

/// Of the live writes the one that a column's group takes its values from.
pub(super) fn winner<'a>(live: &[&'a Wrote], name: Name, at: usize) -> Option<&'a Wrote> {
    let group = *column_groups(name).iter().find(|group| group.contains(&at))?;
    let touching: Vec<&Wrote> = live.iter().copied().filter(|w| w.touches(group)).collect();
    let open = |w: &&Wrote| !touching.iter().any(|other| other.dot != w.dot && other.saw(w));
    let priority = matches!(name, Name::Groups | Name::Member) && at == A;
    let survive = touching.iter().copied().filter(open);
    survive.max_by_key(|w| (if priority { strength(w) } else { 0 }, w.rank()))
}

fn merged(all: &[Wrote], name: Name) -> Option<Row> {
    let live = live(all);
    let mut row = live.iter().max_by_key(|w| w.rank())?.after.clone()?;
    let held = |row: &Option<Row>, at| row.as_ref().and_then(|row| schema::int(row, at));
    let sum: i64 =
        live.iter().map(|w| held(&w.after, N).unwrap_or(0) - held(&w.before, N).unwrap_or(0)).sum();
    row.values[N] = crate::change::Value::new(crate::change::Kind::Int(sum));
    for &at in column_groups(name).iter().copied().flatten() {
        if let Some(winner) = winner(&live, name, at) {
            row.values[at] = winner.after.as_ref()?.values[at].clone();
        }
    }
    Some(row)
}

/// Every transaction's dot.
pub(super) fn dots(world: &World) -> BTreeMap<Dot, Vector> {
    let regions = world.regions.iter();
    let txns = regions.flat_map(|region| {
        region.truth.iter().enumerate().map(|(n, seen)| {
            let seq = Seq(u64::try_from(n).expect("small") + 1);
            (Dot { origin: region.id, seq }, seen.clone())
        })
    });
    txns.collect()
}
