//! Clock offsets: between agents, measured over the heartbeats of the outboxes, and of
//! this region's database.
//!
//! Each heartbeat carries its sender's clock and the least delay that the sender has
//! seen of each peer's heartbeats. Delay is offset plus travel; of two opposite
//! delays the travel cancels out, as in NTP, but for half of their sum, which bounds
//! the error: heartbeats that waited in a backlog give no offset.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::change::{RegionId, pb};

/// The least delay is of the last one to two windows.
const WINDOW_US: u64 = 30_000_000;
/// An offset is shown for so long after it was measured last.
const KNOWN_US: u64 = 120_000_000;
/// Travel there and back beyond which nothing is measured: the error is at most half.
const TRAVEL_US_MAX: i64 = 1_000_000;
/// Questions to the database of which the quickest counts.
const SOURCE_SAMPLES: usize = 8;

#[derive(Debug, Default)]
struct Peer {
    since_us: u64,
    least: Option<i64>,
    before: Option<i64>,
    /// What the peer has seen of this region's heartbeats.
    theirs: Option<i64>,
    /// The last offset that could be measured, and when.
    known: Option<(i64, u64)>,
}

impl Peer {
    fn mine(&self) -> Option<i64> {
        self.least.into_iter().chain(self.before).min()
    }

    /// The peer's clock minus this one, as the last delays tell it.
    fn measure(&self) -> Option<i64> {
        let (theirs, mine) = (self.theirs?, self.mine()?);
        let travel = theirs.saturating_add(mine);
        (0..=TRAVEL_US_MAX).contains(&travel).then(|| theirs.saturating_sub(mine) / 2)
    }
}

/// All clocks.
#[derive(Debug)]
pub(crate) struct Clocks {
    peers: Mutex<BTreeMap<RegionId, Peer>>,
    majority: watch::Sender<i64>,
    /// Round trip and offset to this clock.
    source: Mutex<VecDeque<(u64, i64)>>,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { peers: Mutex::default(), majority: watch::channel(0).0, source: Mutex::default() }
    }
}

impl Clocks {
    /// A heartbeat of `origin` has come; `me` is this region.
    pub(crate) fn heard(
        &self,
        (origin, me): (RegionId, RegionId),
        beat: &pb::Heartbeat,
        received_us: u64,
    ) {
        let delay = received_us.cast_signed().saturating_sub(beat.sent_us.cast_signed());
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peers.entry(origin).or_default();
        if received_us.saturating_sub(peer.since_us) > WINDOW_US {
            peer.before = peer.least.take();
            peer.since_us = received_us;
        }
        peer.least = Some(peer.least.map_or(delay, |least| least.min(delay)));
        let theirs = beat.delays.iter().find(|seen| seen.origin == u32::from(me.get()));
        peer.theirs = theirs.map(|seen| seen.delay_us).or(peer.theirs);
        peer.known = peer.measure().map(|offset| (offset, received_us)).or(peer.known);
        // The median of all clocks, this one included, relative to this one.
        let known = peers.values().filter_map(|peer| peer.known).map(|(offset, _)| offset);
        let mut offsets: Vec<i64> = known.chain([0]).collect();
        offsets.sort_unstable();
        let median = offsets[(offsets.len() - 1) / 2];
        self.majority.send_if_modified(|held| std::mem::replace(held, median) != median);
    }

