//! All regions, the way between them, and the true time.

use std::collections::BTreeMap;

use super::region::Region;
use super::script::{Script, Step};
use super::{Tally, client, invariants};
use crate::change::RegionId;

/// Rounds after which everything must have been applied.
const ROUNDS_MAX: usize = 2_000;

pub(super) struct World {
    pub(super) regions: Vec<Region>,
    pub(super) now_us: u64,
}

impl World {
    pub(super) fn new(script: &Script) -> Self {
        let ids: Vec<RegionId> = (1..=script.regions)
            .map(|n| RegionId::new(u8::try_from(n).expect("small")).expect("small"))
            .collect();
        let peers = |me: RegionId| ids.iter().copied().filter(|&id| id != me).collect();
        let regions = ids.iter().map(|&id| Region::new(id, peers(id))).collect();
        Self { regions, now_us: 1_000 }
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), String> {
        let now_us = self.now_us;
        match step {
            Step::Commit { region, ops } => client::commit(&mut self.regions[*region], ops, now_us),
            Step::Capture { region } => self.regions[*region].capture(now_us),
            Step::Deliver { from, to, again } => self.deliver(*from, *to, *again),
            Step::Plan { region, txns } => self.regions[*region].plan(*txns, now_us)?,
            Step::Apply { region, txns } => {
                self.regions[*region].plan(*txns, now_us)?;
                self.regions[*region].write();
                self.regions[*region].finish()?;
            }
            Step::Write { region } => self.regions[*region].write(),
            Step::Finish { region } => self.regions[*region].finish()?,
            Step::Crash { region } => self.regions[*region].crash(),
            Step::Beat { region } => self.regions[*region].beat(),
            Step::Calm => {
                self.settle()?;
                invariants::check(self)?;
            }
            Step::Wait { us } => self.now_us += us,
            Step::Skew { region, us } => self.regions[*region].skew_us = *us,
        }
        Ok(())
    }

    /// `again`: a link that was started anew copies its last record once more.
    fn deliver(&mut self, from: usize, to: usize, again: bool) {
        let source = self.regions[from].id;
        let received = self.regions[to].received(source);
        let again = again && received > 0;
        let at = if again { received - 1 } else { received };
        if let Some(record) = self.regions[from].log.get(at).cloned() {
            self.regions[to].receive(record, !again);
        }
    }

    /// Delivers and applies everything, until nothing is left.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        let count = self.regions.len();
        for round in 0..ROUNDS_MAX {
            self.now_us += 1;
            for region in &mut self.regions {
                region.capture(self.now_us);
                region.plan(1 + round % 4, self.now_us)?;
                region.write();
                region.finish()?;
            }
            let mut moved = false;
            for from in 0..count {
                for to in (0..count).filter(|&to| to != from) {
                    moved |= self.lags(from, to);
                    self.deliver(from, to, false);
                }
            }
            if !moved && self.regions.iter().all(Region::is_quiet) {
                let lens = self.regions.iter().map(|region| (region.id, region.log_seq()));
                let lens: BTreeMap<_, _> = lens.collect();
                let all = self.regions.iter().all(|region| region.has_all(&lens));
                if all {
                    return Ok(());
                }
            }
        }
        Err("the streams do not come to an end".to_owned())
    }

    fn lags(&self, from: usize, to: usize) -> bool {
        let source = &self.regions[from];
        self.regions[to].received(source.id) < source.log.len()
    }

    /// The furthest that any stamp was ahead of the true time.
    pub(super) fn ahead_us(&self) -> u64 {
        self.regions.iter().map(|region| region.ahead_us).max().unwrap_or(0)
    }

    pub(super) fn txns(&self) -> usize {
        self.regions.iter().map(|region| region.truth.len()).sum()
    }

    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally { txns: self.txns(), ..Tally::default() };
        for region in &self.regions {
            tally.crashes += region.crashes;
            tally.stale += region.stale;
            tally.found += region.found;
            for conflict in &region.conflicts {
                *tally.conflicts.entry(conflict.kind.name()).or_default() += 1;
            }
        }
        tally
    }
}
