//! The gate between writing a batch and committing it (R7): capture must have passed
//! the binlog's end as read under the batch's locks, no row may have changed under
//! it, and the local writes it stands on must be durable in the outbox.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::batch::Batch;
use super::{ApplyError, ErrorKind, Mark, Session};
use crate::change::{BinlogPoint, RegionId, Seq};
use crate::failpoint;
use crate::version::Index;

/// The index, shared with capture. Held for single steps, never across a wait.
pub type SharedIndex = Arc<Mutex<Index>>;

/// Why a batch is not committed.
#[derive(Debug)]
pub(super) enum Miss {
    /// A local write changed a row under it.
    Stale,
    /// Capture did not reach the point in time.
    CaptureBehind,
    /// A local write it stands on is not durable in the outbox.
    OutboxBehind,
    /// The database refused.
    Database(ApplyError),
}

impl Miss {
    /// Whether the batch may have committed all the same: the answer was lost.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Database(error) if error.kind() == ErrorKind::Retry)
    }
}

/// A batch that is written, with its locks held.
pub(super) struct Written {
    pub(super) batch: Batch,
    pub(super) point: BinlogPoint,
}

/// What a written batch waits for (R7).
pub(super) struct Gate {
    pub(super) region: RegionId,
    pub(super) index: SharedIndex,
    pub(super) captured: watch::Receiver<BinlogPoint>,
    pub(super) acked: watch::Receiver<Seq>,
    pub(super) wait_max: Duration,
}

pub(super) fn lock(index: &SharedIndex) -> std::sync::MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// Holds the batch until capture has passed its point and what it stands on is
    /// durable, then looks again.
    pub(super) async fn pass(&mut self, written: &Written) -> Result<(), Miss> {
        let point = &written.point;
        let captured = self.captured.wait_for(|held| held.covers(point));
        match tokio::time::timeout(self.wait_max, captured).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(Miss::CaptureBehind),
        }
        if written.batch.plan.is_stale(&lock(&self.index), written.batch.id) {
            return Err(Miss::Stale);
        }
        if let Some(seq) = written.batch.plan.stands_on(self.region) {
            let acked = self.acked.wait_for(|held| *held >= seq);
            match tokio::time::timeout(self.wait_max, acked).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return Err(Miss::OutboxBehind),
            }
        }
        Ok(())
    }
}

/// Lets a written batch through the gate and commits it.
pub(super) async fn finish(
    gate: &mut Gate,
    session: &mut Session,
    written: Option<&Written>,
) -> Result<(), Miss> {
    let Some(written) = written.filter(|written| !written.batch.is_idle()) else { return Ok(()) };
    let passed = gate.pass(written).await;
    if passed.is_ok() {
        failpoint::hit("apply.before_commit");
        session.commit().await.map_err(Miss::Database)?;
        failpoint::hit("apply.after_commit");
    }
    passed
}

/// Writes a batch and reads the point of the binlog under its locks.
pub(super) async fn write(
    session: &mut Session,
    batch: Option<&Batch>,
) -> Result<BinlogPoint, ApplyError> {
    let Some(batch) = batch.filter(|batch| !batch.is_idle()) else {
        return Ok(BinlogPoint::Domains(BTreeMap::new()));
    };
    let marks: Vec<Mark> = batch
        .marks()
        .into_values()
        .map(|(dot, hlc)| Mark { origin: dot.origin, seq: dot.seq, hlc })
        .collect();
    session.begin(batch.slot(), &marks).await?;
    session.write_and_point(&batch.plan.tables).await
}

pub(super) fn miss_text(miss: &Miss) -> String {
    match miss {
        Miss::Stale => "a local write changed a row under the batch".to_owned(),
        Miss::CaptureBehind => "capture has not reached the binlog's end in time".to_owned(),
        Miss::OutboxBehind => "a local write is not durable in the outbox yet".to_owned(),
        Miss::Database(error) => error.to_string(),
    }
}
