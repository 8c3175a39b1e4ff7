//! Regions together: mixed servers, concurrent writes of one row, links that are cut.

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

#[expect(unused_imports, reason = "the scenarios' test uses more")]
#[path = "scenario/scenario.rs"]
mod scenario;

use std::time::Duration;

use causeway::status::StreamState;
use lab::db::{Database, Flavour};
use lab::load::{Load, SCHEMA, TABLES};
use lab::region::Lab;
use lab::{PATIENCE, wait_until};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

async fn started(flavours: &[Flavour]) -> Lab {
    let mut lab = Lab::start(flavours).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.start_agents().await;
    lab
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
            region.db.gets("shop.item", 5000 + n).await;
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
    // Some read the binlog's files by now; the others are not told where they are.
    for (n, wanted) in [(0, Some(true)), (1, None), (2, Some(true))] {
        wait_until("the binlog is read as it was to be", PATIENCE, || async {
            lab.regions[n].status().await.unwrap().capture.from_files == wanted
        })
        .await;
    }
    // A later commit, that saw the others, wins everywhere.
    r2.write("UPDATE shop.item SET n = 1000 WHERE id = 1").await;
    for database in [r1, r3] {
        wait_until("the later commit is there", PATIENCE, || async {
            database.number("SELECT n FROM shop.item WHERE id = 1").await == 1000
        })
        .await;
    }
}

/// The batch in flight is finished or left whole, and the next start loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_told_to_stop_under_load_leaves_with_0() {
    let mut lab = started(&[Flavour::MariaDb; 2]).await;
    let load = Load::start(&lab.databases(), 4, 11, Duration::ZERO);
    for round in 1..=3 {
        wait_until("writers are at work", PATIENCE, || async { load.committed() > round * 500 })
            .await;
        let proc = &mut lab.regions[1].agent().proc;
        proc.signal("TERM");
        let told = std::time::Instant::now();
        let code = loop {
            if let Some(code) = proc.exit_code() {
                break code;
            }
            assert!(told.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // Its grace is 10 s; where it is idle it leaves at once.
        assert_eq!(code, 0, "after {:?}", told.elapsed());
        assert!(told.elapsed() < Duration::from_secs(12), "{:?}", told.elapsed());
        proc.again();
        lab.regions[1].agent().ready().await;
    }
    load.finish().await;
    lab.converge(&TABLES, PATIENCE).await;
}

async fn stream(lab: &Lab, at: usize, from: &str) -> Option<(StreamState, String, String)> {
    let status = lab.regions[at].status().await?;
    let stream = status.streams.get(from)?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Some((stream.state, text(&stream.reason), text(&stream.advice)))
}

/// The peer's disk is full: its stream says so, and goes on by itself once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_holds_the_stream_and_loses_nothing() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 2]).await;
    // All tables in one file that does not grow.
    let full = &mut lab.regions[1].db;
    full.proc.kill();
    full.proc.add_args(&["--innodb-file-per-table=0", "--innodb-data-file-path=ibdata1:12M"]);
    full.proc.again();
    full.ready().await;
    lab.exec_everywhere(
        "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, v LONGBLOB);\n\
         CREATE DATABASE other;\nCREATE TABLE other.filler (id INT PRIMARY KEY, v LONGBLOB);\n",
    )
    .await;
    lab.start_agents().await;
    let (r1, r2) = (&lab.regions[0].db, &lab.regions[1].db);
    let mut conn = Conn::new(r2.opts()).await.unwrap();
    let mut filled = 0;
    let refused = loop {
        let sql = format!("INSERT INTO other.filler VALUES ({filled}, REPEAT('x', 100000))");
        match conn.query_drop(sql).await {
            Ok(()) => filled += 1,
            Err(error) => break error.to_string(),
        }
        assert!(filled < 1_000, "the file grows");
    };
    assert!(filled > 1 && refused.contains("full"), "{filled}: {refused}");
    for id in 0..10 {
        r1.exec(&format!("INSERT INTO shop.t VALUES ({id}, REPEAT('y', 200000))")).await;
    }
    wait_until("the stream says that the disk is full", PATIENCE, || async {
        stream(&lab, 1, "r1").await.is_some_and(|(state, reason, advice)| {
            state == StreamState::Retrying
                && reason.contains("1114 (the table is full)")
                && advice.contains("free space")
        })
    })
    .await;
    drop(conn);
    let full = &mut lab.regions[1].db;
    full.proc.kill();
    full.proc.add_args(&["--innodb-data-file-path=ibdata1:12M;ibdata2:64M"]);
    full.proc.again();
    full.ready().await;
    lab.converge(&["shop.t"], PATIENCE).await;
    let told = stream(&lab, 1, "r1").await.unwrap();
    assert_eq!(told, (StreamState::Running, String::new(), String::new()));
}

/// With the way from r3 to r1's Kafka cut, r1 and r2 go on with each other, r3's rows
/// still leave it, and r3 shows no child whose parent was written in r1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_stops_nothing_else_and_orphans_no_row() {
    Box::pin(scenario::play(&scenario::read("cut"), 3, None)).await;
}
