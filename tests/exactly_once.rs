//! The scenarios of chaos/ that kill: regions under load while their processes die by
//! `kill -9`; then everything is equal and nothing is lost, doubled or looped.
//!
//! `CAUSEWAY_SCENARIO` names another scenario, `CAUSEWAY_SEED` runs one seed,
//! `CAUSEWAY_SOAK_SEEDS` so many, `CAUSEWAY_SOAK_SECONDS` is how long each is under fire.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

#[path = "scenario/scenario.rs"]
mod scenario;

use std::path::Path;
use std::time::Duration;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_arrives_exactly_once_under_kill_9() {
    let name = std::env::var("CAUSEWAY_SCENARIO").unwrap_or_else(|_| "kill".to_owned());
    let scenario = scenario::read(&name);
    let under_fire = setting("CAUSEWAY_SOAK_SECONDS").map(Duration::from_secs);
    let seeds: Vec<u64> = match (setting("CAUSEWAY_SEED"), setting("CAUSEWAY_SOAK_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (1..=count.unwrap_or(2)).collect(),
    };
    for seed in seeds {
        eprintln!("again: CAUSEWAY_SCENARIO={name} CAUSEWAY_SEED={seed} make soak");
        Box::pin(scenario::play(&scenario, seed, under_fire)).await;
    }
}

#[test]
fn every_scenario_is_read_and_a_wrong_one_is_refused_with_its_place() {
    for name in scenario::names() {
        scenario::read(&name);
    }
    let good = include_str!("../chaos/kill.yaml");
    let check = |from: &str, to: &str, wanted: &str| {
        assert!(good.contains(from), "{from}");
        let text = good.replacen(from, to, 1);
        let error = scenario::parse(&text, Path::new("chaos/kill.yaml")).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    };
    check("pause:", "rest:", "unknown field `rest`");
    check("- wait:", "- sleep:", "unknown variant `sleep`");
    check("kafka: 2,", "redis: 2,", "unknown field `redis`");
    check("of: any", "of: r4", "there are not so many regions");
    check("of: any", "of: eu", "line 12");
    check("500ms..3500ms", "5s..1s", "ends before it begins");
    check("name: kill", "name: kil", "its name must be kill");
}
