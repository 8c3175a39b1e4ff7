//! Seeding a region anew, as docs/OPERATIONS.md says.

use mysql_async::Row;
use mysql_async::prelude::Queryable as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;

use super::db::Database;
use super::region::Region;
use super::{PATIENCE, wait_until};

/// The agent's status; null while it does not answer.
pub async fn status(region: &Region) -> Value {
    let answer = region.agent.as_ref().unwrap().get("/status").await;
    answer.map_or(Value::Null, |(_, body)| serde_json::from_str(&body).unwrap())
}

/// Deletes topics of the region's Kafka.
pub async fn delete_topics(region: &Region, topics: &[&str]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", region.kafka.brokers()).create().unwrap();
    admin.delete_topics(topics, &AdminOptions::new()).await.unwrap();
}

/// Steps 2 to 4, from the region with id 1, while nothing is written there.
pub async fn copy(donor: &Region, seeded: &Database) {
    wait_until("the donor has captured all", PATIENCE, || async {
        let here: Vec<(String,)> = donor.db.rows("SELECT @@gtid_binlog_pos").await;
        let known = status(donor).await;
        known["outbox"]["acked_seq"] == known["outbox"]["sent_seq"]
            && known["capture"]["gtid"] == here[0].0
    })
    .await;
    let known = status(donor).await;
    let number = |value: &Value| value.as_u64().unwrap();
    let (epoch, seq) = (number(&known["epoch"]), number(&known["outbox"]["acked_seq"]));
    let hlc = number(&known["clock"]["hlc_us"]);
    let without = ["causeway.pauses", "causeway.sessions"];
    dump(&donor.db, seeded, &["shop", "causeway"], &without).await;
    let sql = format!(
        "REPLACE INTO causeway.applied (origin, slot, epoch, seq, hlc) \
         VALUES (1, 0, {epoch}, {seq}, {hlc})"
    );
    seeded.exec(&sql).await;
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
