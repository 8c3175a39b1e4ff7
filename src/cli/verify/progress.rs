//! The line that shows how far a comparison or a repair is, on a terminal only.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::grouped;
use crate::verify::Progress;

const EVERY: Duration = Duration::from_millis(200);
const WIDTH: u64 = 24;

/// The line; it is drawn over itself.
#[derive(Default)]
pub(super) struct Bar {
    drawn: Option<Instant>,
}

impl Bar {
    /// Draws it, unless it was drawn a moment ago.
    pub(super) fn show(&mut self, progress: &Progress<'_>) {
        if !std::io::stderr().is_terminal() || self.drawn.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        draw(&line(progress));
    }

    /// Leaves an empty line.
    pub(super) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            draw("");
        }
    }
}

fn draw(text: &str) {
    // Back to the beginning, then the text, then nothing to the end of the line.
    let mut stderr = std::io::stderr();
    if write!(stderr, "\r{text}\x1b[K").and_then(|()| stderr.flush()).is_err() {
        tracing::debug!("the terminal is gone");
    }
}

/// `shop.orders [######----] 25 %  1,000 rows  500 rows/s  6 s left`.
pub(super) fn line(progress: &Progress<'_>) -> String {
    let Progress { table, unit, rows, rows_here, .. } = *progress;
    // The servers only guess how many rows there are.
    let total = progress.rows_estimate.max(rows).max(1);
    let done = rows.saturating_mul(WIDTH) / total;
    let part = |n: u64, of: &str| of.repeat(usize::try_from(n).unwrap_or(0));
    let bar = format!("{}{}", part(done, "#"), part(WIDTH - done, "-"));
    let percent = rows.saturating_mul(100) / total;
    let ms = u64::try_from(progress.elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = rows_here.saturating_mul(1000) / ms;
    let then = match (&progress.waits, (total - rows).checked_div(rate)) {
        (Some(waits), _) => waits.clone(),
        (None, Some(left)) => format!("about {left} s left"),
        (None, None) => String::new(),
    };
    let (rows, rate) = (grouped(rows), grouped(rate));
    format!("{table} [{bar}] {percent} %  {rows} {unit}  {rate} {unit}/s  {then}")
}
