//! What a TABLE_MAP says of its columns beside their types: the optional metadata of
//! `binlog_row_metadata=FULL` (MySQL from 8.0.1 on, MariaDB from 10.5 on).
//!
//! Formats after MySQL's `Table_map_event::Optional_metadata_field_type`. MariaDB
//! differs in one thing: it counts geometries among the character columns.

use bytes::Bytes;

use super::CaptureError;
use super::bytes::Cursor;
use super::table_map::{Written, kind};

/// A column as the event describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) unsigned: bool,
    /// The collation's number; none for what has no characters.
    pub(super) collation: Option<usize>,
    /// Of ENUM and SET, in the column's character set.
    pub(super) labels: Vec<Bytes>,
    /// Place in the primary key, from 1 on.
    pub(super) key: u32,
    /// The key covers only its first part.
    pub(super) cut: bool,
}

/// The fields as they stand in the event.
#[derive(Default)]
struct Fields {
    signs: Option<Bytes>,
    charsets: Option<Vec<usize>>,
    names: Option<Vec<Bytes>>,
    sets: Vec<Vec<Bytes>>,
    enums: Vec<Vec<Bytes>>,
    label_charsets: Option<Vec<usize>>,
    key: Vec<usize>,
    /// How much of each, 0 for the whole column; empty when that is so of all.
    key_parts: Vec<usize>,
}

const fn is_numeric(kind: u8) -> bool {
    matches!(
        kind,
        kind::TINY
            | kind::SHORT
            | kind::INT24
            | kind::LONG
            | kind::LONGLONG
            | kind::FLOAT
            | kind::DOUBLE
            | kind::NEWDECIMAL
            | kind::YEAR
    )
}

const fn is_character(kind: u8, mariadb: bool) -> bool {
    matches!(
        kind,
        kind::STRING | kind::VARCHAR | kind::VAR_STRING | 249
            ..=kind::BLOB | kind::VARCHAR_COMPRESSED | kind::BLOB_COMPRESSED
    ) || mariadb && kind == kind::GEOMETRY
}

const fn is_labelled(kind: u8) -> bool {
    matches!(kind, kind::ENUM | kind::SET)
}

/// Reads the rest of a TABLE_MAP. None when it does not describe every column: then
/// the server's dictionary must.
pub(super) fn parse(
    at: &mut Cursor,
    columns: &[Written],
    mariadb: bool,
) -> Result<Option<Vec<Described>>, CaptureError> {
    let characters = columns.iter().filter(|c| is_character(c.kind, mariadb)).count();
    let labelled = columns.iter().filter(|c| is_labelled(c.kind)).count();
    let mut fields = Fields::default();
    while at.len() > 1 {
        let what = at.u8()?;
        let length = at.lenenc()?;
        let value = Cursor::new(at.take(length)?);
        match what {
            1 => fields.signs = Some(value.rest()),
            2 => fields.charsets = Some(mostly(value, characters)?),
            3 => fields.charsets = Some(numbers(value)?),
            4 => fields.names = Some(texts(value)?),
            5 => fields.sets = label_lists(value)?,
            6 => fields.enums = label_lists(value)?,
            8 => fields.key = numbers(value)?,
            9 => {
                let pairs = numbers(value)?;
                fields.key = pairs.iter().copied().step_by(2).collect();
                fields.key_parts = pairs.into_iter().skip(1).step_by(2).collect();
            }
            10 => fields.label_charsets = Some(mostly(value, labelled)?),
            11 => fields.label_charsets = Some(numbers(value)?),
            // Geometry types, visibility, dimensions: nothing that a row's form hangs on.
            _ => {}
        }
    }
    fields.described(columns, mariadb)
}

impl Fields {
    fn described(
        self,
        columns: &[Written],
        mariadb: bool,
    ) -> Result<Option<Vec<Described>>, CaptureError> {
        let Some(names) = self.names.filter(|names| names.len() == columns.len()) else {
            return Ok(None);
        };
        let signs = self.signs.unwrap_or_default();
        let mut signs = signs.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
        let mut charsets = self.charsets.unwrap_or_default().into_iter();
        let mut label_charsets = self.label_charsets.unwrap_or_default().into_iter();
        let (mut sets, mut enums) = (self.sets.into_iter(), self.enums.into_iter());
        let mut described = Vec::with_capacity(columns.len());
        for (n, (written, name)) in columns.iter().zip(names).enumerate() {
            let name = String::from_utf8(name.to_vec())
                .map_err(|_| CaptureError::Corrupt("a name is not UTF-8"))?;
            let place = self.key.iter().position(|&column| column == n);
            let key = place.and_then(|n| u32::try_from(n + 1).ok()).unwrap_or(0);
            let part = place.and_then(|n| self.key_parts.get(n).copied());
            let cut = part.is_some_and(|part| part > 0);
            let mut column = Described { name, key, cut, ..Described::default() };
            if is_numeric(written.kind) {
                let Some(sign) = signs.next() else { return Ok(None) };
                column.unsigned = sign == 1;
            }
            if is_character(written.kind, mariadb) {
                column.collation = charsets.next();
            } else if is_labelled(written.kind) {
                column.collation = label_charsets.next();
                let lists = if written.kind == kind::SET { &mut sets } else { &mut enums };
                let Some(labels) = lists.next() else { return Ok(None) };
                column.labels = labels;
            } else {
                described.push(column);
                continue;
            }
            if column.collation.is_none() {
                return Ok(None);
            }
            described.push(column);
        }
        // One too many: the columns are not counted as they are here.
        let left = charsets.next().is_some() || label_charsets.next().is_some();
        Ok((!left).then_some(described))
    }
}

