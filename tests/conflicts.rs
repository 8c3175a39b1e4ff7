//! Conflicts on real servers: concurrent writes under every policy, with links cut, and
//! the conflict log of all regions.
//!
//! `CAUSEWAY_CONFLICT_SECONDS` is how long the writers run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use lab::PATIENCE;
use lab::db::{Database, Flavour};
use lab::region::Lab;
use mysql_async::prelude::Queryable as _;
use tokio::task::JoinSet;

const TABLES: [&str; 8] = [
    "shop.latest",
    "shop.priority",
    "shop.clock",
    "shop.stock",
    "shop.parts",
    "shop.uniq",
    "shop.txn",
    "shop.journal",
];

const RULES: &str = "  - { tables: shop.priority, policy: region_priority, priority: [r2, r3, r1] }
  - { tables: shop.clock, policy: latest, timestamp_column: at }
  - { tables: shop.stock, policy: delta, delta_columns: [n] }
  - tables: shop.parts
    policy: latest
    columns:
      - { columns: [a], policy: region_priority, priority: [r3, r1, r2] }
      - { columns: [n], policy: delta }
  - { tables: shop.txn, policy: latest, on_conflict: transaction }
  - { tables: shop.journal, policy: insert_only }
  - { tables: shop.*, policy: latest }
";

const SCHEMA: &str = "CREATE DATABASE shop CHARACTER SET utf8mb4;
CREATE TABLE shop.latest (id INT PRIMARY KEY, v INT, w VARCHAR(20), at TIMESTAMP NULL);
CREATE TABLE shop.priority (id INT PRIMARY KEY, v INT);
CREATE TABLE shop.clock (id INT PRIMARY KEY, v INT, at BIGINT NOT NULL);
CREATE TABLE shop.stock (id INT PRIMARY KEY, n DECIMAL(20,2) NOT NULL, v INT);
CREATE TABLE shop.parts (id INT PRIMARY KEY, a INT, b INT, n BIGINT NOT NULL);
CREATE TABLE shop.uniq (id INT PRIMARY KEY, email VARCHAR(40) UNIQUE, v INT);
CREATE TABLE shop.txn (id INT PRIMARY KEY, v INT);
CREATE TABLE shop.journal (id BIGINT PRIMARY KEY, v INT);
";

/// A small random generator (SplitMix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// A client's transaction: its statements, and by how many hundredths `shop.stock` grows.
fn transaction(rng: &mut Rng, number: i64) -> (Vec<String>, i64) {
    let (id, v) = (rng.below(100) + 1, rng.below(1_000_000));
    let upsert = |table: &str, columns: &str, values: String, sets: String| {
        vec![format!(
            "INSERT INTO shop.{table} ({columns}) VALUES ({values}) ON DUPLICATE KEY UPDATE {sets}"
        )]
    };
    let statements = match rng.below(9) {
        0 if rng.below(4) == 0 => vec![format!("DELETE FROM shop.latest WHERE id = {id}")],
        0 => {
            let (w, at) = (format!("'é''\\\\{v}'"), format!("FROM_UNIXTIME({v})"));
            let (row, set) =
                (format!("{id}, {v}, {w}, {at}"), format!("v = {v}, w = {w}, at = {at}"));
            upsert("latest", "id, v, w, at", row, set)
        }
        1 => upsert("priority", "id, v", format!("{id}, {v}"), format!("v = {v}")),
        2 => upsert("clock", "id, v, at", format!("{id}, {v}, {v}"), format!("v = {v}, at = {v}")),
        3 => {
            let cents = i64::try_from(rng.below(2_000)).unwrap() - 1_000;
            let by = format!("{}.{:02}", cents / 100, cents.abs() % 100);
            let by = if cents < 0 && cents > -100 { format!("-{by}") } else { by };
            let sql = format!("UPDATE shop.stock SET n = n + ({by}), v = {v} WHERE id = {id}");
            return (vec![sql], cents);
        }
        4 => vec![format!("UPDATE shop.parts SET a = {v}, n = n + 1 WHERE id = {id}")],
        5 => vec![format!("UPDATE shop.parts SET b = {v} WHERE id = {id}")],
        6 => {
            let email = format!("'e{}@x'", rng.below(60));
            let (row, set) = (format!("{id}, {email}, {v}"), format!("email = {email}, v = {v}"));
            match rng.below(5) {
                0 => vec![format!("DELETE FROM shop.uniq WHERE id = {id}")],
                1 => vec![format!("UPDATE shop.uniq SET id = {} WHERE id = {id}", id + 100)],
                _ => upsert("uniq", "id, email, v", row, set),
            }
        }
        7 => {
            let other = rng.below(100) + 1;
            let sql = |id| format!("UPDATE shop.txn SET v = {v} WHERE id = {id}");
            vec![sql(id), sql(other)]
        }
        _ => vec![format!("INSERT INTO shop.journal VALUES ({number}, {v})")],
    };
    (statements, 0)
}

