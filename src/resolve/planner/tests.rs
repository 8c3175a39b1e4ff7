use super::*;
use crate::change::{Column, Kind, RegionId, Row, RowChange, Seq, TableChange, Value, Vector};
use crate::clock::Hlc;
use crate::resolve::{ConflictKind, Merge, Number, Outcome, Parts, Policy};
use crate::version::{Action, BatchId};

fn dot(origin: u8, seq: u64) -> Dot {
    Dot { origin: RegionId::new(origin).unwrap(), seq: Seq(seq) }
}

fn row(id: i64, v: i64) -> Row {
    Row { values: vec![Value::new(Kind::Int(id)), Value::new(Kind::Int(v))] }
}

fn change(rows: Vec<(Option<Row>, Option<Row>)>) -> Vec<TableChange> {
    let column = |name: &str, key| Column { name: name.into(), key, ..Default::default() };
    let table = Table {
        schema: "s".into(),
        name: "t".into(),
        columns: vec![column("id", 1), column("v", 0)],
        ..Default::default()
    };
    let rows = rows.into_iter().map(|(before, after)| RowChange { before, after }).collect();
    vec![TableChange { table: Arc::new(table), rows }]
}

struct Txn(Dot, u64, Arc<Vector>, Vec<TableChange>);

impl Txn {
    fn new(name: Dot, hlc: u64, deps: &[Dot], rows: Vec<(Option<Row>, Option<Row>)>) -> Self {
        Self(name, hlc, Arc::new(deps.iter().copied().collect()), change(rows))
    }
}

fn plan(index: &Index, txns: &[Txn]) -> Plan {
    let book = Rulebook::default();
    let mut planner = Planner::new(index, &book);
    for Txn(dot, hlc, deps, changes) in txns {
        planner.add(&Incoming { dot: *dot, hlc: Hlc(*hlc), deps, gtid: "", changes }).unwrap();
    }
    planner.finish()
}

/// Enters these transactions as local writes.
fn enter(index: &mut Index, txns: &[Txn]) {
    for write in plan(&Index::default(), txns).writes {
        index.enter_local(&write);
    }
}

/// An index that holds these transactions as local writes.
fn index(txns: &[Txn]) -> Index {
    let mut index = Index::default();
    enter(&mut index, txns);
    index
}

/// Of the plan staged as batch 1, which is of row 1: a local write of that row puts it out
/// of date, one of another row does not.
fn check_stale_by_row_1_alone(plan: &Plan, index: &mut Index, next: u64) {
    enter(index, &[Txn::new(dot(1, next), 20, &[], vec![(None, Some(row(2, 7)))])]);
    assert!(!plan.is_stale(index, BatchId(1)));
    enter(index, &[Txn::new(dot(1, next + 1), 21, &[], vec![(None, Some(row(1, 8)))])]);
    assert!(plan.is_stale(index, BatchId(1)));
}

#[test]
fn writes_of_one_row_become_one_operation() {
    let txns = [
        Txn::new(dot(2, 1), 10, &[], vec![(None, Some(row(1, 1))), (None, Some(row(2, 1)))]),
        Txn::new(dot(2, 2), 11, &[], vec![(Some(row(1, 1)), Some(row(1, 2)))]),
        Txn::new(dot(2, 3), 12, &[], vec![(Some(row(2, 1)), None)]),
    ];
    let plan = plan(&Index::default(), &txns);
    assert_eq!(plan.tables.len(), 1);
    assert_eq!(plan.tables[0].puts, [row(1, 2)]);
    assert_eq!(plan.tables[0].removes, [row(2, 1)]);
    assert!(plan.conflicts.is_empty());
}

