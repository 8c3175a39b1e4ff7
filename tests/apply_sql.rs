//! The applier's SQL against the real servers: what is written is what the server
//! itself would have stored, by the row that is meant, once, and fenced.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

#[path = "apply_sql/gate.rs"]
mod gate;
#[path = "apply_sql/session.rs"]
mod session;
#[path = "apply_sql/zoo.rs"]
mod zoo;

use std::time::Duration;

use causeway::apply::{
    ApplyError, DroppedRecords, ErrorKind, Mark, Session, applied, bootstrap, dropped, fences,
    find_writable, take_epoch,
};
use causeway::change::{
    Column, ColumnType, Dot, Dropped, Kind, Place, RegionId, Row, Seq, Table, Value,
};
use causeway::clock::Hlc;
use causeway::resolve::{Found, MergeRow, Number, TablePlan};
use lab::db::{Database, Flavour, Settings};
use mysql_async::prelude::Queryable as _;

const ME: RegionId = RegionId::new(1).unwrap();
const ORIGIN: RegionId = RegionId::new(2).unwrap();

struct Bench {
    db: Database,
    session: Session,
    seq: u64,
}

impl Bench {
    async fn start(flavour: Flavour, more: &[&str]) -> Self {
        let mut settings = Settings::small(flavour, 1);
        settings.more = more.iter().map(|option| (*option).to_owned()).collect();
        let db = Database::start(&settings).await;
        let (opts, flavor, _) = find_writable(&[db.opts()]).await.unwrap();
        let mut conn = db.conn().await;
        bootstrap(&mut conn).await.unwrap();
        bootstrap(&mut conn).await.unwrap();
        // The row that entries of the conflict log wait for each other at.
        assert_eq!(db.number("SELECT COUNT(*) FROM causeway.conflict_head").await, 1);
        let epoch = take_epoch(&mut conn, ME, 0).await.unwrap();
        let session = Session::connect(&opts, flavor, epoch).await.unwrap();
        db.exec("CREATE DATABASE s DEFAULT CHARACTER SET utf8mb4").await;
        Self { db, session, seq: 0 }
    }

    fn mark(&self) -> Mark {
        Mark {
            dot: Dot { origin: ORIGIN, seq: Seq(self.seq) },
            epoch: 1,
            hlc: Hlc(self.seq + 1000),
        }
    }

    fn slot(&self) -> u8 {
        u8::try_from(self.seq % 8).unwrap()
    }

    async fn begin(&mut self, plans: &[TablePlan]) -> Result<(), ApplyError> {
        self.seq += 1;
        let (slot, mark) = (self.slot(), self.mark());
        self.session.begin(slot, &[mark]).await?;
        self.session.write_and_point(plans).await.map(|_| ())
    }

    async fn apply(&mut self, plans: &[TablePlan]) -> Result<(), ApplyError> {
        match self.begin(plans).await {
            Ok(()) => self.session.commit().await,
            Err(error) => {
                self.session.rollback().await.unwrap();
                Err(error)
            }
        }
    }
}

