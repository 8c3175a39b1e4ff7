//! Writes back what a conflict took away, as an ordinary new write.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use serde_json::{Map, Value as Json};

use super::{Entry, LogError};
use crate::change::is_generated;
use crate::resolve::utf8;
use crate::topology::{Policy, TableRule, Topology};

/// What would be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Restore {
    /// `schema.table`.
    pub table: String,
    /// Which side is written back: `incoming`, `existing`, or `both` where each has lost
    /// columns to the other.
    pub side: &'static str,
    /// The row here now; none when there is none.
    pub now: Option<Json>,
    /// The row as it will be: the one that lost, or the row here with the columns that were
    /// lost; none when a delete lost.
    pub then: Option<Json>,
    /// The statement that writes it; none where the row is so already.
    pub sql: Option<String>,
}

/// What became of a [`Restore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The row was written.
    Written,
    /// Nothing was written: the row is not what was shown.
    Changed,
}

/// Works out how the losing version of an entry is written back; of a row that lacks the
/// one that it references, how that one is.
///
/// # Errors
/// [`LogError::NotKept`] when the entry does not hold it, [`LogError::Lost`] when its
/// table's policy takes no such write.
pub async fn restore(
    conn: &mut Conn,
    entry: &Entry,
    topology: &Topology,
) -> Result<Restore, LogError> {
    plan(conn, entry, topology, "").await
}

/// Writes what was shown, unless the row has changed since.
///
/// # Errors
/// [`LogError`]; nothing was written then, unless the commit itself got no answer.
pub async fn write(
    conn: &mut Conn,
    entry: &Entry,
    topology: &Topology,
    shown: &Restore,
) -> Result<Restored, LogError> {
    conn.query_drop("START TRANSACTION").await?;
    // Dropped with an error, the connection takes the transaction back.
    if plan(conn, entry, topology, " FOR UPDATE").await? != *shown {
        conn.query_drop("ROLLBACK").await?;
        return Ok(Restored::Changed);
    }
    if let Some(sql) = &shown.sql {
        conn.query_drop(sql).await?;
    }
    conn.query_drop("COMMIT").await?;
    Ok(Restored::Written)
}

async fn plan(
    conn: &mut Conn,
    Entry { id, entry, .. }: &Entry,
    topology: &Topology,
    lock: &str,
) -> Result<Restore, LogError> {
    let id = *id;
    let Lost { table, side, row, key } = match entry["parent"].is_object() {
        true => parent(conn, id, entry).await?,
        false => loser(id, entry)?,
    };
    let (schema, name) = table.split_once('.').ok_or(LogError::Lost(id, NO_TABLE))?;
    let rule = topology.rule(schema, name);
    let quoted = format!("{}.{}", identifier(schema), identifier(name));
    let columns: Vec<(String, String)> = conn
        .exec(
            "SELECT CAST(column_name AS CHAR), CAST(extra AS CHAR) FROM information_schema.columns \
             WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position",
            (schema, name),
        )
        .await?;
    let condition = pairs(&key.iter().collect::<Vec<_>>());
    let condition = condition.join(" AND ");
    let now = current(conn, &quoted, &columns, &format!("{condition}{lock}")).await?;
    let known = row.as_ref().unwrap_or(&key);
    let written: Vec<(&String, &Json)> = columns
        .iter()
        .filter(|(_, extra)| !is_generated(extra))
        .filter_map(|(name, _)| Some((name, column(known, name)?.1)))
        .collect();
    let mut then = row.clone();
    let sql = match (&row, &now) {
        (None, None) => None,
        (None, Some(_)) => Some(format!("DELETE FROM {quoted} WHERE {condition}")),
        (Some(_), None) => {
            let names: Vec<_> = written.iter().map(|(name, _)| identifier(name)).collect();
            let values: Vec<_> = written.iter().map(|(_, value)| literal(value)).collect();
            let (names, values) = (names.join(", "), values.join(", "));
            Some(format!("INSERT INTO {quoted} ({names}) VALUES ({values})"))
        }
        // The parent is back already, whoever put it there.
        (Some(_), Some(now)) if entry["parent"].is_object() => {
            then = now.as_object().cloned();
            None
        }
        (Some(_), Some(now)) => {
            let sets: Vec<_> = written
                .into_iter()
                .filter(|(name, _)| column(&key, name).is_none() && lost(rule, entry, name))
                .collect();
            let set = sets.iter().map(|&(name, value)| (name.clone(), value.clone()));
            then = now.as_object().map(|now| now.clone().into_iter().chain(set).collect());
            let sets = pairs(&sets);
            (!sets.is_empty())
                .then(|| format!("UPDATE {quoted} SET {} WHERE {condition}", sets.join(", ")))
        }
    };
    let inserts = now.is_none() && row.is_some();
    if rule.is_some_and(|rule| rule.policy == Policy::InsertOnly) && sql.is_some() && !inserts {
        return Err(LogError::Lost(id, INSERT_ONLY));
    }
    Ok(Restore { table, side, now, then: then.map(Json::Object), sql })
}

