//! Copies records into an inbox, from the outbox or from another inbox of it.
//!
//! What is copied carries its offset in the outbox in a header. A copy of a copy keeps
//! that header, so an inbox does not show where it was filled from, and a link goes on
//! from its end in either.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::StreamConsumer;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use tokio::sync::oneshot;

use super::acks::SILENT;
use super::detour::{Step, step};
use super::kafka::{Cluster, assign, bounds};
use super::link::LinkStatus;
use super::producer::{Delivery, Each, Producer};
use super::reader::{heals, is_purged, receive};
use super::{LinkConfig, ShipError};
use crate::failpoint;

/// The header with the offset in the peer's outbox, decimal.
const OFFSET_HEADER: &str = "causeway-offset";

/// Copies given to the producer and not acknowledged.
const IN_FLIGHT_MAX: usize = 4_096;
/// Their bytes: well below the producer's own bound, at which it takes nothing.
const IN_FLIGHT_BYTES_MAX: usize = 12 << 20;

/// How near the search in an inbox comes before it reads record by record.
const NEAR: i64 = 512;

/// How long a record that is there may take to come.
const SOON: Duration = Duration::from_secs(10);

/// The last record of an inbox.
#[derive(Debug)]
pub(super) struct Last {
    /// Its offset in the outbox.
    pub(super) offset: i64,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
}

impl Last {
    /// None of an inbox that holds nothing.
    pub(super) async fn of(cluster: &Cluster, topic: &str) -> Result<Option<Self>, ShipError> {
        let consumer = cluster.consumer()?;
        let (low, high) = bounds(&consumer, topic)?;
        if high == low {
            return Ok(None);
        }
        let message = at(&consumer, topic, high - 1).await?;
        Ok(Some(Self {
            offset: origin_offset(&message),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
        }))
    }

    fn is(&self, message: &BorrowedMessage<'_>) -> bool {
        self.key.as_deref() == message.key() && self.payload.as_deref() == message.payload()
    }
}

/// The record at that offset of the topic.
async fn at<'a>(
    consumer: &'a StreamConsumer,
    topic: &str,
    offset: i64,
) -> Result<BorrowedMessage<'a>, ShipError> {
    assign(consumer, topic, offset)?;
    let received = tokio::time::timeout(SOON, receive(consumer)).await;
    let received = received.map_err(|_| ShipError::Away(format!("{topic} does not answer")))?;
    received.map_err(|error| ShipError::from_kafka(&error))
}

/// Where the record stands in the outbox. A mirror that writes no header keeps offsets:
/// both topics began together. The outbox itself has none either.
fn origin_offset(message: &BorrowedMessage<'_>) -> i64 {
    let header = message.headers().and_then(|headers| {
        let found = headers.iter().find(|header| header.key == OFFSET_HEADER)?;
        std::str::from_utf8(found.value?).ok()?.parse().ok()
    });
    header.unwrap_or_else(|| message.offset())
}

/// How far back an inbox was looked into for what follows.
#[derive(Debug)]
struct Back {
    low: i64,
    from: i64,
    step: i64,
}

/// From one source into the inbox here.
pub(super) struct Copying<'a> {
    config: &'a LinkConfig,
    status: &'a LinkStatus,
    producer: Producer<Each>,
    source: Arc<StreamConsumer>,
    topic: &'a str,
    /// What the inbox ended with.
    last: Option<Last>,
    /// Whether the source was seen to hold that too.
    met: bool,
    /// The offset in the outbox given to the producer last.
    reached: Option<i64>,
    /// None in the outbox, of which every record counts.
    back: Option<Back>,
    waits: Waits,
    /// Of those.
    bytes: usize,
}

impl<'a> Copying<'a> {
    /// From the outbox, whose client and bounds these are.
    pub(super) fn of_outbox(
        (config, status): (&'a LinkConfig, &'a LinkStatus),
        source: Arc<StreamConsumer>,
        (low, high): (i64, i64),
        last: Option<Last>,
    ) -> Result<Self, ShipError> {
        let topic = &config.source_topic;
        let next = last.as_ref().map_or(low, |last| last.offset + 1);
        if next > high {
            return Err(ShipError::Parted { topic: topic.clone(), offset: next - 1 });
        }
        if next < low {
            return Err(ShipError::Purged { topic: topic.clone(), offset: next });
        }
        // From the last copy on, where the outbox still holds it: is it the same log?
        let from = if last.is_some() { low.max(next - 1) } else { next };
        Self::begin((config, status), (source, topic), from, last)
    }

