//! One session: from taking the epoch to the first part that can't go on.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::own::{Owned, own};
use super::stamp::Stamper;
use super::{AgentError, Shared, ddl, fit, guard, observe, pause, prune, readers, rebuild};
use crate::apply::{self, ApplyConfig, ApplyInputs, BatchLimits, Flavor, Gone};
use crate::capture::{self, CaptureConfig, CaptureEvent, Files};
use crate::change::{BinlogPoint, Place, Record, RegionId, Seq, pb};
use crate::clock::{Clock, Now, wall_us};
use crate::failpoint;
use crate::metrics::Stage;
use crate::ship::{Outbox, Tail};
use crate::status::{AgentState, CaptureState, StreamState};

/// Records between a reader and the applier, for each peer.
const ARRIVALS_MAX: usize = 1_024;
/// Bursts between the binlog connection and stamping: few, since each may hold a part of
/// a large transaction.
const BURSTS_MAX: usize = 4;

/// Runs a session until cancelled, or until a part of it can't go on.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    cancel: &CancellationToken,
) -> Result<(), AgentError> {
    let (owned, outbox, tail) = Box::pin(own(shared)).await?;
    ddl::recall(shared, &owned.opts).await?;
    pause::recall(shared, &owned.opts).await?;
    let topic = shared.setup.topology.outbox(&shared.setup.region);
    tracing::info!(epoch = owned.epoch, seq = tail.seq.0, position = %tail.position, "session begins");
    shared.board.update(|status| {
        status.epoch = Some(owned.epoch);
        status.outbox.topic = Some(topic.name.clone());
        status.outbox.acked_seq = Some(tail.seq.0);
        for stream in status.streams.values_mut() {
            stream.state = StreamState::Rebuilding;
        }
    });
    let places = owned.applied.iter().map(|(&origin, &(place, _))| (origin, place)).collect();
    let (index, gone) = Box::pin(rebuild::index(shared, &places, tail.seq)).await?;
    let inner = cancel.child_token();
    let mut parts = Parts::new();
    let index = Arc::new(Mutex::new(index));
    let captured = start_capture((shared, &owned), (outbox, &tail), index, &inner, &mut parts);
    start_apply(shared, owned, (captured, gone), &inner, &mut parts);
    shared.control.repeat(shared);
    let ended = first_error(&mut parts, &inner, shared.setup.grace).await;
    match ended {
        Some(error) => Err(error),
        None if cancel.is_cancelled() => Ok(()),
        None => Err(AgentError::Ended("a part of the session")),
    }
}

/// Waits for the first part to end, stops the others, and gives the first error of
/// all: a part that ends because another failed has none of its own.
async fn first_error(
    parts: &mut Parts,
    cancel: &CancellationToken,
    grace: Duration,
) -> Option<AgentError> {
    let mut error = None;
    let mut take = |ended: Result<Result<(), AgentError>, tokio::task::JoinError>| {
        let failed = match ended {
            Ok(ended) => ended.err(),
            Err(_) => Some(AgentError::Ended("a part of the session")),
        };
        error = error.take().or(failed);
    };
    if let Some(ended) = parts.join_next().await {
        take(ended);
    }
    cancel.cancel();
    let stop = async {
        while let Some(ended) = parts.join_next().await {
            take(ended);
        }
    };
    if tokio::time::timeout(grace, stop).await.is_err() {
        tracing::warn!("parts of the session did not stop in time and were dropped");
        parts.abort_all();
    }
    error
}

/// The tasks of a session: the first to end ends it.
type Parts = JoinSet<Result<(), AgentError>>;

/// What apply needs of capture's side.
struct Captured {
    point: watch::Receiver<BinlogPoint>,
    awaited: watch::Sender<u32>,
    acked: watch::Receiver<Seq>,
    schema: watch::Receiver<u64>,
    index: apply::SharedIndex,
}

