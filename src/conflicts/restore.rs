//! Writes back what a conflict took away, as an ordinary new write.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use serde_json::{Map, Value as Json};

use super::{LogError, get};
use crate::change::is_generated;

/// What would be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Restore {
    /// `schema.table`.
    pub table: String,
    /// Which side is written back: `incoming` or `existing`.
    pub side: &'static str,
    /// The row here now; none when there is none.
    pub now: Option<Json>,
    /// The row that lost; none when a delete lost.
    pub lost: Option<Json>,
    /// The statement that writes it.
    pub sql: String,
}

/// Works out how the losing version of an entry is written back; of a row that lacks the
/// one that it references, how that one is.
///
/// # Errors
/// [`LogError::Lost`] when the entry does not hold it.
pub async fn restore(conn: &mut Conn, id: u64) -> Result<Restore, LogError> {
    let entry = get(conn, id).await?.entry;
    let Lost { table, side, row, key } = match entry["parent"].is_object() {
        true => parent(conn, id, &entry).await?,
        false => loser(id, &entry)?,
    };
    let (schema, name) = table.split_once('.').ok_or(LogError::Lost(id, NO_TABLE))?;
    let quoted = format!("{}.{}", identifier(schema), identifier(name));
    let columns: Vec<(String, String)> = conn
        .exec(
            "SELECT CAST(column_name AS CHAR), CAST(extra AS CHAR) FROM information_schema.columns \
             WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position",
            (schema, name),
        )
        .await?;
    let known = row.as_ref().unwrap_or(&key);
    let written: Vec<&String> = columns
        .iter()
        .filter(|(name, extra)| known.contains_key(name) && !is_generated(extra))
        .map(|(name, _)| name)
        .collect();
    let condition: Vec<String> = key
        .iter()
        .map(|(name, value)| format!("{} = {}", identifier(name), literal(value)))
        .collect();
    let condition = condition.join(" AND ");
    let now = current(conn, &quoted, &columns, &condition).await?;
    let value = |name: &String| literal(known.get(name).unwrap_or(&Json::Null));
    let sql = match (&row, &now) {
        (None, _) => format!("DELETE FROM {quoted} WHERE {condition}"),
        (Some(_), None) => {
            let names: Vec<_> = written.iter().map(|name| identifier(name)).collect();
            let values: Vec<_> = written.iter().map(|name| value(name)).collect();
            format!("INSERT INTO {quoted} ({}) VALUES ({})", names.join(", "), values.join(", "))
        }
        (Some(_), Some(_)) => {
            let sets = written.iter().filter(|name| !key.contains_key(**name));
            let sets: Vec<_> =
                sets.map(|name| format!("{} = {}", identifier(name), value(name))).collect();
            format!("UPDATE {quoted} SET {} WHERE {condition}", sets.join(", "))
        }
    };
    let lost = row.map(Json::Object);
    Ok(Restore { table, side, now, lost, sql })
}

const NO_TABLE: &str = "it names no table";

/// What an entry says to write back.
struct Lost {
    table: String,
    side: &'static str,
    /// None when a delete lost.
    row: Option<Map<String, Json>>,
    /// The primary key of the row.
    key: Map<String, Json>,
}

/// The version that lost.
fn loser(id: u64, entry: &Json) -> Result<Lost, LogError> {
    let side = match entry["winner"].as_str() {
        Some("incoming") => "existing",
        Some("existing") => "incoming",
        _ => return Err(LogError::Lost(id, "nothing was lost")),
    };
    let lost = &entry[side];
    let (row, known) = match (lost["action"].as_str(), &lost["after"], &lost["before"]) {
        (Some("delete"), _, Json::Object(before)) => (None, before),
        (_, Json::Object(after), _) => (Some(after.clone()), after),
        _ => return Err(LogError::Lost(id, "its row was not kept")),
    };
    let (Some(table), Json::Object(key)) = (entry["table"].as_str(), &entry["key"]) else {
        return Err(LogError::Lost(id, "it names no row"));
    };
    // Under a unique value the two rows have different keys.
    let key =
        key.keys().filter_map(|name| Some((name.clone(), known.get(name)?.clone()))).collect();
    Ok(Lost { table: table.to_owned(), side, row, key })
}

/// The parent of a row that lacks it, as it was.
async fn parent(conn: &mut Conn, id: u64, entry: &Json) -> Result<Lost, LogError> {
    let side = if entry["parent"]["side"] == "incoming" { "incoming" } else { "existing" };
    let Json::Object(row) = &entry[side]["before"] else {
        let why = "the parent's row was not kept here; the log of the region that wrote the \
            child has it, or delete the child";
        return Err(LogError::Lost(id, why));
    };
    let table = entry["parent"]["table"].as_str().ok_or(LogError::Lost(id, NO_TABLE))?;
    let (schema, name) = table.split_once('.').ok_or(LogError::Lost(id, NO_TABLE))?;
    let key: Vec<String> = conn
        .exec(
            "SELECT CAST(column_name AS CHAR) FROM information_schema.statistics \
             WHERE table_schema = ? AND table_name = ? AND index_name = 'PRIMARY'",
            (schema, name),
        )
        .await?;
    let key = key.into_iter().filter_map(|name| row.get(&name).cloned().map(|held| (name, held)));
    let key: Map<String, Json> = key.collect();
    if key.is_empty() {
        return Err(LogError::Lost(id, "its table is not here"));
    }
    Ok(Lost { table: table.to_owned(), side, row: Some(row.clone()), key })
}

/// The row here, its values as the server prints them.
async fn current(
    conn: &mut Conn,
    quoted: &str,
    columns: &[(String, String)],
    condition: &str,
) -> Result<Option<Json>, LogError> {
    let names: Vec<_> = columns.iter().map(|(name, _)| identifier(name)).collect();
    let sql = format!("SELECT {} FROM {quoted} WHERE {condition}", names.join(", "));
    let Some(row): Option<mysql_async::Row> = conn.query_first(sql).await? else { return Ok(None) };
    let values = columns.iter().enumerate().map(|(n, (name, _))| {
        let bytes = row.get_opt::<Option<Vec<u8>>, _>(n).and_then(Result::ok).flatten();
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (name.clone(), text.map_or(Json::Null, Json::String))
    });
    Ok(Some(Json::Object(values.collect())))
}

fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn literal(value: &Json) -> String {
    match value {
        Json::Null => "NULL".to_owned(),
        Json::Bool(held) => u8::from(*held).to_string(),
        Json::Number(number) => number.to_string(),
        Json::String(text) => {
            format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\0', "\\0"))
        }
        Json::Object(bytes) => match bytes.get("hex").and_then(Json::as_str) {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => format!("X'{digits}'"),
            _ => "NULL".to_owned(),
        },
        Json::Array(_) => "NULL".to_owned(),
    }
}
