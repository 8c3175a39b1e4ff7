//! The agent's metrics, for Prometheus.
//!
//! Parts write heartbeats, counters and the lag histogram as things happen; every
//! other gauge is taken from the status document when Prometheus asks
//! ([`Metrics::render`]), so that the two can't differ. Invariant: a value that is
//! not known has no series; it is never 0.

mod gauges;
mod known;

pub use known::KnownGauge;

use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::status::AgentStatus;
use gauges::Gauges;

/// Seconds: 1 ms to an hour.
const LAG_BUCKETS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
    60.0, 300.0, 900.0, 3600.0,
];

/// One of the five parts of the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Binlog to transactions.
    Capture,
    /// Transactions to the region's topic.
    Outbox,
    /// A peer's topic to the local copy.
    Link,
    /// The local copy to the applier.
    Inbox,
    /// The applier.
    Apply,
}

/// Every metric of an agent; shared behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    gauges: Gauges,
    heartbeats: [KnownGauge; 5],
    /// `origin`: commit at the source to visible here, seconds.
    pub apply_lag: HistogramVec,
    /// Local transactions captured.
    pub capture_txns: IntCounterVec,
    /// Row changes captured.
    pub capture_rows: IntCounterVec,
    /// Applied transactions that capture recognised by their marker.
    pub capture_recognised: IntCounterVec,
    /// Repairs of `causeway verify` that capture recognised by their marker.
    pub capture_repairs: IntCounterVec,
    /// Key ranges that the comparison of all regions has read.
    pub verify_chunks: IntCounterVec,
    /// Records sent to Kafka.
    pub outbox_records: IntCounterVec,
    /// Parts of local transactions that every peer halts at, by table.
    pub capture_refused: IntCounterVec,
    /// `origin`: records copied.
    pub link_records: IntCounterVec,
    /// `origin`: bytes copied.
    pub link_bytes: IntCounterVec,
    /// Records copied from another region's inbox.
    pub link_detoured: IntCounterVec,
    /// `origin`: records dropped as already seen.
    pub inbox_duplicates: IntCounterVec,
    /// `origin`: records dropped because a younger epoch owns the outbox.
    pub inbox_fenced: IntCounterVec,
    /// `origin`: transactions applied.
    pub apply_txns: IntCounterVec,
    /// `origin`: row operations run.
    pub apply_rows: IntCounterVec,
    /// `origin`: batches committed.
    pub apply_batches: IntCounterVec,
    /// `origin`, `cause`: batches rolled back and tried again.
    pub apply_retries: IntCounterVec,
    /// `origin`, `kind`, `policy`: conflicts resolved.
    pub conflicts: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own with every metric in it.
    #[must_use]
    pub fn new() -> Self {
        Self::within(Registry::new())
    }

    /// The same; every series carries the label `region`.
    #[must_use]
    pub fn for_region(region: &str) -> Self {
        let labels = HashMap::from([("region".to_owned(), region.to_owned())]);
        Self::within(Registry::new_custom(None, Some(labels)).expect("there is no empty prefix"))
    }

    fn within(registry: Registry) -> Self {
        let r = &registry;
        let origin = &["origin"];
        Self {
            gauges: Gauges::new(r),
            heartbeats: [
                heartbeat(r, "capture", &[]),
                heartbeat(r, "outbox", &[]),
                heartbeat(r, "link", origin),
                heartbeat(r, "inbox", origin),
                heartbeat(r, "apply", origin),
            ],
            apply_lag: histogram(r, "apply_lag_seconds", LAG_HELP, LAG_BUCKETS),
            capture_txns: counter(r, "capture_txns_total", "Local transactions captured.", &[]),
            capture_rows: counter(r, "capture_rows_total", "Row changes captured.", &[]),
            capture_recognised: counter(r, "capture_recognised_txns_total", RECOGNISED, &[]),
            capture_repairs: counter(r, "capture_repairs_total", REPAIRS, &[]),
            verify_chunks: counter(r, "verify_chunks_total", "Key ranges compared.", &[]),
            capture_refused: counter(
                r,
                "capture_refused_total",
                "Parts of local transactions that changed rows of an insert_only table: peers halt.",
                &["table"],
            ),
            outbox_records: counter(r, "outbox_records_total", "Records sent to Kafka.", &[]),
            link_records: counter(r, "link_records_total", "Records copied.", origin),
            link_bytes: counter(r, "link_bytes_total", "Bytes copied.", origin),
            link_detoured: counter(
                r,
                "link_detoured_records_total",
                "Records copied from another region's inbox.",
                origin,
            ),
            inbox_duplicates: counter(r, "inbox_duplicates_total", DUPLICATES, origin),
            inbox_fenced: counter(r, "inbox_fenced_total", FENCED, origin),
            apply_txns: counter(r, "apply_txns_total", "Transactions applied.", origin),
            apply_rows: counter(r, "apply_rows_total", "Row operations run.", origin),
            apply_batches: counter(r, "apply_batches_total", "Batches committed.", origin),
            apply_retries: counter(r, "apply_retries_total", RETRIES, &["origin", "cause"]),
            conflicts: counter(r, "conflicts_total", CONFLICTS, CONFLICT),
            registry,
        }
    }

    /// Starts the counts of a peer's stream at 0: that nothing has happened is known.
    pub fn expect(&self, origin: &str) {
        for counter in [
            &self.link_records,
            &self.link_bytes,
            &self.link_detoured,
            &self.inbox_duplicates,
            &self.inbox_fenced,
            &self.apply_txns,
            &self.apply_rows,
            &self.apply_batches,
        ] {
            counter.with_label_values(&[origin]).inc_by(0);
        }
    }

    /// The part is alive: it went round its loop at `now_us`. `origin` names the peer
    /// and is empty for capture and outbox.
    pub fn heartbeat(&self, stage: Stage, origin: &str, now_us: u64) {
        let (at, labels): (usize, &[&str]) = match stage {
            Stage::Capture => (0, &[]),
            Stage::Outbox => (1, &[]),
            Stage::Link => (2, &[origin]),
            Stage::Inbox => (3, &[origin]),
            Stage::Apply => (4, &[origin]),
        };
        self.heartbeats[at].set(labels, seconds(now_us));
    }

    /// One transaction of `origin` became visible `lag_us` after its commit there.
    pub fn lag(&self, origin: &str, lag_us: u64) {
        self.apply_lag.with_label_values(&[origin]).observe(seconds(lag_us));
    }

    /// The text that Prometheus reads, with the gauges taken from `status`.
    ///
    /// # Errors
    /// The encoder's, for a registry that breaks Prometheus' rules.
    pub fn render(&self, status: &AgentStatus) -> Result<String, prometheus::Error> {
        self.gauges.observe(status);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

const LAG_HELP: &str = "Time from the commit at the origin to visible here.";
const REPAIRS: &str = "Rows that causeway verify repaired here, not shipped.";
const RECOGNISED: &str = "Applied transactions recognised by their marker and not shipped again.";
const DUPLICATES: &str = "Records dropped because their seq was seen before.";
const FENCED: &str = "Records dropped because a younger epoch owns the outbox.";
const RETRIES: &str = "Batches rolled back and tried again, by cause.";
const CONFLICTS: &str = "Concurrent writes resolved, by table, kind and policy.";
const CONFLICT: &[&str] = &["origin", "table", "kind", "policy"];

/// Microseconds as Prometheus' seconds.
#[expect(clippy::cast_precision_loss, reason = "exact to the microsecond until the year 2255")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn register(registry: &Registry, collector: Box<dyn Collector>) {
    registry.register(collector).expect("each name is registered once");
}

fn heartbeat(registry: &Registry, stage: &str, labels: &[&str]) -> KnownGauge {
    let help = format!("When the {stage} loop last went round, seconds since the Unix epoch.");
    known(registry, &format!("{stage}_heartbeat_timestamp_seconds"), &help, labels)
}

fn known(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> KnownGauge {
    let gauge = KnownGauge::new(&format!("causeway_{name}"), help, labels);
    register(registry, gauge.collector());
    gauge
}

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let vec = IntCounterVec::new(Opts::new(format!("causeway_{name}"), help), labels)
        .expect("the name and labels are constants");
    register(registry, Box::new(vec.clone()));
    if labels.is_empty() {
        // A count of nothing is known: the series starts at 0.
        vec.with_label_values::<&str>(&[]).reset();
    }
    vec
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> HistogramVec {
    let opts = HistogramOpts::new(format!("causeway_{name}"), help).buckets(buckets.to_vec());
    let vec = HistogramVec::new(opts, &["origin"]).expect("the name and labels are constants");
    register(registry, Box::new(vec.clone()));
    vec
}

#[cfg(test)]
mod tests;
