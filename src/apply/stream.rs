//! One peer's stream inside the applier: its queue, its state, and why it waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Gone;
use crate::change::{Accepted, Dot, Record, RecordBody, RegionId, Seq, Table, TableChange, Vector};
use crate::clock::Hlc;

/// A record that the inbox's order has accepted. The first part of a large transaction is
/// given once its last one is in the inbox too: the parts are written under locks.
#[derive(Debug)]
pub struct Arrival {
    /// The record.
    pub record: Record,
    /// `Next` or `NewEpoch`.
    pub accepted: Accepted,
    /// Its size in Kafka.
    pub bytes: usize,
    /// Its share of what may wait for the applier; given back when that takes it.
    pub room: Option<OwnedSemaphorePermit>,
}

/// A queued record.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Names the transaction; a heartbeat repeats the last one.
    pub dot: Dot,
    /// Its stamp.
    pub hlc: Hlc,
    /// Who shipped it.
    pub epoch: u64,
    /// What its author had seen.
    pub deps: Arc<Vector>,
    /// The source's commit time, microseconds since the Unix epoch.
    pub commit_us: u64,
    /// The source's name of it.
    pub gtid: String,
    /// Size in Kafka.
    pub bytes: usize,
    /// What it is.
    pub body: Body,
}

/// What a queued record is.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// Moves deps only.
    Heartbeat,
    /// A whole transaction.
    Whole(Vec<TableChange>),
    /// One part of a large transaction.
    Part {
        /// Its changes.
        changes: Vec<TableChange>,
        /// 0 is the first.
        part: u32,
        /// No part follows.
        last: bool,
    },
    /// The parts so far are void.
    Void,
}

impl Item {
    fn new(arrival: Arrival) -> Self {
        let Arrival { record, accepted, bytes, room: _ } = arrival;
        let (commit_us, body) = match record.body {
            RecordBody::Start(_) | RecordBody::Heartbeat(_) => {
                let body =
                    if accepted == Accepted::NewEpoch { Body::Void } else { Body::Heartbeat };
                (record.hlc.0, body)
            }
            RecordBody::Transaction(txn) => {
                let body = match (txn.aborted, txn.part, txn.last) {
                    (true, ..) => Body::Void,
                    (false, 0, true) => Body::Whole(txn.changes),
                    (false, part, last) => Body::Part { changes: txn.changes, part, last },
                };
                (txn.commit_us, body)
            }
        };
        Self {
            dot: Dot { origin: record.origin, seq: record.seq },
            hlc: record.hlc,
            epoch: record.epoch,
            deps: Arc::new(record.deps),
            commit_us,
            gtid: record.gtid,
            bytes,
            body,
        }
    }

    /// Row changes in it.
    #[must_use]
    pub(super) fn rows(&self) -> usize {
        match &self.body {
            Body::Whole(changes) | Body::Part { changes, .. } => {
                changes.iter().map(|change| change.rows.len()).sum()
            }
            Body::Heartbeat | Body::Void => 0,
        }
    }
}

