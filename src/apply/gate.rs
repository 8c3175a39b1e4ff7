//! The gate between writing a batch and committing it (R7): capture must have passed
//! the binlog's end as read under the batch's locks, no row may have changed under
//! it, and the local writes it stands on must be durable in the outbox.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::batch::{self, Batch};
use super::{ApplyError, ErrorKind, Session, redo};
use crate::change::{BinlogPoint, RegionId, Seq};
use crate::failpoint;
use crate::resolve::{Plan, Rulebook};
use crate::version::{BatchId, Index};

/// The index, shared with capture. Held for single steps, never across a wait.
pub type SharedIndex = Arc<Mutex<Index>>;

/// Why a batch is not committed.
#[derive(Debug)]
pub(super) enum Miss {
    /// A local write changed a row under it.
    Stale,
    /// A table was altered after it was looked at.
    Altered,
    /// Capture did not reach the point in time.
    CaptureBehind(BinlogPoint),
    /// A local write it stands on is not durable in the outbox.
    OutboxBehind(Seq),
    /// The database refused.
    Database(ApplyError),
    /// It gave no good answer to COMMIT.
    Commit(ApplyError),
}

impl Miss {
    /// Whether the batch may have committed all the same: the answer was lost.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Commit(error) if error.kind() == ErrorKind::Retry)
    }
}

/// A batch that is written, with its locks held.
pub(super) struct Written {
    pub(super) batch: Batch,
    pub(super) point: BinlogPoint,
    /// Too dear to do again at the first stand-still.
    pub(super) large: bool,
    /// It was done again under its locks.
    pub(super) redone: bool,
    /// [`Gate::schema`] when the tables here were looked at for it.
    pub(super) schema: u64,
}

impl Written {
    pub(super) fn new(batch: Batch, point: BinlogPoint, schema: u64) -> Self {
        Self { batch, point, large: false, redone: false, schema }
    }
}

/// How long a batch may hold its locks while what it waits for stands still: a local
/// writer who meets them waits as long. Doubled with each miss in a row, so that a
/// batch passes in the end where Kafka acknowledges in bursts.
const STILL_MAX: Duration = Duration::from_millis(250);

/// What a written batch waits for (R7).
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) region: RegionId,
    pub(super) book: Rulebook,
    pub(super) index: SharedIndex,
    pub(super) captured: watch::Receiver<BinlogPoint>,
    /// How many wait for `captured`.
    pub(super) awaited: watch::Sender<u32>,
    pub(super) acked: watch::Receiver<Seq>,
    /// Counts the schema changes here that capture has read.
    pub(super) schema: watch::Receiver<u64>,
    pub(super) wait_max: Duration,
    /// Misses in a row because capture or outbox stood still.
    pub(super) stood: u32,
    /// What must be reached before a batch takes locks again.
    pub(super) shut: Option<Shut>,
}

/// Why no batch takes locks: the last one waited for this in vain.
#[derive(Clone, Debug)]
pub(super) struct Shut {
    pub(super) until: Until,
    pub(super) since: Instant,
}

/// What a batch waited for.
#[derive(Clone, Debug)]
pub(super) enum Until {
    /// Capture.
    Captured(BinlogPoint),
    /// The outbox.
    Acked(Seq),
}

