//! The board that the agent's parts write and the admin API reads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{AgentStatus, LagWindow, RateWindow, StreamStatus};

/// Shared by clone. Sections under its lock are short and never wait.
#[derive(Clone, Debug, Default)]
pub struct StatusBoard(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    status: AgentStatus,
    figures: BTreeMap<String, Figures>,
}

/// Samples of what waits: one for each so many microseconds of commit time.
const WAITING_EVERY_US: u64 = 50_000;
/// At most so many: over the limit the age is the oldest known, which is what counts.
const WAITING_MAX: usize = 4_096;

#[derive(Debug, Default)]
struct Figures {
    lag: LagWindow,
    rate: RateWindow,
    /// Seq and commit time of some of what waits in the inbox, in order.
    waiting: VecDeque<(u64, u64)>,
    /// Commit time of the last sample that was applied.
    passed_us: Option<u64>,
}

impl Figures {
    fn arrived(&mut self, seq: u64, commit_us: u64) {
        if self.waiting.back().is_some_and(|(last, _)| *last >= seq) {
            // The inbox is read again from an earlier place.
            self.waiting.clear();
        }
        let spaced = self
            .waiting
            .back()
            .is_none_or(|(_, last)| commit_us >= last.saturating_add(WAITING_EVERY_US));
        if spaced && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((seq, commit_us));
        }
    }

    /// The age of the oldest that waits; between two samples that of the one before.
    fn behind(&mut self, applied: u64, now_us: u64) -> Option<u64> {
        while let Some((_, commit_us)) = self.waiting.front().filter(|(seq, _)| *seq <= applied) {
            self.passed_us = Some(*commit_us);
            self.waiting.pop_front();
        }
        let next = self.waiting.front().map(|(_, commit_us)| *commit_us);
        next.or(self.passed_us).map(|commit_us| now_us.saturating_sub(commit_us))
    }
}

impl StatusBoard {
    /// A board that starts with `status`: region, version, start and one entry of
    /// `streams` for each peer.
    #[must_use]
    pub fn new(status: AgentStatus) -> Self {
        Self(Arc::new(Mutex::new(Inner { status, figures: BTreeMap::new() })))
    }

    /// Changes the document; `change` must not block.
    pub fn update(&self, change: impl FnOnce(&mut AgentStatus)) {
        change(&mut self.lock().status);
    }

    /// Changes one origin's stream, which is made when it is not there.
    pub fn stream(&self, origin: &str, change: impl FnOnce(&mut StreamStatus)) {
        let mut inner = self.lock();
        if let Some(stream) = inner.status.streams.get_mut(origin) {
            change(stream);
        } else {
            change(inner.status.streams.entry(origin.to_owned()).or_default());
        }
    }

    /// One transaction of `origin` became visible `lag_us` after its commit there.
    pub fn lag(&self, origin: &str, lag_us: u64, now_us: u64) {
        self.figures(origin, |figures| figures.lag.record(lag_us, 1, now_us));
    }

    /// Transaction `seq` of `origin`, committed there at `commit_us`, is in the inbox.
    pub fn arrived(&self, origin: &str, seq: u64, commit_us: u64) {
        self.figures(origin, |figures| figures.arrived(seq, commit_us));
        self.stream(origin, |stream| stream.inbox_seq = stream.inbox_seq.max(Some(seq)));
    }

    /// A batch of `txns` transactions of `origin` committed, up to `seq`.
    pub fn applied(&self, origin: &str, seq: u64, txns: u64, now_us: u64) {
        self.figures(origin, |figures| figures.rate.add(txns, now_us));
        self.stream(origin, |stream| {
            stream.applied_seq = stream.applied_seq.max(Some(seq));
            stream.last_applied_us = Some(now_us);
        });
    }

    /// [`AgentStatus::lacks`].
    #[must_use]
    pub fn lacks(&self, origin: &str) -> bool {
        self.lock().status.lacks(origin)
    }

    /// The whole document, with lags, rates and backlogs worked out.
    #[must_use]
    pub fn snapshot(&self, now_us: u64) -> AgentStatus {
        let mut inner = self.lock();
        let Inner { status, figures } = &mut *inner;
        status.at_us = now_us;
        for (origin, stream) in &mut status.streams {
            if let (Some(inbox), Some(applied)) = (stream.inbox_seq, stream.applied_seq) {
                stream.backlog = Some(inbox.saturating_sub(applied));
            }
            if let Some(figures) = figures.get_mut(origin) {
                stream.lag = figures.lag.summary(now_us);
                stream.rate_txns = Some(figures.rate.per_second(now_us));
                stream.behind_us = match (stream.backlog, stream.applied_seq) {
                    (Some(0), _) => Some(0),
                    (Some(_), Some(applied)) => figures.behind(applied, now_us),
                    _ => None,
                };
            }
        }
        status.clone()
    }

    fn figures(&self, origin: &str, change: impl FnOnce(&mut Figures)) {
        let mut inner = self.lock();
        if let Some(figures) = inner.figures.get_mut(origin) {
            change(figures);
        } else {
            change(inner.figures.entry(origin.to_owned()).or_default());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The document stays readable after a panic elsewhere: each change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
