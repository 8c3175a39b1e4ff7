//! Conflicts on real servers, MariaDB and MySQL 8.0: under each policy three regions
//! write the same 100 rows at once while links are cut and heal, and again one after
//! another.
//!
//! `CAUSEWAY_CONFLICT_SECONDS` is how long the writers run under each policy,
//! `CAUSEWAY_CONFLICT_POLICY` a single one of [`Case`].
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "conflicts/commands.rs"]
mod commands;
#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;
#[path = "conflicts/log.rs"]
mod log;
#[path = "conflicts/missing.rs"]
mod missing;
#[path = "conflicts/policies.rs"]
mod policies;

use std::time::{Duration, Instant};

use lab::db::Flavour;
use lab::region::Lab;
use lab::rng::Rng;
use lab::{PATIENCE, wait_until};
use log::Logs;
use mysql_async::prelude::Queryable as _;
use policies::{Case, Client, RULES, SCHEMA, TABLES, Written};
use tokio::task::JoinSet;

/// When a writer ends.
#[derive(Clone, Copy)]
enum End {
    At(Instant),
    After(u64),
}

/// Transactions that a region writes when it is its turn.
const TURN: u64 = 40;

/// Writes until the end; what the database refuses (a duplicate, a deadlock) did not
/// happen.
async fn write(db: mysql_async::Opts, mut client: Client, end: End) -> Written {
    let mut conn = mysql_async::Conn::new(db).await.unwrap();
    let mut sum = Written::default();
    for number in 0.. {
        let over = match end {
            End::At(end) => Instant::now() >= end,
            End::After(count) => number >= count,
        };
        if over {
            break;
        }
        let (statements, written) = client.transaction();
        conn.query_drop("BEGIN").await.unwrap();
        let mut all = true;
        for sql in &statements {
            if let Err(error) = conn.query_drop(sql).await {
                let known = matches!(&error, mysql_async::Error::Server(error)
                    if [1062, 1205, 1213].contains(&error.code));
                assert!(known, "a client's statement was refused: {error}: {sql}");
                all = false;
                break;
            }
        }
        conn.query_drop(if all { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        if all {
            sum.add(written);
        }
        if matches!(end, End::At(_)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    conn.disconnect().await.unwrap();
    sum
}

struct Run {
    lab: Lab,
    start: Instant,
    /// What is in the tables.
    sum: Written,
    turns: u64,
    seed: u64,
}

impl Run {
    fn client(&mut self, case: Case, region: usize, at_home: bool) -> Client {
        self.seed += 77;
        let region = u64::try_from(region).unwrap();
        Client { case, region, at_home, start: self.start, rng: Rng(self.seed) }
    }

    /// Each region writes once the others' writes have arrived: no conflict.
    async fn in_turn(&mut self, case: Case) {
        let ends = log::ends(&self.lab).await;
        for region in [0, 1, 2, 0] {
            let client = self.client(case, region, false);
            let db = self.lab.regions[region].db.opts();
            self.sum.add(write(db, client, End::After(TURN)).await);
            self.turns += 1;
            let turn = self.turns;
            let sql = format!("INSERT INTO shop.turn VALUES ({turn})");
            self.lab.regions[region].db.write(&sql).await;
            for other in &self.lab.regions {
                let sql = format!("SELECT COUNT(*) FROM shop.turn WHERE id = {turn}");
                wait_until("the turn has arrived", PATIENCE, || async {
                    other.db.number(&sql).await == 1
                })
                .await;
            }
        }
        self.lab.converge(case.tables(), PATIENCE).await;
        let logs = Logs::after(&self.lab, &ends).await;
        assert_eq!(logs.sizes(), [0, 0, 0], "{case:?}: nothing was concurrent");
        self.keeps(case).await;
    }

    /// All regions write at once, and one link after another is cut.
    async fn at_once(&mut self, case: Case, length: Duration) {
        let ends = log::ends(&self.lab).await;
        let end = End::At(Instant::now() + length);
        let mut writers = JoinSet::new();
        for region in 0..3 {
            let client = self.client(case, region, true);
            writers.spawn(write(self.lab.regions[region].db.opts(), client, end));
        }
        // Two pairs lose each other; of the third one side alone stops hearing.
        for ways in [&[(0, 1), (1, 0)][..], &[(1, 2), (2, 1)], &[(2, 0)]] {
            tokio::time::sleep(length / 12).await;
            ways.iter().for_each(|&(reader, source)| self.lab.link(reader, source).cut());
            tokio::time::sleep(length / 6).await;
            ways.iter().for_each(|&(reader, source)| self.lab.link(reader, source).heal());
        }
        let mut transactions = 0;
        while let Some(written) = writers.join_next().await {
            let written = written.unwrap();
            transactions += written.transactions;
            self.sum.add(written);
        }
        self.lab.converge(case.tables(), PATIENCE).await;
        let logs = Logs::after(&self.lab, &ends).await;
        eprintln!("{case:?}: {transactions} transactions, conflicts logged {:?}", logs.sizes());
        self.keeps(case).await;
        self.logged(case, &logs).await;
    }

    async fn number(&self, sql: &str) -> i64 {
        self.lab.regions[1].db.number(sql).await
    }

    /// What the policy says of all writes, whoever won.
    async fn keeps(&self, case: Case) {
        let sum = &self.sum;
        if matches!(case, Case::Delta | Case::All) {
            let sql = "SELECT CAST(SUM(n) * 100 AS SIGNED) FROM shop.stock";
            assert_eq!(self.number(sql).await, sum.cents, "each change counts once");
        }
        if matches!(case, Case::ColumnGroups | Case::All) {
            let sql = "SELECT CAST(SUM(n) AS SIGNED) FROM shop.parts";
            assert_eq!(self.number(sql).await, sum.parts, "each change counts once");
        }
        if matches!(case, Case::Home | Case::All) {
            let sql = "SELECT CAST(SUM(n) AS SIGNED) FROM shop.home";
            assert_eq!(self.number(sql).await, sum.home, "no write at home is lost");
        }
        if matches!(case, Case::InsertOnly | Case::All) {
            let ids = self.lab.regions[1]
                .db
                .rows::<(i64,)>("SELECT id FROM shop.journal ORDER BY id")
                .await;
            let wanted = sum.journal.iter().map(|&id| (id,));
            assert!(ids.into_iter().eq(wanted), "the journal holds each row");
        }
    }

    async fn logged(&self, case: Case, logs: &Logs) {
        if case == Case::Home {
            assert_eq!(logs.sizes(), [0, 0, 0], "writes at home meet none");
            return;
        }
        logs.follow_the_policy();
        let (shared, told) = logs.agree();
        assert!(shared > 10, "{case:?}: the logs have {shared} pairs in common");
        let least = match case {
            Case::All => 6,
            // Over a row, and over a value.
            Case::UniqueKeys => 2,
            Case::Latest
            | Case::TimestampColumn
            | Case::RegionPriority
            | Case::Delta
            | Case::ColumnGroups
            | Case::InsertOnly
            | Case::Home
            | Case::Transaction => 1,
        };
        assert!(told.len() >= least, "{case:?}: conflicts over {told:?} alone");
        if case == Case::Transaction {
            let done = self.lab.regions[1]
                .db
                .rows::<(i64,)>("SELECT v FROM shop.txn_done ORDER BY v")
                .await;
            let lost = logs.lost_txns();
            let stand: Vec<_> = self.sum.txns.difference(&lost).map(|&v| (v,)).collect();
            assert!(done == stand, "of a transaction that lost a row nothing stands");
        }
    }

    /// A second region writes a row that is another's: the streams between the two stop
    /// and say so, and neither row is overwritten.
    async fn alarm(&self) {
        let [one, two] = [0, 1].map(|n| &self.lab.regions[n]);
        for (reader, source) in [(0, 1), (1, 0)] {
            self.lab.link(reader, source).cut();
        }
        one.db.write("UPDATE shop.home SET n = -1 WHERE id = 1").await;
        two.db.write("UPDATE shop.home SET n = -2 WHERE id = 1").await;
        for (reader, source) in [(0, 1), (1, 0)] {
            self.lab.link(reader, source).heal();
        }
        for (region, peer, own) in [(one, "r2", -1), (two, "r1", -2)] {
            wait_until("the stream has stopped", PATIENCE, || async {
                let answer = region.agent.as_ref().unwrap().get("/status").await;
                let status = answer.map_or_else(String::new, |(_, text)| text);
                let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
                let stream = &status["streams"][peer];
                stream["state"] == "halted" && stream.to_string().contains("shop.home")
            })
            .await;
            let n = region.db.number("SELECT n FROM shop.home WHERE id = 1").await;
            assert_eq!(n, own, "at {}", region.name);
        }
    }

    /// A row that may only be inserted is changed: all peers stop, and the region that did
    /// it says so too.
    async fn refused(&self) {
        let third = &self.lab.regions[2];
        third.db.write("UPDATE shop.journal SET v = v + 1 LIMIT 1").await;
        let agent = third.agent.as_ref().unwrap();
        wait_until("it is told where it was done", PATIENCE, || async {
            let (_, text) = agent.get("/status").await.unwrap_or_default();
            let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            status["capture"]["refused"] == "shop.journal"
        })
        .await;
        let (_, metrics) = agent.get("/metrics").await.unwrap();
        let told = |line: &str| {
            line.starts_with("causeway_capture_refused_total") && line.contains("shop.journal")
        };
        assert!(metrics.lines().any(told), "{metrics}");
        for region in &self.lab.regions[..2] {
            wait_until("the stream has stopped", PATIENCE, || async {
                let answer = region.agent.as_ref().unwrap().get("/status").await;
                let status = answer.map_or_else(String::new, |(_, text)| text);
                let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
                let stream = &status["streams"]["r3"];
                stream["state"] == "halted" && stream.to_string().contains("shop.journal")
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_policy_converges_and_all_logs_name_the_same_winners() {
    let servers = [Flavour::MariaDb, Flavour::MySql80, Flavour::MariaDb];
    let mut lab = Lab::start_ruled(&servers, 64, (RULES, "")).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.start_agents().await;
    lab.regions[0].db.exec(&policies::rows()).await;
    lab.converge(&TABLES, PATIENCE).await;
    let seconds = std::env::var("CAUSEWAY_CONFLICT_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let mut run = Run { lab, start: Instant::now(), sum: Written::default(), turns: 0, seed: 0 };
    let only = std::env::var("CAUSEWAY_CONFLICT_POLICY").unwrap_or_default();
    for case in Case::ALL {
        if !only.is_empty() && only != format!("{case:?}") {
            continue;
        }
        run.in_turn(case).await;
        run.at_once(case, Duration::from_secs_f64(seconds)).await;
    }
    if only.is_empty() || only == "missing" {
        missing::missing(&run.lab).await;
    }
    if only.is_empty() {
        commands::commands(&run.lab).await;
        run.refused().await;
        run.alarm().await;
    }
}
