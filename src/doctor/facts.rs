//! What was seen of databases and Kafka: plain data, not judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::change::TableName;
use crate::topology::TableRule;

/// Everything seen for one region. An `Err` holds why a thing could not be seen.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The region's name.
    pub region: String,
    /// The clock offset that the topology allows, microseconds.
    pub clock_offset_us_max: u64,
    /// How long a peer may be away, seconds: binlogs and topics must reach back so far.
    pub outage_s_max: u64,
    /// The fingerprint of the topology here.
    pub topology: u32,
    /// What the topics must take, bytes: see `Limits::message_bytes`.
    pub message_bytes_max: u64,
    /// The region's own database.
    pub database: Result<DatabaseFacts, String>,
    /// By name, the databases of the other regions.
    pub peers: BTreeMap<String, Result<PeerFacts, String>>,
    /// By a label (`own`, a peer's name), the Kafka clusters that the agent uses.
    pub kafka: BTreeMap<String, Result<KafkaFacts, String>>,
    /// By name, what came last of each other region; none of one of which there is no
    /// topic, or one that never held a record, or none that can be reached.
    pub newest: BTreeMap<String, Result<Newest, String>>,
}

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// MariaDB.
    MariaDb,
    /// MySQL and its close kin.
    MySql,
}

/// The region's own database.
#[derive(Clone, Debug)]
pub struct DatabaseFacts {
    /// `host:port`.
    pub address: String,
    /// How many databases the topology lists for the region.
    pub listed: usize,
    /// Those of them that take writes.
    pub writable: Vec<String>,
    /// Whose.
    pub flavor: Flavor,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
    /// Global variables, names in lower case.
    pub variables: BTreeMap<String, String>,
    /// `Binlog_Do_DB` and `Binlog_Ignore_DB` of the binlog's status, when set.
    pub binlog_filters: Vec<String>,
    /// Where the agent's settings name a folder of binlog files: the present file, or why it
    /// can't be read.
    pub binlog_files: Option<Result<String, String>>,
    /// Whether named time zones are known to the server.
    pub named_zones: bool,
    /// The account that the agent uses.
    pub account: Account,
    /// The replicated tables.
    pub tables: BTreeMap<TableName, TableFacts>,
    /// The topology's rule of each of them.
    pub rules: BTreeMap<TableName, TableRule>,
    /// Patterns of the topology that match no table.
    pub unmatched: Vec<String>,
    /// The server's clock.
    pub clock: ClockSample,
}

/// The account that the agent uses, and what it may do.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// `'user'@'host'`, as the server quotes it.
    pub name: String,
    /// The grants.
    pub grants: Vec<Grant>,
}

/// One grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Upper case, `ALL PRIVILEGES` included.
    pub privileges: BTreeSet<String>,
    /// Where they hold.
    pub scope: Scope,
}

/// Where a grant holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `*.*`
    Global,
    /// A schema pattern with `%` and `_`, as the server stores it.
    Schema(String),
    /// One table.
    Table(TableName),
}

/// One replicated table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableFacts {
    /// `InnoDB` and the like; empty when the server does not say.
    pub engine: String,
    /// `BASE TABLE`, `SYSTEM VERSIONED`, `SEQUENCE` …
    pub kind: String,
    /// In order.
    pub columns: Vec<ColumnFacts>,
    /// Unique keys with their columns; the primary key is called `PRIMARY`.
    pub unique_keys: BTreeMap<String, Vec<String>>,
    /// By unique key, columns of which it covers only so many first characters or bytes.
    pub cut_keys: BTreeMap<String, Vec<(String, u32)>>,
    /// Triggers on it.
    pub triggers: Vec<Trigger>,
    /// Foreign keys that it has.
    pub foreign_keys: Vec<ForeignKey>,
}

/// One column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// The full type, `bigint(20) unsigned`.
    pub column_type: String,
    /// For strings.
    pub collation: Option<String>,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Whether the server works it out.
    pub generated: bool,
    /// Whether it counts up by itself.
    pub auto_increment: bool,
    /// Whether a row can do without it: it is nullable, generated or has a default.
    pub optional: bool,
    /// What a row holds that leaves it out.
    pub default: ColumnDefault,
}

/// A column's default, in one spelling for all servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnDefault {
    /// What a new row holds.
    pub initial: Initial,
    /// What an update sets it to that does not name it.
    pub on_update: Option<String>,
}

/// What a new row holds where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Initial {
    /// Nothing: it must be said.
    #[default]
    None,
    /// NULL.
    Null,
    /// A constant, as it reads without quotes.
    Literal(String),
    /// What the server works out.
    Expression(String),
}

impl fmt::Display for ColumnDefault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.initial {
            Initial::None => write!(f, "no default")?,
            Initial::Null => write!(f, "DEFAULT NULL")?,
            Initial::Literal(text) if text == "NULL" => write!(f, "DEFAULT NULL as text")?,
            Initial::Literal(text) if text.is_empty() => write!(f, "DEFAULT ''")?,
            Initial::Literal(text) | Initial::Expression(text) => write!(f, "DEFAULT {text}")?,
        }
        match &self.on_update {
            Some(what) => write!(f, ", ON UPDATE {what}"),
            None => Ok(()),
        }
    }
}

/// One trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// Its body.
    pub body: String,
}

/// One foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The table it points to.
    pub target: TableName,
    /// The columns it points to.
    pub target_columns: Vec<String>,
    /// `CASCADE`, `RESTRICT` …
    pub on_delete: String,
    /// `CASCADE`, `RESTRICT` …
    pub on_update: String,
}

/// The database of another region, as far as this one needs to know it.
#[derive(Clone, Debug)]
pub struct PeerFacts {
    /// `auto_increment_increment` and `auto_increment_offset`.
    pub auto_increment: (u64, u64),
    /// The replicated tables.
    pub tables: BTreeMap<TableName, TableFacts>,
    /// The server's clock.
    pub clock: ClockSample,
}

/// A server's clock against the one of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSample {
    /// Server minus this machine, microseconds, half the round trip taken off.
    pub offset_us: i64,
    /// The round trip: the offset is right to half of it.
    pub round_trip_us: u64,
}

/// One Kafka cluster.
#[derive(Clone, Debug, Default)]
pub struct KafkaFacts {
    /// The bootstrap addresses asked.
    pub bootstrap: String,
    /// Brokers alive.
    pub brokers: usize,
    /// By name, the topics that the agent uses; `None` when there is none yet.
    pub topics: BTreeMap<String, Option<TopicFacts>>,
    /// By topic that is not there, or that the account may not see, why the agent could
    /// not make it.
    pub refused: BTreeMap<String, String>,
}

/// One topic.
#[derive(Clone, Debug, Default)]
pub struct TopicFacts {
    /// Partitions.
    pub partitions: usize,
    /// Replicas of partition 0.
    pub replicas: usize,
    /// Replicas in sync.
    pub in_sync: usize,
    /// Settings by name.
    pub settings: BTreeMap<String, String>,
}

/// The end of a peer's outbox, or of the inbox of it here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Which of them.
    pub topic: String,
    /// How long ago the last record was written to it, seconds, by the record's time in
    /// Kafka, from which Kafka counts its retention; none when all were purged.
    pub age_s: Option<u64>,
    /// The fingerprint of its region's topology, where the record says one.
    pub topology: Option<u32>,
}
