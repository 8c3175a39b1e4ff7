//! A region that is dead for longer than the others keep its records, and theirs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use lab::db::Flavour;
use lab::region::{Lab, Region};
use lab::seed::{copy, delete_topics, status};
use lab::{PATIENCE, compare, wait_until};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const TABLES: [&str; 1] = ["shop.t"];

/// Until the stream of that peer says this.
async fn stream_says(region: &Region, peer: &str, state: &str, words: &str) {
    wait_until(&format!("{}'s stream {peer}: {words}", region.name), PATIENCE, || async {
        let told = status(region).await["streams"][peer].clone();
        told["state"] == state
            && told["reason"].as_str().unwrap_or("").contains(words)
            && told["advice"].as_str().unwrap_or("").contains("A region that was away for too long")
    })
    .await;
}

async fn insert(region: &Region, ids: std::ops::Range<i64>) {
    for id in ids {
        region.db.write(&format!("INSERT INTO shop.t VALUES ({id}, '{}')", region.name)).await;
    }
}

/// What the retention does, at once.
async fn purge(region: &Region, topics: &[&str]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", region.kafka.brokers()).create().unwrap();
    let mut all = TopicPartitionList::new();
    for topic in topics {
        all.add_partition_offset(topic, 0, Offset::End).unwrap();
    }
    admin.delete_records(&all, &AdminOptions::new()).await.unwrap();
}

/// The database knows the end of its outbox, as it does seconds after the last write.
async fn settled(region: &Region) {
    wait_until("the outbox's place is kept", PATIENCE, || async {
        let acked = status(region).await["outbox"]["acked_seq"].as_i64();
        acked == Some(region.db.number("SELECT seq FROM causeway.outbox").await)
    })
    .await;
}

/// As docs/OPERATIONS.md says: the third region from the first.
async fn seed(lab: &mut Lab) {
    lab.regions[2].agent().proc.kill();
    lab.regions[2].db.exec("DROP DATABASE shop;\nDROP DATABASE causeway;\nRESET MASTER").await;
    copy(&lab.regions[0], &lab.regions[2].db).await;
    let own = ["causeway.outbox.r3", "causeway.inbox.r1", "causeway.inbox.r2"];
    delete_topics(&lab.regions[2], &own).await;
    for n in 0..2 {
        delete_topics(&lab.regions[n], &["causeway.inbox.r3"]).await;
        lab.regions[n].agent().crash().await;
    }
    lab.regions[2].agent().proc.again();
    lab.regions[2].agent().ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_dead_for_too_long_keeps_no_one_from_a_restart() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 3]).await;
    lab.exec_everywhere(
        "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, by_region VARCHAR(9))",
    )
    .await;
    lab.start_agents().await;
    for (n, region) in (0..).zip(&lab.regions) {
        insert(region, n * 10..n * 10 + 5).await;
    }
    lab.converge(&TABLES, PATIENCE).await;

    // The last that it ships is in its own Kafka alone.
    (0..2).for_each(|reader| lab.link(reader, 2).cut());
    insert(&lab.regions[2], 100..101).await;
    wait_until("it is shipped", PATIENCE, || async {
        status(&lab.regions[2]).await["outbox"]["acked_seq"] == 6
    })
    .await;
    lab.regions[2].agent().proc.kill();
    lab.regions[2].kafka.proc.kill();
    insert(&lab.regions[0], 100..110).await;
    insert(&lab.regions[1], 120..130).await;
    let alive = [&lab.regions[0].db, &lab.regions[1].db];
    compare::converge(&alive, &TABLES, PATIENCE).await;

    // The others' agents go on, and may be restarted.
    for (n, own, peer) in [
        (0, "causeway.outbox.r1", "causeway.inbox.r2"),
        (1, "causeway.outbox.r2", "causeway.inbox.r1"),
    ] {
        settled(&lab.regions[n]).await;
        purge(&lab.regions[n], &["causeway.inbox.r3", own, peer]).await;
    }
    for n in 0..2 {
        lab.regions[n].agent().crash().await;
        stream_says(&lab.regions[n], "r3", "running", "nothing of it is held here any more").await;
    }
    insert(&lab.regions[0], 140..150).await;
    insert(&lab.regions[1], 160..170).await;
    let alive = [&lab.regions[0].db, &lab.regions[1].db];
    compare::converge(&alive, &TABLES, PATIENCE).await;

    // It comes back as it was: what it wrote is judged by no one who can't.
    lab.regions[2].kafka.proc.again();
    lab.regions[2].kafka.ready().await;
    lab.heal();
    lab.regions[2].agent().proc.again();
    for n in 0..2 {
        stream_says(&lab.regions[n], "r3", "halted", "conflicts can't be told").await;
    }
    wait_until("it says that it has missed records", PATIENCE, || async {
        let told = status(&lab.regions[2]).await["streams"]["r1"]["link"].clone();
        told["state"] == "halted" && told["reason"].as_str().unwrap().contains("does not hold")
    })
    .await;
    insert(&lab.regions[0], 170..171).await;
    insert(&lab.regions[1], 171..172).await;
    let alive = [&lab.regions[0].db, &lab.regions[1].db];
    compare::converge(&alive, &TABLES, PATIENCE).await;
    let rows = "SELECT COUNT(*) FROM shop.t WHERE by_region = 'r3'";
    assert_eq!(lab.regions[0].db.number(rows).await, 5);

    // Seeded anew, it is a region as before.
    seed(&mut lab).await;
    for (n, region) in (0..).zip(&lab.regions) {
        insert(region, 200 + n * 10..205 + n * 10).await;
    }
    lab.converge(&TABLES, PATIENCE).await;
    assert_eq!(lab.regions[0].db.number(rows).await, 10);
}
