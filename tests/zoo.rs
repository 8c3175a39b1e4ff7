//! The type zoo from end to end: a table with a column of every type, written in each
//! of four regions, is equal in all by the servers' own values, from MariaDB to
//! MariaDB, from MySQL to MariaDB, from MySQL to MySQL, and back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::collections::BTreeSet;
use std::time::Duration;

use lab::db::{Database, Flavour};
use lab::load::{Load, SCHEMA, TABLES};
use lab::region::Lab;
use lab::zoo::{self, COLUMNS};
use lab::{PATIENCE, wait_until};
use mysql_async::prelude::Queryable as _;

const SESSION: &str = "SET sql_mode = '', time_zone = '+00:00', NAMES utf8mb4;\n";
const SERVERS: [Flavour; 4] =
    [Flavour::MariaDb, Flavour::MariaDb, Flavour::MySql80, Flavour::MySql56];

/// What only one of the servers has, and where its values live in the other.
const MARIADB: &str = ", j JSON, el ENUM('a','é','x\\\\y','q''q') CHARACTER SET latin1, \
    i6 INET6, i4 INET4, vc VARCHAR(300) COMPRESSED, bc BLOB COMPRESSED, \
    gv BIGINT GENERATED ALWAYS AS (i + 1) VIRTUAL, \
    gs VARCHAR(40) GENERATED ALWAYS AS (CONCAT(vs, '!')) STORED)";
const MYSQL: &str = ", j JSON, \
    el ENUM('a','é','x\\\\y','q''q') CHARACTER SET latin1, \
    i6 BINARY(16), i4 BINARY(4), vc VARCHAR(300), bc BLOB)";
const MORE: &str = "j, el, i6, i4, vc, bc";

/// Values of `MORE`, with addresses as their bytes.
const MORE_VALUES: [&str; 4] = [
    "'{}', 'a', x'00000000000000000000000000000000', \
     x'00000000', '', ''",
    "'{\"k\": [\"é\", \"it''s\", 1.25, null, \"😀\"]}', 'é', \
     x'ffffffffffffffffffffffffffffffff', x'ffffffff', REPEAT('é', 300), REPEAT(x'00', 9000)",
    "'[1, 2.5, 1e20]', 'x\\\\y', x'20010db8000000000000000000000000', x'c0000200', 'short ', x'0001'",
    "NULL, NULL, NULL, NULL, NULL, NULL",
];

