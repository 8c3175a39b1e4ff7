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
use crate::doctor::{Finding, Severity, collect};

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
            Ok(_) => drop(conn.disconnect().await),
        }
    }
}

/// Looks for the first time, and says what the account may not see.
///
/// # Errors
/// As [`check`].
pub(super) async fn first_look(shared: &Shared, conn: &mut Conn) -> Result<(), AgentError> {
    for finding in check(shared, conn).await? {
        let table = finding.subject.as_deref().unwrap_or_default();
        let fix = finding.fix.as_deref().unwrap_or_default();
        tracing::warn!(check = finding.check, table, fix, "{}", finding.found);
    }
    Ok(())
}

/// Looks at the tables as they are; gives what the account may not see.
///
/// # Errors
/// [`AgentError::Unfit`] names them.
pub(super) async fn check(shared: &Shared, conn: &mut Conn) -> Result<Vec<Finding>, AgentError> {
    let found = collect::refused(conn, &shared.setup.topology).await.map_err(away)?;
    let (unfit, unseen): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|finding| finding.severity == Severity::Fail);
    if !unfit.is_empty() {
        return Err(AgentError::Unfit(unfit));
    }
    Ok(unseen)
}
