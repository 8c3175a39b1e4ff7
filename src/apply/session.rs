//! One connection of the applier: begins, writes and commits batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder, Row};

use super::bootstrap::{self, Flavor};
use super::schema::{self, Mapping};
use super::sql::{Dialect, Expects, Script, Statement, Statements};
use super::{ApplyError, ErrorKind};
use crate::change::{BinlogPoint, Dot, Table};
use crate::clock::Hlc;
use crate::database::SESSION;
use crate::resolve::TablePlan;

/// A marker row: up to here this origin is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The origin's last transaction in the batch.
    pub dot: Dot,
    /// The epoch of the agent that shipped it.
    pub epoch: u64,
    /// That one's stamp.
    pub hlc: Hlc,
}

/// One connection of the applier.
#[derive(Debug)]
pub struct Session {
    pub(super) conn: Conn,
    opts: Opts,
    flavor: Flavor,
    epoch: u64,
    pub(super) mappings: HashMap<(String, String), (Instant, Arc<Mapping>)>,
    /// Statements not sent yet: a small batch is one round trip.
    pending: Script,
    /// The name of the marker's table, as errors give it.
    marker: Arc<str>,
    /// Bytes sent in one packet, unless one row is larger.
    pub(super) packet_bytes_max: usize,
    /// `max_allowed_packet`.
    pub(super) row_bytes_max: usize,
    broken: bool,
}

/// Bytes of one INSERT, and of what is sent at once: beyond it nothing gets faster,
/// and it is well below `max_allowed_packet` (4 MiB in MySQL 5.6, 16 MiB in MariaDB).
const PACKET_BYTES_MAX: usize = 1 << 20;

/// What is written before it is sent, but for its last statement: the text of a large plan is
/// never there as a whole.
const PENDING_BYTES_MAX: usize = 4 * PACKET_BYTES_MAX;

/// How old the knowledge of a table here may be: a unique key that someone adds is
/// seen by then. Reading it anew costs two queries.
const MAPPING_AGE_MAX: Duration = Duration::from_secs(10);

/// Lock waits, of 3 s each, for a lost connection's transaction to end.
const COMMIT_WAITS_MAX: u32 = 20;

const MARKER: &str = "causeway.applied";

/// The key of an applied row decides, so REPEATABLE READ: the lock on a deleted key
/// keeps an insert out until the commit.
const SETTINGS: &str = "foreign_key_checks = 0, unique_checks = 1, \
    innodb_lock_wait_timeout = 3, autocommit = 1";

