//! Conflict resolution: incoming row changes against the versions known here, under
//! a policy, give the row operations to run. Pure: no I/O, no clock.
//!
//! A [`Planner`] takes the transactions of one batch in the order in which they
//! apply, joins their writes of one row into one operation, and remembers on which
//! versions each decision stands, so that the applier can look again (R7).

mod plan;

pub use plan::{Conflict, Incoming, Plan, PlanError, Planner, TablePlan};

use crate::version::{Version, Write};

/// Whether an incoming write stands against the survivors of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It had seen them all.
    Follows,
    /// Concurrent, and it wins.
    Wins,
    /// Concurrent, and it loses.
    Loses,
}

/// Policy `latest`: among concurrent versions the greater (hlc, region) stands.
#[must_use]
pub fn latest(write: &Write, survivors: &[Version]) -> Verdict {
    let concurrent = survivors.iter().filter(|v| !write.saw(v)).max_by_key(|v| v.rank());
    match concurrent {
        None => Verdict::Follows,
        Some(best) if write.version.rank() > best.rank() => Verdict::Wins,
        Some(_) => Verdict::Loses,
    }
}
