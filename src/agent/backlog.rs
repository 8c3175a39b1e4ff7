//! How far an inbox reaches beyond what its reader has read.
//!
//! The reader goes no further than there is room for, and not at all while its stream is
//! held or halted: what it has read says little of what waits then. So the newest record
//! is looked at about once a second, over a connection of its own that is there only as
//! long as the reader is behind.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::Shared;
use crate::apply::Arrival;
use crate::ship::{InboxConfig, Newest, ShipError};

/// How often the newest record is looked at while the reader is behind.
const EVERY: Duration = Duration::from_secs(1);

/// What the reader says of itself.
#[derive(Debug, Default)]
pub(super) struct Come {
    /// The epoch of the last record: what is older is a fenced agent's.
    pub(super) epoch: AtomicU64,
    /// It does not read on.
    pub(super) stopped: AtomicBool,
}

/// What is between a reader and the applier.
pub(super) struct Waiting {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: String,
    pub(super) come: Arc<Come>,
    pub(super) arrivals: mpsc::Sender<Arrival>,
    pub(super) room: Arc<Semaphore>,
    /// Bytes of `room` when nothing waits.
    pub(super) room_bytes: usize,
}

impl Waiting {
    /// Keeps the stream's `inbox_seq` true while the reader is behind.
    pub(super) async fn count(self, config: &InboxConfig) -> Infallible {
        let mut newest = None;
        loop {
            tokio::time::sleep(EVERY).await;
            if !self.is_behind() {
                newest = None;
            } else if let Err(error) = self.look(&mut newest, config).await {
                tracing::debug!(%error, peer = self.peer, "the inbox's end is not known");
                newest = None;
            }
        }
    }

    /// With less than half of the room left, or the reader stopped, there may be more.
    fn is_behind(&self) -> bool {
        self.come.stopped.load(Ordering::Relaxed)
            || self.arrivals.capacity() <= self.arrivals.max_capacity() / 2
            || self.room.available_permits() <= self.room_bytes / 2
    }

    async fn look(
        &self,
        newest: &mut Option<Newest>,
        config: &InboxConfig,
    ) -> Result<(), ShipError> {
        let newest = match newest {
            Some(newest) => newest,
            None => newest.insert(Newest::open(config)?),
        };
        let read = self.come.epoch.load(Ordering::Relaxed);
        if let Some(newest) = newest.read().await?.filter(|newest| newest.epoch >= read) {
            self.shared.board.stream(&self.peer, |stream| {
                stream.inbox_seq = stream.inbox_seq.max(Some(newest.seq.0));
            });
        }
        Ok(())
    }
}
