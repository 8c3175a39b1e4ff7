//! Between what the applier last knew of a row and its lock on it, a client commits a
//! write of the same row (R7): the applier does not write over it. A row that a client
//! holds stops what comes after it alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::path::Path;

use causeway::failpoint::{CAPTURED, PLANNED};
use lab::db::Flavour;
use lab::load::{SCHEMA, TABLES};
use lab::proc::Folder;
use lab::region::Lab;
use lab::{PATIENCE, wait_until};
use mysql_async::prelude::Queryable as _;

/// Two regions with one row.
async fn started(flavour: Flavour) -> Lab {
    let mut lab = Lab::start(&[Flavour::MariaDb, flavour]).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.exec_everywhere("CREATE TABLE shop.mail (id INT PRIMARY KEY, mail VARCHAR(40) UNIQUE)")
        .await;
    lab.start_agents().await;
    lab.regions[0].db.write("INSERT INTO shop.item VALUES (1, 1, 1, 'first')").await;
    lab.converge(&TABLES, PATIENCE).await;
    lab
}

/// The same, the agent of the second armed.
async fn armed(flavour: Flavour, failpoints: &str) -> Lab {
    let mut lab = started(flavour).await;
    let proc = &mut lab.regions[1].agent().proc;
    proc.set_env("CAUSEWAY_FAILPOINT", Some(failpoints));
    lab.regions[1].agent().crash().await;
    lab
}

/// The process waits at the failpoint of this file.
async fn waits(file: &Path) {
    wait_until(&format!("it waits at {}", file.display()), PATIENCE, || async { file.exists() })
        .await;
}

async fn state(lab: &Lab) -> String {
    let answer = lab.regions[1].agent.as_ref().unwrap().get("/status").await;
    let status = answer.and_then(|(_, text)| serde_json::from_str::<serde_json::Value>(&text).ok());
    status.map_or_else(String::new, |s| s["streams"]["r1"]["state"].to_string())
}

/// A value of the second region's `/metrics`: the sum of its series with this label.
async fn metric(lab: &Lab, name: &str, label: &str) -> u64 {
    let (_, text) = lab.regions[1].agent.as_ref().unwrap().get("/metrics").await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

async fn change(lab: &Lab, n: usize, value: u64) {
    let sql = format!("UPDATE shop.item SET region = {}, n = {value} WHERE id = 1", n + 1);
    lab.regions[n].db.write(&sql).await;
}

async fn the_later_write_stands(lab: &Lab) {
    lab.converge(&TABLES, PATIENCE).await;
    assert_eq!(lab.regions[1].db.number("SELECT n FROM shop.item WHERE id = 1").await, 3);
}

/// The applier has decided; the client's commit comes before the applier's lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_between_decision_and_lock_stands() {
    for flavour in [Flavour::MariaDb, Flavour::MySql56] {
        let folder = Folder::new("points");
        let planned = folder.path().join("planned");
        let lab = armed(flavour, &format!("{PLANNED}@{}", planned.display())).await;
        change(&lab, 0, 2).await;
        waits(&planned).await;
        change(&lab, 1, 3).await;
        std::fs::remove_file(&planned).unwrap();
        the_later_write_stands(&lab).await;
    }
}

/// The same while capture is slow: it has not stamped the client's commit when the
/// applier holds its locks, so the applier waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_capture_has_not_seen_yet_stands() {
    for flavour in [Flavour::MariaDb, Flavour::MySql56] {
        let folder = Folder::new("points");
        let [planned, captured] = ["planned", "captured"].map(|name| folder.path().join(name));
        let points = format!("{PLANNED}@{},{CAPTURED}@{}", planned.display(), captured.display());
        let lab = armed(flavour, &points).await;
        change(&lab, 0, 2).await;
        waits(&planned).await;
        change(&lab, 1, 3).await;
        waits(&captured).await;
        std::fs::remove_file(&planned).unwrap();
        wait_until("the applier waits for capture", PATIENCE, || async {
            state(&lab).await == "\"retrying\""
        })
        .await;
        std::fs::remove_file(&captured).unwrap();
        the_later_write_stands(&lab).await;
    }
}

