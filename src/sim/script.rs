//! A run as data: drawn from a seed, cut down by [`super::shrink`], printed as it is.

use std::fmt;

use super::schema::{A, ALL, Name, U};

/// A small random generator (SplitMix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n` - 1.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).expect("an index fits")]
    }
}

/// What a client does to a row; a step that its database refuses is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Inserts, or updates: `a`, `b`, an increment of `n`, and `u` (0 is NULL, -1 as it is).
    Write {
        table: Name,
        id: i64,
        a: Option<i64>,
        b: Option<i64>,
        n: i64,
        u: i64,
    },
    Delete {
        table: Name,
        id: i64,
    },
    /// Gives the row another key.
    Move {
        table: Name,
        id: i64,
        to: i64,
    },
    /// Two rows change their unique values for each other's.
    Swap {
        id: i64,
        with: i64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A client's transaction commits in a region's database.
    Commit { region: usize, ops: Vec<Op> },
    /// Capture takes what the database committed next.
    Capture { region: usize },
    /// A record of `from` reaches `to`; `again` one that it has already.
    Deliver { from: usize, to: usize, again: bool },
    /// The applier plans a batch of at most so many transactions.
    Plan { region: usize, txns: usize },
    /// It writes the batch: the rows are locked from here on.
    Write { region: usize },
    /// All three at once.
    Apply { region: usize, txns: usize },
    /// It looks again, and commits or takes the batch back.
    Finish { region: usize },
    /// The agent dies and starts anew.
    Crash { region: usize },
    /// An idle region says what it has seen.
    Beat { region: usize },
    /// Time passes.
    Wait { us: u64 },
    /// A region's clock is set.
    Skew { region: usize, us: i64 },
    /// The faults end for a while: everything arrives, and all must agree.
    Calm,
}

#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) regions: usize,
    pub(super) steps: Vec<Step>,
}

/// Client transactions of a script.
const TXNS: usize = 120;

/// Client transactions between two calms, where there are any.
const CALM_TXNS: usize = 15;

/// What a run is like.
struct Course {
    regions: u64,
    tables: Vec<Name>,
    keys: u64,
    /// How eager the agents are.
    busy: u64,
    /// For how many draws a pair is cut off.
    lasts: u64,
    /// Operations of the least transaction.
    ops: u64,
    /// The records of a link come in lumps.
    lumps: bool,
}

impl Course {
    fn random(rng: &mut Rng) -> Self {
        let regions = 3 + rng.below(3);
        // Few tables at a time, so that their rows meet often.
        let mut tables: Vec<Name> = (0..2).map(|_| rng.pick(&ALL)).collect();
        for n in 0..tables.len() {
            let parents = tables[n].references();
            if !parents.is_empty() {
                tables.push(rng.pick(parents).1);
            }
        }
        let (ops, lasts, lumps) = (1, 40, false);
        match rng.below(12) {
            // The agents are eager while one pair is cut off for long: what the others
            // know is stable, and forgotten, while a few writes stay open.
            0..4 => {
                let (keys, busy) = (4 + rng.below(9), 4 + rng.below(5));
                Self { regions, tables, keys, busy, lasts: 400, ops, lumps }
            }
            // With a write comes, in one batch, what makes stable all that it is concurrent
            // with; what is wrong from then on shows before the rows are written again.
            4 | 5 => {
                let tables = vec![Name::Atomic, rng.pick(&[Name::Atomic, Name::AtomicToo])];
                let (keys, busy) = (6 + rng.below(8), 8);
                Self { regions: 3, tables, keys, busy, lasts: 400, ops: 2, lumps: true }
            }
            _ => {
                let (keys, busy) = (1 + rng.below(4), 1 + rng.below(4));
                Self { regions, tables, keys, busy, lasts, ops, lumps }
            }
        }
    }
}

