use std::collections::BTreeMap;
use std::sync::Arc;

use crate::change::{
    Column, Dot, Kind, RegionId, Row, RowChange, Seq, Table, TableChange, Value, Vector,
};
use crate::clock::Hlc;
use crate::resolve::{
    ColumnGroup, Contest, Incoming, Merge, Order, Outcome, Plan, PlanError, Planner, Policy,
    Rulebook,
};
use crate::version::Index;

const A: usize = 1;
const B: usize = 2;
const N: usize = 3;

/// Of columns that were added.
const DEFAULT: i64 = 50;

/// `a` by priority, region 1 before 2 before 3; `b` by stamp; `n` adds up, and the server
/// works `twice` out from it.
fn book() -> Rulebook {
    let priority = [1, 2, 3].map(|id| RegionId::new(id).unwrap());
    let groups = vec![ColumnGroup { columns: vec![A], order: Order::Priority(priority.into()) }];
    let merge = Merge { deltas: vec![N], groups };
    Rulebook::new(move |_| Policy { merge: Some(merge.clone()), ..Policy::default() })
}

/// With one column more, of that name, where there is one.
fn table(more: Option<&str>) -> Table {
    let column = |name: &str, key| Column { name: name.into(), key, ..Column::default() };
    let mut columns = vec![column("id", 1), column("a", 0), column("b", 0), column("n", 0)];
    columns.push(Column { generated: true, ..column("twice", 0) });
    let default_value = Some(Value::new(Kind::Int(DEFAULT)));
    columns.extend(more.map(|name| Column { default_value, ..column(name, 0) }));
    Table { schema: "s".into(), name: "t".into(), columns, ..Table::default() }
}

/// The row 1 with these values of `a`, `b` and `n`.
type Image = Option<[i64; 3]>;

const BASE: Image = Some([0, 0, 0]);

/// What region `.0` wrote at time `.1`, having seen nothing of the others; an insert, all of
/// the regions before it.
type Txn = (u8, u64, Image, Image);

fn add(planner: &mut Planner<'_>, txn: Txn) {
    add_to(planner, txn, None).unwrap();
}

/// The same of a table with a column more, that has the default before and this value after.
fn add_to(
    planner: &mut Planner<'_>,
    (region, at, before, after): Txn,
    more: Option<(&str, i64)>,
) -> Result<(), PlanError> {
    let row = |[a, b, n]: [i64; 3], more: Option<i64>| {
        let values = [1, a, b, n, 2 * n].into_iter().chain(more);
        Row { values: values.map(|n| Value::new(Kind::Int(n))).collect() }
    };
    let insert = before.is_none();
    let before = before.map(|values| row(values, more.map(|_| DEFAULT)));
    let after = after.map(|values| row(values, more.map(|(_, value)| value)));
    let table = Arc::new(table(more.map(|(name, _)| name)));
    let changes = [TableChange { table, rows: vec![RowChange { before, after }] }];
    let dot = Dot { origin: RegionId::new(region).unwrap(), seq: Seq(1) };
    // Who puts a row there has seen all before.
    let seen = (1..region).map(|id| Dot { origin: RegionId::new(id).unwrap(), seq: Seq(1) });
    let deps = seen.filter(|_| insert).collect::<Vector>();
    planner.add(&Incoming { dot, hlc: Hlc(at), deps: &Arc::new(deps), gtid: "", changes: &changes })
}

/// The plan of the last, where the others are known.
fn plan(known: &[Txn], last: Txn) -> Plan {
    let (mut index, empty, book) = (Index::default(), Index::default(), book());
    let mut planner = Planner::new(&empty, &book);
    for &txn in known {
        add(&mut planner, txn);
    }
    for write in planner.finish().writes {
        index.enter_local(&write);
    }
    let mut planner = Planner::new(&index, &book);
    add(&mut planner, last);
    planner.finish()
}

