//! From YAML to a checked topology, with every problem at its line and column.
//!
//! A syntax or type error is the only one reported, since what follows it can't be
//! trusted; of a file that reads well, all problems are reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_yaml::{Location, Spanned};

use super::limits::FileLimits;
use super::policy::SUPPORTED;
use super::rules::{FileRule, Rules};
use super::{Kafka, Limits, Region, Topology};
use crate::change::RegionId;

/// Something wrong in a topology file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1; 0 when unknown.
    pub line: u64,
    /// From 1; 0 when unknown.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// The way out, when there is one to name.
    pub help: Option<String>,
}

impl Problem {
    /// The problem with its place in `file`, the line itself and a mark below it.
    #[must_use]
    pub fn render(&self, file: &str, text: &str) -> String {
        let mut out = format!("error: {}\n  --> {file}", self.message);
        if self.line > 0 {
            out += &format!(":{}:{}", self.line, self.column);
            let at = usize::try_from(self.line - 1).unwrap_or(usize::MAX);
            if let Some(line) = text.lines().nth(at) {
                let gutter = " ".repeat(self.line.to_string().len());
                let before = usize::try_from(self.column.saturating_sub(1)).unwrap_or(0);
                let indent = " ".repeat(before.min(line.len()));
                out += &format!("\n{gutter} |\n{} | {line}\n{gutter} | {indent}^", self.line);
            }
        }
        if let Some(help) = &self.help {
            out += &format!("\n  = help: {help}");
        }
        out
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// The file as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Causeway topology")]
pub(super) struct File {
    /// The format's version: 1.
    #[schemars(with = "u32")]
    version: Spanned<u32>,
    /// By name: lower-case letters, digits and hyphens.
    #[schemars(with = "BTreeMap<String, FileRegion>")]
    regions: Spanned<BTreeMap<String, Spanned<FileRegion>>>,
    /// Kafka clusters by name; regions that name the same one share it.
    #[schemars(with = "BTreeMap<String, Kafka>")]
    kafka: BTreeMap<String, Spanned<FileKafka>>,
    /// Replicated tables: the first rule that matches decides.
    #[schemars(with = "Vec<FileRule>")]
    tables: Spanned<Vec<FileRule>>,
    /// Bounds of the data path.
    #[serde(default)]
    #[schemars(with = "Limits")]
    limits: FileLimits,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FileRegion {
    /// 1 to 63, unique; part of every record for ever.
    #[schemars(with = "u8")]
    id: Spanned<u64>,
    /// `host:port` of its databases; the writable one is found.
    #[schemars(with = "Vec<String>")]
    databases: Spanned<Vec<Spanned<String>>>,
    /// The name of its Kafka cluster.
    #[schemars(with = "String")]
    kafka: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKafka {
    brokers: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    peer_brokers: Vec<Spanned<String>>,
}

impl FileKafka {
    fn kafka(&self) -> Kafka {
        let plain = |list: &[Spanned<String>]| list.iter().map(|b| b.value.clone()).collect();
        Kafka { brokers: plain(&self.brokers.value), peer_brokers: plain(&self.peer_brokers) }
    }
}

#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, at: Location, message: String, help: Option<String>) {
        self.0.push(Problem { line: at.line(), column: at.column(), message, help });
    }
}

/// Reads and checks a topology.
///
/// # Errors
/// Every [`Problem`], in the order of the file.
pub fn parse(text: &str) -> Result<Topology, Vec<Problem>> {
    parse_supporting(text, SUPPORTED)
}

/// Reads and checks a topology for an agent that supports what is named, of
/// [`super::KNOWN`].
///
/// # Errors
/// Every [`Problem`], in the order of the file.
pub fn parse_supporting(text: &str, supported: &[&str]) -> Result<Topology, Vec<Problem>> {
    let file: File = serde_yaml::from_str(text).map_err(|error| {
        let at = error.location();
        vec![Problem {
            line: at.map_or(0, |at| at.line()),
            column: at.map_or(0, |at| at.column()),
            message: plain(&error),
            help: None,
        }]
    })?;
    let mut problems = Problems::default();
    if file.version.value != 1 {
        let message = format!("version {} is not known here", file.version.value);
        problems.add(file.version.referenced, message, Some("write `version: 1`".to_owned()));
    }
    let id = |id: u64| u8::try_from(id).ok().and_then(RegionId::new);
    let names = file.regions.value.iter();
    let names = names.map(|(name, region)| (name.as_str(), id(region.value.id.value))).collect();
    let topology = Topology {
        regions: regions(&file, &mut problems),
        tables: Rules { regions: &names, supported, problems: &mut problems }.read(&file.tables),
        limits: file.limits.check(&mut problems),
    };
    if problems.0.is_empty() {
        return Ok(topology);
    }
    problems.0.sort_by_key(|problem| (problem.line, problem.column));
    Err(problems.0)
}

/// The first line of the parser's message, without its own rendering of the place.
fn plain(error: &serde_yaml::Error) -> String {
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or_default();
    let message = line.split(" at line ").next().unwrap_or(line);
    message.strip_prefix("error: ").unwrap_or(message).to_owned()
}

/// A guess at what was meant by a name that is not one of the known ones.
#[must_use]
pub fn did_you_mean<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| format!("did you mean `{name}`?"))
}

