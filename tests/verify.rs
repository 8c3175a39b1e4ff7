//! `causeway verify` on three regions of both servers, with their agents running and
//! writers going on: what was planted is found, and nothing else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;
#[path = "verify/policies.rs"]
mod policies;
#[path = "verify/repair.rs"]
mod repair;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use causeway::compare::{Class, Difference, Outcome, RepairOutcome, Report, State};
use causeway::database::Login;
use causeway::topology::{self, Topology};
use causeway::verify::{self, Config, Progress, Watcher};
use futures_util::future::join_all;
use lab::agent::program;
use lab::db::{Database, Flavour};
use lab::load::{Dice, Load, SCHEMA};
use lab::region::Lab;
use lab::wait_until;
use mysql_async::prelude::Queryable as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const ROWS: u64 = 60_000;
const WORDS: u64 = 3_000;

/// A large table, and one with every kind of column under a key of two, one of them
/// text. The set has 60 members, more than a DOUBLE tells apart.
const TABLES: &str = "CREATE TABLE shop.pay (id BIGINT NOT NULL PRIMARY KEY, amount INT NOT NULL,
  note VARCHAR(64)) ENGINE=InnoDB;
CREATE TABLE shop.word (lang CHAR(2) CHARACTER SET latin1 NOT NULL, word VARCHAR(40) NOT NULL,
  f FLOAT, d DOUBLE, m DECIMAL(20,6), z INT(8) UNSIGNED ZEROFILL, e ENUM('a','b','ü'),
  s SET(members), b BIT(40), bin BINARY(4), vb VARBINARY(9), t TIMESTAMP(6) NULL,
  dt DATETIME(3), h TIME(2), y YEAR, txt TEXT, la VARCHAR(20) CHARACTER SET latin1, bl LONGBLOB,
  PRIMARY KEY (lang, word)) ENGINE=InnoDB;
CREATE TABLE shop.digit (n INT NOT NULL PRIMARY KEY) ENGINE=InnoDB;
INSERT INTO shop.digit VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
";

/// The same rows in every region, without replication.
fn rows() -> String {
    let digits = |count: usize| {
        let tables: Vec<_> = (0..count).map(|n| format!("shop.digit d{n}")).collect();
        let value: Vec<_> = (0..count).map(|n| format!("d{n}.n * 1{}", "0".repeat(n))).collect();
        format!("(SELECT {} AS i FROM {}) x", value.join(" + "), tables.join(", "))
    };
    let members: Vec<_> = (1..=60).map(|n| format!("'m{n}'")).collect();
    let tables = TABLES.replace("members", &members.join(","));
    format!(
        "SET SESSION sql_log_bin = 0, time_zone = '+00:00';\n{tables}\
         INSERT INTO shop.pay SELECT i, i * 31 % 1000, IF(i % 10 = 0, NULL, CONCAT('für ', i)) \
         FROM {} WHERE i < {ROWS};\n\
         INSERT INTO shop.word SELECT ELT(1 + i % 2, 'de', 'en'), CONCAT('wört', i), i / 7, \
         EXP(i / 100) / 3, i / 16, i, 1 + i % 3, i % 8 | 1 << 59, i * 99991, LEFT(MD5(i), 4), \
         UNHEX(SHA1(i) = '' OR LEFT(MD5(i), i % 9 * 2)), '2024-03-31 00:00:00' + INTERVAL i * 977 \
         MICROSECOND, '2024-10-27 02:00:00' + INTERVAL i MINUTE, SEC_TO_TIME(i * 60), 1970 + i % 100, \
         IF(i % 5 = 0, '', REPEAT('ß', i % 300)), CONCAT('ä', i), UNHEX(MD5(i)) \
         FROM {} WHERE i < {WORDS};\n",
        digits(5),
        digits(4)
    )
}

async fn silent(database: &Database, sql: &str) {
    let mut conn = database.conn().await;
    conn.query_drop("SET SESSION sql_log_bin = 0, time_zone = '+00:00', sql_mode = ''")
        .await
        .unwrap();
    for statement in sql.split(";\n").filter(|text| !text.trim().is_empty()) {
        let done = conn.query_drop(statement).await;
        assert!(done.is_ok(), "{done:?}: {statement}");
    }
    conn.disconnect().await.unwrap();
}