/// Twice in one transaction: nobody sees what stood between.
#[test]
fn what_a_transaction_does_to_a_row_is_one_write() {
    let local = index(&[Txn::new(dot(1, 1), 10, &[], vec![(None, Some(row(1, 5)))])]);
    let again = vec![(Some(row(1, 1)), None), (None, Some(row(1, 2)))];
    let second = plan(&local, &[Txn::new(dot(2, 1), 12, &[], again)]);
    let met: Vec<_> = second.conflicts.iter().map(|met| (met.kind, &met.incoming)).collect();
    let [(ConflictKind::Row { incoming, .. }, side)] = met[..] else { panic!("{met:?}") };
    assert_eq!(
        (incoming, &side.before, &side.after),
        (Action::Update, &Some(row(1, 1)), &Some(row(1, 2)))
    );
    assert_eq!(second.tables[0].puts, [row(1, 2)]);
    let nothing = vec![(None, Some(row(1, 1))), (Some(row(1, 1)), None)];
    let none = plan(&local, &[Txn::new(dot(2, 1), 12, &[], nothing)]);
    assert!(none.conflicts.is_empty() && none.tables.is_empty() && none.writes.is_empty());
}

/// A sum that one part takes away and a later one puts back.
#[test]
fn what_parts_did_to_a_row_that_is_kept_is_one_write_of_it() {
    let merge = Merge { deltas: vec![1], groups: Vec::new() };
    let sums = Policy { merge: Some(merge), ..Policy::default() };
    let book = Rulebook::new(move |_| sums.clone());
    let rows =
        [(Some(row(1, 10)), Some(row(1, 13))), (Some(row(1, 13)), None), (None, Some(row(1, 15)))];
    let (mut parts, mut judged) = (Parts::default(), Vec::new());
    for (n, rows) in rows.into_iter().enumerate() {
        let changes = change(vec![rows]);
        judged.push(parts.take(&book, &changes, n == 2).unwrap().into_owned());
    }
    assert!(judged[0].is_empty() && judged[1].is_empty());
    let deps = Arc::new(Vector::default());
    let (hlc, changes) = (Hlc(11), &judged[2][..]);
    let txn = Incoming { dot: dot(2, 1), hlc, deps: &deps, gtid: "", changes };
    let index = Index::default();
    let mut planner = Planner::new(&index, &book);
    planner.add(&txn).unwrap();
    let plan = planner.finish();
    let add = &plan.tables[0].merges[0].add;
    assert_eq!(*add, [(1, Number::of(&Value::new(Kind::Int(5))).unwrap())]);
    let [write] = &plan.writes[..] else { panic!("{:?}", plan.writes) };
    let body = write.body.as_deref().unwrap();
    assert_eq!((&body.before, &body.after), (&Some(row(1, 10)), &Some(row(1, 15))));
}

/// Rows whose versions say all go with their part, until they change their keys; then they
/// are judged with all that did.
#[test]
fn rows_that_change_their_keys_wait_for_the_last_part() {
    let book = Rulebook::default();
    let (first, second) = ((Some(row(1, 1)), Some(row(2, 1))), (Some(row(2, 1)), Some(row(2, 5))));
    let plain = (Some(row(9, 1)), Some(row(9, 2)));
    let mut parts = Parts::default();
    let mut take = |rows: Vec<_>, last| {
        let changes = change(rows);
        let judged = parts.take(&book, &changes, last).unwrap();
        judged.iter().map(|change| change.rows.len()).collect::<Vec<_>>()
    };
    assert_eq!(take(vec![plain.clone(), plain.clone()], false), [2]);
    assert_eq!(take(vec![plain.clone(), first.clone()], false), [1]);
    assert_eq!(take(vec![second], false), [0; 0]);
    assert_eq!(take(vec![plain.clone()], true), [1, 2]);
    let mut parts = Parts::default();
    let whole = change(vec![first, plain]);
    assert!(matches!(parts.take(&book, &whole, true), Ok(std::borrow::Cow::Borrowed(_))));
}

