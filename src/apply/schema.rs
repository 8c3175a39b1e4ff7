//! How a table looks here, and how an origin's columns map onto it.

use std::sync::Arc;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use super::ApplyError;
use super::bootstrap::Flavor;
use crate::change::{Column, ColumnType, Row, Table, Value, is_generated};
use crate::resolve::TablePlan;

/// How a value of a column is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Numbers bare, all else quoted, as its bytes are.
    Plain,
    /// A decimal, bare.
    Number,
    /// With the character set its bytes are in, so that the server converts.
    Charset(String),
}

/// One written column.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its place in the origin's rows.
    pub(super) at: usize,
    /// Quoted.
    pub(super) name: String,
    /// For assignments.
    pub(super) form: Form,
    /// For comparisons, where the column's collation must decide.
    pub(super) key_form: Form,
    /// The width of BINARY.
    pub(super) zero_filled: Option<usize>,
}

/// A column that is not here: its values may be left out as long as they are what
/// the column will hold once it is made.
#[derive(Clone, Debug)]
pub(super) struct Absent {
    at: usize,
    name: String,
    default: Value,
}

/// An origin's table mapped onto the one here.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    /// The origin's shape that it was made for.
    pub(super) origin: Table,
    /// Quoted full name.
    pub(super) name: String,
    /// For people.
    pub(super) full: Arc<str>,
    /// Columns to write.
    pub(super) columns: Vec<Target>,
    /// Places in `columns` of the primary key.
    pub(super) key: Vec<usize>,
    /// There are unique keys beside the primary key.
    pub(super) unique: bool,
    /// Columns of the origin that are not here, and have a default there.
    absent: Vec<Absent>,
    /// Quoted: columns here that the origin does not have, and that are not generated.
    /// They hold their default in every row that it writes.
    pub(super) own: Vec<String>,
    /// Quoted: columns here that the server itself sets when another of the row changes
    /// (`ON UPDATE CURRENT_TIMESTAMP`), unless the statement says what they hold.
    pub(super) renewed: Vec<String>,
}

impl Mapping {
    /// Nothing of these rows gets lost here.
    pub(super) fn takes(&self, plan: &TablePlan) -> Result<(), ApplyError> {
        let lost = |absent: &&Absent| {
            let differs = |row: &Row| row.values.get(absent.at) != Some(&absent.default);
            plan.puts.iter().any(differs)
                || plan.merges.iter().any(|merge| {
                    merge.add.iter().any(|(at, _)| *at == absent.at)
                        || merge.set.contains(&absent.at) && differs(&merge.row)
                })
        };
        match self.absent.iter().find(lost) {
            None => Ok(()),
            Some(absent) => Err(ApplyError::MissingColumn {
                table: self.full.to_string(),
                column: absent.name.clone(),
            }),
        }
    }

    /// The origin has no column that is not here.
    pub(super) fn is_whole(&self) -> bool {
        self.absent.is_empty()
    }
}