/// Writes until the time is over; what the database refuses (a duplicate, a deadlock)
/// did not happen.
async fn write(
    db: mysql_async::Opts,
    (region, seed): (i64, u64),
    until: Instant,
    sum: Arc<AtomicI64>,
) -> u64 {
    let mut conn = mysql_async::Conn::new(db).await.unwrap();
    let mut rng = Rng(seed);
    let mut done = 0;
    while Instant::now() < until {
        let number = region * 1_000_000 + i64::try_from(done).unwrap();
        let (statements, cents) = transaction(&mut rng, number);
        let refused = |error: mysql_async::Error| {
            let known = matches!(&error, mysql_async::Error::Server(error)
                if [1062, 1205, 1213].contains(&error.code));
            assert!(known, "a client's statement was refused: {error}");
        };
        conn.query_drop("BEGIN").await.unwrap();
        let mut all = true;
        for sql in &statements {
            if let Err(error) = conn.query_drop(sql).await {
                refused(error);
                all = false;
                break;
            }
        }
        let commit = conn.query_drop(if all { "COMMIT" } else { "ROLLBACK" });
        commit.await.unwrap();
        if all {
            sum.fetch_add(cents, Ordering::Relaxed);
            done += 1;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    done
}

/// Per pair of transactions and table who won, as one region logged it.
type Winners = BTreeMap<(String, String, String, String), String>;

async fn winners(db: &Database) -> Winners {
    let mut conn = mysql_async::Conn::new(db.opts()).await.unwrap();
    let sql = "SELECT CAST(entry AS BINARY) FROM causeway.conflicts ORDER BY id";
    let rows: Vec<Vec<u8>> = conn.query(sql).await.unwrap();
    let mut found = Winners::new();
    for row in rows {
        let entry: serde_json::Value = serde_json::from_slice(&row).unwrap();
        let dot = |side: &str| format!("{}.{}", entry[side]["origin"], entry[side]["seq"]);
        let (incoming, existing) = (dot("incoming"), dot("existing"));
        let winner = match entry["winner"].as_str().unwrap() {
            "incoming" => incoming.clone(),
            "existing" => existing.clone(),
            both => both.to_owned(),
        };
        let (low, high) = match incoming < existing {
            true => (incoming, existing),
            false => (existing, incoming),
        };
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        // A transaction may meet another over several rows and values.
        let unique = text("kind") == "unique_key";
        let place = format!("{} {}", text("table"), if unique { "value" } else { "row" });
        let row = if unique { String::new() } else { entry["key"].to_string() };
        found.insert((place, row, low, high), winner);
    }
    found
}

async fn causeway(lab: &Lab, n: usize, arguments: &[&str]) -> (i32, String, String) {
    let (topology, conf) = lab.files(n);
    let output = tokio::process::Command::new(lab::agent::program())
        .arg("conflicts")
        .args(arguments)
        .arg("--topology")
        .arg(topology)
        .args(["--region", &lab.regions[n].name, "--conf"])
        .arg(conf)
        .env("CAUSEWAY_TOKEN", lab::agent::TOKEN)
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn entries(lab: &Lab) -> Vec<i64> {
    let mut counts = Vec::new();
    for region in &lab.regions {
        counts.push(region.db.number("SELECT COUNT(*) FROM causeway.conflicts").await);
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_policy_converges_and_all_logs_name_the_same_winners() {
    let mut lab = Lab::start_ruled(&[Flavour::MariaDb; 3], 64, (RULES, "")).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.start_agents().await;
    let mut rows = String::new();
    for id in 1..=100 {
        rows += &format!("INSERT INTO shop.stock VALUES ({id}, 10, 0);\n");
        rows += &format!("INSERT INTO shop.parts VALUES ({id}, 0, 0, 0);\n");
        rows += &format!("INSERT INTO shop.txn VALUES ({id}, 0);\n");
    }
    lab.regions[0].db.exec(&rows).await;
    lab.converge(&TABLES, PATIENCE).await;
    assert_eq!(entries(&lab).await, [0, 0, 0], "writes of one region are no conflict");

    let seconds = std::env::var("CAUSEWAY_CONFLICT_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(8);
    let until = Instant::now() + Duration::from_secs(seconds);
    let sum = Arc::new(AtomicI64::new(100 * 1_000));
    let mut writers = JoinSet::new();
    for (n, region) in (1..).zip(&lab.regions) {
        let seed = u64::try_from(n).unwrap() * 77;
        writers.spawn(write(region.db.opts(), (n, seed), until, Arc::clone(&sum)));
    }
    tokio::time::sleep(Duration::from_secs(seconds / 4)).await;
    lab.link(0, 1).cut();
    lab.link(1, 0).cut();
    tokio::time::sleep(Duration::from_secs(seconds / 3)).await;
    lab.link(0, 1).heal();
    lab.link(1, 0).heal();
    let mut written = 0;
    while let Some(done) = writers.join_next().await {
        written += done.unwrap();
    }
    lab.converge(&TABLES, PATIENCE).await;

    let total = lab.regions[2].db.number("SELECT CAST(SUM(n) * 100 AS SIGNED) FROM shop.stock");
    assert_eq!(total.await, sum.load(Ordering::Relaxed), "sums are kept");
    let mut logs = Vec::new();
    for region in &lab.regions {
        logs.push(winners(&region.db).await);
    }
    let mut told = BTreeSet::new();
    let mut shared = 0;
    for (n, log) in logs.iter().enumerate() {
        for (pair, winner) in log {
            told.insert(pair.0.clone());
            for other in logs[n + 1..].iter().filter_map(|other| other.get(pair)) {
                assert_eq!(other, winner, "{pair:?}");
                shared += 1;
            }
        }
    }
    assert!(shared > 100, "the logs have {shared} pairs in common");
    let sizes: Vec<_> = logs.iter().map(BTreeMap::len).collect();
    eprintln!("{written} transactions, conflicts logged {sizes:?}, of {told:?}");
    assert!(told.len() >= 8, "not every table had conflicts: {told:?}");
    commands(&lab).await;
}

/// By number and by age the oldest go, never one between others, and never the last.
async fn pruned(db: &Database) {
    let mut conn = mysql_async::Conn::new(db.opts()).await.unwrap();
    let mut keep = async |older_us: u64, newest: u64| {
        causeway::conflicts::prune(&mut conn, older_us, newest).await.unwrap();
        db.number("SELECT COUNT(*) FROM causeway.conflicts").await
    };
    let all = db.number("SELECT COUNT(*) FROM causeway.conflicts").await;
    assert_eq!(keep(0, u64::MAX).await, all);
    assert_eq!(keep(0, 200).await, 200);
    // One that looks old stands between others, as where a clock was set back.
    db.exec("UPDATE causeway.conflicts SET at_us = 5 ORDER BY id DESC LIMIT 51").await;
    db.exec("UPDATE causeway.conflicts SET at_us = 9 ORDER BY id DESC LIMIT 50").await;
    db.exec("UPDATE causeway.conflicts SET at_us = 1 ORDER BY id LIMIT 100").await;
    assert_eq!(keep(9, u64::MAX).await, 100);
}

/// The command line on these logs: whole, then a row taken back, then a log that someone
/// has altered.
async fn commands(lab: &Lab) {
    for n in 0..3 {
        let (code, out, err) = causeway(lab, n, &["verify"]).await;
        assert_eq!(code, 0, "{out}{err}");
    }
    let (code, out, err) =
        causeway(lab, 0, &["list", "--table", "shop.latest", "-o", "json"]).await;
    assert_eq!(code, 0, "{err}");
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let lost = listed.as_array().unwrap().iter().find(|entry| {
        let loser = if entry["entry"]["winner"] == "incoming" { "existing" } else { "incoming" };
        let held = &entry["entry"][loser];
        held["action"] != "delete" && held["after"].is_object()
    });
    let lost = lost.expect("a conflict whose loser was kept");
    let (id, key) = (lost["id"].to_string(), lost["entry"]["key"]["id"].to_string());
    // The session's settings are the command's own.
    let server = "SET GLOBAL time_zone = '+05:00';\nSET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES'";
    lab.regions[0].db.exec(server).await;
    let (code, _, err) = causeway(lab, 0, &["restore", &id]).await;
    assert_eq!(code, 64, "nobody can be asked: {err}");
    let (code, out, err) = causeway(lab, 0, &["restore", &id, "--yes"]).await;
    assert_eq!(code, 0, "{out}{err}");
    let loser = if lost["entry"]["winner"] == "incoming" { "existing" } else { "incoming" };
    let wanted = &lost["entry"][loser]["after"];
    lab.converge(&TABLES, PATIENCE).await;
    let w: String = wanted["w"].as_str().unwrap().bytes().map(|b| format!("{b:02X}")).collect();
    let sql = format!(
        "SELECT COUNT(*) FROM shop.latest WHERE id = {key} AND v = {} AND HEX(w) = '{w}' \
         AND at = CONVERT_TZ('{}', '+00:00', @@session.time_zone)",
        wanted["v"],
        wanted["at"].as_str().unwrap()
    );
    assert_eq!(lab.regions[2].db.number(&sql).await, 1, "restored everywhere: {wanted}");

    let (_, stats, _) = causeway(lab, 1, &["stats"]).await;
    assert!(stats.contains("shop.uniq") && stats.contains("region_priority"), "{stats}");
    let (_, lines, _) = causeway(lab, 1, &["export"]).await;
    let count = lab.regions[1].db.number("SELECT COUNT(*) FROM causeway.conflicts").await;
    assert_eq!(i64::try_from(lines.lines().count()).unwrap(), count);
    let db = &lab.regions[1].db;
    db.exec(
        "UPDATE causeway.conflicts SET entry = REPLACE(entry, 'region', 'Region') WHERE id = 3",
    )
    .await;
    let (code, out, _) = causeway(lab, 1, &["verify"]).await;
    assert!(code == 1 && out.contains("entry 3 was altered"), "{code}: {out}");
    db.exec("DELETE FROM causeway.conflicts WHERE id = 3").await;
    let (code, out, _) = causeway(lab, 1, &["verify"]).await;
    assert!(code == 1 && out.contains("entries 3 to 3 are missing"), "{code}: {out}");
    pruned(&lab.regions[2].db).await;
    let (code, out, _) = causeway(lab, 2, &["verify"]).await;
    assert!(code == 0 && out.contains("100 entries"), "{code}: {out}");
    let last = lab.regions[2].db.number("SELECT MAX(id) FROM causeway.conflicts").await;
    lab.regions[2].db.exec(&format!("DELETE FROM causeway.conflicts WHERE id = {last}")).await;
    let (code, out, _) = causeway(lab, 2, &["verify"]).await;
    assert!(code == 1 && out.contains("are missing"), "{code}: {out}");
}
