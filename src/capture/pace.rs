//! How often capture looks at its connection: at once while commits are few; the more
//! there are, the longer it rests between two looks, so that what comes meanwhile is
//! read, stamped and sent together.
//!
//! The same bargain as a network card's interrupt moderation: each wake-up costs this
//! agent, and as a smaller request also Kafka, about as much for one transaction as for
//! ten. It decides and does not wait itself.

use std::time::Duration;

use tokio::time::Instant;

/// A shorter rest is none: it would not save the wake-up that it costs.
const SHORTEST: Duration = Duration::from_micros(500);
/// The rest grows with the third power of the rate up to so many: a machine with room to
/// spare ships early, and a full one gathers. Of 50 ms at most it is 1.5 ms at 500 a second
/// (less, and the wake-ups add more to the longest lags there), 12 ms at 1,000.
const LONGEST_FROM_PER_S: f64 = 1_600.0;
/// From so many on it gets shorter again: of 50 ms at most it goes on taking 128 events at
/// once, and more of them save little.
const LONGEST_TO_PER_S: f64 = 2_560.0;
/// The rate is taken over at least this long, so that a burst of a few is none.
const WINDOW: Duration = Duration::from_millis(100);

/// What was seen of the rate.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    seen: u32,
    longest: Duration,
    rest: Option<Duration>,
}

impl Pace {
    /// It rests `longest` at most, and not at all where that is zero.
    pub(super) fn new(now: Instant, longest: Duration) -> Self {
        Self { since: now, seen: 0, longest, rest: None }
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
            let full = per_s / LONGEST_FROM_PER_S;
            let part = full.powi(3).min(LONGEST_TO_PER_S / per_s).min(1.0);
            let rest = self.longest.mul_f64(part);
            self.rest = (rest >= SHORTEST).then_some(rest);
            (self.since, self.seen) = (now, 0);
        }
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(50);

    /// `seen` events in each of `windows`; whether it rests after each.
    #[track_caller]
    fn check(windows: &[(u64, u32)], expected: &[bool]) {
        let mut now = Instant::now();
        let mut pace = Pace::new(now, LONGEST);
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
        check(&[(100, 50), (100, 500), (100, 19)], &[true, true, false]);
    }

    #[test]
    fn it_rests_longer_for_more_until_they_are_a_request() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now, LONGEST);
        let mut patient = Pace::new(now, LONGEST * 2);
        let mut never = Pace::new(now, Duration::ZERO);
        let expected = [
            (32, 400),
            (64, 3_200),
            (80, 6_250),
            (160, 50_000),
            (256, 50_000),
            (512, 25_000),
            (2_560, 5_000),
        ];
        for (seen, us) in expected {
            now += WINDOW;
            for (pace, rest) in [(&mut pace, us), (&mut patient, us * 2), (&mut never, 0)] {
                (0..seen).for_each(|_| pace.saw());
                let expected = Some(Duration::from_micros(rest)).filter(|rest| *rest >= SHORTEST);
                assert_eq!(pace.rest(now), expected, "{seen}");
            }
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
