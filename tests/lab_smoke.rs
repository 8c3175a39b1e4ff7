//! The harness itself: what a killed server had acknowledged is there after its restart.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::process::{Command, Stdio};
use std::time::Duration;

use lab::db::{Database, Flavour, Settings};
use lab::kafka::{Kafka, PeerDoor};
use lab::link::Link;
use lab::proc::{Folder, free_port};
use lab::{PATIENCE, root, wait_until};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
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
    for flavour in Flavour::MYSQL {
        rows_survive(flavour).await;
    }
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

fn reachable(brokers: &str) -> bool {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("log_level", "0")
        .create()
        .unwrap();
    client.fetch_metadata(None, Duration::from_secs(2)).is_ok_and(|metadata| {
        // What the node says of itself leads through the link again.
        metadata.brokers().iter().all(|b| format!("{}:{}", b.host(), b.port()) == brokers)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_passes_nothing_until_it_heals() {
    let door = PeerDoor { inner: free_port(), outer: free_port() };
    let kafka = Kafka::start("linked", &[door]).await;
    let link = Link::open(door.outer, door.inner).await;
    let ask = || async {
        let address = link.address();
        tokio::task::spawn_blocking(move || reachable(&address)).await.unwrap()
    };
    wait_until("the link passes", PATIENCE, ask).await;
    link.cut();
    assert!(!ask().await);
    wait_until("only the link is cut", PATIENCE, || async {
        let own = kafka.brokers();
        tokio::task::spawn_blocking(move || reachable(&own)).await.unwrap()
    })
    .await;
    link.heal();
    wait_until("the link is healed", PATIENCE, ask).await;
}

/// Says in its environment that this process is the one to be killed.
const VICTIM: &str = "CAUSEWAY_LAB_VICTIM";

#[tokio::test]
async fn servers_end_with_a_killed_parent() {
    if let Some(note) = std::env::var_os(VICTIM) {
        let db = Database::start(&Settings::small(Flavour::MariaDb, 1)).await;
        std::fs::write(note, db.proc.pid().to_string()).unwrap();
        std::future::pending::<()>().await;
    }
    let folder = Folder::new("note");
    let note = folder.path().join("pid");
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "servers_end_with_a_killed_parent"])
        .env(VICTIM, &note)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = || std::fs::read_to_string(&note).unwrap_or_default();
    wait_until("the server runs", PATIENCE, || async { !pid().is_empty() }).await;
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_until("the server is gone", PATIENCE, || async {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid()));
        state.map_or(true, |text| text.contains(") Z"))
    })
    .await;
    let left = root().join(".run/tmp").join(format!("{}-0-db1", parent.id()));
    std::fs::remove_dir_all(left).unwrap();
}
