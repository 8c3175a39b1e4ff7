//! A stretch of a region's outbox, up to its end at one time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::Config;
use super::tail::{consumer, read_from};
use crate::change::{OrderError, Record, RegionId, Tables};
use crate::topology::{Region, Topic};

/// Kafka's answer to a question.
const ASK: Duration = Duration::from_secs(20);

/// Why the outboxes tell nothing, or nothing more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    #[error("the outbox of {0} can't be read: {1}")]
    Kafka(String, KafkaError),
    #[error("the outbox of {0} gives nothing more")]
    Stuck(String),
    #[error("a record of {0} can't be read")]
    Record(String),
    #[error("the outbox of {0} is not whole: {1}")]
    Broken(RegionId, OrderError),
    #[error("whose records of the outbox of {0} count is not known from there on")]
    Fenced(RegionId),
    #[error("a row in the outboxes has no exact identity")]
    Identity,
    #[error("its history takes longer to read than {} min", .0.as_secs() / 60)]
    Long(Duration),
    #[error(
        "the history of the rows that differ takes more than {} MiB: name fewer tables, or \
         give a lower --max-differences", .0 >> 20
    )]
    Large(usize),
    #[error("stopped")]
    Stopped,
}

/// Until when and how long reading may go on.
pub(super) struct Bounds<'a> {
    pub(super) began: Instant,
    pub(super) most: Duration,
    pub(super) stop: &'a CancellationToken,
}

impl Bounds<'_> {
    /// Refuses to go on when it was stopped or takes too long.
    pub(super) fn hold(&self) -> Result<(), Silence> {
        if self.stop.is_cancelled() {
            return Err(Silence::Stopped);
        }
        if self.began.elapsed() > self.most { Err(Silence::Long(self.most)) } else { Ok(()) }
    }
}

/// From one record of an outbox to what was its end.
pub(super) struct Outbox {
    pub(super) origin: RegionId,
    region: String,
    topic: Topic,
    from: i64,
    end: i64,
    /// It has lost its beginning and holds nothing.
    pub(super) is_purged: bool,
}

impl Outbox {
    /// From the last record before that time on, or all that there is.
    pub(super) fn open(
        config: &Config<'_>,
        region: &Region,
        since_ms: Option<u64>,
    ) -> Result<Self, Silence> {
        let topic = if region.id == config.here.id {
            config.topology.outbox(region)
        } else {
            config.topology.peer_outbox(region)
        };
        let failed = |error| Silence::Kafka(region.name.clone(), error);
        let consumer = consumer(&topic, &config.kafka).map_err(failed)?;
        let (low, end) =
            tokio::task::block_in_place(|| consumer.fetch_watermarks(&topic.name, 0, ASK))
                .map_err(failed)?;
        let from = match since_ms {
            Some(since) => place(&consumer, &topic.name, since).map_err(failed)?.unwrap_or(end),
            None => low,
        };
        // One record before, which says from where on it is read.
        let from = (from - 1).max(low);
        let (origin, name) = (region.id, region.name.clone());
        Ok(Self { origin, region: name, topic, from, end, is_purged: low == end && low > 0 })
    }

    /// How many records it may have.
    pub(super) fn records(&self) -> u64 {
        u64::try_from(self.end - self.from).unwrap_or(0)
    }

    /// Gives each record.
    pub(super) async fn read(
        &self,
        config: &Config<'_>,
        bounds: &Bounds<'_>,
        mut each: impl FnMut(Record) -> Result<(), Silence>,
    ) -> Result<(), Silence> {
        if self.from >= self.end {
            return Ok(());
        }
        let failed = |error| Silence::Kafka(self.region.clone(), error);
        let consumer = consumer(&self.topic, &config.kafka).map_err(failed)?;
        read_from(&consumer, &self.topic, Offset::Offset(self.from)).map_err(failed)?;
        let mut tables = Tables::default();
        loop {
            let message = tokio::select! {
                () = bounds.stop.cancelled() => return Err(Silence::Stopped),
                received = tokio::time::timeout(ASK, consumer.recv()) => match received {
                    Ok(received) => received.map_err(failed)?,
                    Err(_) => return Err(Silence::Stuck(self.region.clone())),
                },
            };
            bounds.hold()?;
            let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
            let record = Record::decode(bytes, &mut tables);
            each(record.map_err(|_| Silence::Record(self.region.clone()))?)?;
            if message.offset() >= self.end - 1 {
                return Ok(());
            }
        }
    }
}

/// The first record of that time or later.
fn place(consumer: &StreamConsumer, topic: &str, ms: u64) -> Result<Option<i64>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    asked.add_partition_offset(topic, 0, Offset::Offset(ms))?;
    let found = tokio::task::block_in_place(|| consumer.offsets_for_times(asked, ASK))?;
    let offset = found.elements().first().map(|place| place.offset());
    Ok(offset
        .and_then(|place| if let Offset::Offset(offset) = place { Some(offset) } else { None }))
}
