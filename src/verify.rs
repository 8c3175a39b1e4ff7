//! Compares the tables of all regions while they are being written.
//!
//! It reads only, one statement per chunk and region, each a consistent read of its own;
//! what writes is a [`Repairer`], when it is asked to.
//!
//! Rows that differ are looked at again after every stream has passed all that was
//! committed at the time of the last look ([`crate::compare::Suspect`] says why that
//! is enough); how far the streams are is read from the databases and from the
//! outboxes' last records, so no agent is asked. What a row holds never stands in a
//! log.

mod database;
mod error;
mod fence;
mod history;
mod outbox;
mod propose;
mod repair;
mod search;
mod tail;
mod walk;
mod writer;

pub use error::VerifyError;
pub use repair::{Proposal, Repairer};

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::change::TableName;
use crate::clock::wall_us;
use crate::compare::{Cursor, Plan, Report, Shape, State, TableReport};
use crate::database::Login;
use crate::topology::{Region, TablePattern, Topology};
use database::Peer;
use fence::Streams;

/// Between two writes of the state file.
const STATE_EVERY: Duration = Duration::from_secs(1);

/// What to compare, and how to get in.
#[derive(Clone)]
pub struct Config<'a> {
    /// All regions.
    pub topology: &'a Topology,
    /// The one whose addresses of the Kafka clusters are used.
    pub here: &'a Region,
    /// The account, the same in all databases.
    pub login: Login,
    /// librdkafka properties, secret ones included.
    pub kafka: BTreeMap<String, String>,
    /// Tables to compare; all replicated ones when empty.
    pub tables: Vec<TablePattern>,
    /// Wait while a region is further behind another than this.
    pub lag_max: Duration,
    /// Read no more rows a second than this; as fast as it goes when absent.
    pub rows_per_second: Option<u32>,
    /// How long the streams may take to pass a look.
    pub patience: Duration,
    /// A table with more differences is not read to its end.
    pub differences_max: usize,
    /// Put the values of differing columns into the report.
    pub values: bool,
}

/// How far a comparison is, or the work of a repair.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    /// The table's name, or what else is gone through.
    pub table: &'a str,
    /// What is counted: `rows`, `records` or `repairs`.
    pub unit: &'a str,
    /// How many are done.
    pub rows: u64,
    /// How many there may be; of a table's rows it is the servers' guess.
    pub rows_estimate: u64,
    /// Since it was begun, or gone on with.
    pub elapsed: Duration,
    /// How many were done in that time.
    pub rows_here: u64,
    /// What it does other than reading.
    pub waits: Option<String>,
}

/// Hears how far a repair is.
pub type Hear<'a> = dyn FnMut(&Progress<'_>) + Send + 'a;

/// Who hears of the progress and keeps the state.
pub trait Watcher: Send {
    /// It has come so far.
    fn progress(&mut self, progress: &Progress<'_>);
    /// It could go on from here.
    ///
    /// # Errors
    /// The state can't be kept.
    fn keep(&mut self, state: &State) -> std::io::Result<()>;
}

/// Compares, from `state` on if there is one, until the end or `stop`; then the
/// report has no end.
///
/// # Errors
/// [`VerifyError`] when a region can't be read. The state kept last is good to go on
/// from.
pub async fn run(
    config: &Config<'_>,
    state: Option<State>,
    watcher: &mut dyn Watcher,
    stop: CancellationToken,
) -> Result<Report, VerifyError> {
    let peers = connect(config).await?;
    let names: Vec<_> = peers.iter().map(|peer| peer.name.clone()).collect();
    let fresh = || State { report: Report::new(names, wall_us()), cursor: None };
    let mut run = Run {
        streams: Streams::open(config, &peers)?,
        config,
        peers,
        state: state.unwrap_or_else(fresh),
        watcher,
        stop,
        kept: Instant::now(),
        table_began: Instant::now(),
        rows_here: 0,
        rows_estimate: 0,
    };
    run.streams.ready(&run.stop).await;
    Box::pin(run.tables()).await?;
    for peer in run.peers {
        peer.close().await;
    }
    Ok(run.state.report)
}

async fn connect(config: &Config<'_>) -> Result<Vec<Peer>, VerifyError> {
    let mut peers = Vec::new();
    for region in &config.topology.regions {
        peers.push(Peer::connect(region, &config.login).await?);
    }
    Ok(peers)
}

/// How a table is compared, by its shapes in the order of the regions.
fn plan(table: &TableName, peers: &[Peer], shapes: &[Option<&Shape>]) -> Result<Plan, String> {
    let mut known = Vec::new();
    for (peer, shape) in peers.iter().zip(shapes) {
        let shape = shape.ok_or_else(|| format!("it is missing in {}", peer.name))?;
        known.push((peer.name.as_str(), shape));
    }
    Plan::new(table.clone(), &known)
}

/// A comparison under way.
struct Run<'a> {
    config: &'a Config<'a>,
    peers: Vec<Peer>,
    streams: Streams,
    state: State,
    watcher: &'a mut dyn Watcher,
    stop: CancellationToken,
    kept: Instant,
    table_began: Instant,
    rows_here: u64,
    rows_estimate: u64,
}

