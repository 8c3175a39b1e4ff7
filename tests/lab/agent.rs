//! An agent of a region, the program that was built beside the test.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::kafka::{Access, PASSWORD, login};
use super::proc::{Proc, Run, free_port};
use super::{PATIENCE, wait_until};

/// The token of every agent here.
pub const TOKEN: &str = "token-of-the-lab";

/// The program under test: `CAUSEWAY_PROGRAM`, or the one built beside this one.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("CAUSEWAY_PROGRAM") {
        return path.into();
    }
    let here = std::env::current_exe().unwrap();
    let path = here.parent().unwrap().parent().unwrap().join("causeway");
    assert!(path.exists(), "build the program first: no {}", path.display());
    path
}

/// A running agent.
pub struct Agent {
    /// Its process.
    pub proc: Proc,
    port: u16,
}

impl Agent {
    /// Starts it and does not wait.
    pub fn begin(
        folder: &Path,
        topology: &Path,
        region: &str,
        (kafka, run): (Access, Run),
        binlog: Option<&Path>,
    ) -> Self {
        let port = free_port();
        let conf = folder.join(format!("{region}.conf.yaml"));
        let binlog = binlog.map(|dir| format!("  binlog_dir: {}\n", dir.display()));
        let binlog = binlog.unwrap_or_default();
        let mut text = format!(
            "database:\n  user: root\n{binlog}admin:\n  listen: 127.0.0.1:{port}\n  \
             token: {{ env: CAUSEWAY_TOKEN }}\nlog_format: text\ngrace: 10s\n"
        );
        if kafka == Access::Listed {
            let secret = "sasl.password: { env: CAUSEWAY_KAFKA_PASSWORD }";
            write!(text, "kafka_secrets:\n  {secret}\nkafka:\n").unwrap();
            for (name, value) in login(region) {
                writeln!(text, "  {name}: {value}").unwrap();
            }
        }
        std::fs::write(&conf, text).unwrap();
        let args = [
            "agent",
            "--topology",
            &topology.display().to_string(),
            "--region",
            region,
            "--conf",
            &conf.display().to_string(),
        ];
        let args = args.map(str::to_owned);
        let env = [("CAUSEWAY_TOKEN", TOKEN), ("CAUSEWAY_KAFKA_PASSWORD", PASSWORD)];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let log = folder.join(format!("{region}.agent.log"));
        let program = program().display().to_string();
        let (program, args) = run.command(&program, args);
        let proc = Proc::start_with(&format!("agent {region}"), &log, &program, args, env);
        Self { proc, port }
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self) {
        let (proc, port) = (&mut self.proc, self.port);
        wait_until("the agent is ready", PATIENCE, || {
            proc.expect_alive();
            async move { ask(port, "GET", "/readyz").await.is_some_and(|(status, _)| status == 200) }
        })
        .await;
    }

    /// `kill -9`, then a start that is not waited for.
    pub fn restart(&mut self) {
        self.proc.kill();
        self.proc.again();
    }

    /// `kill -9`, then a start.
    pub async fn crash(&mut self) {
        self.restart();
        self.ready().await;
    }

    /// Status and body of a page of its API.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        ask(self.port, "GET", path).await
    }

    /// The same for a command.
    pub async fn post(&self, path: &str) -> Option<(u16, String)> {
        ask(self.port, "POST", path).await
    }

    /// Its status while a test fails: nothing may panic or hang here.
    pub fn last_words(&self) -> Option<String> {
        use std::io::{Read as _, Write as _};
        let patience = Some(Duration::from_secs(5));
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience)).ok()?;
        let request = format!(
            "GET /status HTTP/1.1\r\nHost: lab\r\nAuthorization: Bearer {TOKEN}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.split("\r\n\r\n").last()?.to_owned())
    }

    /// Where its API listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

async fn ask(port: u16, method: &str, path: &str) -> Option<(u16, String)> {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: lab\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await.ok()?
}
