//! The link: copies a peer's outbox into the inbox here, byte for byte and in order.
//!
//! It keeps no state: each copy carries its source offset in a header, and the
//! inbox's last record says where to go on. Copies that a restart makes twice are
//! dropped by every reader.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio_util::sync::CancellationToken;

use super::kafka::{Cluster, TopicSettings, assign, bounds};
use super::outbox::SILENT;
use super::reader::{heals, is_purged, receive};
use super::{ErrorKind, ShipError};
use crate::clock::wall_us;
use crate::failpoint;

/// The header with the offset in the peer's outbox, decimal.
const OFFSET_HEADER: &str = "causeway-offset";

/// Copies given to the producer and not acknowledged.
const IN_FLIGHT_MAX: usize = 4_096;

/// What a link copies.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The peer's Kafka.
    pub source: Cluster,
    /// The peer's outbox.
    pub source_topic: String,
    /// The Kafka here.
    pub target: Cluster,
    /// The inbox here.
    pub target_topic: String,
    /// How the inbox is made.
    pub settings: TopicSettings,
}

/// What a link says of itself. Set by the link, read by the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// It copies, or has nothing to copy.
    pub running: bool,
    /// Someone must act.
    pub halted: bool,
    /// Why it does not run.
    pub reason: Option<String>,
    /// Records acknowledged here since the start.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// The last source offset acknowledged here.
    pub source_offset: Option<i64>,
    /// Records at the source that are not copied.
    pub backlog: Option<u64>,
    /// When it last went round its loop.
    pub beat_us: u64,
}

/// A shared [`LinkReport`].
#[derive(Debug, Default)]
pub struct LinkStatus(Mutex<LinkReport>);

