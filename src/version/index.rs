//! The index of recent versions.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::unstable::Unstable;
use super::{Action, Hidden, Register, Role, RowKey, Version, Versions, Write};
use crate::change::{Dot, RegionId, Vector};
use crate::clock::Hlc;
use crate::mutant::{self, Mutant};

/// What a map may hold without giving memory back.
const ROOM_KEPT: usize = 1 << 14;

/// Numbers the applier's batches of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// A batch that the applier has written and capture has not read back yet.
#[derive(Debug)]
struct Staged {
    id: BatchId,
    /// The marker rows it commits with, by origin.
    marks: Vec<Dot>,
    keys: Vec<RowKey>,
}

/// What is known of one place: a row, or a unique value.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The surviving versions of the row; none for a unique value.
    pub versions: Versions,
    /// Writes that were kept, in no order, seen by others or not.
    pub history: Vec<Write>,
}

impl Seen {
    /// Takes a write in at `place`, after those before it.
    pub fn enter(&mut self, place: RowKey, write: &Write) {
        let own = place == write.key;
        if write.body.is_some() || own && !self.history.is_empty() {
            if own && self.history.is_empty() {
                self.history.extend(self.versions.iter().map(|&version| unread(place, version)));
            }
            self.relieve(write);
            let same =
                |held: &Write| held.version.dot == write.version.dot && held.key == write.key;
            // A row that an earlier part of its transaction had only changed, or the same again.
            match self.history.iter_mut().rfind(|held| same(held)) {
                Some(held) => held.clone_from(write),
                None => {
                    // Most places hold one: a vector grown by pushing has room for four.
                    if self.history.is_empty() {
                        self.history.reserve_exact(1);
                    }
                    self.history.push(write.clone());
                }
            }
        }
        if own {
            write.enter(&mut self.versions);
        }
    }

    /// Drops the writes that `write` stands in for, so that a row that is written often
    /// while a peer is away does not grow without bound. It had seen them, claims what
    /// they claim here, and is later: whatever they make void it makes void too, but for
    /// what it had seen itself. Where such a write is concurrent with the older one, that
    /// one stays, and so it does where groups stand or fall by it.
    fn relieve(&mut self, write: &Write) {
        let grouped = |held: &Write| held.body.as_ref().is_none_or(|body| body.group.is_some());
        let adds_up = write.body.as_ref().is_none_or(|body| body.adds_up);
        if mutant::is(Mutant::PriorityOverCausality) {
            return;
        }
        if write.body.is_none() {
            return self.relieve_plain(write);
        }
        if adds_up || grouped(write) || self.history.iter().any(grouped) {
            return;
        }
        let had_seen = |other: &&Write| other.key != write.key && write.saw(&other.version);
        let settled: Vec<Write> = self.history.iter().filter(had_seen).cloned().collect();
        self.history.retain(|held| {
            held.key != write.key
                || held.version.dot == write.version.dot
                || !write.saw(&held.version)
                || settled.iter().any(|other| other.is_concurrent(held))
        });
    }

    /// The same among writes of which nothing is kept: they are here for the groups that
    /// they make void.
    fn relieve_plain(&mut self, write: &Write) {
        let had_seen = |held: &&Write| write.saw(&held.version);
        let settled: Vec<Write> = self.history.iter().filter(had_seen).cloned().collect();
        self.history.retain(|held| {
            held.body.is_some()
                || held.key != write.key
                || held.version.dot == write.version.dot
                || !write.saw(&held.version)
                || settled.iter().any(|other| other.is_concurrent(held))
        });
    }

    /// Forgets what is stable, has nothing unstable concurrent with it, here or among the
    /// `pending` writes that are to come here, and is older than whatever has.
    fn sweep(&mut self, stable: &Vector, pending: &[(BatchId, Write)]) {
        let (gone, open): (Vec<Write>, Vec<Write>) = std::mem::take(&mut self.history)
            .into_iter()
            .partition(|w| stable.covers(w.version.dot));
        // With what is kept goes all that is later than it: a sum above a delete is whole
        // or nothing.
        let pending = pending.iter().map(|(_, write)| write);
        let open_for =
            |held: &&Write| open.iter().chain(pending.clone()).any(|w| w.is_concurrent(held));
        let needed = gone.iter().filter(open_for);
        let lowest = needed.map(|held| held.version.rank()).min();
        let kept =
            gone.into_iter().filter(|held| lowest.is_some_and(|low| held.version.rank() >= low));
        self.history = kept.collect();
        self.history.extend(open);
        let history = &self.history;
        self.versions.retain(|v| {
            !stable.covers(v.dot) || history.iter().any(|held| held.version.dot == v.dot)
        });
    }

    /// Every transaction that a decision about this place stands on.
    #[must_use]
    pub fn dots(&self) -> SmallVec<[Dot; 2]> {
        let kept = self.history.iter().map(|held| held.version.dot);
        let mut dots: SmallVec<[Dot; 2]> =
            self.versions.iter().map(|v| v.dot).chain(kept).collect();
        dots.sort_unstable();
        dots.dedup();
        dots
    }
}

