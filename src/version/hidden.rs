//! Rows that are not where their authors left them, for a write elsewhere: for a row that
//! moved, a unique value, a group that lost as a whole.

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::{RowKey, Write, saw};
use crate::change::{Dot, Vector};
use crate::mutant::{self, Mutant};

/// Which rows are hidden, and by which writes. What hides one may be forgotten by the row
/// itself before all authors have seen it.
#[derive(Debug, Default)]
pub struct Hidden {
    rows: HashMap<RowKey, SmallVec<[Dot; 1]>>,
    /// What was here at the start: rows hidden by that are not known.
    begun: Vector,
}

impl Hidden {
    /// Before any batch: all that is applied here, and written.
    pub fn begin(&mut self, begun: Vector) {
        self.begun = begun;
    }

    /// Each row goes because of that transaction. One whose batch is given up stays here
    /// until that is stable: it is then not expected, no more.
    pub fn hide(&mut self, rows: impl IntoIterator<Item = (RowKey, Dot)>) {
        for (row, by) in rows.into_iter().filter(|_| !mutant::is(Mutant::HiddenForgotten)) {
            let held = self.rows.entry(row).or_default();
            if !held.contains(&by) {
                held.push(by);
            }
        }
    }

    /// Whether the author of the write had seen all that may have hidden its row here.
    #[must_use]
    pub fn is_seen(&self, write: &Write) -> bool {
        let seen = |by: Dot| saw(write.version.dot, &write.deps, by);
        self.begun.iter().all(seen)
            && self.rows.get(&write.key).is_none_or(|held| held.iter().all(|&by| seen(by)))
    }

    /// Forgets what every author has seen.
    pub(super) fn collect(&mut self, stable: &Vector) {
        if self.begun.iter().all(|dot| stable.covers(dot)) {
            self.begun = Vector::default();
        }
        self.rows.retain(|_, held| {
            held.retain(|by| !stable.covers(*by));
            !held.is_empty()
        });
    }
}
