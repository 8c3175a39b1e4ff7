//! What the agent costs the local writers: sysbench with and without the region's agent,
//! in turns; and beside them, what a replica that takes the binlog away by MariaDB's own
//! replication costs.
//!
//! Four times: as fast as it goes with all on the same cores, where each processor
//! second of the agent and its Kafka is one that the writers lack; as fast as it goes
//! with database and agent on a core of theirs, and Kafka and the writers on the others,
//! as on other machines; the same with the database alone on its core, as where the agent
//! has been given another; and at a steady rate that leaves the cores idle at times, where
//! it is a longer wait, and no fewer transactions, that a writer would notice.
//!
//! The machine's speed changes by a tenth from minute to minute, which is more than what is
//! looked for. So each turn with a reader is held against the one without beside it, every
//! other round goes the other way round, and the cost is the median of the rounds'.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::catch_up;
use crate::load;
use crate::say;
use crate::site::{Site, applied, cpu_s, number};

const ROUNDS: usize = 5;
const SECONDS: u32 = 8;
/// Before the first of them: Java has not compiled yet what large requests take.
const WARM_UP_SECONDS: u32 = 60;
/// Transactions a second of the steady load: a quarter of what two cores can do.
const STEADY: u32 = 1_000;

/// Who takes the binlog away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Nobody,
    Agent,
    Replica,
}

const READERS: [Reader; 3] = [Reader::Agent, Reader::Nobody, Reader::Replica];

/// How much is written, and who shares the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    FullTogether,
    FullApart,
    FullAlone,
    Steady,
}

/// With their names in the results.
const SETTINGS: [(Setting, &str); 4] = [
    (Setting::FullTogether, "full_speed_on_the_same_cores"),
    (Setting::FullApart, "full_speed_database_and_agent_on_one_core"),
    (Setting::FullAlone, "full_speed_database_alone_on_a_core"),
    (Setting::Steady, "steady"),
];

/// What one turn has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    per_s: f64,
    mean_ms: f64,
    p95_ms: f64,
    /// Processor time for one transaction, microseconds.
    cpu_us: [f64; 3],
}

/// The peer's agent is stopped: in the field its work is done on another machine.
pub(crate) async fn measure(site: &mut Site) -> Value {
    site.lab.regions[1].agent().proc.kill();
    let mut results = json!({ "seconds": SECONDS, "steady_transactions_per_s": STEADY });
    let time = format!("--time={WARM_UP_SECONDS}");
    load::sysbench(site.source(), &["--threads=4", &time, "--auto-inc=off", "run"]).await;
    read_up(site).await;
    for (setting, name) in SETTINGS {
        results[name] = turns(site, setting).await;
    }
    place(site, Setting::Steady);
    again(site, 1, Setting::Steady).await;
    let through = site.shipped(0).await;
    applied(site.target(), 1, through).await;
    results
}