/// What the last is said to have met: each other's region, and who stands.
#[track_caller]
fn check(known: &[Txn], last: Txn, wanted: &[(u8, Outcome)]) {
    let conflicts = plan(known, last).conflicts.into_iter();
    let met = conflicts.map(|met| (met.existing.version.dot.origin.get(), met.outcome));
    assert_eq!(met.collect::<Vec<_>>(), wanted);
}

fn contest(columns: &[usize], policy: &'static str, incoming_wins: bool) -> Contest {
    Contest { columns: columns.to_vec(), policy, incoming_wins }
}

#[test]
fn columns_go_to_whom_their_own_order_prefers() {
    let known = [(1, 10, BASE, Some([1, 0, 0]))];
    let later = contest(&[A], "region_priority", false);
    check(&known, (2, 20, BASE, Some([2, 0, 0])), &[(1, Outcome::Columns(vec![later.clone()]))]);
    let known = [(1, 10, BASE, Some([1, 1, 0]))];
    let both = vec![later, contest(&[B], "latest", true)];
    let outcome = Outcome::Columns(both);
    assert_eq!(outcome.name(), "both");
    check(&known, (2, 20, BASE, Some([2, 2, 0])), &[(1, outcome)]);
}

#[test]
fn each_write_that_holds_columns_is_met() {
    let known = [(1, 10, BASE, Some([1, 0, 0])), (2, 30, BASE, Some([0, 2, 0]))];
    let a = Outcome::Columns(vec![contest(&[A], "region_priority", false)]);
    let b = Outcome::Columns(vec![contest(&[B], "latest", false)]);
    check(&known, (3, 20, BASE, Some([3, 3, 0])), &[(1, a.clone()), (2, b)]);
    check(&known, (3, 20, BASE, Some([3, 0, 0])), &[(1, a)]);
    check(&known, (3, 20, BASE, Some([0, 0, 3])), &[(2, Outcome::Both)]);
}

#[test]
fn a_delete_takes_what_is_older_and_no_columns() {
    let known = [(1, 20, BASE, None), (2, 30, BASE, Some([0, 2, 0]))];
    check(&known, (3, 10, BASE, Some([3, 3, 0])), &[(1, Outcome::Existing)]);
    let b = Outcome::Columns(vec![contest(&[B], "latest", true)]);
    check(&known, (3, 40, BASE, Some([0, 3, 0])), &[(1, Outcome::Incoming), (2, b)]);
    check(&known, (3, 40, BASE, None), &[(2, Outcome::Incoming)]);
    // Region 2 had seen the row go.
    let known = [(1, 20, BASE, None), (2, 30, None, Some([0, 2, 0]))];
    let a = Outcome::Columns(vec![contest(&[A], "region_priority", false)]);
    check(&known, (3, 40, BASE, Some([3, 0, 0])), &[(2, a)]);
}

#[test]
fn what_the_server_works_out_is_nobodys() {
    let known = [(1, 10, BASE, Some([0, 1, 0]))];
    let sum = (2, 20, BASE, Some([0, 0, 5]));
    check(&known, sum, &[(1, Outcome::Both)]);
    let plan = plan(&known, sum);
    let merge = &plan.tables[0].merges[0];
    assert!(merge.set.is_empty(), "`b` keeps what region 1 wrote: {merge:?}");
    assert_eq!(merge.add.len(), 1);
}