/// A version that was here before the first kept write came: its author can't have
/// seen that one, nor what comes after it from elsewhere.
fn unread(key: RowKey, version: Version) -> Write {
    Write { key, version, deps: Arc::default(), body: None, foreign: None }
}

/// The place in the order of stamps of the lowest version that is not stable. What won over
/// it is known as long as it is: else it would seem to stand.
fn lowest_open(versions: &Versions, stable: &Vector) -> Option<(Hlc, RegionId)> {
    versions.iter().filter(|v| !stable.covers(v.dot)).map(Version::rank).min()
}

/// Place → what is known of it, for everything that is not stable.
///
/// Capture calls [`enter_local`](Self::enter_local) and [`marker`](Self::marker) in
/// binlog order; the applier calls [`stage`](Self::stage) in the order in which its
/// batches commit, before it resolves the next.
#[derive(Debug, Default)]
pub struct Index {
    rows: HashMap<RowKey, Versions>,
    /// Only where something is kept.
    kept: HashMap<RowKey, Vec<Write>>,
    /// How many these are.
    kept_writes: usize,
    overlay: HashMap<RowKey, Vec<(BatchId, Write)>>,
    staged: VecDeque<Staged>,
    /// The places that hold something of a transaction.
    unstable: Unstable<RowKey>,
    register: Register,
    /// Rows that are not where their authors left them.
    pub hidden: Hidden,
    stable: Vector,
    local_writes: u64,
}

impl Index {
    /// What is known of a place, with the applier's own batches in flight.
    #[must_use]
    pub fn seen(&self, place: RowKey) -> Seen {
        self.seen_before(place, BatchId(u64::MAX))
    }

    /// The same without batch `before` and those staged after it.
    #[must_use]
    pub fn seen_before(&self, place: RowKey, before: BatchId) -> Seen {
        let mut seen = Seen {
            versions: self.rows.get(&place).cloned().unwrap_or_default(),
            history: self.kept.get(&place).cloned().unwrap_or_default(),
        };
        if let Some(pending) = self.overlay.get(&place)
            && !mutant::is(Mutant::OverlayIgnored)
        {
            for (_, write) in pending.iter().take_while(|(batch, _)| *batch < before) {
                seen.enter(place, write);
            }
        }
        seen
    }

    /// The writes filed under a value of another table, without batch `before` and those
    /// staged after it.
    pub fn filed(
        &self,
        value: RowKey,
        role: Role,
        before: BatchId,
    ) -> impl Iterator<Item = &Write> {
        self.register.of(value, role, before)
    }

    /// The deletes among the surviving versions of a row, without batch `before` and those
    /// staged after it. What stands in the way of a reference, and nothing else: a row
    /// that many reference may be updated all the time.
    #[must_use]
    pub fn deletes(&self, row: RowKey, before: BatchId) -> SmallVec<[Dot; 1]> {
        let gone = |version: &Version| version.action == Action::Delete;
        let settled = self.rows.get(&row).is_some_and(|held| held.iter().any(gone));
        let staged = self.overlay.get(&row);
        if !settled && !staged.is_some_and(|held| held.iter().any(|(_, w)| gone(&w.version))) {
            return SmallVec::new();
        }
        let seen = self.seen_before(row, before);
        seen.versions.iter().filter(|version| gone(version)).map(|version| version.dot).collect()
    }

    /// Counts the local writes entered: while it stands still, no second look is
    /// needed.
    #[must_use]
    pub const fn local_writes(&self) -> u64 {
        self.local_writes
    }

    /// Rows held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Writes held one by one, by row and by unique value: of a policy that may need them
    /// again, and of what is concurrent with these.
    #[must_use]
    pub const fn kept_writes(&self) -> usize {
        self.kept_writes
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.kept.is_empty() && self.register.is_empty()
    }

    /// A write of this region's own, in binlog order.
    pub fn enter_local(&mut self, write: &Write) {
        self.local_writes += 1;
        self.enter(write);
    }

    /// A write read again from a topic at start; they come in order of their stamps,
    /// which respects what saw what.
    pub fn restore(&mut self, write: &Write) {
        if mutant::is(Mutant::NoRebuild) {
            return;
        }
        self.enter(write);
    }

    /// The applier is about to commit `writes` with these marker rows.
    pub fn stage(&mut self, id: BatchId, marks: Vec<Dot>, writes: Vec<Write>) {
        let keys = writes.iter().flat_map(Write::places).collect();
        // At once: one that grows is there twice meanwhile, which a large transaction feels.
        self.overlay.reserve(writes.len());
        for write in writes {
            self.register.enter(&write, Some(id));
            for place in write.places() {
                // As in [`Seen::enter`].
                let pending = self.overlay.entry(place).or_insert_with(|| Vec::with_capacity(1));
                pending.push((id, write.clone()));
            }
        }
        self.staged.push_back(Staged { id, marks, keys });
    }

