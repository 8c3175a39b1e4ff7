//! Where the outbox ends: what the next epoch goes on from.
//!
//! The database keeps a place of its own outbox, written under the owner's lock, so
//! that it counts. From it on the tail is read, by the same verdict as every reader's.
//! A topic that does not hold the place is not the one that this database has filled.

use super::ShipError;
use super::kafka::{Cluster, TopicSettings};
use super::reader::{Found, Reader};
use crate::change::{
    Accepted, Place, Position, ReaderOrder, Record, RecordBody, RegionId, Seq, Vector,
};
use crate::clock::Hlc;

/// Where the outbox ended before this epoch began: capture goes on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The last whole transaction.
    pub seq: Seq,
    /// The last stamp.
    pub hlc: Hlc,
    /// What had been seen of the peers there.
    pub deps: Vector,
    /// Where the binlog is read on.
    pub position: Position,
}

/// What the database knows of its outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Nothing has been shipped from it: capture begins there, after what is applied.
    Fresh(Tail),
    /// The outbox holds this place.
    After(Place),
    /// It was seeded from a peer, with what its region had shipped before, and nothing
    /// is shipped of it yet.
    Seeded {
        /// The last of these.
        place: Place,
        /// The epoch that is to begin it; once the outbox holds that, its tail counts.
        epoch: u64,
        /// What the seed held; capture begins at its position.
        tail: Tail,
    },
}

/// The end of an outbox, read up to some offset.
pub(super) struct Ending {
    reader: Reader,
    topic: String,
    order: ReaderOrder,
    tail: Tail,
}

impl Ending {
    /// Reads up to the end.
    pub(super) async fn open(
        cluster: &Cluster,
        (topic, settings): (&str, TopicSettings),
        origin: RegionId,
        begin: Begin,
    ) -> Result<Self, ShipError> {
        let foreign = |seq| ShipError::Foreign { topic: topic.to_owned(), seq };
        let lost = || ShipError::Lost { topic: topic.to_owned() };
        let reader = Reader::new(cluster, topic, origin)?;
        // Made by the one who begins it, never by one who looks for what it held.
        if matches!(begin, Begin::After(_)) && !reader.topic_exists()? {
            return Err(lost());
        }
        cluster.ensure_topic(topic, settings).await?;
        let (low, high) = reader.bounds()?;
        let place = match &begin {
            Begin::After(place) | Begin::Seeded { place, .. } => *place,
            Begin::Fresh(_) if low > 0 => return Err(foreign(Seq(0))),
            Begin::Fresh(_) => Place::default(),
        };
        let mut ending = Self {
            reader,
            topic: topic.to_owned(),
            order: ReaderOrder::after(place),
            tail: Tail {
                seq: Seq(0),
                hlc: Hlc(0),
                deps: Vector::default(),
                position: Position::default(),
            },
        };
        let held = ending.read(place, high).await?;
        match begin {
            Begin::After(_) if held => {}
            // Begun anew it would give seqs again that every peer drops as copies.
            Begin::After(_) if low == high && low > 0 => {
                return Err(ShipError::Purged { topic: topic.to_owned(), offset: low - 1 });
            }
            Begin::After(_) => return Err(lost()),
            Begin::Fresh(tail) => {
                if ending.tail.seq > Seq(0) {
                    return Err(foreign(ending.tail.seq));
                }
                // Start records of sessions that came no further.
                if !held {
                    ending.tail = tail;
                }
            }
            Begin::Seeded { place, epoch, tail } if ending.order.place().epoch < epoch => {
                if ending.tail.seq > place.seq {
                    let (topic, seq) = (topic.to_owned(), place.seq);
                    return Err(ShipError::Behind { topic, seq, found: ending.tail.seq });
                }
                let hlc = tail.hlc.max(ending.tail.hlc);
                ending.tail = Tail { hlc, ..tail };
            }
            Begin::Seeded { .. } => {}
        }
        Ok(ending)
    }

    /// The highest epoch in the topic.
    pub(super) const fn epoch(&self) -> u64 {
        self.order.place().epoch
    }

    pub(super) const fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The tail with what came before the Start record at that offset.
    pub(super) async fn up_to(mut self, start: i64) -> Result<Tail, ShipError> {
        while self.reader.next_offset() < start {
            self.take(self.order.place()).await?;
        }
        Ok(self.tail)
    }

    /// Reads from the place to that offset; whether the topic holds something that
    /// counts from the place on.
    async fn read(&mut self, place: Place, until: i64) -> Result<bool, ShipError> {
        let from = self.reader.find(place).await?;
        self.reader.seek(from)?;
        let mut held = false;
        while self.reader.next_offset() < until {
            held |= self.take(place).await?;
        }
        Ok(held)
    }

    /// Takes the next record; whether it counts from `place` on.
    async fn take(&mut self, place: Place) -> Result<bool, ShipError> {
        let Found { offset, record, .. } = self.reader.next_soon().await?;
        let accepted = self.order.accept(&record).map_err(|source| {
            let topic = self.topic.clone();
            ShipError::Order { topic, offset, source }
        })?;
        let whole = match &record.body {
            RecordBody::Transaction(txn) => txn.last,
            RecordBody::Start(_) | RecordBody::Heartbeat(_) => true,
        };
        let counts = match accepted {
            Accepted::Next | Accepted::NewEpoch => true,
            // The place itself.
            Accepted::Duplicate => Place { epoch: record.epoch, seq: record.seq } == place,
            Accepted::Fenced => false,
        };
        if whole && counts {
            let Record { seq, hlc, deps, position, .. } = record;
            let hlc = hlc.max(self.tail.hlc);
            // A Start record names what its writer had read; the writer before it may have
            // come further by then, and what it wrote counts.
            if seq < self.tail.seq {
                self.tail.hlc = hlc;
            } else {
                self.tail = Tail { seq, hlc, deps, position };
            }
        }
        Ok(counts)
    }
}
