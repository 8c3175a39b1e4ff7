//! What a batch's locks do to local writers while it waits at the gate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::ME;
use causeway::apply::{
    ApplyConfig, ApplyInputs, Arrival, BatchLimits, Flavor, Gone, Report, bootstrap, run,
    take_epoch,
};
use causeway::change::{
    Accepted, BinlogPoint, ColumnType, Dot, Kind, Position, Record, RecordBody, Row, RowChange,
    Seq, Table, TableChange, Transaction, Value, Vector,
};
use causeway::clock::Hlc;
use causeway::resolve::{Incoming, Rulebook, touched};
use causeway::version::Index;
use mysql_async::prelude::Queryable as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lab::db::{Database, Flavour, Settings};
use super::lab::{PATIENCE, wait_until};
use super::{ORIGIN, column};

/// A running applier whose capture is the test.
struct Applier {
    db: Database,
    index: Arc<Mutex<Index>>,
    arrivals: mpsc::Sender<Arrival>,
    captured: watch::Sender<BinlogPoint>,
    awaited: watch::Receiver<u32>,
    acked: watch::Sender<Seq>,
    reports: mpsc::Receiver<Report>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

/// Before everything.
const NOTHING: BinlogPoint = BinlogPoint::Domains(BTreeMap::new());

/// Past everything.
fn all() -> BinlogPoint {
    BinlogPoint::Domains(BTreeMap::from([(0, u64::MAX), (1, u64::MAX)]))
}

impl Applier {
    /// One transaction a batch; capture has read nothing yet.
    async fn start() -> Self {
        let db = Database::start(&Settings::small(Flavour::MariaDb, 1)).await;
        let mut conn = db.conn().await;
        bootstrap(&mut conn).await.unwrap();
        let epoch = take_epoch(&mut conn, ME, 0).await.unwrap();
        db.exec("CREATE DATABASE s; CREATE TABLE s.t (id INT PRIMARY KEY, n INT)").await;
        db.exec("INSERT INTO s.t VALUES (1, 0)").await;
        let (arrivals, arriving) = mpsc::channel(64);
        let (captured, captured_rx) = watch::channel(NOTHING);
        let (awaited_tx, awaited) = watch::channel(0);
        let (acked, acked_rx) = watch::channel(Seq(0));
        let (reports_tx, reports) = mpsc::channel(64);
        let config = ApplyConfig {
            region: ME,
            opts: db.opts(),
            flavor: Flavor::MariaDb,
            epoch,
            limits: BatchLimits { rows: 100, bytes: 1 << 20, txns: 1 },
            book: Rulebook::default(),
            wait_max: Duration::from_secs(600),
            ahead_us_max: 1,
        };
        let index = Arc::new(Mutex::new(Index::default()));
        let (orders, offset_us) = (mpsc::channel(1).1, watch::channel(0).1);
        let inputs = ApplyInputs {
            arrivals: BTreeMap::from([(ORIGIN, arriving)]),
            applied: Vector::default(),
            index: Arc::clone(&index),
            gone: Gone::default(),
            captured: captured_rx,
            awaited: awaited_tx,
            acked: acked_rx,
            schema: watch::channel(0).1,
            orders,
            offset_us,
        };
        let (cancel, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let running = run(config, inputs, reports_tx, cancel.clone());
        tasks.spawn(async move { Box::pin(running).await.unwrap() });
        Self { db, index, arrivals, captured, awaited, acked, reports, cancel, tasks }
    }

    /// A local write of the row that all share is known, before all of the peer's.
    fn wrote(&self, n: i64) {
        let incoming = Incoming {
            dot: Dot { origin: ME, seq: Seq(1) },
            hlc: Hlc(0),
            deps: &Arc::new(Vector::default()),
            gtid: "1-1-1",
            changes: &[change(n)],
        };
        let touched = touched(&Rulebook::default(), &incoming).unwrap();
        touched.iter().for_each(|one| self.index.lock().unwrap().enter_local(&one.write));
        self.acked.send_replace(Seq(1));
    }

    /// The peer writes `n` into the row that all share.
    async fn send(&self, seq: u64, n: i64) {
        let changes = vec![change(n)];
        let record = Record {
            origin: ORIGIN,
            epoch: 1,
            seq: Seq(seq),
            hlc: Hlc(seq),
            deps: Vector::default(),
            gtid: String::new(),
            position: Position::default(),
            topology: 0,
            body: RecordBody::Transaction(Transaction {
                last: true,
                changes,
                ..Default::default()
            }),
        };
        let arrival = Arrival { record, accepted: Accepted::Next, bytes: 100, room: None };
        self.arrivals.send(arrival).await.unwrap();
    }

    /// The next batch that is done again, and why.
    async fn put_back(&mut self) -> String {
        loop {
            match self.reports.recv().await.unwrap() {
                Report::Retry(why) => return why,
                Report::Applied { .. }
                | Report::Conflicts(_)
                | Report::State(..)
                | Report::Round => {}
            }
        }
    }

    async fn lock_timeouts(&self) -> i64 {
        let count = "SELECT COUNT FROM information_schema.innodb_metrics \
            WHERE name = 'lock_timeouts' AND enabled = 1";
        self.db.number(count).await
    }

    async fn until(&self, n: i64) {
        wait_until("the write is applied", PATIENCE, || async {
            self.db.number("SELECT n FROM s.t WHERE id = 1").await == n
        })
        .await;
    }

    async fn stop(mut self) {
        self.cancel.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
        drop(self.acked);
    }
}

/// Writes `n` into the row that all share.
fn change(n: i64) -> TableChange {
    let table = Table {
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        schema: "s".to_owned(),
        name: "t".to_owned(),
        columns: vec![column("id", ColumnType::Int, 1), column("n", ColumnType::Int, 0)],
    };
    let values = vec![Value::new(Kind::Int(1)), Value::new(Kind::Int(n))];
    let rows = vec![RowChange { before: None, after: Some(Row { values }) }];
    TableChange { table: Arc::new(table), rows }
}

/// Were they locked after it, each local write meanwhile would call for a new plan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_waits_for_the_conflict_log_has_locked_its_rows() {
    let applier = Applier::start().await;
    applier.captured.send_replace(all());
    applier.wrote(0);
    let mut older = applier.db.conn().await;
    older.query_drop("BEGIN").await.unwrap();
    older.query_drop("SELECT * FROM causeway.conflict_head FOR UPDATE").await.unwrap();
    applier.send(1, 10).await;
    wait_until("the batch locks its row", PATIENCE, || async {
        let mut client = applier.db.conn().await;
        let locked = client.query_drop("SELECT * FROM s.t FOR UPDATE NOWAIT").await.is_err();
        client.disconnect().await.unwrap();
        locked
    })
    .await;
    assert_eq!(applier.db.number("SELECT COUNT(*) FROM causeway.conflicts").await, 0);
    older.query_drop("ROLLBACK").await.unwrap();
    applier.until(10).await;
    assert_eq!(applier.db.number("SELECT COUNT(*) FROM causeway.conflicts").await, 1);
    applier.stop().await;
}

/// The younger of the two batches in flight waits for the older one's locks; were
/// they held until it has stopped waiting, every miss would cost a lock wait's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_does_not_pass_lets_its_locks_go_at_once() {
    let mut applier = Applier::start().await;
    let mut rounds = 0;
    for round in 0..5 {
        let before = applier.lock_timeouts().await;
        applier.captured.send_replace(NOTHING);
        let (first, second) = (2 * round + 1, 2 * round + 2);
        applier.send(first, 10).await;
        applier.send(second, i64::try_from(100 + round).unwrap()).await;
        assert!(applier.put_back().await.contains("capture"));
        rounds += i32::from(applier.lock_timeouts().await == before);
        applier.captured.send_replace(all());
        applier.until(i64::try_from(100 + round).unwrap()).await;
    }
    assert!(rounds > 0, "every miss took a lock wait to its end");
    applier.stop().await;
}

/// Neither limit is near: the applier may wait 600 s, the local writer 60 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_writer_does_not_wait_for_a_capture_that_stands_still() {
    let mut applier = Applier::start().await;
    applier.send(1, 10).await;
    assert!(applier.put_back().await.contains("capture"));
    let held = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_rows_locked > 0";
    wait_until("no lock is held", PATIENCE, || async { applier.db.number(held).await == 0 }).await;
    let local = "SET innodb_lock_wait_timeout = 60; UPDATE s.t SET n = 5 WHERE id = 1";
    applier.db.exec(local).await;
    // Only once capture moves is the batch tried again; it need not have seen this.
    applier.captured.send_replace(all());
    applier.until(10).await;
    applier.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capture_is_told_as_long_as_a_batch_waits_for_it() {
    let mut applier = Applier::start().await;
    assert_eq!(*applier.awaited.borrow(), 0);
    applier.send(1, 10).await;
    let told = applier.awaited.wait_for(|&waiting| waiting == 1);
    tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
    applier.captured.send_replace(all());
    applier.until(10).await;
    assert_eq!(*applier.awaited.borrow(), 0);
    applier.stop().await;
}
