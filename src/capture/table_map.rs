//! TABLE_MAP events: which table the row events that follow are of, and how the
//! source wrote their columns.

use bytes::Bytes;

use super::CaptureError;
use super::bytes::Cursor;
use super::described::{self, Described};

/// A TABLE_MAP event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableMap {
    pub(super) id: u64,
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) columns: Vec<Written>,
    /// What the event says of the columns beside, with `binlog_row_metadata=FULL`.
    pub(super) described: Option<Vec<Described>>,
}

/// How a column's values are written: binlog type and its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) kind: u8,
    /// As the type has it: length, precision and scale, fractional digits.
    pub(super) meta: u16,
}

pub(super) mod kind {
    pub(in super::super) const TINY: u8 = 1;
    pub(in super::super) const SHORT: u8 = 2;
    pub(in super::super) const LONG: u8 = 3;
    pub(in super::super) const FLOAT: u8 = 4;
    pub(in super::super) const DOUBLE: u8 = 5;
    pub(in super::super) const TIMESTAMP: u8 = 7;
    pub(in super::super) const LONGLONG: u8 = 8;
    pub(in super::super) const INT24: u8 = 9;
    pub(in super::super) const DATE: u8 = 10;
    pub(in super::super) const TIME: u8 = 11;
    pub(in super::super) const DATETIME: u8 = 12;
    pub(in super::super) const YEAR: u8 = 13;
    pub(in super::super) const VARCHAR: u8 = 15;
    pub(in super::super) const BIT: u8 = 16;
    pub(in super::super) const TIMESTAMP2: u8 = 17;
    pub(in super::super) const DATETIME2: u8 = 18;
    pub(in super::super) const TIME2: u8 = 19;
    pub(in super::super) const BLOB_COMPRESSED: u8 = 140;
    pub(in super::super) const VARCHAR_COMPRESSED: u8 = 141;
    pub(in super::super) const JSON: u8 = 245;
    pub(in super::super) const NEWDECIMAL: u8 = 246;
    pub(in super::super) const ENUM: u8 = 247;
    pub(in super::super) const SET: u8 = 248;
    pub(in super::super) const BLOB: u8 = 252;
    pub(in super::super) const VAR_STRING: u8 = 253;
    pub(in super::super) const STRING: u8 = 254;
    pub(in super::super) const GEOMETRY: u8 = 255;
}

/// The id alone, to find a map that is already known.
pub(super) fn table_id(data: &Bytes) -> Result<u64, CaptureError> {
    Cursor::new(data.clone()).uint_le(6)
}

/// `mariadb` says whose event it is.
pub(super) fn parse(data: Bytes, mariadb: bool) -> Result<TableMap, CaptureError> {
    let mut at = Cursor::new(data);
    let id = at.uint_le(6)?;
    at.u16()?;
    let schema = name(&mut at)?;
    let table = name(&mut at)?;
    let count = at.lenenc()?;
    if count == 0 {
        return Err(CaptureError::Corrupt("a table has no columns"));
    }
    let kinds = at.take(count)?;
    let length = at.lenenc()?;
    let mut metadata = Cursor::new(at.take(length)?);
    let columns =
        kinds.iter().map(|&kind| written(kind, &mut metadata)).collect::<Result<Vec<_>, _>>()?;
    at.take(count.div_ceil(8))?;
    let described = described::parse(&mut at, &columns, mariadb)?;
    Ok(TableMap { id, schema, table, columns, described })
}

fn name(at: &mut Cursor) -> Result<String, CaptureError> {
    let length = usize::from(at.u8()?);
    let bytes = at.take(length)?;
    at.u8()?;
    String::from_utf8(bytes.to_vec()).map_err(|_| CaptureError::Corrupt("a name is not UTF-8"))
}

fn written(mut kind: u8, metadata: &mut Cursor) -> Result<Written, CaptureError> {
    let meta = match kind {
        kind::FLOAT
        | kind::DOUBLE
        | kind::TIMESTAMP2
        | kind::DATETIME2
        | kind::TIME2
        | kind::JSON
        | 249..=kind::BLOB
        | kind::GEOMETRY
        | kind::BLOB_COMPRESSED => u16::from(metadata.u8()?),
        kind::VARCHAR | kind::VAR_STRING | kind::BIT | kind::VARCHAR_COMPRESSED => {
            metadata.u16()?
        }
        kind::NEWDECIMAL => u16::from(metadata.u8()?) << 8 | u16::from(metadata.u8()?),
        kind::STRING | kind::ENUM | kind::SET => {
            // The real type shares its byte with two bits of the length.
            let (real, length) = (metadata.u8()?, metadata.u8()?);
            if real & 0x30 == 0x30 {
                kind = real;
                u16::from(length)
            } else {
                kind = real | 0x30;
                u16::from(length) | u16::from((real & 0x30) ^ 0x30) << 4
            }
        }
        _ => 0,
    };
    if matches!(kind, kind::TIMESTAMP2 | kind::DATETIME2 | kind::TIME2) && meta > 6 {
        return Err(CaptureError::Corrupt("a time has more than 6 fractional digits"));
    }
    Ok(Written { kind, meta })
}
