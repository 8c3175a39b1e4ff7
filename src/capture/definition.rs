//! A table's definition as information_schema has it: the present one, which need not
//! be the one that a row was written with.

use std::collections::BTreeMap;
use std::sync::Arc;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use super::CaptureError;
use super::catalog::{ColumnInfo, TableInfo};
use super::default::Initial;
use super::described::Described;
use super::foreign::{self, Foreign};
use super::table_map::{TableMap, Written, kind};
use crate::change::pb::UniqueKey;
use crate::change::{Column, ColumnType, ForeignKey, Table, TableName, is_generated};

/// A table as it is now; without columns when there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Definition {
    pub(super) columns: Vec<Defined>,
    /// The unique keys beside the primary key, by the names of their columns.
    unique: Vec<Vec<String>>,
    /// Its foreign keys, by names.
    pub(super) foreign: Vec<Foreign>,
    /// What keys over expressions hold, with the place among all columns.
    hidden: Vec<(usize, String)>,
}

/// A column as it is now.
#[derive(Clone, Debug)]
pub(super) struct Defined {
    pub(super) column: Column,
    pub(super) info: ColumnInfo,
    /// The type in the server's words, when it is not replicated.
    pub(super) refused: Option<String>,
    /// The primary key covers only its first part.
    cut: bool,
}

impl Definition {
    /// As the one that rows were written with, of which the event says no more than
    /// types; none when it can't be. Whether hidden columns are there is the version's.
    pub(super) fn fitting(&self, map: &TableMap) -> Option<Self> {
        let mut whole = self.clone();
        for (place, _) in &self.hidden {
            if *place <= whole.columns.len() {
                whole.columns.insert(*place, Defined::hidden());
            }
        }
        let fits = |columns: &[Defined]| {
            columns.len() == map.columns.len()
                && map.columns.iter().zip(columns).all(|(how, now)| now.holds(*how))
        };
        let found = [self, &whole].into_iter().find(|definition| fits(&definition.columns));
        found.cloned()
    }

    /// Whether no statement sees that column: MySQL made it for a key over an
    /// expression. One whose key is gone by now has still the name that such have.
    pub(super) fn hides(&self, name: &str) -> bool {
        let hash = name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
        self.hidden.iter().any(|(_, hidden)| hidden == name)
            || (hash || name.starts_with("!hidden!"))
                && self.columns.iter().all(|defined| defined.column.name != name)
    }

    /// As a table whose rows can be read.
    pub(super) fn table(&self, name: &TableName) -> Result<TableInfo, CaptureError> {
        let (mut all, mut infos) = (Vec::new(), Vec::new());
        for defined in &self.columns {
            if defined.info.hidden {
                infos.push(defined.info.clone());
                continue;
            }
            defined.check(name)?;
            if defined.cut {
                return Err(CaptureError::cut_key(name, &defined.column));
            }
            all.push(defined.column.clone());
            infos.push(defined.info.clone());
        }
        let (schema, name) = (name.schema.clone(), name.name.clone());
        let (unique_keys, foreign_keys) = (self.unique_keys(&all), self.foreign_keys(&all));
        let table = Table { schema, name, columns: all, unique_keys, foreign_keys };
        Ok(TableInfo { table: Arc::new(table), columns: infos })
    }

    /// The unique keys over these columns; one with a column that is not among them,
    /// or of an expression, is left to the servers.
    pub(super) fn unique_keys(&self, columns: &[Column]) -> Vec<UniqueKey> {
        let place = |name: &String| {
            let at = columns.iter().position(|column| column.name == *name)?;
            u32::try_from(at).ok()
        };
        let keys = self.unique.iter().map(|names| names.iter().map(place).collect());
        keys.filter_map(|columns: Option<Vec<u32>>| Some(UniqueKey { columns: columns? })).collect()
    }

    /// The foreign keys of these columns; one with a column that is not among them is
    /// left to the servers.
    pub(super) fn foreign_keys(&self, columns: &[Column]) -> Vec<ForeignKey> {
        let mut keys: Vec<_> = self.foreign.iter().filter_map(|key| key.over(columns)).collect();
        // Their names, which the dictionary sorts them by, need not be the same everywhere.
        keys.sort_by(|a, b| {
            (&a.columns, &a.schema, &a.table, &a.referenced).cmp(&(
                &b.columns,
                &b.schema,
                &b.table,
                &b.referenced,
            ))
        });
        keys
    }
}