    /// From another region's inbox. Nothing is taken before the last record here was
    /// met there.
    pub(super) async fn of_inbox(
        (config, status): (&'a LinkConfig, &'a LinkStatus),
        (cluster, topic): (&Cluster, &'a str),
        last: Option<Last>,
    ) -> Result<Self, ShipError> {
        let source = Arc::new(cluster.consumer()?);
        let (low, high) = bounds(&source, topic)?;
        let from = match &last {
            Some(last) => near(cluster, topic, last.offset, (low, high)).await?,
            None => low,
        };
        let mut copying = Self::begin((config, status), (source, topic), from, last)?;
        copying.back = Some(Back { low, from, step: NEAR });
        Ok(copying)
    }

    fn begin(
        (config, status): (&'a LinkConfig, &'a LinkStatus),
        (source, topic): (Arc<StreamConsumer>, &'a str),
        from: i64,
        last: Option<Last>,
    ) -> Result<Self, ShipError> {
        assign(&source, topic, from)?;
        let producer = Producer::start(&config.target.producer(Duration::ZERO), Each)?;
        let reached = last.as_ref().map(|last| last.offset);
        status.set(|report| {
            report.running = true;
            report.reason = None;
            report.source_offset = reached;
        });
        let (met, back, waits) = (last.is_none(), None, VecDeque::new());
        Ok(Self {
            config,
            status,
            producer,
            source,
            topic,
            last,
            met,
            reached,
            back,
            waits,
            bytes: 0,
        })
    }

    /// Copies until `until` ends, or until it can't go on.
    pub(super) async fn run(mut self, until: impl Future<Output = ()>) -> Result<(), ShipError> {
        let (source, status) = (Arc::clone(&self.source), self.status);
        let mut silence = tokio::time::interval(SILENT);
        tokio::pin!(until);
        loop {
            tokio::select! {
                biased;
                () = &mut until => return Ok(()),
                ended = acknowledged(&mut self.waits), if !self.waits.is_empty() => {
                    let (offset, bytes) = ended?;
                    self.bytes -= bytes;
                    silence.reset();
                    failpoint::hit("link.copied");
                    self.tell_copied(offset, u64::try_from(bytes).unwrap_or(u64::MAX));
                }
                _ = silence.tick(), if !self.waits.is_empty() => status.set(|report| {
                    let waits = self.waits.len();
                    report.running = false;
                    report.reason = Some(format!("the Kafka here does not acknowledge {waits}"));
                }),
                message = source.recv(), if self.has_room() => match message {
                    Ok(message) => {
                        let first = self.waits.is_empty();
                        self.take(&message).await?;
                        if first {
                            silence.reset();
                        }
                    }
                    Err(error) if heals(&error) => status.set(|report| {
                        report.running = false;
                        report.reason = Some(error.to_string());
                    }),
                    Err(error) if is_purged(&error) => {
                        let offset = self.reached.map_or(0, |reached| reached + 1);
                        return Err(ShipError::Purged { topic: self.topic.to_owned(), offset });
                    }
                    Err(error) => return Err(ShipError::from_kafka(&error)),
                },
            }
        }
    }

    fn has_room(&self) -> bool {
        self.waits.len() < IN_FLIGHT_MAX && self.bytes < IN_FLIGHT_BYTES_MAX
    }

    fn tell_copied(&self, offset: i64, bytes: u64) {
        let through = self.back.is_some();
        self.status.set(|report| {
            report.running = true;
            report.reason = None;
            report.copied += 1;
            report.copied_bytes += bytes;
            report.detoured += u64::from(through);
            report.source_offset = Some(offset);
        });
    }

    async fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<(), ShipError> {
        let at = origin_offset(message);
        if let Some(last) = self.last.as_ref().filter(|last| last.offset == at) {
            if !last.is(message) {
                return Err(ShipError::Parted { topic: self.topic.to_owned(), offset: at });
            }
            self.met = true;
        }
        match step(at, self.reached) {
            Step::Held => Ok(()),
            Step::Next if self.met || self.back.is_none() => self.forward(at, message).await,
            // The outbox has no gaps but those of its own.
            Step::Beyond if self.back.is_none() => self.forward(at, message).await,
            Step::Next | Step::Beyond => self.go_back(),
        }
    }

    /// Looks further back in the inbox for what follows: a late copy has led past it.
    fn go_back(&mut self) -> Result<(), ShipError> {
        let topic = self.topic;
        let Some(back) = self.back.as_mut().filter(|back| back.from > back.low) else {
            let offset = self.reached.unwrap_or(0);
            return Err(ShipError::Gapped { topic: topic.to_owned(), offset });
        };
        back.from = (back.from - back.step).max(back.low);
        back.step *= 4;
        assign(&self.source, topic, back.from)
    }

    async fn forward(&mut self, at: i64, message: &BorrowedMessage<'_>) -> Result<(), ShipError> {
        let mut headers = OwnedHeaders::new();
        let held = message.headers();
        for header in held.iter().flat_map(|held| held.iter()) {
            if header.key != OFFSET_HEADER {
                headers = headers.insert(header);
            }
        }
        let offset = at.to_string();
        headers = headers.insert(Header { key: OFFSET_HEADER, value: Some(&offset) });
        let (waits, delivery) = oneshot::channel();
        let mut copy: BaseRecord<'_, [u8], [u8], _> =
            BaseRecord::with_opaque_to(&self.config.target_topic, Box::new(waits))
                .partition(0)
                .headers(headers);
        copy.key = message.key();
        copy.payload = message.payload();
        self.producer.give(copy).await?;
        self.reached = Some(at);
        self.bytes += message.payload_len();
        self.waits.push_back((at, message.payload_len(), delivery));
        Ok(())
    }
}

/// A place in an inbox at or before the record with that offset of the outbox: bisected,
/// so not for certain.
async fn near(
    cluster: &Cluster,
    topic: &str,
    offset: i64,
    (low, high): (i64, i64),
) -> Result<i64, ShipError> {
    let consumer = cluster.searcher()?;
    let (mut from, mut until) = (low, high);
    while until - from > NEAR {
        let middle = i64::midpoint(from, until);
        if origin_offset(&at(&consumer, topic, middle).await?) <= offset {
            from = middle;
        } else {
            until = middle;
        }
    }
    Ok(from)
}

type Waits = VecDeque<(i64, usize, Delivery)>;

/// The oldest copy's acknowledgement.
async fn acknowledged(waits: &mut Waits) -> Result<(i64, usize), ShipError> {
    let Some((offset, bytes, delivery)) = waits.front_mut() else {
        return std::future::pending().await;
    };
    let ended = delivery.await;
    let copied = (*offset, *bytes);
    waits.pop_front();
    match ended {
        Ok(Ok(())) => Ok(copied),
        Ok(Err(error)) => Err(ShipError::from_kafka(&error)),
        Err(_) => Err(ShipError::Away("the producer has stopped".to_owned())),
    }
}
