//! What an operator does when a transaction can't be planned.

use crate::resolve::PlanError;
use crate::version::KeyError;

/// The next step.
pub(super) const fn plan_advice(error: &PlanError) -> &'static str {
    match error {
        PlanError::Key(KeyError::NoKey(_)) => {
            "give the table a primary key, or exclude it in the topology"
        }
        PlanError::Key(KeyError::Collation { .. }) => {
            "give the key column a binary collation (…_bin) in all regions, then resume"
        }
        PlanError::Key(KeyError::Null(_)) => {
            "exclude the table in the topology, and report this record"
        }
        PlanError::Shape(_) => {
            "give new columns a constant default, and ENUM, SET and texts the same labels and \
             character sets in all regions; resume once all regions have applied what was \
             written before"
        }
        PlanError::NotInsert { .. } => {
            "give the table another policy in all regions, or undo the change at its origin and \
             seed anew"
        }
        PlanError::NotHome(_) => {
            "find out which region owns the row and who wrote it elsewhere; give the table \
             another policy in all regions to go on"
        }
        PlanError::Unfit { .. } => {
            "change the table or its rule in all regions: causeway doctor says what fits"
        }
        PlanError::Sum(_) => "declare as deltas only exact numbers of at most 38 digits",
    }
}
