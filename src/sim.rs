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
mod region;
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

#[test]
fn regions_converge() {
    mutant::set(None);
    let seeds = match number("CAUSEWAY_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("CAUSEWAY_SIM_SEEDS").unwrap_or(400) + 1,
    };
    let mut sum = Tally::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let script = Script::random(seed);
        match run(&script) {
            Ok(tally) => {
                sum.txns += tally.txns;
                sum.crashes += tally.crashes;
                sum.stale += tally.stale;
                for (kind, n) in tally.conflicts {
                    *sum.conflicts.entry(kind).or_default() += n;
                }
            }
            Err(error) => {
                let (short, error) = shrink::shrink(&script, error);
                panic!("seed {seed}: {error}\n\n{short}");
            }
        }
    }
    println!(
        "{} transactions over {count} seeds, {} crashes, {} stale batches, conflicts {:?}",
        sum.txns, sum.crashes, sum.stale, sum.conflicts
    );
    assert!(count < 100 || sum.conflicts.len() >= 9 && sum.stale > 0, "the runs are too tame");
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
