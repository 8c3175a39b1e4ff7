//! The transaction of one repair.
//!
//! Its first row is the marker of an applied transaction, under the origin 0, which is
//! no region's: capture knows by it that there is nothing to ship (R4), and enters
//! nothing into the index, so that the row keeps the versions, and the stamps, that it
//! has (TRAPS 26).

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder, Row};
use serde_json::Value as Json;

use super::VerifyError;
use super::database::{Peer, bounded, image};
use crate::clock::wall_us;
use crate::compare::{Image, Key, Plan};
use crate::database::SESSION;
use crate::resolve::Chain;

/// The applier's own, but for the locks on what is not there: a gap is nobody's. A
/// connection that a cut network leaves behind lets its locks go.
const SETTINGS: &str =
    "foreign_key_checks = 0, unique_checks = 1, innodb_lock_wait_timeout = 3, wait_timeout = 30";

/// What a packet holds beside a statement's text, at most.
const PACKET_ROOM: usize = 4 << 10;

/// A region's database, to write one row of.
pub(super) struct Writer {
    region: String,
    conn: Conn,
    text_bytes_max: usize,
}

/// How the writing of a row went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is written, and its lock held.
    Yes,
    /// The row is not what was shown.
    Changed,
    /// The server refused, for good.
    No(String),
    /// Someone else's lock stood in the way.
    Later(String),
}

impl Writer {
    pub(super) async fn connect(peer: &Peer) -> Result<Self, VerifyError> {
        let region = peer.name.clone();
        let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
        let opts: Opts = OptsBuilder::from_opts(peer.opts().clone())
            .init(vec![format!("SET {SESSION}, {SETTINGS}"), isolation.to_owned()])
            .into();
        let mut conn = bounded(&region, Conn::new(opts)).await?;
        let packet = conn.query_first::<Row, _>("SELECT @@max_allowed_packet");
        let packet = bounded(&region, packet).await?.and_then(|row| row.get_opt(0)?.ok());
        let packet: usize = packet.unwrap_or(1 << 20);
        Ok(Self { region, conn, text_bytes_max: packet.saturating_sub(PACKET_ROOM) })
    }

    async fn run(&mut self, sql: &str) -> Result<(), VerifyError> {
        bounded(&self.region, self.conn.query_drop(sql)).await
    }

    /// Begins, and makes the row `after` if it is still `before`.
    pub(super) async fn write(
        &mut self,
        plan: &Plan,
        key: &Key,
        (before, after): (Option<&Image>, Option<&Image>),
    ) -> Result<Written, VerifyError> {
        judged(self.try_write(plan, key, (before, after)).await)
    }

    async fn try_write(
        &mut self,
        plan: &Plan,
        key: &Key,
        (before, after): (Option<&Image>, Option<&Image>),
    ) -> Result<Written, VerifyError> {
        self.run("BEGIN").await?;
        let marker = format!(
            "INSERT INTO causeway.applied(origin,slot,epoch,seq,hlc)VALUES(0,0,0,1,{}) \
             ON DUPLICATE KEY UPDATE seq=seq+1,hlc=VALUES(hlc)",
            wall_us()
        );
        self.run(&marker).await?;
        let asked = self.conn.query_first::<Row, _>(plan.image(key, true));
        let held = bounded(&self.region, asked).await?.map(image);
        if held.as_ref() != before {
            return Ok(Written::Changed);
        }
        let write = plan.write(key, held.is_some(), after);
        if write.len() > self.text_bytes_max {
            return Ok(Written::No("it is larger than max_allowed_packet here".to_owned()));
        }
        self.run(&write).await?;
        Ok(Written::Yes)
    }

    /// Puts an entry at the end of the conflict log.
    pub(super) async fn log(&mut self, entry: Json) -> Result<Written, VerifyError> {
        judged(self.try_log(entry).await)
    }

    async fn try_log(&mut self, entry: Json) -> Result<Written, VerifyError> {
        let head = bounded(&self.region, self.conn.query_first(Chain::READ)).await?;
        let mut chain = Chain::after(head, self.text_bytes_max, self.text_bytes_max);
        if let Some(full) = chain.append(entry) {
            self.run(&full).await?;
        }
        for statement in chain.finish() {
            self.run(&statement).await?;
        }
        Ok(Written::Yes)
    }

    pub(super) async fn commit(mut self) -> Result<(), VerifyError> {
        self.run("COMMIT").await?;
        self.close().await;
        Ok(())
    }

    pub(super) async fn rollback(mut self) {
        // What does not arrive is rolled back with the connection.
        if let Err(error) = self.run("ROLLBACK").await {
            tracing::debug!(%error, "the repair was not rolled back by its own word");
        }
        self.close().await;
    }

    async fn close(self) {
        if let Err(error) = self.conn.disconnect().await {
            tracing::debug!(%error, "the goodbye did not arrive");
        }
    }
}

/// What a server's refusal means. Its words may carry a value, and are not passed on.
fn judged(tried: Result<Written, VerifyError>) -> Result<Written, VerifyError> {
    const TAKEN: u16 = 1062;
    const LOCK_WAIT: u16 = 1205;
    const DEADLOCK: u16 = 1213;
    match tried {
        Err(VerifyError::Refused { code: LOCK_WAIT | DEADLOCK, .. }) => {
            Ok(Written::Later("another transaction holds a lock".to_owned()))
        }
        Err(VerifyError::Refused { code: TAKEN, .. }) => Ok(Written::No(
            "its key, or one of its unique values, is another row's here".to_owned(),
        )),
        Err(VerifyError::Refused { code, .. }) => {
            Ok(Written::No(format!("the server refused it: error {code}")))
        }
        other => other,
    }
}
