//! The schema `causeway`, the agent's epoch, and which database is the writable one.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, TxOpts};

use super::{ApplyError, fence};
use crate::change::{Place, Position, RegionId, Seq};
use crate::clock::Hlc;
use crate::database::takes_writes;

/// Which server it is, as far as statements differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flavor {
    /// MariaDB.
    MariaDb,
    /// MySQL with its version.
    MySql(u16, u16, u16),
}

impl Flavor {
    /// From `@@version`.
    #[must_use]
    pub fn from_version(text: &str) -> Self {
        if text.contains("MariaDB") {
            return Self::MariaDb;
        }
        let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        Self::MySql(next(), next(), next())
    }
}

const TABLES: [&str; 10] = [
    "CREATE DATABASE IF NOT EXISTS causeway",
    "CREATE TABLE IF NOT EXISTS causeway.owner (id TINYINT UNSIGNED NOT NULL PRIMARY KEY, \
     epoch BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS causeway.applied (origin TINYINT UNSIGNED NOT NULL, \
     slot TINYINT UNSIGNED NOT NULL, epoch BIGINT UNSIGNED NOT NULL, seq BIGINT UNSIGNED NOT NULL, \
     hlc BIGINT UNSIGNED NOT NULL, PRIMARY KEY (origin, slot)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS causeway.conflicts (id BIGINT UNSIGNED NOT NULL PRIMARY KEY, \
     at_us BIGINT UNSIGNED NOT NULL, table_name VARCHAR(129) CHARACTER SET utf8 NOT NULL, \
     kind VARCHAR(32) CHARACTER SET latin1 NOT NULL, policy VARCHAR(32) CHARACTER SET latin1 \
     NOT NULL, winner VARCHAR(8) CHARACTER SET latin1 NOT NULL, entry LONGTEXT CHARACTER SET \
     utf8mb4 COLLATE utf8mb4_bin NOT NULL, hash CHAR(64) CHARACTER SET latin1 NOT NULL, \
     bytes_total BIGINT UNSIGNED NOT NULL, KEY (at_us), KEY (table_name), KEY (bytes_total)) \
     ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS causeway.conflict_head (id TINYINT UNSIGNED NOT NULL PRIMARY \
     KEY, last_id BIGINT UNSIGNED NOT NULL, hash CHAR(64) CHARACTER SET latin1 NOT NULL, \
     bytes_total BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS causeway.ddl_history (gtid VARCHAR(128) CHARACTER SET latin1 \
     NOT NULL PRIMARY KEY, since_us BIGINT UNSIGNED NOT NULL, at_us BIGINT UNSIGNED NOT NULL, \
     table_names TEXT NOT NULL, statement TEXT NOT NULL, released_by TEXT NOT NULL, \
     why TEXT NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
    "CREATE TABLE IF NOT EXISTS causeway.pauses (origin TINYINT UNSIGNED NOT NULL PRIMARY KEY, \
     who TEXT NOT NULL, reason TEXT NOT NULL, since_us BIGINT UNSIGNED NOT NULL, \
     until_us BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
    "CREATE TABLE IF NOT EXISTS causeway.sessions (connection BIGINT UNSIGNED NOT NULL, \
     host VARCHAR(255) CHARACTER SET latin1 NOT NULL, PRIMARY KEY (connection, host)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS causeway.outbox (origin TINYINT UNSIGNED NOT NULL PRIMARY KEY, \
     epoch BIGINT UNSIGNED NOT NULL, seq BIGINT UNSIGNED NOT NULL, \
     seeded TEXT CHARACTER SET latin1 NULL) ENGINE=InnoDB",
    fence::TABLE,
];

/// Each holds one row, which writers wait for each other at: it must be there before them.
const ROWS: [&str; 2] = [
    "INSERT IGNORE INTO causeway.owner (id, epoch) VALUES (1, 0)",
    "INSERT IGNORE INTO causeway.conflict_head (id, last_id, hash, bytes_total) \
     VALUES (1, 0, '', 0)",
];

/// Makes the applier's tables where they are missing.
///
/// # Errors
/// The database's.
pub async fn bootstrap(conn: &mut Conn) -> Result<(), ApplyError> {
    let ready: Option<u8> = conn
        .query_first(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = 'causeway' \
             AND table_name = 'fences'",
        )
        .await
        .map_err(|error| ApplyError::from_driver(&error, "causeway"))?;
    let tables = if ready.is_some() { &[][..] } else { &TABLES[..] };
    for statement in tables.iter().chain(&ROWS) {
        conn.query_drop(*statement)
            .await
            .map_err(|error| ApplyError::from_driver(&error, "causeway"))?;
    }
    Ok(())
}

