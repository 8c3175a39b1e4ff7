//! What a row shows, worked out anew from writes that were read back from the origins'
//! logs: by the planner's own functions, so that it is what every region came to.
//!
//! The logs do not reach back for ever. A row is told only where what they no longer
//! hold can't matter; [`Extent`] says what they hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::align::Lacks;
use super::merge::{self, Effect};
use super::stand::{self, Places, Shown};
use super::{Merge, Order, Policy};
use crate::change::{RegionId, Row, Table, Vector};
use crate::clock::Hlc;
use crate::version::{Body, RowKey, Seen, Version, Write, saw};

/// Which writes are known.
#[derive(Clone, Debug, Default)]
pub struct Extent {
    /// Per origin all after this.
    pub floor: Vector,
    /// All with a later stamp.
    pub covered: Hlc,
}

impl Extent {
    /// What is known to both: of two readings the second may have begun later, where records
    /// were purged meanwhile.
    #[must_use]
    pub fn both(mut self, other: &Self) -> Self {
        for dot in other.floor.iter() {
            self.floor.raise(dot.origin, dot.seq);
        }
        self.covered = self.covered.max(other.covered);
        self
    }

    /// Whether the author of the write had seen all that is not known: none of it can
    /// stand beside the write.
    fn is_below(&self, write: &Write) -> bool {
        self.floor.iter().all(|dot| saw(write.version.dot, &write.deps, dot))
    }

    fn is_before(&self, version: &Version) -> bool {
        version.hlc > self.covered
    }
}

/// How a row comes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// It is what the write left.
    Left,
    /// The write is void: it is what was before the write, or nothing.
    Before,
    /// It is what all changes up to the write add up to.
    Sum,
}

/// What a row shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Recounted {
    /// The row, or that there is none.
    pub row: Option<Row>,
    /// The row's table, as it was where the row was written.
    pub table: Arc<Table>,
    /// The write that stands; of a sum the last.
    pub write: Version,
    /// How the row comes of it.
    pub shows: Shows,
    /// It is counted from a row that this region alone tells of. If that was changed past
    /// the binlog, so is the count: another region must bear it out.
    pub counted_from: Option<RegionId>,
}

/// Why it can't be told what a row shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untold {
    /// Its last write is not known to be the last.
    #[error("no outbox reaches back to its last write")]
    Older,
    /// Writes that are concurrent with those known may be missing.
    #[error("the outboxes do not reach back to all writes that may stand")]
    Concurrent,
    /// A sum, of which no row is known to count from.
    #[error("no write in the outboxes has a row that its sums can be counted from")]
    Base,
    /// A sum that differs by the row that it is counted from.
    #[error(
        "its writes in the outboxes contradict each other: it was changed past the binlog before"
    )]
    Contradiction,
    /// A sum over rows of tables with other columns.
    #[error("its table was altered between its writes")]
    Altered,
    /// A sum of more than 38 digits.
    #[error("its changes do not add up")]
    Sum,
    /// The rule does not fit the table.
    #[error("its table's rule does not fit it")]
    Unfit,
}

/// Writes that were read back.
#[derive(Debug, Default)]
pub struct Recount {
    places: HashMap<RowKey, Seen>,
    nothing: Seen,
}

impl Places for Recount {
    fn seen(&self, place: RowKey) -> &Seen {
        self.places.get(&place).unwrap_or(&self.nothing)
    }
}

impl Recount {
    /// Takes the writes, in any order, each with its body.
    #[must_use]
    pub fn new(mut writes: Vec<Write>) -> Self {
        writes.sort_by_key(|write| write.version.rank());
        let mut recount = Self::default();
        for write in &writes {
            for place in write.places() {
                let seen = recount.places.entry(place).or_default();
                if write.body.as_ref().is_some_and(|body| body.adds_up) {
                    seen.history.push(write.clone());
                    if place == write.key {
                        write.enter(&mut seen.versions);
                    }
                } else {
                    seen.enter(place, write);
                }
            }
        }
        recount
    }

    /// The row's table, as its last write had it.
    ///
    /// # Errors
    /// [`Untold::Older`] where nothing is known of the row.
    pub fn table(&self, key: RowKey) -> Result<Arc<Table>, Untold> {
        let last = self.seen(key).history.iter().max_by_key(|write| write.version.rank());
        Ok(Arc::clone(&body(last.ok_or(Untold::Older)?)?.table))
    }

    /// What the row shows under its policy. Of the places of its last write (the rows of
    /// its group, and the unique values of these) all writes with a later stamp must be
    /// among those taken.
    ///
    /// # Errors
    /// [`Untold`] where the writes do not tell it for sure.
    pub fn row(&self, policy: &Policy, key: RowKey, extent: &Extent) -> Result<Recounted, Untold> {
        if policy.unfit.is_some() {
            return Err(Untold::Unfit);
        }
        let seen = self.seen(key);
        if let Some(merge) = &policy.merge {
            return merged(merge, &seen.history, extent);
        }
        let best = stand::best(policy, seen).ok_or(Untold::Older)?;
        match policy.order {
            Order::Latest if !extent.is_before(best) => return Err(Untold::Older),
            Order::Priority(_) | Order::Column(_)
                if !seen.history.iter().any(|write| extent.is_below(write)) =>
            {
                return Err(Untold::Concurrent);
            }
            Order::Latest | Order::Priority(_) | Order::Column(_) => {}
        }
        let held = |write: &&Write| write.version.dot == best.dot;
        let write = seen.history.iter().find(held).ok_or(Untold::Older)?;
        let body = write.body.as_deref().ok_or(Untold::Older)?;
        let row = match stand::shown(policy, self, key).ok_or(Untold::Older)? {
            Shown::Row(row, _) => Some(row),
            Shown::Nothing(..) => None,
            Shown::As(_) => return Err(Untold::Older),
        };
        Ok(Recounted {
            row,
            table: Arc::clone(&body.table),
            write: *best,
            shows: if stand::is_void(self, write, body) { Shows::Before } else { Shows::Left },
            counted_from: None,
        })
    }
}

