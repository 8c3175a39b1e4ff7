//! The agent dies at every named failpoint, with local and foreign writes of the same
//! rows on their way; after its restart the regions are equal and nothing is lost.

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::time::Duration;

use causeway::failpoint::{NAMES, STATUS};
use lab::db::{Database, Flavour};
use lab::load::{SCHEMA, TABLES};
use lab::region::Lab;
use lab::wait_until;

const SOON: Duration = lab::PATIENCE;

/// Small enough that the large transactions below have parts.
const LIMITS: &str = "  record_bytes: 16KiB\n";

const ROWS: usize = 1_000;

/// A conflict, own rows, and a transaction of several parts.
async fn write(database: &Database, region: usize, round: usize) {
    let shared = format!(
        "INSERT INTO shop.item VALUES (1, {region}, {round}, 'ü') \
         ON DUPLICATE KEY UPDATE region = VALUES(region), n = VALUES(n)"
    );
    database.write(&shared).await;
    let base = (round * 2 + region) * 10_000;
    let large = format!(
        "INSERT INTO shop.item SELECT {base} + seq, {region}, {round}, REPEAT('x', 60) \
         FROM shop.seq_1_to_{ROWS}"
    );
    database.write(&large).await;
    database.write("DELETE FROM shop.item WHERE id BETWEEN 2 AND 9").await;
    database.write(&format!("INSERT INTO shop.item VALUES (2, {region}, {round}, NULL)")).await;
}

/// The agent of the first region, armed, until it has died there.
async fn dies_at(lab: &mut Lab, name: &str) {
    let proc = &mut lab.regions[0].agent().proc;
    proc.set_env("CAUSEWAY_FAILPOINT", Some(name));
    proc.again();
    wait_until(&format!("the agent dies at {name}"), SOON, || {
        let code = proc.exit_code();
        async move { code.is_some() }
    })
    .await;
    assert_eq!(proc.exit_code(), Some(STATUS), "at {name}");
    proc.set_env("CAUSEWAY_FAILPOINT", None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_crash_point_loses_or_doubles_a_row() {
    let mut lab = Lab::start_with(&[Flavour::MariaDb; 2], 64, LIMITS).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.begin_agent(0);
    lab.regions[0].agent().proc.kill();
    lab.begin_agent(1);
    // The topic is made once, by the first start.
    let first = "link.topic_created";
    let later = NAMES.iter().copied().filter(|name| *name != first);
    for (round, name) in [first].into_iter().chain(later).enumerate() {
        // Before the first start nothing is captured: its beginning is the binlog's end.
        if round > 0 {
            lab.regions[0].agent().proc.kill();
            for (n, region) in lab.regions.iter().enumerate() {
                write(&region.db, n, round).await;
            }
        }
        dies_at(&mut lab, name).await;
        lab.regions[0].agent().proc.again();
        for region in &mut lab.regions {
            region.agent().ready().await;
        }
        lab.converge(&TABLES, SOON).await;
        eprintln!("{name}: equal");
    }
    let rows = lab.regions[0].db.number("SELECT COUNT(*) FROM shop.item WHERE id > 9").await;
    assert_eq!(rows, i64::try_from((NAMES.len() - 1) * 2 * ROWS).unwrap());
}
