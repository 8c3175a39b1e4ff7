//! `cargo run --example verify [ROWS]`: how long a comparison of three regions
//! takes, each with a table of 5,000,000 rows, while writers go on; then the same with
//! planted differences, which must all be found, and nothing else.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]

#[expect(dead_code, reason = "each user uses a part of the harness")]
#[path = "../tests/lab/lab.rs"]
mod lab;

use std::process::Command;
use std::time::{Duration, Instant};

use causeway::compare::Report;
use futures_util::future::join_all;
use lab::agent::program;
use lab::db::{Database, Flavour};
use lab::load::Dice;
use lab::region::Lab;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const POOL_MIB: u32 = 1_024;

/// What is planted, by region: one changed value, a missing row, an extra row, two rows
/// changed by the same amount, a changed trailing blank.
const PLANTED: [(usize, &str, &str); 6] = [
    (1, "UPDATE shop.pay SET amount = amount + 0.01 WHERE id = 7", "policy_violated 7 amount"),
    (2, "DELETE FROM shop.pay WHERE id = 8", "lost 8 "),
    (
        0,
        "INSERT INTO shop.pay SELECT 0, account, amount, currency, note, at FROM shop.pay WHERE id = 1",
        "extra 0 ",
    ),
    (2, "UPDATE shop.pay SET amount = amount + 5 WHERE id = 20", "policy_violated 20 amount"),
    (2, "UPDATE shop.pay SET amount = amount - 5 WHERE id = 21", "policy_violated 21 amount"),
    (1, "UPDATE shop.pay SET note = CONCAT(note, ' ') WHERE id = 41", "policy_violated 41 note"),
];

#[tokio::main(worker_threads = 2)]
async fn main() {
    let rows = std::env::args().nth(1).map_or(5_000_000, |text| text.parse().unwrap());
    let mut lab = Lab::start_with(&[Flavour::MariaDb; 3], POOL_MIB, "").await;
    let began = Instant::now();
    join_all(lab.regions.iter().map(|region| fill(&region.db, rows))).await;
    println!("{rows} rows in each region, filled in {:.0} s", began.elapsed().as_secs_f64());
    lab.start_agents().await;
    let (stop, mut writers) = (CancellationToken::new(), JoinSet::new());
    for (n, region) in lab.regions.iter().enumerate() {
        writers.spawn(write(region.db.opts(), n, rows, stop.clone()));
    }
    let nothing = verify(&lab);
    assert_eq!(nothing, Vec::<String>::new(), "nothing was planted");
    for (region, sql, _) in PLANTED {
        let sql = format!("SET SESSION sql_log_bin = 0;\n{sql}");
        lab.regions[region].db.exec(&sql).await;
    }
    let mut found = verify(&lab);
    let mut planted: Vec<_> = PLANTED.iter().map(|(.., what)| (*what).to_owned()).collect();
    found.sort();
    planted.sort();
    assert_eq!(found, planted);
    println!("found what was planted, and nothing else:\n  {}", found.join("\n  "));
    stop.cancel();
    let mut written = 0;
    while let Some(done) = writers.join_next().await {
        written += done.unwrap();
    }
    println!("{written} updates were written meanwhile");
}

async fn fill(database: &Database, rows: u64) {
    database
        .exec(&format!(
            "SET SESSION sql_log_bin = 0;\nSET GLOBAL innodb_flush_log_at_trx_commit = 0;\n\
             CREATE DATABASE shop;\nCREATE TABLE shop.pay (id BIGINT NOT NULL PRIMARY KEY, \
             account INT NOT NULL, amount DECIMAL(12,2) NOT NULL, currency CHAR(3) NOT NULL, \
             note VARCHAR(64), at DATETIME(6) NOT NULL) ENGINE=InnoDB;\n\
             INSERT INTO shop.pay SELECT seq, seq * 7919 % 100003, (seq * 31 % 1000000) / 100, \
             ELT(1 + seq % 3, 'EUR', 'USD', 'GBP'), IF(seq % 10 = 0, NULL, CONCAT('payment ', seq, \
             ' für ', seq * 13 % 9973)), '2026-01-01' + INTERVAL seq * 1000 MICROSECOND \
             FROM shop.seq_1_to_{rows};\n\
             SET GLOBAL innodb_flush_log_at_trx_commit = 1;\n"
        ))
        .await;
}

/// Up to a hundred updates a second all over the table.
async fn write(opts: mysql_async::Opts, n: usize, rows: u64, stop: CancellationToken) -> u64 {
    let mut conn = Conn::new(opts).await.unwrap();
    let mut dice = Dice::new(n as u64 + 1);
    let mut written = 0;
    while !stop.is_cancelled() {
        let (id, amount) = (100 + dice.below(rows - 100), dice.below(100_000));
        conn.query_drop(format!("UPDATE shop.pay SET amount = {amount} WHERE id = {id}"))
            .await
            .unwrap();
        written += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    written
}

/// Runs the program; gives what differs.
fn verify(lab: &Lab) -> Vec<String> {
    let region = &lab.regions[0];
    let folder = region.topology.parent().unwrap();
    let conf = folder.join(format!("{}.conf.yaml", region.name));
    let began = Instant::now();
    let output = tokio::task::block_in_place(|| {
        Command::new(program())
            .args(["verify", "-o", "json", "--region", &region.name])
            .args(["--topology".as_ref(), region.topology.as_os_str()])
            .args(["--conf".as_ref(), conf.as_os_str()])
            .output()
            .unwrap()
    });
    let took = began.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Report = serde_json::from_str(&text).unwrap();
    let table = &report.tables[0];
    println!(
        "causeway verify: {} rows of 3 regions in {:.1} s, {} in flight, exit {}",
        table.rows,
        took.as_secs_f64(),
        table.in_flight,
        output.status
    );
    let shown = table.differences.iter().map(|difference| {
        let (class, key) = (difference.class.name(), &difference.key[0].1);
        format!("{class} {key} {}", difference.columns.join(","))
    });
    shown.collect()
}