impl Defined {
    /// Of a type that any event may have.
    fn hidden() -> Self {
        let info = ColumnInfo { hidden: true, ..ColumnInfo::default() };
        Self { column: Column::default(), info, refused: None, cut: false }
    }

    /// Refuses what is not replicated.
    pub(super) fn check(&self, table: &TableName) -> Result<(), CaptureError> {
        match &self.refused {
            None => Ok(()),
            Some(what) => Err(CaptureError::Type {
                table: table.to_string(),
                column: self.column.name.clone(),
                what: what.clone(),
            }),
        }
    }

    /// Whether an event writes such a column so.
    fn holds(&self, how: Written) -> bool {
        let kinds = match self.column.r#type() {
            // Refused by name once the rest fits.
            ColumnType::Unspecified => return true,
            ColumnType::Tinyint => &[kind::TINY][..],
            ColumnType::Smallint => &[kind::SHORT],
            ColumnType::Mediumint => &[kind::INT24],
            ColumnType::Int => &[kind::LONG],
            ColumnType::Bigint => &[kind::LONGLONG],
            ColumnType::Decimal => &[kind::NEWDECIMAL],
            ColumnType::Float => &[kind::FLOAT],
            ColumnType::Double => &[kind::DOUBLE],
            ColumnType::Bit => &[kind::BIT],
            ColumnType::Year => &[kind::YEAR],
            ColumnType::Date => &[kind::DATE],
            ColumnType::Time => &[kind::TIME, kind::TIME2],
            ColumnType::Datetime => &[kind::DATETIME, kind::DATETIME2],
            ColumnType::Timestamp => &[kind::TIMESTAMP, kind::TIMESTAMP2],
            ColumnType::Char | ColumnType::Binary => {
                &[kind::STRING, kind::VARCHAR, kind::VAR_STRING, kind::VARCHAR_COMPRESSED]
            }
            ColumnType::Text | ColumnType::Blob => {
                &[249, 250, 251, kind::BLOB, kind::BLOB_COMPRESSED]
            }
            ColumnType::Enum => &[kind::ENUM],
            ColumnType::Set => &[kind::SET],
            ColumnType::Json => &[kind::JSON],
            ColumnType::Uuid => &[kind::STRING],
            ColumnType::Geometry => &[kind::GEOMETRY],
        };
        kinds.contains(&how.kind)
    }

    /// Whether it is the column that an event describes: what the event does not say
    /// is then as it is here.
    pub(super) fn is(&self, written: &Column) -> bool {
        let (now, then) = (self.column.r#type(), written.r#type());
        // The event has UUIDs as BINARY(16).
        let same_type = now == then
            || now == ColumnType::Unspecified
            || now == ColumnType::Uuid && then == ColumnType::Binary;
        same_type
            && self.column.name == written.name
            && self.column.unsigned == written.unsigned
            && self.column.collation == written.collation
            && self.column.labels == written.labels
    }
}

/// The type of a column that an event describes.
pub(super) fn described_type(how: Written, binary: bool) -> ColumnType {
    match how.kind {
        kind::TINY => ColumnType::Tinyint,
        kind::SHORT => ColumnType::Smallint,
        kind::INT24 => ColumnType::Mediumint,
        kind::LONG => ColumnType::Int,
        kind::LONGLONG => ColumnType::Bigint,
        kind::NEWDECIMAL => ColumnType::Decimal,
        kind::FLOAT => ColumnType::Float,
        kind::DOUBLE => ColumnType::Double,
        kind::BIT => ColumnType::Bit,
        kind::YEAR => ColumnType::Year,
        kind::DATE => ColumnType::Date,
        kind::TIME | kind::TIME2 => ColumnType::Time,
        kind::DATETIME | kind::DATETIME2 => ColumnType::Datetime,
        kind::TIMESTAMP | kind::TIMESTAMP2 => ColumnType::Timestamp,
        kind::STRING | kind::VARCHAR | kind::VAR_STRING | kind::VARCHAR_COMPRESSED if binary => {
            ColumnType::Binary
        }
        kind::STRING | kind::VARCHAR | kind::VAR_STRING | kind::VARCHAR_COMPRESSED => {
            ColumnType::Char
        }
        249..=kind::BLOB | kind::BLOB_COMPRESSED if binary => ColumnType::Blob,
        249..=kind::BLOB | kind::BLOB_COMPRESSED => ColumnType::Text,
        kind::ENUM => ColumnType::Enum,
        kind::SET => ColumnType::Set,
        kind::JSON => ColumnType::Json,
        kind::GEOMETRY => ColumnType::Geometry,
        _ => ColumnType::Unspecified,
    }
}

