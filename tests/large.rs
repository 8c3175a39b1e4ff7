//! Transactions larger than a record, between two regions: their parts count as one, and
//! hold no lock while the rest is under way.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::time::Duration;

use lab::db::Flavour;
use lab::proc::Folder;
use lab::region::Lab;
use lab::{PATIENCE, wait_until};
use mysql_async::prelude::Queryable as _;
use serde_json::Value as Json;

const RULES: &str = "  - tables: shop.stock\n    policy: delta\n    delta_columns: [n]\n  \
                     - tables: shop.pair*\n    on_conflict: transaction\n  \
                     - tables: shop.*\n    policy: latest\n";

/// Small enough that each of the statements below is several parts.
const LIMITS: &str = "  record_bytes: 16KiB\n";

const SCHEMA: &str = "CREATE DATABASE shop;
CREATE TABLE shop.stock (id INT NOT NULL PRIMARY KEY, v VARCHAR(60) NOT NULL,
  n INT NOT NULL) ENGINE=InnoDB;
CREATE TABLE shop.plain (id INT NOT NULL PRIMARY KEY, v VARCHAR(60) NOT NULL) ENGINE=InnoDB;
CREATE TABLE shop.pair_a LIKE shop.plain;
CREATE TABLE shop.pair_b LIKE shop.plain;
CREATE TABLE shop.named (id INT NOT NULL PRIMARY KEY, v VARCHAR(60) NOT NULL,
  name INT NOT NULL, UNIQUE KEY (name)) ENGINE=InnoDB;
CREATE TABLE shop.wide (id INT NOT NULL PRIMARY KEY, name INT NOT NULL, v MEDIUMTEXT NOT NULL,
  UNIQUE KEY (name)) ENGINE=InnoDB;
";

const TABLES: [&str; 6] =
    ["shop.stock", "shop.plain", "shop.pair_a", "shop.pair_b", "shop.named", "shop.wide"];

/// In one transaction.
async fn together(lab: &Lab, region: usize, statements: &[&str]) {
    let mut conn = lab.regions[region].db.conn().await;
    for sql in [&["BEGIN"], statements, &["COMMIT"]].concat() {
        conn.query_drop(sql).await.unwrap();
    }
    conn.disconnect().await.unwrap();
}

/// The links heal, and so many rows come to the second region.
async fn come(lab: &Lab, rows: &str, count: i64) {
    lab.heal();
    let sql = format!("SELECT COUNT(*) FROM {rows}");
    wait_until(&sql, PATIENCE, || async { lab.regions[1].db.number(&sql).await == count }).await;
    lab.converge(&TABLES, PATIENCE).await;
}

/// Each row is written in several parts, and by another region meanwhile.
async fn parts_are_one_write(lab: &Lab) {
    lab.cut();
    let there = [
        "UPDATE shop.stock SET v = 'u' WHERE id = 5",
        "DELETE FROM shop.stock WHERE id = 6",
        "UPDATE shop.stock SET n = n + 5 WHERE id = 8",
    ];
    together(lab, 1, &there).await;
    together(lab, 1, &["UPDATE shop.plain SET v = 'u' WHERE id = 7"]).await;
    // Stamps of MariaDB are known by the second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let sum = "UPDATE shop.stock SET n = n + 1";
    let words = "UPDATE shop.stock SET v = REPEAT('x', 40)";
    let away = "DELETE FROM shop.stock WHERE id = 8";
    let back = "INSERT INTO shop.stock VALUES (8, 'x', 20)";
    together(lab, 0, &[away, words, sum, sum, "UPDATE shop.plain SET v = 'x'", back]).await;
    come(lab, "shop.plain WHERE v = 'x'", 1_000).await;
    let db = &lab.regions[1].db;
    // The later write stands, whichever of its parts said so.
    assert_eq!(db.rows::<String>("SELECT DISTINCT LEFT(v, 1) FROM shop.stock").await, ["x"]);
    // Above the delete stand the sums of all parts.
    assert_eq!(db.number("SELECT n FROM shop.stock WHERE id = 6").await, 2);
    // A row that one part takes away and a later one puts back has changed.
    assert_eq!(db.number("SELECT n FROM shop.stock WHERE id = 8").await, 25);
    assert_eq!(db.number("SELECT SUM(n) FROM shop.stock").await, 998 * 12 + 2 + 25);
    let (code, out, err) = lab.conflicts(1, &["export", "--table", "shop.plain"]).await;
    assert_eq!(code, 0, "{err}");
    let told: Vec<Json> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.len(), 1, "{out}");
    assert_eq!(told[0]["entry"]["existing"]["after"]["v"], "u", "what was overwritten: {out}");
}