impl LinkStatus {
    /// A copy.
    #[must_use]
    pub fn get(&self) -> LinkReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, change: impl FnOnce(&mut LinkReport)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Copies until cancelled. What passes is waited out, for days if need be.
///
/// # Errors
/// [`ShipError`] when someone must act.
pub async fn run_link(
    config: LinkConfig,
    status: Arc<LinkStatus>,
    cancel: CancellationToken,
) -> Result<(), ShipError> {
    let mut pause = Duration::from_millis(100);
    loop {
        let copied = status.get().copied;
        let copying = Box::pin(copy(&config, &status));
        let error = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            ended = copying => match ended {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        let halted = error.kind() == ErrorKind::Halt;
        status.set(|report| {
            report.running = false;
            report.halted = halted;
            report.reason = Some(error.to_string());
            report.backlog = None;
            if halted {
                report.source_offset = None;
            }
        });
        if halted {
            return Err(error);
        }
        tracing::debug!(%error, topic = config.target_topic, "link waits");
        pause = if status.get().copied > copied { Duration::from_millis(100) } else { pause * 2 };
        pause = pause.min(Duration::from_secs(2));
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn copy(config: &LinkConfig, status: &LinkStatus) -> Result<(), ShipError> {
    if config.target.ensure_topic(&config.target_topic, config.settings).await? {
        failpoint::hit("link.topic_created");
    }
    let source = Arc::new(config.source.consumer()?);
    let (low, high) = bounds(&source, &config.source_topic)?;
    let last = last_copied(config).await?;
    let from = last.map_or(low, |offset| offset + 1);
    if from < low || from > high {
        return Err(ShipError::Purged { topic: config.source_topic.clone(), offset: from });
    }
    assign(&source, &config.source_topic, from)?;
    let producer: FutureProducer =
        config.target.producer().create().map_err(|error| ShipError::from_kafka(&error))?;
    status.set(|report| {
        report.running = true;
        report.reason = None;
        report.source_offset = last;
    });
    let mut waits = std::collections::VecDeque::new();
    let backlog = tell_backlog(Arc::clone(&source), (&config.source_topic, from), status);
    let mut silence = tokio::time::interval(SILENT);
    tokio::pin!(backlog);
    loop {
        tokio::select! {
            biased;
            () = &mut backlog => {}
            ended = acknowledged(&mut waits), if !waits.is_empty() => {
                let (offset, bytes) = ended?;
                silence.reset();
                failpoint::hit("link.copied");
                status.set(|report| {
                    report.running = true;
                    report.reason = None;
                    report.copied += 1;
                    report.copied_bytes += bytes;
                    report.source_offset = Some(offset);
                });
            }
            _ = silence.tick(), if !waits.is_empty() => status.set(|report| {
                report.running = false;
                report.reason = Some(format!("the Kafka here does not acknowledge {}", waits.len()));
            }),
            message = source.recv(), if waits.len() < IN_FLIGHT_MAX => match message {
                Ok(message) => {
                    let delivery = forward(&producer, &config.target_topic, &message).await?;
                    if waits.is_empty() {
                        silence.reset();
                    }
                    waits.push_back((message.offset(), message.payload_len(), delivery));
                }
                Err(error) if heals(&error) => status.set(|report| {
                    report.running = false;
                    report.reason = Some(error.to_string());
                }),
                Err(error) => return Err(refused(config, from, &error)),
            },
        }
    }
}

fn refused(config: &LinkConfig, offset: i64, error: &rdkafka::error::KafkaError) -> ShipError {
    if is_purged(error) {
        return ShipError::Purged { topic: config.source_topic.clone(), offset };
    }
    ShipError::from_kafka(error)
}

/// Asks the source every second where it ends; on a thread that may wait, since the
/// client has no other way to ask.
async fn tell_backlog(
    source: Arc<StreamConsumer>,
    (topic, from): (&str, i64),
    status: &LinkStatus,
) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let (source, topic) = (Arc::clone(&source), topic.to_owned());
        let ask = move || source.fetch_watermarks(&topic, 0, Duration::from_secs(5)).ok();
        let end = tokio::task::spawn_blocking(ask).await.ok().flatten();
        status.set(|report| {
            report.beat_us = wall_us();
            // Before the first copy it stands where it began.
            let next = report.source_offset.map_or(from, |copied| copied + 1);
            report.backlog = end.and_then(|(_, high)| u64::try_from(high - next).ok());
        });
    }
}

type Waits = std::collections::VecDeque<(i64, usize, DeliveryFuture)>;

/// The oldest copy's acknowledgement.
async fn acknowledged(waits: &mut Waits) -> Result<(i64, u64), ShipError> {
    let Some((offset, bytes, delivery)) = waits.front_mut() else {
        return std::future::pending().await;
    };
    let ended = delivery.await;
    let copied = (*offset, u64::try_from(*bytes).unwrap_or(u64::MAX));
    waits.pop_front();
    match ended {
        Ok(Ok(_)) => Ok(copied),
        Ok(Err((error, _))) => Err(ShipError::from_kafka(&error)),
        Err(_) => Err(ShipError::Away("the producer has stopped".to_owned())),
    }
}

async fn forward(
    producer: &FutureProducer,
    topic: &str,
    message: &BorrowedMessage<'_>,
) -> Result<DeliveryFuture, ShipError> {
    let mut headers = OwnedHeaders::new();
    if let Some(held) = message.headers() {
        for header in held.iter() {
            headers = headers.insert(header);
        }
    }
    let offset = message.offset().to_string();
    headers = headers.insert(Header { key: OFFSET_HEADER, value: Some(&offset) });
    let mut copy: FutureRecord<'_, [u8], [u8]> =
        FutureRecord::to(topic).partition(0).headers(headers);
    copy.key = message.key();
    copy.payload = message.payload();
    loop {
        match producer.send_result(copy) {
            Ok(delivery) => return Ok(delivery),
            Err((error, back)) => {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(ShipError::from_kafka(&error));
                }
                copy = back;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
}

/// The source offset of the inbox's last record.
async fn last_copied(config: &LinkConfig) -> Result<Option<i64>, ShipError> {
    let consumer = config.target.consumer()?;
    let (low, high) = bounds(&consumer, &config.target_topic)?;
    if high == low {
        return Ok(None);
    }
    assign(&consumer, &config.target_topic, high - 1)?;
    let received = tokio::time::timeout(Duration::from_secs(10), receive(&consumer)).await;
    let received = received.map_err(|_| ShipError::Away("the inbox does not answer".to_owned()))?;
    let message = received.map_err(|error| ShipError::from_kafka(&error))?;
    let header = message.headers().and_then(|headers| {
        let found = headers.iter().find(|header| header.key == OFFSET_HEADER)?;
        std::str::from_utf8(found.value?).ok()?.parse().ok()
    });
    // A mirror that keeps no such header keeps offsets: both topics began together.
    Ok(Some(header.unwrap_or(high - 1)))
}
