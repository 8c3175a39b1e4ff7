//! Regions together: mixed servers, concurrent writes of one row, links that are cut.

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

#[expect(unused_imports, reason = "the scenarios' test uses more")]
#[path = "scenario/scenario.rs"]
mod scenario;

use std::time::Duration;

use lab::db::{Database, Flavour};
use lab::load::{Load, SCHEMA, TABLES};
use lab::region::Lab;
use lab::{PATIENCE, wait_until};

async fn started(flavours: &[Flavour]) -> Lab {
    let mut lab = Lab::start(flavours).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.start_agents().await;
    lab
}

async fn arrives(database: &Database, id: u64) {
    let sql = format!("SELECT COUNT(*) FROM shop.item WHERE id = {id}");
    wait_until(&format!("row {id} arrives"), PATIENCE, || async {
        database.number(&sql).await == 1
    })
    .await;
}

async fn write(database: &Database, id: u64, n: u64) {
    let sql = format!(
        "INSERT INTO shop.item VALUES ({id}, 1, {n}, 'ü') ON DUPLICATE KEY UPDATE n = VALUES(n)"
    );
    database.write(&sql).await;
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
    load.finish().await;
    lab.converge(&TABLES, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_written_everywhere_at_once_is_the_same_everywhere() {
    let lab = started(&[Flavour::MariaDb; 3]).await;
    let [r1, r2, r3] = [0, 1, 2].map(|n| &lab.regions[n].db);
    for round in 0..50 {
        let by = |n| format!("REPLACE INTO shop.item VALUES (1, {n}, {round}, 'x')");
        let (one, two, three) = (by(1), by(2), by(3));
        tokio::join!(r1.write(&one), r2.write(&two), r3.write(&three));
    }
    lab.converge(&TABLES, PATIENCE).await;
    // A later commit, that saw the others, wins everywhere.
    r2.write("UPDATE shop.item SET n = 1000 WHERE id = 1").await;
    for database in [r1, r3] {
        wait_until("the later commit is there", PATIENCE, || async {
            database.number("SELECT n FROM shop.item WHERE id = 1").await == 1000
        })
        .await;
    }
}

/// With the way from r3 to r1's Kafka cut, r1 and r2 go on with each other, r3's rows
/// still leave it, and r3 shows no child whose parent was written in r1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_stops_nothing_else_and_orphans_no_row() {
    Box::pin(scenario::play(&scenario::read("cut"), 3, None)).await;
}
