//! The Kafka clusters and the topics in them.

use super::super::{Facts, Finding, KafkaFacts, Newest, TopicFacts};

const REACHABLE: &str = "outbox and inboxes live in Kafka: without it nothing is replicated";
const BROKERS: &str = "what one broker alone holds is lost with it";
const PARTITIONS: &str = "order holds within a partition only, and a stream has one order";
const CLEANUP: &str = "compaction drops transactions of the middle; the stream needs all of them";
const RETENTION: &str = "a peer that was away for longer than the retention must be seeded again";
const RECORD: &str = "a larger transaction part would be refused, and the stream would stop";
const IN_SYNC: &str = "with acks=all a record is safe once the in-sync replicas have it";
const UNCLEAN: &str = "a replica that lags may become leader, and acknowledged records go";
const AWAY: &str = "what a region that is away has not seen is kept for `retention`; of one that is \
                    gone for longer nothing is held, and it can't catch up";
const AGREES: &str = "every region decides conflicts by its own topology; streams between \
                      regions whose regions or tables differ are held";
const GUIDE: &str = "docs/OPERATIONS.md, A region that was away for too long";

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (label, cluster) in &facts.kafka {
        match cluster {
            Ok(cluster) => {
                findings.extend(judge_cluster(label, cluster));
                for (name, topic) in &cluster.topics {
                    match cluster.refused.get(name) {
                        Some(why) => findings.push(rights(why).on(name)),
                        None => findings.extend(judge_topic(name, topic.as_ref(), facts)),
                    }
                }
            }
            Err(why) => findings.push(
                Finding::fail("kafka_reachable", REACHABLE, why.clone())
                    .on(label)
                    .fix("start Kafka, or correct its bootstrap addresses"),
            ),
        }
    }
    for (peer, newest) in &facts.newest {
        findings.push(region_away(peer, newest.as_ref(), facts.outage_s_max).on(peer));
        let there = newest.as_ref().ok().and_then(|newest| newest.topology);
        findings.extend(there.map(|there| agrees(there, facts.topology).on(peer)));
    }
    findings
}

fn agrees(there: u32, here: u32) -> Finding {
    const CHECK: &str = "topology_agrees";
    if there == here {
        return Finding::pass(CHECK, AGREES, format!("its fingerprint is {here:08x}, as here"));
    }
    let found = format!("its newest record has the fingerprint {there:08x}, this file {here:08x}");
    Finding::fail(CHECK, AGREES, found).fix(
        "run the same regions and tables everywhere (causeway topology validate prints the \
         fingerprint of a file)",
    )
}

/// A region that lives writes a heartbeat at least each minute.
fn region_away(peer: &str, newest: Result<&Newest, &String>, outage_s_max: u64) -> Finding {
    const CHECK: &str = "region_away";
    let newest = match newest {
        Ok(newest) => newest,
        Err(why) => {
            return Finding::warn(CHECK, AWAY, why.clone())
                .fix("let the agent's Kafka user read that topic, and run doctor again");
        }
    };
    let topic = &newest.topic;
    let gone = format!(
        "do not start {peer} as it is: seed it anew, or take it out of the topology ({GUIDE})"
    );
    let Some(age_s) = newest.age_s else {
        let found = format!("all records of {topic} are purged: none came within its retention");
        return Finding::fail(CHECK, AWAY, found).fix(gone);
    };
    let found =
        format!("the newest record of {topic} is {age_s} s old, retention is {outage_s_max} s");
    if age_s > outage_s_max {
        Finding::fail(CHECK, AWAY, found).fix(gone)
    } else if age_s >= outage_s_max / 2 {
        Finding::warn(CHECK, AWAY, found).fix(format!(
            "bring the agent, the database and the Kafka of {peer} back within {} s; after that \
             seed it anew, or take it out of the topology ({GUIDE})",
            outage_s_max - age_s
        ))
    } else {
        Finding::pass(CHECK, AWAY, found)
    }
}

fn judge_cluster(label: &str, cluster: &KafkaFacts) -> Vec<Finding> {
    let found = format!("{} brokers at {}", cluster.brokers, cluster.bootstrap);
    let reachable = Finding::pass("kafka_reachable", REACHABLE, found.clone()).on(label);
    let brokers = if cluster.brokers < 3 {
        Finding::warn("kafka_brokers", BROKERS, found)
            .fix("run three brokers or more in each region")
    } else {
        Finding::pass("kafka_brokers", BROKERS, found)
    };
    vec![reachable, brokers.on(label)]
}

