//! An entry of the conflict log: a conflict as JSON.

use serde_json::{Map, Value as Json, json};

use super::{Conflict, ConflictKind, Contest, Orphan, Outcome, Side};
use crate::change::{Column, ColumnType, Kind, RegionId, Row, Table, Value};

/// The conflict as it is logged in `region` at that time, microseconds since the Unix
/// epoch. Keys are in order, so that the text of an entry is one.
#[must_use]
pub fn entry(conflict: &Conflict, region: RegionId, at_us: u64) -> Json {
    if let Some(orphan) = &conflict.orphan {
        return orphaned(conflict, orphan, region, at_us);
    }
    let table = &conflict.table;
    let row = conflict.incoming.after.as_ref().or(conflict.incoming.before.as_ref());
    let mut entry = told(conflict, (table, table), region, at_us);
    if let Outcome::Columns(contests) = &conflict.outcome {
        let names = |incoming| {
            let won = contests.iter().filter(|contest| contest.incoming_wins == incoming);
            won.flat_map(|contest| names(table, contest)).collect::<Vec<_>>()
        };
        entry["columns"] = json!({ "incoming": names(true), "existing": names(false) });
    }
    entry["table"] = table.full_name().to_string().into();
    entry["key"] = row.map_or(Json::Null, |row| key(table, row));
    entry
}

/// What every entry says, with the tables of the incoming and the existing row.
fn told(
    conflict: &Conflict,
    (incoming, existing): (&Table, &Table),
    region: RegionId,
    at_us: u64,
) -> Json {
    json!({
        "at_us": at_us,
        "region": region.get(),
        "kind": conflict.kind.name(),
        "policy": conflict.policy,
        "winner": conflict.outcome.name(),
        "why": why(conflict),
        "incoming": side(incoming, &conflict.incoming),
        "existing": match conflict.kind {
            ConflictKind::RowMissing => Json::Null,
            ConflictKind::Row { .. } | ConflictKind::UniqueKey | ConflictKind::ForeignKey => {
                side(existing, &conflict.existing)
            }
        },
    })
}

/// The entry of a row that references one that is gone: it is the child's, and names the
/// parent by what the child references.
fn orphaned(conflict: &Conflict, orphan: &Orphan, region: RegionId, at_us: u64) -> Json {
    let (child, parent) = (&orphan.child_table, orphan.parent_table.as_ref());
    // What is known of a parent without its table is that it was deleted.
    let (incoming, existing) = match orphan.child_came {
        true => (child, parent.unwrap_or(child)),
        false => (parent.unwrap_or(child), child),
    };
    let foreign = &orphan.key;
    let values = foreign.columns.iter().zip(&foreign.referenced).filter_map(|(&at, name)| {
        let at = usize::try_from(at).ok()?;
        Some((name.clone(), value(child.columns.get(at)?, orphan.child.values.get(at)?)))
    });
    let mut entry = told(conflict, (incoming, existing), region, at_us);
    entry["table"] = child.full_name().to_string().into();
    entry["key"] = key(child, &orphan.child);
    entry["parent"] = json!({
        "table": format!("{}.{}", foreign.schema, foreign.table),
        "key": Json::Object(values.collect()),
        "side": if orphan.child_came { "existing" } else { "incoming" },
    });
    entry
}

fn why(conflict: &Conflict) -> String {
    if let Some(orphan) = &conflict.orphan {
        let (came, here) = (&conflict.incoming.version, &conflict.existing.version);
        let (child, parent) = if orphan.child_came { (came, here) } else { (here, came) };
        let (child, parent) = (child.dot.origin, parent.dot.origin);
        let (schema, table) = (&orphan.key.schema, &orphan.key.table);
        return format!(
            "region {child}'s row references one of {schema}.{table} that region {parent} took away"
        );
    }
    if conflict.kind == ConflictKind::RowMissing {
        let author = conflict.incoming.version.dot.origin;
        return format!(
            "region {author} had the row, which is not here: something took it away outside \
             the binlog, or it never came"
        );
    }
    let claim =
        if conflict.kind == ConflictKind::UniqueKey { ", for one unique value" } else { "" };
    match &conflict.outcome {
        Outcome::Incoming => reason(conflict, conflict.policy, true) + claim,
        Outcome::Existing => reason(conflict, conflict.policy, false) + claim,
        Outcome::Both => {
            let (came, here) = (&conflict.incoming.version, &conflict.existing.version);
            let (came, here) = (came.dot.origin, here.dot.origin);
            format!("regions {came} and {here} changed different columns, or sums")
        }
        Outcome::Columns(contests) => {
            let each = contests.iter().map(|contest| {
                let why = reason(conflict, contest.policy, contest.incoming_wins);
                format!("{}: {why}", names(&conflict.table, contest).join(", "))
            });
            each.collect::<Vec<_>>().join("; ")
        }
    }
}

/// The names of the columns.
fn names<'a>(table: &'a Table, contest: &Contest) -> Vec<&'a str> {
    let columns = contest.columns.iter().filter_map(|&at| table.columns.get(at));
    columns.map(|column| column.name.as_str()).collect()
}

