//! The topology: regions, Kafka clusters, replicated tables, limits.
//!
//! Owns the YAML format of `topology/*.yaml` and its checks. Pure: the text comes in
//! as an argument. Credentials never stand here; they belong to [`crate::conf`].

mod agreed;
mod check;
mod compare;
mod fit;
mod graph;
mod limits;
mod pattern;
mod policy;
mod rules;

pub use check::parse;
pub use compare::Verify;
pub use fit::ColumnShape;
pub use pattern::TablePattern;
pub use policy::{ColumnGroup, ColumnPolicy, OnConflict, Policy};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::change::RegionId;

pub use crate::yaml::{ByteSize, Problem, Span, did_you_mean, which};

/// Databases that are never replicated.
pub const NEVER_REPLICATED: [&str; 5] =
    ["causeway", "mysql", "information_schema", "performance_schema", "sys"];

/// A checked topology.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// In order of their names.
    pub regions: Vec<Region>,
    /// First match decides.
    pub tables: Vec<TableRule>,
    /// Bounds of the data path.
    pub limits: Limits,
    /// Comparing by itself; none does when absent.
    pub verify: Option<Verify>,
}

/// One datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Unique name.
    pub name: String,
    /// Unique small id, part of every record for ever: never give one to another
    /// region.
    pub id: RegionId,
    /// `host:port` of its databases; the writable one is found.
    pub databases: Vec<String>,
    /// The name of its Kafka cluster.
    pub cluster: String,
    /// The cluster.
    pub kafka: Kafka,
}

/// A Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// Bootstrap brokers, `host:port`, as its own region reaches them.
    pub brokers: Vec<String>,
    /// The same as other regions reach them; the same list when absent.
    #[serde(default)]
    pub peer_brokers: Vec<String>,
}

/// Which tables are replicated, and how their conflicts are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRule {
    /// `schema.table` with `*` and `?`.
    pub tables: TablePattern,
    /// Tables of the pattern that are not replicated.
    pub exclude: Vec<TablePattern>,
    /// How concurrent writes of a row are resolved.
    pub policy: Policy,
    /// What a row that loses takes with it.
    pub on_conflict: OnConflict,
    /// Columns with a policy of their own, which goes before the row's.
    pub columns: Vec<ColumnGroup>,
}

/// Bounds of the data path. Every one has a default that suits a LAN-sized row and
/// a WAN between the regions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Row changes that commit together at a peer, 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_rows: u32,
    /// Bytes of records that commit together at a peer, 16KiB to 256MiB.
    pub batch_bytes: ByteSize,
    /// How long capture waits for more at most, while commits are many, before it reads
    /// and ships them together, 0ms to 500ms. More of it costs the local writers less, and
    /// adds to the lag.
    pub capture_wait: Span,
    /// How long a batch may hold its row locks while it waits, 10ms to 60s.
    pub apply_wait: Span,
    /// How far a clock may be off before it is bounded, or a record held, 1ms to 1h.
    pub clock_offset: Span,
    /// An idle region says that it lives this often, 50ms to 60s.
    pub heartbeat: Span,
    /// Larger transactions are split into records of about this size, 16KiB to 8MiB.
    pub record_bytes: ByteSize,
    /// How long outbox and inbox keep records: the longest outage that a region can
    /// catch up from, 1h to 365d.
    pub retention: Span,
    /// How long the conflict log keeps an entry, 1d to 3650d.
    pub conflict_log_age: Span,
    /// How many entries the conflict log keeps, 1000 to 100000000.
    #[schemars(range(min = 1_000, max = 100_000_000))]
    pub conflict_log_entries: u32,
    /// How large the texts of the conflict log's entries are together, 16MiB to 1024GiB.
    pub conflict_log_bytes: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_rows: 10_000,
            batch_bytes: ByteSize(8 << 20),
            capture_wait: Span::from_millis(50),
            apply_wait: Span::from_millis(5_000),
            clock_offset: Span::from_millis(500),
            heartbeat: Span::from_millis(250),
            record_bytes: ByteSize(512 << 10),
            retention: Span::from_millis(7 * 24 * 3_600_000),
            conflict_log_age: Span::from_millis(90 * 24 * 3_600_000),
            conflict_log_entries: 1_000_000,
            conflict_log_bytes: ByteSize(4 << 30),
        }
    }
}

