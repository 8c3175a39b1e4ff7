//! A Kafka that has run for a while: Java compiles what is called often, and a node that
//! has just begun takes several times the processor for a request.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

const TOPIC: &str = "warm-up";
/// Java compiles a method well after some thousands of calls.
const REQUESTS: usize = 20_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes records one by one, each a request and read as one.
pub(crate) async fn warm_up(brokers: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", TOPIC).set("acks", "all");
    config.set("enable.idempotence", "true").set("linger.ms", "0").set("compression.type", "lz4");
    let admin: AdminClient<_> = config.create().unwrap();
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(1));
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");

    let consumer: StreamConsumer = config.create().unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let producer: FutureProducer = config.create().unwrap();
    let payload = "a payload that compresses ".repeat(80);
    let write = async {
        for _ in 0..REQUESTS {
            let record = FutureRecord::<(), _>::to(TOPIC).payload(&payload);
            producer.send(record, PATIENCE).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..REQUESTS {
            tokio::time::timeout(PATIENCE, consumer.recv()).await.unwrap().unwrap();
        }
    };
    tokio::join!(write, read);
}
