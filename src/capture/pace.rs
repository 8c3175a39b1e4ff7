//! How often capture looks at its connection: at once while commits are few; while they
//! are many it rests between two looks, so that what comes meanwhile is read, stamped
//! and sent together.
//!
//! The same bargain as a network card's interrupt moderation: each wake-up costs this
//! agent, and as a smaller request also Kafka, about as much for one transaction as for
//! ten. It decides and does not wait itself.

use std::time::Duration;

use tokio::time::Instant;

/// From so many events a second on they are many. Below it a wake-up for each costs
/// less than a tenth of a core.
const MANY_PER_S: u32 = 1_000;
/// How long capture rests: what it may add to the lag.
const REST: Duration = Duration::from_millis(2);
/// The rate is taken over at least this long, so that a burst of a few is none.
const WINDOW: Duration = Duration::from_millis(100);

/// What was seen of the rate.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    seen: u32,
    many: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, seen: 0, many: false }
    }

    /// A transaction, or a part of one, was read.
    pub(super) fn saw(&mut self) {
        self.seen = self.seen.saturating_add(1);
    }

    /// How long to rest when nothing is left to read; `None`: not at all.
    pub(super) fn rest(&mut self, now: Instant) -> Option<Duration> {
        let past = now.saturating_duration_since(self.since);
        if past >= WINDOW {
            self.many = f64::from(self.seen) >= f64::from(MANY_PER_S) * past.as_secs_f64();
            (self.since, self.seen) = (now, 0);
        }
        self.many.then_some(REST)
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
        check(&[(100, 1), (100, 50), (100, 99), (1_000, 900)], &[false; 4]);
    }

    #[test]
    fn many_commits_are_gathered_until_they_are_few() {
        check(&[(100, 100), (100, 500), (100, 99)], &[true, true, false]);
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