impl Limits {
    /// `max.message.bytes` of outboxes and inboxes. A part of a transaction ends with the
    /// row that makes it as large as `record_bytes`, and the producer joins records into
    /// batches of up to 1 MB.
    #[must_use]
    pub const fn message_bytes(&self) -> u64 {
        let parts = self.record_bytes.0.saturating_mul(4);
        let most = if parts > 1 << 20 { parts } else { 1 << 20 };
        most.saturating_mul(2)
    }
}

/// A topic on a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Bootstrap brokers, comma separated.
    pub brokers: String,
    /// The topic's name.
    pub name: String,
}

impl Topology {
    /// The region of that name.
    #[must_use]
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// The other regions.
    pub fn peers<'a>(&'a self, of: &'a Region) -> impl Iterator<Item = &'a Region> {
        self.regions.iter().filter(move |region| region.id != of.id)
    }

    /// Names by id.
    #[must_use]
    pub fn names(&self) -> BTreeMap<RegionId, String> {
        self.regions.iter().map(|region| (region.id, region.name.clone())).collect()
    }

    /// The rule of a table, if it is replicated.
    #[must_use]
    pub fn rule(&self, schema: &str, table: &str) -> Option<&TableRule> {
        if NEVER_REPLICATED.contains(&schema) {
            return None;
        }
        let rule = self.tables.iter().find(|rule| rule.tables.matches(schema, table))?;
        let excluded = rule.exclude.iter().any(|pattern| pattern.matches(schema, table));
        (!excluded).then_some(rule)
    }

    /// Whether a table is replicated.
    #[must_use]
    pub fn replicates(&self, schema: &str, table: &str) -> bool {
        self.rule(schema, table).is_some()
    }

    /// Whether tables of a schema may be replicated.
    #[must_use]
    pub fn replicates_of(&self, schema: &str) -> bool {
        !NEVER_REPLICATED.contains(&schema)
            && self.tables.iter().any(|rule| rule.tables.matches_schema(schema))
    }

    /// A region's outbox as the region itself reaches it.
    #[must_use]
    pub fn outbox(&self, region: &Region) -> Topic {
        Topic { brokers: region.kafka.brokers.join(","), name: outbox_name(region) }
    }

    /// A peer's outbox as other regions reach it.
    #[must_use]
    pub fn peer_outbox(&self, peer: &Region) -> Topic {
        Topic { brokers: peer_brokers(peer), name: outbox_name(peer) }
    }

    /// The inboxes of `peer` that are neither at `region` nor its outbox, as `region`
    /// reaches them, by the region that has it: one of each Kafka cluster.
    #[must_use]
    pub fn other_inboxes(&self, region: &Region, peer: &Region) -> Vec<(&Region, Topic)> {
        let mut seen = vec![&region.cluster, &peer.cluster];
        let mut others = Vec::new();
        for other in &self.regions {
            if !seen.contains(&&other.cluster) {
                seen.push(&other.cluster);
                let topic = Topic { brokers: peer_brokers(other), ..self.inbox(other, peer) };
                others.push((other, topic));
            }
        }
        others
    }

    /// The inbox of `peer` at `region`: the outbox itself on a shared cluster.
    #[must_use]
    pub fn inbox(&self, region: &Region, peer: &Region) -> Topic {
        let name = if region.cluster == peer.cluster {
            outbox_name(peer)
        } else {
            format!("causeway.inbox.{}", peer.name)
        };
        Topic { brokers: region.kafka.brokers.join(","), name }
    }
}

fn peer_brokers(region: &Region) -> String {
    let kafka = &region.kafka;
    let brokers = if kafka.peer_brokers.is_empty() { &kafka.brokers } else { &kafka.peer_brokers };
    brokers.join(",")
}

fn outbox_name(region: &Region) -> String {
    format!("causeway.outbox.{}", region.name)
}
