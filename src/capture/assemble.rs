//! From events to transactions: the state between a GTID and its commit.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::bytes::Cursor;
use super::catalog::TableInfo;
use super::event;
use super::gtid::{Domains, GtidSet};
use super::query::{self, Statement};
use super::rows;
use super::table_map::TableMap;
use super::{AppliedMark, CaptureError, CaptureEvent, Checkpoint};
use crate::change::{BinlogPoint, Kind, Position, RegionId, RowChange, Seq, TableChange};
use crate::clock::{CommitTime, Hlc};

/// Which server's events come, with the position to go on from.
#[derive(Clone, Debug)]
pub enum Source {
    /// MariaDB.
    MariaDb(Position),
    /// MySQL.
    MySql(Position),
}

#[derive(Debug)]
enum Reached {
    MariaDb(Domains),
    MySql { set: GtidSet, file: u64, offset: u64 },
}

/// Event types without meaning here: format descriptions, previous sets, statement
/// context (whose statement is refused by itself), annotations, encryption starts.
const IGNORED: [u8; 14] = [3, 5, 13, 14, 15, 28, 29, 36, 37, 41, 160, 161, 163, 164];

#[derive(Debug, Default)]
struct Open {
    gtid: String,
    commit: Option<CommitTime>,
    /// Commits by itself: a schema change.
    standalone: bool,
    /// The beginning of an ALTER in two phases, or its rollback: nothing has changed.
    in_vain: bool,
    /// MariaDB: what its domain had reached before it.
    before: Option<(u32, Option<(u32, u64)>)>,
    changes: Vec<TableChange>,
    bytes: usize,
    part: u32,
    /// A marker row came before any other row: not a local write.
    applied: bool,
    /// What the marker rows say; nothing in the one of a repair.
    marks: Vec<AppliedMark>,
    rows_seen: bool,
}

/// How the rows of a replicated table are read.
type Known = (Arc<TableMap>, Arc<TableInfo>);

/// The state of the stream.
#[derive(Debug)]
pub struct Assembler {
    reached: Reached,
    /// What is read of, by table id; none for what is not replicated.
    tables: HashMap<u64, Option<Known>>,
    marker: HashMap<u64, Arc<TableMap>>,
    open: Option<Open>,
    /// Events come out of a compressed payload: their positions mean nothing.
    in_payload: bool,
    part_bytes: usize,
}

impl Assembler {
    /// A stream that goes on after the source's position; transactions are split
    /// when they pass `part_bytes` of events. `None` for a position that the server
    /// can't have printed.
    #[must_use]
    pub fn new(source: Source, part_bytes: usize) -> Option<Self> {
        let reached = match source {
            Source::MariaDb(position) => Reached::MariaDb(Domains::parse(&position.0)?),
            Source::MySql(position) => {
                Reached::MySql { set: GtidSet::parse(&position.0)?, file: 0, offset: 0 }
            }
        };
        let (tables, marker) = (HashMap::new(), HashMap::new());
        Some(Self { reached, tables, marker, open: None, in_payload: false, part_bytes })
    }

    /// Whether rows of that table id can be read, or are of no interest: those of an
    /// applied transaction are not, so an altered table that only peers write to
    /// needs no definition.
    pub(super) fn knows(&self, id: u64) -> bool {
        let applied = self.open.as_ref().is_some_and(|open| open.applied);
        applied || self.tables.contains_key(&id) || self.marker.contains_key(&id)
    }

    pub(super) const fn is_mariadb(&self) -> bool {
        matches!(self.reached, Reached::MariaDb(_))
    }

    /// Whether a transaction has begun and not ended.
    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn is_map(event: u8) -> bool {
        event == event::TABLE_MAP
    }

    pub(super) fn is_payload(event: u8) -> bool {
        event == event::PAYLOAD
    }

    /// The rows of that table id are of this table; of none that is replicated.
    pub(super) fn enter_table(&mut self, map: TableMap, info: Option<Arc<TableInfo>>) {
        if map.schema == "causeway" && map.table == "applied" {
            self.marker.insert(map.id, Arc::new(map));
            return;
        }
        let id = map.id;
        self.tables.insert(id, info.map(|info| (Arc::new(map), info)));
    }

    /// Table ids are given anew after a restart of the source or a schema change.
    pub(super) fn forget_tables(&mut self) {
        self.tables.clear();
        self.marker.clear();
    }

