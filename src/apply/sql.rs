//! The text of the applier's statements, as bytes: rows go in unconverted.
//!
//! Multi-row statements in the text protocol: one round trip for a whole batch, one
//! parse for a thousand rows.

use std::io::Write as _;

use super::bootstrap::Flavor;
use super::schema::{Form, Mapping};
use crate::change::{Kind, Row, Value};

/// Rows of one INSERT or DELETE.
const ROWS_MAX: usize = 1_000;
/// Bytes of one statement: well below `max_allowed_packet`'s default of 16 MiB.
const BYTES_MAX: usize = 1 << 20;
/// Rows of one DELETE whose key has several columns.
const OR_ROWS_MAX: usize = 200;

/// Appends the statements that make `removes` go and `puts` stand.
///
/// With further unique keys an upsert could hit the wrong row, so the rows are
/// deleted by primary key first and inserted anew: a swap of unique values applies,
/// and a collision with a row outside is an error, never an overwrite.
pub(super) fn table(
    out: &mut Vec<u8>,
    flavor: Flavor,
    mapping: &Mapping,
    removes: &[Row],
    puts: &[Row],
) {
    delete(out, mapping, removes);
    if mapping.unique {
        delete(out, mapping, puts);
    }
    insert(out, flavor, mapping, puts);
}

fn delete(out: &mut Vec<u8>, mapping: &Mapping, rows: &[Row]) {
    let single = mapping.key.len() == 1;
    for chunk in rows.chunks(if single { ROWS_MAX } else { OR_ROWS_MAX }) {
        out.extend_from_slice(b"DELETE FROM ");
        out.extend_from_slice(mapping.name.as_bytes());
        out.extend_from_slice(b" WHERE ");
        for (n, row) in chunk.iter().enumerate() {
            if single {
                if n == 0 {
                    out.extend_from_slice(mapping.columns[mapping.key[0]].name.as_bytes());
                    out.extend_from_slice(b" IN (");
                } else {
                    out.push(b',');
                }
                key_value(out, mapping, mapping.key[0], row);
                continue;
            }
            out.extend_from_slice(if n == 0 { b"(" } else { b" OR (" });
            for (i, &place) in mapping.key.iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(b" AND ");
                }
                out.extend_from_slice(mapping.columns[place].name.as_bytes());
                out.push(b'=');
                key_value(out, mapping, place, row);
            }
            out.push(b')');
        }
        out.extend_from_slice(if single { b");" } else { b";" });
    }
}

fn key_value(out: &mut Vec<u8>, mapping: &Mapping, place: usize, row: &Row) {
    let target = &mapping.columns[place];
    value(out, &target.key_form, &row.values[target.at]);
}

fn insert(out: &mut Vec<u8>, flavor: Flavor, mapping: &Mapping, rows: &[Row]) {
    let mut rows = rows.iter().peekable();
    while rows.peek().is_some() {
        let start = out.len();
        out.extend_from_slice(b"INSERT INTO ");
        out.extend_from_slice(mapping.name.as_bytes());
        for (n, column) in mapping.columns.iter().enumerate() {
            out.push(if n == 0 { b'(' } else { b',' });
            out.extend_from_slice(column.name.as_bytes());
        }
        out.extend_from_slice(b")VALUES");
        let mut written = 0;
        while written < ROWS_MAX && out.len() - start < BYTES_MAX {
            let Some(row) = rows.next() else { break };
            out.extend_from_slice(if written == 0 { b"(" } else { b",(" });
            for (n, column) in mapping.columns.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                value(out, &column.form, &row.values[column.at]);
            }
            out.push(b')');
            written += 1;
        }
        if !mapping.unique {
            on_duplicate(out, flavor, mapping);
        }
        out.push(b';');
    }
}

fn on_duplicate(out: &mut Vec<u8>, flavor: Flavor, mapping: &Mapping) {
    let alias = matches!(flavor, Flavor::MySql(..)) && flavor >= Flavor::MySql(8, 0, 20);
    if alias {
        out.extend_from_slice(b" AS new");
    }
    out.extend_from_slice(b" ON DUPLICATE KEY UPDATE ");
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
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(column.name.as_bytes());
        if alias {
            out.extend_from_slice(b"=new.");
            out.extend_from_slice(column.name.as_bytes());
        } else {
            out.extend_from_slice(b"=VALUES(");
            out.extend_from_slice(column.name.as_bytes());
            out.push(b')');
        }
    }
}

/// Appends a literal.
fn value(out: &mut Vec<u8>, form: &Form, value: &Value) {
    let wrote = match &value.kind {
        None => out.write_all(b"NULL"),
        Some(Kind::Int(n)) => write!(out, "{n}"),
        Some(Kind::Uint(n)) => write!(out, "{n}"),
        Some(Kind::Float(f)) => write!(out, "{f:e}"),
        Some(Kind::Double(f)) => write!(out, "{f:e}"),
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

fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'\'');
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| matches!(b, b'\'' | b'\\' | 0)) {
        out.extend_from_slice(&rest[..at]);
        out.push(b'\\');
        out.push(if rest[at] == 0 { b'0' } else { rest[at] });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'\'');
}
