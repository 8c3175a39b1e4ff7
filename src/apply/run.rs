//! The apply loop: gather, plan, write, look again, commit.
//!
//! Two batches are in flight on two sessions. The second is written while the first,
//! whose locks are all taken, waits for capture and commits; it may wait for the
//! first one's locks, never the other way round, so the pair can't deadlock. When
//! the first is not committed, both go back to their queues and are planned anew.
//!
//! With a deep backlog a third is planned meanwhile, so that the server never waits
//! for a plan. After local writes got in between, batches go one at a time for a while
//! (`redo`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::advice::plan_advice;
use super::batch::{self, Batch, BatchLimits, Gathered};
use super::gate::{
    Gate, Miss, SHUT_ADVICE, SharedIndex, Written, finish, lock, miss_text, shut_text, write,
};
use super::redo::Care;
use super::stream::{Arrival, Item, Stream, StreamState, arrival};
use super::tell::{TOLD, Trouble};
use super::{ApplyConfig, ApplyError, ApplyInputs, ErrorKind, Gone, Order, Report, Session};
use crate::change::{BinlogPoint, Dot, RegionId, Seq, Vector};
use crate::clock::wall_us;
use crate::resolve::{Conflict, ConflictKind, Planner};
use crate::version::{BatchId, Heads};

pub(super) struct Applier {
    pub(super) config: ApplyConfig,
    pub(super) streams: BTreeMap<RegionId, Stream>,
    pub(super) told: BTreeMap<RegionId, StreamState>,
    pub(super) peers: Vec<RegionId>,
    pub(super) committed: Vector,
    pub(super) planned: Vector,
    pub(super) heads: Heads,
    pub(super) index: SharedIndex,
    pub(super) gate: Gate,
    pub(super) reports: mpsc::Sender<Report>,
    offset_us: watch::Receiver<i64>,
    pub(super) batches: u64,
    /// Streams that have lost parts of a large transaction: to resume they are read
    /// again from the inbox.
    pub(super) reread: BTreeSet<RegionId>,
    pub(super) again: bool,
    /// The schema changes here that the sessions know of.
    pub(super) schema: u64,
    limits: BatchLimits,
    care: Care,
    /// Row changes of the largest batch given up since the last one was committed.
    tried: usize,
    /// Batches of a single transaction still to come, to find the one that fails.
    alone: usize,
    failures: u32,
    pub(super) trouble: Option<Trouble>,
    /// When the loop has last told that it goes round.
    pub(super) round: Option<std::time::Instant>,
    /// Committed batches that are still to be told of, with the time of the commit.
    pub(super) done: Vec<(Batch, u64)>,
}

/// Transactions in a queue from which on the next batch is planned ahead. With fewer
/// it would be small and miss what arrives meanwhile.
const DEEP: usize = 256;

/// Applies the peers' records until cancelled; the batch in flight is finished
/// first.
///
/// # Errors
/// [`ApplyError`] when no stream can go on: the database is gone or another agent
/// has taken over. What was not committed is applied by the next run.
pub async fn run(
    config: ApplyConfig,
    inputs: ApplyInputs,
    reports: mpsc::Sender<Report>,
    cancel: CancellationToken,
) -> Result<(), ApplyError> {
    let mut first = Session::connect(&config.opts, config.flavor, config.epoch).await?;
    let mut second = Session::connect(&config.opts, config.flavor, config.epoch).await?;
    let (arrivals, applied, mut orders, sources) = Sources::of(inputs);
    let mut applier = Applier::new(config, arrivals, applied, reports, sources);
    let (mut written, mut ready): (Option<Written>, Option<Batch>) = (None, None);
    loop {
        if cancel.is_cancelled() && written.is_none() {
            break;
        }
        let mut ordered = false;
        while let Ok(order) = orders.try_recv() {
            applier.obey(order);
            ordered = true;
        }
        if applier.again && written.is_none() {
            return Err(ApplyError::Again("a resumed stream".to_owned()));
        }
        applier.look_again([&mut first, &mut second]).await;
        let halted = cancel.is_cancelled() || applier.again || !applier.may_lock();
        if halted || ordered {
            applier.unplan(ready.take(), &[written.as_ref().map(|written| &written.batch)]);
        }
        let next = applier.next(halted || ready.is_some(), written.is_some());
        applier.tell_states().await;
        let mut batch = match next {
            Gathered::Batch(items) => applier.plan(items),
            Gathered::Large(origin) if written.is_none() => {
                applier.large(origin, &mut first, &cancel).await?;
                continue;
            }
            Gathered::Nothing if written.is_none() && ready.is_none() => {
                applier.idle(&mut orders, &cancel).await;
                continue;
            }
            Gathered::Nothing | Gathered::Large(_) => ready.take(),
        };
        let (gate, planned) = (applier.gate.clone(), batch.is_some());
        let (finished, point, ahead) = tokio::join!(
            Box::pin(finish(&gate, &mut first, written.as_mut())),
            Box::pin(write(&mut second, &gate, batch.as_mut())),
            Box::pin(applier.ahead(planned))
        );
        ready = ahead;
        let older = written.take();
        if finished.is_err() || point.is_err() {
            let in_flight = [older.as_ref().map(|older| &older.batch), batch.as_ref()];
            applier.unplan(ready.take(), &in_flight);
        }
        let finished =
            applier.settle(older, finished, &mut first, (&mut batch, &mut second)).await?;
        written = applier.written(batch, point, finished, &mut second).await?;
        std::mem::swap(&mut first, &mut second);
    }
    applier.account().await;
    Ok(())
}

