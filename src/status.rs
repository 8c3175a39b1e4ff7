//! The status document: what an agent says of itself, as plain data.
//!
//! Owns the words of every state and the [`StatusBoard`] that the agent's parts write
//! and the admin API reads. No I/O and no clock: times come in as arguments,
//! microseconds since the Unix epoch. What is not known is `None`, never 0.

mod board;
mod window;

pub use board::StatusBoard;
pub use window::{LagWindow, RateWindow};

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares the closed list of a part's states with its names on the wire.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// Every state, in the order of the declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in the status document and in metric labels.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

states! {
    /// The agent as a whole; the agent sets it.
    AgentState {
        /// Before every part has reported once.
        #[default]
        Starting = "starting",
        /// Capture and at least one stream go on, or there is nothing to do.
        Running = "running",
        /// A stop was asked for; parts finish within the grace period.
        Stopping = "stopping",
        /// A younger epoch owns this region: this agent ships nothing more.
        Fenced = "fenced",
    }
}

states! {
    /// The reading of the local binlog into the outbox; the agent sets it.
    CaptureState {
        /// Reading the outbox's tail, connecting.
        #[default]
        Starting = "starting",
        /// Following the binlog.
        Running = "running",
        /// The database or Kafka is away; it goes on by itself.
        Retrying = "retrying",
        /// A schema change waits for the operator's release.
        Held = "held",
        /// It can't go on safely; `reason` and `advice` say what it needs.
        Halted = "halted",
    }
}

states! {
    /// The comparison of all regions' tables; the agent sets it.
    VerifyState {
        /// Connecting.
        #[default]
        Starting = "starting",
        /// A pass is under way.
        Comparing = "comparing",
        /// Until the next pass.
        Waiting = "waiting",
        /// A region is away; it goes on by itself where it was.
        Retrying = "retrying",
    }
}

states! {
    /// What the operator wants of a stream.
    Assigned {
        /// Apply what arrives.
        #[default]
        Running = "running",
        /// Finish the batch in flight and apply nothing more.
        Paused = "paused",
    }
}

states! {
    /// The application of one origin's transactions; the agent sets it.
    StreamState {
        /// Connecting to the inbox and to the database.
        #[default]
        Starting = "starting",
        /// Reading outbox and inboxes from the stable vector on, to fill the index.
        Rebuilding = "rebuilding",
        /// Applying, or idle with nothing to apply.
        Running = "running",
        /// The next transaction has seen one that has not arrived here.
        WaitingDeps = "waiting_deps",
        /// The database or Kafka is away or contended; it goes on by itself.
        Retrying = "retrying",
        /// The table here does not take the origin's next transaction: it goes on by
        /// itself once the table fits.
        Held = "held",
        /// Paused by the operator, and the last batch is done.
        Paused = "paused",
        /// It can't go on safely; `reason` and `advice` say what it needs.
        Halted = "halted",
    }
}

states! {
    /// The copying of a peer's outbox into the inbox; the agent sets it.
    LinkState {
        /// Connecting, creating or checking the inbox.
        #[default]
        Starting = "starting",
        /// Copying, or idle with nothing to copy.
        Running = "running",
        /// The peer's Kafka is away: it copies from another region's inbox of the peer.
        Detour = "detour",
        /// One of the two Kafka clusters is away; it goes on by itself.
        Retrying = "retrying",
        /// It can't go on safely; `reason` says what it needs.
        Halted = "halted",
        /// The regions share a Kafka cluster: the inbox is the outbox.
        Shared = "shared",
    }
}

/// A region that has said nothing for so long is worth a word: the longest heartbeat.
const SILENCE_US: u64 = 60_000_000;

/// Everything an agent says of itself at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentStatus {
    /// The region's name.
    pub region: String,
    /// The epoch taken from the database at the start.
    pub epoch: Option<u64>,
    /// The program's version.
    pub version: String,
    /// When the agent started.
    pub started_us: u64,
    /// When this document was made.
    pub at_us: u64,
    /// The agent as a whole.
    pub state: AgentState,
    /// Why it is in that state, when there is something to say.
    pub reason: Option<String>,
    /// The source database.
    pub database: DatabaseStatus,
    /// Binlog to outbox.
    pub capture: CaptureStatus,
    /// The region's own topic.
    pub outbox: OutboxStatus,
    /// By the origin's name: inbox to database.
    pub streams: BTreeMap<String, StreamStatus>,
    /// How long Kafka keeps records: the topology's `retention`.
    pub retention_us: Option<u64>,
    /// The index of recent versions.
    pub index: IndexStatus,
    /// The clocks.
    pub clock: ClockStatus,
    /// Schema changes that wait for a release.
    pub ddl: Vec<DdlHold>,
    /// The last ones that were released, the latest first.
    pub ddl_released: Vec<DdlHold>,
    /// The comparison of all regions; `None` where another agent does it, or none.
    pub verify: Option<VerifyStatus>,
}

