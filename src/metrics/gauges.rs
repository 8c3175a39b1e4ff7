//! The gauges that mirror the status document.

use prometheus::Registry;

use super::{KnownGauge, known, seconds};
use crate::status::{
    AgentState, AgentStatus, Assigned, CaptureState, LinkState, StreamState, StreamStatus,
    VerifyState, VerifyStatus,
};

#[derive(Debug)]
pub(super) struct Gauges {
    info: KnownGauge,
    start: KnownGauge,
    agent_state: KnownGauge,
    capture_state: KnownGauge,
    capture_behind: KnownGauge,
    database_up: KnownGauge,
    outbox_acked: KnownGauge,
    outbox_unacked: KnownGauge,
    retention: KnownGauge,
    index_keys: KnownGauge,
    index_writes: KnownGauge,
    clock_offset: KnownGauge,
    source_offset: KnownGauge,
    clock_limit: KnownGauge,
    ddl_holds: KnownGauge,
    stream: Streams,
    verify: Verify,
}

#[derive(Debug)]
struct Streams {
    state: KnownGauge,
    paused: KnownGauge,
    applied: KnownGauge,
    backlog: KnownGauge,
    behind: KnownGauge,
    last_applied: KnownGauge,
    heard: KnownGauge,
    unseen: KnownGauge,
    link_state: KnownGauge,
    link_through: KnownGauge,
    link_backlog: KnownGauge,
}

impl Gauges {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            info: known(r, "agent_info", "Always 1; labels say what runs.", &["version"]),
            start: known(r, "agent_start_timestamp_seconds", "When the agent started.", &[]),
            agent_state: known(r, "agent_state", "1 for the agent's state.", &["state"]),
            capture_state: known(r, "capture_state", "1 for capture's state.", &["state"]),
            capture_behind: known(r, "capture_behind_seconds", "Age of the last event read.", &[]),
            database_up: known(r, "database_up", "1 if the database answered last.", &[]),
            outbox_acked: known(r, "outbox_acked_seq", "Highest seq that Kafka has.", &[]),
            outbox_unacked: known(r, "outbox_unacked_txns", "Sent, not yet acknowledged.", &[]),
            retention: known(r, "retention_seconds", "How long Kafka keeps records.", &[]),
            index_keys: known(r, "index_keys", "Rows in the index of recent versions.", &[]),
            index_writes: known(
                r,
                "index_writes",
                "Writes that the index keeps one by one, for policies that may need them again.",
                &[],
            ),
            clock_offset: known(r, "clock_offset_seconds", "Peer's clock minus ours.", &["peer"]),
            source_offset: known(
                r,
                "source_clock_offset_seconds",
                "The database's clock minus the majority's.",
                &[],
            ),
            clock_limit: known(r, "clock_limit_seconds", "How far a clock may be off.", &[]),
            ddl_holds: known(r, "ddl_holds", "Schema changes that wait for a release.", &[]),
            stream: Streams::new(r),
            verify: Verify::new(r),
        }
    }

    /// Takes every gauge from the document; what it does not know goes away.
    pub(super) fn observe(&self, status: &AgentStatus) {
        self.info.forget_all();
        self.info.set(&[&status.version], 1.0);
        self.start.set(&[], seconds(status.started_us));
        for state in AgentState::ALL {
            self.agent_state.set(&[state.name()], flag(status.state == *state));
        }
        for state in CaptureState::ALL {
            self.capture_state.set(&[state.name()], flag(status.capture.state == *state));
        }
        self.capture_behind.set_option(&[], status.capture.behind_us.map(seconds));
        self.database_up.set_option(&[], status.database.reachable.map(flag));
        let (acked, sent) = (status.outbox.acked_seq, status.outbox.sent_seq);
        self.outbox_acked.set_option(&[], acked.map(float));
        let unacked = sent.map(|sent| float(sent.saturating_sub(acked.unwrap_or(0))));
        self.outbox_unacked.set_option(&[], unacked);
        self.retention.set_option(&[], status.retention_us.map(seconds));
        self.index_keys.set_option(&[], status.index.keys.map(float));
        self.index_writes.set_option(&[], status.index.writes.map(float));
        self.clock_offset.forget_all();
        for (peer, offset) in &status.clock.offset_us {
            self.clock_offset.set_option(&[peer], offset.map(signed_seconds));
        }
        self.source_offset.set_option(&[], status.clock.source_offset_us.map(signed_seconds));
        self.clock_limit.set(&[], seconds(status.clock.limit_us));
        self.ddl_holds.set(&[], float(u64::try_from(status.ddl.len()).unwrap_or(u64::MAX)));
        self.stream.observe(status);
        self.verify.observe(status.verify.as_ref());
    }
}

