//! The conflict log of one region's database, as people read it. Who writes it is the
//! applier ([`crate::apply`]), in the transaction of the batch.

mod restore;

pub use restore::{Restore, Restored, restore, write};

use std::cmp::Ordering;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, TxOpts};
use serde::Serialize;
use serde_json::Value as Json;

use crate::resolve::{ConflictKind, Policy, chained};

/// Entries read in one piece.
const PIECE: u64 = 1_000;

/// One entry.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Its number: 1, 2, 3 … without gaps in each region.
    pub id: u64,
    /// SHA-256 over the hash before and the entry.
    pub hash: String,
    /// What [`crate::resolve::entry`] made.
    pub entry: Json,
    #[serde(skip)]
    text: String,
}

/// Which entries.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this table, `schema.table`.
    pub table: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// Decided by this policy.
    pub policy: Option<String>,
    /// Won by this side.
    pub winner: Option<String>,
    /// Logged at this time or later, microseconds since the Unix epoch.
    pub since_us: Option<u64>,
    /// After this number.
    pub after: u64,
}

/// The log can't be read, or does not hold what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The database refused or is away.
    #[error("the conflict log can't be read")]
    Database(#[from] mysql_async::Error),
    /// No such entry.
    #[error("there is no entry {0}: it may have been removed by age, number or size")]
    Missing(u64),
    /// The entry does not hold what would be written back; the records of its write's region
    /// may.
    #[error("entry {0} can't be restored: {1}")]
    NotKept(u64, &'static str),
    /// The entry can't be written back.
    #[error("entry {0} can't be restored: {1}")]
    Lost(u64, &'static str),
}

/// Entries in order, `limit` at most: the first after the filter's number, or the newest.
///
/// # Errors
/// [`LogError`].
pub async fn list(
    conn: &mut Conn,
    filter: &Filter,
    (newest, limit): (bool, u64),
) -> Result<Vec<Entry>, LogError> {
    let order = if newest { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT id, hash, entry FROM causeway.conflicts WHERE id > ? \
         AND table_name = COALESCE(?, table_name) AND kind = COALESCE(?, kind) \
         AND policy = COALESCE(?, policy) AND winner = COALESCE(?, winner) AND at_us >= ? \
         ORDER BY id {order} LIMIT ?"
    );
    let Filter { table, kind, policy, winner, since_us, after } = filter;
    let values = (after, table, kind, policy, winner, since_us.unwrap_or(0), limit);
    let mut entries: Vec<Entry> = conn.exec_map(sql, values, entry).await?;
    if newest {
        entries.reverse();
    }
    Ok(entries)
}

/// The kinds of entries: those of conflicts, and `repair`.
#[must_use]
pub fn kinds() -> Vec<&'static str> {
    ConflictKind::names().into_iter().chain(["repair"]).collect()
}

/// The policies that entries name.
pub const POLICIES: [&str; 7] = Policy::NAMES;

/// The tables that the log tells of, `schema.table`.
///
/// # Errors
/// [`LogError`].
pub async fn tables(conn: &mut Conn) -> Result<Vec<String>, LogError> {
    let sql = "SELECT DISTINCT table_name FROM causeway.conflicts ORDER BY table_name";
    Ok(conn.query(sql).await?)
}

fn entry((id, hash, text): (u64, String, String)) -> Entry {
    let entry = serde_json::from_str(&text).unwrap_or(Json::Null);
    Entry { id, hash, entry, text }
}

/// One entry.
///
/// # Errors
/// [`LogError::Missing`] and the database's.
pub async fn get(conn: &mut Conn, id: u64) -> Result<Entry, LogError> {
    let sql = "SELECT id, hash, entry FROM causeway.conflicts WHERE id = ?";
    let row: Option<(u64, String, String)> = conn.exec_first(sql, (id,)).await?;
    row.map(entry).ok_or(LogError::Missing(id))
}

/// How often what was decided how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// `schema.table`.
    pub table: String,
    /// The kind.
    pub kind: String,
    /// The policy.
    pub policy: String,
    /// `incoming`, `existing` or `both`.
    pub winner: String,
    /// Entries.
    pub count: u64,
}

/// Counts by table, kind, policy and winner, the most frequent first.
///
/// # Errors
/// [`LogError`].
pub async fn stats(conn: &mut Conn) -> Result<Vec<Count>, LogError> {
    let rows: Vec<(String, String, String, String, u64)> = conn
        .query(
            "SELECT table_name, kind, policy, winner, COUNT(*) FROM causeway.conflicts \
             GROUP BY table_name, kind, policy, winner ORDER BY COUNT(*) DESC, table_name, kind",
        )
        .await?;
    let counts = rows.into_iter().map(|(table, kind, policy, winner, count)| Count {
        table,
        kind,
        policy,
        winner,
        count,
    });
    Ok(counts.collect())
}

/// What a walk along the chain found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Entries looked at.
    pub entries: u64,
    /// The first of them; later than 1 where older ones were removed.
    pub first: Option<u64>,
    /// What is wrong, with the number of the entry; none when the log is whole.
    pub problem: Option<String>,
}

