//! The servers that are measured: two regions with agents, and replicas of the first
//! region that use MariaDB's own replication.

use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use serde_json::Value;

use crate::lab::db::{Database, Flavour, Settings};
use crate::lab::region::Lab;
use crate::lab::wait_until;
use crate::warm::warm_up;
use crate::{load, say};

/// Bounds every wait: a stage that hangs says where.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const POOL_MIB: u32 = 256;

/// What is measured.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    /// By their number of applier threads.
    pub(crate) replicas: Vec<(u8, Database)>,
}

impl Site {
    /// Starts all and fills the tables.
    pub(crate) async fn start() -> Self {
        say!("starting two regions and three replicas");
        let mut lab = Lab::start_in_field(&[Flavour::MariaDb; 2], POOL_MIB).await;
        let mut replicas = Vec::new();
        for (n, threads) in [8_u8, 4, 1].into_iter().enumerate() {
            let id = 10 + u8::try_from(n).unwrap();
            let mut settings = Settings::small(Flavour::MariaDb, id);
            settings.pool_mib = POOL_MIB;
            settings.more = vec![
                format!("--slave-parallel-threads={threads}"),
                "--slave-parallel-mode=optimistic".to_owned(),
                // Room for what waits, so that no thread lacks work.
                "--slave-parallel-max-queued=16777216".to_owned(),
                "--gtid-strict-mode=0".to_owned(),
            ];
            replicas.push((threads, Database::start(&settings).await));
        }
        say!("filling {} tables of {} rows in each server", load::TABLES, load::ROWS);
        for database in lab.databases().into_iter().chain(replicas.iter().map(|(_, db)| db)) {
            load::prepare(database).await;
        }
        say!("warming up both Kafkas");
        for region in &lab.regions {
            warm_up(&region.kafka.brokers()).await;
        }
        lab.start_agents().await;
        for (_, replica) in &replicas {
            follow(&lab.regions[0].db, replica).await;
        }
        Self { lab, replicas }
    }

    /// The region where all is written.
    pub(crate) fn source(&self) -> &Database {
        &self.lab.regions[0].db
    }

    /// The region where it arrives.
    pub(crate) fn target(&self) -> &Database {
        &self.lab.regions[1].db
    }

    fn agents(&self) -> impl Iterator<Item = u32> {
        self.lab.regions.iter().filter_map(|region| Some(region.agent.as_ref()?.proc.pid()))
    }

    /// From here on [`Self::memory_peak`] counts.
    pub(crate) fn forget_memory(&self) {
        for pid in self.agents() {
            // proc(5): 5 resets the peak.
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        }
    }

    /// The highest resident memory of an agent since it was last forgotten, bytes.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.agents().map(memory_peak).max().unwrap_or(0)
    }

    /// The status of region `n`, 0 or 1.
    pub(crate) async fn status(&self, n: usize) -> Value {
        let answer = self.lab.regions[n].agent.as_ref().unwrap().get("/status").await;
        answer.map_or(Value::Null, |(_, body)| serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// What region `n` has in its outbox.
    pub(crate) async fn acked(&self, n: usize) -> i64 {
        self.status(n).await["outbox"]["acked_seq"].as_i64().unwrap_or(-1)
    }

    /// Pauses, or resumes, what region `n` applies.
    pub(crate) async fn pause(&self, n: usize, pause: bool) {
        let peer = if n == 0 { "r2" } else { "r1" };
        let (order, state) = if pause { ("pause", "paused") } else { ("resume", "running") };
        let agent = self.lab.regions[n].agent.as_ref().unwrap();
        agent.post(&format!("/streams/{peer}/{order}")).await;
        if pause {
            wait_until("the stream is paused", PATIENCE, || async {
                self.status(n).await["streams"][peer]["state"] == state
            })
            .await;
        }
    }

    /// Waits until all that region `n` has written is in its peer's inbox; gives the
    /// last of it.
    pub(crate) async fn shipped(&self, n: usize) -> i64 {
        let (peer, name) = if n == 0 { (1, "r1") } else { (0, "r2") };
        let end: Vec<(String,)> =
            self.lab.regions[n].db.rows("SELECT @@global.gtid_binlog_pos").await;
        let last = number(&end[0].0);
        wait_until("all is in the outbox and the inbox", PATIENCE, || async {
            let status = self.status(n).await;
            // The agents go on writing: the end may be passed between two looks.
            let read = status["capture"]["gtid"].as_str().and_then(number);
            let acked = status["outbox"]["acked_seq"].as_i64();
            let inbox = &self.status(peer).await["streams"][name];
            read >= last
                && acked == status["outbox"]["sent_seq"].as_i64()
                && inbox["link"]["backlog"] == 0
        })
        .await;
        self.acked(n).await
    }
}

/// The last number of a position of one domain.
pub(crate) fn number(gtid: &str) -> Option<u64> {
    gtid.rsplit('-').next().and_then(|n| n.parse().ok())
}

fn memory_peak(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Tells a replica its source; it starts when it is measured, not to be in the way.
async fn follow(source: &Database, replica: &Database) {
    let (host, port) = source.address().split_once(':').map(load::own).unwrap();
    replica
        .exec(&format!(
            "SET GLOBAL gtid_slave_pos = '';\nCHANGE MASTER TO MASTER_HOST = '{host}', \
             MASTER_PORT = {port}, MASTER_USER = 'root', MASTER_USE_GTID = slave_pos;\n"
        ))
        .await;
}

/// Waits on one connection until the target has applied `through` of that origin.
pub(crate) async fn applied(target: &Database, origin: u8, through: i64) {
    let mut conn = target.conn().await;
    let start = Instant::now();
    loop {
        let at = applied_seq(&mut conn, origin).await;
        if at >= through {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{at} of {through} are applied after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The last transaction of that origin that is applied.
pub(crate) async fn applied_seq(conn: &mut Conn, origin: u8) -> i64 {
    let sql = format!(
        "SELECT CAST(COALESCE(MAX(seq), 0) AS SIGNED) FROM causeway.applied \
         WHERE origin = {origin}"
    );
    conn.query_first(sql).await.unwrap().unwrap()
}

/// Processor seconds that a process has used.
pub(crate) fn cpu_s(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