async fn start() -> Lab {
    let mut lab = Lab::start(&[Flavour::MariaDb, Flavour::MySql56, Flavour::MariaDb]).await;
    lab.exec_everywhere(SCHEMA).await;
    let rows = rows();
    join_all(lab.regions.iter().map(|region| silent(&region.db, &rows))).await;
    lab.start_agents().await;
    for region in &lab.regions {
        region.db.exec("INSERT INTO shop.parent (region) VALUES (1)").await;
    }
    lab.converge(&["shop.parent"], lab::PATIENCE).await;
    lab
}

/// Updates rows of the large table in every region, those that nothing is planted in.
struct Writers {
    stop: CancellationToken,
    tasks: JoinSet<u64>,
}

impl Writers {
    fn start(databases: &[&Database]) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (n, database) in databases.iter().enumerate() {
            let (opts, stop) = (database.opts(), stop.clone());
            tasks.spawn(async move {
                let mut conn = mysql_async::Conn::new(opts).await.unwrap();
                let mut dice = Dice::new(n as u64 + 5);
                let mut written = 0;
                while !stop.is_cancelled() {
                    let id = 100 + dice.below(ROWS - 200);
                    let sql = format!(
                        "UPDATE shop.pay SET amount = {}, note = 'written {n}' WHERE id = {id} AND id <> 50001",
                        dice.below(1_000_000)
                    );
                    // A lock that is not had in time is the writer's to try again.
                    written += u64::from(conn.query_drop(sql).await.is_ok());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                written
            });
        }
        Self { stop, tasks }
    }

    async fn finish(mut self) {
        self.stop.cancel();
        while let Some(written) = self.tasks.join_next().await {
            assert!(written.unwrap() > 0, "a writer wrote nothing");
        }
    }
}

/// The program, run from the first region, and where its report goes.
fn command(lab: &Lab, more: &[&str]) -> (Vec<String>, PathBuf) {
    let region = &lab.regions[0];
    let topology = region.topology.display().to_string();
    let folder = region.topology.parent().unwrap();
    let conf = folder.join(format!("{}.conf.yaml", region.name)).display().to_string();
    let path = folder.join("report.json");
    let report = path.display().to_string();
    if path.exists() {
        std::fs::remove_file(&path).unwrap();
    }
    let program = program().display().to_string();
    let mut words = vec![program.as_str(), "verify"];
    words.extend(["--topology", &topology, "--region", &region.name, "--conf", &conf]);
    // A busy machine is no reason for a difference.
    words.extend(["--report", &report, "--settle", "150s"]);
    words.extend(more);
    (words.into_iter().map(str::to_owned).collect(), path)
}

