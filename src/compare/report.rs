//! The report, and the state that lets a stopped comparison go on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::chunk::{ChunkRows, Key, shown};
use super::columns::Plan;
use super::repair::{Repair, RepairOutcome};
use super::settle::{Class, Sight};

/// The only version of both files.
const VERSION: u32 = 1;

/// What was compared, and what differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Of the format: 1.
    pub version: u32,
    /// Names, in the order of the topology.
    pub regions: Vec<String>,
    /// Microseconds since the Unix epoch.
    pub started_us: u64,
    /// The same; absent while it goes on.
    pub finished_us: Option<u64>,
    /// In the order of the comparison.
    pub tables: Vec<TableReport>,
    /// What was repaired, or was to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<Repair>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableReport {
    /// `schema.table`.
    pub table: String,
    /// Rows compared, each counted once.
    pub rows: u64,
    /// Key ranges compared.
    pub chunks: u64,
    /// Time spent, milliseconds.
    pub elapsed_ms: u64,
    /// Rows that differed at first and were equal once the streams had passed.
    pub in_flight: u64,
    /// Rows that were written again whenever they were looked at.
    pub busy: u64,
    /// Why some differences are unsettled.
    pub unsettled: Option<String>,
    /// Why the table, or its rest, was not compared.
    pub not_compared: Option<String>,
    /// Columns that were not compared, each with the reason.
    pub left_out: Vec<String>,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// One row that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// What kind.
    pub class: Class,
    /// The primary key: columns and values, in key order.
    pub key: Vec<(String, String)>,
    /// The same, by which the row is found again.
    #[serde(default)]
    pub row: Key,
    /// By region: the beginning of the row's hash, the same for equal rows; null where
    /// the row is missing.
    pub regions: BTreeMap<String, Option<String>>,
    /// Columns that differ among the regions that have the row.
    pub columns: Vec<String>,
    /// Those columns' values by region, when values were asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, BTreeMap<String, Option<String>>>,
}

/// How a comparison ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All rows of all tables are equal.
    Equal,
    /// Some are not.
    Differs,
    /// None was found to differ, but not everything could be compared.
    Incomplete,
}

impl Report {
    /// A comparison that begins.
    #[must_use]
    pub const fn new(regions: Vec<String>, started_us: u64) -> Self {
        Self {
            version: VERSION,
            regions,
            started_us,
            finished_us: None,
            tables: Vec::new(),
            repairs: Vec::new(),
        }
    }

    /// Whether every row that differed is repaired.
    #[must_use]
    pub fn is_repaired(&self) -> bool {
        !self.repairs.is_empty()
            && self.repairs.iter().all(|repair| repair.outcome == RepairOutcome::Repaired)
    }

    /// What it comes to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.tables.iter().any(|table| !table.differences.is_empty()) {
            Outcome::Differs
        } else if self.is_whole() {
            Outcome::Equal
        } else {
            Outcome::Incomplete
        }
    }

    /// Whether every table was compared to its end.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let whole = |table: &TableReport| table.not_compared.is_none();
        self.finished_us.is_some() && self.tables.iter().all(whole)
    }
}

/// The part of a row's hash that a report shows.
#[must_use]
pub fn begins(hash: &[u8]) -> String {
    String::from_utf8_lossy(hash).chars().take(8).collect()
}

/// The row's values as one region has them.
type Values = Vec<Option<Vec<u8>>>;

impl Difference {
    /// From the last look and the row's values by region.
    #[must_use]
    pub fn new(
        class: Class,
        plan: &Plan,
        regions: &[String],
        sight: &Sight,
        rows: &[Option<Values>],
        with_values: bool,
    ) -> Self {
        let values = sight.key().map(Key::shown).unwrap_or_default();
        let key = plan.key_names().map(str::to_owned).zip(values).collect();
        let hashes = sight.0.iter().map(|seen| seen.as_ref().map(|seen| begins(&seen.hash)));
        let mut difference = Self {
            class,
            key,
            row: sight.key().cloned().unwrap_or_default(),
            regions: regions.iter().cloned().zip(hashes).collect(),
            columns: Vec::new(),
            values: BTreeMap::new(),
        };
        for (at, name) in plan.names().enumerate() {
            let mut seen = rows.iter().flatten().map(|row| row.get(at));
            let first = seen.next();
            if !seen.any(|value| Some(value) != first) {
                continue;
            }
            difference.columns.push(name.to_owned());
            for (region, row) in regions.iter().zip(rows) {
                let Some(value) = row.as_ref().and_then(|row| row.get(at)) else { continue };
                if with_values {
                    let shown = value.as_deref().map(shown);
                    let columns = difference.values.entry(region.clone()).or_default();
                    columns.insert(name.to_owned(), shown);
                }
            }
        }
        difference
    }
}

/// Where a comparison stands, so that it can go on after a stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What has been found, the table in progress included as the last.
    pub report: Report,
    /// The place in that table; absent between two tables.
    pub cursor: Option<Cursor>,
}

/// A place in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The last key compared; absent at the beginning.
    pub after: Option<Key>,
    /// The chunks' size.
    pub rows: ChunkRows,
    /// Keys whose rows differed and have not been looked at again.
    pub suspects: Vec<Key>,
    /// Every chunk has been read: what is left to do is to look at the suspects again.
    /// Absent in older files, which do not know of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read: bool,
}

impl State {
    /// Reads a state file.
    ///
    /// # Errors
    /// Why it can't be used for a comparison of `regions`.
    pub fn parse(text: &str, regions: &[String]) -> Result<Self, String> {
        let state: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if state.report.version != VERSION {
            return Err(format!("version {} is not known", state.report.version));
        }
        if state.report.regions != regions {
            return Err(format!("it compares {}", state.report.regions.join(", ")));
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_a_program_that_knew_no_end_of_the_reading_is_gone_on_from() {
        let regions = ["eu".to_owned(), "us".to_owned()];
        let mut state = State {
            report: Report::new(regions.to_vec(), 1),
            cursor: Some(Cursor { after: Some(Key(vec![b"7".to_vec()])), ..Cursor::default() }),
        };
        let older = serde_json::to_string(&state).unwrap();
        assert!(!older.contains("read"), "what is not said needs no newer reader: {older}");
        assert_eq!(State::parse(&older, &regions), Ok(state.clone()));
        state.cursor = Some(Cursor { read: true, ..Cursor::default() });
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(State::parse(&text, &regions), Ok(state));
    }
}
