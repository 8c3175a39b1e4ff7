//! The index of recent versions.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use super::{RowKey, Versions, Write};
use crate::change::{Dot, RegionId, Seq, Vector};

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

/// Key → surviving versions, for everything that is not stable.
///
/// Capture calls [`enter_local`](Self::enter_local) and [`marker`](Self::marker) in
/// binlog order; the applier calls [`stage`](Self::stage) in the order in which its
/// batches commit, before it resolves the next.
#[derive(Debug, Default)]
pub struct Index {
    rows: HashMap<RowKey, Versions>,
    overlay: HashMap<RowKey, Vec<(BatchId, Write)>>,
    staged: VecDeque<Staged>,
    /// Per origin the entries in seq order, for collection.
    order: BTreeMap<RegionId, VecDeque<(Seq, RowKey)>>,
    stable: Vector,
    local_writes: u64,
}

impl Index {
    /// The surviving versions of a row, with the applier's own batches in flight.
    #[must_use]
    pub fn versions(&self, key: RowKey) -> Versions {
        self.versions_before(key, BatchId(u64::MAX))
    }

    /// The same without batch `before` and those staged after it.
    #[must_use]
    pub fn versions_before(&self, key: RowKey, before: BatchId) -> Versions {
        let mut versions = self.rows.get(&key).cloned().unwrap_or_default();
        if let Some(pending) = self.overlay.get(&key) {
            for (_, write) in pending.iter().take_while(|(batch, _)| *batch < before) {
                write.enter(&mut versions);
            }
        }
        versions
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

    /// Whether no row is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A write of this region's own, in binlog order.
    pub fn enter_local(&mut self, write: &Write) {
        self.local_writes += 1;
        self.enter(write);
    }

    /// A write read again from a topic at start; they come in order of their stamps,
    /// which respects what saw what.
    pub fn restore(&mut self, write: &Write) {
        self.enter(write);
    }

    /// The applier is about to commit `writes` with these marker rows.
    pub fn stage(&mut self, id: BatchId, marks: Vec<Dot>, writes: Vec<Write>) {
        let keys = writes.iter().map(|write| write.key).collect();
        for write in writes {
            self.overlay.entry(write.key).or_default().push((id, write));
        }
        self.staged.push_back(Staged { id, marks, keys });
    }

    /// The batch was rolled back.
    pub fn abandon(&mut self, id: BatchId) {
        let Some(at) = self.staged.iter().position(|batch| batch.id == id) else {
            return;
        };
        let batch = self.staged.remove(at).expect("the position was just found");
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
        let Some(at) = self.staged.iter().position(same) else {
            return;
        };
        let batch = self.staged.remove(at).expect("the position was just found");
        for key in batch.keys {
            for write in self.take(batch.id, key) {
                self.enter(&write);
            }
        }
    }

    /// Forgets what every region has applied.
    pub fn collect(&mut self, stable: &Vector) {
        for dot in stable.iter() {
            self.stable.raise(dot.origin, dot.seq);
        }
        for (&origin, queue) in &mut self.order {
            let seq = self.stable.get(origin);
            while queue.front().is_some_and(|&(entered, _)| entered <= seq) {
                let (_, key) = queue.pop_front().expect("the front was just seen");
                if let Some(versions) = self.rows.get_mut(&key) {
                    versions.retain(|v| !(v.dot.origin == origin && v.dot.seq <= seq));
                    if versions.is_empty() {
                        self.rows.remove(&key);
                    }
                }
            }
        }
    }

    /// Per origin what every region is known to have applied.
    #[must_use]
    pub const fn stable(&self) -> &Vector {
        &self.stable
    }

    fn enter(&mut self, write: &Write) {
        let dot = write.version.dot;
        if self.stable.covers(dot) {
            return;
        }
        write.enter(self.rows.entry(write.key).or_default());
        self.order.entry(dot.origin).or_default().push_back((dot.seq, write.key));
    }

    /// Takes a batch's writes of one key out of the overlay.
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
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Hlc;
    use crate::version::Version;

    fn dot(origin: u8, seq: u64) -> Dot {
        Dot { origin: RegionId::new(origin).unwrap(), seq: Seq(seq) }
    }

    fn write(origin: u8, seq: u64, deps: &[Dot]) -> Write {
        Write {
            key: RowKey(1),
            version: Version { dot: dot(origin, seq), hlc: Hlc(seq), removed: false },
            deps: Arc::new(deps.iter().copied().collect()),
        }
    }

    fn dots(index: &Index) -> Vec<Dot> {
        index.versions(RowKey(1)).iter().map(|v| v.dot).collect()
    }

    #[test]
    fn a_write_replaces_what_its_author_had_seen_and_joins_the_rest() {
        let mut index = Index::default();
        index.enter_local(&write(1, 1, &[]));
        index.stage(BatchId(1), vec![dot(2, 1)], vec![write(2, 1, &[])]);
        assert_eq!(dots(&index), [dot(1, 1), dot(2, 1)]);
        index.marker(&[dot(2, 1)]);
        index.enter_local(&write(1, 2, &[dot(2, 1)]));
        assert_eq!(dots(&index), [dot(1, 2)]);
    }

    #[test]
    fn a_batch_takes_its_place_at_its_marker() {
        let mut index = Index::default();
        index.stage(BatchId(1), vec![dot(2, 1)], vec![write(2, 1, &[])]);
        index.marker(&[dot(2, 1)]);
        assert_eq!(dots(&index), [dot(2, 1)]);
        index.stage(BatchId(2), vec![dot(2, 2)], vec![write(2, 2, &[])]);
        index.abandon(BatchId(2));
        assert_eq!(dots(&index), [dot(2, 1)]);
    }

    #[test]
    fn stable_versions_are_forgotten() {
        let mut index = Index::default();
        index.enter_local(&write(1, 1, &[]));
        index.enter_local(&write(1, 2, &[]));
        index.collect(&[dot(1, 1)].into_iter().collect());
        assert_eq!(dots(&index), [dot(1, 2)]);
        index.collect(&[dot(1, 2)].into_iter().collect());
        assert!(index.is_empty());
    }
}
