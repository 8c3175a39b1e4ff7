use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::change::{BinlogPoint, Column, ForeignKey, Kind, Row, RowChange, Table, Value};
use crate::resolve::{Allow, Merge, Policy};
use crate::version::{BatchId, Role, RowKey};

fn at(trusted_us: u64) -> Now {
    Now { trusted_us, source_off_us: 0 }
}

fn region(id: u8) -> RegionId {
    RegionId::new(id).unwrap()
}

fn stamper() -> Stamper {
    stamper_by(Rulebook::default())
}

fn stamper_by(book: Rulebook) -> Stamper {
    let tail = Tail {
        seq: Seq(4),
        hlc: Hlc(100),
        deps: Vector::default(),
        position: Position("0-1-4".into()),
    };
    let index = Arc::new(Mutex::new(Index::default()));
    Stamper::new((region(1), 0), 2, &tail, Clock::new(tail.hlc, 500_000), (index, book))
}

fn after(seq: u64) -> Checkpoint {
    let point = BinlogPoint::Domains(BTreeMap::from([(0, seq)]));
    Checkpoint { position: Position(format!("0-1-{seq}")), point }
}

fn changes(part: u32, last: bool, id: i64) -> CaptureEvent {
    let column = Column { name: "id".into(), key: 1, ..Default::default() };
    let table =
        Table { schema: "s".into(), name: "t".into(), columns: vec![column], ..Default::default() };
    let row = Row { values: vec![Value::new(Kind::Int(id))] };
    CaptureEvent::Changes {
        gtid: "0-1-5".into(),
        commit: CommitTime::Micros(200),
        part,
        last,
        changes: vec![TableChange {
            table: Arc::new(table),
            rows: vec![RowChange { before: None, after: Some(row) }],
        }],
        after: after(5),
    }
}

/// The row is deleted.
fn gone(part: u32, last: bool, id: i64) -> CaptureEvent {
    let CaptureEvent::Changes { gtid, commit, mut changes, after, .. } = changes(part, last, id)
    else {
        unreachable!()
    };
    let row = &mut changes[0].rows[0];
    row.before = row.after.take();
    CaptureEvent::Changes { gtid, commit, part, last, changes, after }
}

#[test]
fn a_change_of_a_row_that_may_only_be_inserted_is_told_once() {
    let policy = Policy { allow: Allow::Inserts, ..Policy::default() };
    let mut stamper = stamper_by(Rulebook::new(move |_| policy.clone()));
    stamper.take(changes(0, true, 1), at(0)).unwrap();
    assert_eq!(stamper.refused(), None);
    assert!(
        stamper.take(gone(0, true, 1), at(0)).unwrap().is_some(),
        "it is committed: it is shipped"
    );
    assert_eq!(stamper.refused(), Some("s.t".to_owned()));
    assert_eq!(stamper.refused(), None);
}

#[test]
fn a_transaction_gets_the_next_seq_and_what_was_applied_before_it() {
    let mut stamper = stamper();
    let mark = AppliedMark { origin: region(2), epoch: 1, seq: Seq(9), hlc: Hlc(900) };
    let applied = CaptureEvent::Applied { marks: vec![mark], after: after(4) };
    assert!(stamper.take(applied, at(0)).unwrap().is_none());
    let record = stamper.take(changes(0, true, 1), at(1_000)).unwrap().unwrap();
    assert_eq!(record.seq, Seq(5));
    assert!(record.hlc > Hlc(900), "later than what it had seen");
    assert_eq!(record.deps.place(region(2)), Place { epoch: 1, seq: Seq(9) });
    assert_eq!(record.position, Position("0-1-5".into()));
}

#[test]
fn parts_share_one_stamp_and_enter_the_index_together() {
    let mut stamper = stamper();
    let first = stamper.take(changes(0, false, 1), at(1_000)).unwrap().unwrap();
    assert!(!stamper.is_idle());
    assert!(lock(&stamper.index).is_empty());
    assert_eq!(first.position, Position("0-1-4".into()), "a restart begins before it");
    let second = stamper.take(changes(1, true, 2), at(5_000)).unwrap().unwrap();
    assert_eq!((first.seq, first.hlc), (second.seq, second.hlc));
    assert_eq!(lock(&stamper.index).len(), 2);
}

#[test]
fn what_is_kept_of_a_row_counts_by_all_that_the_parts_did_to_it() {
    let merge = Some(Merge::default());
    let mut stamper =
        stamper_by(Rulebook::new(move |_| Policy { merge: merge.clone(), ..Policy::default() }));
    let record = stamper.take(changes(0, false, 1), at(0)).unwrap().unwrap();
    let RecordBody::Transaction(txn) = record.body else { unreachable!() };
    assert_eq!(txn.changes[0].rows.len(), 1, "it is shipped with its part");
    stamper.take(gone(1, false, 1), at(0)).unwrap();
    stamper.take(changes(2, true, 2), at(0)).unwrap();
    let index = lock(&stamper.index);
    assert_eq!((index.len(), index.kept_writes()), (1, 1), "there and gone again is nothing");
}

#[test]
fn what_a_later_part_took_away_references_nothing() {
    let mut stamper = stamper();
    let with_key = |event| {
        let CaptureEvent::Changes { gtid, commit, part, last, mut changes, after } = event else {
            unreachable!()
        };
        Arc::make_mut(&mut changes[0].table).foreign_keys = vec![ForeignKey::to("p", 0)];
        CaptureEvent::Changes { gtid, commit, part, last, changes, after }
    };
    let CaptureEvent::Changes { changes: made, .. } = with_key(changes(0, false, 1)) else {
        unreachable!()
    };
    let (table, row) = (&made[0].table, made[0].rows[0].after.as_ref().unwrap());
    let value = RowKey::referenced(table, &table.foreign_keys[0], row).unwrap();
    let filed = |stamper: &Stamper| {
        lock(&stamper.index).filed(value, Role::References, BatchId(u64::MAX)).count()
    };
    stamper.take(with_key(changes(0, false, 1)), at(0)).unwrap();
    stamper.take(with_key(gone(1, true, 1)), at(0)).unwrap();
    assert_eq!(filed(&stamper), 0);
    stamper.take(with_key(changes(0, true, 1)), at(0)).unwrap();
    assert_eq!(filed(&stamper), 1);
}

#[test]
fn an_aborted_transaction_keeps_its_seq() {
    let mut stamper = stamper();
    stamper.take(changes(0, false, 1), at(1_000)).unwrap();
    let void = stamper.take(CaptureEvent::Aborted, at(1_000)).unwrap().unwrap();
    assert_eq!((void.seq, void.position), (Seq(5), Position("0-1-4".into())));
    let next = stamper.take(changes(0, true, 2), at(1_000)).unwrap().unwrap();
    assert_eq!((next.seq, next.position), (Seq(6), Position("0-1-5".into())));
}
