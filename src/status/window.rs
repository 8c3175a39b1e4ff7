//! Figures over the recent past: lag percentiles and rates that forget.

use hdrhistogram::Histogram;

use super::LagSummary;

/// Two of these are looked at together, so a figure covers 30 to 60 s.
const HALF_WINDOW_US: u64 = 30_000_000;
/// An hour and more all count as an hour.
const LAG_US_MAX: u64 = 3_600_000_000;
/// Whole seconds that a rate looks back over.
const RATE_SECONDS: usize = 10;

/// Lags of the last minute.
#[derive(Clone, Debug)]
pub struct LagWindow {
    current: Histogram<u32>,
    previous: Histogram<u32>,
    half: u64,
}

impl Default for LagWindow {
    fn default() -> Self {
        let empty = Histogram::new_with_bounds(1, LAG_US_MAX, 2).expect("the bounds are constants");
        Self { current: empty.clone(), previous: empty, half: 0 }
    }
}

impl LagWindow {
    /// Counts `times` transactions that became visible after `lag_us`.
    pub fn record(&mut self, lag_us: u64, times: u32, now_us: u64) {
        self.turn(now_us);
        self.current.saturating_record_n(lag_us.max(1), times);
    }

    /// `None` when nothing was recorded in the window.
    #[must_use]
    pub fn summary(&mut self, now_us: u64) -> Option<LagSummary> {
        self.turn(now_us);
        let mut all = self.current.clone();
        all.add(&self.previous).expect("both have the same bounds");
        if all.is_empty() {
            return None;
        }
        Some(LagSummary {
            samples: all.len(),
            p50_us: all.value_at_quantile(0.5),
            p90_us: all.value_at_quantile(0.9),
            p99_us: all.value_at_quantile(0.99),
            p999_us: all.value_at_quantile(0.999),
            max_us: all.max(),
        })
    }

    fn turn(&mut self, now_us: u64) {
        let half = now_us / HALF_WINDOW_US;
        if half <= self.half {
            return;
        }
        if half == self.half + 1 {
            std::mem::swap(&mut self.current, &mut self.previous);
        } else {
            self.previous.reset();
        }
        self.current.reset();
        self.half = half;
    }
}

/// Counts of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct RateWindow {
    counts: [(u64, u64); RATE_SECONDS + 1],
}

impl RateWindow {
    /// Adds `count` to the present second.
    pub fn add(&mut self, count: u64, now_us: u64) {
        let second = now_us / 1_000_000;
        let slot = &mut self.counts[slot(second)];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 = slot.1.saturating_add(count);
    }

    /// A second, over the ten whole seconds before the present one.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown, not counted with")]
    pub fn per_second(&self, now_us: u64) -> f64 {
        let now = now_us / 1_000_000;
        let since = now.saturating_sub(RATE_SECONDS as u64);
        let sum: u64 = self
            .counts
            .iter()
            .filter(|(second, _)| (since..now).contains(second))
            .map(|(_, count)| count)
            .sum();
        sum as f64 / RATE_SECONDS as f64
    }
}

fn slot(second: u64) -> usize {
    usize::try_from(second % (RATE_SECONDS as u64 + 1)).expect("less than the array's length")
}
