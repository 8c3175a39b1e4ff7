//! Kafka clusters: metadata and topic settings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::MetadataTopic;

use super::super::{KafkaFacts, TopicFacts};
use super::Plan;

const PATIENCE: Duration = Duration::from_secs(5);

/// A label and the topics wanted, by bootstrap addresses.
type Wanted = BTreeMap<String, (String, BTreeSet<String>)>;

/// The own cluster under `own`, each peer's under the peer's name; one cluster is
/// asked once.
pub(super) async fn clusters(plan: &Plan<'_>) -> BTreeMap<String, Result<KafkaFacts, String>> {
    let mut facts = BTreeMap::new();
    for (bootstrap, (label, topics)) in wanted(plan) {
        facts.insert(label, cluster(plan, &bootstrap, topics).await);
    }
    facts
}

fn wanted(plan: &Plan<'_>) -> Wanted {
    let mut wanted = Wanted::new();
    let mut want = |brokers: String, label: &str, topic: String| {
        let entry = wanted.entry(brokers).or_insert_with(|| (label.to_owned(), BTreeSet::new()));
        entry.1.insert(topic);
    };
    let outbox = plan.topology.outbox(plan.region);
    want(outbox.brokers, "own", outbox.name);
    for peer in plan.topology.peers(plan.region) {
        let inbox = plan.topology.inbox(plan.region, peer);
        want(inbox.brokers, "own", inbox.name);
        if peer.cluster != plan.region.cluster {
            let source = plan.topology.peer_outbox(peer);
            want(source.brokers, &peer.name, source.name);
        }
    }
    wanted
}

async fn cluster(
    plan: &Plan<'_>,
    bootstrap: &str,
    topics: BTreeSet<String>,
) -> Result<KafkaFacts, String> {
    let mut config = ClientConfig::new();
    for (name, value) in &plan.kafka {
        config.set(name, value);
    }
    config.set("bootstrap.servers", bootstrap);
    let admin: AdminClient<DefaultClientContext> =
        config.create().map_err(|error| error.to_string())?;
    // librdkafka answers this by blocking.
    let (admin, metadata) = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, PATIENCE);
        (admin, metadata)
    })
    .await
    .map_err(|error| error.to_string())?;
    let metadata = metadata.map_err(|error| format!("{bootstrap}: {error}"))?;
    let mut facts = KafkaFacts {
        bootstrap: bootstrap.to_owned(),
        brokers: metadata.brokers().len(),
        topics: BTreeMap::new(),
    };
    for name in topics {
        let there = metadata.topics().iter().find(|topic| topic.name() == name).map(topic_facts);
        facts.topics.insert(name, there);
    }
    settings(&admin, &mut facts).await.map_err(|error| format!("{bootstrap}: {error}"))?;
    Ok(facts)
}

fn topic_facts(topic: &MetadataTopic) -> TopicFacts {
    let first = topic.partitions().first();
    TopicFacts {
        partitions: topic.partitions().len(),
        replicas: first.map_or(0, |partition| partition.replicas().len()),
        in_sync: first.map_or(0, |partition| partition.isr().len()),
        settings: BTreeMap::new(),
    }
}

async fn settings(
    admin: &AdminClient<DefaultClientContext>,
    facts: &mut KafkaFacts,
) -> Result<(), String> {
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    // One at a time: the answers' order is not promised.
    for (name, topic) in &mut facts.topics {
        let Some(topic) = topic else { continue };
        let answers = admin
            .describe_configs([&ResourceSpecifier::Topic(name)], &options)
            .await
            .map_err(|error| error.to_string())?;
        for answer in answers {
            let answer = answer.map_err(|error| error.to_string())?;
            let entries = answer.entries.into_iter();
            topic.settings.extend(entries.filter_map(|entry| Some((entry.name, entry.value?))));
        }
    }
    Ok(())
}
