//! The limits as written: each value is checked at its own line.

use std::fmt::Display;
use std::str::FromStr;

use serde::Deserialize;
use serde_yaml::Spanned;

use super::check::Problems;
use super::{ByteSize, Limits, Span};

/// The section `limits`, each value as text: what can't be read is a problem of that
/// value alone.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileLimits {
    batch_rows: Option<Spanned<String>>,
    batch_bytes: Option<Spanned<String>>,
    apply_wait: Option<Spanned<String>>,
    clock_offset: Option<Spanned<String>>,
    heartbeat: Option<Spanned<String>>,
    record_bytes: Option<Spanned<String>>,
    retention: Option<Spanned<String>>,
}

/// A whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
struct Rows(u32);

impl FromStr for Rows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("`{text}` is no whole number"))
    }
}

impl Display for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The value as written when it is within its range; otherwise what stood before.
fn take<T>(
    name: &str,
    written: Option<&Spanned<String>>,
    (low, high): (T, T),
    before: T,
    problems: &mut Problems,
) -> T
where
    T: FromStr<Err = String> + Display + PartialOrd,
{
    let Some(written) = written else { return before };
    match written.value.parse::<T>() {
        Ok(value) if low <= value && value <= high => return value,
        Ok(value) => {
            let message = format!("limits.{name} {value} is out of range");
            problems.add(written.referenced, message, Some(format!("{low} to {high}")));
        }
        Err(message) => {
            problems.add(written.referenced, format!("limits.{name}: {message}"), None);
        }
    }
    before
}

impl FileLimits {
    /// The limits; a value that is wrong is told, and its default stands in for it.
    pub(super) fn check(&self, problems: &mut Problems) -> Limits {
        let Limits {
            batch_rows,
            batch_bytes,
            apply_wait,
            clock_offset,
            heartbeat,
            record_bytes,
            retention,
        } = Limits::default();
        let ms = Span::from_millis;
        let size = ByteSize;
        let rows = (Rows(1), Rows(100_000));
        let batch = (size(16 << 10), size(256 << 20));
        let record = (size(16 << 10), size(8 << 20));
        let wait = (ms(10), ms(60_000));
        let offset = (ms(1), ms(3_600_000));
        let beat = (ms(50), ms(60_000));
        let held = (ms(3_600_000), ms(365 * 86_400_000));
        let p = problems;
        Limits {
            batch_rows: take("batch_rows", self.batch_rows.as_ref(), rows, Rows(batch_rows), p).0,
            batch_bytes: take("batch_bytes", self.batch_bytes.as_ref(), batch, batch_bytes, p),
            apply_wait: take("apply_wait", self.apply_wait.as_ref(), wait, apply_wait, p),
            clock_offset: take("clock_offset", self.clock_offset.as_ref(), offset, clock_offset, p),
            heartbeat: take("heartbeat", self.heartbeat.as_ref(), beat, heartbeat, p),
            record_bytes: take("record_bytes", self.record_bytes.as_ref(), record, record_bytes, p),
            retention: take("retention", self.retention.as_ref(), held, retention, p),
        }
    }
}
