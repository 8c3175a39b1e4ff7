//! A region is seeded anew, step by step as docs/OPERATIONS.md says.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use lab::db::{Database, Flavour};
use lab::region::{Lab, Region};
use lab::{PATIENCE, wait_until};
use mysql_async::Row;
use mysql_async::prelude::Queryable as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;

const TABLES: [&str; 1] = ["shop.t"];

async fn status(region: &Region) -> Value {
    let answer = region.agent.as_ref().unwrap().get("/status").await;
    answer.map_or(Value::Null, |(_, body)| serde_json::from_str(&body).unwrap())
}

async fn delete_topic(region: &Region, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", region.kafka.brokers()).create().unwrap();
    admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
}

/// What `mariadb-dump --single-transaction` does: the tables as of one moment.
async fn dump(from: &Database, to: &Database, schemas: &[&str], without: &[&str]) {
    let (mut from, mut to) = (from.conn().await, to.conn().await);
    from.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.unwrap();
    for schema in schemas {
        to.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
        let tables: Vec<String> = from.query(format!("SHOW TABLES FROM {schema}")).await.unwrap();
        for table in tables.iter().map(|table| format!("{schema}.{table}")) {
            if without.contains(&table.as_str()) {
                continue;
            }
            let made: Option<(String, String)> =
                from.query_first(format!("SHOW CREATE TABLE {table}")).await.unwrap();
            to.query_drop(format!("USE {schema}")).await.unwrap();
            to.query_drop(made.unwrap().1).await.unwrap();
            let rows: Vec<Row> = from.exec(format!("SELECT * FROM {table}"), ()).await.unwrap();
            for row in rows.into_iter().map(Row::unwrap) {
                let marks = vec!["?"; row.len()].join(",");
                to.exec_drop(format!("INSERT INTO {table} VALUES ({marks})"), row).await.unwrap();
            }
        }
    }
}

async fn insert(lab: &Lab, region: usize, ids: std::ops::Range<i64>) {
    for id in ids {
        let sql = format!("INSERT INTO shop.t VALUES ({id}, {region})");
        lab.regions[region].db.exec(&sql).await;
    }
}

/// Steps 2 to 4.
async fn copy(donor: &Region, seeded: &Database) {
    let here: Vec<(String,)> = donor.db.rows("SELECT @@gtid_binlog_pos").await;
    let mut place = (0, 0, 0);
    let mut known = Value::Null;
    for _ in 0..2_000 {
        known = status(donor).await;
        let outbox = &known["outbox"];
        if outbox["acked_seq"] == outbox["sent_seq"] && known["capture"]["gtid"] == here[0].0 {
            let number = |value: &Value| value.as_u64().unwrap();
            place = (
                number(&known["epoch"]),
                number(&outbox["acked_seq"]),
                number(&known["clock"]["hlc_us"]),
            );
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    let (epoch, seq, hlc) = place;
    assert!(epoch > 0, "the donor has not captured all: {known}");
    let without = ["causeway.pauses", "causeway.sessions"];
    dump(&donor.db, seeded, &["shop", "causeway"], &without).await;
    let sql = format!(
        "REPLACE INTO causeway.applied (origin, slot, epoch, seq, hlc) \
         VALUES (1, 0, {epoch}, {seq}, {hlc})"
    );
    seeded.exec(&sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_lost_its_outbox_and_its_database_is_seeded_from_a_peer() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 2]).await;
    lab.exec_everywhere(
        "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, region INT)",
    )
    .await;
    lab.start_agents().await;
    insert(&lab, 0, 0..30).await;
    insert(&lab, 1, 100..130).await;
    lab.converge(&TABLES, PATIENCE).await;

    // The outbox goes: nothing is begun anew in its place.
    lab.regions[1].agent().proc.kill();
    delete_topic(&lab.regions[1], "causeway.outbox.r2").await;
    lab.regions[1].agent().proc.again();
    wait_until("the loss is told", PATIENCE, || {
        let region = &lab.regions[1];
        async move {
            let told = status(region).await["capture"].clone();
            told["state"] == "halted"
                && told["reason"].as_str().unwrap().contains("was deleted or made anew")
                && told["advice"].as_str().unwrap().contains("Seeding a region anew")
        }
    })
    .await;

    // The database goes too; the other region writes on.
    lab.regions[1].agent().proc.kill();
    lab.regions[1].db.exec("DROP DATABASE shop;\nDROP DATABASE causeway;\nRESET MASTER").await;
    insert(&lab, 0, 30..60).await;
    copy(&lab.regions[0], &lab.regions[1].db).await;
    insert(&lab, 0, 60..90).await;
    delete_topic(&lab.regions[0], "causeway.inbox.r2").await;
    lab.regions[1].agent().proc.again();
    lab.regions[1].agent().ready().await;
    insert(&lab, 1, 130..160).await;
    lab.converge(&TABLES, PATIENCE).await;
    let rows = lab.regions[0].db.number("SELECT COUNT(*) FROM shop.t").await;
    assert_eq!(rows, 150);

    // From now on an ordinary region.
    lab.regions[1].agent().crash().await;
    insert(&lab, 1, 160..170).await;
    insert(&lab, 0, 90..100).await;
    lab.converge(&TABLES, PATIENCE).await;
    let rows = lab.regions[1].db.number("SELECT COUNT(*) FROM shop.t").await;
    assert_eq!(rows, 170);
}
