//! Row events: the images of changed rows.

use bytes::Bytes;

use super::CaptureError;
use super::bytes::Cursor;
use super::catalog::TableInfo;
use super::table_map::TableMap;
use super::value;
use crate::change::{Row, RowChange, Value};

/// What a row event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Write,
    Update,
    Delete,
}

/// A row event type: its operation, whether it has an extra header, whether its rows
/// are compressed (MariaDB).
pub(super) const fn operation(event: u8) -> Option<(Operation, bool, bool)> {
    Some(match event {
        23 => (Operation::Write, false, false),
        24 => (Operation::Update, false, false),
        25 => (Operation::Delete, false, false),
        30 => (Operation::Write, true, false),
        31 => (Operation::Update, true, false),
        32 => (Operation::Delete, true, false),
        166 => (Operation::Write, false, true),
        167 => (Operation::Update, false, true),
        168 => (Operation::Delete, false, true),
        169 => (Operation::Write, true, true),
        170 => (Operation::Update, true, true),
        171 => (Operation::Delete, true, true),
        _ => return None,
    })
}

/// Reads the rows of an event of `event` type onto `rows`.
pub(super) fn read(
    event: u8,
    data: Bytes,
    map: &TableMap,
    info: &TableInfo,
    rows: &mut Vec<RowChange>,
) -> Result<(), CaptureError> {
    let (operation, extra, compressed) =
        operation(event).ok_or(CaptureError::UnknownEvent(event))?;
    let mut at = Cursor::new(data);
    at.take(8)?;
    if extra {
        let length = usize::from(at.u16()?);
        at.take(length.saturating_sub(2))?;
    }
    let count = at.lenenc()?;
    if count != map.columns.len() {
        return Err(CaptureError::Corrupt("a row event's columns are not its table's"));
    }
    let images = if operation == Operation::Update { 2 } else { 1 };
    for _ in 0..images {
        let present = at.take(count.div_ceil(8))?;
        if !(0..count).all(|column| present[column / 8] >> (column % 8) & 1 == 1) {
            return Err(CaptureError::PartialImage(info.table.full_name().to_string()));
        }
    }
    if compressed {
        at = Cursor::new(super::bytes::inflate(at)?);
    }
    while !at.is_empty() {
        let first = image(&mut at, map, info)?;
        rows.push(match operation {
            Operation::Write => RowChange { before: None, after: Some(first) },
            Operation::Delete => RowChange { before: Some(first), after: None },
            Operation::Update => {
                let after = Some(image(&mut at, map, info)?);
                RowChange { before: Some(first), after }
            }
        });
    }
    Ok(())
}

fn image(at: &mut Cursor, map: &TableMap, info: &TableInfo) -> Result<Row, CaptureError> {
    let nulls = at.take(map.columns.len().div_ceil(8))?;
    let mut values = Vec::with_capacity(map.columns.len());
    for (n, (written, column)) in map.columns.iter().zip(&info.columns).enumerate() {
        if nulls[n / 8] >> (n % 8) & 1 == 1 {
            values.push(Value::NULL);
        } else {
            values.push(value::read(at, *written, column)?);
        }
    }
    Ok(Row { values })
}
