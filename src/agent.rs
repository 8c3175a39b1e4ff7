//! The agent of one region: wires capture, ship, resolve and apply together.
//!
//! A *session* is the time in which this agent owns its database: it takes an epoch
//! there, begins it in the outbox, rebuilds the index, and then runs capture and
//! apply until one of them can't go on; what passes is followed by a new session.
//! Links and the HTTP API live outside sessions: a database that is away never holds
//! up the shipping. All of an agent's state is in the database and in Kafka.

mod backlog;
mod clocks;
mod control;
mod ddl;
mod error;
mod fit;
mod guard;
mod links;
mod observe;
mod own;
mod pause;
mod prune;
mod readers;
mod rebuild;
mod session;
mod stamp;
mod verify;

pub use error::{AgentError, ErrorKind};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Token};
use crate::capture::Files;
use crate::change::RegionId;
use crate::clock::wall_us;
use crate::command::COMMANDS_MAX;
use crate::database::Login;
use crate::metrics::Metrics;
use crate::resolve::{self, Rulebook};
use crate::ship::{Cluster, TopicSettings};
use crate::status::{AgentState, AgentStatus, CaptureState, StatusBoard, StreamStatus};
use crate::topology::{Region, Topic, Topology};
use control::Control;

/// Everything an agent is told at its start.
#[derive(Debug)]
pub struct Setup {
    /// The checked topology.
    pub topology: Topology,
    /// This region.
    pub region: Region,
    /// Its databases with the login.
    pub databases: Vec<mysql_async::Opts>,
    /// The id under which the binlog is read.
    pub server_id: u32,
    /// Where the binlog's files can be read.
    pub binlog_dir: Option<PathBuf>,
    /// The account that reads all regions' databases, for the topology's `verify`.
    pub verify: Login,
    /// librdkafka properties with their secrets.
    pub kafka: BTreeMap<String, String>,
    /// Where the HTTP API listens.
    pub listen: String,
    /// Who may ask it.
    pub token: Arc<Token>,
    /// How long a stop may take.
    pub grace: Duration,
}

/// What the parts of an agent share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) setup: Setup,
    pub(crate) names: BTreeMap<RegionId, String>,
    pub(crate) board: StatusBoard,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) control: Control,
    pub(crate) clocks: clocks::Clocks,
    pub(crate) book: Rulebook,
    /// Of all sessions: one in which they went wrong is followed by one that leaves them.
    pub(crate) files: Option<Files>,
}

impl Shared {
    pub(crate) fn cluster(&self, topic: &Topic) -> Cluster {
        Cluster { brokers: topic.brokers.clone(), extra: self.setup.kafka.clone() }
    }

    pub(crate) fn topic_settings(&self) -> TopicSettings {
        let limits = &self.setup.topology.limits;
        TopicSettings {
            retention_ms: limits.retention.millis(),
            message_bytes_max: limits.message_bytes(),
        }
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Region> {
        self.setup.topology.peers(&self.setup.region)
    }

    pub(crate) fn name(&self, origin: RegionId) -> &str {
        self.names.get(&origin).map_or("unknown", String::as_str)
    }
}

/// Runs the agent until cancelled.
///
/// # Errors
/// When the HTTP API can't listen. All else is retried or shown in the status.
pub async fn run(setup: Setup, cancel: CancellationToken) -> std::io::Result<()> {
    let listener = TcpListener::bind(&setup.listen).await?;
    let board = StatusBoard::new(first_status(&setup));
    let (commands, received) = mpsc::channel(COMMANDS_MAX);
    let metrics = Arc::new(Metrics::for_region(&setup.region.name));
    for peer in setup.topology.peers(&setup.region) {
        metrics.expect(&peer.name);
    }
    let admin = Admin {
        board: board.clone(),
        metrics: Arc::clone(&metrics),
        commands,
        token: Arc::clone(&setup.token),
    };
    let shared = Arc::new(Shared {
        names: setup.topology.names(),
        control: Control::default(),
        clocks: clocks::Clocks::default(),
        book: resolve::book(&setup.topology),
        files: setup.binlog_dir.clone().map(|dir| Files { dir, in_use: Arc::default() }),
        board,
        metrics,
        setup,
    });
    tracing::info!(region = shared.setup.region.name, listen = shared.setup.listen, "agent starts");
    let stopped = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, admin, stopped.clone()));
    tasks.spawn(control::obey(Arc::clone(&shared), received, stopped.clone()));
    for peer in shared.peers() {
        if peer.cluster != shared.setup.region.cluster {
            tasks.spawn(links::keep(Arc::clone(&shared), peer.clone(), cancel.clone()));
        }
    }
    if let Some(rule) = shared.setup.topology.verify.clone()
        && rule.region == shared.setup.region.name
    {
        tasks.spawn(verify::keep(Arc::clone(&shared), rule, cancel.clone()));
    }
    sessions(&shared, &cancel).await;
    stopped.cancel();
    let joined = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(shared.setup.grace, joined).await.is_err() {
        tracing::warn!("links or open requests did not stop in time and were dropped");
    }
    tracing::info!("agent has stopped");
    Ok(())
}

async fn serve(listener: TcpListener, admin: Admin, cancel: CancellationToken) {
    if let Err(error) = admin::serve(listener, admin, cancel).await {
        tracing::error!(%error, "the HTTP API has stopped");
    }
}

fn first_status(setup: &Setup) -> AgentStatus {
    let peers = setup.topology.peers(&setup.region);
    AgentStatus {
        region: setup.region.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_us: wall_us(),
        retention_us: Some(setup.topology.limits.retention.micros()),
        streams: peers.map(|peer| (peer.name.clone(), StreamStatus::default())).collect(),
        ..AgentStatus::default()
    }
}

/// One session after another.
async fn sessions(shared: &Arc<Shared>, cancel: &CancellationToken) {
    let mut pause = Duration::from_millis(100);
    while !cancel.is_cancelled() {
        let began = tokio::time::Instant::now();
        let ended = Box::pin(session::run(shared, cancel)).await;
        shared.control.forget_orders();
        let Err(error) = ended else { break };
        let kind = error.kind();
        shared.board.update(|status| {
            status.state = match kind {
                ErrorKind::Fenced => AgentState::Fenced,
                ErrorKind::Retry | ErrorKind::Halt => AgentState::Starting,
            };
            status.reason = Some(error.to_string());
            status.capture.from_files = None;
            status.capture.state = match kind {
                ErrorKind::Retry => CaptureState::Retrying,
                ErrorKind::Halt | ErrorKind::Fenced => CaptureState::Halted,
            };
            status.capture.reason = Some(error.to_string());
            status.capture.advice = Some(error.advice());
        });
        match kind {
            ErrorKind::Retry => tracing::warn!(%error, "session ended; the next one follows"),
            ErrorKind::Halt => {
                tracing::error!(%error, advice = error.advice(), "session can't go on");
            }
            ErrorKind::Fenced => {
                tracing::error!(%error, advice = error.advice(), "this agent is fenced and idle");
                cancel.cancelled().await;
                break;
            }
        }
        let lasted = began.elapsed() > Duration::from_secs(10);
        pause = match (kind, lasted) {
            (ErrorKind::Halt, _) => Duration::from_secs(5),
            (_, true) => Duration::from_millis(100),
            (_, false) => (pause * 2).min(Duration::from_secs(2)),
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    shared.board.update(|status| status.state = AgentState::Stopping);
}
