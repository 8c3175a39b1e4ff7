use super::*;
use crate::change::pb::UniqueKey;
use crate::change::{Column, Kind, Row, RowChange, Seq, TableChange, Value, Vector};
use crate::clock::Hlc;
use crate::resolve::{ColumnGroup, Earlier, Incoming, Merge, Parts, Plan, Rulebook};
use crate::version::Index;

type Rows = Vec<(Option<Row>, Option<Row>)>;

fn dot(origin: u8, seq: u64) -> Dot {
    Dot { origin: crate::change::RegionId::new(origin).unwrap(), seq: Seq(seq) }
}

fn row(id: i64, to: Option<i64>) -> Row {
    let to = to.map_or(Value::NULL, |n| Value::new(Kind::Int(n)));
    Row { values: vec![Value::new(Kind::Int(id)), to] }
}

fn change(name: &str, rows: Rows) -> TableChange {
    let column = |name: &str, key| Column { name: name.into(), key, ..Column::default() };
    let table = Table {
        schema: "s".into(),
        name: name.into(),
        columns: vec![column("id", 1), column("to", 0)],
        unique_keys: vec![],
        foreign_keys: if name == "child" { vec![ForeignKey::to("parent", 1)] } else { vec![] },
    };
    let rows = rows.into_iter().map(|(before, after)| RowChange { before, after });
    TableChange { table: Arc::new(table), rows: rows.collect() }
}

fn parent(before: bool, after: bool) -> Vec<TableChange> {
    let of = |there: bool| there.then(|| row(7, None));
    vec![change("parent", vec![(of(before), of(after))])]
}

fn child(to: Option<i64>) -> Vec<TableChange> {
    vec![change("child", vec![(None, Some(row(1, to)))])]
}

fn plan(index: &Index, name: Dot, deps: &[Dot], changes: &[TableChange]) -> Plan {
    plan_by(&Rulebook::default(), index, (name, deps), changes)
}

fn plan_by(
    book: &Rulebook,
    index: &Index,
    (name, deps): (Dot, &[Dot]),
    changes: &[TableChange],
) -> Plan {
    let deps = Arc::new(deps.iter().copied().collect());
    let mut planner = Planner::new(index, book);
    let hlc = Hlc(name.seq.0);
    planner.add(&Incoming { dot: name, hlc, deps: &deps, gtid: "", changes }).unwrap();
    planner.finish()
}

fn enter(index: &mut Index, seq: u64, changes: &[TableChange]) {
    for write in plan(&Index::default(), dot(1, seq), &[], changes).writes {
        index.enter_local(&write);
    }
}

/// What is told when the first is here and the second comes, having seen it or not.
#[track_caller]
fn check(first: &[TableChange], second: &[TableChange], wanted: usize) {
    let mut index = Index::default();
    enter(&mut index, 1, first);
    assert_eq!(plan(&index, dot(2, 1), &[], second).conflicts.len(), wanted);
    assert!(plan(&index, dot(2, 1), &[dot(1, 1)], second).conflicts.is_empty(), "it was seen");
    index.collect(&[dot(1, 1)].into_iter().collect::<Vector>());
    assert!(index.is_empty(), "it is forgotten");
}

#[test]
fn the_pair_is_told_whichever_comes_first() {
    check(&parent(true, false), &child(Some(7)), 1);
    check(&child(Some(7)), &parent(true, false), 1);
    for (parent, child) in [
        (parent(true, true), child(Some(7))),
        (parent(true, false), child(Some(8))),
        (parent(true, false), child(None)),
        // Deleted and put back by one transaction.
        ([parent(true, false), parent(false, true)].concat(), child(Some(7))),
        // Written twice by one transaction.
        (
            parent(true, false),
            [
                child(Some(7)),
                vec![change("child", vec![(Some(row(1, Some(7))), Some(row(1, Some(8))))])],
            ]
            .concat(),
        ),
    ] {
        check(&parent, &child, 0);
        check(&child, &parent, 0);
    }
}

#[test]
fn of_two_references_to_one_row_both_are_told() {
    let mut child = child(Some(7));
    let table = Arc::make_mut(&mut child[0].table);
    table.columns.push(Column { name: "also".into(), ..Column::default() });
    let also = ForeignKey { columns: vec![2], ..table.foreign_keys[0].clone() };
    table.foreign_keys.push(also);
    let row = child[0].rows[0].after.as_mut().unwrap();
    row.values.push(Value::new(Kind::Int(7)));
    check(&parent(true, false), &child, 2);
    check(&child, &parent(true, false), 2);
}

