//! Whether two databases hold the same rows, by the servers' own values.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use super::db::Database;

/// The columns of a table as text that loses nothing, and its rows as a set.
async fn content(database: &Database, table: &str) -> Result<BTreeSet<String>, mysql_async::Error> {
    let mut conn = Conn::new(database.opts()).await?;
    conn.query_drop("SET NAMES binary, time_zone = '+00:00'").await?;
    let (schema, name) = table.split_once('.').unwrap();
    let columns: Vec<(String, String)> = conn
        .exec(
            "SELECT column_name, data_type FROM information_schema.columns \
             WHERE table_schema = ? AND table_name = ? ORDER BY column_name",
            (schema, name),
        )
        .await?;
    let values: Vec<_> = columns
        .iter()
        .map(|(column, kind)| match kind.as_str() {
            // As text a FLOAT has six digits only.
            "float" => format!("IFNULL(CAST((`{column}` + 0e0) AS CHAR), 'NULL')"),
            _ => format!("IFNULL(HEX(CAST(`{column}` AS BINARY)), 'NULL')"),
        })
        .collect();
    let sql = format!("SELECT CONCAT_WS(',', {}) FROM {table}", values.join(", "));
    let rows: Vec<Vec<u8>> = conn.query(sql).await?;
    conn.disconnect().await?;
    Ok(rows.into_iter().map(|row| String::from_utf8(row).unwrap()).collect())
}

/// What differs between the first database and the others; empty when nothing does.
pub async fn differences(databases: &[&Database], tables: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for table in tables {
        let mut all = Vec::new();
        for database in databases {
            match content(database, table).await {
                Ok(rows) => all.push(rows),
                Err(error) => return vec![format!("{table} at {}: {error}", database.address())],
            }
        }
        for (n, rows) in all.iter().enumerate().skip(1) {
            let mut show = |what: &str, rows: Vec<&String>| {
                if !rows.is_empty() {
                    let shown: Vec<_> = rows.iter().take(5).map(|r| r.as_str()).collect();
                    found.push(format!(
                        "{table}: {} rows {what} database {n}: {}",
                        rows.len(),
                        shown.join(" ; ")
                    ));
                }
            };
            show("missing in", all[0].difference(rows).collect());
            show("only in", rows.difference(&all[0]).collect());
        }
    }
    found
}

/// Waits until nothing differs.
///
/// # Panics
/// When something still does after `patience`.
pub async fn converge(databases: &[&Database], tables: &[&str], patience: Duration) {
    let start = Instant::now();
    loop {
        let found = differences(databases, tables).await;
        if found.is_empty() {
            return;
        }
        assert!(start.elapsed() < patience, "after {patience:?}:\n{}", found.join("\n"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
