//! Rebuilds the index at the start of a session, from outbox and inboxes.
//!
//! What is stable needs no version. The rest is read again and entered in order of
//! the stamps, which respects what saw what.
//!
//! A region that is gone for longer than its peers' topics keep their records leaves
//! nothing stable, and what it has not applied can't be read again. The index is then
//! complete from a *floor* on. That is enough to judge a transaction whose author had
//! seen all up to the floor, which holds for every region but the one that is gone; the
//! applier refuses any other.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{AgentError, Shared};
use crate::apply::Gone;
use crate::change::{Dot, Place, Record, RecordBody, RegionId, Seq, Vector};
use crate::failpoint;
use crate::resolve::{Incoming, Rulebook, touched};
use crate::ship::{InboxConfig, head, held_from, read_range};
use crate::version::{Heads, Index, Reread, Span, Write};

/// The index of everything after the stable vector, up to what the outbox holds and
/// what is applied, and what could not be read for it.
pub(crate) async fn index(
    shared: &Shared,
    applied: &Vector,
    own: Seq,
) -> Result<(Index, Gone), AgentError> {
    let me = shared.setup.region.id;
    let topology = &shared.setup.topology;
    let mut topics = BTreeMap::new();
    let outbox = topology.outbox(&shared.setup.region);
    topics.insert(me, (outbox, own));
    for peer in shared.peers() {
        let seq = applied.get(peer.id);
        topics.insert(peer.id, (topology.inbox(&shared.setup.region, peer), seq));
    }
    let config = |origin: RegionId, after: Place| {
        let (topic, _) = &topics[&origin];
        InboxConfig { cluster: shared.cluster(topic), topic: topic.name.clone(), origin, after }
    };
    let (mut heads, mut gone) = (Heads::default(), Gone::default());
    for &origin in topics.keys().filter(|&&origin| origin != me) {
        let record = Box::pin(head(&config(origin, applied.place(origin)))).await?;
        match record {
            Some(record) => heads.raise(origin, &Arc::new(record.deps)),
            None if applied.get(origin) == Seq(0) => {}
            None => {
                tracing::warn!(peer = shared.name(origin), "its inbox holds nothing of it");
                gone.silent.insert(origin);
            }
        }
    }
    let peers: Vec<_> = shared.peers().map(|peer| peer.id).collect();
    let stable = heads.stable(&peers, me, applied);
    let mut writes = Vec::new();
    for (n, (&origin, &(_, through))) in topics.iter().enumerate() {
        if n == 1 {
            failpoint::hit("rebuild.halfway");
        }
        let from = config(origin, stable.place(origin));
        let held = Box::pin(read(shared, from, through, &mut writes)).await?;
        if held > stable.get(origin) {
            let (peer, seq) = (shared.name(origin), held.0);
            tracing::warn!(peer, seq, "what not all regions have applied is purged up to here");
            gone.floor.raise(origin, held);
        }
    }
    let mut back = Reread::behind(stable.clone());
    while let Some(spans) = back.further(&writes) {
        for Span { origin, after, through } in spans {
            // What is purged of it has been seen by all that comes.
            Box::pin(read(shared, config(origin, after), through, &mut writes)).await?;
        }
    }
    writes.sort_by_key(|write| write.version.rank());
    let mut index = Index::default();
    index.hidden.begin(topics.iter().map(|(&origin, &(_, seq))| Dot { origin, seq }).collect());
    tracing::info!(versions = writes.len(), "index rebuilt");
    for write in &writes {
        index.restore(write);
    }
    index.collect(&stable);
    Ok((index, gone))
}

/// Reads a topic's writes, up to and with `through`, and gives the seq after which all
/// of them were there: that of `from`, or a later one.
async fn read(
    shared: &Shared,
    mut from: InboxConfig,
    through: Seq,
    writes: &mut Vec<Write>,
) -> Result<Seq, AgentError> {
    if from.after.seq >= through {
        return Ok(from.after.seq);
    }
    match Box::pin(held_from(&from)).await? {
        Some(held) if held.seq < through => from.after = held,
        Some(_) | None => return Ok(through),
    }
    let (mut failed, mut open) = (None, Vec::new());
    let each = |record| {
        if let Err(error) = enter(&shared.book, record, &mut open, writes) {
            failed = Some(error);
        }
    };
    Box::pin(read_range(&from, through, each)).await?;
    failed.map_or(Ok(from.after.seq), Err)
}

/// Adds a record's writes to those of the transaction that is `open`, and these to
/// `writes` with its last part. Parts that an abort or a new epoch makes void count for
/// nothing.
fn enter(
    book: &Rulebook,
    record: Record,
    open: &mut Vec<Write>,
    writes: &mut Vec<Write>,
) -> Result<(), AgentError> {
    let txn = match record.body {
        RecordBody::Transaction(txn) if !txn.aborted => txn,
        RecordBody::Transaction(_) | RecordBody::Start(_) => {
            open.clear();
            return Ok(());
        }
        RecordBody::Heartbeat(_) => return Ok(()),
    };
    if txn.part == 0 {
        open.clear();
    }
    let incoming = Incoming {
        dot: Dot { origin: record.origin, seq: record.seq },
        hlc: record.hlc,
        deps: &Arc::new(record.deps),
        gtid: &record.gtid,
        changes: &txn.changes,
    };
    open.extend(touched(book, &incoming)?.into_iter().map(|one| one.write));
    if txn.last {
        writes.append(open);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{
        Column, Kind, Position, Row, RowChange, Table, TableChange, Value, Vector, pb,
    };
    use crate::clock::Hlc;

    fn part(part: u32, last: bool, aborted: bool, ids: &[i64]) -> Record {
        let column = Column { name: "id".into(), key: 1, ..Default::default() };
        let table = Table {
            schema: "s".into(),
            name: "t".into(),
            columns: vec![column],
            ..Default::default()
        };
        let row = |id: &i64| Row { values: vec![Value::new(Kind::Int(*id))] };
        let rows = ids.iter().map(|id| RowChange { before: None, after: Some(row(id)) }).collect();
        let changes = vec![TableChange { table: Some(table), rows }];
        Record {
            origin: RegionId::new(1).unwrap(),
            epoch: 1,
            seq: Seq(1),
            hlc: Hlc(1),
            deps: Vector::default(),
            gtid: String::new(),
            position: Position::default(),
            topology: 0,
            body: RecordBody::Transaction(pb::Transaction {
                part,
                last,
                aborted,
                commit_us: 0,
                changes,
            }),
        }
    }

    #[track_caller]
    fn check(records: Vec<Record>, wanted: usize) {
        let (mut open, mut writes) = (Vec::new(), Vec::new());
        for record in records {
            enter(&Rulebook::default(), record, &mut open, &mut writes).unwrap();
        }
        assert_eq!(writes.len(), wanted);
    }

    #[test]
    fn parts_count_once_they_are_whole() {
        check(vec![part(0, false, false, &[1, 2]), part(1, true, false, &[3])], 3);
        check(vec![part(0, false, false, &[1, 2])], 0);
    }

    #[test]
    fn void_parts_leave_no_version() {
        let void = vec![
            part(0, false, false, &[1, 2]),
            part(0, true, true, &[]),
            part(0, true, false, &[9]),
        ];
        check(void, 1);
        let start = Record {
            epoch: 2,
            seq: Seq(0),
            body: RecordBody::Start(pb::Start::default()),
            ..part(0, true, false, &[])
        };
        check(vec![part(0, false, false, &[1, 2]), start, part(0, true, false, &[9])], 1);
    }
}
