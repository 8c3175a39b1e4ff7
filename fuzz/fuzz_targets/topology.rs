//! No bytes panic the reading of a topology, nor the drawing of its problems.
#![no_main]

use causeway::topology;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match topology::parse(text) {
        Ok(topology) => {
            topology.graph_text();
            topology.graph_dot();
        }
        Err(problems) => problems.iter().for_each(|problem| drop(problem.render("t", text))),
    }
});
