//! The limits as written: each value is checked at its own line.

use std::fmt::Display;

use serde::Deserialize;

use super::{ByteSize, Limits, Span};
use crate::yaml::{Problems, Spanned};

/// The section `limits`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileLimits {
    batch_rows: Option<u32>,
    batch_bytes: Option<Spanned<ByteSize>>,
    capture_wait: Option<Spanned<Span>>,
    apply_wait: Option<Spanned<Span>>,
    clock_offset: Option<Spanned<Span>>,
    heartbeat: Option<Spanned<Span>>,
    record_bytes: Option<Spanned<ByteSize>>,
    retention: Option<Spanned<Span>>,
    conflict_log_age: Option<Spanned<Span>>,
    conflict_log_entries: Option<u32>,
    conflict_log_bytes: Option<Spanned<ByteSize>>,
}

/// The value as written when it is within its range; otherwise what stood before.
pub(super) fn take<T: Copy + Display + PartialOrd>(
    name: &str,
    written: Option<&Spanned<T>>,
    (low, high): (T, T),
    before: T,
    problems: &mut Problems,
) -> T {
    let Some(written) = written else { return before };
    if low <= written.value && written.value <= high {
        return written.value;
    }
    let message = format!("{name} {} is out of range", written.value);
    problems.add(written.at, message, Some(format!("{low} to {high}")));
    before
}

impl FileLimits {
    /// The limits; a value that is wrong is told, and its default stands in for it.
    pub(super) fn check(&self, problems: &mut Problems) -> Limits {
        let Limits {
            batch_rows,
            batch_bytes,
            capture_wait,
            apply_wait,
            clock_offset,
            heartbeat,
            record_bytes,
            retention,
            conflict_log_age,
            conflict_log_entries,
            conflict_log_bytes,
        } = Limits::default();
        let ms = Span::from_millis;
        let size = ByteSize;
        let batch = (size(16 << 10), size(256 << 20));
        let record = (size(16 << 10), size(8 << 20));
        let rest = (ms(0), ms(500));
        let wait = (ms(10), ms(60_000));
        let offset = (ms(1), ms(3_600_000));
        let beat = (ms(50), ms(60_000));
        let held = (ms(3_600_000), ms(365 * 86_400_000));
        let age = (ms(86_400_000), ms(3_650 * 86_400_000));
        let log = (size(16 << 20), size(1 << 40));
        let p = problems;
        Limits {
            batch_rows: self.batch_rows.unwrap_or(batch_rows),
            batch_bytes: take("batch_bytes", self.batch_bytes.as_ref(), batch, batch_bytes, p),
            capture_wait: take("capture_wait", self.capture_wait.as_ref(), rest, capture_wait, p),
            apply_wait: take("apply_wait", self.apply_wait.as_ref(), wait, apply_wait, p),
            clock_offset: take("clock_offset", self.clock_offset.as_ref(), offset, clock_offset, p),
            heartbeat: take("heartbeat", self.heartbeat.as_ref(), beat, heartbeat, p),
            record_bytes: take("record_bytes", self.record_bytes.as_ref(), record, record_bytes, p),
            retention: take("retention", self.retention.as_ref(), held, retention, p),
            conflict_log_age: take(
                "conflict_log_age",
                self.conflict_log_age.as_ref(),
                age,
                conflict_log_age,
                p,
            ),
            conflict_log_entries: self.conflict_log_entries.unwrap_or(conflict_log_entries),
            conflict_log_bytes: take(
                "conflict_log_bytes",
                self.conflict_log_bytes.as_ref(),
                log,
                conflict_log_bytes,
                p,
            ),
        }
    }
}
