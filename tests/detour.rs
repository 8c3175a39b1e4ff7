//! R3: what a dead region left in one survivor's Kafka reaches the others from there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::sync::Arc;
use std::time::Duration;

use causeway::ship::{
    Cluster, Detour, ErrorKind, LinkConfig, LinkStatus, ShipError, TopicSettings, run_link,
};
use lab::db::Flavour;
use lab::kafka::Kafka;
use lab::region::{Lab, Region};
use lab::seed::status;
use lab::{PATIENCE, compare, wait_until};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const TABLES: [&str; 2] = ["shop.parent", "shop.child"];
const INBOX: &str = "causeway.inbox.r1";

/// Offset in the outbox and payload of every record that a topic holds.
fn raw(kafka: &Kafka, topic: &str) -> Vec<(i64, Vec<u8>)> {
    let held = kafka.records(topic).into_iter();
    held.map(|record| (record.copied.unwrap_or(record.offset), record.payload)).collect()
}

async fn insert(region: &Region, ids: std::ops::Range<i64>) {
    for id in ids {
        let sql = format!("INSERT INTO shop.parent VALUES ({id}, '{}', 0)", region.name);
        region.db.write(&sql).await;
    }
}

/// Rows whose parents were written elsewhere, and another version of those.
async fn build_on(region: &Region, ids: std::ops::Range<i64>) {
    let own = region.name.strip_prefix('r').unwrap();
    for id in ids {
        region.db.write(&format!("INSERT INTO shop.child VALUES ({own}{id}, {id})")).await;
        region.db.write(&format!("UPDATE shop.parent SET n = n + 1 WHERE id = {id}")).await;
    }
}

async fn holds(region: &Region, sql: &str, wanted: i64) {
    wait_until(&format!("{}: {sql} gives {wanted}", region.name), PATIENCE, || async {
        region.db.number(sql).await == wanted
    })
    .await;
}

const TAIL: &str = "SELECT COUNT(*) FROM shop.parent WHERE id BETWEEN 100 AND 199";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_one_survivor_has_reaches_the_others_from_there() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 3]).await;
    lab.exec_everywhere(
        "CREATE DATABASE shop;\n\
         CREATE TABLE shop.parent (id INT PRIMARY KEY, by_region VARCHAR(9), n INT);\n\
         CREATE TABLE shop.child (id INT PRIMARY KEY, parent INT)",
    )
    .await;
    lab.start_agents().await;
    for (n, region) in (0..).zip(&lab.regions) {
        insert(region, n * 10..n * 10 + 5).await;
    }
    lab.converge(&TABLES, PATIENCE).await;

    // The region dies when its last writes have reached one survivor, which builds on them.
    lab.link(2, 0).cut();
    lab.link(2, 1).cut();
    insert(&lab.regions[0], 100..150).await;
    holds(&lab.regions[1], TAIL, 50).await;
    build_on(&lab.regions[1], 100..150).await;
    lab.regions[0].agent().proc.kill();
    lab.regions[0].kafka.proc.kill();
    lab.heal();
    let waiting = |link: &serde_json::Value| {
        link["state"] == "detour" && link["through"] == "r2" && link["reason"].is_string()
    };
    wait_until("r3 copies from r2", PATIENCE, || async {
        waiting(&status(&lab.regions[2]).await["streams"]["r1"]["link"])
    })
    .await;
    holds(&lab.regions[2], TAIL, 50).await;
    let survivors = [&lab.regions[1].db, &lab.regions[2].db];
    compare::converge(&survivors, &TABLES, PATIENCE).await;
    let (_, metrics) = lab.regions[2].agent.as_ref().unwrap().get("/metrics").await.unwrap();
    assert!(metrics.contains("causeway_link_through{") && metrics.contains("through=\"r2\""));
    insert(&lab.regions[1], 200..210).await;
    insert(&lab.regions[2], 210..220).await;
    build_on(&lab.regions[2], 100..120).await;
    compare::converge(&survivors, &TABLES, PATIENCE).await;

    // A restart finds the same end of the inbox.
    lab.regions[2].agent().crash().await;
    lab.regions[0].kafka.proc.again();
    lab.regions[0].kafka.ready().await;
    lab.regions[0].agent().proc.again();
    lab.regions[0].agent().ready().await;
    for (n, region) in (0..).zip(&lab.regions) {
        insert(region, 300 + n * 10..305 + n * 10).await;
    }
    lab.converge(&TABLES, PATIENCE).await;
    let told = status(&lab.regions[2]).await["streams"]["r1"]["link"].clone();
    assert_eq!((&told["state"], &told["through"]), (&"running".into(), &().into()), "{told}");

    // However it came, the inbox is the outbox.
    for n in 0..3 {
        lab.regions[n].agent().proc.kill();
    }
    let (outbox, inbox) =
        (raw(&lab.regions[0].kafka, "causeway.outbox.r1"), raw(&lab.regions[2].kafka, INBOX));
    assert!(inbox.len() > 60 && inbox.len() <= outbox.len());
    assert_eq!(inbox, outbox[..inbox.len()]);
}

