//! From YAML to a checked topology, with every problem at its line and column.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::compare::{FileVerify, Verify};
use super::limits::FileLimits;
use super::rules::{FileRule, Rules};
use super::{Kafka, Limits, Region, Topology};
use crate::change::RegionId;
use crate::yaml::{self, Problem, Problems, Spanned, which};

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
    kafka: Spanned<BTreeMap<String, Spanned<FileKafka>>>,
    /// Replicated tables: the first rule that matches decides.
    #[schemars(with = "Vec<FileRule>")]
    tables: Spanned<Vec<FileRule>>,
    /// Bounds of the data path.
    #[serde(default)]
    #[schemars(with = "Limits")]
    limits: FileLimits,
    /// Comparing the regions' tables, pass after pass; nobody does when absent.
    #[serde(default)]
    #[schemars(with = "Option<Verify>")]
    verify: Option<FileVerify>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FileRegion {
    /// 1 to 63, unique; part of every record for ever.
    #[schemars(with = "u8", range(min = 1, max = 63))]
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

/// Reads and checks a topology.
///
/// # Errors
/// Every [`Problem`], in the order of the file.
pub fn parse(text: &str) -> Result<Topology, Vec<Problem>> {
    let (file, mut problems) = yaml::read::<File>(text).map_err(|problem| vec![problem])?;
    if file.version.value != 1 {
        let message = format!("version {} is not known here", file.version.value);
        problems.add(file.version.at, message, Some("write `version: 1`".to_owned()));
    }
    let id = |id: u64| u8::try_from(id).ok().and_then(RegionId::new);
    let names = file.regions.value.iter();
    let names: BTreeMap<_, _> =
        names.map(|(name, region)| (name.as_str(), id(region.value.id.value))).collect();
    clusters(&file, &mut problems);
    // What the regions were to be is not known when they can't be read.
    let known = (!file.regions.at.told()).then_some(&names);
    let verify = file.verify.as_ref().map(|verify| verify.check(known, &mut problems));
    let topology = Topology {
        regions: regions(&file, &mut problems),
        verify,
        tables: Rules { regions: &names, problems: &mut problems }.read(&file.tables),
        limits: file.limits.check(&mut problems),
    };
    problems.none_or(topology)
}

fn regions(file: &File, problems: &mut Problems) -> Vec<Region> {
    if file.regions.value.is_empty() {
        let help = "a topology has one region at least".to_owned();
        problems.add(file.regions.at, "no regions".to_owned(), Some(help));
    }
    let mut ids: BTreeMap<RegionId, &str> = BTreeMap::new();
    let mut regions = Vec::new();
    for (name, region) in &file.regions.value {
        let at = region.at;
        let region = &region.value;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 40 || !name.chars().all(plain) {
            let help = "lower-case letters, digits and hyphens, 40 at most".to_owned();
            problems.add(at, format!("`{name}` is no region name"), Some(help));
        }
        let id = u8::try_from(region.id.value).ok().and_then(RegionId::new);
        if let Some(other) = id.and_then(|id| ids.insert(id, name)) {
            let message =
                format!("regions `{other}` and `{name}` both have id {}", region.id.value);
            let help = "ids are unique and are never given to another region".to_owned();
            problems.add(region.id.at, message, Some(help));
        }
        databases(name, region, problems);
        let kafka = file.kafka.value.get(&region.kafka.value);
        if kafka.is_none() && !file.kafka.at.told() {
            let known = file.kafka.value.keys().map(String::as_str);
            let help = which(&region.kafka.value, "clusters", known);
            let message = format!("unknown Kafka cluster `{}`", region.kafka.value);
            problems.add(region.kafka.at, message, Some(help));
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
    regions
}

fn clusters(file: &File, problems: &mut Problems) {
    let used: Vec<_> = file.regions.value.values().map(|region| &region.value.kafka).collect();
    // What a region wanted to name there is not known.
    let unknown = file.regions.at.told() || used.iter().any(|cluster| cluster.at.told());
    for (name, kafka) in &file.kafka.value {
        brokers(name, &kafka.value, problems);
        if !unknown && used.iter().all(|cluster| cluster.value != *name) {
            let message = format!("no region uses Kafka cluster `{name}`");
            let help = Some("leave it out, or give it to a region".to_owned());
            problems.add(kafka.at, message, help);
        }
    }
}

fn address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

fn databases(name: &str, region: &FileRegion, problems: &mut Problems) {
    if region.databases.value.is_empty() {
        let help = Some("list its databases as host:port".to_owned());
        problems.add(region.databases.at, format!("region `{name}` has no database"), help);
    }
    for database in &region.databases.value {
        if !address(&database.value) {
            let message = format!("`{}` is no database address", database.value);
            problems.add(database.at, message, Some("write host:port".to_owned()));
        }
    }
}

fn brokers(name: &str, kafka: &FileKafka, problems: &mut Problems) {
    if kafka.brokers.value.is_empty() {
        let message = format!("Kafka cluster `{name}` has no brokers");
        problems.add(kafka.brokers.at, message, Some("list them as host:port".to_owned()));
    }
    for broker in kafka.brokers.value.iter().chain(&kafka.peer_brokers) {
        if !address(&broker.value) {
            let message =
                format!("`{}` of Kafka cluster `{name}` is no broker address", broker.value);
            problems.add(broker.at, message, Some("write host:port".to_owned()));
        }
    }
}
