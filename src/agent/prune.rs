//! Keeps the conflict log within its age, number and size.

use std::time::Duration;

use mysql_async::{Conn, Opts};

use crate::clock::wall_us;
use crate::conflicts::{self, Keep};
use crate::topology::Limits;

const EVERY: Duration = Duration::from_secs(60);

/// Removes old entries, now and then again. What fails is tried at the next turn.
pub(crate) async fn keep(opts: Opts, limits: Limits) {
    loop {
        match Box::pin(once(&opts, &limits)).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "conflict log: old entries removed"),
            Err(error) => tracing::warn!(%error, "conflict log: old entries are not removed yet"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn once(opts: &Opts, limits: &Limits) -> Result<u64, conflicts::LogError> {
    let mut conn = Conn::new(opts.clone()).await?;
    let keep = Keep {
        since_us: wall_us().saturating_sub(limits.conflict_log_age.micros()),
        entries: u64::from(limits.conflict_log_entries),
        bytes: limits.conflict_log_bytes.0,
    };
    let removed = conflicts::prune(&mut conn, &keep).await?;
    conn.disconnect().await?;
    Ok(removed)
}
