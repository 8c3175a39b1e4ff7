//! The two phases.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::file::{Always, Cut, Holds, Kill, Scenario, Step, Way, Which};
use super::holds;
use crate::lab::db::Flavour;
use crate::lab::load::{Dice, Load, SCHEMA};
use crate::lab::region::Lab;
use crate::lab::{PATIENCE, wait_until};

/// Running regions under a scenario.
struct Stage {
    lab: Lab,
    dice: Dice,
    load: Load,
    /// For each region, transactions that the steps themselves wrote.
    steps_wrote: Vec<u64>,
    /// The next row's key.
    next: u64,
    seed: u64,
    began: Instant,
}

/// Plays a scenario; `under_fire` takes the place of its own `repeat_for`.
///
/// # Panics
/// When something does not hold.
pub async fn play(scenario: &Scenario, seed: u64, under_fire: Option<Duration>) {
    let start = Instant::now();
    let flavours: Vec<Flavour> = scenario.regions.iter().copied().map(Flavour::from).collect();
    let mut lab = Lab::start(&flavours).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.start_agents().await;
    eprintln!("{} {seed}: the regions are ready after {:.1?}", scenario.name, start.elapsed());

    let stop = CancellationToken::new();
    let mut watchers = JoinSet::new();
    for always in &scenario.safety.always {
        for region in &lab.regions {
            match always {
                Always::NoOrphan => {
                    watchers.spawn(holds::no_orphan(region.db.opts(), stop.clone()))
                }
            };
        }
    }
    let (writers, pause) = (scenario.load.writers, scenario.load.pause.get());
    let load = Load::start(&lab.databases(), writers, seed, pause);
    let steps_wrote = vec![0; lab.regions.len()];
    let (dice, began) = (Dice::new(seed), Instant::now());
    let mut stage = Stage { lab, dice, load, steps_wrote, next: 1_000_000, seed, began };
    let repeat = scenario.safety.repeat_for.map(|span| under_fire.unwrap_or(span.get()));
    loop {
        for step in &scenario.safety.steps {
            Box::pin(stage.step(step)).await;
        }
        if repeat.is_none_or(|span| began.elapsed() >= span) {
            break;
        }
    }

    let Stage { mut lab, load, steps_wrote, .. } = stage;
    let written = load.finish().await;
    let calm = Instant::now();
    lab.heal();
    for region in &mut lab.regions {
        region.db.ready().await;
        region.kafka.ready().await;
        region.agent().ready().await;
    }
    for hold in &scenario.liveness.then {
        match hold {
            Holds::Equal => holds::equal(&lab, scenario.liveness.within.get()).await,
            Holds::EachEntryOnce => holds::each_entry_once(&lab, &written).await,
            Holds::NoLoop => holds::no_loop(&lab, &written, &steps_wrote).await,
            Holds::GoesOn => holds::goes_on(&lab, scenario.liveness.within.get()).await,
        }
    }
    for region in &mut lab.regions {
        region.agent().proc.expect_alive();
    }
    stop.cancel();
    while let Some(looked) = watchers.join_next().await {
        assert!(looked.unwrap() > 0, "nobody looked");
    }
    eprintln!(
        "{} {seed}: {} transactions, {} entries ({} unknown), all holds after {:.1?}",
        scenario.name,
        written.transactions,
        written.acked.len(),
        written.unknown.len(),
        calm.elapsed()
    );
}

