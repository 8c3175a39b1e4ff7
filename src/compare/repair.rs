//! Making a row what another region has: the statement, what people are shown, and
//! what is kept of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::chunk::{Key, shown};
use super::columns::{Literal, Plan, hex, quote};

/// A row as one region has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its hash.
    pub hash: Vec<u8>,
    /// Its compared values, in the order of the plan's columns.
    pub values: Vec<Option<Vec<u8>>>,
}

/// One row of one region that was to be repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repair {
    /// `schema.table`.
    pub table: String,
    /// The primary key: columns and values, in key order.
    pub key: Vec<(String, String)>,
    /// The region that was to be repaired; absent where none could be named.
    pub region: Option<String>,
    /// The region whose row stands.
    pub from: Option<String>,
    /// How it ended.
    pub outcome: RepairOutcome,
    /// Why its row stands, or why nothing was written.
    pub why: String,
}

/// How a repair ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairOutcome {
    /// The row is what it is in the other region.
    Repaired,
    /// Nothing was written: the row changed, or something stood in the way.
    Refused,
    /// Which row should stand is not known.
    Undecided,
}

impl RepairOutcome {
    /// The name in both output formats.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Repaired => "repaired",
            Self::Refused => "refused",
            Self::Undecided => "undecided",
        }
    }
}

impl Plan {
    /// The statement that makes the row with that key `after`: where it is, or where it
    /// is not. Columns that are not compared are left as they are, or get their default.
    #[must_use]
    pub fn write(&self, key: &Key, there: bool, after: Option<&Image>) -> String {
        let table = self.quoted();
        let Some(image) = after else {
            return format!("DELETE FROM {table} WHERE {}", self.is(key));
        };
        let columns = self.columns.iter().zip(&image.values).map(|(column, value)| {
            let value = value.as_deref().map(|value| column.literal.write(value));
            (quote(&column.name), value.unwrap_or_else(|| "NULL".to_owned()))
        });
        if there {
            let sets: Vec<_> = columns.map(|(name, value)| format!("{name} = {value}")).collect();
            return format!("UPDATE {table} SET {} WHERE {}", sets.join(", "), self.is(key));
        }
        let (names, values): (Vec<_>, Vec<_>) = columns.unzip();
        format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), values.join(", "))
    }

    /// Columns whose values differ, with both, for people.
    #[must_use]
    pub fn changes(
        &self,
        before: Option<&Image>,
        after: Option<&Image>,
    ) -> Vec<(String, Option<String>, Option<String>)> {
        let text = |image: Option<&Image>, at: usize| {
            let value = image.and_then(|image| image.values.get(at))?;
            Some(value.as_deref().map_or_else(|| "NULL".to_owned(), shown))
        };
        let columns = self.names().enumerate().map(|(at, name)| {
            let value =
                |image: Option<&Image>| image.and_then(|image| image.values.get(at)).cloned();
            let differ = value(before) != value(after);
            differ.then(|| (name.to_owned(), text(before, at), text(after, at)))
        });
        columns.flatten().collect()
    }

    /// A row for the conflict log: numbers and texts as they are, other bytes as
    /// `{"hex": "…"}`; null where there is no row.
    #[must_use]
    pub fn logged(&self, image: Option<&Image>) -> Json {
        let Some(image) = image else { return Json::Null };
        let values = self.columns.iter().zip(&image.values).map(|(column, value)| {
            let value = value.as_deref().map(|value| json(&column.literal, value));
            (column.name.clone(), value.unwrap_or(Json::Null))
        });
        Json::Object(values.collect::<Map<_, _>>())
    }

    /// The values of the key's columns in a row for the conflict log.
    #[must_use]
    pub fn logged_key(&self, row: &Json) -> Json {
        let values = self.key_names().map(|name| (name.to_owned(), row[name].clone()));
        Json::Object(values.collect::<Map<_, _>>())
    }
}

fn json(literal: &Literal, value: &[u8]) -> Json {
    let bytes = || json!({ "hex": hex(value) });
    let Ok(text) = std::str::from_utf8(value) else { return bytes() };
    let own = matches!(literal, Literal::Text(set) if !set.starts_with("utf8"));
    match literal {
        Literal::Binary => bytes(),
        Literal::Text(_) if own && !text.is_ascii() => bytes(),
        Literal::Number => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(n), _) => json!(n),
            (_, Ok(n)) => json!(n),
            _ => json!(text),
        },
        Literal::Real | Literal::Quoted | Literal::Text(_) => json!(text),
    }
}