/// A table's name, the type of its key, two values.
type Key = (&'static str, &'static str, [&'static str; 2]);

const KEYS: [Key; 14] = [
    ("bu", "BIGINT UNSIGNED", ["18446744073709551615", "9223372036854775808"]),
    ("de", "DECIMAL(65,30)", ["0.000000000000000000000000000001", "-1.5"]),
    ("da", "DATE", ["'0000-00-00'", "'9999-12-31'"]),
    ("dt", "DATETIME(6)", ["'2024-02-29 01:02:03.000004'", "'0000-00-00 00:00:00'"]),
    ("ts", "TIMESTAMP(6)", ["'2024-02-29 01:02:03.000004'", "'1970-01-01 00:00:01'"]),
    ("ti", "TIME(3)", ["'-838:59:59'", "'-00:00:00.001'"]),
    ("bi", "BIT(64)", ["18446744073709551615", "1"]),
    ("ye", "YEAR", ["1901", "2155"]),
    ("en", "ENUM('a','ü') CHARACTER SET utf8mb4", ["'a'", "'ü'"]),
    ("se", "SET('a','b','c')", ["'a,c'", "''"]),
    ("b4", "BINARY(4)", ["x'61000000'", "x'00000001'"]),
    ("vb", "VARBINARY(20)", ["x'6100'", "x'61'"]),
    ("vc", "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", ["'é 😀'", "'It''s \\\\ '"]),
    ("la", "CHAR(20) CHARACTER SET latin1", ["'x y'", "'Z'"]),
];

const MARIADB_KEYS: [Key; 3] = [
    (
        "uu",
        "UUID",
        ["'123e4567-e89b-12d3-a456-426614174000'", "'01890a5d-ac96-774b-bcce-b302099a8057'"],
    ),
    ("i6", "INET6", ["'2001:db8::'", "'::'"]),
    ("i4", "INET4", ["'192.0.2.0'", "'0.0.0.0'"]),
];

/// All rows, each column as the server itself renders it without loss.
async fn rows(db: &Database, table: &str, columns: &str) -> Vec<String> {
    let mut conn = db.conn().await;
    conn.query_drop("SET NAMES binary, time_zone = '+00:00'").await.unwrap();
    let columns: Vec<_> = columns
        .split(", ")
        .map(|column| match column {
            // As text a FLOAT has six digits only.
            "f" => "IFNULL(f + 0e0, 'NULL')".to_owned(),
            _ => format!("IFNULL(HEX(CAST({column} AS BINARY)), 'NULL')"),
        })
        .collect();
    let sql = format!("SELECT CONCAT_WS(',', {}) FROM {table}", columns.join(", "));
    let rows: Vec<Vec<u8>> = conn.query(sql).await.unwrap();
    let mut rows: Vec<_> = rows.into_iter().map(|row| String::from_utf8(row).unwrap()).collect();
    // A server's sort has no room for documents.
    rows.sort();
    rows
}

/// Waits until all regions hold `count` rows whose newest write is `tag`, then names
/// every column that differs anywhere.
async fn equal(lab: &Lab, count: usize, tag: u8) {
    for region in &lab.regions {
        let sql = format!("SELECT COUNT(*) FROM shop.zoo WHERE tag = {tag}");
        wait_until(&format!("{count} rows at {}", region.name), PATIENCE, || async {
            usize::try_from(region.db.number(&sql).await).unwrap() == count
        })
        .await;
    }
    let mut wrong = Vec::new();
    let all = format!("tag, {COLUMNS}, {MORE}");
    for column in all.split(", ") {
        let (first, mine) = (&lab.regions[0], format!("id, {column}"));
        let wanted = rows(&first.db, "shop.zoo", &mine).await;
        assert_eq!(wanted.len(), count);
        for region in &lab.regions[1..] {
            let got = rows(&region.db, "shop.zoo", &mine).await;
            for (got, wanted) in got.iter().zip(&wanted).filter(|(got, wanted)| got != wanted) {
                let short = |row: &str| row.chars().take(100).collect::<String>();
                wrong.push(format!("{column}: {} {}", short(wanted), short(got)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let generated = "id, gv, gs";
    let wanted = rows(&lab.regions[0].db, "shop.zoo", generated).await;
    assert_eq!(rows(&lab.regions[1].db, "shop.zoo", generated).await, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_arrives_equal_from_everywhere() {
    let mut lab = Lab::start(&SERVERS).await;
    for (region, flavour) in lab.regions.iter().zip(SERVERS) {
        let more = match flavour {
            Flavour::MariaDb => MARIADB.to_owned(),
            Flavour::MySql57 | Flavour::MySql80 => MYSQL.to_owned(),
            Flavour::MySql56 => MYSQL.replace("j JSON", "j LONGTEXT COLLATE utf8mb4_bin"),
        };
        let create =
            format!("{SESSION}CREATE DATABASE shop CHARACTER SET utf8mb4;\n{}{more}", zoo::TABLE);
        region.db.exec(&create).await;
    }
    lab.start_agents().await;
    for (n, region) in lab.regions.iter().enumerate() {
        let mut sql = format!("{SESSION}BEGIN;\n");
        for (id, (row, more)) in zoo::values().iter().zip(MORE_VALUES).enumerate() {
            let id = 10 * n + id;
            sql += &format!(
                "INSERT INTO shop.zoo (id, tag, {COLUMNS}, {MORE}) VALUES ({id}, 1, {row}, {more});\n"
            );
        }
        region.db.exec(&format!("{sql}COMMIT")).await;
    }
    equal(&lab, 16, 1).await;
    // What one region wrote another changes: the row has been through both servers.
    for (n, region) in lab.regions.iter().enumerate() {
        let others = format!("id BETWEEN {0} AND {0} + 9", 10 * ((n + 1) % 4));
        region.db.exec(&format!("{SESSION}UPDATE shop.zoo SET tag = 2 WHERE {others}")).await;
    }
    equal(&lab, 16, 2).await;
    lab.regions[2].db.exec("DELETE FROM shop.zoo WHERE id % 2 = 0").await;
    equal(&lab, 8, 2).await;
}

/// Writers in regions of all servers change the same rows and rows of their own, while
/// MySQL 8 is killed and comes back: the tables end equal, and no row is lost or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_of_all_servers_agree_after_concurrent_writes_and_a_kill() {
    const TYPED: &str = "CREATE TABLE shop.typed (id INT PRIMARY KEY, r INT NOT NULL, \
        d DECIMAL(20,4), t TIMESTAMP(6) NULL, x VARCHAR(40) CHARACTER SET utf8mb4, \
        e ENUM('a','b') NOT NULL, u BINARY(4))";
    let servers = [Flavour::MariaDb, Flavour::MySql80, Flavour::MySql57];
    let mut lab = Lab::start(&servers).await;
    lab.exec_everywhere(&format!("{SCHEMA}{TYPED}")).await;
    lab.start_agents().await;
    let load = Load::start(&lab.databases(), 2, 8, Duration::from_millis(10));
    for round in 0..20 {
        let writes: Vec<_> = (0..3)
            .map(|n| {
                format!(
                    "REPLACE INTO shop.typed VALUES (1, {n}, {round}.5, NOW(6), 'é{n}', 'b', \
                     x'0{n}00'), ({}, {n}, -{round}, NULL, NULL, 'a', NULL)",
                    10 + round % 4
                )
            })
            .collect();
        let [r1, r2, r3] = [0, 1, 2].map(|n| &lab.regions[n].db);
        tokio::join!(r1.write(&writes[0]), r2.write(&writes[1]), r3.write(&writes[2]));
        if round == 10 {
            lab.regions[1].db.crash().await;
        }
    }
    let written = load.finish().await;
    let tables = [&TABLES[..], &["shop.typed"]].concat();
    lab.converge(&tables, PATIENCE).await;
    for region in &lab.regions {
        let journal: Vec<(u8, u8, u64)> =
            region.db.rows("SELECT region, worker, n FROM shop.journal").await;
        let once: BTreeSet<_> = journal.iter().copied().collect();
        assert_eq!(once.len(), journal.len(), "{} holds a row twice", region.name);
        assert!(written.acked.is_subset(&once), "{} lacks a row", region.name);
    }
    assert!(written.acked.iter().any(|(region, ..)| *region == 2));
}

async fn keys(servers: &[Flavour], keys: &[Key]) {
    let mut lab = Lab::start(servers).await;
    let regions = servers.len();
    let mut create = format!("{SESSION}CREATE DATABASE shop CHARACTER SET utf8mb4;\n");
    for (name, kind, _) in keys {
        create += &format!(
            "CREATE TABLE shop.{name} (k {kind} NOT NULL, n INT, r INT, PRIMARY KEY (k, n));\n"
        );
    }
    create += "CREATE TABLE shop.done (id INT PRIMARY KEY)";
    lab.exec_everywhere(&create).await;
    lab.start_agents().await;
    // Each region inserts rows, the next one changes one half and deletes the other.
    for round in 0..2 {
        for (n, region) in lab.regions.iter().enumerate() {
            let mut sql = SESSION.to_owned();
            for (name, _, values) in keys {
                sql += &match round {
                    0 => format!(
                        "INSERT INTO shop.{name} VALUES ({}, {n}, 0), ({}, {n}, 0);\n",
                        values[0], values[1]
                    ),
                    _ => format!(
                        "UPDATE shop.{name} SET r = 1 WHERE k = {} AND n = {theirs};\n\
                         DELETE FROM shop.{name} WHERE k = {} AND n = {theirs};\n",
                        values[0],
                        values[1],
                        theirs = (n + 1) % regions
                    ),
                };
            }
            sql += &format!("INSERT INTO shop.done VALUES ({})", 10 * round + n);
            region.db.exec(&sql).await;
        }
        for region in &lab.regions {
            wait_until("the round has arrived", PATIENCE, || async {
                let count = region.db.number("SELECT COUNT(*) FROM shop.done").await;
                usize::try_from(count).unwrap() == regions * (round + 1)
            })
            .await;
        }
    }
    for (name, ..) in keys {
        for region in &lab.regions {
            let table = format!("shop.{name}");
            let wanted = rows(&lab.regions[0].db, &table, "k, n, r").await;
            assert_eq!(wanted.len(), regions, "{name}");
            assert_eq!(rows(&region.db, &table, "k, n, r").await, wanted, "{name}");
            let changed = format!("SELECT COUNT(*) FROM {table} WHERE r = 1");
            assert_eq!(
                usize::try_from(region.db.number(&changed).await).unwrap(),
                regions,
                "{name}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_found_by_keys_of_every_type() {
    keys(&[Flavour::MariaDb, Flavour::MySql56, Flavour::MySql80], &KEYS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_found_by_keys_of_mariadbs_own_types() {
    keys(&[Flavour::MariaDb; 2], &MARIADB_KEYS).await;
}
