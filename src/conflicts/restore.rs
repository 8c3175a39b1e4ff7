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
    /// Which side lost: `incoming` or `existing`.
    pub side: &'static str,
    /// The row here now; none when there is none.
    pub now: Option<Json>,
    /// The row that lost; none when a delete lost.
    pub lost: Option<Json>,
    /// The statement that writes it.
    pub sql: String,
}

/// Works out how the losing version of an entry is written back.
///
/// # Errors
/// [`LogError::Lost`] when the entry does not hold it.
pub async fn restore(conn: &mut Conn, id: u64) -> Result<Restore, LogError> {
    let entry = get(conn, id).await?.entry;
    let side = match entry["winner"].as_str() {
        Some("incoming") => "existing",
        Some("existing") => "incoming",
        _ => return Err(LogError::Lost(id, "nothing was lost")),
    };
    let lost = &entry[side];
    let row = match (lost["action"].as_str(), &lost["after"], &lost["before"]) {
        (Some("delete"), _, Json::Object(before)) => (None, before.clone()),
        (_, Json::Object(after), _) => (Some(after.clone()), after.clone()),
        _ => return Err(LogError::Lost(id, "its row was not kept")),
    };
    let (Some(table), Json::Object(key)) = (entry["table"].as_str(), &entry["key"]) else {
        return Err(LogError::Lost(id, "it names no row"));
    };
    // Under a unique value the two rows have different keys.
    let key: Map<String, Json> =
        key.keys().filter_map(|name| Some((name.clone(), row.1.get(name)?.clone()))).collect();
    let (schema, name) = table.split_once('.').ok_or(LogError::Lost(id, "it names no table"))?;
    let quoted = format!("{}.{}", identifier(schema), identifier(name));
    let columns: Vec<(String, String)> = conn
        .exec(
            "SELECT CAST(column_name AS CHAR), CAST(extra AS CHAR) FROM information_schema.columns \
             WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position",
            (schema, name),
        )
        .await?;
    let written: Vec<&String> = columns
        .iter()
        .filter(|(name, extra)| row.1.contains_key(name) && !is_generated(extra))
        .map(|(name, _)| name)
        .collect();
    let condition: Vec<String> = key
        .iter()
        .map(|(name, value)| format!("{} = {}", identifier(name), literal(value)))
        .collect();
    let condition = condition.join(" AND ");
    let now = current(conn, &quoted, &columns, &condition).await?;
    let value = |name: &String| literal(row.1.get(name).unwrap_or(&Json::Null));
    let sql = match (&row.0, &now) {
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
    let lost = row.0.map(Json::Object);
    Ok(Restore { table: table.to_owned(), side, now, lost, sql })
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
