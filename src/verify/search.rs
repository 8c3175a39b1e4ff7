//! Finds the writes of some rows in the records of the outboxes: which records count, and
//! from where on they are known.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::outbox::Silence;
use crate::change::{
    Accepted, Dot, Place, ReaderOrder, Record, RecordBody, RegionId, Seq, Table, TableChange,
    TableName, Transaction, Vector,
};
use crate::clock::Hlc;
use crate::compare::{Key, key_row};
use crate::resolve::{Extent, Gather, Incoming, Parts, Picked, Rulebook, Untold, moves, touched};
use crate::version::RowKey;

/// What the writes of the wanted rows may take in memory.
const BYTES_MAX: usize = 256 << 20;

/// Rows asked for, and what has been found of them.
pub(super) struct Search<'a> {
    book: &'a Rulebook,
    wanted: &'a [(TableName, Key)],
    tables: HashSet<TableName>,
    /// By table the shape by which its rows' keys were worked out last.
    shapes: HashMap<TableName, Table>,
    /// By wanted row its identity, or several where the table was altered.
    keys: Vec<Vec<RowKey>>,
    pub(super) gather: Gather,
}

/// One origin's records in order.
#[derive(Default)]
pub(super) struct Reader {
    order: Option<ReaderOrder>,
    parts: Parts,
    open: Vec<Picked>,
    /// The last transaction and stamp that may not be known.
    from: Option<(Seq, Hlc)>,
}

impl<'a> Search<'a> {
    pub(super) fn new(book: &'a Rulebook, wanted: &'a [(TableName, Key)]) -> Self {
        Self {
            book,
            wanted,
            tables: wanted.iter().map(|(table, _)| table.clone()).collect(),
            shapes: HashMap::new(),
            keys: vec![Vec::new(); wanted.len()],
            gather: Gather::default(),
        }
    }

    /// Works out the wanted rows' identities in this table, as it is here.
    fn learn(&mut self, table: &Table) {
        let name = table.full_name();
        if !self.tables.contains(&name) || self.shapes.get(&name) == Some(table) {
            return;
        }
        let places = table.key_columns();
        let rows = self.wanted.iter().zip(&mut self.keys).filter(|((held, _), _)| *held == name);
        for ((_, key), known) in rows {
            let row = key_row(table, key);
            let found = row.and_then(|row| RowKey::of(table, &places, &row).ok());
            if let Some(found) = found.filter(|found| !known.contains(found)) {
                known.push(found);
                self.gather.want(found);
            }
        }
        self.shapes.insert(name, table.clone());
    }

    /// What is of interest of a transaction, or can be told from one of its `parts`.
    fn pick(
        &mut self,
        record: &Record,
        txn: &Transaction,
        parts: &mut Parts,
    ) -> Result<Vec<Picked>, Silence> {
        for change in &txn.changes {
            self.learn(&change.table);
        }
        let is_whole = txn.part == 0 && txn.last;
        let changes = match (self.gather.is_first_round(), is_whole) {
            (true, true) if !txn.changes.iter().any(|change| self.is_wanted(change)) => {
                return Ok(Vec::new());
            }
            (true, false) => {
                let counts = |change: &&TableChange| self.may_count(change);
                Cow::Owned(txn.changes.iter().filter(counts).cloned().collect::<Vec<_>>())
            }
            (true, true) | (false, _) => Cow::Borrowed(&txn.changes[..]),
        };
        let identity = |_| Silence::Identity;
        let changes = parts.take(self.book, &changes, txn.last).map_err(identity)?;
        if parts.bytes() > BYTES_MAX {
            return Err(Silence::Large(BYTES_MAX));
        }
        let incoming = Incoming {
            dot: Dot { origin: record.origin, seq: record.seq },
            hlc: record.hlc,
            deps: &Arc::new(record.deps.clone()),
            gtid: &record.gtid,
            changes: &changes,
        };
        let touched = touched(self.book, &incoming).map_err(identity)?;
        Ok(self.gather.pick(&touched))
    }

    fn is_wanted(&self, change: &TableChange) -> bool {
        self.tables.contains(&change.table.full_name())
    }

