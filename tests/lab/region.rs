//! Whole regions, joined by links that can be cut.

use std::fmt::Write as _;
use std::path::PathBuf;

use causeway::status::AgentStatus;

use super::agent::{Agent, TOKEN, program};
use super::compare;
use super::db::{Database, Flavour, Settings};
use super::kafka::{Access, Kafka, PASSWORD, PeerDoor};
use super::link::Link;
use super::proc::{Folder, Run, free_port};

/// A database, a Kafka, an agent.
pub struct Region {
    /// `r1`, `r2`, …
    pub name: String,
    /// Its database.
    pub db: Database,
    /// Its Kafka.
    pub kafka: Kafka,
    /// Its agent, once started.
    pub agent: Option<Agent>,
    /// Its topology file.
    pub topology: PathBuf,
}

impl Region {
    /// What its agent says of itself; none while it does not answer.
    pub async fn status(&self) -> Option<AgentStatus> {
        let (_, text) = self.agent.as_ref()?.get("/status").await?;
        serde_json::from_str(&text).ok()
    }

    /// The agent.
    pub fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("agents are started")
    }
}

/// The topology's `tables` where nothing else is said.
const RULES: &str = "  - tables: shop.*\n    policy: latest\n";

/// Regions that replicate to each other.
pub struct Lab {
    /// In the order of their ids, which count from 1.
    pub regions: Vec<Region>,
    /// By reader and source.
    links: Vec<Vec<Option<Link>>>,
    folder: Folder,
}

impl Lab {
    /// Starts databases and Kafkas, one for each flavour; agents come later.
    pub async fn start(flavours: &[Flavour]) -> Self {
        Self::start_with(flavours, 64, "").await
    }

    /// The same with a buffer pool and further lines of the topology's `limits`.
    pub async fn start_with(flavours: &[Flavour], pool_mib: u32, limits: &str) -> Self {
        Self::start_ruled(flavours, pool_mib, (RULES, limits)).await
    }

    /// With Kafkas that ask who one is, and have given the agents nothing.
    pub async fn start_listed(flavours: &[Flavour]) -> Self {
        Self::start_on(flavours, 64, (RULES, ""), (Access::Listed, Run::Lean)).await
    }

    /// To be measured.
    pub async fn start_in_field(flavours: &[Flavour], pool_mib: u32) -> Self {
        Self::start_on(flavours, pool_mib, (RULES, ""), (Access::Open, Run::Field)).await
    }

    /// The same with the topology's `tables`.
    pub async fn start_ruled(
        flavours: &[Flavour],
        pool_mib: u32,
        (rules, limits): (&str, &str),
    ) -> Self {
        Self::start_on(flavours, pool_mib, (rules, limits), (Access::Open, Run::Lean)).await
    }

    async fn start_on(
        flavours: &[Flavour],
        pool_mib: u32,
        (rules, limits): (&str, &str),
        (access, run): (Access, Run),
    ) -> Self {
        let count = flavours.len();
        let folder = Folder::new("lab");
        let doors: Vec<Vec<PeerDoor>> = (0..count)
            .map(|_| {
                (1..count).map(|_| PeerDoor { inner: free_port(), outer: free_port() }).collect()
            })
            .collect();
        let begin = |n: usize| Kafka::begin_with(&names(n), &doors[n], access, run);
        let mut kafkas: Vec<_> = (0..count).map(begin).collect();
        let mut dbs = Vec::new();
        for (n, &flavour) in flavours.iter().enumerate() {
            let id = u8::try_from(n + 1).unwrap();
            let settings = Settings { pool_mib, ..Settings::small(flavour, id) };
            dbs.push(Database::start(&settings).await);
        }
        for kafka in &mut kafkas {
            kafka.ready().await;
        }
        let mut links = Vec::new();
        for reader in 0..count {
            let mut row = Vec::new();
            for (source, doors) in doors.iter().enumerate() {
                row.push(if reader == source {
                    None
                } else {
                    let door = doors[if reader < source { reader } else { reader - 1 }];
                    Some(Link::open(door.outer, door.inner).await)
                });
            }
            links.push(row);
        }
        let mut regions = Vec::new();
        for (n, (db, kafka)) in dbs.into_iter().zip(kafkas).enumerate() {
            let topology = folder.path().join(format!("{}.topology.yaml", names(n)));
            regions.push(Region { name: names(n), db, kafka, agent: None, topology });
        }
        let lab = Self { regions, links, folder };
        lab.write_topologies(rules, limits);
        lab
    }

