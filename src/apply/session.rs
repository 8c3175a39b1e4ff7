//! One connection of the applier: begins, writes and commits batches.

use std::collections::HashMap;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder};

use super::bootstrap::Flavor;
use super::schema::{self, Mapping};
use super::{ApplyError, sql};
use crate::change::{BinlogPoint, Dot, RegionId, Seq, Table};
use crate::clock::Hlc;
use crate::resolve::TablePlan;

/// A marker row: up to here this origin is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The origin.
    pub origin: RegionId,
    /// Its last transaction in the batch.
    pub seq: Seq,
    /// That one's stamp.
    pub hlc: Hlc,
}

/// One connection of the applier.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    opts: Opts,
    flavor: Flavor,
    epoch: u64,
    mappings: HashMap<(String, String), Mapping>,
    /// Statements not sent yet: a small batch is one round trip.
    pending: Vec<u8>,
    broken: bool,
}

/// The key of an applied row decides, so REPEATABLE READ: the lock on a deleted key
/// keeps an insert out until the commit.
const SETTINGS: &str = "SET time_zone = '+00:00', \
    sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', \
    foreign_key_checks = 0, unique_checks = 1, innodb_lock_wait_timeout = 3, \
    tx_isolation = 'REPEATABLE-READ', autocommit = 1";

fn options(opts: &Opts, flavor: Flavor) -> Opts {
    let settings = match flavor {
        Flavor::MySql(8.., ..) => SETTINGS.replace("tx_isolation", "transaction_isolation"),
        Flavor::MariaDb | Flavor::MySql(..) => SETTINGS.to_owned(),
    };
    let init = vec!["SET NAMES binary".to_owned(), settings];
    OptsBuilder::from_opts(opts.clone()).init(init).into()
}

impl Session {
    /// Connects with the applier's settings.
    ///
    /// # Errors
    /// [`ApplyError::Away`] and the server's refusals.
    pub async fn connect(opts: &Opts, flavor: Flavor, epoch: u64) -> Result<Self, ApplyError> {
        let opts = options(opts, flavor);
        let conn = connect(&opts).await?;
        let (mappings, pending) = (HashMap::new(), Vec::new());
        Ok(Self { conn, opts, flavor, epoch, mappings, pending, broken: false })
    }

