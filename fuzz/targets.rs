//! What is done with bytes from outside, for libFuzzer (`fuzz_targets/`) and for the
//! mutations of `tests/fuzz.rs`, which need no nightly compiler.

use std::sync::Arc;

use causeway::capture::{CaptureConfig, Source, read_file};
use causeway::change::{Position, Record};
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
    if let Ok(record) = Record::decode(bytes.to_vec().into()) {
        let again = Record::decode(record.clone().encode().into());
        assert!(again.is_ok_and(|again| again.encode() == record.encode()));
    }
}

/// Reads a binlog file, as either server's. No table is replicated, so that no
/// database is asked; rows are fuzzed by the properties in `capture/tests.rs`.
pub(crate) fn events(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let config = CaptureConfig {
        opts: mysql_async::Opts::default(),
        server_id: 1,
        from: Position::default(),
        part_bytes: 1024,
        replicates: Arc::new(|_, _| false),
    };
    let file = [b"\xfebin", bytes].concat();
    for source in [Source::MariaDb(Position::default()), Source::MySql(Position::default())] {
        drop(runtime.block_on(read_file(&config, source, file.clone().into(), &mut |_| {})));
    }
}
