//! A stamp is later than every stamp that its author had seen, and not further ahead
//! of the true time than the limit, but for those seen (R8).

use std::collections::BTreeMap;

use crate::change::{Dot, RecordBody};
use crate::sim::oracle;
use crate::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let mut stamps = BTreeMap::new();
    for region in &world.regions {
        for record in &region.log {
            if matches!(record.body, RecordBody::Transaction(_)) {
                stamps.insert(Dot { origin: record.origin, seq: record.seq }, record.hlc);
            }
        }
    }
    for (dot, seen) in oracle::dots(world) {
        let Some(stamp) = stamps.get(&dot) else { continue };
        for (other, held) in &stamps {
            let saw = other.origin == dot.origin && other.seq < dot.seq || seen.covers(*other);
            if saw && other.origin != dot.origin && held >= stamp {
                return Err(format!("clock: {dot:?} at {stamp} had seen {other:?} at {held}"));
            }
        }
    }
    let ahead = world.ahead_us();
    let limit =
        super::super::region::CLOCK_LIMIT_US + u64::try_from(world.txns()).unwrap_or(u64::MAX);
    if ahead > limit {
        return Err(format!("clock: a stamp is {ahead} µs ahead, more than {limit}"));
    }
    Ok(())
}