fn column(name: &str, kind: ColumnType, key: u32) -> Column {
    Column { name: name.to_owned(), r#type: kind.into(), key, ..Column::default() }
}

fn text(name: &str, collation: &str, key: u32) -> Column {
    Column { collation: collation.to_owned(), ..column(name, ColumnType::Char, key) }
}

fn table(name: &str, columns: Vec<Column>) -> Table {
    Table { schema: "s".to_owned(), name: name.to_owned(), columns, ..Default::default() }
}

fn int(n: i64) -> Value {
    Value::new(Kind::Int(n))
}

fn bytes(bytes: &[u8]) -> Value {
    Value::new(Kind::Bytes(bytes.to_vec().into()))
}

fn literal(text: &str) -> Value {
    Value::new(Kind::Literal(text.as_bytes().to_vec().into()))
}

fn row(values: Vec<Value>) -> Row {
    Row { values }
}

fn puts(table: &Table, rows: Vec<Row>) -> TablePlan {
    TablePlan { puts: rows, ..TablePlan::new(table.clone()) }
}

fn removes(table: &Table, rows: Vec<Row>) -> TablePlan {
    TablePlan { removes: rows, ..TablePlan::new(table.clone()) }
}

macro_rules! on_all {
    ($($name:ident => $check:path;)*) => {
        mod on_mariadb { $(
            #[tokio::test]
            async fn $name() { Box::pin($check(super::Flavour::MariaDb)).await; }
        )* }
        mod on_mysql_5_6 { $(
            #[tokio::test]
            async fn $name() { Box::pin($check(super::Flavour::MySql56)).await; }
        )* }
        mod on_mysql_5_7 { $(
            #[tokio::test]
            async fn $name() { Box::pin($check(super::Flavour::MySql57)).await; }
        )* }
        mod on_mysql_8_0 { $(
            #[tokio::test]
            async fn $name() { Box::pin($check(super::Flavour::MySql80)).await; }
        )* }
    };
}

on_all! {
    every_type_is_stored_as_the_server_stores_it => super::zoo::round_trip;
    a_delete_finds_its_row_by_any_key_and_locks_no_other => super::zoo::keys;
    character_sets_are_converted_or_refused => super::character_sets;
    further_unique_keys_never_cost_another_row => super::unique_keys;
    a_row_of_nothing_but_sums_is_made_with_zeros => super::zero_sums;
    a_time_that_renews_itself_does_not => super::renewed_times;
    a_row_that_is_missing_shows => super::missing_rows;
    an_older_epoch_writes_nothing => super::fence;
    the_marker_row_comes_first_in_the_binlog => super::marker_first;
    a_lost_commit_is_known_afterwards => super::lost_commit;
    tables_that_differ_are_refused_by_name => super::differences;
    a_plan_larger_than_a_packet_is_sent_in_parts => super::packets;
}

async fn character_sets(flavour: Flavour) {
    let mut b = Bench::start(flavour, &[]).await;
    b.db.exec(
        "CREATE TABLE s.wide (id INT PRIMARY KEY, c VARCHAR(20)) CHARACTER SET utf8mb4;\n\
         CREATE TABLE s.narrow (id INT PRIMARY KEY, c VARCHAR(20)) CHARACTER SET latin1;\n\
         CREATE TABLE s.ucs (id INT PRIMARY KEY, c VARCHAR(20)) CHARACTER SET ucs2;\n",
    )
    .await;
    let shape = |name, collation| {
        table(name, vec![column("id", ColumnType::Int, 1), text("c", collation, 0)])
    };
    let one = |value: &[u8]| vec![row(vec![int(1), bytes(value)])];
    let cases: [(Table, &[u8], &str); 5] = [
        (shape("wide", "latin1_swedish_ci"), b"caf\xe9", "636166C3A9"),
        (shape("narrow", "utf8mb4_general_ci"), "café".as_bytes(), "636166E9"),
        (shape("narrow", "utf8_general_ci"), "café".as_bytes(), "636166E9"),
        (shape("ucs", "utf8mb4_bin"), "é'".as_bytes(), "00E90027"),
        (shape("wide", "ucs2_general_ci"), b"\x00\xe9\x00'\x00\\", "C3A9275C"),
    ];
    for (shape, value, expected) in cases {
        b.apply(&[puts(&shape, one(value))]).await.unwrap();
        let stored: Vec<String> = b.db.rows(&format!("SELECT HEX(c) FROM s.{}", shape.name)).await;
        assert_eq!(stored, [expected], "{shape:?}");
    }
    let error = b.apply(&[puts(&shape("narrow", "utf8mb4_bin"), one("💶".as_bytes()))]).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Row);
    assert!(error.to_string().contains("column c"), "{error}");
}

