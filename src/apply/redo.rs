//! Doing a batch again under its locks when a local write got in between (R7).
//!
//! The rule is to give such a batch up: its locks go, it is planned anew, and meanwhile
//! the same may happen again. Where clients write the same hot rows all the time that
//! is no way to get on. So after it happened the applier takes *care* for a while: one
//! batch at a time, not too large, and one that is out of date keeps its locks, is taken
//! back up to its marker rows, planned from what capture has read by then, and written
//! anew. What it had locked can't change again. It passes the same gate each time, so
//! whatever did change, on a row that it had not locked, is seen as ever.
//!
//! With a younger batch in flight that could not be done: the younger one may hold locks
//! that the new plan needs, and waits for this one.

use super::Session;
use super::batch::{self, BatchLimits};
use super::gate::{Gate, Miss, Written, lock, rewrite};
use crate::resolve::Planner;

/// How many batches in a row must pass at once before two are in flight again.
const CARE: u32 = 16;
/// Row changes of a batch written with care, at most: a local writer may wait for its
/// locks while it is done twice.
const ROWS_MAX: usize = 1_000;
/// How often a batch is done again before its locks go after all.
const TIMES_MAX: u32 = 4;

/// Whether, and for how many batches yet, care is taken. The applier's loop alone sets
/// it; it is lost at a restart.
#[derive(Debug, Default)]
pub(super) struct Care(u32);

impl Care {
    pub(super) fn is_taken(&self) -> bool {
        self.0 > 0
    }

    /// A batch was given up because a local write got in between: takes care, and gives
    /// the limits with which it goes on, also after it.
    pub(super) fn take(&mut self, limits: BatchLimits) -> BatchLimits {
        self.0 = CARE;
        self.limits(limits)
    }

    /// A batch was committed.
    pub(super) fn committed(&mut self, redone: bool) {
        self.0 = if redone { CARE } else { self.0.saturating_sub(1) };
    }

    /// The limits of the next batch.
    pub(super) fn limits(&self, limits: BatchLimits) -> BatchLimits {
        let rows = if self.is_taken() { limits.rows.min(ROWS_MAX) } else { limits.rows };
        BatchLimits { rows, ..limits }
    }
}

/// Holds a written batch at the gate until it may be committed; does it again there when
/// that is allowed.
pub(super) async fn pass(
    gate: &Gate,
    session: &mut Session,
    written: &mut Written,
) -> Result<(), Miss> {
    let mut times = 0;
    loop {
        match gate.pass(written).await {
            Err(Miss::Stale) if written.batch.care && times < TIMES_MAX => {
                times += 1;
                again(gate, session, written).await?;
            }
            passed => return passed,
        }
    }
}

async fn again(gate: &Gate, session: &mut Session, written: &mut Written) -> Result<(), Miss> {
    session.take_back().await.map_err(Miss::Database)?;
    plan(gate, written)?;
    tracing::debug!("batch done again under its locks");
    written.point = rewrite(session, gate, &mut written.batch).await.map_err(Miss::Database)?;
    written.redone = true;
    Ok(())
}

/// Plans the batch from what the index holds by now. What can't be planned any more is
/// found again, and told, when the batch is gathered anew.
fn plan(gate: &Gate, written: &mut Written) -> Result<(), Miss> {
    let batch = &mut written.batch;
    let mut index = lock(&gate.index);
    index.abandon(batch.id);
    batch.plan =
        batch::plan(Planner::new(&index, &gate.book), &batch.items).map_err(|_| Miss::Stale)?;
    batch.stage(&mut index);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits = BatchLimits { rows: 5_000, bytes: 1, txns: 1 };

    #[test]
    fn care_ends_after_so_many_batches_that_passed_at_once() {
        let mut care = Care::default();
        assert_eq!(care.limits(LIMITS).rows, 5_000);
        assert_eq!(care.take(LIMITS).rows, ROWS_MAX);
        (1..CARE).for_each(|_| care.committed(false));
        assert!(care.is_taken());
        care.committed(true);
        (1..CARE).for_each(|_| care.committed(false));
        assert!(care.is_taken(), "one that was done again begins the count anew");
        care.committed(false);
        assert!(!care.is_taken());
    }

    #[test]
    fn small_limits_are_not_raised() {
        let mut care = Care::default();
        assert_eq!(care.take(BatchLimits { rows: 16, ..LIMITS }).rows, 16);
    }
}