fn regions(file: &File, problems: &mut Problems) -> Vec<Region> {
    if file.regions.value.is_empty() {
        let help = "a topology has one region at least".to_owned();
        problems.add(file.regions.referenced, "no regions".to_owned(), Some(help));
    }
    let mut ids: BTreeMap<u64, &str> = BTreeMap::new();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    let mut regions = Vec::new();
    for (name, region) in &file.regions.value {
        let at = region.referenced;
        let region = &region.value;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 40 || !name.chars().all(plain) {
            let help = "lower-case letters, digits and hyphens, 40 at most".to_owned();
            problems.add(at, format!("`{name}` is no region name"), Some(help));
        }
        if let Some(other) = ids.insert(region.id.value, name) {
            let message =
                format!("regions `{other}` and `{name}` both have id {}", region.id.value);
            let help = "ids are unique and are never given to another region".to_owned();
            problems.add(region.id.referenced, message, Some(help));
        }
        let id = u8::try_from(region.id.value).ok().and_then(RegionId::new);
        if id.is_none() {
            let message = format!("id {} of region `{name}` is out of range", region.id.value);
            problems.add(region.id.referenced, message, Some("1 to 63".to_owned()));
        }
        databases(name, region, problems);
        let kafka = file.kafka.get(&region.kafka.value);
        if let Some((name, _)) = file.kafka.get_key_value(&region.kafka.value) {
            used.insert(name);
        } else {
            let known = file.kafka.keys().map(String::as_str);
            let help = did_you_mean(&region.kafka.value, known);
            let message = format!("unknown Kafka cluster `{}`", region.kafka.value);
            problems.add(region.kafka.referenced, message, help);
        }
        if let (Some(id), Some(kafka)) = (id, kafka) {
            regions.push(Region {
                name: name.clone(),
                id,
                databases: region.databases.value.iter().map(|d| d.value.clone()).collect(),
                cluster: region.kafka.value.clone(),
                kafka: kafka.value.kafka(),
            });
        }
    }
    for (name, kafka) in &file.kafka {
        brokers(name, &kafka.value, problems);
        if !used.contains(name.as_str()) {
            let message = format!("no region uses Kafka cluster `{name}`");
            problems.add(kafka.referenced, message, None);
        }
    }
    regions
}

fn address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

fn databases(name: &str, region: &FileRegion, problems: &mut Problems) {
    if region.databases.value.is_empty() {
        let help = Some("list its databases as host:port".to_owned());
        problems.add(region.databases.referenced, format!("region `{name}` has no database"), help);
    }
    for database in &region.databases.value {
        if !address(&database.value) {
            let message = format!("`{}` is no database address", database.value);
            problems.add(database.referenced, message, Some("write host:port".to_owned()));
        }
    }
}

fn brokers(name: &str, kafka: &FileKafka, problems: &mut Problems) {
    if kafka.brokers.value.is_empty() {
        let message = format!("Kafka cluster `{name}` has no brokers");
        problems.add(kafka.brokers.referenced, message, Some("list them as host:port".to_owned()));
    }
    for broker in kafka.brokers.value.iter().chain(&kafka.peer_brokers) {
        if !address(&broker.value) {
            let message =
                format!("`{}` of Kafka cluster `{name}` is no broker address", broker.value);
            problems.add(broker.referenced, message, Some("write host:port".to_owned()));
        }
    }
}
