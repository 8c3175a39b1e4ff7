//! The binlog connection.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use mysql_async::binlog::events::Event;
use mysql_async::prelude::Queryable as _;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn, Opts, OptsBuilder};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::catalog::Catalog;
use super::event;
use super::frame::RawEvent;
use super::gtid::GtidSet;
use super::reader::{Burst, Reader};
use super::table_map;
use super::{Assembler, CaptureError, CaptureEvent, Checkpoint, Source};
use crate::change::{BinlogPoint, Position, TableName};

/// The source sends a heartbeat this often when it has nothing else.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silent for longer than this, the connection is dead.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long what was read from the binlog may wait for its commit until it counts as
/// never executed: a promoted replica that lacks it never will.
const EXECUTED_MAX: Duration = Duration::from_secs(5);
/// How often that is asked.
const EXECUTED_EVERY: Duration = Duration::from_millis(20);
/// An event may be larger than the server's `max_allowed_packet`, since an update
/// holds a row twice; this is the protocol's own limit.
const PACKET_MAX: usize = 1 << 30;

/// Whether a table, by schema and name, is replicated; [`super::ALL_TABLES`] as its name
/// asks whether any of the schema is.
pub type Replicates = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// The files of a MariaDB's binlog, on the machine of the database.
#[derive(Clone, Debug)]
pub struct Files {
    /// Where they are.
    pub dir: PathBuf,
    /// Whether they are read, and not what the server sends. Set by [`run`], and left set where
    /// that ends while it reads them: the next one then leaves them alone for a minute.
    pub in_use: Arc<AtomicBool>,
}

/// What capture follows.
#[derive(Clone)]
pub struct CaptureConfig {
    /// The writable database.
    pub opts: Opts,
    /// The id under which the binlog is read.
    pub server_id: u32,
    /// Where to go on.
    pub from: Position,
    /// Larger transactions come in parts of about this many bytes.
    pub part_bytes: usize,
    /// How long it rests at most, so that more is read and shipped together.
    pub rest_max: Duration,
    /// The binlog's files, when they can be read here.
    pub files: Option<Files>,
    /// Which tables are replicated.
    pub replicates: Replicates,
}

impl fmt::Debug for CaptureConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureConfig").field("from", &self.from).finish_non_exhaustive()
    }
}

pub(super) fn away(error: &mysql_async::Error) -> CaptureError {
    match error {
        mysql_async::Error::Server(server) => match server.code {
            1053 | 1040 | 1927 | 1317 => CaptureError::Away(format!("error {}", server.code)),
            code => CaptureError::Refused { code, message: server.message.clone() },
        },
        mysql_async::Error::Driver(_)
        | mysql_async::Error::Io(_)
        | mysql_async::Error::Other(_)
        | mysql_async::Error::Url(_) => CaptureError::Away(error.to_string()),
    }
}

/// Where the binlog ends.
///
/// # Errors
/// [`CaptureError::Away`] or the server's refusal.
pub async fn current(conn: &mut Conn) -> Result<Checkpoint, CaptureError> {
    let version: String =
        conn.query_first("SELECT @@version").await.map_err(|e| away(&e))?.unwrap_or_default();
    if version.contains("MariaDB") {
        let text: Option<String> =
            conn.query_first("SELECT @@global.gtid_binlog_pos").await.map_err(|e| away(&e))?;
        let text = text.unwrap_or_default();
        let point = BinlogPoint::from_mariadb(&text)
            .ok_or(CaptureError::Corrupt("the GTID position can't be read"))?;
        return Ok(Checkpoint { position: Position(text), point });
    }
    let status = match conn.query_first::<mysql_async::Row, _>("SHOW MASTER STATUS").await {
        Err(mysql_async::Error::Server(_)) => conn.query_first("SHOW BINARY LOG STATUS").await,
        other => other,
    };
    let row = status.map_err(|e| away(&e))?;
    let row = row.ok_or(CaptureError::Corrupt("the binlog is off"))?;
    let (file, offset): (String, u64) =
        (row.get(0).unwrap_or_default(), row.get(1).unwrap_or_default());
    let executed: Option<String> =
        conn.query_first("SELECT @@global.gtid_executed").await.map_err(|e| away(&e))?;
    let executed = executed.unwrap_or_default().replace('\n', "");
    let point = BinlogPoint::from_file(&file, offset)
        .ok_or(CaptureError::Corrupt("a binlog file has no number"))?;
    Ok(Checkpoint { position: Position(executed), point })
}

/// The same, on MySQL once the server has executed all up to `from`: the binlog shows a
/// transaction, and a change of schema, before its tables do.
///
/// # Errors
/// [`CaptureError::Lacks`] when that takes too long, and those of [`current`].
pub(super) async fn settled(conn: &mut Conn, from: &Position) -> Result<Checkpoint, CaptureError> {
    let now = current(conn).await?;
    // One that can't be read is named where the stream begins.
    if matches!(now.point, BinlogPoint::Domains(_)) || GtidSet::parse(&from.0).is_none() {
        return Ok(now);
    }
    has_executed(conn, from).await?;
    current(conn).await
}

