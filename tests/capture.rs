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

#[path = "capture/definitions.rs"]
mod definitions;

use std::sync::Arc;
use std::time::Duration;

use causeway::capture::{
    AppliedMark, CaptureConfig, CaptureError, CaptureEvent, Checkpoint, ErrorKind, current, run,
};
use causeway::change::{Column, ColumnType, Kind, Position, RegionId, Row, RowChange, Seq, Table};
use causeway::clock::Hlc;
use lab::db::{Database, Flavour, Settings};
use mysql_async::prelude::Queryable as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const WAIT: Duration = lab::PATIENCE;
const SHOP: &str = "CREATE DATABASE shop CHARACTER SET utf8mb4;\n\
    CREATE TABLE shop.t (id INT PRIMARY KEY, v LONGBLOB);\n";

/// A reader of one server's binlog.
struct Follow {
    events: mpsc::Receiver<CaptureEvent>,
    ended: JoinSet<Result<(), CaptureError>>,
}

impl Follow {
    fn from(db: &Database, from: Position) -> Self {
        Self::split(db, from, 1 << 30)
    }

    fn split(db: &Database, from: Position, part_bytes: usize) -> Self {
        let (sender, events) = mpsc::channel(64);
        let config = CaptureConfig {
            opts: db.opts(),
            server_id: 4711,
            from,
            part_bytes,
            replicates: Arc::new(|schema, _| schema == "shop"),
        };
        let mut ended = JoinSet::new();
        ended.spawn(run(config, sender, CancellationToken::new()));
        Self { events, ended }
    }

    /// The next event that is not of something else.
    async fn next(&mut self) -> CaptureEvent {
        loop {
            let event = tokio::time::timeout(WAIT, self.events.recv()).await.unwrap();
            match event {
                Some(CaptureEvent::Skipped { .. }) => {}
                Some(event) => return event,
                None => panic!("capture ended: {:?}", self.ended.join_next().await),
            }
        }
    }

