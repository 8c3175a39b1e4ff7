//! Schema changes that stand ahead in the binlog.
//!
//! Where events describe no columns, a definition is that of the rows to come only if no
//! change of its table stands between them and the moment at which it was read. So once it
//! has been read the binlog is looked through, up to its end, for such changes alone. That
//! costs a second reading of what is there: nothing where capture is up to date, all of a
//! backlog at a start.

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::keeps::keeps_columns;
use super::stream::{SILENCE_MAX, broken, connect, is_sound};
use super::{
    ALL_TABLES, Assembler, CaptureConfig, CaptureError, CaptureEvent, Checkpoint, table_map,
};
use crate::change::TableName;

/// What is looked through is read under the id of capture's own connection and so much: a
/// server ends one reader when another comes with its id.
const OTHER_ID: u32 = 1_000;

/// The changes ahead of where capture is.
#[derive(Debug)]
pub(super) struct Ahead {
    config: CaptureConfig,
    /// Where the last look ended.
    looked: Option<Checkpoint>,
    /// By change, in their order, the tables whose columns it may alter.
    altered: Vec<TableName>,
}

impl Ahead {
    pub(super) const fn new(config: CaptureConfig) -> Self {
        Self { config, looked: None, altered: Vec::new() }
    }

    /// How many changes of the table stand ahead.
    pub(super) fn changes(&self, table: &TableName) -> usize {
        self.altered.iter().filter(|altered| is_named(table, altered)).count()
    }

    /// Capture has come to a change of these tables.
    pub(super) fn passed(&mut self, tables: &[TableName], statement: &str) {
        if keeps_columns(statement) {
            return;
        }
        for table in tables {
            if let Some(at) = self.altered.iter().position(|altered| altered == table) {
                self.altered.remove(at);
            }
        }
    }

    /// Looks through what stands between `here`, where capture is, and the binlog's end.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub(super) async fn look(&mut self, here: &Checkpoint) -> Result<(), CaptureError> {
        let looked = self.looked.as_ref().filter(|looked| looked.point.covers(&here.point));
        let from = looked.unwrap_or(here).position.clone();
        let server_id = self.config.server_id.wrapping_add(OTHER_ID);
        let config = CaptureConfig { from, server_id, ..self.config.clone() };
        let (mut stream, mut assembler, folds) = connect(&config, true).await?;
        loop {
            let packet = tokio::time::timeout(SILENCE_MAX, stream.next()).await;
            let packet = packet.map_err(|_| CaptureError::Away("silent for 10 s".to_owned()))?;
            let Some(packet) = packet else { break };
            let event = packet.map_err(|error| broken(&error, &assembler, &config.from))?;
            if !is_sound(&event, &assembler) {
                return Err(CaptureError::Checksum);
            }
            let header = event.header();
            let (kind, data) = (header.event_type_raw(), Bytes::copy_from_slice(event.data()));
            if Assembler::is_map(kind) {
                if !assembler.knows(table_map::table_id(&data)?) {
                    assembler.enter_table(table_map::parse(data, assembler.is_mariadb())?, None);
                }
                continue;
            }
            let place = (header.timestamp(), header.server_id(), header.log_pos());
            let said = assembler.event(kind, place, data)?;
            let said = said.map(|said| said.filtered(&self.config.replicates, folds));
            if let Some(CaptureEvent::Ddl { tables, statement, .. }) = said
                && !keeps_columns(&statement)
            {
                self.altered.extend(tables);
            }
        }
        self.looked = Some(assembler.checkpoint());
        Ok(())
    }
}

/// Whether `table` is the one that a change names, or one of all of its schema.
pub(super) fn is_named(table: &TableName, changed: &TableName) -> bool {
    table.schema == changed.schema && (changed.name == ALL_TABLES || table.name == changed.name)
}