/// Starts the reading of the binlog, its stamping into the outbox, and the guard of
/// the right to do so.
fn start_capture(
    (shared, owned): (&Arc<Shared>, &Owned),
    (outbox, tail): (Outbox, &Tail),
    index: apply::SharedIndex,
    cancel: &CancellationToken,
    parts: &mut Parts,
) -> Captured {
    let setup = &shared.setup;
    let limits = &setup.topology.limits;
    let (bursts_tx, bursts) = mpsc::channel(BURSTS_MAX);
    let topology = setup.topology.clone();
    let files = shared.files.clone();
    let (awaited, waiting) = watch::channel(0);
    let capture = CaptureConfig {
        opts: owned.opts.clone(),
        server_id: setup.server_id,
        from: tail.position.clone(),
        part_bytes: limits.record_bytes.len(),
        rest_max: limits.capture_wait.get(),
        files: files.clone(),
        replicates: Arc::new(move |schema, table| match table {
            capture::ALL_TABLES => topology.replicates_of(schema),
            table => topology.replicates(schema, table),
        }),
    };
    let cancelled = cancel.clone();
    parts.spawn(async move { Ok(capture::run(capture, waiting, bursts_tx, cancelled).await?) });

    let start = match owned.flavor {
        Flavor::MariaDb => BinlogPoint::from_mariadb(&tail.position.0),
        Flavor::MySql(..) => Some(BinlogPoint::File { file: 0, offset: 0 }),
    };
    let start = start.unwrap_or(BinlogPoint::Domains(BTreeMap::new()));
    let (captured, point) = watch::channel(start);
    let acked = outbox.acked();
    parts.spawn(tell_silence(Arc::clone(shared), outbox.silent(), cancel.clone()));
    let clock = Clock::new(tail.hlc, limits.clock_offset.micros());
    let stamper = Stamper::new(
        (setup.region.id, setup.topology.fingerprint()),
        owned.epoch,
        tail,
        clock,
        (Arc::clone(&index), shared.book.clone()),
    );
    let (schema, schema_changes) = watch::channel(0);
    let stamping = Stamping {
        shared: Arc::clone(shared),
        stamper,
        outbox,
        captured,
        schema,
        opts: owned.opts.clone(),
        sent: tail.seq,
        files,
    };
    parts.spawn(stamping.run(bursts, cancel.clone()));

    let pruned = prune::keep(owned.opts.clone(), limits.clone());
    let cancelled = cancel.clone();
    parts.spawn(async move {
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = pruned => {}
        }
        Ok(())
    });
    let guarded = guard::watch(Arc::clone(shared), owned.opts.clone(), owned.epoch, acked.clone());
    let fit = fit::watch(Arc::clone(shared), owned.opts.clone());
    let cancelled = cancel.clone();
    parts.spawn(async move {
        tokio::select! {
            () = cancelled.cancelled() => Ok(()),
            error = Box::pin(guarded) => Err(error),
            error = Box::pin(fit) => Err(error),
        }
    });
    Captured { point, awaited, acked, schema: schema_changes, index }
}

/// Shows that Kafka does not acknowledge: capture waits with it, and says nothing.
async fn tell_silence(
    shared: Arc<Shared>,
    mut silent: watch::Receiver<Option<Duration>>,
    cancel: CancellationToken,
) -> Result<(), AgentError> {
    loop {
        let reason = silent.borrow_and_update().map(|waited| {
            format!("Kafka has not acknowledged a record for {} s", waited.as_secs())
        });
        shared.board.update(|status| status.outbox.reason = reason);
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            changed = silent.changed() => if changed.is_err() {
                cancel.cancelled().await;
                return Ok(());
            },
        }
    }
}

/// Starts the readers of the inboxes and the applier.
fn start_apply(
    shared: &Arc<Shared>,
    owned: Owned,
    (captured, gone): (Captured, Gone),
    cancel: &CancellationToken,
    parts: &mut Parts,
) {
    let arrivals = start_readers(shared, &owned, cancel, parts);
    let limits = &shared.setup.topology.limits;
    let (orders_tx, orders) = mpsc::channel(64);
    shared.control.take_orders(orders_tx);
    let (reports_tx, reports) = mpsc::channel(1_024);
    let observed = observe::reports(Arc::clone(shared), reports);
    parts.spawn(async move {
        observed.await;
        Ok(())
    });
    let places = owned.applied.iter().map(|(&origin, &(place, _))| (origin, place));
    let inputs = ApplyInputs {
        arrivals,
        applied: places.collect(),
        index: captured.index,
        gone,
        captured: captured.point,
        awaited: captured.awaited,
        acked: captured.acked,
        schema: captured.schema,
        orders,
        offset_us: shared.clocks.majority(),
    };
    let config = ApplyConfig {
        region: shared.setup.region.id,
        opts: owned.opts,
        flavor: owned.flavor,
        epoch: owned.epoch,
        limits: BatchLimits {
            rows: usize::try_from(limits.batch_rows).unwrap_or(usize::MAX),
            bytes: limits.batch_bytes.len(),
            txns: usize::MAX,
        },
        wait_max: limits.apply_wait.get(),
        book: shared.book.clone(),
        ahead_us_max: limits.clock_offset.micros(),
    };
    let cancelled = cancel.clone();
    parts.spawn(
        async move { Ok(Box::pin(apply::run(config, inputs, reports_tx, cancelled)).await?) },
    );
}

