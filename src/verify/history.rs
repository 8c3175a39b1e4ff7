//! What the outboxes tell of a row: its last write.
//!
//! Stamps respect what saw what, so under a policy by which the later stamp wins the last
//! write of all regions is the one that stands. The outboxes are read backwards, a longer
//! time with each turn, until the last write of every row is found: nothing before the
//! time that all of them were read from can be later than it.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::Config;
use super::tail::{consumer, read_from};
use crate::change::{Record, RecordBody, RegionId, Row, Seq, Table, TableName, pb};
use crate::clock::{Hlc, wall_us};
use crate::compare::{Key, key_row};
use crate::version::RowKey;

/// How far back each turn reads; after the last one comes all that there is.
const HOURS: [u64; 3] = [1, 8, 64];
/// Kafka's answer to a question.
const ASK: Duration = Duration::from_secs(20);

/// The last write of a row.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) origin: RegionId,
    pub(super) seq: Seq,
    pub(super) hlc: Hlc,
    pub(super) gtid: String,
    /// It moved the row from or to another key, and stands or falls with the other half.
    pub(super) moved: bool,
    pub(super) table: Table,
    /// None of a delete.
    pub(super) after: Option<Row>,
}

/// Why the outboxes tell nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    #[error("the outbox of {0} can't be read: {1}")]
    Kafka(String, KafkaError),
    #[error("the outbox of {0} gives nothing more")]
    Stuck(String),
    #[error("a record of {0} can't be read")]
    Record(String),
    #[error("stopped")]
    Stopped,
}

/// Rows asked for, and what has been found of each.
struct Search<'a> {
    wanted: &'a [(TableName, Key)],
    found: Vec<Option<Write>>,
    /// By table: its shape when the keys were worked out, and whose key is which.
    keys: HashMap<TableName, (Table, HashMap<RowKey, usize>)>,
}

/// One origin's records in order, as far as they count.
#[derive(Default)]
struct Reader {
    epoch: u64,
    open: Vec<(usize, Write)>,
}

/// The last write of each row, where the outboxes reach back to it.
pub(super) async fn last_writes(
    config: &Config<'_>,
    wanted: &[(TableName, Key)],
    stop: &CancellationToken,
) -> Result<Vec<Option<Write>>, Silence> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let turns = HOURS.iter().map(|hours| Some(hours * 3_600_000)).chain([None]);
    let mut found = Vec::new();
    for turn in turns {
        let since_ms = turn.map(|ms| (wall_us() / 1_000).saturating_sub(ms));
        let mut search = Search { wanted, found: vec![None; wanted.len()], keys: HashMap::new() };
        let mut covered = Hlc(0);
        for region in &config.topology.regions {
            let read = read(config, region, since_ms, (&mut search, stop));
            covered = covered.max(Box::pin(read).await?);
        }
        // A write up to this may have a later one in an outbox that was not read so far.
        let known = |write: Option<Write>| write.filter(|write| write.hlc > covered);
        found = search.found.into_iter().map(known).collect();
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(found)
}

/// Reads one outbox from then on to its end; gives the stamp from which on it was read.
async fn read(
    config: &Config<'_>,
    region: &crate::topology::Region,
    since_ms: Option<u64>,
    (search, stop): (&mut Search<'_>, &CancellationToken),
) -> Result<Hlc, Silence> {
    let topic = if region.id == config.here.id {
        config.topology.outbox(region)
    } else {
        config.topology.peer_outbox(region)
    };
    let failed = |error| Silence::Kafka(region.name.clone(), error);
    let consumer = consumer(&topic, &config.kafka).map_err(failed)?;
    let (low, high) =
        tokio::task::block_in_place(|| consumer.fetch_watermarks(&topic.name, 0, ASK))
            .map_err(failed)?;
    let from = match since_ms {
        Some(since) => place(&consumer, &topic.name, since).map_err(failed)?.unwrap_or(high),
        None => low,
    };
    // One record before, whose stamp says from where on it is read.
    let from = (from - 1).max(low);
    if from >= high {
        return Ok(if low == 0 { Hlc(0) } else { Hlc(u64::MAX) });
    }
    read_from(&consumer, &topic, Offset::Offset(from)).map_err(failed)?;
    let (mut reader, mut first) = (Reader::default(), None);
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return Err(Silence::Stopped),
            received = tokio::time::timeout(ASK, consumer.recv()) => match received {
                Ok(received) => received.map_err(failed)?,
                Err(_) => return Err(Silence::Stuck(region.name.clone())),
            },
        };
        let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
        let record = Record::decode(bytes).map_err(|_| Silence::Record(region.name.clone()))?;
        first.get_or_insert(record.hlc);
        reader.take(record, search);
        if message.offset() >= high - 1 {
            break;
        }
    }
    // Stamps of one outbox rise. Its first record is no exception: an outbox that was made
    // anew begins with offset 0 too.
    Ok(first.unwrap_or(Hlc(u64::MAX)))
}

