//! A binlog file from disk: the same decoding without a connection.

use bytes::Bytes;

use super::bytes::Cursor;
use super::catalog::Catalog;
use super::stream::learn;
use super::{Assembler, CaptureConfig, CaptureError, CaptureEvent, Source};

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
    const MAGIC: &[u8] = b"\xfebin";
    const HEADER: usize = 19;
    const FORMAT: u8 = 15;
    let mut assembler = Assembler::new(source, config.part_bytes)
        .ok_or(CaptureError::Corrupt("the position can't be read"))?;
    let mut catalog = Catalog::new(config.opts.clone());
    let mut at = Cursor::new(file);
    if at.take(MAGIC.len())? != MAGIC {
        return Err(CaptureError::Corrupt("the file is no binlog"));
    }
    let mut summed = false;
    while !at.is_empty() {
        let mut header = at.clone();
        let (timestamp, kind, server) = (header.u32()?, header.u8()?, header.u32()?);
        let (size, log_pos) = (header.u32()?, header.u32()?);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut whole = at.take(size)?;
        if kind == FORMAT {
            // The algorithm stands before the format description's own checksum.
            summed = size > HEADER + 5 && whole[size - 5] == 1;
        }
        if summed {
            let sum = whole.split_off(size.saturating_sub(4));
            if Cursor::new(sum).u32()? != crc32fast::hash(&whole) && kind != FORMAT {
                return Err(CaptureError::Checksum);
            }
        }
        let mut data = Cursor::new(whole);
        data.take(HEADER)?;
        let data = data.rest();
        if Assembler::is_map(kind) {
            learn(config, &mut assembler, &mut catalog, data).await?;
        } else if let Some(said) = assembler.event(kind, (timestamp, server, log_pos), data)? {
            let said = said.filtered(&config.replicates, false);
            if let CaptureEvent::Ddl { tables, .. } = &said {
                catalog.changed(tables).await?;
            }
            each(said);
        }
    }
    Ok(())
}
