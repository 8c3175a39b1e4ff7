//! What is told of one row, from few writes. Whole runs: `sim::recount`.

use super::*;
use crate::change::{Column, Dot, Kind, Seq, Value};
use crate::resolve::ColumnGroup;
use crate::version::Action;

const KEY: RowKey = RowKey(1);

fn dot(origin: u8, seq: u64) -> Dot {
    Dot { origin: RegionId::new(origin).unwrap(), seq: Seq(seq) }
}

/// The row's columns: key, a sum, another.
fn row(n: i64, v: i64) -> Option<Row> {
    Some(Row { values: [1, n, v].map(|value| Value::new(Kind::Int(value))).to_vec() })
}

fn write(
    dot: Dot,
    hlc: u64,
    deps: &[Dot],
    (before, after): (Option<Row>, Option<Row>),
    adds_up: bool,
) -> Write {
    let column = |name: &str, key| Column { name: name.into(), key, ..Column::default() };
    let columns = vec![column("id", 1), column("n", 0), column("v", 0)];
    let table = Arc::new(Table { columns, ..Table::default() });
    let action = Action::of(before.is_some(), after.is_some());
    let claims = smallvec::SmallVec::new();
    let body = Body { table, before, after, group: None, claims, adds_up };
    Write {
        key: KEY,
        version: Version { dot, hlc: Hlc(hlc), action },
        deps: Arc::new(deps.iter().copied().collect()),
        body: Some(Arc::new(body)),
        foreign: None,
    }
}

/// Nothing is known up to these transactions of each region, and this stamp.
fn extent(floor: &[Dot], covered: u64) -> Extent {
    Extent { floor: floor.iter().copied().collect(), covered: Hlc(covered) }
}

type Told = Result<(Option<Row>, Option<u8>), Untold>;

#[track_caller]
fn check(policy: &Policy, writes: &[Write], extent: &Extent, wanted: Told) {
    let told = Recount::new(writes.to_vec()).row(policy, KEY, extent);
    let told = told.map(|told| (told.row, told.counted_from.map(RegionId::get)));
    assert_eq!(told, wanted);
}

fn delta() -> Policy {
    let merge = Merge { deltas: vec![1], groups: vec![] };
    Policy { merge: Some(merge), ..Policy::default() }
}

#[test]
fn by_the_stamp_the_last_write_stands_once_it_is_known_to_be_the_last() {
    let policy = Policy::default();
    let writes = [
        write(dot(1, 8), 20, &[], (row(0, 0), row(0, 1)), false),
        write(dot(2, 5), 21, &[], (row(0, 0), None), false),
    ];
    check(&policy, &writes, &extent(&[dot(1, 7), dot(2, 4)], 20), Ok((None, None)));
    check(&policy, &writes, &extent(&[dot(1, 7), dot(2, 4)], 21), Err(Untold::Older));
    check(&policy, &[], &extent(&[], 0), Err(Untold::Older));
}

#[test]
fn by_priority_a_write_must_have_seen_what_is_missing() {
    let order = Order::Priority(vec![RegionId::new(2).unwrap(), RegionId::new(1).unwrap()]);
    let policy = Policy { order, ..Policy::default() };
    let one = |deps: &[Dot]| [write(dot(1, 8), 20, deps, (row(0, 0), row(0, 1)), false)];
    let missing = extent(&[dot(1, 7), dot(2, 4)], 10);
    check(&policy, &one(&[dot(2, 3)]), &missing, Err(Untold::Concurrent));
    check(&policy, &one(&[dot(2, 4)]), &missing, Ok((row(0, 1), None)));
}

#[test]
fn of_two_readings_counts_what_both_hold() {
    let (one, two) = (extent(&[dot(1, 7), dot(2, 4)], 20), extent(&[dot(1, 6), dot(3, 5)], 21));
    let both = one.both(&two);
    assert_eq!(both.floor, [dot(1, 7), dot(2, 4), dot(3, 5)].into_iter().collect());
    assert_eq!(both.covered, Hlc(21));
}

#[test]
fn a_sum_is_counted_from_its_last_delete() {
    let writes = [
        write(dot(1, 8), 20, &[], (row(9, 0), None), true),
        write(dot(1, 9), 21, &[], (None, row(5, 1)), true),
        write(dot(2, 5), 22, &[dot(1, 9)], (row(5, 1), row(3, 1)), true),
    ];
    check(&delta(), &writes, &extent(&[dot(1, 7), dot(2, 4)], 19), Ok((row(3, 1), None)));
    // What came before the delete may be missing, and be later.
    let missing = extent(&[dot(1, 7), dot(2, 4)], 20);
    check(&delta(), &writes, &missing, Err(Untold::Concurrent));
    check(&delta(), &writes[..1], &extent(&[dot(1, 7)], 30), Ok((None, None)));
}