/// A record of an outbox, as an inbox has it: its offset there and its payload.
type Copy = (i64, &'static str);

fn copies(offsets: impl IntoIterator<Item = i64>) -> Vec<Copy> {
    offsets.into_iter().map(|at| (at, "true")).collect()
}

/// Makes a topic of these; an outbox, without the header, when `header` says so.
async fn fill(kafka: &Kafka, topic: &str, records: &[Copy], header: bool) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers());
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    let producer: FutureProducer = config.create().unwrap();
    let mut sent = Vec::new();
    for (at, text) in records {
        let (payload, at) = (format!("{text} {at}"), at.to_string());
        let mut record = FutureRecord::<(), String>::to(topic).partition(0).payload(&payload);
        if header {
            let header = Header { key: "causeway-offset", value: Some(&at) };
            record = record.headers(OwnedHeaders::new().insert(header));
        }
        sent.push(producer.send_result(record).unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap().unwrap();
    }
}

/// One inbox that is filled from others while its outbox is silent.
struct Case {
    name: &'static str,
    here: Vec<Copy>,
    others: Vec<Vec<Copy>>,
    /// What the inbox ends at.
    until: i64,
    /// What the link says at the end.
    says: &'static str,
}

fn config(kafka: &Kafka, case: &Case, source: String) -> LinkConfig {
    let cluster = Cluster { brokers: kafka.brokers(), ..Cluster::default() };
    let detour = |n| Detour {
        through: format!("other{n}"),
        cluster: cluster.clone(),
        topic: format!("{}.{n}", case.name),
    };
    LinkConfig {
        source: Cluster { brokers: source, ..Cluster::default() },
        source_topic: format!("{}.out", case.name),
        target: cluster.clone(),
        target_topic: case.name.to_owned(),
        settings: TopicSettings { retention_ms: 86_400_000, message_bytes_max: 2 << 20 },
        detours: (0..case.others.len()).map(detour).collect(),
    }
}

async fn fills_up(kafka: &Kafka, case: Case) {
    fill(kafka, case.name, &case.here, true).await;
    for (n, other) in case.others.iter().enumerate() {
        fill(kafka, &format!("{}.{n}", case.name), other, true).await;
    }
    let nowhere = format!("127.0.0.1:{}", lab::proc::free_port());
    let (status, cancel) = (Arc::new(LinkStatus::default()), CancellationToken::new());
    let (_needs, needed) = watch::channel(true);
    let config = config(kafka, &case, nowhere);
    let link = run_link(config, Arc::clone(&status), needed, cancel.clone());
    let ends = async {
        wait_until(case.name, PATIENCE, || async {
            let told = status.get();
            let says = told.reason.is_some_and(|reason| reason.contains(case.says));
            !told.running && says && told.source_offset == Some(case.until)
        })
        .await;
        cancel.cancel();
    };
    tokio::join!(async { link.await.unwrap() }, ends);
    let held: Vec<_> = raw(kafka, case.name);
    let first = case.here.first().map_or(0, |&(at, _)| at);
    let wanted: Vec<_> =
        (first..=case.until).map(|at| (at, format!("true {at}").into_bytes())).collect();
    assert_eq!(held, wanted, "{}", case.name);
}

/// Whatever the others' inboxes hold, the one here becomes what the outbox is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_takes_from_others_what_follows_and_nothing_else() {
    let kafka = Kafka::start("k", &[]).await;
    let vain = "no other region's inbox holds more";
    let late = (0..1_500).chain(700..1_200).chain(1_500..2_000);
    let forked = copies(0..2).into_iter().chain((2..9).map(|at| (at, "other")));
    let cases = [
        Case {
            name: "most",
            here: copies(0..900),
            others: vec![copies(0..905), copies(late), copies(0..907)],
            until: 1_999,
            says: vain,
        },
        Case {
            name: "gapped",
            here: copies(0..3),
            others: vec![copies((0..5).chain(7..10)), copies(0..6), copies(7..9)],
            until: 5,
            says: "other0's inbox can't be copied: ",
        },
        Case {
            name: "forked",
            here: copies(0..3),
            others: vec![forked.collect(), copies(0..6)],
            until: 5,
            says: "other0's inbox can't be copied: ",
        },
        Case {
            name: "fresh",
            here: Vec::new(),
            others: vec![Vec::new(), copies(0..600)],
            until: 599,
            says: vain,
        },
    ];
    let runs = cases.map(|case| fills_up(&kafka, case));
    futures_util::future::join_all(runs).await;
}

/// Its Kafka lost what it had acknowledged: no record may follow another log's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_does_not_go_on_in_another_log() {
    let kafka = Kafka::start("l", &[]).await;
    for (name, outbox) in [
        ("shorter", copies(0..4)),
        ("grown", copies(0..3).into_iter().chain((3..9).map(|at| (at, "other"))).collect()),
    ] {
        let case = Case { name, here: copies(0..5), others: Vec::new(), until: 4, says: "" };
        fill(&kafka, name, &case.here, true).await;
        fill(&kafka, &format!("{name}.out"), &outbox, false).await;
        let config = config(&kafka, &case, kafka.brokers());
        let (_needs, needed) = watch::channel(false);
        let link =
            run_link(config, Arc::new(LinkStatus::default()), needed, CancellationToken::new());
        let error = tokio::time::timeout(Duration::from_secs(60), link).await.unwrap();
        let error = error.unwrap_err();
        assert!(matches!(error, ShipError::Parted { offset: 4, .. }), "{name}: {error}");
        assert_eq!(error.kind(), ErrorKind::Halt);
        assert_eq!(raw(&kafka, name).len(), 5);
    }
}
