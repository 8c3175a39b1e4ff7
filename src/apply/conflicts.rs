//! Writes the conflict log, in the transaction that applies the batch (R12).

use mysql_async::Row as SqlRow;
use mysql_async::prelude::Queryable as _;
use serde_json::{Map, Value as Json, json};

use super::session::Session;
use super::{ApplyError, sql};
use crate::change::{Column, ColumnType, Dot, RegionId};
use crate::clock::wall_us;
use crate::resolve::{Conflict, chained, entry, text};
use crate::version::Action;

/// Entries of one INSERT.
const ENTRIES_MAX: usize = 100;

impl Session {
    /// Logs the conflicts of the batch that has begun. What stood in a row's place is
    /// read before the batch overwrites it; `own` tells transactions of the batch
    /// itself, which have left nothing there yet.
    ///
    /// # Errors
    /// The batch must be rolled back.
    pub(super) async fn log_conflicts(
        &mut self,
        region: RegionId,
        conflicts: &[Conflict],
        own: &(dyn Fn(Dot) -> bool + Sync),
    ) -> Result<(), ApplyError> {
        if conflicts.is_empty() {
            return Ok(());
        }
        self.flush().await?;
        // Entries have one order: a younger batch waits here for the older one.
        let head = "SELECT last_id, hash FROM causeway.conflict_head WHERE id = 1 FOR UPDATE";
        let head: Option<(u64, String)> = self.conn.query_first(head).await.map_err(failed)?;
        let (mut id, mut hash) = head.unwrap_or_default();
        let at_us = wall_us();
        let mut values: Vec<String> = Vec::new();
        for conflict in conflicts {
            let mut entry = entry(conflict, region, at_us);
            let existing = &conflict.existing;
            let unread = existing.after.is_none() && existing.version.action != Action::Delete;
            if unread && !own(existing.version.dot) {
                entry["existing"]["after"] = self.standing(conflict).await?;
            }
            let text = entry.to_string();
            (id, hash) = (id + 1, chained(&hash, &text));
            values.push(format!(
                "({id},{at_us},{},{},{},{},{},'{hash}')",
                sql::text(&conflict.table.full_name().to_string()),
                sql::text(conflict.kind.name()),
                sql::text(conflict.policy),
                sql::text(conflict.winner()),
                sql::text(&text),
            ));
        }
        for values in values.chunks(ENTRIES_MAX) {
            let insert = format!(
                "INSERT INTO causeway.conflicts(id,at_us,table_name,kind,policy,winner,entry,hash)\
                 VALUES{}",
                values.join(",")
            );
            self.conn.query_drop(insert).await.map_err(failed)?;
        }
        let update = format!(
            "INSERT INTO causeway.conflict_head(id,last_id,hash)VALUES(1,{id},'{hash}') \
             ON DUPLICATE KEY UPDATE last_id=VALUES(last_id),hash=VALUES(hash)"
        );
        self.conn.query_drop(update).await.map_err(failed)
    }

    /// The row that is there now, under a lock.
    async fn standing(&mut self, conflict: &Conflict) -> Result<Json, ApplyError> {
        let side = &conflict.incoming;
        let Some(row) = side.after.as_ref().or(side.before.as_ref()) else { return Ok(Json::Null) };
        self.ensure_mapping(&conflict.table).await?;
        let name = (conflict.table.schema.clone(), conflict.table.name.clone());
        let (_, mapping) = &self.mappings[&name];
        let select = sql::select(mapping, row);
        let places: Vec<usize> = mapping.columns.iter().map(|column| column.at).collect();
        let held: Option<SqlRow> = self.conn.query_first(select).await.map_err(failed)?;
        let Some(held) = held else { return Ok(Json::Null) };
        let columns = places.iter().enumerate().filter_map(|(n, &at)| {
            let column = conflict.table.columns.get(at)?;
            let bytes = held.get_opt::<Option<Vec<u8>>, _>(n).and_then(Result::ok).flatten();
            Some((column.name.clone(), bytes.map_or(Json::Null, |bytes| printed(column, &bytes))))
        });
        Ok(Json::Object(columns.collect::<Map<_, _>>()))
    }
}

/// A value as the server prints it.
fn printed(column: &Column, bytes: &[u8]) -> Json {
    use ColumnType::{Bigint, Bit, Double, Float, Int, Mediumint, Smallint, Tinyint, Year};
    let kind = column.r#type();
    if kind == Bit {
        return json!(bytes.iter().fold(0_u64, |n, &byte| n << 8 | u64::from(byte)));
    }
    let number =
        matches!(kind, Tinyint | Smallint | Mediumint | Int | Bigint | Year | Float | Double);
    let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    match parsed.filter(|_| number) {
        Some(number) => Json::Number(number),
        None => text(column, bytes),
    }
}

fn failed(error: mysql_async::Error) -> ApplyError {
    ApplyError::from_driver(&error, "causeway.conflicts")
}
