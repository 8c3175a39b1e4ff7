//! How far a region is behind an origin, by the comparer's own clock.

use std::collections::VecDeque;
use std::time::Duration;

use crate::change::Seq;

/// One sample for each so much time.
const EVERY: Duration = Duration::from_millis(50);
/// At most so many: over it the oldest go, and the lag reads shorter than it is.
const SAMPLES_MAX: usize = 8_192;

/// When each transaction of one origin was first seen in its outbox. Times are those
/// since the start of the comparison.
#[derive(Clone, Debug, Default)]
pub struct Lag {
    seen: VecDeque<(Seq, Duration)>,
    last: Seq,
}

impl Lag {
    /// The outbox holds everything up to `seq`.
    pub fn saw(&mut self, seq: Seq, now: Duration) {
        if seq <= self.last {
            return;
        }
        self.last = seq;
        match self.seen.back() {
            // The sample keeps its time: what it stands for has waited since then.
            Some((_, at)) if now.saturating_sub(*at) < EVERY => {
                let (held, _) = self.seen.back_mut().expect("there is a last one");
                *held = seq;
            }
            _ => self.seen.push_back((seq, now)),
        }
        if self.seen.len() > SAMPLES_MAX {
            self.seen.pop_front();
        }
    }

    /// The highest seq seen.
    #[must_use]
    pub const fn last(&self) -> Seq {
        self.last
    }

    /// How long the oldest transaction after `applied` has been waiting.
    #[must_use]
    pub fn behind(&self, applied: Seq, now: Duration) -> Duration {
        let waiting = self.seen.iter().find(|(seq, _)| *seq > applied);
        waiting.map_or(Duration::ZERO, |(_, at)| now.saturating_sub(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_the_age_of_the_oldest_that_waits() {
        let ms = Duration::from_millis;
        let mut lag = Lag::default();
        assert_eq!(lag.behind(Seq(0), ms(9)), ms(0));
        lag.saw(Seq(10), ms(100));
        lag.saw(Seq(11), ms(120));
        lag.saw(Seq(20), ms(300));
        lag.saw(Seq(20), ms(900));
        assert_eq!(lag.behind(Seq(20), ms(1_000)), ms(0));
        assert_eq!(lag.behind(Seq(11), ms(1_000)), ms(700));
        assert_eq!(lag.behind(Seq(10), ms(1_000)), ms(900));
    }
}