/// Records the connection as one of an applier: its id and where it comes from, which
/// no later connection shares. Without the record nothing is lost but time.
pub(super) async fn enlist(conn: &mut Conn) {
    let sql = "INSERT IGNORE INTO causeway.sessions (connection, host) SELECT id, host \
        FROM information_schema.processlist WHERE id = CONNECTION_ID() AND host LIKE '%:%'";
    if let Err(error) = conn.query_drop(sql).await {
        tracing::debug!(%error, "the connection is not recorded");
    }
}

/// Ends the connections of appliers before this one, which hold their locks until the
/// server notices that a network was cut.
///
/// # Errors
/// The database's.
pub async fn end_sessions(conn: &mut Conn) -> Result<(), ApplyError> {
    let failed = |error| ApplyError::from_driver(&error, "causeway.sessions");
    let old: Vec<u64> = conn
        .query(
            "SELECT p.id FROM causeway.sessions s JOIN information_schema.processlist p \
             ON p.id = s.connection AND p.host = s.host WHERE p.id <> CONNECTION_ID()",
        )
        .await
        .map_err(failed)?;
    for id in old {
        tracing::warn!(id, "ending a lost connection of an applier");
        end(conn, id).await?;
    }
    conn.query_drop("DELETE FROM causeway.sessions").await.map_err(failed)
}

/// Ends a lost connection of this agent's own, and its record.
pub(super) async fn end_own(conn: &mut Conn, id: u64) -> Result<(), ApplyError> {
    let failed = |error| ApplyError::from_driver(&error, "causeway.sessions");
    let found: Option<u64> = conn
        .query_first(format!(
            "SELECT p.id FROM causeway.sessions s JOIN information_schema.processlist p \
             ON p.id = s.connection AND p.host = s.host WHERE s.connection = {id}"
        ))
        .await
        .map_err(failed)?;
    if found.is_some() {
        end(conn, id).await?;
    }
    conn.query_drop(format!("DELETE FROM causeway.sessions WHERE connection = {id}"))
        .await
        .map_err(failed)
}

/// Ends one connection, if it is still there.
async fn end(conn: &mut Conn, id: u64) -> Result<(), ApplyError> {
    const GONE: u16 = 1094;
    match conn.query_drop(format!("KILL {id}")).await {
        Err(mysql_async::Error::Server(error)) if error.code == GONE => Ok(()),
        ended => ended.map_err(|error| ApplyError::from_driver(&error, "a connection")),
    }
}

/// Fails when another agent has taken the region over since this one held `epoch`.
///
/// # Errors
/// [`ApplyError::Fenced`], or the database's.
pub async fn still_owns(conn: &mut Conn, epoch: u64) -> Result<(), ApplyError> {
    let held: Option<u64> = conn
        .query_first("SELECT epoch FROM causeway.owner WHERE id = 1")
        .await
        .map_err(|error| ApplyError::from_driver(&error, "causeway.owner"))?;
    if held.is_some_and(|held| held > epoch) { Err(ApplyError::Fenced(epoch)) } else { Ok(()) }
}

/// Takes the region over: the next epoch, above that one. Waits for the batches of an
/// older agent, which hold a shared lock on the row, and fences those to come. A batch
/// that does not end within seconds is of a lost connection, which is ended.
///
/// # Errors
/// The database's.
pub async fn take_epoch(conn: &mut Conn, me: RegionId, above: u64) -> Result<u64, ApplyError> {
    const LOCK_WAIT: u16 = 1205;
    let failed = |error| ApplyError::from_driver(&error, "causeway.owner");
    conn.query_drop("SET innodb_lock_wait_timeout = 10").await.map_err(failed)?;
    match next_epoch(conn, me, above).await {
        Err(mysql_async::Error::Server(error)) if error.code == LOCK_WAIT => {
            end_sessions(conn).await?;
            next_epoch(conn, me, above).await.map_err(failed)
        }
        taken => taken.map_err(failed),
    }
}

/// The epoch with its record, or neither.
async fn next_epoch(conn: &mut Conn, me: RegionId, above: u64) -> Result<u64, mysql_async::Error> {
    let mut txn = conn.start_transaction(TxOpts::new()).await?;
    let held: Option<u64> =
        txn.query_first("SELECT epoch FROM causeway.owner WHERE id = 1 FOR UPDATE").await?;
    let ended = held.unwrap_or(0);
    let begun = ended.max(above) + 1;
    txn.exec_drop("UPDATE causeway.owner SET epoch = ? WHERE id = 1", (begun,)).await?;
    fence::taken(&mut txn, me, (ended, begun)).await?;
    txn.commit().await?;
    Ok(begun)
}

