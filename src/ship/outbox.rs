//! The outbox: where seq and hlc become durable.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ShipError;
use super::acks::Acks;
use super::kafka::{Cluster, TopicSettings};
use super::producer::Producer;
use super::tail::{Begin, Ending, Tail};
use crate::change::{Record, RecordBody, RegionId, Seq, Tables, pb};
use crate::failpoint;

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
    /// By which topology the region resolves conflicts: a hash of the text.
    pub topology: u32,
    /// The text.
    pub agreed: String,
    /// How the topic is made.
    pub settings: TopicSettings,
    /// How long capture gathers what it sends at most.
    pub gathered: Duration,
}

/// The client waits for so much of what capture does, in whole milliseconds: where that
/// is long, the lag of one more buys that a burst is one request. Without it, the client
/// takes what is there of a burst when it is woken, and polls without a pause until that
/// is acknowledged, since the next request has to wait for it.
const LINGER_PART: u32 = 50;

/// The writing end of the region's own topic.
pub struct Outbox {
    producer: Producer<Acks>,
    topic: String,
    acks: Arc<Acks>,
    silent: watch::Receiver<Option<Duration>>,
    tables: Tables,
    /// Holds the task that tells of silence.
    _tasks: JoinSet<()>,
}

impl Outbox {
    /// Begins the epoch in the topic and finds its tail: capture goes on from there.
    /// The topic is made when the database has never shipped.
    ///
    /// # Errors
    /// [`ShipError`]; nothing has been captured then.
    pub async fn open(config: OutboxConfig, begin: Begin) -> Result<(Self, Tail), ShipError> {
        let OutboxConfig { cluster, topic, origin, epoch, .. } = config.clone();
        let ending = Ending::open(&cluster, (&topic, config.settings), origin, begin).await?;
        if ending.epoch() >= epoch {
            return Err(ShipError::Epoch { topic, found: ending.epoch() });
        }
        let client = cluster.producer(config.gathered / LINGER_PART);
        let producer = Producer::start(&client, Acks::new(ending.tail().seq))?;
        let acks = Arc::clone(producer.context());
        let (silent_tx, silent) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&acks).tell_silence(silent_tx));
        let start = start_record(config, ending.tail());
        let tables = Tables::default();
        let mut outbox = Self { producer, topic, acks, silent, tables, _tasks: tasks };
        outbox.send(vec![start]).await?;
        let offset = outbox.acks.first_offset().await?;
        failpoint::hit("outbox.started");
        let tail = ending.up_to(offset).await?;
        outbox.acks.begin(tail.seq);
        Ok((outbox, tail))
    }

    /// Sends the next records, in order. Waits only while the bounded queue is full.
    ///
    /// They are encoded before the first of them wakes the client, which then takes them
    /// as one request.
    ///
    /// # Errors
    /// The outbox is of no use afterwards.
    pub async fn send(&mut self, records: Vec<Record>) -> Result<(), ShipError> {
        let encode = |record| Encoded::new(record, &mut self.tables);
        let encoded: Vec<_> = records.into_iter().map(encode).collect();
        for record in encoded {
            let point = record.failpoint;
            self.give(record).await?;
            if let Some(point) = point {
                failpoint::hit(point);
                failpoint::pause(point).await;
            }
        }
        Ok(())
    }

    async fn give(&self, record: Encoded) -> Result<(), ShipError> {
        let message = BaseRecord::with_opaque_to(&self.topic, Box::new(record.seq))
            .partition(0)
            .key(&record.key[..])
            .payload(&record.payload)
            .headers(record.headers);
        self.producer.give(message).await?;
        self.acks.sent();
        Ok(())
    }

    /// How long Kafka has not acknowledged what it was given, once that is long.
    #[must_use]
    pub fn silent(&self) -> watch::Receiver<Option<Duration>> {
        self.silent.clone()
    }

    /// The highest seq that is durable, and all before it.
    #[must_use]
    pub fn acked(&self) -> watch::Receiver<Seq> {
        self.acks.acked()
    }

    /// Resolves when a delivery has failed.
    pub fn failure(&self) -> impl Future<Output = ShipError> + Send + use<> {
        let acks = Arc::clone(&self.acks);
        async move { acks.failure().await }
    }

    /// Waits until what was sent is acknowledged, `grace` at most.
    pub async fn close(self, grace: Duration) {
        if tokio::time::timeout(grace, self.acks.all()).await.is_err() {
            tracing::warn!("records were not acknowledged in time; they are captured again");
        }
    }
}

/// A record as Kafka gets it.
struct Encoded {
    key: [u8; 12],
    headers: OwnedHeaders,
    payload: Vec<u8>,
    /// Durable once this is acknowledged.
    seq: Option<Seq>,
    /// Named once it is sent.
    failpoint: Option<&'static str>,
}

impl Encoded {
    fn new(record: Record, tables: &mut Tables) -> Self {
        let (part, seq, failpoint) = match &record.body {
            RecordBody::Transaction(txn) if txn.last => {
                (txn.part, Some(record.seq), Some("capture.before_ack"))
            }
            RecordBody::Transaction(txn) => (txn.part, None, Some("outbox.part_sent")),
            RecordBody::Start(_) | RecordBody::Heartbeat(_) => (0, None, None),
        };
        let mut key = [0; 12];
        key[..8].copy_from_slice(&record.seq.0.to_be_bytes());
        key[8..].copy_from_slice(&part.to_be_bytes());
        let trace = traceparent(&record);
        let header = Header { key: "traceparent", value: Some(&trace) };
        let headers = OwnedHeaders::new_with_capacity(1).insert(header);
        Self { key, headers, payload: record.encode(tables), seq, failpoint }
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

fn start_record(config: OutboxConfig, tail: &Tail) -> Record {
    let agent = env!("CARGO_PKG_VERSION").to_owned();
    Record {
        origin: config.origin,
        epoch: config.epoch,
        seq: tail.seq,
        hlc: tail.hlc,
        deps: tail.deps.clone(),
        gtid: String::new(),
        position: tail.position.clone(),
        topology: config.topology,
        body: RecordBody::Start(pb::Start { agent, topology: config.agreed }),
    }
}
