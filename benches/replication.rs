//! `make bench`: Causeway against MariaDB's own replication, in one run, on the same
//! machine and data, at full durability (`sync_binlog=1`, flush at each commit).
//!
//! Results go to `benches/results.json` and, as a table, to stdout.
#![expect(clippy::unwrap_used, reason = "a benchmark, run by hand")]
#![expect(clippy::print_stdout, reason = "its table is its output")]

#[expect(dead_code, reason = "each user uses a part of the harness")]
#[path = "../tests/lab/lab.rs"]
mod lab;

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lab::db::{Database, Flavour, Settings};
use lab::region::Lab;
use lab::{compare, root, wait_until};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const TRANSACTIONS: u32 = 40_000;
const TABLES: u32 = 4;
const ROWS: u32 = 10_000;
const LAG_RATE: u32 = 500;
const LAG_SECONDS: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(600);
const POOL_MIB: u32 = 256;

#[tokio::main(worker_threads = 2)]
async fn main() {
    // `cargo test --benches` asks for a quick pass without measuring.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut lab = Lab::start_with(&[Flavour::MariaDb; 2], POOL_MIB, "").await;
    let mut replicas = Vec::new();
    for (n, threads) in [0_u8, 1, 4, 8].into_iter().enumerate() {
        let id = 10 + u8::try_from(n).unwrap();
        let mut settings = Settings::small(Flavour::MariaDb, id);
        settings.pool_mib = POOL_MIB;
        settings.more = vec![
            format!("--slave-parallel-threads={threads}"),
            "--slave-parallel-mode=optimistic".to_owned(),
            "--gtid-strict-mode=0".to_owned(),
        ];
        replicas.push((threads, Database::start(&settings).await));
    }
    eprintln!("bench: preparing {TABLES} tables of {ROWS} rows in each server");
    for database in lab.databases().into_iter().chain(replicas.iter().map(|(_, db)| db)) {
        prepare(database).await;
    }
    lab.start_agents().await;
    for (_, replica) in &replicas {
        follow(&lab.regions[0].db, replica).await;
    }

    let writers = writer_cost(&mut lab).await;
    let backlog = backlog(&lab).await;
    let ours = catch_up(&lab, backlog).await;
    let memory = lab.regions.iter_mut().map(|r| r.agent().proc.memory()).max().unwrap();
    let mut theirs = Vec::new();
    for (threads, replica) in &replicas {
        theirs.push((*threads, replica_catch_up(&lab, replica).await));
    }
    let tables: Vec<String> = (1..=TABLES).map(|n| format!("shop.sbtest{n}")).collect();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    lab.converge(&tables, PATIENCE).await;
    let all = [&lab.regions[0].db, &replicas[3].1];
    compare::converge(&all, &tables, PATIENCE).await;
    let our_lag = lag(&lab.regions[0].db, &lab.regions[1].db, "l1").await;
    for region in &mut lab.regions {
        region.agent().proc.kill();
    }
    replicas[0].1.exec("START SLAVE").await;
    let their_lag = lag(&lab.regions[0].db, &replicas[0].1, "l2").await;
    report(&writers, ours, &theirs, [&our_lag, &their_lag], memory);
}

fn sysbench(database: &Database, more: &[&str]) -> String {
    let (host, port) = database.address().split_once(':').map(own).unwrap();
    let done = Command::new("sysbench")
        .args(["oltp_write_only", "--db-driver=mysql", "--mysql-user=root", "--mysql-db=shop"])
        .args([format!("--mysql-host={host}"), format!("--mysql-port={port}")])
        .args([
            format!("--tables={TABLES}"),
            format!("--table-size={ROWS}"),
            "--rand-seed=1".into(),
        ])
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "sysbench: {text}");
    text
}

fn own((host, port): (&str, &str)) -> (String, String) {
    (host.to_owned(), port.to_owned())
}

async fn prepare(database: &Database) {
    database.exec("CREATE DATABASE shop").await;
    sysbench(database, &["--threads=1", "--auto-inc=off", "prepare"]);
    for table in ["l1", "l2"] {
        database.exec(&format!("CREATE TABLE shop.{table} (id INT PRIMARY KEY, at BIGINT)")).await;
    }
    database.exec("RESET MASTER").await;
}

