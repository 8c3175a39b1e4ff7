//! No bytes panic, whatever they claim to be.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::catalog::{ColumnInfo, TableInfo};
use super::table_map::{self, TableMap, Written};
use super::{Assembler, CaptureError, CaptureEvent, Source};
use crate::change::{Kind, Position, Value};

const GTID: u8 = 162;
const WRITE: u8 = 23;
const XID: u8 = 16;

fn mariadb() -> Assembler {
    Assembler::new(Source::MariaDb(Position::default()), 1 << 20).unwrap()
}

fn mysql() -> Assembler {
    Assembler::new(Source::MySql(Position::default()), 1 << 20).unwrap()
}

fn gtid(seq: u8) -> Bytes {
    vec![seq, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0].into()
}

/// Table 7: an INT and a column of `kind`.
fn enter(assembler: &mut Assembler, kind: u8, meta: u16) {
    let columns = vec![Written { kind: 3, meta: 0 }, Written { kind, meta }];
    let (schema, table) = ("s".to_owned(), "t".to_owned());
    let map = TableMap { id: 7, schema, table, columns, described: None };
    let info = TableInfo { table: Arc::default(), columns: vec![ColumnInfo::default(); 2] };
    assembler.enter_table(map, Some(Arc::new(info)));
}

fn rows(images: &[u8]) -> Bytes {
    [&[7, 0, 0, 0, 0, 0, 0, 0, 2, 3][..], images].concat().into()
}

#[test]
fn a_transaction_is_what_stands_between_gtid_and_commit() {
    let mut assembler = mariadb();
    assert_eq!(assembler.event(GTID, (9, 5, 0), gtid(1)), Ok(None));
    enter(&mut assembler, 1, 0);
    assert_eq!(assembler.event(WRITE, (9, 5, 0), rows(&[0, 1, 0, 0, 0, 0xff])), Ok(None));
    let Ok(Some(CaptureEvent::Changes { gtid, last, changes, after, .. })) =
        assembler.event(XID, (9, 5, 0), Bytes::from_static(&[0; 8]))
    else {
        panic!("no transaction")
    };
    assert_eq!((gtid.as_str(), last, after.position.0.as_str()), ("3-5-1", true, "3-5-1"));
    let row = changes[0].rows[0].after.clone().unwrap();
    assert_eq!(row.values, [Value::new(Kind::Int(1)), Value::new(Kind::Int(-1))]);
}

#[test]
fn rows_that_lack_columns_are_refused() {
    let mut assembler = mariadb();
    assembler.event(GTID, (9, 5, 0), gtid(1)).unwrap();
    enter(&mut assembler, 1, 0);
    let partial = Bytes::from_static(&[7, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 1, 0, 0, 0]);
    let said = assembler.event(WRITE, (9, 5, 0), partial);
    assert!(matches!(said, Err(CaptureError::PartialImage(_))));
}

#[test]
fn positions_inside_a_payload_do_not_move_the_stream() {
    let mut assembler = mysql();
    let rotate = Bytes::from_static(b"\x04\0\0\0\0\0\0\0bin.000003");
    assembler.event(4, (0, 1, 0), rotate).unwrap();
    let mut gtid = vec![1; 17];
    gtid.extend([5, 0, 0, 0, 0, 0, 0, 0]);
    assembler.event(33, (1, 1, 900), gtid.into()).unwrap();
    assembler.event(40, (1, 1, 1000), Bytes::new()).unwrap();
    let said = assembler.event(XID, (1, 1, 77), Bytes::from_static(&[0; 8])).unwrap();
    assert!(matches!(said, Some(CaptureEvent::Skipped { .. })));
    let wanted = crate::change::BinlogPoint::from_file("bin.000003", 1000).unwrap();
    assert_eq!(assembler.checkpoint().point, wanted);
}

#[test]
fn a_gtid_with_a_tag_is_refused_by_name() {
    let said = mysql().event(42, (1, 1, 900), Bytes::from_static(&[2; 40]));
    assert_eq!(said, Err(CaptureError::Tagged));
}

/// An idle MySQL's binlog ends behind its last transaction; the applier waits for it.
#[test]
fn an_idle_stream_says_how_far_it_has_come() {
    let mut assembler = mysql();
    let rotate = Bytes::from_static(b"\x04\0\0\0\0\0\0\0bin.000003");
    assembler.event(4, (0, 1, 0), rotate).unwrap();
    for (kind, log_pos) in [(35, 151), (27, 900)] {
        let said = assembler.event(kind, (0, 1, log_pos), Bytes::new()).unwrap();
        let Some(CaptureEvent::Skipped { after }) = said else { panic!("{said:?}") };
        let wanted = crate::change::BinlogPoint::from_file("bin.000003", log_pos.into());
        assert_eq!(Some(after.point), wanted);
    }
    let heartbeat = mariadb().event(27, (0, 1, 900), Bytes::new()).unwrap();
    assert!(heartbeat.is_none());
}

proptest! {
    #[test]
    fn no_event_panics(
        kind: u8,
        log_pos: u32,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        for mut assembler in [mariadb(), mysql()] {
            drop(assembler.event(kind, (1, 1, log_pos), bytes.clone().into()));
            drop(assembler.event(kind, (1, 1, log_pos), bytes.clone().into()));
        }
        drop(table_map::parse(bytes.into(), true));
    }

    #[test]
    fn no_row_panics(
        kind: u8,
        meta: u16,
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut assembler = mariadb();
        assembler.event(GTID, (9, 5, 0), gtid(1)).unwrap();
        let meta = if (17..20).contains(&kind) { meta % 7 } else { meta };
        enter(&mut assembler, kind, meta);
        drop(assembler.event(WRITE, (9, 5, 0), rows(&bytes)));
    }
}
