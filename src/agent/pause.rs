//! Pauses of streams: each has an owner, a reason and an end, shows in the status, and
//! stands in the database (`causeway.pauses`), so that a restart of the agent does not
//! end it.

use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};

use super::own::{RECORD_MAX, away, connect};
use super::{AgentError, Shared};
use crate::apply::Order;
use crate::change::RegionId;
use crate::clock::wall_us;
use crate::command::{By, Refusal};
use crate::status::{Assigned, Pause};

/// Pauses a stream.
pub(super) async fn begin(
    shared: &Shared,
    origin: &str,
    by: &By,
    span: Duration,
) -> Result<(), Refusal> {
    let id = stream(shared, origin)?;
    let retention = shared.setup.topology.limits.retention.get();
    if span >= retention {
        let days = retention.as_secs() / 86_400;
        return Err(Refusal::Conflict(format!(
            "the inbox keeps records for {days} days, so a pause must be shorter"
        )));
    }
    let since_us = wall_us();
    let span_us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let pause = Pause {
        who: by.name().to_owned(),
        reason: by.reason().to_owned(),
        since_us,
        until_us: since_us.saturating_add(span_us),
    };
    tracing::info!(origin, who = pause.who, reason = pause.reason, ?span, "stream paused");
    shared.board.stream(origin, |stream| {
        stream.assigned = Assigned::Paused;
        stream.pause = Some(pause.clone());
    });
    shared.control.order(Order::Pause(id));
    keep(shared, id, Some(&pause)).await;
    Ok(())
}

/// Lets a stream go on, also after a halt.
pub(super) async fn over(shared: &Shared, origin: &str, by: &By) -> Result<(), Refusal> {
    let id = stream(shared, origin)?;
    tracing::info!(origin, who = by.name(), reason = by.reason(), "stream resumed");
    resume(shared, origin, id).await;
    Ok(())
}

/// Lets the streams go on whose pause has ended.
pub(super) async fn end(shared: &Shared) {
    let now = wall_us();
    let status = shared.board.snapshot(now);
    for peer in shared.peers() {
        let pause = status.streams.get(&peer.name).and_then(|stream| stream.pause.as_ref());
        if let Some(pause) = pause.filter(|pause| pause.until_us <= now) {
            tracing::warn!(origin = peer.name, who = pause.who, "a pause has come to its end");
            resume(shared, &peer.name, peer.id).await;
        }
    }
}

fn stream(shared: &Shared, origin: &str) -> Result<RegionId, Refusal> {
    let mut peers = shared.peers();
    let peer = peers.find(|peer| peer.name == origin);
    peer.map(|peer| peer.id)
        .ok_or_else(|| Refusal::NotFound(format!("there is no stream of `{origin}`")))
}

async fn resume(shared: &Shared, origin: &str, id: RegionId) {
    let mut paused = false;
    shared.board.stream(origin, |stream| {
        stream.assigned = Assigned::Running;
        paused = stream.pause.take().is_some();
    });
    shared.control.order(Order::Resume(id));
    if paused {
        keep(shared, id, None).await;
    }
}

/// Reads the pauses that stand when the agent starts.
pub(super) async fn recall(shared: &Shared, opts: &Opts) -> Result<(), AgentError> {
    if !shared.control.recalls_first() {
        return Ok(());
    }
    let mut conn = Conn::new(opts.clone()).await.map_err(away)?;
    let rows: Vec<(u8, String, String, u64, u64)> = conn
        .query("SELECT origin, who, reason, since_us, until_us FROM causeway.pauses")
        .await
        .map_err(away)?;
    conn.disconnect().await.map_err(away)?;
    for (origin, who, reason, since_us, until_us) in rows {
        let Some(origin) = RegionId::new(origin) else { continue };
        if shared.peers().any(|peer| peer.id == origin) {
            shared.board.stream(shared.name(origin), |stream| {
                stream.assigned = Assigned::Paused;
                stream.pause = Some(Pause { who, reason, since_us, until_us });
            });
        }
    }
    Ok(())
}

/// Records a pause or its end.
async fn keep(shared: &Shared, origin: RegionId, pause: Option<&Pause>) {
    let kept = tokio::time::timeout(RECORD_MAX, Box::pin(write(shared, origin, pause))).await;
    if !matches!(kept, Ok(Ok(()))) {
        let origin = shared.name(origin);
        tracing::warn!(origin, "not recorded: until then a restart of the agent forgets it");
    }
}

async fn write(shared: &Shared, origin: RegionId, pause: Option<&Pause>) -> Result<(), AgentError> {
    let mut conn = connect(shared).await?;
    let id = origin.get();
    match pause {
        Some(pause) => {
            let sql = "REPLACE INTO causeway.pauses (origin, who, reason, since_us, until_us) \
                VALUES (?, ?, ?, ?, ?)";
            let row = (id, &pause.who, &pause.reason, pause.since_us, pause.until_us);
            conn.exec_drop(sql, row).await.map_err(away)?;
        }
        None => {
            let sql = "DELETE FROM causeway.pauses WHERE origin = ?";
            conn.exec_drop(sql, (id,)).await.map_err(away)?;
        }
    }
    conn.disconnect().await.map_err(away)
}
