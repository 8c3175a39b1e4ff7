//! The text of the applier's statements, as bytes: rows go in unconverted.
//!
//! Multi-row statements in the text protocol: one round trip for a whole batch, one
//! parse for some hundred rows. `upsert_rate` in tests/apply_sql.rs measures them.

mod merge;

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

/// Rows of a plan with which the same is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    rows: Rows<'a>,
    /// Whether they have to be there.
    found: bool,
}

#[derive(Clone, Copy, Debug)]
enum Rows<'a> {
    Delete(&'a [Row]),
    Insert(&'a [Row]),
    Merge(&'a [MergeRow]),
}

/// In their order the pieces that make a plan's removes go, its puts stand and its merges
/// change what is there.
///
/// With further unique keys an upsert could hit the wrong row, so the rows are
/// deleted by primary key first and inserted anew: a swap of unique values applies,
/// and a collision with a row outside is an error, never an overwrite.
pub(super) fn pieces<'a>(
    mapping: &Mapping,
    plan: &'a TablePlan,
) -> impl Iterator<Item = Piece<'a>> {
    let halves = |rows: &'a [Row], found: usize, of: fn(&'a [Row]) -> Rows<'a>| {
        let (found, other) = rows.split_at(found);
        [Piece { rows: of(found), found: true }, Piece { rows: of(other), found: false }]
    };
    let put = if mapping.unique { Rows::Delete } else { Rows::Insert };
    let removes = halves(&plan.removes, plan.found.removes, Rows::Delete);
    let puts = halves(&plan.puts, plan.found.puts, put);
    let anew = mapping.unique.then_some(Piece { rows: Rows::Insert(&plan.puts), found: false });
    let (found, other) = plan.merges.split_at(plan.found.merges);
    let merges = [(found, true), (other, false)];
    let merges = merges.map(|(rows, found)| Piece { rows: Rows::Merge(rows), found });
    removes.into_iter().chain(puts).chain(anew).chain(merges)
}

impl Piece<'_> {
    /// Appends the next of its statements, and gives what is left; `None` when nothing was.
    pub(super) fn write(
        self,
        out: &mut Script,
        dialect: Dialect,
        mapping: &Mapping,
    ) -> Option<Self> {
        let found = self.found;
        let rows = match self.rows {
            Rows::Delete([]) | Rows::Insert([]) | Rows::Merge([]) => return None,
            Rows::Delete(rows) => Rows::Delete(delete(out, dialect, mapping, (rows, found))),
            Rows::Insert(rows) => Rows::Insert(insert(out, dialect, mapping, (rows, found))),
            Rows::Merge([row, rest @ ..]) => {
                merge::merge(out, mapping, (row, found));
                Rows::Merge(rest)
            }
        };
        Some(Self { rows, found })
    }
}

/// By primary key; gives the rows that are left. The index is forced, so that no plan
/// ever scans, and locks, the whole table.
fn delete<'a>(
    out: &mut Script,
    dialect: Dialect,
    mapping: &Mapping,
    (rows, found): (&'a [Row], bool),
) -> &'a [Row] {
    let single = mapping.key.len() == 1;
    let rows_max = if single { DELETE_ROWS_MAX } else { COMPOSITE_ROWS_MAX };
    let start = out.text.len();
    out.add("DELETE FROM ");
    out.add(&mapping.name);
    out.add(" USING ");
    out.add(&mapping.name);
    out.add(" FORCE INDEX (PRIMARY) WHERE ");
    let mut written = 0;
    for row in rows.iter().take(rows_max) {
        if single {
            let key = &mapping.columns[mapping.key[0]];
            if written == 0 {
                out.add(&key.name);
                out.add(" IN (");
            } else {
                out.add(",");
            }
            key_value(&mut out.text, key, row);
        } else {
            out.add(if written == 0 { "(" } else { " OR (" });
            for (n, &place) in mapping.key.iter().enumerate() {
                let key = &mapping.columns[place];
                out.add(if n == 0 { "" } else { " AND " });
                out.add(&key.name);
                out.add("=");
                key_value(&mut out.text, key, row);
            }
            out.add(")");
        }
        written += 1;
        if out.text.len() - start >= dialect.statement_bytes_max {
            break;
        }
    }
    if single {
        out.add(")");
    }
    let expects = if found { Expects::Deletes(written as u64) } else { Expects::Nothing };
    out.end(&mapping.full, expects);
    &rows[written..]
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
    for (n, &place) in mapping.key.iter().enumerate() {
        let key = &mapping.columns[place];
        out.extend_from_slice(if n == 0 { &b" WHERE "[..] } else { b" AND " });
        out.extend_from_slice(key.name.as_bytes());
        out.push(b'=');
        key_value(&mut out, key, row);
    }
    out
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

/// Gives the rows that are left.
fn insert<'a>(
    out: &mut Script,
    dialect: Dialect,
    mapping: &Mapping,
    (rows, found): (&'a [Row], bool),
) -> &'a [Row] {
    let start = out.text.len();
    out.add("INSERT INTO ");
    out.add(&mapping.name);
    for (n, column) in mapping.columns.iter().enumerate() {
        out.add(if n == 0 { "(" } else { "," });
        out.add(&column.name);
    }
    out.add(")VALUES");
    let mut written = 0;
    for row in rows.iter().take(INSERT_ROWS_MAX) {
        out.add(if written == 0 { "(" } else { ",(" });
        for (n, column) in mapping.columns.iter().enumerate() {
            if n > 0 {
                out.text.push(b',');
            }
            value(&mut out.text, &column.form, &row.values[column.at]);
        }
        out.text.push(b')');
        written += 1;
        if out.text.len() - start >= dialect.statement_bytes_max {
            break;
        }
    }
    if !mapping.unique {
        on_duplicate(out, dialect.flavor, mapping);
    }
    out.end(&mapping.full, if found { Expects::NoInsert } else { Expects::Nothing });
    &rows[written..]
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