/// Per origin the place in its log up to which it is applied, and that transaction's
/// stamp. Waits for transactions of
/// lost connections, which may still be committing.
///
/// # Errors
/// The database's.
pub async fn applied(conn: &mut Conn) -> Result<BTreeMap<RegionId, (Place, Hlc)>, ApplyError> {
    // All three rise together.
    let rows: Vec<(u8, u64, u64, u64)> = conn
        .query(
            "SELECT origin, MAX(epoch), MAX(seq), MAX(hlc) FROM causeway.applied GROUP BY origin \
             LOCK IN SHARE MODE",
        )
        .await
        .map_err(|error| ApplyError::from_driver(&error, "causeway.applied"))?;
    let known = rows.into_iter().filter_map(|(origin, epoch, seq, hlc)| {
        let place = Place { epoch, seq: Seq(seq) };
        RegionId::new(origin).map(|origin| (origin, (place, Hlc(hlc))))
    });
    Ok(known.collect())
}

/// What the database knows of its region's own outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// A place in it that counts.
    pub place: Place,
    /// Where capture begins in a seeded database that has not shipped yet.
    pub seeded: Option<Position>,
}

/// Reads it. None before the first session.
///
/// # Errors
/// The database's.
pub async fn shipped(conn: &mut Conn, me: RegionId) -> Result<Option<Shipped>, ApplyError> {
    let row: Option<(u64, u64, Option<String>)> = conn
        .query_first(format!("SELECT epoch, seq, seeded FROM causeway.outbox WHERE origin = {me}"))
        .await
        .map_err(|error| ApplyError::from_driver(&error, "causeway.outbox"))?;
    Ok(row.map(|(epoch, seq, seeded)| Shipped {
        place: Place { epoch, seq: Seq(seq) },
        seeded: seeded.map(Position),
    }))
}

/// Sets it, unless another agent has taken over: what is written here was acknowledged
/// while no younger epoch could have begun, so it counts.
///
/// # Errors
/// The database's.
pub async fn set_shipped(
    conn: &mut Conn,
    me: RegionId,
    epoch: u64,
    shipped: &Shipped,
) -> Result<(), ApplyError> {
    let Shipped { place, seeded } = shipped;
    let seeded = seeded.as_ref().map(|position| position.0.as_str());
    conn.exec_drop(
        "INSERT INTO causeway.outbox (origin, epoch, seq, seeded) SELECT ?, ?, ?, ? \
         FROM causeway.owner WHERE id = 1 AND epoch = ? LOCK IN SHARE MODE \
         ON DUPLICATE KEY UPDATE epoch = VALUES(epoch), seq = VALUES(seq), \
         seeded = VALUES(seeded)",
        (me.get(), place.epoch, place.seq.0, seeded, epoch),
    )
    .await
    .map_err(|error| ApplyError::from_driver(&error, "causeway.outbox"))
}

/// Forgets what a seed said of this region itself: the outbox holds it.
///
/// # Errors
/// The database's.
pub async fn forget_own(conn: &mut Conn, me: RegionId) -> Result<(), ApplyError> {
    let forget = format!("DELETE FROM causeway.applied WHERE origin = {me}");
    let done = conn.query_drop(forget).await;
    done.map_err(|error| ApplyError::from_driver(&error, "causeway.applied"))
}

/// Finds the one writable database of a region.
///
/// # Errors
/// [`ApplyError::Writable`] when none or several are.
pub async fn find_writable(sources: &[Opts]) -> Result<(Opts, Flavor, String), ApplyError> {
    let mut found = Vec::new();
    let mut refused = Vec::new();
    for opts in sources {
        let address = format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port());
        let asked = async {
            let mut conn = Conn::new(opts.clone()).await?;
            let row: Option<(String, String)> =
                conn.query_first("SELECT @@global.read_only, @@version").await?;
            conn.disconnect().await?;
            Ok::<_, mysql_async::Error>(row)
        };
        match tokio::time::timeout(std::time::Duration::from_secs(5), Box::pin(asked)).await {
            Ok(Ok(Some((read_only, version)))) if takes_writes(&read_only) => {
                found.push((opts.clone(), version, address));
            }
            Ok(Ok(_)) => refused.push(format!("{address} is read-only")),
            Ok(Err(mysql_async::Error::Server(error))) => {
                refused.push(format!("{address} refused: error {}", error.code));
            }
            Ok(Err(error)) => refused.push(format!("{address}: {error}")),
            Err(_) => refused.push(format!("{address} does not answer")),
        }
    }
    match found.len() {
        1 => {
            let (opts, version, _) = found.remove(0);
            Ok((opts, Flavor::from_version(&version), version))
        }
        0 => Err(ApplyError::Writable(format!("no database is writable: {}", refused.join("; ")))),
        _ => {
            let names: Vec<_> = found.into_iter().map(|(_, _, address)| address).collect();
            Err(ApplyError::Writable(format!("several are writable: {}", names.join(", "))))
        }
    }
}