/// A column as an event describes it, with the name of its collation.
pub(super) fn described_column(
    how: Written,
    said: &Described,
    collation: String,
) -> (Column, ColumnInfo) {
    let r#type = described_type(how, collation == "binary");
    // The dictionary knows no signs of years.
    let unsigned = said.unsigned && r#type != ColumnType::Year;
    let column = Column {
        name: said.name.clone(),
        r#type: r#type.into(),
        unsigned,
        key: said.key,
        collation,
        labels: said.labels.clone(),
        generated: false,
        default_value: None,
    };
    let fixed = how.kind == kind::STRING && r#type == ColumnType::Binary;
    let info = ColumnInfo {
        unsigned,
        binary_length: fixed.then_some(usize::from(how.meta)),
        ..ColumnInfo::default()
    };
    (column, info)
}

/// Reads a table's definition; the connection speaks utf8mb4.
pub(super) async fn read(
    conn: &mut Conn,
    name: &TableName,
) -> Result<Definition, mysql_async::Error> {
    let rows: Vec<mysql_async::Row> = conn
        .exec(
            "SELECT c.column_name, c.data_type, c.column_type, \
             IFNULL(c.collation_name, 'binary'), c.extra, IFNULL(k.seq_in_index, 0), \
             IFNULL(c.datetime_precision, 0), c.column_default, c.is_nullable = 'YES', \
             @@version LIKE '%MariaDB%', k.sub_part IS NOT NULL FROM information_schema.columns c \
             LEFT JOIN information_schema.statistics k ON k.table_schema = c.table_schema \
             AND k.table_name = c.table_name AND k.column_name = c.column_name \
             AND k.index_name = 'PRIMARY' \
             WHERE c.table_schema = ? AND c.table_name = ? ORDER BY c.ordinal_position",
            (&name.schema, &name.name),
        )
        .await?;
    let text = |row: &mysql_async::Row, at: usize| {
        let bytes: Vec<u8> = row.get(at).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut columns = Vec::with_capacity(rows.len());
    for row in &rows {
        let printed = Printed {
            name: text(row, 0),
            data_type: text(row, 1).to_lowercase(),
            column_type: text(row, 2),
            collation: text(row, 3),
            extra: text(row, 4).to_uppercase(),
            key: row.get(5).unwrap_or_default(),
            fraction: row.get(6).unwrap_or_default(),
        };
        let default = Initial {
            text: row.get_opt::<String, _>(7).and_then(Result::ok),
            nullable: row.get(8).unwrap_or_default(),
            quoted: row.get(9).unwrap_or_default(),
        };
        let extra = printed.extra.clone();
        let mut defined = printed.defined();
        // The labels are in UTF-8 as the default is.
        defined.column.default_value = default.value(&defined.column, &extra);
        encode_labels(conn, &mut defined.column).await?;
        defined.cut = row.get(10).unwrap_or_default();
        columns.push(defined);
    }
    let mut unique = read_unique(conn, name).await?;
    unique.remove(PRIMARY);
    let unique = unique.into_values().collect();
    let foreign = foreign::read(conn, name).await?;
    let hidden = read_hidden(conn, name).await?;
    Ok(Definition { columns, unique, foreign, hidden })
}

/// The columns behind keys over expressions, which only this statement lists.
async fn read_hidden(
    conn: &mut Conn,
    name: &TableName,
) -> Result<Vec<(usize, String)>, mysql_async::Error> {
    let expressions: Option<u64> = conn
        .exec_first(
            "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = ? \
             AND table_name = ? AND column_name IS NULL",
            (&name.schema, &name.name),
        )
        .await?;
    if expressions.unwrap_or_default() == 0 {
        return Ok(Vec::new());
    }
    let [schema, table] = [&name.schema, &name.name].map(|name| name.replace('`', "``"));
    let all: Vec<mysql_async::Row> =
        conn.query(format!("SHOW EXTENDED COLUMNS FROM `{schema}`.`{table}`")).await?;
    let seen: Vec<String> = conn
        .exec(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = ? \
             AND table_name = ?",
            (&name.schema, &name.name),
        )
        .await?;
    let name = |row: &mysql_async::Row| row.get::<String, _>(0).unwrap_or_default();
    // The engine's own columns have no type.
    let typed = |row: &mysql_async::Row| row.get::<String, _>(1).is_some_and(|t| !t.is_empty());
    let all = all.iter().filter(|row| typed(row)).map(name).enumerate();
    Ok(all.filter(|(_, name)| !seen.contains(name)).collect())
}

pub(super) const PRIMARY: &str = "PRIMARY";

/// The unique keys by name, with the names of their columns; the primary key is one.
pub(super) async fn read_unique(
    conn: &mut Conn,
    name: &TableName,
) -> Result<BTreeMap<String, Vec<String>>, mysql_async::Error> {
    // An expression has no column: its name is then one that no column has.
    let rows: Vec<(String, String)> = conn
        .exec(
            "SELECT CAST(index_name AS CHAR), CAST(IFNULL(column_name, '') AS CHAR) \
             FROM information_schema.statistics WHERE table_schema = ? AND table_name = ? \
             AND non_unique = 0 ORDER BY index_name, seq_in_index",
            (&name.schema, &name.name),
        )
        .await?;
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, column) in rows {
        keys.entry(key).or_default().push(column);
    }
    Ok(keys)
}

