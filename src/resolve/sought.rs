//! What an entry of the conflict log does not say of its writes, and the records of their
//! regions do: of the write that was here a plain policy keeps neither its GTID nor the row
//! before it, and an entry that would be too long leaves rows out.

use serde_json::{Map, Value as Json, json};

use super::entry::{image, key};
use crate::change::{Dot, Record, RecordBody, RegionId, Row, RowChange, Seq, Table};
use crate::clock::Hlc;

/// A write of which an entry does not say everything.
#[derive(Clone, Debug)]
pub struct Sought {
    /// `incoming` or `existing`.
    pub side: &'static str,
    /// Its transaction.
    pub dot: Dot,
    hlc: Hlc,
    table: String,
    /// By which the row is known, its key or more.
    values: Map<String, Json>,
    found: Option<Json>,
}

/// The writes of which the entry does not say everything.
#[must_use]
pub fn sought(entry: &Json) -> Vec<Sought> {
    ["incoming", "existing"].into_iter().filter_map(|side| Sought::of(entry, side)).collect()
}

/// Left out because the entry was too long.
fn is_omitted(image: &Json) -> bool {
    image.as_object().is_some_and(|held| held.len() == 1 && held.contains_key("omitted_bytes"))
}

impl Sought {
    fn of(entry: &Json, side: &'static str) -> Option<Self> {
        let write = &entry[side];
        let is_whole = !write["gtid"].is_null()
            && ["before", "after"].iter().all(|at| !is_omitted(&write[at]));
        if is_whole {
            return None;
        }
        let origin = RegionId::new(u8::try_from(write["origin"].as_u64()?).ok()?)?;
        let (seq, hlc) = (Seq(write["seq"].as_u64()?), Hlc(write["hlc"].as_u64()?));
        let (table, values) = match entry["kind"].as_str()? {
            "foreign_key" if entry["parent"]["side"] == side => {
                (&entry["parent"]["table"], &entry["parent"]["key"])
            }
            // The row that has the value is another one.
            "unique_key" if side == "existing" => (&entry["table"], &write["after"]),
            _ => (&entry["table"], &entry["key"]),
        };
        Some(Self {
            side,
            dot: Dot { origin, seq },
            hlc,
            table: table.as_str()?.to_owned(),
            values: values.as_object().filter(|_| !is_omitted(values))?.clone(),
            found: None,
        })
    }

    /// Takes what the next record of the region says of it. A transaction may have many,
    /// and may write the row more than once.
    pub fn see(&mut self, record: &Record) {
        let RecordBody::Transaction(txn) = &record.body else { return };
        // A number is used again where an agent that had lost the outbox took it too.
        if record.origin != self.dot.origin || record.seq != self.dot.seq || record.hlc != self.hlc
        {
            return;
        }
        for change in &txn.changes {
            let table = &change.table;
            if table.full_name().to_string() != self.table {
                continue;
            }
            for row in &change.rows {
                let Some((before, after)) = self.shown(table, row) else { continue };
                let earlier = self.found.take().map(|mut earlier| earlier["before"].take());
                let before = earlier.unwrap_or(before);
                self.found = Some(json!({"gtid": record.gtid, "before": before, "after": after}));
            }
        }
    }

    /// The row before and after the change; none where it is of another row.
    fn shown(&self, table: &Table, change: &RowChange) -> Option<(Json, Json)> {
        let of = |row: &Option<Row>, wanted: bool| {
            row.as_ref().filter(|_| wanted).map_or(Json::Null, |row| image(table, row))
        };
        let is = |row: &Option<Row>| row.as_ref().is_some_and(|row| self.is(table, row));
        let (before, after) = (is(&change.before), is(&change.after));
        let moved = match (&change.before, &change.after) {
            (Some(before), Some(after)) => key(table, before) != key(table, after),
            _ => false,
        };
        // A change of the key is a delete of one row and an insert of another.
        (before || after)
            .then(|| (of(&change.before, before || !moved), of(&change.after, after || !moved)))
    }

    fn is(&self, table: &Table, row: &Row) -> bool {
        let has = |held: &Map<String, Json>| {
            !held.is_empty()
                && held.iter().all(|(name, value)| self.values.get(name) == Some(value))
        };
        let (key, row) = (key(table, row), image(table, row));
        // A parent may be known by another unique key.
        key.as_object().is_some_and(has)
            || self.values.keys().all(|name| self.values.get(name) == row.get(name))
    }