/// Tells a replica its source; it starts when it is measured, not to be in the way.
async fn follow(source: &Database, replica: &Database) {
    let (host, port) = source.address().split_once(':').map(own).unwrap();
    replica
        .exec(&format!(
            "SET GLOBAL gtid_slave_pos = '';\nCHANGE MASTER TO MASTER_HOST = '{host}', \
             MASTER_PORT = {port}, MASTER_USER = 'root', MASTER_USE_GTID = slave_pos;\n"
        ))
        .await;
}

fn rate(text: &str) -> f64 {
    let line = text.lines().find(|line| line.contains("transactions:")).unwrap();
    let rate = line.split('(').nth(1).unwrap().split(' ').next().unwrap();
    rate.parse().unwrap()
}

/// Transactions a second of local writers, without and with the agents.
async fn writer_cost(lab: &mut Lab) -> [f64; 2] {
    eprintln!("bench: local writers without and with the agents");
    let run = ["--threads=4", "--time=10", "--auto-inc=off", "--skip-trx=off", "run"];
    let with = rate(&sysbench(&lab.regions[0].db, &run));
    wait_until("the writers' rows have arrived", PATIENCE, || async { behind(lab).await == 0 })
        .await;
    for region in &mut lab.regions {
        region.agent().proc.kill();
    }
    let without = rate(&sysbench(&lab.regions[0].db, &run));
    for region in &mut lab.regions {
        region.agent().proc.again();
        region.agent().ready().await;
    }
    wait_until("the writers' rows have arrived", PATIENCE, || async { behind(lab).await == 0 })
        .await;
    [without, with]
}

async fn status(lab: &Lab, n: usize) -> Value {
    let answer = lab.regions[n].agent.as_ref().unwrap().get("/status").await;
    answer.map_or(Value::Null, |(_, body)| serde_json::from_str(&body).unwrap_or(Value::Null))
}

async fn acked(lab: &Lab) -> i64 {
    status(lab, 0).await["outbox"]["acked_seq"].as_i64().unwrap_or(-1)
}

async fn applied(lab: &Lab) -> i64 {
    let sql = "SELECT CAST(COALESCE(MAX(seq), 0) AS SIGNED) FROM causeway.applied WHERE origin = 1";
    lab.regions[1].db.number(sql).await
}

async fn behind(lab: &Lab) -> i64 {
    let acked = acked(lab).await;
    if acked < 0 { i64::MAX } else { acked - applied(lab).await }
}

/// Writes the backlog while the stream is paused and waits until it is in the inbox.
async fn backlog(lab: &Lab) -> i64 {
    eprintln!("bench: writing a backlog of {TRANSACTIONS} transactions");
    let agent = lab.regions[1].agent.as_ref().unwrap();
    agent.post("/streams/r1/pause").await;
    wait_until("the stream is paused", PATIENCE, || async {
        status(lab, 1).await["streams"]["r1"]["state"] == "paused"
    })
    .await;
    let events = format!("--events={TRANSACTIONS}");
    sysbench(&lab.regions[0].db, &["--threads=4", "--time=0", "--auto-inc=off", &events, "run"]);
    wait_until("the backlog is in the inbox", PATIENCE, || async {
        let at = acked(lab).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let copied = status(lab, 1).await["streams"]["r1"]["link"]["backlog"] == 0;
        copied && acked(lab).await == at
    })
    .await;
    acked(lab).await - applied(lab).await
}

/// Transactions a second.
async fn catch_up(lab: &Lab, backlog: i64) -> f64 {
    eprintln!("bench: Causeway catches up {backlog} transactions");
    let through = acked(lab).await;
    let agent = lab.regions[1].agent.as_ref().unwrap();
    let start = Instant::now();
    agent.post("/streams/r1/resume").await;
    wait_until("it has caught up", PATIENCE, || async { applied(lab).await >= through }).await;
    per_second(backlog, start.elapsed())
}

fn per_second(count: i64, time: Duration) -> f64 {
    f64::from(i32::try_from(count).unwrap()) / time.as_secs_f64()
}

