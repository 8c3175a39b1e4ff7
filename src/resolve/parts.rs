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
use crate::change::{Row, RowChange, Table, TableChange, Value};
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

/// Less than this is not told of: at its end the applier takes several times as much.
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

    /// About how much memory is held.
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
        self.bytes += held.iter().map(memory).sum::<usize>();
        match self.held.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &shared)) {
            Some((_, rows)) => rows.append(&mut held),
            None if held.is_empty() => {}
            None => self.held.push((shared, held)),
        }
        let table = Arc::clone(table);
        Ok((!rest.is_empty()).then_some(TableChange { table, rows: rest }))
    }
}

/// Of a narrow row most is not its values' own.
fn memory(row: &RowChange) -> usize {
    let values = [&row.before, &row.after].into_iter().flatten().map(|row| row.values.len());
    size_of::<RowChange>() + values.sum::<usize>() * size_of::<Value>() + row.encoded_len()
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
    use crate::change::{Column, Kind};
    use crate::resolve::{Order, Policy};

    #[test]
    fn narrow_rows_count_as_what_they_take() {
        let column = Column { name: "id".into(), key: 1, ..Column::default() };
        let table = Table { columns: vec![column], ..Table::default() };
        let row = |n| Row { values: vec![Value::new(Kind::Int(n))] };
        let rows = (0..1_000).map(|n| RowChange { before: None, after: Some(row(n)) }).collect();
        let changes = [TableChange { table: Arc::new(table), rows }];
        let order = Order::Priority(Vec::new());
        let book = Rulebook::new(move |_| Policy { order: order.clone(), ..Policy::default() });
        let mut parts = Parts::default();
        assert!(parts.take(&book, &changes, false).unwrap().is_empty());
        let least = size_of::<RowChange>() + size_of::<Value>();
        assert!(
            (1_000 * least..1_000 * (least + 32)).contains(&parts.bytes()),
            "{}",
            parts.bytes()
        );
    }

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
