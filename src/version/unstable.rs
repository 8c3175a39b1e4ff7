//! What is held until its transaction is stable, per origin in the order of the
//! transactions.

use std::collections::{BTreeMap, VecDeque};

use crate::change::{Dot, RegionId, Seq, Vector};

/// So few are not worth a look.
const FEW: usize = 64;

/// Names of what is held, each with its transaction.
///
/// While a region is away nothing becomes stable, and the same rows may be written a
/// million times: names of what is not held any more are dropped, so that they take
/// memory by what is held and not by what was written.
#[derive(Debug)]
pub(super) struct Unstable<T> {
    queues: BTreeMap<RegionId, VecDeque<(Seq, T)>>,
    len: usize,
    /// The length at which it is looked through again.
    look_at: usize,
}

impl<T> Default for Unstable<T> {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), len: 0, look_at: FEW }
    }
}

impl<T> Unstable<T> {
    /// Takes in what is held of that transaction: per origin later and later ones.
    pub(super) fn push(&mut self, dot: Dot, what: T) {
        self.queues.entry(dot.origin).or_default().push_back((dot.seq, what));
        self.len += 1;
    }

    /// Drops what is not `held` any more, once that may be half of all, `places` being
    /// about how many are held.
    pub(super) fn relieve(&mut self, places: usize, held: impl Fn(Dot, &T) -> bool) {
        if self.len < self.look_at || self.len < places.saturating_mul(2) {
            return;
        }
        for (&origin, queue) in &mut self.queues {
            queue.retain(|(seq, what)| held(Dot { origin, seq: *seq }, what));
            queue.shrink_to(queue.len() * 2);
        }
        self.len = self.queues.values().map(VecDeque::len).sum();
        self.look_at = (self.len * 2).max(FEW);
    }

    /// Gives what is stable, and holds it no longer.
    pub(super) fn take(&mut self, stable: &Vector) -> Vec<T> {
        let mut taken = Vec::new();
        for (&origin, queue) in &mut self.queues {
            let seq = stable.get(origin);
            while queue.front().is_some_and(|&(entered, _)| entered <= seq) {
                taken.extend(queue.pop_front().map(|(_, what)| what));
            }
        }
        self.len -= taken.len();
        taken
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(origin: u8, seq: u64) -> Dot {
        Dot { origin: RegionId::new(origin).unwrap(), seq: Seq(seq) }
    }

    #[test]
    fn what_is_stable_is_given_once_in_order() {
        let mut unstable = Unstable::default();
        for seq in 1..=3 {
            unstable.push(dot(1, seq), seq);
            unstable.push(dot(2, seq), 10 + seq);
        }
        let stable: Vector = [dot(1, 2), dot(2, 1)].into_iter().collect();
        assert_eq!(unstable.take(&stable), [1, 2, 11]);
        assert!(unstable.take(&stable).is_empty());
        assert_eq!(unstable.len(), 3);
    }

    #[test]
    fn it_grows_with_what_is_held_only() {
        let mut unstable = Unstable::default();
        for seq in 1..=100_000 {
            unstable.push(dot(1, seq), seq);
            unstable.relieve(1, |held, _| held == dot(1, seq));
            assert!(unstable.len() <= FEW);
        }
        let stable: Vector = [dot(1, 100_000)].into_iter().collect();
        assert_eq!(unstable.take(&stable).last(), Some(&100_000));
    }

    #[test]
    fn what_is_held_stays() {
        let mut unstable = Unstable::default();
        for seq in 1..=1_000 {
            unstable.push(dot(1, seq), seq);
            unstable.relieve(1, |held, _| held.seq.0 % 2 == 0);
        }
        let stable: Vector = [dot(1, 1_000)].into_iter().collect();
        let taken = unstable.take(&stable);
        assert!((2..=1_000).step_by(2).all(|seq| taken.contains(&seq)));
    }
}
