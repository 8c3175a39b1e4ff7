use std::sync::Mutex;

use super::*;
use crate::apply::Flavor;
use crate::change::{
    Column, ColumnType, Kind, RecordBody, Row, RowChange, Table, TableChange, Transaction, Value,
};
use crate::clock::Hlc;
use crate::resolve::Rulebook;
use crate::version::{Action, Index, RowKey, Version, Write};

fn region(id: u8) -> RegionId {
    RegionId::new(id).unwrap()
}

/// An insert of one row, whose key the collation compares.
fn insert(origin: u8, seq: u64, key: &str) -> Arrival {
    let column = Column {
        name: "id".into(),
        r#type: ColumnType::Char.into(),
        key: 1,
        collation: "utf8mb4_general_ci".into(),
        ..Default::default()
    };
    let table =
        Table { schema: "s".into(), name: "t".into(), columns: vec![column], ..Default::default() };
    let row = Row { values: vec![Value::new(Kind::Bytes(key.to_owned().into()))] };
    let rows = vec![RowChange { before: None, after: Some(row) }];
    let changes = vec![TableChange { table: Arc::new(table), rows }];
    let body = Transaction { last: true, changes, ..Default::default() };
    Arrival::of(region(origin), seq, RecordBody::Transaction(body))
}

/// What the applier is joined to.
struct Ends {
    arrivals: BTreeMap<RegionId, mpsc::Sender<Arrival>>,
    captured: watch::Sender<BinlogPoint>,
    acked: watch::Sender<Seq>,
}

impl Ends {
    fn send(&self, arrival: Arrival) {
        self.arrivals[&arrival.record.origin].try_send(arrival).unwrap();
    }
}

fn applier() -> (Applier, Ends) {
    let (mut senders, mut arrivals) = (BTreeMap::new(), BTreeMap::new());
    for origin in [region(2), region(3)] {
        let (sender, receiver) = mpsc::channel(8);
        senders.insert(origin, sender);
        arrivals.insert(origin, receiver);
    }
    let config = ApplyConfig {
        region: region(1),
        opts: mysql_async::Opts::default(),
        flavor: Flavor::MariaDb,
        epoch: 1,
        limits: BatchLimits { rows: 100, bytes: 1 << 20, txns: 100 },
        wait_max: Duration::from_millis(50),
        book: Rulebook::default(),
        ahead_us_max: 1,
    };
    let (captured_tx, captured) = watch::channel(BinlogPoint::Domains(BTreeMap::new()));
    let (acked_tx, acked) = watch::channel(Seq(0));
    let sources = Sources {
        index: Arc::new(Mutex::new(Index::default())),
        gone: Gone::default(),
        captured,
        awaited: watch::channel(0).0,
        acked,
        schema: watch::channel(0).1,
        offset_us: watch::channel(0).1,
    };
    let reports = mpsc::channel(8).0;
    let ends = Ends { arrivals: senders, captured: captured_tx, acked: acked_tx };
    (Applier::new(config, arrivals, Vector::default(), reports, sources), ends)
}

#[track_caller]
fn batch_of(applier: &mut Applier) -> Option<Vec<Dot>> {
    let Gathered::Batch(items) = applier.gather() else { panic!("nothing to apply") };
    let batch = applier.plan(items)?;
    Some(batch.items.iter().map(|item| item.dot).collect())
}

fn dot(origin: u8, seq: u64) -> Dot {
    Dot { origin: region(origin), seq: Seq(seq) }
}

/// Without a batch in flight, and with one: the vector must not fall behind it.
#[test]
fn a_transaction_that_can_not_be_planned_halts_its_own_stream_alone() {
    let (mut applier, ends) = applier();
    ends.send(insert(2, 1, "a"));
    assert_eq!(batch_of(&mut applier), Some(vec![dot(2, 1)]));
    ends.send(insert(3, 1, "é"));
    assert_eq!(batch_of(&mut applier), None);
    assert!(matches!(applier.streams[&region(3)].state, StreamState::Halted { .. }));
    ends.send(insert(2, 2, "b"));
    assert_eq!(batch_of(&mut applier), Some(vec![dot(2, 2)]));
}

