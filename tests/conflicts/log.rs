//! What the conflict logs of all regions say of each other, and of the policy.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::lab::db::Database;
use super::lab::region::Lab;
use super::policies::{incoming_wins, parted};

/// What each region logged, in its order.
pub(crate) struct Logs(Vec<Vec<Json>>);

/// Per pair of transactions and place who won, as one region logged it: over a row, over
/// each of its columns that the entry names, or over a value.
type Winners = BTreeMap<(String, String, String, String), String>;

/// The last entry of each region.
pub(crate) async fn ends(lab: &Lab) -> Vec<i64> {
    let mut ends = Vec::new();
    for region in &lab.regions {
        ends.push(region.db.number("SELECT COALESCE(MAX(id), 0) FROM causeway.conflicts").await);
    }
    ends
}

async fn after(db: &Database, end: i64) -> Vec<Json> {
    let sql = format!(
        "SELECT CAST(entry AS BINARY) FROM causeway.conflicts WHERE id > {end} ORDER BY id"
    );
    let rows: Vec<(Vec<u8>,)> = db.rows(&sql).await;
    rows.iter().map(|(row,)| serde_json::from_slice(row).unwrap()).collect()
}

fn text<'a>(entry: &'a Json, name: &str) -> &'a str {
    entry[name].as_str().unwrap()
}

fn winners(log: &[Json]) -> Winners {
    let mut found = Winners::new();
    for entry in log {
        let dot = |side: &str| format!("{}.{}", entry[side]["origin"], entry[side]["seq"]);
        let (incoming, existing) = (dot("incoming"), dot("existing"));
        let winner = |side: &str| match side {
            "incoming" => incoming.clone(),
            "existing" => existing.clone(),
            both => both.to_owned(),
        };
        let (low, high) = match incoming < existing {
            true => (incoming.clone(), existing.clone()),
            false => (existing.clone(), incoming.clone()),
        };
        // A transaction may meet another over several rows and values.
        let unique = text(entry, "kind") == "unique_key";
        let place = format!("{} {}", text(entry, "table"), if unique { "value" } else { "row" });
        let row = if unique { String::new() } else { entry["key"].to_string() };
        let mut told = |row: String, side: &str| {
            found.insert((place.clone(), row, low.clone(), high.clone()), winner(side));
        };
        for side in ["incoming", "existing"] {
            for name in entry["columns"][side].as_array().into_iter().flatten() {
                told(format!("{row} {name}"), side);
            }
        }
        if entry["columns"].is_null() {
            told(row, text(entry, "winner"));
        }
    }
    found
}

/// Of the columns that both had changed the entry names some, each with the side that its
/// own policy prefers; where there is none, both stand.
fn follow_their_policies(entry: &Json, columns: &[&str]) {
    let changed =
        |side: &str, name: &str| entry[side]["before"][name] != entry[side]["after"][name];
    let met = |name: &&&str| changed("incoming", name) && changed("existing", name);
    let met: Vec<&str> = columns.iter().filter(met).copied().collect();
    let named = |side: &str| entry["columns"][side].as_array().into_iter().flatten();
    assert_eq!(met.is_empty(), entry["columns"].is_null(), "{entry}");
    for side in ["incoming", "existing"] {
        for name in named(side).map(|name| name.as_str().unwrap()) {
            let wins = (side == "incoming") == incoming_wins(entry, name);
            assert!(wins && met.contains(&name), "{name}: {entry}");
        }
    }
    let winner = match (named("incoming").count(), named("existing").count()) {
        (1.., 0) => "incoming",
        (0, 1..) => "existing",
        _ => "both",
    };
    assert_eq!(text(entry, "winner"), winner, "{entry}");
}

impl Logs {
    /// What was logged after these entries.
    pub(crate) async fn after(lab: &Lab, ends: &[i64]) -> Self {
        let mut logs = Vec::new();
        for (region, &end) in lab.regions.iter().zip(ends) {
            logs.push(after(&region.db, end).await);
        }
        Self(logs)
    }

    /// Entries, by region.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.0.iter().map(Vec::len).collect()
    }

    /// Where two regions saw the same two transactions meet, they name the same winner.
    /// Gives how often that was, and the places where anything met.
    pub(crate) fn agree(&self) -> (usize, BTreeSet<String>) {
        let missing = |entry: &&Json| text(entry, "kind") == "row_missing";
        assert_eq!(self.0.iter().flatten().find(missing), None, "nobody took a row away");
        let logs: Vec<Winners> = self.0.iter().map(|log| winners(log)).collect();
        let mut told = BTreeSet::new();
        let mut shared = 0;
        for (n, log) in logs.iter().enumerate() {
            for (pair, winner) in log {
                told.insert(pair.0.clone());
                for other in logs[n + 1..].iter().filter_map(|other| other.get(pair)) {
                    assert_eq!(other, winner, "{pair:?}");
                    shared += 1;
                }
            }
        }
        (shared, told)
    }

    /// Each winner is the one that the policy names.
    pub(crate) fn follow_the_policy(&self) {
        for entry in self.0.iter().flatten() {
            match parted(text(entry, "table")) {
                [] => {
                    let winner = text(entry, "winner");
                    assert_eq!(winner == "incoming", incoming_wins(entry, ""), "{entry}");
                }
                columns => follow_their_policies(entry, columns),
            }
        }
    }

    /// The numbers of the transactions of `shop.txn` that lost anything.
    pub(crate) fn lost_txns(&self) -> BTreeSet<i64> {
        let entries = self.0.iter().flatten().filter(|entry| text(entry, "table") == "shop.txn");
        let lost = entries.map(|entry| {
            let loser = if text(entry, "winner") == "incoming" { "existing" } else { "incoming" };
            entry[loser]["after"]["v"].as_i64().unwrap()
        });
        lost.collect()
    }
}
