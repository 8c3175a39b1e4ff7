//! Transactions that come in parts.
//!
//! What a part did to rows of which a version says all is judged with the part. What is kept,
//! and what stands or falls together, is held until the last one has come and judged then, as
//! if the transaction had come whole: whoever reads it in parts (capture, the applier, a
//! restart, a search) comes to the same writes.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use prost::Message as _;

use super::Rulebook;
use super::touch::moves;
use crate::change::{Row, RowChange, Table, TableChange};
use crate::mutant::{self, Mutant};
use crate::version::{KeyError, RowKey, Write};

/// What is held of a transaction's parts until its last one.
#[derive(Debug, Default)]
pub struct Parts {
    /// By table, each once: its definition may be larger than many rows.
    held: Vec<(Arc<Table>, Vec<RowChange>)>,
    /// Rows of tables whose writes are not kept, that changed their keys.
    moved: HashSet<RowKey>,
    bytes: usize,
    /// As much as has been told of.
    told: usize,
}

/// Less than this is not told of: at its end the applier takes about ten times as much.
const TOLD_MIN: usize = 16 << 20;

impl Parts {
    /// Takes the next part's changes, and gives those to judge now: with the last part all
    /// that was held, too. Those of one row are in the order in which they were made.
    ///
    /// # Errors
    /// [`KeyError`] for a row without an exact identity.
    pub fn take<'a>(
        &mut self,
        book: &Rulebook,
        changes: &'a [TableChange],
        last: bool,
    ) -> Result<Cow<'a, [TableChange]>, KeyError> {
        let nothing_held = self.held.is_empty();
        if nothing_held && (last || changes.iter().all(|change| stands_alone(book, change)))
            || mutant::is(Mutant::PartsApart)
        {
            return Ok(Cow::Borrowed(changes));
        }
        let mut now = Vec::new();
        for change in changes {
            now.extend(self.hold(book, change)?);
        }
        if last {
            now.extend(self.held.drain(..).map(|(table, rows)| TableChange { table, rows }));
        }
        Ok(Cow::Owned(now))
    }

    /// About how much memory is held, as it would be in a record.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same, each time that it has doubled and is worth telling an operator.
    pub fn grown(&mut self) -> Option<usize> {
        if self.bytes < TOLD_MIN.max(2 * self.told) {
            return None;
        }
        self.told = self.bytes;
        Some(self.bytes)
    }

    /// To be called with the writes of all parts, in their order. Of a row that several parts
    /// wrote the last one says what it references.
    pub fn settle(writes: &mut [Write]) {
        let mut foreign: HashMap<RowKey, usize> = HashMap::new();
        for at in 0..writes.len() {
            let key = writes[at].key;
            if let Some(earlier) = foreign.remove(&key) {
                writes[earlier].foreign = None;
            }
            if writes[at].foreign.is_some() {
                foreign.insert(key, at);
            }
        }
    }

    /// Holds what of a change has to wait, and gives the rest.
    fn hold(
        &mut self,
        book: &Rulebook,
        change: &TableChange,
    ) -> Result<Option<TableChange>, KeyError> {
        let table = &change.table;
        let (shared, policy) = book.of(table);
        let key = table.key_columns();
        let (mut held, mut rest) = (Vec::new(), Vec::new());
        let (keeps, groups) = (policy.keeps(table), policy.groups());
        for row in &change.rows {
            let mut waits = keeps;
            if !keeps && groups && (moves(&key, row) || !self.moved.is_empty()) {
                let touched = RowKey::touched(table, &key, row)?;
                waits = touched.iter().any(|one| one.moved || self.moved.contains(&one.key));
                self.moved.extend(touched.iter().filter(|_| waits).map(|one| one.key));
            }
            match waits {
                true => held.push(compact(row)),
                false => rest.push(row.clone()),
            }
        }
        self.bytes += held.iter().map(RowChange::encoded_len).sum::<usize>();
        match self.held.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &shared)) {
            Some((_, rows)) => rows.append(&mut held),
            None if held.is_empty() => {}
            None => self.held.push((shared, held)),
        }
        let table = Arc::clone(table);
        Ok((!rest.is_empty()).then_some(TableChange { table, rows: rest }))
    }
}

/// A row's change that holds nothing of the record that it came in.
fn compact(row: &RowChange) -> RowChange {
    let of = |row: &Option<Row>| row.as_ref().map(Row::compact);
    RowChange { before: of(&row.before), after: of(&row.after) }
}

/// Whether nothing of a change has to wait where nothing waits yet.
fn stands_alone(book: &Rulebook, change: &TableChange) -> bool {
    let table = &change.table;
    let (_, policy) = book.of(table);
    let key = table.key_columns();
    let moved = || policy.groups() && change.rows.iter().any(|row| moves(&key, row));
    !policy.keeps(table) && !moved()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_told_of_when_it_has_doubled() {
        let mut parts = Parts::default();
        let told = [1, 15, 16, 17, 31, 32, 50, 100].map(|mib| {
            parts.bytes = mib << 20;
            parts.grown().map(|bytes| bytes >> 20)
        });
        let expected = [None, None, Some(16), None, None, Some(32), None, Some(100)];
        assert_eq!(told, expected);
    }
}
