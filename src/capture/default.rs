//! A column's default as a value: what a row holds where nothing is said of it.
//!
//! Only what is exact is told; for all else a reader without the column has to wait
//! for it.

use crate::change::{Column, ColumnType, Kind, Value};

/// A default as information_schema has it.
#[derive(Clone, Debug)]
pub(super) struct Initial {
    pub(super) text: Option<String>,
    pub(super) nullable: bool,
    /// MariaDB's form: a literal is quoted, all else is an expression, and NULL is a
    /// word. MySQL gives the bare text and marks expressions in `extra`.
    pub(super) quoted: bool,
}

impl Initial {
    /// The default of `column`, whose other fields are set.
    pub(super) fn value(&self, column: &Column, extra: &str) -> Option<Value> {
        if column.generated || extra.contains("AUTO_INCREMENT") || extra.contains("ON UPDATE") {
            return None;
        }
        let Some(text) = &self.text else {
            return self.nullable.then_some(Value::NULL);
        };
        if !self.quoted {
            return if extra.contains("DEFAULT_GENERATED") { None } else { literal(text, column) };
        }
        if text == "NULL" {
            return Some(Value::NULL);
        }
        match text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
            Some(inner) if !inner.contains('\\') => literal(&inner.replace("''", "'"), column),
            Some(_) => None,
            None => literal(text, column).filter(|_| is_number(text)),
        }
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'e' | b'+'))
}

fn literal(text: &str, column: &Column) -> Option<Value> {
    let label = |label: &str| column.labels.iter().position(|known| known == label.as_bytes());
    let kind = match column.r#type() {
        ColumnType::Tinyint
        | ColumnType::Smallint
        | ColumnType::Mediumint
        | ColumnType::Int
        | ColumnType::Bigint
            if !column.unsigned =>
        {
            Kind::Int(text.parse().ok()?)
        }
        ColumnType::Tinyint
        | ColumnType::Smallint
        | ColumnType::Mediumint
        | ColumnType::Int
        | ColumnType::Bigint
        | ColumnType::Year => Kind::Uint(text.parse().ok()?),
        ColumnType::Float => Kind::Float(text.parse().ok()?),
        ColumnType::Double => Kind::Double(text.parse().ok()?),
        ColumnType::Decimal if is_number(text) => Kind::Literal(text.to_owned().into()),
        ColumnType::Date | ColumnType::Time | ColumnType::Datetime
            if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') =>
        {
            Kind::Literal(text.to_owned().into())
        }
        // ASCII is itself in all character sets but the wide ones.
        ColumnType::Char | ColumnType::Text if text.is_ascii() && !is_wide(&column.collation) => {
            Kind::Bytes(text.to_owned().into())
        }
        ColumnType::Enum => Kind::Uint(u64::try_from(label(text)?).ok()? + 1),
        ColumnType::Set => {
            let mut mask = 0;
            for part in text.split(',').filter(|part| !part.is_empty()) {
                mask |= 1_u64.checked_shl(u32::try_from(label(part)?).ok()?)?;
            }
            Kind::Uint(mask)
        }
        ColumnType::Unspecified
        | ColumnType::Decimal
        | ColumnType::Bit
        | ColumnType::Date
        | ColumnType::Time
        | ColumnType::Datetime
        | ColumnType::Timestamp
        | ColumnType::Char
        | ColumnType::Binary
        | ColumnType::Text
        | ColumnType::Blob
        | ColumnType::Json
        | ColumnType::Uuid
        | ColumnType::Geometry => return None,
    };
    Some(Value::new(kind))
}

fn is_wide(collation: &str) -> bool {
    ["ucs2", "utf16", "utf32"].iter().any(|wide| collation.starts_with(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(quoted: bool, kind: ColumnType, text: Option<&str>, wanted: Option<Value>) {
        let labels = vec!["a".to_owned().into(), "b".to_owned().into()];
        let column = Column { r#type: kind.into(), labels, ..Column::default() };
        let written = Initial { text: text.map(str::to_owned), nullable: true, quoted };
        assert_eq!(written.value(&column, ""), wanted, "{text:?}");
    }

    fn some(kind: Kind) -> Option<Value> {
        Some(Value::new(kind))
    }

    #[test]
    fn mariadb_quotes_literals_and_nothing_else() {
        let bytes = |text: &str| some(Kind::Bytes(text.to_owned().into()));
        check(true, ColumnType::Int, Some("7"), some(Kind::Int(7)));
        check(true, ColumnType::Int, Some("NULL"), Some(Value::NULL));
        check(true, ColumnType::Int, Some("(1 + 1)"), None);
        check(true, ColumnType::Char, Some("'it''s'"), bytes("it's"));
        check(true, ColumnType::Char, Some("'NULL'"), bytes("NULL"));
        check(true, ColumnType::Char, Some("uuid()"), None);
        check(true, ColumnType::Char, Some("'é'"), None);
        check(true, ColumnType::Datetime, Some("current_timestamp()"), None);
        check(true, ColumnType::Enum, Some("'b'"), some(Kind::Uint(2)));
        check(true, ColumnType::Set, Some("'a,b'"), some(Kind::Uint(3)));
        check(true, ColumnType::Bit, Some("b'101'"), None);
        check(true, ColumnType::Decimal, Some("1.00"), some(Kind::Literal("1.00".into())));
    }

    #[test]
    fn mysql_gives_the_bare_text() {
        check(false, ColumnType::Char, Some("NULL"), some(Kind::Bytes("NULL".into())));
        check(false, ColumnType::Int, None, Some(Value::NULL));
        check(false, ColumnType::Datetime, Some("CURRENT_TIMESTAMP"), None);
        check(false, ColumnType::Timestamp, Some("2020-01-01 00:00:00"), None);
    }
}
