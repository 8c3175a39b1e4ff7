//! Schema changes that stand ahead in the binlog.
//!
//! Where events describe no columns, a definition is that of the rows to come only if no
//! change of its table stands between them and the moment at which it was read. So once it
//! has been read the binlog is looked through, up to its end, for such changes alone. That
//! costs a second reading of what is there: nothing where capture is up to date, all of a
//! backlog at a start.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use mysql_async::binlog::events::Event;

use super::gtid::GtidSet;
use super::keeps::keeps_columns;
use super::stream::{SILENCE_MAX, broken, connect, is_sound};
use super::{
    ALL_TABLES, Assembler, CaptureConfig, CaptureError, CaptureEvent, Checkpoint, table_map,
};
use crate::change::{BinlogPoint, Position, TableName};

/// What is looked through is read under the id of capture's own connection and so much: a
/// server ends one reader when another comes with its id.
const OTHER_ID: u32 = 1_000;

/// The changes ahead of where capture is.
#[derive(Debug)]
pub(super) struct Ahead {
    config: CaptureConfig,
    /// Where the last look ended.
    looked: Option<Checkpoint>,
    /// In their order.
    altered: Vec<Altered>,
}

/// A change that may alter tables' columns.
#[derive(Debug)]
struct Altered {
    /// Empty where it could not be read.
    gtid: String,
    tables: Vec<TableName>,
    /// What covers this is at or behind it.
    point: BinlogPoint,
}

/// Whether a definition is that of the rows to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// No change stands between the rows and the definition.
    Fits,
    /// One does.
    Barred,
    /// One was made while the definition was read.
    Unknown,
}

impl Ahead {
    pub(super) const fn new(config: CaptureConfig) -> Self {
        Self { config, looked: None, altered: Vec::new() }
    }

    /// Where capture has begun.
    pub(super) const fn begun(&self) -> &Position {
        &self.config.from
    }

    /// What the table's definition is that was read between these two ends of the binlog.
    pub(super) fn fit(&self, table: &TableName, before: &Checkpoint, after: &Checkpoint) -> Fit {
        let is_named = |altered: &&Altered| altered.tables.iter().any(|name| is_named(table, name));
        let mut fit = Fit::Fits;
        for altered in self.altered.iter().filter(is_named) {
            if altered.is_done(before) {
                return Fit::Barred;
            }
            // A change behind the end was made after the definition had been read.
            if after.point.covers(&altered.point) {
                fit = Fit::Unknown;
            }
        }
        fit
    }

    /// Capture has come to that change.
    pub(super) fn passed(&mut self, gtid: &str) {
        self.altered.retain(|altered| altered.gtid != gtid);
    }

    /// Looks through what stands between `here`, where capture is, and the binlog's end;
    /// without it, from where capture begins. What can't be read is passed over: capture
    /// will halt there, and what it reads before must fit all changes behind it too.
    ///
    /// # Errors
    /// [`CaptureError`] of the connection.
    pub(super) async fn look(&mut self, here: Option<&Checkpoint>) -> Result<(), CaptureError> {
        let from = match (&self.looked, here) {
            (Some(looked), None) => &looked.position,
            (Some(looked), Some(here)) if looked.point.covers(&here.point) => &looked.position,
            (_, Some(here)) => &here.position,
            (None, None) => &self.config.from,
        };
        let mut from = from.clone();
        loop {
            let (reached, has_ended) = self.read(&from).await?;
            if has_ended || reached.position == from {
                self.looked = Some(reached);
                return Ok(());
            }
            from = reached.position;
        }
    }

    /// Reads on to the binlog's end, or past a compressed transaction that can't be unpacked;
    /// gives whether it was the end.
    async fn read(&mut self, from: &Position) -> Result<(Checkpoint, bool), CaptureError> {
        let server_id = self.config.server_id.wrapping_add(OTHER_ID);
        let config = CaptureConfig { from: from.clone(), server_id, ..self.config.clone() };
        let (mut stream, mut assembler, folds) = connect(&config, true).await?;
        loop {
            // The driver panics on payloads of a kind that it does not know.
            let next = AssertUnwindSafe(stream.next()).catch_unwind();
            let packet = tokio::time::timeout(SILENCE_MAX, next).await;
            let packet = packet.map_err(|_| CaptureError::Away("silent for 10 s".to_owned()))?;
            let Ok(packet) = packet else { return Ok((assembler.checkpoint(), false)) };
            let event = match packet {
                None => return Ok((assembler.checkpoint(), true)),
                Some(Err(_)) if assembler.in_payload() => {
                    return Ok((assembler.checkpoint(), false));
                }
                Some(Err(error)) => return Err(broken(&error, &assembler, from)),
                Some(Ok(event)) => event,
            };
            let is_sound = is_sound(&event, &assembler);
            if !is_sound && Assembler::is_payload(event.header().event_type_raw()) {
                return Ok((assembler.checkpoint(), false));
            }
            if !is_sound || self.take(&event, &mut assembler, folds).is_err() {
                assembler.abandon();
            }
        }
    }