    /// Begins a batch: the fence, then the marker rows, before any other write.
    ///
    /// # Errors
    /// [`ApplyError::Fenced`] comes from the first write that is sent.
    pub async fn begin(&mut self, slot: u8, marks: &[Mark]) -> Result<(), ApplyError> {
        if self.broken {
            self.reconnect().await?;
        }
        let epoch = self.epoch;
        self.pending.clear();
        // A fence that does not hold gives no row: the insert then has NULL for a
        // column that takes none, and the batch fails before it wrote anything.
        let values: Vec<_> = marks
            .iter()
            .map(|mark| format!("({},{slot},@fence,{},{})", mark.origin, mark.seq, mark.hlc))
            .collect();
        let text = format!(
            "BEGIN;SET @fence=NULL;SELECT epoch INTO @fence FROM causeway.owner WHERE id=1 AND \
             epoch={epoch} LOCK IN SHARE MODE;INSERT INTO causeway.applied\
             (origin,slot,epoch,seq,hlc)VALUES{} ON DUPLICATE KEY UPDATE epoch=VALUES(epoch),\
             seq=VALUES(seq),hlc=VALUES(hlc);",
            values.join(",")
        );
        self.pending.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Writes a plan and reads the end of the binlog under the locks.
    ///
    /// # Errors
    /// The batch must be rolled back.
    pub async fn write_and_point(
        &mut self,
        tables: &[TablePlan],
    ) -> Result<BinlogPoint, ApplyError> {
        for plan in tables {
            self.ensure_mapping(&plan.table).await?;
        }
        for plan in tables {
            let mapping = &self.mappings[&(plan.table.schema.clone(), plan.table.name.clone())];
            if mapping.unique && mapping.own_columns {
                return Err(ApplyError::Differs {
                    table: plan.table.full_name().to_string(),
                    what: "the columns, with further unique keys,".to_owned(),
                });
            }
            sql::table(&mut self.pending, self.flavor, mapping, &plan.removes, &plan.puts);
        }
        let point = match self.flavor {
            Flavor::MariaDb => "SELECT @@global.gtid_binlog_pos, 0",
            Flavor::MySql(8, 4.., _) | Flavor::MySql(9.., ..) => "SHOW BINARY LOG STATUS",
            Flavor::MySql(..) => "SHOW MASTER STATUS",
        };
        self.pending.extend_from_slice(point.as_bytes());
        let first = tables.first().map(|plan| plan.table.full_name().to_string());
        self.send(first.as_deref().unwrap_or("causeway.applied")).await
    }

    async fn send(&mut self, what: &str) -> Result<BinlogPoint, ApplyError> {
        let text = std::mem::take(&mut self.pending);
        let answer = self.ask(text.as_slice(), what).await;
        self.pending = text;
        self.pending.clear();
        let (name, offset) = answer?;
        let point = match self.flavor {
            Flavor::MariaDb => BinlogPoint::from_mariadb(&name),
            Flavor::MySql(..) => BinlogPoint::from_file(&name, offset),
        };
        point.ok_or_else(|| ApplyError::Away("the binlog's position is not readable".to_owned()))
    }

    /// Sends statements, the last of which gives a name and a number.
    async fn ask(&mut self, text: &[u8], what: &str) -> Result<(String, u64), ApplyError> {
        let asked = async {
            let mut result = self.conn.query_iter(text).await?;
            let mut last = None;
            loop {
                let rows: Vec<mysql_async::Row> = result.collect().await?;
                last = rows.into_iter().next().or(last);
                if result.is_empty() {
                    break;
                }
            }
            Ok::<_, mysql_async::Error>(last)
        };
        match asked.await {
            Ok(Some(row)) => {
                let name = row.get::<String, _>(0).unwrap_or_default();
                Ok((name, row.get::<u64, _>(1).unwrap_or_default()))
            }
            Ok(None) => Err(ApplyError::Away("the binlog is off".to_owned())),
            Err(mysql_async::Error::Server(error))
                if error.code == 1048 && what_is_fence(&error.message) =>
            {
                Err(ApplyError::Fenced(self.epoch))
            }
            Err(error) => Err(self.failed(&error, what)),
        }
    }

    fn failed(&mut self, error: &mysql_async::Error, what: &str) -> ApplyError {
        let error = ApplyError::from_driver(error, what);
        if matches!(error, ApplyError::Away(_)) {
            self.broken = true;
        }
        // The table may look different by now.
        self.mappings.clear();
        error
    }

    /// Commits.
    ///
    /// # Errors
    /// After [`ApplyError::Away`] the outcome is unknown: ask
    /// [`was_committed`](Self::was_committed).
    pub async fn commit(&mut self) -> Result<(), ApplyError> {
        let result = self.conn.query_drop("COMMIT").await;
        result.map_err(|error| {
            let error = ApplyError::from_driver(&error, "COMMIT");
            self.broken = true;
            error
        })
    }

    /// Rolls back; a broken connection has done so by itself.
    ///
    /// # Errors
    /// Only when the connection can't be made anew.
    pub async fn rollback(&mut self) -> Result<(), ApplyError> {
        self.pending.clear();
        if !self.broken && self.conn.query_drop("ROLLBACK").await.is_ok() {
            return Ok(());
        }
        self.reconnect().await
    }

    /// Whether the batch with that marker row is in the database.
    ///
    /// # Errors
    /// [`ApplyError::Away`] while the database does not answer.
    pub async fn was_committed(&mut self, slot: u8, mark: Dot) -> Result<bool, ApplyError> {
        self.reconnect().await?;
        // Waits for the lost connection's transaction, which may still be committing.
        let text = format!(
            "SELECT seq FROM causeway.applied WHERE origin={} AND slot={slot} FOR UPDATE",
            mark.origin
        );
        let seq: Option<u64> = self
            .conn
            .query_first(text)
            .await
            .map_err(|error| ApplyError::from_driver(&error, "causeway.applied"))?;
        Ok(seq == Some(mark.seq.0))
    }

    async fn reconnect(&mut self) -> Result<(), ApplyError> {
        self.conn = connect(&self.opts).await?;
        self.broken = false;
        Ok(())
    }

    async fn ensure_mapping(&mut self, table: &Table) -> Result<(), ApplyError> {
        let key = (table.schema.clone(), table.name.clone());
        if self.mappings.get(&key).is_some_and(|held| held.origin == *table) {
            return Ok(());
        }
        let mapping = match schema::map(&mut self.conn, table).await {
            Ok(mapping) => mapping,
            Err(error) => {
                self.broken |= matches!(error, ApplyError::Away(_));
                return Err(error);
            }
        };
        self.mappings.insert(key, mapping);
        Ok(())
    }
}

fn what_is_fence(message: &str) -> bool {
    message.contains("'epoch'")
}

async fn connect(opts: &Opts) -> Result<Conn, ApplyError> {
    let connecting = Box::pin(Conn::new(opts.clone()));
    match tokio::time::timeout(std::time::Duration::from_secs(5), connecting).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(error)) => Err(ApplyError::from_driver(&error, "the connection")),
        Err(_) => Err(ApplyError::Away("it does not answer in 5 s".to_owned())),
    }
}