async fn unique_keys(flavour: Flavour) {
    let mut b = Bench::start(flavour, &[]).await;
    b.db.exec(
        "CREATE TABLE s.u (id INT PRIMARY KEY, mail VARCHAR(20), UNIQUE mail (mail));\n\
         INSERT INTO s.u VALUES (1,'a'),(2,'b'),(3,'c');\n",
    )
    .await;
    let shape =
        table("u", vec![column("id", ColumnType::Int, 1), text("mail", "utf8mb4_general_ci", 0)]);
    let put = |id, mail: &str| row(vec![int(id), bytes(mail.as_bytes())]);
    b.apply(&[puts(&shape, vec![put(1, "b"), put(2, "a")])]).await.unwrap();
    let all = "SELECT CONCAT(id, mail) FROM s.u ORDER BY id";
    assert_eq!(b.db.rows::<String>(all).await, ["1b", "2a", "3c"]);
    let error = b.apply(&[puts(&shape, vec![put(4, "secret"), put(5, "c")])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Row);
    let text = error.to_string();
    assert!(text.contains("1062") && text.contains("key mail") && text.contains("s.u"), "{text}");
    assert_eq!(b.db.rows::<String>(all).await, ["1b", "2a", "3c"]);
    b.db.exec("ALTER TABLE s.u ADD mine INT NOT NULL DEFAULT 7").await;
    b.session.forget_tables();
    // Its author had seen no other value than the default.
    b.db.exec("UPDATE s.u SET mine = 8").await;
    b.apply(&[puts(&shape, vec![put(1, "z")])]).await.unwrap();
    let all = "SELECT CONCAT(id, mail, mine) FROM s.u ORDER BY id";
    assert_eq!(b.db.rows::<String>(all).await, ["1z7", "2a8", "3c8"]);
}

/// An account begins at 0: its key and a sum, and nothing to set or to add.
async fn zero_sums(flavour: Flavour) {
    let mut b = Bench::start(flavour, &[]).await;
    b.db.exec("CREATE TABLE s.account (id INT PRIMARY KEY, cents BIGINT NOT NULL)").await;
    let shape = table(
        "account",
        vec![column("id", ColumnType::Int, 1), column("cents", ColumnType::Bigint, 0)],
    );
    let merge = |id, cents, insert| MergeRow {
        row: row(vec![int(id), int(cents)]),
        insert,
        set: vec![],
        add: vec![],
    };
    let plan = |merges| TablePlan { merges, ..TablePlan::new(shape.clone()) };
    b.apply(&[plan(vec![merge(1, 0, true), merge(2, 7, false)])]).await.unwrap();
    b.db.exec("UPDATE s.account SET cents = 5").await;
    b.apply(&[plan(vec![merge(1, 0, true)])]).await.unwrap();
    let all = "SELECT CONCAT(id, ' ', cents) FROM s.account";
    assert_eq!(b.db.rows::<String>(all).await, ["1 5"], "made once, and added nothing");
}

/// A column that the server itself sets when another changes holds what its author left in
/// it, or what stands here.
async fn renewed_times(flavour: Flavour) {
    let mut b = Bench::start(flavour, &[]).await;
    b.db.exec(
        "CREATE TABLE s.stock (id INT PRIMARY KEY, n INT NOT NULL, at DATETIME NOT NULL \
         DEFAULT '2001-01-01 00:00:00' ON UPDATE CURRENT_TIMESTAMP, \
         mine TIMESTAMP NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP)",
    )
    .await;
    b.db.exec("INSERT INTO s.stock (id, n) VALUES (1, 5)").await;
    let shape = table(
        "stock",
        vec![
            column("id", ColumnType::Int, 1),
            column("n", ColumnType::Int, 0),
            column("at", ColumnType::Datetime, 0),
        ],
    );
    let at = |text: &str| Value::new(Kind::Literal(text.to_owned().into()));
    let merge = |set: &[usize], time| MergeRow {
        row: row(vec![int(1), int(4), at(time)]),
        insert: false,
        set: set.to_vec(),
        add: vec![(1, Number::of(&int(-1)).unwrap())],
    };
    let all = "SELECT CONCAT_WS(' ', n, at, IFNULL(mine, '-')) FROM s.stock";
    for (set, wanted) in [(&[][..], "4 2001-01-01 00:00:00 -"), (&[2], "3 2002-02-02 02:02:02 -")] {
        let merges = vec![merge(set, "2002-02-02 02:02:02")];
        b.apply(&[TablePlan { merges, ..TablePlan::new(shape.clone()) }]).await.unwrap();
        assert_eq!(b.db.rows::<String>(all).await, [wanted]);
    }
}

/// The server's count of rows says whether a row was there, of one row and of many, also
/// where it was as it will be.
async fn missing_rows(flavour: Flavour) {
    let mut b = Bench::start(flavour, &[]).await;
    b.db.exec(
        "CREATE TABLE s.t (id INT PRIMARY KEY, n INT);\n\
         CREATE TABLE s.u (id INT PRIMARY KEY, n INT UNIQUE);\n",
    )
    .await;
    let columns = || vec![column("id", ColumnType::Int, 1), column("n", ColumnType::Int, 0)];
    let with = |id, n| row(vec![int(id), int(n)]);
    let (two, many) = ([with(1, 10), with(2, 99)], (1..=1_500).map(|id| with(id, id + 1)));
    let cases = [two[..1].to_vec(), two[1..].to_vec(), two.to_vec(), many.collect::<Vec<_>>()];
    for (name, rows) in ["t", "u"].into_iter().flat_map(|name| cases.each_ref().map(|c| (name, c)))
    {
        let rows = || rows.clone();
        let none = TablePlan::new(table(name, columns()));
        let all = rows().len();
        let merge = |row: Row| {
            let add = vec![(1, Number::of(&int(1)).unwrap())];
            MergeRow { row, insert: false, set: vec![], add }
        };
        let mut plans = vec![
            TablePlan {
                removes: rows(),
                found: Found { removes: all, ..none.found },
                ..none.clone()
            },
            TablePlan { puts: rows(), found: Found { puts: all, ..none.found }, ..none.clone() },
        ];
        if name == "t" {
            let merged = rows().into_iter().map(merge).collect();
            let found = Found { merges: all, ..none.found };
            plans.push(TablePlan { merges: merged, found, ..none.clone() });
        }
        for plan in plans {
            for missing in [None, Some(1), Some(2), Some(1_400)] {
                b.db.exec(&format!("DELETE FROM s.{name}")).await;
                b.apply(&[puts(&none.table, (1..=1_500).map(|id| with(id, id * 10)).collect())])
                    .await
                    .unwrap();
                if let Some(id) = missing {
                    b.db.exec(&format!("DELETE FROM s.{name} WHERE id = {id}")).await;
                }
                let (slot, mark) = (b.slot(), b.mark());
                b.session.begin(slot, &[mark]).await.unwrap();
                let (_, found) =
                    b.session.write_and_count(std::slice::from_ref(&plan)).await.unwrap();
                b.session.rollback().await.unwrap();
                let gone =
                    plan.found().any(|row| Some(&row.values[0]) == missing.map(int).as_ref());
                assert_eq!(found, !gone, "{name} {missing:?} of {all} rows");
                // What is not known to be there is not looked for.
                let plan = TablePlan { found: none.found, ..plan.clone() };
                b.session.begin(slot, &[mark]).await.unwrap();
                assert!(b.session.write_and_count(&[plan]).await.unwrap().1);
                b.session.rollback().await.unwrap();
            }
        }
    }
}

async fn fence(flavour: Flavour) {
    let mut b = Bench::start(flavour, &[]).await;
    b.db.exec("CREATE TABLE s.t (id INT PRIMARY KEY, epoch INT NOT NULL)").await;
    let shape =
        table("t", vec![column("id", ColumnType::Int, 1), column("epoch", ColumnType::Int, 0)]);
    let null = b.apply(&[puts(&shape, vec![row(vec![int(1), Value::NULL])])]).await.unwrap_err();
    assert_eq!(null.kind(), ErrorKind::Row, "{null}");
    b.apply(&[puts(&shape, vec![row(vec![int(1), int(1)])])]).await.unwrap();
    let plan = [puts(&shape, vec![row(vec![int(2), int(1)])])];
    b.begin(&plan).await.unwrap();
    // The take-over waits for the batch in flight.
    let mut conn = b.db.conn().await;
    let (took, ()) = tokio::join!(take_epoch(&mut conn, ME, 0), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        b.session.commit().await.unwrap();
    });
    let before = took.unwrap();
    let plan = [puts(&shape, vec![row(vec![int(3), int(1)])])];
    assert!(matches!(b.apply(&plan).await, Err(ApplyError::Fenced(_))));
    assert_eq!(b.db.number("SELECT COUNT(*) FROM s.t").await, 2);
    let known = applied(&mut conn).await.unwrap();
    assert_eq!(known[&ORIGIN], (Place { epoch: 1, seq: Seq(3) }, Hlc(1003)));
    assert_eq!(take_epoch(&mut conn, ME, 0).await.unwrap(), before + 1);
    let taken = &fences(&mut conn, 1).await.unwrap()[0];
    assert_eq!((taken.origin, taken.ended, taken.begun), (ME.get(), before, before + 1));
    assert_eq!(taken.dropped, None);
    // A reader that begins again drops the same again, and more.
    for (last, records) in [(9, 2), (12, 5), (9, 2)] {
        let (first, last) = (Seq(8), Seq(last));
        let run = Dropped { ended: 3, begun: 4, first, last, records };
        dropped(&mut conn, ORIGIN, &run).await.unwrap();
    }
    let held = fences(&mut conn, 2).await.unwrap();
    let run = DroppedRecords { first_seq: 8, last_seq: 12, records: 5 };
    assert_eq!((held[0].origin, held[0].dropped), (ORIGIN.get(), Some(run)));
    assert_eq!(held[1], *taken);
}

