//! Reads a topic of records: from an offset on, or from a place in the origin's log.

use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};

use super::ShipError;
use super::kafka::{ASK, Cluster, assign, bounds};
use crate::change::{Place, Record, RegionId, Side, Tables};

/// How near the search for a place comes to it before it reads record by record.
const NEAR: i64 = 512;

/// How long a record that is there may take to come.
const SOON: Duration = Duration::from_secs(10);

/// A record and where it stands.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) offset: i64,
    pub(super) bytes: usize,
    pub(super) record: Record,
}

/// The reading end of a topic.
pub(super) struct Reader {
    cluster: Cluster,
    consumer: StreamConsumer,
    topic: String,
    origin: RegionId,
    tables: Tables,
    next: i64,
}

impl Reader {
    pub(super) fn new(cluster: &Cluster, topic: &str, origin: RegionId) -> Result<Self, ShipError> {
        Ok(Self::with((cluster, cluster.consumer()?), topic, origin))
    }

    /// For single records here and there, which come sooner.
    pub(super) fn jumping(
        cluster: &Cluster,
        topic: &str,
        origin: RegionId,
    ) -> Result<Self, ShipError> {
        Ok(Self::with((cluster, cluster.searcher()?), topic, origin))
    }

    fn with(
        (cluster, consumer): (&Cluster, StreamConsumer),
        topic: &str,
        origin: RegionId,
    ) -> Self {
        let (cluster, topic, tables) = (cluster.clone(), topic.to_owned(), Tables::default());
        Self { cluster, consumer, topic, origin, tables, next: 0 }
    }

    /// Whether the broker knows the topic. Asking does not make it.
    pub(super) fn topic_exists(&self) -> Result<bool, ShipError> {
        let asked = || self.consumer.fetch_metadata(Some(&self.topic), ASK);
        let metadata =
            tokio::task::block_in_place(asked).map_err(|error| ShipError::from_kafka(&error))?;
        Ok(metadata.topics().first().is_some_and(|topic| !topic.partitions().is_empty()))
    }

    /// First offset held and the one after the last.
    pub(super) fn bounds(&self) -> Result<(i64, i64), ShipError> {
        bounds(&self.consumer, &self.topic)
    }

    /// Goes on from there.
    pub(super) fn seek(&mut self, offset: i64) -> Result<(), ShipError> {
        self.next = offset;
        assign(&self.consumer, &self.topic, offset)
    }

    /// Where the next record is looked for.
    pub(super) const fn next_offset(&self) -> i64 {
        self.next
    }

    /// The next record, whenever it comes. Dropping the future loses nothing. After one
    /// that can't be read follows the one behind it.
    pub(super) async fn next(&mut self) -> Result<Found, ShipError> {
        let message = match receive(&self.consumer).await {
            Ok(message) => message,
            Err(error) if is_purged(&error) => {
                return Err(ShipError::Purged { topic: self.topic.clone(), offset: self.next });
            }
            Err(error) => return Err(ShipError::from_kafka(&error)),
        };
        self.next = message.offset() + 1;
        decode(&message, &mut self.tables, &self.topic, self.origin)
    }

    /// The next record, of those that are there.
    pub(super) async fn next_soon(&mut self) -> Result<Found, ShipError> {
        let next = tokio::time::timeout(SOON, self.next()).await;
        next.map_err(|_| ShipError::Away(format!("no record in {} s", SOON.as_secs())))?
    }

    /// An offset from which a reader has everything after `place`, and as few records
    /// before it as need be; what holds nothing of the place is read from its beginning.
    ///
    /// Bisects, since most records before the place are not known to stand after it.
    /// One of a fenced agent may lead past the place, so the result counts only once a
    /// record that surely stands at or before the place has been seen behind it.
    pub(super) async fn find(&self, place: Place) -> Result<i64, ShipError> {
        let bounds = self.bounds()?;
        if place == Place::default() {
            return Ok(bounds.0);
        }
        Self::jumping(&self.cluster, &self.topic, self.origin)?.search(place, bounds).await
    }

    async fn search(&mut self, place: Place, (low, high): (i64, i64)) -> Result<i64, ShipError> {
        let (mut from, mut until) = (low, high);
        while until - from > NEAR {
            let middle = i64::midpoint(from, until);
            self.seek(middle)?;
            if self.side(place).await? == Side::After {
                until = middle;
            } else {
                from = middle;
            }
        }
        let mut step = NEAR;
        loop {
            if self.holds_before(place, (from, until)).await? || from == low {
                return Ok(from);
            }
            until = from;
            from = (from - step).max(low);
            step *= 2;
        }
    }

    /// Whether one of those records surely stands at or before the place.
    async fn holds_before(
        &mut self,
        place: Place,
        (from, until): (i64, i64),
    ) -> Result<bool, ShipError> {
        if from < until {
            self.seek(from)?;
        }
        while self.next < until && from < until {
            if self.side(place).await? == Side::Before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the next record stands. One that can't be read tells nothing; it stops the
    /// reader that comes to it, not one that looks for its place.
    async fn side(&mut self, place: Place) -> Result<Side, ShipError> {
        match self.next_soon().await {
            Ok(found) => Ok(place.side(&found.record)),
            Err(error) if error.is_unreadable() => Ok(Side::Unknown),
            Err(error) => Err(error),
        }
    }
}

/// The next message; faults that the client heals by itself are waited out.
pub(super) async fn receive(consumer: &StreamConsumer) -> Result<BorrowedMessage<'_>, KafkaError> {
    loop {
        match consumer.recv().await {
            Err(error) if heals(&error) => {}
            received => return received,
        }
    }
}

/// Whether the client goes on by itself, from where it stands, when the broker is
/// back: sooner than a new client would.
pub(super) fn heals(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumption(_)) && is_silent(error)
}

/// Whether no broker has answered, as against one that says no.
pub(super) fn is_silent(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
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

/// Whether the topic does not hold the wanted offset: purged, or made anew.
pub(super) fn is_purged(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset))
}

fn decode(
    message: &BorrowedMessage<'_>,
    tables: &mut Tables,
    topic: &str,
    origin: RegionId,
) -> Result<Found, ShipError> {
    let offset = message.offset();
    let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    let bytes = payload.len();
    let record = Record::decode(payload, tables).map_err(|source| ShipError::Record {
        topic: topic.to_owned(),
        offset,
        source,
    })?;
    if record.origin == origin {
        Ok(Found { offset, bytes, record })
    } else {
        let found = record.origin.get();
        Err(ShipError::Origin { topic: topic.to_owned(), offset, found })
    }
}