/// What stands or falls together does so whatever parts it comes in: rows of one transaction
/// under `on_conflict: transaction`, rows that change keys, and unique values that go from row
/// to row.
async fn parts_stand_or_fall_as_one(lab: &Lab) {
    lab.cut();
    let name =
        |from: &str, to: &str| format!("UPDATE shop.named SET name = {to} WHERE id = {from}");
    let (first, second) = (name("1", "2"), name("1000", "1"));
    let here = [
        "UPDATE shop.pair_a SET v = REPEAT('x', 40)",
        "UPDATE shop.pair_b SET v = REPEAT('x', 40)",
        &name("2", "5000"),
        &first,
        "UPDATE shop.plain SET id = 7001 WHERE id = 1",
        "UPDATE shop.named SET v = REPEAT('x', 40)",
        "UPDATE shop.plain SET id = 7002 WHERE id = 1000",
        &second,
    ];
    together(lab, 0, &here).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let there = [
        "UPDATE shop.pair_b SET v = 'u' WHERE id = 900",
        "UPDATE shop.plain SET v = 'u' WHERE id = 1000",
    ];
    together(lab, 1, &there).await;
    come(lab, "shop.named WHERE name = 5000", 1).await;
    let db = &lab.regions[0].db;
    let pairs = "SELECT COUNT(*) FROM (SELECT v FROM shop.pair_a UNION ALL \
                 SELECT v FROM shop.pair_b) t WHERE v LIKE 'x%'";
    assert_eq!(db.number(pairs).await, 0, "one row of it had lost");
    assert_eq!(db.number("SELECT COUNT(*) FROM shop.plain WHERE id > 7000").await, 0);
    assert_eq!(db.number("SELECT COUNT(*) FROM shop.plain").await, 1_000);
    let names = "SELECT name FROM shop.named WHERE id IN (1, 2, 1000) ORDER BY id";
    assert_eq!(db.rows::<i64>(names).await, [2, 5_000, 1]);
}

/// 20 MB of rows that have to be judged as a whole: who captures them and who applies them
/// say so.
async fn much_that_is_held_is_told(lab: &mut Lab) {
    let rows = "SELECT seq, seq, REPEAT('x', 100000) FROM shop.seq_1_to_200";
    lab.regions[0].db.write(&format!("INSERT INTO shop.wide {rows}")).await;
    lab.converge(&TABLES, PATIENCE).await;
    for region in &mut lab.regions {
        let told = region.agent().proc.tail();
        let held = |line: &str| line.contains("held in memory") && line.contains("gtid=");
        assert!(told.lines().any(held), "{told}");
    }
}

/// Who ships it stops between two parts, and dies: clients elsewhere are not kept from its
/// rows.
async fn nobody_waits_for_a_part(lab: &mut Lab) {
    let folder = Folder::new("failpoint");
    let file = folder.path().join("between");
    let proc = &mut lab.regions[0].agent().proc;
    proc.kill();
    proc.set_env("CAUSEWAY_FAILPOINT", Some(&format!("outbox.part_sent:2@{}", file.display())));
    proc.again();
    lab.regions[0].agent().ready().await;
    together(lab, 0, &["UPDATE shop.plain SET v = REPEAT('y', 50)"]).await;
    wait_until("it stops between two parts", PATIENCE, || async { file.exists() }).await;
    wait_until("it is said what is waited for", PATIENCE, || async {
        let status = lab.regions[1].status().await;
        let reasons =
            status.iter().flat_map(|status| status.streams.values()).map(|stream| &stream.reason);
        reasons.flatten().any(|reason| reason.contains("a large transaction"))
    })
    .await;
    let mut conn = lab.regions[1].db.conn().await;
    conn.query_drop("SET innodb_lock_wait_timeout = 1").await.unwrap();
    conn.query_drop("UPDATE shop.plain SET v = 'z'").await.unwrap();
    conn.disconnect().await.unwrap();
    let proc = &mut lab.regions[0].agent().proc;
    proc.set_env("CAUSEWAY_FAILPOINT", None);
    proc.kill();
    proc.again();
    lab.regions[0].agent().ready().await;
    lab.converge(&TABLES, PATIENCE).await;
    let left = "SELECT COUNT(*) FROM shop.plain WHERE v = 'z'";
    assert_eq!(lab.regions[0].db.number(left).await, 1_000, "the later write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_a_transaction_count_as_one_and_hold_no_lock_before_the_last_is_here() {
    let mut lab = Lab::start_ruled(&[Flavour::MariaDb; 2], 64, (RULES, LIMITS)).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.start_agents().await;
    let rows = [
        "stock SELECT seq, 'a', 10",
        "plain SELECT seq, 'a'",
        "pair_a SELECT seq, 'a'",
        "pair_b SELECT seq, 'a'",
        "named SELECT seq, 'a', seq",
    ];
    for rows in rows {
        let sql = format!("INSERT INTO shop.{rows} FROM shop.seq_1_to_1000");
        lab.regions[0].db.write(&sql).await;
    }
    lab.converge(&TABLES, PATIENCE).await;
    parts_are_one_write(&lab).await;
    parts_stand_or_fall_as_one(&lab).await;
    much_that_is_held_is_told(&mut lab).await;
    nobody_waits_for_a_part(&mut lab).await;
}