async fn marker_first(flavour: Flavour) {
    let mut b = Bench::start(flavour, &[]).await;
    b.db.exec("CREATE TABLE s.t (id INT PRIMARY KEY)").await;
    let shape = table("t", vec![column("id", ColumnType::Int, 1)]);
    b.apply(&[puts(&shape, vec![row(vec![int(1)])])]).await.unwrap();
    b.apply(&[removes(&shape, vec![row(vec![int(1)])])]).await.unwrap();
    let events: Vec<(String, u64, String, u64, u64, String)> =
        b.db.rows("SHOW BINLOG EVENTS IN 'bin.000001'").await;
    let mut maps: Vec<&str> = Vec::new();
    for event in &events {
        match &*event.2 {
            "Gtid" | "Query" if event.5.starts_with("BEGIN") => maps.push("begin"),
            "Annotate_rows" => maps.push("statement"),
            "Table_map" if event.5.contains("causeway.applied") => maps.push("marker"),
            "Table_map" if event.5.contains("(s.t)") => maps.push("row"),
            _ => {}
        }
    }
    let last: Vec<_> = maps.iter().rev().take(6).rev().copied().collect();
    assert_eq!(last, ["begin", "marker", "row", "begin", "marker", "row"]);
}

async fn lost_commit(flavour: Flavour) {
    let mut b = Bench::start(flavour, &[]).await;
    b.db.exec("CREATE TABLE s.t (id INT PRIMARY KEY)").await;
    let shape = table("t", vec![column("id", ColumnType::Int, 1)]);
    let plan = |id| [puts(&shape, vec![row(vec![int(id)])])];
    b.apply(&plan(1)).await.unwrap();
    let dot = |b: &Bench| Dot { origin: ORIGIN, seq: Seq(b.seq) };
    let slot = b.slot();
    assert!(b.session.was_committed(slot, dot(&b)).await.unwrap());

    b.begin(&plan(2)).await.unwrap();
    b.db.crash().await;
    let error = b.session.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    let slot = b.slot();
    assert!(!b.session.was_committed(slot, dot(&b)).await.unwrap());
    b.apply(&plan(2)).await.unwrap();
    assert_eq!(b.db.number("SELECT COUNT(*) FROM s.t").await, 2);
}