/// The dictionary prints labels in UTF-8; rows and events have them in the column's
/// character set.
async fn encode_labels(conn: &mut Conn, column: &mut Column) -> Result<(), mysql_async::Error> {
    let (charset, wide) = (column.charset().to_owned(), column.is_wide());
    if charset.starts_with("utf8") || !charset.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(());
    }
    for label in &mut column.labels {
        if !wide && label.is_ascii() {
            continue;
        }
        let sql = format!("SELECT CAST(CONVERT(? USING {charset}) AS BINARY)");
        let text = String::from_utf8_lossy(label).into_owned();
        let encoded: Option<Vec<u8>> = conn.exec_first(sql, (text,)).await?;
        *label = encoded.unwrap_or_default().into();
    }
    Ok(())
}

/// A row of information_schema.columns.
struct Printed {
    name: String,
    data_type: String,
    column_type: String,
    collation: String,
    extra: String,
    key: u32,
    fraction: u8,
}

impl Printed {
    fn defined(self) -> Defined {
        let column_type = ColumnType::of_sql(&self.data_type);
        let refused = (column_type == ColumnType::Unspecified).then(|| self.column_type.clone());
        let labels = if matches!(column_type, ColumnType::Enum | ColumnType::Set) {
            labels(&self.column_type)
        } else {
            Vec::new()
        };
        let binary_length = match self.data_type.as_str() {
            "binary" => {
                let digits = self.column_type.trim_start_matches(|c: char| !c.is_ascii_digit());
                digits.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
            }
            "uuid" | "inet6" => Some(16),
            "inet4" => Some(4),
            _ => None,
        };
        let generated = is_generated(&self.extra);
        // 1-bit booleans and ZEROFILL columns say so in the type's text as well.
        let unsigned = self.column_type.contains("unsigned");
        let uuid = column_type == ColumnType::Uuid;
        let fraction = self.fraction;
        let info = ColumnInfo { unsigned, binary_length, fraction, uuid, hidden: false };
        let column = Column {
            name: self.name,
            r#type: column_type.into(),
            unsigned,
            key: self.key,
            collation: self.collation,
            labels,
            generated,
            default_value: None,
        };
        Defined { column, info, refused, cut: false }
    }
}

/// The labels in `enum('a','b''c','d\\e')`.
fn labels(column_type: &str) -> Vec<bytes::Bytes> {
    let mut labels = Vec::new();
    let mut chars = column_type.chars().peekable();
    while chars.by_ref().any(|c| c == '\'') {
        let mut label = String::new();
        while let Some(c) = chars.next() {
            match c {
                '\'' if chars.next_if_eq(&'\'').is_none() => break,
                '\\' => match chars.next() {
                    Some('0') => label.push('\0'),
                    Some('n') => label.push('\n'),
                    Some('r') => label.push('\r'),
                    Some(other) => label.push(other),
                    None => break,
                },
                other => label.push(other),
            }
        }
        labels.push(label.into());
    }
    labels
}

#[cfg(test)]
mod tests {
    #[test]
    fn labels_may_hold_quotes_commas_and_escapes() {
        let labels = super::labels(r"enum('a','b''c','d,e','','f\\g\nh')");
        assert_eq!(labels, ["a", "b'c", "d,e", "", "f\\g\nh"]);
    }
}
