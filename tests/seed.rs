//! A region is seeded anew, step by step as docs/OPERATIONS.md says.

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use lab::db::Flavour;
use lab::region::Lab;
use lab::seed::{copy, delete_topics, status};
use lab::{PATIENCE, wait_until};

const TABLES: [&str; 1] = ["shop.t"];

async fn insert(lab: &Lab, region: usize, ids: std::ops::Range<i64>) {
    for id in ids {
        let sql = format!("INSERT INTO shop.t VALUES ({id}, {region})");
        lab.regions[region].db.exec(&sql).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_lost_its_outbox_and_its_database_is_seeded_from_a_peer() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 2]).await;
    lab.exec_everywhere(
        "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, region INT)",
    )
    .await;
    lab.start_agents().await;
    insert(&lab, 0, 0..30).await;
    insert(&lab, 1, 100..130).await;
    lab.converge(&TABLES, PATIENCE).await;

    // The outbox goes: nothing is begun anew in its place.
    lab.regions[1].agent().proc.kill();
    delete_topics(&lab.regions[1], &["causeway.outbox.r2"]).await;
    lab.regions[1].agent().proc.again();
    wait_until("the loss is told", PATIENCE, || {
        let region = &lab.regions[1];
        async move {
            let told = status(region).await["capture"].clone();
            told["state"] == "halted"
                && told["reason"].as_str().unwrap().contains("was deleted or made anew")
                && told["advice"].as_str().unwrap().contains("Seeding a region anew")
        }
    })
    .await;

    // The database goes too; the other region writes on.
    lab.regions[1].agent().proc.kill();
    lab.regions[1].db.exec("DROP DATABASE shop;\nDROP DATABASE causeway;\nRESET MASTER").await;
    insert(&lab, 0, 30..60).await;
    copy(&lab.regions[0], &lab.regions[1].db).await;
    insert(&lab, 0, 60..90).await;
    delete_topics(&lab.regions[0], &["causeway.inbox.r2"]).await;
    delete_topics(&lab.regions[1], &["causeway.inbox.r1"]).await;
    lab.regions[0].agent().crash().await;
    lab.regions[1].agent().proc.again();
    lab.regions[1].agent().ready().await;
    insert(&lab, 1, 130..160).await;
    lab.converge(&TABLES, PATIENCE).await;
    let rows = lab.regions[0].db.number("SELECT COUNT(*) FROM shop.t").await;
    assert_eq!(rows, 150);

    // From now on an ordinary region.
    lab.regions[1].agent().crash().await;
    insert(&lab, 1, 160..170).await;
    insert(&lab, 0, 90..100).await;
    lab.converge(&TABLES, PATIENCE).await;
    let rows = lab.regions[1].db.number("SELECT COUNT(*) FROM shop.t").await;
    assert_eq!(rows, 170);
}
