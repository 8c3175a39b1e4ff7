//! One simulated region: a database, a binlog, an outbox, inboxes, and an agent that
//! can die.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::client;
use super::invariants::orphans_shown;
use super::parts::{self, is_large};
use super::schema::{self, Name};
use crate::change::{
    Accepted, Dot, Position, ReaderOrder, Record, RecordBody, RegionId, Row, Seq, TableChange,
    Transaction, Vector, pb,
};
use crate::clock::{Clock, CommitTime, Hlc, Now};
use crate::mutant::{self, Mutant};
use crate::resolve::{Conflict, Incoming, Plan, Planner, Rulebook};
use crate::version::{BatchId, Heads, Index, Reread, Span, Write};

pub(super) type Key = (Name, i64);

/// How far a stamp may lie ahead of the true time, microseconds.
pub(super) const CLOCK_LIMIT_US: u64 = 10;

/// What a region's database committed.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Local {
        changes: Vec<TableChange>,
        commit_us: u64,
        seen: Vector,
        repair: bool,
    },
    /// Without marks it is a repair.
    Applied {
        marks: Vec<(Dot, Hlc)>,
    },
}

/// A record on its way to be applied.
struct Item {
    dot: Dot,
    hlc: Hlc,
    deps: Arc<Vector>,
    record: Arc<Record>,
}

impl Item {
    /// Without changes of a heartbeat.
    fn incoming(&self) -> Incoming<'_> {
        let changes: &[TableChange] = match &self.record.body {
            RecordBody::Transaction(txn) => &txn.changes,
            RecordBody::Heartbeat(_) | RecordBody::Start(_) => &[],
        };
        Incoming { dot: self.dot, hlc: self.hlc, deps: &self.deps, gtid: "", changes }
    }

    fn is_large(&self) -> bool {
        is_large(self.dot, self.incoming().changes)
    }
}

struct Batch {
    id: BatchId,
    items: Vec<Item>,
    plan: Plan,
    /// Once written: where the binlog ended under the locks.
    point: Option<usize>,
}

/// What is lost when the agent dies.
pub(super) struct Agent {
    index: Index,
    clock: Clock,
    seen: Vector,
    seq: Seq,
    /// Binlog entries captured.
    pub(super) captured: usize,
    cursors: BTreeMap<RegionId, (usize, ReaderOrder)>,
    queues: BTreeMap<RegionId, VecDeque<Item>>,
    batch: Option<Batch>,
    heads: Heads,
    batches: u64,
}

pub(super) struct Region {
    pub(super) id: RegionId,
    peers: Vec<RegionId>,
    pub(super) rows: BTreeMap<Key, Row>,
    pub(super) applied: Vector,
    pub(super) binlog: Vec<Entry>,
    /// The outbox.
    pub(super) log: Vec<Arc<Record>>,
    inboxes: BTreeMap<RegionId, Vec<Arc<Record>>>,
    /// Per peer, records of its outbox that have come; copies do not count.
    received: BTreeMap<RegionId, usize>,
    pub(super) agent: Agent,
    pub(super) skew_us: i64,
    book: Rulebook,
    /// What the conflict log holds.
    pub(super) conflicts: Vec<Conflict>,
    /// Per own transaction, what its author truly had seen.
    pub(super) truth: Vec<Vector>,
    /// Repairs that were shipped; there must be none.
    pub(super) repairs: BTreeSet<Seq>,
    /// Journal rows that clients wrote here.
    pub(super) journal: usize,
    /// The furthest that a stamp was ahead of the true time.
    pub(super) ahead_us: u64,
    pub(super) crashes: usize,
    pub(super) stale: usize,
    /// Rows that batches had to find.
    pub(super) found: usize,
}

impl Region {
    pub(super) fn new(id: RegionId, peers: Vec<RegionId>) -> Self {
        let inboxes = peers.iter().map(|&peer| (peer, Vec::new())).collect();
        let mut region = Self {
            id,
            rows: BTreeMap::new(),
            applied: Vector::default(),
            binlog: Vec::new(),
            log: Vec::new(),
            inboxes,
            received: BTreeMap::new(),
            agent: Agent {
                index: Index::default(),
                clock: Clock::new(Hlc(0), CLOCK_LIMIT_US),
                seen: Vector::default(),
                seq: Seq(0),
                captured: 0,
                cursors: BTreeMap::new(),
                queues: BTreeMap::new(),
                batch: None,
                heads: Heads::default(),
                batches: 0,
            },
            skew_us: 0,
            book: schema::book(),
            conflicts: Vec::new(),
            truth: Vec::new(),
            repairs: BTreeSet::new(),
            journal: 0,
            ahead_us: 0,
            crashes: 0,
            stale: 0,
            found: 0,
            peers,
        };
        region.start();
        region
    }

