//! Real servers for tests, the demo and the benchmarks: MariaDB, MySQL, Apache
//! Kafka and agents, on free ports, with their data under `.run/tmp`.
//!
//! Every server dies with this process, however it ends, and is ended by its own pid
//! when it is dropped. A directory of a run that failed is kept and named.
#![expect(unreachable_pub, reason = "what its users may use is pub")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

pub mod agent;
pub mod compare;
pub mod db;
pub mod kafka;
pub mod link;
pub mod load;
pub mod proc;
pub mod region;
pub mod rng;
pub mod seed;
pub mod zoo;

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a server may take to be ready on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The project's folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Asks until the answer is yes.
///
/// # Panics
/// When it is not within `patience`.
pub async fn wait_until<F>(what: &str, patience: Duration, mut ask: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let start = Instant::now();
    while !ask().await {
        assert!(start.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