impl Run<'_> {
    async fn tables(&mut self) -> Result<(), VerifyError> {
        let mut shapes = Vec::new();
        for peer in &mut self.peers {
            shapes.push(peer.shapes(self.config.topology).await?);
        }
        let mut tables: Vec<TableName> = shapes.iter().flat_map(|s| s.keys().cloned()).collect();
        tables.sort();
        tables.dedup();
        let chosen = |table: &TableName| {
            let patterns = &self.config.tables;
            patterns.is_empty() || patterns.iter().any(|p| p.matches(&table.schema, &table.name))
        };
        tables.retain(chosen);
        for table in tables {
            let name = table.to_string();
            let reports = &self.state.report.tables;
            let under_way = self.state.cursor.is_some();
            let known = reports.iter().position(|report| report.table == name);
            if known.is_some_and(|at| !under_way || at + 1 < reports.len()) {
                continue;
            }
            if known.is_none() {
                let report = TableReport { table: name, ..TableReport::default() };
                self.state.report.tables.push(report);
                self.state.cursor = Some(Cursor::default());
            }
            let shapes = shapes.iter().map(|shapes| shapes.get(&table)).collect::<Vec<_>>();
            self.table(&table, &shapes).await?;
            if self.stop.is_cancelled() {
                return self.keep();
            }
            self.state.cursor = None;
            self.keep()?;
        }
        self.state.report.finished_us = Some(wall_us());
        self.keep()
    }

    /// One table, to its end or to the stop.
    async fn table(
        &mut self,
        table: &TableName,
        shapes: &[Option<&Shape>],
    ) -> Result<(), VerifyError> {
        self.table_began = Instant::now();
        self.rows_here = 0;
        let before_ms = self.report().elapsed_ms;
        let plan = plan(table, &self.peers, shapes);
        let rows = shapes.iter().map(|shape| shape.map_or(0, |shape| shape.rows_estimate));
        let largest = rows.enumerate().max_by_key(|(_, rows)| *rows);
        let (leader, estimate) = largest.unwrap_or_default();
        self.rows_estimate = estimate;
        let ended = match plan {
            Ok(plan) => {
                self.report().left_out.clone_from(&plan.left_out);
                Box::pin(self.walk(&plan, leader)).await
            }
            Err(why) => {
                self.report().not_compared = Some(why);
                Ok(())
            }
        };
        let elapsed = self.table_began.elapsed().as_millis();
        self.report().elapsed_ms = before_ms + u64::try_from(elapsed).unwrap_or(u64::MAX);
        match ended {
            // The table, not the region: dropped or altered while it was read.
            Err(VerifyError::Refused { region, code, message }) => {
                self.report().not_compared = Some(format!("{region}: error {code}: {message}"));
                Ok(())
            }
            other => other,
        }
    }

    /// The table in progress.
    fn report(&mut self) -> &mut TableReport {
        self.state.report.tables.last_mut().expect("a table's report is made when it begins")
    }

    /// Its place.
    fn cursor(&mut self) -> &mut Cursor {
        self.state.cursor.get_or_insert_default()
    }

    fn keep(&mut self) -> Result<(), VerifyError> {
        self.kept = Instant::now();
        self.watcher.keep(&self.state).map_err(VerifyError::State)
    }

    fn keep_now_and_then(&mut self) -> Result<(), VerifyError> {
        if self.kept.elapsed() < STATE_EVERY { Ok(()) } else { self.keep() }
    }

    fn progress(&mut self, waits: Option<String>) {
        let table = self.state.report.tables.last().expect("a table is in progress");
        self.watcher.progress(&Progress {
            table: &table.table,
            unit: "rows",
            rows: table.rows,
            rows_estimate: self.rows_estimate,
            elapsed: self.table_began.elapsed(),
            rows_here: self.rows_here,
            waits,
        });
    }
}