    /// Leaves the transaction that an event which can't be read is of.
    pub(super) fn abandon(&mut self) {
        self.open = None;
        self.in_payload = false;
    }

    /// Takes the next event. `log_pos` is the header's.
    ///
    /// # Errors
    /// [`CaptureError`]; the stream can't go on then.
    pub fn event(
        &mut self,
        kind: u8,
        (timestamp, server, log_pos): (u32, u32, u32),
        data: Bytes,
    ) -> Result<Option<CaptureEvent>, CaptureError> {
        // A payload is its transaction's last event but for the GTID before it.
        self.in_payload = self.in_payload();
        if !self.in_payload {
            self.moved(log_pos);
        }
        if rows::operation(kind).is_some() {
            return self.rows(kind, data);
        }
        match kind {
            event::MARIADB_GTID => self.mariadb_gtid(data, timestamp, server),
            event::GTID => self.mysql_gtid(data, timestamp),
            event::XID => Ok(self.commit()),
            event::QUERY | event::MARIADB_QUERY_COMPRESSED => {
                let (schema, text) = query::parse(data, kind != event::QUERY)?;
                self.statement(&schema, text)
            }
            event::ROTATE => {
                self.rotate(data)?;
                Ok(None)
            }
            event::STOP => {
                self.forget_tables();
                Ok(None)
            }
            event::ANONYMOUS_GTID => Err(CaptureError::Anonymous),
            event::TAGGED_GTID => Err(CaptureError::Tagged),
            event::INCIDENT => Err(CaptureError::Incident),
            event::BEGIN_LOAD | event::EXECUTE_LOAD => {
                Err(CaptureError::Statement("LOAD DATA".to_owned()))
            }
            event::XA_PREPARE => Err(CaptureError::Xa),
            event::PARTIAL_UPDATE => Err(CaptureError::PartialImage("a JSON column".to_owned())),
            event::HEARTBEAT if self.in_payload => {
                Err(CaptureError::Corrupt("a compressed transaction has no end"))
            }
            event::HEARTBEAT | event::PREVIOUS_GTIDS => Ok(self.quiet()),
            event::TABLE_MAP => Ok(None),
            event::PAYLOAD => {
                self.in_payload = true;
                Ok(None)
            }
            other if IGNORED.contains(&other) => Ok(None),
            other => Err(CaptureError::UnknownEvent(other)),
        }
    }

    /// Whether events of a compressed payload are to come, before anything else.
    pub(super) const fn in_payload(&self) -> bool {
        self.in_payload && self.open.is_some()
    }

