//! Conflict resolution: incoming row changes against the versions known here, under
//! a policy, give the row operations to run. Pure: no I/O, no clock.
//!
//! A [`Planner`] takes the transactions of one batch in the order in which they
//! apply, joins their writes of one row into one operation, and remembers on which
//! versions each decision stands, so that the applier can look again (R7).
//!
//! Invariant (R6): what a row shows is a function of the set of writes known of it,
//! of its group and of its unique values, whatever the order of their arrival.
//! docs/conflicts.md says for each policy which function.

mod align;
mod chain;
mod conflict;
mod entry;
mod gather;
mod merge;
mod missing;
mod number;
mod parts;
mod plan;
mod planner;
mod policy;
mod recount;
mod rules;
mod sought;
mod stand;
mod touch;

pub use chain::{Chain, chained};
pub use conflict::{Conflict, ConflictKind, Contest, Orphan, Outcome, Side};
pub use entry::{entry, text, utf8};
pub use gather::{Gather, Picked};
pub use missing::missing;
pub use number::Number;
pub use parts::Parts;
pub use plan::{Earlier, Found, Incoming, MergeRow, Plan, PlanError, TablePlan};
pub use planner::Planner;
pub use policy::{Allow, ColumnGroup, Merge, Order, Policy, Rank, Rulebook};
pub use recount::{Extent, Recount, Recounted, Shows, Untold};
pub use rules::book;
pub use sought::{Sought, sought};
pub use touch::{Touched, moves, touched};
