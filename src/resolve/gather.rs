//! Gathers, from the transactions of all origins in any order between origins, the writes
//! that decide what some rows show.
//!
//! The first round finds the writes of the rows themselves. Where the last of one may be
//! void, a second one finds what may make it void: later writes of its group's rows, and
//! of their unique values.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use prost::Message as _;

use super::{Order, Policy, Recount, Touched};
use crate::change::{Dot, RegionId, Row};
use crate::clock::Hlc;
use crate::version::{Body, RowKey, Write};

/// What a write holds beside its rows, its transaction's GTID too, about.
const WRITE_BYTES: usize = 512;

/// A write that was picked out of a transaction.
#[derive(Clone, Debug)]
pub struct Picked {
    write: Write,
    policy: Arc<Policy>,
}

/// A write of a wanted row.
#[derive(Debug)]
struct Kept {
    write: Write,
    /// Its group, shared by the rows of it that are wanted.
    group: Option<Arc<[Write]>>,
    gtid: Arc<str>,
}

/// The writes that decide some rows.
#[derive(Debug, Default)]
pub struct Gather {
    rows: HashMap<RowKey, Vec<Kept>>,
    /// Places of which writes that are not earlier than this are wanted too.
    beside: HashMap<RowKey, (Hlc, RegionId)>,
    others: Vec<Write>,
    bytes: usize,
}

impl Gather {
    /// From now on writes of this row are picked.
    pub fn want(&mut self, key: RowKey) {
        self.rows.entry(key).or_default();
    }

    /// Whether only the tables of the wanted rows are of interest.
    #[must_use]
    pub fn is_first_round(&self) -> bool {
        self.beside.is_empty()
    }

