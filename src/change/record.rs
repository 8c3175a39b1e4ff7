//! The record format: version 1, Protocol Buffers, one message per Kafka record.
//!
//! Every byte from outside is checked here; what [`Record::decode`] returns is
//! within its ranges. Unknown versions are refused, never guessed at.

use prost::Message as _;
use prost::bytes::Bytes;

use super::{Place, Position, RegionId, RowChange, Seq, Vector, pb};
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
    Transaction(pb::Transaction),
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
    /// The bytes of a Kafka record's value.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
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
                RecordBody::Transaction(txn) => pb::record::Body::Transaction(txn),
            }),
        };
        message.encode_to_vec()
    }

    /// Reads and checks a Kafka record's value. Values share its buffer.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are no record of this version.
    pub fn decode(bytes: Bytes) -> Result<Self, RecordError> {
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
                check_shape(&txn)?;
                RecordBody::Transaction(txn)
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

fn check_shape(txn: &pb::Transaction) -> Result<(), RecordError> {
    for change in &txn.changes {
        let table = change.table.as_ref().ok_or(RecordError::Range("table"))?;
        let width = table.columns.len();
        let fits = |row: &RowChange| {
            let images = [row.before.as_ref(), row.after.as_ref()];
            images.iter().any(Option::is_some)
                && images.iter().flatten().all(|image| image.values.len() == width)
        };
        if !change.rows.iter().all(fits) {
            return Err(RecordError::Shape(table.full_name().to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        assert_eq!(Record::decode(sample().encode().into()).unwrap(), sample());
    }

    #[test]
    fn another_version_is_refused() {
        let mut bytes = sample().encode();
        assert_eq!(bytes[..2], [8, 1]);
        bytes[1] = 2;
        assert!(matches!(Record::decode(bytes.into()), Err(RecordError::Version(2))));
    }

    #[test]
    fn an_origin_outside_the_ids_is_refused() {
        let mut bytes = sample().encode();
        assert_eq!(bytes[2..4], [16, 3]);
        bytes[3] = 64;
        assert!(matches!(Record::decode(bytes.into()), Err(RecordError::Range("origin"))));
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
        record.body = RecordBody::Transaction(pb::Transaction {
            changes: vec![pb::TableChange {
                table: Some(table),
                rows: vec![RowChange { before: None, after: Some(pb::Row { values: vec![] }) }],
            }],
            ..Default::default()
        });
        assert!(matches!(Record::decode(record.encode().into()), Err(RecordError::Shape(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(Record::decode(bytes.into()));
        }

        #[test]
        fn no_flipped_byte_panics_the_decoder(at in 0usize..40, to in any::<u8>()) {
            let mut bytes = sample().encode();
            let at = at % bytes.len();
            bytes[at] = to;
            drop(Record::decode(bytes.into()));
        }
    }
}
