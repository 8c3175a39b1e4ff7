//! Named places where a test lets the process die, as a power cut would.
//!
//! `CAUSEWAY_FAILPOINT=name` or `name:n` ends the process with status 99 at the n-th
//! hit. Unset, a hit costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every failpoint.
pub const NAMES: [&str; 9] = [
    // A local transaction is stamped and given to the producer, not acknowledged.
    "capture.before_ack",
    // A part of a split transaction is given to the producer, and not the last one.
    "outbox.part_sent",
    // The Start record is acknowledged, nothing is captured yet.
    "outbox.started",
    // The inbox topic exists, nothing is copied.
    "link.topic_created",
    // Records are copied and acknowledged.
    "link.copied",
    // The index is half rebuilt.
    "rebuild.halfway",
    // A batch is written and has looked again; not committed.
    "apply.before_commit",
    // A batch is committed; the agent does not know yet.
    "apply.after_commit",
    // A part of a large transaction is written, and not the last one.
    "apply.part_written",
];

/// The exit status of a process that met its failpoint.
pub const STATUS: i32 = 99;

struct Armed {
    name: String,
    left: AtomicU64,
}

/// Ends the process when this failpoint is armed and it is its turn.
pub fn hit(name: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("CAUSEWAY_FAILPOINT").ok()?;
        let (name, hits) = text.split_once(':').unwrap_or((text.as_str(), "1"));
        Some(Armed { name: name.to_owned(), left: AtomicU64::new(hits.parse().unwrap_or(1)) })
    });
    if let Some(armed) = armed
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::exit(STATUS);
    }
}
