//! Gathers the facts: SQL to the databases; metadata, settings and last records from
//! Kafka.
//!
//! Reads only. Every wait is bounded; what can't be seen becomes an `Err` with the
//! reason, and the rest is gathered all the same.

mod database;
mod default;
mod kafka;
mod tables;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mysql_async::Conn;

use super::{Facts, Finding};
use crate::database::Login;
use crate::topology::{Region, Topology};

/// How long one connection and its questions may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What to look at and how to get in.
#[derive(Clone)]
pub struct Plan<'a> {
    /// All regions.
    pub topology: &'a Topology,
    /// The one examined.
    pub region: &'a Region,
    /// The agent's account; tried at the other regions too.
    pub login: Login,
    /// Where the agent is to read the binlog's files.
    pub binlog_dir: Option<&'a Path>,
    /// librdkafka properties, secret ones included.
    pub kafka: BTreeMap<String, String>,
}

/// Gathers everything about the plan's region.
pub async fn collect(plan: &Plan<'_>) -> Facts {
    let limits = &plan.topology.limits;
    let database = bounded(database::own(plan)).await;
    let mut peers = BTreeMap::new();
    for peer in plan.topology.peers(plan.region) {
        peers.insert(peer.name.clone(), bounded(database::peer(plan, peer)).await);
    }
    let kafka = kafka::clusters(plan).await;
    let newest = kafka::newest(plan, &kafka).await;
    Facts {
        region: plan.region.name.clone(),
        clock_offset_us_max: limits.clock_offset.micros(),
        topology: plan.topology.fingerprint(),
        outage_s_max: limits.retention.millis() / 1000,
        message_bytes_max: limits.message_bytes(),
        database,
        peers,
        kafka,
        newest,
    }
}

/// Looks for what the agent refuses to begin with: see [`super::judge::refused`].
///
/// # Errors
/// The database's.
pub async fn refused(
    conn: &mut Conn,
    topology: &Topology,
) -> Result<Vec<Finding>, mysql_async::Error> {
    let tables = tables::effects(conn, topology).await?;
    Ok(super::judge::refused(&database::account(conn).await?, &tables))
}

async fn bounded<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}
