//! A table or two for each policy, what clients write there, and who must win.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value as Json;

use super::lab::rng::Rng;

pub(crate) const RULES: &str =
    "  - { tables: shop.priority, policy: region_priority, priority: [r2, r3, r1] }
  - { tables: shop.clock, policy: latest, timestamp_column: at }
  - { tables: shop.stock, policy: delta, delta_columns: [n] }
  - tables: shop.parts
    policy: latest
    columns:
      - { columns: [a], policy: region_priority, priority: [r3, r1, r2] }
      - { columns: [n], policy: delta }
  - { tables: shop.txn*, policy: latest, on_conflict: transaction }
  - { tables: shop.journal, policy: insert_only }
  - { tables: shop.home, policy: home }
  - { tables: shop.*, policy: latest }
";

pub(crate) const SCHEMA: &str =
    "CREATE DATABASE shop CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci;
CREATE TABLE shop.latest (id INT PRIMARY KEY, v INT, w VARCHAR(20), at TIMESTAMP NULL);
CREATE TABLE shop.priority (id INT PRIMARY KEY, v INT);
CREATE TABLE shop.clock (id INT PRIMARY KEY, v INT, at BIGINT NOT NULL);
CREATE TABLE shop.stock (id INT PRIMARY KEY, n DECIMAL(20,2) NOT NULL, v INT,
    twice DECIMAL(21,2) AS (n * 2) STORED);
CREATE TABLE shop.parts (id INT PRIMARY KEY, a INT, b INT, n BIGINT NOT NULL,
    plus BIGINT AS (a + n) STORED);
CREATE TABLE shop.uniq (id INT PRIMARY KEY, email VARCHAR(40) UNIQUE, v INT);
CREATE TABLE shop.txn (id INT PRIMARY KEY, v BIGINT);
CREATE TABLE shop.txn_done (v BIGINT PRIMARY KEY);
CREATE TABLE shop.journal (id BIGINT PRIMARY KEY, v INT);
CREATE TABLE shop.home (id INT PRIMARY KEY, n INT NOT NULL);
CREATE TABLE shop.turn (id INT PRIMARY KEY);
";

/// Rows that each region writes.
pub(crate) const ROWS: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Latest,
    TimestampColumn,
    RegionPriority,
    Delta,
    ColumnGroups,
    InsertOnly,
    Home,
    UniqueKeys,
    Transaction,
    /// Every policy at once: their rows meet in one batch.
    All,
}

impl Case {
    pub(crate) const ALL: [Self; 10] = [
        Self::Latest,
        Self::TimestampColumn,
        Self::RegionPriority,
        Self::Delta,
        Self::ColumnGroups,
        Self::InsertOnly,
        Self::Home,
        Self::UniqueKeys,
        Self::Transaction,
        Self::All,
    ];

    pub(crate) const fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Latest => &["shop.latest"],
            Self::TimestampColumn => &["shop.clock"],
            Self::RegionPriority => &["shop.priority"],
            Self::Delta => &["shop.stock"],
            Self::ColumnGroups => &["shop.parts"],
            Self::InsertOnly => &["shop.journal"],
            Self::Home => &["shop.home"],
            Self::UniqueKeys => &["shop.uniq"],
            Self::Transaction => &["shop.txn", "shop.txn_done"],
            Self::All => &TABLES,
        }
    }
}

pub(crate) const TABLES: [&str; 10] = [
    "shop.latest",
    "shop.clock",
    "shop.priority",
    "shop.stock",
    "shop.parts",
    "shop.journal",
    "shop.home",
    "shop.uniq",
    "shop.txn",
    "shop.txn_done",
];

/// The rows that are there from the start.
pub(crate) fn rows() -> String {
    let mut rows = String::new();
    for id in 1..=ROWS {
        rows += &format!("INSERT INTO shop.stock (id, n, v) VALUES ({id}, 0, 0);\n");
        rows += &format!("INSERT INTO shop.parts (id, a, b, n) VALUES ({id}, 0, 0, 0);\n");
        rows += &format!("INSERT INTO shop.txn VALUES ({id}, 0);\n");
        rows += &format!("INSERT INTO shop.home VALUES ({id}, 0);\n");
    }
    rows
}

/// What the transactions that committed must add up to.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) transactions: u64,
    /// What `shop.stock` grew by, in hundredths.
    pub(crate) cents: i64,
    /// Increments of `shop.parts`.
    pub(crate) parts: i64,
    /// Increments of `shop.home`.
    pub(crate) home: i64,
    /// Rows of `shop.journal`.
    pub(crate) journal: BTreeSet<i64>,
    /// Transactions of `shop.txn`.
    pub(crate) txns: BTreeSet<i64>,
}

impl Written {
    pub(crate) fn add(&mut self, mut other: Self) {
        self.transactions += other.transactions;
        self.cents += other.cents;
        self.parts += other.parts;
        self.home += other.home;
        self.journal.append(&mut other.journal);
        self.txns.append(&mut other.txns);
    }
}

/// What a client writes next.
pub(crate) struct Client {
    pub(crate) case: Case,
    /// From 0.
    pub(crate) region: u64,
    /// It keeps to the rows of its region where the policy wants that.
    pub(crate) at_home: bool,
    /// When the test began: regions fill the same part of the journal at a time.
    pub(crate) start: Instant,
    pub(crate) rng: Rng,
}

