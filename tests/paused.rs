//! A stream that does not go on: what waits is counted, and the loops tell that they live.

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::time::Duration;

use causeway::clock::wall_us;
use causeway::status::StreamState;
use lab::db::Flavour;
use lab::region::{Lab, Region};
use lab::{PATIENCE, wait_until};
use mysql_async::prelude::Queryable as _;

/// More than the reader and the applier hold.
const WAITING: u64 = 7_000;

/// Two regions; the first has paused the stream from the second.
async fn paused() -> Lab {
    let mut lab = Lab::start(&[Flavour::MariaDb; 2]).await;
    lab.exec_everywhere("CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY);\n").await;
    lab.start_agents().await;
    let agent = lab.regions[0].agent.as_ref().expect("it runs");
    let paused = agent.post("/streams/r2/pause").await;
    assert_eq!(paused.map(|(code, _)| code), Some(204));
    wait_until("the stream is paused", PATIENCE, || async {
        let status = lab.regions[0].status().await.expect("it answers");
        status.streams["r2"].state == StreamState::Paused
    })
    .await;
    lab
}

/// When the reader of the stream from `r2` and the applier have last gone round.
async fn rounds(region: &Region) -> Option<[f64; 2]> {
    let (_, text) = region.agent.as_ref()?.get("/metrics").await?;
    let of = |stage: &str| {
        let name =
            format!("causeway_{stage}_heartbeat_timestamp_seconds{{origin=\"r2\",region=\"r1\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name))?.parse().ok()
    };
    Some([of("inbox")?, of("apply")?])
}

/// Each loop goes round at a time a while from here, and soon after that.
async fn go_round(region: &Region) {
    let from = Duration::from_micros(wall_us()).as_secs_f64() + 3.0;
    wait_until("the loops go round", Duration::from_secs(15), || async {
        rounds(region).await.is_some_and(|at| at.iter().all(|at| *at > from))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loops_of_a_paused_stream_go_round() {
    let lab = paused().await;
    go_round(&lab.regions[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_waits_for_a_paused_stream_is_counted() {
    let lab = paused().await;
    let (here, there) = (&lab.regions[0], &lab.regions[1]);
    there
        .db
        .exec("SET GLOBAL sync_binlog = 0;\nSET GLOBAL innodb_flush_log_at_trx_commit = 0")
        .await;
    let mut conn = there.db.conn().await;
    for id in 0..WAITING {
        let insert = format!("INSERT INTO shop.t VALUES ({id})");
        conn.query_drop(insert).await.expect("it takes rows");
    }
    wait_until("all that waits is counted", PATIENCE, || async {
        let status = here.status().await.expect("it answers");
        status.streams["r2"].backlog == Some(WAITING)
    })
    .await;
    // Its reader has no room for more.
    go_round(here).await;
    let resumed = here.agent.as_ref().expect("it runs").post("/streams/r2/resume").await;
    assert_eq!(resumed.map(|(code, _)| code), Some(204));
    lab.converge(&["shop.t"], PATIENCE).await;
    wait_until("nothing waits", PATIENCE, || async {
        here.status().await.expect("it answers").streams["r2"].backlog == Some(0)
    })
    .await;
}
