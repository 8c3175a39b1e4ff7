//! Reads one inbox into the applier.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::apply::Arrival;
use crate::change::{Place, RecordBody};
use crate::metrics::Stage;
use crate::ship::{ErrorKind, Inbox, InboxConfig, ShipError};
use crate::status::StreamState;
use crate::topology::Region;

/// Bytes of records between a reader and the applier, for each peer: the channel alone
/// would hold a thousand parts of a large transaction.
const ARRIVALS_BYTES_MAX: usize = 16 << 20;
/// How often a reader tells of itself while records come.
const TELL_EVERY_US: u64 = 100_000;

/// Reads on until cancelled or until the inbox can't be read.
pub(crate) async fn read(
    shared: Arc<Shared>,
    peer: Region,
    after: Place,
    arrivals: mpsc::Sender<Arrival>,
    cancel: CancellationToken,
) {
    let inbox = shared.setup.topology.inbox(&shared.setup.region, &peer);
    let config =
        InboxConfig { cluster: shared.cluster(&inbox), topic: inbox.name, origin: peer.id, after };
    let ended = tokio::select! {
        () = cancel.cancelled() => return,
        ended = Box::pin(forward(&shared, &peer, &config, &arrivals)) => ended,
    };
    if let Err(error) = ended {
        let reason = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        tracing::error!(reason, advice = error.advice(), peer = peer.name, "inbox can't be read");
        shared.board.stream(&peer.name, |stream| {
            stream.state = StreamState::Halted;
            stream.reason = Some(reason);
            stream.advice = Some(error.advice().to_owned());
        });
    }
    // The applier keeps the stream's place; the reason stays in the status.
    cancel.cancelled().await;
}

async fn forward(
    shared: &Shared,
    peer: &Region,
    config: &InboxConfig,
    arrivals: &mpsc::Sender<Arrival>,
) -> Result<(), ShipError> {
    let mut inbox = open(shared, peer, config).await?;
    let (mut told, mut told_us) = ((0, 0), 0);
    let room = Arc::new(Semaphore::new(ARRIVALS_BYTES_MAX));
    loop {
        let item = match inbox.next().await {
            Ok(item) => item,
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::debug!(%error, peer = peer.name, "inbox waits");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            // Made anew by someone: what it lacks shows as a gap.
            Err(ShipError::Purged { .. }) => {
                find_again(&mut inbox).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        if let RecordBody::Heartbeat(beat) = &item.record.body {
            let pair = (peer.id, shared.setup.region.id);
            shared.clocks.heard(pair, beat, item.received_us);
        }
        if item.received_us.saturating_sub(told_us) >= TELL_EVERY_US {
            told_us = item.received_us;
            tell(shared, peer, &inbox, (&mut told, told_us));
        }
        match &item.record.body {
            RecordBody::Transaction(txn) => {
                shared.board.arrived(&peer.name, item.record.seq.0, txn.commit_us);
            }
            RecordBody::Heartbeat(_) | RecordBody::Start(_) => {
                let seq = item.record.seq.0;
                shared.board.stream(&peer.name, |stream| {
                    stream.inbox_seq = stream.inbox_seq.max(Some(seq));
                });
            }
        }
        let share = u32::try_from(item.bytes.min(ARRIVALS_BYTES_MAX)).expect("16 MiB fit");
        // The semaphore is never closed.
        let room = Arc::clone(&room).acquire_many_owned(share).await.ok();
        let arrival =
            Arrival { record: item.record, accepted: item.accepted, bytes: item.bytes, room };
        if arrivals.send(arrival).await.is_err() {
            return Ok(());
        }
    }
}

/// That the reader lives, and what it has dropped since it `told` last.
fn tell(shared: &Shared, peer: &Region, inbox: &Inbox, (told, now_us): (&mut (u64, u64), u64)) {
    shared.metrics.heartbeat(Stage::Inbox, &peer.name, now_us);
    let dropped = inbox.dropped();
    let metrics = &shared.metrics;
    metrics.inbox_duplicates.with_label_values(&[&peer.name]).inc_by(dropped.0 - told.0);
    metrics.inbox_fenced.with_label_values(&[&peer.name]).inc_by(dropped.1 - told.1);
    *told = dropped;
}

async fn find_again(inbox: &mut Inbox) -> Result<(), ShipError> {
    loop {
        match inbox.find_again().await {
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::debug!(%error, "inbox waits");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            found => return found,
        }
    }
}

/// Waits until the inbox is there: the link makes it.
async fn open(shared: &Shared, peer: &Region, config: &InboxConfig) -> Result<Inbox, ShipError> {
    loop {
        match Inbox::open(config).await {
            Ok(inbox) => return Ok(inbox),
            Err(error) if error.kind() == ErrorKind::Retry => {
                shared.board.stream(&peer.name, |stream| {
                    if stream.state == StreamState::Starting {
                        stream.reason = Some(error.to_string());
                    }
                });
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error),
        }
    }
}