    /// Rows that a client can't write: a batch in flight holds them.
    pub(super) fn locked(&self) -> BTreeSet<Key> {
        let written = self.agent.batch.iter().filter(|batch| batch.point.is_some());
        let tables = written.flat_map(|batch| &batch.plan.tables);
        let rows = tables.flat_map(|plan| {
            let name = schema::of(&plan.table);
            let merged = plan.merges.iter().map(|merge| &merge.row);
            let rows = plan.puts.iter().chain(&plan.removes).chain(merged);
            rows.map(move |row| (name, schema::int(row, schema::ID).expect("a key")))
        });
        rows.collect()
    }

    /// Rows that a batch in flight makes.
    pub(super) fn in_flight(&self) -> Vec<(Name, Row)> {
        let written = self.agent.batch.iter().filter(|batch| batch.point.is_some());
        let tables = written.flat_map(|batch| &batch.plan.tables);
        let rows = tables.flat_map(|plan| {
            let name = schema::of(&plan.table);
            let merged = plan.merges.iter().filter_map(move |merge| {
                let id = schema::int(&merge.row, schema::ID).expect("a key");
                client::merged(self.rows.get(&(name, id)), merge)
            });
            plan.puts.iter().cloned().chain(merged).map(move |row| (name, row))
        });
        rows.collect()
    }

    /// Unique values that a batch in flight holds.
    pub(super) fn locked_values(&self) -> BTreeSet<i64> {
        let written = self.agent.batch.iter().filter(|batch| batch.point.is_some());
        let plans = written.flat_map(|batch| &batch.plan.tables);
        let rows = plans.filter(|plan| schema::of(&plan.table) == Name::Unique);
        let rows = rows.flat_map(|plan| plan.puts.iter().chain(&plan.removes));
        rows.filter_map(|row| schema::int(row, schema::U)).collect()
    }

    /// A client's transaction, already done on `rows`.
    pub(super) fn committed(&mut self, changes: Vec<TableChange>, now_us: u64) {
        let journal = |c: &&TableChange| schema::of(&c.table) == Name::Journal;
        self.journal += changes.iter().filter(journal).count();
        let commit_us = now_us.saturating_add_signed(self.skew_us);
        let seen = self.applied.clone();
        self.binlog.push(Entry::Local { changes, commit_us, seen, repair: false });
    }

    pub(super) fn capture(&mut self, now_us: u64) {
        let Some(entry) = self.binlog.get(self.agent.captured).cloned() else { return };
        self.agent.captured += 1;
        let agent = &mut self.agent;
        match entry {
            Entry::Applied { marks } if marks.is_empty() => {}
            Entry::Applied { marks } => {
                for (dot, hlc) in &marks {
                    agent.seen.raise(dot.origin, dot.seq);
                    agent.clock.observe(*hlc);
                }
                let dots: Vec<Dot> = marks.iter().map(|(dot, _)| *dot).collect();
                agent.index.marker(&dots);
            }
            Entry::Local { changes, commit_us, seen, repair } => {
                agent.seq = agent.seq.next();
                self.repairs.remove(&agent.seq);
                self.repairs.extend(repair.then_some(agent.seq));
                let dot = Dot { origin: self.id, seq: agent.seq };
                let now = Now { trusted_us: now_us, source_off_us: 0 };
                let hlc = agent.clock.stamp(CommitTime::Micros(commit_us), now);
                self.ahead_us = self.ahead_us.max(hlc.0.saturating_sub(now_us));
                let deps = Arc::new(agent.seen.clone());
                let incoming = Incoming { dot, hlc, deps: &deps, gtid: "", changes: &changes };
                let writes = parts::writes(&self.book, &incoming);
                writes.iter().for_each(|write| agent.index.enter_local(write));
                self.truth.push(seen);
                let body = Transaction { last: true, changes, ..Default::default() };
                let record = self.record(hlc, RecordBody::Transaction(body));
                self.log.push(record);
            }
        }
    }

    fn record(&self, hlc: Hlc, body: RecordBody) -> Arc<Record> {
        Arc::new(Record {
            origin: self.id,
            epoch: 1,
            seq: self.agent.seq,
            hlc,
            deps: self.agent.seen.clone(),
            gtid: String::new(),
            position: Position(self.agent.captured.to_string()),
            topology: 0,
            body,
        })
    }

    pub(super) fn beat(&mut self) {
        let body = RecordBody::Heartbeat(pb::Heartbeat::default());
        let record = self.record(self.agent.clock.last(), body);
        self.log.push(record);
    }

