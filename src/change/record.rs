//! The record format: version 1, Protocol Buffers, one message per Kafka record.
//!
//! Every byte from outside is checked here; what [`Record::decode`] returns is
//! within its ranges. Unknown versions are refused, never guessed at.

use prost::Message as _;
use prost::bytes::Bytes;

use super::{
    Place, Position, RegionId, RowChange, Seq, TableChange, Tables, Transaction, Vector, pb,
};
use crate::clock::Hlc;

/// The only version this code writes and reads.
pub const RECORD_VERSION: u32 = 1;

/// One entry of an outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The region that wrote it.
    pub origin: RegionId,
    /// Fencing token of the writing agent.
    pub epoch: u64,
    /// The transaction's number; Start and Heartbeat repeat the last one.
    pub seq: Seq,
    /// The transaction's stamp; for the others the clock when they were written.
    pub hlc: Hlc,
    /// What the author had seen of its peers.
    pub deps: Vector,
    /// The source's name of the transaction.
    pub gtid: String,
    /// The source's position after this record.
    pub position: Position,
    /// By which topology its region resolves conflicts, as a hash; 0 where it does not say.
    pub topology: u32,
    /// What it carries.
    pub body: RecordBody,
}

/// What a record carries.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordBody {
    /// An agent has taken the outbox over.
    Start(pb::Start),
    /// Nothing to ship.
    Heartbeat(pb::Heartbeat),
    /// A transaction, or a part of one.
    Transaction(Transaction),
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not Protocol Buffers.
    #[error("the record is corrupt")]
    Corrupt(#[source] prost::DecodeError),
    /// From another version of the format.
    #[error("record version {0} is not known here (this agent reads {RECORD_VERSION})")]
    Version(u32),
    /// A field is outside its range.
    #[error("the record's {0} is out of range")]
    Range(&'static str),
    /// A row does not have one value per column, or a change has no row.
    #[error("a row of {0} does not have its table's columns")]
    Shape(String),
}

impl Record {
    /// The bytes of a Kafka record's value. `tables` is the writer's own.
    #[must_use]
    pub fn encode(self, tables: &mut Tables) -> Vec<u8> {
        let places = self.deps.places();
        let message = pb::Record {
            version: RECORD_VERSION,
            origin: u32::from(self.origin.get()),
            epoch: self.epoch,
            seq: self.seq.0,
            hlc: self.hlc.0,
            deps: places
                .map(|(origin, place)| pb::Dot {
                    origin: u32::from(origin.get()),
                    seq: place.seq.0,
                    epoch: place.epoch,
                })
                .collect(),
            gtid: self.gtid,
            position: self.position.0,
            topology: self.topology,
            body: Some(match self.body {
                RecordBody::Start(start) => pb::record::Body::Start(start),
                RecordBody::Heartbeat(beat) => pb::record::Body::Heartbeat(beat),
                RecordBody::Transaction(txn) => pb::record::Body::Transaction(written(txn, tables)),
            }),
        };
        message.encode_to_vec()
    }

    /// Reads and checks a Kafka record's value. Values share its buffer; `tables` is the
    /// reader's own.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are no record of this version.
    pub fn decode(bytes: Bytes, tables: &mut Tables) -> Result<Self, RecordError> {
        let message = pb::Record::decode(bytes).map_err(RecordError::Corrupt)?;
        if message.version != RECORD_VERSION {
            return Err(RecordError::Version(message.version));
        }
        let body = match message.body.ok_or(RecordError::Range("body"))? {
            pb::record::Body::Start(start) => RecordBody::Start(start),
            pb::record::Body::Heartbeat(beat) => RecordBody::Heartbeat(beat),
            pb::record::Body::Transaction(txn) => {
                if message.seq == 0 {
                    return Err(RecordError::Range("seq"));
                }
                RecordBody::Transaction(read(txn, tables)?)
            }
        };
        let deps = message
            .deps
            .iter()
            .map(|dot| Ok((region(dot.origin)?, Place { epoch: dot.epoch, seq: Seq(dot.seq) })))
            .collect::<Result<Vector, RecordError>>()?;
        Ok(Self {
            origin: region(message.origin)?,
            epoch: message.epoch,
            seq: Seq(message.seq),
            hlc: Hlc(message.hlc),
            deps,
            gtid: message.gtid,
            position: Position(message.position),
            topology: message.topology,
            body,
        })
    }
}

fn region(id: u32) -> Result<RegionId, RecordError> {
    u8::try_from(id).ok().and_then(RegionId::new).ok_or(RecordError::Range("origin"))
}

fn written(txn: Transaction, tables: &mut Tables) -> pb::Transaction {
    let Transaction { part, last, aborted, commit_us, changes } = txn;
    let changes = changes
        .into_iter()
        .map(|TableChange { table, rows }| pb::TableChange { table: tables.written(&table), rows });
    pb::Transaction { part, last, aborted, commit_us, changes: changes.collect() }
}

fn read(txn: pb::Transaction, tables: &mut Tables) -> Result<Transaction, RecordError> {
    let pb::Transaction { part, last, aborted, commit_us, changes } = txn;
    let changes = changes.into_iter().map(|pb::TableChange { table, rows }| {
        let change = TableChange { table: tables.read(&table)?, rows };
        check_shape(&change)?;
        Ok(change)
    });
    let changes = changes.collect::<Result<_, _>>()?;
    Ok(Transaction { part, last, aborted, commit_us, changes })
}

fn check_shape(change: &TableChange) -> Result<(), RecordError> {
    let width = change.table.columns.len();
    let fits = |row: &RowChange| {
        let images = [row.before.as_ref(), row.after.as_ref()];
        images.iter().any(Option::is_some)
            && images.iter().flatten().all(|image| image.values.len() == width)
    };
    if change.rows.iter().all(fits) {
        return Ok(());
    }
    Err(RecordError::Shape(change.table.full_name().to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn encode(record: Record) -> Vec<u8> {
        record.encode(&mut Tables::default())
    }

    fn decode(bytes: Vec<u8>) -> Result<Record, RecordError> {
        Record::decode(bytes.into(), &mut Tables::default())
    }

    fn sample() -> Record {
        Record {
            origin: RegionId::new(3).unwrap(),
            epoch: 7,
            seq: Seq(42),
            hlc: Hlc(1_000_001),
            deps: [(RegionId::new(1).unwrap(), Place { epoch: 4, seq: Seq(9) })]
                .into_iter()
                .collect(),
            gtid: "0-1-42".to_owned(),
            position: Position("0-1-42".to_owned()),
            topology: 9,
            body: RecordBody::Heartbeat(pb::Heartbeat { sent_us: 5, delays: vec![] }),
        }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        assert_eq!(decode(encode(sample())).unwrap(), sample());
    }

    /// `bytes` is what the code takes the definition for; the format says `Table`.
    #[test]
    fn a_definition_stands_in_a_record_as_the_format_says() {
        let table = pb::Table { schema: "s".into(), name: "t".into(), ..Default::default() };
        let mut wanted = vec![1 << 3 | 2, u8::try_from(table.encoded_len()).unwrap()];
        wanted.extend(table.encode_to_vec());
        let change = TableChange { table: Arc::new(table), rows: vec![] };
        let txn = Transaction { changes: vec![change], ..Transaction::default() };
        let txn = written(txn, &mut Tables::default());
        assert_eq!(txn.changes[0].encode_to_vec(), wanted);
    }

    #[test]
    fn a_transaction_is_read_back_with_its_tables() {
        let column = |name: &str| pb::Column { name: name.into(), ..Default::default() };
        let table = |name: &str| {
            let columns = vec![column("id"), column("v")];
            Arc::new(pb::Table { name: name.into(), columns, ..Default::default() })
        };
        let row = |n| {
            let value = pb::Value::new(pb::value::Kind::Int(n));
            Some(pb::Row { values: vec![value, pb::Value::NULL] })
        };
        let change = |name, n| TableChange {
            table: table(name),
            rows: vec![RowChange { before: row(n), after: row(n + 1) }],
        };
        let txn = Transaction {
            last: true,
            commit_us: 5,
            changes: vec![change("a", 1), change("b", 2), change("a", 3)],
            ..Transaction::default()
        };
        let record = Record { body: RecordBody::Transaction(txn), ..sample() };
        let read = decode(encode(record.clone())).unwrap();
        assert_eq!(read, record);
        let RecordBody::Transaction(txn) = &read.body else { panic!("{read:?}") };
        assert!(Arc::ptr_eq(&txn.changes[0].table, &txn.changes[2].table));
    }

    #[test]
    fn another_version_is_refused() {
        let mut bytes = encode(sample());
        assert_eq!(bytes[..2], [8, 1]);
        bytes[1] = 2;
        assert!(matches!(decode(bytes), Err(RecordError::Version(2))));
    }

    #[test]
    fn an_origin_outside_the_ids_is_refused() {
        let mut bytes = encode(sample());
        assert_eq!(bytes[2..4], [16, 3]);
        bytes[3] = 64;
        assert!(matches!(decode(bytes), Err(RecordError::Range("origin"))));
    }

    #[test]
    fn a_row_narrower_than_its_table_is_refused() {
        let mut record = sample();
        let table = pb::Table {
            schema: "s".into(),
            name: "t".into(),
            columns: vec![pb::Column { name: "id".into(), ..Default::default() }],
            ..Default::default()
        };
        record.body = RecordBody::Transaction(Transaction {
            changes: vec![TableChange {
                table: Arc::new(table),
                rows: vec![RowChange { before: None, after: Some(pb::Row { values: vec![] }) }],
            }],
            ..Default::default()
        });
        assert!(matches!(decode(encode(record)), Err(RecordError::Shape(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(decode(bytes));
        }

        #[test]
        fn no_flipped_byte_panics_the_decoder(at in 0usize..40, to in any::<u8>()) {
            let mut bytes = encode(sample());
            let at = at % bytes.len();
            bytes[at] = to;
            drop(decode(bytes));
        }
    }
}
