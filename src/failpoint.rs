//! Named places where a test lets the process die, as a power cut would, or wait.
//!
//! `CAUSEWAY_FAILPOINT=name` or `name:n` ends the process with status 99 at the n-th
//! hit; `name@FILE` or `name:n@FILE` makes the file at that hit and waits until it is
//! gone. Several are separated by commas. Unset, a hit costs one load.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Every failpoint where the process can die.
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

/// A batch is planned, and has no lock yet: [`pause`]s.
pub const PLANNED: &str = "apply.planned";

/// A local transaction is read from the binlog and not stamped: [`pause`]s.
pub const CAPTURED: &str = "capture.local";

/// The exit status of a process that met its failpoint.
pub const STATUS: i32 = 99;

/// How often a waiting process looks whether its file is gone.
const LOOK: Duration = Duration::from_millis(10);

struct Armed {
    name: String,
    left: AtomicU64,
    file: Option<PathBuf>,
}

fn armed<'a>(name: &'a str) -> impl Iterator<Item = &'static Armed> + use<'a> {
    static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();
    let all = ARMED.get_or_init(|| {
        let text = std::env::var("CAUSEWAY_FAILPOINT").unwrap_or_default();
        text.split(',').filter(|one| !one.is_empty()).map(read).collect()
    });
    // A process without failpoints pays for this check only.
    all.iter().filter(move |armed| armed.name == name)
}

fn read(text: &str) -> Armed {
    let (text, file) = text.split_once('@').map_or((text, None), |(t, file)| (t, Some(file)));
    let (name, hits) = text.split_once(':').unwrap_or((text, "1"));
    let left = hits.parse().unwrap_or(1).into();
    Armed { name: name.to_owned(), left, file: file.map(PathBuf::from) }
}

/// Ends the process when this failpoint is armed without a file and it is its turn.
pub fn hit(name: &str) {
    for armed in armed(name).filter(|armed| armed.file.is_none()) {
        if armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::exit(STATUS);
        }
    }
}

/// When this failpoint is armed with a file and it is its turn: makes it and waits
/// until someone has removed it.
pub async fn pause(name: &str) {
    for Armed { file, left, .. } in armed(name) {
        if let Some(file) = file
            && left.fetch_sub(1, Ordering::SeqCst) == 1
            && std::fs::write(file, "").is_ok()
        {
            while file.exists() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}