    /// Whether rows of a part's change are wanted, or may stand or fall with such.
    fn may_count(&self, change: &TableChange) -> bool {
        let table = &change.table;
        let key = table.key_columns();
        self.is_wanted(change)
            || self.book.of(table).1.atomic.is_some()
            || change.rows.iter().any(|row| moves(&key, row))
    }

    fn take(&mut self, gtid: &str, picked: Vec<Picked>) -> Result<(), Silence> {
        if picked.is_empty() {
            return Ok(());
        }
        self.gather.take(&gtid.into(), picked);
        if self.gather.bytes() > BYTES_MAX { Err(Silence::Large(BYTES_MAX)) } else { Ok(()) }
    }

    /// By wanted row its identity, or why it has none; and what was gathered.
    pub(super) fn finish(self) -> (Vec<Result<RowKey, Untold>>, Gather) {
        let one = |known: Vec<RowKey>| match known[..] {
            [] => Err(Untold::Older),
            [key] => Ok(key),
            _ => Err(Untold::Altered),
        };
        (self.keys.into_iter().map(one).collect(), self.gather)
    }
}

impl Reader {
    /// Takes the next record; its writes count with the last part of their transaction.
    pub(super) fn take(&mut self, record: Record, search: &mut Search<'_>) -> Result<(), Silence> {
        let Some(order) = &mut self.order else {
            self.begin(&record);
            return Ok(());
        };
        let held = order.place();
        let begins = matches!(record.body, RecordBody::Start(_)) && record.seq == held.seq;
        if record.epoch > held.epoch && !begins {
            // Its beginning stands before what was read: so what was read may not count.
            return Err(Silence::Fenced(record.origin));
        }
        match order.accept(&record).map_err(|why| Silence::Broken(record.origin, why))? {
            Accepted::Next => {}
            Accepted::NewEpoch => {
                self.forget();
                self.raise_from(&record);
            }
            Accepted::Duplicate | Accepted::Fenced => return Ok(()),
        }
        let RecordBody::Transaction(txn) = &record.body else { return Ok(()) };
        if txn.aborted {
            self.forget();
            return Ok(());
        }
        self.open.extend(search.pick(&record, txn, &mut self.parts)?);
        if txn.last {
            let picked = std::mem::take(&mut self.open);
            self.forget();
            return search.take(&record.gtid, picked);
        }
        Ok(())
    }

    /// Nothing that was read is of a transaction that goes on.
    fn forget(&mut self) {
        self.open.clear();
        self.parts = Parts::default();
    }

    /// The first record may have been a fenced agent's, with an earlier stamp than the one
    /// that counts at its seq; the Start record that goes on there has a later one.
    fn raise_from(&mut self, start: &Record) {
        if let Some((seq, hlc)) = &mut self.from
            && *seq == start.seq
        {
            *hlc = start.hlc.max(*hlc);
        }
    }

    /// The first record says what stands before it. One of a transaction that goes on does
    /// not: an agent that died may have left it without its end.
    fn begin(&mut self, record: &Record) {
        if matches!(&record.body, RecordBody::Transaction(txn) if !txn.last) {
            return;
        }
        self.order = Some(ReaderOrder::after(Place { epoch: record.epoch, seq: record.seq }));
        self.from = Some((record.seq, record.hlc));
    }
}

/// What is known after these readers; `None` of an outbox that holds nothing more. A reader
/// that did not come to what is `applied` began at a record of a fenced agent: it knows
/// nothing.
pub(super) fn extent<'a>(
    readers: impl Iterator<Item = (RegionId, Option<&'a Reader>)>,
    applied: &Vector,
) -> Extent {
    let mut extent = Extent { floor: Vector::default(), covered: Hlc(0) };
    for (origin, reader) in readers {
        let unknown = (Seq(u64::MAX), Hlc(u64::MAX));
        let from = reader.map_or((Seq(0), Hlc(0)), |reader| reader.from.unwrap_or(unknown));
        let came_to = reader.and_then(|reader| reader.order).map_or(Seq(0), |at| at.place().seq);
        let (seq, hlc) = if came_to < applied.get(origin) { unknown } else { from };
        extent.floor.raise(origin, seq);
        extent.covered = extent.covered.max(hlc);
    }
    extent
}

#[cfg(test)]
mod tests;
