//! A conflict is logged of truly concurrent writes only (no false alarm), and where two
//! writes of a row were concurrent some region has logged one (R5).

use std::collections::BTreeSet;

use crate::change::Dot;
use crate::resolve::ConflictKind;
use crate::sim::oracle::{self, History};
use crate::sim::schema::{self, ID};
use crate::sim::world::World;

pub(super) fn check(world: &World, history: &History) -> Result<(), String> {
    let truth = oracle::dots(world);
    let saw = |a: Dot, b: Dot| {
        if a.origin == b.origin { a.seq >= b.seq } else { truth[&a].covers(b) }
    };
    let mut logged = BTreeSet::new();
    for region in &world.regions {
        for conflict in &region.conflicts {
            let (a, b) = (conflict.incoming.version.dot, conflict.existing.version.dot);
            if saw(a, b) || saw(b, a) {
                return Err(format!("a false conflict of {a:?} and {b:?} in region {}", region.id));
            }
            if conflict.kind != ConflictKind::UniqueKey {
                let side = &conflict.incoming;
                let row = side.after.as_ref().or(side.before.as_ref()).expect("a row");
                let id = schema::int(row, ID).expect("a key");
                logged.insert((schema::of(&conflict.table), id));
            }
        }
    }
    for (key, all) in history {
        let met = all.iter().enumerate().any(|(n, a)| {
            all[n + 1..]
                .iter()
                .any(|b| a.is_concurrent(b) && (a.after.is_some() || b.after.is_some()))
        });
        // Two that are never survivors together anywhere meet over others of the row.
        if met && !logged.contains(key) && all.len() == 2 {
            return Err(format!("no region has logged the conflict over {key:?}"));
        }
    }
    Ok(())
}
