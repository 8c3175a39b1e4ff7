//! The end of a region's outbox: the last record that says how far capture is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::VerifyError;
use crate::change::{Record, RecordBody, Seq, Tables};
use crate::compare::Lag;
use crate::topology::Topic;

/// What is known of an outbox.
#[derive(Debug, Default)]
pub(super) struct Known {
    epoch: u64,
    /// The source's position, and the last transaction up to it.
    pub(super) at: Option<(String, Seq)>,
    /// When each transaction was seen.
    pub(super) lag: Lag,
    /// Why nothing is known, or nothing new.
    pub(super) problem: Option<String>,
}

/// Shared between its reader and the comparison; locked for moments only.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<Known>>);

impl Tail {
    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the outbox for ever; times count from `began`.
    pub(super) async fn follow(self, consumer: StreamConsumer, began: Instant) {
        let mut tables = Tables::default();
        loop {
            match consumer.recv().await {
                Ok(message) => {
                    let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
                    match Record::decode(bytes, &mut tables) {
                        Ok(record) => self.lock().take(record, began.elapsed()),
                        Err(error) => self.lock().problem = Some(error.to_string()),
                    }
                }
                Err(error) => {
                    self.lock().problem = Some(error.to_string());
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
    }
}

impl Known {
    fn take(&mut self, record: Record, now: std::time::Duration) {
        // Written by an agent that had lost the outbox.
        if record.epoch < self.epoch {
            return;
        }
        self.epoch = record.epoch;
        let whole = match &record.body {
            RecordBody::Transaction(txn) => txn.last && !txn.aborted,
            RecordBody::Start(_) | RecordBody::Heartbeat(_) => true,
        };
        if whole {
            self.lag.saw(record.seq, now);
            self.at = Some((record.position.0, record.seq));
            self.problem = None;
        }
    }
}

/// A reader of the outbox from its last record on.
pub(super) fn open(
    region: &str,
    topic: &Topic,
    extra: &BTreeMap<String, String>,
) -> Result<StreamConsumer, VerifyError> {
    let failed = |source| VerifyError::Outbox { region: region.to_owned(), source };
    let consumer = consumer(topic, extra).map_err(failed)?;
    read_from(&consumer, topic, Offset::OffsetTail(1)).map_err(failed)?;
    Ok(consumer)
}

/// Reads the topic from there on.
pub(super) fn read_from(
    consumer: &StreamConsumer,
    topic: &Topic,
    from: Offset,
) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic.name, 0, from)?;
    consumer.assign(&list)
}

/// A consumer that leaves nothing behind.
pub(super) fn consumer(
    topic: &Topic,
    extra: &BTreeMap<String, String>,
) -> Result<StreamConsumer, KafkaError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &topic.brokers)
        .set("client.id", "causeway-verify")
        .set("group.id", "causeway-verify")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "latest")
        .set("allow.auto.create.topics", "false")
        .set("fetch.wait.max.ms", "100")
        .set("log_level", "3");
    for (name, value) in extra {
        config.set(name, value);
    }
    config.create()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::change::{Position, RegionId, Transaction, Vector, pb};
    use crate::clock::Hlc;

    fn record(epoch: u64, seq: u64, position: &str, body: RecordBody) -> Record {
        Record {
            origin: RegionId::new(1).unwrap(),
            epoch,
            seq: Seq(seq),
            hlc: Hlc(1),
            deps: Vector::default(),
            gtid: String::new(),
            position: Position(position.to_owned()),
            topology: 0,
            body,
        }
    }

    /// A part of a transaction carries the seq of the whole before the whole is there,
    /// and a fenced agent's records say nothing.
    #[test]
    fn only_whole_records_of_the_owner_say_how_far_capture_is() {
        let mut known = Known::default();
        let beat = |epoch, seq, position| {
            record(epoch, seq, position, RecordBody::Heartbeat(pb::Heartbeat::default()))
        };
        let txn = |last, aborted| {
            RecordBody::Transaction(Transaction { last, aborted, ..Default::default() })
        };
        known.take(beat(2, 7, "0-1-7"), Duration::ZERO);
        known.take(record(2, 8, "0-1-8", txn(false, false)), Duration::ZERO);
        known.take(record(2, 8, "0-1-8", txn(true, true)), Duration::ZERO);
        known.take(beat(1, 9, "0-1-9"), Duration::ZERO);
        assert_eq!(known.at, Some(("0-1-7".to_owned(), Seq(7))));
        known.take(record(2, 8, "0-1-9", txn(true, false)), Duration::ZERO);
        assert_eq!(known.at, Some(("0-1-9".to_owned(), Seq(8))));
    }
}