/// What the gate and the clock read, and what the index lacks.
struct Sources {
    index: SharedIndex,
    gone: Gone,
    captured: watch::Receiver<BinlogPoint>,
    awaited: watch::Sender<u32>,
    acked: watch::Receiver<Seq>,
    schema: watch::Receiver<u64>,
    offset_us: watch::Receiver<i64>,
}

type Arrivals = BTreeMap<RegionId, mpsc::Receiver<Arrival>>;

impl Sources {
    /// With what is not read from again and again.
    fn of(inputs: ApplyInputs) -> (Arrivals, Vector, mpsc::Receiver<Order>, Self) {
        let ApplyInputs { arrivals, applied, index, gone, captured, awaited, .. } = inputs;
        let ApplyInputs { acked, schema, orders, offset_us, .. } = inputs;
        let sources = Self { index, gone, captured, awaited, acked, schema, offset_us };
        (arrivals, applied, orders, sources)
    }
}

impl Applier {
    fn new(
        config: ApplyConfig,
        arrivals: Arrivals,
        applied: Vector,
        reports: mpsc::Sender<Report>,
        sources: Sources,
    ) -> Self {
        let peers = arrivals.keys().copied().collect();
        let streams = arrivals
            .into_iter()
            .map(|(origin, rx)| (origin, Stream::new(origin, rx, &sources.gone)));
        Self {
            streams: streams.collect(),
            told: BTreeMap::new(),
            peers,
            committed: applied.clone(),
            planned: applied,
            heads: Heads::default(),
            index: Arc::clone(&sources.index),
            gate: Gate {
                region: config.region,
                book: config.book.clone(),
                index: sources.index,
                captured: sources.captured,
                awaited: sources.awaited,
                acked: sources.acked,
                schema: sources.schema,
                wait_max: config.wait_max,
                stood: 0,
                shut: None,
            },
            reports,
            offset_us: sources.offset_us,
            batches: 0,
            reread: BTreeSet::new(),
            again: false,
            schema: 0,
            limits: config.limits,
            care: Care::default(),
            tried: 0,
            alone: 0,
            failures: 0,
            trouble: None,
            round: None,
            done: Vec::new(),
            config,
        }
    }

    fn obey(&mut self, order: Order) {
        let (Order::Pause(origin) | Order::Resume(origin)) = order;
        if matches!(order, Order::Resume(_)) && self.reread.contains(&origin) {
            self.again = true;
        }
        if let Some(stream) = self.streams.get_mut(&origin) {
            stream.state = match order {
                Order::Pause(_) => StreamState::Paused,
                Order::Resume(_) => StreamState::Running,
            };
        }
    }

    /// Whether a batch may take locks. While what the last one waited for is not
    /// there, none does, and the streams say so.
    fn may_lock(&mut self) -> bool {
        if self.gate.is_open() {
            return true;
        }
        if let Some(shut) = self.gate.shut.as_ref().filter(|shut| shut.since.elapsed() > TOLD) {
            let reason = shut_text(&shut.until).to_owned();
            let advice = SHUT_ADVICE.to_owned();
            let state = StreamState::Retrying { reason, advice };
            for stream in self.streams.values_mut().filter(|stream| !stream.is_stopped()) {
                stream.state = state.clone();
            }
        }
        false
    }

    /// What is written next, beside the batch in flight.
    fn next(&mut self, halted: bool, in_flight: bool) -> Gathered {
        if halted || (in_flight && self.care.is_taken()) {
            return Gathered::Nothing;
        }
        self.gather()
    }