/// `name = value` of each.
fn pairs(columns: &[(&String, &Json)]) -> Vec<String> {
    let pair =
        |&(name, value): &(&String, &Json)| format!("{} = {}", identifier(name), literal(value));
    columns.iter().map(pair).collect()
}

const INSERT_ONLY: &str = "its table's policy is `insert_only`, and its row is there: every \
    peer stops at an update or delete of it; insert the row under another key";
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
        // A row that was missing has no other side.
        Some("incoming") if !entry["existing"].is_null() => "existing",
        Some("existing") => "incoming",
        Some("both") if entry["columns"].is_object() => "both",
        _ => return Err(LogError::Lost(id, "nothing was lost")),
    };
    let lost = &entry[if side == "both" { "incoming" } else { side }];
    let (row, known) = match (lost["action"].as_str(), &lost["after"], &lost["before"]) {
        (Some("delete"), _, Json::Object(before)) => (None, before),
        (_, Json::Object(after), _) if side == "both" => {
            (Some(exchanged(entry, after).ok_or(LogError::NotKept(id, NO_ROW))?), after)
        }
        (_, Json::Object(after), _) => (Some(after.clone()), after),
        _ => return Err(LogError::NotKept(id, NO_ROW)),
    };
    let (Some(table), Json::Object(key)) = (entry["table"].as_str(), &entry["key"]) else {
        return Err(LogError::Lost(id, "it names no row"));
    };
    // Under a unique value the two rows have different keys.
    let key = held(known, key.keys()).ok_or(LogError::NotKept(id, NO_ROW))?;
    Ok(Lost { table: table.to_owned(), side, row, key })
}

/// Where each write has lost columns to the other: the row that came, with the columns that
/// it took from the one that was here.
fn exchanged(entry: &Json, came: &Map<String, Json>) -> Option<Map<String, Json>> {
    let here = entry["existing"]["after"].as_object()?;
    let mut row = came.clone();
    for name in entry["columns"]["incoming"].as_array()? {
        let name = name.as_str()?;
        let (held, _) = column(came, name)?;
        row.insert(held.clone(), column(here, name)?.1.clone());
    }
    Some(row)
}

/// Whether a column lost, of a row that stands: each does, but where columns are resolved
/// apart only those that the entry names. A sum holds the loser's share already. A repair
/// is no conflict: what it changed was written over.
fn lost(rule: Option<&TableRule>, entry: &Json, name: &str) -> bool {
    if let Json::Object(columns) = &entry["columns"] {
        let mut names = columns.values().filter_map(Json::as_array).flatten();
        return names.any(|held| held.as_str().is_some_and(|held| held.eq_ignore_ascii_case(name)));
    }
    entry["kind"] == "repair" || !rule.is_some_and(|rule| rule.adds_up(name))
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
        return Err(LogError::NotKept(id, why));
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
    let key = held(row, key.iter()).ok_or(LogError::NotKept(id, NO_ROW))?;
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
        (name.clone(), bytes.map_or(Json::Null, |bytes| utf8(&bytes)))
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
    fn of_a_row_that_merges_only_the_columns_that_the_entry_names_were_lost() {
        let topology = crate::topology::parse(
            "version: 1\nregions: { eu: { id: 1, databases: [\"d:1\"], kafka: k } }\n\
             kafka: { k: { brokers: [\"k:1\"] } }\n\
             tables: [{ tables: s.t, policy: delta, delta_columns: [n] }]\n",
        )
        .expect("a sound topology");
        let names = |entry: &Json, rule| {
            let all = ["A", "b", "v", "n"];
            all.into_iter().filter(|name| lost(rule, entry, name)).collect::<Vec<_>>()
        };
        let rule = topology.rule("s", "t");
        let mut entry = json!({
            "kind": "update_update",
            "columns": {"incoming": ["a"], "existing": ["b"]},
        });
        assert_eq!(names(&entry, rule), ["A", "b"]);
        entry["columns"].take();
        assert_eq!(names(&entry, None), ["A", "b", "v", "n"]);
        assert_eq!(names(&entry, rule), ["A", "b", "v"]);
        entry["kind"] = json!("repair");
        assert_eq!(names(&entry, rule), ["A", "b", "v", "n"]);
    }

    #[test]
    fn what_each_lost_to_the_other_goes_back() {
        let mut entry = json!({
            "winner": "both", "table": "s.t", "key": {"id": 1},
            "columns": {"incoming": ["a"], "existing": ["b"]},
            "incoming": {"action": "update", "after": {"id": 1, "a": 1, "b": 1, "c": 1}},
            "existing": {"action": "update", "after": {"ID": 1, "A": 2, "B": 2, "C": 2}},
        });
        let found = loser(3, &entry).expect("columns were lost");
        assert_eq!(found.side, "both");
        assert_eq!(found.row.map(Json::Object), Some(json!({"id": 1, "a": 2, "b": 1, "c": 1})));
        entry["existing"]["after"] = json!({"omitted_bytes": 5_008});
        assert!(loser(3, &entry).is_err());
        entry["columns"].take();
        assert!(loser(3, &entry).is_err(), "each stands");
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
