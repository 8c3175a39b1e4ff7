//! Notices that another agent has taken the region over.
//!
//! The applier is fenced in every batch; capture has no database transaction of its
//! own, so its right to ship is looked at here, which bounds what a fenced agent
//! can still add to the outbox (and readers drop).

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};

use super::{AgentError, Shared};
use crate::apply::ApplyError;
use crate::clock::wall_us;

const EVERY: Duration = Duration::from_secs(1);

/// The epoch, and the server's clock in microseconds since the Unix epoch.
const QUESTION: &str = "SELECT epoch, CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED) \
    FROM causeway.owner WHERE id = 1";

/// Ends when the epoch is not this agent's any more, or can't be read.
pub(crate) async fn watch(shared: Arc<Shared>, opts: Opts, epoch: u64) -> AgentError {
    let failed = |error: mysql_async::Error| {
        AgentError::Apply(ApplyError::from_driver(&error, "causeway.owner"))
    };
    let mut conn = match Conn::new(opts).await {
        Ok(conn) => conn,
        Err(error) => return failed(error),
    };
    loop {
        let sent_us = wall_us();
        let asked = conn.query_first::<(u64, u64), _>(QUESTION);
        match tokio::time::timeout(Duration::from_secs(10), asked).await {
            Ok(Ok(Some((held, source_us)))) if held == epoch => {
                shared.clocks.source_said(source_us, (sent_us, wall_us()));
            }
            Ok(Ok(_)) => return AgentError::Apply(ApplyError::Fenced(epoch)),
            Ok(Err(error)) => return failed(error),
            Err(_) => {
                let silent = "it does not answer in 10 s".to_owned();
                return AgentError::Apply(ApplyError::Away(silent));
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