/// The first record of that time or later.
fn place(consumer: &StreamConsumer, topic: &str, ms: u64) -> Result<Option<i64>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    asked.add_partition_offset(topic, 0, Offset::Offset(ms))?;
    let found = tokio::task::block_in_place(|| consumer.offsets_for_times(asked, ASK))?;
    let offset = found.elements().first().map(|place| place.offset());
    Ok(offset
        .and_then(|place| if let Offset::Offset(offset) = place { Some(offset) } else { None }))
}

impl Reader {
    /// Takes the next record; its writes count with the last part of their transaction.
    fn take(&mut self, record: Record, search: &mut Search<'_>) {
        if record.epoch < self.epoch {
            return;
        }
        if record.epoch > self.epoch {
            self.open.clear();
        }
        self.epoch = record.epoch;
        let txn = match record.body {
            RecordBody::Transaction(txn) if !txn.aborted => txn,
            RecordBody::Transaction(_) | RecordBody::Start(_) => return self.open.clear(),
            RecordBody::Heartbeat(_) => return,
        };
        if txn.part == 0 {
            self.open.clear();
        }
        let write = Write {
            origin: record.origin,
            seq: record.seq,
            hlc: record.hlc,
            gtid: record.gtid,
            moved: false,
            table: Table::default(),
            after: None,
        };
        for change in &txn.changes {
            search.look(change, &write, &mut self.open);
        }
        if txn.last {
            for (at, write) in self.open.drain(..) {
                search.enter(at, write);
            }
        }
    }
}

impl Search<'_> {
    /// Notes what a change writes of the wanted rows.
    fn look(&mut self, change: &pb::TableChange, write: &Write, open: &mut Vec<(usize, Write)>) {
        let Some(table) = &change.table else { return };
        let wanted = self.wanted;
        if !wanted.iter().any(|(name, _)| name.schema == table.schema && name.name == table.name) {
            return;
        }
        let name = table.full_name();
        let key = table.key_columns();
        if self.keys.get(&name).is_none_or(|(known, _)| known != table) {
            let rows = wanted.iter().enumerate().filter(|(_, (wanted, _))| *wanted == name);
            let keys = rows.filter_map(|(at, (_, held))| {
                let row = key_row(table, held)?;
                Some((RowKey::of(table, &key, &row).ok()?, at))
            });
            self.keys.insert(name.clone(), (table.clone(), keys.collect()));
        }
        let (_, keys) = &self.keys[&name];
        for row in &change.rows {
            for touch in RowKey::touched(table, &key, row).into_iter().flatten() {
                let Some(&at) = keys.get(&touch.key) else { continue };
                let moved =
                    touch.moved || open.iter().any(|(held, write)| *held == at && write.moved);
                let (table, after) = (table.clone(), touch.after.cloned());
                open.push((at, Write { moved, table, after, ..write.clone() }));
            }
        }
    }

    /// The later write stays; of one transaction the last.
    fn enter(&mut self, at: usize, write: Write) {
        let held = &mut self.found[at];
        let rank = |write: &Write| (write.hlc, write.origin);
        if held.as_ref().is_none_or(|held| rank(held) <= rank(&write)) {
            *held = Some(write);
        }
    }
}