impl Stage {
    fn say(&self, what: &str) {
        let (seconds, count) = (self.began.elapsed().as_secs_f32(), self.load.committed());
        eprintln!("seed {}: {seconds:.1} s, {count} transactions: {what}", self.seed);
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Wait(between) => tokio::time::sleep(between.choose(&mut self.dice)).await,
            Step::Kill(kill) => self.kill(*kill).await,
            Step::Cut(cut) => self.cut(*cut).await,
            Step::Heal(way) => {
                let (from, at) = self.two(*way);
                self.say(&format!("the way of r{} to r{} is healed", at + 1, from + 1));
                self.lab.link(at, from).heal();
            }
            Step::Arrives(ways) => {
                for way in ways {
                    let (from, at) = self.two(*way);
                    self.arrives("item", from, at, |id, region| {
                        format!("INSERT INTO shop.item VALUES ({id}, {region}, 1, 'ü')")
                    })
                    .await;
                }
            }
            Step::ChildOfAPeer(way) => {
                let (from, at) = self.two(*way);
                let parent = self
                    .arrives("parent", from, at, |id, region| {
                        format!("INSERT INTO shop.parent (id, region) VALUES ({id}, {region})")
                    })
                    .await;
                let sql = format!(
                    "INSERT INTO shop.child (parent_id, region) VALUES ({parent}, {})",
                    at + 1
                );
                self.lab.regions[at].db.write(&sql).await;
                self.steps_wrote[at] += 1;
            }
            Step::WaitsForDeps(way) => self.waits_for_deps(*way).await,
        }
    }

    fn two(&mut self, way: Way) -> (usize, usize) {
        let count = self.lab.regions.len();
        (way.from.choose(&mut self.dice, count), way.at.choose(&mut self.dice, count))
    }

    async fn kill(&mut self, kill: Kill) {
        let victim = kill.of.choose(&mut self.dice, self.lab.regions.len());
        let down = kill.down.choose(&mut self.dice);
        let lot = self.dice.below(kill.agent + kill.database + kill.kafka);
        let what = match lot {
            _ if lot < kill.agent => "agent",
            _ if lot < kill.agent + kill.database => "database",
            _ => "Kafka",
        };
        self.say(&format!("kill -9 of the {what} of r{}, for {down:.1?}", victim + 1));
        let region = &mut self.lab.regions[victim];
        let proc = match what {
            "agent" => &mut region.agent().proc,
            "database" => &mut region.db.proc,
            _ => &mut region.kafka.proc,
        };
        proc.expect_alive();
        proc.kill();
        tokio::time::sleep(down).await;
        proc.again();
    }

    async fn cut(&mut self, cut: Cut) {
        let count = self.lab.regions.len();
        let from = cut.from.choose(&mut self.dice, count);
        let mut at = cut.at.choose(&mut self.dice, count);
        if at == from && cut.at == Which::Any {
            at = (at + 1) % count;
        }
        let from = if at == from { (from + 1) % count } else { from };
        let lasts = cut.lasts.map(|between| between.choose(&mut self.dice));
        let span = lasts.map_or_else(String::new, |lasts| format!(", for {lasts:.1?}"));
        self.say(&format!("the way of r{} to r{} is cut{span}", at + 1, from + 1));
        self.lab.link(at, from).cut();
        if let Some(lasts) = lasts {
            tokio::time::sleep(lasts).await;
            self.lab.link(at, from).heal();
        }
    }

    /// A new row is written in `from` and waited for at `at`; its key.
    async fn arrives(
        &mut self,
        table: &str,
        from: usize,
        at: usize,
        insert: impl Fn(u64, usize) -> String,
    ) -> u64 {
        // An own range, below which the writers' next keys stay.
        self.next += 1;
        let id = self.next;
        self.lab.regions[from].db.write(&insert(id, from + 1)).await;
        self.steps_wrote[from] += 1;
        let there = &self.lab.regions[at].db;
        let sql = format!("SELECT COUNT(*) FROM shop.{table} WHERE id = {id}");
        let what = format!("what r{} wrote arrives at r{}", from + 1, at + 1);
        wait_until(&what, PATIENCE, || async { there.number(&sql).await == 1 }).await;
        self.say(&what);
        id
    }

    async fn waits_for_deps(&mut self, way: Way) {
        let (from, at) = self.two(way);
        let agent = self.lab.regions[at].agent.as_ref().unwrap();
        let source = &self.lab.regions[from].name;
        let what = format!("the stream from r{} waits at r{}", from + 1, at + 1);
        wait_until(&what, PATIENCE, || async {
            let Some((_, text)) = agent.get("/status").await else { return false };
            let status: serde_json::Value = serde_json::from_str(&text).unwrap();
            status["streams"][source]["state"] == "waiting_deps"
        })
        .await;
        self.say(&what);
    }
}
