//! What a reader of an outbox or inbox takes, drops and refuses.
//!
//! The log is its own fence: the writer with the highest epoch owns it from its
//! Start record on. A record counts if no record before it has a higher epoch and it is
//! exactly the next; so the verdict depends on what stands before it alone, and every
//! reader that knows that comes to the same.
//!
//! A reader that starts in the middle knows it from its [`Place`]: the transaction at
//! the place counts, so nothing before it has a higher epoch than its own. With that
//! epoch a reader may start at any record up to the one after the place, without
//! looking further back or ahead. [`Place::side`] tells on which side of the place a
//! record surely stands.
//!
//! Copies that a restarted link makes always come after the first copy, so they are not
//! the next and are dropped.

use super::{Place, Record, RecordBody, Seq};
use crate::mutant::{self, Mutant};

/// Where a record stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// At the place or before it.
    Before,
    /// After the place.
    After,
    /// Of an older epoch: long before the place, or of a fenced agent after it.
    Unknown,
}

impl Place {
    /// On which side of this place a record of its log stands.
    #[must_use]
    pub fn side(self, record: &Record) -> Side {
        if self.epoch > 0 && record.epoch != self.epoch {
            return if record.epoch > self.epoch { Side::After } else { Side::Unknown };
        }
        // One writer, so its records rise.
        let before = match record.body {
            RecordBody::Start(_) | RecordBody::Transaction(_) => record.seq <= self.seq,
            RecordBody::Heartbeat(_) => record.seq < self.seq,
        };
        if before { Side::Before } else { Side::After }
    }
}

/// The reader's verdict on a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The next of the stream.
    Next,
    /// A new epoch has begun: parts of an unfinished transaction are void.
    NewEpoch,
    /// Seen before.
    Duplicate,
    /// Written by an agent that had lost the outbox.
    Fenced,
}

/// What was dropped of a fenced agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The epoch that the records were written in.
    pub ended: u64,
    /// The epoch that was begun before them.
    pub begun: u64,
    /// The seq of the first.
    pub first: Seq,
    /// The highest seq.
    pub last: Seq,
    /// How many there are.
    pub records: u64,
}

/// Why the stream can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Records are missing: retention was shorter than the outage, or the topic was
    /// made anew. The region has to be seeded again.
    #[error("records are missing: wanted seq {wanted}, found {found}")]
    Gap {
        /// The seq that should follow.
        wanted: Seq,
        /// The one that came.
        found: Seq,
    },
    /// The log was begun anew behind what was read of it. Each writer goes on behind all
    /// that stands before its Start record, so in one log this can't be.
    #[error("the log goes on at seq {found}, and {read} was read of it before")]
    Behind {
        /// The last seq before the epoch.
        read: Seq,
        /// The one that the epoch gives again.
        found: Seq,
    },
    /// A part of a split transaction is missing.
    #[error("part {wanted} of transaction {seq} is missing, found part {found}")]
    PartGap {
        /// The transaction.
        seq: Seq,
        /// The part that should follow.
        wanted: u32,
        /// The one that came.
        found: u32,
    },
}

/// Where a reader stands: set from the applied position at start, moved by every
/// record, never stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReaderOrder {
    epoch: u64,
    seq: Seq,
    /// What stood before the epoch, where its beginning was read.
    began: Seq,
    /// Parts taken of the transaction after `seq`.
    parts: u32,
}

impl ReaderOrder {
    /// A reader that has all up to and with `place`.
    #[must_use]
    pub const fn after(place: Place) -> Self {
        Self { epoch: place.epoch, seq: place.seq, began: Seq(0), parts: 0 }
    }

    /// The last whole transaction taken and the highest epoch seen: another reader may
    /// go on from here.
    #[must_use]
    pub const fn place(&self) -> Place {
        Place { epoch: self.epoch, seq: self.seq }
    }

    /// Judges the next record of the partition. One that is refused moves nothing: the
    /// reader may look again when the log is mended.
    ///
    /// # Errors
    /// [`OrderError`] when something between the last record and this is missing.
    pub fn accept(&mut self, record: &Record) -> Result<Accepted, OrderError> {
        let mut next = *self;
        let accepted = next.judge(record)?;
        *self = next;
        Ok(accepted)
    }

