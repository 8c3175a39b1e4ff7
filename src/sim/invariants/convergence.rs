//! Every region holds the same rows (R6).

use crate::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let first = &world.regions[0];
    for region in &world.regions[1..] {
        for key in first.rows.keys().chain(region.rows.keys()) {
            let (here, there) = (first.rows.get(key), region.rows.get(key));
            if here != there {
                return Err(format!(
                    "convergence: {key:?} is {here:?} in region {} and {there:?} in region {}",
                    first.id, region.id
                ));
            }
        }
    }
    Ok(())
}
