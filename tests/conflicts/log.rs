//! What the conflict logs of all regions say of each other, and of the policy.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::lab::db::Database;
use super::lab::region::Lab;
use super::policies::incoming_wins;

/// What each region logged, in its order.
pub(crate) struct Logs(Vec<Vec<Json>>);

/// Per pair of transactions and place who won, as one region logged it.
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
        let winner = match text(entry, "winner") {
            "incoming" => incoming.clone(),
            "existing" => existing.clone(),
            both => both.to_owned(),
        };
        let (low, high) = match incoming < existing {
            true => (incoming, existing),
            false => (existing, incoming),
        };
        // A transaction may meet another over several rows and values.
        let unique = text(entry, "kind") == "unique_key";
        let place = format!("{} {}", text(entry, "table"), if unique { "value" } else { "row" });
        let row = if unique { String::new() } else { entry["key"].to_string() };
        found.insert((place, row, low, high), winner);
    }
    found
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

    /// Each winner is the one that the policy names. Where columns have rules of their
    /// own, both may stand.
    pub(crate) fn follow_the_policy(&self) {
        for entry in self.0.iter().flatten() {
            let merges = ["shop.stock", "shop.parts"].contains(&text(entry, "table"));
            let winner = text(entry, "winner");
            if winner == "both" && merges {
                continue;
            }
            assert_eq!(winner == "incoming", incoming_wins(entry), "{entry}");
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
