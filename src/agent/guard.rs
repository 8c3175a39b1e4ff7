//! Notices that another agent has taken the region over.
//!
//! The applier is fenced in every batch; capture has no database transaction of its
//! own, so its right to ship is looked at here, which bounds what a fenced agent
//! can still add to the outbox (and readers drop). The same look keeps the place of the
//! outbox in the database near its end, so that the next session reads little. And it
//! notices when the database has become read-only: the region's writes go to another of
//! its databases then, while this one stays up.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder};
use tokio::sync::watch;

use super::{AgentError, Shared};
use crate::apply::{self, ApplyError, Shipped};
use crate::change::{Place, Seq};
use crate::clock::wall_us;
use crate::database::{SESSION, takes_writes};

const EVERY: Duration = Duration::from_secs(1);

/// So many looks until the place is written again, which is one small commit.
const LOOKS_MAX: u32 = 10;

/// The epoch, the server's clock in microseconds since the Unix epoch (in a zone with
/// summer time it would be an hour off in the hour that comes twice), and whether the
/// server is read-only.
const QUESTION: &str = "SELECT epoch, CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED), \
    @@global.read_only FROM causeway.owner WHERE id = 1";

/// Ends when the epoch is not this agent's any more, or can't be read, or the database has
/// become read-only.
pub(crate) async fn watch(
    shared: Arc<Shared>,
    opts: Opts,
    epoch: u64,
    acked: watch::Receiver<Seq>,
) -> AgentError {
    let failed = |error: mysql_async::Error| {
        AgentError::Apply(ApplyError::from_driver(&error, "causeway.owner"))
    };
    let address = format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port());
    let opts = OptsBuilder::from_opts(opts).init(vec![format!("SET {SESSION}")]);
    let mut conn = match Conn::new(opts).await {
        Ok(conn) => conn,
        Err(error) => return failed(error),
    };
    let (mut kept, mut looks) = (*acked.borrow(), 0);
    loop {
        let sent_us = wall_us();
        let asked = conn.query_first::<(u64, u64, String), _>(QUESTION);
        match tokio::time::timeout(Duration::from_secs(10), asked).await {
            Ok(Ok(Some((held, source_us, read_only)))) if held == epoch => {
                if !takes_writes(&read_only) {
                    let moved = format!("{address} has become read-only");
                    return AgentError::Apply(ApplyError::Writable(moved));
                }
                shared.clocks.source_said(source_us, (sent_us, wall_us()));
            }
            Ok(Ok(_)) => return AgentError::Apply(ApplyError::Fenced(epoch)),
            Ok(Err(error)) => return failed(error),
            Err(_) => {
                let silent = "it does not answer in 10 s".to_owned();
                return AgentError::Apply(ApplyError::Away(silent));
            }
        }
        let seq = *acked.borrow();
        looks += 1;
        if looks >= LOOKS_MAX && seq > kept {
            let shipped = Shipped { place: Place { epoch, seq }, seeded: None };
            if let Err(error) =
                apply::set_shipped(&mut conn, shared.setup.region.id, epoch, &shipped).await
            {
                return AgentError::Apply(error);
            }
            (kept, looks) = (seq, 0);
        }
        tokio::time::sleep(EVERY).await;
    }
}
