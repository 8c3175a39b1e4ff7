//! What the agent costs the local writers: sysbench as fast as it goes, with and without
//! the region's agent, in turns; and beside them, what a replica that takes the binlog
//! away by MariaDB's own replication costs.
//!
//! Twice: with the region's Kafka on the database's disk, where its log and the binlog
//! wait for the same flushes, and with Kafka's data in memory, as a Kafka with disks of
//! its own would leave them alone.

use serde_json::{Value, json};

use crate::catch_up;
use crate::load;
use crate::say;
use crate::site::{Site, applied};

const TURNS: usize = 3;

/// Who takes the binlog away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Nobody,
    Agent,
    Replica,
}

const READERS: [Reader; 3] = [Reader::Agent, Reader::Nobody, Reader::Replica];

/// The peer's agent is stopped: in the field its work is done on another machine.
pub(crate) async fn measure(site: &mut Site) -> Value {
    site.lab.regions[1].agent().proc.kill();
    let shared = turns(site, "Kafka on the same disk").await;
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    site.lab.regions[0].agent().proc.kill();
    site.lab.regions[0].kafka.moved(memory.path()).await;
    again(site, 0).await;
    let apart = turns(site, "Kafka on another disk").await;
    again(site, 1).await;
    let through = site.shipped(0).await;
    applied(site.target(), 1, through).await;
    json!({ "kafka_on_the_same_disk": shared, "kafka_on_another_disk": apart })
}

async fn turns(site: &mut Site, place: &str) -> Value {
    let mut found = READERS.map(|_| (Vec::new(), Vec::new()));
    for turn in 1..=TURNS {
        for (reader, (rates, p95s)) in READERS.into_iter().zip(&mut found) {
            let (rate, p95) = turn_of(site, reader).await;
            say!("{place}, {reader:?} reads: {rate:.0} transactions/s, p95 {p95} ms ({turn})");
            rates.push(rate);
            p95s.push(p95);
        }
    }
    let [agent, nobody, replica] = found.map(|(rates, p95s)| (median(rates), median(p95s)));
    let cost = |rate: f64| ((1.0 - rate / nobody.0) * 1000.0).round() / 10.0;
    say!("{place}: the agent costs {} %, a replica {} %", cost(agent.0), cost(replica.0));
    json!({
        "transactions_per_s_without": nobody.0,
        "transactions_per_s_with_agent": agent.0,
        "transactions_per_s_with_replica": replica.0,
        "cost_percent": cost(agent.0),
        "cost_percent_of_a_replica": cost(replica.0),
        "p95_ms_without": nobody.1,
        "p95_ms_with_agent": agent.1,
        "p95_ms_with_replica": replica.1,
    })
}

/// Rate and 95th percentile of the writers; begins and ends with the agent running.
async fn turn_of(site: &mut Site, reader: Reader) -> (f64, f64) {
    let replica = &site.replicas[0].1;
    if reader == Reader::Replica {
        catch_up::relay_all(site, replica).await;
    }
    if reader != Reader::Agent {
        site.lab.regions[0].agent().proc.kill();
    }
    let run = ["--threads=4", "--time=8", "--auto-inc=off", "run"];
    let text = load::sysbench(site.source(), &run).await;
    if reader == Reader::Replica {
        site.replicas[0].1.exec("STOP SLAVE IO_THREAD").await;
    }
    if reader != Reader::Agent {
        again(site, 0).await;
    }
    read_up(site).await;
    (load::rate(&text), load::p95_ms(&text))
}

async fn again(site: &mut Site, region: usize) {
    site.lab.regions[region].agent().proc.again();
    site.lab.regions[region].agent().ready().await;
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
