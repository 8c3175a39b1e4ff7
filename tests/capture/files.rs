//! The end of a MariaDB's binlog, read from its files.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use causeway::capture::{CaptureEvent, ErrorKind, Files, current};
use causeway::change::Position;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lab::db::{Database, Flavour};
use super::lab::proc::Folder;
use super::lab::{root, wait_until};
use super::{Follow, SHOP, WAIT, start};

/// A reader that goes over to the files of `dir`.
fn follow(db: &Database, dir: &Path, from: Position, part_bytes: usize) -> (Follow, Files) {
    let files = Files { dir: dir.to_owned(), in_use: Arc::default() };
    (Follow::reading(Some(files.clone()), db.opts(), from, part_bytes), files)
}

/// The next events: a transaction's name, part, whether it is the last, and its rows.
async fn told(follow: &mut Follow, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(match follow.next().await {
            CaptureEvent::Changes { gtid, part, last, changes, .. } => {
                let rows: usize = changes.iter().map(|change| change.rows.len()).sum();
                format!("{gtid} {part} {last} {rows}")
            }
            other => format!("{other:?}"),
        });
    }
    told
}

/// Writes until the files are read: they have to be seen to grow by what the server sends.
async fn in_use(db: &Database, files: &Files) {
    db.exec("CREATE DATABASE IF NOT EXISTS other").await;
    db.exec("CREATE TABLE IF NOT EXISTS other.t (id SERIAL)").await;
    wait_until("the files are read", WAIT, || async {
        db.exec("INSERT INTO other.t VALUES ()").await;
        files.in_use.load(Ordering::Relaxed)
    })
    .await;
}

