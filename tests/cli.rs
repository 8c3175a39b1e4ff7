//! The command line as its users meet it: help, errors, exit status.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

const BROKEN: &str = "\
version: 1
regions:
  eu-west: { id: 1, databases: ['db:3306'], kafka: eu-wset }
  us-east: { id: 1, databases: [], kafka: us }
  ap-south: { id: 99, databases: ['db'], kafka: us }
kafka:
  eu-west: { brokers: ['k:9092'] }
  us: { borkers: [] }
tables:
  - tables: shop.*
    policy: dleta
  - tables: shop.orders
  - tables: shop
limits:
  heartbeat: 10h
  retention: 7
  record_bytes: 1B
  record_byte: 1B
colour: red
";

fn causeway(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_causeway"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("CAUSEWAY_ADMIN_ADDR")
        .env_remove("CAUSEWAY_ADMIN_TOKEN_FILE")
        .env("COLUMNS", "100")
        .output()
        .unwrap()
}

/// Exit status, stdout and stderr, as one text.
fn shown(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.yaml"), BROKEN).unwrap();
    let good = include_str!("../topology/three-regions.yaml");
    std::fs::write(folder.path().join("good.yaml"), good).unwrap();
    let output = causeway(folder.path(), arguments);
    format!(
        "exit {}\n-- stdout\n{}-- stderr\n{}",
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap()
    )
}

#[test]
fn help_names_every_command() {
    insta::assert_snapshot!(shown(&["--help"]));
}

#[test]
fn every_problem_of_a_topology_is_told_with_its_place() {
    insta::assert_snapshot!(shown(&["topology", "validate", "broken.yaml"]));
}

#[test]
fn problems_are_data_for_programs() {
    insta::assert_snapshot!(shown(&["topology", "validate", "-o", "json", "broken.yaml"]));
}

#[test]
fn a_topology_is_drawn() {
    insta::assert_snapshot!(shown(&["topology", "graph", "good.yaml"]));
    insta::assert_snapshot!(shown(&["topology", "graph", "-o", "dot", "good.yaml"]));
    insta::assert_snapshot!(shown(&["topology", "graph", "-o", "mermaid", "good.yaml"]));
    insta::assert_snapshot!(shown(&["topology", "graph", "-o", "json", "good.yaml"]));
}

#[track_caller]
fn check(arguments: &[&str], status: i32) {
    let shown = shown(arguments);
    assert!(shown.starts_with(&format!("exit {status}\n")), "{shown}");
}

#[test]
fn the_exit_status_tells_failed_from_unable_from_misused() {
    check(&["topology", "validate", "good.yaml"], 0);
    check(&["topology", "validate", "broken.yaml"], 1);
    check(&["topology", "validate", "absent.yaml"], 2);
    check(&["topology", "graph", "broken.yaml"], 64);
    check(&["no-such-command"], 64);
    check(&["status", "--addr", "127.0.0.1:1"], 2);
}

#[test]
fn an_unknown_region_is_told_with_a_guess() {
    for command in ["agent", "doctor"] {
        let asked = ["--topology", "good.yaml", "--region", "eu-wst", "--conf", "agent.yaml"];
        let shown = shown(&[&[command], &asked[..]].concat());
        assert!(shown.starts_with("exit 64\n"), "{shown}");
        assert!(shown.contains("unknown region `eu-wst`, did you mean `eu-west`?"), "{shown}");
    }
}
