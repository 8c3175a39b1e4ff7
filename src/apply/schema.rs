//! How a table looks here, and how an origin's columns map onto it.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use super::ApplyError;
use crate::change::{ColumnType, Table};

/// How a value of a column is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As its bytes are.
    Plain,
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
}

/// An origin's table mapped onto the one here.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    /// The origin's shape that it was made for.
    pub(super) origin: Table,
    /// Quoted full name.
    pub(super) name: String,
    /// Columns to write.
    pub(super) columns: Vec<Target>,
    /// Places in `columns` of the primary key.
    pub(super) key: Vec<usize>,
    /// There are unique keys beside the primary key.
    pub(super) unique: bool,
    /// Columns here that the origin does not have, and that are not generated.
    pub(super) own_columns: bool,
}

pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The character set of a collation: the part of its name before the first `_`.
fn charset(collation: &str) -> &str {
    match collation.split('_').next().unwrap_or_default() {
        // MariaDB prints the old name for both.
        "utf8" => "utf8mb3",
        other => other,
    }
}

struct Here {
    name: String,
    charset: Option<String>,
    column_type: String,
    data_type: String,
    generated: bool,
    key: bool,
}

async fn columns(conn: &mut Conn, table: &Table) -> Result<Vec<Here>, mysql_async::Error> {
    type Row = (String, Option<String>, Vec<u8>, String, String, String);
    let rows: Vec<Row> = conn
        .exec(
            "SELECT CONVERT(column_name USING utf8), CONVERT(character_set_name USING utf8), \
             column_type, CONVERT(data_type USING utf8), CONVERT(extra USING utf8), \
             CONVERT(column_key USING utf8) FROM information_schema.columns \
             WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position",
            (&table.schema, &table.name),
        )
        .await?;
    let here = rows.into_iter().map(|(name, charset, column_type, data_type, extra, key)| Here {
        name,
        charset,
        column_type: String::from_utf8_lossy(&column_type).into_owned(),
        data_type,
        generated: extra.contains("GENERATED") && !extra.contains("DEFAULT_GENERATED")
            || extra.contains("VIRTUAL")
            || extra.contains("PERSISTENT"),
        key: key == "PRI",
    });
    Ok(here.collect())
}

/// Maps an origin's table by the names of its columns.
pub(super) async fn map(conn: &mut Conn, table: &Table) -> Result<Mapping, ApplyError> {
    let full = table.full_name().to_string();
    let failed = |error: mysql_async::Error| ApplyError::from_driver(&error, &full);
    let here = columns(conn, table).await.map_err(failed)?;
    if here.is_empty() {
        return Err(ApplyError::MissingTable(full));
    }
    let unique: Option<u64> = conn
        .exec_first(
            "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = ? \
             AND table_name = ? AND non_unique = 0 AND index_name <> 'PRIMARY'",
            (&table.schema, &table.name),
        )
        .await
        .map_err(failed)?;
    let mut mapped = Vec::new();
    for (at, column) in table.columns.iter().enumerate() {
        let Some(target) = here.iter().find(|h| h.name.eq_ignore_ascii_case(&column.name)) else {
            if column.generated {
                continue;
            }
            let column = column.name.clone();
            return Err(ApplyError::MissingColumn { table: full, column });
        };
        if target.generated {
            continue;
        }
        check_labels(&full, column, target)?;
        let source = charset(&column.collation);
        let text = matches!(column.r#type(), ColumnType::Char | ColumnType::Text)
            && source != "binary"
            && !source.is_empty();
        let introduced = Form::Charset(source.to_owned());
        let differs = target.charset.as_deref().map(charset) != Some(source);
        let (form, key_form) = match (column.r#type(), text) {
            (ColumnType::Json, _) => (Form::Charset("utf8mb4".to_owned()), Form::Plain),
            (_, true) if differs || target.data_type == "json" => (introduced.clone(), introduced),
            (_, true) => (Form::Plain, introduced),
            (_, false) => (Form::Plain, Form::Plain),
        };
        mapped.push(Target { at, name: quote(&target.name), form, key_form });
    }
    let key = keys(&full, table, &mapped, &here)?;
    let named = |h: &Here| table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(&h.name));
    Ok(Mapping {
        origin: table.clone(),
        name: format!("{}.{}", quote(&table.schema), quote(&table.name)),
        key,
        columns: mapped,
        unique: unique.unwrap_or(0) > 0,
        own_columns: here.iter().any(|h| !h.generated && !named(h)),
    })
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

/// ENUM and SET travel as numbers, so their labels must be the same.
fn check_labels(
    full: &str,
    column: &crate::change::Column,
    target: &Here,
) -> Result<(), ApplyError> {
    if column.labels.is_empty() {
        return Ok(());
    }
    let labels: Vec<_> = column
        .labels
        .iter()
        .map(|label| format!("'{}'", String::from_utf8_lossy(label).replace('\'', "''")))
        .collect();
    let wanted = format!("({})", labels.join(","));
    let ascii = column.labels.iter().all(|label| label.is_ascii());
    if ascii && !target.column_type.ends_with(&wanted) {
        let what = format!("the list of labels of column {}", column.name);
        return Err(ApplyError::Differs { table: full.to_owned(), what });
    }
    Ok(())
}