/// Row 1 of a parent with a unique column, which children reference.
fn coded(before: Option<i64>, after: Option<i64>) -> Vec<TableChange> {
    let of = |code: Option<i64>| code.map(|code| row(1, Some(code)));
    let mut change = change("parent", vec![(of(before), of(after))]);
    Arc::make_mut(&mut change.table).unique_keys = vec![UniqueKey { columns: vec![1] }];
    vec![change]
}

#[test]
fn a_value_let_go_is_gone_after_later_writes_of_its_row() {
    let mut child = child(Some(5));
    let key = &mut Arc::make_mut(&mut child[0].table).foreign_keys[0];
    (key.referenced, key.unique) = (vec!["to".into()], true);
    for (second, wanted) in [
        (coded(Some(6), Some(6)), 1),
        (coded(Some(6), Some(8)), 1),
        (coded(Some(6), None), 1),
        (coded(Some(6), Some(5)), 0),
    ] {
        let mut index = Index::default();
        enter(&mut index, 1, &coded(Some(5), Some(6)));
        enter(&mut index, 2, &second);
        assert_eq!(plan(&index, dot(2, 1), &[], &child).conflicts.len(), wanted);
    }
}

/// A region makes a child of a parent and then, at stamp 5, one of parent 7; another makes it
/// one of parent 8. What is told of the second write when parent 7 goes, in either order.
#[track_caller]
fn check_columns(from: i64, theirs: u64, wanted: usize) {
    let book = Rulebook::new(|table| {
        let merges = table.name == "child";
        Policy { merge: merges.then(Merge::default), ..Policy::default() }
    });
    let moved =
        |from, to| vec![change("child", vec![(Some(row(1, Some(from))), Some(row(1, Some(to))))])];
    let (mine, end) = ((dot(1, 5), &[][..]), (dot(2, 1), &[][..]));
    let (second, gone) = (moved(from, 7), parent(true, false));
    for [first, last] in [[(mine, &second), (end, &gone)], [(end, &gone), (mine, &second)]] {
        let mut index = Index::default();
        for (name, changes) in [
            ((dot(1, 1), &[][..]), &child(Some(from))),
            ((dot(3, theirs), &[dot(1, 1)][..]), &moved(from, 8)),
            first,
        ] {
            for write in plan_by(&book, &Index::default(), name, changes).writes {
                index.enter_local(&write);
            }
        }
        let told = plan_by(&book, &index, last.0, last.1).conflicts;
        assert_eq!(told.iter().filter(|told| told.orphan.is_some()).count(), wanted);
    }
}

#[test]
fn of_columns_resolved_apart_a_write_that_lost_them_references_nothing() {
    check_columns(6, 4, 1);
    check_columns(6, 9, 0);
}

/// A delete between the two may be yet to come.
#[test]
fn of_columns_resolved_apart_what_an_earlier_write_left_is_not_settled() {
    check_columns(7, 4, 1);
    check_columns(7, 9, 0);
}

/// Row 1 of a child with one more column, resolved apart: 3 makes it a child of nobody, and of
/// two writes that meet in this column 3's stands. 1 makes it a child of 7, and then writes
/// its other column and, perhaps, this one too. 3 deletes what it wrote: what 1 wrote is later.
/// Parent 7 goes in 2. How often that is told.
#[track_caller]
fn check_older_write(second: Option<i64>, wanted: usize) {
    let book = Rulebook::new(|table| {
        let order = Order::Priority(vec![dot(3, 1).origin]);
        let groups = vec![ColumnGroup { columns: vec![1], order }];
        let merge = Merge { deltas: Vec::new(), groups };
        let merges = table.name == "child";
        Policy { merge: merges.then_some(merge), ..Policy::default() }
    });
    let wide = |before: Option<[Option<i64>; 2]>, after: Option<[Option<i64>; 2]>| {
        let of = |[to, n]: [Option<i64>; 2]| {
            let mut row = row(1, to);
            row.values.push(n.map_or(Value::NULL, |n| Value::new(Kind::Int(n))));
            row
        };
        let mut change = change("child", vec![(before.map(of), after.map(of))]);
        let n = Column { name: "n".into(), ..Column::default() };
        Arc::make_mut(&mut change.table).columns.push(n);
        vec![change]
    };
    let nobodys = [None, Some(1)];
    let writes = [
        ((dot(3, 2), &[][..]), wide(None, Some(nobodys))),
        ((dot(1, 5), &[][..]), wide(None, Some([Some(7), Some(1)]))),
        ((dot(1, 6), &[dot(3, 2)][..]), wide(Some(nobodys), Some([second, Some(2)]))),
        ((dot(3, 4), &[dot(3, 2)][..]), wide(Some(nobodys), None)),
    ];
    let mut index = Index::default();
    for (name, changes) in &writes {
        for write in plan_by(&book, &Index::default(), *name, changes).writes {
            index.enter_local(&write);
        }
    }
    let end = (dot(2, 1), &[][..]);
    let told = plan_by(&book, &index, end, &parent(true, false)).conflicts;
    assert_eq!(told.len(), wanted, "{told:#?}");
}