async fn turns(site: &mut Site, setting: Setting) -> Value {
    place(site, setting);
    let mut found = READERS.map(|_| Vec::new());
    for n in 1..=ROUNDS {
        let mut order: Vec<_> = READERS.into_iter().zip(&mut found).collect();
        if n % 2 == 0 {
            order.reverse();
        }
        for (reader, turns) in order {
            let turn = turn_of(site, reader, setting).await;
            let [db, agent, kafka] = turn.cpu_us;
            say!(
                "{setting:?}, {reader:?} reads: {:.0} transactions/s, mean {} ms, p95 {} ms; \
                 processor µs each: database {db:.0}, agent {agent:.0}, Kafka {kafka:.0} ({n})",
                turn.per_s,
                turn.mean_ms,
                turn.p95_ms
            );
            turns.push(turn);
        }
    }
    let [agent, nobody, replica] = &found;
    let cost = |with: &[Turn]| {
        let costs = with.iter().zip(nobody).map(|(with, without)| match setting {
            Setting::FullTogether | Setting::FullApart | Setting::FullAlone => {
                1.0 - with.per_s / without.per_s
            }
            Setting::Steady => with.mean_ms / without.mean_ms - 1.0,
        });
        costs.map(|part| (part * 1000.0).round() / 10.0).collect::<Vec<_>>()
    };
    let (agents, replicas) = (cost(agent), cost(replica));
    let (of_agent, of_replica) = (median(&agents), median(&replicas));
    say!("{setting:?}: the agent costs {of_agent} % {agents:?}, a replica {of_replica} %");
    json!({
        "cost_percent": of_agent,
        "cost_percent_by_round": agents,
        "cost_percent_of_a_replica": of_replica,
        "cost_percent_of_a_replica_by_round": replicas,
        "without": shown(middle(nobody)),
        "with_agent": shown(middle(agent)),
        "with_replica": shown(middle(replica)),
    })
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn shown(turn: Turn) -> Value {
    let [database, agent, kafka] = turn.cpu_us.map(f64::round);
    json!({
        "transactions_per_s": turn.per_s,
        "mean_ms": turn.mean_ms,
        "p95_ms": turn.p95_ms,
        "cpu_us_per_transaction": { "database": database, "agent": agent, "kafka": kafka },
    })
}

/// The median of each figure by itself.
fn middle(turns: &[Turn]) -> Turn {
    let of = |figure: fn(&Turn) -> f64| median(&turns.iter().map(figure).collect::<Vec<_>>());
    Turn {
        per_s: of(|turn| turn.per_s),
        mean_ms: of(|turn| turn.mean_ms),
        p95_ms: of(|turn| turn.p95_ms),
        cpu_us: [of(|t| t.cpu_us[0]), of(|t| t.cpu_us[1]), of(|t| t.cpu_us[2])],
    }
}

/// Begins and ends with the agent running.
async fn turn_of(site: &mut Site, reader: Reader, setting: Setting) -> Turn {
    let replica = &site.replicas[0].1;
    if reader == Reader::Replica {
        catch_up::relay_all(site, replica).await;
    }
    if reader != Reader::Agent {
        site.lab.regions[0].agent().proc.kill();
    }
    let (time, rate) = (format!("--time={SECONDS}"), format!("--rate={STEADY}"));
    let mut run = vec!["--threads=4", &time, "--auto-inc=off", "run"];
    if setting == Setting::Steady {
        run.push(&rate);
    }
    let before = cpu(site, reader);
    let text = load::sysbench(site.source(), &run).await;
    let after = cpu(site, reader);
    if reader == Reader::Replica {
        site.replicas[0].1.exec("STOP SLAVE IO_THREAD").await;
    }
    if reader != Reader::Agent {
        again(site, 0, setting).await;
    }
    read_up(site).await;
    let per_s = load::rate(&text);
    let count = per_s * f64::from(SECONDS);
    let cpu_us = [0, 1, 2].map(|n| (after[n] - before[n]) * 1e6 / count);
    Turn { per_s, mean_ms: load::mean_ms(&text), p95_ms: load::p95_ms(&text), cpu_us }
}

/// Processor seconds of database, agent and Kafka so far.
fn cpu(site: &Site, reader: Reader) -> [f64; 3] {
    let region = &site.lab.regions[0];
    let agent = region.agent.as_ref().filter(|_| reader == Reader::Agent);
    let agent = agent.map_or(0.0, |agent| cpu_s(agent.proc.pid()));
    [cpu_s(region.db.proc.pid()), agent, cpu_s(region.kafka.proc.pid())]
}

async fn again(site: &mut Site, region: usize, setting: Setting) {
    site.lab.regions[region].agent().proc.again();
    place(site, setting);
    site.lab.regions[region].agent().ready().await;
}

/// Gives each process the cores that the setting has for it.
fn place(site: &mut Site, setting: Setting) {
    let all = format!("0-{}", cores() - 1);
    let (here, elsewhere) = match setting {
        Setting::FullTogether | Setting::Steady => (all.clone(), all),
        Setting::FullApart | Setting::FullAlone => ("0".to_owned(), format!("1-{}", cores() - 1)),
    };
    let own = std::process::id();
    let (first, second) = site.lab.regions.split_first_mut().unwrap();
    let mut others = vec![own, first.kafka.proc.pid()];
    others.extend(second.iter().flat_map(|it| [it.db.proc.pid(), it.kafka.proc.pid()]));
    others.extend(site.replicas.iter().map(|(_, replica)| replica.proc.pid()));
    others.iter().for_each(|&pid| pin(pid, &elsewhere));
    pin(first.db.proc.pid(), &here);
    let agent = first.agent();
    if agent.proc.alive() {
        pin(agent.proc.pid(), if setting == Setting::FullAlone { &elsewhere } else { &here });
    }
}

/// All threads of a process. One that ends meanwhile makes it fail.
fn pin(pid: u32, cores: &str) {
    let arguments = ["-a", "-c", "-p", cores, &pid.to_string()];
    let pinned = || Command::new("taskset").args(arguments).output().unwrap().status.success();
    assert!((0..10).any(|_| pinned()), "process {pid} can't be put on cores {cores}");
}

/// How many there are, before this process confines itself to some.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    let count = *CORES.get_or_init(|| std::thread::available_parallelism().unwrap().get());
    assert!(count > 1, "database and agent need a core of their own");
    count
}

/// Waits until the agent has shipped what was written without it.
async fn read_up(site: &Site) {
    let end: Vec<(String,)> = site.source().rows("SELECT @@global.gtid_binlog_pos").await;
    let last = number(&end[0].0);
    crate::lab::wait_until("the outbox holds all", crate::site::PATIENCE, || async {
        let status = site.status(0).await;
        // The agents go on writing: the end may be passed between two looks.
        status["capture"]["gtid"].as_str().and_then(number) >= last
    })
    .await;
}
