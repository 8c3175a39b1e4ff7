//! Regions together: mixed servers, concurrent writes of one row, links that are cut.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::time::Duration;

use lab::db::{Database, Flavour};
use lab::load::{Load, SCHEMA, TABLES};
use lab::region::Lab;
use lab::wait_until;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);
const CALM: Duration = Duration::from_secs(90);

const ORPHANS: &str = "SELECT COUNT(*) FROM shop.child c \
    LEFT JOIN shop.parent p ON p.id = c.parent_id WHERE p.id IS NULL";

async fn started(flavours: &[Flavour]) -> Lab {
    let mut lab = Lab::start(flavours).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.start_agents().await;
    lab
}

async fn arrives(database: &Database, id: u64) {
    let sql = format!("SELECT COUNT(*) FROM shop.item WHERE id = {id}");
    wait_until(&format!("row {id} arrives"), SOON, || async { database.number(&sql).await == 1 })
        .await;
}

async fn write(database: &Database, id: u64, n: u64) {
    let sql = format!(
        "INSERT INTO shop.item VALUES ({id}, 1, {n}, 'ü') ON DUPLICATE KEY UPDATE n = VALUES(n)"
    );
    database.exec(&sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_servers_replicate_in_all_directions() {
    let lab = started(&[Flavour::MariaDb, Flavour::MySql56, Flavour::MariaDb]).await;
    for (n, region) in lab.regions.iter().enumerate() {
        write(&region.db, 5000 + n as u64, 1).await;
    }
    for region in &lab.regions {
        for n in 0..3 {
            arrives(&region.db, 5000 + n).await;
        }
    }
    let load = Load::start(&lab.databases(), 2, 7, Duration::from_millis(5));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let written = load.finish().await;
    assert!(written.unknown.is_empty());
    lab.converge(&TABLES, CALM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_written_everywhere_at_once_is_the_same_everywhere() {
    let lab = started(&[Flavour::MariaDb; 3]).await;
    for round in 0..50 {
        let mut writes = JoinSet::new();
        for (n, region) in lab.regions.iter().enumerate() {
            let opts = region.db.opts();
            let sql = format!("REPLACE INTO shop.item VALUES (1, {n}, {round}, 'x')");
            writes.spawn(async move {
                use mysql_async::prelude::Queryable as _;
                let mut conn = mysql_async::Conn::new(opts).await.unwrap();
                conn.query_drop(sql).await.unwrap();
            });
        }
        while let Some(done) = writes.join_next().await {
            done.unwrap();
        }
    }
    lab.converge(&TABLES, CALM).await;
    assert_eq!(lab.regions[0].db.number("SELECT n FROM shop.item WHERE id = 1").await, 49);
}

/// With the way from r3 to r1's Kafka cut, r1 and r2 go on with each other, r3's rows
/// still leave it, and r3 shows no child whose parent was written in r1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_stops_nothing_else_and_orphans_no_row() {
    let lab = started(&[Flavour::MariaDb; 3]).await;
    let stop = CancellationToken::new();
    let mut watchers = JoinSet::new();
    for region in &lab.regions {
        watchers.spawn(watch_orphans(region.db.opts(), stop.clone()));
    }
    let load = Load::start(&lab.databases(), 1, 3, Duration::from_millis(10));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let [r1, r2, r3] = [0, 1, 2].map(|n| &lab.regions[n].db);
    lab.link(2, 0).cut();
    tokio::time::sleep(Duration::from_secs(1)).await;

    write(r1, 7001, 1).await;
    arrives(r2, 7001).await;
    r1.exec("INSERT INTO shop.parent (id, region) VALUES (900001, 1)").await;
    wait_until("the parent is at r2", SOON, || async {
        r2.number("SELECT COUNT(*) FROM shop.parent WHERE id = 900001").await == 1
    })
    .await;
    r2.exec("INSERT INTO shop.child (id, parent_id, region) VALUES (900002, 900001, 2)").await;
    write(r3, 7003, 1).await;
    arrives(r1, 7003).await;
    arrives(r2, 7003).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    lab.link(2, 0).heal();
    arrives(r3, 7001).await;
    load.finish().await;
    lab.converge(&TABLES, CALM).await;
    stop.cancel();
    while let Some(seen) = watchers.join_next().await {
        assert!(seen.unwrap() > 20, "orphans were looked for");
    }
    assert_eq!(r3.number("SELECT COUNT(*) FROM shop.child WHERE id = 900002").await, 1);
}

/// Looks for children without their parent; gives how often.
async fn watch_orphans(opts: mysql_async::Opts, stop: CancellationToken) -> u64 {
    use mysql_async::prelude::Queryable as _;
    let mut conn = mysql_async::Conn::new(opts).await.unwrap();
    let mut looked = 0;
    while !stop.is_cancelled() {
        let orphans: Option<u64> = conn.query_first(ORPHANS).await.unwrap();
        assert_eq!(orphans, Some(0), "children without their parent");
        looked += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    looked
}