/// Rows that are kept, that change their keys, and that lose with another transaction's: each
/// looked at with all of them would take minutes.
#[test]
fn a_transaction_of_many_rows_takes_time_by_its_rows() {
    const ROWS: i64 = 20_000;
    let start = std::time::Instant::now();
    let sums =
        Policy { merge: Some(Merge { deltas: vec![1], groups: Vec::new() }), ..Policy::default() };
    let atomic = Policy { atomic: Some(1), ..Policy::default() };
    let update =
        |by: i64| -> Vec<_> { (0..ROWS).map(|id| (Some(row(id, 1)), Some(row(id, by)))).collect() };
    let moved = (0..ROWS).map(|id| (Some(row(id, 1)), Some(row(id + ROWS, 1)))).collect();
    for (policy, rows) in [(sums, update(3)), (Policy::default(), moved), (atomic, update(4))] {
        let book = Rulebook::new(move |_| policy.clone());
        let mut index = Index::default();
        for (name, hlc, rows) in [(dot(1, 1), 10, rows.clone()), (dot(2, 1), 11, rows)] {
            let Txn(dot, hlc, deps, changes) = Txn::new(name, hlc, &[], rows);
            let mut planner = Planner::new(&index, &book);
            let hlc = Hlc(hlc);
            planner.add(&Incoming { dot, hlc, deps: &deps, gtid: "", changes: &changes }).unwrap();
            let plan = planner.finish();
            assert!(plan.rows() >= usize::try_from(ROWS).unwrap());
            plan.writes.iter().for_each(|write| index.enter_local(write));
        }
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn a_changed_key_is_a_delete_and_an_insert() {
    let txns = [Txn::new(dot(2, 1), 10, &[], vec![(Some(row(1, 1)), Some(row(9, 1)))])];
    let plan = plan(&Index::default(), &txns);
    assert_eq!(plan.tables[0].removes, [row(1, 1)]);
    assert_eq!(plan.tables[0].puts, [row(9, 1)]);
}

#[test]
fn later_commit_wins() {
    let local = index(&[Txn::new(dot(1, 1), 20, &[], vec![(None, Some(row(1, 5)))])]);
    let earlier = plan(&local, &[Txn::new(dot(2, 1), 10, &[], vec![(None, Some(row(1, 7)))])]);
    assert!(earlier.tables.is_empty());
    assert_eq!(earlier.conflicts[0].outcome, Outcome::Existing);
    let later = plan(&local, &[Txn::new(dot(2, 1), 30, &[], vec![(None, Some(row(1, 7)))])]);
    assert_eq!(later.tables[0].puts, [row(1, 7)]);
    assert_eq!(later.conflicts[0].outcome, Outcome::Incoming);
    assert_eq!(later.stands_on(RegionId::new(1).unwrap()), Some(Seq(1)));
}

/// The row that a write finds in the table is that of the last one that came, and not of
/// every one that it meets.
#[test]
fn what_was_overwritten_since_is_not_read_from_the_table() {
    let mut local = index(&[Txn::new(dot(1, 1), 10, &[], vec![(None, Some(row(1, 5)))])]);
    let first = plan(&local, &[Txn::new(dot(2, 1), 12, &[], vec![(None, Some(row(1, 7)))])]);
    assert!(first.conflicts[0].unread().is_some());
    local.stage(BatchId(1), vec![dot(2, 1)], first.writes.clone());
    let change = vec![(Some(row(1, 7)), Some(row(1, 8)))];
    let second = plan(&local, &[Txn::new(dot(2, 2), 14, &[dot(2, 1)], change)]);
    assert_eq!(second.conflicts[0].existing.version.dot, dot(1, 1));
    assert!(second.conflicts[0].unread().is_none(), "the table holds what 2.1 wrote");
}

#[test]
fn equal_stamps_are_settled_by_region() {
    let low = index(&[Txn::new(dot(1, 1), 20, &[], vec![(None, Some(row(1, 5)))])]);
    let high = plan(&low, &[Txn::new(dot(2, 1), 20, &[], vec![(None, Some(row(1, 7)))])]);
    assert_eq!(high.conflicts[0].outcome, Outcome::Incoming);
}

#[test]
fn a_delete_is_not_undone_by_an_earlier_update() {
    let local = index(&[Txn::new(dot(1, 1), 20, &[], vec![(Some(row(1, 5)), None)])]);
    let plan =
        plan(&local, &[Txn::new(dot(2, 1), 10, &[], vec![(Some(row(1, 5)), Some(row(1, 6)))])]);
    assert!(plan.tables.is_empty());
}

#[test]
fn a_write_that_had_seen_the_other_is_no_conflict() {
    let local = index(&[Txn::new(dot(1, 1), 20, &[], vec![(None, Some(row(1, 5)))])]);
    let txn = Txn::new(dot(2, 1), 30, &[dot(1, 1)], vec![(Some(row(1, 5)), Some(row(1, 6)))]);
    let plan = plan(&local, &[txn]);
    assert!(plan.conflicts.is_empty());
    assert_eq!(plan.tables[0].puts, [row(1, 6)]);
}

#[test]
fn a_local_write_under_the_batch_makes_the_plan_stale() {
    let mut index = Index::default();
    let txns = [Txn::new(dot(2, 1), 10, &[], vec![(None, Some(row(1, 7)))])];
    let first = plan(&index, &txns);
    index.stage(BatchId(1), vec![dot(2, 1)], first.writes.clone());
    check_stale_by_row_1_alone(&first, &mut index, 1);
}

/// What every region has applied is forgotten: that is no write under the batch.
#[test]
fn what_has_become_stable_meanwhile_does_not_make_the_plan_stale() {
    let mut index = index(&[Txn::new(dot(1, 1), 10, &[], vec![(None, Some(row(1, 7)))])]);
    let change = vec![(Some(row(1, 7)), Some(row(1, 8)))];
    let first = plan(&index, &[Txn::new(dot(2, 1), 11, &[dot(1, 1)], change)]);
    index.stage(BatchId(1), vec![dot(2, 1)], first.writes.clone());
    index.collect(&[dot(1, 1)].into_iter().collect());
    check_stale_by_row_1_alone(&first, &mut index, 2);
}

#[test]
fn regions_with_other_foreign_keys_share_a_batch() {
    let mut other = Txn::new(dot(3, 1), 11, &[], vec![(None, Some(row(2, 1)))]);
    let table = Arc::make_mut(&mut other.3[0].table);
    table.foreign_keys.push(crate::change::ForeignKey::to("parent", 1));
    let first = Txn::new(dot(2, 1), 10, &[], vec![(None, Some(row(1, 1)))]);
    let plan = plan(&Index::default(), &[first, other]);
    assert_eq!(plan.tables.len(), 1);
    assert_eq!(plan.tables[0].puts, [row(1, 1), row(2, 1)]);
}

/// Two regions have altered a table differently, and wrote rows of the same values.
#[test]
fn a_row_is_written_with_the_columns_that_its_author_had() {
    let book = Rulebook::new(|_| {
        let priority = [1, 2].map(|id| RegionId::new(id).unwrap());
        Policy { order: Order::Priority(priority.into()), ..Policy::default() }
    });
    let altered = |name: &str| {
        let mut changes = change(vec![(None, Some(row(1, 7)))]);
        Arc::make_mut(&mut changes[0].table).columns[1].name = name.to_owned();
        changes
    };
    let (weak, strong) = (altered("x"), altered("y"));
    let deps = Arc::new(Vector::default());
    let txn = |dot, changes| Incoming { dot, hlc: Hlc(10), deps: &deps, gtid: "", changes };
    let (mut index, empty) = (Index::default(), Index::default());
    let mut planner = Planner::new(&empty, &book);
    planner.add(&txn(dot(2, 1), &weak)).unwrap();
    planner.finish().writes.iter().for_each(|write| index.enter_local(write));
    let mut planner = Planner::new(&index, &book);
    planner.add(&txn(dot(1, 1), &strong)).unwrap();
    let plan = planner.finish();
    assert_eq!((plan.tables.len(), &*plan.tables[0].table.columns[1].name), (1, "y"));
    // What the log shows of the other has the names of the table here.
    assert_eq!(plan.conflicts.len(), 1);
    assert_eq!(plan.conflicts[0].existing.after, None, "`y` is not known of it");
}
