//! Catching up a backlog: Causeway from its inbox, against MariaDB's own parallel
//! replication from its relay log.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use serde_json::{Map, Value, json};

use crate::lab::db::Database;
use crate::lab::{compare, wait_until};
use crate::load::{self, Rows};
use crate::say;
use crate::site::{PATIENCE, Site, applied, applied_seq, cpu_s};

const TRANSACTIONS: u32 = 40_000;

/// A replica on a slow disk is not waited for longer.
const MARIADB_MAX: Duration = Duration::from_secs(45);

/// The headline: sysbench as it is, against each number of threads.
pub(crate) async fn measure(site: &Site) -> Value {
    let ours = causeway(site, TRANSACTIONS, Rows::Special, 1).await;
    let mut theirs = Map::new();
    let mut best: f64 = 0.0;
    for (threads, replica) in &site.replicas {
        let rate = mariadb(site, replica).await;
        say!("MariaDB's own with {threads} threads: {rate:.0} transactions/s");
        best = best.max(rate);
        theirs.insert(format!("{threads}_threads"), json!(rate.round()));
    }
    let times = (ours / best * 100.0).round() / 100.0;
    say!("Causeway is {times} times as fast as the best of them");
    equal(site, &site.replicas[0].1).await;
    json!({
        "transactions": TRANSACTIONS,
        "causeway_transactions_per_s": ours.round(),
        "mariadb_transactions_per_s": theirs,
        "times_the_best_of_mariadb": times,
    })
}

/// Writes a backlog while the stream is paused, then measures how fast it is applied.
pub(crate) async fn causeway(site: &Site, transactions: u32, rows: Rows, seed: u32) -> f64 {
    site.pause(1, true).await;
    load::write(site.source(), transactions, rows, seed).await;
    let through = site.shipped(0).await;
    resume(site, through).await
}

/// Resumes the stream and measures until it has applied `through`; transactions/s.
pub(crate) async fn resume(site: &Site, through: i64) -> f64 {
    let mut conn = site.target().conn().await;
    let backlog = through - applied_seq(&mut conn, 1).await;
    drop(conn);
    let processes = [
        ("agent", site.lab.regions[1].agent.as_ref().unwrap().proc.pid()),
        ("database", site.lab.regions[1].db.proc.pid()),
        ("Kafka", site.lab.regions[1].kafka.proc.pid()),
    ];
    let before = processes.map(|(_, pid)| cpu_s(pid));
    let start = Instant::now();
    site.pause(1, false).await;
    applied(site.target(), 1, through).await;
    let took = start.elapsed();
    let rate = per_second(backlog, took);
    say!("Causeway: {backlog} transactions in {took:.2?}, {rate:.0}/s");
    for ((name, pid), before) in processes.iter().zip(before) {
        say!("  {name}: {:.2} processor seconds", cpu_s(*pid) - before);
    }
    rate
}

pub(crate) fn per_second(count: i64, time: Duration) -> f64 {
    f64::from(i32::try_from(count).unwrap()) / time.as_secs_f64()
}

async fn position(database: &Database, name: &str) -> (String, i64) {
    let at: Vec<(String,)> = database.rows(&format!("SELECT @@global.{name}")).await;
    own(&at[0].0)
}

/// The position in the source's own domain, and its number.
fn own(at: &str) -> (String, i64) {
    let own = at.split(',').find(|gtid| gtid.starts_with("1-")).unwrap_or("1-1-0");
    (own.to_owned(), own.rsplit('-').next().unwrap().parse().unwrap())
}

/// Starts to read the source's binlog; waits until the relay log has that number of it.
async fn relay(replica: &Database, last: i64) {
    replica.exec("START SLAVE IO_THREAD").await;
    wait_until("the relay log is complete", PATIENCE, || async {
        let at: Vec<mysql_async::Row> = replica.rows("SHOW SLAVE STATUS").await;
        // The agents go on writing: the end may be passed between two looks.
        at[0].get::<String, _>("Gtid_IO_Pos").is_some_and(|at| own(&at).1 >= last)
    })
    .await;
}

/// Reads all of the source's binlog, and goes on reading.
pub(crate) async fn relay_all(site: &Site, replica: &Database) {
    let (_, last) = position(site.source(), "gtid_binlog_pos").await;
    relay(replica, last).await;
}

/// Transactions a second of MariaDB's own replication over the same binlog, once all
/// of it is in the relay log.
pub(crate) async fn mariadb(site: &Site, replica: &Database) -> f64 {
    let (end, last) = position(site.source(), "gtid_binlog_pos").await;
    let (_, first) = position(replica, "gtid_slave_pos").await;
    relay(replica, last).await;
    let mut conn = replica.conn().await;
    let start = Instant::now();
    replica.exec("START SLAVE SQL_THREAD").await;
    let wait = format!("SELECT MASTER_GTID_WAIT('{end}', {})", MARIADB_MAX.as_secs());
    let done: Option<i64> = conn.query_first(wait).await.unwrap();
    let took = start.elapsed();
    let (_, reached) = position(replica, "gtid_slave_pos").await;
    if done != Some(0) {
        say!("not caught up in {took:.1?}, {reached} of {last}: its rate until there counts");
    }
    let rate = per_second(reached - first, took);
    replica.exec("STOP SLAVE").await;
    rate
}

/// Both regions and that replica hold the same rows.
pub(crate) async fn equal(site: &Site, replica: &Database) {
    say!("comparing the rows of both regions and a replica");
    let tables = load::tables();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    compare::converge(&[site.source(), site.target(), replica], &tables, PATIENCE).await;
}
