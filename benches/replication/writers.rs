//! What the agents cost the local writers: sysbench as fast as it goes, with and
//! without the region's agent, in turns.

use serde_json::{Value, json};

use crate::load;
use crate::say;
use crate::site::{Site, applied};

const TURNS: usize = 3;

/// The peer's agent is stopped: in the field its work is done on another machine.
pub(crate) async fn measure(site: &mut Site) -> Value {
    site.lab.regions[1].agent().proc.kill();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut latency = (Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        let (rate, p95) = sysbench(site).await;
        say!("local writers with the agent: {rate:.0} transactions/s, p95 {p95} ms ({turn})");
        with.push(rate);
        latency.0.push(p95);
        site.lab.regions[0].agent().proc.kill();
        let (rate, p95) = sysbench(site).await;
        say!("local writers without it: {rate:.0} transactions/s, p95 {p95} ms ({turn})");
        without.push(rate);
        latency.1.push(p95);
        site.lab.regions[0].agent().proc.again();
        site.lab.regions[0].agent().ready().await;
        read_up(site).await;
    }
    site.lab.regions[1].agent().proc.again();
    site.lab.regions[1].agent().ready().await;
    let through = site.shipped(0).await;
    applied(site.target(), 1, through).await;
    let (with, without) = (median(with), median(without));
    let cost = ((1.0 - with / without) * 1000.0).round() / 10.0;
    say!("the agent costs the local writers {cost} %");
    json!({
        "transactions_per_s_without_agent": without,
        "transactions_per_s_with_agent": with,
        "cost_percent": cost,
        "p95_ms_without_agent": median(latency.1),
        "p95_ms_with_agent": median(latency.0),
    })
}

/// Rate and 95th percentile.
async fn sysbench(site: &Site) -> (f64, f64) {
    let run = ["--threads=4", "--time=8", "--auto-inc=off", "run"];
    let text = load::sysbench(site.source(), &run).await;
    (load::rate(&text), load::p95_ms(&text))
}

/// Waits until the agent has shipped what was written without it.
async fn read_up(site: &Site) {
    let end: Vec<(String,)> = site.source().rows("SELECT @@global.gtid_binlog_pos").await;
    let last = format!("-{}", end[0].0.rsplit('-').next().unwrap());
    crate::lab::wait_until("the outbox holds all", crate::site::PATIENCE, || async {
        let status = site.status(0).await;
        status["capture"]["gtid"].as_str().is_some_and(|at| at.ends_with(&last))
    })
    .await;
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
