//! Time: the hybrid logical clock, and the only place that reads the wall clock.
//!
//! Invariants (R8): a stamp never goes back, and what saw another write is later
//! than it. After Kulkarni et al., "Logical Physical Clocks", 2014, with the
//! logical part folded into the microseconds.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::mutant::{self, Mutant};

/// Hybrid logical time, microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(pub u64);

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The wall clock, microseconds since the Unix epoch; 0 before it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// When a source says that a transaction committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitTime {
    /// MySQL 8: microseconds since the Unix epoch.
    Micros(u64),
    /// MariaDB and older MySQL: the whole second it lies in.
    Second(u64),
}

impl CommitTime {
    /// Microseconds; inside a known second the one nearest to `captured_us`.
    #[must_use]
    pub fn near(self, captured_us: u64) -> u64 {
        match self {
            Self::Micros(us) => us,
            Self::Second(second) => {
                let start = second.saturating_mul(1_000_000);
                captured_us.clamp(start, start.saturating_add(999_999))
            }
        }
    }
}

/// What is known of time when a transaction is captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The majority's time, microseconds since the Unix epoch.
    pub trusted_us: u64,
    /// The source database's clock minus the majority's; 0 until it is measured.
    pub source_off_us: i64,
}

/// Gives stamps at one origin.
#[derive(Clone, Debug)]
pub struct Clock {
    last: Hlc,
    offset_us_max: u64,
}

impl Clock {
    /// Goes on after `last`. `offset_us_max`: how far a source's commit time may lie
    /// from the trusted time before it is bounded to it.
    #[must_use]
    pub const fn new(last: Hlc, offset_us_max: u64) -> Self {
        Self { last, offset_us_max }
    }

    /// Takes notice of a stamp seen from a peer: later stamps here are later than it.
    pub fn observe(&mut self, seen: Hlc) {
        if mutant::is(Mutant::ClockIgnoresPeers) {
            return;
        }
        self.last = self.last.max(seen);
    }

    /// When a local transaction committed, in the majority's time. What the source
    /// says is taken as long as its clock is within the limit; a clock beyond it, ahead
    /// or behind, is set right by its measured offset.
    #[must_use]
    pub fn commit_us(&self, commit: CommitTime, now: Now) -> u64 {
        let off = now.source_off_us;
        if off.unsigned_abs() <= self.offset_us_max {
            return commit.near(now.trusted_us);
        }
        let said = commit.near(now.trusted_us.saturating_add_signed(off));
        said.saturating_add_signed(off.saturating_neg())
    }

    /// The stamp of a local transaction: its commit time, never beyond the limit ahead
    /// of the majority's time, and later than all stamps given or seen. One behind is
    /// kept: an old backlog is not a bad clock.
    pub fn stamp(&mut self, commit: CommitTime, now: Now) -> Hlc {
        let latest = now.trusted_us.saturating_add(self.offset_us_max);
        let physical = self.commit_us(commit, now).min(latest);
        self.last = Hlc(physical.max(self.last.0 + 1));
        self.last
    }

    /// The last stamp given or seen.
    #[must_use]
    pub const fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, CommitTime, Hlc, Now};

    fn at(trusted_us: u64) -> Now {
        Now { trusted_us, source_off_us: 0 }
    }

    #[test]
    fn stamps_never_go_back_and_pass_what_was_seen() {
        let mut clock = Clock::new(Hlc(0), 500_000);
        let first = clock.stamp(CommitTime::Micros(10_000_000), at(10_000_000));
        let second = clock.stamp(CommitTime::Micros(9_000_000), at(10_000_001));
        assert!(second > first);
        clock.observe(Hlc(20_000_000));
        assert!(clock.stamp(CommitTime::Micros(10_000_002), at(10_000_003)) > Hlc(20_000_000));
    }

    #[test]
    fn a_commit_time_ahead_is_bounded_before_the_clock_is_measured() {
        let mut clock = Clock::new(Hlc(0), 500_000);
        assert_eq!(clock.stamp(CommitTime::Micros(90_000_000), at(10_000_000)), Hlc(10_500_000));
    }

    #[track_caller]
    fn check_source(commit: CommitTime, source_off_us: i64, wanted: u64) {
        let now = Now { trusted_us: 50_000_000, source_off_us };
        assert_eq!(Clock::new(Hlc(0), 500_000).stamp(commit, now), Hlc(wanted));
    }

    #[test]
    fn a_source_clock_beyond_the_limit_is_set_right_both_ways() {
        check_source(CommitTime::Micros(60_000_000), 10_000_000, 50_000_000);
        check_source(CommitTime::Micros(40_000_000), -10_000_000, 50_000_000);
        check_source(CommitTime::Second(60), 10_000_000, 50_000_000);
        check_source(CommitTime::Second(40), -10_000_000, 50_000_000);
        // A backlog of such a source keeps its age.
        check_source(CommitTime::Micros(35_000_000), -10_000_000, 45_000_000);
        // Within the limit the source's word stands.
        check_source(CommitTime::Micros(49_600_000), -400_000, 49_600_000);
        check_source(CommitTime::Micros(50_400_000), 400_000, 50_400_000);
    }

    #[test]
    fn a_commit_second_takes_the_capture_time_inside_it() {
        assert_eq!(CommitTime::Second(10).near(10_250_000), 10_250_000);
        assert_eq!(CommitTime::Second(10).near(12_000_000), 10_999_999);
    }
}
