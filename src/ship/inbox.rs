//! The inbox: a peer's records in order, each once.

use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::StreamConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};

use super::ShipError;
use super::kafka::{Cluster, assign, bounds};
use crate::change::{Accepted, ReaderOrder, Record, RecordBody, RegionId, Seq};
use crate::clock::wall_us;

/// How near the search for a record comes to it.
const NEAR: i64 = 512;

/// How far back reading begins, so that what a fenced agent or a restarted link wrote
/// out of order is seen together with the record that fences it. A fenced agent can
/// still add what its producer's queue holds and what it captures until its guard looks.
const FENCE_RECORDS: i64 = 16_384;

/// The same for large records: what a producer's queue may hold.
const FENCE_BYTES: usize = 64 << 20;

/// How an inbox is opened.
#[derive(Clone, Debug)]
pub struct InboxConfig {
    /// The Kafka that holds it.
    pub cluster: Cluster,
    /// The topic.
    pub topic: String,
    /// Whose records it holds.
    pub origin: RegionId,
    /// The last transaction that is applied here.
    pub after: Seq,
}

/// A record that counts.
#[derive(Debug)]
pub struct InboxItem {
    /// The record.
    pub record: Record,
    /// `Next` or `NewEpoch`.
    pub accepted: Accepted,
    /// Its size.
    pub bytes: usize,
    /// When it was read, microseconds since the Unix epoch.
    pub received_us: u64,
}

/// The reading end of an inbox.
pub struct Inbox {
    consumer: StreamConsumer,
    topic: String,
    origin: RegionId,
    order: ReaderOrder,
    duplicates: u64,
    fenced: u64,
}

impl Inbox {
    /// Finds the place after `after` and reads from there.
    ///
    /// # Errors
    /// [`ShipError`].
    pub async fn open(config: &InboxConfig) -> Result<Self, ShipError> {
        let InboxConfig { cluster, topic, origin, after } = config;
        let consumer = cluster.consumer()?;
        let (low, high) = bounds(&consumer, topic)?;
        let found = search(cluster, topic, *origin, *after, (low, high)).await?;
        let from = before_fence(&consumer, topic, low, found).await?;
        assign(&consumer, topic, from)?;
        Ok(Self {
            consumer,
            topic: topic.clone(),
            origin: *origin,
            order: ReaderOrder::after(*after),
            duplicates: 0,
            fenced: 0,
        })
    }

    /// The next record that counts. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ShipError`]; after one that can be retried, go on calling.
    pub async fn next(&mut self) -> Result<InboxItem, ShipError> {
        loop {
            let message = receive(&self.consumer).await?;
            let record = decode(&message, &self.topic, self.origin)?;
            let bytes = message.payload_len();
            match self.order.accept(&record) {
                Ok(accepted @ (Accepted::Next | Accepted::NewEpoch)) => {
                    return Ok(InboxItem { record, accepted, bytes, received_us: wall_us() });
                }
                Ok(Accepted::Duplicate) => self.duplicates += 1,
                Ok(Accepted::Fenced) => self.fenced += 1,
                Err(source) => {
                    return Err(ShipError::Order { topic: self.topic.clone(), source });
                }
            }
        }
    }

    /// Records dropped so far: seen before, and of a fenced agent.
    #[must_use]
    pub const fn dropped(&self) -> (u64, u64) {
        (self.duplicates, self.fenced)
    }
}

/// The next message; faults that the client heals by itself are waited out.
pub(super) async fn receive(consumer: &StreamConsumer) -> Result<BorrowedMessage<'_>, ShipError> {
    loop {
        match consumer.recv().await {
            Ok(message) => return Ok(message),
            Err(error) if heals(&error) => {}
            Err(error) => return Err(ShipError::from_kafka(&error)),
        }
    }
}

/// Whether the client goes on by itself, from where it stands, when the broker is
/// back: sooner than a new client would.
pub(super) fn heals(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error,
        KafkaError::MessageConsumption(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::Resolve
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::RequestTimedOut,
        )
    )
}

pub(super) fn decode(
    message: &BorrowedMessage<'_>,
    topic: &str,
    origin: RegionId,
) -> Result<Record, ShipError> {
    let offset = message.offset();
    let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    let record = Record::decode(bytes).map_err(|source| ShipError::Record {
        topic: topic.to_owned(),
        offset,
        source,
    })?;
    if record.origin == origin {
        Ok(record)
    } else {
        let found = record.origin.get();
        Err(ShipError::Origin { topic: topic.to_owned(), offset, found })
    }
}

/// The first offset whose record is past `after`, by binary search: the records of
/// a topic rise in seq but for repetitions that [`before_fence`] covers.
async fn search(
    cluster: &Cluster,
    topic: &str,
    origin: RegionId,
    after: Seq,
    (low, high): (i64, i64),
) -> Result<i64, ShipError> {
    if after == Seq(0) {
        return Ok(low);
    }
    let consumer = cluster.consumer()?;
    let (mut left, mut right) = (low, high);
    while right - left > NEAR {
        let middle = i64::midpoint(left, right);
        assign(&consumer, topic, middle)?;
        let message = tokio::time::timeout(Duration::from_secs(10), receive(&consumer)).await;
        let message = message.map_err(|_| ShipError::Away("no record in 10 s".to_owned()))??;
        if decode(&message, topic, origin)?.seq > after {
            right = middle;
        } else {
            left = middle;
        }
    }
    Ok(left)
}

/// Where to begin reading so that the verdict on what stands at `offset` is right.
pub(super) async fn before_fence(
    consumer: &StreamConsumer,
    topic: &str,
    low: i64,
    offset: i64,
) -> Result<i64, ShipError> {
    let (mut from, mut step, mut bytes) = (offset, 128, 0);
    while from > low && offset - from < FENCE_RECORDS && bytes < FENCE_BYTES {
        let start = (from - step).max(low);
        assign(consumer, topic, start)?;
        loop {
            let message = receive(consumer).await?;
            bytes += message.payload_len();
            if message.offset() + 1 >= from {
                break;
            }
        }
        (from, step) = (start, step * 2);
    }
    Ok(from)
}

/// Gives every record of the transactions after `after` up to and with `through`.
///
/// # Errors
/// [`ShipError`]; a gap when the topic does not reach back far enough.
pub async fn read_range(
    config: &InboxConfig,
    through: Seq,
    mut each: impl FnMut(Record),
) -> Result<(), ShipError> {
    if through <= config.after {
        return Ok(());
    }
    let mut inbox = Inbox::open(config).await?;
    loop {
        let record = inbox.next().await?.record;
        let done = match &record.body {
            RecordBody::Transaction(txn) => record.seq >= through && txn.last,
            RecordBody::Start(_) | RecordBody::Heartbeat(_) => false,
        };
        each(record);
        if done {
            return Ok(());
        }
    }
}

/// The last record of a transaction.
///
/// # Errors
/// [`ShipError`]; a gap when the topic does not hold it any more.
pub async fn head(config: &InboxConfig, seq: Seq) -> Result<Option<Record>, ShipError> {
    let mut last = None;
    if seq > Seq(0) {
        let before = InboxConfig { after: Seq(seq.0 - 1), ..config.clone() };
        read_range(&before, seq, |record| last = Some(record)).await?;
    }
    Ok(last)
}
