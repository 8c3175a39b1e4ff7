//! What gives records to Kafka, and a thread that tells what becomes of them.
//!
//! The library has producers with such a thread. For the rest of a millisecond that its
//! wait can't express, it looks at the clock without a pause; and so it did ten times a
//! second, which took 13 ms of a processor a second in an idle agent with two of them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, ToBytes};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};
use tokio::sync::oneshot;

use super::ShipError;

/// The thread looks so often whether it is needed still. Slightly more than a wait for
/// whole milliseconds, so that an undisturbed one is over when it returns.
const TURN: Duration = Duration::from_micros(500_050);
/// The pause before a full queue is tried again.
const FULL: Duration = Duration::from_millis(2);

/// A client that sends, until it is dropped.
pub(super) struct Producer<C: ProducerContext + 'static> {
    client: Arc<BaseProducer<C>>,
}

impl<C: ProducerContext + 'static> Producer<C> {
    /// `context` is told each delivery, on the thread.
    pub(super) fn start(config: &ClientConfig, context: C) -> Result<Self, ShipError> {
        let client = config.create_with_context(context);
        let client: Arc<BaseProducer<C>> =
            Arc::new(client.map_err(|error| ShipError::from_kafka(&error))?);
        let polled = Arc::downgrade(&client);
        // The runtime waits for it at its end: the process does not end under the client.
        drop(tokio::task::spawn_blocking(move || tell(&polled)));
        Ok(Self { client })
    }

    pub(super) fn context(&self) -> &Arc<C> {
        self.client.client().context()
    }

    /// Queues a record; waits only while the bounded queue is full.
    pub(super) async fn give<K, P>(
        &self,
        mut record: BaseRecord<'_, K, P, C::DeliveryOpaque>,
    ) -> Result<(), ShipError>
    where
        K: ToBytes + ?Sized,
        P: ToBytes + ?Sized,
    {
        while let Err((error, back)) = self.client.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(ShipError::from_kafka(&error));
            }
            record = back;
            tokio::time::sleep(FULL).await;
        }
        Ok(())
    }
}

impl<C: ProducerContext + 'static> Drop for Producer<C> {
    /// Nothing that is queued is sent any more; the thread drops the client.
    fn drop(&mut self) {
        self.client.purge(PurgeConfig::default().queue().inflight());
    }
}

fn tell<C: ProducerContext>(client: &Weak<BaseProducer<C>>) {
    while let Some(client) = client.upgrade() {
        client.poll(TURN);
    }
}

/// Tells each delivery to the one who waits for it.
pub(super) struct Each;

/// Resolves when the record is durable or has failed.
pub(super) type Delivery = oneshot::Receiver<Result<(), KafkaError>>;

impl ClientContext for Each {}

impl ProducerContext for Each {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waits: Self::DeliveryOpaque) {
        let told = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        // The link may have ended meanwhile.
        drop(waits.send(told));
    }
}
