//! Every row holds what its policy says of all that was written: no write is lost that
//! no policy explains, and nothing deleted comes back.

use crate::sim::oracle::{self, History};
use crate::sim::world::World;

pub(super) fn check(world: &World, history: &History) -> Result<(), String> {
    let wanted = oracle::rows(history);
    let held = &world.regions[0].rows;
    for key in wanted.keys().chain(held.keys()) {
        let (wanted, held) = (wanted.get(key), held.get(key));
        if wanted != held {
            return Err(format!(
                "explained: {key:?} is {held:?} and should be {wanted:?}\n{:#?}",
                history.get(key)
            ));
        }
    }
    Ok(())
}
