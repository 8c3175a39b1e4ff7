//! Writes of one row that were made with different columns: some regions have altered the
//! table, others have not yet.
//!
//! Each row is laid out with the columns of all of them. A write leaves a column alone that
//! its author did not have.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{Policy, Rulebook};
use crate::change::{Column, ColumnType, Dot, Kind, Row, Table, Value};
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
/// [`Unlike`].
pub(super) fn aligned(
    book: &Rulebook,
    table: &Arc<Table>,
    history: &[Write],
) -> Result<Option<Aligned>, Unlike> {
    let bodies = || history.iter().filter_map(|held| held.body.as_deref());
    if bodies().all(|body| is_laid_out(&body.table, table)) {
        return Ok(None);
    }
    let mut all = Table::clone(table);
    for column in bodies().flat_map(|body| &body.table.columns) {
        match all.place(&column.name) {
            None => all.columns.push(column.clone()),
            Some(at) if all.columns[at].labels.len() < column.labels.len() => {
                all.columns[at].labels.clone_from(&column.labels);
            }
            Some(_) => {}
        }
    }
    let (all, policy) = book.of(&all);
    let mut lacks = Lacks::new();
    let lay_out = |held: &Write| {
        let mut held = held.clone();
        if let Some(body) = held.body.as_deref() {
            let lacking = |at: &usize| body.table.place(&all.columns[*at].name).is_none();
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

/// Rows that can't be laid out alike: a column that one lacks has no default that is known,
/// or one that both have holds what the other's can't be told in.
#[derive(Debug)]
pub(super) struct Unlike;

/// A row of one table with the columns of another; those that it lacks hold their defaults.
pub(super) fn relaid(row: &Row, from: &Table, to: &Table) -> Result<Row, Unlike> {
    let value = |column: &Column| match from.place(&column.name) {
        Some(at) => converted(row.values.get(at).ok_or(Unlike)?, &from.columns[at], column),
        None if column.generated => Ok(Value::NULL),
        None if column.key > 0 => Err(Unlike),
        None => column.default_value.clone().ok_or(Unlike),
    };
    Ok(Row { values: to.columns.iter().map(value).collect::<Result<_, _>>()? })
}

/// Whether rows of both have the same columns in the same places, with the same values.
pub(super) fn is_laid_out(a: &Table, b: &Table) -> bool {
    let alike = |(a, b): (&Column, &Column)| {
        a.name.eq_ignore_ascii_case(&b.name)
            && a.labels == b.labels
            && (a.collation == b.collation || charset(a) == charset(b))
    };
    std::ptr::eq(a, b)
        || a.columns.len() == b.columns.len() && a.columns.iter().zip(&b.columns).all(alike)
}

/// A value of one column as one of the other.
fn converted(value: &Value, from: &Column, to: &Column) -> Result<Value, Unlike> {
    let same = match &value.kind {
        // A label is known by its place.
        Some(Kind::Uint(n)) if from.labels != to.labels => {
            let count = from.labels.len().min(to.labels.len());
            let is_known = match from.r#type() == ColumnType::Set {
                true => (count..64).all(|bit| n >> bit & 1 == 0),
                false => usize::try_from(*n).is_ok_and(|n| n <= count),
            };
            is_known && from.labels[..count] == to.labels[..count]
        }
        Some(Kind::Bytes(bytes)) if charset(from) != charset(to) => {
            bytes.is_ascii() && !from.is_wide() && !to.is_wide()
        }
        _ => true,
    };
    if same { Ok(value.clone()) } else { Err(Unlike) }
}

/// The character set; those of UTF-8 are one.
fn charset(column: &Column) -> &str {
    let name = column.charset();
    if name.starts_with("utf8") { "utf8" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(r#type: ColumnType, labels: &[&str], collation: &str) -> Column {
        let labels = labels.iter().map(|label| (*label).to_owned().into()).collect();
        let (name, collation) = ("c".to_owned(), collation.to_owned());
        Column { name, r#type: r#type.into(), labels, collation, ..Column::default() }
    }

    #[track_caller]
    fn check(kind: Kind, from: &Column, to: &Column, wanted: bool) {
        let value = Value::new(kind);
        assert_eq!(converted(&value, from, to).ok(), wanted.then_some(value));
    }

    #[test]
    fn labels_are_known_by_their_places() {
        for (r#type, last) in [(ColumnType::Enum, 2), (ColumnType::Set, 3)] {
            let two = column(r#type, &["a", "b"], "");
            let three = column(r#type, &["a", "b", "c"], "");
            let other = column(r#type, &["a", "x", "b"], "");
            check(Kind::Uint(last), &two, &three, true);
            check(Kind::Uint(last), &three, &two, true);
            check(Kind::Uint(last + 1), &three, &two, false);
            check(Kind::Uint(last), &two, &other, false);
            let table =
                |column: &Column| Table { columns: vec![column.clone()], ..Table::default() };
            assert!(!is_laid_out(&table(&two), &table(&three)));
        }
    }

    #[test]
    fn what_another_character_set_writes_alike_is_the_same() {
        let set = |collation| column(ColumnType::Char, &[], collation);
        let (latin, utf8) = (set("latin1_swedish_ci"), set("utf8mb4_bin"));
        check(Kind::Bytes("a".into()), &latin, &utf8, true);
        check(Kind::Bytes("é".into()), &latin, &utf8, false);
        check(Kind::Bytes("é".into()), &set("utf8mb3_bin"), &utf8, true);
        check(Kind::Bytes("a".into()), &latin, &set("ucs2_bin"), false);
    }
}
