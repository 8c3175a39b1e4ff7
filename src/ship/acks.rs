//! What Kafka acknowledges of the outbox.
//!
//! The client tells each delivery on a thread of its own, in the order of the records:
//! the producer is idempotent, writes one partition, and leaves no gap behind a failure.
//! Nothing is woken for a delivery but who waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::{ClientContext, Message as _};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ShipError;
use crate::change::Seq;

/// Kafka's silence for so long is told.
pub(super) const SILENT: Duration = Duration::from_secs(5);
/// How often it is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How long the cause of a failure may take to be told after what followed from it.
const CAUSE: Duration = Duration::from_secs(1);
/// How often the end waits for the last.
const LAST: Duration = Duration::from_millis(5);

/// Shared by the outbox and the client.
pub(super) struct Acks {
    /// The highest seq that is durable; the client's thread sets it.
    acked: watch::Sender<Seq>,
    /// The first failure, after which nothing counts.
    failed: watch::Sender<Option<KafkaError>>,
    /// Where the first record came to stand.
    first: watch::Sender<Option<i64>>,
    sent: AtomicU64,
    delivered: AtomicU64,
}

/// Whether a record was given up only because one before it was.
fn follows(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{PurgeInflight, PurgeQueue};
    matches!(error.rdkafka_error_code(), Some(PurgeInflight | PurgeQueue))
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    /// What is durable with the record, if it ends a transaction.
    type DeliveryOpaque = Box<Option<Seq>>;

    fn delivery(&self, result: &DeliveryResult<'_>, seq: Box<Option<Seq>>) {
        match result {
            Ok(_) if self.failed.borrow().is_some() => {}
            Ok(message) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                self.first.send_if_modified(|first| {
                    let is_first = first.is_none();
                    first.get_or_insert(message.offset());
                    is_first
                });
                if let Some(seq) = *seq {
                    self.acked.send_replace(seq);
                }
            }
            Err((error, _)) => self.fails(error),
        }
    }
}

impl Acks {
    pub(super) fn new(acked: Seq) -> Self {
        Self {
            acked: watch::Sender::new(acked),
            failed: watch::Sender::new(None),
            first: watch::Sender::new(None),
            sent: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
        }
    }

    /// Keeps the first failure that says why.
    fn fails(&self, error: &KafkaError) {
        self.failed.send_if_modified(|held| {
            let counts = held.as_ref().is_none_or(|held| follows(held) && !follows(error));
            if counts {
                *held = Some(error.clone());
            }
            counts
        });
    }

    /// What was durable before anything is sent.
    pub(super) fn begin(&self, acked: Seq) {
        self.acked.send_replace(acked);
    }

    /// One more was given to the client.
    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn acked(&self) -> watch::Receiver<Seq> {
        self.acked.subscribe()
    }

    /// Resolves when a delivery has failed.
    pub(super) async fn failure(&self) -> ShipError {
        let mut failed = self.failed.subscribe();
        if failed.wait_for(Option::is_some).await.is_err() {
            return ShipError::Away("the outbox is closed".to_owned());
        }
        // What was purged may be told before what it was purged for.
        let cause = failed.wait_for(|held| held.as_ref().is_some_and(|error| !follows(error)));
        drop(tokio::time::timeout(CAUSE, cause).await);
        match &*failed.borrow() {
            Some(error) => ShipError::from_kafka(error),
            None => ShipError::Away("the outbox is closed".to_owned()),
        }
    }

    /// Waits for the first record: its offset.
    pub(super) async fn first_offset(&self) -> Result<i64, ShipError> {
        let mut first = self.first.subscribe();
        let delivered = async {
            match first.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(offset)) => Ok(*offset),
                Ok(None) | Err(_) => Err(ShipError::Away("the producer has stopped".to_owned())),
            }
        };
        tokio::select! {
            offset = delivered => offset,
            error = self.failure() => Err(error),
        }
    }

    /// Waits until all that was sent is acknowledged or has failed.
    pub(super) async fn all(&self) {
        while self.outstanding() && self.failed.borrow().is_none() {
            tokio::time::sleep(LAST).await;
        }
    }

    fn outstanding(&self) -> bool {
        self.delivered.load(Ordering::Relaxed) < self.sent.load(Ordering::Relaxed)
    }

    /// Says for how long nothing of what was sent is acknowledged, once that is long.
    pub(super) async fn tell_silence(self: Arc<Self>, silent: watch::Sender<Option<Duration>>) {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            let delivered = self.delivered.load(Ordering::Relaxed);
            if delivered != seen || !self.outstanding() {
                (seen, since) = (delivered, Instant::now());
            }
            let waited = Duration::from_secs(since.elapsed().as_secs());
            let told = (waited >= SILENT).then_some(waited);
            silent.send_if_modified(|held| std::mem::replace(held, told) != told);
        }
    }
}