/// Transactions a second of MariaDB's own replication over the same binlog.
async fn replica_catch_up(lab: &Lab, replica: &Database) -> f64 {
    let source = &lab.regions[0].db;
    let end: Vec<(String,)> = source.rows("SELECT @@gtid_binlog_pos").await;
    let end = &end[0].0;
    replica.exec("START SLAVE IO_THREAD").await;
    let count: i64 = end.rsplit('-').next().unwrap().parse().unwrap();
    wait_until("the relay log is complete", PATIENCE, || async {
        let at: Vec<mysql_async::Row> = replica.rows("SHOW SLAVE STATUS").await;
        at[0].get::<String, _>("Gtid_IO_Pos").is_some_and(|at| at == *end)
    })
    .await;
    let start = Instant::now();
    replica.exec("START SLAVE SQL_THREAD").await;
    let mut conn = replica.conn().await;
    let wait = format!("SELECT MASTER_GTID_WAIT('{end}', 600)");
    let done: Option<i64> = conn.query_first(wait).await.unwrap();
    assert_eq!(done, Some(0), "the replica has not caught up");
    let rate = per_second(count, start.elapsed());
    eprintln!("bench: MariaDB's own, {count} transactions: {rate:.0}/s");
    replica.exec("STOP SLAVE").await;
    rate
}

/// Commit to visible, microseconds, at a steady rate.
async fn lag(source: &Database, target: &Database, table: &'static str) -> Histogram<u64> {
    let count = LAG_RATE * LAG_SECONDS;
    eprintln!("bench: lag at {LAG_RATE} transactions a second for {LAG_SECONDS} s");
    let zero = Instant::now();
    let commits = Arc::new(Mutex::new(vec![None; usize::try_from(count).unwrap() + 1]));
    let mut writers = JoinSet::new();
    // Several writers, so that a slow flush does not hold up the rate.
    for writer in 0..4 {
        let (opts, commits) = (source.opts(), commits.clone());
        writers.spawn(async move {
            let mut conn = Conn::new(opts).await.unwrap();
            for id in (1..=count).filter(|id| id % 4 == writer) {
                let due =
                    zero + Duration::from_millis(500) + Duration::from_secs(1) * id / LAG_RATE;
                tokio::time::sleep_until(due.into()).await;
                conn.query_drop(format!("INSERT INTO shop.{table} VALUES ({id}, 0)"))
                    .await
                    .unwrap();
                commits.lock().unwrap()[usize::try_from(id).unwrap()] = Some(Instant::now());
            }
        });
    }
    let mut seen = vec![None; usize::try_from(count).unwrap() + 1];
    let mut conn = target.conn().await;
    let (mut found, mut low) = (0, 0_u32);
    while found < count {
        let sql = format!("SELECT id FROM shop.{table} WHERE id > {low}");
        let ids: Vec<u32> = conn.query(sql).await.unwrap();
        let now = Instant::now();
        for id in ids {
            let slot = &mut seen[usize::try_from(id).unwrap()];
            if slot.is_none() {
                *slot = Some(now);
                found += 1;
            }
        }
        while seen.get(usize::try_from(low).unwrap() + 1).is_some_and(Option::is_some) {
            low += 1;
        }
        assert!(zero.elapsed() < PATIENCE, "{found} of {count} rows arrived");
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let mut histogram = Histogram::new(3).unwrap();
    for (commit, seen) in commits.lock().unwrap().iter().zip(&seen).skip(1) {
        let lag = seen.unwrap().saturating_duration_since(commit.unwrap());
        histogram.record(u64::try_from(lag.as_micros()).unwrap().max(1)).unwrap();
    }
    histogram
}

fn percentiles(histogram: &Histogram<u64>) -> Value {
    let at = |q| histogram.value_at_quantile(q);
    json!({ "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": histogram.max() })
}

fn report(
    writers: &[f64; 2],
    ours: f64,
    theirs: &[(u8, f64)],
    lags: [&Histogram<u64>; 2],
    memory: u64,
) {
    let best = theirs.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let machine = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = machine.lines().find_map(|l| l.strip_prefix("model name\t: ")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = Command::new("date").args(["-u", "+%F"]).output().unwrap();
    let threads: serde_json::Map<String, Value> =
        theirs.iter().map(|(n, rate)| (format!("{n}_threads"), json!(rate.round()))).collect();
    let results = json!({
        "date": String::from_utf8_lossy(&date.stdout).trim(),
        "cpu": cpu,
        "cores": cores,
        "catch_up_transactions_per_s": { "causeway": ours.round(), "mariadb": threads },
        "catch_up_times_the_best_of_mariadb": (ours / best * 100.0).round() / 100.0,
        "lag": { "causeway": percentiles(lags[0]), "mariadb": percentiles(lags[1]) },
        "agent_memory_bytes": memory,
        "local_writers_transactions_per_s": {
            "without_agents": writers[0], "with_agents": writers[1],
        },
    });
    let text = serde_json::to_string_pretty(&results).unwrap();
    std::fs::write(root().join("benches/results.json"), format!("{text}\n")).unwrap();
    println!("{text}");
}
