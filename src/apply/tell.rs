//! What the applier tells: committed batches, conflicts, the streams' states.

use super::gate::lock;
use super::run::Applier;
use super::stream::Body;
use super::{AppliedTxn, Report};

impl Applier {
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

    pub(super) async fn tell_states(&mut self) {
        let mut changed = Vec::new();
        for (&origin, stream) in &self.streams {
            if self.told.get(&origin) != Some(&stream.state) {
                changed.push((origin, stream.state.clone()));
            }
        }
        for (origin, state) in changed {
            self.told.insert(origin, state.clone());
            self.report(Report::State(origin, state)).await;
        }
    }
}