    /// Its `gtid`, and the row `before` and `after` it, as an entry shows them. None where
    /// no record had it.
    #[must_use]
    pub fn found(self) -> Option<Json> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::change::{
        Column, ColumnType, Kind, Position, RecordBody, TableChange, Transaction, Value, Vector,
    };

    fn table() -> Table {
        let column = |name: &str| Column {
            name: name.into(),
            r#type: ColumnType::Int.into(),
            key: u32::from(name == "id"),
            ..Default::default()
        };
        Table {
            schema: "shop".into(),
            name: "item".into(),
            columns: ["id", "code", "v"].map(column).into(),
            ..Default::default()
        }
    }

    fn row(values: [i64; 3]) -> Option<Row> {
        Some(Row { values: values.map(|n| Value::new(Kind::Int(n))).into() })
    }

    fn record(hlc: u64, rows: Vec<(Option<Row>, Option<Row>)>) -> Record {
        let rows = rows.into_iter().map(|(before, after)| RowChange { before, after }).collect();
        let changes = vec![TableChange { table: Arc::new(table()), rows }];
        Record {
            origin: RegionId::new(2).unwrap(),
            epoch: 1,
            seq: Seq(7),
            hlc: Hlc(hlc),
            deps: Vector::default(),
            gtid: "0-2-7".into(),
            position: Position::default(),
            topology: 0,
            body: RecordBody::Transaction(Transaction { changes, ..Default::default() }),
        }
    }

    fn entry() -> Json {
        let existing = json!({"origin": 2, "seq": 7, "hlc": 70, "gtid": null,
            "before": null, "after": {"id": 1, "code": 5, "v": 11}});
        let incoming = json!({"origin": 3, "seq": 4, "hlc": 71, "gtid": "0-3-4",
            "before": null, "after": null});
        json!({"kind": "update_delete", "table": "shop.item", "key": {"id": 1},
            "incoming": incoming, "existing": existing})
    }

    fn found(entry: &Json, record: &Record) -> Option<Json> {
        let mut sought = sought(entry);
        assert_eq!(sought.len(), 1);
        let mut one = sought.remove(0);
        one.see(record);
        one.found()
    }

    #[test]
    fn what_the_entry_lacks_is_in_the_transaction_of_that_number_and_stamp() {
        let rows = || {
            vec![
                (row([2, 6, 1]), row([2, 6, 2])),
                (row([1, 5, 10]), row([1, 5, 12])),
                (row([1, 5, 12]), row([1, 5, 11])),
            ]
        };
        let wanted = json!({"gtid": "0-2-7", "before": {"id": 1, "code": 5, "v": 10},
            "after": {"id": 1, "code": 5, "v": 11}});
        assert_eq!(found(&entry(), &record(70, rows())), Some(wanted));
        assert_eq!(found(&entry(), &record(69, rows())), None, "another agent's");
        let mut whole = entry();
        whole["existing"]["gtid"] = json!("0-2-7");
        assert!(sought(&whole).is_empty());
        whole["existing"]["after"] = json!({"omitted_bytes": 9_000});
        assert!(found(&whole, &record(70, rows())).is_some());
        whole["existing"] = Json::Null;
        assert!(sought(&whole).is_empty(), "a row that was missing has no write");
    }

    #[test]
    fn another_row_is_known_by_what_it_shows_or_what_references_it() {
        let mut entry = entry();
        entry["key"] = json!({"id": 9});
        let moved = record(70, vec![(row([9, 5, 11]), row([1, 5, 11]))]);
        let record = record(70, vec![(row([9, 4, 1]), None), (row([1, 5, 10]), row([1, 5, 11]))]);
        entry["kind"] = json!("unique_key");
        let shown = found(&entry, &moved).unwrap();
        assert_eq!((&shown["before"], &shown["after"]["id"]), (&Json::Null, &json!(1)));
        assert_eq!(found(&entry, &record).unwrap()["after"]["id"], 1);
        entry["kind"] = json!("foreign_key");
        entry["table"] = json!("shop.child");
        entry["parent"] = json!({"table": "shop.item", "key": {"code": 4}, "side": "existing"});
        assert_eq!(found(&entry, &record).unwrap()["before"]["id"], 9);
    }
}
