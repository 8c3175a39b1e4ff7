//! An orphan that is told of shows what it references: a write that lost its columns lacks
//! nothing.

use std::collections::BTreeMap;

use crate::change::Row;
use crate::resolve::{Conflict, Side};
use crate::sim::oracle;
use crate::sim::region::Key;
use crate::sim::schema::{self, A, ID, Name};

/// After a batch of one transaction, of a region whose own are all captured: a later one of
/// either kind may have written the row since. Under a priority a write that lost may come
/// to show again; so may, where columns are resolved apart, one that did not touch them.
pub(in crate::sim) fn check(rows: &BTreeMap<Key, Row>, told: &[Conflict]) -> Result<(), String> {
    for conflict in told {
        let Some(orphan) = conflict.orphan.as_deref() else { continue };
        let name = schema::of(&orphan.child_table);
        let at = usize::try_from(orphan.key.columns[0]).expect("small");
        let child = if orphan.child_came { &conflict.incoming } else { &conflict.existing };
        if name == Name::Ward || name == Name::Member && at == A || !touched(name, child, at) {
            continue;
        }
        let id = schema::int(&orphan.child, ID).expect("a key");
        let shown = rows.get(&(name, id)).and_then(|row| schema::int(row, at));
        if shown.is_none() || shown != schema::int(&orphan.child, at) {
            return Err(format!("orphans shown: {name:?} {id} has {shown:?}, not {orphan:?}"));
        }
    }
    Ok(())
}

/// Whether a write changed what is resolved together with the column.
fn touched(name: Name, child: &Side, at: usize) -> bool {
    let (Some(before), Some(after)) = (&child.before, &child.after) else { return true };
    let mut groups = oracle::column_groups(name).iter().filter(|group| group.contains(&at));
    let differ = |group: &&[usize]| group.iter().any(|&at| before.values[at] != after.values[at]);
    !name.merges() || groups.any(differ)
}
