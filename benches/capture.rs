//! Capture alone: rows and bytes a second on one core, from a binlog file that a real
//! MariaDB has written. Table definitions come from that server; nothing is sent. The
//! results go into `benches/results.json`.
#![expect(clippy::unwrap_used, reason = "a benchmark, run by hand")]

#[expect(dead_code, reason = "each user uses a part of the harness")]
#[path = "../tests/lab/lab.rs"]
mod lab;
#[path = "replication/results.rs"]
mod results;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway::capture::{CaptureConfig, CaptureEvent, Source, read_file};
use causeway::change::Position;
use lab::db::{Database, Flavour, Settings};
use serde_json::{Value, json};

/// The program's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: u32 = 5;
/// sysbench's table, loaded in bulk and then written in small transactions.
const LOAD: &str = "CREATE DATABASE sbtest;\n\
    CREATE TABLE sbtest.sbtest1 (id INT AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL, \
    c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY (k));\n\
    SET GLOBAL sync_binlog = 0;\nSET GLOBAL innodb_flush_log_at_trx_commit = 0;\nFLUSH LOGS;\n\
    INSERT INTO sbtest.sbtest1 SELECT seq, seq, REPEAT('12345678901-', 10), \
    REPEAT('22195207048-', 5) FROM sbtest.seq_1_to_100000";
const SMALL: &str = "FLUSH LOGS;\nUSE sbtest;\nBEGIN NOT ATOMIC DECLARE n INT DEFAULT 1; \
    WHILE n <= 10000 DO START TRANSACTION; \
    UPDATE sbtest1 SET k = k + 1 WHERE id = n; \
    UPDATE sbtest1 SET c = REPEAT('98765432109-', 10) WHERE id = n + 20000; \
    DELETE FROM sbtest1 WHERE id = n + 40000; \
    INSERT INTO sbtest1 VALUES (n + 40000, n, REPEAT('12345678901-', 10), \
    REPEAT('22195207048-', 5)); COMMIT; SET n = n + 1; END WHILE; END";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo test --benches` asks for a quick pass without measuring.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let db = Database::start(&Settings::small(Flavour::MariaDb, 1)).await;
    db.exec(LOAD).await;
    let bulk = last_file(&db).await;
    db.exec(SMALL).await;
    let small = last_file(&db).await;
    let large = measure(&db, "one large transaction", bulk).await;
    let small = measure(&db, "small transactions", small).await;
    results::enter(
        "capture",
        json!({ "one_large_transaction": large, "small_transactions": small }),
    );
}

async fn last_file(db: &Database) -> Bytes {
    let names: Vec<mysql_async::Row> = db.rows("SHOW BINARY LOGS").await;
    let name: String = names.last().unwrap().get(0).unwrap();
    let folder: Vec<(String,)> = db.rows("SELECT @@datadir").await;
    std::fs::read(std::path::Path::new(&folder[0].0).join(name)).unwrap().into()
}

async fn measure(db: &Database, what: &str, file: Bytes) -> Value {
    let config = CaptureConfig {
        opts: db.opts(),
        server_id: 1,
        from: Position::default(),
        part_bytes: 1 << 20,
        rest_max: Duration::from_millis(50),
        files: None,
        replicates: Arc::new(|_, _| true),
    };
    let mut best = f64::MAX;
    let (mut rows, mut transactions) = (0, 0);
    for _ in 0..ROUNDS {
        (rows, transactions) = (0, 0);
        let start = Instant::now();
        read_file(&config, Source::MariaDb(Position::default()), file.clone(), &mut |event| {
            if let CaptureEvent::Changes { changes, last, .. } = black_box(event) {
                rows += changes.iter().map(|change| change.rows.len()).sum::<usize>();
                transactions += usize::from(last);
            }
        })
        .await
        .unwrap();
        best = best.min(start.elapsed().as_secs_f64());
    }
    let rate = |n: usize| (f64::from(u32::try_from(n).unwrap()) / best).round();
    let (rows_s, txns_s, mb_s) = (rate(rows), rate(transactions), rate(file.len()) / 1e6);
    say!("{what}: {rows_s} rows/s, {txns_s} transactions/s, {mb_s:.1} MB/s ({rows} rows)");
    json!({ "rows_per_s": rows_s, "transactions_per_s": txns_s, "mb_per_s": mb_s })
}
