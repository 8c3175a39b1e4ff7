//! Topology files: what is accepted, and what is said of what is not.

use causeway::topology::{self, Topology};

const GOOD: &str = include_str!("../topology/three-regions.yaml");

/// Changes the good file and shows what is said of it.
#[track_caller]
fn check(from: &str, to: &str, wanted: &str) {
    assert!(GOOD.contains(from), "the example has no {from:?}");
    let text = GOOD.replacen(from, to, 1);
    let problems = topology::parse(&text).expect_err("a problem");
    let shown: Vec<_> = problems.iter().map(|p| p.render("t.yaml", &text)).collect();
    let shown = shown.join("\n");
    assert!(shown.contains(wanted), "wanted {wanted:?} in\n{shown}");
}

#[test]
fn the_example_is_valid() {
    let topology = topology::parse(GOOD).unwrap();
    assert!(topology.replicates("shop", "orders"));
    assert!(!topology.replicates("shop", "tmp_1"));
    assert!(!topology.replicates("mysql", "user"));
    let eu = topology.region("eu-west").unwrap();
    let us = topology.region("us-east").unwrap();
    assert_eq!(topology.inbox(eu, us).name, "causeway.inbox.us-east");
}

#[test]
fn on_a_shared_kafka_the_inbox_is_the_outbox() {
    let topology = topology::parse(include_str!("../topology/shared-kafka.yaml")).unwrap();
    let north = topology.region("north").unwrap();
    let south = topology.region("south").unwrap();
    assert_eq!(topology.inbox(north, south), topology.outbox(south));
    assert!(topology.replicates("billing", "invoice_7"));
    assert!(!topology.replicates("billing", "invoices"));
}

#[test]
fn a_wrong_name_is_named_with_its_place_and_a_guess() {
    check(
        "kafka: us-east",
        "kafka: us-eats",
        "unknown Kafka cluster `us-eats`\n  --> t.yaml:12:12",
    );
    check("kafka: us-east", "kafka: us-eats", "did you mean `us-east`?");
}

#[test]
fn unknown_fields_are_refused() {
    check("    id: 2", "    id: 2\n    colour: red", "colour");
}

#[test]
fn units_are_needed() {
    check("heartbeat: 250ms", "heartbeat: 250", "`250` is no duration");
    check("heartbeat: 250ms", "heartbeat: 3h", "limits.heartbeat 3h is out of range");
}

#[test]
fn ids_are_unique_and_in_range() {
    check("id: 2", "id: 1", "both have id 1");
    check("id: 2", "id: 64", "out of range");
}

#[test]
fn a_rule_that_is_never_reached_is_named() {
    check("    policy: latest", "  - tables: shop.orders", "`shop.orders` is never reached");
}

#[test]
fn a_policy_of_a_later_version_is_refused() {
    check("policy: latest", "policy: delta", "policy `delta` is not available yet");
}

#[test]
fn an_unknown_policy_is_told_with_a_guess() {
    check("policy: latest", "policy: lastest", "did you mean `latest`?");
    check("policy: latest", "policy: newest", "policies are latest, region_priority");
}

#[test]
fn a_limit_is_told_at_its_own_line() {
    check("retention: 7d", "retention: 7", "--> t.yaml:33:14");
    check("heartbeat: 250ms", "batch_rows: many", "`many` is no whole number");
}

#[test]
fn all_problems_are_told_at_once() {
    let text = GOOD.replace("id: 2", "id: 1").replace("kafka: us-east", "kafka: x");
    assert!(topology::parse(&text).unwrap_err().len() >= 2);
}

#[test]
fn the_schema_in_conf_is_the_one_of_the_code() {
    let schema = serde_json::to_string_pretty(&Topology::schema()).unwrap() + "\n";
    let kept = include_str!("../conf/topology.schema.json");
    assert!(schema == kept, "run: causeway topology schema > conf/topology.schema.json");
}

proptest::proptest! {
    #[test]
    fn no_text_panics_the_parser(text in ".{0,200}") {
        drop(topology::parse(&text));
    }

    #[test]
    fn no_changed_character_panics_the_parser(at in 0usize..GOOD.len(), to in ".") {
        if GOOD.is_char_boundary(at) {
            let text = format!("{}{to}{}", &GOOD[..at], &GOOD[at..]);
            drop(topology::parse(&text));
        }
    }
}

#[test]
fn the_example_of_the_settings_is_valid() {
    let conf = causeway::conf::parse(include_str!("../conf/agent.yaml")).unwrap();
    assert_eq!(conf.admin.listen, "127.0.0.1:7070");
    assert!(causeway::conf::parse("database: { user: u, pasword: p }").is_err());
}
