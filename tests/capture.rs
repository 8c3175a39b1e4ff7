//! Capture on real servers: what is decoded is what the server itself SELECTs.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

#[path = "capture/ddl.rs"]
mod ddl;
#[path = "capture/definitions.rs"]
mod definitions;
#[path = "capture/files.rs"]
mod files;
#[path = "capture/mysql.rs"]
mod mysql;
#[path = "capture/payload.rs"]
mod payload;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use causeway::capture::{
    AppliedMark, CaptureConfig, CaptureError, CaptureEvent, Checkpoint, ErrorKind, Files, current,
    run,
};
use causeway::change::{Column, ColumnType, Kind, Position, RegionId, Row, RowChange, Seq, Table};
use causeway::clock::Hlc;
use lab::db::{Database, Flavour, Settings};
use lab::zoo::{self, COLUMNS, TABLE};
use mysql_async::Opts;
use mysql_async::prelude::Queryable as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

const WAIT: Duration = lab::PATIENCE;
const SHOP: &str = "CREATE DATABASE shop CHARACTER SET utf8mb4;\n\
    CREATE TABLE shop.t (id INT PRIMARY KEY, v LONGBLOB);\n";

/// A reader of one server's binlog.
struct Follow {
    bursts: mpsc::Receiver<Vec<CaptureEvent>>,
    /// Of the last burst, not given yet.
    events: VecDeque<CaptureEvent>,
    ended: JoinSet<Result<(), CaptureError>>,
    /// One that went on would take the server id of the next, to look ahead.
    cancel: DropGuard,
}

impl Follow {
    fn from(db: &Database, from: Position) -> Self {
        Self::split(db, from, 1 << 30)
    }

    fn split(db: &Database, from: Position, part_bytes: usize) -> Self {
        Self::begin(db.opts(), from, part_bytes)
    }

    fn with(opts: Opts, from: Position) -> Self {
        Self::begin(opts, from, 1 << 30)
    }

    fn begin(opts: Opts, from: Position, part_bytes: usize) -> Self {
        Self::reading(None, opts, from, part_bytes)
    }

    fn reading(files: Option<Files>, opts: Opts, from: Position, part_bytes: usize) -> Self {
        let (sender, bursts) = mpsc::channel(64);
        let config = CaptureConfig {
            opts,
            server_id: 4711,
            from,
            part_bytes,
            rest_max: Duration::from_millis(50),
            files,
            replicates: Arc::new(|schema, _| schema == "shop"),
        };
        let mut ended = JoinSet::new();
        let (awaited, cancel) = (watch::channel(0).1, CancellationToken::new());
        ended.spawn(run(config, awaited, sender, cancel.clone()));
        Self { bursts, events: VecDeque::new(), ended, cancel: cancel.drop_guard() }
    }

    /// The next event that is not of something else.
    async fn next(&mut self) -> CaptureEvent {
        loop {
            match self.events.pop_front() {
                Some(CaptureEvent::Skipped { .. }) => continue,
                Some(event) => return event,
                None => {}
            }
            match tokio::time::timeout(WAIT, self.bursts.recv()).await.unwrap() {
                Some(burst) => self.events.extend(burst),
                None => panic!("capture ended: {:?}", self.ended.join_next().await),
            }
        }
    }

