//! A conflict is logged of truly concurrent writes only (no false alarm), and of any two
//! concurrent writes of a row each one's region has logged the other's coming (R5).

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
            if matches!(conflict.kind, ConflictKind::Row { .. }) {
                let side = &conflict.incoming;
                let row = side.after.as_ref().or(side.before.as_ref()).expect("a row");
                let id = schema::int(row, ID).expect("a key");
                logged.insert((region.id, (schema::of(&conflict.table), id), a));
            }
        }
    }
    for (key, all) in history {
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            // Where b was written, b or what followed it was there when a came; two deletes
            // agree.
            let met = a.is_concurrent(b) && a.after.is_some();
            if met && !logged.contains(&(b.dot.origin, *key, a.dot)) {
                let region = b.dot.origin;
                return Err(format!("region {region} has not logged {:?} over {key:?}", a.dot));
            }
        }
    }
    Ok(())
}