    /// The batch was rolled back.
    pub fn abandon(&mut self, id: BatchId) {
        let Some(at) = self.staged.iter().position(|batch| batch.id == id) else { return };
        let batch = self.staged.remove(at).expect("the position was just found");
        self.register.abandon(id);
        for key in batch.keys {
            self.take(id, key);
        }
    }

    /// Capture has read a marker: the batch takes its place in binlog order. Markers
    /// of batches before this process's time are already here, by `restore`.
    pub fn marker(&mut self, marks: &[Dot]) {
        let same = |batch: &Staged| {
            batch.marks.len() == marks.len() && batch.marks.iter().all(|m| marks.contains(m))
        };
        let Some(at) = self.staged.iter().position(same) else { return };
        let batch = self.staged.remove(at).expect("the position was just found");
        self.register.settle(batch.id);
        for key in batch.keys {
            for write in self.take(batch.id, key) {
                self.enter_at(key, &write);
            }
        }
        if self.overlay.is_empty() {
            self.overlay.shrink_to(ROOM_KEPT);
        }
    }

    /// Forgets what every region has applied.
    pub fn collect(&mut self, stable: &Vector) {
        for dot in stable.iter() {
            self.stable.raise(dot.origin, dot.seq);
        }
        self.register.collect(&self.stable);
        self.hidden.collect(&self.stable);
        let mut places = self.unstable.take(&self.stable);
        places.sort_unstable();
        places.dedup();
        for place in places {
            self.sweep(place);
        }
        self.rows.shrink_to((self.rows.len() * 4).max(ROOM_KEPT));
    }

    fn sweep(&mut self, place: RowKey) {
        let Self { rows, kept, kept_writes, overlay, stable, .. } = self;
        // The last that was concurrent with what is stable may not be read back yet.
        let pending = overlay.get(&place).filter(|_| !mutant::is(Mutant::CollectUnderBatch));
        let pending = pending.map_or(&[][..], Vec::as_slice);
        let Some(history) = kept.get_mut(&place) else {
            if let Some(versions) = rows.get_mut(&place) {
                let unseen = |v: &Version| pending.iter().any(|(_, write)| !write.saw(v));
                let lowest = lowest_open(versions, stable);
                let won = |v: &Version| lowest.is_some_and(|low| v.rank() > low);
                versions.retain(|v| !stable.covers(v.dot) || won(v) || unseen(v));
                if versions.is_empty() {
                    rows.remove(&place);
                }
            }
            return;
        };
        let mut seen = Seen {
            versions: rows.remove(&place).unwrap_or_default(),
            history: std::mem::take(history),
        };
        *kept_writes -= seen.history.len();
        seen.sweep(stable, pending);
        *kept_writes += seen.history.len();
        if seen.history.is_empty() {
            kept.remove(&place);
        } else {
            *history = seen.history;
        }
        if !seen.versions.is_empty() {
            rows.insert(place, seen.versions);
        }
    }

    /// Per origin what every region is known to have applied.
    #[must_use]
    pub const fn stable(&self) -> &Vector {
        &self.stable
    }

    fn enter(&mut self, write: &Write) {
        self.register.enter(write, None);
        for place in write.places() {
            self.enter_at(place, write);
        }
    }

    fn enter_at(&mut self, place: RowKey, write: &Write) {
        let dot = write.version.dot;
        if write.body.is_none() && !self.kept.contains_key(&place) {
            let gone = write.version.action == Action::Delete && mutant::is(Mutant::NoTombstones);
            let lowest = || lowest_open(self.rows.get(&place)?, &self.stable);
            let won = || lowest().is_some_and(|low| write.version.rank() > low);
            if gone || self.stable.covers(dot) && !won() {
                return;
            }
            write.enter(self.rows.entry(place).or_default());
        } else {
            let mut seen = Seen {
                versions: self.rows.remove(&place).unwrap_or_default(),
                history: self.kept.remove(&place).unwrap_or_default(),
            };
            self.kept_writes -= seen.history.len();
            seen.enter(place, write);
            self.kept_writes += seen.history.len();
            if !seen.versions.is_empty() {
                self.rows.insert(place, seen.versions);
            }
            if !seen.history.is_empty() {
                self.kept.insert(place, seen.history);
            }
        }
        let Self { rows, kept, unstable, .. } = self;
        unstable.push(dot, place);
        unstable.relieve(rows.len() + kept.len(), |dot, place| {
            rows.get(place).is_some_and(|held| held.iter().any(|version| version.dot == dot))
                || kept.get(place).is_some_and(|held| held.iter().any(|w| w.version.dot == dot))
        });
    }

    /// Takes a batch's writes of one place out of the overlay.
    fn take(&mut self, id: BatchId, key: RowKey) -> Vec<Write> {
        let Some(pending) = self.overlay.get_mut(&key) else {
            return Vec::new();
        };
        let taken = pending.extract_if(.., |(batch, _)| *batch == id).map(|(_, w)| w).collect();
        if pending.is_empty() {
            self.overlay.remove(&key);
        }
        taken
    }
}

#[cfg(test)]
mod tests;
