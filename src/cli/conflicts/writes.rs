//! What the log does not say of a conflict's writes, read from the records of their regions.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value as Json};

use super::super::complain;
use super::super::settings::Settings;
use crate::change::{Place, Seq};
use crate::resolve::{Sought, sought};
use crate::ship::{Cluster, InboxConfig, Range, held_from};

/// A search reads some twenty records of a long topic.
const PATIENCE: Duration = Duration::from_secs(30);

/// By side what the entry lacks; why something stays unknown is said.
pub(super) async fn lacking(settings: &Settings, entry: &Json) -> Map<String, Json> {
    let mut told = Map::new();
    for sought in sought(entry) {
        let (side, dot) = (sought.side, sought.dot);
        let looked = tokio::time::timeout(PATIENCE, look(settings, sought)).await;
        let looked = looked.unwrap_or_else(|_| {
            Err(anyhow::anyhow!("it did not come in {} s", PATIENCE.as_secs()))
        });
        match looked {
            Ok(found) => drop(told.insert(side.to_owned(), found)),
            Err(error) => complain(&format!(
                "what is null of the {side} write is not known: transaction {} of region {}: \
                 {error:#}",
                dot.seq.0, dot.origin
            )),
        }
    }
    told
}

/// Puts into the entry what it lacks, as far as the records have it.
pub(super) async fn complete(settings: &Settings, entry: &mut Json) {
    for (side, found) in lacking(settings, entry).await {
        let Json::Object(found) = found else { continue };
        for (name, value) in found {
            entry[&side][name] = value;
        }
    }
}

async fn look(settings: &Settings, mut sought: Sought) -> anyhow::Result<Json> {
    let Settings { topology, region: here, .. } = settings;
    let dot = sought.dot;
    let origin = topology.regions.iter().find(|region| region.id == dot.origin);
    let origin = origin.context("the topology has no such region")?;
    let topic =
        if origin.id == here.id { topology.outbox(here) } else { topology.inbox(here, origin) };
    // Who wrote it is not known.
    let after = Place { epoch: 0, seq: Seq(dot.seq.0.saturating_sub(1)) };
    let cluster = Cluster { brokers: topic.brokers, extra: settings.kafka()? };
    let config = InboxConfig { cluster, topic: topic.name, origin: origin.id, after };
    if held_from(&config).await? != Some(after) {
        anyhow::bail!("{} does not reach back to it any more", config.topic);
    }
    let mut records = Range::open(&config, dot.seq).await?;
    while let Some(record) = records.next().await? {
        sought.see(&record);
    }
    sought.found().with_context(|| format!("{} has it otherwise", config.topic))
}