/// Walks along the chain: an altered entry, a missing one, and one cut off at either end
/// show.
///
/// # Errors
/// [`LogError`].
pub async fn verify(conn: &mut Conn, seen: impl FnMut(u64)) -> Result<Verified, LogError> {
    // Entries come and go meanwhile.
    conn.query_drop("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let found = walk(conn, seen).await;
    conn.query_drop("COMMIT").await?;
    found
}

async fn walk(conn: &mut Conn, mut seen: impl FnMut(u64)) -> Result<Verified, LogError> {
    let (last_id, last_hash, _) = mark(conn, LAST).await?;
    let (mut id, mut hash, _) = mark(conn, REMOVED).await?;
    let mut found = Verified::default();
    loop {
        let filter = Filter { after: id, ..Filter::default() };
        let entries = list(conn, &filter, (false, PIECE)).await?;
        for entry in &entries {
            if entry.id != id + 1 {
                found.problem = Some(format!("entries {} to {} are missing", id + 1, entry.id - 1));
                return Ok(found);
            }
            found.entries += 1;
            found.first.get_or_insert(entry.id);
            if chained(&hash, &entry.text) != entry.hash {
                found.problem = Some(format!("entry {} was altered", entry.id));
                return Ok(found);
            }
            (id, hash) = (entry.id, entry.hash.clone());
            seen(found.entries);
        }
        if (entries.len() as u64) < PIECE {
            break;
        }
    }
    if (id, &hash) != (last_id, &last_hash) {
        found.problem = Some(match id.cmp(&last_id) {
            Ordering::Less => format!("entries {} to {last_id} are missing", id + 1),
            Ordering::Equal => format!("entry {id} was altered"),
            Ordering::Greater => format!("the log ends at entry {id}, its head at {last_id}"),
        });
    }
    Ok(found)
}

/// The row of `causeway.conflict_head` that names the last entry.
const LAST: u8 = 1;
/// The row that names the last entry that was removed by age, number or size.
const REMOVED: u8 = 2;

/// Number and hash of an entry, and the bytes of the texts up to it; 0 and nothing where
/// there is none.
async fn mark(conn: &mut Conn, id: u8) -> Result<(u64, String, u64), LogError> {
    let sql = "SELECT last_id, hash, bytes_total FROM causeway.conflict_head WHERE id = ?";
    Ok(conn.exec_first(sql, (id,)).await?.unwrap_or_default())
}

/// What of the log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// What is not older, microseconds since the Unix epoch.
    pub since_us: u64,
    /// So many of the newest.
    pub entries: u64,
    /// Of the newest those whose texts have so many bytes together.
    pub bytes: u64,
}

/// Removes the oldest entries: those that any bound of `keep` leaves out, and all before
/// them. The last one stays. The hash of the last that went stays too: the chain begins
/// there. Gives how many went.
///
/// # Errors
/// [`LogError`].
pub async fn prune(conn: &mut Conn, keep: &Keep) -> Result<u64, LogError> {
    let (last_id, _, bytes_total) = mark(conn, LAST).await?;
    // A prefix goes, never an entry between others, also where a clock went back.
    let young = "SELECT MIN(id) FROM causeway.conflicts WHERE at_us >= ?";
    let young: Option<Option<u64>> = conn.exec_first(young, (keep.since_us,)).await?;
    let by_age = young.flatten().unwrap_or(last_id);
    let by_number = (last_id + 1).saturating_sub(keep.entries);
    let mut by_bytes = 0;
    let over = bytes_total.saturating_sub(keep.bytes);
    if over > 0 {
        let ends = "SELECT MIN(id) FROM causeway.conflicts WHERE bytes_total >= ?";
        let ends: Option<Option<u64>> = conn.exec_first(ends, (over,)).await?;
        by_bytes = ends.flatten().map_or(0, |id| id + 1);
    }
    let first_kept = by_age.max(by_number).max(by_bytes).min(last_id);
    let mut removed = 0;
    loop {
        let last = "SELECT MAX(id) FROM (SELECT id FROM causeway.conflicts WHERE id < ? \
            ORDER BY id LIMIT ?) oldest";
        let last: Option<Option<u64>> = conn.exec_first(last, (first_kept, PIECE)).await?;
        let Some(last) = last.flatten() else { return Ok(removed) };
        let mut transaction = conn.start_transaction(TxOpts::default()).await?;
        let mark = "INSERT INTO causeway.conflict_head (id, last_id, hash, bytes_total) \
            SELECT ?, id, hash, bytes_total FROM causeway.conflicts WHERE id = ? \
            ON DUPLICATE KEY UPDATE last_id = VALUES(last_id), hash = VALUES(hash), \
            bytes_total = VALUES(bytes_total)";
        transaction.exec_drop(mark, (REMOVED, last)).await?;
        transaction.exec_drop("DELETE FROM causeway.conflicts WHERE id <= ?", (last,)).await?;
        removed += transaction.affected_rows();
        transaction.commit().await?;
    }
}
