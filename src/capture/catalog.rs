//! The source's table definitions, from information_schema, checked against what the
//! binlog itself says.

use std::collections::HashMap;
use std::sync::Arc;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder};

use super::CaptureError;
use super::table_map::{TableMap, kind};
use crate::change::{Column, ColumnType, Table};

/// A replicated table as its rows are read.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// What is shipped with the rows.
    pub table: Table,
    pub(super) columns: Vec<ColumnInfo>,
}

impl TableInfo {
    /// `causeway.applied`, all of whose columns are unsigned numbers.
    pub(super) fn marker() -> Self {
        let column = ColumnInfo { unsigned: true, ..ColumnInfo::default() };
        Self { table: Table::default(), columns: vec![column; 5] }
    }
}

/// What the binlog does not say of a column.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnInfo {
    pub(super) unsigned: bool,
    /// BINARY(n) comes without its trailing zeros.
    pub(super) binary_length: Option<usize>,
    /// Fractional digits, which the old temporal types don't name.
    pub(super) fraction: u8,
}

/// Reads definitions over a connection of its own.
#[derive(Debug)]
pub(super) struct Catalog {
    opts: Opts,
    conn: Option<Conn>,
    known: HashMap<(String, String), Arc<TableInfo>>,
}

impl Catalog {
    pub(super) fn new(opts: Opts) -> Self {
        let opts = OptsBuilder::from_opts(opts).init(vec!["SET NAMES utf8mb4".to_owned()]).into();
        Self { opts, conn: None, known: HashMap::new() }
    }

    /// Definitions may have changed.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// The table that a map names.
    pub(super) async fn table(&mut self, map: &TableMap) -> Result<Arc<TableInfo>, CaptureError> {
        let name = (map.schema.clone(), map.table.clone());
        if let Some(info) = self.known.get(&name).filter(|info| fits(map, info)) {
            return Ok(Arc::clone(info));
        }
        let info = Arc::new(self.read(map).await?);
        if !fits(map, &info) {
            return Err(CaptureError::Moved(info.table.full_name().to_string()));
        }
        self.known.insert(name, Arc::clone(&info));
        Ok(info)
    }

    async fn read(&mut self, map: &TableMap) -> Result<TableInfo, CaptureError> {
        let rows = match self.ask(map).await {
            Ok(rows) => rows,
            Err(error) => {
                self.conn = None;
                return Err(CaptureError::Away(error.to_string()));
            }
        };
        let mut table = Table {
            schema: map.schema.clone(),
            name: map.table.clone(),
            columns: Vec::with_capacity(rows.len()),
        };
        let mut columns = Vec::with_capacity(rows.len());
        for row in rows {
            let (column, info) = row.column(&table.full_name().to_string())?;
            table.columns.push(column);
            columns.push(info);
        }
        Ok(TableInfo { table, columns })
    }

    async fn ask(&mut self, map: &TableMap) -> Result<Vec<Described>, mysql_async::Error> {
        let conn = match &mut self.conn {
            Some(conn) => conn,
            none => none.insert(Box::pin(Conn::new(self.opts.clone())).await?),
        };
        let rows: Vec<mysql_async::Row> = conn
            .exec(
                "SELECT c.column_name, c.data_type, c.column_type, \
                 IFNULL(c.collation_name, 'binary'), c.extra, IFNULL(k.seq_in_index, 0), \
                 IFNULL(c.datetime_precision, 0) FROM information_schema.columns c \
                 LEFT JOIN information_schema.statistics k ON k.table_schema = c.table_schema \
                 AND k.table_name = c.table_name AND k.column_name = c.column_name \
                 AND k.index_name = 'PRIMARY' \
                 WHERE c.table_schema = ? AND c.table_name = ? ORDER BY c.ordinal_position",
                (&map.schema, &map.table),
            )
            .await?;
        let text = |row: &mysql_async::Row, at: usize| {
            let bytes: Vec<u8> = row.get(at).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let described = rows.iter().map(|row| Described {
            name: text(row, 0),
            data_type: text(row, 1).to_lowercase(),
            column_type: text(row, 2),
            collation: text(row, 3),
            extra: text(row, 4).to_uppercase(),
            key: row.get(5).unwrap_or_default(),
            fraction: row.get(6).unwrap_or_default(),
        });
        Ok(described.collect())
    }
}

/// A row of information_schema.columns.
struct Described {
    name: String,
    data_type: String,
    column_type: String,
    collation: String,
    extra: String,
    key: u32,
    fraction: u8,
}

impl Described {
    fn column(self, table: &str) -> Result<(Column, ColumnInfo), CaptureError> {
        let column_type = ColumnType::of_sql(&self.data_type);
        if column_type == ColumnType::Unspecified || self.column_type.contains("COMPRESSED") {
            return Err(CaptureError::Type {
                table: table.to_owned(),
                column: self.name,
                what: self.column_type,
            });
        }
        let labels = if matches!(column_type, ColumnType::Enum | ColumnType::Set) {
            labels(&self.column_type)
        } else {
            Vec::new()
        };
        let binary_length = (self.data_type == "binary").then(|| {
            let digits = self.column_type.trim_start_matches(|c: char| !c.is_ascii_digit());
            digits.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
        });
        let generated = (self.extra.contains("GENERATED")
            && !self.extra.contains("DEFAULT_GENERATED"))
            || self.extra.contains("VIRTUAL")
            || self.extra.contains("PERSISTENT");
        // 1-bit booleans and ZEROFILL columns say so in the type's text as well.
        let unsigned = self.column_type.contains("unsigned");
        let info = ColumnInfo { unsigned, binary_length, fraction: self.fraction };
        let column = Column {
            name: self.name,
            r#type: column_type.into(),
            unsigned,
            key: self.key,
            collation: self.collation,
            labels,
            generated,
        };
        Ok((column, info))
    }
}

/// The labels in `enum('a','b''c')`.
fn labels(column_type: &str) -> Vec<bytes::Bytes> {
    let mut labels = Vec::new();
    let mut rest = column_type;
    while let Some(start) = rest.find('\'') {
        let mut label = String::new();
        let mut chars = rest[start + 1..].char_indices().peekable();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            if c == '\'' {
                if chars.next_if(|(_, next)| *next == '\'').is_none() {
                    end = start + 1 + at + 1;
                    break;
                }
                label.push('\'');
            } else {
                label.push(c);
            }
        }
        labels.push(label.into());
        rest = &rest[end..];
    }
    labels
}

/// Whether the definition can be the one that the rows were written with.
fn fits(map: &TableMap, info: &TableInfo) -> bool {
    let columns = &info.table.columns;
    if columns.len() != map.columns.len() {
        return false;
    }
    if let Some(names) = &map.names
        && !names.iter().zip(columns).all(|(name, column)| name == column.name.as_bytes())
    {
        return false;
    }
    map.columns.iter().zip(columns).all(|(written, column)| {
        let wanted = match column.r#type() {
            ColumnType::Unspecified => return false,
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
                &[kind::STRING, kind::VARCHAR, kind::VAR_STRING]
            }
            ColumnType::Text | ColumnType::Blob => &[249, 250, 251, kind::BLOB],
            ColumnType::Enum => &[kind::ENUM],
            ColumnType::Set => &[kind::SET],
            ColumnType::Json => &[kind::JSON],
            ColumnType::Geometry => &[kind::GEOMETRY],
        };
        wanted.contains(&written.kind)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn labels_may_hold_quotes_and_commas() {
        let labels = super::labels("enum('a','b''c','d,e','')");
        assert_eq!(labels, ["a", "b'c", "d,e", ""]);
    }
}