    fn read(&mut self, now_us: u64) {
        for (&peer, inbox) in &self.inboxes {
            let (at, order) = self.agent.cursors.get_mut(&peer).expect("a cursor for each peer");
            while let Some(record) = inbox.get(*at) {
                *at += 1;
                if order.accept(record).expect("the inbox has no gap") != Accepted::Next {
                    continue;
                }
                let dot = Dot { origin: peer, seq: record.seq };
                let deps = Arc::new(record.deps.clone());
                let late = mutant::is(Mutant::StampAtApply);
                let hlc = if late { Hlc(now_us) } else { record.hlc };
                let queue = self.agent.queues.entry(peer).or_default();
                queue.push_back(Item { dot, hlc, deps, record: Arc::clone(record) });
            }
        }
    }

    /// Plans a batch of what can go.
    pub(super) fn plan(&mut self, txns: usize, now_us: u64) -> Result<(), String> {
        if self.agent.batch.is_some() {
            return Ok(());
        }
        self.read(now_us);
        let mut planned = self.applied.clone();
        let mut items = Vec::new();
        loop {
            let before = items.len();
            for (&origin, queue) in &mut self.agent.queues {
                let Some(front) = queue.front() else { continue };
                let goes = planned.awaits(&front.deps, origin, self.id).is_none();
                let apart = items.last().is_some_and(Item::is_large) || front.is_large();
                if goes && items.len() < txns && (items.is_empty() || !apart) {
                    let item = queue.pop_front().expect("the front was just seen");
                    planned.raise(origin, item.dot.seq);
                    items.push(item);
                }
            }
            if items.len() == before {
                break;
            }
        }
        if items.is_empty() {
            return Ok(());
        }
        let plan = self.planned(&items)?;
        self.agent.index.hidden.hide(plan.hidden.iter().copied());
        self.agent.batches += 1;
        let id = BatchId(self.agent.batches);
        self.agent.index.stage(id, marks(&items).into_keys().collect(), plan.writes.clone());
        self.agent.batch = Some(Batch { id, items, plan, point: None });
        Ok(())
    }

    /// One plan of all; of a large transaction, which is alone, that of its parts.
    fn planned(&self, items: &[Item]) -> Result<Plan, String> {
        let (index, book) = (&self.agent.index, &self.book);
        let planned = match items {
            [item] if item.is_large() => parts::plan(index, book, &item.incoming()),
            _ => {
                let mut planner = Planner::new(index, book);
                let added = items.iter().try_for_each(|item| planner.add(&item.incoming()));
                added.map(|()| planner.finish())
            }
        };
        planned.map_err(|error| format!("the planner refuses: {error}"))
    }

    /// Takes the batch's row locks and reads the end of the binlog under them.
    pub(super) fn write(&mut self) {
        let end = self.binlog.len();
        if let Some(batch) = self.agent.batch.as_mut().filter(|batch| batch.point.is_none()) {
            batch.point = Some(end);
        }
    }

