//! Every transaction is applied everywhere, once: a journal holds each of its rows
//! (R1), and nothing applied was shipped as local (R4).

use crate::sim::schema::Name;
use crate::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for region in &world.regions {
        for other in world.regions.iter().filter(|other| other.id != region.id) {
            let (applied, shipped) = (region.applied.get(other.id), other.log_seq());
            if applied != shipped {
                return Err(format!(
                    "exactly once: region {} has applied {applied} of region {}'s {shipped}",
                    region.id, other.id
                ));
            }
        }
    }
    let wrote: usize = world.regions.iter().map(|region| region.journal).sum();
    for region in &world.regions {
        let held = region.rows.keys().filter(|(name, _)| *name == Name::Journal).count();
        if held != wrote {
            return Err(format!("exactly once: {held} of {wrote} journal rows in {}", region.id));
        }
    }
    Ok(())
}
