//! Kafkas that ask who one is: an account with the rights that docs/OPERATIONS.md lists is
//! enough; what one with fewer can't do is named, and costs nothing but time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use causeway::status::{AgentStatus, LinkState};
use lab::db::Flavour;
use lab::region::{Lab, Region};
use lab::{PATIENCE, wait_until};

const SHOP: &str = "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, n INT);\n";

/// As docs/OPERATIONS.md lists them.
const TOPICS: [&str; 5] = ["Read", "Write", "Create", "Describe", "DescribeConfigs"];

/// Changes what the agents may do with topics in a region's Kafka.
async fn rights(region: &Region, order: &str, operations: &[&str]) {
    let mut arguments = vec![order, "--resource-pattern-type", "prefixed", "--topic", "causeway."];
    operations.iter().for_each(|operation| arguments.extend(["--operation", operation]));
    region.kafka.lists(&arguments).await;
}

async fn all_rights(region: &Region) {
    rights(region, "--add", &TOPICS).await;
    let group = ["--add", "--resource-pattern-type", "prefixed", "--group", "causeway"];
    region.kafka.lists(&[&group[..], &["--operation", "Read"]].concat()).await;
}

async fn status(at: &Region) -> Option<AgentStatus> {
    let (_, text) = at.agent.as_ref()?.get("/status").await?;
    serde_json::from_str(&text).ok()
}

async fn until(what: &str, at: &Region, holds: impl Fn(&AgentStatus) -> bool) {
    wait_until(what, PATIENCE, || async { status(at).await.is_some_and(|status| holds(&status)) })
        .await;
}

/// What the link from `peer` says.
fn link<'a>(status: &'a AgentStatus, peer: &str) -> (LinkState, &'a str) {
    let link = &status.streams[peer].link;
    (link.state, link.reason.as_deref().unwrap_or_default())
}

async fn write(lab: &Lab, step: i64) {
    for (n, region) in lab.regions.iter().enumerate() {
        let id = step * 10 + i64::try_from(n).unwrap();
        region.db.exec(&format!("INSERT INTO shop.t VALUES ({id}, 0)")).await;
    }
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
        all_rights(region).await;
    }
    lab.begin_agent(1);
    for region in &mut lab.regions {
        region.agent().ready().await;
    }
    write(&lab, 1).await;
    lab.converge(&["shop.t"], PATIENCE).await;
    let (code, said, _) = lab.causeway(0, &["doctor"]).await;
    assert!(code == 3 && !said.contains("fail "), "{code} {said}");

    // The second region may no longer write its inbox, nor its outbox.
    rights(&lab.regions[1], "--remove", &["Write"]).await;
    write(&lab, 2).await;
    until("the link says that it may not", &lab.regions[1], |status| {
        let (state, reason) = link(status, "r1");
        state == LinkState::Halted && reason.contains("TopicAuthorizationFailed")
    })
    .await;
    rights(&lab.regions[1], "--add", &["Write"]).await;
    lab.converge(&["shop.t"], PATIENCE).await;
}
