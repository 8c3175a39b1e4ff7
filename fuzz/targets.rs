//! What is done with bytes from outside, for libFuzzer (`fuzz_targets/`) and for the
//! mutations of `tests/fuzz.rs`, which need no nightly compiler.

use causeway::capture::{CaptureEvent, Source, read_file_alone};
use causeway::change::{Position, Record, Tables};
use causeway::topology;

/// Reads a topology, draws it or its problems.
pub(crate) fn topology(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match topology::parse(text) {
        Ok(topology) => {
            drop(topology.graph_text());
            drop(topology.graph_dot());
        }
        Err(problems) => problems.iter().for_each(|problem| drop(problem.render("t", text))),
    }
}

/// Decodes a record of an outbox; what is decoded is encoded to the same again.
pub(crate) fn record(bytes: &[u8]) {
    let mut tables = Tables::default();
    if let Ok(record) = Record::decode(bytes.to_vec().into(), &mut tables) {
        let again = Record::decode(record.clone().encode(&mut tables).into(), &mut tables);
        assert!(again.is_ok_and(|again| again.encode(&mut tables) == record.encode(&mut tables)));
    }
}

/// Reads a binlog file, as either server's.
pub(crate) fn events(bytes: &[u8]) {
    rows(bytes);
}

/// The same; gives how many rows were read, as whichever server's it has more.
pub(crate) fn rows(bytes: &[u8]) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let file = [b"\xfebin", bytes].concat();
    let sources = [Source::MariaDb(Position::default()), Source::MySql(Position::default())];
    let found = sources.into_iter().map(|source| {
        let mut rows = 0;
        let mut each = |event| {
            if let CaptureEvent::Changes { changes, .. } = event {
                rows += changes.iter().map(|change| change.rows.len()).sum::<usize>();
            }
        };
        let read = read_file_alone(source, 1024, file.clone().into(), &mut each);
        drop(runtime.block_on(read));
        rows
    });
    found.max().unwrap_or(0)
}
