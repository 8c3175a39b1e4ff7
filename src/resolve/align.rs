//! Writes of one row that were made with different columns: some regions have altered the
//! table, others have not yet.
//!
//! Each row is laid out with the columns of all of them. A write leaves a column alone that
//! its author did not have.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{Policy, Rulebook};
use crate::change::{Column, Dot, Row, Table, Value};
use crate::version::{Body, Write};

/// Writes of a row, laid out alike.
pub(super) struct Aligned {
    /// With the columns of all, those of the table that was asked for first.
    pub(super) table: Arc<Table>,
    /// That table's.
    pub(super) policy: Arc<Policy>,
    pub(super) history: Vec<Write>,
    pub(super) lacks: Lacks,
}

/// Columns that the authors of some writes did not have, by their places; empty where all
/// had the same.
pub(super) type Lacks = HashMap<Dot, Vec<usize>>;

/// The writes of a row, where some were made with other columns than `table` has; none
/// where all are laid out alike already.
///
/// # Errors
/// A column that some lack has no default that is known, so it is no addition.
pub(super) fn aligned(
    book: &Rulebook,
    table: &Arc<Table>,
    history: &[Write],
) -> Result<Option<Aligned>, NoDefault> {
    let bodies = || history.iter().filter_map(|held| held.body.as_deref());
    if bodies().all(|body| is_laid_out(&body.table, table)) {
        return Ok(None);
    }
    let mut all = Table::clone(table);
    for column in bodies().flat_map(|body| &body.table.columns) {
        if place(&all.columns, column).is_none() {
            all.columns.push(column.clone());
        }
    }
    let (all, policy) = book.of(&all);
    let mut lacks = Lacks::new();
    let lay_out = |held: &Write| {
        let mut held = held.clone();
        if let Some(body) = held.body.as_deref() {
            let lacking = |at: &usize| place(&body.table.columns, &all.columns[*at]).is_none();
            let lacking: Vec<usize> = (0..all.columns.len()).filter(lacking).collect();
            if !lacking.is_empty() {
                lacks.insert(held.version.dot, lacking);
            }
            let image = |row: &Option<Row>| {
                row.as_ref().map(|row| relaid(row, &body.table, &all)).transpose()
            };
            held.body = Some(Arc::new(Body {
                table: Arc::clone(&all),
                before: image(&body.before)?,
                after: image(&body.after)?,
                group: body.group.clone(),
                claims: body.claims.clone(),
                adds_up: body.adds_up,
            }));
        }
        Ok(held)
    };
    let history = history.iter().map(lay_out).collect::<Result<_, _>>()?;
    Ok(Some(Aligned { table: all, policy, history, lacks }))
}

/// A column that is no addition to the table.
#[derive(Debug)]
pub(super) struct NoDefault;

/// A row of one table with the columns of another; those that it lacks hold their defaults.
pub(super) fn relaid(row: &Row, from: &Table, to: &Table) -> Result<Row, NoDefault> {
    let value = |column: &Column| match place(&from.columns, column) {
        Some(at) => row.values.get(at).cloned().ok_or(NoDefault),
        None if column.generated => Ok(Value::NULL),
        None if column.key > 0 => Err(NoDefault),
        None => column.default_value.clone().ok_or(NoDefault),
    };
    Ok(Row { values: to.columns.iter().map(value).collect::<Result<_, _>>()? })
}

/// Where a row of one table has this column of another.
pub(super) fn place(columns: &[Column], column: &Column) -> Option<usize> {
    columns.iter().position(|held| held.name.eq_ignore_ascii_case(&column.name))
}

/// Whether rows of both have the same columns in the same places.
pub(super) fn is_laid_out(a: &Table, b: &Table) -> bool {
    let named = |(a, b): (&Column, &Column)| a.name.eq_ignore_ascii_case(&b.name);
    std::ptr::eq(a, b)
        || a.columns.len() == b.columns.len() && a.columns.iter().zip(&b.columns).all(named)
}