impl Script {
    pub(super) fn random(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let course = Course::random(&mut rng);
        let index = |n: u64| usize::try_from(n).expect("small");
        let mut steps = Vec::new();
        let (mut txns, mut calm, mut journal) = (0, 0, 0);
        let mut cut = None;
        while txns < TXNS {
            let region = index(rng.below(course.regions));
            let to = index((region as u64 + 1 + rng.below(course.regions - 1)) % course.regions);
            if rng.below(course.lasts) == 0 {
                cut = (rng.below(2) == 0).then_some((region, to));
            }
            if course.lumps && txns == calm + CALM_TXNS {
                calm = txns;
                steps.push(Step::Calm);
            }
            let step = match rng.below(16 + 12 * course.busy) {
                0..8 => {
                    txns += 1;
                    let count = course.ops + rng.below(4 - course.ops);
                    let mut op = || op(&mut rng, &course, &mut journal);
                    Step::Commit { region, ops: (0..count).map(|_| op()).collect() }
                }
                8 if rng.below(4) > 0 => continue,
                8 => Step::Crash { region },
                9..12 => Step::Wait { us: rng.below(3) },
                12 => {
                    let us = i64::try_from(rng.below(9)).expect("small") - 4;
                    Step::Skew { region, us: us * 3 }
                }
                13..16 => Step::Beat { region },
                n => match n % 6 {
                    0 | 1 => Step::Capture { region },
                    2 | 3 if cut == Some((region, to)) => continue,
                    2..5 if course.lumps && rng.below(4) > 0 => continue,
                    2 | 3 if course.lumps => {
                        let count = 2 + index(rng.below(8));
                        let deliver = Step::Deliver { from: region, to, again: false };
                        steps.extend(std::iter::repeat_n(deliver, count));
                        Step::Apply { region: to, txns: 2 * count }
                    }
                    2 => Step::Deliver { from: region, to, again: rng.below(10) == 0 },
                    3 => Step::Deliver { from: region, to, again: false },
                    4 => {
                        let txns = 1 + index(rng.below(5));
                        if rng.below(2) == 0 {
                            Step::Plan { region, txns }
                        } else {
                            Step::Apply { region, txns }
                        }
                    }
                    _ if rng.below(2) == 0 => Step::Write { region },
                    _ => Step::Finish { region },
                },
            };
            steps.push(step);
        }
        Self { regions: index(course.regions), steps }
    }
}

fn op(rng: &mut Rng, course: &Course, journal: &mut i64) -> Op {
    let signed = |n: u64| i64::try_from(n).expect("small");
    let (table, keys) = (rng.pick(&course.tables), course.keys);
    if table == Name::Journal {
        *journal += 1;
        return Op::Write { table, id: 1000 + *journal, a: Some(1), b: None, n: 0, u: 0 };
    }
    let id = signed(rng.below(keys)) + 1;
    match rng.below(12) {
        0 | 1 => Op::Delete { table, id },
        2 => Op::Move { table, id, to: signed(rng.below(keys + 2)) + 1 },
        3 if table == Name::Unique => Op::Swap { id, with: signed(rng.below(keys)) + 1 },
        _ => {
            let some = |rng: &mut Rng| (rng.below(3) > 0).then(|| signed(rng.below(90)) + 10);
            let (mut a, mut b) = (some(rng), some(rng));
            for &(at, parent, column) in table.references() {
                let values = if column == U { 3 } else { keys };
                let value = course.tables.contains(&parent).then(|| signed(rng.below(values)) + 1);
                // As it is, so that writes of a row's columns meet that touch but some.
                let value = value.filter(|_| !table.merges() || rng.below(2) == 0);
                *(if at == A { &mut a } else { &mut b }) = value;
            }
            let (n, u) = (signed(rng.below(9)) - 4, signed(rng.below(5)) - 1);
            Op::Write { table, id, a, b, n, u }
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Op::{}", format!("{self:?}").replace("table: ", "table: Name::"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Commit { region, ops } = self else { return write!(f, "Step::{self:?}") };
        let ops: Vec<_> = ops.iter().map(ToString::to_string).collect();
        write!(f, "Step::Commit {{ region: {region}, ops: vec![{}] }}", ops.join(", "))
    }
}

/// As a test that can be pasted into src/sim.rs.
impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "#[test]\nfn a_name_that_says_what_holds() {{\n    let steps = vec![")?;
        for step in &self.steps {
            writeln!(f, "        {step},")?;
        }
        let regions = self.regions;
        writeln!(f, "    ];\n    let script = Script {{ regions: {regions}, steps }};")?;
        write!(f, "    assert_eq!(run(&script).err(), None);\n}}")
    }
}
