//! What was changed past the binlog is made right again under every policy, by what the
//! outboxes tell; and where they don't, nothing is written.

use super::*;

const RULES: &str = "  - { tables: shop.priority, policy: region_priority, priority: [r2, r3, r1] }
  - { tables: shop.clock, policy: latest, timestamp_column: at }
  - { tables: shop.stock, policy: delta, delta_columns: [n] }
  - tables: shop.parts
    policy: latest
    columns: [{ columns: [a], policy: region_priority, priority: [r3, r1, r2] }]
  - { tables: shop.txn, policy: latest, on_conflict: transaction }
  - { tables: shop.journal, policy: insert_only }
  - { tables: shop.*, policy: latest }
";

const SCHEMA: &str = "CREATE DATABASE shop CHARACTER SET utf8mb4;
CREATE TABLE shop.priority (id INT PRIMARY KEY, v INT);
CREATE TABLE shop.clock (id INT PRIMARY KEY, v INT, at BIGINT NOT NULL);
CREATE TABLE shop.stock (id INT PRIMARY KEY, n DECIMAL(20,2) NOT NULL, v INT);
CREATE TABLE shop.parts (id INT PRIMARY KEY, a INT, b INT);
CREATE TABLE shop.txn (id INT PRIMARY KEY, v INT);
CREATE TABLE shop.journal (id INT PRIMARY KEY, v INT);
CREATE TABLE shop.uniq (id INT PRIMARY KEY, mail VARCHAR(40) UNIQUE, v INT);
CREATE TABLE shop.row (id INT PRIMARY KEY, v INT);
CREATE TABLE shop.kind (e ENUM('a','b','c'), y YEAR, b BIT(9), v INT, PRIMARY KEY (e, y, b));
";

const TABLES: [&str; 9] = [
    "shop.priority",
    "shop.clock",
    "shop.stock",
    "shop.parts",
    "shop.txn",
    "shop.journal",
    "shop.uniq",
    "shop.row",
    "shop.kind",
];

/// In the first region, before anything else.
const ROWS: [&str; 7] = [
    "INSERT INTO shop.priority VALUES (1, 0), (2, 0)",
    "INSERT INTO shop.clock VALUES (1, 0, 0), (2, 0, 0)",
    "INSERT INTO shop.stock VALUES (1, 10, 0), (2, 10, 0), (3, 10, 0)",
    "INSERT INTO shop.parts VALUES (1, 0, 0)",
    "INSERT INTO shop.txn VALUES (1, 0), (2, 0)",
    "INSERT INTO shop.row VALUES (5, 5), (6, 6)",
    "INSERT INTO shop.kind VALUES ('b', 2024, 257, 1)",
];

/// By region, while none hears of another; each writes after those before it.
const APART: [&[&str]; 3] = [
    &[
        "UPDATE shop.priority SET v = 1 WHERE id = 1",
        "UPDATE shop.clock SET v = 1, at = 300 WHERE id = 1",
        "UPDATE shop.stock SET n = n - 3, v = 1 WHERE id = 1",
        "UPDATE shop.stock SET n = n - 3 WHERE id = 2",
        "UPDATE shop.parts SET a = 1 WHERE id = 1",
        "UPDATE shop.txn SET v = 1",
        "INSERT INTO shop.journal VALUES (1, 1)",
        "INSERT INTO shop.uniq VALUES (1, 'x', 1)",
        "UPDATE shop.row SET id = 50 WHERE id = 5",
        "UPDATE shop.row SET id = 60 WHERE id = 6",
    ],
    &[
        "UPDATE shop.priority SET v = 2 WHERE id = 1",
        "UPDATE shop.clock SET v = 2, at = 200 WHERE id = 1",
        "UPDATE shop.stock SET n = n + 5, v = 2 WHERE id = 1",
        "UPDATE shop.parts SET b = 2 WHERE id = 1",
        "UPDATE shop.txn SET v = 2 WHERE id = 1",
        "INSERT INTO shop.uniq VALUES (2, 'x', 2)",
        "INSERT INTO shop.row VALUES (50, 2)",
        "UPDATE shop.kind SET v = 2",
    ],
    &[
        "UPDATE shop.priority SET v = 3 WHERE id = 1",
        "UPDATE shop.clock SET v = 3, at = 100 WHERE id = 1",
        "UPDATE shop.stock SET n = n - 1.5 WHERE id = 1",
        "UPDATE shop.parts SET a = 3 WHERE id = 1",
    ],
];