fn start_readers(
    shared: &Arc<Shared>,
    owned: &Owned,
    cancel: &CancellationToken,
    parts: &mut Parts,
) -> BTreeMap<RegionId, mpsc::Receiver<apply::Arrival>> {
    let mut arrivals = BTreeMap::new();
    for peer in shared.peers() {
        let (sender, receiver) = mpsc::channel(ARRIVALS_MAX);
        arrivals.insert(peer.id, receiver);
        let after = owned.applied.get(&peer.id).map_or_else(Place::default, |(place, _)| *place);
        shared.board.stream(&peer.name, |stream| {
            stream.applied_seq = Some(after.seq.0);
            stream.state = StreamState::Starting;
            stream.reason = None;
            stream.advice = None;
        });
        let reader = readers::read(Arc::clone(shared), peer.clone(), after, sender, cancel.clone());
        parts.spawn(async move {
            reader.await;
            Ok(())
        });
    }
    arrivals
}

/// Capture's consumer: stamps, sends, and says how far it has come.
pub(super) struct Stamping {
    pub(super) shared: Arc<Shared>,
    stamper: Stamper,
    outbox: Outbox,
    captured: watch::Sender<BinlogPoint>,
    schema: watch::Sender<u64>,
    pub(super) opts: mysql_async::Opts,
    sent: Seq,
    files: Option<Files>,
}