    /// What this agent's heartbeats tell.
    pub(crate) fn delays(&self) -> Vec<pb::PeerDelay> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let told = peers.iter().filter_map(|(origin, peer)| {
            Some(pb::PeerDelay { origin: u32::from(origin.get()), delay_us: peer.mine()? })
        });
        told.collect()
    }

    /// Per peer its clock minus this one, microseconds.
    pub(crate) fn offsets(&self, now_us: u64) -> BTreeMap<RegionId, Option<i64>> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |peer: &Peer| {
            let known = peer.known.filter(|(_, at_us)| now_us.saturating_sub(*at_us) < KNOWN_US);
            known.map(|(offset, _)| offset)
        };
        peers.iter().map(|(&origin, peer)| (origin, fresh(peer))).collect()
    }

    /// Microseconds to add to this clock for the majority's time, now. No guard leaves
    /// this function: a second borrow while one is held waits for ever behind a writer.
    pub(crate) fn majority_us(&self) -> i64 {
        *self.majority.borrow()
    }

    /// The same, as it changes.
    pub(crate) fn majority(&self) -> watch::Receiver<i64> {
        self.majority.subscribe()
    }

    /// The database read its clock between these two moments of this one.
    pub(crate) fn source_said(&self, source_us: u64, (sent_us, received_us): (u64, u64)) {
        let round_trip = received_us.saturating_sub(sent_us);
        let middle = sent_us.saturating_add(round_trip / 2);
        let offset = source_us.cast_signed().saturating_sub(middle.cast_signed());
        let mut samples = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back((round_trip, offset));
        if samples.len() > SOURCE_SAMPLES {
            samples.pop_front();
        }
    }

    /// The database's clock minus the majority's; none before it is measured. What the
    /// round trip leaves in doubt counts for the database.
    pub(crate) fn source(&self) -> Option<i64> {
        let samples = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let &(round_trip, offset) = samples.iter().min_by_key(|(round_trip, _)| *round_trip)?;
        let doubt = i64::try_from(round_trip / 2).unwrap_or(i64::MAX);
        let off = offset.saturating_sub(self.majority_us());
        Some(off.signum().saturating_mul(off.saturating_abs().saturating_sub(doubt).max(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_delays_give_the_offset_whatever_the_travel() {
        let clocks = Clocks::default();
        let (me, peer) = (RegionId::new(1).unwrap(), RegionId::new(2).unwrap());
        // The peer is 1000 µs ahead, the travel takes 300 µs each way.
        let delays = vec![pb::PeerDelay { origin: 1, delay_us: 1_300 }];
        let beat = pb::Heartbeat { sent_us: 101_000, delays };
        clocks.heard((peer, me), &beat, 100_300);
        assert_eq!(clocks.offsets(100_300)[&peer], Some(1_000));
    }

    #[test]
    fn two_of_three_clocks_are_the_majority() {
        let clocks = Clocks::default();
        let me = RegionId::new(1).unwrap();
        for origin in [2, 3] {
            let delays = vec![pb::PeerDelay { origin: 1, delay_us: 5_000 }];
            let beat = pb::Heartbeat { sent_us: 5_000, delays };
            clocks.heard((RegionId::new(origin).unwrap(), me), &beat, 0);
        }
        assert_eq!(*clocks.majority().borrow(), 5_000);
        // The database is as this agent's clock says, so behind the majority.
        clocks.source_said(1_000_100, (1_000_000, 1_000_200));
        assert_eq!(clocks.source(), Some(-4_900), "but for the doubt of half a round trip");
    }

    #[test]
    fn heartbeats_that_waited_in_a_backlog_give_no_offset() {
        let clocks = Clocks::default();
        let (me, peer) = (RegionId::new(1).unwrap(), RegionId::new(2).unwrap());
        let mut at_us = 1_000_000;
        for travel in [200, 40_000_000, 40_000_000, 40_000_000] {
            let delays = vec![pb::PeerDelay { origin: 1, delay_us: 300 }];
            let beat = pb::Heartbeat { sent_us: at_us, delays };
            clocks.heard((peer, me), &beat, at_us + travel);
            at_us += 31_000_000;
        }
        assert_eq!(clocks.offsets(at_us)[&peer], Some(50), "what was measured before stands");
        assert_eq!(clocks.offsets(at_us + 120_000_000)[&peer], None, "and is not shown for ever");
    }

    #[test]
    fn the_quickest_answer_tells_the_database_s_clock() {
        let clocks = Clocks::default();
        assert_eq!(clocks.source(), None);
        clocks.source_said(5_000_000, (1_000_000, 9_000_000));
        clocks.source_said(3_000_010, (9_000_000, 9_000_020));
        assert_eq!(clocks.source(), Some(-5_999_990));
    }
}