/// Put back once because of a client's write, the batch meets another one: it is done
/// again without letting its locks go, and the second write stands as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_write_does_not_put_the_batch_back_again() {
    for flavour in [Flavour::MariaDb, Flavour::MySql56, Flavour::MySql80] {
        let folder = Folder::new("points");
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        let points = format!("{PLANNED}@{},{PLANNED}:2@{}", first.display(), second.display());
        let lab = armed(flavour, &points).await;
        // Its other rows are new, so what is taken back is more than an update.
        lab.regions[0]
            .db
            .write(
                "BEGIN; INSERT INTO shop.item VALUES (2, 1, 2, 'new'); \
                 UPDATE shop.item SET n = 2 WHERE id = 1; \
                 INSERT INTO shop.item VALUES (3, 1, 2, 'new'); COMMIT",
            )
            .await;
        waits(&first).await;
        // No conflict of the row that decides: this one was there before the batch.
        lab.regions[1].db.write("UPDATE shop.item SET n = 4 WHERE id = 1").await;
        std::fs::remove_file(&first).unwrap();
        waits(&second).await;
        lab.regions[1].db.write("INSERT INTO shop.item VALUES (3, 2, 5, 'here')").await;
        lab.regions[1].db.write("UPDATE shop.item SET n = 3 WHERE id = 1").await;
        std::fs::remove_file(&second).unwrap();
        the_later_write_stands(&lab).await;
        assert_eq!(lab.regions[0].db.number("SELECT n FROM shop.item WHERE id = 3").await, 5);
        assert_eq!(lab.regions[0].db.number("SELECT n FROM shop.item WHERE id = 2").await, 2);
        assert_eq!(metric(&lab, "causeway_apply_retries_total", "local_write").await, 1);
    }
}

/// A client takes the unique value that the applier is about to write: a conflict, no row
/// that the table can't hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unique_value_taken_between_decision_and_lock_is_a_conflict() {
    for flavour in [Flavour::MariaDb, Flavour::MySql56] {
        let folder = Folder::new("points");
        let planned = folder.path().join("planned");
        let lab = armed(flavour, &format!("{PLANNED}@{}", planned.display())).await;
        lab.regions[0].db.write("INSERT INTO shop.mail VALUES (1, 'x')").await;
        waits(&planned).await;
        lab.regions[1].db.write("INSERT INTO shop.mail VALUES (2, 'x')").await;
        std::fs::remove_file(&planned).unwrap();
        wait_until("the later claim stands", PATIENCE, || async {
            let mut ids = Vec::new();
            for region in &lab.regions {
                ids.extend(region.db.rows::<(i64,)>("SELECT id FROM shop.mail").await);
            }
            ids == [(2,), (2,)]
        })
        .await;
    }
}

/// Writes rows of `shop.item` with these ids as a backlog of the second region, a
/// transaction each.
async fn backlog(lab: &Lab, ids: impl Iterator<Item = u64>) {
    let agent = lab.regions[1].agent.as_ref().unwrap();
    agent.post("/streams/r1/pause").await;
    let writes: Vec<_> = ids
        .map(|id| {
            format!("INSERT INTO shop.item VALUES ({id}, 1, 2, '') ON DUPLICATE KEY UPDATE n = 2")
        })
        .collect();
    lab.regions[0].db.exec(&writes.join(";\n")).await;
    agent.post("/streams/r1/resume").await;
}

/// A client of the second region keeps a row locked. Batches get smaller until what comes
/// before it is through, and larger again once the client has let it go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_a_client_holds_stops_what_follows_it_alone() {
    const BEFORE: u64 = 200;
    const SMALLEST_BATCH: i64 = 16;
    let lab = started(Flavour::MariaDb).await;
    let there = &lab.regions[1].db;
    let mut client = there.conn().await;
    client.query_drop("BEGIN").await.unwrap();
    client.query_drop("SELECT * FROM shop.item WHERE id = 1 FOR UPDATE").await.unwrap();
    backlog(&lab, (2..2 + BEFORE).chain([1]).chain(1_000..1_100)).await;
    let count = "SELECT COUNT(*) FROM shop.item WHERE id BETWEEN 2 AND 999";
    let least = i64::try_from(BEFORE).unwrap() - SMALLEST_BATCH;
    wait_until("what comes before the locked row is there", PATIENCE, || async {
        there.number(count).await > least
    })
    .await;
    wait_until("it is told", PATIENCE, || async { state(&lab).await == "\"retrying\"" }).await;
    let retries = metric(&lab, "causeway_apply_retries_total", "lock_wait").await;
    assert!(retries >= 3, "halved {retries} times");
    assert_eq!(there.number("SELECT COUNT(*) FROM shop.item WHERE id >= 1000").await, 0);
    client.query_drop("ROLLBACK").await.unwrap();
    lab.converge(&TABLES, PATIENCE).await;
    let batches = metric(&lab, "causeway_apply_batches_total", "r1").await;
    backlog(&lab, 2_000..2_400).await;
    lab.converge(&TABLES, PATIENCE).await;
    let batches = metric(&lab, "causeway_apply_batches_total", "r1").await - batches;
    assert!(batches < 400 / 16 / 2, "{batches} batches: they have not grown");
}
