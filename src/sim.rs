//! The simulator: whole regions in memory, on the shipped core code, from one seed.
//!
//! A run is a script: client transactions, capture steps, deliveries, the applier's
//! steps, crashes, clock steps. While it runs nothing may go wrong (safety); when it
//! has ended, everything is delivered and applied, and all regions must agree
//! (liveness). A script that fails is cut down to the steps that matter and printed.
//!
//! `CAUSEWAY_SIM_SEEDS` is how many seeds to run, `CAUSEWAY_SIM_SEED` a single one.

#![expect(clippy::print_stdout, reason = "a run tells its figures")]

mod client;
mod invariants;
mod oracle;
mod parts;
mod recount;
mod region;
mod repair;
mod schema;
mod script;
mod shrink;
mod world;

use std::collections::BTreeMap;

use crate::mutant::{self, Mutant};
use script::Script;
use world::World;

/// What a run has to say.
#[derive(Debug, Default)]
struct Tally {
    txns: usize,
    conflicts: BTreeMap<&'static str, usize>,
    crashes: usize,
    stale: usize,
    found: usize,
}

/// Runs a script to its end. An error names the invariant that does not hold.
fn run(script: &Script) -> Result<Tally, String> {
    let mut world = World::new(script);
    for step in &script.steps {
        world.step(step)?;
    }
    world.settle()?;
    invariants::check(&world)?;
    Ok(world.tally())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The first seed of these that fails, with what it says.
fn first_failure(seeds: impl Iterator<Item = u64>) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| run(&Script::random(seed)).err().map(|error| (seed, error)))
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.txns += other.txns;
        self.crashes += other.crashes;
        self.stale += other.stale;
        self.found += other.found;
        for (kind, count) in other.conflicts {
            *self.conflicts.entry(kind).or_default() += count;
        }
    }
}

/// Runs every `threads`-th seed from `first` on. A failure is told with its script, cut
/// down.
fn run_each(first: u64, end: u64, threads: usize) -> Result<Tally, String> {
    let mut sum = Tally::default();
    for seed in (first..end).step_by(threads) {
        let script = Script::random(seed);
        match run(&script) {
            Ok(tally) => sum.add(tally),
            Err(error) => {
                let (short, error) = shrink::shrink(&script, error);
                return Err(format!("seed {seed}: {error}\n\n{short}"));
            }
        }
    }
    Ok(sum)
}

#[test]
fn regions_converge() {
    let (first, end) = match number("CAUSEWAY_SIM_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (1, number("CAUSEWAY_SIM_SEEDS").unwrap_or(10_000) + 1),
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut sum = Tally::default();
    std::thread::scope(|scope| {
        let starts = (first..end).take(threads);
        let runs: Vec<_> =
            starts.map(|seed| scope.spawn(move || run_each(seed, end, threads))).collect();
        for run in runs {
            match run.join().expect("no assertion of the core fails") {
                Ok(tally) => sum.add(tally),
                Err(told) => panic!("{told}"),
            }
        }
    });
    let seeds = end - first;
    println!(
        "{} transactions over {seeds} seeds, {} crashes, {} stale batches, {} rows found, conflicts {:?}",
        sum.txns, sum.crashes, sum.stale, sum.found, sum.conflicts
    );
    assert!(
        seeds < 100 || sum.conflicts.len() >= 9 && sum.stale > 0 && 10 * sum.found > sum.txns,
        "the runs are too tame"
    );
}

/// Seeds within which each deliberate bug must show.
const MUTANT_SEEDS: u64 = 400;

#[test]
fn every_mutant_is_found() {
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        mutant::set(Some(mutant));
        let found = std::panic::catch_unwind(|| first_failure(1..MUTANT_SEEDS + 1));
        mutant::set(None);
        match found {
            Ok(Some((seed, error))) => {
                println!("{mutant:?}: seed {seed}: {}", error.lines().next().unwrap_or_default());
            }
            Ok(None) => missed.push(mutant),
            Err(_) => println!("{mutant:?}: an assertion of the core"),
        }
    }
    assert!(missed.is_empty(), "not found within {MUTANT_SEEDS} seeds: {missed:?}");
}
