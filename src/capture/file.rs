//! A binlog file from disk: the same decoding without a connection.

use std::sync::Arc;

use bytes::Bytes;

use super::catalog::{Catalog, TableInfo};
use super::frame::{Cut, Frames, MAGIC};
use super::stream::learn;
use super::table_map;
use super::{Assembler, CaptureConfig, CaptureError, CaptureEvent, Source};

/// Where tables' definitions come from.
enum Tables<'a> {
    Server(&'a CaptureConfig, Box<Catalog>),
    Maps,
}

/// Decodes a whole binlog file, `file` with its magic, and gives every event to
/// `each`. Table definitions come from the configured database. `source` is where
/// the file begins.
///
/// # Errors
/// [`CaptureError`], as the stream itself.
pub async fn read_file(
    config: &CaptureConfig,
    source: Source,
    file: Bytes,
    each: &mut (dyn FnMut(CaptureEvent) + Send),
) -> Result<(), CaptureError> {
    let tables = Tables::Server(config, Box::new(Catalog::new(config.opts.clone())));
    read((source, config.part_bytes), file, tables, each).await
}

/// The same without a server: every table counts, and is what the file says of it. That is
/// enough to read rows, and too little to ship them: an old time may lack its fraction, and
/// a UUID is its bytes.
///
/// # Errors
/// [`CaptureError`], as the stream itself.
pub async fn read_file_alone(
    source: Source,
    part_bytes: usize,
    file: Bytes,
    each: &mut (dyn FnMut(CaptureEvent) + Send),
) -> Result<(), CaptureError> {
    read((source, part_bytes), file, Tables::Maps, each).await
}

async fn read(
    (source, part_bytes): (Source, usize),
    file: Bytes,
    mut tables: Tables<'_>,
    each: &mut (dyn FnMut(CaptureEvent) + Send),
) -> Result<(), CaptureError> {
    let mut assembler = Assembler::new(source, part_bytes)
        .ok_or(CaptureError::Corrupt("the position can't be read"))?;
    if !file.starts_with(MAGIC) {
        return Err(CaptureError::Corrupt("the file is no binlog"));
    }
    let (mut rest, mut frames) = (file.slice(MAGIC.len()..), Frames::default());
    while !rest.is_empty() {
        let Cut::Event(event) = frames.cut(&mut rest)? else {
            return Err(CaptureError::Corrupt("an event ends too early"));
        };
        let place = event.place();
        if Assembler::is_map(event.kind) {
            tables.learn(&mut assembler, event.data).await?;
        } else if let Some(said) = assembler.event(event.kind, place, event.data)? {
            each(tables.settle(said, &assembler).await?);
        }
    }
    Ok(())
}

impl Tables<'_> {
    async fn learn(&mut self, assembler: &mut Assembler, data: Bytes) -> Result<(), CaptureError> {
        match self {
            Self::Server(config, catalog) => learn(config, assembler, catalog, data).await,
            Self::Maps => {
                let map = table_map::parse(data, assembler.is_mariadb())?;
                let info = TableInfo::as_mapped(&map);
                assembler.enter_table(map, Some(Arc::new(info)));
                Ok(())
            }
        }
    }

    async fn settle(
        &mut self,
        said: CaptureEvent,
        assembler: &Assembler,
    ) -> Result<CaptureEvent, CaptureError> {
        let Self::Server(config, catalog) = self else { return Ok(said) };
        let said = said.filtered(&config.replicates, false);
        if let CaptureEvent::Ddl { tables, gtid, .. } = &said {
            catalog.changed(tables, gtid, &assembler.checkpoint()).await?;
        }
        Ok(said)
    }
}