impl Stamping {
    async fn run(
        mut self,
        mut bursts: mpsc::Receiver<Vec<CaptureEvent>>,
        cancel: CancellationToken,
    ) -> Result<(), AgentError> {
        self.shared.board.update(|status| {
            status.state = AgentState::Running;
            status.reason = None;
            status.capture.state = CaptureState::Running;
            status.capture.reason = None;
            status.capture.advice = None;
        });
        let interval = self.shared.setup.topology.limits.heartbeat.get();
        let mut beat = tokio::time::interval(interval);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let failure = self.outbox.failure();
        tokio::pin!(failure);
        let ended = loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break Ok(()),
                error = &mut failure => break Err(AgentError::Ship(error)),
                _ = beat.tick() => if let Err(error) = self.beat().await { break Err(error) },
                burst = bursts.recv() => match burst {
                    None => break Ok(()),
                    Some(burst) => {
                        let taken = Box::pin(self.take(burst, &cancel)).await;
                        if let Err(error) = taken { break Err(error) }
                    }
                },
            }
        };
        self.outbox.close(Duration::from_secs(3)).await;
        ended
    }

    fn now(&self) -> Now {
        let clocks = &self.shared.clocks;
        Now {
            trusted_us: wall_us().saturating_add_signed(clocks.majority_us()),
            source_off_us: clocks.source().unwrap_or(0),
        }
    }

    /// Stamps a burst and sends it.
    async fn take(
        &mut self,
        burst: Vec<CaptureEvent>,
        cancel: &CancellationToken,
    ) -> Result<(), AgentError> {
        let mut stamped = Stamped { records: Vec::with_capacity(burst.len()), after: None };
        for event in burst {
            self.count(&event);
            if let CaptureEvent::Ddl { .. } = &event {
                // It may hold the stream; what came before it must not wait for that.
                self.ship(&mut stamped).await?;
                self.schema.send_modify(|changes| *changes += 1);
                self.schema_change(&event, cancel).await?;
            }
            if let CaptureEvent::Changes { .. } = &event {
                failpoint::pause(failpoint::CAPTURED).await;
            }
            if let Err(error) = self.stamp(event, &mut stamped) {
                self.ship(&mut stamped).await?;
                return Err(error);
            }
        }
        self.ship(&mut stamped).await
    }

    fn stamp(&mut self, event: CaptureEvent, stamped: &mut Stamped) -> Result<(), AgentError> {
        let after = match &event {
            CaptureEvent::Changes { last: true, after, .. }
            | CaptureEvent::Applied { after, .. }
            | CaptureEvent::Skipped { after }
            | CaptureEvent::Ddl { after, .. } => Some(after.point.clone()),
            CaptureEvent::Changes { .. } | CaptureEvent::Aborted => None,
        };
        let now = self.now();
        if let CaptureEvent::Changes { commit, .. } = &event {
            let committed_us = self.stamper.commit_us(*commit, now);
            let behind = now.trusted_us.saturating_sub(committed_us);
            self.shared.board.update(|status| status.capture.behind_us = Some(behind));
        }
        stamped.records.extend(self.stamper.take(event, now)?);
        if let Some(table) = self.stamper.refused() {
            self.refused(&table);
        }
        stamped.after = after.or(stamped.after.take());
        Ok(())
    }

    /// A local transaction that every peer halts at: the region that wrote it says so too.
    fn refused(&self, table: &str) {
        tracing::error!(table, "a row of an insert_only table was changed: every peer halts at it");
        self.shared.metrics.capture_refused.with_label_values(&[table]).inc();
        self.shared.board.update(|status| status.capture.refused = Some(table.to_owned()));
    }

    /// Sends what is stamped, then says how far capture has come.
    async fn ship(&mut self, stamped: &mut Stamped) -> Result<(), AgentError> {
        if let Some(last) = stamped.records.last() {
            self.sent = last.seq;
            let count = u64::try_from(stamped.records.len()).unwrap_or(u64::MAX);
            self.shared.metrics.outbox_records.with_label_values::<&str>(&[]).inc_by(count);
            self.outbox.send(std::mem::take(&mut stamped.records)).await?;
        }
        if let Some(point) = stamped.after.take() {
            self.captured.send_replace(point);
        }
        Ok(())
    }

    fn count(&self, event: &CaptureEvent) {
        let metrics = &self.shared.metrics;
        match event {
            CaptureEvent::Changes { last, changes, .. } => {
                let rows: usize = changes.iter().map(|change| change.rows.len()).sum();
                let rows = u64::try_from(rows).unwrap_or(u64::MAX);
                metrics.capture_rows.with_label_values::<&str>(&[]).inc_by(rows);
                if *last {
                    metrics.capture_txns.with_label_values::<&str>(&[]).inc();
                    self.shared.board.update(|status| status.capture.captured_txns += 1);
                }
            }
            CaptureEvent::Applied { marks, .. } if marks.is_empty() => {
                metrics.capture_repairs.with_label_values::<&str>(&[]).inc();
            }
            CaptureEvent::Applied { .. } => {
                metrics.capture_recognised.with_label_values::<&str>(&[]).inc();
                self.shared.board.update(|status| status.capture.recognised_txns += 1);
            }
            CaptureEvent::Aborted | CaptureEvent::Skipped { .. } | CaptureEvent::Ddl { .. } => {}
        }
    }

    /// Tells peers and operators that this region lives, and what it has seen.
    pub(super) async fn beat(&mut self) -> Result<(), AgentError> {
        let now = wall_us();
        let shared = Arc::clone(&self.shared);
        shared.metrics.heartbeat(Stage::Capture, "", now);
        shared.metrics.heartbeat(Stage::Outbox, "", now);
        let beat = pb::Heartbeat { sent_us: now, delays: shared.clocks.delays() };
        let acked = self.outbox.acked().borrow().0;
        let record = self.stamper.heartbeat(beat);
        let (keys, writes) = self.stamper.index_size();
        shared.board.update(|status| {
            status.outbox.acked_seq = Some(acked);
            status.outbox.sent_seq = Some(self.sent.0);
            status.capture.gtid = Some(record.position.0.clone());
            status.capture.from_files =
                self.files.as_ref().map(|files| files.in_use.load(Ordering::Relaxed));
            status.index.keys = u64::try_from(keys).ok();
            status.index.writes = u64::try_from(writes).ok();
            status.clock.hlc_us = Some(self.stamper.hlc().0);
            status.clock.source_offset_us = shared.clocks.source();
            status.clock.limit_us = self.shared.setup.topology.limits.clock_offset.micros();
            let offsets = shared.clocks.offsets(now);
            status.clock.offset_us = offsets
                .into_iter()
                .map(|(origin, offset)| (shared.name(origin).to_owned(), offset))
                .collect();
        });
        if self.stamper.is_idle() {
            self.outbox.send(vec![record]).await?;
        }
        Ok(())
    }
}

/// What a burst has given so far.
struct Stamped {
    /// In order; not sent yet.
    records: Vec<Record>,
    /// Where the binlog is read up to once they are sent.
    after: Option<BinlogPoint>,
}
