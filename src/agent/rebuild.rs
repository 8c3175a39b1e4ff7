//! Rebuilds the index at the start of a session, from outbox and inboxes.
//!
//! What is stable needs no version. The rest is read again and entered in order of
//! the stamps, which respects what saw what: all topics are read side by side, so that it
//! takes memory by the rows that were written, and not by the writes of them, which are
//! many when a peer was away.
//!
//! A region that is gone for longer than its peers' topics keep their records leaves
//! nothing stable, and what it has not applied can't be read again. The index is then
//! complete from a *floor* on. That is enough to judge a transaction whose author had
//! seen all up to the floor, which holds for every region but the one that is gone; the
//! applier refuses any other.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{AgentError, Shared};
use crate::apply::Gone;
use crate::change::{Dot, Place, Record, RecordBody, RegionId, Seq, Vector};
use crate::failpoint;
use crate::resolve::{Incoming, Parts, Rulebook, touched};
use crate::ship::{InboxConfig, Range, head, held_from};
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
    let mut back = Reread::behind(stable.clone());
    let mut read = Vec::new();
    for (n, (&origin, &(_, through))) in topics.iter().enumerate() {
        if n == 1 {
            failpoint::hit("rebuild.halfway");
        }
        let from = config(origin, stable.place(origin));
        let (topic, held) = Box::pin(open(&shared.book, from, through)).await?;
        read.extend(topic);
        if held > stable.get(origin) {
            let (peer, seq) = (shared.name(origin), held.0);
            tracing::warn!(peer, seq, "what not all regions have applied is purged up to here");
            gone.floor.raise(origin, held);
        }
    }
    let ends: Vec<_> = topics.iter().map(|(&origin, &(_, seq))| Dot { origin, seq }).collect();
    let mut index = Box::pin(merged(&ends, read, &mut back)).await?;
    let mut whole = true;
    while let Some(spans) = back.further() {
        for Span { origin, after, through } in spans {
            whole = false;
            let from = config(origin, after);
            let (topic, _) = Box::pin(open(&shared.book, from, through)).await?;
            let Some(mut topic) = topic else { continue };
            while let Some(writes) = topic.try_next().await? {
                writes.iter().for_each(|write| back.take(write));
            }
        }
    }
    if !whole {
        drop(index);
        let mut read = Vec::new();
        for (&origin, &(_, through)) in &topics {
            // What is purged of it has been seen by all that comes.
            let from = config(origin, back.from().place(origin));
            read.extend(Box::pin(open(&shared.book, from, through)).await?.0);
        }
        index = Box::pin(merged(&ends, read, &mut back)).await?;
    }
    index.collect(&stable);
    Ok((index, gone))
}

/// The writes of a topic's transactions, in its order.
type Transactions = BoxStream<'static, Result<Vec<Write>, AgentError>>;

/// An index of what these topics hold, up to `ends`; tells `back` of it. All of it may be
/// much more than what the index keeps of it.
async fn merged(
    ends: &[Dot],
    topics: Vec<Transactions>,
    back: &mut Reread,
) -> Result<Index, AgentError> {
    let mut index = Index::default();
    index.hidden.begin(ends.iter().copied().collect());
    let (mut fronts, mut count) = (BTreeMap::new(), 0_u64);
    for mut topic in topics {
        if let Some(writes) = topic.try_next().await? {
            fronts.insert(writes[0].version.rank(), (writes, topic));
        }
    }
    while let Some((_, (writes, mut topic))) = fronts.pop_first() {
        count += 1;
        for write in &writes {
            back.take(write);
            index.restore(write);
        }
        if let Some(writes) = topic.try_next().await? {
            fronts.insert(writes[0].version.rank(), (writes, topic));
        }
    }
    tracing::info!(transactions = count, versions = index.len(), "index rebuilt");
    Ok(index)
}

/// What a topic holds up to and with `through`; none when that is nothing. Gives the seq
/// after which all of it is there, too: that of `from`, or a later one.
async fn open(
    book: &Rulebook,
    mut from: InboxConfig,
    through: Seq,
) -> Result<(Option<Transactions>, Seq), AgentError> {
    if from.after.seq >= through {
        return Ok((None, from.after.seq));
    }
    match held_from(&from).await? {
        Some(held) if held.seq < through => from.after = held,
        Some(_) | None => return Ok((None, through)),
    }
    let records = Range::open(&from, through).await?;
    let book = book.clone();
    let next = move |(mut records, mut open): (Range, Open)| {
        let book = book.clone();
        async move {
            while let Some(record) = records.next().await? {
                let whole = enter(&book, record, &mut open)?;
                if let Some(writes) = whole.filter(|writes| !writes.is_empty()) {
                    return Ok(Some((writes, (records, open))));
                }
            }
            Ok(None)
        }
    };
    let begin = (records, Open::default());
    Ok((Some(stream::try_unfold(begin, next).boxed()), from.after.seq))
}

/// A transaction whose parts are read.
#[derive(Default)]
struct Open {
    parts: Parts,
    writes: Vec<Write>,
}