    /// Where the stream stands.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        match &self.reached {
            Reached::MariaDb(domains) => {
                Checkpoint { position: domains.position(), point: domains.point() }
            }
            Reached::MySql { set, file, offset } => Checkpoint {
                position: set.position(),
                point: BinlogPoint::File { file: *file, offset: *offset },
            },
        }
    }

    /// The header's position has 32 bits and wraps in a larger file.
    fn moved(&mut self, log_pos: u32) {
        if let Reached::MySql { offset, .. } = &mut self.reached
            && log_pos > 0
        {
            let high = *offset >> 32;
            let next = high << 32 | u64::from(log_pos);
            *offset = if next < *offset { next.saturating_add(1 << 32) } else { next };
        }
    }

    /// MySQL's point is a file and an offset, and moves without a transaction: at the
    /// start, and in a new file. Who waits for it must learn that nothing is missing.
    fn quiet(&self) -> Option<CaptureEvent> {
        let told = !self.is_mariadb() && self.open.is_none();
        told.then(|| CaptureEvent::Skipped { after: self.checkpoint() })
    }

    fn rotate(&mut self, data: Bytes) -> Result<(), CaptureError> {
        let mut at = Cursor::new(data);
        let position = at.u64()?;
        let name = String::from_utf8_lossy(&at.rest()).into_owned();
        if let Reached::MySql { file, offset, .. } = &mut self.reached {
            let number = name.rsplit('.').next().and_then(|n| n.parse().ok());
            *file = number.ok_or(CaptureError::Corrupt("a binlog file has no number"))?;
            *offset = position;
        }
        self.forget_tables();
        Ok(())
    }

    fn mariadb_gtid(
        &mut self,
        data: Bytes,
        timestamp: u32,
        server: u32,
    ) -> Result<Option<CaptureEvent>, CaptureError> {
        const STANDALONE: u8 = 1;
        const GROUP_COMMIT: u8 = 2;
        const XA: u8 = 64 | 128;
        const START_ALTER: u8 = 2;
        const ROLLBACK_ALTER: u8 = 8;
        let mut at = Cursor::new(data);
        let (seq, domain, flags) = (at.u64()?, at.u32()?, at.u8()?);
        if flags & XA != 0 {
            return Err(CaptureError::Xa);
        }
        if flags & GROUP_COMMIT != 0 {
            at.u64()?;
        }
        // Absent, or padding with zeros, before 10.8.
        let extra = if at.is_empty() { 0 } else { at.u8()? };
        let before = if let Reached::MariaDb(domains) = &mut self.reached {
            Some((domain, domains.enter(domain, server, seq)))
        } else {
            None
        };
        self.begin(Open {
            gtid: format!("{domain}-{server}-{seq}"),
            commit: Some(CommitTime::Second(u64::from(timestamp))),
            standalone: flags & STANDALONE != 0,
            in_vain: extra & (START_ALTER | ROLLBACK_ALTER) != 0,
            before,
            ..Open::default()
        })
    }

    fn mysql_gtid(
        &mut self,
        data: Bytes,
        timestamp: u32,
    ) -> Result<Option<CaptureEvent>, CaptureError> {
        let mut at = Cursor::new(data);
        at.u8()?;
        let uuid = at.take(16)?;
        let gno = at.u64()?;
        if gno == 0 || gno > i64::MAX.cast_unsigned() {
            return Err(CaptureError::Corrupt("a GTID's number is out of range"));
        }
        let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        let mut commit = CommitTime::Second(u64::from(timestamp));
        // Logical clock (5.7), then the commit's microseconds (8.0.1).
        if at.len() >= 24 && at.u8()? == 2 {
            at.take(16)?;
            let immediate = at.uint_le(7)?;
            let original = immediate >> 55 & 1 == 1;
            commit = CommitTime::Micros(if original {
                at.uint_le(7)?
            } else {
                immediate & ((1 << 55) - 1)
            });
        }
        if let Reached::MySql { set, .. } = &mut self.reached {
            set.enter(&uuid, gno);
        }
        let gtid = format!("{uuid}:{gno}");
        self.begin(Open { gtid, commit: Some(commit), ..Open::default() })
    }

    fn begin(&mut self, open: Open) -> Result<Option<CaptureEvent>, CaptureError> {
        if self.open.is_some() {
            return Err(CaptureError::Corrupt("a transaction begins inside another"));
        }
        self.open = Some(open);
        Ok(None)
    }

    fn rows(&mut self, kind: u8, data: Bytes) -> Result<Option<CaptureEvent>, CaptureError> {
        let id = super::table_map::table_id(&data)?;
        let Some(open) = &mut self.open else {
            return Err(CaptureError::Corrupt("rows stand outside a transaction"));
        };
        if open.applied && !self.marker.contains_key(&id) {
            return Ok(None);
        }
        if let Some(map) = self.marker.get(&id) {
            if !open.rows_seen {
                open.applied = true;
                open.marks.extend(marks(kind, data, map)?);
            }
            return Ok(None);
        }
        open.rows_seen = true;
        let known = self.tables.get(&id);
        let known = known.ok_or(CaptureError::Corrupt("rows come without their table"))?;
        let Some((map, info)) = known else { return Ok(None) };
        open.bytes += data.len();
        let same =
            |last: &TableChange| Arc::ptr_eq(&last.table, &info.table) || last.table == info.table;
        if !open.changes.last().is_some_and(same) {
            let table = Arc::clone(&info.table);
            open.changes.push(TableChange { table, rows: Vec::new() });
        }
        let last = open.changes.last_mut().expect("one was just pushed");
        rows::read(kind, data, map, info, &mut last.rows)?;
        if open.bytes < self.part_bytes {
            return Ok(None);
        }
        open.bytes = 0;
        let part = open.part;
        open.part += 1;
        let event = CaptureEvent::Changes {
            gtid: open.gtid.clone(),
            commit: open.commit.expect("set by the GTID"),
            part,
            last: false,
            changes: std::mem::take(&mut open.changes),
            after: self.checkpoint(),
        };
        Ok(Some(event))
    }

    fn statement(
        &mut self,
        schema: &str,
        text: String,
    ) -> Result<Option<CaptureEvent>, CaptureError> {
        match query::judge(schema, &text) {
            Statement::Begin => Ok(None),
            Statement::Commit => Ok(self.commit()),
            Statement::Rollback => {
                let open = self.open.take();
                Ok(Some(if open.is_some_and(|open| open.part > 0) {
                    CaptureEvent::Aborted
                } else {
                    CaptureEvent::Skipped { after: self.checkpoint() }
                }))
            }
            Statement::Xa => Err(CaptureError::Xa),
            Statement::Rows => Err(CaptureError::Statement(text.chars().take(24).collect())),
            Statement::Ddl(tables) => {
                let open = self.open.take().unwrap_or_default();
                if open.in_vain {
                    return Ok(Some(CaptureEvent::Skipped { after: self.checkpoint() }));
                }
                self.forget_tables();
                let gtid = open.gtid.clone();
                let after = self.after_ddl(open);
                Ok(Some(CaptureEvent::Ddl { gtid, statement: text, tables, after }))
            }
            Statement::Other => {
                // Within a transaction it is a savepoint or the like.
                let alone = self.open.as_ref().is_some_and(|open| {
                    open.standalone
                        || matches!(self.reached, Reached::MySql { .. }) && !in_transaction(&text)
                });
                if !alone {
                    return Ok(None);
                }
                self.open = None;
                self.forget_tables();
                Ok(Some(CaptureEvent::Skipped { after: self.checkpoint() }))
            }
        }
    }

    /// Where a schema change ends. The rows of `CREATE OR REPLACE TABLE … SELECT` follow
    /// in its transaction: a restart must read that again, from its beginning.
    fn after_ddl(&mut self, open: Open) -> Checkpoint {
        if let (Reached::MariaDb(domains), false, Some((domain, before))) =
            (&self.reached, open.standalone, open.before)
        {
            self.open = Some(open);
            let domains = domains.before(domain, before);
            return Checkpoint { position: domains.position(), point: domains.point() };
        }
        self.checkpoint()
    }

    fn commit(&mut self) -> Option<CaptureEvent> {
        let open = self.open.take()?;
        let after = self.checkpoint();
        if open.applied {
            return Some(CaptureEvent::Applied { marks: open.marks, after });
        }
        if open.changes.is_empty() && open.part == 0 {
            return Some(CaptureEvent::Skipped { after });
        }
        Some(CaptureEvent::Changes {
            gtid: open.gtid,
            commit: open.commit.expect("set by the GTID"),
            part: open.part,
            last: true,
            changes: open.changes,
            after,
        })
    }
}

