//! The harness itself: what a killed server had acknowledged is there after its restart.

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::time::Duration;

use lab::db::{Database, Flavour, Settings};
use lab::kafka::Kafka;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};

async fn rows_survive(flavour: Flavour) {
    let mut db = Database::start(&Settings::small(flavour, 1)).await;
    db.exec("CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY);\n").await;
    db.exec("INSERT INTO shop.t VALUES (1), (2)").await;
    db.crash().await;
    assert_eq!(db.number("SELECT COUNT(*) FROM shop.t").await, 2);
}

#[tokio::test]
async fn mariadb_survives_a_kill() {
    rows_survive(Flavour::MariaDb).await;
}

#[tokio::test]
async fn mysql_survives_a_kill() {
    rows_survive(Flavour::MySql56).await;
}

#[tokio::test]
async fn kafka_survives_a_kill() {
    let mut kafka = Kafka::start("smoke", &[]).await;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers());
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let topic = NewTopic::new("t", 1, TopicReplication::Fixed(1));
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    let producer: FutureProducer = config.create().unwrap();
    let send = |key: &'static str| {
        let record = FutureRecord::to("t").key(key).payload("x");
        producer.send(record, Duration::from_secs(60))
    };
    assert_eq!(send("a").await.unwrap().offset, 0);
    kafka.crash().await;
    assert_eq!(send("b").await.unwrap().offset, 1);
}