/// Ten transactions, one of many parts among them, in files that end meanwhile.
async fn write(db: &Database, first: u32) {
    for id in first..first + 10 {
        db.exec(&format!("INSERT INTO shop.t VALUES ({id}, REPEAT('x', 100))")).await;
        if id % 4 == 0 {
            db.exec("FLUSH BINARY LOGS").await;
        }
        if id % 5 == 0 {
            // An event larger than what is read at once, and smaller ones.
            db.exec(&format!(
                "INSERT INTO shop.t VALUES ({id} + 1000, REPEAT('y', 700000));\n\
                 UPDATE shop.t SET v = REPEAT('z', 30000) WHERE id < 1000"
            ))
            .await;
        }
    }
    db.exec("ALTER TABLE shop.t ADD c INT").await;
    db.exec("ALTER TABLE shop.t DROP c").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_tell_what_the_server_sends() {
    check(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_without_checksums_are_read_too() {
    check(&["--binlog-checksum=NONE"]).await;
}

async fn check(extra: &[&str]) {
    let (db, here) = start(Flavour::MariaDb, extra, SHOP).await;
    let (mut from_files, files) = follow(&db, &db.data(), here.position.clone(), 40_000);
    db.exec("INSERT INTO shop.t VALUES (1, 'a')").await;
    let mut seen = told(&mut from_files, 1).await;
    in_use(&db, &files).await;
    write(&db, 10).await;
    // Up to the last of it.
    db.exec("INSERT INTO shop.t VALUES (5000, 'b')").await;
    let mut sent = Follow::split(&db, here.position, 40_000);
    let mut expected: Vec<String> = Vec::new();
    while expected.last().is_none_or(|last| !ends(last, &expected)) {
        expected.extend(told(&mut sent, 1).await);
    }
    seen.extend(told(&mut from_files, expected.len() - 1).await);
    assert_eq!(seen, expected);
    assert!(files.in_use.load(Ordering::Relaxed));
    assert!(expected.iter().any(|told| told.contains(" 2 true ")), "{expected:?}");
    // What comes later is told at once, and not when the server is asked again.
    let start = Instant::now();
    for id in 5001..5006 {
        db.exec(&format!("INSERT INTO shop.t VALUES ({id}, 'c')")).await;
        told(&mut from_files, 1).await;
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    // A new file says anew whether its events have checksums.
    for (id, checksum) in (5010..).zip(["NONE", "CRC32", "NONE"]) {
        db.exec(&format!("SET GLOBAL binlog_checksum = {checksum}")).await;
        db.exec(&format!("INSERT INTO shop.t VALUES ({id}, 'd')")).await;
        told(&mut from_files, 1).await;
    }
    sent.stop().await;
    let senders =
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND = 'Binlog Dump'";
    wait_until("the server sends no more", WAIT, || async {
        db.exec("INSERT INTO other.t VALUES ()").await;
        db.number(senders).await == 0
    })
    .await;
    assert!(files.in_use.load(Ordering::Relaxed));
}

/// Whether two schema changes are there, and a row after them.
fn ends(last: &str, all: &[String]) -> bool {
    all.iter().filter(|told| told.starts_with("Ddl")).count() == 2 && last.ends_with("0 true 1")
}

/// Transactions of three clients, some of them in many packets, until `stop`.
fn load(db: &Database) -> (JoinSet<()>, CancellationToken) {
    let (mut clients, stop) = (JoinSet::new(), CancellationToken::new());
    for client in 0..3 {
        let (opts, stop) = (db.opts(), stop.clone());
        clients.spawn(async move {
            let mut conn = Conn::new(opts).await.unwrap();
            for n in 0.. {
                let row =
                    |k: u32| format!("({}, REPEAT('{k}', {}))", 10 * k + client, 100 * (n % 9));
                let rows: Vec<String> = (0..1 + n % 60).map(row).collect();
                let sql = format!("REPLACE INTO shop.t VALUES {}", rows.join(", "));
                conn.query_drop(sql).await.unwrap();
                if stop.is_cancelled() {
                    break;
                }
            }
        });
    }
    (clients, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_where_it_goes_over() {
    let (db, mut here) = start(Flavour::MariaDb, &[], SHOP).await;
    for round in 0..5 {
        let (mut clients, stop) = load(&db);
        let (mut reader, files) = follow(&db, &db.data(), here.position.clone(), 1 << 30);
        let mut seen = Vec::new();
        while !files.in_use.load(Ordering::Relaxed) || seen.len() < 100 {
            seen.extend(told(&mut reader, 1).await);
        }
        stop.cancel();
        while clients.join_next().await.is_some() {}
        db.exec(&format!("INSERT INTO shop.t VALUES ({round} + 100000, 'end')")).await;
        let last = current(&mut db.conn().await).await.unwrap();
        let is_last = |told: &String| told.starts_with(&format!("{} ", last.position.0));
        while !seen.last().is_some_and(is_last) {
            seen.extend(told(&mut reader, 1).await);
        }
        reader.stop().await;
        let mut sent = Follow::from(&db, here.position);
        assert_eq!(told(&mut sent, seen.len()).await, seen, "round {round}");
        sent.stop().await;
        here = last;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_died_is_read_on_from_the_server_and_then_from_files() {
    let (mut db, here) = start(Flavour::MariaDb, &[], SHOP).await;
    let (mut reader, files) = follow(&db, &db.data(), here.position, 1 << 30);
    db.exec("INSERT INTO shop.t VALUES (1, 'a')").await;
    let (_, _, after) = reader.rows().await;
    in_use(&db, &files).await;
    db.crash().await;
    let error = reader.error().await;
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    let (mut reader, files) = follow(&db, &db.data(), after.position, 1 << 30);
    for id in 2..5 {
        db.exec(&format!("INSERT INTO shop.t VALUES ({id}, 'a')")).await;
        reader.rows().await;
    }
    in_use(&db, &files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binlog_that_is_begun_anew_ends_the_reading() {
    let (db, here) = start(Flavour::MariaDb, &[], SHOP).await;
    let (reader, files) = follow(&db, &db.data(), here.position, 1 << 30);
    in_use(&db, &files).await;
    db.exec("RESET MASTER").await;
    let error = reader.error().await;
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_the_server_has_not_seen_stays_the_server_s_to_judge() {
    let (db, here) = start(Flavour::MariaDb, &[], SHOP).await;
    let from = Position(format!("{},77-7-7", here.position.0));
    let (mut reader, files) = follow(&db, &db.data(), from, 1 << 30);
    for id in 1..20 {
        db.exec(&format!("INSERT INTO shop.t VALUES ({id}, 'a')")).await;
        reader.rows().await;
    }
    assert!(!files.in_use.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_went_wrong_are_left_alone_for_a_while() {
    let (mut db, here) = start(Flavour::MariaDb, &[], SHOP).await;
    let (reader, files) = follow(&db, &db.data(), here.position.clone(), 1 << 30);
    in_use(&db, &files).await;
    db.crash().await;
    reader.error().await;
    let mut reader = Follow::reading(Some(files.clone()), db.opts(), here.position, 1 << 30);
    for id in 1..20 {
        db.exec(&format!("INSERT INTO shop.t VALUES ({id}, 'a')")).await;
        reader.rows().await;
    }
    assert!(!files.in_use.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_another_server_are_not_read() {
    let (db, here) = start(Flavour::MariaDb, &[], SHOP).await;
    // Its files may begin with the same bytes.
    let (other, _) = start(Flavour::MariaDb, &[], SHOP).await;
    let nothing = Folder::new("nothing");
    let mut from = here.position;
    for dir in [other.data(), nothing.path().to_owned()] {
        let (mut reader, files) = follow(&db, &dir, from, 1 << 30);
        for id in 1..30 {
            other.exec(&format!("REPLACE INTO shop.t VALUES ({id}, UUID())")).await;
            db.exec(&format!("REPLACE INTO shop.t VALUES ({id}, UUID())")).await;
            reader.rows().await;
        }
        assert!(!files.in_use.load(Ordering::Relaxed));
        from = current(&mut db.conn().await).await.unwrap().position;
        reader.stop().await;
    }
}

/// A server whose binlog's syncs can be held up, and a reader of its files.
struct Held {
    folder: Folder,
    db: Database,
    reader: Follow,
    files: Files,
}

impl Held {
    async fn start() -> Self {
        let folder = Folder::new("held");
        let library = folder.path().join("held_syncs.so");
        let source = root().join("tests/lab/held_syncs.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
        assert!(cc.status().unwrap().success());
        let (mut db, _) = start(Flavour::MariaDb, &[], SHOP).await;
        db.proc.set_env("LD_PRELOAD", library.to_str());
        db.proc.set_env("HELD_SYNCS", folder.path().join("held").to_str());
        db.crash().await;
        let here = current(&mut db.conn().await).await.unwrap();
        let (mut reader, files) = follow(&db, &db.data(), here.position, 1 << 30);
        db.exec("INSERT INTO shop.t VALUES (1, 'a')").await;
        reader.rows().await;
        in_use(&db, &files).await;
        Self { folder, db, reader, files }
    }

    /// Inserts a row whose commit waits for a sync: its bytes are in the file already,
    /// from the given offset on.
    async fn insert(&self) -> (PathBuf, u64, JoinSet<()>) {
        let names: Vec<(String, u64)> = self.db.rows("SHOW BINARY LOGS").await;
        let file = self.db.data().join(&names.last().unwrap().0);
        let length = || std::fs::metadata(&file).unwrap().len();
        let before = length();
        std::fs::write(self.folder.path().join("held"), "").unwrap();
        let mut conn = self.db.conn().await;
        let mut commit = JoinSet::new();
        commit.spawn(async move {
            conn.query_drop("INSERT INTO shop.t VALUES (2, 'held')").await.unwrap();
        });
        wait_until("the row is in the file", WAIT, || async { length() > before }).await;
        (file, before, commit)
    }

    async fn release(&self, mut commit: JoinSet<()>) {
        std::fs::remove_file(self.folder.path().join("held")).unwrap();
        commit.join_next().await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_could_take_back_is_not_read() {
    let mut held = Held::start().await;
    let (_, _, commit) = held.insert().await;
    let early = tokio::time::timeout(Duration::from_secs(1), held.reader.next()).await;
    assert!(early.is_err(), "{early:?} was read before it was durable");
    held.release(commit).await;
    held.reader.rows().await;
    assert!(held.files.in_use.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_ends_the_reading_and_the_server_is_asked_again() {
    // In the data of its first event, and in what says how long that is.
    for (place, expected) in [(19, "checksum is wrong"), (12, "ends behind its file")] {
        let held = Held::start().await;
        let (file, before, commit) = held.insert().await;
        let written = OpenOptions::new().write(true).open(file).unwrap();
        written.write_all_at(&[0x7f], before + place).unwrap();
        held.release(commit).await;
        let error = held.reader.error().await;
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}
