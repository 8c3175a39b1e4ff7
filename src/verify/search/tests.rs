//! Which records count, and what they tell of a row.

use super::*;
use crate::change::{
    Column, ColumnType, Kind, Position, Row, RowChange, TableChange, Transaction, Value, pb,
};

fn row(id: i64) -> Option<Row> {
    Some(Row { values: vec![Value::new(Kind::Int(id))] })
}

/// Changes `before` to `after`, as the whole of a transaction or as a part of one.
fn record(
    (origin, epoch, seq, hlc): (u8, u64, u64, u64),
    (part, last, aborted): (u32, bool, bool),
    (before, after): (Option<Row>, Option<Row>),
) -> Record {
    let r#type = ColumnType::Bigint.into();
    let columns = vec![Column { name: "id".into(), key: 1, r#type, ..Column::default() }];
    let table = Table { schema: "s".into(), name: "t".into(), columns, ..Table::default() };
    let rows = vec![RowChange { before, after }];
    let changes = vec![TableChange { table: Arc::new(table), rows }];
    let body = Transaction { part, last, aborted, commit_us: 0, changes };
    Record {
        origin: RegionId::new(origin).unwrap(),
        epoch,
        seq: Seq(seq),
        hlc: Hlc(hlc),
        deps: Vector::default(),
        gtid: format!("{origin}-{seq}"),
        position: Position::default(),
        topology: 0,
        body: RecordBody::Transaction(body),
    }
}

fn start(origin: u8, epoch: u64, seq: u64, hlc: u64) -> Record {
    let body = RecordBody::Start(pb::Start::default());
    Record { body, ..record((origin, epoch, seq, hlc), WHOLE, (None, None)) }
}

const WHOLE: (u32, bool, bool) = (0, true, false);

type Found = Result<Option<(u8, u64)>, String>;

/// Which write of row 1 stands, after one reader for each origin has taken its records.
fn found(records: Vec<Record>) -> Found {
    found_with(records, &Vector::default())
}

fn found_with(records: Vec<Record>, applied: &Vector) -> Found {
    let name = TableName { schema: "s".into(), name: "t".into() };
    let rows = [(name, Key(vec![b"1".to_vec()]))];
    let book = Rulebook::default();
    let mut search = Search::new(&book, &rows);
    let mut readers: HashMap<RegionId, Reader> = HashMap::new();
    for _ in 0..2 {
        readers.clear();
        for record in records.clone() {
            let reader = readers.entry(record.origin).or_default();
            reader.take(record, &mut search).map_err(|silence| silence.to_string())?;
        }
        if !search.gather.look_beside() {
            break;
        }
    }
    let readers = readers.iter().map(|(&origin, reader)| (origin, Some(reader)));
    let extent = extent(readers, applied);
    let (keys, gather) = search.finish();
    let gtids = gather.gtids();
    let recount = gather.finish();
    let key = keys.into_iter().next().unwrap();
    let told = key.and_then(|key| {
        let table = recount.table(key)?;
        recount.row(&book.of(&table).1, key, &extent)
    });
    let Ok(told) = told else { return Ok(None) };
    let dot = told.write.dot;
    assert_eq!(*gtids[&dot], *format!("{}-{}", dot.origin, dot.seq));
    Ok(Some((dot.origin.get(), dot.seq.0)))
}

#[track_caller]
fn check(records: Vec<Record>, wanted: Option<(u8, u64)>) {
    let starts = [start(1, 1, 0, 1), start(2, 1, 0, 1)];
    assert_eq!(found(starts.into_iter().chain(records).collect()), Ok(wanted));
}

#[test]
fn the_latest_stamp_is_the_last_write() {
    let write = |at| record(at, WHOLE, (row(1), row(1)));
    check(vec![write((1, 1, 1, 10)), write((2, 1, 1, 9))], Some((1, 1)));
    check(vec![write((1, 1, 1, 10)), write((2, 1, 1, 10))], Some((2, 1)));
    check(vec![write((1, 1, 1, 10)), write((1, 1, 2, 11))], Some((1, 2)));
    check(vec![record((1, 1, 1, 10), WHOLE, (None, row(2)))], None);
    check(vec![record((1, 1, 1, 10), WHOLE, (row(1), row(2)))], Some((1, 1)));
}

#[test]
fn what_does_not_count_is_no_write() {
    let write = |at, part| record(at, part, (row(1), None));
    check(vec![write((1, 1, 1, 10), (0, false, false))], None);
    let void = vec![write((1, 1, 1, 10), (0, false, false)), write((1, 1, 1, 10), (0, true, true))];
    check(void, None);
    let fenced = vec![start(1, 2, 0, 9), write((1, 2, 1, 10), WHOLE), write((1, 1, 1, 11), WHOLE)];
    check(fenced, Some((1, 1)));
    let parts = vec![
        write((1, 1, 1, 10), (0, false, false)),
        record((1, 1, 1, 10), (1, true, false), (None, row(2))),
    ];
    check(parts, Some((1, 1)));
}

#[test]
fn an_outbox_that_is_read_from_its_middle_tells_what_comes_after_it() {
    let write = |at, part| record(at, part, (row(1), row(1)));
    // The first record is not taken, nor is anything older than it in the other outbox.
    let middle = |hlc| {
        vec![write((1, 3, 7, 20), WHOLE), write((1, 3, 8, hlc), WHOLE), write((2, 1, 4, 30), WHOLE)]
    };
    assert_eq!(found(middle(31)), Ok(Some((1, 8))));
    assert_eq!(found(middle(29)), Ok(None));
    // Of a transaction that began before, the end is no more than a beginning.
    let parts = vec![
        write((1, 3, 7, 20), (3, false, false)),
        write((1, 3, 7, 20), (4, true, false)),
        write((1, 3, 8, 21), WHOLE),
    ];
    assert_eq!(found(parts), Ok(Some((1, 8))));
}

#[test]
fn what_a_fenced_agent_may_have_written_tells_nothing() {
    let write = |at| record(at, WHOLE, (row(1), row(1)));
    let fenced = found(vec![write((1, 3, 7, 20)), write((1, 3, 8, 21)), write((1, 4, 9, 22))]);
    assert!(fenced.is_err_and(|why| why.contains("is not known from there on")));
    let records = vec![write((1, 3, 7, 20)), write((1, 3, 9, 21))];
    assert!(found(records).is_err_and(|why| why.contains("records are missing")));
}

/// Seq 7 was written again, later, before what is read: what came between may be unknown.
#[test]
fn a_fenced_record_at_a_boundary_does_not_say_from_when_on_all_is_known() {
    let write = |at| record(at, WHOLE, (row(1), row(1)));
    let log = |hlc| {
        vec![write((1, 3, 7, 20)), start(1, 5, 7, 40), write((2, 1, 4, 19)), write((2, 1, 5, hlc))]
    };
    assert_eq!(found(log(30)), Ok(None));
    assert_eq!(found(log(41)), Ok(Some((2, 5))));
}

#[test]
fn a_moved_row_that_lost_its_other_half_shows_what_was_before() {
    // 1 becomes 2, while another region writes row 2, later.
    let moved = record((1, 1, 1, 10), WHOLE, (row(1), row(2)));
    let other = record((2, 1, 1, 11), WHOLE, (None, row(2)));
    let name = TableName { schema: "s".into(), name: "t".into() };
    for records in [[moved.clone(), other.clone()], [other, moved]] {
        let rows = [(name.clone(), Key(vec![b"1".to_vec()]))];
        let book = Rulebook::default();
        let mut search = Search::new(&book, &rows);
        for round in 0..2 {
            let mut readers = [Reader::default(), Reader::default()];
            readers[0].take(start(1, 1, 0, 1), &mut search).unwrap();
            readers[1].take(start(2, 1, 0, 1), &mut search).unwrap();
            for record in records.clone() {
                let reader = &mut readers[usize::from(record.origin.get()) - 1];
                reader.take(record, &mut search).unwrap();
            }
            assert!(search.gather.look_beside(), "round {round}");
        }
        let (keys, gather) = search.finish();
        let recount = gather.finish();
        let key = keys[0].unwrap();
        let policy = crate::resolve::Policy::default();
        let told = recount.row(&policy, key, &Extent { floor: Vector::default(), covered: Hlc(1) });
        assert_eq!(told.unwrap().row, row(1));
    }
}

#[test]
fn a_reader_that_began_at_a_fenced_record_knows_nothing() {
    let write = |at| record(at, WHOLE, (row(1), row(1)));
    // The outbox of 1 ends with a record of an agent that had lost it.
    let records = vec![write((1, 3, 80, 20)), start(2, 1, 0, 1), write((2, 1, 1, 30))];
    let applied = |seq| {
        let mut applied = Vector::default();
        applied.raise(RegionId::new(1).unwrap(), Seq(seq));
        applied
    };
    assert_eq!(found_with(records.clone(), &applied(80)), Ok(Some((2, 1))));
    assert_eq!(found_with(records, &applied(91)), Ok(None));
}

/// One part takes the row away and a later one puts it back: that is one change of it.
#[test]
fn a_sum_that_a_transaction_wrote_in_several_parts_is_told() {
    let merge = crate::resolve::Merge { deltas: vec![1], groups: vec![] };
    let policy = crate::resolve::Policy { merge: Some(merge), ..Default::default() };
    let given = policy.clone();
    let (book, name) = (Rulebook::new(move |_| given.clone()), "t".to_owned());
    let rows = [(TableName { schema: "s".into(), name }, Key(vec![b"1".to_vec()]))];
    let of = |n: Option<i64>| {
        let values = |n| [1, n].map(|n| Value::new(Kind::Int(n))).to_vec();
        n.map(|n| Row { values: values(n) })
    };
    type Part = ((u32, bool, bool), Option<i64>, Option<i64>);
    let told = |parts: &[Part]| {
        let (mut search, mut reader) = (Search::new(&book, &rows), Reader::default());
        reader.take(start(1, 1, 0, 1), &mut search).unwrap();
        for &(part, before, after) in parts {
            let mut record = record((1, 1, 1, 10), part, (of(before), of(after)));
            if let RecordBody::Transaction(txn) = &mut record.body {
                let n = Column { name: "n".into(), ..Column::default() };
                Arc::make_mut(&mut txn.changes[0].table).columns.push(n);
            }
            reader.take(record, &mut search).unwrap();
        }
        let (keys, gather) = search.finish();
        let key = keys[0].unwrap();
        gather.finish().row(&policy, key, &Extent::default()).map(|told| told.row)
    };
    assert_eq!(told(&[(WHOLE, Some(10), Some(15))]), Ok(of(Some(15))));
    let parts = [
        ((0, false, false), Some(10), Some(13)),
        ((1, false, false), Some(13), None),
        ((2, true, false), None, Some(15)),
    ];
    assert_eq!(told(&parts), Ok(of(Some(15))));
}
