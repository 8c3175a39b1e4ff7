//! What a part of the logs tells of a row, long after, is what the row shows, or it is not
//! told: by this `causeway verify --repair` decides which region's row stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::oracle;
use super::parts;
use super::region::Key;
use super::schema::{self, Name};
use super::script::Script;
use super::world::World;
use crate::change::{Dot, RecordBody, Vector};
use crate::clock::Hlc;
use crate::resolve::{Extent, Gather, Incoming, Recounted, Rulebook, Untold};
use crate::version::RowKey;

/// Where the logs are read from, in quarters of their length; region by region another.
const FROM: [[usize; 5]; 4] = [[0; 5], [1; 5], [2, 1, 3, 2, 1], [3; 5]];

/// Seeds.
const SEEDS: u64 = 350;

/// Counts by table the rows that are told, and fails when one is told wrong.
fn check(world: &World, told_of: &mut BTreeMap<Name, usize>) -> Result<(), String> {
    let keys: Vec<Key> = oracle::history(world).keys().copied().collect();
    for from in FROM {
        for (&key, told) in keys.iter().zip(told(world, &keys, from)) {
            let Ok(told) = told else { continue };
            let held = world.regions[0].rows.get(&key);
            if told.row.as_ref() != held {
                return Err(format!("{key:?} is {held:?}, and logs from {from:?} tell {told:?}"));
            }
            if from != FROM[0] {
                *told_of.entry(key.0).or_default() += 1;
            }
        }
    }
    Ok(())
}

fn row_key((name, id): Key) -> RowKey {
    let row = schema::row([Some(id), None, None, None, None]);
    RowKey::of(&name.table(), &[0], &row).expect("a number is a key")
}

/// What the logs tell of each row when they are read from there.
fn told(world: &World, keys: &[Key], from: [usize; 5]) -> Vec<Result<Recounted, Untold>> {
    let (book, mut gather) = (schema::book(), Gather::default());
    for &key in keys {
        gather.want(row_key(key));
    }
    let extent = read(world, from, &book, &mut gather);
    if gather.look_beside() {
        read(world, from, &book, &mut gather);
    }
    let recount = gather.finish();
    let each = keys.iter().map(|&key| recount.row(&key.0.policy(), row_key(key), &extent));
    each.collect()
}

fn read(world: &World, from: [usize; 5], book: &Rulebook, gather: &mut Gather) -> Extent {
    let (mut floor, mut covered) = (Vector::default(), Hlc(0));
    for (region, quarters) in world.regions.iter().zip(from) {
        // What stands before the first record that is read says what is not known.
        let start = region.log.len() * quarters / 4;
        if let Some(before) = start.checked_sub(1).map(|at| &region.log[at]) {
            floor.raise(before.origin, before.seq);
            covered = covered.max(before.hlc);
        }
        for record in &region.log[start..] {
            let RecordBody::Transaction(txn) = &record.body else { continue };
            let incoming = Incoming {
                dot: Dot { origin: record.origin, seq: record.seq },
                hlc: record.hlc,
                deps: &Arc::new(record.deps.clone()),
                gtid: "",
                changes: &txn.changes,
            };
            gather.take(&"".into(), parts::picked(book, &incoming, gather));
        }
    }
    Extent { floor, covered }
}

#[test]
fn a_part_of_the_logs_tells_rows_of_every_policy_as_they_are() {
    let mut told_of = BTreeMap::new();
    for seed in 1..=SEEDS {
        let script = Script::random(seed);
        let mut world = World::new(&script);
        let run = script.steps.iter().try_for_each(|step| world.step(step));
        let done = run.and_then(|()| world.settle()).and_then(|()| check(&world, &mut told_of));
        done.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(schema::ALL.iter().all(|name| told_of.get(name) > Some(&20)), "{told_of:?}");
}