#[cfg(test)]
impl Mapping {
    /// Of a table that is here as it is there.
    pub(super) fn same(origin: &Table, unique: bool) -> Self {
        let target = |(at, column): (usize, &crate::change::Column)| Target {
            at,
            name: quote(&column.name),
            form: Form::Plain,
            key_form: Form::Plain,
            zero_filled: None,
        };
        Self {
            name: quote(&origin.name),
            full: origin.name.as_str().into(),
            columns: origin.columns.iter().enumerate().map(target).collect(),
            key: origin.key_columns(),
            unique,
            absent: Vec::new(),
            own: Vec::new(),
            renewed: Vec::new(),
            origin: origin.clone(),
        }
    }
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The character set of a collation: the part of its name before the first `_`.
/// `None` for what is no such name: it comes from outside.
fn charset(collation: &str) -> Option<&str> {
    let charset = match collation.split('_').next().unwrap_or_default() {
        // MariaDB and MySQL print the old name for both.
        "utf8" => "utf8mb3",
        other => other,
    };
    charset.bytes().all(|b| b.is_ascii_alphanumeric()).then_some(charset)
}

/// The introducer of a character set: MySQL before 8 knows utf8mb3 as utf8 only.
fn introducer(flavor: Flavor, charset: &str) -> Form {
    let old = matches!(flavor, Flavor::MySql(..8, ..));
    Form::Charset(if old && charset == "utf8mb3" { "utf8" } else { charset }.to_owned())
}

struct Here {
    name: String,
    charset: Option<String>,
    column_type: Vec<u8>,
    data_type: String,
    width: Option<u64>,
    generated: bool,
    /// AUTO_INCREMENT.
    counts: bool,
    /// ON UPDATE CURRENT_TIMESTAMP.
    renewed: bool,
    key: bool,
}

async fn columns(conn: &mut Conn, table: &Table) -> Result<Vec<Here>, mysql_async::Error> {
    type Row = (String, Option<String>, Vec<u8>, String, String, String, Option<u64>);
    let rows: Vec<Row> = conn
        .exec(
            "SELECT CONVERT(column_name USING utf8), CONVERT(character_set_name USING utf8), \
             column_type, CONVERT(data_type USING utf8), CONVERT(extra USING utf8), \
             CONVERT(column_key USING utf8), character_octet_length \
             FROM information_schema.columns \
             WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position",
            (&table.schema, &table.name),
        )
        .await?;
    let here = rows.into_iter().map(|row| {
        let (name, charset, column_type, data_type, extra, key, width) = row;
        let extra = extra.to_ascii_lowercase();
        Here {
            name,
            charset,
            column_type,
            data_type: data_type.to_ascii_lowercase(),
            width,
            generated: is_generated(&extra),
            counts: extra.contains("auto_increment"),
            renewed: extra.contains("on update"),
            key: key == "PRI",
        }
    });
    Ok(here.collect())
}

/// Maps an origin's table by the names of its columns.
pub(super) async fn map(
    conn: &mut Conn,
    flavor: Flavor,
    table: &Table,
) -> Result<Mapping, ApplyError> {
    let full = table.full_name().to_string();
    let failed = |error: mysql_async::Error| ApplyError::from_driver(&error, &full);
    let here = columns(conn, table).await.map_err(failed)?;
    if here.is_empty() {
        return Err(ApplyError::MissingTable(full));
    }
    let (unique, cut): (u64, u64) = conn
        .exec_first(
            "SELECT COUNT(IF(index_name <> 'PRIMARY', 1, NULL)), \
             COUNT(IF(index_name = 'PRIMARY', sub_part, NULL)) \
             FROM information_schema.statistics WHERE table_schema = ? \
             AND table_name = ? AND non_unique = 0",
            (&table.schema, &table.name),
        )
        .await
        .map_err(failed)?
        .unwrap_or_default();
    if cut > 0 {
        return Err(ApplyError::CutKey(full));
    }
    let (mut mapped, mut absent) = (Vec::new(), Vec::new());
    for (at, column) in table.columns.iter().enumerate() {
        let Some(target) = here.iter().find(|h| h.name.eq_ignore_ascii_case(&column.name)) else {
            if column.generated {
                continue;
            }
            let name = column.name.clone();
            let Some(default) = column.default_value.clone().filter(|_| column.key == 0) else {
                return Err(ApplyError::MissingColumn { table: full, column: name });
            };
            absent.push(Absent { at, name, default });
            continue;
        };
        if target.generated {
            continue;
        }
        if !holds(column.r#type(), &target.data_type) {
            return Err(differs(&full, "type", column));
        }
        check_labels(conn, &full, column, target).await?;
        mapped.push(written(flavor, &full, at, column, target)?);
    }
    let key = keys(&full, table, &mapped, &here)?;
    let named = |h: &Here| table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(&h.name));
    let own = here.iter().filter(|h| !h.generated && !h.counts && !named(h));
    let renewed = here.iter().filter(|h| h.renewed);
    Ok(Mapping {
        origin: table.clone(),
        name: format!("{}.{}", quote(&table.schema), quote(&table.name)),
        full: full.into(),
        key,
        columns: mapped,
        unique: unique > 0,
        absent,
        own: own.map(|h| quote(&h.name)).collect(),
        renewed: renewed.map(|h| quote(&h.name)).collect(),
    })
}

fn differs(full: &str, what: &str, column: &Column) -> ApplyError {
    let what = format!("the {what} of column {}", column.name);
    ApplyError::Differs { table: full.to_owned(), what }
}

