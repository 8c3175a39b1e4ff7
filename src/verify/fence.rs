//! Waiting until all streams have passed a moment, and while they are too far behind.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::database::{Committed, Peer};
use super::tail::{Tail, open};
use super::{Config, VerifyError};
use crate::change::{Seq, Vector};

/// Between two looks at the positions.
const EVERY: Duration = Duration::from_millis(50);
/// How long the outboxes' last records may take to arrive at the start; they are
/// written every `heartbeat`.
const BEGIN: Duration = Duration::from_secs(20);
/// The lag is looked at no more often than this.
const LAG_EVERY: Duration = Duration::from_millis(250);

/// What is known of all streams.
pub(super) struct Streams {
    tails: Vec<Tail>,
    began: Instant,
    lag_looked: Option<Instant>,
    _readers: JoinSet<()>,
}

/// How a wait for the streams ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// Everything committed before it has been applied everywhere.
    Yes,
    /// Not in time; this is missing.
    No(String),
    /// The comparison is to stop.
    Stopped,
}

impl Streams {
    /// Begins to read the outboxes' ends, in the order of the regions.
    pub(super) fn open(config: &Config<'_>, peers: &[Peer]) -> Result<Self, VerifyError> {
        let began = Instant::now();
        let mut readers = JoinSet::new();
        let mut tails = Vec::new();
        for (region, peer) in config.topology.regions.iter().zip(peers) {
            let topic = if region.id == config.here.id {
                config.topology.outbox(region)
            } else {
                config.topology.peer_outbox(region)
            };
            let tail = Tail::default();
            let consumer = open(&peer.name, &topic, &config.kafka)?;
            readers.spawn(tail.clone().follow(consumer, began));
            tails.push(tail);
        }
        Ok(Self { tails, began, lag_looked: None, _readers: readers })
    }

    /// Waits until the outboxes' ends are known, within reason: a comparison of regions
    /// whose agents do not run is still one.
    pub(super) async fn ready(&self, stop: &CancellationToken) {
        let unknown = || self.tails.iter().any(|tail| tail.lock().at.is_none());
        while unknown() && self.began.elapsed() < BEGIN && !stop.is_cancelled() {
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Waits until every region has applied all that is committed anywhere now.
    pub(super) async fn pass(
        &self,
        peers: &mut [Peer],
        patience: Duration,
        stop: &CancellationToken,
    ) -> Result<Passed, VerifyError> {
        let began = Instant::now();
        let committed = try_join_all(peers.iter_mut().map(Peer::committed)).await?;
        let mut wanted: Vec<Option<Seq>> = vec![None; peers.len()];
        loop {
            self.find(peers, &committed, &mut wanted).await?;
            let missing = match wanted.iter().position(Option::is_none) {
                Some(at) => {
                    let problem = self.tails[at].lock().problem.clone();
                    let why = problem.map(|why| format!(": {why}")).unwrap_or_default();
                    Some(format!("the outbox of {} is behind its database{why}", peers[at].name))
                }
                None => unapplied(peers, &wanted).await?,
            };
            let Some(missing) = missing else { return Ok(Passed::Yes) };
            if began.elapsed() >= patience {
                return Ok(Passed::No(missing));
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(Passed::Stopped),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Which seq of each outbox covers what was committed, once it is there.
    async fn find(
        &self,
        peers: &mut [Peer],
        committed: &[Committed],
        wanted: &mut [Option<Seq>],
    ) -> Result<(), VerifyError> {
        for (at, peer) in peers.iter_mut().enumerate() {
            let tail = self.tails[at].lock().at.clone();
            let Some((position, seq)) = tail.filter(|_| wanted[at].is_none()) else { continue };
            if peer.covers(&position, &committed[at]).await? {
                wanted[at] = Some(seq);
            }
        }
        Ok(())
    }

    /// Who is further behind than `most`, now and then.
    pub(super) async fn laggard(
        &mut self,
        peers: &mut [Peer],
        most: Duration,
    ) -> Result<Option<String>, VerifyError> {
        if self.lag_looked.is_some_and(|at| at.elapsed() < LAG_EVERY) {
            return Ok(None);
        }
        self.lag_looked = Some(Instant::now());
        let applied = try_join_all(peers.iter_mut().map(Peer::applied)).await?;
        for (origin, tail) in peers.iter().zip(&self.tails) {
            for (peer, applied) in peers.iter().zip(&applied) {
                let seq = applied.get(origin.id);
                let behind = tail.lock().lag.behind(seq, self.began.elapsed());
                if peer.id != origin.id && behind > most {
                    let seconds = behind.as_secs_f64();
                    return Ok(Some(format!(
                        "{} is {seconds:.0} s behind {}",
                        peer.name, origin.name
                    )));
                }
            }
        }
        Ok(None)
    }
}

/// What has not been applied everywhere.
async fn unapplied(
    peers: &mut [Peer],
    wanted: &[Option<Seq>],
) -> Result<Option<String>, VerifyError> {
    let applied: Vec<Vector> = try_join_all(peers.iter_mut().map(Peer::applied)).await?;
    for (origin, wanted) in peers.iter().zip(wanted) {
        for (peer, applied) in peers.iter().zip(&applied) {
            if peer.id != origin.id && Some(applied.get(origin.id)) < *wanted {
                return Ok(Some(format!("{} has not applied all of {}", peer.name, origin.name)));
            }
        }
    }
    Ok(None)
}
