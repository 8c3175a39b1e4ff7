//! What is stable: what every region is known to have applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Action, Write};
use crate::change::{Place, RegionId, Seq, Vector};
use crate::mutant::{self, Mutant};

/// What each peer's last applied record had seen.
#[derive(Clone, Debug, Default)]
pub struct Heads(BTreeMap<RegionId, Arc<Vector>>);

impl Heads {
    /// A record of `origin` was applied whose author had seen `deps`.
    pub fn raise(&mut self, origin: RegionId, deps: &Arc<Vector>) {
        self.0.insert(origin, Arc::clone(deps));
    }

    /// Per origin what every region has applied; an origin or a region not heard of
    /// yet keeps it at 0. `applied` is what this region, `me`, has of its `peers`.
    #[must_use]
    pub fn stable(&self, peers: &[RegionId], me: RegionId, applied: &Vector) -> Vector {
        let regions = peers.iter().copied().chain([me]);
        let least = |origin: RegionId| {
            let others = peers.iter().filter(|&&peer| peer != origin);
            let seen = others.map(|peer| {
                self.0.get(peer).map_or_else(Default::default, |deps| deps.place(origin))
            });
            let mine = (origin != me).then(|| applied.place(origin));
            let known = seen.chain(mine);
            let least = if mutant::is(Mutant::CollectEarly) {
                known.max_by_key(|place| place.seq)
            } else {
                known.min_by_key(|place| place.seq)
            };
            least.unwrap_or_default()
        };
        regions.map(|origin| (origin, least(origin))).collect()
    }
}

/// What a restart has to read again behind the stable vector: what is stable and
/// concurrent with something unstable that is kept, that references a row it may have
/// lost, or that took one away which others may reference, counts too, and so does what is
/// concurrent with that. Each round says what it adds, for what was read before it.
#[derive(Clone, Debug)]
pub struct Reread {
    from: Vector,
    /// After what a write can be concurrent with one of those that count: the least of
    /// what the authors of these had seen.
    needed: Vector,
    rounds: u8,
}

/// A part of an origin's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whose.
    pub origin: RegionId,
    /// Behind this.
    pub after: Place,
    /// Up to and with this.
    pub through: Seq,
}

impl Reread {
    /// Before anything after the stable vector is read.
    #[must_use]
    pub fn behind(stable: Vector) -> Self {
        Self { needed: stable.clone(), from: stable, rounds: 2 }
    }

    /// A write was read.
    pub fn take(&mut self, write: &Write) {
        let references = write.foreign.iter().any(|held| !held.references.is_empty());
        // A parent's table does not say that it is one.
        let took = write.version.action == Action::Delete;
        if write.body.is_none() && !references && !took {
            return;
        }
        let own = write.version.dot.origin;
        let less = |&(origin, place): &(RegionId, Place)| {
            origin != own && write.deps.get(origin) < place.seq
        };
        if self.needed.places().any(|held| less(&held)) {
            let needed = self.needed.places().map(|held| match less(&held) {
                true => (held.0, write.deps.place(held.0)),
                false => held,
            });
            self.needed = needed.collect();
        }
    }

    /// After what everything is read by now, and once these spans are.
    #[must_use]
    pub const fn from(&self) -> &Vector {
        &self.from
    }

    /// What is to be read for the writes that were taken; none when they are all.
    pub fn further(&mut self) -> Option<Vec<Span>> {
        self.rounds = self.rounds.checked_sub(1)?;
        let spans = self.needed.places().map(|(origin, after)| {
            let through = self.from.get(origin);
            Span { origin, after, through }
        });
        let spans = spans.filter(|span| span.after.seq < span.through).collect();
        self.from = self.needed.clone();
        Some(spans)
    }
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::*;
    use crate::change::Dot;
    use crate::clock::Hlc;
    use crate::version::{Foreign, RowKey, Version};

    fn dot(origin: u8, seq: u64) -> Dot {
        Dot { origin: RegionId::new(origin).unwrap(), seq: Seq(seq) }
    }

    /// What is read for a write whose author had seen 3 of 5 stable transactions, and which
    /// references so many rows.
    #[track_caller]
    fn check(references: usize, action: Action, expected: &[(u64, u64)]) {
        let references = (0..references).map(|number| (number, RowKey(9))).collect();
        let foreign = Foreign {
            table: Arc::default(),
            held: Box::default(),
            references,
            released: SmallVec::new(),
        };
        let write = Write {
            key: RowKey(1),
            version: Version { dot: dot(2, 1), hlc: Hlc(1), action },
            deps: Arc::new([dot(1, 3)].into_iter().collect()),
            body: None,
            foreign: Some(Arc::new(foreign)),
        };
        let mut back = Reread::behind([dot(1, 5)].into_iter().collect());
        back.take(&write);
        let spans = back.further().unwrap();
        let spans: Vec<_> = spans.iter().map(|span| (span.after.seq.0, span.through.0)).collect();
        assert_eq!(spans, expected);
    }

    #[test]
    fn what_a_child_or_a_parents_delete_may_have_lost_to_is_read_again() {
        check(0, Action::Insert, &[]);
        check(1, Action::Insert, &[(3, 5)]);
        check(0, Action::Delete, &[(3, 5)]);
    }
}