/// Why one of the two writes stands before the other.
fn reason(conflict: &Conflict, policy: &str, incoming_wins: bool) -> String {
    let (winner, loser) = match incoming_wins {
        true => (&conflict.incoming.version, &conflict.existing.version),
        false => (&conflict.existing.version, &conflict.incoming.version),
    };
    let (w, l) = (winner.dot.origin, loser.dot.origin);
    match policy {
        "region_priority" => format!("region {w} stands before region {l}"),
        "timestamp_column" => format!("region {w}'s row has the later time"),
        _ if winner.hlc == loser.hlc => {
            format!("equal stamps, and region {w} is the higher of {w} and {l}")
        }
        _ => format!("region {w}'s stamp {} is later than region {l}'s {}", winner.hlc, loser.hlc),
    }
}

fn side(table: &Table, side: &Side) -> Json {
    let image = |row: &Option<Row>| row.as_ref().map_or(Json::Null, |row| image(table, row));
    json!({
        "origin": side.version.dot.origin.get(),
        "seq": side.version.dot.seq.0,
        "hlc": side.version.hlc.0,
        "action": side.version.action.name(),
        "gtid": side.gtid,
        "before": image(&side.before),
        "after": image(&side.after),
    })
}

pub(super) fn key(table: &Table, row: &Row) -> Json {
    let columns = table.key_columns().into_iter();
    Json::Object(
        columns
            .filter_map(|at| {
                let (column, held) = (table.columns.get(at)?, row.values.get(at)?);
                Some((column.name.clone(), value(column, held)))
            })
            .collect(),
    )
}

/// A row by the names of its columns.
pub(super) fn image(table: &Table, row: &Row) -> Json {
    let pairs = table.columns.iter().zip(&row.values);
    Json::Object(pairs.map(|(column, held)| (column.name.clone(), value(column, held))).collect())
}

/// Numbers and texts as they are; bytes that are no UTF-8 text as `{"hex": "…"}`.
fn value(column: &Column, value: &Value) -> Json {
    let label = |n: usize| column.labels.get(n).map(|label| utf8(label));
    match &value.kind {
        None => Json::Null,
        Some(Kind::Int(n)) => json!(n),
        Some(Kind::Uint(n)) if column.r#type() == ColumnType::Enum => usize::try_from(*n)
            .ok()
            .and_then(|n| label(n.checked_sub(1)?))
            .unwrap_or_else(|| json!("")),
        Some(Kind::Uint(n)) if column.r#type() == ColumnType::Set => {
            let set = (0..column.labels.len()).filter(|bit| n >> bit & 1 == 1);
            let names = set.filter_map(label).filter_map(|label| label.as_str().map(str::to_owned));
            json!(names.collect::<Vec<_>>().join(","))
        }
        Some(Kind::Uint(n)) => json!(n),
        Some(Kind::Float(f)) => json!(f),
        Some(Kind::Double(f)) => json!(f),
        Some(Kind::Literal(bytes)) => utf8(bytes),
        Some(Kind::Bytes(bytes)) => text(column, bytes),
    }
}

/// A column's bytes as text, where that is exact.
#[must_use]
pub fn text(column: &Column, bytes: &[u8]) -> Json {
    use ColumnType::{Binary, Blob, Char, Geometry, Text, Uuid};
    let kind = column.r#type();
    let foreign = !column.collation.starts_with("utf8") && !bytes.is_ascii();
    if matches!(kind, Binary | Blob | Geometry | Uuid) || matches!(kind, Char | Text) && foreign {
        return hex(bytes);
    }
    utf8(bytes)
}

/// Bytes as text, where they are UTF-8.
#[must_use]
pub fn utf8(bytes: &[u8]) -> Json {
    std::str::from_utf8(bytes).map_or_else(|_| hex(bytes), |text| json!(text))
}

fn hex(bytes: &[u8]) -> Json {
    Json::Object(Map::from_iter([("hex".to_owned(), json!(digits(bytes)))]))
}

pub(super) fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(r#type: ColumnType, labels: &[&str]) -> Column {
        let collation = "utf8mb4_bin".to_owned();
        let labels = labels.iter().map(|label| (*label).to_owned().into()).collect();
        Column { name: "c".into(), r#type: r#type.into(), labels, collation, ..Default::default() }
    }

    #[track_caller]
    fn check(column: &Column, kind: Kind, wanted: Json) {
        assert_eq!(value(column, &Value::new(kind)), wanted);
    }

    #[test]
    fn values_are_what_people_read() {
        check(&column(ColumnType::Enum, &["a", "b"]), Kind::Uint(2), json!("b"));
        check(&column(ColumnType::Enum, &["a"]), Kind::Uint(0), json!(""));
        check(&column(ColumnType::Set, &["a", "b", "c"]), Kind::Uint(5), json!("a,c"));
        check(&column(ColumnType::Char, &[]), Kind::Bytes("é".into()), json!("é"));
        check(&column(ColumnType::Char, &[]), Kind::Bytes(vec![0xe9].into()), json!({"hex": "e9"}));
        check(&column(ColumnType::Blob, &[]), Kind::Bytes("a".into()), json!({"hex": "61"}));
    }
}
