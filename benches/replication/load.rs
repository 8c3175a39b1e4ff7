//! The load: sysbench's `oltp_write_only`.

use std::process::{Command, Stdio};

use crate::lab::db::Database;
use crate::say;

/// Tables, and rows in each.
pub(crate) const TABLES: u32 = 4;
pub(crate) const ROWS: u32 = 10_000;

/// How sysbench chooses rows. `Special` is what it does unasked: three of four picks
/// fall on one row in a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    Special,
    Uniform,
}

pub(crate) fn own((host, port): (&str, &str)) -> (String, String) {
    (host.to_owned(), port.to_owned())
}

/// The names of its tables.
pub(crate) fn tables() -> Vec<String> {
    (1..=TABLES).map(|n| format!("shop.sbtest{n}")).collect()
}

/// Creates the tables, outside the binlog that is measured.
pub(crate) async fn prepare(database: &Database) {
    database.exec("CREATE DATABASE shop").await;
    sysbench(database, &["--threads=1", "--auto-inc=off", "prepare"]).await;
    // sysbench fills each server with other values, whatever its seed.
    for table in tables() {
        let same = "k = 1 + MOD(id * 7919, 10000), c = LEFT(SHA2(id, 512), 119), \
                    pad = LEFT(SHA2(id, 256), 59)";
        database.exec(&format!("UPDATE {table} SET {same}")).await;
    }
    for table in ["l1", "l2"] {
        database.exec(&format!("CREATE TABLE shop.{table} (id INT PRIMARY KEY, at BIGINT)")).await;
    }
    database
        .exec(
            "CREATE TABLE shop.hot (id INT PRIMARY KEY, n INT NOT NULL);\n\
             INSERT INTO shop.hot VALUES (1, 0);\n\
             CREATE TABLE shop.huge (id INT PRIMARY KEY, c CHAR(120) NOT NULL);\n\
             RESET MASTER",
        )
        .await;
}

/// How durable a server's commits are.
async fn durable(database: &Database, yes: bool) {
    let n = u8::from(yes);
    database
        .exec(&format!(
            "SET GLOBAL sync_binlog = {n};\nSET GLOBAL innodb_flush_log_at_trx_commit = {n}"
        ))
        .await;
}

/// Runs `transactions` of them. The source need not be durable while it writes what
/// others are measured with.
pub(crate) async fn write(database: &Database, transactions: u32, rows: Rows, seed: u32) {
    let events = format!("--events={transactions}");
    let kind = if rows == Rows::Special { "special" } else { "uniform" };
    let (kind, seed) = (format!("--rand-type={kind}"), format!("--rand-seed={seed}"));
    let run = ["--threads=4", "--time=0", "--auto-inc=off", &events, &kind, &seed, "run"];
    durable(database, false).await;
    let text = sysbench(database, &run).await;
    durable(database, true).await;
    say!("{transactions} transactions written, {:.0}/s", rate(&text));
}

/// Runs sysbench and gives what it prints.
pub(crate) async fn sysbench(database: &Database, more: &[&str]) -> String {
    let (host, port) = database.address().split_once(':').map(own).unwrap();
    let mut command = Command::new("timeout");
    command
        .args(["200", "sysbench", "oltp_write_only", "--db-driver=mysql", "--mysql-user=root"])
        .args(["--mysql-db=shop".to_owned(), format!("--mysql-host={host}")])
        .args([format!("--mysql-port={port}"), format!("--tables={TABLES}")])
        .arg(format!("--table-size={ROWS}"))
        .args(more)
        .stderr(Stdio::inherit());
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "sysbench: {text}");
    text
}

/// Transactions a second in what sysbench prints.
pub(crate) fn rate(text: &str) -> f64 {
    let line = text.lines().find(|line| line.contains("transactions:")).unwrap();
    line.split('(').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// The 95th percentile of a transaction's time in what sysbench prints, ms.
pub(crate) fn p95_ms(text: &str) -> f64 {
    time_ms(text, "95th percentile:")
}

/// The mean of a transaction's time in what sysbench prints, ms.
pub(crate) fn mean_ms(text: &str) -> f64 {
    time_ms(text, "avg:")
}

fn time_ms(text: &str, which: &str) -> f64 {
    let line = text.lines().find(|line| line.contains(which)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