    /// Takes the next event of a look.
    fn take(
        &mut self,
        event: &Event,
        assembler: &mut Assembler,
        folds: bool,
    ) -> Result<(), CaptureError> {
        let header = event.header();
        let (kind, data) = (header.event_type_raw(), Bytes::copy_from_slice(event.data()));
        if Assembler::is_map(kind) {
            if !assembler.knows(table_map::table_id(&data)?) {
                assembler.enter_table(table_map::parse(data, assembler.is_mariadb())?, None);
            }
            return Ok(());
        }
        let place = (header.timestamp(), header.server_id(), header.log_pos());
        let said = assembler.event(kind, place, data)?;
        let said = said.map(|said| said.filtered(&self.config.replicates, folds));
        if let Some(CaptureEvent::Ddl { gtid, mut tables, statement, .. }) = said
            && !keeps_columns(&statement)
            && self.altered.iter().all(|altered| altered.gtid != gtid || gtid.is_empty())
        {
            tables.sort();
            tables.dedup();
            self.altered.push(Altered::new(gtid, tables, assembler.checkpoint().point));
        }
        Ok(())
    }
}

impl Altered {
    /// `reached` is where the stream stands with it.
    fn new(gtid: String, tables: Vec<TableName>, reached: BinlogPoint) -> Self {
        let point = match &reached {
            // What else the stream stands on may be of domains that the server does not have.
            BinlogPoint::Domains(_) => BinlogPoint::from_mariadb(&gtid).unwrap_or(reached),
            BinlogPoint::File { .. } => reached,
        };
        Self { gtid, tables, point }
    }

    /// Whether tables were changed when the server said this of its binlog.
    fn is_done(&self, now: &Checkpoint) -> bool {
        match now.point {
            BinlogPoint::Domains(_) => now.point.covers(&self.point),
            // The binlog shows a change before the tables do.
            BinlogPoint::File { .. } => {
                let executed = GtidSet::parse(&now.position.0);
                let covers = || now.point.covers(&self.point);
                self.gtid.is_empty() || executed.map_or_else(covers, |set| set.contains(&self.gtid))
            }
        }
    }
}

/// Whether `table` is the one that a change names, or one of all of its schema.
pub(super) fn is_named(table: &TableName, changed: &TableName) -> bool {
    table.schema == changed.schema && (changed.name == ALL_TABLES || table.name == changed.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(altered: Altered) -> Ahead {
        let config = CaptureConfig {
            opts: mysql_async::Opts::default(),
            server_id: 1,
            from: Position(String::new()),
            part_bytes: 1,
            rest_max: std::time::Duration::ZERO,
            files: None,
            replicates: std::sync::Arc::new(|_, _| true),
        };
        Ahead { altered: vec![altered], ..Ahead::new(config) }
    }

    fn table() -> TableName {
        TableName { schema: "shop".to_owned(), name: "t".to_owned() }
    }

    #[test]
    fn a_definition_fits_as_it_was_read_before_or_after_a_change() {
        let at = |text: &str| {
            let point = BinlogPoint::from_mariadb(text).unwrap();
            Checkpoint { position: Position(text.to_owned()), point }
        };
        let reached = at("0-1-5,7-1-1").point;
        let mut ahead = ahead(Altered::new("0-1-5".to_owned(), vec![table()], reached));
        assert_eq!(ahead.fit(&table(), &at("0-1-5"), &at("0-1-5")), Fit::Barred);
        assert_eq!(ahead.fit(&table(), &at("0-1-4"), &at("0-1-5")), Fit::Unknown);
        assert_eq!(ahead.fit(&table(), &at("0-1-4"), &at("0-1-4")), Fit::Fits);
        ahead.passed("0-1-5");
        assert_eq!(ahead.fit(&table(), &at("0-1-5"), &at("0-1-5")), Fit::Fits);
    }

    #[test]
    fn a_change_that_mysql_has_not_committed_is_not_done() {
        let at = |set: &str, offset| {
            let point = BinlogPoint::from_file("bin.000001", offset).unwrap();
            Checkpoint { position: Position(set.to_owned()), point }
        };
        let reached = at("aa:1-5", 500).point;
        let ahead = ahead(Altered::new("aa:5".to_owned(), vec![table()], reached));
        assert_eq!(ahead.fit(&table(), &at("aa:1-5", 500), &at("aa:1-5", 500)), Fit::Barred);
        assert_eq!(ahead.fit(&table(), &at("aa:1-4", 500), &at("aa:1-5", 500)), Fit::Unknown);
        assert_eq!(ahead.fit(&table(), &at("aa:1-4", 400), &at("aa:1-4", 499)), Fit::Fits);
        let tagged = "aa:1-4:tag:1";
        assert_eq!(ahead.fit(&table(), &at(tagged, 500), &at(tagged, 500)), Fit::Barred);
    }
}
