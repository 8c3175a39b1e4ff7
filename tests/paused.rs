//! A stream that does not go on: its loops tell that they live.

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::time::Duration;

use causeway::clock::wall_us;
use causeway::status::StreamState;
use lab::db::Flavour;
use lab::region::{Lab, Region};
use lab::{PATIENCE, wait_until};

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
