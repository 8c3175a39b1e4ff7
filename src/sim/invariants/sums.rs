//! A sum that was never deleted is the sum of all changes.

use crate::sim::oracle::History;
use crate::sim::schema::{self, N};
use crate::sim::world::World;

pub(super) fn check(world: &World, history: &History) -> Result<(), String> {
    let sums = history.iter().filter(|((name, _), _)| name.merges());
    for (key, all) in sums.filter(|(_, all)| all.iter().all(|w| w.after.is_some())) {
        let held = |row: &Option<_>| row.as_ref().and_then(|row| schema::int(row, N)).unwrap_or(0);
        let sum: i64 = all.iter().map(|w| held(&w.after) - held(&w.before)).sum();
        for region in &world.regions {
            let row = region.rows.get(key);
            if row.and_then(|row| schema::int(row, N)) != Some(sum) {
                return Err(format!("sums: {key:?} is {row:?} in {}, not {sum}", region.id));
            }
        }
    }
    Ok(())
}