    /// Each region's topology: the same but for the addresses under which it reaches
    /// the peers' Kafkas.
    fn write_topologies(&self, rules: &str, limits: &str) {
        for (reader, own) in self.regions.iter().enumerate() {
            let mut text = "version: 1\nregions:\n".to_owned();
            for (n, region) in self.regions.iter().enumerate() {
                write!(
                    text,
                    "  {0}:\n    id: {1}\n    databases: [\"{2}\"]\n    kafka: {0}\n",
                    region.name,
                    n + 1,
                    region.db.address()
                )
                .unwrap();
            }
            text.push_str("kafka:\n");
            for (source, region) in self.regions.iter().enumerate() {
                let brokers = region.kafka.brokers();
                let peers = self.links[reader][source].as_ref().map(Link::address);
                let peers = peers.unwrap_or_else(|| brokers.clone());
                write!(
                    text,
                    "  {}:\n    brokers: [\"{brokers}\"]\n    peer_brokers: [\"{peers}\"]\n",
                    region.name
                )
                .unwrap();
            }
            write!(text, "tables:\n{rules}limits:\n").unwrap();
            text.push_str("  heartbeat: 100ms\n  retention: 1d\n");
            text.push_str(limits);
            std::fs::write(&own.topology, text).unwrap();
        }
    }

    /// Runs statements in every region, before the agents start.
    pub async fn exec_everywhere(&self, sql: &str) {
        for region in &self.regions {
            region.db.exec(sql).await;
        }
    }

    /// Writes a row of `shop.t` in each region, those of one step beside each other.
    pub async fn write_everywhere(&self, step: i64) {
        for (n, region) in (0..).zip(&self.regions) {
            let id = step * 10 + n;
            region.db.exec(&format!("INSERT INTO shop.t VALUES ({id}, 0)")).await;
        }
    }

    /// Starts all agents and waits until they are ready.
    pub async fn start_agents(&mut self) {
        for n in 0..self.regions.len() {
            self.begin_agent(n);
        }
        for region in &mut self.regions {
            region.agent().ready().await;
        }
    }

    /// A region's topology and its agent's settings.
    pub fn files(&self, n: usize) -> (PathBuf, PathBuf) {
        let region = &self.regions[n];
        let conf = self.folder.path().join(format!("{}.conf.yaml", region.name));
        (region.topology.clone(), conf)
    }

    /// Runs `causeway conflicts` on region `n`: exit status, stdout and stderr.
    pub async fn conflicts(&self, n: usize, arguments: &[&str]) -> (i32, String, String) {
        self.causeway(n, &[&["conflicts"], arguments].concat()).await
    }

    /// Runs a command on region `n`: exit status, stdout and stderr.
    pub async fn causeway(&self, n: usize, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(n, arguments).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The same, to be started.
    pub fn command(&self, n: usize, arguments: &[&str]) -> tokio::process::Command {
        let (topology, conf) = self.files(n);
        let mut command = tokio::process::Command::new(program());
        command
            .args(arguments)
            .arg("--topology")
            .arg(topology)
            .args(["--region", &self.regions[n].name, "--conf"])
            .arg(conf)
            .env("CAUSEWAY_TOKEN", TOKEN)
            .env("CAUSEWAY_KAFKA_PASSWORD", PASSWORD)
            .kill_on_drop(true);
        command
    }

    /// Starts one agent and does not wait.
    pub fn begin_agent(&mut self, n: usize) {
        let region = &mut self.regions[n];
        let (folder, kafka) = (self.folder.path(), (region.kafka.access(), region.kafka.run()));
        // Every other one reads the binlog from the files.
        let binlog = n.is_multiple_of(2).then(|| region.db.data());
        let agent = Agent::begin(folder, &region.topology, &region.name, kafka, binlog.as_deref());
        region.agent = Some(agent);
    }

    /// The way of `reader` to the Kafka of `source`.
    pub fn link(&self, reader: usize, source: usize) -> &Link {
        self.links[reader][source].as_ref().expect("two regions")
    }

    /// Cuts all links.
    pub fn cut(&self) {
        self.links.iter().flatten().flatten().for_each(Link::cut);
    }

    /// Heals all links.
    pub fn heal(&self) {
        self.links.iter().flatten().flatten().for_each(Link::heal);
    }

    /// The databases.
    pub fn databases(&self) -> Vec<&Database> {
        self.regions.iter().map(|region| &region.db).collect()
    }

    /// Waits until the tables are equal everywhere.
    pub async fn converge(&self, tables: &[&str], patience: std::time::Duration) {
        compare::converge(&self.databases(), tables, patience).await;
    }
}

/// A failed test shows what its agents said before anything is stopped; each process
/// then shows the end of its log.
impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for region in &self.regions {
            let status = region.agent.as_ref().and_then(Agent::last_words);
            let status = status.as_deref().unwrap_or("no answer");
            eprintln!("--- status of the agent of {}: {status}", region.name);
        }
    }
}

pub(super) fn names(n: usize) -> String {
    format!("r{}", n + 1)
}
