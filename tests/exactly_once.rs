//! Three regions under load while agents, databases and Kafka nodes are killed with
//! `kill -9` by a seed; then everything is equal and nothing is lost, doubled or looped.
//!
//! `CAUSEWAY_SEED` runs one seed, `CAUSEWAY_SOAK_SEEDS` so many,
//! `CAUSEWAY_SOAK_SECONDS` is how long each is under fire.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use causeway::change::{Kind, Record, RecordBody, RegionId, Seq};
use causeway::ship::{Cluster, InboxConfig, read_range};
use lab::compare::differences;
use lab::db::Flavour;
use lab::load::{Dice, Entry, Load, SCHEMA, TABLES, Written};
use lab::region::Lab;

const CALM: Duration = Duration::from_secs(180);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_arrives_exactly_once_under_kill_9() {
    let seconds = setting("CAUSEWAY_SOAK_SECONDS").unwrap_or(30);
    let seeds: Vec<u64> = match (setting("CAUSEWAY_SEED"), setting("CAUSEWAY_SOAK_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (1..=count).collect(),
        (None, None) => vec![1],
    };
    for seed in seeds {
        eprintln!("seed {seed}: CAUSEWAY_SEED={seed} CAUSEWAY_SOAK_SECONDS={seconds}");
        run(seed, Duration::from_secs(seconds)).await;
    }
}

async fn run(seed: u64, under_fire: Duration) {
    let start = Instant::now();
    let mut lab = Lab::start(&[Flavour::MariaDb; 3]).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.start_agents().await;
    eprintln!("seed {seed}: three regions ready after {:.1?}", start.elapsed());
    let load = Load::start(&lab.databases(), 2, seed, Duration::from_millis(4));
    fire(&mut lab, seed, under_fire, &load).await;
    let written = load.finish().await;
    let calm = Instant::now();
    revive(&mut lab).await;
    settle(&lab, seed).await;
    let caught_up = calm.elapsed();
    every_entry_once(&lab, &written).await;
    nothing_looped(&lab).await;
    alive_after(&lab).await;
    for region in &mut lab.regions {
        region.agent().proc.expect_alive();
    }
    eprintln!(
        "seed {seed}: {} transactions, {} entries ({} unknown), equal after {caught_up:.1?}",
        written.transactions,
        written.acked.len(),
        written.unknown.len()
    );
}

/// Kills and restarts until the time is over.
async fn fire(lab: &mut Lab, seed: u64, under_fire: Duration, load: &Load) {
    let mut dice = Dice::new(seed);
    let start = Instant::now();
    while start.elapsed() < under_fire {
        tokio::time::sleep(Duration::from_millis(500 + dice.below(3000))).await;
        let victim = usize::try_from(dice.below(3)).unwrap();
        let down = Duration::from_millis(dice.below(2500));
        let region = &mut lab.regions[victim];
        let (what, proc) = match dice.below(10) {
            0..=4 => ("agent", &mut region.agent.as_mut().unwrap().proc),
            5..=7 => ("database", &mut region.db.proc),
            _ => ("Kafka", &mut region.kafka.proc),
        };
        eprintln!(
            "seed {seed}: {:.1?} {} transactions: kill -9 {what} of {}, {down:.1?}",
            start.elapsed(),
            load.committed(),
            region.name
        );
        proc.expect_alive();
        proc.kill();
        tokio::time::sleep(down).await;
        proc.again();
    }
}

async fn revive(lab: &mut Lab) {
    for region in &mut lab.regions {
        region.db.ready().await;
        region.kafka.ready().await;
        region.agent().ready().await;
    }
}

/// Waits for equal tables; when they don't come, says what the agents think.
async fn settle(lab: &Lab, seed: u64) {
    let start = Instant::now();
    loop {
        let found = differences(&lab.databases(), &TABLES).await;
        if found.is_empty() {
            return;
        }
        if start.elapsed() > CALM {
            for region in &lab.regions {
                let status = region.agent.as_ref().unwrap().get("/status").await;
                eprintln!("{}: {status:?}", region.name);
            }
            panic!("seed {seed}: after {CALM:?} without faults:\n{}", found.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn every_entry_once(lab: &Lab, written: &Written) {
    for region in &lab.regions {
        let rows: Vec<Entry> = region.db.rows("SELECT region, worker, n FROM shop.journal").await;
        let found: BTreeSet<Entry> = rows.iter().copied().collect();
        assert_eq!(rows.len(), found.len(), "{}: entries are doubled", region.name);
        let lost: Vec<_> = written.acked.difference(&found).collect();
        assert!(lost.is_empty(), "{}: acknowledged and lost: {lost:?}", region.name);
        let strange: Vec<_> = found
            .iter()
            .filter(|e| !written.acked.contains(e) && !written.unknown.contains(e))
            .collect();
        assert!(strange.is_empty(), "{}: rolled back and there: {strange:?}", region.name);
    }
}

/// Every entry stands in one transaction of one outbox: its own region's.
async fn nothing_looped(lab: &Lab) {
    for (n, region) in lab.regions.iter().enumerate() {
        let origin = RegionId::new(u8::try_from(n + 1).unwrap()).unwrap();
        let peer = &lab.regions[(n + 1) % lab.regions.len()].db;
        let sql = format!("SELECT MAX(seq) FROM causeway.applied WHERE origin = {origin}");
        let through = Seq(u64::try_from(peer.number(&sql).await).unwrap());
        let config = InboxConfig {
            cluster: Cluster { brokers: region.kafka.brokers(), extra: BTreeMap::new() },
            topic: format!("causeway.outbox.{}", region.name),
            origin,
            after: Seq(0),
        };
        let mut seen: BTreeMap<Vec<u8>, Seq> = BTreeMap::new();
        read_range(&config, through, |record| journal(&record, origin, &mut seen)).await.unwrap();
        let own = format!("SELECT COUNT(*) FROM shop.journal WHERE region = {origin}");
        let own = usize::try_from(region.db.number(&own).await).unwrap();
        assert_eq!(seen.len(), own, "{}: entries in the outbox", region.name);
    }
}

fn journal(record: &Record, origin: RegionId, seen: &mut BTreeMap<Vec<u8>, Seq>) {
    let RecordBody::Transaction(txn) = &record.body else { return };
    for change in &txn.changes {
        let table = change.table.as_ref().unwrap();
        if table.name != "journal" {
            continue;
        }
        let at = |name: &str| table.columns.iter().position(|c| c.name == name).unwrap();
        for row in &change.rows {
            let values = &row.after.as_ref().expect("the journal is only appended to").values;
            let region = match &values[at("region")].kind {
                Some(Kind::Uint(v)) => *v,
                other => panic!("a region of {other:?}"),
            };
            assert_eq!(region, u64::from(origin.get()), "a looped row at seq {}", record.seq);
            let key = format!("{:?} {:?}", values[at("worker")], values[at("n")]).into_bytes();
            let before = seen.insert(key, record.seq);
            assert_eq!(before, None, "shipped twice, again at seq {}", record.seq);
        }
    }
}

/// Replication still goes on, in all directions.
async fn alive_after(lab: &Lab) {
    for (n, region) in lab.regions.iter().enumerate() {
        region.db.exec(&format!("INSERT INTO shop.parent (region) VALUES ({})", 100 + n)).await;
    }
    lab.converge(&TABLES, CALM).await;
    let count = lab.regions[0].db.number("SELECT COUNT(*) FROM shop.parent WHERE region >= 100");
    assert_eq!(count.await, 3);
}