/// The comparison of all regions.
#[derive(Debug)]
struct Verify {
    state: KnownGauge,
    interval: KnownGauge,
    last_full: KnownGauge,
    differences: KnownGauge,
    not_compared: KnownGauge,
}

impl Verify {
    fn new(r: &Registry) -> Self {
        Self {
            state: known(r, "verify_state", "1 for the comparison's state.", &["state"]),
            interval: known(r, "verify_interval_seconds", "From pass to pass.", &[]),
            last_full: known(
                r,
                "verify_last_full_timestamp_seconds",
                "When a pass last ended that had compared every table to its end.",
                &[],
            ),
            differences: known(
                r,
                "verify_differences",
                "Rows that differ, by the table's last comparison.",
                &["table", "class"],
            ),
            not_compared: known(
                r,
                "verify_not_compared",
                "1 if the table, or its rest, was not compared.",
                &["table"],
            ),
        }
    }

    fn observe(&self, status: Option<&VerifyStatus>) {
        for gauge in [&self.state, &self.interval, &self.last_full] {
            gauge.forget_all();
        }
        self.differences.forget_all();
        self.not_compared.forget_all();
        let Some(status) = status else { return };
        for state in VerifyState::ALL {
            self.state.set(&[state.name()], flag(status.state == *state));
        }
        self.interval.set(&[], seconds(status.interval_us));
        self.last_full.set_option(&[], status.last_full_us.map(seconds));
        for (table, found) in &status.tables {
            for (class, count) in &found.differences {
                self.differences.set(&[table, class], float(*count));
            }
            self.not_compared.set(&[table], flag(found.not_compared.is_some()));
        }
    }
}

impl Streams {
    fn new(r: &Registry) -> Self {
        let origin = &["origin"];
        let state = &["origin", "state"];
        Self {
            state: known(r, "stream_state", "1 for the stream's state.", state),
            paused: known(r, "stream_assigned_paused", "1 if an operator paused it.", origin),
            applied: known(r, "apply_applied_seq", "Highest seq applied.", origin),
            backlog: known(r, "inbox_backlog_txns", "In the inbox and not applied.", origin),
            behind: known(r, "apply_behind_seconds", "Age of the oldest that waits.", origin),
            last_applied: known(
                r,
                "apply_last_applied_timestamp_seconds",
                "When the last batch committed.",
                origin,
            ),
            heard: known(
                r,
                "stream_heard_timestamp_seconds",
                "The origin's time of the last record that came of it.",
                origin,
            ),
            unseen: known(
                r,
                "stream_unseen_txns",
                "Of this region, and by the origin's last record not applied there.",
                origin,
            ),
            link_state: known(r, "link_state", "1 for the link's state.", state),
            link_through: known(
                r,
                "link_through",
                "1 for the region from whose inbox the link copies meanwhile.",
                &["origin", "through"],
            ),
            link_backlog: known(r, "link_backlog_records", "At the peer, not copied.", origin),
        }
    }

    fn observe(&self, status: &AgentStatus) {
        for gauge in [&self.state, &self.paused, &self.applied, &self.backlog, &self.behind] {
            gauge.forget_all();
        }
        for gauge in [&self.last_applied, &self.link_state, &self.link_backlog, &self.link_through]
        {
            gauge.forget_all();
        }
        self.heard.forget_all();
        self.unseen.forget_all();
        for (origin, stream) in &status.streams {
            self.observe_stream(origin, stream);
            if let (Some(acked), Some(seen)) = (status.outbox.acked_seq, stream.seen_seq) {
                self.unseen.set(&[origin], float(acked.saturating_sub(seen)));
            }
        }
    }

    fn observe_stream(&self, origin: &str, stream: &StreamStatus) {
        for state in StreamState::ALL {
            self.state.set(&[origin, state.name()], flag(stream.state == *state));
        }
        for state in LinkState::ALL {
            self.link_state.set(&[origin, state.name()], flag(stream.link.state == *state));
        }
        self.heard.set_option(&[origin], stream.heard_us.map(seconds));
        self.paused.set(&[origin], flag(stream.assigned == Assigned::Paused));
        self.applied.set_option(&[origin], stream.applied_seq.map(float));
        self.backlog.set_option(&[origin], stream.backlog.map(float));
        self.behind.set_option(&[origin], stream.behind_us.map(seconds));
        self.last_applied.set_option(&[origin], stream.last_applied_us.map(seconds));
        if let Some(through) = &stream.link.through {
            self.link_through.set(&[origin, through], 1.0);
        }
        self.link_backlog.set_option(&[origin], stream.link.backlog.map(float));
    }
}

fn flag(set: bool) -> f64 {
    if set { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is shown, not counted with")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is shown, not counted with")]
fn signed_seconds(us: i64) -> f64 {
    us as f64 / 1e6
}
