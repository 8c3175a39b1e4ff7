//! Schema changes of this region's replicated tables: which go on by themselves, which
//! wait for an operator, and the record of both (`causeway.ddl_history`).

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::own::away;
use super::session::Stamping;
use super::{AgentError, Shared, fit};
use crate::capture::{CaptureEvent, additive};
use crate::clock::wall_us;
use crate::status::{CaptureState, DdlHold, DdlRelease};

/// Released changes that the status names: the latest.
const RELEASED_MAX: usize = 20;
/// Of a statement, as the record keeps it.
const STATEMENT_CHARS_MAX: usize = 4_000;

/// Reads the last released changes into the status.
pub(super) async fn recall(shared: &Shared, opts: &Opts) -> Result<(), AgentError> {
    type Row = (String, u64, u64, String, String, String, String);
    let mut conn = Conn::new(opts.clone()).await.map_err(away)?;
    let rows: Vec<Row> = conn
        .query(format!(
            "SELECT gtid, since_us, at_us, table_names, statement, released_by, why FROM \
             causeway.ddl_history ORDER BY at_us DESC, gtid DESC LIMIT {RELEASED_MAX}"
        ))
        .await
        .map_err(away)?;
    conn.disconnect().await.map_err(away)?;
    let origin = &shared.setup.region.name;
    let held = rows.into_iter().map(|(gtid, since_us, at_us, table, statement, by, why)| DdlHold {
        id: id(&gtid),
        origin: origin.clone(),
        table: Some(table),
        statement,
        gtid: Some(gtid),
        since_us,
        released: Some(DdlRelease { at_us, by, why }),
    });
    let held = held.collect();
    shared.board.update(|status| status.ddl_released = held);
    Ok(())
}

/// What operators call it.
fn id(gtid: &str) -> String {
    gtid.replace([':', ','], "-")
}

/// Resolves when the schema change is released; none when it never will be.
async fn released(
    orders: &mut watch::Receiver<BTreeMap<String, (String, String)>>,
    id: &str,
) -> Option<(String, String)> {
    let ids = orders.wait_for(|ids| ids.contains_key(id)).await.ok()?;
    ids.get(id).cloned()
}

impl Stamping {
    /// Goes on past an additive change, and waits at any other until an operator has
    /// released it. Peers keep getting heartbeats.
    pub(super) async fn schema_change(
        &mut self,
        event: &CaptureEvent,
        cancel: &CancellationToken,
    ) -> Result<(), AgentError> {
        let CaptureEvent::Ddl { gtid, statement, tables, .. } = event else { return Ok(()) };
        let mut conn = Conn::new(self.opts.clone()).await.map_err(away)?;
        // What peers wrote must not be applied to such a table meanwhile.
        fit::check(&self.shared, &mut conn).await?;
        let known: Option<u8> = conn
            .exec_first("SELECT 1 FROM causeway.ddl_history WHERE gtid = ?", (gtid,))
            .await
            .map_err(away)?;
        if known.is_some() {
            return Ok(());
        }
        let names: Vec<_> = tables.iter().map(ToString::to_string).collect();
        let mut hold = DdlHold {
            id: id(gtid),
            origin: self.shared.setup.region.name.clone(),
            table: Some(names.join(", ")),
            statement: statement.chars().take(STATEMENT_CHARS_MAX).collect(),
            gtid: Some(gtid.clone()),
            since_us: wall_us(),
            released: None,
        };
        let (by, why) = match additive(statement) {
            Some(why) => ("causeway, by itself".to_owned(), why.to_owned()),
            None => self.hold(&hold, cancel).await?,
        };
        tracing::info!(id = hold.id, by, why, "schema change released");
        hold.released = Some(DdlRelease { at_us: wall_us(), by, why });
        record(&mut conn, &hold).await?;
        self.shared.board.update(|status| {
            status.ddl_released.insert(0, hold);
            status.ddl_released.truncate(RELEASED_MAX);
        });
        Ok(())
    }

    /// Waits; gives who has released it and why.
    async fn hold(
        &mut self,
        hold: &DdlHold,
        cancel: &CancellationToken,
    ) -> Result<(String, String), AgentError> {
        let (id, names) = (&hold.id, hold.table.as_deref().unwrap_or_default());
        tracing::warn!(id, tables = names, "a schema change holds this region's stream");
        self.shared.board.update(|status| {
            status.ddl.push(hold.clone());
            status.capture.state = CaptureState::Held;
            status.capture.reason = Some(format!("schema change {id} of {names}"));
            status.capture.advice =
                Some("make the same change in all regions, then: causeway ddl release".to_owned());
        });
        let interval = self.shared.setup.topology.limits.heartbeat.get();
        let mut orders = self.shared.control.released();
        let mut beat = tokio::time::interval(interval);
        let order = loop {
            tokio::select! {
                () = cancel.cancelled() => break None,
                order = released(&mut orders, id) => break order,
                _ = beat.tick() => self.beat().await?,
            }
        };
        self.shared.board.update(|status| status.ddl.retain(|held| held.id != *id));
        let Some(order) = order else { return Err(AgentError::Ended("the hold")) };
        self.shared.board.update(|status| {
            status.capture.state = CaptureState::Running;
            status.capture.reason = None;
            status.capture.advice = None;
        });
        Ok(order)
    }
}

/// Keeps the release, so that a later session does not ask again.
async fn record(conn: &mut Conn, hold: &DdlHold) -> Result<(), AgentError> {
    let Some(release) = &hold.released else { return Ok(()) };
    conn.query_drop("SET NAMES utf8mb4").await.map_err(away)?;
    conn.exec_drop(
        "INSERT IGNORE INTO causeway.ddl_history (gtid, since_us, at_us, table_names, statement, \
         released_by, why) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            &hold.gtid,
            hold.since_us,
            release.at_us,
            &hold.table,
            &hold.statement,
            &release.by,
            &release.why,
        ),
    )
    .await
    .map_err(away)
}
