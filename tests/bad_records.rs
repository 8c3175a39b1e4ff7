//! What can't be read in an inbox stops its own stream, by name, and loses nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::time::Duration;

use causeway::change::{Kind, Record, RecordBody, Tables};
use causeway::clock::{Hlc, wall_us};
use lab::db::Flavour;
use lab::region::{Lab, Region};
use lab::{PATIENCE, wait_until};
use prost::bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde_json::Value;

const TABLES: [&str; 1] = ["shop.t"];
const INBOX: &str = "causeway.inbox.r2";

async fn stream(region: &Region, peer: &str) -> Value {
    let answer = region.agent.as_ref().unwrap().get("/status").await;
    let status: Value =
        answer.map_or(Value::Null, |(_, body)| serde_json::from_str(&body).unwrap());
    status["streams"][peer].clone()
}

/// Until the stream of r2 is halted with those words; the other one is not.
async fn halted(region: &Region, words: &str) -> Value {
    wait_until(&format!("the stream halts: {words}"), PATIENCE, || async {
        let told = stream(region, "r2").await;
        told["state"] == "halted" && told["reason"].as_str().unwrap_or("").contains(words)
    })
    .await;
    assert_ne!(stream(region, "r3").await["state"], "halted");
    stream(region, "r2").await
}

async fn insert(region: &Region, id: i64) {
    region.db.write(&format!("INSERT INTO shop.t VALUES ({id}, 0)")).await;
}

fn client(region: &Region) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", region.kafka.brokers()).set("group.id", "test");
    config
}

/// Writes into the inbox behind the link's back.
async fn put(region: &Region, payload: &[u8]) {
    let producer: FutureProducer = client(region).create().unwrap();
    let record = FutureRecord::<(), [u8]>::to(INBOX).partition(0).payload(payload);
    producer.send(record, Duration::from_secs(60)).await.unwrap();
}

/// The last transaction in the inbox.
fn last_transaction(region: &Region) -> Record {
    let consumer: BaseConsumer = client(region).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(INBOX, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let (_, high) = consumer.fetch_watermarks(INBOX, 0, Duration::from_secs(60)).unwrap();
    let mut found = None;
    loop {
        let message = consumer.poll(Duration::from_secs(60)).unwrap().unwrap();
        let bytes = Bytes::copy_from_slice(message.payload().unwrap());
        if let Ok(record) = Record::decode(bytes, &mut Tables::default())
            && matches!(record.body, RecordBody::Transaction(_))
        {
            found = Some(record);
        }
        if message.offset() + 1 >= high {
            return found.unwrap();
        }
    }
}

/// The way on that the status gives.
async fn mend(region: &Region, told: &Value) {
    assert!(told["advice"].as_str().unwrap().contains("delete that inbox topic"), "{told}");
    let admin: AdminClient<DefaultClientContext> = client(region).create().unwrap();
    admin.delete_topics(&[INBOX], &AdminOptions::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_record_in_an_inbox_stops_its_stream_alone_and_loses_nothing() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 3]).await;
    lab.exec_everywhere("CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, n INT)")
        .await;
    lab.start_agents().await;
    for (n, region) in (0..).zip(&lab.regions) {
        insert(region, n).await;
    }
    lab.converge(&TABLES, PATIENCE).await;

    put(&lab.regions[0], b"\xff not a record").await;
    let told = halted(&lab.regions[0], "can't be read").await;
    // In this order: what comes after a row of the halted stream has to wait for it.
    insert(&lab.regions[2], 10).await;
    lab.regions[0].db.gets("shop.t", 10).await;
    insert(&lab.regions[1], 11).await;
    lab.regions[2].db.gets("shop.t", 11).await;
    insert(&lab.regions[0], 12).await;
    lab.regions[1].db.gets("shop.t", 12).await;
    // A restart stops no more than that either; it is not ready until the stream is mended.
    lab.regions[0].agent().restart();
    halted(&lab.regions[0], "can't be read").await;
    mend(&lab.regions[0], &told).await;
    lab.converge(&TABLES, PATIENCE).await;

    let mut record = last_transaction(&lab.regions[0]);
    record.seq.0 += 2;
    record.epoch += 10;
    put(&lab.regions[0], &record.encode(&mut Tables::default())).await;
    let told = halted(&lab.regions[0], "records are missing").await;
    insert(&lab.regions[2], 20).await;
    lab.regions[0].db.gets("shop.t", 20).await;
    insert(&lab.regions[1], 21).await;
    mend(&lab.regions[0], &told).await;
    lab.converge(&TABLES, PATIENCE).await;
    wait_until("the stream runs", PATIENCE, || async {
        let told = stream(&lab.regions[0], "r2").await;
        told["state"] == "running" && told["reason"].is_null()
    })
    .await;
    let rows = lab.regions[0].db.number("SELECT COUNT(*) FROM shop.t").await;
    assert_eq!(rows, 8);
}

/// R8: however it came about, no region takes a stamp before its time. A hold is no halt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stamp_from_the_future_holds_its_stream_until_time_has_come() {
    const AHEAD_US: u64 = 12_000_000;
    /// As it is when the topology says nothing.
    const LIMIT_US: u64 = 500_000;
    let mut lab = Lab::start(&[Flavour::MariaDb; 2]).await;
    lab.exec_everywhere("CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, n INT)")
        .await;
    lab.start_agents().await;
    insert(&lab.regions[1], 1).await;
    lab.converge(&TABLES, PATIENCE).await;
    let here = &lab.regions[0];

    let mut record = last_transaction(here);
    record.seq.0 += 1;
    record.hlc = Hlc(wall_us() + AHEAD_US);
    let due_us = record.hlc.0 - LIMIT_US;
    let RecordBody::Transaction(txn) = &mut record.body else { unreachable!() };
    let row = txn.changes[0].rows[0].after.as_mut().unwrap();
    row.values[0].kind = Some(Kind::Int(2));
    put(here, &record.encode(&mut Tables::default())).await;
    wait_until("the stream is held", PATIENCE, || async {
        let told = stream(here, "r2").await;
        let reason = told["reason"].as_str().unwrap_or_default();
        told["state"] == "retrying" && reason.contains("ahead of the limit")
    })
    .await;
    // What is written here goes out meanwhile.
    insert(here, 3).await;
    lab.regions[1].db.gets("shop.t", 3).await;
    assert!(wall_us() < due_us, "too slow to see anything");
    assert_eq!(here.db.number("SELECT COUNT(*) FROM shop.t WHERE id = 2").await, 0);

    here.db.gets("shop.t", 2).await;
    // The clocks of the agents are the same; what they measure of it may be off by little.
    assert!(wall_us() + LIMIT_US / 2 > due_us, "before its time");
    wait_until("the stream runs", PATIENCE, || async {
        stream(here, "r2").await["state"] == "running"
    })
    .await;
}