fn options(opts: &Opts, flavor: Flavor) -> Opts {
    let isolation = match flavor {
        Flavor::MySql(8.., ..) => "transaction_isolation",
        Flavor::MariaDb | Flavor::MySql(..) => "tx_isolation",
    };
    let settings = format!("SET {SESSION}, {SETTINGS}, {isolation} = 'REPEATABLE-READ'");
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
        let conn = connect(&opts, flavor).await?;
        let mut session = Self {
            conn,
            opts,
            flavor,
            epoch,
            mappings: HashMap::new(),
            pending: Script::default(),
            marker: MARKER.into(),
            packet_bytes_max: PACKET_BYTES_MAX,
            row_bytes_max: PACKET_BYTES_MAX,
            broken: false,
        };
        session.read_limits().await?;
        bootstrap::enlist(&mut session.conn).await;
        Ok(session)
    }

    async fn read_limits(&mut self) -> Result<(), ApplyError> {
        let max: Option<usize> = self
            .conn
            .query_first("SELECT @@max_allowed_packet")
            .await
            .map_err(|error| ApplyError::from_driver(&error, "the connection"))?;
        self.row_bytes_max = max.unwrap_or(PACKET_BYTES_MAX);
        self.packet_bytes_max = PACKET_BYTES_MAX.min(self.row_bytes_max / 2);
        Ok(())
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
        // A fence that does not hold gives no row: the insert then has NULL for a
        // column that takes none, and the batch fails before it wrote anything.
        let values: Vec<_> = marks
            .iter()
            .map(|Mark { dot, epoch, hlc }| {
                format!("({},{slot},@fence+{epoch},{},{hlc})", dot.origin, dot.seq)
            })
            .collect();
        let fence = format!(
            "SELECT 0 INTO @fence FROM causeway.owner WHERE id=1 AND epoch={epoch} \
             LOCK IN SHARE MODE"
        );
        let mark = format!(
            "INSERT INTO causeway.applied(origin,slot,epoch,seq,hlc)VALUES{} ON DUPLICATE KEY \
             UPDATE epoch=VALUES(epoch),seq=VALUES(seq),hlc=VALUES(hlc)",
            values.join(",")
        );
        self.pending.clear();
        for statement in ["BEGIN", "SET @fence=NULL", &fence, &mark] {
            self.pending.push(statement, &self.marker);
        }
        Ok(())
    }

    /// From here on what the batch writes can be taken back without its locks.
    pub(super) fn savepoint(&mut self) {
        self.pending.push("SAVEPOINT marked", &self.marker);
    }

    /// Takes back what was written since the savepoint. The locks stay, but for those on
    /// rows that go with it.
    ///
    /// # Errors
    /// The batch must be rolled back.
    pub(super) async fn take_back(&mut self) -> Result<(), ApplyError> {
        self.pending.push("ROLLBACK TO SAVEPOINT marked", &self.marker);
        self.flush().await
    }

    /// Sends what is pending: the fence and the marker rows hold from here on.
    pub(super) async fn flush(&mut self) -> Result<(), ApplyError> {
        self.send().await.map(drop)
    }

    /// Writes a plan and reads the end of the binlog under the locks.
    ///
    /// # Errors
    /// The batch must be rolled back.
    pub async fn write_and_point(
        &mut self,
        tables: &[TablePlan],
    ) -> Result<BinlogPoint, ApplyError> {
        self.write_and_count(tables).await.map(|(point, _)| point)
    }

    /// The same; says also whether all rows were there that the plan had to find.
    ///
    /// # Errors
    /// The batch must be rolled back.
    pub async fn write_and_count(
        &mut self,
        tables: &[TablePlan],
    ) -> Result<(BinlogPoint, bool), ApplyError> {
        let dialect = Dialect { flavor: self.flavor, statement_bytes_max: self.packet_bytes_max };
        let mut mappings = Vec::new();
        for plan in tables {
            // Each has a mapping of its own: a batch may hold one table in two shapes.
            self.ensure_mapping(&plan.table).await?;
            let (_, mapping) =
                &self.mappings[&(plan.table.schema.clone(), plan.table.name.clone())];
            let mapping = Arc::clone(mapping);
            if mapping.unique && !plan.merges.is_empty() {
                return Err(ApplyError::Differs {
                    table: plan.table.full_name().to_string(),
                    what: "a further unique key, which its rule can't be kept right with,"
                        .to_owned(),
                });
            }
            mapping.takes(plan)?;
            mappings.push(mapping);
        }
        let mut all = true;
        for (plan, mapping) in tables.iter().zip(mappings) {
            let mut statements = Statements::new(dialect, &mapping, plan);
            while statements.fill(&mut self.pending, PENDING_BYTES_MAX) {
                all &= self.send().await?.1;
            }
        }
        let point = match self.flavor {
            Flavor::MariaDb => "SELECT @@global.gtid_binlog_pos, 0",
            Flavor::MySql(8, 4.., _) | Flavor::MySql(9.., ..) => "SHOW BINARY LOG STATUS",
            Flavor::MySql(..) => "SHOW MASTER STATUS",
        };
        self.pending.push(point, &self.marker);
        let (row, found) = self.send().await?;
        let row = row.ok_or_else(|| ApplyError::Away("the binlog is off".to_owned()))?;
        let name = row.get_opt::<String, _>(0).and_then(Result::ok).unwrap_or_default();
        let point = match self.flavor {
            Flavor::MariaDb => BinlogPoint::from_mariadb(&name),
            Flavor::MySql(..) => {
                let offset = row.get_opt::<u64, _>(1).and_then(Result::ok);
                offset.and_then(|offset| BinlogPoint::from_file(&name, offset))
            }
        };
        let unread = || ApplyError::Away("the binlog's position is not readable".to_owned());
        Ok((point.ok_or_else(unread)?, all && found))
    }

    /// Sends what is pending; gives the last row, and whether each statement found what it
    /// expects.
    async fn send(&mut self) -> Result<(Option<Row>, bool), ApplyError> {
        let script = std::mem::take(&mut self.pending);
        let answer = self.send_all(&script).await;
        self.pending = script;
        self.pending.clear();
        answer
    }

    /// As many statements at once as a packet takes; gives the last row of all, and
    /// whether each statement found what it expects.
    async fn send_all(&mut self, script: &Script) -> Result<(Option<Row>, bool), ApplyError> {
        let (mut from, mut sent, mut last, mut found) = (0, 0, None, true);
        while sent < script.statements.len() {
            let mut upto = sent + 1;
            while upto < script.statements.len()
                && script.statements[upto].end - from <= self.packet_bytes_max
            {
                upto += 1;
            }
            let end = script.statements[upto - 1].end;
            if end - from >= self.row_bytes_max {
                return Err(ApplyError::too_large(&script.statements[sent].table));
            }
            match self.ask(&script.text[from..end], &script.statements[sent..upto]).await {
                Ok((row, all)) => (last, found) = (row.or(last), found && all),
                Err((at, error)) => {
                    let at = (sent + at).min(upto - 1);
                    return Err(self.refused(&error, &script.statements[at].table));
                }
            }
            (from, sent) = (end, upto);
        }
        Ok((last, found))
    }

    /// Runs statements; gives the last row and whether all found what they expect, or
    /// which statement failed.
    async fn ask(
        &mut self,
        text: &[u8],
        statements: &[Statement],
    ) -> Result<(Option<Row>, bool), (usize, mysql_async::Error)> {
        let (mut done, mut found) = (0, true);
        let mut result = self.conn.query_iter(text).await.map_err(|error| (done, error))?;
        let mut last = None;
        loop {
            let expects = statements.get(done).map_or(Expects::Nothing, |one| one.expects);
            found &= expects.holds(result.affected_rows(), &result.info());
            done += 1;
            let rows: Vec<Row> = result.collect().await.map_err(|error| (done, error))?;
            last = rows.into_iter().next().or(last);
            if result.is_empty() {
                break;
            }
        }
        // The driver keeps the error of a later statement back until here.
        result.drop_result().await.map_err(|error| (done, error))?;
        Ok((last, found))
    }

    fn refused(&mut self, error: &mysql_async::Error, table: &Arc<str>) -> ApplyError {
        if let mysql_async::Error::Server(server) = error
            && server.code == 1048
            && **table == *MARKER
        {
            return ApplyError::Fenced(self.epoch);
        }
        let error = ApplyError::from_driver(error, table);
        if matches!(error, ApplyError::Away(_)) {
            self.broken = true;
        }
        if error.kind() == ErrorKind::Row {
            // The table may look different by now.
            self.mappings.clear();
        }
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
        let mut waits = 0;
        let seq: Option<u64> = loop {
            let asked = self.conn.query_first(&text).await;
            match asked.map_err(|error| ApplyError::from_driver(&error, MARKER)) {
                Ok(seq) => break seq,
                Err(ApplyError::Server { code: 1205, .. }) if waits < COMMIT_WAITS_MAX => {
                    waits += 1;
                }
                Err(error) => return Err(error),
            }
        };
        Ok(seq == Some(mark.seq.0))
    }

    async fn reconnect(&mut self) -> Result<(), ApplyError> {
        let old = u64::from(self.conn.id());
        self.conn = connect(&self.opts, self.flavor).await?;
        bootstrap::end_own(&mut self.conn, old).await?;
        bootstrap::enlist(&mut self.conn).await;
        self.mappings.clear();
        self.broken = false;
        Ok(())
    }

    pub(super) async fn ensure_mapping(&mut self, table: &Table) -> Result<(), ApplyError> {
        let key = (table.schema.clone(), table.name.clone());
        let fresh = |(read, held): &(Instant, Arc<Mapping>)| {
            held.origin.same_shape(table) && read.elapsed() < MAPPING_AGE_MAX
        };
        if self.mappings.get(&key).is_some_and(fresh) {
            return Ok(());
        }
        let mapping = match schema::map(&mut self.conn, self.flavor, table).await {
            Ok(mapping) => mapping,
            Err(error) => {
                self.broken |= matches!(error, ApplyError::Away(_));
                return Err(error);
            }
        };
        self.mappings.insert(key, (Instant::now(), Arc::new(mapping)));
        Ok(())
    }

    /// Whether every column of an origin's table is here, looked at anew.
    ///
    /// # Errors
    /// What does not fit, or [`ApplyError::Away`].
    pub(super) async fn fits(&mut self, table: &Table) -> Result<bool, ApplyError> {
        if self.broken {
            self.reconnect().await?;
        }
        match schema::map(&mut self.conn, self.flavor, table).await {
            Ok(mapping) => Ok(mapping.is_whole()),
            Err(error) => {
                self.broken |= matches!(error, ApplyError::Away(_));
                Err(error)
            }
        }
    }

    /// Forgets how the tables here look: after a DDL on one of them.
    pub fn forget_tables(&mut self) {
        self.mappings.clear();
    }
}

async fn connect(opts: &Opts, flavor: Flavor) -> Result<Conn, ApplyError> {
    let connecting = Box::pin(async {
        let mut conn = Conn::new(opts.clone()).await?;
        if flavor == Flavor::MariaDb {
            leave_texts_out(&mut conn).await?;
        }
        Ok(conn)
    });
    match tokio::time::timeout(Duration::from_secs(5), connecting).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(error)) => Err(ApplyError::from_driver(&error, "the connection")),
        Err(_) => Err(ApplyError::Away("it does not answer in 5 s".to_owned())),
    }
}

/// Else MariaDB writes the text of each statement into its binlog, beside the rows. It asks
/// for BINLOG ADMIN, without which nothing but room and time is lost.
async fn leave_texts_out(conn: &mut Conn) -> Result<(), mysql_async::Error> {
    match conn.query_drop("SET binlog_annotate_row_events = OFF").await {
        Err(mysql_async::Error::Server(error)) => {
            tracing::debug!(%error, "statements are written into the binlog beside their rows");
            Ok(())
        }
        other => other,
    }
}
