//! Stamps what capture reads: seq, hlc and deps, the index, and the record for the
//! outbox. Owns the local order of everything: the index and the vectors move here,
//! in the order of the binlog.

use std::sync::Arc;

use crate::apply::SharedIndex;
use crate::capture::{AppliedMark, CaptureEvent, Checkpoint};
use crate::change::{
    Dot, Place, Position, Record, RecordBody, RegionId, Seq, TableChange, Transaction, Vector, pb,
};
use crate::clock::{Clock, CommitTime, Hlc, Now};
use crate::resolve::{Incoming, Parts, Rulebook, touched};
use crate::ship::Tail;
use crate::version::{Index, KeyError, Write};

/// A transaction whose parts are on their way.
#[derive(Debug)]
struct Open {
    seq: Seq,
    hlc: Hlc,
    deps: Arc<Vector>,
    commit_us: u64,
    parts: Parts,
    writes: Vec<Write>,
}

/// The state of stamping: starts at the outbox's tail, moves with every event.
#[derive(Debug)]
pub(crate) struct Stamper {
    region: RegionId,
    /// Of the topology by which this region resolves conflicts.
    topology: u32,
    epoch: u64,
    seq: Seq,
    clock: Clock,
    seen: Vector,
    position: Position,
    index: SharedIndex,
    book: Rulebook,
    open: Option<Open>,
    /// Set as writes are judged: a table whose policy refuses what it does to a row.
    refused: Option<String>,
}

impl Stamper {
    pub(crate) fn new(
        (region, topology): (RegionId, u32),
        epoch: u64,
        tail: &Tail,
        clock: Clock,
        (index, book): (SharedIndex, Rulebook),
    ) -> Self {
        Self {
            region,
            topology,
            epoch,
            seq: tail.seq,
            clock,
            seen: tail.deps.clone(),
            position: tail.position.clone(),
            index,
            book,
            open: None,
            refused: None,
        }
    }

    /// The table that the last part changed against its policy, given once: every peer
    /// halts at it.
    pub(crate) const fn refused(&mut self) -> Option<String> {
        self.refused.take()
    }

    /// Takes the next event: gives the record to send, if there is one.
    ///
    /// # Errors
    /// [`KeyError`] for a row without an exact identity; nothing of it is sent.
    pub(crate) fn take(
        &mut self,
        event: CaptureEvent,
        now: Now,
    ) -> Result<Option<Record>, KeyError> {
        match event {
            CaptureEvent::Changes { gtid, commit, part, last, changes, after } => {
                let part = Part { gtid, commit, part, last, changes, after };
                self.changes(part, now).map(Some)
            }
            CaptureEvent::Aborted => Ok(self.aborted()),
            CaptureEvent::Applied { marks, after } => {
                self.applied(&marks);
                self.position = after.position;
                Ok(None)
            }
            CaptureEvent::Skipped { after } | CaptureEvent::Ddl { after, .. } => {
                self.position = after.position;
                Ok(None)
            }
        }
    }

    fn changes(&mut self, part: Part, now: Now) -> Result<Record, KeyError> {
        let open = self.open.take().unwrap_or_else(|| Open {
            seq: self.seq.next(),
            hlc: self.clock.stamp(part.commit, now),
            deps: Arc::new(self.seen.clone()),
            commit_us: self.clock.commit_us(part.commit, now),
            parts: Parts::default(),
            writes: Vec::new(),
        });
        let mut open = open;
        let changes = open.parts.take(&self.book, &part.changes, part.last)?;
        if let Some(bytes) = open.parts.grown() {
            tracing::warn!(
                gtid = part.gtid,
                bytes,
                "rows of a large transaction are held in memory"
            );
        }
        let incoming = Incoming {
            dot: Dot { origin: self.region, seq: open.seq },
            hlc: open.hlc,
            deps: &open.deps,
            gtid: &part.gtid,
            changes: &changes,
        };
        let touched = touched(&self.book, &incoming)?;
        let refused = touched.iter().find(|one| one.is_refused());
        self.refused = refused.map(|one| one.table.full_name().to_string());
        open.writes.extend(touched.into_iter().map(|one| one.write));
        // Before the index takes the writes in, which is as much again.
        drop(changes);
        if part.last {
            self.position = part.after.position;
            self.seq = open.seq;
            if part.part > 0 {
                Parts::settle(&mut open.writes);
            }
            self.enter(&open);
        }
        let body = Transaction {
            part: part.part,
            last: part.last,
            aborted: false,
            commit_us: open.commit_us,
            changes: part.changes,
        };
        let record = Record {
            origin: self.region,
            epoch: self.epoch,
            seq: open.seq,
            hlc: open.hlc,
            deps: Vector::clone(&open.deps),
            gtid: part.gtid,
            position: self.position.clone(),
            topology: self.topology,
            body: RecordBody::Transaction(body),
        };
        if !part.last {
            self.open = Some(open);
        }
        Ok(record)
    }

    fn enter(&self, open: &Open) {
        let mut index = lock(&self.index);
        for write in &open.writes {
            index.enter_local(write);
        }
    }

    fn aborted(&mut self) -> Option<Record> {
        let open = self.open.take()?;
        let body = Transaction { aborted: true, last: true, ..Default::default() };
        // Its parts bear the seq: were it given again, a copy of one of them could pass
        // for a part of the next transaction.
        self.seq = open.seq;
        Some(Record {
            hlc: open.hlc,
            body: RecordBody::Transaction(body),
            ..self.beat(pb::Heartbeat::default())
        })
    }

    fn applied(&mut self, marks: &[AppliedMark]) {
        // A repair: it makes a row what known writes say, and is none itself.
        if marks.is_empty() {
            return;
        }
        for mark in marks {
            self.seen.raise_to(mark.origin, Place { epoch: mark.epoch, seq: mark.seq });
            self.clock.observe(mark.hlc);
        }
        let dots: Vec<_> =
            marks.iter().map(|mark| Dot { origin: mark.origin, seq: mark.seq }).collect();
        lock(&self.index).marker(&dots);
    }

    /// Whether a heartbeat may be sent: not between the parts of a transaction.
    pub(crate) const fn is_idle(&self) -> bool {
        self.open.is_none()
    }

    /// A record that says what has been seen.
    pub(crate) fn heartbeat(&mut self, beat: pb::Heartbeat) -> Record {
        self.beat(beat)
    }

    fn beat(&self, beat: pb::Heartbeat) -> Record {
        Record {
            origin: self.region,
            epoch: self.epoch,
            seq: self.seq,
            hlc: self.clock.last(),
            deps: self.seen.clone(),
            gtid: String::new(),
            position: self.position.clone(),
            topology: self.topology,
            body: RecordBody::Heartbeat(beat),
        }
    }

    /// When a transaction committed, in the majority's time.
    pub(crate) fn commit_us(&self, commit: CommitTime, now: Now) -> u64 {
        self.clock.commit_us(commit, now)
    }

    /// How much the index holds: rows, and writes that it keeps one by one.
    pub(crate) fn index_size(&self) -> (usize, usize) {
        let index = lock(&self.index);
        (index.len(), index.kept_writes())
    }

    /// The last stamp.
    pub(crate) const fn hlc(&self) -> Hlc {
        self.clock.last()
    }
}

struct Part {
    gtid: String,
    commit: CommitTime,
    part: u32,
    last: bool,
    changes: Vec<TableChange>,
    after: Checkpoint,
}

fn lock(index: &SharedIndex) -> std::sync::MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
