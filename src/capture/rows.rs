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
    let first_present = present(&mut at, map, info)?;
    let then_present =
        if operation == Operation::Update { present(&mut at, map, info)? } else { Vec::new() };
    if compressed {
        at = Cursor::new(super::bytes::inflate(at)?);
    }
    while !at.is_empty() {
        let first = image(&mut at, map, info, &first_present)?;
        rows.push(match operation {
            Operation::Write => RowChange { before: None, after: Some(first) },
            Operation::Delete => RowChange { before: Some(first), after: None },
            Operation::Update => {
                let after = Some(image(&mut at, map, info, &then_present)?);
                RowChange { before: Some(first), after }
            }
        });
    }
    Ok(())
}

/// Which columns an image has: all but those that MySQL hides.
fn present(at: &mut Cursor, map: &TableMap, info: &TableInfo) -> Result<Vec<bool>, CaptureError> {
    let count = map.columns.len();
    let bits = at.take(count.div_ceil(8))?;
    let present: Vec<_> = (0..count).map(|n| bits[n / 8] >> (n % 8) & 1 == 1).collect();
    if present.iter().zip(&info.columns).all(|(present, column)| *present || column.hidden) {
        return Ok(present);
    }
    Err(CaptureError::PartialImage(info.table.full_name().to_string()))
}

fn image(
    at: &mut Cursor,
    map: &TableMap,
    info: &TableInfo,
    present: &[bool],
) -> Result<Row, CaptureError> {
    // Only columns that are there have a bit.
    let count = present.iter().filter(|present| **present).count();
    let nulls = at.take(count.div_ceil(8))?;
    let mut values = Vec::with_capacity(count);
    let columns = map.columns.iter().zip(&info.columns).zip(present);
    let columns = columns.filter(|(_, present)| **present);
    for (n, ((written, column), _)) in columns.enumerate() {
        let value = if nulls[n / 8] >> (n % 8) & 1 == 1 {
            Value::NULL
        } else {
            value::read(at, *written, column)?
        };
        if !column.hidden {
            values.push(value);
        }
    }
    Ok(Row { values })
}