/// What a stream does. Set by the applier after every batch; read by the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Applies as records come.
    Running,
    /// Paused by an operator, until resumed.
    Paused,
    /// Nothing has come, and nothing of it is held: it was silent for longer than its
    /// records are kept. Until a record comes.
    Silent,
    /// The next transaction's author had seen this one, which is not applied here.
    WaitingDeps(Dot),
    /// The next transaction's author had not seen this one, and what is between is gone
    /// here: whether the two are in conflict can't be told. Until the origin is seeded
    /// anew.
    Unjudged(Dot),
    /// The next record claims a time beyond the limit; until time has caught up.
    ClockAhead {
        /// By how much, microseconds.
        ahead_us: u64,
    },
    /// Capture or outbox does not go on, so no batch takes locks, or the database takes
    /// none; it goes on by itself.
    Retrying {
        /// What is waited for, or what is wrong.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// The table here does not take the next transaction; until it does.
    Unfit {
        /// What is missing or differs.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// The next transaction can't be applied; until an operator resumes.
    Halted {
        /// What is wrong.
        reason: String,
        /// What to do.
        advice: String,
    },
}

/// One peer's queue.
#[derive(Debug)]
pub(super) struct Stream {
    /// In [`StreamState::Unfit`]: the origin's table, and when to look again.
    pub(super) unfit: Option<(Table, Instant)>,
    pub(super) origin: RegionId,
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    pub(super) queue: VecDeque<Item>,
    pub(super) state: StreamState,
    pub(super) closed: bool,
    floor: Vector,
    is_silent: bool,
}

/// Records held per stream beside the channel.
const QUEUE_MAX: usize = 4096;
/// Their bytes in Kafka: a part of a large transaction is larger than many small ones.
/// In memory their values take about three times as much.
const QUEUE_BYTES_MAX: usize = 8 << 20;

impl Stream {
    /// `gone` is what of the other origins can't be judged here any more.
    pub(super) fn new(origin: RegionId, arrivals: mpsc::Receiver<Arrival>, gone: &Gone) -> Self {
        let state = StreamState::Running;
        Self {
            unfit: None,
            origin,
            arrivals,
            queue: VecDeque::new(),
            state,
            closed: false,
            floor: gone.floor.clone(),
            is_silent: gone.silent.contains(&origin),
        }
    }

    /// The state while nothing stands in the way.
    pub(super) fn going(&mut self) -> StreamState {
        self.is_silent &= self.queue.is_empty();
        if self.is_silent { StreamState::Silent } else { StreamState::Running }
    }

    /// Whether an operator or an error keeps it from going on.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(
            self.state,
            StreamState::Paused
                | StreamState::Halted { .. }
                | StreamState::Unfit { .. }
                | StreamState::Unjudged(_)
        )
    }

    /// Takes what has arrived, up to the limit.
    pub(super) fn fill(&mut self) {
        let mut bytes: usize = self.queue.iter().map(|item| item.bytes).sum();
        while self.queue.len() < QUEUE_MAX && bytes < QUEUE_BYTES_MAX {
            match self.arrivals.try_recv() {
                Ok(arrival) => {
                    bytes += arrival.bytes;
                    self.push(arrival);
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.closed = true;
                    break;
                }
            }
        }
    }

    pub(super) fn push(&mut self, arrival: Arrival) {
        let body = &arrival.record.body;
        let aborted = matches!(body, RecordBody::Transaction(txn) if txn.aborted);
        let item = Item::new(arrival);
        // A transaction that was rolled back has used its seq up.
        let rest = aborted.then(|| Item { body: Body::Whole(Vec::new()), ..item.clone() });
        self.queue.push_back(item);
        self.queue.extend(rest);
    }

    /// The first transaction in the queue. Heartbeats and what makes parts void stand
    /// behind a transaction that may be taken already, and repeat its seq.
    pub(super) fn next_seq(&self) -> Option<Seq> {
        let counts = |item: &&Item| matches!(item.body, Body::Whole(_) | Body::Part { .. });
        self.queue.iter().find(counts).map(|item| item.dot.seq)
    }

    /// Why the front can't be applied on top of `applied` at `now_us`, if so.
    pub(super) fn blocked(
        &self,
        applied: &Vector,
        me: RegionId,
        latest_us: u64,
    ) -> Option<StreamState> {
        let front = self.queue.front()?;
        if front.hlc.0 > latest_us {
            return Some(StreamState::ClockAhead { ahead_us: front.hlc.0 - latest_us });
        }
        let unseen = |dot: &Dot| dot.origin != self.origin && !front.deps.covers(*dot);
        if matches!(front.body, Body::Whole(_) | Body::Part { .. })
            && let Some(dot) = self.floor.iter().find(unseen)
        {
            return Some(StreamState::Unjudged(dot));
        }
        applied.awaits(&front.deps, self.origin, me).map(StreamState::WaitingDeps)
    }
}