#[test]
fn what_stands_before_a_transaction_that_can_not_be_planned_is_applied() {
    let (mut applier, ends) = applier();
    ends.send(insert(3, 1, "a"));
    ends.send(insert(3, 2, "é"));
    assert_eq!(batch_of(&mut applier), Some(vec![dot(3, 1)]));
    assert_eq!(batch_of(&mut applier), None);
    assert_eq!(applier.planned.get(region(3)), Seq(1));
}

fn point(seq: u64) -> BinlogPoint {
    BinlogPoint::Domains(BTreeMap::from([(0, seq)]))
}

/// A write of this region's own on the same row, captured now.
fn enter_local(applier: &Applier, seq: u64, key: &str) {
    let RecordBody::Transaction(txn) = insert(1, seq, key).record.body else { unreachable!() };
    let change = &txn.changes[0];
    let table = &change.table;
    let touched = RowKey::touched(table, &table.key_columns(), &change.rows[0]).unwrap();
    let (key, action) = (touched[0].key, Action::Insert);
    let version = Version { dot: dot(1, seq), hlc: Hlc(seq), action };
    let deps = Arc::new(Vector::default());
    lock(&applier.index).enter_local(&Write { key, version, deps, body: None, foreign: None });
}

/// A batch of one row, written, whose locks were taken when the binlog ended at 5.
fn written(applier: &mut Applier, ends: &Ends) -> Written {
    ends.send(insert(2, 1, "a"));
    let Gathered::Batch(items) = applier.gather() else { panic!("nothing to apply") };
    Written::new(applier.plan(items).unwrap(), point(5), 0)
}

#[tokio::test]
async fn a_batch_passes_once_capture_has_come_as_far_as_its_locks() {
    let (mut applier, ends) = applier();
    let written = written(&mut applier, &ends);
    ends.captured.send_replace(point(4));
    assert!(matches!(applier.gate.pass(&written).await, Err(Miss::CaptureBehind(_))));
    ends.captured.send_replace(point(5));
    assert!(applier.gate.pass(&written).await.is_ok());
}

#[tokio::test]
async fn a_row_that_changed_under_the_batch_is_not_overwritten() {
    let (mut applier, ends) = applier();
    let written = written(&mut applier, &ends);
    enter_local(&applier, 1, "b");
    ends.captured.send_replace(point(5));
    assert!(applier.gate.pass(&written).await.is_ok(), "another row does not matter");
    enter_local(&applier, 2, "A ");
    assert!(matches!(applier.gate.pass(&written).await, Err(Miss::Stale)));
}

#[tokio::test]
async fn a_local_write_counts_once_it_is_durable_in_the_outbox() {
    let (mut applier, ends) = applier();
    enter_local(&applier, 7, "a");
    let written = written(&mut applier, &ends);
    ends.captured.send_replace(point(5));
    ends.acked.send_replace(Seq(6));
    assert!(matches!(applier.gate.pass(&written).await, Err(Miss::OutboxBehind(_))));
    ends.acked.send_replace(Seq(7));
    assert!(applier.gate.pass(&written).await.is_ok());
}

/// With a batch in flight whose commit is still to come.
#[test]
fn what_was_planned_ahead_and_put_back_is_planned_again_after_what_is_in_flight() {
    let (mut applier, ends) = applier();
    let in_flight = written(&mut applier, &ends);
    ends.send(insert(2, 2, "b"));
    let Gathered::Batch(items) = applier.gather() else { panic!("nothing to apply") };
    let ahead = applier.plan(items);
    applier.unplan(ahead, &[Some(&in_flight.batch)]);
    assert_eq!(applier.planned.get(region(2)), Seq(1));
    assert_eq!(batch_of(&mut applier), Some(vec![dot(2, 2)]));
}