    /// About how much memory it takes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is of interest of what is judged together of a transaction.
    #[must_use]
    pub fn pick(&self, part: &[Touched<'_>]) -> Vec<Picked> {
        let wanted = |write: &Write| self.rows.contains_key(&write.key);
        let groups = part
            .iter()
            .filter(|one| wanted(&one.write))
            .filter_map(|one| one.write.body.as_ref()?.group.clone());
        let mut grouped: HashSet<RowKey> = HashSet::new();
        for group in groups {
            // A row is of one group.
            if !group.first().is_some_and(|first| grouped.contains(first)) {
                grouped.extend(group.iter().copied());
            }
        }
        let picked = part.iter().filter(|one| {
            let write = &one.write;
            let rank = write.version.rank();
            wanted(write)
                || grouped.contains(&write.key)
                || write.places().any(|at| self.beside.get(&at).is_some_and(|&from| rank >= from))
        });
        picked.map(whole).collect()
    }

    /// Takes what was picked of a whole transaction: in the first round the writes of the
    /// rows, then those beside them.
    pub fn take(&mut self, gtid: &Arc<str>, picked: Vec<Picked>) {
        if self.is_first_round() {
            let groups = groups(&picked);
            for Picked { write, policy } in &picked {
                let first = write.body.as_ref().and_then(|body| body.group.as_ref()?.first());
                let group = first.and_then(|first| groups.get(first).cloned());
                self.keep((write, policy), group, gtid);
            }
            return;
        }
        for Picked { write, .. } in picked {
            let rank = write.version.rank();
            if write.places().any(|at| self.beside.get(&at).is_some_and(|&from| rank >= from)) {
                self.bytes += bytes(&write);
                self.others.push(write);
            }
        }
    }

    fn keep(
        &mut self,
        (write, policy): (&Write, &Policy),
        group: Option<Arc<[Write]>>,
        gtid: &Arc<str>,
    ) {
        let Some(held) = self.rows.get_mut(&write.key) else { return };
        let dot = write.version.dot;
        let adds_up = policy.merge.is_some();
        let replaced =
            |by: &Kept| by.write.version.dot != dot && replaces(policy, &by.write, write);
        if !adds_up && held.iter().any(replaced) {
            return;
        }
        let kept = Kept { write: write.clone(), group, gtid: Arc::clone(gtid) };
        self.bytes += bytes(write) + kept.group.as_ref().map_or(0, |group| shared(group, 2));
        if !adds_up {
            for gone in held.extract_if(.., |held| replaces(policy, &kept.write, &held.write)) {
                self.bytes -= bytes(&gone.write);
                self.bytes -= gone.group.as_ref().map_or(0, |group| shared(group, 1));
            }
        }
        held.push(kept);
    }

    /// The writes that are kept, each group once.
    fn kept(&self) -> impl Iterator<Item = &Write> {
        let mut seen = HashSet::new();
        self.rows.values().flatten().flat_map(move |kept| {
            let group = kept.group.iter().filter(|group| seen.insert(group.as_ptr().addr()));
            let group: Vec<&Write> = group.flat_map(|group| group.iter()).collect();
            std::iter::once(&kept.write).chain(group)
        })
    }

    /// The source's names of the transactions that wrote the rows.
    #[must_use]
    pub fn gtids(&self) -> HashMap<Dot, Arc<str>> {
        let kept = self.rows.values().flatten();
        kept.map(|kept| (kept.write.version.dot, Arc::clone(&kept.gtid))).collect()
    }

    /// After the first round: whether a second one is needed, through all transactions
    /// again, since writes may be void.
    pub fn look_beside(&mut self) -> bool {
        let mut beside = std::mem::take(&mut self.beside);
        let alone = |body: &Arc<Body>| body.group.is_none() && body.claims.is_empty();
        for write in self.kept().filter(|write| !write.body.iter().all(alone)) {
            let from = write.version.rank();
            for place in write.places() {
                let held = beside.entry(place).or_insert(from);
                *held = from.min(*held);
            }
        }
        self.beside = beside;
        !self.beside.is_empty()
    }

    /// The writes found.
    #[must_use]
    pub fn finish(self) -> Recount {
        Recount::new(self.kept().chain(&self.others).cloned().collect())
    }
}

/// Whether a row that is no sum is decided without `held` once `write` is known. What makes
/// writes void is gathered by itself.
fn replaces(policy: &Policy, write: &Write, held: &Write) -> bool {
    let (a, b) = (&write.version, &held.version);
    match &policy.order {
        // What a transaction writes again.
        _ if a.dot == b.dot => true,
        Order::Latest => a.rank() > b.rank(),
        // An origin's later write has seen what its earlier ones had.
        Order::Priority(_) | Order::Column(_) => {
            a.dot.origin == b.dot.origin && a.dot.seq > b.dot.seq
        }
    }
}

/// The write with its rows, which no longer hold the record that they came in.
fn whole(one: &Touched<'_>) -> Picked {
    let kept = one.write.body.as_deref();
    let rows = kept.map_or((one.before, one.after), |b| (b.before.as_ref(), b.after.as_ref()));
    let body = Body {
        table: Arc::clone(&one.table),
        before: rows.0.map(Row::compact),
        after: rows.1.map(Row::compact),
        group: kept.and_then(|body| body.group.clone()),
        claims: kept.map(|body| body.claims.clone()).unwrap_or_default(),
        adds_up: one.policy.merge.is_some(),
    };
    let write = Write { body: Some(Arc::new(body)), foreign: None, ..one.write.clone() };
    Picked { write, policy: Arc::clone(&one.policy) }
}

/// By its first row the writes of each group.
fn groups(picked: &[Picked]) -> HashMap<RowKey, Arc<[Write]>> {
    let mut groups: HashMap<RowKey, Vec<Write>> = HashMap::new();
    for Picked { write, .. } in picked {
        let group = write.body.as_ref().and_then(|body| body.group.as_ref());
        if let Some(first) = group.and_then(|group| group.first()) {
            groups.entry(*first).or_default().push(write.clone());
        }
    }
    groups.into_iter().map(|(first, writes)| (first, writes.into())).collect()
}

/// What a group takes in memory, counted for one of its holders: nothing where there are more
/// than so many.
fn shared(group: &Arc<[Write]>, holders: usize) -> usize {
    if Arc::strong_count(group) > holders { 0 } else { group.iter().map(bytes).sum() }
}

fn bytes(write: &Write) -> usize {
    let rows = write.body.iter().flat_map(|body| [&body.before, &body.after]).flatten();
    WRITE_BYTES + rows.map(Row::encoded_len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Column, Dot, Kind, RowChange, Seq, Table, TableChange, Value, Vector};
    use crate::resolve::{Incoming, Merge, Rulebook, touched};

    /// What is kept of a row that each of two regions writes a thousand times.
    fn kept(policy: &Policy) -> (usize, usize) {
        let column = |name: &str, key| Column { name: name.into(), key, ..Column::default() };
        let columns = vec![column("id", 1), column("n", 0)];
        let table = Table { schema: "s".into(), name: "t".into(), columns, ..Table::default() };
        let row = |n| Row { values: [1, n].map(|n| Value::new(Kind::Int(n))).to_vec() };
        let key = RowKey::of(&table, &[0], &row(0)).unwrap();
        let given = policy.clone();
        let (book, mut gather) = (Rulebook::new(move |_| given.clone()), Gather::default());
        gather.want(key);
        for (origin, n) in [1, 2].into_iter().flat_map(|o| (1..=1_000).map(move |n| (o, n))) {
            let rows = vec![RowChange { before: Some(row(n - 1)), after: Some(row(n)) }];
            let changes = [TableChange { table: Arc::new(table.clone()), rows }];
            let number = u64::try_from(n).unwrap();
            let dot = Dot { origin: RegionId::new(origin).unwrap(), seq: Seq(number) };
            let deps = Arc::new(Vector::default());
            let (hlc, changes) = (Hlc(number), &changes[..]);
            let txn = Incoming { dot, hlc, deps: &deps, gtid: "", changes };
            let picked = gather.pick(&touched(&book, &txn).unwrap());
            gather.take(&"0-1-1".into(), picked);
        }
        assert_eq!(gather.gtids().len(), gather.rows[&key].len());
        let bytes = gather.bytes();
        assert!(!gather.look_beside());
        (gather.rows[&key].len(), bytes)
    }

    /// Two rows that change their keys together, both wanted, until a later transaction of a
    /// thousand such is known, and one that writes them apart.
    #[test]
    fn a_group_counts_once_for_all_who_want_its_rows() {
        let column = |name: &str, key| Column { name: name.into(), key, ..Column::default() };
        let table = Table {
            schema: "s".into(),
            name: "t".into(),
            columns: vec![column("id", 1)],
            ..Table::default()
        };
        let row = |n| Row { values: vec![Value::new(Kind::Int(n))] };
        let book = Rulebook::default();
        let mut gather = Gather::default();
        for n in [1, 2] {
            gather.want(RowKey::of(&table, &[0], &row(n)).unwrap());
        }
        let mut take = |seq, rows: Vec<RowChange>| {
            let changes = [TableChange { table: Arc::new(table.clone()), rows }];
            let dot = Dot { origin: RegionId::new(1).unwrap(), seq: Seq(seq) };
            let (deps, hlc) = (Arc::new(Vector::default()), Hlc(seq));
            let txn = Incoming { dot, hlc, deps: &deps, gtid: "", changes: &changes };
            let picked = gather.pick(&touched(&book, &txn).unwrap());
            gather.take(&"0-1-1".into(), picked);
            gather.bytes()
        };
        let moved = |n, to| RowChange { before: Some(row(n)), after: Some(row(to)) };
        let all = |count| (1..=count).map(|n| moved(n, n + 10_000)).collect::<Vec<_>>();
        let few = take(1, all(3));
        assert!(few < (2 + 6 + 2) * WRITE_BYTES, "{few}");
        let many = take(2, all(1_000));
        assert!((2_000 * WRITE_BYTES..2_100 * WRITE_BYTES).contains(&many), "{many}");
        let back = |n| RowChange { before: None, after: Some(row(n)) };
        assert!(take(3, vec![back(1), back(2)]) < 3 * WRITE_BYTES, "the group is no longer held");
    }

    #[test]
    fn of_a_row_that_is_written_often_no_more_is_kept_than_decides_it() {
        let regions = vec![RegionId::new(1).unwrap()];
        let latest = Policy::default();
        assert_eq!(kept(&latest).0, 1);
        assert!(kept(&latest).1 < 2 * WRITE_BYTES);
        let priority = Policy { order: Order::Priority(regions), ..Policy::default() };
        assert_eq!(kept(&priority).0, 2);
        let merge = Some(Merge { deltas: vec![1], groups: vec![] });
        let (writes, bytes) = kept(&Policy { merge, ..Policy::default() });
        assert!(writes == 2_000 && bytes > 2_000 * WRITE_BYTES, "a sum needs them all");
    }
}
