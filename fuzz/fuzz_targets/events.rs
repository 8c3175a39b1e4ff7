//! No bytes panic the reading of a binlog, of either server.
#![no_main]

use std::sync::Arc;

use causeway::capture::{CaptureConfig, Source, read_file};
use causeway::change::Position;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let config = CaptureConfig {
        opts: mysql_async::Opts::default(),
        server_id: 1,
        from: Position::default(),
        part_bytes: 1024,
        // No table is replicated, so that no database is asked.
        replicates: Arc::new(|_, _| false),
    };
    let file = [b"\xfebin", bytes].concat();
    for source in [Source::MariaDb(Position::default()), Source::MySql(Position::default())] {
        drop(runtime.block_on(read_file(&config, source, file.clone().into(), &mut |_| {})));
    }
});