/// Which region's row is changed past the binlog, and how.
const PLANTED: [(usize, &str); 13] = [
    // Also in the region whose write stands.
    (1, "UPDATE shop.priority SET v = -1 WHERE id = 1"),
    (2, "DELETE FROM shop.priority WHERE id = 2"),
    (0, "UPDATE shop.clock SET v = -1 WHERE id = 1"),
    (1, "UPDATE shop.stock SET n = n + 1 WHERE id = 1"),
    (1, "UPDATE shop.stock SET n = n - 1 WHERE id = 2"),
    (0, "UPDATE shop.parts SET b = -1 WHERE id = 1"),
    // The other half of a transaction that lost.
    (2, "UPDATE shop.txn SET v = 1 WHERE id = 2"),
    (1, "DELETE FROM shop.journal WHERE id = 1"),
    // The row that lost its unique value takes it back from the one that won.
    (2, "DELETE FROM shop.uniq WHERE id = 2;\nINSERT INTO shop.uniq VALUES (1, 'x', 1)"),
    // A row that was moved onto another, which stands; and one that was moved.
    (2, "DELETE FROM shop.row WHERE id = 5"),
    (0, "UPDATE shop.row SET v = -1 WHERE id = 50"),
    (1, "INSERT INTO shop.row VALUES (6, 6)"),
    (0, "UPDATE shop.kind SET v = -1"),
];

/// What stands.
const STANDS: [(&str, &str); 11] = [
    ("SELECT v FROM shop.priority WHERE id = 1", "2"),
    ("SELECT v FROM shop.clock WHERE id = 1", "1"),
    ("SELECT n FROM shop.stock WHERE id = 1", "10.50"),
    ("SELECT n FROM shop.stock WHERE id = 2", "7.00"),
    ("SELECT CONCAT(a, b) FROM shop.parts", "32"),
    ("SELECT GROUP_CONCAT(v ORDER BY id) FROM shop.txn", "2,0"),
    ("SELECT GROUP_CONCAT(id) FROM shop.journal", "1"),
    ("SELECT GROUP_CONCAT(id) FROM shop.uniq", "2"),
    ("SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.row", "5,50,60"),
    ("SELECT v FROM shop.row WHERE id = 50", "2"),
    ("SELECT v FROM shop.kind", "2"),
];

async fn stands(lab: &Lab) {
    for region in &lab.regions {
        let mut conn = region.db.conn().await;
        for (sql, wanted) in STANDS {
            let held: Option<String> = conn.query_first(sql).await.unwrap();
            assert_eq!(held.as_deref(), Some(wanted), "{}: {sql}", region.name);
        }
        conn.disconnect().await.unwrap();
    }
}

async fn begin() -> Lab {
    let flavours = [Flavour::MariaDb, Flavour::MySql56, Flavour::MariaDb];
    let mut lab = Lab::start_ruled(&flavours, 64, (RULES, "")).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.start_agents().await;
    for sql in ROWS {
        lab.regions[0].db.exec(sql).await;
    }
    lab.converge(&TABLES, lab::PATIENCE).await;
    lab.cut();
    for (region, statements) in lab.regions.iter().zip(APART) {
        for sql in statements {
            region.db.exec(sql).await;
        }
        // These servers' binlogs tell a commit's second alone: who is to be later must be so
        // by one, however late either is captured.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    lab.heal();
    lab.converge(&TABLES, lab::PATIENCE).await;
    lab
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_writes_of_a_row_come_to_is_put_right_under_every_policy() {
    let lab = begin().await;
    stands(&lab).await;
    for (region, sql) in PLANTED {
        silent(&lab.regions[region].db, sql).await;
    }
    let (status, report, shown) = verify(&lab, &["--repair", "--yes"]).await;
    assert_eq!(status, 0, "{shown}");
    assert_eq!(report.unwrap().repairs.len(), PLANTED.len() + 1, "{shown}");
    stands(&lab).await;
    let (status, _, shown) = verify(&lab, &[]).await;
    assert_eq!(status, 0, "{shown}");

    // A sum that was shipped from a row which had been changed past the binlog: which of
    // the two rows it stands on can't be told.
    silent(&lab.regions[0].db, "UPDATE shop.stock SET n = 999 WHERE id = 3").await;
    lab.regions[0].db.exec("UPDATE shop.stock SET n = n - 1 WHERE id = 3").await;
    let (status, report, shown) = verify(&lab, &["--repair", "--yes", "shop.stock"]).await;
    assert_eq!(status, 1, "{shown}");
    let repairs = report.unwrap().repairs;
    assert_eq!((repairs.len(), repairs[0].outcome), (1, RepairOutcome::Undecided), "{shown}");
    assert!(repairs[0].why.contains("contradict each other"), "{shown}");
    let named = ["--repair", "--from", "r2", "--yes", "shop.stock"];
    let (status, _, shown) = verify(&lab, &named).await;
    assert_eq!(status, 0, "{shown}");
    let held = lab.regions[0].db.number("SELECT n = 9 FROM shop.stock WHERE id = 3").await;
    assert_eq!(held, 1);
}
