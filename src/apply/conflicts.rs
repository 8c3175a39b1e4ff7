//! Writes the conflict log, in the transaction that applies the batch (R12).

use std::collections::HashMap;

use hashbrown::HashSet;
use mysql_async::Row as SqlRow;
use mysql_async::prelude::Queryable as _;
use serde_json::{Map, Value as Json, json};

use super::session::Session;
use super::{ApplyError, ErrorKind, sql};
use crate::change::{Column, ColumnType, Dot, RegionId, Table};
use crate::clock::wall_us;
use crate::resolve::{Chain, Conflict, TablePlan, entry, text};
use crate::version::RowKey;

/// Rows read at once, and for the entries of one batch; of those beyond, the row that stood is in
/// its region's outbox alone.
const READ_MAX: usize = 500;

/// Rows that stood in the way, by the place of their conflict.
pub(super) type Standing = HashMap<usize, Json>;

impl Session {
    /// Logs the conflicts of the batch that has begun, with what [`Session::standing`]
    /// read before the batch was written. It comes after the rows: a younger batch waits
    /// in here until the older one has committed, and were its rows not locked by then,
    /// what it was planned on would be out of date again and again.
    ///
    /// # Errors
    /// The batch must be rolled back.
    pub(super) async fn log_conflicts(
        &mut self,
        region: RegionId,
        conflicts: &[Conflict],
        mut stood: Standing,
    ) -> Result<(), ApplyError> {
        if conflicts.is_empty() {
            return Ok(());
        }
        // Entries have one order: a younger batch waits here for the older one.
        let head = self.conn.query_first(Chain::READ).await.map_err(failed)?;
        let mut chain = Chain::after(head, self.row_bytes_max, self.packet_bytes_max);
        let at_us = wall_us();
        for (n, conflict) in conflicts.iter().enumerate() {
            let mut entry = entry(conflict, region, at_us);
            if let Some(row) = stood.remove(&n) {
                entry["existing"]["after"] = row;
            }
            if let Some(full) = chain.append(entry) {
                self.conn.query_drop(full).await.map_err(failed)?;
            }
        }
        for statement in chain.finish() {
            self.conn.query_drop(statement).await.map_err(failed)?;
        }
        Ok(())
    }

    /// The rows that are there now, and nobody has kept: under locks those that the batch
    /// is about to overwrite. A row that lacks its parent is told for information: the
    /// batch does not write it, waits for nobody who does, and goes on when its table is
    /// not here. `own` tells transactions of the batch itself, which have left nothing
    /// there yet. One round trip.
    ///
    /// # Errors
    /// The batch must be rolled back.
    pub(super) async fn standing(
        &mut self,
        conflicts: &[Conflict],
        own: &(dyn Fn(Dot) -> bool + Sync),
    ) -> Result<Standing, ApplyError> {
        let (mut sql, mut asked) = (Vec::new(), Vec::new());
        for (n, conflict) in conflicts.iter().enumerate() {
            let unread = conflict.unread().filter(|_| !own(conflict.existing.version.dot));
            let Some((table, row)) = unread else { continue };
            if asked.len() >= READ_MAX || sql.len() >= self.packet_bytes_max {
                break;
            }
            match self.ensure_mapping(table).await {
                Err(error) if conflict.orphan.is_some() && error.kind() == ErrorKind::Row => {
                    continue;
                }
                mapped => mapped?,
            }
            let name = (table.schema.clone(), table.name.clone());
            let (_, mapping) = &self.mappings[&name];
            if !sql.is_empty() {
                sql.push(b';');
            }
            sql.extend(sql::select(mapping, row));
            if conflict.orphan.is_none() {
                sql.extend_from_slice(b" FOR UPDATE");
            }
            asked.push((
                n,
                table,
                mapping.columns.iter().map(|column| column.at).collect::<Vec<_>>(),
            ));
        }
        let mut found = HashMap::new();
        if asked.is_empty() {
            return Ok(found);
        }
        self.flush().await?;
        let mut answers = self.conn.query_iter(sql).await.map_err(failed)?;
        for (n, table, places) in asked {
            let rows: Vec<SqlRow> = answers.collect().await.map_err(failed)?;
            if let Some(row) = rows.first() {
                found.insert(n, held(table, &places, row));
            }
        }
        answers.drop_result().await.map_err(failed)?;
        Ok(found)
    }

    /// Which of the rows that the plan has to find, and writes, are not there, under locks: nobody makes
    /// them before it does.
    ///
    /// # Errors
    /// The batch must be rolled back.
    pub(super) async fn absent(
        &mut self,
        tables: &[TablePlan],
    ) -> Result<HashSet<RowKey>, ApplyError> {
        self.flush().await?;
        let mut absent = HashSet::new();
        for plan in tables {
            self.ensure_mapping(&plan.table).await?;
            let (_, mapping) =
                &self.mappings[&(plan.table.schema.clone(), plan.table.name.clone())];
            let key = plan.table.key_columns();
            let mut asked: Vec<(Vec<u8>, Vec<Option<RowKey>>)> = Vec::new();
            for row in plan.counted() {
                let full = |(sql, rows): &(Vec<u8>, Vec<_>)| {
                    rows.len() >= READ_MAX || sql.len() >= self.packet_bytes_max
                };
                if asked.last().is_none_or(full) {
                    asked.push(Default::default());
                }
                let (sql, rows) = asked.last_mut().expect("one was just made");
                sql.extend(sql::select(mapping, row));
                sql.extend_from_slice(b" FOR UPDATE;");
                rows.push(RowKey::of(&plan.table, &key, row).ok());
            }
            for (sql, rows) in asked {
                let mut answers = self.conn.query_iter(sql).await.map_err(failed)?;
                for row in rows {
                    let held: Vec<SqlRow> = answers.collect().await.map_err(failed)?;
                    absent.extend(row.filter(|_| held.is_empty()));
                }
                answers.drop_result().await.map_err(failed)?;
            }
        }
        Ok(absent)
    }
}

/// A row as it was read: `places` are its columns' places at the origin.
fn held(table: &Table, places: &[usize], row: &SqlRow) -> Json {
    let columns = places.iter().enumerate().filter_map(|(n, &at)| {
        let column = table.columns.get(at)?;
        let bytes = row.get_opt::<Option<Vec<u8>>, _>(n).and_then(Result::ok).flatten();
        Some((column.name.clone(), bytes.map_or(Json::Null, |bytes| printed(column, &bytes))))
    });
    Json::Object(columns.collect::<Map<_, _>>())
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
