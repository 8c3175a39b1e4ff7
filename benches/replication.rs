//! `make bench`: Causeway against MariaDB's own replication, in one run, on the same
//! machine and data, at full durability (`sync_binlog=1`, flush at each commit).
//!
//! `cargo bench --bench replication -- [catch-up] [lag] [cases] [writers]` runs some of
//! the stages; without a name all of them. Each stage is bounded in time, says on
//! stderr how far it is, and enters its results into `benches/results.json`.
#![expect(clippy::unwrap_used, reason = "a benchmark, run by hand")]

#[expect(dead_code, reason = "each user uses a part of the harness")]
#[path = "../tests/lab/lab.rs"]
mod lab;

#[path = "replication/cases.rs"]
mod cases;
#[path = "replication/catch_up.rs"]
mod catch_up;
#[path = "replication/lag.rs"]
mod lag;
#[path = "replication/load.rs"]
mod load;
#[path = "replication/results.rs"]
mod results;
#[path = "replication/site.rs"]
mod site;
#[path = "replication/warm.rs"]
mod warm;
#[path = "replication/writers.rs"]
mod writers;

use serde_json::json;
use site::Site;

/// In the order in which they run.
const STAGES: [&str; 4] = ["catch-up", "lag", "cases", "writers"];

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` asks for a quick pass without measuring.
    let Some(at) = arguments.iter().position(|argument| argument == "--bench") else { return };
    arguments.remove(at);
    let unknown: Vec<_> = arguments.iter().filter(|a| !STAGES.contains(&a.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}: the stages are {STAGES:?}");
    let wanted = |stage: &str| arguments.is_empty() || arguments.iter().any(|a| a == stage);

    let mut site = Site::start().await;
    for stage in STAGES.into_iter().filter(|stage| wanted(stage)) {
        site.forget_memory();
        let mut found = match stage {
            "catch-up" => catch_up::measure(&site).await,
            "lag" => lag::measure(&site).await,
            "cases" => cases::measure(&site).await,
            // The last: it stops agents.
            _ => writers::measure(&mut site).await,
        };
        let memory = site.memory_peak();
        say!("{stage}: an agent took at most {} MB of memory", memory / 1_000_000);
        found["agent_memory_bytes"] = json!(memory);
        results::enter(stage, found);
    }
}
