//! A row of a record held against a row of a database.
//!
//! What can't be told for sure is not the same: who asks is told less, never wrong.

use core::net::IpAddr;

use super::chunk::Key;
use super::columns::{Literal, Plan};
use super::repair::Image;
use crate::change::{Column, ColumnType, Kind, Row, Table, Value};

/// The row of a record that has this key and nothing else; `None` where the key has a
/// form of its own.
#[must_use]
pub fn key_row(table: &Table, key: &Key) -> Option<Row> {
    let places = table.key_columns();
    if places.len() != key.0.len() {
        return None;
    }
    let mut row = Row { values: vec![Value::NULL; table.columns.len()] };
    for (&at, value) in places.iter().zip(&key.0) {
        row.values[at] = Value::new(kind(table.columns.get(at)?, value)?);
    }
    Some(row)
}

fn kind(column: &Column, value: &[u8]) -> Option<Kind> {
    use ColumnType::{
        Bigint, Binary, Bit, Blob, Char, Date, Datetime, Decimal, Double, Enum, Float, Geometry,
        Int, Json, Mediumint, Set, Smallint, Text, Time, Timestamp, Tinyint, Unspecified, Uuid,
        Year,
    };
    let text = || std::str::from_utf8(value).ok();
    match column.r#type() {
        Tinyint | Smallint | Mediumint | Int | Bigint => {
            let signed = text()?.parse().map(Kind::Int);
            signed.or_else(|_| text().unwrap_or_default().parse().map(Kind::Uint)).ok()
        }
        Decimal | Date | Datetime | Time | Timestamp => Some(Kind::Literal(value.to_vec().into())),
        Char | Text | Binary | Blob => Some(Kind::Bytes(value.to_vec().into())),
        Bit | Year | Enum | Set => text()?.parse().map(Kind::Uint).ok(),
        Uuid => Some(Kind::Bytes(uuid(text()?)?.to_vec().into())),
        Unspecified | Float | Double | Json | Geometry => None,
    }
}

/// The bytes of a UUID as the server prints it.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok())?.map(u128::to_be_bytes)
}

/// The bytes of a value that the server prints in a form of its own.
fn printed(column: &Column, text: &str) -> Option<Vec<u8>> {
    if column.r#type() == ColumnType::Uuid {
        return uuid(text).map(Vec::from);
    }
    Some(match text.parse().ok()? {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    })
}

impl Plan {
    /// Whether a row is what a record says, in every compared column.
    #[must_use]
    pub fn holds(&self, table: &Table, row: &Row, image: &Image) -> bool {
        self.columns.iter().zip(&image.values).all(|(compared, held)| {
            let Some(at) = table.place(&compared.name) else { return false };
            let kind = row.values.get(at).and_then(|value| value.kind.as_ref());
            match (kind, held) {
                (None, None) => true,
                (Some(kind), Some(held)) => {
                    equal(&table.columns[at], &compared.literal, kind, held)
                }
                _ => false,
            }
        })
    }
}

/// Whether a record's value is what the server printed.
fn equal(column: &Column, literal: &Literal, kind: &Kind, held: &[u8]) -> bool {
    let text = || std::str::from_utf8(held).unwrap_or_default();
    match kind {
        Kind::Int(n) => text() == n.to_string(),
        Kind::Uint(n) => text() == n.to_string(),
        Kind::Float(f) => text().parse() == Ok(f64::from(*f)),
        Kind::Double(f) => text().parse() == Ok(*f),
        Kind::Literal(bytes) => **bytes == *held,
        Kind::Bytes(bytes) if *literal == Literal::Quoted => {
            printed(column, text()).is_some_and(|held| **bytes == *held)
        }
        Kind::Bytes(bytes) => {
            let converted = matches!(literal, Literal::Text(set) if set.starts_with("utf8"))
                && !column.collation.starts_with("utf8");
            **bytes == *held && (!converted || held.is_ascii())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, r#type: ColumnType, key: u32) -> Column {
        let collation = "latin1_swedish_ci".to_owned();
        Column { name: name.into(), r#type: r#type.into(), key, collation, ..Column::default() }
    }

    #[test]
    fn a_key_is_read_back_as_a_record_has_it() {
        let columns = vec![
            column("n", ColumnType::Bigint, 2),
            column("v", ColumnType::Char, 0),
            column("name", ColumnType::Char, 1),
        ];
        let table = Table { columns, ..Table::default() };
        let row = key_row(&table, &Key(vec![b"a".to_vec(), b"18446744073709551615".to_vec()]));
        let kinds: Vec<_> = row.unwrap().values.into_iter().map(|value| value.kind).collect();
        assert_eq!(kinds, [Some(Kind::Uint(u64::MAX)), None, Some(Kind::Bytes("a".into()))]);
        assert_eq!(key_row(&table, &Key(vec![b"a".to_vec()])), None);
        let columns = vec![column("e", ColumnType::Enum, 1), column("y", ColumnType::Year, 2)];
        let table = Table { columns, ..Table::default() };
        let row = key_row(&table, &Key(vec![b"3".to_vec(), b"2024".to_vec()]));
        let kinds: Vec<_> = row.unwrap().values.into_iter().map(|value| value.kind).collect();
        assert_eq!(kinds, [Some(Kind::Uint(3)), Some(Kind::Uint(2024))]);
    }

    #[track_caller]
    fn check(r#type: ColumnType, literal: &Literal, kind: Kind, held: &str, wanted: bool) {
        assert_eq!(equal(&column("c", r#type, 0), literal, &kind, held.as_bytes()), wanted);
    }

    #[test]
    fn values_are_what_the_server_prints() {
        let (number, real) = (Literal::Number, Literal::Real);
        check(ColumnType::Int, &number, Kind::Int(-7), "-7", true);
        check(ColumnType::Int, &number, Kind::Int(7), "8", false);
        check(ColumnType::Float, &real, Kind::Float(0.1), "0.10000000149011612", true);
        check(ColumnType::Double, &real, Kind::Double(0.1), "1e-1", true);
        check(ColumnType::Decimal, &number, Kind::Literal("1.50".into()), "1.50", true);
        let (own, wide) = (Literal::Text("latin1".into()), Literal::Text("utf8mb4".into()));
        check(ColumnType::Char, &own, Kind::Bytes("a".into()), "a", true);
        check(ColumnType::Char, &own, Kind::Bytes("a".into()), "a ", false);
        check(ColumnType::Char, &wide, Kind::Bytes("ü".into()), "ü", false);
        let (quoted, id) = (Literal::Quoted, "00112233-4455-6677-8899-aabbccddeeff");
        let bytes = vec![0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255];
        check(ColumnType::Uuid, &quoted, Kind::Bytes(bytes.clone().into()), id, true);
        check(ColumnType::Uuid, &quoted, Kind::Bytes(bytes.into()), &id.replace('0', "1"), false);
        let address = |bytes: &[u8]| Kind::Bytes(bytes.to_vec().into());
        check(ColumnType::Binary, &quoted, address(&[10, 0, 0, 1]), "10.0.0.1", true);
        check(ColumnType::Binary, &quoted, address(&[10, 0, 0, 1]), "10.0.0.2", false);
    }
}
