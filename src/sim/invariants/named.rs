//! Where two concurrent writes changed a group of columns that is resolved apart, the log of
//! the region that had the one when the other came says so, and every log names the one
//! that the group's order prefers.

use std::collections::BTreeSet;

use crate::change::Dot;
use crate::resolve::Outcome;
use crate::sim::oracle::{self, History};
use crate::sim::region::Key;
use crate::sim::schema::{self, ID};
use crate::sim::world::World;

pub(super) fn check(world: &World, history: &History) -> Result<(), String> {
    let mut told = BTreeSet::new();
    for region in &world.regions {
        for conflict in &region.conflicts {
            let Outcome::Columns(contests) = &conflict.outcome else { continue };
            let row = conflict.incoming.after.as_ref().expect("a write that leaves a row");
            let key = (schema::of(&conflict.table), schema::int(row, ID).expect("a key"));
            let (came, here) = (conflict.incoming.version.dot, conflict.existing.version.dot);
            for contest in contests {
                let at = contest.columns[0];
                told.insert((region.id, key, came, at));
                let winner = if contest.incoming_wins { came } else { here };
                preferred(history, key, (came, here), at).filter(|&dot| dot == winner).ok_or_else(
                    || {
                        format!(
                            "{winner:?} is said to have won column {at} of {key:?}: {conflict:?}"
                        )
                    },
                )?;
            }
        }
    }
    // A delete takes what is older, whose columns nobody asks for then.
    let kept = history
        .iter()
        .filter(|((name, _), all)| name.merges() && all.iter().all(|write| write.after.is_some()));
    for (&key, all) in kept {
        for group in oracle::column_groups(key.0) {
            let touching: Vec<_> = all.iter().filter(|w| w.touches(group)).collect();
            for (came, here) in touching.iter().flat_map(|a| touching.iter().map(move |b| (a, b))) {
                let entry = (here.dot.origin, key, came.dot, group[0]);
                if came.is_concurrent(here) && !told.contains(&entry) {
                    return Err(format!("not told of a group of columns: {entry:?}"));
                }
            }
        }
    }
    Ok(())
}

/// Which of two writes the columns with this one among them go to.
fn preferred(history: &History, key: Key, (a, b): (Dot, Dot), at: usize) -> Option<Dot> {
    let both: Vec<_> = history[&key].iter().filter(|w| w.dot == a || w.dot == b).collect();
    oracle::winner(&both, key.0, at).map(|write| write.dot)
}