    /// Looks again and commits, when capture has come far enough.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        let captured = self.agent.captured;
        let ready = |batch: &mut Batch| batch.point.is_some_and(|point| captured >= point);
        let Some(batch) = self.agent.batch.take_if(ready) else { return Ok(()) };
        if batch.plan.is_stale(&self.agent.index, batch.id) {
            self.stale += 1;
            self.agent.index.abandon(batch.id);
            for item in batch.items.into_iter().rev() {
                let queue = self.agent.queues.entry(item.dot.origin).or_default();
                queue.push_front(item);
            }
            return Ok(());
        }
        self.found += batch.plan.tables.iter().map(|table| table.found().count()).sum::<usize>();
        client::run_plan(&mut self.rows, &batch.plan)?;
        if batch.items.len() == 1 && captured == self.binlog.len() {
            orphans_shown::check(&self.rows, &batch.plan.conflicts)?;
        }
        self.conflicts.extend(batch.plan.conflicts);
        for item in &batch.items {
            self.applied.raise(item.dot.origin, item.dot.seq);
            self.agent.heads.raise(item.dot.origin, &item.deps);
        }
        let marks: Vec<_> = marks(&batch.items).into_iter().collect();
        if !marks.is_empty() {
            self.binlog.push(Entry::Applied { marks });
        }
        let stable = self.agent.heads.stable(&self.peers, self.id, &self.applied);
        self.agent.index.collect(&stable);
        Ok(())
    }

    /// The agent dies; another starts from outbox, inboxes and database.
    pub(super) fn crash(&mut self) {
        self.crashes += 1;
        self.start();
    }

    fn start(&mut self) {
        let tail = self.log.last();
        let seq = tail.map_or(Seq(0), |record| record.seq);
        let hlc = tail.map_or(Hlc(0), |record| record.hlc);
        let captured = tail.and_then(|record| record.position.0.parse().ok()).unwrap_or(0);
        // What was stamped and did not reach the outbox was never shipped.
        self.truth.truncate(usize::try_from(seq.0).expect("small"));
        let mut heads = Heads::default();
        for (&peer, inbox) in &self.inboxes {
            let applied = self.applied.get(peer);
            let last = inbox.iter().rfind(|r| r.seq <= applied && !is_beat(r));
            if let Some(record) = last {
                heads.raise(peer, &Arc::new(record.deps.clone()));
            }
        }
        let stable = heads.stable(&self.peers, self.id, &self.applied);
        self.agent = Agent {
            index: self.rebuilt(&stable, seq),
            clock: Clock::new(hlc, CLOCK_LIMIT_US),
            seen: tail.map(|record| record.deps.clone()).unwrap_or_default(),
            seq,
            captured,
            cursors: self
                .peers
                .iter()
                .map(|&peer| (peer, (0, ReaderOrder::after(self.applied.place(peer)))))
                .collect(),
            queues: BTreeMap::new(),
            batch: None,
            heads,
            batches: self.agent.batches,
        };
    }

    fn rebuilt(&self, stable: &Vector, own: Seq) -> Index {
        let mut writes = Vec::new();
        let logs = self.peers.iter().map(|&peer| (peer, self.applied.get(peer)));
        for (origin, through) in logs.chain([(self.id, own)]) {
            self.read_writes(origin, (stable.get(origin), through), &mut writes);
        }
        let mut back = Reread::behind(stable.clone());
        writes.iter().for_each(|write| back.take(write));
        while let Some(spans) = back.further() {
            let known = writes.len();
            for Span { origin, after, through } in spans {
                self.read_writes(origin, (after.seq, through), &mut writes);
            }
            writes[known..].iter().for_each(|write| back.take(write));
        }
        writes.sort_by_key(|write| write.version.rank());
        let mut index = Index::default();
        index
            .hidden
            .begin(self.applied.iter().chain([Dot { origin: self.id, seq: own }]).collect());
        for write in &writes {
            index.restore(write);
        }
        index.collect(stable);
        index
    }

    /// The writes of a log behind the one seq, up to and with the other.
    fn read_writes(&self, origin: RegionId, (after, through): (Seq, Seq), into: &mut Vec<Write>) {
        let log = self.inboxes.get(&origin).unwrap_or(&self.log);
        let mut last = after;
        for record in log {
            let RecordBody::Transaction(txn) = &record.body else { continue };
            if record.seq != last.next() || record.seq > through {
                continue;
            }
            last = record.seq;
            let deps = Arc::new(record.deps.clone());
            let (dot, hlc) = (Dot { origin, seq: record.seq }, record.hlc);
            let incoming = Incoming { dot, hlc, deps: &deps, gtid: "", changes: &txn.changes };
            into.extend(parts::writes(&self.book, &incoming));
        }
    }

    pub(super) fn receive(&mut self, record: Arc<Record>, first: bool) {
        let origin = record.origin;
        self.inboxes.get_mut(&origin).expect("an inbox for each peer").push(record);
        *self.received.entry(origin).or_default() += usize::from(first);
    }

    pub(super) fn received(&self, from: RegionId) -> usize {
        self.received.get(&from).copied().unwrap_or(0)
    }

    /// The last transaction shipped.
    pub(super) fn log_seq(&self) -> Seq {
        self.log.last().map_or(Seq(0), |record| record.seq)
    }

    /// Whether all that the others shipped is applied.
    pub(super) fn has_all(&self, shipped: &BTreeMap<RegionId, Seq>) -> bool {
        shipped.iter().all(|(&origin, &seq)| origin == self.id || self.applied.get(origin) >= seq)
    }

    /// Whether nothing is left to do here.
    pub(super) fn is_quiet(&self) -> bool {
        let agent = &self.agent;
        agent.captured == self.binlog.len()
            && agent.batch.is_none()
            && agent.queues.values().all(|queue| queue.iter().all(|item| is_beat(&item.record)))
    }
}

fn is_beat(record: &Record) -> bool {
    !matches!(record.body, RecordBody::Transaction(_))
}

fn marks(items: &[Item]) -> BTreeMap<Dot, Hlc> {
    let txns = items.iter().filter(|item| !is_beat(&item.record));
    let last: BTreeMap<RegionId, (Dot, Hlc)> =
        txns.map(|item| (item.dot.origin, (item.dot, item.hlc))).collect();
    last.into_values().collect()
}
