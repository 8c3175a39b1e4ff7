//! From the applier's reports to the status and the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Shared;
use crate::apply::{AppliedTxn, Report, StreamState as Applying};
use crate::change::RegionId;
use crate::clock::wall_us;
use crate::metrics::Stage;
use crate::resolve::Conflict;
use crate::status::{Awaited, StreamState, StreamStatus};

/// Takes reports until the applier ends.
pub(crate) async fn reports(shared: Arc<Shared>, mut reports: mpsc::Receiver<Report>) {
    while let Some(report) = reports.recv().await {
        // Every report is a round of the one loop that applies all streams.
        for peer in shared.peers() {
            shared.metrics.heartbeat(Stage::Apply, &peer.name, wall_us());
        }
        match report {
            Report::Round => {}
            Report::Applied { txns, rows, at_us, .. } => applied(&shared, &txns, rows, at_us),
            Report::Conflicts(conflicts) => {
                for conflict in &conflicts {
                    count(&shared, conflict);
                }
            }
            Report::State(origin, state) => {
                let name = shared.name(origin).to_owned();
                shared.board.stream(&name, |stream| show(stream, &state, &shared));
            }
            Report::Retry(reason) => {
                for peer in shared.peers() {
                    let labels = [peer.name.as_str(), cause(&reason)];
                    shared.metrics.apply_retries.with_label_values(&labels).inc();
                }
            }
        }
    }
}

/// A closed list, so that labels stay few.
fn cause(reason: &str) -> &'static str {
    let known = [
        ("capture", "capture_behind"),
        ("outbox", "outbox_behind"),
        ("local write", "local_write"),
        ("deadlock", "deadlock"),
        ("lock wait", "lock_wait"),
    ];
    known.iter().find(|(text, _)| reason.contains(text)).map_or("database", |(_, name)| name)
}

fn applied(shared: &Shared, txns: &[AppliedTxn], rows: usize, at_us: u64) {
    let mut by_origin: BTreeMap<RegionId, (u64, u64, String)> = BTreeMap::new();
    for txn in txns {
        let name = shared.name(txn.dot.origin);
        let lag = at_us.saturating_sub(txn.commit_us);
        shared.metrics.lag(name, lag);
        shared.board.lag(name, lag, at_us);
        let held = by_origin.entry(txn.dot.origin).or_default();
        *held = (held.0 + 1, txn.dot.seq.0, txn.gtid.clone());
    }
    for (n, (origin, (count, seq, gtid))) in by_origin.into_iter().enumerate() {
        let name = shared.name(origin);
        shared.metrics.apply_txns.with_label_values(&[name]).inc_by(count);
        shared.metrics.apply_batches.with_label_values(&[name]).inc();
        if n == 0 {
            let rows = u64::try_from(rows).unwrap_or(u64::MAX);
            shared.metrics.apply_rows.with_label_values(&[name]).inc_by(rows);
        }
        shared.board.applied(name, seq, count, at_us);
        shared.board.stream(name, |stream| stream.gtid = Some(gtid));
    }
}

fn count(shared: &Shared, conflict: &Conflict) {
    let name = shared.name(conflict.incoming.version.dot.origin);
    let (kind, table) = (conflict.kind.name(), conflict.told_of().to_string());
    let labels = [name, &*table, kind, conflict.policy];
    shared.metrics.conflicts.with_label_values(&labels).inc();
    shared.board.stream(name, |stream| stream.conflicts += 1);
    tracing::debug!(table, kind, winner = conflict.outcome.name(), "conflict resolved");
}

fn show(stream: &mut StreamStatus, state: &Applying, shared: &Shared) {
    let (shown, reason, advice) = match state {
        Applying::Running => (StreamState::Running, None, None),
        Applying::Paused => (StreamState::Paused, None, None),
        Applying::Silent => {
            let text = "nothing of it is held here any more: it was silent for longer than \
                its records are kept";
            let advice = "seed it anew before its agent starts, or take it out of the topology \
                (docs/OPERATIONS.md, A region that was away for too long)";
            (StreamState::Running, Some(text.to_owned()), Some(advice.to_owned()))
        }
        Applying::Unjudged(dot) => {
            let name = shared.name(dot.origin);
            let text = format!(
                "the next transaction's author had not seen {name}'s {}, and what came between is \
                 not held here any more: conflicts can't be told",
                dot.seq
            );
            let advice = "the origin was away for longer than records are kept: seed it anew \
                (docs/OPERATIONS.md, A region that was away for too long)";
            (StreamState::Halted, Some(text), Some(advice.to_owned()))
        }
        Applying::WaitingDeps(dot) => {
            let name = shared.name(dot.origin);
            let text = format!("the next transaction had seen {name}'s {}", dot.seq);
            (StreamState::WaitingDeps, Some(text), None)
        }
        Applying::ClockAhead { ahead_us } => {
            let text = format!("the next transaction's stamp is {ahead_us} µs ahead of the limit");
            let advice = "check the clocks: causeway doctor measures their offsets".to_owned();
            (StreamState::Retrying, Some(text), Some(advice))
        }
        Applying::Retrying { reason, advice } => {
            (StreamState::Retrying, Some(reason.clone()), Some(advice.clone()))
        }
        Applying::Unfit { reason, advice } => {
            (StreamState::Held, Some(reason.clone()), Some(advice.clone()))
        }
        Applying::Halted { reason, advice } => {
            (StreamState::Halted, Some(reason.clone()), Some(advice.clone()))
        }
    };
    // A reader that can't go on has said why; an empty queue does not take it back.
    let unread = stream.reason.as_deref().is_some_and(|held| held.contains("topic "));
    if stream.state == StreamState::Halted && shown == StreamState::Running && unread {
        return;
    }
    stream.waits_for = match state {
        Applying::WaitingDeps(dot) => {
            Some(Awaited { origin: shared.name(dot.origin).to_owned(), seq: dot.seq.0 })
        }
        Applying::Running
        | Applying::Paused
        | Applying::Silent
        | Applying::Unjudged(_)
        | Applying::ClockAhead { .. }
        | Applying::Retrying { .. }
        | Applying::Unfit { .. }
        | Applying::Halted { .. } => None,
    };
    stream.state = shown;
    stream.reason = reason;
    stream.advice = advice;
}