/// Statements that stand inside a transaction and end nothing; `CREATE TABLE …
/// START TRANSACTION` (MySQL 8.0.21) opens the rows of a `CREATE TABLE … SELECT`.
fn in_transaction(text: &str) -> bool {
    let head = text.trim_start().to_uppercase();
    if head.starts_with("CREATE TABLE") && head.trim_end().ends_with("START TRANSACTION") {
        return true;
    }
    ["SAVEPOINT", "ROLLBACK TO", "RELEASE"].iter().any(|word| head.starts_with(word))
}

/// The origin in the marker row of a repair, which is of no region.
const REPAIR: u64 = 0;

/// Reads the rows of `causeway.applied`: origin, slot, epoch, seq, hlc.
fn marks(kind: u8, data: Bytes, map: &TableMap) -> Result<Vec<AppliedMark>, CaptureError> {
    let info = TableInfo::marker();
    let mut changes: Vec<RowChange> = Vec::new();
    rows::read(kind, data, map, &info, &mut changes)?;
    let bad = CaptureError::Corrupt("a marker row is not one");
    let mut marks = Vec::new();
    for row in changes.into_iter().filter_map(|change| change.after) {
        let number = |at: usize| match row.values.get(at).and_then(|value| value.kind.as_ref()) {
            Some(Kind::Uint(n)) => Some(*n),
            Some(
                Kind::Int(_) | Kind::Float(_) | Kind::Double(_) | Kind::Literal(_) | Kind::Bytes(_),
            )
            | None => None,
        };
        if number(0) == Some(REPAIR) {
            continue;
        }
        let origin = number(0).and_then(|n| u8::try_from(n).ok()).and_then(RegionId::new);
        let (Some(origin), Some(epoch), Some(seq), Some(hlc)) =
            (origin, number(2), number(3), number(4))
        else {
            return Err(bad);
        };
        marks.push(AppliedMark { origin, epoch, seq: Seq(seq), hlc: Hlc(hlc) });
    }
    Ok(marks)
}
