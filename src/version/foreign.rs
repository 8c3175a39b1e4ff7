//! What writes have to do with rows of other tables: which of their values they
//! reference, and which of their own, that others may reference, they let go.
//!
//! A row that goes lets its primary key go: its version says that already. The rest is
//! filed here, until it is stable: nothing to come is concurrent with it then.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::unstable::Unstable;
use super::{BatchId, RowKey, Write};
use crate::change::{Dot, Row, Table, Value, Vector};

/// What a write has to do with rows of other tables.
#[derive(Debug)]
pub struct Foreign {
    /// The row's table, as it was at the origin.
    pub table: Arc<Table>,
    /// By their places, the columns of the primary key and of foreign keys: enough to
    /// name the row and what it references. The row itself would be ten times as much.
    pub held: Box<[(usize, Value)]>,
    /// The foreign keys of which no column is NULL after the write, by their number, with
    /// the row that each references by primary key, or the value by a unique one.
    pub references: SmallVec<[(usize, RowKey); 1]>,
    /// The values of further unique keys that the row held before the write and does not
    /// hold after it.
    pub released: SmallVec<[Released; 1]>,
}

/// A value of a further unique key.
#[derive(Clone, Copy, Debug)]
pub struct Released {
    /// As [`RowKey::value`], which rows of other tables reference.
    pub value: RowKey,
    /// As [`RowKey::claim`], under which rows of the same table claim it.
    pub claim: RowKey,
}

impl Foreign {
    /// The row, as far as it is held.
    #[must_use]
    pub fn row(&self) -> Row {
        let mut values = vec![Value::NULL; self.table.columns.len()];
        for (at, value) in &self.held {
            if let Some(place) = values.get_mut(*at) {
                place.clone_from(value);
            }
        }
        Row { values }
    }
}

/// What a write is filed under a value for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It references the value.
    References,
    /// It let the value go.
    Releases,
}

/// A value, what is filed, the row that was written, and the transaction: ordered, so
/// that a value that a million rows reference costs no more than another.
type Key = (RowKey, Role, RowKey, Dot);

#[derive(Debug)]
struct Filed {
    write: Write,
    /// Of a batch that capture has not read back.
    staged: Option<BatchId>,
}

/// Writes by the values of other tables that they have to do with.
#[derive(Debug, Default)]
pub struct Register {
    filed: BTreeMap<Key, Filed>,
    unstable: Unstable<Key>,
    staged: BTreeMap<BatchId, Vec<Key>>,
}

fn keys(write: &Write) -> impl Iterator<Item = Key> + '_ {
    let (row, dot) = (write.key, write.version.dot);
    write.foreign.iter().flat_map(move |foreign| {
        let references = foreign.references.iter();
        let references = references.map(move |(_, value)| (*value, Role::References, row, dot));
        let released = foreign.released.iter();
        references.chain(released.map(move |held| (held.value, Role::Releases, row, dot)))
    })
}

impl Register {
    /// Files a write.
    pub fn enter(&mut self, write: &Write, staged: Option<BatchId>) {
        for key in keys(write) {
            let dot = write.version.dot;
            match staged {
                Some(id) => self.staged.entry(id).or_default().push(key),
                None => self.relieve(write, key),
            }
            self.unstable.push(dot, key);
            self.filed.insert(key, Filed { write: write.clone(), staged });
        }
        let Self { filed, unstable, .. } = self;
        unstable.relieve(filed.len(), |_, key| filed.contains_key(key));
    }

    /// Drops what the row's author had seen, and wrote over.
    fn relieve(&mut self, write: &Write, (value, role, row, dot): Key) {
        let held = self.filed.range((value, role, row, Dot::MIN)..=(value, role, row, Dot::MAX));
        let older =
            held.filter(|((.., held), filed)| *held != dot && write.saw(&filed.write.version));
        let older: SmallVec<[Key; 2]> = older.map(|(key, _)| *key).collect();
        for key in older {
            self.filed.remove(&key);
        }
    }

    /// Capture has read the batch back.
    pub fn settle(&mut self, id: BatchId) {
        for key in self.staged.remove(&id).unwrap_or_default() {
            if let Some(filed) = self.filed.get_mut(&key) {
                filed.staged = None;
                let write = filed.write.clone();
                self.relieve(&write, key);
            }
        }
    }

    /// The batch was rolled back.
    pub fn abandon(&mut self, id: BatchId) {
        for key in self.staged.remove(&id).unwrap_or_default() {
            self.filed.remove(&key);
        }
    }

    /// Forgets what is stable.
    pub fn collect(&mut self, stable: &Vector) {
        for key in self.unstable.take(stable) {
            self.filed.remove(&key);
        }
    }

    /// The writes filed under a value, without batch `before` and those after it.
    pub fn of(&self, value: RowKey, role: Role, before: BatchId) -> impl Iterator<Item = &Write> {
        let (first, last) = (RowKey(0), RowKey(u128::MAX));
        let (low, high) = (Dot::MIN, Dot::MAX);
        let filed = self.filed.range((value, role, first, low)..=(value, role, last, high));
        let known = filed.filter(move |(_, filed)| filed.staged.is_none_or(|id| id < before));
        known.map(|(_, filed)| &filed.write)
    }

    /// Whether nothing is filed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filed.is_empty()
    }
}
