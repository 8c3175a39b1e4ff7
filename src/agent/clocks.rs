//! Clock offsets between agents, measured over the heartbeats of the outboxes.
//!
//! Each heartbeat carries its sender's clock and the least delay that the sender has
//! seen of each peer's heartbeats. Delay is offset plus travel; of two opposite
//! delays the travel cancels out, as in NTP.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::change::{RegionId, pb};

/// The least delay is of the last one to two windows.
const WINDOW_US: u64 = 30_000_000;

#[derive(Debug, Default)]
struct Peer {
    since_us: u64,
    least: Option<i64>,
    before: Option<i64>,
    /// What the peer has seen of this region's heartbeats.
    theirs: Option<i64>,
}

impl Peer {
    fn mine(&self) -> Option<i64> {
        self.least.into_iter().chain(self.before).min()
    }

    /// The peer's clock minus this one.
    fn offset(&self) -> Option<i64> {
        Some((self.theirs? - self.mine()?) / 2)
    }
}

/// All peers' clocks.
#[derive(Debug)]
pub(crate) struct Clocks {
    peers: Mutex<BTreeMap<RegionId, Peer>>,
    majority: watch::Sender<i64>,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { peers: Mutex::default(), majority: watch::channel(0).0 }
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
        // The median of all clocks, this one included, relative to this one.
        let mut offsets: Vec<i64> = peers.values().filter_map(Peer::offset).chain([0]).collect();
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
    pub(crate) fn offsets(&self) -> BTreeMap<RegionId, Option<i64>> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().map(|(&origin, peer)| (origin, peer.offset())).collect()
    }

    /// Microseconds to add to this clock for the majority's time.
    pub(crate) fn majority(&self) -> watch::Receiver<i64> {
        self.majority.subscribe()
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
        assert_eq!(clocks.offsets()[&peer], Some(1_000));
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
    }
}
