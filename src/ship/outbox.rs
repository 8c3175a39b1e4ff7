//! The outbox: where seq and hlc become durable.

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::ShipError;
use super::kafka::{Cluster, TopicSettings};
use super::tail::{Begin, Ending, Tail};
use crate::change::{Record, RecordBody, RegionId, Seq, pb};
use crate::failpoint;

/// Records given to the producer and not acknowledged.
const IN_FLIGHT_MAX: usize = 8_192;

/// Kafka's silence for so long is told.
pub(super) const SILENT: Duration = Duration::from_secs(5);

/// How an outbox is opened.
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    /// The region's own Kafka.
    pub cluster: Cluster,
    /// The topic.
    pub topic: String,
    /// The region.
    pub origin: RegionId,
    /// The fencing token taken from the database.
    pub epoch: u64,
    /// How the topic is made.
    pub settings: TopicSettings,
}

/// The writing end of the region's own topic.
pub struct Outbox {
    producer: FutureProducer,
    topic: String,
    waits: mpsc::Sender<(Option<Seq>, DeliveryFuture)>,
    acked: watch::Receiver<Seq>,
    failure: watch::Receiver<Option<Failed>>,
    silent: watch::Receiver<Option<Duration>>,
    /// Holds the task that takes the acknowledgements in order.
    tasks: JoinSet<()>,
}

impl Outbox {
    /// Begins the epoch in the topic and finds its tail: capture goes on from there.
    /// The topic is made when the database has never shipped.
    ///
    /// # Errors
    /// [`ShipError`]; nothing has been captured then.
    pub async fn open(config: OutboxConfig, begin: Begin) -> Result<(Self, Tail), ShipError> {
        let OutboxConfig { cluster, topic, origin, epoch, settings } = config;
        let ending = Ending::open(&cluster, (&topic, settings), origin, begin).await?;
        if ending.epoch() >= epoch {
            return Err(ShipError::Epoch { topic, found: ending.epoch() });
        }
        let producer: FutureProducer =
            cluster.producer().create().map_err(|error| ShipError::from_kafka(&error))?;
        let start = start_record(origin, epoch, ending.tail());
        let delivery = send(&producer, &topic, start).await?;
        let offset = match delivery.await {
            Ok(Ok(delivered)) => delivered.offset,
            Ok(Err((error, _))) => return Err(ShipError::from_kafka(&error)),
            Err(_) => return Err(ShipError::Away("the producer has stopped".to_owned())),
        };
        failpoint::hit("outbox.started");
        let tail = ending.up_to(offset).await?;
        let (waits, waiting) = mpsc::channel(IN_FLIGHT_MAX);
        let (acked_tx, acked) = watch::channel(tail.seq);
        let (failure_tx, failure) = watch::channel(None);
        let (silent_tx, silent) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(take_acks(waiting, acked_tx, failure_tx, silent_tx));
        Ok((Self { producer, topic, waits, acked, failure, silent, tasks }, tail))
    }

    /// Sends the next record. Waits only while the bounded queue is full.
    ///
    /// # Errors
    /// The outbox is of no use afterwards.
    pub async fn send(&self, record: Record) -> Result<(), ShipError> {
        let seq = match &record.body {
            RecordBody::Transaction(txn) if txn.last => Some(record.seq),
            RecordBody::Transaction(_) => {
                failpoint::hit("outbox.part_sent");
                None
            }
            RecordBody::Start(_) | RecordBody::Heartbeat(_) => None,
        };
        let delivery = send(&self.producer, &self.topic, record).await?;
        if seq.is_some() {
            failpoint::hit("capture.before_ack");
        }
        let closed = |_| failed(self.failure.borrow().as_ref());
        self.waits.send((seq, delivery)).await.map_err(closed)
    }

    /// How long Kafka has not acknowledged what it was given, once that is long.
    #[must_use]
    pub fn silent(&self) -> watch::Receiver<Option<Duration>> {
        self.silent.clone()
    }

