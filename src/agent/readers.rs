//! Reads one inbox into the applier.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::backlog::{Come, Waiting};
use super::own::{RECORD_MAX, away, connect};
use super::{AgentError, Shared};
use crate::apply::{self, Arrival};
use crate::change::{Dropped, Place, Record, RecordBody};
use crate::clock::wall_us;
use crate::metrics::Stage;
use crate::ship::{ErrorKind, Inbox, InboxConfig, InboxItem, Newest, ShipError, newest_topology};
use crate::status::StreamState;
use crate::topology::Region;

/// Bytes of records between a reader and the applier, for each peer: the channel alone
/// would hold a thousand parts of a large transaction.
const ARRIVALS_BYTES_MAX: usize = 8 << 20;
/// How often a reader tells of itself while records come.
const TELL_EVERY_US: u64 = 100_000;

/// Where a halted stream's inbox is looked at again: the operator need not restart the
/// agent after mending it.
const HALTED_PAUSE: Duration = Duration::from_secs(5);
/// Until a fence that could not be recorded is tried again.
const RECORD_AGAIN_US: u64 = 10_000_000;
/// How often a reader that waits tells that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// After what passes by itself.
const PAUSE: Duration = Duration::from_millis(200);

/// Between two looks for the end of a large transaction.
const GATHER_AGAIN: Duration = Duration::from_millis(20);
/// A transaction that takes so long to come is told.
const GATHER_TOLD_US: u64 = 2_000_000;
const GATHERS: &str = "the rest of a large transaction is not in the inbox yet";

/// Reads on until cancelled. What can't be read halts this stream alone.
pub(crate) async fn read(
    shared: Arc<Shared>,
    peer: Region,
    after: Place,
    arrivals: mpsc::Sender<Arrival>,
    cancel: CancellationToken,
) {
    let inbox = shared.setup.topology.inbox(&shared.setup.region, &peer);
    let config =
        InboxConfig { cluster: shared.cluster(&inbox), topic: inbox.name, origin: peer.id, after };
    let room = Arc::new(Semaphore::new(ARRIVALS_BYTES_MAX));
    let here = shared.setup.topology.fingerprint();
    let come = Arc::new(Come::default());
    come.epoch.store(after.epoch, Ordering::Relaxed);
    let waiting = Waiting {
        shared: Arc::clone(&shared),
        peer: peer.name.clone(),
        come: Arc::clone(&come),
        arrivals: arrivals.clone(),
        room: Arc::clone(&room),
        room_bytes: ARRIVALS_BYTES_MAX,
    };
    let mut forwarding = Forwarding {
        shared,
        peer,
        arrivals,
        room,
        come,
        told: (0, 0),
        dropped: Vec::new(),
        record_us: 0,
        told_us: 0,
        halted: None,
        here,
        settled: None,
        differs: None,
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = Box::pin(forwarding.run(&config)) => cancel.cancelled().await,
        never = Box::pin(waiting.count(&config)) => match never {},
    }
}

/// One inbox on its way to the applier.
struct Forwarding {
    shared: Arc<Shared>,
    peer: Region,
    arrivals: mpsc::Sender<Arrival>,
    /// Bytes that may still wait for the applier.
    room: Arc<Semaphore>,
    /// What it says of itself to who counts what waits.
    come: Arc<Come>,
    /// Dropped records that the metrics know of.
    told: (u64, u64),
    /// Of a fenced agent, until the database has the record of it.
    dropped: Vec<Dropped>,
    /// Not before then.
    record_us: u64,
    told_us: u64,
    /// Why the stream can't go on, as the status says it.
    halted: Option<String>,
    /// The fingerprint of the topology here.
    here: u32,
    /// An epoch under another topology, whose region has the same as this one by now.
    settled: Option<u64>,
    /// What the last Start record said, where it was not what is said here.
    differs: Option<(u32, String)>,
}

impl Forwarding {
    /// Ends when the applier has gone.
    async fn run(&mut self, config: &InboxConfig) {
        let mut inbox = loop {
            match Inbox::open(config).await {
                Ok(inbox) => break inbox,
                Err(error) => self.failed(&error).await,
            }
        };
        // Found when it was opened.
        let mut is_placed = true;
        loop {
            if !is_placed {
                match inbox.find_again().await {
                    Ok(()) => is_placed = true,
                    Err(error) => {
                        self.failed(&error).await;
                        continue;
                    }
                }
            }
            match self.waits(inbox.next()).await {
                Ok(item) => {
                    self.agree(&item.record, config).await;
                    self.gather(&item.record, config).await;
                    self.goes_on();
                    if !self.pass(item, &mut inbox).await {
                        return;
                    }
                }
                Err(error) => {
                    is_placed = error.kind() == ErrorKind::Retry;
                    // Made anew by someone: what it lacks shows as a gap.
                    if !matches!(error, ShipError::Purged { .. }) {
                        self.failed(&error).await;
                    }
                }
            }
        }
    }

