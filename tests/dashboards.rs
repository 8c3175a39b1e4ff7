//! Every query of the dashboards and the alert rules, by a real Prometheus.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use causeway::admin::{self, Admin, Token};
use causeway::clock::wall_us;
use causeway::command::COMMANDS_MAX;
use causeway::metrics::{Metrics, Stage};
use causeway::status::{
    AgentState, AgentStatus, CaptureState, LinkState, StatusBoard, StreamState, TableVerify,
    VerifyStatus,
};
use lab::db::Flavour;
use lab::proc::{Proc, free_port};
use lab::region::Lab;
use mysql_async::prelude::Queryable as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

const PATIENCE: Duration = lab::PATIENCE;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One region that replicates from one peer, with every series there is.
fn filled() -> (StatusBoard, Arc<Metrics>) {
    let now = wall_us();
    let status = AgentStatus {
        region: "eu".into(),
        version: "test".into(),
        started_us: now,
        state: AgentState::Running,
        ..AgentStatus::default()
    };
    let board = StatusBoard::new(status);
    board.update(|s| {
        s.capture.state = CaptureState::Running;
        s.capture.behind_us = Some(800);
        s.database.reachable = Some(true);
        (s.outbox.acked_seq, s.outbox.sent_seq) = (Some(10), Some(10));
        s.index.keys = Some(3);
        s.index.writes = Some(7);
        s.retention_us = Some(604_800_000_000);
        s.clock.offset_us.insert("us".into(), Some(-200));
        (s.clock.source_offset_us, s.clock.limit_us) = (Some(-100), 500_000);
        let differences = [("lost".to_owned(), 0)].into();
        let table = TableVerify { differences, ..TableVerify::default() };
        s.verify = Some(VerifyStatus {
            interval_us: 3_600_000_000,
            last_full_us: Some(now),
            tables: [("shop.t".to_owned(), table)].into(),
            ..VerifyStatus::default()
        });
    });
    board.stream("us", |s| {
        s.state = StreamState::Running;
        (s.inbox_seq, s.behind_us) = (Some(5), Some(0));
        (s.heard_us, s.seen_seq) = (Some(now), Some(10));
        s.link.state = LinkState::Running;
        s.link.backlog = Some(0);
        s.link.through = Some("ap".into());
    });
    board.applied("us", 5, 5, now);
    (board, Arc::new(Metrics::for_region("eu")))
}

/// Counts go on, so that every rate and quantile has a value.
fn live(metrics: &Metrics) {
    let now = wall_us();
    for stage in [Stage::Capture, Stage::Outbox, Stage::Link, Stage::Inbox, Stage::Apply] {
        metrics.heartbeat(stage, "us", now);
    }
    metrics.lag("us", 3_000);
    for own in [
        &metrics.capture_txns,
        &metrics.capture_rows,
        &metrics.capture_recognised,
        &metrics.capture_repairs,
        &metrics.verify_chunks,
        &metrics.outbox_records,
    ] {
        own.with_label_values::<&str>(&[]).inc();
    }
    for stream in [
        &metrics.link_records,
        &metrics.link_bytes,
        &metrics.link_detoured,
        &metrics.inbox_duplicates,
        &metrics.inbox_fenced,
        &metrics.apply_txns,
        &metrics.apply_rows,
        &metrics.apply_batches,
    ] {
        stream.with_label_values(&["us"]).inc();
    }
    metrics.apply_retries.with_label_values(&["us", "deadlock"]).inc();
    metrics.conflicts.with_label_values(&["us", "shop.t", "update_update", "latest"]).inc();
}

/// A Prometheus that scrapes `targets`; it ends with the test.
struct Prometheus {
    _proc: Proc,
    address: String,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(targets: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rules = root().join("conf/alerts.yaml");
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n  - job_name: causeway\n    static_configs:\n      - targets: {targets:?}\n",
            rules.display()
        );
        let file = dir.path().join("prometheus.yaml");
        std::fs::write(&file, config).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let args = vec![
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let proc = Proc::start("Prometheus", &dir.path().join("log"), "prometheus", args);
        Self { _proc: proc, address, _dir: dir }
    }

    async fn get(&self, path: &str) -> Result<serde_json::Value, String> {
        let mut stream = TcpStream::connect(&self.address).await.map_err(|e| e.to_string())?;
        let request = format!("GET {path} HTTP/1.0\r\nhost: p\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(|e| e.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
        serde_json::from_str(body).map_err(|e| format!("{e}: {body}"))
    }

    /// The series that `query` gives at this moment.
    async fn query(&self, query: &str) -> Result<usize, String> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={escaped}")).await?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        Ok(answer["data"]["result"].as_array().map_or(0, Vec::len))
    }

