//! The record of fences (`causeway.fences`): which agent took the region over from which
//! epoch on, and what was dropped of an epoch that was over.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::Serialize;

use super::ApplyError;
use crate::change::{Dropped, RegionId};
use crate::clock::wall_us;

/// Entries that are kept, the newest.
const KEPT: u64 = 10_000;

pub(super) const TABLE: &str = "CREATE TABLE IF NOT EXISTS causeway.fences (id BIGINT UNSIGNED \
     NOT NULL AUTO_INCREMENT PRIMARY KEY, at_us BIGINT UNSIGNED NOT NULL, origin TINYINT UNSIGNED \
     NOT NULL, ended BIGINT UNSIGNED NOT NULL, begun BIGINT UNSIGNED NOT NULL, first_seq BIGINT \
     UNSIGNED NOT NULL, last_seq BIGINT UNSIGNED NOT NULL, records BIGINT UNSIGNED NOT NULL, \
     who VARCHAR(255) NOT NULL, UNIQUE KEY (origin, ended, begun, first_seq)) ENGINE=InnoDB \
     DEFAULT CHARSET=utf8mb4";

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fence {
    /// Its number; later ones are higher.
    pub id: u64,
    /// When it was recorded, microseconds since the Unix epoch.
    pub at_us: u64,
    /// The id of the region that was taken over.
    pub origin: u8,
    /// The epoch that is over; 0 before the first.
    pub ended: u64,
    /// The epoch that took its place.
    pub begun: u64,
    /// Where a reader dropped records.
    pub dropped: Option<DroppedRecords>,
    /// The agent that took over, or that dropped them: host, process, version.
    pub who: String,
}

/// Records that were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DroppedRecords {
    /// The seq of the first.
    pub first_seq: u64,
    /// The highest seq.
    pub last_seq: u64,
    /// How many there are, parts and heartbeats among them.
    pub records: u64,
}

/// The agent that this is.
fn who() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "unknown host" } else { host.trim() };
    format!("{host}, process {}, causeway {}", std::process::id(), env!("CARGO_PKG_VERSION"))
}

/// Records within the transaction that takes the region over.
pub(super) async fn taken(
    conn: &mut impl Queryable,
    me: RegionId,
    (ended, begun): (u64, u64),
) -> Result<(), mysql_async::Error> {
    insert(conn, (me.get(), ended, begun), (0, 0, 0)).await
}

/// Records what was dropped of a peer's log. A reader that begins again behind an earlier
/// place drops the same again, which is one entry.
///
/// # Errors
/// The database's.
pub async fn dropped(
    conn: &mut Conn,
    origin: RegionId,
    dropped: &Dropped,
) -> Result<(), ApplyError> {
    let Dropped { ended, begun, first, last, records } = dropped;
    insert(conn, (origin.get(), *ended, *begun), (first.0, last.0, *records))
        .await
        .map_err(|error| ApplyError::from_driver(&error, "causeway.fences"))
}

async fn insert(
    conn: &mut impl Queryable,
    (origin, ended, begun): (u8, u64, u64),
    (first, last, records): (u64, u64, u64),
) -> Result<(), mysql_async::Error> {
    let sql = "INSERT INTO causeway.fences (at_us, origin, ended, begun, first_seq, last_seq, \
        records, who) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE \
        last_seq = GREATEST(last_seq, VALUES(last_seq)), \
        records = GREATEST(records, VALUES(records))";
    let row = (wall_us(), origin, ended, begun, first, last, records, who());
    conn.exec_drop(sql, row).await?;
    let oldest: Option<u64> = conn
        .query_first(format!("SELECT id FROM causeway.fences ORDER BY id DESC LIMIT {KEPT}, 1"))
        .await?;
    match oldest {
        Some(id) => conn.exec_drop("DELETE FROM causeway.fences WHERE id <= ?", (id,)).await,
        None => Ok(()),
    }
}

/// As they stand in the table.
type Columns = (u64, u64, u8, u64, u64, u64, u64, u64, String);

/// The newest entries, the newest first.
///
/// # Errors
/// The database's.
pub async fn fences(conn: &mut Conn, limit: u64) -> Result<Vec<Fence>, mysql_async::Error> {
    let sql = format!(
        "SELECT id, at_us, origin, ended, begun, first_seq, last_seq, records, who \
         FROM causeway.fences ORDER BY id DESC LIMIT {limit}"
    );
    let rows: Vec<Columns> = conn.query(sql).await?;
    let fences = rows.into_iter().map(|row| {
        let (id, at_us, origin, ended, begun, first_seq, last_seq, records, who) = row;
        let dropped = (records > 0).then_some(DroppedRecords { first_seq, last_seq, records });
        Fence { id, at_us, origin, ended, begun, dropped, who }
    });
    Ok(fences.collect())
}
