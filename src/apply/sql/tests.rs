use super::*;
use crate::change::{Column, Table};
use crate::resolve::Found;

#[track_caller]
fn check(form: &Form, kind: Kind, expected: &[u8]) {
    let mut out = Vec::new();
    value(&mut out, form, &Value::new(kind));
    assert_eq!(out, expected);
}

#[test]
fn literals_keep_every_byte() {
    check(&Form::Plain, Kind::Bytes(b"it's \\ \0\xff".to_vec().into()), b"'it\\'s \\\\ \\0\xff'");
    check(&Form::Charset("latin1".into()), Kind::Bytes(b"\xe9".to_vec().into()), b"_latin1'\xe9'");
    check(&Form::Plain, Kind::Uint(u64::MAX), b"18446744073709551615");
    check(&Form::Plain, Kind::Float(0.1), b"1.0000000149011612e-1");
    check(&Form::Plain, Kind::Double(-0.0), b"-0e0");
}

#[test]
fn only_what_is_a_number_is_written_bare() {
    check(&Form::Number, Kind::Literal(b"-12.50".to_vec().into()), b"-12.50");
    check(&Form::Number, Kind::Literal(b"1);DROP".to_vec().into()), b"'1);DROP'");
    check(&Form::Number, Kind::Literal(b"--1".to_vec().into()), b"'--1'");
    check(&Form::Plain, Kind::Literal(b"2024-01-01".to_vec().into()), b"'2024-01-01'");
}

/// Of integers: the first so many columns are the key.
fn table_of(key: u32, columns: &[&str]) -> Table {
    let column = |(name, n): (&&str, u32)| {
        let key = if n <= key { n } else { 0 };
        Column { name: (*name).into(), key, ..Column::default() }
    };
    let columns = columns.iter().zip(1..).map(column).collect();
    Table { schema: "s".into(), name: "t".into(), columns, ..Table::default() }
}

fn row(values: &[i64]) -> Row {
    Row { values: values.iter().map(|&n| Value::new(Kind::Int(n))).collect() }
}

/// Each statement and what is expected of it.
fn written(plan: &TablePlan, unique: bool) -> Vec<(String, Expects)> {
    let dialect = Dialect { flavor: Flavor::MariaDb, statement_bytes_max: 1 << 20 };
    let (mapping, mut out) = (Mapping::same(&plan.table, unique), Script::default());
    assert!(!Statements::new(dialect, &mapping, plan).fill(&mut out, usize::MAX));
    let mut from = 0;
    let texts = out.statements.iter().map(|statement| {
        let text = &out.text[std::mem::replace(&mut from, statement.end)..statement.end];
        (String::from_utf8(text.to_vec()).unwrap(), statement.expects)
    });
    texts.collect()
}

#[test]
fn a_plan_is_statements_in_their_order() {
    let merge = |values: &[i64], set: &[usize]| MergeRow {
        row: row(values),
        insert: false,
        set: set.to_vec(),
        add: Vec::new(),
    };
    let plan = TablePlan {
        removes: vec![row(&[1, 2, 0]), row(&[3, 4, 0])],
        puts: vec![row(&[5, 6, 7]), row(&[8, 9, 10])],
        merges: vec![merge(&[11, 12, 13], &[2]), merge(&[14, 15, 16], &[])],
        found: Found { removes: 1, puts: 1, merges: 1 },
        ..TablePlan::new(table_of(2, &["a", "b", "c"]))
    };
    let delete = "DELETE FROM `t` USING `t` FORCE INDEX (PRIMARY) WHERE ";
    let insert = "INSERT INTO `t`(`a`,`b`,`c`)VALUES";
    let update = " ON DUPLICATE KEY UPDATE `c`=VALUES(`c`);";
    let expected = [
        (format!("{delete}(`a`=1 AND `b`=2);"), Expects::Deletes(1)),
        (format!("{delete}(`a`=3 AND `b`=4);"), Expects::Nothing),
        (format!("{insert}(5,6,7){update}"), Expects::NoInsert),
        (format!("{insert}(8,9,10){update}"), Expects::Nothing),
        (format!("{insert}(11,12,13)ON DUPLICATE KEY UPDATE `c`=13;"), Expects::NoInsert),
    ];
    assert_eq!(written(&plan, false), expected);
    let anew = TablePlan { removes: Vec::new(), merges: Vec::new(), ..plan };
    let anew = TablePlan { found: Found { removes: 0, merges: 0, ..anew.found }, ..anew };
    let expected = [
        (format!("{delete}(`a`=5 AND `b`=6);"), Expects::Deletes(1)),
        (format!("{delete}(`a`=8 AND `b`=9);"), Expects::Nothing),
        (format!("{insert}(5,6,7),(8,9,10);"), Expects::Nothing),
    ];
    assert_eq!(written(&anew, true), expected);
}

#[test]
fn many_rows_are_several_statements() {
    for (key, statements) in [(1, vec![500, 500, 1]), (2, vec![200, 200, 200, 200, 200, 1])] {
        let removes: Vec<Row> = (0..1_001).map(|n| row(&[n, n])).collect();
        let found = Found { removes: removes.len(), puts: 0, merges: 0 };
        let plan = TablePlan { removes, found, ..TablePlan::new(table_of(key, &["a", "b"])) };
        let expects = written(&plan, false).into_iter().map(|(_, expects)| expects);
        let wanted = statements.into_iter().map(Expects::Deletes);
        assert!(expects.eq(wanted), "a key of {key} columns");
    }
}

/// However large a plan is, no more is there than is asked for, and a statement.
#[test]
fn a_large_plan_is_written_by_and_by() {
    const STATEMENT: usize = 1 << 20;
    const BYTES: usize = 4 * STATEMENT;
    let table = table_of(1, &["id", "c"]);
    let wide: Value = Value::new(Kind::Bytes(vec![b'x'; 100_000].into()));
    let row = |id| Row { values: vec![Value::new(Kind::Int(id)), wide.clone()] };
    let plan = TablePlan { puts: (0..900).map(row).collect(), ..TablePlan::new(table.clone()) };
    let dialect = Dialect { flavor: Flavor::MariaDb, statement_bytes_max: STATEMENT };
    for (unique, expected) in [(false, 82), (true, 84)] {
        let mapping = Mapping::same(&table, unique);
        let mut left = Statements::new(dialect, &mapping, &plan);
        let (mut out, mut written) = (Script::default(), 0);
        while left.fill(&mut out, BYTES) {
            assert!((BYTES..BYTES + STATEMENT + 200_000).contains(&out.text.len()));
            written += out.statements.len();
            out.clear();
        }
        assert!(out.text.len() < BYTES);
        assert_eq!(written + out.statements.len(), expected);
    }
}
