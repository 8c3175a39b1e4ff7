//! From commit to visible at the peer, at a steady rate.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::catch_up;
use crate::lab::db::Database;
use crate::say;
use crate::site::{PATIENCE, Site};

const RATE: u32 = 500;
const SECONDS: u32 = 20;
/// Several writers, so that a slow flush does not hold up the rate.
const WRITERS: u32 = 4;

/// Causeway's, then MariaDB's own with the agents still running.
pub(crate) async fn measure(site: &Site) -> Value {
    let ours = percentiles("Causeway", &lag(site.source(), site.target(), "l1").await);
    let replica = &site.replicas[0].1;
    // It catches up first.
    catch_up::mariadb(site, replica).await;
    replica.exec("START SLAVE").await;
    let theirs = percentiles("MariaDB's own", &lag(site.source(), replica, "l2").await);
    replica.exec("STOP SLAVE").await;
    json!({ "transactions_per_s": RATE, "seconds": SECONDS, "causeway": ours, "mariadb": theirs })
}

fn percentiles(who: &str, histogram: &Histogram<u64>) -> Value {
    let at = |q| histogram.value_at_quantile(q);
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(at);
    say!("{who}: lag p50 {p50} µs, p99 {p99} µs, p99.9 {p999} µs, max {} µs", histogram.max());
    json!({ "p50_us": p50, "p99_us": p99, "p999_us": p999, "max_us": histogram.max() })
}

type Commits = Arc<Mutex<Vec<Option<Instant>>>>;

/// Commit to visible, microseconds.
async fn lag(source: &Database, target: &Database, table: &'static str) -> Histogram<u64> {
    let count = RATE * SECONDS;
    say!("lag at {RATE} transactions/s for {SECONDS} s");
    let commits: Commits = Arc::new(Mutex::new(vec![None; usize::try_from(count).unwrap() + 1]));
    let mut writers = JoinSet::new();
    let zero = Instant::now() + Duration::from_millis(500);
    for writer in 0..WRITERS {
        let conn = source.conn().await;
        writers.spawn(write(conn, table, (zero, count, writer), Arc::clone(&commits)));
    }
    let seen = watch(target, table, count).await;
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

async fn write(
    mut conn: Conn,
    table: &str,
    (zero, count, writer): (Instant, u32, u32),
    commits: Commits,
) {
    for id in (1..=count).filter(|id| id % WRITERS == writer) {
        tokio::time::sleep_until((zero + Duration::from_secs(1) * id / RATE).into()).await;
        conn.query_drop(format!("INSERT INTO shop.{table} VALUES ({id}, 0)")).await.unwrap();
        commits.lock().unwrap()[usize::try_from(id).unwrap()] = Some(Instant::now());
    }
}

/// When each row was first seen.
async fn watch(target: &Database, table: &str, count: u32) -> Vec<Option<Instant>> {
    let mut seen = vec![None; usize::try_from(count).unwrap() + 1];
    let mut conn = target.conn().await;
    let (mut found, mut low, mut told) = (0, 0_u32, Instant::now());
    let start = Instant::now();
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
        if told.elapsed() > Duration::from_secs(5) {
            told = now;
            say!("  {found} of {count} rows seen");
        }
        assert!(start.elapsed() < PATIENCE, "{found} of {count} rows arrived");
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    seen
}
