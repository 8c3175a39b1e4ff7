//! What a link may take from the inbox of another region, while the outbox itself can't
//! be reached. Decisions alone.
//!
//! Every inbox is the outbox, record by record, each with its offset there. So that
//! offset is the one measure of all copies: what follows in one inbox is what follows in
//! any other, byte for byte, and an inbox that was filled from another is the same as one
//! filled from the outbox. The record that both end on is compared before anything is
//! taken: where it differs, one of the two was copied from a log that its Kafka has lost
//! since.
//!
//! An inbox may hold copies twice, also some that come late, but the first copy of each
//! record stands behind the first copy of the one before it.

/// How long the outbox must have been silent.
pub(super) const SILENT_MIN_US: u64 = 5_000_000;

/// How long it takes at least until the inboxes are asked again.
pub(super) const LOOK_EVERY_US: u64 = 5_000_000;

/// How long an inbox that could not be copied is left alone.
pub(super) const SHUN_US: u64 = 30_000_000;

/// How long an inbox that gives nothing is followed while somebody waits.
pub(super) const IDLE_MAX_US: u64 = 5_000_000;

/// Whether the inboxes of others are to be asked: somebody waits for what the outbox
/// holds, it has been silent since then, and they were last asked then.
pub(super) fn is_due(
    needed: bool,
    silent_since_us: Option<u64>,
    looked_us: Option<u64>,
    now_us: u64,
) -> bool {
    let passed = |since: u64, least: u64| now_us.saturating_sub(since) >= least;
    needed
        && silent_since_us.is_some_and(|since| passed(since, SILENT_MIN_US))
        && looked_us.is_none_or(|at| passed(at, LOOK_EVERY_US))
}

/// Of inboxes that end at these offsets of the outbox, the one that has most of what
/// follows `last`. Only what has more is ever taken, so of two regions that look at each
/// other one copies at most.
pub(super) fn best(last: Option<i64>, ends: &[Option<i64>]) -> Option<usize> {
    let more = ends.iter().enumerate().filter(|(_, end)| **end > last);
    more.max_by_key(|(n, end)| (**end, std::cmp::Reverse(*n))).map(|(n, _)| n)
}

/// Where a record of the source stands to what the inbox here holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is here.
    Held,
    /// It is the next.
    Next,
    /// Something between is missing.
    Beyond,
}

/// The step to the record at that offset of the outbox, from the last one taken.
pub(super) const fn step(at: i64, last: Option<i64>) -> Step {
    match last {
        Some(last) if at <= last => Step::Held,
        Some(last) if at > last + 1 => Step::Beyond,
        Some(_) | None => Step::Next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inbox_that_has_most_is_taken() {
        assert_eq!(best(Some(5), &[Some(7), Some(9), None, Some(9)]), Some(1));
        assert_eq!(best(Some(9), &[Some(7), Some(9), None]), None, "none has more");
        assert_eq!(best(None, &[None, Some(0)]), Some(1), "an empty one takes any");
        assert_eq!(best(None, &[None]), None);
        assert_eq!(best(Some(1), &[]), None);
    }

    #[test]
    fn inboxes_are_asked_once_somebody_waits_for_a_silent_outbox() {
        let at = 100_000_000;
        let late = at - SILENT_MIN_US;
        assert!(is_due(true, Some(late), None, at));
        assert!(!is_due(false, Some(late), None, at), "nobody waits");
        assert!(!is_due(true, None, None, at), "it answers");
        assert!(!is_due(true, Some(late + 1), None, at), "a short silence");
        assert!(!is_due(true, Some(late), Some(at - 1), at), "asked just before");
        assert!(is_due(true, Some(late), Some(at - LOOK_EVERY_US), at));
    }

    #[test]
    fn only_the_next_record_is_taken() {
        let got: Vec<_> = (3..7).map(|at| step(at, Some(4))).collect();
        assert_eq!(got, [Step::Held, Step::Held, Step::Next, Step::Beyond]);
        assert_eq!(step(700, None), Step::Next, "an empty inbox begins anywhere");
    }
}
