use std::sync::Arc;

use crate::change::{
    Column, Dot, Kind, RegionId, Row, RowChange, Seq, Table, TableChange, Value, Vector,
};
use crate::clock::Hlc;
use crate::resolve::{
    ColumnGroup, Contest, Incoming, Merge, Order, Outcome, Plan, Planner, Policy, Rulebook,
};
use crate::version::Index;

const A: usize = 1;
const B: usize = 2;
const N: usize = 3;

/// `a` by priority, region 1 before 2 before 3; `b` by stamp; `n` adds up, and the server
/// works `twice` out from it.
fn book() -> Rulebook {
    let priority = [1, 2, 3].map(|id| RegionId::new(id).unwrap());
    let groups = vec![ColumnGroup { columns: vec![A], order: Order::Priority(priority.into()) }];
    let merge = Merge { deltas: vec![N], groups };
    Rulebook::new(move |_| Policy { merge: Some(merge.clone()), ..Policy::default() })
}

fn table() -> Table {
    let column = |name: &str, key| Column { name: name.into(), key, ..Column::default() };
    let mut columns = vec![column("id", 1), column("a", 0), column("b", 0), column("n", 0)];
    columns.push(Column { generated: true, ..column("twice", 0) });
    Table { schema: "s".into(), name: "t".into(), columns, ..Table::default() }
}

/// The row 1 with these values of `a`, `b` and `n`.
type Image = Option<[i64; 3]>;

const BASE: Image = Some([0, 0, 0]);

/// What region `.0` wrote at time `.1`, having seen nothing of the others.
type Txn = (u8, u64, Image, Image);

fn add(planner: &mut Planner<'_>, (region, at, before, after): Txn) {
    let row = |[a, b, n]: [i64; 3]| {
        let values = [1, a, b, n, 2 * n].map(|n| Value::new(Kind::Int(n)));
        Row { values: values.to_vec() }
    };
    let rows = vec![RowChange { before: before.map(row), after: after.map(row) }];
    let changes = [TableChange { table: Some(table()), rows }];
    let dot = Dot { origin: RegionId::new(region).unwrap(), seq: Seq(1) };
    let deps = Arc::new(Vector::default());
    planner.add(&Incoming { dot, hlc: Hlc(at), deps: &deps, gtid: "", changes: &changes }).unwrap();
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