    async fn rows(&mut self) -> (Table, Vec<RowChange>, Checkpoint) {
        match self.next().await {
            CaptureEvent::Changes { mut changes, after, last: true, part: 0, .. } => {
                assert_eq!(changes.len(), 1);
                let change = changes.remove(0);
                (change.table.unwrap(), change.rows, after)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Reads on until capture stops.
    async fn error(mut self) -> CaptureError {
        while tokio::time::timeout(WAIT, self.events.recv()).await.unwrap().is_some() {}
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

const ZOO: &str = "CREATE TABLE shop.zoo (id INT PRIMARY KEY, tag INT NOT NULL DEFAULT 0,
    t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, su SMALLINT UNSIGNED, m MEDIUMINT,
    mu MEDIUMINT UNSIGNED, i INT, iu INT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED,
    d1 DECIMAL(65,30), d2 DECIMAL(5,0), d3 DECIMAL(10,10), d4 DECIMAL(18,9) UNSIGNED,
    f FLOAT, d DOUBLE, b1 BIT(1), b9 BIT(9), b64 BIT(64), y YEAR, da DATE,
    t0 TIME, t2 TIME(2), t3 TIME(3), t6 TIME(6), dt0 DATETIME, dt1 DATETIME(1), dt6 DATETIME(6),
    ts0 TIMESTAMP NULL, ts3 TIMESTAMP(3) NULL, ts6 TIMESTAMP(6) NULL,
    c CHAR(10), cl CHAR(255) CHARACTER SET latin1, cu CHAR(100), vs VARCHAR(20),
    vl VARCHAR(3000), vlat VARCHAR(20) CHARACTER SET latin1, bi BINARY(8), bi255 BINARY(255),
    vb VARBINARY(20), tt TINYTEXT, tx TEXT, mt MEDIUMTEXT, lt LONGTEXT, tb TINYBLOB, bl BLOB,
    mb MEDIUMBLOB, lb LONGBLOB, e ENUM('a','b''c','ü'), st SET('x','y','z'), g GEOMETRY, p POINT";

fn zoo_values() -> String {
    let row = |id: u8, values: &str| format!("INSERT INTO shop.zoo VALUES ({id}, 0, {values})");
    let least = "-128, 0, -32768, 0, -8388608, 0, -2147483648, 0, -9223372036854775808, 0,
        -99999999999999999999999999999999999.999999999999999999999999999999, -99999, -0.9999999999,
        0, -3.4e38, -1.7e308, 0, 0, 0, 0, '0000-00-00', '-838:59:59', '-00:00:00.01',
        '-838:59:58.999', '-00:00:00.000001', '0000-00-00 00:00:00', '1000-01-01 00:00:00.1',
        '0000-00-00 00:00:00', '0000-00-00 00:00:00', '1970-01-01 00:00:01.001',
        '0000-00-00 00:00:00', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '',
        'a', '', POINT(0, 0), POINT(-1.5, 2)";
    let most = "127, 255, 32767, 65535, 8388607, 16777215, 2147483647, 4294967295,
        9223372036854775807, 18446744073709551615,
        99999999999999999999999999999999999.999999999999999999999999999999, 99999, 0.9999999999,
        999999999.999999999, 3.4e38, 1.7e308, 1, 511, 18446744073709551615, 2155, '9999-12-31',
        '838:59:59', '12:34:56.78', '-12:34:56.789', '838:59:58.999999', '9999-12-31 23:59:59',
        '2024-02-29 12:34:56.7', '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07',
        '2000-02-29 23:59:59.999', '2024-12-31 23:59:59.123456', 'schön 😀 ', 'naïve é',
        REPEAT('😀', 100), 'ünïcødé 😀', REPEAT('я', 3000), 'é', x'0102000000000000',
        x'FF00', x'00AA0000', 'tiny', REPEAT('text ', 500), REPEAT('😀', 20000),
        REPEAT('l', 70000), x'00', x'FF00FF', REPEAT(x'00', 70000), REPEAT(x'FE', 100), 'ü',
        'x,z', LINESTRING(POINT(1, 2), POINT(3.25, -4)), POINT(1e10, -1e-10)";
    let odd = "-1, 128, -1, 32768, -1, 8388608, -1, 2147483648, -1, 9223372036854775808,
        0.000000000000000000000000000001, 7, 0.1, 123456789.000000001, 0.1, 0.1, 1, 256,
        9223372036854775808, 1901, '2024-00-00', '00:00:00', '-01:00:00.10', '-00:00:01.500',
        '-01:02:03.040506', '2024-01-00 00:00:00', '1000-01-01 00:00:00', '2024-06-15 01:02:03.04',
        '1970-01-01 00:00:01', '1999-12-31 23:59:59.5', '2001-09-09 01:46:40.000001', 'A  ',
        'x', 'y', 'trailing  ', 'z', 'z ', x'0000000000000000', x'01', x'', 'a', 'b', 'c', 'd',
        'e', 'f', 'g', 'h', 'b''c', 'x,y,z', POINT(1, 1), POINT(0, 0)";
    let nulls = vec!["NULL"; 52].join(", ");
    [row(1, least), row(2, most), row(3, odd), row(4, &nulls)].join(";\n")
}

async fn zoo(flavour: Flavour, more: &[&str], last: &str) {
    let create = format!("{SHOP}SET sql_mode = '', time_zone = '+00:00';\n{ZOO}{last})");
    let (db, here) = start(flavour, more, &create).await;
    let mut values = zoo_values();
    if last.contains("GENERATED") {
        values = values.replace("VALUES", "(id, tag, COLUMNS) VALUES");
        let table = db.rows::<(String,)>(
            "SELECT GROUP_CONCAT(column_name ORDER BY ordinal_position) FROM \
             information_schema.columns WHERE table_schema = 'shop' AND table_name = 'zoo' \
             AND ordinal_position BETWEEN 3 AND 54",
        );
        values = values.replace("COLUMNS", &table.await[0].0);
    }
    let mut follow = Follow::from(&db, here.position);
    let session = "SET sql_mode = '', time_zone = '+00:00', NAMES utf8mb4;\n";
    db.exec(&format!("{session}BEGIN;\n{values};\nCOMMIT")).await;
    let (table, rows, _) = follow.rows().await;
    let wanted = selected(&db, &table).await;
    assert_eq!(wanted.len(), 4);
    check(&table, &wanted, rows.iter().map(|row| row.after.as_ref().unwrap()));
    // The same again as before images; a change of one column keeps the others.
    db.exec(&format!("{session}UPDATE shop.zoo SET tag = 1 ORDER BY id")).await;
    let (table, rows, _) = follow.rows().await;
    check(&table, &wanted, rows.iter().map(|row| row.before.as_ref().unwrap()));
    let wanted = selected(&db, &table).await;
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

const MARIADB_MORE: &str = ", j JSON, gv INT GENERATED ALWAYS AS (i + 1) VIRTUAL, \
    gs VARCHAR(40) GENERATED ALWAYS AS (CONCAT(vs, '!')) STORED";

#[tokio::test]
async fn every_mariadb_type_is_what_the_server_selects() {
    zoo(Flavour::MariaDb, &[], MARIADB_MORE).await;
}

#[tokio::test]
async fn compressed_mariadb_events_are_read() {
    let more = ["--log-bin-compress=1", "--log-bin-compress-min-len=10"];
    zoo(Flavour::MariaDb, &more, MARIADB_MORE).await;
}

#[tokio::test]
async fn mariadb_without_metadata_is_read_by_its_catalog() {
    let more = ["--binlog-row-metadata=NO_LOG", "--binlog-checksum=NONE"];
    zoo(Flavour::MariaDb, &more, MARIADB_MORE).await;
}

#[tokio::test]
async fn every_mysql_type_is_what_the_server_selects() {
    zoo(Flavour::MySql56, &[], "").await;
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
    resumes(Flavour::MySql56).await;
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
    purged(Flavour::MySql56).await;
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
    let xa =
        "XA START 'a';\nUPDATE shop.t SET v = 'b';\nXA END 'a';\nXA PREPARE 'a';\nXA COMMIT 'a'";
    for flavour in [Flavour::MariaDb, Flavour::MySql56] {
        let error = refused(flavour, statement).await;
        assert!(matches!(error, CaptureError::Statement(_)), "{error}");
        let error = refused(flavour, image).await;
        assert!(matches!(error, CaptureError::PartialImage(_)), "{error}");
    }
    let error = refused(Flavour::MariaDb, xa).await;
    assert!(matches!(error, CaptureError::Xa), "{error}");
}

#[tokio::test]
async fn a_large_transaction_comes_in_parts_and_an_applied_one_as_its_marks() {
    for flavour in [Flavour::MariaDb, Flavour::MySql56] {
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
            INSERT INTO shop.t VALUES (100, 'y');\nCOMMIT;\nDELETE FROM shop.t WHERE id = 100";
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
        assert_eq!(follow.rows().await.1.len(), 1);
    }
}

#[tokio::test]
async fn a_schema_change_is_told_and_rows_after_it_have_the_new_columns() {
    for flavour in [Flavour::MariaDb, Flavour::MySql56] {
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
    for flavour in [Flavour::MariaDb, Flavour::MySql56] {
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