    /// Waits until `query` gives something.
    async fn wait_for(&self, query: &str) {
        lab::wait_until(&format!("{query} gives something"), PATIENCE, || async {
            self.query(query).await.is_ok_and(|count| count > 0)
        })
        .await;
    }
}

impl Prometheus {
    /// Every query of every dashboard gives something, and no rule speaks up; series of
    /// `absent` may be missing.
    async fn check(&self, absent: &[&str]) {
        let missing_ok = |query: &str| absent.iter().any(|name| query.contains(name));
        for entry in std::fs::read_dir(root().join("dashboards")).unwrap() {
            for (panel, query) in dashboard_queries(&entry.unwrap().path()) {
                // A scrape may be late on a busy machine: its series are gone until the next.
                lab::wait_until(&format!("{panel}: {query}"), PATIENCE, || async {
                    self.query(&query).await.is_ok_and(|count| count > 0 || missing_ok(&query))
                })
                .await;
            }
        }
        let rules = self.get("/api/v1/rules").await.unwrap();
        let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap().clone();
        assert!(!rules.is_empty());
        for rule in &rules {
            let query = rule["query"].as_str().unwrap();
            // A healthy region is silent, but for what it may have met in the last minutes;
            // the series that a rule looks at are there.
            let rates = ["fenced", "retries", "conflicts", "lag_seconds"];
            if !rates.iter().any(|rate| query.contains(rate)) {
                // What a rule looks for may be so for a moment: none lasts.
                let what = format!("{} is silent: {query}", rule["name"]);
                lab::wait_until(&what, PATIENCE, || async { self.query(query).await == Ok(0) })
                    .await;
            }
            for name in metric_names(query).into_iter().filter(|name| !missing_ok(name)) {
                self.wait_for(name).await;
            }
        }
    }
}

/// Panel title and query.
fn dashboard_queries(file: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            let query = target["expr"].as_str().unwrap();
            let query = query
                .replace("$region", ".*")
                .replace("$origin", ".*")
                .replace("$__rate_interval", "1m");
            assert!(!query.contains('$'), "a variable without a value in {query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

fn metric_names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("causeway_") && word.len() > "causeway_".len())
        .collect()
}

#[tokio::test]
async fn every_query_has_an_answer() {
    let (board, metrics) = filled();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let (commands, _agent) = mpsc::channel(COMMANDS_MAX);
    let token = Arc::new(Token::new("0123456789abcdef").unwrap());
    let mut tasks = JoinSet::new();
    let admin = Admin { board, metrics: Arc::clone(&metrics), commands, token };
    tasks.spawn(async move {
        admin::serve(listener, admin, CancellationToken::new()).await.unwrap();
    });
    tasks.spawn(async move {
        loop {
            live(&metrics);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });

    let prometheus = Prometheus::start(&[target]);
    // Two scrapes and a rate over them.
    prometheus.wait_for("rate(causeway_conflicts_total[1m]) > 0").await;
    prometheus.check(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_has_an_answer_from_running_regions() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 3]).await;
    lab.exec_everywhere(
        "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, n INT);\n",
    )
    .await;
    lab.start_agents().await;
    let targets: Vec<String> =
        lab.regions.iter().map(|region| region.agent.as_ref().unwrap().address()).collect();
    let prometheus = Prometheus::start(&targets);
    let mut writers = JoinSet::new();
    for (n, region) in lab.regions.iter().enumerate() {
        let opts = region.db.opts();
        writers.spawn(async move {
            let mut conn = mysql_async::Conn::new(opts).await.unwrap();
            for round in 1.. {
                let (own, shared) = (round * 10 + n, round % 3);
                let written = conn
                    .query_drop(format!(
                        "REPLACE INTO shop.t VALUES ({own}, {n}), ({shared}, {round})"
                    ))
                    .await;
                // A deadlock with the applier is the writer's to repeat.
                drop(written);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    prometheus.wait_for("count(rate(causeway_conflicts_total[1m]) > 0) >= 1").await;
    prometheus.wait_for("count(rate(causeway_apply_txns_total[1m]) > 0) == 6").await;
    // Contention comes as it likes.
    // Nobody compares here, nor repairs, and no link needs a detour.
    let absent = [
        "causeway_apply_retries_total",
        "causeway_verify",
        "causeway_capture_repairs_total",
        "causeway_link_through",
    ];
    prometheus.check(&absent).await;
    writers.shutdown().await;
    lab.converge(&["shop.t"], PATIENCE).await;
}

#[test]
fn alerts_fire_when_they_should() {
    for arguments in
        [["check", "rules", "conf/alerts.yaml"], ["test", "rules", "tests/alerts.yaml"]]
    {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(root())
            .output()
            .expect("promtool is installed by scripts/setup");
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}");
    }
}