async fn differences(flavour: Flavour) {
    let mut b = Bench::start(flavour, &[]).await;
    b.db.exec(
        "SET NAMES utf8mb4;\n\
         CREATE TABLE s.t (id INT PRIMARY KEY, c VARCHAR(3), \
         e ENUM('a','b''c','d'), l ENUM('é','x') CHARACTER SET latin1);\n\
         CREATE TABLE s.cut (id VARCHAR(40), PRIMARY KEY (id(10)));\n",
    )
    .await;
    let id = || column("id", ColumnType::Int, 1);
    let labels = |name: &str, collation: &str, labels: &[&[u8]]| Column {
        labels: labels.iter().map(|label| label.to_vec().into()).collect(),
        collation: collation.to_owned(),
        ..column(name, ColumnType::Enum, 0)
    };
    let mut check = async |columns: Vec<Column>, value: Value, expected: Option<&str>| {
        let shape = table("t", columns);
        let result = b.apply(&[puts(&shape, vec![row(vec![int(1), value])])]).await;
        match (result, expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => {
                assert_eq!(error.kind(), ErrorKind::Row);
                assert!(error.to_string().contains(expected), "{error}");
            }
            (result, expected) => panic!("{result:?} is not {expected:?}"),
        }
    };
    let collation = "utf8mb4_general_ci";
    check(vec![id(), text("nope", collation, 0)], bytes(b"x"), Some("column nope")).await;
    check(vec![id(), text("c", collation, 0)], bytes(b"abcd"), Some("column c")).await;
    check(vec![id(), text("C", collation, 0)], bytes(b"abc"), None).await;
    check(vec![id(), column("c", ColumnType::Int, 0)], int(5), Some("type of column c")).await;
    check(vec![id(), column("e", ColumnType::Enum, 0)], Value::new(Kind::Uint(1)), None).await;
    let two = Value::new(Kind::Uint(2));
    let e: [&[u8]; 2] = [b"a", b"b'c"];
    check(vec![id(), labels("e", collation, &e)], two.clone(), None).await;
    let e: [&[u8]; 2] = [b"b'c", b"a"];
    check(vec![id(), labels("e", collation, &e)], two.clone(), Some("labels")).await;
    let l: [&[u8]; 2] = [b"\xe9", b"x"];
    check(vec![id(), labels("l", "latin1_swedish_ci", &l)], two.clone(), None).await;
    let l: [&[u8]; 2] = [b"\xe8", b"x"];
    check(vec![id(), labels("l", "latin1_swedish_ci", &l)], two, Some("labels")).await;
    check(vec![id(), text("c", "x'; DROP", 0)], bytes(b"x"), Some("character set")).await;
    let shape = table("missing", vec![id()]);
    let error = b.apply(&[puts(&shape, vec![row(vec![int(1)])])]).await.unwrap_err();
    assert!(matches!(error, ApplyError::MissingTable(_)), "{error}");
    let shape = table("cut", vec![text("id", collation, 1)]);
    let error = b.apply(&[puts(&shape, vec![row(vec![bytes(b"x")])])]).await.unwrap_err();
    assert!(matches!(error, ApplyError::CutKey(_)) && error.is_unfit(), "{error}");
    let shape = table("t", vec![column("id", ColumnType::Int, 1), text("c", collation, 2)]);
    let error = b.apply(&[puts(&shape, vec![row(vec![int(1), bytes(b"x")])])]).await.unwrap_err();
    assert!(error.to_string().contains("primary key"), "{error}");
}

