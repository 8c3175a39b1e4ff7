//! The clock of the region's writable database.

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use lab::db::Flavour;
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