/// What these two come to, the first being known when the second comes, or both in one
/// batch: the columns that are written to the row, by name.
fn set(first: (Txn, Option<(&str, i64)>), second: (Txn, Option<(&str, i64)>), batch: bool) -> Set {
    let (mut index, empty, book) = (Index::default(), Index::default(), book());
    if !batch {
        let mut planner = Planner::new(&empty, &book);
        add_to(&mut planner, first.0, first.1).unwrap();
        planner.finish().writes.iter().for_each(|write| index.enter_local(write));
    }
    let mut planner = Planner::new(&index, &book);
    if batch {
        add_to(&mut planner, first.0, first.1).unwrap();
    }
    add_to(&mut planner, second.0, second.1).unwrap();
    let plan = planner.finish();
    assert_eq!(plan.tables.len(), 1);
    let (table, merge) = (&plan.tables[0].table, &plan.tables[0].merges[0]);
    let named = |&at: &usize| match merge.row.values[at].kind {
        Some(Kind::Int(n)) => (table.columns[at].name.clone(), n),
        _ => panic!("{merge:?}"),
    };
    merge.set.iter().map(named).collect()
}

type Set = BTreeMap<String, i64>;

#[track_caller]
fn check_set(
    first: (Txn, Option<(&str, i64)>),
    second: (Txn, Option<(&str, i64)>),
    wanted: &[(&str, i64)],
) {
    let wanted: Set = wanted.iter().map(|&(name, n)| (name.to_owned(), n)).collect();
    for (one, two) in [(first, second), (second, first)] {
        assert_eq!(set(one, two, false), wanted, "{one:?} is known, {two:?} comes");
        assert_eq!(set(one, two, true), wanted, "{one:?} and {two:?} in a batch");
    }
}

#[test]
fn a_column_that_an_author_lacks_is_left_to_those_who_have_it() {
    let early = ((1, 10, BASE, Some([0, 1, 0])), Some(("x", 7)));
    check_set(early, ((2, 20, BASE, Some([0, 2, 0])), None), &[("b", 2), ("x", 7)]);
    let late = ((1, 30, BASE, Some([0, 1, 0])), Some(("x", 7)));
    check_set(late, ((2, 20, BASE, Some([0, 2, 0])), None), &[("b", 1), ("x", 7)]);
    // As many columns, and not the same.
    let other = ((2, 20, BASE, Some([0, 2, 0])), Some(("y", 9)));
    check_set(early, other, &[("b", 2), ("x", 7), ("y", 9)]);
}

#[test]
fn a_column_without_a_default_is_no_addition() {
    let (mut index, empty, book) = (Index::default(), Index::default(), book());
    let mut planner = Planner::new(&empty, &book);
    add(&mut planner, (1, 10, BASE, Some([1, 0, 0])));
    planner.finish().writes.iter().for_each(|write| index.enter_local(write));
    let mut planner = Planner::new(&index, &book);
    let mut wider = table(Some("x"));
    wider.columns[5].default_value = None;
    let row = |n| Row { values: [1, n, 0, 0, 0, 3].map(|n| Value::new(Kind::Int(n))).to_vec() };
    let rows = vec![RowChange { before: Some(row(0)), after: Some(row(2)) }];
    let changes = [TableChange { table: Arc::new(wider), rows }];
    let dot = Dot { origin: RegionId::new(2).unwrap(), seq: Seq(1) };
    let deps = Arc::new(Vector::default());
    let txn = Incoming { dot, hlc: Hlc(20), deps: &deps, gtid: "", changes: &changes };
    assert!(matches!(planner.add(&txn), Err(PlanError::Shape(_))));
}

#[test]
fn a_row_with_more_columns_is_told_with_those_of_the_row_that_came() {
    let (mut index, empty, book) = (Index::default(), Index::default(), book());
    let mut planner = Planner::new(&empty, &book);
    add_to(&mut planner, (1, 10, BASE, Some([0, 1, 0])), Some(("x", 7))).unwrap();
    planner.finish().writes.iter().for_each(|write| index.enter_local(write));
    let mut planner = Planner::new(&index, &book);
    add(&mut planner, (2, 20, BASE, Some([0, 2, 0])));
    let told = planner.finish().conflicts.remove(0);
    let values = [1, 0, 1, 0, 0].map(|n| Value::new(Kind::Int(n)));
    assert_eq!(told.existing.after.unwrap().values, values);
}