/// A row whose columns have rules of their own. From its last delete on it is a sum that
/// is known whole. Without one it is counted from the row that a write left: this is what
/// all that its author had seen comes to.
fn merged(merge: &Merge, history: &[Write], extent: &Extent) -> Result<Recounted, Untold> {
    let mut history = history.to_vec();
    history.sort_by_key(|write| write.version.rank());
    let last = history.last().ok_or(Untold::Older)?;
    let table = &body(last)?.table;
    for write in &history {
        if body(write)?.table.columns != table.columns {
            return Err(Untold::Altered);
        }
    }
    let told = |row, counted_from| Recounted {
        row,
        table: Arc::clone(table),
        write: last.version,
        shows: Shows::Sum,
        counted_from,
    };
    if let Some(floor) = history.iter().rfind(|write| gone(write)) {
        if !extent.is_below(floor) && !extent.is_before(&floor.version) {
            return Err(Untold::Concurrent);
        }
        let effect = merge::effect(merge, table, (&history, &Lacks::new()), (last, body(last)?));
        return Ok(told(left(effect.ok_or(Untold::Sum)?), None));
    }
    if contradicts(merge, &history, extent)? {
        return Err(Untold::Contradiction);
    }
    let mut found: Option<Recounted> = None;
    for base in bases(&history, extent) {
        let Some(row) = counted(merge, &history, base, extent)? else { continue };
        let origin = base.version.dot.origin;
        match &mut found {
            None => found = Some(told(Some(row), Some(origin))),
            Some(held) if held.row.as_ref() != Some(&row) => return Err(Untold::Contradiction),
            // Two regions told the same.
            Some(held) if held.counted_from != Some(origin) => held.counted_from = None,
            Some(_) => {}
        }
    }
    found.ok_or(Untold::Base)
}

/// Whether some region's write found another row than the one before it had left there, with
/// what the region had applied between the two: it was changed past the binlog.
fn contradicts(merge: &Merge, history: &[Write], extent: &Extent) -> Result<bool, Untold> {
    let mut regions: BTreeMap<RegionId, Vec<&Write>> = BTreeMap::new();
    for write in history {
        regions.entry(write.version.dot.origin).or_default().push(write);
    }
    for writes in regions.values_mut() {
        writes.sort_by_key(|write| write.version.dot.seq);
    }
    for (region, own) in &regions {
        for pair in own.windows(2).filter(|pair| extent.is_below(pair[0])) {
            let (first, next) = (pair[0], pair[1]);
            let mut between = Vec::new();
            for others in regions.iter().filter(|(other, _)| *other != region).map(|(_, w)| w) {
                let seen = |by: &Write| others.partition_point(|other| by.saw(&other.version));
                for other in &others[seen(first)..seen(next)] {
                    between.push(body(other)?);
                }
            }
            let pair = (body(first)?, body(next)?);
            if !merge::follows(merge, pair, &between).ok_or(Untold::Sum)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Of each region its last write, if its author had seen all that is not known: it had
/// seen what the region's earlier ones had, so from these no more can be counted.
fn bases<'a>(history: &'a [Write], extent: &Extent) -> Vec<&'a Write> {
    let mut bases: Vec<&Write> = Vec::new();
    for write in history.iter().rev() {
        if !bases.iter().any(|base| base.version.dot.origin == write.version.dot.origin) {
            bases.push(write);
        }
    }
    bases.retain(|write| extent.is_below(write));
    bases
}

/// The row that `base` left, with all that its author had not seen; none where something
/// that is not known could count among that.
fn counted(
    merge: &Merge,
    history: &[Write],
    base: &Write,
    extent: &Extent,
) -> Result<Option<Row>, Untold> {
    let unseen = |write: &&Write| !base.saw(&write.version);
    if !history.iter().filter(unseen).all(|write| extent.is_below(write)) {
        return Ok(None);
    }
    merge::onto(merge, history, (base, body(base)?), unseen).ok_or(Untold::Sum).map(Some)
}

fn left(effect: Effect) -> Option<Row> {
    match effect {
        Effect::Put(row) => Some(row),
        Effect::Remove(_) => None,
        Effect::Merge(merge) => Some(merge.row),
    }
}

fn gone(write: &Write) -> bool {
    write.body.as_ref().is_some_and(|body| body.after.is_none())
}

fn body(write: &Write) -> Result<&Body, Untold> {
    write.body.as_deref().ok_or(Untold::Older)
}

#[cfg(test)]
mod tests;
