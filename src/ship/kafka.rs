//! The Kafka client as the parts use it: settings, topics, offsets.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::ShipError;

/// Bounds every question to a broker.
pub(super) const ASK: Duration = Duration::from_secs(5);

/// How to reach a Kafka cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Bootstrap brokers, comma separated.
    pub brokers: String,
    /// Further librdkafka properties: TLS, SASL.
    pub extra: BTreeMap<String, String>,
}

/// How topics are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// How long records are kept.
    pub retention_ms: u64,
    /// The largest batch of records, `max.message.bytes`.
    pub message_bytes_max: u64,
}

impl Cluster {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "causeway")
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            // A connection that has gone silent is given up after this.
            .set("socket.timeout.ms", "10000")
            // A healed link is found within a second.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            // A topic is made with its settings or not at all.
            .set("allow.auto.create.topics", "false")
            .set("log_level", "3");
        for (name, value) in &self.extra {
            config.set(name, value);
        }
        config
    }

    /// Idempotent, acknowledged by all replicas, in order. Records wait for others for
    /// `linger`, of which whole milliseconds count.
    pub(super) fn producer(&self, linger: Duration) -> ClientConfig {
        let mut config = self.config();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            // Records that wait for a request in flight are joined anyway.
            .set("linger.ms", linger.as_millis().to_string())
            .set("batch.size", "1000000")
            .set("message.max.bytes", "16777216")
            .set("queue.buffering.max.messages", "20000")
            .set("queue.buffering.max.kbytes", "20480")
            // A record that ran out of time would leave a gap before those that follow,
            // so none does: what waits is bounded by the queue, and capture waits with it.
            .set("message.timeout.ms", "0")
            .set("enable.gapless.guarantee", "true")
            // That a topic is gone is told after this, not waited out.
            .set("topic.metadata.propagation.max.ms", "5000");
        config
    }

    pub(super) fn consumer(&self) -> Result<StreamConsumer, ShipError> {
        self.consuming().create().map_err(|error| ShipError::from_kafka(&error))
    }

    /// For jumps: one waits until the broker has answered what was asked before it, so
    /// that is little and comes soon.
    pub(super) fn searcher(&self) -> Result<StreamConsumer, ShipError> {
        let mut config = self.consuming();
        config
            .set("fetch.wait.max.ms", "10")
            .set("fetch.message.max.bytes", "65536")
            .set("queued.min.messages", "100")
            .set("queued.max.messages.kbytes", "1024");
        config.create().map_err(|error| ShipError::from_kafka(&error))
    }

    fn consuming(&self) -> ClientConfig {
        let mut config = self.config();
        config
            .set("group.id", "causeway")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_uncommitted")
            .set("check.crcs", "true")
            // The broker answers as soon as there is a byte.
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "500")
            .set("fetch.error.backoff.ms", "50")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", "4194304")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "8192");
        config
    }

    /// Makes the topic if it is missing, else checks it.
    pub(super) async fn ensure_topic(
        &self,
        topic: &str,
        settings: TopicSettings,
    ) -> Result<bool, ShipError> {
        let admin: AdminClient<DefaultClientContext> =
            self.config().create().map_err(|error| ShipError::from_kafka(&error))?;
        let brokers = tokio::task::block_in_place(|| {
            admin.inner().fetch_metadata(None, ASK).map(|metadata| metadata.brokers().len())
        })
        .map_err(|error| ShipError::from_kafka(&error))?;
        let replicas = i32::try_from(brokers.clamp(1, 3)).expect("3 at most");
        let retention = settings.retention_ms.to_string();
        let largest = settings.message_bytes_max.to_string();
        let in_sync = if replicas > 2 { "2" } else { "1" };
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(replicas))
            .set("cleanup.policy", "delete")
            .set("retention.ms", &retention)
            .set("retention.bytes", "-1")
            .set("max.message.bytes", &largest)
            .set("min.insync.replicas", in_sync)
            .set("unclean.leader.election.enable", "false");
        let options = AdminOptions::new().operation_timeout(Some(ASK)).request_timeout(Some(ASK));
        let made = admin
            .create_topics([&new], &options)
            .await
            .map_err(|error| ShipError::from_kafka(&error))?;
        match made.into_iter().next() {
            Some(Ok(_)) => self.appeared(topic).await.map(|()| true),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                check_topic(&admin, topic, &options).await?;
                Ok(false)
            }
            Some(Err((_, code))) => {
                Err(ShipError::from_code(code, format!("creating {topic}: {code}")))
            }
            None => Err(ShipError::Away(format!("creating {topic}: no answer"))),
        }
    }

    /// Waits until the brokers know a topic that the controller has made.
    async fn appeared(&self, topic: &str) -> Result<(), ShipError> {
        let consumer = self.consumer()?;
        let mut asked = 0;
        loop {
            match bounds(&consumer, topic) {
                Err(_) if asked < 50 => asked += 1,
                known => return known.map(|_| ()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn check_topic(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    options: &AdminOptions,
) -> Result<(), ShipError> {
    let wrong = |found: String, wanted: &str| ShipError::Settings {
        topic: topic.to_owned(),
        found,
        wanted: wanted.to_owned(),
    };
    let partitions = tokio::task::block_in_place(|| {
        let metadata = admin.inner().fetch_metadata(Some(topic), ASK)?;
        Ok(metadata.topics().first().map_or(0, |topic| topic.partitions().len()))
    })
    .map_err(|error| ShipError::from_kafka(&error))?;
    // A broker that has not heard of the new topic yet, or has no leader for it.
    if partitions == 0 {
        return Err(ShipError::Away(format!("{topic} is not known yet")));
    }
    if partitions != 1 {
        return Err(wrong(format!("{partitions} partitions"), "1"));
    }
    let resources = [ResourceSpecifier::Topic(topic)];
    let configs = admin
        .describe_configs(resources.iter(), options)
        .await
        .map_err(|error| ShipError::from_kafka(&error))?;
    for config in configs.into_iter().flatten() {
        let cleanup = config.entries.iter().find(|entry| entry.name == "cleanup.policy");
        if let Some(value) = cleanup.and_then(|entry| entry.value.as_deref())
            && value != "delete"
        {
            return Err(wrong(format!("cleanup.policy={value}"), "delete"));
        }
    }
    Ok(())
}

/// First offset held and the one after the last.
pub(super) fn bounds(consumer: &StreamConsumer, topic: &str) -> Result<(i64, i64), ShipError> {
    tokio::task::block_in_place(|| consumer.fetch_watermarks(topic, 0, ASK))
        .map_err(|error| ShipError::from_kafka(&error))
}

/// Reads from that offset on.
pub(super) fn assign(consumer: &StreamConsumer, topic: &str, offset: i64) -> Result<(), ShipError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset))
        .and_then(|()| consumer.assign(&list))
        .map_err(|error| ShipError::from_kafka(&error))
}
