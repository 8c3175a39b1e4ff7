//! Which rows the database has to hold when a batch comes to them: one that it does not
//! was taken away by nothing that any region wrote.

use super::Planner;
use crate::resolve::Touched;
use crate::resolve::stand::{self, Shown};

impl Planner<'_> {
    /// Whether the batch finds the row, by its first write of it: its author had found it,
    /// and has seen all that was written to it and all that hid it.
    pub(super) fn expect(&mut self, one: &Touched<'_>) {
        let write = &one.write;
        let held = &self.places[&write.key];
        if held.found.is_some() {
            return;
        }
        let found = one.before.is_some()
            && held.seen.versions.iter().all(|version| write.saw(version))
            && self.index.hidden.is_seen(write)
            && !self.is_hidden(one);
        self.places.get_mut(&write.key).expect("it was just seen").found = Some(found);
    }

    fn is_hidden(&self, one: &Touched<'_>) -> bool {
        let key = one.write.key;
        // What the row shows its author had seen: nothing that the transaction enters makes
        // that void.
        one.policy.merge.is_none()
            && matches!(stand::shown(&one.policy, &self.standing(), key), Some(Shown::Nothing(..)))
    }
}