    /// Waits for something, and tells meanwhile that the reader lives.
    async fn waits<T>(&self, something: impl Future<Output = T>) -> T {
        let mut something = pin!(something);
        loop {
            match tokio::time::timeout(ALIVE_EVERY, something.as_mut()).await {
                Ok(done) => return done,
                Err(_) => self.lives(),
            }
        }
    }

    fn lives(&self) {
        self.shared.metrics.heartbeat(Stage::Inbox, &self.peer.name, wall_us());
    }

    /// Says what is wrong, and waits until it is time to look again.
    async fn failed(&mut self, error: &ShipError) {
        let name = &self.peer.name;
        self.lives();
        if error.kind() == ErrorKind::Retry {
            tracing::debug!(%error, peer = name, "inbox waits");
            self.shared.board.stream(name, |stream| {
                if stream.state == StreamState::Starting {
                    stream.reason = Some(error.to_string());
                }
            });
            return tokio::time::sleep(PAUSE).await;
        }
        let reason = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        self.stops(StreamState::Halted, reason, error.advice()).await;
    }

    /// Says why the inbox is not read on, and waits until it is time to look again. The
    /// applier keeps the stream's place; the reason stays in the status.
    async fn stops(&mut self, state: StreamState, reason: String, advice: &str) {
        let name = &self.peer.name;
        if self.halted.as_ref() != Some(&reason) {
            tracing::error!(reason, advice, peer = name, "inbox is not read on");
        }
        self.shared.board.stream(name, |stream| {
            stream.state = state;
            stream.reason = Some(reason.clone());
            stream.advice = Some(advice.to_owned());
        });
        self.halted = Some(reason);
        self.come.stopped.store(true, Ordering::Relaxed);
        self.waits(tokio::time::sleep(HALTED_PAUSE)).await;
    }

    /// Waits until the record's region resolves conflicts by the same topology as this
    /// one. What it wrote before it did may be applied then: its database resolves what
    /// is to come as this one does.
    async fn agree(&mut self, record: &Record, config: &InboxConfig) {
        let (topology, here) = (&self.shared.setup.topology, self.here);
        if let RecordBody::Start(start) = &record.body {
            self.differs = topology.differs_from(&start.topology).map(|why| (record.topology, why));
        }
        let alike = |there: u32| there == 0 || there == here;
        if alike(record.topology) || self.settled == Some(record.epoch) {
            return;
        }
        loop {
            match newest_topology(config).await {
                Ok(Some(newest)) if !alike(newest) => self.disagrees(newest).await,
                Ok(_) => break,
                Err(error) => self.failed(&error).await,
            }
        }
        self.settled = Some(record.epoch);
    }

    /// Says that the regions have different topologies, and where they differ if a Start
    /// record has told.
    async fn disagrees(&mut self, there: u32) {
        let (name, here) = (&self.peer.name, self.here);
        let told = self.differs.as_ref().filter(|(of, _)| *of == there);
        let told = told.map(|(_, why)| format!(": {why}")).unwrap_or_default();
        let reason = format!(
            "region {name} runs another topology ({there:08x}, here {here:08x}){told}; each would \
             resolve conflicts by its own"
        );
        let advice = "start the agents of all regions with the same regions and tables in the \
            topology (causeway topology validate prints its fingerprint); the stream then goes on \
            by itself";
        self.stops(StreamState::Held, reason, advice).await;
    }

    /// Waits until all parts of a large transaction are here: they are written under locks,
    /// which no link and no peer is to prolong.
    async fn gather(&mut self, first: &Record, config: &InboxConfig) {
        match &first.body {
            RecordBody::Transaction(txn) if txn.part == 0 && !txn.last && !txn.aborted => {}
            RecordBody::Transaction(_) | RecordBody::Heartbeat(_) | RecordBody::Start(_) => return,
        }
        let (began_us, name) = (wall_us(), self.peer.name.clone());
        let mut end = loop {
            match Newest::open(config) {
                Ok(end) => break end,
                Err(error) => self.failed(&error).await,
            }
        };
        loop {
            match end.read().await {
                Ok(Some(newest)) if has_ended(first, &newest) => return,
                Ok(newest) => {
                    let (heard, now_us) = (newest.map(|newest| newest.hlc.0), wall_us());
                    self.lives();
                    let takes_long = now_us.saturating_sub(began_us) > GATHER_TOLD_US;
                    self.shared.board.stream(&name, |stream| {
                        stream.heard_us = stream.heard_us.max(heard);
                        if takes_long && stream.state == StreamState::Running {
                            stream.reason = Some(GATHERS.to_owned());
                        }
                    });
                    if takes_long {
                        self.halted = Some(GATHERS.to_owned());
                        self.come.stopped.store(true, Ordering::Relaxed);
                    }
                    tokio::time::sleep(GATHER_AGAIN).await;
                }
                Err(error) => self.failed(&error).await,
            }
        }
    }

