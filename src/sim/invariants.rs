//! What must hold at the end of every run, one in each file; `rows_found` before each batch,
//! `orphans_shown` after it.

mod clock_bound;
mod convergence;
mod exact_conflicts;
mod exactly_once;
mod explained;
mod named;
mod orphans;
pub(super) mod orphans_shown;
pub(super) mod rows_found;
mod sums;

use super::oracle;
use super::world::World;

/// The first invariant that does not hold.
pub(super) fn check(world: &World) -> Result<(), String> {
    let history = oracle::history(world);
    convergence::check(world)?;
    exactly_once::check(world)?;
    clock_bound::check(world)?;
    exact_conflicts::check(world, &history)?;
    named::check(world, &history)?;
    orphans::check(world, &history)?;
    sums::check(world, &history)?;
    explained::check(world, &history)
}
