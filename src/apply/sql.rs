//! The text of the applier's statements, as bytes: rows go in unconverted.
//!
//! Multi-row statements in the text protocol: one round trip for a whole batch, one
//! parse for some hundred rows. `upsert_rate` in tests/apply_sql.rs measures them.

mod merge;

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;

use super::bootstrap::Flavor;
use super::schema::{Form, Mapping, Target};
use crate::change::{Kind, Row, Value};
use crate::database::quoted;
use crate::resolve::{MergeRow, TablePlan};

/// Rows of one INSERT.
const INSERT_ROWS_MAX: usize = 1_000;
/// Rows of one DELETE. From 1,000 on MariaDB turns an IN list into a subquery
/// (`in_predicate_conversion_threshold`), whose plan locks more than the rows.
const DELETE_ROWS_MAX: usize = 500;
/// The same for keys of several columns: the range optimizer's memory per predicate
/// is larger (`range_optimizer_max_mem_size`).
const COMPOSITE_ROWS_MAX: usize = 200;

/// Statements to send, in order.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Each statement ends with its semicolon.
    pub(super) text: Vec<u8>,
    pub(super) statements: Vec<Statement>,
}

#[derive(Debug)]
pub(super) struct Statement {
    /// Where it ends in the text.
    pub(super) end: usize,
    /// What it writes.
    pub(super) table: Arc<str>,
    pub(super) expects: Expects,
}

/// What the server's count of rows says where all rows of a statement are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expects {
    Nothing,
    /// No row is inserted.
    NoInsert,
    /// So many rows are deleted.
    Deletes(u64),
}

impl Expects {
    /// Whether the answer says so: its count of rows, and its text, `Records: 2
    /// Duplicates: 1  Warnings: 0` in the server's language, which a statement of one row
    /// does not have. Of an upsert a row counts 1 when it is inserted, 2 and as a duplicate
    /// when it is changed, and not when it is as it was.
    pub(super) fn holds(self, rows: u64, text: &str) -> bool {
        match self {
            Self::Nothing => true,
            Self::Deletes(wanted) => rows == wanted,
            Self::NoInsert if text.is_empty() => rows != 1,
            Self::NoInsert => {
                let digits = |c: char| !c.is_ascii_digit();
                let mut numbers = text.split(digits).filter_map(|n| n.parse::<u64>().ok());
                numbers.nth(1).is_none_or(|changed| rows == 2 * changed)
            }
        }
    }
}

impl Script {
    /// Forgets all statements; keeps the memory.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.statements.clear();
    }

    /// Adds a whole statement, without its semicolon.
    pub(super) fn push(&mut self, statement: &str, table: &Arc<str>) {
        self.text.extend_from_slice(statement.as_bytes());
        self.end(table, Expects::Nothing);
    }

    fn end(&mut self, table: &Arc<str>, expects: Expects) {
        self.text.push(b';');
        let (end, table) = (self.text.len(), Arc::clone(table));
        self.statements.push(Statement { end, table, expects });
    }

    fn add(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }
}

/// What statements depend on besides their table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    /// The server.
    pub(super) flavor: Flavor,
    /// Bytes after which a statement takes no further row.
    pub(super) statement_bytes_max: usize,
}

/// The statements of a plan that are not written yet, in their order.
pub(super) struct Statements<'a> {
    dialect: Dialect,
    mapping: &'a Mapping,
    pieces: VecDeque<Piece<'a>>,
}

/// Rows of a plan with which the same is done.
struct Piece<'a> {
    rows: Rows<'a>,
    /// Whether they have to be there.
    found: bool,
}