    fn judge(&mut self, record: &Record) -> Result<Accepted, OrderError> {
        if record.epoch < self.epoch {
            return Ok(Accepted::Fenced);
        }
        let new_epoch = record.epoch > self.epoch;
        if new_epoch {
            // With an unknown epoch the place may be anywhere in this one.
            self.began = if self.epoch > 0 { self.seq } else { Seq(0) };
            self.epoch = record.epoch;
            self.parts = 0;
        }
        match &record.body {
            RecordBody::Start(_) | RecordBody::Heartbeat(_) => {
                if record.seq > self.seq {
                    return Err(OrderError::Gap {
                        wanted: self.seq.next(),
                        found: record.seq.next(),
                    });
                }
                let start = matches!(record.body, RecordBody::Start(_));
                Ok(match (start, new_epoch) {
                    (true, true) => Accepted::NewEpoch,
                    (true, false) => Accepted::Duplicate,
                    (false, _) if record.seq < self.seq => Accepted::Duplicate,
                    (false, _) => Accepted::Next,
                })
            }
            RecordBody::Transaction(txn) => {
                if record.seq <= self.seq {
                    if record.seq <= self.began {
                        return Err(OrderError::Behind { read: self.began, found: record.seq });
                    }
                    if mutant::is(Mutant::DuplicatesTaken) {
                        return Ok(Accepted::Next);
                    }
                    return Ok(Accepted::Duplicate);
                }
                if record.seq > self.seq.next() {
                    return Err(OrderError::Gap { wanted: self.seq.next(), found: record.seq });
                }
                // It carries no part number of its own: it ends whatever has come.
                if !txn.aborted && txn.part < self.parts {
                    return Ok(Accepted::Duplicate);
                }
                if !txn.aborted && txn.part > self.parts {
                    return Err(OrderError::PartGap {
                        seq: record.seq,
                        wanted: self.parts,
                        found: txn.part,
                    });
                }
                if txn.last {
                    self.seq = record.seq;
                    self.parts = 0;
                } else {
                    self.parts += 1;
                }
                Ok(Accepted::Next)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Position, RegionId, Transaction, Vector, pb};
    use crate::clock::Hlc;

    fn record(epoch: u64, seq: u64, body: RecordBody) -> Record {
        Record {
            origin: RegionId::new(1).unwrap(),
            epoch,
            seq: Seq(seq),
            hlc: Hlc(1),
            deps: Vector::default(),
            gtid: String::new(),
            position: Position::default(),
            topology: 0,
            body,
        }
    }

    fn txn(epoch: u64, seq: u64, part: u32, last: bool) -> Record {
        let body = Transaction { part, last, ..Default::default() };
        record(epoch, seq, RecordBody::Transaction(body))
    }

    fn start(epoch: u64, seq: u64) -> Record {
        record(epoch, seq, RecordBody::Start(pb::Start::default()))
    }

    #[track_caller]
    fn check(records: &[Record], wanted: &[Accepted]) {
        let mut order = ReaderOrder::default();
        let got: Vec<_> = records.iter().map(|r| order.accept(r).unwrap()).collect();
        assert_eq!(got, wanted);
    }

    use Accepted::{Duplicate, Fenced, NewEpoch, Next};

    #[test]
    fn copies_of_a_restarted_link_are_dropped() {
        check(
            &[
                start(1, 0),
                txn(1, 1, 0, true),
                txn(1, 2, 0, true),
                start(1, 0),
                txn(1, 1, 0, true),
                txn(1, 2, 0, true),
                txn(1, 3, 0, true),
            ],
            &[NewEpoch, Next, Next, Duplicate, Duplicate, Duplicate, Next],
        );
    }

    #[test]
    fn an_agent_that_lost_the_outbox_is_ignored() {
        check(
            &[start(1, 0), txn(1, 1, 0, true), start(2, 1), txn(1, 2, 0, true), txn(2, 2, 0, true)],
            &[NewEpoch, Next, NewEpoch, Fenced, Next],
        );
    }

    #[test]
    fn parts_of_a_dead_agent_are_void() {
        check(
            &[
                txn(1, 1, 0, false),
                txn(1, 1, 1, false),
                start(2, 0),
                txn(2, 1, 0, false),
                txn(2, 1, 0, false),
                txn(2, 1, 1, true),
            ],
            &[Next, Next, NewEpoch, Next, Duplicate, Next],
        );
    }

    #[test]
    fn parts_of_a_rolled_back_transaction_are_void() {
        let body = Transaction { last: true, aborted: true, ..Default::default() };
        let void = record(1, 1, RecordBody::Transaction(body));
        check(
            &[
                txn(1, 1, 0, false),
                txn(1, 1, 1, false),
                void.clone(),
                txn(1, 2, 0, false),
                txn(1, 1, 1, false),
                void,
                txn(1, 2, 0, false),
                txn(1, 2, 1, true),
            ],
            &[Next, Next, Next, Next, Duplicate, Duplicate, Duplicate, Next],
        );
    }

    #[test]
    fn a_reader_at_a_place_judges_as_one_that_read_all() {
        let log = [
            start(1, 0),
            txn(1, 1, 0, true),
            txn(1, 2, 0, true),
            start(2, 2),
            txn(1, 3, 0, true),
            txn(2, 3, 0, true),
            start(3, 3),
            txn(1, 4, 0, true),
            txn(2, 4, 0, true),
            txn(3, 4, 0, true),
        ];
        let mut order = ReaderOrder::default();
        let all: Vec<_> = log.iter().map(|r| order.accept(r).unwrap()).collect();
        for (at, record) in log.iter().enumerate() {
            if all[at] != Next {
                continue;
            }
            let place = Place { epoch: record.epoch, seq: record.seq };
            for (from, other) in log.iter().enumerate() {
                let side = place.side(other);
                assert!(side != Side::Before || from <= at, "{from} is not before {at}");
                assert!(side != Side::After || from > at, "{from} is not after {at}");
            }
            for from in 0..=at + 1 {
                let mut order = ReaderOrder::after(place);
                let got: Vec<_> = log[from..].iter().map(|r| order.accept(r).unwrap()).collect();
                let counts = |a: &Accepted| matches!(a, Next | NewEpoch);
                assert_eq!(
                    got[at + 1 - from..].iter().map(counts).collect::<Vec<_>>(),
                    all[at + 1..].iter().map(counts).collect::<Vec<_>>(),
                    "after {at} from {from}"
                );
                assert!(!got[..at + 1 - from].iter().any(counts), "after {at} from {from}");
            }
        }
    }

    /// What a region ships that was seeded anew, to a reader that knows more of it.
    #[test]
    fn a_log_that_was_begun_anew_is_not_taken_for_copies() {
        let mut order = ReaderOrder::after(Place { epoch: 3, seq: Seq(6) });
        assert_eq!(order.accept(&start(9, 5)), Ok(NewEpoch));
        let behind = OrderError::Behind { read: Seq(6), found: Seq(6) };
        assert_eq!(order.accept(&txn(9, 6, 0, true)), Err(behind));
        // The old writer was a record ahead of what the new one's Start record says.
        check(
            &[start(1, 0), txn(1, 1, 0, true), start(2, 0), txn(2, 2, 0, true), txn(1, 2, 0, true)],
            &[NewEpoch, Next, NewEpoch, Next, Fenced],
        );
    }

    #[test]
    fn a_missing_record_stops_the_stream() {
        let mut order = ReaderOrder::after(Place { epoch: 1, seq: Seq(4) });
        assert!(matches!(order.accept(&txn(1, 6, 0, true)), Err(OrderError::Gap { .. })));
        assert!(matches!(order.accept(&txn(1, 5, 1, true)), Err(OrderError::PartGap { .. })));
        assert!(matches!(order.accept(&start(2, 5)), Err(OrderError::Gap { .. })));
        assert_eq!(order.accept(&txn(1, 5, 0, true)), Ok(Next), "what was refused moves nothing");
    }
}