#[test]
fn a_sum_is_counted_from_what_two_regions_say() {
    let seen = [dot(1, 7), dot(2, 4)];
    let (ten, nine) = (row(10, 0), row(9, 0));
    let one = write(dot(1, 8), 20, &seen, (ten.clone(), nine.clone()), true);
    let two = |before, after| write(dot(2, 5), 21, &[dot(1, 8)], (before, after), true);
    let missing = extent(&seen, 10);
    check(&delta(), std::slice::from_ref(&one), &missing, Ok((nine.clone(), Some(1))));
    let writes = [one.clone(), two(nine.clone(), row(7, 0))];
    check(&delta(), &writes, &missing, Ok((row(7, 0), None)));
    // Its author's row was another than all writes come to.
    let writes = [one, two(row(99, 0), row(97, 0))];
    check(&delta(), &writes, &missing, Err(Untold::Contradiction));
}

/// Between two writes of one region its row was changed past the binlog.
#[test]
fn a_row_that_was_changed_between_two_writes_of_its_region_is_a_contradiction() {
    let seen = [dot(1, 7), dot(2, 4)];
    let missing = extent(&seen, 10);
    let first = write(dot(1, 8), 20, &seen, (row(10, 0), row(9, 0)), true);
    let other = write(dot(2, 5), 21, &[dot(1, 8)], (row(9, 0), row(7, 5)), true);
    let next = |deps: &[Dot], before| write(dot(1, 9), 22, deps, (before, row(6, 5)), true);
    let both = [dot(1, 8), dot(2, 5)];
    let told = |next| {
        let writes = [first.clone(), other.clone(), next];
        Recount::new(writes.to_vec()).row(&delta(), KEY, &missing).map(|told| told.row)
    };
    assert_eq!(told(next(&both, row(7, 5))), Ok(row(6, 5)));
    for before in [row(99, 5), row(9, 0), None] {
        assert_eq!(told(next(&both, before)), Err(Untold::Contradiction));
    }
    // Alone, without another region to bear witness.
    let next = write(dot(1, 9), 22, &both[..1], (row(999, 0), row(998, 0)), true);
    check(&delta(), &[first, next], &missing, Err(Untold::Contradiction));
}

/// Region 2 wrote it once, long ago: from that on all others are counted.
#[test]
fn a_row_that_is_written_all_day_is_told_in_no_time() {
    const WRITES: u16 = 4_000;
    let policy = Policy { merge: Some(Merge { deltas: vec![1], groups: vec![] }), ..delta() };
    let seen = [dot(1, 0), dot(2, 0)];
    let first = write(dot(2, 1), 1, &seen, (row(0, 0), row(1, 0)), true);
    let later = (1..=WRITES).map(|n| {
        let (at, n) = (u64::from(n), i64::from(n));
        write(dot(1, at), 1 + at, &[dot(2, 1)], (row(n, n - 1), row(n + 1, n)), true)
    });
    let writes: Vec<Write> = std::iter::once(first).chain(later).collect();
    let (began, n) = (std::time::Instant::now(), i64::from(WRITES));
    check(&policy, &writes, &extent(&seen, 0), Ok((row(n + 1, n), None)));
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
}

#[test]
fn what_may_be_concurrent_with_a_change_leaves_a_sum_untold() {
    let first = Order::Priority(vec![RegionId::new(2).unwrap()]);
    let groups = vec![ColumnGroup { columns: vec![2], order: first }];
    let policy = Policy { merge: Some(Merge { deltas: vec![1], groups }), ..Policy::default() };
    let base = write(dot(1, 8), 20, &[dot(2, 4)], (row(10, 0), row(9, 0)), true);
    // Neither had seen the other; and what 3 had not seen of 2 may stand before it.
    let blind = |deps: &[Dot]| write(dot(3, 1), 21, deps, (row(10, 0), row(10, 5)), true);
    let missing = extent(&[dot(1, 7), dot(2, 4)], 10);
    let writes = |deps: &[Dot]| [base.clone(), blind(deps)];
    check(&policy, &writes(&[dot(1, 7), dot(2, 3)]), &missing, Err(Untold::Base));
    check(&policy, &writes(&[dot(1, 7), dot(2, 4)]), &missing, Ok((row(9, 5), None)));
}