#[test]
fn of_columns_resolved_apart_a_write_shows_in_what_later_ones_left_alone() {
    check_older_write(None, 1);
    check_older_write(Some(7), 1);
    check_older_write(Some(8), 0);
}

/// A transaction that comes in these parts, when `here` has happened: what is told.
#[track_caller]
fn check_parts(here: &[TableChange], parts: &[Vec<TableChange>], wanted: usize) {
    let mut index = Index::default();
    enter(&mut index, 1, here);
    let (book, deps) = (Rulebook::default(), Arc::default());
    let (mut earlier, mut whole) = (Earlier::default(), Plan::default());
    for (n, changes) in parts.iter().enumerate() {
        let mut planner = Planner::new(&index, &book).part(&earlier, n + 1 == parts.len());
        let (dot, hlc) = (dot(2, 1), Hlc(2));
        planner.add(&Incoming { dot, hlc, deps: &deps, gtid: "", changes }).unwrap();
        let mut part = planner.finish();
        earlier.take(&mut part);
        whole.join(part);
    }
    let told = whole.conflicts.iter().filter(|met| met.orphan.is_some());
    assert_eq!(told.count(), wanted);
}

#[test]
fn what_parts_leave_is_told_once_all_of_them_are_known() {
    let child_is = |from: Option<i64>, to| {
        let before = from.map(|from| row(1, Some(from)));
        vec![change("child", vec![(before, Some(row(1, Some(to))))])]
    };
    let other = vec![change("parent", vec![(None, Some(row(9, None)))])];
    let end = parent(true, false);
    check_parts(&child(Some(7)), &[end.clone(), other.clone()], 1);
    check_parts(&child(Some(7)), &[end.clone(), child_is(None, 9)], 0);
    check_parts(&child(Some(7)), &[end.clone(), other.clone(), parent(false, true)], 0);
    check_parts(&end, &[child(Some(7)), other.clone()], 1);
    check_parts(&end, &[child(Some(7)), child_is(Some(7), 9)], 0);
    check_parts(&end, &[child(Some(7)), other, parent(false, true)], 0);
    check_parts(&end, &[child(Some(7)), child_is(Some(7), 7)], 1);
}

/// Of a row that several parts wrote the reference of the last one counts.
#[test]
fn a_reference_that_a_later_part_changed_is_none() {
    let moved = change("child", vec![(Some(row(1, Some(7))), Some(row(1, Some(8))))]);
    let parts = [child(Some(7)), vec![moved]];
    let writes = parts.iter().flat_map(|part| plan(&Index::default(), dot(1, 1), &[], part).writes);
    let mut writes: Vec<Write> = writes.collect();
    Parts::settle(&mut writes);
    let mut index = Index::default();
    writes.iter().for_each(|write| index.enter_local(write));
    assert!(plan(&index, dot(2, 1), &[], &parent(true, false)).conflicts.is_empty());
    let mut eight = parent(true, false);
    eight[0].rows[0].before = Some(row(8, None));
    assert_eq!(plan(&index, dot(2, 1), &[], &eight).conflicts.len(), 1);
}

#[test]
fn a_child_or_an_end_under_the_batch_makes_the_plan_stale_and_an_update_does_not() {
    let stale = |changes: &[TableChange], local: &[TableChange]| {
        let mut index = Index::default();
        let plan = plan(&index, dot(2, 1), &[], changes);
        index.stage(BatchId(1), vec![dot(2, 1)], plan.writes.clone());
        enter(&mut index, 1, local);
        plan.is_stale(&index, BatchId(1))
    };
    assert!(stale(&child(Some(7)), &parent(true, false)));
    assert!(!stale(&child(Some(7)), &parent(true, true)));
    assert!(stale(&parent(true, false), &child(Some(7))));
    assert!(!stale(&parent(true, false), &child(Some(8))));
    assert!(!stale(&child(Some(7)), &[change("child", vec![(None, Some(row(2, Some(7))))])]));
}
