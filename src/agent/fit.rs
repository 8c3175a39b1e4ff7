//! Whether the replicated tables can be kept right at all (R11): what a trigger or a
//! cascade does elsewhere is in no binlog or would be done twice, and no transaction
//! holds an engine that has none. Nothing would stop by itself: the rows would differ.
//!
//! Looked for before the region is taken over, at each of its schema changes, and now and
//! then, since a new table is no schema change of a replicated one.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::{Conn, Opts};

use super::own::away;
use super::{AgentError, Shared};
use crate::doctor::{Severity, collect};

/// Old servers open every table for it.
const EVERY: Duration = Duration::from_secs(30);

/// Ends when a table can't be kept right; that the database is away others notice.
pub(super) async fn watch(shared: Arc<Shared>, opts: Opts) -> AgentError {
    loop {
        tokio::time::sleep(EVERY).await;
        let Ok(mut conn) = Conn::new(opts.clone()).await else { continue };
        match check(&shared, &mut conn).await {
            Err(error @ AgentError::Unfit(_)) => return error,
            Err(error) => tracing::debug!(%error, "the tables were not looked at"),
            Ok(()) => drop(conn.disconnect().await),
        }
    }
}

/// Looks at the tables as they are.
///
/// # Errors
/// [`AgentError::Unfit`] names them.
pub(super) async fn check(shared: &Shared, conn: &mut Conn) -> Result<(), AgentError> {
    let found = collect::refused(conn, &shared.setup.topology).await.map_err(away)?;
    let (unfit, unseen): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|finding| finding.severity == Severity::Fail);
    if !unfit.is_empty() {
        return Err(AgentError::Unfit(unfit));
    }
    for finding in unseen {
        let table = finding.subject.as_deref().unwrap_or_default();
        tracing::warn!(check = finding.check, table, "{}", finding.found);
    }
    Ok(())
}
