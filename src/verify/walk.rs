//! One table from its first key to its last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::fence::Passed;
use super::{Run, VerifyError};
use crate::compare::{Class, Difference, Key, Plan, Range, Seen, Sight, Suspect, Verdict};

/// A range of at most so many rows is listed row by row.
const LIST_ROWS: u64 = 4_000;
/// A larger one is split into so many.
const SPLIT: u64 = 8;
/// Rows looked at again in one statement.
const LOOK_ROWS: usize = 100;
/// Suspects in hand; when there are more they are settled before the table is read on.
const SUSPECTS_MAX: usize = 5_000;
/// A row that was written again at each of so many looks is busy.
const LOOKS_MAX: u32 = 10;
/// The same when the looks have taken as long as the streams may.
const LOOKS_MIN: u32 = 3;
/// Between two looks at a lag that is too great.
const LAG_PAUSE: Duration = Duration::from_millis(250);

impl Run<'_> {
    /// Reads the table on from the cursor.
    pub(super) async fn walk(&mut self, plan: &Plan, leader: usize) -> Result<(), VerifyError> {
        if self.cursor().read {
            return self.settle(plan).await;
        }
        let mut range = Range { after: self.cursor().after.clone(), through: None };
        let rows = self.cursor().rows.get();
        range.through = self.peers[leader].boundary(&plan.boundary(&range, rows)).await?;
        loop {
            self.throttle().await?;
            if self.stop.is_cancelled() {
                return Ok(());
            }
            let began = Instant::now();
            let (sums, next) = self.chunk(plan, leader, &range).await?;
            let took = began.elapsed();
            let rows = sums.iter().map(|(rows, _)| *rows).max().unwrap_or(0);
            if differ(&sums) {
                self.narrow(plan, range.clone(), sums).await?;
            }
            if self.stop.is_cancelled() {
                return Ok(());
            }
            let report = self.report();
            report.rows += rows;
            report.chunks += 1;
            self.rows_here += rows;
            let last = range.through.is_none();
            let cursor = self.cursor();
            cursor.rows.took(rows, took);
            cursor.after.clone_from(&range.through);
            cursor.read = last;
            if last || self.cursor().suspects.len() >= SUSPECTS_MAX {
                self.settle(plan).await?;
            }
            self.progress(None);
            self.keep_now_and_then()?;
            if last {
                return Ok(());
            }
            if self.has_enough() {
                let most = self.config.differences_max;
                self.report().not_compared =
                    Some(format!("more than {most} differences: its rest was not read"));
                return Ok(());
            }
            range = Range { after: range.through, through: next };
            self.pace(rows, began).await;
        }
    }

    /// Waits as long as so many rows may take.
    async fn pace(&mut self, rows: u64, began: Instant) {
        let Some(pace) = self.config.rows_per_second else { return };
        let due = rows.saturating_mul(1_000_000) / u64::from(pace.max(1));
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep_until((began + Duration::from_micros(due)).into()) => {}
        }
    }

    /// The sums of a chunk in every region, and the end of the next chunk.
    async fn chunk(
        &mut self,
        plan: &Plan,
        leader: usize,
        range: &Range,
    ) -> Result<(Vec<(u64, u64)>, Option<Key>), VerifyError> {
        let rows = self.cursor().rows.get();
        let sum = plan.sum(range);
        let ahead = range
            .through
            .is_some()
            .then(|| plan.boundary(&Range { after: range.through.clone(), through: None }, rows));
        let peers = self.peers.iter_mut().enumerate().map(|(n, peer)| {
            let ahead = ahead.as_deref().filter(|_| n == leader);
            peer.sum_and_boundary(&sum, ahead)
        });
        let (sums, mut ends): (Vec<_>, Vec<_>) = try_join_all(peers).await?.into_iter().unzip();
        Ok((sums, ends.swap_remove(leader)))
    }

    /// Finds the rows that differ in a range whose sums do.
    async fn narrow(
        &mut self,
        plan: &Plan,
        range: Range,
        sums: Vec<(u64, u64)>,
    ) -> Result<(), VerifyError> {
        let mut ranges = vec![(range, sums)];
        while let Some((range, sums)) = ranges.pop() {
            let counts = sums.iter().map(|(rows, _)| *rows).enumerate();
            let (leader, rows) = counts.max_by_key(|(_, rows)| *rows).unwrap_or_default();
            if rows <= LIST_ROWS {
                self.list(plan, &range).await?;
            } else {
                ranges.extend(self.split(plan, leader, &range, rows).await?);
            }
            if self.cursor().suspects.len() >= SUSPECTS_MAX {
                self.settle(plan).await?;
            }
            if self.has_enough() || self.stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    /// The parts of a range whose sums differ.
    async fn split(
        &mut self,
        plan: &Plan,
        leader: usize,
        range: &Range,
        rows: u64,
    ) -> Result<Vec<(Range, Vec<(u64, u64)>)>, VerifyError> {
        let mut found = Vec::new();
        let mut rest = range.clone();
        loop {
            let sql = plan.boundary(&rest, rows.div_ceil(SPLIT));
            let end = self.peers[leader].boundary(&sql).await?;
            let last = end.is_none();
            let through = end.or_else(|| range.through.clone());
            let part = Range { after: rest.after, through };
            let sql = plan.sum(&part);
            let sums = try_join_all(self.peers.iter_mut().map(|peer| peer.sum(&sql))).await?;
            rest = Range { after: part.through.clone(), through: range.through.clone() };
            if differ(&sums) {
                found.push((part, sums));
            }
            if last {
                return Ok(found);
            }
        }
    }

    /// Notes the rows of a small range that differ.
    async fn list(&mut self, plan: &Plan, range: &Range) -> Result<(), VerifyError> {
        let sql = plan.list(range);
        let lists = try_join_all(self.peers.iter_mut().map(|peer| peer.list(&sql))).await?;
        let regions = lists.len();
        let mut rows: BTreeMap<Key, Vec<Option<Vec<u8>>>> = BTreeMap::new();
        for (n, list) in lists.into_iter().enumerate() {
            for Seen { key, hash } in list {
                rows.entry(key).or_insert_with(|| vec![None; regions])[n] = Some(hash);
            }
        }
        let differs = |hashes: &Vec<Option<Vec<u8>>>| hashes.windows(2).any(|two| two[0] != two[1]);
        let suspects = rows.into_iter().filter(|(_, hashes)| differs(hashes));
        self.cursor().suspects.extend(suspects.map(|(key, _)| key));
        Ok(())
    }

    fn has_enough(&mut self) -> bool {
        let most = self.config.differences_max;
        self.report().differences.len() >= most
    }

    /// Looks at the suspects again until each has shown what it is. What a stop
    /// interrupts is left as it was.
    async fn settle(&mut self, plan: &Plan) -> Result<(), VerifyError> {
        let keys = self.cursor().suspects.clone();
        let mut left: Vec<_> = keys.into_iter().map(Suspect::new).collect();
        let (mut in_flight, mut found) = (0, Vec::new());
        let (mut busy, began) = (0, Instant::now());
        for looks in 1.. {
            let (passed, differ);
            (left, differ, passed) = self.look(plan, left).await?;
            in_flight += passed;
            found.extend(differ.into_iter().map(|sight| (sight.class(), sight)));
            let slow = looks >= LOOKS_MIN && began.elapsed() >= self.config.patience;
            if slow || looks >= LOOKS_MAX {
                let seen = left.len();
                left.retain(|suspect| !suspect.is_moving());
                busy += u64::try_from(seen - left.len()).unwrap_or(u64::MAX);
            }
            if left.is_empty() {
                break;
            }
            self.progress(Some(format!("settling {} rows", left.len())));
            match self.streams.pass(&mut self.peers, self.config.patience, &self.stop).await? {
                Passed::Yes => {}
                Passed::Stopped => return Ok(()),
                Passed::No(why) => {
                    tracing::warn!(%why, "rows that differ can't be told from rows in flight");
                    self.report().unsettled = Some(why);
                    let sights = left.iter().filter_map(Suspect::sight).cloned();
                    found.extend(sights.map(|sight| (Class::Unsettled, sight)));
                    break;
                }
            }
        }
        for (class, sight) in found {
            self.note(plan, class, &sight).await?;
        }
        let report = self.report();
        report.in_flight += in_flight;
        report.busy += busy;
        self.cursor().suspects.clear();
        Ok(())
    }

    /// One look at all of them: who is to be looked at again, what differs for good,
    /// and how many are equal.
    async fn look(
        &mut self,
        plan: &Plan,
        suspects: Vec<Suspect>,
    ) -> Result<(Vec<Suspect>, Vec<Sight>, u64), VerifyError> {
        let (mut again, mut differ, mut equal) = (Vec::new(), Vec::new(), 0);
        // Two spellings of a key are one row.
        let mut rows = BTreeSet::new();
        let mut suspects = suspects.into_iter().peekable();
        while suspects.peek().is_some() {
            let some: Vec<_> = suspects.by_ref().take(LOOK_ROWS).collect();
            let sql = plan.look(some.iter().map(|suspect| &suspect.key));
            let looks = try_join_all(self.peers.iter_mut().map(|peer| peer.look(&sql))).await?;
            for (n, mut suspect) in some.into_iter().enumerate() {
                let sight = Sight(looks.iter().map(|seen| seen.get(&n).cloned()).collect());
                if !sight.key().is_none_or(|key| rows.insert(key.clone())) {
                    continue;
                }
                match suspect.look(sight.clone()) {
                    Verdict::InFlight => equal += 1,
                    Verdict::Differs => differ.push(sight),
                    Verdict::Again => again.push(suspect),
                }
            }
        }
        Ok((again, differ, equal))
    }

    /// Puts a difference into the report, once.
    async fn note(&mut self, plan: &Plan, class: Class, sight: &Sight) -> Result<(), VerifyError> {
        let Some(key) = sight.key() else { return Ok(()) };
        let sql = plan.row(key);
        let rows = try_join_all(self.peers.iter_mut().map(|peer| peer.row(&sql))).await?;
        let regions = self.state.report.regions.clone();
        let difference = Difference::new(class, plan, &regions, sight, &rows, self.config.values);
        let report = self.report();
        if !report.differences.iter().any(|known| known.key == difference.key) {
            report.differences.push(difference);
        }
        Ok(())
    }

    /// Waits while a region is too far behind, so that the comparison is not in the
    /// way of its catching up.
    async fn throttle(&mut self) -> Result<(), VerifyError> {
        while let Some(who) = self.streams.laggard(&mut self.peers, self.config.lag_max).await? {
            self.progress(Some(who));
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(LAG_PAUSE) => {}
            }
        }
        Ok(())
    }
}

fn differ(sums: &[(u64, u64)]) -> bool {
    sums.windows(2).any(|two| two[0] != two[1])
}