impl Client {
    /// A transaction, and what is true once it has committed.
    pub(crate) fn transaction(&mut self) -> (Vec<String>, Written) {
        let case = if self.case == Case::All {
            Case::ALL[usize::try_from(self.rng.below(9)).unwrap()]
        } else {
            self.case
        };
        let mut written = Written { transactions: 1, ..Written::default() };
        let statements = self.statements(case, &mut written);
        (statements, written)
    }

    fn statements(&mut self, case: Case, written: &mut Written) -> Vec<String> {
        let rng = &mut self.rng;
        // All tables together have about as many rows to meet over as one alone.
        let rows = if self.case == Case::All { ROWS / 10 } else { ROWS };
        let (id, v) = (rng.below(rows) + 1, rng.below(1_000_000));
        let delete = |table: &str| vec![format!("DELETE FROM shop.{table} WHERE id = {id}")];
        match case {
            Case::Latest if rng.below(4) == 0 => delete("latest"),
            Case::Latest => {
                let (w, at) = (format!("'é''\\\\{v}'"), format!("FROM_UNIXTIME({v})"));
                let row = format!("{id}, {v}, {w}, {at}");
                upsert("latest (id, v, w, at)", &row, &format!("v = {v}, w = {w}, at = {at}"))
            }
            Case::TimestampColumn if rng.below(8) == 0 => delete("clock"),
            Case::TimestampColumn => {
                let at = rng.below(50);
                let row = format!("{id}, {v}, {at}");
                upsert("clock (id, v, at)", &row, &format!("v = {v}, at = {at}"))
            }
            Case::RegionPriority if rng.below(8) == 0 => delete("priority"),
            Case::RegionPriority => {
                upsert("priority (id, v)", &format!("{id}, {v}"), &format!("v = {v}"))
            }
            Case::Delta => {
                written.cents = i64::try_from(rng.below(2_000)).unwrap() - 1_000;
                let also = if rng.below(2) == 0 { format!(", v = {v}") } else { String::new() };
                let by = format!("CAST({} AS DECIMAL(20,2)) / 100", written.cents);
                vec![format!("UPDATE shop.stock SET n = n + {by}{also} WHERE id = {id}")]
            }
            Case::ColumnGroups if rng.below(2) == 0 => {
                written.parts = 1;
                vec![format!("UPDATE shop.parts SET a = {v}, n = n + 1 WHERE id = {id}")]
            }
            Case::ColumnGroups => {
                let also = if rng.below(2) == 0 { format!("a = {v}, ") } else { String::new() };
                vec![format!("UPDATE shop.parts SET {also}b = {v} WHERE id = {id}")]
            }
            Case::InsertOnly => {
                let part = self.start.elapsed().as_millis() / 500;
                let id = u64::try_from(part).unwrap() * ROWS + id;
                written.journal.insert(i64::try_from(id).unwrap());
                vec![format!("INSERT INTO shop.journal VALUES ({id}, {v})")]
            }
            Case::Home => {
                written.home = 1;
                let id = if self.at_home { id % 33 * 3 + 1 + self.region } else { id };
                vec![format!("UPDATE shop.home SET n = n + 1 WHERE id = {id}")]
            }
            Case::UniqueKeys => {
                let email = format!("'e{}@x'", rng.below(60));
                match rng.below(5) {
                    0 => delete("uniq"),
                    1 => vec![format!("UPDATE shop.uniq SET id = {} WHERE id = {id}", id + ROWS)],
                    _ => {
                        let row = format!("{id}, {email}, {v}");
                        upsert("uniq (id, email, v)", &row, &format!("email = {email}, v = {v}"))
                    }
                }
            }
            Case::Transaction => {
                // The number names the transaction in all of its rows.
                let number = i64::try_from(rng.0 >> 1).unwrap();
                written.txns.insert(number);
                let other = rng.below(rows) + 1;
                let update = |id| format!("UPDATE shop.txn SET v = {number} WHERE id = {id}");
                let done = format!("INSERT INTO shop.txn_done VALUES ({number})");
                vec![update(id), update(other), done]
            }
            Case::All => unreachable!("one of the others was drawn"),
        }
    }
}

fn upsert(table: &str, values: &str, sets: &str) -> Vec<String> {
    vec![format!("INSERT INTO shop.{table} VALUES ({values}) ON DUPLICATE KEY UPDATE {sets}")]
}

/// The columns that are resolved apart in a table, beside sums.
pub(crate) fn parted(table: &str) -> &'static [&'static str] {
    match table {
        "shop.stock" => &["v"],
        "shop.parts" => &["a", "b"],
        _ => &[],
    }
}

/// Whether the incoming write of an entry of the conflict log must win, by the policy's
/// rule alone; of a table whose columns are resolved apart, this column.
pub(crate) fn incoming_wins(entry: &Json, column: &str) -> bool {
    let table = entry["table"].as_str().unwrap();
    let number = |side: &Json, field: &str| side[field].as_i64().unwrap();
    let rank = |side: &Json| {
        let origin = number(side, "origin");
        let weight = match table {
            "shop.priority" => -[0, 3, 1, 2][usize::try_from(origin).unwrap()],
            "shop.parts" if column == "a" => -[0, 2, 3, 1][usize::try_from(origin).unwrap()],
            "shop.clock" => {
                let row = if side["after"].is_null() { &side["before"] } else { &side["after"] };
                number(row, "at")
            }
            _ => 0,
        };
        (weight, number(side, "hlc"), origin)
    };
    rank(&entry["incoming"]) > rank(&entry["existing"])
}