    fn gather(&mut self) -> Gathered {
        let trusted = wall_us().saturating_add_signed(*self.offset_us.borrow());
        let latest = trusted.saturating_add(self.config.ahead_us_max);
        let mut limits = self.care.limits(self.limits);
        if self.alone > 0 {
            self.alone -= 1;
            limits.txns = 1;
        }
        batch::gather(&mut self.streams, &mut self.planned, self.config.region, limits, latest)
    }

    /// Waits until there may be something to do.
    async fn idle(&mut self, orders: &mut mpsc::Receiver<Order>, cancel: &CancellationToken) {
        self.trouble = None;
        self.account().await;
        tokio::select! {
            () = cancel.cancelled() => {}
            order = orders.recv() => if let Some(order) = order { self.obey(order) },
            () = arrival(&mut self.streams) => {}
            () = self.gate.moved() => {}
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }

    /// What is done while the server works on the batches in flight: tells of those
    /// before, and plans the one after them when there is enough for it.
    async fn ahead(&mut self, plan: bool) -> Option<Batch> {
        self.account().await;
        if !plan || self.alone > 0 || self.care.is_taken() || !self.is_deep() {
            return None;
        }
        match self.gather() {
            Gathered::Batch(items) => self.plan(items),
            Gathered::Large(_) | Gathered::Nothing => None,
        }
    }

    fn is_deep(&mut self) -> bool {
        let mut streams = self.streams.values_mut().filter(|stream| !stream.is_stopped());
        streams.any(|stream| {
            stream.fill();
            stream.queue.len() >= DEEP
        })
    }

    /// Puts a planned batch back that was not written; those in flight stand before it.
    fn unplan(&mut self, ready: Option<Batch>, in_flight: &[Option<&Batch>]) {
        let Some(ready) = ready else { return };
        self.give_up(ready);
        for item in in_flight.iter().flatten().flat_map(|batch| &batch.items) {
            self.planned.raise(item.dot.origin, item.dot.seq);
        }
    }

    /// Plans and stages the items. A transaction that can't join is left for the
    /// next batch, and stops its stream when it stands first.
    fn plan(&mut self, mut items: Vec<Item>) -> Option<Batch> {
        self.batches += 1;
        let id = BatchId(self.batches);
        let mut index = lock(&self.index);
        let plan = loop {
            match batch::plan(Planner::new(&index, &self.gate.book), &items) {
                Ok(plan) => break plan,
                Err((at, error)) => {
                    let rest = items.split_off(at);
                    let origin = rest[0].dot.origin;
                    batch::put_back(&mut self.streams, rest);
                    if items.is_empty() {
                        halt(&mut self.streams, origin, &error.to_string(), plan_advice(&error));
                        drop(index);
                        // An older batch may be in flight: the queues tell, not what is
                        // committed.
                        self.replan();
                        return None;
                    }
                }
            }
        };
        let mut batch = Batch { id, items, plan, care: self.care.is_taken() };
        if !batch.is_idle() {
            batch.stage(&mut index);
        }
        drop(index);
        self.replan();
        Some(batch)
    }

    /// The planned vector after items were put back: it ends before the queues' fronts.
    fn replan(&mut self) {
        for (&origin, stream) in &self.streams {
            let held = self.planned.get(origin);
            if let Some(next) = stream.next_seq().filter(|&next| next <= held) {
                let before = Seq(next.0 - 1);
                let lower =
                    |dot: Dot| if dot.origin == origin { Dot { origin, seq: before } } else { dot };
                self.planned = self.planned.iter().map(lower).collect();
            }
        }
    }

    /// After the older batch: reports it, or puts it back, and the younger one before
    /// it: what is put back last stands first in the queues. False when both were put
    /// back.
    async fn settle(
        &mut self,
        written: Option<Written>,
        finished: Result<(), Miss>,
        session: &mut Session,
        (younger, younger_session): (&mut Option<Batch>, &mut Session),
    ) -> Result<bool, ApplyError> {
        let Some(Written { batch, redone, .. }) = written else { return Ok(true) };
        let miss = match finished {
            Err(miss) if !(miss.is_unknown() && self.was_committed(session, &batch).await?) => miss,
            Ok(()) | Err(_) => {
                self.committed_batch(batch);
                self.care.committed(redone);
                return Ok(true);
            }
        };
        if let Some(younger) = younger.take() {
            younger_session.rollback().await?;
            self.give_up(younger);
        }
        self.give_up(batch);
        if matches!(miss, Miss::Database(_) | Miss::Commit(_)) {
            session.rollback().await?;
        }
        self.failed(&miss, 2).await?;
        Ok(false)
    }

    pub(super) async fn was_committed(
        &self,
        session: &mut Session,
        batch: &Batch,
    ) -> Result<bool, ApplyError> {
        let marks = batch.marks();
        let Some(mark) = marks.first() else { return Ok(false) };
        session.was_committed(batch.slot(), mark.dot).await
    }

    /// After the younger batch: keeps it as written, or puts it back.
    async fn written(
        &mut self,
        batch: Option<Batch>,
        point: Result<BinlogPoint, ApplyError>,
        older_stands: bool,
        session: &mut Session,
    ) -> Result<Option<Written>, ApplyError> {
        let Some(batch) = batch else { return Ok(None) };
        match point {
            Ok(point) if older_stands => Ok(Some(Written::new(batch, point, self.schema))),
            Ok(_) => {
                session.rollback().await?;
                self.give_up(batch);
                Ok(None)
            }
            Err(error) => {
                session.rollback().await?;
                let txns = batch.marks().len().max(batch.items.len());
                let front = batch.items[0].dot.origin;
                let table = error.table_in(&batch.plan.tables);
                let mut miss = None;
                if older_stands && txns == 1 && error.kind() == ErrorKind::Row {
                    miss = self.gate.knew_all(session, (&batch.plan, batch.id)).await.err();
                    if miss.is_none() {
                        self.give_up(batch);
                        self.stop(front, &error, table);
                        return Ok(None);
                    }
                }
                self.give_up(batch);
                if older_stands {
                    self.failed(&miss.unwrap_or(Miss::Database(error)), txns).await?;
                }
                Ok(None)
            }
        }
    }

    fn give_up(&mut self, batch: Batch) {
        self.tried = self.tried.max(batch.items.iter().map(Item::rows).sum());
        lock(&self.index).abandon(batch.id);
        batch::put_back(&mut self.streams, batch.items);
        self.planned = self.committed.clone();
    }

    /// Decides how to go on after a batch of so many transactions was put back.
    async fn failed(&mut self, miss: &Miss, txns: usize) -> Result<(), ApplyError> {
        self.failures += 1;
        // Half of what was tried, which may have been far below the limit.
        self.limits.rows = (self.limits.rows.min(self.tried) / 2).max(16);
        self.tried = 0;
        let reason = miss_text(miss);
        self.gate.missed(miss);
        if matches!(miss, Miss::Stale) {
            self.limits = self.care.take(self.limits);
        }
        let pause_ms = match miss {
            Miss::Stale | Miss::Altered | Miss::CaptureBehind(_) | Miss::OutboxBehind(_) => 0,
            Miss::Database(error) | Miss::Commit(error) => match self.in_trouble(error) {
                ErrorKind::Retry => 5 * u64::from(self.failures.min(40)),
                ErrorKind::Full => 1000,
                ErrorKind::Row => {
                    self.alone = txns;
                    0
                }
                ErrorKind::Fenced | ErrorKind::Halt => return Err(error.clone()),
            },
        };
        tracing::debug!(reason, "batch put back");
        self.report(Report::Retry(reason)).await;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        Ok(())
    }

    pub(super) fn committed_batch(&mut self, batch: Batch) {
        self.failures = 0;
        self.trouble = None;
        self.gate.stood = 0;
        self.limits.rows =
            (self.limits.rows + self.limits.rows / 4 + 1).min(self.config.limits.rows);
        for item in &batch.items {
            self.committed.raise(item.dot.origin, item.dot.seq);
        }
        let missing = |conflict: &&Conflict| conflict.kind == ConflictKind::RowMissing;
        let rows = batch.plan.conflicts.iter().filter(missing).count();
        if rows > 0 {
            tracing::warn!(rows, "rows were missing here: the conflict log names them");
        }
        self.done.push((batch, wall_us()));
    }
}

pub(super) fn halt(
    streams: &mut BTreeMap<RegionId, Stream>,
    origin: RegionId,
    reason: &str,
    advice: &str,
) {
    tracing::error!(origin = origin.get(), reason, advice, "stream halted");
    if let Some(stream) = streams.get_mut(&origin) {
        stream.state = StreamState::Halted { reason: reason.to_owned(), advice: advice.to_owned() };
    }
}

#[cfg(test)]
mod tests;