    async fn rows(&mut self) -> (Arc<Table>, Vec<RowChange>, Checkpoint) {
        match self.next().await {
            CaptureEvent::Changes { mut changes, after, last: true, part: 0, .. } => {
                assert_eq!(changes.len(), 1);
                let change = changes.remove(0);
                (change.table, change.rows, after)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Reads no further.
    async fn stop(mut self) {
        drop((self.bursts, self.cancel));
        self.ended.join_next().await.unwrap().unwrap().unwrap();
    }

    /// Reads on until capture stops.
    async fn error(mut self) -> CaptureError {
        while tokio::time::timeout(WAIT, self.bursts.recv()).await.unwrap().is_some() {}
        self.ended.join_next().await.unwrap().unwrap().unwrap_err()
    }
}

async fn start(flavour: Flavour, more: &[&str], setup: &str) -> (Database, Checkpoint) {
    let mut settings = Settings::small(flavour, 1);
    settings.more = more.iter().map(|&option| option.to_owned()).collect();
    let db = Database::start(&settings).await;
    db.exec(setup).await;
    let mut conn = db.conn().await;
    let here = current(&mut conn).await.unwrap();
    (db, here)
}

/// How a value of the column reads as text, in SQL.
fn expression(table: &Table, at: usize) -> String {
    let column = &table.columns[at];
    let name = format!("`{}`", column.name);
    match column.r#type() {
        ColumnType::Float | ColumnType::Double => name,
        ColumnType::Bit | ColumnType::Enum | ColumnType::Set | ColumnType::Year => {
            format!("CAST({name} + 0 AS CHAR)")
        }
        ColumnType::Char
        | ColumnType::Binary
        | ColumnType::Text
        | ColumnType::Blob
        | ColumnType::Uuid
        | ColumnType::Json
        | ColumnType::Geometry => format!("HEX({name})"),
        ColumnType::Unspecified
        | ColumnType::Tinyint
        | ColumnType::Smallint
        | ColumnType::Mediumint
        | ColumnType::Int
        | ColumnType::Bigint
        | ColumnType::Decimal
        | ColumnType::Date
        | ColumnType::Time
        | ColumnType::Datetime
        | ColumnType::Timestamp => format!("CAST({name} AS CHAR)"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn decoded(row: &Row) -> Vec<String> {
    let text = |value: &causeway::change::Value| match &value.kind {
        None => "NULL".to_owned(),
        Some(Kind::Int(n)) => n.to_string(),
        Some(Kind::Uint(n)) => n.to_string(),
        Some(Kind::Float(x)) => format!("{x:?}"),
        Some(Kind::Double(x)) => format!("{x:?}"),
        Some(Kind::Literal(text)) => String::from_utf8(text.to_vec()).unwrap(),
        Some(Kind::Bytes(bytes)) => hex(bytes),
    };
    row.values.iter().map(text).collect()
}

/// The server's own words.
async fn selected(db: &Database, table: &Table) -> Vec<Vec<String>> {
    let mut conn = db.conn().await;
    conn.query_drop("SET time_zone = '+00:00', NAMES utf8mb4").await.unwrap();
    let columns: Vec<_> = (0..table.columns.len()).map(|at| expression(table, at)).collect();
    let sql = format!("SELECT {} FROM shop.zoo ORDER BY id", columns.join(", "));
    let rows: Vec<mysql_async::Row> = conn.exec(sql, ()).await.unwrap();
    let text = |value: mysql_async::Value| match value {
        mysql_async::Value::NULL => "NULL".to_owned(),
        mysql_async::Value::Float(x) => format!("{x:?}"),
        mysql_async::Value::Double(x) => format!("{x:?}"),
        mysql_async::Value::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect()
}

/// The statements that make the table of all types, and its last columns.
fn zoo_with(last: &str) -> String {
    format!("{SHOP}SET sql_mode = '', time_zone = '+00:00';\n{TABLE}{last})")
}

async fn every_type(flavour: Flavour, more: &[&str], last: &str) {
    let (db, here) = start(flavour, more, &zoo_with(last)).await;
    each_type(&db, Follow::from(&db, here.position)).await;
}

/// Three transactions: rows of all types come, change and go.
async fn each_type(db: &Database, mut follow: Follow) {
    let values: Vec<_> = (1..)
        .zip(zoo::values())
        .map(|(id, row)| {
            format!("INSERT INTO shop.zoo (id, tag, {COLUMNS}) VALUES ({id}, 0, {row})")
        })
        .collect();
    let values = values.join(";\n");
    let session = "SET sql_mode = '', time_zone = '+00:00', NAMES utf8mb4;\n";
    db.exec(&format!("{session}BEGIN;\n{values};\nCOMMIT")).await;
    let (table, rows, _) = follow.rows().await;
    let wanted = selected(db, &table).await;
    assert_eq!(wanted.len(), 4);
    check(&table, &wanted, rows.iter().map(|row| row.after.as_ref().unwrap()));
    // The same again as before images; a change of one column keeps the others.
    db.exec(&format!("{session}UPDATE shop.zoo SET tag = 1 ORDER BY id")).await;
    let (table, rows, _) = follow.rows().await;
    check(&table, &wanted, rows.iter().map(|row| row.before.as_ref().unwrap()));
    let wanted = selected(db, &table).await;
    check(&table, &wanted, rows.iter().map(|row| row.after.as_ref().unwrap()));
    db.exec("DELETE FROM shop.zoo ORDER BY id").await;
    let (table, rows, _) = follow.rows().await;
    check(&table, &wanted, rows.iter().map(|row| row.before.as_ref().unwrap()));
}

#[track_caller]
fn check<'a>(table: &Table, wanted: &[Vec<String>], rows: impl Iterator<Item = &'a Row>) {
    let got: Vec<_> = rows.map(decoded).collect();
    assert_eq!(got.len(), wanted.len());
    let mut wrong = Vec::new();
    for (got, wanted) in got.iter().zip(wanted) {
        for (at, column) in table.columns.iter().enumerate() {
            if got[at] != wanted[at] {
                let short = |text: &str| text.chars().take(80).collect::<String>();
                let (got, wanted) = (short(&got[at]), short(&wanted[at]));
                wrong.push(format!("{}: got {got}, the server says {wanted}", column.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const MORE: &str = ", j JSON, gv INT GENERATED ALWAYS AS (i + 1) VIRTUAL, \
    gs VARCHAR(40) GENERATED ALWAYS AS (CONCAT(vs, '!')) STORED";

#[tokio::test]
async fn every_mariadb_type_is_what_the_server_selects() {
    every_type(Flavour::MariaDb, &[], MORE).await;
}

#[tokio::test]
async fn compressed_mariadb_events_are_read() {
    let more = ["--log-bin-compress=1", "--log-bin-compress-min-len=10"];
    every_type(Flavour::MariaDb, &more, MORE).await;
}

#[tokio::test]
async fn mariadb_without_metadata_is_read_by_its_catalog() {
    let more = ["--binlog-row-metadata=NO_LOG", "--binlog-checksum=NONE"];
    every_type(Flavour::MariaDb, &more, MORE).await;
}

#[tokio::test]
async fn every_mysql_type_is_what_the_server_selects() {
    every_type(Flavour::MySql56, &[], "").await;
    every_type(Flavour::MySql57, &[], MORE).await;
    every_type(Flavour::MySql80, &[], MORE).await;
    every_type(Flavour::MySql80, &["--binlog-row-metadata=MINIMAL"], MORE).await;
}

async fn resumes(flavour: Flavour) {
    let (db, here) = start(flavour, &[], SHOP).await;
    db.exec("INSERT INTO shop.t VALUES (1, 'a');\nINSERT INTO shop.t VALUES (2, 'b')").await;
    let mut follow = Follow::from(&db, here.position);
    let (_, rows, first) = follow.rows().await;
    assert_eq!(decoded(rows[0].after.as_ref().unwrap())[0], "1");
    drop(follow);
    db.exec("FLUSH LOGS;\nINSERT INTO shop.t VALUES (3, 'c')").await;
    let mut follow = Follow::from(&db, first.position);
    for id in ["2", "3"] {
        let (_, rows, after) = follow.rows().await;
        assert_eq!(decoded(rows[0].after.as_ref().unwrap())[0], id);
        if id == "3" {
            let now = current(&mut db.conn().await).await.unwrap();
            assert_eq!(after, now);
        }
    }
}

#[tokio::test]
async fn mariadb_resumes_by_gtid() {
    resumes(Flavour::MariaDb).await;
}

#[tokio::test]
async fn mysql_resumes_by_gtid() {
    for flavour in Flavour::MYSQL {
        resumes(flavour).await;
    }
}

async fn purged(flavour: Flavour) {
    let (db, here) = start(flavour, &[], SHOP).await;
    let filled = "INSERT INTO shop.t VALUES (1, 'a');\nFLUSH LOGS;\n\
        INSERT INTO shop.t VALUES (2, 'a');\nFLUSH LOGS";
    db.exec(filled).await;
    let last = db.rows::<mysql_async::Row>("SHOW BINARY LOGS").await.pop().unwrap();
    let last: String = last.get(0).unwrap();
    db.exec(&format!("PURGE BINARY LOGS TO '{last}'")).await;
    let error = Follow::from(&db, here.position).error().await;
    assert!(matches!(error, CaptureError::Purged { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Halt);
}

#[tokio::test]
async fn a_purged_position_is_named_by_mariadb() {
    purged(Flavour::MariaDb).await;
}

#[tokio::test]
async fn a_purged_position_is_named_by_mysql() {
    for flavour in Flavour::MYSQL {
        purged(flavour).await;
    }
}

/// A replica that was promoted without all that had been shipped from the old primary:
/// it has less, or something else instead.
#[tokio::test]
async fn mariadb_names_a_position_that_it_has_never_had() {
    let (db, _) = start(Flavour::MariaDb, &[], SHOP).await;
    for lost in ["1-1-1000000", "1-9-1"] {
        let error = Follow::from(&db, Position(lost.to_owned())).error().await;
        assert!(matches!(error, CaptureError::Purged { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(lost) && text.contains("not in the master's binlog"), "{text}");
    }
}

async fn refused(flavour: Flavour, sql: &str) -> CaptureError {
    let (db, here) =
        start(flavour, &[], &format!("{SHOP}INSERT INTO shop.t VALUES (1, 'x')")).await;
    let follow = Follow::from(&db, here.position);
    db.exec(sql).await;
    let error = follow.error().await;
    assert_eq!(error.kind(), ErrorKind::Halt, "{error}");
    assert!(!error.advice().is_empty());
    error
}

#[tokio::test]
async fn what_rows_do_not_say_is_refused_by_name() {
    let statement = "SET binlog_format = STATEMENT;\nUPDATE shop.t SET v = 'b'";
    let image = "SET binlog_row_image = MINIMAL;\nUPDATE shop.t SET v = 'b'";
    let cut = "CREATE TABLE shop.c (a INT, b VARCHAR(40), PRIMARY KEY (a, b(10)));\n\
        INSERT INTO shop.c VALUES (1, 'x')";
    let xa =
        "XA START 'a';\nUPDATE shop.t SET v = 'b';\nXA END 'a';\nXA PREPARE 'a';\nXA COMMIT 'a'";
    for flavour in Flavour::ALL {
        let error = refused(flavour, statement).await;
        assert!(matches!(error, CaptureError::Statement(_)), "{error}");
        let error = refused(flavour, image).await;
        assert!(matches!(error, CaptureError::PartialImage(_)), "{error}");
        let error = refused(flavour, cut).await;
        assert_eq!(
            error.to_string(),
            "the primary key of shop.c covers only the first part of column b"
        );
    }
    let error = refused(Flavour::MariaDb, xa).await;
    assert!(matches!(error, CaptureError::Xa), "{error}");
}

/// Else a session that begins again would read the same, and ship none of it.
#[tokio::test]
async fn what_was_read_before_an_error_is_given_before_it() {
    let (db, here) = start(Flavour::MariaDb, &[], SHOP).await;
    let inserts: String =
        (0..200).map(|id| format!("INSERT INTO shop.t VALUES ({id}, 'x');\n")).collect();
    db.exec(&format!("{inserts}SET binlog_format = STATEMENT;\nDELETE FROM shop.t")).await;
    let mut follow = Follow::from(&db, here.position);
    let early = tokio::time::timeout(Duration::from_secs(1), follow.ended.join_next()).await;
    assert!(early.is_err(), "it ended before all was taken: {early:?}");
    for _ in 0..200 {
        assert!(matches!(follow.next().await, CaptureEvent::Changes { .. }));
    }
    assert!(matches!(follow.error().await, CaptureError::Statement(_)));
}

#[tokio::test]
async fn a_large_transaction_comes_in_parts_and_an_applied_one_as_its_marks() {
    for flavour in Flavour::ALL {
        let marker = "CREATE DATABASE causeway;\nCREATE TABLE causeway.applied (\
            origin TINYINT UNSIGNED, slot TINYINT UNSIGNED, epoch BIGINT UNSIGNED, \
            seq BIGINT UNSIGNED, hlc BIGINT UNSIGNED, PRIMARY KEY (origin, slot));\n";
        let (db, here) = start(flavour, &[], &format!("{SHOP}{marker}")).await;
        let mut follow = Follow::split(&db, here.position, 100_000);
        let mut sql = String::from("BEGIN;\n");
        for id in 0..40 {
            sql += &format!("INSERT INTO shop.t VALUES ({id}, REPEAT('x', 20000));\n");
        }
        sql += "COMMIT;\nBEGIN;\nINSERT INTO causeway.applied VALUES (2, 0, 3, 18446744073709551615, 5);\n\
            INSERT INTO shop.t VALUES (100, 'y');\nCOMMIT;\nBEGIN;\n\
            INSERT INTO causeway.applied VALUES (0, 0, 0, 1, 5);\n\
            UPDATE shop.t SET v = 'z' WHERE id = 100;\nCOMMIT;\nDELETE FROM shop.t WHERE id = 100";
        db.exec(&sql).await;
        let (mut parts, mut rows) = (0, 0);
        loop {
            let CaptureEvent::Changes { part, last, changes, .. } = follow.next().await else {
                panic!("parts come first");
            };
            assert_eq!(part, parts);
            parts += 1;
            rows += changes.iter().map(|change| change.rows.len()).sum::<usize>();
            if last {
                break;
            }
        }
        assert!(parts >= 7, "{parts}");
        assert_eq!(rows, 40);
        let CaptureEvent::Applied { marks, .. } = follow.next().await else {
            panic!("the marker was not seen");
        };
        let origin = RegionId::new(2).unwrap();
        assert_eq!(marks, [AppliedMark { origin, epoch: 3, seq: Seq(u64::MAX), hlc: Hlc(5) }]);
        let repair = follow.next().await;
        assert!(matches!(repair, CaptureEvent::Applied { marks, .. } if marks.is_empty()));
        assert_eq!(follow.rows().await.1.len(), 1);
    }
}

#[tokio::test]
async fn a_schema_change_is_told_and_rows_after_it_have_the_new_columns() {
    for flavour in Flavour::ALL {
        let (db, here) = start(flavour, &[], SHOP).await;
        let mut follow = Follow::from(&db, here.position);
        db.exec("INSERT INTO shop.t VALUES (1, 'a')").await;
        assert_eq!(follow.rows().await.0.columns.len(), 2);
        let ddl = "CREATE DATABASE other;\nCREATE TABLE other.t (a INT);\n\
            ALTER TABLE other.t ADD b INT;\nALTER TABLE shop.t ADD w INT";
        db.exec(ddl).await;
        let CaptureEvent::Ddl { statement, tables, .. } = follow.next().await else {
            panic!("a schema change was not told");
        };
        assert_eq!(statement, "ALTER TABLE shop.t ADD w INT");
        assert_eq!(tables[0].to_string(), "shop.t");
        db.exec("INSERT INTO shop.t VALUES (2, 'b', 7)").await;
        let (table, rows, _) = follow.rows().await;
        assert_eq!(table.columns[2].name, "w");
        assert_eq!(decoded(rows[0].after.as_ref().unwrap())[2], "7");
    }
}

#[tokio::test]
async fn an_event_may_be_larger_than_the_servers_packets() {
    let (db, here) = start(Flavour::MariaDb, &["--max-allowed-packet=2M"], SHOP).await;
    let mut follow = Follow::from(&db, here.position);
    db.exec("INSERT INTO shop.t VALUES (1, REPEAT('x', 1900000))").await;
    db.exec("UPDATE shop.t SET v = REPEAT('y', 1900000)").await;
    follow.rows().await;
    assert_eq!(follow.rows().await.1.len(), 1);
}

/// What a peer wrote is not read here, so it needs no definition: one altered since
/// stops nothing.
#[tokio::test]
async fn an_applied_transaction_needs_no_definition_of_its_tables() {
    for flavour in Flavour::ALL {
        let marker = "CREATE DATABASE causeway;\nCREATE TABLE causeway.applied (\
            origin TINYINT UNSIGNED, slot TINYINT UNSIGNED, epoch BIGINT UNSIGNED, \
            seq BIGINT UNSIGNED, hlc BIGINT UNSIGNED, PRIMARY KEY (origin, slot));\n";
        let (db, here) = start(flavour, &[], &format!("{SHOP}{marker}")).await;
        db.exec(
            "BEGIN;\nINSERT INTO causeway.applied VALUES (2, 0, 3, 4, 5);\n\
            INSERT INTO shop.t VALUES (1, 'a');\nCOMMIT;\nALTER TABLE shop.t ADD w INT",
        )
        .await;
        let mut follow = Follow::from(&db, here.position);
        assert!(matches!(follow.next().await, CaptureEvent::Applied { .. }));
        assert!(matches!(follow.next().await, CaptureEvent::Ddl { .. }));
    }
}
