//! Seeding a region anew, as docs/OPERATIONS.md says.

use std::process::Command;

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
    dump(&donor.db, seeded);
    let sql = format!(
        "REPLACE INTO causeway.applied (origin, slot, epoch, seq, hlc) \
         VALUES (1, 0, {epoch}, {seq}, {hlc})"
    );
    seeded.exec(&sql).await;
}

/// Step 3 with the clients that it names.
fn dump(from: &Database, to: &Database) {
    let script = "mariadb-dump --no-defaults -h127.0.0.1 -uroot -P\"$1\" --single-transaction \
        --databases shop causeway \
        --ignore-table=causeway.pauses --ignore-table=causeway.sessions \
        | mariadb --no-defaults -h127.0.0.1 -uroot -P\"$2\"";
    let port = |database: &Database| database.address().rsplit(':').next().unwrap().to_owned();
    let done = Command::new("bash")
        .args(["-o", "pipefail", "-c", script, "dump", &port(from), &port(to)])
        .status()
        .unwrap();
    assert!(done.success(), "{done}");
}