/// Resolves when some stream has something new.
pub(super) async fn arrival(streams: &mut BTreeMap<RegionId, Stream>) {
    let waits = streams.values_mut().filter(|s| !s.is_stopped() && s.queue.is_empty());
    let waits: Vec<_> = waits
        .filter(|stream| !stream.closed)
        .map(|stream| {
            Box::pin(async move {
                match stream.arrivals.recv().await {
                    Some(arrival) => stream.push(arrival),
                    None => stream.closed = true,
                }
            })
        })
        .collect();
    if waits.is_empty() {
        std::future::pending::<()>().await;
    }
    futures_util::future::select_all(waits).await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::apply::batch::{BatchLimits, Gathered, gather};
    use crate::change::{Position, Transaction, pb};

    impl Arrival {
        /// The next record of an origin, which had seen nothing of others.
        pub(in crate::apply) fn of(origin: RegionId, seq: u64, body: RecordBody) -> Self {
            let record = Record {
                origin,
                epoch: 1,
                seq: Seq(seq),
                hlc: Hlc(seq),
                deps: Vector::default(),
                gtid: String::new(),
                position: Position::default(),
                topology: 0,
                body,
            };
            Self { record, accepted: Accepted::Next, bytes: 100, room: None }
        }
    }

    const ORIGIN: RegionId = RegionId::new(2).unwrap();

    fn stream(records: Vec<(u64, Accepted, RecordBody)>) -> Stream {
        let mut stream = Stream::new(ORIGIN, mpsc::channel(1).1, &Gone::default());
        for (seq, accepted, body) in records {
            stream.push(Arrival { accepted, ..Arrival::of(ORIGIN, seq, body) });
        }
        stream
    }

    fn txn(seq: u64) -> (u64, Accepted, RecordBody) {
        let body = Transaction { last: true, ..Default::default() };
        (seq, Accepted::Next, RecordBody::Transaction(body))
    }

    fn start(seq: u64) -> (u64, Accepted, RecordBody) {
        (seq, Accepted::NewEpoch, RecordBody::Start(pb::Start::default()))
    }

    fn beat(seq: u64) -> (u64, Accepted, RecordBody) {
        (seq, Accepted::Next, RecordBody::Heartbeat(pb::Heartbeat::default()))
    }

    #[test]
    fn a_new_epoch_is_no_transaction_of_the_queue() {
        assert_eq!(stream(vec![start(4), beat(4), txn(5), txn(6)]).next_seq(), Some(Seq(5)));
        assert_eq!(stream(vec![beat(4), start(4)]).next_seq(), None);
    }

    #[test]
    fn a_transaction_that_was_rolled_back_is_applied_as_an_empty_one() {
        let part = Transaction::default();
        let void = Transaction { aborted: true, last: true, ..Default::default() };
        let bodies = [part, void].map(|body| (5, Accepted::Next, RecordBody::Transaction(body)));
        let mut streams = BTreeMap::from([(ORIGIN, stream(bodies.into()))]);
        // What a large transaction does with a part that proves void.
        streams.values_mut().for_each(|stream| drop(stream.queue.pop_front()));
        let mut planned: Vector = [Dot { origin: ORIGIN, seq: Seq(4) }].into_iter().collect();
        let me = RegionId::new(1).unwrap();
        let limits = BatchLimits { rows: 9, bytes: 9, txns: 9 };
        let gathered = gather(&mut streams, &mut planned, me, limits, u64::MAX);
        let Gathered::Batch(items) = gathered else { panic!("{gathered:?}") };
        assert!(matches!(items[..], [Item { body: Body::Whole(ref rows), .. }] if rows.is_empty()));
        assert_eq!(planned.get(ORIGIN), Seq(5));
    }

    #[test]
    fn what_has_not_seen_the_floor_is_not_judged() {
        let (me, other) = (RegionId::new(1).unwrap(), RegionId::new(3).unwrap());
        let gone = |floor: [(RegionId, u64); 2]| {
            let dots = floor.map(|(origin, seq)| Dot { origin, seq: Seq(seq) });
            Gone { floor: dots.into_iter().collect(), ..Gone::default() }
        };
        let check = |gone: &Gone, wanted: Option<StreamState>| {
            let mut stream = stream(vec![beat(4), txn(5)]);
            stream.floor = gone.floor.clone();
            assert_eq!(stream.blocked(&Vector::default(), me, u64::MAX), None, "a heartbeat");
            stream.queue.pop_front();
            assert_eq!(stream.blocked(&Vector::default(), me, u64::MAX), wanted);
        };
        let unseen = |origin, seq| Some(StreamState::Unjudged(Dot { origin, seq: Seq(seq) }));
        // Its author has seen nothing of the others, and all of its own.
        check(&gone([(me, 0), (ORIGIN, 9)]), None);
        check(&gone([(me, 0), (other, 1)]), unseen(other, 1));
        check(&gone([(me, 7), (other, 0)]), unseen(me, 7));
    }
}
