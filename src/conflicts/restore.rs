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
        .filter(|(name, extra)| column(known, name).is_some() && !is_generated(extra))
        .map(|(name, _)| name)
        .collect();
    let condition: Vec<String> = key
        .iter()
        .map(|(name, value)| format!("{} = {}", identifier(name), literal(value)))
        .collect();
    let condition = condition.join(" AND ");
    let now = current(conn, &quoted, &columns, &condition).await?;
    let value = |name: &String| literal(column(known, name).map_or(&Json::Null, |(_, v)| v));
    let sql = match (&row, &now) {
        (None, _) => format!("DELETE FROM {quoted} WHERE {condition}"),
        (Some(_), None) => {
            let names: Vec<_> = written.iter().map(|name| identifier(name)).collect();
            let values: Vec<_> = written.iter().map(|name| value(name)).collect();
            format!("INSERT INTO {quoted} ({}) VALUES ({})", names.join(", "), values.join(", "))
        }
        (Some(_), Some(_)) => {
            let sets = written.iter().filter(|name| column(&key, name).is_none());
            let sets: Vec<_> =
                sets.map(|name| format!("{} = {}", identifier(name), value(name))).collect();
            format!("UPDATE {quoted} SET {} WHERE {condition}", sets.join(", "))
        }
    };
    let lost = row.map(Json::Object);
    Ok(Restore { table, side, now, lost, sql })
}

const NO_TABLE: &str = "it names no table";
const NO_ROW: &str = "its row was not kept";

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
        _ => return Err(LogError::Lost(id, NO_ROW)),
    };
    let (Some(table), Json::Object(key)) = (entry["table"].as_str(), &entry["key"]) else {
        return Err(LogError::Lost(id, "it names no row"));
    };
    // Under a unique value the two rows have different keys.
    let key = held(known, key.keys()).ok_or(LogError::Lost(id, NO_ROW))?;
    Ok(Lost { table: table.to_owned(), side, row, key })
}

/// A row's column with its value; regions may spell its name differently.
fn column<'a>(row: &'a Map<String, Json>, name: &str) -> Option<(&'a String, &'a Json)> {
    row.iter().find(|(held, _)| held.eq_ignore_ascii_case(name))
}

/// A row's values in these columns; none unless it has them all: less than the whole key
/// would name other rows too. An entry too long to be written has none.
fn held<'a>(
    row: &Map<String, Json>,
    mut names: impl Iterator<Item = &'a String>,
) -> Option<Map<String, Json>> {
    let values = names.try_fold(Map::new(), |mut values, name| {
        let (held, value) = column(row, name)?;
        values.insert(held.clone(), value.clone());
        Some(values)
    });
    values.filter(|values| !values.is_empty())
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
    if key.is_empty() {
        return Err(LogError::Lost(id, "its table is not here"));
    }
    let key = held(row, key.iter()).ok_or(LogError::Lost(id, NO_ROW))?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_is_named_by_its_whole_key() {
        let names = ["part".to_owned(), "id".to_owned()];
        let key = |row: Json| row.as_object().and_then(|row| held(row, names.iter()));
        let whole = key(json!({"ID": 1, "part": 7, "v": 2})).map(Json::Object);
        assert_eq!(whole, Some(json!({"ID": 1, "part": 7})));
        assert_eq!(key(json!({"part": 7, "v": 2})), None);
        assert_eq!(key(json!({"omitted_bytes": 5_008})), None);
        assert_eq!(held(&Map::new(), [].iter()), None);
    }

    #[test]
    fn a_shortened_entry_says_that_its_row_was_not_kept() {
        let entry = json!({
            "winner": "incoming", "table": "s.t", "key": {"id": 1},
            "existing": {"action": "update", "after": {"omitted_bytes": 5_008}},
        });
        let error = loser(3, &entry).err().expect("there is nothing to write back");
        assert!(error.to_string().contains(NO_ROW), "{error}");
    }
}