/// Follows the binlog until cancelled, and gives what it reads in bursts, in order.
/// `awaited` says how many wait, at present, for it to reach the binlog's end, and is
/// set by the applier: as long as one does, it does not rest.
///
/// It takes a thread of its own, which sleeps while it rests: on a thread that others
/// share, each packet that comes meanwhile would wake that.
///
/// # Errors
/// [`CaptureError`], once all that was read before has been taken: after one that
/// passes, run again from the last position taken.
pub async fn run(
    config: CaptureConfig,
    awaited: watch::Receiver<u32>,
    bursts: mpsc::Sender<Vec<CaptureEvent>>,
    cancel: CancellationToken,
) -> Result<(), CaptureError> {
    let own = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CaptureError::Away(error.to_string()))?;
        runtime.block_on(until_cancelled(&config, awaited, bursts, &cancel))
    };
    match tokio::task::spawn_blocking(own).await {
        Ok(ended) => ended,
        // The driver panics on payloads of a kind that it does not know.
        Err(error) if error.is_panic() => {
            Err(CaptureError::Corrupt("an event can't be read: the reader has panicked"))
        }
        Err(_) => Ok(()),
    }
}

async fn until_cancelled(
    config: &CaptureConfig,
    awaited: watch::Receiver<u32>,
    bursts: mpsc::Sender<Vec<CaptureEvent>>,
    cancel: &CancellationToken,
) -> Result<(), CaptureError> {
    let mut burst = Burst::new(bursts);
    let ended = tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        ended = Box::pin(follow(config, awaited, &mut burst)) => ended,
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = burst.all_taken() => {}
    }
    ended
}

/// Reads until no one takes it any more.
async fn follow(
    config: &CaptureConfig,
    awaited: watch::Receiver<u32>,
    burst: &mut Burst,
) -> Result<(), CaptureError> {
    // First of all: a server gives up a stream that nobody reads meanwhile.
    let mut catalog = Catalog::new(config.opts.clone());
    Box::pin(catalog.read_ahead(config)).await?;
    let (stream, mut assembler, folds) = connect(config, false).await?;
    let mut reader = Reader::new(config, stream, awaited, burst);
    while let Some(event) = reader.next(&assembler).await? {
        reader.burst.bytes += event.data.len();
        let said = take(config, &mut assembler, &mut catalog, event).await;
        let Some(said) = said.map_err(|error| reader.meant(error))? else { continue };
        let said = said.filtered(&config.replicates, folds);
        if let CaptureEvent::Ddl { tables, gtid, .. } = &said {
            Box::pin(catalog.changed(tables, gtid, &assembler.checkpoint())).await?;
        }
        reader.pace.saw();
        reader.burst.events.push(said);
        if reader.burst.is_full() && !reader.burst.hand_over().await {
            break;
        }
    }
    Ok(())
}

async fn take(
    config: &CaptureConfig,
    assembler: &mut Assembler,
    catalog: &mut Catalog,
    event: RawEvent,
) -> Result<Option<CaptureEvent>, CaptureError> {
    if Assembler::is_map(event.kind) {
        learn(config, assembler, catalog, event.data).await?;
        return Ok(None);
    }
    assembler.event(event.kind, event.place(), event.data)
}

/// Whether the event's sum is right. In a payload, whose sum has been checked, it has none.
pub(super) fn is_sound(event: &Event, assembler: &Assembler) -> bool {
    let crc32 = mysql_async::binlog::BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32;
    event.checksum().is_none_or(|sum| {
        event.header().event_type_raw() == event::FORMAT
            || assembler.in_payload()
            || event.calc_checksum(crc32) == u32::from_le_bytes(sum)
    })
}

/// Reads the definition that a TABLE_MAP calls for.
pub(super) async fn learn(
    config: &CaptureConfig,
    assembler: &mut Assembler,
    catalog: &mut Catalog,
    data: Bytes,
) -> Result<(), CaptureError> {
    if assembler.knows(table_map::table_id(&data)?) {
        return Ok(());
    }
    let map = table_map::parse(data, assembler.is_mariadb())?;
    let info = if (config.replicates)(&map.schema, &map.table) {
        Some(Box::pin(catalog.table(&map, &assembler.checkpoint())).await?)
    } else {
        None
    };
    assembler.enter_table(map, info);
    Ok(())
}

/// What an error of the stream means, which was begun at `from`.
pub(super) fn broken(
    error: &mysql_async::Error,
    assembler: &Assembler,
    from: &Position,
) -> CaptureError {
    // Where a payload's events are read, nothing comes from the network.
    if assembler.in_payload() {
        return CaptureError::Corrupt("a compressed transaction can't be read");
    }
    ended(error, from)
}

fn ended(error: &mysql_async::Error, from: &Position) -> CaptureError {
    // 1236 is said of a second reader under this one's id, too.
    if let mysql_async::Error::Server(server) = error
        && server.code == 1236
        && server.message.contains("server_id")
    {
        return CaptureError::Away("another reader took this one's server id".to_owned());
    }
    // 1236: the position asked for is not in any binlog; 1789: it was purged.
    if let mysql_async::Error::Server(server) = error
        && matches!(server.code, 1236 | 1789 | 1945 | 1955)
    {
        let (position, message) = (from.0.clone(), server.message.clone());
        return CaptureError::Purged { position, message };
    }
    away(error)
}