/// By table: whether the last write is the one that stands.
pub(super) fn decides(config: &Config<'_>, table: &TableName) -> bool {
    use crate::topology::{OnConflict, Policy};
    let rule = config.topology.rule(&table.schema, &table.name);
    rule.is_some_and(|rule| {
        let plain = match &rule.policy {
            Policy::Latest { timestamp_column } => timestamp_column.is_none(),
            Policy::InsertOnly | Policy::Home => true,
            Policy::RegionPriority { .. } | Policy::Delta { .. } => false,
        };
        plain && rule.columns.is_empty() && rule.on_conflict == OnConflict::Row
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{
        Column, ColumnType, Kind, Position, RowChange, TableChange, Value, Vector,
    };

    fn row(id: i64) -> Option<Row> {
        Some(Row { values: vec![Value::new(Kind::Int(id))] })
    }

    /// Changes `before` to `after`, as the whole of a transaction or as a part of one.
    fn record(
        (origin, epoch, seq, hlc): (u8, u64, u64, u64),
        (part, last, aborted): (u32, bool, bool),
        (before, after): (Option<Row>, Option<Row>),
    ) -> Record {
        let r#type = ColumnType::Bigint.into();
        let columns = vec![Column { name: "id".into(), key: 1, r#type, ..Column::default() }];
        let table = Table { schema: "s".into(), name: "t".into(), columns, ..Table::default() };
        let rows = vec![RowChange { before, after }];
        let changes = vec![TableChange { table: Some(table), rows }];
        let body = pb::Transaction { part, last, aborted, commit_us: 0, changes };
        Record {
            origin: RegionId::new(origin).unwrap(),
            epoch,
            seq: Seq(seq),
            hlc: Hlc(hlc),
            deps: Vector::default(),
            gtid: String::new(),
            position: Position::default(),
            body: RecordBody::Transaction(body),
        }
    }

    const WHOLE: (u32, bool, bool) = (0, true, false);

    /// The last write of row 1, after one reader for each origin has taken its records.
    #[track_caller]
    fn check(records: Vec<Record>, wanted: Option<(u8, u64, bool)>) {
        let name = TableName { schema: "s".into(), name: "t".into() };
        let rows = [(name, Key(vec![b"1".to_vec()]))];
        let mut search = Search { wanted: &rows, found: vec![None], keys: HashMap::new() };
        let mut readers: HashMap<RegionId, Reader> = HashMap::new();
        for record in records {
            readers.entry(record.origin).or_default().take(record, &mut search);
        }
        let found = search.found[0].as_ref().map(|w| (w.origin.get(), w.seq.0, w.moved));
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_latest_stamp_is_the_last_write() {
        let write = |at| record(at, WHOLE, (row(1), row(1)));
        check(vec![write((1, 1, 1, 10)), write((2, 1, 1, 9))], Some((1, 1, false)));
        check(vec![write((1, 1, 1, 10)), write((2, 1, 1, 10))], Some((2, 1, false)));
        check(vec![write((1, 1, 1, 10)), write((1, 1, 2, 11))], Some((1, 2, false)));
        check(vec![record((1, 1, 1, 10), WHOLE, (None, row(2)))], None);
        check(vec![record((1, 1, 1, 10), WHOLE, (row(1), row(2)))], Some((1, 1, true)));
    }

    #[test]
    fn what_does_not_count_is_no_write() {
        let write = |at, part| record(at, part, (row(1), None));
        check(vec![write((1, 1, 1, 10), (0, false, false))], None);
        let void =
            vec![write((1, 1, 1, 10), (0, false, false)), write((1, 1, 1, 10), (0, true, true))];
        check(void, None);
        let fenced = vec![write((1, 2, 1, 10), WHOLE), write((1, 1, 2, 11), WHOLE)];
        check(fenced, Some((1, 1, false)));
        let parts = vec![
            write((1, 1, 3, 10), (0, false, false)),
            record((1, 1, 3, 10), (1, true, false), (None, row(2))),
        ];
        check(parts, Some((1, 3, false)));
    }
}
