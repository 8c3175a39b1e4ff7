//! How often capture looks at its connection: at once while commits are few; the more
//! there are, the longer it rests between two looks, so that what comes meanwhile is
//! read, stamped and sent together.
//!
//! The same bargain as a network card's interrupt moderation: each wake-up costs this
//! agent, and as a smaller request also Kafka, about as much for one transaction as for
//! ten. It decides and does not wait itself.

use std::time::Duration;

use tokio::time::Instant;

/// Below so many events a second it does not rest: a wake-up for each costs little.
const FEW_PER_S: f64 = 200.0;
/// The rest for each event a second: at 500 a second it adds 2 ms to the lag in the mean,
/// and at 1,000 a second 4 ms, and takes eight of them at once. Where the cores are busy
/// the wake-ups saved take as much off the longest lags.
const REST_PER_RATE: f64 = 8e-6;
/// Events of one wake-up: more of them save little, so it rests less again when they are
/// there earlier.
const GATHERED: f64 = 64.0;
/// The longest rest: what it may add to the lag.
const REST_MAX: Duration = Duration::from_millis(20);
/// The rate is taken over at least this long, so that a burst of a few is none.
const WINDOW: Duration = Duration::from_millis(100);

/// What was seen of the rate.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    seen: u32,
    rest: Option<Duration>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, seen: 0, rest: None }
    }

    /// A transaction, or a part of one, was read.
    pub(super) fn saw(&mut self) {
        self.seen = self.seen.saturating_add(1);
    }

    /// How long to rest when nothing is left to read; `None`: not at all.
    pub(super) fn rest(&mut self, now: Instant) -> Option<Duration> {
        let past = now.saturating_duration_since(self.since);
        if past >= WINDOW {
            let per_s = f64::from(self.seen) / past.as_secs_f64();
            self.rest = (per_s >= FEW_PER_S).then(|| {
                let rest = (REST_PER_RATE * per_s).min(GATHERED / per_s);
                Duration::from_secs_f64(rest).min(REST_MAX)
            });
            (self.since, self.seen) = (now, 0);
        }
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `seen` events in each of `windows`; whether it rests after each.
    #[track_caller]
    fn check(windows: &[(u64, u32)], expected: &[bool]) {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for (&(ms, seen), &rests) in windows.iter().zip(expected) {
            (0..seen).for_each(|_| pace.saw());
            now += Duration::from_millis(ms);
            assert_eq!(pace.rest(now).is_some(), rests, "{seen} events in {ms} ms");
        }
    }

    #[test]
    fn few_commits_are_read_at_once() {
        check(&[(100, 1), (100, 10), (100, 19), (1_000, 190)], &[false; 4]);
    }

    #[test]
    fn many_commits_are_gathered_until_they_are_few() {
        check(&[(100, 20), (100, 500), (100, 19)], &[true, true, false]);
    }

    #[test]
    fn it_rests_longer_for_more_until_they_are_a_request() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let expected = [
            (20, 1_600),
            (50, 4_000),
            (100, 8_000),
            (250, 20_000),
            (320, 20_000),
            (640, 10_000),
            (3_200, 2_000),
        ];
        for (seen, us) in expected {
            (0..seen).for_each(|_| pace.saw());
            now += WINDOW;
            assert_eq!(pace.rest(now), Some(Duration::from_micros(us)), "{seen}");
        }
    }

    #[test]
    fn a_burst_shorter_than_the_window_does_not_count() {
        check(&[(1, 90), (1, 90), (98, 0)], &[false, false, true]);
    }

    #[test]
    fn the_first_after_a_long_silence_is_read_at_once() {
        check(&[(100, 500), (60_000, 1)], &[true, false]);
    }
}
