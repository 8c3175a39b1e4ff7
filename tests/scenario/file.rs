//! The files in chaos/: typed, and refused when a field is unknown or a step can't be.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use causeway::topology::Span;
use serde::{Deserialize, Deserializer, de};

use crate::lab::db::Flavour;
use crate::lab::load::Dice;
use crate::lab::root;

/// Faults on running regions, and what must hold in spite of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// As the file is called.
    pub name: String,
    /// For people.
    pub shows: String,
    /// One database each; the regions are r1, r2, …
    pub regions: Vec<Server>,
    /// What the clients do, from beginning to end of the safety phase.
    pub load: Writers,
    /// While faults run.
    pub safety: Safety,
    /// When they have stopped.
    pub liveness: Liveness,
}

/// A region's database.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    MariaDb,
    MySql,
}

impl From<Server> for Flavour {
    fn from(server: Server) -> Self {
        match server {
            Server::MariaDb => Self::MariaDb,
            Server::MySql => Self::MySql56,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Writers {
    /// For each region.
    pub writers: u8,
    /// Between two transactions of one writer.
    pub pause: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Safety {
    /// Looked at all the time.
    #[serde(default)]
    pub always: Vec<Always>,
    /// The steps begin anew until this time is over; without it they run once.
    pub repeat_for: Option<Span>,
    /// One after the other.
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Always {
    /// No region shows a child row without its parent.
    NoOrphan,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Lets time pass.
    Wait(Between),
    /// `kill -9` of one process, and its start after a while.
    Kill(Kill),
    /// Cuts the way of the region `at` to the Kafka of `from`.
    Cut(Cut),
    /// Lets traffic pass again.
    Heal(Way),
    /// A row written in `from` is seen at `at`.
    Arrives(Vec<Way>),
    /// A client of `at` writes a child of a parent that one of `from` has written.
    ChildOfAPeer(Way),
    /// The stream from `from` at `at` holds what had seen more than `at` has.
    WaitsForDeps(Way),
}

/// By weight, which kind of process.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    #[serde(default)]
    pub agent: u64,
    #[serde(default)]
    pub database: u64,
    #[serde(default)]
    pub kafka: u64,
    /// Whose.
    pub of: Which,
    /// How long it stays down.
    pub down: Between,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    pub from: Which,
    pub at: Which,
    /// Heals after so long; without it a later step or the end of the phase heals.
    pub lasts: Option<Between>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    pub from: Which,
    pub at: Which,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Liveness {
    /// How long it may take until all regions are equal.
    pub within: Span,
    /// What must hold then.
    pub then: Vec<Holds>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// All tables are equal in all regions.
    Equal,
    /// The append-only table has each acknowledged entry, once, and none rolled back.
    EachEntryOnce,
    /// Every outbox has what its region's clients committed, and nothing else.
    NoLoop,
    /// What is written now arrives everywhere.
    GoesOn,
}

/// A time, or one that the seed chooses: `2s`, `500ms..3s`.
#[derive(Clone, Copy, Debug)]
pub struct Between(Span, Span);

impl Between {
    pub fn choose(self, dice: &mut Dice) -> Duration {
        Duration::from_millis(self.0.millis() + dice.below(self.1.millis() - self.0.millis() + 1))
    }
}

impl<'de> Deserialize<'de> for Between {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let (least, most) = text.split_once("..").unwrap_or((&text, &text));
        let [least, most] = [least, most].map(|one| Span::from_str(one).map_err(de::Error::custom));
        let (least, most) = (least?, most?);
        if least > most {
            return Err(de::Error::custom(format!("{text} ends before it begins")));
        }
        Ok(Self(least, most))
    }
}

/// A region: `r1`, or `any`, which the seed chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Any,
    /// Counted from 0.
    This(usize),
}

impl Which {
    pub fn choose(self, dice: &mut Dice, regions: usize) -> usize {
        match self {
            Self::This(n) => n,
            Self::Any => usize::try_from(dice.below(regions as u64)).unwrap(),
        }
    }
}

impl<'de> Deserialize<'de> for Which {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let number = text.strip_prefix('r').and_then(|n| n.parse::<usize>().ok());
        match number.and_then(|n| n.checked_sub(1)) {
            Some(n) => Ok(Self::This(n)),
            None if text == "any" => Ok(Self::Any),
            None => Err(de::Error::custom(format!("`{text}` is neither r1, r2, … nor any"))),
        }
    }
}

/// Reads chaos/NAME.yaml.
///
/// # Panics
/// With file and line when it is not a scenario.
pub fn read(name: &str) -> Scenario {
    let path = root().join("chaos").join(format!("{name}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; there are {}", path.display(), names().join(", "))
    });
    match parse(&text, &path) {
        Ok(scenario) => scenario,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The scenarios there are.
pub fn names() -> Vec<String> {
    let files = std::fs::read_dir(root().join("chaos")).unwrap().map(|entry| entry.unwrap().path());
    let yaml = files.filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    let mut names: Vec<_> =
        yaml.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Reads a scenario and finds what can't be.
pub fn parse(text: &str, path: &Path) -> Result<Scenario, String> {
    let scenario: Scenario = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    if scenario.name != stem || scenario.shows.trim().is_empty() {
        return Err(format!("its name must be {stem}, and it must say what it shows"));
    }
    for (n, step) in scenario.safety.steps.iter().enumerate() {
        wrong(step, scenario.regions.len())
            .map_or(Ok(()), |why| Err(format!("step {}, {step:?}: {why}", n + 1)))?;
    }
    Ok(scenario)
}

fn wrong(step: &Step, regions: usize) -> Option<&'static str> {
    let ways: Vec<(Which, Which)> = match step {
        Step::Wait(_) => vec![],
        Step::Kill(kill) if kill.agent + kill.database + kill.kafka == 0 => {
            return Some("it kills nothing: give agent, database or kafka a weight");
        }
        Step::Kill(kill) => vec![(kill.of, Which::Any)],
        Step::Cut(cut)
            if cut.lasts.is_none() && (cut.from == Which::Any || cut.at == Which::Any) =>
        {
            return Some("no step can heal it: say how long it lasts");
        }
        Step::Cut(cut) => vec![(cut.from, cut.at)],
        Step::Arrives(ways) if ways.iter().any(any) => return Some("it needs two regions by name"),
        Step::Heal(way) | Step::ChildOfAPeer(way) | Step::WaitsForDeps(way) if any(way) => {
            return Some("it needs two regions by name");
        }
        Step::Heal(way) | Step::ChildOfAPeer(way) | Step::WaitsForDeps(way) => {
            vec![(way.from, way.at)]
        }
        Step::Arrives(ways) => ways.iter().map(|way| (way.from, way.at)).collect(),
    };
    let unknown = |which| matches!(which, Which::This(n) if n >= regions);
    ways.iter().find_map(|&(from, at)| match (from, at) {
        _ if unknown(from) || unknown(at) => Some("there are not so many regions"),
        (Which::This(a), Which::This(b)) if a == b => Some("a region has no link to itself"),
        (Which::Any | Which::This(_), Which::Any | Which::This(_)) => None,
    })
}

fn any(way: &Way) -> bool {
    way.from == Which::Any || way.at == Which::Any
}