/// The source database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseStatus {
    /// `mariadb` or `mysql`.
    pub flavor: Option<String>,
    /// The server's own version string.
    pub version: Option<String>,
    /// `host:port` of the writable database in use.
    pub address: Option<String>,
    /// Whether the last attempt to reach it succeeded.
    pub reachable: Option<bool>,
}

/// Binlog to outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptureStatus {
    /// What it does.
    pub state: CaptureState,
    /// Why, when there is something to say.
    pub reason: Option<String>,
    /// The operator's next step, when one is needed.
    pub advice: Option<String>,
    /// Binlog file and offset read up to.
    pub position: Option<String>,
    /// GTID position read up to.
    pub gtid: Option<String>,
    /// Local transactions captured since the start.
    pub captured_txns: u64,
    /// Applied transactions recognised by their marker since the start.
    pub recognised_txns: u64,
    /// Age of the last event read, microseconds.
    pub behind_us: Option<u64>,
    /// Whether the binlog's files are read, at each heartbeat; `None` where the server is to
    /// send it, and while no session runs.
    pub from_files: Option<bool>,
    /// The `insert_only` table that a local transaction changed last since the start:
    /// every peer halts at it.
    pub refused: Option<String>,
}

/// The region's own topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboxStatus {
    /// The topic's name.
    pub topic: Option<String>,
    /// Highest seq that Kafka has acknowledged.
    pub acked_seq: Option<u64>,
    /// Highest seq given to the producer.
    pub sent_seq: Option<u64>,
    /// Why it does not go on, when it does not.
    pub reason: Option<String>,
}

/// Inbox to database, for one origin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamStatus {
    /// What the operator wants.
    pub assigned: Assigned,
    /// Whose pause it is, and until when.
    pub pause: Option<Pause>,
    /// What it does.
    pub state: StreamState,
    /// Why, when there is something to say.
    pub reason: Option<String>,
    /// The operator's next step, when one is needed.
    pub advice: Option<String>,
    /// The hold that stops it, in `held`: an id of [`AgentStatus::ddl`].
    pub ddl: Option<String>,
    /// Highest seq applied to the database.
    pub applied_seq: Option<u64>,
    /// Highest seq known in the inbox.
    pub inbox_seq: Option<u64>,
    /// Transactions in the inbox that are not applied.
    pub backlog: Option<u64>,
    /// Source GTID of the last applied transaction.
    pub gtid: Option<String>,
    /// Commit at the source to visible here, over the last minute.
    pub lag: Option<LagSummary>,
    /// Age of the oldest transaction that waits, microseconds; 0 when none does.
    pub behind_us: Option<u64>,
    /// Transactions applied a second, over the last ten seconds.
    pub rate_txns: Option<f64>,
    /// When the last batch committed.
    pub last_applied_us: Option<u64>,
    /// Conflicts resolved since the start.
    pub conflicts: u64,
    /// The origin's time of the last record that came of it, heartbeats among them.
    pub heard_us: Option<u64>,
    /// Highest seq of this region that the origin had applied by then.
    pub seen_seq: Option<u64>,
    /// What the next transaction waits for, in `waiting_deps`.
    pub waits_for: Option<Awaited>,
    /// The mirror that fills the inbox.
    pub link: LinkStatus,
}

/// A transaction of another region that one of this origin has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Awaited {
    /// Whose.
    pub origin: String,
    /// Its number there.
    pub seq: u64,
}

/// An operator's pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pause {
    /// Whose.
    pub who: String,
    /// Why.
    pub reason: String,
    /// When it began.
    pub since_us: u64,
    /// When it ends by itself.
    pub until_us: u64,
}

/// Percentiles of a lag histogram, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LagSummary {
    /// Transactions in the window.
    pub samples: u64,
    /// Half are at most this.
    pub p50_us: u64,
    /// 90 of 100 are at most this.
    pub p90_us: u64,
    /// 99 of 100 are at most this.
    pub p99_us: u64,
    /// 999 of 1000 are at most this.
    pub p999_us: u64,
    /// The greatest.
    pub max_us: u64,
}

/// A peer's outbox to the local inbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStatus {
    /// What it does.
    pub state: LinkState,
    /// Why, when there is something to say.
    pub reason: Option<String>,
    /// Records copied since the start.
    pub copied: u64,
    /// Records at the source that are not copied.
    pub backlog: Option<u64>,
    /// Offset in the peer's outbox copied up to.
    pub source_offset: Option<i64>,
    /// Since when the peer's Kafka has not answered.
    pub silent_since_us: Option<u64>,
    /// The region from whose inbox it copies, in `detour`.
    pub through: Option<String>,
    /// Those of the copied records that came from another region's inbox.
    pub detoured: u64,
}