async fn packets(flavour: Flavour) {
    let mut b = Bench::start(flavour, &["--max-allowed-packet=1M"]).await;
    b.db.exec("CREATE TABLE s.big (id INT PRIMARY KEY, c LONGBLOB)").await;
    let blob = Column { collation: "binary".into(), ..column("c", ColumnType::Blob, 0) };
    let shape = table("big", vec![column("id", ColumnType::Int, 1), blob]);
    let value: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let rows: Vec<Row> = (0..40).map(|id| row(vec![int(id), bytes(&value)])).collect();
    b.apply(&[puts(&shape, rows.clone())]).await.unwrap();
    let whole = "SELECT COUNT(*) FROM s.big WHERE LENGTH(c) = 100000";
    assert_eq!(b.db.number(whole).await, 40);
    b.apply(&[removes(&shape, rows)]).await.unwrap();
    assert_eq!(b.db.number("SELECT COUNT(*) FROM s.big").await, 0);
    let huge = vec![row(vec![int(1), bytes(&vec![b'x'; 1 << 21])])];
    let error = b.apply(&[puts(&shape, huge)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Row, "{error}");
    assert!(error.advice().contains("max_allowed_packet"), "{error}");
    b.apply(&[puts(&shape, vec![row(vec![int(1), bytes(b"x")])])]).await.unwrap();
}