    /// The highest seq that is durable, and all before it.
    #[must_use]
    pub fn acked(&self) -> watch::Receiver<Seq> {
        self.acked.clone()
    }

    /// Resolves when a delivery has failed.
    pub fn failure(&self) -> impl Future<Output = ShipError> + Send + use<> {
        let mut failure = self.failure.clone();
        async move {
            match failure.wait_for(Option::is_some).await {
                Ok(reason) => failed(reason.as_ref()),
                Err(_) => ShipError::Away("the outbox is closed".to_owned()),
            }
        }
    }

    /// Waits until what was sent is acknowledged, `grace` at most.
    pub async fn close(mut self, grace: Duration) {
        drop(self.waits);
        let done = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, done).await.is_err() {
            tracing::warn!("records were not acknowledged in time; they are captured again");
        }
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}

/// Why a delivery has failed: the client's error, or that the producer has stopped.
type Failed = Option<KafkaError>;

fn failed(failed: Option<&Failed>) -> ShipError {
    match failed {
        Some(Some(error)) => ShipError::from_kafka(error),
        Some(None) => ShipError::Away("the producer has stopped".to_owned()),
        None => ShipError::Away("a delivery has failed".to_owned()),
    }
}

async fn take_acks(
    mut waiting: mpsc::Receiver<(Option<Seq>, DeliveryFuture)>,
    acked: watch::Sender<Seq>,
    failure: watch::Sender<Option<Failed>>,
    silent: watch::Sender<Option<Duration>>,
) {
    while let Some((seq, mut delivery)) = waiting.recv().await {
        let mut waited = Duration::ZERO;
        let ended = loop {
            if let Ok(ended) = tokio::time::timeout(SILENT, &mut delivery).await {
                break ended;
            }
            waited += SILENT;
            silent.send_replace(Some(waited));
        };
        if !waited.is_zero() {
            silent.send_replace(None);
        }
        match ended {
            Ok(Ok(_)) => {
                if let Some(seq) = seq {
                    acked.send_replace(seq);
                }
            }
            Ok(Err((error, _))) => {
                failure.send_replace(Some(Some(error)));
                return;
            }
            Err(_) => {
                failure.send_replace(Some(None));
                return;
            }
        }
    }
}

async fn send(
    producer: &FutureProducer,
    topic: &str,
    record: Record,
) -> Result<DeliveryFuture, ShipError> {
    let part = match &record.body {
        RecordBody::Transaction(txn) => txn.part,
        RecordBody::Start(_) | RecordBody::Heartbeat(_) => 0,
    };
    let mut key = [0; 12];
    key[..8].copy_from_slice(&record.seq.0.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    let trace = traceparent(&record);
    let payload = record.encode();
    let header = Header { key: "traceparent", value: Some(&trace) };
    let mut message = FutureRecord::to(topic)
        .partition(0)
        .key(&key[..])
        .payload(&payload)
        .headers(OwnedHeaders::new().insert(header));
    loop {
        match producer.send_result(message) {
            Ok(delivery) => return Ok(delivery),
            Err((error, back)) => {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(ShipError::from_kafka(&error));
                }
                message = back;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
}

/// W3C trace context, made of what names the transaction, so that every region and
/// every retry gives it the same trace: trace id = origin, epoch (7 bytes), seq;
/// parent id = hlc.
fn traceparent(record: &Record) -> String {
    let epoch = record.epoch & 0x00ff_ffff_ffff_ffff;
    let (origin, seq, hlc) = (record.origin.get(), record.seq.0, record.hlc.0.max(1));
    format!("00-{origin:02x}{epoch:014x}{seq:016x}-{hlc:016x}-01")
}

fn start_record(origin: RegionId, epoch: u64, tail: &Tail) -> Record {
    Record {
        origin,
        epoch,
        seq: tail.seq,
        hlc: tail.hlc,
        deps: tail.deps.clone(),
        gtid: String::new(),
        position: tail.position.clone(),
        body: RecordBody::Start(pb::Start { agent: env!("CARGO_PKG_VERSION").to_owned() }),
    }
}