fn printed(output: &std::process::Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs the program; gives its exit status, its report, and what it printed.
async fn verify(lab: &Lab, more: &[&str]) -> (i32, Option<Report>, String) {
    let (words, path) = command(lab, more);
    let output = tokio::process::Command::new(&words[0]).args(&words[1..]).output().await.unwrap();
    let report =
        std::fs::read_to_string(path).ok().map(|text| serde_json::from_str(&text).unwrap());
    (output.status.code().unwrap(), report, printed(&output))
}

/// Class, last key value and differing columns of a table's differences.
fn found(report: &Report, table: &str) -> BTreeSet<(Class, String, String)> {
    let table = report.tables.iter().find(|report| report.table == table).unwrap();
    let shown = |difference: &Difference| {
        let key = difference.key.last().unwrap().1.clone();
        (difference.class, key, difference.columns.join(","))
    };
    let all: BTreeSet<_> = table.differences.iter().map(shown).collect();
    assert_eq!(all.len(), table.differences.len(), "a row is reported twice");
    all
}

/// By region, what is planted in the large table: every class, with the row and the
/// columns that differ.
const PLANTED: [(usize, &str, Class, &str, &str); 9] = [
    (
        1,
        "UPDATE shop.pay SET amount = amount + 1 WHERE id = 77",
        Class::PolicyViolated,
        "77",
        "amount",
    ),
    (2, "DELETE FROM shop.pay WHERE id = 50001", Class::Lost, "50001", ""),
    (0, "INSERT INTO shop.pay VALUES (1000001, 1, 'extra')", Class::Extra, "1000001", ""),
    // A sum over the values stays the same.
    (
        2,
        "UPDATE shop.pay SET amount = amount + 5 WHERE id = 20",
        Class::PolicyViolated,
        "20",
        "amount",
    ),
    (
        2,
        "UPDATE shop.pay SET amount = amount - 5 WHERE id = 21",
        Class::PolicyViolated,
        "21",
        "amount",
    ),
    (1, "UPDATE shop.pay SET note = 'für 32' WHERE id = 31", Class::PolicyViolated, "31", "note"),
    (1, "UPDATE shop.pay SET note = 'für 31' WHERE id = 32", Class::PolicyViolated, "32", "note"),
    // As the collation compares, nothing has changed.
    (
        1,
        "UPDATE shop.pay SET note = CONCAT(note, ' ') WHERE id = 41",
        Class::PolicyViolated,
        "41",
        "note",
    ),
    (0, "UPDATE shop.pay SET note = '' WHERE id = 60", Class::PolicyViolated, "60", "note"),
];

/// The same for each column of the other table.
const WORD_CHANGES: [(&str, &str); 17] = [
    ("f", "f * 1.0000003"),
    ("d", "d * 1.0000000000000004"),
    ("m", "m + 0.000001"),
    ("z", "z + 1"),
    ("e", "1 + e % 3"),
    ("s", "s ^ 1"),
    ("b", "b ^ 1"),
    ("bin", "UPPER(CONCAT(LEFT(bin, 3), X'00'))"),
    ("vb", "CONCAT(vb, X'00')"),
    ("t", "t + INTERVAL 1 MICROSECOND"),
    ("dt", "dt + INTERVAL 1000 MICROSECOND"),
    ("h", "ADDTIME(h, '00:00:00.01')"),
    ("y", "y + 1"),
    ("txt", "CONCAT(txt, ' ')"),
    ("la", "UPPER(la)"),
    ("bl", "CONCAT(bl, ' ')"),
    // 'm1,m60' and 'm2,m60', in MySQL.
    ("s", "s ^ 3"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_is_found_while_writers_go_on_and_nothing_else() {
    let mut lab = start().await;
    let load = Load::start(&lab.databases(), 1, 11, Duration::from_millis(50));
    let writers = Writers::start(&lab.databases());

    let (status, report, shown) = verify(&lab, &[]).await;
    assert_eq!(status, 0, "{shown}");
    let report = report.unwrap();
    assert_eq!(report.outcome(), Outcome::Equal);
    let rows: BTreeMap<_, _> = report.tables.iter().map(|t| (t.table.as_str(), t.rows)).collect();
    assert_eq!((rows["shop.pay"], rows["shop.word"]), (ROWS, WORDS));
    assert!(report.tables.iter().all(|table| table.left_out.is_empty()), "{shown}");

    let mut wanted = BTreeSet::new();
    for (region, sql, class, id, columns) in PLANTED {
        silent(&lab.regions[region].db, sql).await;
        wanted.insert((class, id.to_owned(), columns.to_owned()));
    }
    let mut words = BTreeSet::new();
    for (n, (column, value)) in WORD_CHANGES.iter().enumerate() {
        let word = format!("wört{}", 101 + n * 2);
        let sql = format!("UPDATE shop.word SET {column} = {value} WHERE word = '{word}'");
        silent(&lab.regions[n % 3].db, &sql).await;
        words.insert((Class::PolicyViolated, word, (*column).to_owned()));
    }
    // The same row under another spelling of its key.
    silent(&lab.regions[1].db, "UPDATE shop.word SET word = 'WÖRT7' WHERE word = 'wört7'").await;
    words.insert((Class::PolicyViolated, "wört7".to_owned(), "word".to_owned()));

    let (status, report, shown) = verify(&lab, &["--values", "shop.pay", "shop.word"]).await;
    assert_eq!(status, 1, "{shown}");
    let report = report.unwrap();
    assert_eq!(found(&report, "shop.pay"), wanted, "{shown}");
    assert_eq!(found(&report, "shop.word"), words, "{shown}");
    assert!(shown.contains(r#"r2: note="für 41 ""#), "{shown}");

    // Every class is repaired, every type of column, and nothing else differs then.
    let repair = ["--repair", "--from", "r1", "--yes", "shop.pay", "shop.word"];
    let (status, report, shown) = verify(&lab, &repair).await;
    assert_eq!(status, 0, "{shown}");
    let report = report.unwrap();
    let all = report.repairs.iter().all(|repair| repair.outcome == RepairOutcome::Repaired);
    assert!(all && report.repairs.len() >= wanted.len() + words.len(), "{shown}");
    writers.finish().await;
    load.finish().await;
    let (status, _, shown) = verify(&lab, &[]).await;
    assert_eq!(status, 0, "{shown}");

    lab.regions[2].db.proc.kill();
    let (status, _, shown) = verify(&lab, &["shop.word"]).await;
    assert_eq!(status, 2, "{shown}");
    assert!(shown.contains("region r3: no database is writable"), "{shown}");
}

/// Keeps the last state, and tells of each progress.
struct Keeper {
    state: Option<State>,
    heard: mpsc::Sender<String>,
}

impl Watcher for Keeper {
    fn progress(&mut self, progress: &Progress<'_>) {
        let text = progress.waits.clone().unwrap_or_else(|| format!("{} rows", progress.rows));
        drop(self.heard.try_send(text));
    }

    fn keep(&mut self, state: &State) -> std::io::Result<()> {
        self.state = Some(serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap());
        Ok(())
    }
}

fn topology(lab: &Lab) -> Topology {
    topology::parse(&std::fs::read_to_string(&lab.regions[0].topology).unwrap()).unwrap()
}

fn config<'a>(topology: &'a Topology, table: &str) -> Config<'a> {
    Config {
        topology,
        here: &topology.regions[0],
        login: Login { user: "root".to_owned(), password: None, tls: false },
        kafka: BTreeMap::new(),
        tables: vec![table.parse().unwrap()],
        lag_max: Duration::from_secs(600),
        rows_per_second: None,
        patience: lab::PATIENCE,
        differences_max: 1_000,
        values: false,
    }
}

/// Compares; `act` is called with each progress.
async fn compare<F: Future<Output = ()>>(
    config: &Config<'_>,
    state: Option<State>,
    stop: CancellationToken,
    act: impl Fn(String) -> F,
) -> (Report, State) {
    let (heard, mut hears) = mpsc::channel(1_000);
    let mut keeper = Keeper { state: None, heard };
    let work = async {
        let report = verify::run(config, state, &mut keeper, stop).await.unwrap();
        (report, keeper.state.unwrap())
    };
    let acts = async {
        while let Some(text) = hears.recv().await {
            act(text).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = Box::pin(work) => done,
        () = acts => unreachable!("it waits for ever"),
    }
}

/// Stopped while it looks again: everything has been read, and is not read twice.
async fn stopped_while_it_settles(item: &mut Config<'_>) {
    let silence = |_| std::future::ready(());
    item.patience = lab::PATIENCE;
    let stop = CancellationToken::new();
    let first = stop.clone();
    let (report, state) = compare(item, None, stop, move |text| {
        if text.starts_with("settling") {
            first.cancel();
        }
        std::future::ready(())
    })
    .await;
    assert_eq!((report.finished_us, report.tables[0].rows), (None, 1));
    assert!(report.tables[0].differences.is_empty(), "{report:?}");
    item.patience = Duration::from_millis(500);
    let (report, _) = compare(item, Some(state), CancellationToken::new(), silence).await;
    assert_eq!((report.tables[0].rows, report.tables[0].chunks), (1, 1), "each row once");
    let unsettled = (Class::Unsettled, "1".to_owned(), String::new());
    assert_eq!(found(&report, "shop.item"), BTreeSet::from([unsettled]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_comparison_goes_on_and_a_lagging_region_is_spared() {
    let lab = start().await;
    let topology = topology(&lab);
    let silence = |_| std::future::ready(());
    silent(&lab.regions[1].db, "UPDATE shop.pay SET amount = -1 WHERE id IN (3, 59999)").await;

    // Stopped by its own first word of progress.
    let pay = config(&topology, "shop.pay");
    let stop = CancellationToken::new();
    let first = stop.clone();
    let (report, state) = compare(&pay, None, stop, move |_| {
        first.cancel();
        std::future::ready(())
    })
    .await;
    assert_eq!(report.finished_us, None);
    let cursor = state.cursor.as_ref().unwrap();
    assert!(cursor.after.is_some() && report.tables[0].rows < ROWS, "{report:?}");
    let (report, _) = compare(&pay, Some(state), CancellationToken::new(), silence).await;
    assert_eq!(report.tables[0].rows, ROWS, "each row once");
    let ids: BTreeSet<_> = found(&report, "shop.pay").into_iter().map(|(_, id, _)| id).collect();
    assert_eq!(ids, BTreeSet::from(["3".to_owned(), "59999".to_owned()]));

    // What a stopped stream has not applied is no loss.
    let agent = lab.regions[2].agent.as_ref().unwrap();
    assert_eq!(agent.post("/streams/r1/pause").await.unwrap().0, 204);
    wait_until("the stream is paused", lab::PATIENCE, || async {
        let status = agent.get("/status").await.unwrap_or_default().1;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        status["streams"]["r1"]["state"] == "paused"
    })
    .await;
    lab.regions[0].db.exec("INSERT INTO shop.item VALUES (1, 1, 1, 'ü')").await;
    let arrived = "SELECT COUNT(*) FROM shop.item";
    wait_until("the row is at r2", lab::PATIENCE, || async {
        lab.regions[1].db.number(arrived).await == 1
    })
    .await;
    let mut item = config(&topology, "shop.item");
    item.patience = Duration::from_millis(500);
    let (report, _) = compare(&item, None, CancellationToken::new(), silence).await;
    let unsettled = (Class::Unsettled, "1".to_owned(), String::new());
    assert_eq!(found(&report, "shop.item"), BTreeSet::from([unsettled]));
    assert!(report.tables[0].unsettled.is_some(), "it says why");

    stopped_while_it_settles(&mut item).await;

    // It waits for a region that is behind, until the stream goes on.
    item.patience = lab::PATIENCE;
    item.lag_max = Duration::ZERO;
    let waited = std::sync::atomic::AtomicBool::new(false);
    let (report, _) = compare(&item, None, CancellationToken::new(), |text| {
        let behind = text.ends_with("behind r1");
        let resume = behind && !waited.swap(true, std::sync::atomic::Ordering::Relaxed);
        async move {
            if resume {
                assert_eq!(agent.post("/streams/r1/resume").await.unwrap().0, 204);
            }
        }
    })
    .await;
    assert!(waited.into_inner(), "it did not wait");
    assert_eq!(report.outcome(), Outcome::Equal);
    assert_eq!(report.tables[0].rows, 1);
}

/// A page of an agent's API; a busy machine may be late with it.
async fn page(lab: &Lab, region: usize, path: &str) -> String {
    let agent = lab.regions[region].agent.as_ref().unwrap();
    let text = std::sync::Mutex::new(String::new());
    wait_until("the agent answers", lab::PATIENCE, || async {
        let Some((200, body)) = agent.get(path).await else { return false };
        *text.lock().unwrap() = body;
        true
    })
    .await;
    text.into_inner().unwrap()
}

/// A number of the agent's metrics; 0 where there is none.
async fn metric(lab: &Lab, region: usize, name: &str) -> f64 {
    let text = page(lab, region, "/metrics").await;
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

/// What a program that reads the agent's status sees of its comparison.
async fn comparing(lab: &Lab) -> serde_json::Value {
    let status = page(lab, 0, "/status").await;
    serde_json::from_str::<serde_json::Value>(&status).unwrap()["verify"].clone()
}

async fn differs(lab: &Lab, class: &str) -> bool {
    comparing(lab).await["tables"]["shop.item"]["differences"][class] == 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_compares_by_itself_pass_after_pass() {
    let verify = "verify: { region: r1, interval: 1s, max_lag: 10m }\n";
    let mut lab = Lab::start_with(&[Flavour::MariaDb, Flavour::MySql56], 64, verify).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.start_agents().await;
    lab.regions[0].db.exec("INSERT INTO shop.item VALUES (1, 1, 1, 'a')").await;
    lab.converge(&["shop.item"], lab::PATIENCE).await;

    let (last, full) = ("last_full_us", "causeway_verify_last_full_timestamp_seconds");
    wait_until("a pass is whole", lab::PATIENCE, || async { comparing(&lab).await[last].is_u64() })
        .await;
    assert!(metric(&lab, 0, full).await > 1e9);
    assert!(metric(&lab, 0, "causeway_verify_chunks_total").await >= 4.0);
    let text = page(&lab, 1, "/metrics").await;
    assert!(!text.contains("causeway_verify_differences"), "unknown is not zero");
    assert!(!differs(&lab, "policy_violated").await && !differs(&lab, "lost").await);

    silent(&lab.regions[1].db, "UPDATE shop.item SET n = 2").await;
    wait_until("it is found", lab::PATIENCE, || differs(&lab, "policy_violated")).await;
    let text = page(&lab, 0, "/metrics").await;
    let mut lines = text.lines().filter(|line| line.starts_with("causeway_verify_differences{"));
    let series = lines.find(|line| line.contains("shop.item") && line.contains("policy_violated"));
    assert_eq!(series.and_then(|line| line.rsplit(' ').next()), Some("1"), "{text}");
    silent(&lab.regions[1].db, "DELETE FROM shop.item").await;
    wait_until("it is found", lab::PATIENCE, || differs(&lab, "lost")).await;

    lab.regions[1].db.proc.kill();
    wait_until("it says who is away", lab::PATIENCE, || async {
        let verify = comparing(&lab).await;
        let reason = verify["reason"].as_str().unwrap_or_default().to_owned();
        verify["state"] == "retrying" && reason.contains("r2")
    })
    .await;
    assert!(differs(&lab, "lost").await, "what is known stays");
}