fn rights(why: &str) -> Finding {
    let found = format!("it is not there for this account, which may not make it: {why}");
    Finding::fail("kafka_rights", REACHABLE, found).fix(
        "give the agent's Kafka user its rights in this cluster (docs/OPERATIONS.md, The Kafka \
         account)",
    )
}

fn judge_topic(name: &str, topic: Option<&TopicFacts>, facts: &Facts) -> Vec<Finding> {
    let Some(topic) = topic else {
        let found = "it is not there; the agent makes it at its start with the right settings";
        return vec![Finding::pass("topic_settings", REACHABLE, found).on(name)];
    };
    let checks = [
        partitions(topic),
        cleanup(topic),
        retention(topic, facts.outage_s_max),
        record(topic, facts.message_bytes_max),
        in_sync(topic),
        unclean(topic),
    ];
    checks.into_iter().map(|finding| finding.on(name)).collect()
}

fn partitions(topic: &TopicFacts) -> Finding {
    let found = format!("{} partitions", topic.partitions);
    if topic.partitions == 1 {
        return Finding::pass("topic_partitions", PARTITIONS, found);
    }
    Finding::fail("topic_partitions", PARTITIONS, found)
        .fix("partitions can't be taken away: move the topic aside and let the agent make it anew")
}

fn cleanup(topic: &TopicFacts) -> Finding {
    let value = text(topic, "cleanup.policy");
    let found = format!("cleanup.policy is {value}");
    if value == "delete" {
        return Finding::pass("topic_cleanup", CLEANUP, found);
    }
    Finding::fail("topic_cleanup", CLEANUP, found).fix("set cleanup.policy=delete on the topic")
}

fn retention(topic: &TopicFacts, outage_s_max: u64) -> Finding {
    const CHECK: &str = "topic_retention";
    let wanted = outage_s_max.saturating_mul(1000);
    let by_size = number(topic, "retention.bytes").is_some_and(|bytes| bytes >= 0);
    let by_age = number(topic, "retention.ms");
    let found = format!(
        "retention.ms is {}, retention.bytes is {}",
        text(topic, "retention.ms"),
        text(topic, "retention.bytes")
    );
    let short = by_age.is_none_or(|ms| u64::try_from(ms).is_ok_and(|ms| ms < wanted));
    if short {
        return Finding::fail(CHECK, RETENTION, found)
            .fix(format!("set retention.ms={wanted} or more on the topic"));
    }
    if by_size {
        return Finding::warn(CHECK, RETENTION, found)
            .fix("set retention.bytes=-1 on the topic: a burst of writes shortens what is kept");
    }
    Finding::pass(CHECK, RETENTION, found)
}

fn record(topic: &TopicFacts, bytes_max: u64) -> Finding {
    const CHECK: &str = "topic_record_size";
    let found = format!("max.message.bytes is {}", text(topic, "max.message.bytes"));
    let fits = number(topic, "max.message.bytes")
        .is_some_and(|bytes| u64::try_from(bytes).is_ok_and(|bytes| bytes >= bytes_max));
    if fits {
        return Finding::pass(CHECK, RECORD, found);
    }
    Finding::fail(CHECK, RECORD, found)
        .fix(format!("set max.message.bytes={bytes_max} or more on the topic"))
}

fn in_sync(topic: &TopicFacts) -> Finding {
    const CHECK: &str = "topic_in_sync";
    let least = number(topic, "min.insync.replicas").unwrap_or(1);
    let least = usize::try_from(least).unwrap_or(1);
    let found = format!(
        "{} replicas, {} in sync, min.insync.replicas is {least}",
        topic.replicas, topic.in_sync
    );
    if topic.in_sync < least {
        return Finding::fail(CHECK, IN_SYNC, found)
            .fix("bring the missing brokers back: Kafka refuses writes until then");
    }
    if topic.replicas < 3 || least < 2 {
        return Finding::warn(CHECK, IN_SYNC, found)
            .fix("give the topic three replicas and min.insync.replicas=2");
    }
    Finding::pass(CHECK, IN_SYNC, found)
}

fn unclean(topic: &TopicFacts) -> Finding {
    const CHECK: &str = "topic_unclean_election";
    let value = text(topic, "unclean.leader.election.enable");
    let found = format!("unclean.leader.election.enable is {value}");
    if value == "false" {
        return Finding::pass(CHECK, UNCLEAN, found);
    }
    Finding::fail(CHECK, UNCLEAN, found)
        .fix("set unclean.leader.election.enable=false on the topic")
}

fn text<'a>(topic: &'a TopicFacts, name: &str) -> &'a str {
    topic.settings.get(name).map_or("not known", String::as_str)
}

fn number(topic: &TopicFacts, name: &str) -> Option<i64> {
    topic.settings.get(name).and_then(|value| value.parse().ok())
}