/// Waits until `enough`; standing still it waits `still` at most, moving `all`.
async fn reached<T>(
    mut held: watch::Receiver<T>,
    (still, all): (Duration, Duration),
    enough: impl Fn(&T) -> bool,
) -> bool {
    let wait = async {
        while !enough(&held.borrow_and_update()) {
            if !matches!(timeout(still, held.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    };
    timeout(all, wait).await.unwrap_or(false)
}

/// One more waits for capture, until it is dropped.
struct Waits<'a>(&'a watch::Sender<u32>);

impl<'a> Waits<'a> {
    fn begin(awaited: &'a watch::Sender<u32>) -> Self {
        awaited.send_modify(|waiting| *waiting += 1);
        Self(awaited)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

pub(super) fn lock(index: &SharedIndex) -> std::sync::MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// Holds the batch until capture has passed its point and what it stands on is
    /// durable, then looks again.
    pub(super) async fn pass(&self, written: &Written) -> Result<(), Miss> {
        let still = match written.large {
            true => self.wait_max,
            false => STILL_MAX.saturating_mul(1 << self.stood.min(8)).min(self.wait_max),
        };
        let waits = (still, self.wait_max);
        let point = &written.point;
        if !self.captured_to(point, waits).await {
            return Err(Miss::CaptureBehind(point.clone()));
        }
        if *self.schema.borrow() != written.schema {
            return Err(Miss::Altered);
        }
        if written.batch.plan.is_stale(&lock(&self.index), written.batch.id) {
            return Err(Miss::Stale);
        }
        if let Some(seq) = written.batch.plan.stands_on(self.region)
            && !reached(self.acked.clone(), waits, |held| *held >= seq).await
        {
            return Err(Miss::OutboxBehind(seq));
        }
        Ok(())
    }

    /// Whether capture has reached the point in time. It is told that it is waited for.
    async fn captured_to(&self, point: &BinlogPoint, waits: (Duration, Duration)) -> bool {
        let _waits = Waits::begin(&self.awaited);
        reached(self.captured.clone(), waits, |held| held.covers(point)).await
    }

    /// After the database refused a row of a plan: whether the plan knew all that is
    /// committed here. A local write that capture had not read may hold the key or the
    /// value that the row was to get, and the plan takes it away once it knows of it.
    pub(super) async fn knew_all(
        &self,
        session: &mut Session,
        (plan, id): (&Plan, BatchId),
    ) -> Result<(), Miss> {
        let point = session.write_and_point(&[]).await.map_err(Miss::Database)?;
        let waits = (self.wait_max, self.wait_max);
        if !self.captured_to(&point, waits).await {
            return Err(Miss::CaptureBehind(point));
        }
        if plan.is_stale(&lock(&self.index), id) { Err(Miss::Stale) } else { Ok(()) }
    }

    /// Shuts the gate until what the batch waited for in vain is there.
    pub(super) fn missed(&mut self, miss: &Miss) {
        let until = match miss {
            Miss::CaptureBehind(point) => Until::Captured(point.clone()),
            Miss::OutboxBehind(seq) => Until::Acked(*seq),
            Miss::Stale | Miss::Altered | Miss::Database(_) | Miss::Commit(_) => return,
        };
        self.stood += 1;
        self.shut = Some(Shut { until, since: Instant::now() });
    }

    /// Whether a batch may take locks.
    pub(super) fn is_open(&mut self) -> bool {
        let open = match self.shut.as_ref().map(|shut| &shut.until) {
            None => true,
            Some(Until::Captured(point)) => self.captured.borrow().covers(point),
            Some(Until::Acked(seq)) => *self.acked.borrow() >= *seq,
        };
        if open {
            self.shut = None;
        }
        open
    }

    /// Resolves when what the gate is shut for has moved; never when it is open.
    pub(super) async fn moved(&mut self) {
        let changed = match self.shut.as_ref().map(|shut| &shut.until) {
            None => std::future::pending().await,
            Some(Until::Captured(_)) => self.captured.changed().await,
            Some(Until::Acked(_)) => self.acked.changed().await,
        };
        if changed.is_err() {
            // The session ends.
            std::future::pending::<()>().await;
        }
    }
}

/// Lets a written batch through the gate and commits it. One that does not pass is
/// rolled back here and now: the younger batch may wait for its locks.
pub(super) async fn finish(
    gate: &Gate,
    session: &mut Session,
    written: Option<&mut Written>,
) -> Result<(), Miss> {
    let Some(written) = written.filter(|written| !written.batch.is_idle()) else { return Ok(()) };
    let passed = redo::pass(gate, session, written).await;
    if passed.is_ok() {
        failpoint::hit("apply.before_commit");
        session.commit().await.map_err(Miss::Commit)?;
        failpoint::hit("apply.after_commit");
    } else {
        session.rollback().await.map_err(Miss::Database)?;
    }
    passed
}

/// Writes a batch and reads the point of the binlog under its locks. Where rows are
/// missing it begins anew: to tell of them it looks before it writes.
pub(super) async fn write(
    session: &mut Session,
    gate: &Gate,
    batch: Option<&mut Batch>,
) -> Result<BinlogPoint, ApplyError> {
    let Some(batch) = batch.filter(|batch| !batch.is_idle()) else {
        return Ok(BinlogPoint::Domains(BTreeMap::new()));
    };
    failpoint::pause(failpoint::PLANNED).await;
    begin(session, batch).await?;
    if let Some(point) = write_rows(session, gate, batch, false).await? {
        return Ok(point);
    }
    session.rollback().await?;
    begin(session, batch).await?;
    looking(session, gate, batch).await
}

async fn begin(session: &mut Session, batch: &Batch) -> Result<(), ApplyError> {
    session.begin(batch.slot(), &batch.marks()).await?;
    if batch.care {
        session.savepoint();
    }
    Ok(())
}

/// Writes a batch once more, after its marker rows.
pub(super) async fn rewrite(
    session: &mut Session,
    gate: &Gate,
    batch: &mut Batch,
) -> Result<BinlogPoint, ApplyError> {
    if let Some(point) = write_rows(session, gate, batch, false).await? {
        return Ok(point);
    }
    session.take_back().await?;
    looking(session, gate, batch).await
}

async fn looking(
    session: &mut Session,
    gate: &Gate,
    batch: &mut Batch,
) -> Result<BinlogPoint, ApplyError> {
    let point = write_rows(session, gate, batch, true).await?;
    point.ok_or_else(|| ApplyError::Again("rows went while they were looked at".to_owned()))
}

/// None when rows were missing that were not looked for.
async fn write_rows(
    session: &mut Session,
    gate: &Gate,
    batch: &mut Batch,
    look: bool,
) -> Result<Option<BinlogPoint>, ApplyError> {
    let items = &batch.items;
    let own = |dot| items.iter().any(|item| item.dot == dot);
    let stood = session.standing(&batch.plan.conflicts, &own).await?;
    if look {
        let absent = session.absent(&batch.plan.tables).await?;
        batch.plan.conflicts.extend(batch::missing(&gate.book, items, absent));
    }
    let (point, found) = session.write_and_count(&batch.plan.tables).await?;
    if !found && !look {
        return Ok(None);
    }
    session.log_conflicts(gate.region, &batch.plan.conflicts, stood).await?;
    Ok(Some(point))
}

const CAPTURE_BEHIND: &str = "capture has not read the local binlog up to its end";
pub(super) const SHUT_ADVICE: &str = "look at capture and outbox above: they say what they need";
const OUTBOX_BEHIND: &str = "a local write is not durable in the outbox yet";

/// Why no batch takes locks at present, for people.
pub(super) const fn shut_text(until: &Until) -> &'static str {
    match until {
        Until::Captured(_) => CAPTURE_BEHIND,
        Until::Acked(_) => OUTBOX_BEHIND,
    }
}

pub(super) fn miss_text(miss: &Miss) -> String {
    match miss {
        Miss::Stale => "a local write changed a row under the batch".to_owned(),
        Miss::Altered => "a table was altered under the batch".to_owned(),
        Miss::CaptureBehind(_) => CAPTURE_BEHIND.to_owned(),
        Miss::OutboxBehind(_) => OUTBOX_BEHIND.to_owned(),
        Miss::Database(error) | Miss::Commit(error) => error.to_string(),
    }
}
