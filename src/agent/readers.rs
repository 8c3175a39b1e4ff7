//! Reads one inbox into the applier.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::apply::Arrival;
use crate::change::{RecordBody, Seq};
use crate::metrics::Stage;
use crate::ship::{ErrorKind, Inbox, InboxConfig, ShipError};
use crate::status::StreamState;
use crate::topology::Region;

/// Reads on until cancelled or until the inbox can't be read.
pub(crate) async fn read(
    shared: Arc<Shared>,
    peer: Region,
    after: Seq,
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
    let mut told = (0, 0);
    loop {
        let item = match inbox.next().await {
            Ok(item) => item,
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::debug!(%error, peer = peer.name, "inbox waits");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if let RecordBody::Heartbeat(beat) = &item.record.body {
            let pair = (peer.id, shared.setup.region.id);
            shared.clocks.heard(pair, beat, item.received_us);
        }
        shared.metrics.heartbeat(Stage::Inbox, &peer.name, item.received_us);
        let dropped = inbox.dropped();
        let metrics = &shared.metrics;
        metrics.inbox_duplicates.with_label_values(&[&peer.name]).inc_by(dropped.0 - told.0);
        metrics.inbox_fenced.with_label_values(&[&peer.name]).inc_by(dropped.1 - told.1);
        told = dropped;
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
        let arrival = Arrival { record: item.record, accepted: item.accepted, bytes: item.bytes };
        if arrivals.send(arrival).await.is_err() {
            return Ok(());
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