/// Adds a record's writes to those of the transaction that is `open`, and gives them all
/// with its last part. Parts that an abort or a new epoch makes void count for nothing.
fn enter(
    book: &Rulebook,
    record: Record,
    open: &mut Open,
) -> Result<Option<Vec<Write>>, AgentError> {
    let txn = match record.body {
        RecordBody::Transaction(txn) if !txn.aborted => txn,
        RecordBody::Transaction(_) | RecordBody::Start(_) => {
            *open = Open::default();
            return Ok(None);
        }
        RecordBody::Heartbeat(_) => return Ok(None),
    };
    if txn.part == 0 {
        *open = Open::default();
    }
    let changes = open.parts.take(book, &txn.changes, txn.last)?;
    if let Some(bytes) = open.parts.grown() {
        let gtid = &record.gtid;
        tracing::info!(gtid, bytes, "rows of a large transaction are held in memory");
    }
    let incoming = Incoming {
        dot: Dot { origin: record.origin, seq: record.seq },
        hlc: record.hlc,
        deps: &Arc::new(record.deps),
        gtid: &record.gtid,
        changes: &changes,
    };
    open.writes.extend(touched(book, &incoming)?.into_iter().map(|one| one.write));
    if !txn.last {
        return Ok(None);
    }
    let mut writes = std::mem::take(open).writes;
    if txn.part > 0 {
        Parts::settle(&mut writes);
    }
    Ok(Some(writes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{
        Column, ForeignKey, Kind, Position, Row, RowChange, Table, TableChange, Transaction, Value,
        Vector, pb,
    };
    use crate::clock::Hlc;
    use crate::resolve::{Merge, Policy};
    use crate::version::{Action, RowKey, Version};

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
        let changes = vec![TableChange { table: Arc::new(table), rows }];
        Record {
            origin: RegionId::new(1).unwrap(),
            epoch: 1,
            seq: Seq(1),
            hlc: Hlc(1),
            deps: Vector::default(),
            gtid: String::new(),
            position: Position::default(),
            topology: 0,
            body: RecordBody::Transaction(Transaction {
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
        check_by(&Rulebook::default(), records, wanted);
    }

    #[track_caller]
    fn check_by(book: &Rulebook, records: Vec<Record>, wanted: usize) {
        let mut open = Open::default();
        let whole = records.into_iter().filter_map(|one| enter(book, one, &mut open).unwrap());
        assert_eq!(whole.map(|writes| writes.len()).sum::<usize>(), wanted);
    }

    /// A region's write of a row, which had seen so much of the other.
    fn write(origin: u8, (seq, at): (u64, u64), row: u128, seen: u64) -> Write {
        let dot = |origin, seq| Dot { origin: RegionId::new(origin).unwrap(), seq: Seq(seq) };
        Write {
            key: RowKey(row),
            version: Version { dot: dot(origin, seq), hlc: Hlc(at), action: Action::Update },
            deps: Arc::new([dot(3 - origin, seen)].into_iter().collect()),
            body: None,
            foreign: None,
        }
    }

    #[tokio::test]
    async fn what_somebody_had_seen_is_entered_first_whatever_topic_it_stands_in() {
        let topic = |writes: [Write; 2]| stream::iter(writes.map(|one| Ok(vec![one]))).boxed();
        let first = topic([write(1, (1, 10), 1, 1), write(1, (2, 15), 2, 1)]);
        let second = topic([write(2, (1, 5), 1, 0), write(2, (2, 20), 2, 2)]);
        let mut back = Reread::behind(Vector::default());
        let index = merged(&[], vec![first, second], &mut back).await.unwrap();
        for (row, origin) in [(1, 1), (2, 2)] {
            let versions = index.seen(RowKey(row)).versions;
            let origins: Vec<_> = versions.iter().map(|v| v.dot.origin.get()).collect();
            assert_eq!(origins, [origin], "row {row}");
        }
    }

    #[test]
    fn parts_count_once_they_are_whole() {
        check(vec![part(0, false, false, &[1, 2]), part(1, true, false, &[3])], 3);
        check(vec![part(0, false, false, &[1, 2])], 0);
    }

    #[test]
    fn what_is_kept_of_a_row_that_several_parts_wrote_is_one_write() {
        let book = Rulebook::new(|_| Policy { merge: Some(Merge::default()), ..Policy::default() });
        check_by(&book, vec![part(0, false, false, &[1, 2]), part(1, true, false, &[1])], 2);
        let void = part(0, true, true, &[]);
        let records = vec![part(0, false, false, &[1, 2]), void, part(0, true, false, &[9])];
        check_by(&book, records, 1);
    }

    #[test]
    fn of_a_row_that_several_parts_wrote_the_last_reference_counts() {
        let (book, mut open) = (Rulebook::default(), Open::default());
        let mut last = None;
        for mut record in [part(0, false, false, &[1, 2]), part(1, true, false, &[1])] {
            if let RecordBody::Transaction(txn) = &mut record.body {
                Arc::make_mut(&mut txn.changes[0].table).foreign_keys =
                    vec![ForeignKey::to("p", 0)];
            }
            last = enter(&book, record, &mut open).unwrap();
        }
        let references = last.unwrap().iter().filter(|write| write.foreign.is_some()).count();
        assert_eq!(references, 2);
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