/// That this server has executed all that was shipped: asked for a position of another
/// server, MySQL gives what follows and says nothing of what it lacks. What is in the
/// binlog already counts as executed only once it is committed.
async fn has_executed(conn: &mut Conn, from: &Position) -> Result<(), CaptureError> {
    let until = Instant::now() + EXECUTED_MAX;
    loop {
        let asked = conn.exec_first("SELECT GTID_SUBTRACT(?, @@global.gtid_executed)", (&from.0,));
        let missing: Option<String> = asked.await.map_err(|e| away(&e))?;
        let missing = missing.unwrap_or_default().replace('\n', "");
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(CaptureError::Lacks { missing });
        }
        tokio::time::sleep(EXECUTED_EVERY).await;
    }
}

/// The binlog's stream, which may end with it, and whether names of tables have no case there.
pub(super) async fn connect(
    config: &CaptureConfig,
    ends: bool,
) -> Result<(BinlogStream, Assembler, bool), CaptureError> {
    let opts = OptsBuilder::from_opts(config.opts.clone()).max_allowed_packet(Some(PACKET_MAX));
    let mut conn = Conn::new(opts).await.map_err(|e| away(&e))?;
    let asked = conn.query_first("SELECT @@version, @@lower_case_table_names").await;
    let (version, folds): (String, u8) = asked.map_err(|e| away(&e))?.unwrap_or_default();
    let mariadb = version.contains("MariaDB");
    let mut settings = vec![
        format!("SET @master_heartbeat_period = {}", HEARTBEAT.as_nanos()),
        format!("SET @source_heartbeat_period = {}", HEARTBEAT.as_nanos()),
        // So long a stream may wait for definitions to be read.
        "SET SESSION net_write_timeout = 3600".to_owned(),
    ];
    if mariadb {
        settings.push("SET @mariadb_slave_capability = 4".to_owned());
        settings.push(format!("SET @slave_connect_state = '{}'", config.from.0));
        settings.push("SET @slave_gtid_strict_mode = 1".to_owned());
        settings.push("SET @slave_gtid_ignore_duplicates = 0".to_owned());
    }
    for setting in settings {
        conn.query_drop(setting).await.map_err(|e| away(&e))?;
    }
    let bad = match !mariadb && GtidSet::is_tagged(&config.from.0) {
        true => CaptureError::Tagged,
        false => CaptureError::Corrupt("the position in the outbox can't be read"),
    };
    let (source, request) = if mariadb {
        let request = BinlogStreamRequest::new(config.server_id).with_pos(4_u64);
        (Source::MariaDb(config.from.clone()), request)
    } else {
        let set = GtidSet::parse(&config.from.0).ok_or_else(|| bad.clone())?;
        let sids = set.parts().iter().map(|part| part.parse()).collect::<Result<Vec<_>, _>>();
        let sids: Vec<mysql_async::Sid<'static>> = sids.map_err(|_| bad.clone())?;
        if !ends {
            has_executed(&mut conn, &config.from).await?;
        }
        let request = BinlogStreamRequest::new(config.server_id)
            .with_gtid()
            .with_pos(4_u64)
            .with_gtid_set(sids);
        (Source::MySql(config.from.clone()), request)
    };
    let assembler = Assembler::new(source, config.part_bytes).ok_or(bad)?;
    let request = if ends { request.with_non_blocking() } else { request };
    let stream = conn.get_binlog_stream(request).await.map_err(|e| ended(&e, &config.from))?;
    Ok((stream, assembler, folds != 0))
}

impl CaptureEvent {
    /// A schema change of tables that are not replicated is nothing; `folds` says that
    /// names of tables have no case.
    pub(super) fn filtered(self, replicates: &Replicates, folds: bool) -> Self {
        match self {
            Self::Ddl { gtid, statement, tables, after } => {
                // `*` stands for all tables of a dropped schema.
                let tables: Vec<_> = tables
                    .into_iter()
                    .filter_map(|table| named(table, replicates, folds))
                    .collect();
                if tables.is_empty() {
                    return Self::Skipped { after };
                }
                Self::Ddl { gtid, statement, tables, after }
            }
            other @ (Self::Changes { .. }
            | Self::Aborted
            | Self::Applied { .. }
            | Self::Skipped { .. }) => other,
        }
    }
}

/// A statement's table as rows name it, if it is replicated. Where names have no case
/// (`lower_case_table_names`), rows have them in lower case, and statements as someone
/// has typed them.
fn named(table: TableName, replicates: &Replicates, folds: bool) -> Option<TableName> {
    let lower = |name: String| if folds { name.to_lowercase() } else { name };
    let table = TableName { schema: lower(table.schema), name: lower(table.name) };
    replicates(&table.schema, &table.name).then_some(table)
}
