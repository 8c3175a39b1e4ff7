//! The region's writable database: its clock, and that another one takes its place.

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use lab::db::{Database, Flavour, Settings};
use lab::region::Lab;
use lab::{PATIENCE, wait_until};

const SHOP: &str =
    "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, n INT NOT NULL);\n";

/// Zones whose clocks go back by an hour at half an hour from now, and have gone back half
/// an hour ago: the local time comes twice in both.
const ZONES: &str = "\
INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (1, 'N'), (2, 'N');
INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('First', 1), ('Second', 2);
INSERT INTO mysql.time_zone_transition_type
    (Time_zone_id, Transition_type_id, `Offset`, Is_DST, Abbreviation)
    VALUES (1, 0, 7200, 1, 'S'), (1, 1, 3600, 0, 'W'), (2, 0, 7200, 1, 'S'), (2, 1, 3600, 0, 'W');
INSERT INTO mysql.time_zone_transition (Time_zone_id, Transition_time, Transition_type_id)
    VALUES (1, 1000000000, 0), (1, UNIX_TIMESTAMP() + 1800, 1),
        (2, 1000000000, 0), (2, UNIX_TIMESTAMP() - 1800, 1);
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_s_clock_is_right_in_the_hour_that_comes_twice() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 2]).await;
    lab.exec_everywhere(&format!("{SHOP}{ZONES}")).await;
    for (region, zone) in lab.regions.iter().zip(["First", "Second"]) {
        region.db.exec(&format!("SET GLOBAL time_zone = '{zone}'")).await;
    }
    lab.start_agents().await;
    for region in &lab.regions {
        wait_until("the clock is measured", PATIENCE, || async {
            region.status().await.is_some_and(|status| status.clock.source_offset_us.is_some())
        })
        .await;
        let off_us = region.status().await.unwrap().clock.source_offset_us.unwrap();
        assert!(off_us.abs() < 5_000_000, "{}: {off_us} µs", region.name);
    }
}

/// A replica of the region's database that is to become its primary.
async fn replica(of: &Database) -> Database {
    let mut settings = Settings::small(Flavour::MariaDb, 11);
    settings.more =
        ["--gtid-domain-id=1", "--log-slave-updates", "--read-only"].map(str::to_owned).to_vec();
    let replica = Database::start(&settings).await;
    let of = of.address();
    let (host, port) = of.split_once(':').expect("an address has a port");
    replica
        .exec(&format!(
            "CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}, \
             MASTER_USER = 'root', MASTER_USE_GTID = slave_pos;\nSTART SLAVE"
        ))
        .await;
    replica
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_becomes_read_only_is_left_for_the_writable_one() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 2]).await;
    lab.exec_everywhere(SHOP).await;
    let next = replica(&lab.regions[0].db).await;
    let (first, both) = (lab.regions[0].db.address(), next.address());
    for region in &lab.regions {
        let text = std::fs::read_to_string(&region.topology).unwrap();
        let with = text.replace(&format!("\"{first}\""), &format!("\"{first}\", \"{both}\""));
        assert_ne!(text, with);
        std::fs::write(&region.topology, with).unwrap();
    }
    lab.start_agents().await;
    let (here, peer) = (&lab.regions[0], &lab.regions[1]);
    here.db.exec("INSERT INTO shop.t VALUES (1, 0)").await;
    peer.db.exec("INSERT INTO shop.t VALUES (2, 0)").await;
    peer.db.gets("shop.t", 1).await;
    here.db.gets("shop.t", 2).await;

    // The old one stays up, and nothing is written to it.
    here.db.exec("SET GLOBAL read_only = ON").await;
    wait_until("the agent says that it can't be written", PATIENCE, || async {
        let status = here.status().await.unwrap();
        status.reason.is_some_and(|reason| reason.contains("read-only"))
    })
    .await;
    let at = here.db.rows::<(String,)>("SELECT @@global.gtid_binlog_pos").await.remove(0).0;
    let there = format!("SELECT MASTER_GTID_WAIT('{at}', 60)");
    assert_eq!(next.number(&there).await, 0);
    next.exec("STOP SLAVE;\nSET GLOBAL read_only = OFF").await;

    next.exec("INSERT INTO shop.t VALUES (3, 0)").await;
    peer.db.exec("INSERT INTO shop.t VALUES (4, 0)").await;
    peer.db.gets("shop.t", 3).await;
    next.gets("shop.t", 4).await;
    let address = here.status().await.unwrap().database.address;
    assert_eq!(address, Some(next.address()));
}