fn numbers(mut value: Cursor) -> Result<Vec<usize>, CaptureError> {
    let mut all = Vec::new();
    while !value.is_empty() {
        all.push(value.lenenc()?);
    }
    Ok(all)
}

/// One number for all of `count`, then the exceptions: index and number.
fn mostly(value: Cursor, count: usize) -> Result<Vec<usize>, CaptureError> {
    let numbers = numbers(value)?;
    let Some((&usual, exceptions)) = numbers.split_first() else { return Ok(Vec::new()) };
    let mut all = vec![usual; count];
    for pair in exceptions.chunks_exact(2) {
        match all.get_mut(pair[0]) {
            Some(place) => *place = pair[1],
            // The count is not the event's: no guess.
            None => return Ok(Vec::new()),
        }
    }
    Ok(all)
}

fn texts(mut value: Cursor) -> Result<Vec<Bytes>, CaptureError> {
    let mut all = Vec::new();
    while !value.is_empty() {
        let length = value.lenenc()?;
        all.push(value.take(length)?);
    }
    Ok(all)
}

fn label_lists(mut value: Cursor) -> Result<Vec<Vec<Bytes>>, CaptureError> {
    let mut lists = Vec::new();
    while !value.is_empty() {
        let mut labels = Vec::new();
        for _ in 0..value.lenenc()? {
            let length = value.lenenc()?;
            labels.push(value.take(length)?);
        }
        lists.push(labels);
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn column(kind: u8) -> Written {
        Written { kind, meta: 1 }
    }

    #[track_caller]
    fn check(kinds: &[u8], mariadb: bool, event: &[u8], wanted: Option<&str>) {
        let columns: Vec<_> = kinds.iter().map(|&kind| column(kind)).collect();
        let mut at = Cursor::new(event.to_vec().into());
        let said = parse(&mut at, &columns, mariadb).unwrap().map(|columns| {
            let said = columns.iter().map(|c| {
                let labels: Vec<_> = c.labels.iter().map(|l| String::from_utf8_lossy(l)).collect();
                let sign = if c.unsigned { "+" } else { "" };
                format!("{}{sign} {:?} {} {}", c.name, c.collation, labels.join("|"), c.key)
            });
            said.collect::<Vec<_>>().join(", ")
        });
        assert_eq!(said.as_deref(), wanted);
    }

    #[test]
    fn columns_are_described_in_the_order_of_their_kinds() {
        let names = b"\x04\x06\x01a\x01b\x01c";
        let event = [&b"\x01\x01\x40\x02\x03\x3f\x00\x2d"[..], names, b"\x08\x02\x02\x00"].concat();
        let wanted = "a None  2, b+ None  0, c Some(45)  1";
        check(&[1, 3, 254], true, &event, Some(wanted));
        let event = [
            &b"\x03\x01\x08\x0b\x02\x3f\x2d\x05\x03\x01\x01x\x06\x05\x02\x01y\x01z"[..],
            names,
            b"\x09\x04\x00\x00\x01\x05",
        ]
        .concat();
        let wanted = "a Some(63) y|z 1, b Some(45) x 2, c Some(8)  0";
        check(&[247, 248, 252], false, &event, Some(wanted));
    }

    #[test]
    fn mariadb_counts_geometries_among_characters() {
        let event = b"\x02\x03\x3f\x01\x2d\x04\x04\x01g\x01c";
        check(&[255, 254], true, event, Some("g Some(63)  0, c Some(45)  0"));
        // MySQL does not: an event that says so is not described by this count.
        check(&[255, 254], false, event, None);
    }

    #[test]
    fn what_does_not_describe_all_columns_describes_none() {
        check(&[1], true, b"", None);
        check(&[1], true, b"\x04\x02\x01a", None);
        check(&[254], true, b"\x04\x02\x01a", None);
        check(&[247], true, b"\x0a\x01\x08\x04\x02\x01a", None);
        check(&[12], true, b"\x04\x02\x01a", Some("a None  0"));
    }

    proptest! {
        #[test]
        fn no_metadata_panics(
            kinds in proptest::collection::vec(any::<u8>(), 0..20),
            mariadb: bool,
            fields in proptest::collection::vec(
                (1..12_u8, proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
        ) {
            let columns: Vec<_> = kinds.iter().map(|&kind| column(kind)).collect();
            let mut event = Vec::new();
            for (what, value) in fields {
                event.extend([what, u8::try_from(value.len()).unwrap()]);
                event.extend(value);
            }
            drop(parse(&mut Cursor::new(event.into()), &columns, mariadb));
        }
    }
}