/// The index of recent versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexStatus {
    /// Rows with a version that is not stable everywhere.
    pub keys: Option<u64>,
    /// Writes that are kept one by one: under `delta` and `columns:` all, else few.
    pub writes: Option<u64>,
}

/// The clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockStatus {
    /// The last stamp given or seen.
    pub hlc_us: Option<u64>,
    /// The database's clock minus the majority's, microseconds.
    pub source_offset_us: Option<i64>,
    /// How far a clock may be off: the topology's `clock_offset`.
    pub limit_us: u64,
    /// By the peer's name: its clock minus this one, microseconds; `None` while it
    /// has not been measured.
    pub offset_us: BTreeMap<String, Option<i64>>,
}

/// How a schema change was released.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DdlRelease {
    /// When.
    pub at_us: u64,
    /// Who: an operator, or the agent by itself.
    pub by: String,
    /// Why.
    pub why: String,
}

/// A schema change of a replicated table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DdlHold {
    /// Names it in `causeway ddl release`.
    pub id: String,
    /// The region where it ran.
    pub origin: String,
    /// The replicated table it touches, when known.
    pub table: Option<String>,
    /// The statement as the binlog has it.
    pub statement: String,
    /// The GTID of the statement at its origin.
    pub gtid: Option<String>,
    /// Since when the stream is held.
    pub since_us: u64,
    /// Its release; none while it waits for the operator.
    pub released: Option<DdlRelease>,
}

/// The comparison of all regions' tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyStatus {
    /// What it does.
    pub state: VerifyState,
    /// Why, when there is something to say.
    pub reason: Option<String>,
    /// From the beginning of a pass to that of the next.
    pub interval_us: u64,
    /// The table being compared.
    pub table: Option<String>,
    /// Rows compared in this pass, or in the last one.
    pub rows: u64,
    /// Key ranges compared since the start.
    pub chunks: u64,
    /// When this pass, or the last one, began.
    pub began_us: Option<u64>,
    /// When a pass last ended that had compared every table to its end.
    pub last_full_us: Option<u64>,
    /// By table: what the last comparison of it found.
    pub tables: BTreeMap<String, TableVerify>,
}

/// What a comparison of a table found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableVerify {
    /// When it ended; `None` while the first comparison goes on and has found something.
    pub at_us: Option<u64>,
    /// Rows compared.
    pub rows: u64,
    /// Differences by class, each class that there is.
    pub differences: BTreeMap<String, u64>,
    /// Why the table, or its rest, was not compared.
    pub not_compared: Option<String>,
}

impl AgentStatus {
    /// How long nothing has come of `origin`, when that is long for a region that lives:
    /// it then keeps everything since from becoming stable. Unknown while the stream does
    /// not run: its inbox is read no further than there is room for.
    #[must_use]
    pub fn silence_us(&self, origin: &str) -> Option<u64> {
        let stream = self.streams.get(origin)?;
        let heard_us = stream.heard_us.filter(|_| stream.state == StreamState::Running)?;
        Some(self.at_us.saturating_sub(heard_us)).filter(|silence| *silence >= SILENCE_US)
    }

    /// Whether a stream waits for a transaction of `origin` that is not in the inbox.
    #[must_use]
    pub fn lacks(&self, origin: &str) -> bool {
        let held = self.streams.get(origin).and_then(|stream| stream.inbox_seq);
        self.streams
            .values()
            .filter_map(|stream| stream.waits_for.as_ref())
            .any(|awaited| awaited.origin == origin && held.is_none_or(|held| held < awaited.seq))
    }

    /// Why the agent is not ready, one line for each cause; empty when it is.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let mut causes = Vec::new();
        if self.state != AgentState::Running {
            causes.push(cause("agent", self.state.name(), self.reason.as_deref()));
        }
        if self.capture.state != CaptureState::Running {
            causes.push(cause(
                "capture",
                self.capture.state.name(),
                self.capture.reason.as_deref(),
            ));
        }
        for (origin, stream) in &self.streams {
            let going = matches!(stream.state, StreamState::Running | StreamState::WaitingDeps);
            let wanted = stream.assigned == Assigned::Paused && stream.state == StreamState::Paused;
            if !going && !wanted {
                let part = format!("stream {origin}");
                causes.push(cause(&part, stream.state.name(), stream.reason.as_deref()));
            }
        }
        causes
    }
}

fn cause(part: &str, state: &str, reason: Option<&str>) -> String {
    reason.map_or_else(|| format!("{part} is {state}"), |why| format!("{part} is {state}: {why}"))
}

#[cfg(test)]
mod tests;
