//! The identity of a row: a hash of its table and primary key, equal exactly when
//! the servers hold the keys equal.
//!
//! Integers and binary keys compare by value. Character keys compare by collation:
//! `_bin` ones by their bytes without trailing blanks, the others by letters
//! regardless of case, where that is what the collation does ([`Equality`]). Accents,
//! ignorable and composed characters need the server's own weights, so a key under such
//! a collation that is not printable ASCII is refused rather than guessed at.

use smallvec::SmallVec;
use xxhash_rust::xxh3::Xxh3;

use crate::change::{Column, ColumnType, Equality, ForeignKey, Kind, Row, RowChange, Table, Value};

/// 128-bit hash of table name and primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(pub u128);

/// Why a row has no usable identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The table has no primary key.
    #[error("table {0} has no primary key")]
    NoKey(String),
    /// A character key whose equality only the server can tell.
    #[error(
        "which keys of {table} are one, only the server can tell: of column {column}, whose \
         collation is {collation}, printable ASCII is known at most"
    )]
    Collation {
        /// The table.
        table: String,
        /// The key column.
        column: String,
        /// Its collation.
        collation: String,
    },
    /// A NULL or a value that is no key.
    #[error("a key of {0} has no value")]
    Null(String),
}

impl RowKey {
    /// The identity of `row`; `key` is [`Table::key_columns`].
    ///
    /// # Errors
    /// [`KeyError`] when the table or the value has no exact identity.
    pub fn of(table: &Table, key: &[usize], row: &Row) -> Result<Self, KeyError> {
        let name = || format!("{}.{}", table.schema, table.name);
        if key.is_empty() {
            return Err(KeyError::NoKey(name()));
        }
        let mut hash = Xxh3::new();
        part(&mut hash, table.schema.as_bytes());
        part(&mut hash, table.name.as_bytes());
        for &at in key {
            let column = &table.columns[at];
            let Some(Value { kind: Some(kind) }) = row.values.get(at) else {
                return Err(KeyError::Null(name()));
            };
            if !value(&mut hash, column, kind) {
                return Err(KeyError::Collation {
                    table: name(),
                    column: column.name.clone(),
                    collation: column.collation.clone(),
                });
            }
        }
        Ok(Self(hash.digest128()))
    }
}

/// One row that a change touches.
#[derive(Clone, Copy, Debug)]
pub struct Touch<'a> {
    /// Its identity.
    pub key: RowKey,
    /// The row before, if it was there.
    pub before: Option<&'a Row>,
    /// The row after, if it is there.
    pub after: Option<&'a Row>,
    /// The change moved a row from one key to another: a delete and an insert.
    pub moved: bool,
}

impl RowKey {
    /// The rows that a change touches: a change of the primary key removes one row and
    /// writes another.
    ///
    /// # Errors
    /// [`KeyError`], as [`RowKey::of`].
    pub fn touched<'a>(
        table: &Table,
        key: &[usize],
        change: &'a RowChange,
    ) -> Result<SmallVec<[Touch<'a>; 2]>, KeyError> {
        let of = |row| Self::of(table, key, row);
        let mut touched = SmallVec::new();
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        match (before.map(of).transpose()?, after.map(of).transpose()?) {
            (Some(old), Some(new)) if old != new => {
                touched.push(Touch { key: old, before, after: None, moved: true });
                touched.push(Touch { key: new, before: None, after, moved: true });
            }
            (old, new) => {
                let key = old.or(new);
                touched.extend(key.map(|key| Touch { key, before, after, moved: false }));
            }
        }
        Ok(touched)
    }

    /// The identity of the value that `row` holds of a further unique key; none when
    /// a part of it is NULL, which claims nothing. Regions know the key by its columns, in
    /// whichever order: its name and its place among the table's keys may differ. A
    /// character whose equality only the server can tell counts as its bytes: what that
    /// misses, the server refuses.
    #[must_use]
    pub fn claim(table: &Table, columns: &[usize], row: &Row) -> Option<Self> {
        let of = |&at: &usize| Some((table.columns.get(at)?.name.to_ascii_lowercase(), at));
        let mut columns: SmallVec<[(String, usize); 4]> =
            columns.iter().map(of).collect::<Option<_>>()?;
        columns.sort_unstable();
        let mut hash = Xxh3::new();
        part(&mut hash, b"unique");
        part(&mut hash, table.schema.as_bytes());
        part(&mut hash, table.name.as_bytes());
        for (name, at) in columns {
            part(&mut hash, name.as_bytes());
            let kind = row.values.get(at)?.kind.as_ref()?;
            if !value(&mut hash, &table.columns[at], kind)
                && let Kind::Bytes(bytes) = kind
            {
                part(&mut hash, bytes);
            }
        }
        Some(Self(hash.digest128()))
    }
}

impl RowKey {
    /// What `row` references by a foreign key of its table: the identity of a row, or of
    /// a value of a unique key. None when a column of it is NULL, which references
    /// nothing, or when only the server can tell which row it is.
    #[must_use]
    pub fn referenced(table: &Table, key: &ForeignKey, row: &Row) -> Option<Self> {
        let places = key.columns.iter().map(|&at| usize::try_from(at).ok());
        let places: SmallVec<[usize; 4]> = places.collect::<Option<_>>()?;
        let names = key.referenced.iter().map(String::as_str);
        let mut hash = Xxh3::new();
        if key.unique {
            named(&mut hash, &key.schema, &key.table, names);
        } else {
            part(&mut hash, key.schema.as_bytes());
            part(&mut hash, key.table.as_bytes());
        }
        values(&mut hash, table, &places, row)
    }

