//! What the applier tells: committed batches, conflicts, the streams' states.

use std::time::{Duration, Instant};

use super::gate::lock;
use super::run::Applier;
use super::stream::{Body, StreamState};
use super::{AppliedTxn, ApplyError, ErrorKind, Report};

/// After how long the streams' states say that the gate is shut, or that the database
/// refuses batches for what passes by itself: a deadlock is no news.
pub(super) const TOLD: Duration = Duration::from_secs(1);

/// How often the loop tells that it goes round.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// Why the database takes no batch. Set by one that fails for what is nobody's row, until
/// one commits or there is none to write; the streams' states tell of it.
#[derive(Debug)]
pub(super) struct Trouble {
    since: Instant,
    kind: ErrorKind,
    reason: String,
    advice: String,
}

impl Applier {
    /// Notes that the database has refused a batch, and why; gives how to go on.
    pub(super) fn in_trouble(&mut self, error: &ApplyError) -> ErrorKind {
        let kind = error.kind();
        if !matches!(kind, ErrorKind::Full | ErrorKind::Retry) {
            return kind;
        }
        let held = self.trouble.take();
        let (reason, advice) = (error.to_string(), error.advice());
        if kind == ErrorKind::Full && held.as_ref().is_none_or(|held| held.kind != kind) {
            tracing::error!(reason, advice, "the database takes no batch");
        }
        let since = held.map_or_else(Instant::now, |held| held.since);
        self.trouble = Some(Trouble { since, kind, reason, advice });
        kind
    }

    /// What a stream is told to do: what it does, unless no batch can be written.
    fn shown(&self, state: &StreamState) -> StreamState {
        let lasts =
            |trouble: &&Trouble| trouble.kind == ErrorKind::Full || trouble.since.elapsed() > TOLD;
        match (self.trouble.as_ref().filter(lasts), state) {
            (Some(Trouble { reason, advice, .. }), StreamState::Running) => {
                StreamState::Retrying { reason: reason.clone(), advice: advice.clone() }
            }
            _ => state.clone(),
        }
    }

    /// Tells of the committed batches, and lets go what they made stable.
    pub(super) async fn account(&mut self) {
        for (batch, at_us) in std::mem::take(&mut self.done) {
            let mut txns = Vec::with_capacity(batch.items.len());
            let rows = batch.plan.rows();
            for item in batch.items {
                self.heads.raise(item.dot.origin, &item.deps);
                if matches!(item.body, Body::Heartbeat) {
                    continue;
                }
                txns.push(AppliedTxn {
                    dot: item.dot,
                    hlc: item.hlc,
                    commit_us: item.commit_us,
                    gtid: item.gtid,
                });
            }
            let stable = self.heads.stable(&self.peers, self.config.region, &self.committed);
            lock(&self.index).collect(&stable);
            let conflicts = batch.plan.conflicts;
            if !conflicts.is_empty() {
                self.report(Report::Conflicts(conflicts)).await;
            }
            self.report(Report::Applied { txns, rows, at_us, stable }).await;
        }
    }

    pub(super) async fn report(&self, report: Report) {
        if self.reports.send(report).await.is_err() {
            tracing::debug!("nobody listens to the applier's reports");
        }
    }

    /// Tells what the streams do where that has changed, and that the loop goes round.
    pub(super) async fn tell_states(&mut self) {
        if self.round.is_none_or(|told| told.elapsed() >= ROUND_EVERY) {
            self.round = Some(Instant::now());
            self.report(Report::Round).await;
        }
        let mut changed = Vec::new();
        for (&origin, stream) in &self.streams {
            let state = self.shown(&stream.state);
            if self.told.get(&origin) != Some(&state) {
                changed.push((origin, state));
            }
        }
        for (origin, state) in changed {
            self.told.insert(origin, state.clone());
            self.report(Report::State(origin, state)).await;
        }
    }
}
