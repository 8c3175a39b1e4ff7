//! Changes relative to the row that is there: sums, and columns that stand alone.

use std::io::Write as _;

use super::{Expects, Script, insert_into, value, values};
use crate::apply::schema::{Mapping, Target};
use crate::resolve::MergeRow;

/// Appends a statement that inserts the row, or where one is there sets the columns that
/// the write won and adds to those that add up; none where it does neither.
pub(super) fn merge(out: &mut Script, mapping: &Mapping, (merge, found): (&MergeRow, bool)) {
    if !merge.writes() {
        return;
    }
    insert_into(out, mapping);
    values(out, mapping, &merge.row);
    out.add("ON DUPLICATE KEY UPDATE ");
    let mut first = true;
    for column in &mapping.columns {
        let add = merge.add.iter().find(|(at, _)| *at == column.at);
        if add.is_none() && !merge.set.contains(&column.at) {
            continue;
        }
        out.add(if first { "" } else { "," });
        first = false;
        out.add(&column.name);
        out.add("=");
        match add {
            Some((_, number)) => {
                out.add(&column.name);
                write!(out.text, "+({number})").expect("a Vec takes all");
            }
            None => value(&mut out.text, &column.form, &merge.row.values[column.at]),
        }
    }
    // As in an upsert: the author had seen nothing but the default.
    for name in mapping.own.iter().filter(|_| !merge.set.is_empty()) {
        for text in [if first { "" } else { "," }, name, "=DEFAULT(", name, ")"] {
            out.add(text);
        }
        first = false;
    }
    for name in mapping.renewed.iter().filter(|name| !is_assigned(mapping, merge, name)) {
        for text in [if first { "" } else { "," }, name, "=", name] {
            out.add(text);
        }
        first = false;
    }
    if first {
        // The columns are not here: nothing to set.
        let key = &mapping.columns[mapping.key[0]].name;
        out.add(key);
        out.add("=");
        out.add(key);
    }
    out.end(&mapping.full, if found { Expects::NoInsert } else { Expects::Nothing });
}

/// Whether the statement says what a column here is to hold.
fn is_assigned(mapping: &Mapping, merge: &MergeRow, name: &str) -> bool {
    match mapping.columns.iter().find(|column| column.name == name) {
        Some(Target { at, .. }) => {
            merge.set.contains(at) || merge.add.iter().any(|(added, _)| added == at)
        }
        None => !merge.set.is_empty(),
    }
}