    /// The identity of the value that `row` holds of a further unique key, as rows of
    /// other tables reference it, who know the key by its columns; none as
    /// [`RowKey::referenced`].
    #[must_use]
    pub fn value(table: &Table, columns: &[usize], row: &Row) -> Option<Self> {
        let names = columns.iter().filter_map(|&at| Some(table.columns.get(at)?.name.as_str()));
        let mut hash = Xxh3::new();
        named(&mut hash, &table.schema, &table.name, names);
        values(&mut hash, table, columns, row)
    }
}

fn named<'a>(hash: &mut Xxh3, schema: &str, table: &str, names: impl Iterator<Item = &'a str>) {
    part(hash, b"referenced");
    part(hash, schema.as_bytes());
    part(hash, table.as_bytes());
    for name in names {
        part(hash, name.to_ascii_lowercase().as_bytes());
    }
}

fn values(hash: &mut Xxh3, table: &Table, columns: &[usize], row: &Row) -> Option<RowKey> {
    for &at in columns {
        let kind = row.values.get(at)?.kind.as_ref()?;
        if !value(hash, table.columns.get(at)?, kind) {
            return None;
        }
    }
    Some(RowKey(hash.digest128()))
}

/// Length first, so that neighbouring parts can't run into each other.
fn part(hash: &mut Xxh3, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// Feeds a key value; false when its equality is not known here.
fn value(hash: &mut Xxh3, column: &Column, kind: &Kind) -> bool {
    match kind {
        // One number has one form, whichever of the servers' signedness it came by.
        Kind::Int(n) => part(hash, &i128::from(*n).to_le_bytes()),
        Kind::Uint(n) => part(hash, &i128::from(*n).to_le_bytes()),
        Kind::Float(f) => part(hash, &(f + 0.0).to_bits().to_le_bytes()),
        Kind::Double(f) => part(hash, &(f + 0.0).to_bits().to_le_bytes()),
        Kind::Literal(text) => part(hash, text),
        Kind::Bytes(bytes) => return string(hash, column, bytes),
    }
    true
}

fn string(hash: &mut Xxh3, column: &Column, bytes: &[u8]) -> bool {
    let binary =
        matches!(column.r#type(), ColumnType::Binary | ColumnType::Blob | ColumnType::Geometry);
    let collation = column.collation.as_str();
    if binary || collation == "binary" || collation.is_empty() {
        part(hash, bytes);
        return true;
    }
    let no_pad = collation.contains("nopad") || collation.contains("_0900_");
    let trimmed = if no_pad { bytes } else { without_trailing_blanks(bytes) };
    let printable = || trimmed.iter().all(|b| (0x20..0x7f).contains(b));
    match Equality::of(collation) {
        Equality::Bytes => part(hash, trimmed),
        Equality::Ascii if printable() => part(hash, trimmed),
        Equality::AsciiFolded if printable() => part(hash, &trimmed.to_ascii_uppercase()),
        Equality::Ascii | Equality::AsciiFolded | Equality::Unknown => return false,
    }
    true
}

fn without_trailing_blanks(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&b| b != b' ').map_or(0, |at| at + 1);
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(collation: &str, text: &str) -> Result<RowKey, KeyError> {
        let column = Column {
            name: "id".into(),
            r#type: ColumnType::Char.into(),
            key: 1,
            collation: collation.into(),
            ..Default::default()
        };
        let table = Table {
            schema: "s".into(),
            name: "t".into(),
            columns: vec![column],
            ..Default::default()
        };
        let row = Row { values: vec![Value::new(Kind::Bytes(text.to_owned().into()))] };
        RowKey::of(&table, &[0], &row)
    }

    #[track_caller]
    fn check(collation: &str, a: &str, b: &str, same: bool) {
        assert_eq!(key(collation, a).unwrap() == key(collation, b).unwrap(), same);
    }

    #[test]
    fn keys_are_equal_as_the_collation_says() {
        check("utf8mb4_general_ci", "Abc", "aBC ", true);
        check("utf8mb4_bin", "a", "A", false);
        check("utf8mb4_bin", "é", "é  ", true);
        check("utf8mb4_0900_ai_ci", "a", "a ", false);
        check("utf8mb4_general_nopad_ci", "a", "A ", false);
        check("binary", "a", "a ", false);
    }

    #[test]
    fn a_key_that_only_the_server_can_compare_is_refused() {
        for (collation, text) in [("utf8mb4_unicode_ci", "é"), ("utf8mb4_turkish_ci", "a")] {
            assert!(matches!(key(collation, text), Err(KeyError::Collation { .. })), "{text}");
        }
    }

    /// Two regions, each with its own names of indexes, and so another order of keys.
    #[test]
    fn a_claim_is_of_its_columns_whatever_the_key_is_called() {
        let column = |name: &str| Column { name: name.into(), ..Default::default() };
        let table = |names: [&str; 3]| Table {
            schema: "s".into(),
            name: "t".into(),
            columns: names.map(column).into(),
            ..Default::default()
        };
        let row =
            |values: [i64; 3]| Row { values: values.map(|n| Value::new(Kind::Int(n))).into() };
        let (here, there) = (table(["id", "a", "b"]), table(["id", "B", "A"]));
        let claim = |columns: &[usize]| RowKey::claim(&here, columns, &row([1, 7, 7])).unwrap();
        let theirs = |columns: &[usize]| RowKey::claim(&there, columns, &row([2, 7, 7])).unwrap();
        assert_ne!(claim(&[1]), claim(&[2]), "one value of two keys is no collision");
        assert_eq!((claim(&[1]), claim(&[2])), (theirs(&[2]), theirs(&[1])));
        assert_eq!(claim(&[1, 2]), theirs(&[1, 2]), "(a, b) and (b, a) forbid the same");
        assert_ne!(claim(&[1, 2]), claim(&[1]));
    }
}