/// How a column of the origin is written into the one here.
fn written(
    flavor: Flavor,
    full: &str,
    at: usize,
    column: &Column,
    target: &Here,
) -> Result<Target, ApplyError> {
    let source =
        charset(&column.collation).ok_or_else(|| differs(full, "character set", column))?;
    let text = matches!(column.r#type(), ColumnType::Char | ColumnType::Text)
        && source != "binary"
        && !source.is_empty();
    let introduced = introducer(flavor, source);
    let here = target.charset.as_deref().and_then(charset);
    let (form, key_form) = match (column.r#type(), text) {
        (ColumnType::Json, _) => (Form::Charset("utf8mb4".to_owned()), Form::Plain),
        (ColumnType::Decimal, _) => (Form::Number, Form::Number),
        (_, true) if here != Some(source) => (introduced.clone(), introduced),
        (_, true) => (Form::Plain, introduced),
        (_, false) => (Form::Plain, Form::Plain),
    };
    let zero_filled = (target.data_type == "binary").then_some(target.width).flatten();
    let zero_filled = zero_filled.and_then(|width| usize::try_from(width).ok());
    Ok(Target { at, name: quote(&target.name), form, key_form, zero_filled })
}

/// Whether a column here is of a kind that keeps the origin's values as they are.
/// What does not fit in its range is refused by the server, in strict mode.
fn holds(origin: ColumnType, here: &str) -> bool {
    let text = matches!(
        here,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "json"
    );
    match origin {
        ColumnType::Unspecified => false,
        ColumnType::Tinyint
        | ColumnType::Smallint
        | ColumnType::Mediumint
        | ColumnType::Int
        | ColumnType::Bigint => {
            matches!(here, "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
        }
        ColumnType::Decimal => here == "decimal",
        ColumnType::Float => matches!(here, "float" | "double"),
        ColumnType::Double => here == "double",
        ColumnType::Bit => here == "bit",
        ColumnType::Year => here == "year",
        ColumnType::Date => here == "date",
        ColumnType::Time => here == "time",
        ColumnType::Datetime => here == "datetime",
        ColumnType::Timestamp => here == "timestamp",
        ColumnType::Char | ColumnType::Text | ColumnType::Json => text,
        // MariaDB's inet types travel as the bytes they are stored in.
        ColumnType::Binary | ColumnType::Blob => matches!(
            here,
            "binary"
                | "varbinary"
                | "tinyblob"
                | "blob"
                | "mediumblob"
                | "longblob"
                | "inet4"
                | "inet6"
        ),
        // No binary column: an event alone has a UUID as such bytes, in another order.
        ColumnType::Uuid => here == "uuid",
        ColumnType::Enum => here == "enum",
        ColumnType::Set => here == "set",
        ColumnType::Geometry => matches!(
            here,
            "geometry"
                | "point"
                | "linestring"
                | "polygon"
                | "multipoint"
                | "multilinestring"
                | "multipolygon"
                | "geometrycollection"
                | "geomcollection"
        ),
    }
}

/// The primary key must be made of the same columns on both sides.
fn keys(
    full: &str,
    table: &Table,
    mapped: &[Target],
    here: &[Here],
) -> Result<Vec<usize>, ApplyError> {
    let differs =
        || ApplyError::Differs { table: full.to_owned(), what: "the primary key".to_owned() };
    let key_columns = table.key_columns();
    let mut key = Vec::new();
    for at in &key_columns {
        let place = mapped.iter().position(|target| target.at == *at).ok_or_else(differs)?;
        key.push(place);
    }
    let count = here.iter().filter(|h| h.key).count();
    let all = here.iter().filter(|h| h.key).all(|h| {
        key_columns.iter().any(|&at| table.columns[at].name.eq_ignore_ascii_case(&h.name))
    });
    if key.is_empty() || count != key.len() || !all { Err(differs()) } else { Ok(key) }
}

/// ENUM and SET travel as numbers, so the origin's labels must be here, in the same
/// order; more may follow. The dictionary prints labels in UTF-8, the origin's are in
/// the column's character set: the server converts those.
async fn check_labels(
    conn: &mut Conn,
    full: &str,
    column: &Column,
    target: &Here,
) -> Result<(), ApplyError> {
    if column.labels.is_empty() {
        return Ok(());
    }
    let failed = |error: mysql_async::Error| ApplyError::from_driver(&error, full);
    let charset = charset(&column.collation).filter(|set| !set.is_empty()).unwrap_or("binary");
    let mut wanted = Vec::new();
    for label in &column.labels {
        if !wanted.is_empty() {
            wanted.push(b',');
        }
        wanted.push(b'\'');
        let converted: Option<Vec<u8>> = if label.is_ascii() || charset.starts_with("utf8") {
            Some(label.to_vec())
        } else {
            let hex: String = label.iter().map(|byte| format!("{byte:02x}")).collect();
            let text = format!("SELECT CONVERT(_{charset} 0x{hex} USING utf8mb4)");
            conn.query_first(text).await.map_err(failed)?
        };
        for byte in converted.unwrap_or_default() {
            // As the dictionary prints them.
            match byte {
                b'\'' => wanted.extend_from_slice(b"''"),
                b'\\' => wanted.extend_from_slice(b"\\\\"),
                b'\n' => wanted.extend_from_slice(b"\\n"),
                b'\r' => wanted.extend_from_slice(b"\\r"),
                0 => wanted.extend_from_slice(b"\\0"),
                _ => wanted.push(byte),
            }
        }
        wanted.push(b'\'');
    }
    let here = target.column_type.split(|&b| b == b'(').skip(1).collect::<Vec<_>>().join(&b'(');
    let same = here.starts_with(&wanted) && matches!(here.get(wanted.len()), Some(b',' | b')'));
    if same { Ok(()) } else { Err(differs(full, "list of labels", column)) }
}