    /// Takes back what a halt has said, unless the applier has said more since.
    fn goes_on(&mut self) {
        let Some(reason) = self.halted.take() else { return };
        self.come.stopped.store(false, Ordering::Relaxed);
        tracing::info!(peer = self.peer.name, "inbox can be read again");
        self.shared.board.stream(&self.peer.name, |stream| {
            if stream.reason.as_ref() == Some(&reason) {
                stream.state = StreamState::Running;
                (stream.reason, stream.advice) = (None, None);
            }
        });
    }

    /// Gives the record to the applier; false when that has gone.
    async fn pass(&mut self, item: InboxItem, inbox: &mut Inbox) -> bool {
        let (shared, peer) = (&self.shared, &self.peer);
        self.come.epoch.store(item.record.epoch, Ordering::Relaxed);
        if let RecordBody::Heartbeat(beat) = &item.record.body {
            let pair = (peer.id, shared.setup.region.id);
            shared.clocks.heard(pair, beat, item.received_us);
        }
        if item.received_us.saturating_sub(self.told_us) >= TELL_EVERY_US {
            self.told_us = item.received_us;
            tell(shared, peer, inbox, (&mut self.told, self.told_us));
            self.dropped.extend(inbox.take_fenced());
            if self.told_us >= self.record_us && !record(shared, peer, &mut self.dropped).await {
                self.record_us = self.told_us + RECORD_AGAIN_US;
            }
        }
        match &item.record.body {
            RecordBody::Transaction(txn) => {
                shared.board.arrived(&peer.name, item.record.seq.0, txn.commit_us);
            }
            RecordBody::Heartbeat(_) | RecordBody::Start(_) => {
                let Record { seq, hlc, deps, .. } = &item.record;
                let seen = deps.get(shared.setup.region.id);
                shared.board.stream(&peer.name, |stream| {
                    stream.inbox_seq = stream.inbox_seq.max(Some(seq.0));
                    stream.heard_us = stream.heard_us.max(Some(hlc.0));
                    stream.seen_seq = stream.seen_seq.max(Some(seen.0));
                });
            }
        }
        let share = u32::try_from(item.bytes.min(ARRIVALS_BYTES_MAX)).expect("8 MiB fit");
        // The semaphore is never closed.
        let room = self.waits(Arc::clone(&self.room).acquire_many_owned(share)).await.ok();
        let arrival =
            Arrival { record: item.record, accepted: item.accepted, bytes: item.bytes, room };
        self.waits(self.arrivals.send(arrival)).await.is_ok()
    }
}

/// Whether nothing more comes of the transaction whose first part this is, as the newest
/// record of its topic tells.
fn has_ended(first: &Record, newest: &Record) -> bool {
    if newest.epoch != first.epoch {
        return newest.epoch > first.epoch;
    }
    match &newest.body {
        RecordBody::Transaction(txn) => {
            newest.seq > first.seq || newest.seq == first.seq && (txn.last || txn.aborted)
        }
        RecordBody::Heartbeat(_) | RecordBody::Start(_) => newest.seq >= first.seq,
    }
}

/// Records what was dropped of a fenced agent. What can't be recorded stays; false then.
async fn record(shared: &Shared, peer: &Region, runs: &mut Vec<Dropped>) -> bool {
    while let Some(run) = runs.last() {
        let written = Box::pin(write(shared, peer, run));
        let failed = match tokio::time::timeout(RECORD_MAX, written).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the database does not answer".to_owned()),
        };
        if let Some(reason) = failed {
            tracing::warn!(reason, peer = peer.name, "a fence is not recorded yet");
            return false;
        }
        tracing::warn!(
            peer = peer.name,
            epoch = run.ended,
            records = run.records,
            "dropped what a fenced agent wrote"
        );
        runs.pop();
    }
    true
}

async fn write(shared: &Shared, peer: &Region, run: &Dropped) -> Result<(), AgentError> {
    let mut conn = connect(shared).await?;
    apply::dropped(&mut conn, peer.id, run).await?;
    conn.disconnect().await.map_err(away)
}

/// That the reader lives, and what it has dropped since it `told` last.
fn tell(shared: &Shared, peer: &Region, inbox: &Inbox, (told, now_us): (&mut (u64, u64), u64)) {
    shared.metrics.heartbeat(Stage::Inbox, &peer.name, now_us);
    let dropped = inbox.dropped();
    let metrics = &shared.metrics;
    metrics.inbox_duplicates.with_label_values(&[&peer.name]).inc_by(dropped.0 - told.0);
    metrics.inbox_fenced.with_label_values(&[&peer.name]).inc_by(dropped.1 - told.1);
    *told = dropped;
}
