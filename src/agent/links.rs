//! Keeps one link running, and its status true.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::metrics::Stage;
use crate::ship::{Detour, LinkConfig, LinkReport, LinkStatus, run_link};
use crate::status::LinkState;
use crate::topology::Region;

/// A halted link is tried again this often: the operator need not restart the agent.
const HALTED_PAUSE: Duration = Duration::from_secs(10);

pub(crate) async fn keep(shared: Arc<Shared>, peer: Region, cancel: CancellationToken) {
    let topology = &shared.setup.topology;
    let source = topology.peer_outbox(&peer);
    let target = topology.inbox(&shared.setup.region, &peer);
    let config = LinkConfig {
        source: shared.cluster(&source),
        source_topic: source.name,
        target: shared.cluster(&target),
        target_topic: target.name,
        settings: shared.topic_settings(),
        detours: topology
            .other_inboxes(&shared.setup.region, &peer)
            .into_iter()
            .map(|(region, topic)| Detour {
                through: region.name.clone(),
                cluster: shared.cluster(&topic),
                topic: topic.name,
            })
            .collect(),
    };
    let (needs, needed) = watch::channel(false);
    let status = Arc::new(LinkStatus::default());
    let mut told = LinkReport::default();
    while !cancel.is_cancelled() {
        let (config, status_of) = (config.clone(), Arc::clone(&status));
        let link = Box::pin(run_link(config, status_of, needed.clone(), cancel.clone()));
        let ended = watched((&shared, &peer.name), (&status, &needs), &mut told, link).await;
        tell(&shared, &peer.name, &status.get(), &mut told);
        if let Err(error) = ended {
            tracing::error!(%error, advice = error.advice(), peer = peer.name, "link halted");
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(HALTED_PAUSE) => {}
            }
        }
    }
}

async fn watched<F: Future>(
    (shared, peer): (&Shared, &str),
    (status, needs): (&LinkStatus, &watch::Sender<bool>),
    told: &mut LinkReport,
    link: F,
) -> F::Output {
    tokio::pin!(link);
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            ended = &mut link => return ended,
            _ = tick.tick() => {
                tell(shared, peer, &status.get(), told);
                needs.send_replace(shared.board.lacks(peer));
            }
        }
    }
}

fn tell(shared: &Shared, peer: &str, report: &LinkReport, told: &mut LinkReport) {
    if report.running {
        shared.metrics.heartbeat(Stage::Link, peer, report.beat_us);
    }
    let records = report.copied - told.copied;
    shared.metrics.link_records.with_label_values(&[peer]).inc_by(records);
    let bytes = report.copied_bytes - told.copied_bytes;
    shared.metrics.link_bytes.with_label_values(&[peer]).inc_by(bytes);
    let detoured = report.detoured - told.detoured;
    shared.metrics.link_detoured.with_label_values(&[peer]).inc_by(detoured);
    shared.board.stream(peer, |stream| {
        stream.link.state = match (report.running, report.halted, &report.reason) {
            (true, ..) if report.through.is_some() => LinkState::Detour,
            (true, ..) => LinkState::Running,
            (_, true, _) => LinkState::Halted,
            (_, _, Some(_)) => LinkState::Retrying,
            (_, _, None) => LinkState::Starting,
        };
        stream.link.reason = report.reason.clone().or_else(|| {
            let through = report.through.as_ref()?;
            Some(format!("{peer}'s Kafka does not answer: copying from {through}'s inbox of it"))
        });
        stream.link.silent_since_us = report.silent_since_us;
        stream.link.through.clone_from(&report.through);
        stream.link.detoured = report.detoured;
        stream.link.copied = report.copied;
        stream.link.backlog = report.backlog;
        stream.link.source_offset = report.source_offset;
    });
    *told = report.clone();
}
