//! Repairs (`causeway verify --repair`) among the steps of a run.
//!
//! A repair is modelled at the moment of its commit: both regions know the same writes of
//! the row and show the same, so what it writes is what stands. What matters is what it
//! leaves behind it: nothing that is shipped, and no stamp of its own (TRAPS 26).

use super::client::change;
use super::region::{Entry, Key, Region};
use super::schema::{self, ID};
use super::script::{Rng, Script};
use super::world::World;
use super::{MUTANT_SEEDS, invariants};
use crate::change::{Dot, RecordBody, TableChange};
use crate::mutant::{self, Mutant};

/// Seeds of the run without a bug.
const SEEDS: u64 = 100;

fn touches(changes: &[TableChange], (name, id): Key) -> bool {
    changes.iter().any(|change| {
        let rows = change.rows.iter().flat_map(|row| [&row.before, &row.after]).flatten();
        schema::of(&change.table) == name
            && rows.into_iter().any(|row| schema::int(row, ID) == Some(id))
    })
}

impl Region {
    /// Whether every write of the row that this region made has reached `other`.
    fn row_reached(&self, key: Key, other: &Self) -> bool {
        let uncaptured = self.binlog[self.agent.captured..]
            .iter()
            .any(|entry| matches!(entry, Entry::Local { changes, .. } if touches(changes, key)));
        let mut writes = self.log.iter().filter_map(|record| {
            let RecordBody::Transaction(txn) = &record.body else { return None };
            let dot = Dot { origin: record.origin, seq: record.seq };
            touches(&txn.changes, key).then_some(dot)
        });
        !uncaptured && writes.all(|dot| dot.origin == other.id || other.applied.covers(dot))
    }

    fn repair(&mut self, key: Key, now_us: u64) {
        self.binlog.push(if mutant::is(Mutant::RepairFreshStamp) {
            let row = self.rows.get(&key).cloned();
            let changes = vec![change(key.0, row.clone(), row)];
            let commit_us = now_us.saturating_add_signed(self.skew_us);
            let seen = self.applied.clone();
            Entry::Local { changes, commit_us, seen, repair: true }
        } else {
            Entry::Applied { marks: Vec::new() }
        });
    }
}

/// Repairs a row of one region from another where a repair would commit.
fn repair(world: &mut World, rng: &mut Rng) -> bool {
    let indices: Vec<usize> = (0..world.regions.len()).collect();
    let (to, from) = (rng.pick(&indices), rng.pick(&indices));
    let keys: Vec<Key> = world.regions[to].rows.keys().copied().collect();
    if to == from || keys.is_empty() {
        return false;
    }
    let key = rng.pick(&keys);
    let (here, there) = (&world.regions[to], &world.regions[from]);
    let reached = |region: &Region| region.row_reached(key, here) && region.row_reached(key, there);
    let goes = world.regions.iter().all(reached)
        && here.rows.get(&key) == there.rows.get(&key)
        && !here.locked().contains(&key);
    if goes {
        let now_us = world.now_us;
        world.regions[to].repair(key, now_us);
    }
    goes
}

/// Runs a script with repairs between its steps; gives how many there were.
fn run(seed: u64) -> Result<usize, String> {
    let script = Script::random(seed);
    let (mut world, mut rng) = (World::new(&script), Rng(!seed));
    let mut repairs = 0;
    for step in &script.steps {
        world.step(step)?;
        if rng.below(8) == 0 {
            repairs += usize::from(repair(&mut world, &mut rng));
        }
    }
    world.settle()?;
    invariants::check(&world)?;
    Ok(repairs)
}

#[test]
fn repairs_change_nothing_for_the_writes_around_them() {
    let mut repairs = 0;
    for seed in 1..=SEEDS {
        repairs += run(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(repairs > 100, "only {repairs} repairs went");
}

#[test]
fn a_repair_with_a_fresh_stamp_is_found() {
    mutant::set(Some(Mutant::RepairFreshStamp));
    let found = std::panic::catch_unwind(|| (1..=MUTANT_SEEDS).find(|&seed| run(seed).is_err()));
    mutant::set(None);
    println!("RepairFreshStamp: seed {found:?}");
    assert!(!matches!(found, Ok(None)), "not found within {MUTANT_SEEDS} seeds");
}
