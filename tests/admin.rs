#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
//! The admin API over a real connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use causeway::admin::{self, Admin, Token};
use causeway::command::{COMMANDS_MAX, Command, Refusal};
use causeway::metrics::Metrics;
use causeway::status::{AgentState, AgentStatus, Assigned, CaptureState, DdlHold, StatusBoard};
use lab::db::Flavour;
use lab::region::{Lab, Region};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

const TOKEN: &str = "0123456789abcdef";

struct Server {
    address: std::net::SocketAddr,
    board: StatusBoard,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

/// Serves with an agent that answers every command through `agent`.
async fn serve(agent: impl Fn(&Command) -> Result<(), Refusal> + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (commands, mut received) = mpsc::channel(COMMANDS_MAX);
    let board = StatusBoard::new(AgentStatus { region: "eu".into(), ..AgentStatus::default() });
    let admin = Admin {
        board: board.clone(),
        metrics: Arc::new(Metrics::new()),
        commands,
        token: Arc::new(Token::new(TOKEN).unwrap()),
    };
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let stop = cancel.clone();
    tasks.spawn(async move { admin::serve(listener, admin, stop).await.unwrap() });
    tasks.spawn(async move {
        while let Some(command) = received.recv().await {
            let answer = agent(&command);
            match command {
                Command::Assign { reply, .. } | Command::ReleaseDdl { reply, .. } => {
                    reply.send(answer).unwrap();
                }
            }
        }
    });
    Server { address, board, cancel, tasks }
}

impl Server {
    /// The status code, and headers and body as they came.
    async fn request(&self, line: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let auth = token.map(|t| format!("authorization: Bearer {t}\r\n")).unwrap_or_default();
        let length = body.len();
        let head = format!(
            "{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{auth}content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    async fn stop(mut self) {
        self.cancel.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
    }
}

#[tokio::test]
async fn probes_and_metrics_are_open_and_the_rest_needs_the_token() {
    let server = serve(|_| Ok(())).await;
    for path in ["/healthz", "/metrics"] {
        assert_eq!(server.request(&format!("GET {path}"), None, "").await.0, 200, "{path}");
    }
    for line in ["GET /status", "GET /ddl", "POST /streams/us/pause", "POST /ddl/1/release"] {
        for token in [None, Some("0123456789abcdeg"), Some("")] {
            let (code, answer) = server.request(line, token, "").await;
            assert_eq!(code, 401, "{line}");
            assert!(answer.contains("application/problem+json"), "{answer}");
        }
    }
    let (code, answer) = server.request("GET /status", Some(TOKEN), "").await;
    assert_eq!(code, 200);
    assert!(answer.contains(r#""region":"eu""#) && answer.contains(r#""epoch":null"#), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn readiness_says_why_not() {
    let server = serve(|_| Ok(())).await;
    let (code, answer) = server.request("GET /readyz", None, "").await;
    assert_eq!(code, 503);
    assert!(answer.contains("capture is starting"), "{answer}");
    server.board.update(|status| {
        status.state = AgentState::Running;
        status.capture.state = CaptureState::Running;
    });
    assert_eq!(server.request("GET /readyz", None, "").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn commands_reach_the_agent_and_its_refusals_come_back() {
    let server = serve(|command| match command {
        Command::Assign { origin, assigned, by, span, .. } if origin == "us" => {
            assert_eq!(*assigned, Assigned::Paused);
            assert_eq!((by.name(), by.reason()), ("ann", "maintenance"));
            assert_eq!(*span, Some(Duration::from_secs(1800)));
            Ok(())
        }
        Command::Assign { origin, .. } => {
            Err(Refusal::NotFound(format!("no stream comes from {origin}")))
        }
        Command::ReleaseDdl { .. } => Err(Refusal::Conflict("capture is not held".to_owned())),
    })
    .await;
    let token = Some(TOKEN);
    let body = r#"{"who":"ann","reason":"maintenance","for":"30m"}"#;
    assert_eq!(server.request("POST /streams/us/pause", token, body).await.0, 204);
    let (code, answer) = server.request("POST /streams/xx/resume", token, "").await;
    assert_eq!(code, 404);
    assert!(answer.contains("no stream comes from xx"), "{answer}");
    assert_eq!(server.request("POST /ddl/7/release", token, "").await.0, 409);
    assert_eq!(server.request("POST /streams/us/stop", token, "").await.0, 404);
    for body in [r#"{"x":1}"#, r#"{"for":"soon"}"#] {
        assert_eq!(server.request("POST /streams/us/pause", token, body).await.0, 400, "{body}");
    }
    assert_eq!(server.request("GET /ddl/7/release", token, "").await.0, 405);
    server.stop().await;
}

#[tokio::test]
async fn schema_changes_are_listed() {
    let server = serve(|_| Ok(())).await;
    server.board.update(|status| {
        status.ddl.push(DdlHold {
            id: "eu-1-9".to_owned(),
            statement: "ALTER TABLE t ADD c INT".to_owned(),
            ..DdlHold::default()
        });
    });
    let (code, answer) = server.request("GET /ddl", Some(TOKEN), "").await;
    assert_eq!(code, 200);
    assert!(answer.contains("eu-1-9") && answer.contains("ADD c INT"), "{answer}");
    server.stop().await;
}

/// Runs the program against `server`: exit status, stdout, stderr.
async fn causeway(server: &Server, arguments: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_causeway"))
        .args(arguments)
        .env("CAUSEWAY_ADMIN_ADDR", server.address.to_string())
        .env("SUDO_USER", "ann")
        .env("CAUSEWAY_ADMIN_TOKEN_FILE", token)
        .output()
        .await
        .unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), out, err)
}

#[tokio::test]
async fn the_command_line_says_what_the_agent_says() {
    let server = serve(|command| match command {
        Command::Assign { by, span, .. } => {
            assert_eq!(by.reason(), "maintenance");
            assert!(by.name().starts_with("ann@"), "{}", by.name());
            assert_eq!(*span, Some(Duration::from_secs(1800)));
            Ok(())
        }
        Command::ReleaseDdl { id, by, .. } if id == "0-1-9/a b" => {
            assert_eq!(by.reason(), "no reason given");
            Ok(())
        }
        Command::ReleaseDdl { id, .. } => Err(Refusal::NotFound(format!("no hold is called {id}"))),
    })
    .await;
    server.board.stream("us", |_| {});
    let (code, out, _) = causeway(&server, &["status"]).await;
    assert_eq!(code, 1);
    assert!(out.contains("us      running   starting"), "{out}");
    let (_, out, _) = causeway(&server, &["status", "-o", "json"]).await;
    let status: AgentStatus = serde_json::from_str(&out).unwrap();
    assert_eq!(status.region, "eu");
    server.board.update(|status| {
        status.state = AgentState::Running;
        status.capture.state = CaptureState::Running;
        status.streams.clear();
        status.ddl.push(DdlHold { id: "0-1-9/a b".to_owned(), ..DdlHold::default() });
    });
    assert_eq!(causeway(&server, &["status"]).await.0, 0);

    let (code, out, _) = causeway(&server, &["ddl", "list"]).await;
    assert_eq!(code, 0);
    assert!(out.contains("0-1-9/a b"), "{out}");
    assert_eq!(causeway(&server, &["ddl", "release", "0-1-9/a b"]).await.0, 0);
    let (code, _, err) = causeway(&server, &["ddl", "release", "7"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("no hold is called 7"), "{err}");
    let pause = ["stream", "pause", "us", "--reason", "maintenance", "--for", "30m"];
    assert_eq!(causeway(&server, &pause).await.0, 0);
    assert_eq!(causeway(&server, &pause[..3]).await.0, 64, "a pause has a reason");

    let wrong = ["status", "--token-file", "/dev/null"];
    let (code, _, err) = causeway(&server, &wrong).await;
    assert_eq!(code, 2);
    assert!(err.contains("bearer token"), "{err}");
    assert_eq!(causeway(&server, &["status", "--addr", "127.0.0.1:1"]).await.0, 2);
    assert_eq!(causeway(&server, &["status", "--nonsense"]).await.0, 64);
    server.stop().await;
}

#[tokio::test]
async fn a_watch_ends_when_its_reader_has_read_enough() {
    let server = serve(|_| Ok(())).await;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let mut watch = tokio::process::Command::new(env!("CARGO_BIN_EXE_causeway"))
        .args(["status", "--watch", "--addr", &server.address.to_string()])
        .arg("--token-file")
        .arg(token)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut reader = watch.stdout.take().unwrap();
    assert!(reader.read(&mut [0; 10]).await.unwrap() > 0);
    drop(reader);
    let ended = tokio::time::timeout(lab::PATIENCE, watch.wait()).await;
    assert_eq!(ended.expect("it ends").unwrap().code(), Some(0));
    server.stop().await;
}

/// The program against a running agent: exit status and both outputs.
async fn at(region: &Region, arguments: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, lab::agent::TOKEN).unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_causeway"))
        .args(arguments)
        .env("SUDO_USER", "ann")
        .env("CAUSEWAY_ADMIN_ADDR", region.agent.as_ref().unwrap().address())
        .env("CAUSEWAY_ADMIN_TOKEN_FILE", token)
        .output()
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Waits until the status of the stream from `r1` is `wanted`.
async fn until(region: &Region, wanted: &str) {
    lab::wait_until(wanted, lab::PATIENCE, || async {
        let (_, text) = at(region, &["status", "-o", "json"]).await;
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        status["streams"]["r1"]["state"] == wanted
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_pauses_resumes_and_releases() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 2]).await;
    lab.exec_everywhere("CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY);\n").await;
    lab.start_agents().await;
    let (r1, r2) = (&lab.regions[0], &lab.regions[1]);
    let count = "SELECT COUNT(*) FROM shop.t";

    let (code, text) = at(r2, &["stream", "pause", "r1", "--reason", "a test"]).await;
    assert_eq!(code, 0, "{text}");
    until(r2, "paused").await;
    r1.db.exec("INSERT INTO shop.t VALUES (1)").await;
    lab::wait_until("the row waits in the inbox", lab::PATIENCE, || async {
        let (_, text) = at(r2, &["status", "-o", "json"]).await;
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        status["streams"]["r1"]["backlog"] == 1
    })
    .await;
    assert_eq!(r2.db.number(count).await, 0);
    let (code, text) = at(r2, &["status"]).await;
    assert!(code == 0 && text.contains("r1      paused    paused"), "{code}: {text}");
    assert_eq!(at(r2, &["stream", "pause", "nowhere", "--reason", "x"]).await.0, 1);
    assert_eq!(at(r2, &["stream", "resume", "r1"]).await.0, 0);
    lab.converge(&["shop.t"], lab::PATIENCE).await;

    // A schema change that is not additive holds what its region writes, until it is
    // released there.
    r2.db.exec("ALTER TABLE shop.t ADD COLUMN note INT NOT NULL").await;
    r1.db.exec("ALTER TABLE shop.t ADD COLUMN note INT NOT NULL").await;
    r1.db.exec("INSERT INTO shop.t VALUES (2, 8)").await;
    for region in [r1, r2] {
        let id = listed(region, false).await.id;
        assert_eq!(at(region, &["status"]).await.0, 1);
        let (code, text) = at(region, &["ddl", "release", &id, "--reason", "same here"]).await;
        assert_eq!(code, 0, "{text}");
        let release = listed(region, true).await.released.unwrap();
        assert!(release.by.starts_with("ann@"), "{}", release.by);
        assert_eq!(release.why, "same here");
    }
    lab.converge(&["shop.t"], lab::PATIENCE).await;
    assert_eq!(r2.db.number("SELECT note FROM shop.t WHERE id = 2").await, 8);
    assert_eq!(at(r1, &["ddl", "release", "gone"]).await.0, 1);
    // All of them read one clock; what is measured between agents is exact to 500 ms.
    let off = status(r1).await.clock.source_offset_us;
    assert!(off.is_some_and(|us| us.abs() <= 500_000), "{off:?}");
}

/// The first listed schema change that waits, or that was released.
async fn listed(region: &Region, released: bool) -> DdlHold {
    let found = Mutex::new(None);
    lab::wait_until("the change is listed", lab::PATIENCE, || async {
        let (_, text) = at(region, &["ddl", "list", "-o", "json"]).await;
        let holds: Vec<DdlHold> = serde_json::from_str(&text).unwrap();
        let first = holds.into_iter().find(|hold| hold.released.is_some() == released);
        let done = first.is_some();
        *found.lock().unwrap() = first;
        done
    })
    .await;
    found.into_inner().unwrap().unwrap()
}

async fn status(region: &Region) -> AgentStatus {
    let (_, text) = at(region, &["status", "-o", "json"]).await;
    serde_json::from_str(&text).unwrap()
}

/// Who, why and until when outlive the agent; at its end the stream goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_has_an_owner_a_reason_and_an_end() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 2]).await;
    lab.exec_everywhere("CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY);\n").await;
    lab.start_agents().await;
    let long = ["stream", "pause", "r1", "--reason", "index rebuild", "--for", "2d"];
    assert_eq!(at(&lab.regions[1], &long).await.0, 1, "longer than the inbox keeps records");
    let pause = ["stream", "pause", "r1", "--reason", "index rebuild", "--for", "10m"];
    assert_eq!(at(&lab.regions[1], &pause).await.0, 0);
    let before = status(&lab.regions[1]).await.streams["r1"].pause.clone().unwrap();
    assert_eq!(before.until_us - before.since_us, 600_000_000);

    lab.regions[1].agent().crash().await;
    until(&lab.regions[1], "paused").await;
    let after = status(&lab.regions[1]).await.streams["r1"].pause.clone().unwrap();
    assert_eq!(after, before);
    assert!(after.who.starts_with("ann@"), "{}", after.who);
    let (_, text) = at(&lab.regions[1], &["status"]).await;
    assert!(text.contains(": index rebuild") && text.contains("ends in "), "{text}");

    let short = ["stream", "pause", "r1", "--reason", "index rebuild", "--for", "1s"];
    assert_eq!(at(&lab.regions[1], &short).await.0, 0);
    lab.regions[0].db.exec("INSERT INTO shop.t VALUES (1)").await;
    lab.converge(&["shop.t"], lab::PATIENCE).await;
    assert_eq!(status(&lab.regions[1]).await.streams["r1"].pause, None);
    let kept = lab.regions[1].db.number("SELECT COUNT(*) FROM causeway.pauses").await;
    assert_eq!(kept, 0);
}

/// A table that is missing at one region stops one stream there, and nothing else;
/// when it is there, the stream goes on by itself and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_stream_stops_nothing_else() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 3]).await;
    lab.exec_everywhere("CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY);\n").await;
    lab.start_agents().await;
    let [r1, r2, r3] = [0, 1, 2].map(|n| &lab.regions[n]);
    let patience = lab::PATIENCE;
    let only = "CREATE TABLE shop.only (id INT PRIMARY KEY)";
    r1.db.exec(only).await;
    r2.db.exec(only).await;
    // What had seen the stopped transaction would wait for it, so r2 has not seen it.
    assert_eq!(at(r2, &["stream", "pause", "r1", "--reason", "x"]).await.0, 0);
    until(r2, "paused").await;
    r1.db.exec("INSERT INTO shop.t VALUES (1)").await;
    r1.db.exec("INSERT INTO shop.only VALUES (1)").await;
    r1.db.exec("INSERT INTO shop.t VALUES (2)").await;
    until(r3, "held").await;
    let (_, text) = at(r3, &["status", "-o", "json"]).await;
    assert!(text.contains("table shop.only does not exist here"), "{text}");
    lab::wait_until("what stood before it is applied", patience, || async {
        r3.db.number("SELECT COUNT(*) FROM shop.t").await == 1
    })
    .await;

    r2.db.exec("INSERT INTO shop.t VALUES (10)").await;
    lab::wait_until("the other stream goes on", patience, || async {
        r3.db.number("SELECT COUNT(*) FROM shop.t WHERE id = 10").await == 1
    })
    .await;
    assert_eq!(at(r2, &["stream", "resume", "r1"]).await.0, 0);
    lab::wait_until("the other region goes on", patience, || async {
        r2.db.number("SELECT COUNT(*) FROM shop.t WHERE id = 2").await == 1
    })
    .await;

    r3.db.exec(only).await;
    lab.converge(&["shop.t", "shop.only"], patience).await;
}

/// One region after the other gets a column and an index, while all write: nothing
/// waits for an operator, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_schema_change_stops_nothing_that_loses_nothing() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 3]).await;
    // The second table has a further unique key, whose rows are written in another way.
    lab.exec_everywhere(
        "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, n INT);\n\
         CREATE TABLE shop.u (id INT PRIMARY KEY, mail VARCHAR(20) NOT NULL, UNIQUE (mail));\n",
    )
    .await;
    lab.start_agents().await;
    let [r1, r2, r3] = [0, 1, 2].map(|n| &lab.regions[n]);
    let patience = lab::PATIENCE;
    let alter = "ALTER TABLE shop.t ADD COLUMN note VARCHAR(9) NOT NULL DEFAULT 'none', \
        ADD INDEX (n); ALTER TABLE shop.u ADD COLUMN score INT NOT NULL DEFAULT 7";
    write_everywhere(&lab, 1).await;
    r1.db.exec(alter).await;
    let release = listed(r1, true).await.released.unwrap();
    assert_eq!(release.by, "causeway, by itself");
    assert!(release.why.contains("constant default"), "{}", release.why);
    // New rows of the region that has the column, and changed ones of all.
    write_everywhere(&lab, 2).await;

    // What the peers can't take: they wait until they can, and say for what.
    r1.db.exec("UPDATE shop.t SET note = 'own' WHERE id = 10").await;
    r1.db.exec("UPDATE shop.u SET score = 9 WHERE id IN (10, 11)").await;
    for peer in [r2, r3] {
        until(peer, "held").await;
        let reason = status(peer).await.streams["r1"].reason.clone().unwrap();
        assert_eq!(reason, "column note of shop.t does not exist here");
    }
    // Concurrent, and later: the row stands as its author saw it, with the default.
    r2.db.exec("UPDATE shop.t SET n = 0 WHERE id = 10").await;
    r2.db.exec("UPDATE shop.u SET mail = 'y10' WHERE id = 10").await;
    lab::wait_until("it has arrived", patience, || async {
        r1.db.number("SELECT COUNT(*) FROM shop.u WHERE mail = 'y10'").await == 1
    })
    .await;
    r2.db.exec(alter).await;
    r3.db.exec(alter).await;
    write_everywhere(&lab, 3).await;
    lab.converge(&["shop.t", "shop.u"], patience).await;
    let scores = "SELECT 100 * SUM(score = 9) + SUM(score = 7) FROM shop.u";
    assert_eq!(r3.db.number(scores).await, 108, "9 rows, one of them with 9");
}

/// Rows of all regions, written and changed, arrive in all.
async fn write_everywhere(lab: &Lab, step: i64) {
    for (n, region) in (0..).zip(&lab.regions) {
        let id = 10 * step + n;
        let sql = format!(
            "INSERT INTO shop.t (id, n) VALUES ({id}, {step}); \
             INSERT INTO shop.u (id, mail) VALUES ({id}, 'm{id}'); \
             UPDATE shop.u SET mail = 'x{id}' WHERE id = {id}; \
             UPDATE shop.t SET n = n + 100 WHERE id = {id}"
        );
        region.db.exec(&sql).await;
    }
    let arrived = format!("SELECT COUNT(*) FROM shop.t WHERE n = 100 + {step}");
    lab::wait_until("all have arrived", lab::PATIENCE, || async {
        let mut all = true;
        for region in &lab.regions {
            all &= region.db.number(&arrived).await == 3;
        }
        all
    })
    .await;
}