enum Rows<'a> {
    Delete(&'a [Row]),
    Insert(&'a [Row]),
    Merge(&'a [MergeRow]),
}

impl<'a> Statements<'a> {
    /// Those that make a plan's removes go, its puts stand and its merges change what is
    /// there.
    ///
    /// With further unique keys an upsert could hit the wrong row, so the rows are
    /// deleted by primary key first and inserted anew: a swap of unique values applies,
    /// and a collision with a row outside is an error, never an overwrite.
    pub(super) fn new(dialect: Dialect, mapping: &'a Mapping, plan: &'a TablePlan) -> Self {
        let put = if mapping.unique { Rows::Delete } else { Rows::Insert };
        let removes = halves(&plan.removes, plan.found.removes, Rows::Delete);
        let puts = halves(&plan.puts, plan.found.puts, put);
        let anew = mapping.unique.then_some(Piece { rows: Rows::Insert(&plan.puts), found: false });
        let merges = halves(&plan.merges, plan.found.merges, Rows::Merge);
        let pieces = removes.into_iter().chain(puts).chain(anew).chain(merges).collect();
        Self { dialect, mapping, pieces }
    }

    /// Appends statements until `out` holds that many bytes; says whether it does, so that
    /// there may be more.
    pub(super) fn fill(&mut self, out: &mut Script, bytes: usize) -> bool {
        while out.text.len() < bytes {
            let Some(piece) = self.pieces.front_mut() else { return false };
            if piece.is_empty() {
                self.pieces.pop_front();
            } else {
                piece.write(out, self.dialect, self.mapping);
            }
        }
        true
    }
}

/// The first so many rows, which have to be there, and the others.
fn halves<'a, T>(rows: &'a [T], found: usize, of: fn(&'a [T]) -> Rows<'a>) -> [Piece<'a>; 2] {
    let (found, other) = rows.split_at(found);
    [Piece { rows: of(found), found: true }, Piece { rows: of(other), found: false }]
}

impl Piece<'_> {
    const fn is_empty(&self) -> bool {
        matches!(self.rows, Rows::Delete([]) | Rows::Insert([]) | Rows::Merge([]))
    }

    /// Appends a statement of its first rows, and is left with the others.
    fn write(&mut self, out: &mut Script, dialect: Dialect, mapping: &Mapping) {
        let found = self.found;
        match &mut self.rows {
            Rows::Delete(rows) => *rows = &rows[delete(out, dialect, mapping, (rows, found))..],
            Rows::Insert(rows) => *rows = &rows[insert(out, dialect, mapping, (rows, found))..],
            Rows::Merge(rows) => {
                let Some(row) = rows.split_off_first() else { return };
                merge::merge(out, mapping, (row, found));
            }
        }
    }
}

/// Appends rows of one statement: no more than it may have, and none behind the one with
/// which the text has so many bytes. Gives how many.
fn add_rows(
    out: &mut Script,
    (rows, rows_max): (&[Row], usize),
    bytes: usize,
    add: impl Fn(&mut Script, usize, &Row),
) -> usize {
    let mut added = 0;
    for row in rows.iter().take(rows_max) {
        add(out, added, row);
        added += 1;
        if out.text.len() >= bytes {
            break;
        }
    }
    added
}

/// By primary key; gives how many of the rows. The index is forced, so that no plan ever
/// scans, and locks, the whole table.
fn delete(
    out: &mut Script,
    dialect: Dialect,
    mapping: &Mapping,
    (rows, found): (&[Row], bool),
) -> usize {
    let bytes = out.text.len() + dialect.statement_bytes_max;
    for text in ["DELETE FROM ", &mapping.name, " USING ", &mapping.name] {
        out.add(text);
    }
    out.add(" FORCE INDEX (PRIMARY) WHERE ");
    let deleted = if let [place] = mapping.key[..] {
        let key = &mapping.columns[place];
        out.add(&key.name);
        let rows = (rows, DELETE_ROWS_MAX);
        let deleted = add_rows(out, rows, bytes, |out, n, row| {
            out.add(if n == 0 { " IN (" } else { "," });
            key_value(&mut out.text, key, row);
        });
        out.add(")");
        deleted
    } else {
        add_rows(out, (rows, COMPOSITE_ROWS_MAX), bytes, |out, n, row| {
            out.add(if n == 0 { "(" } else { " OR (" });
            has_key(&mut out.text, mapping, row);
            out.add(")");
        })
    };
    let expects = if found { Expects::Deletes(deleted as u64) } else { Expects::Nothing };
    out.end(&mapping.full, expects);
    deleted
}

/// The row here that has the key of `row`, locked.
pub(super) fn select(mapping: &Mapping, row: &Row) -> Vec<u8> {
    let mut out = b"SELECT ".to_vec();
    for (n, column) in mapping.columns.iter().enumerate() {
        out.extend_from_slice(if n == 0 { &b""[..] } else { b"," });
        out.extend_from_slice(column.name.as_bytes());
    }
    out.extend_from_slice(b" FROM ");
    out.extend_from_slice(mapping.name.as_bytes());
    out.extend_from_slice(b" WHERE ");
    has_key(&mut out, mapping, row);
    out
}

/// That a row has the key of `row`.
fn has_key(out: &mut Vec<u8>, mapping: &Mapping, row: &Row) {
    for (n, &place) in mapping.key.iter().enumerate() {
        let key = &mapping.columns[place];
        out.extend_from_slice(if n == 0 { b"" } else { b" AND " });
        out.extend_from_slice(key.name.as_bytes());
        out.push(b'=');
        key_value(out, key, row);
    }
}

fn key_value(out: &mut Vec<u8>, target: &Target, row: &Row) {
    let at = out.len();
    value(out, &target.key_form, &row.values[target.at]);
    // BINARY(n) is filled up with zeros when stored, and compared as it is stored.
    if let (Some(width), Some(Kind::Bytes(bytes))) =
        (target.zero_filled, &row.values[target.at].kind)
        && bytes.len() < width
        && out.len() > at
    {
        out.pop();
        for _ in bytes.len()..width {
            out.extend_from_slice(b"\\0");
        }
        out.push(b'\'');
    }
}

/// Gives how many of the rows.
fn insert(
    out: &mut Script,
    dialect: Dialect,
    mapping: &Mapping,
    (rows, found): (&[Row], bool),
) -> usize {
    let bytes = out.text.len() + dialect.statement_bytes_max;
    insert_into(out, mapping);
    let inserted = add_rows(out, (rows, INSERT_ROWS_MAX), bytes, |out, n, row| {
        out.add(if n == 0 { "" } else { "," });
        values(out, mapping, row);
    });
    if !mapping.unique {
        on_duplicate(out, dialect.flavor, mapping);
    }
    out.end(&mapping.full, if found { Expects::NoInsert } else { Expects::Nothing });
    inserted
}

/// What comes before the rows.
fn insert_into(out: &mut Script, mapping: &Mapping) {
    out.add("INSERT INTO ");
    out.add(&mapping.name);
    for (n, column) in mapping.columns.iter().enumerate() {
        out.add(if n == 0 { "(" } else { "," });
        out.add(&column.name);
    }
    out.add(")VALUES");
}

/// One row.
fn values(out: &mut Script, mapping: &Mapping, row: &Row) {
    for (n, column) in mapping.columns.iter().enumerate() {
        out.text.push(if n == 0 { b'(' } else { b',' });
        value(&mut out.text, &column.form, &row.values[column.at]);
    }
    out.text.push(b')');
}

fn on_duplicate(out: &mut Script, flavor: Flavor, mapping: &Mapping) {
    let alias = matches!(flavor, Flavor::MySql(..)) && flavor >= Flavor::MySql(8, 0, 20);
    out.add(if alias { " AS new ON DUPLICATE KEY UPDATE " } else { " ON DUPLICATE KEY UPDATE " });
    // A table of nothing but its key still needs one assignment.
    let all_key = mapping.key.len() == mapping.columns.len();
    let mut first = true;
    for (place, column) in mapping.columns.iter().enumerate() {
        // Key columns too when their collation lets equal keys look different.
        let plain_key =
            mapping.key.contains(&place) && matches!(column.key_form, Form::Plain) && !all_key;
        if plain_key {
            continue;
        }
        if !first {
            out.add(",");
        }
        first = false;
        out.add(&column.name);
        out.add(if alias { "=new." } else { "=VALUES(" });
        out.add(&column.name);
        if !alias {
            out.add(")");
        }
    }
    // An author who did not have the column had seen nothing but its default.
    for name in &mapping.own {
        for text in [",", name, "=DEFAULT(", name, ")"] {
            out.add(text);
        }
    }
}

/// Appends a literal.
fn value(out: &mut Vec<u8>, form: &Form, value: &Value) {
    let wrote = match &value.kind {
        None => out.write_all(b"NULL"),
        Some(Kind::Int(n)) => write!(out, "{n}"),
        Some(Kind::Uint(n)) => write!(out, "{n}"),
        // As the double that it is exactly: a comparison with the column then holds.
        Some(Kind::Float(f)) => write!(out, "{:e}", f64::from(*f)),
        Some(Kind::Double(f)) => write!(out, "{f:e}"),
        // A quoted decimal would be compared as a double.
        Some(Kind::Literal(text)) if *form == Form::Number && is_number(text) => {
            out.write_all(text)
        }
        Some(Kind::Literal(text)) => {
            quoted(out, text);
            Ok(())
        }
        Some(Kind::Bytes(bytes)) => {
            if let Form::Charset(charset) = form {
                out.push(b'_');
                out.extend_from_slice(charset.as_bytes());
            }
            quoted(out, bytes);
            Ok(())
        }
    };
    wrote.expect("a Vec takes all");
}

fn is_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    digits.first().is_some_and(u8::is_ascii_digit)
        && digits.iter().all(|b| b.is_ascii_digit() || *b == b'.')
        && digits.iter().filter(|b| **b == b'.').count() <= 1
}

#[cfg(test)]
mod tests;
