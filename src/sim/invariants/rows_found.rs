//! A row that its author had found, and that nothing he had not seen took away or hid, is
//! there when a batch comes to it: one that is not was taken away by no region's write.

use std::collections::BTreeMap;

use crate::change::Row;
use crate::resolve::TablePlan;
use crate::sim::region::Key;
use crate::sim::schema::{self, ID};

/// Before the batch is written.
pub(in crate::sim) fn check(rows: &BTreeMap<Key, Row>, plan: &TablePlan) -> Result<(), String> {
    let name = schema::of(&plan.table);
    let key = |row: &Row| (name, schema::int(row, ID).expect("a key"));
    match plan.found().find(|row| !rows.contains_key(&key(row))) {
        Some(row) => Err(format!("rows found: a batch has to find {row:?} of {name:?}")),
        None => Ok(()),
    }
}
