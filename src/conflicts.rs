//! The conflict log of one region's database, as people read it. Who writes it is the
//! applier ([`crate::apply`]), in the transaction of the batch.

mod restore;

pub use restore::{Restore, restore};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use serde::Serialize;
use serde_json::Value as Json;

use crate::resolve::chained;

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
    #[error("there is no entry {0}: it may have been removed by age or number")]
    Missing(u64),
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
         AND (? IS NULL OR table_name = ?) AND (? IS NULL OR kind = ?) AND at_us >= ? \
         ORDER BY id {order} LIMIT ?"
    );
    let Filter { table, kind, since_us, after } = filter;
    let values = (after, table, table, kind, kind, since_us.unwrap_or(0), limit);
    let mut entries: Vec<Entry> = conn.exec_map(sql, values, entry).await?;
    if newest {
        entries.reverse();
    }
    Ok(entries)
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
    /// The first of them; later than 1 where older ones were removed by age or number.
    pub first: Option<u64>,
    /// What is wrong, with the number of the entry; none when the log is whole.
    pub problem: Option<String>,
}

/// Walks along the chain: an altered entry, a missing one, and one cut off at the end
/// show.
///
/// # Errors
/// [`LogError`].
pub async fn verify(conn: &mut Conn, mut seen: impl FnMut(u64)) -> Result<Verified, LogError> {
    let (last_id, last_hash) = head(conn).await?;
    let mut found = Verified::default();
    // The oldest entry's predecessor may be gone: its hash is taken as it is.
    let mut before: Option<(u64, String)> = None;
    loop {
        let after = before.as_ref().map_or(0, |(id, _)| *id);
        let filter = Filter { after, ..Filter::default() };
        let entries = list(conn, &filter, (false, PIECE)).await?;
        for entry in entries.iter().filter(|entry| entry.id <= last_id) {
            found.entries += 1;
            found.first.get_or_insert(entry.id);
            let known = match &before {
                None if entry.id == 1 => Some(String::new()),
                None => None,
                Some((id, _)) if *id + 1 != entry.id => {
                    found.problem =
                        Some(format!("entries {} to {} are missing", id + 1, entry.id - 1));
                    return Ok(found);
                }
                Some((_, hash)) => Some(hash.clone()),
            };
            if known.is_some_and(|hash| chained(&hash, &entry.text) != entry.hash) {
                found.problem = Some(format!("entry {} was altered", entry.id));
                return Ok(found);
            }
            before = Some((entry.id, entry.hash.clone()));
            seen(found.entries);
        }
        if (entries.len() as u64) < PIECE || entries.last().is_some_and(|e| e.id >= last_id) {
            break;
        }
    }
    let (id, hash) = before.unwrap_or_default();
    if (id, &hash) != (last_id, &last_hash) {
        found.problem = Some(match id == last_id {
            true => format!("entry {id} was altered"),
            false => format!("entries {} to {last_id} are missing", id + 1),
        });
    }
    Ok(found)
}

/// Number and hash of the last entry; 0 and nothing before the first.
async fn head(conn: &mut Conn) -> Result<(u64, String), LogError> {
    let sql = "SELECT last_id, hash FROM causeway.conflict_head WHERE id = 1";
    Ok(conn.query_first(sql).await?.unwrap_or_default())
}

/// Removes the oldest entries: those before the first that is not older than `older_us`,
/// microseconds since the Unix epoch, and all but so many of the `newest`. The last one
/// stays, since the chain hangs on it. Gives how many went.
///
/// # Errors
/// [`LogError`].
pub async fn prune(conn: &mut Conn, older_us: u64, newest: u64) -> Result<u64, LogError> {
    let (last_id, _) = head(conn).await?;
    // A prefix goes, never an entry between others, also where a clock went back.
    let young = "SELECT MIN(id) FROM causeway.conflicts WHERE at_us >= ?";
    let young: Option<Option<u64>> = conn.exec_first(young, (older_us,)).await?;
    let by_age = young.flatten().unwrap_or(last_id);
    let by_number = (last_id + 1).saturating_sub(newest);
    let first_kept = by_age.max(by_number).min(last_id);
    let mut removed = 0;
    loop {
        let sql = "DELETE FROM causeway.conflicts WHERE id < ? ORDER BY id LIMIT ?";
        conn.exec_drop(sql, (first_kept, PIECE)).await?;
        removed += conn.affected_rows();
        if conn.affected_rows() < PIECE {
            return Ok(removed);
        }
    }
}
