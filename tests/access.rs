//! Kafkas that ask who one is: an account with the rights that docs/OPERATIONS.md lists is
//! enough; what one with fewer can't do is named, and costs nothing but time.

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use causeway::status::{AgentStatus, LinkState};
use lab::db::Flavour;
use lab::region::{Lab, Region};
use lab::{PATIENCE, wait_until};

const SHOP: &str = "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, n INT);\n";

/// As docs/OPERATIONS.md lists them: in the own cluster, and in a peer's.
const OWN: &[&str] = &["Read", "Write", "Create", "Describe", "DescribeConfigs"];
const PEER: &[&str] = &["Read", "Describe", "DescribeConfigs"];

/// Changes what a region's agent may do with topics in the Kafka of `at`.
async fn rights(at: &Region, agent: &str, order: &str, operations: &[&str]) {
    let mut arguments = vec![order, "--resource-pattern-type", "prefixed", "--topic", "causeway."];
    operations.iter().for_each(|operation| arguments.extend(["--operation", operation]));
    at.kafka.lists(agent, &arguments).await;
}

/// Gives every agent in the Kafka of `at` what it needs there.
async fn all_rights(lab: &Lab, at: &Region) {
    for agent in lab.regions.iter().map(|region| &region.name) {
        rights(at, agent, "--add", if *agent == at.name { OWN } else { PEER }).await;
        let group = ["--resource-pattern-type", "prefixed", "--group", "causeway"];
        let read = [&["--add", "--operation", "Read"], &group[..]].concat();
        at.kafka.lists(agent, &read).await;
    }
}

async fn until(what: &str, at: &Region, holds: impl Fn(&AgentStatus) -> bool) {
    wait_until(what, PATIENCE, || async { at.status().await.is_some_and(|status| holds(&status)) })
        .await;
}

/// What the link from `peer` says.
fn link<'a>(status: &'a AgentStatus, peer: &str) -> (LinkState, &'a str) {
    let link = &status.streams[peer].link;
    (link.state, link.reason.as_deref().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listed_rights_are_enough_and_what_lacks_is_named() {
    let mut lab = Lab::start_listed(&[Flavour::MariaDb; 2]).await;
    lab.exec_everywhere(SHOP).await;

    lab.begin_agent(0);
    let (code, said, _) = lab.causeway(0, &["doctor"]).await;
    assert_eq!(code, 1, "{said}");
    for topic in ["causeway.outbox.r1", "causeway.inbox.r2"] {
        assert!(said.contains(&format!("kafka_rights                   {topic}")), "{said}");
    }
    until("it says that it may not", &lab.regions[0], |status| {
        status.reason.as_deref().is_some_and(|why| why.contains("TopicAuthorizationFailed"))
    })
    .await;

    for region in &lab.regions {
        all_rights(&lab, region).await;
    }
    lab.begin_agent(1);
    for region in &mut lab.regions {
        region.agent().ready().await;
    }
    lab.write_everywhere(1).await;
    lab.converge(&["shop.t"], PATIENCE).await;
    let (code, said, _) = lab.causeway(0, &["doctor"]).await;
    assert!(code == 3 && !said.contains("fail "), "{code} {said}");

    // The second region may no longer write its inbox, nor its outbox.
    rights(&lab.regions[1], "r2", "--remove", &["Write"]).await;
    lab.write_everywhere(2).await;
    until("the link says that it may not", &lab.regions[1], |status| {
        let (state, reason) = link(status, "r1");
        state == LinkState::Halted && reason.contains("TopicAuthorizationFailed")
    })
    .await;
    rights(&lab.regions[1], "r2", "--add", &["Write"]).await;
    lab.converge(&["shop.t"], PATIENCE).await;
}
