//! Gathers transactions of all streams into one batch: whole, in origin order, each
//! after what its author had seen (R2, R3).

use std::collections::BTreeMap;

use hashbrown::HashSet;

use super::Mark;
use super::stream::{Body, Item, Stream};
use crate::change::{RegionId, Vector};
use crate::resolve::{self, Conflict, Incoming, Plan, PlanError, Planner, Rulebook};
use crate::version::{BatchId, Index, RowKey};

/// Bounds of one batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Row changes.
    pub rows: usize,
    /// Kafka bytes.
    pub bytes: usize,
    /// Transactions: 1 looks for the one that fails.
    pub txns: usize,
}

/// Transactions that commit together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: BatchId,
    pub(super) items: Vec<Item>,
    pub(super) plan: Plan,
    /// No younger one will be in flight: it may be done again under its locks.
    pub(super) care: bool,
}

impl Batch {
    /// Per origin the last transaction in it: the marker rows.
    pub(super) fn marks(&self) -> Vec<Mark> {
        let txns = self.items.iter().filter(|item| !matches!(item.body, Body::Heartbeat));
        let mark = |item: &Item| Mark { dot: item.dot, epoch: item.epoch, hlc: item.hlc };
        let last: BTreeMap<_, _> = txns.map(|item| (item.dot.origin, mark(item))).collect();
        last.into_values().collect()
    }

    /// Gives its writes to the index, before it takes a lock.
    pub(super) fn stage(&mut self, index: &mut Index) {
        let marks = self.marks().into_iter().map(|mark| mark.dot).collect();
        index.hidden.hide(self.plan.hidden.drain(..));
        index.stage(self.id, marks, std::mem::take(&mut self.plan.writes));
    }

    /// Heartbeats alone need no database.
    pub(super) fn is_idle(&self) -> bool {
        self.items.iter().all(|item| matches!(item.body, Body::Heartbeat))
    }

    /// The slot of its marker rows: batches in flight together have different ones.
    pub(super) fn slot(&self) -> u8 {
        u8::try_from(self.id.0 % 8).expect("a remainder of 8 fits")
    }
}

/// What the applier should run next.
#[derive(Debug)]
pub(super) enum Gathered {
    /// These whole transactions and heartbeats.
    Batch(Vec<Item>),
    /// A large transaction stands at the front of this stream.
    Large(RegionId),
    /// Nothing can be applied.
    Nothing,
}

/// Takes from the fronts of the streams, round after round, until a limit is
/// reached or no front can go.
pub(super) fn gather(
    streams: &mut BTreeMap<RegionId, Stream>,
    planned: &mut Vector,
    me: RegionId,
    limits: BatchLimits,
    latest_us: u64,
) -> Gathered {
    let mut items = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    loop {
        let before = items.len();
        for stream in streams.values_mut().filter(|stream| !stream.is_stopped()) {
            stream.fill();
            loop {
                if let Some(why) = stream.blocked(planned, me, latest_us) {
                    stream.state = why;
                    break;
                }
                stream.state = stream.going();
                let Some(front) = stream.queue.front() else { break };
                match &front.body {
                    Body::Part { part: 0, .. } if items.is_empty() => {
                        return Gathered::Large(stream.origin);
                    }
                    Body::Part { part: 0, .. } => return Gathered::Batch(items),
                    // What is left of a large transaction that was given up.
                    Body::Part { .. } | Body::Void => {
                        stream.queue.pop_front();
                        continue;
                    }
                    Body::Heartbeat | Body::Whole(_) => {}
                }
                rows += front.rows();
                bytes += front.bytes;
                if !items.is_empty()
                    && (rows > limits.rows || bytes > limits.bytes || items.len() >= limits.txns)
                {
                    return Gathered::Batch(items);
                }
                let item = stream.queue.pop_front().expect("the front was just seen");
                let expected = match item.body {
                    Body::Heartbeat => planned.get(item.dot.origin),
                    Body::Whole(_) | Body::Part { .. } | Body::Void => {
                        planned.get(item.dot.origin).next()
                    }
                };
                assert_eq!(item.dot.seq, expected, "transactions apply in the origin's order");
                planned.raise(item.dot.origin, item.dot.seq);
                items.push(item);
            }
        }
        if items.len() == before {
            break;
        }
    }
    if items.is_empty() { Gathered::Nothing } else { Gathered::Batch(items) }
}

/// Plans the items; when one can't join, gives the place where it stands and why.
pub(super) fn plan(mut planner: Planner<'_>, items: &[Item]) -> Result<Plan, (usize, PlanError)> {
    for (at, item) in items.iter().enumerate() {
        let (Body::Whole(changes) | Body::Part { changes, .. }) = &item.body else { continue };
        planner.add(&incoming(item, changes)).map_err(|error| (at, error))?;
    }
    Ok(planner.finish())
}

/// What is told of rows that these items had to find, and did not.
pub(super) fn missing(book: &Rulebook, items: &[Item], absent: HashSet<RowKey>) -> Vec<Conflict> {
    if absent.is_empty() {
        return Vec::new();
    }
    let txns = items.iter().filter_map(|item| match &item.body {
        Body::Whole(changes) | Body::Part { changes, .. } => Some(incoming(item, changes)),
        Body::Heartbeat | Body::Void => None,
    });
    // They were planned: each of their rows has an identity.
    resolve::missing(book, txns, absent).unwrap_or_default()
}

fn incoming<'a>(item: &'a Item, changes: &'a [crate::change::TableChange]) -> Incoming<'a> {
    let gtid = &item.gtid;
    Incoming { dot: item.dot, hlc: item.hlc, deps: &item.deps, gtid, changes }
}

/// Puts items back at the fronts of their queues, as they were.
pub(super) fn put_back(streams: &mut BTreeMap<RegionId, Stream>, items: Vec<Item>) {
    for item in items.into_iter().rev() {
        if let Some(stream) = streams.get_mut(&item.dot.origin) {
            stream.queue.push_front(item);
        }
    }
}
