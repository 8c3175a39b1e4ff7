//! Kafka clusters: metadata, topic settings, and how old the newest record of a peer is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::super::{KafkaFacts, Newest, TopicFacts};
use super::Plan;
use crate::change::{Record, Tables};
use crate::clock::wall_us;
use crate::topology::{Region, Topic};

const PATIENCE: Duration = Duration::from_secs(5);

/// By label, as in [`Facts`](super::super::Facts).
type Clusters = BTreeMap<String, Result<KafkaFacts, String>>;

/// A label and the topics wanted, by bootstrap addresses.
type Wanted = BTreeMap<String, (String, BTreeSet<String>)>;

/// The label of the region's own cluster.
const OWN: &str = "own";

/// The own cluster under `own`, each peer's under the peer's name; one cluster is
/// asked once.
pub(super) async fn clusters(plan: &Plan<'_>) -> Clusters {
    let mut facts = BTreeMap::new();
    for (bootstrap, (label, topics)) in wanted(plan) {
        // A peer's outbox is made by the peer.
        let makes = label == OWN;
        facts.insert(label, cluster(plan, &bootstrap, topics, makes).await);
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
    want(outbox.brokers, OWN, outbox.name);
    for peer in plan.topology.peers(plan.region) {
        let inbox = plan.topology.inbox(plan.region, peer);
        want(inbox.brokers, OWN, inbox.name);
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
    makes: bool,
) -> Result<KafkaFacts, String> {
    let admin: AdminClient<DefaultClientContext> =
        config(plan, bootstrap).create().map_err(|error| error.to_string())?;
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
        refused: BTreeMap::new(),
    };
    for name in topics {
        let there = metadata.topics().iter().find(|topic| topic.name() == name).map(topic_facts);
        facts.topics.insert(name, there);
    }
    settings(&admin, &mut facts).await.map_err(|error| format!("{bootstrap}: {error}"))?;
    if makes {
        facts.refused = refused(&admin, &facts).await;
    }
    Ok(facts)
}

/// Asks for each topic that is missing whether the account may make it, and makes none.
/// Any other refusal says nothing of its rights.
async fn refused(
    admin: &AdminClient<DefaultClientContext>,
    facts: &KafkaFacts,
) -> BTreeMap<String, String> {
    let options = AdminOptions::new().request_timeout(Some(PATIENCE)).validate_only(true);
    let replicas = i32::try_from(facts.brokers.clamp(1, 3)).unwrap_or(1);
    let mut refused = BTreeMap::new();
    for (name, _) in facts.topics.iter().filter(|(_, there)| there.is_none()) {
        let topic = NewTopic::new(name, 1, TopicReplication::Fixed(replicas));
        let answers = admin.create_topics([&topic], &options).await.unwrap_or_default();
        let codes = answers.into_iter().filter_map(Result::err).map(|(_, code)| code);
        let mut denials = codes.filter(|code| {
            matches!(code, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)
        });
        refused.extend(denials.next().map(|code| (name.clone(), code.to_string())));
    }
    refused
}

fn config(plan: &Plan<'_>, bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in &plan.kafka {
        config.set(name, value);
    }
    config.set("bootstrap.servers", bootstrap);
    config
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

/// By peer, what came last of it. A peer's outbox knows best; the inbox here stands in
/// for it while its cluster is away.
pub(super) async fn newest(
    plan: &Plan<'_>,
    clusters: &Clusters,
) -> BTreeMap<String, Result<Newest, String>> {
    let mut newest = BTreeMap::new();
    for peer in plan.topology.peers(plan.region) {
        let Some(topic) = nearest(plan, peer, clusters) else { continue };
        let config = reading(config(plan, &topic.brokers));
        let name = topic.name.clone();
        // librdkafka answers this by blocking.
        let age = tokio::task::spawn_blocking(move || last(&config, &name)).await;
        let found = match age {
            Ok(Ok(Some(last))) => {
                let (age_s, print_of) = last.unzip();
                Ok(Newest { topic: topic.name, age_s, topology: print_of.flatten() })
            }
            Ok(Ok(None)) => continue,
            Ok(Err(error)) => Err(format!("{}: {error}", topic.name)),
            Err(error) => Err(error.to_string()),
        };
        newest.insert(peer.name.clone(), found);
    }
    newest
}

/// The peer's outbox where its cluster answers, else the inbox of it; none when that
/// cluster is away too, or has no such topic.
fn nearest(plan: &Plan<'_>, peer: &Region, clusters: &Clusters) -> Option<Topic> {
    let inbox = plan.topology.inbox(plan.region, peer);
    let outbox = plan.topology.peer_outbox(peer);
    // In one cluster the inbox is the outbox.
    let apart = peer.cluster != plan.region.cluster;
    let answers = |topic: &Topic| {
        clusters.values().flatten().find(|cluster| cluster.bootstrap == topic.brokers)
    };
    let topic = if apart && answers(&outbox).is_some() { outbox } else { inbox };
    answers(&topic)?.topics.get(&topic.name)?.as_ref()?;
    Some(topic)
}

fn reading(mut config: ClientConfig) -> ClientConfig {
    config
        .set("group.id", "causeway-doctor")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false");
    config
}

/// How old the last record is in seconds, and by which topology it was written.
type Last = (u64, Option<u32>);

/// The last record, none of a topic whose records are all purged; nothing at all of one
/// that never held any.
fn last(config: &ClientConfig, topic: &str) -> Result<Option<Option<Last>>, String> {
    let said = |error: KafkaError| error.to_string();
    let consumer: BaseConsumer = config.create().map_err(said)?;
    let (low, high) = consumer.fetch_watermarks(topic, 0, PATIENCE).map_err(said)?;
    if high == low {
        return Ok((high > 0).then_some(None));
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(high - 1)).map_err(said)?;
    consumer.assign(&list).map_err(said)?;
    let asked = Instant::now();
    let mut problem = format!("no record within {} s", PATIENCE.as_secs());
    while asked.elapsed() < PATIENCE {
        match consumer.poll(PATIENCE.saturating_sub(asked.elapsed())) {
            Some(Ok(message)) => {
                let age_s = age(&message)?;
                return Ok(Some(Some((age_s, topology(&message)))));
            }
            // Another broker of the cluster may be away.
            Some(Err(error)) => problem = error.to_string(),
            None => {}
        }
    }
    Err(problem)
}

/// By which topology its region resolves conflicts.
fn topology(message: &BorrowedMessage<'_>) -> Option<u32> {
    let record = Record::decode(message.payload()?.to_vec().into(), &mut Tables::default()).ok()?;
    Some(record.topology).filter(|&print_of| print_of != 0)
}

/// Seconds since it was written, by its own time.
fn age(message: &BorrowedMessage<'_>) -> Result<u64, String> {
    let written = message.timestamp().to_millis().ok_or("its last record has no timestamp")?;
    let written_s = u64::try_from(written).unwrap_or(0) / 1000;
    Ok((wall_us() / 1_000_000).saturating_sub(written_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Login;
    use crate::topology;

    /// The topic in which the newest record of `us` is looked for, when `clusters`
    /// answer, each with the topics that it has.
    #[track_caller]
    fn check(clusters: &[(&str, &[&str])], wanted: Option<&str>) {
        let text = "version: 1\n\
                    regions:\n\
                    \x20 eu: { id: 1, databases: ['db:1'], kafka: k }\n\
                    \x20 us: { id: 2, databases: ['db:2'], kafka: l }\n\
                    kafka: { k: { brokers: ['k:1'] }, l: { brokers: ['l:1'] } }\n\
                    tables: [{ tables: shop.* }]\n";
        let topology = topology::parse(text).unwrap();
        let login = Login { user: String::new(), password: None, tls: false };
        let (kafka, region) = (BTreeMap::new(), &topology.regions[0]);
        let plan = Plan { topology: &topology, region, login, binlog_dir: None, kafka };
        let mut facts = Clusters::from([
            ("own".to_owned(), Err("away".to_owned())),
            ("us".to_owned(), Err("away".to_owned())),
        ]);
        for (label, topics) in clusters {
            let bootstrap = if *label == "own" { "k:1" } else { "l:1" }.to_owned();
            let topics =
                topics.iter().map(|name| ((*name).to_owned(), Some(TopicFacts::default())));
            let refused = BTreeMap::new();
            let cluster = KafkaFacts { bootstrap, brokers: 1, topics: topics.collect(), refused };
            facts.insert((*label).to_owned(), Ok(cluster));
        }
        let found = nearest(&plan, &topology.regions[1], &facts);
        assert_eq!(found.map(|topic| topic.name).as_deref(), wanted);
    }

    #[test]
    fn the_inbox_stands_in_for_an_outbox_whose_kafka_is_away() {
        let (inbox, outbox) = ("causeway.inbox.us", "causeway.outbox.us");
        check(&[("own", &[inbox]), ("us", &[outbox])], Some(outbox));
        check(&[("own", &[inbox])], Some(inbox));
        check(&[("us", &[outbox])], Some(outbox));
        // A lost outbox is made anew: what came before it is no sign of life.
        check(&[("own", &[inbox]), ("us", &[])], None);
        check(&[("own", &[])], None);
        check(&[], None);
    }
}
