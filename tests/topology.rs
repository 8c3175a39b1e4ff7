//! Topology files: what is accepted, and what is said of what is not.

use causeway::topology::{self, ByteSize, ColumnPolicy, Limits, OnConflict, Policy, Topology};

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
fn the_example_has_every_policy() {
    let topology = topology::parse(include_str!("../topology/policies.yaml")).unwrap();
    let policy = |table: &str| topology.rule("shop", table).unwrap().policy.name();
    let tables =
        ["journal", "balances", "articles", "prices", "addresses", "customers", "order_lines", "x"];
    let expected =
        ["insert_only", "home", "delta", "region_priority", "latest", "latest", "latest", "latest"];
    assert_eq!(tables.map(policy), expected);
    insta::assert_snapshot!(topology.graph_text().lines().skip(15).collect::<Vec<_>>().join("\n"));
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
    check("    id: 2", "    id: 2\n    colour: red", "11:5\n");
    check("    id: 2", "    id: 2\n    colour: red", "unknown field `colour`");
    check("    databases: [\"db1.us", "    datbases: [\"db1.us", "did you mean `databases`?");
}

#[test]
fn units_are_needed() {
    check(
        "heartbeat: 250ms",
        "heartbeat: 250",
        "heartbeat: expected a duration such as 250ms, found `250`",
    );
    check("heartbeat: 250ms", "heartbeat: 3h", "heartbeat 3h is out of range");
    check("heartbeat: 250ms", "capture_wait: 1s", "capture_wait 1s is out of range");
}

#[test]
fn who_compares_is_a_region_and_how_fast_is_in_range() {
    check("  region: eu-west", "  region: eu-wets", "unknown region `eu-wets`");
    check("  region: eu-west", "  region: moon", "help: regions are ap-south, eu-west, us-east");
    check("  region: eu-west", "  region: eu-wets", "did you mean `eu-west`?");
    check("interval: 1d", "interval: 10ms", "interval 10ms is out of range");
    check("interval: 1d", "max_lag: 2d", "max_lag 2d is out of range");
    check("rows_per_second: 20000", "rows_per_second: 1", "rows_per_second 1 is out of range");
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

/// Puts policies into the good file.
fn policies(rule: &str) -> Result<Topology, Vec<topology::Problem>> {
    let text = GOOD.replacen("    policy: latest\n", rule, 1);
    topology::parse(&text)
}

fn rule(text: &str) -> topology::TableRule {
    let topology = policies(text).expect("a valid rule");
    topology.rule("shop", "orders").expect("the rule of shop.*").clone()
}

/// What is said of a rule, and nothing else.
#[track_caller]
fn check_rule(rule: &str, wanted: &[&str]) {
    let problems = policies(rule).expect_err("a problem");
    let shown: Vec<_> = problems
        .iter()
        .map(|p| format!("{p}\n  {}", p.help.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(shown.len(), wanted.len(), "{}", shown.join("\n"));
    for (shown, wanted) in shown.iter().zip(wanted) {
        assert!(shown.contains(wanted), "wanted {wanted:?} in\n{shown}");
    }
}

#[test]
fn an_unknown_policy_is_told_with_a_guess() {
    check("policy: latest", "policy: lastest", "did you mean `latest`?");
    check("policy: latest", "policy: newest", "it is one of latest, region_priority");
}

#[test]
fn every_policy_is_read_with_its_options() {
    let id = |id| causeway::change::RegionId::new(id).unwrap();
    let latest = |timestamp_column: Option<&str>| Policy::Latest {
        timestamp_column: timestamp_column.map(str::to_owned),
    };
    assert_eq!(rule("").policy, latest(None));
    assert_eq!(rule("    timestamp_column: changed\n").policy, latest(Some("changed")));
    let order = "    policy: region_priority\n    priority: [ap-south, eu-west, us-east]\n";
    let priority = vec![id(3), id(1), id(2)];
    assert_eq!(rule(order).policy, Policy::RegionPriority { priority });
    let delta = rule("    policy: delta\n    delta_columns: [stock, Sold]\n");
    assert_eq!(delta.policy, Policy::Delta { columns: vec!["stock".into(), "Sold".into()] });
    assert_eq!(delta.column_policy("sold"), Some(ColumnPolicy::Delta));
    assert_eq!(delta.column_policy("name"), Some(ColumnPolicy::Latest { timestamp_column: None }));
    assert_eq!(rule("    policy: insert_only\n").policy, Policy::InsertOnly);
    assert_eq!(rule("    policy: home\n").column_policy("name"), None);
    assert_eq!(rule("").on_conflict, OnConflict::Row);
    assert_eq!(rule("    on_conflict: transaction\n").on_conflict, OnConflict::Transaction);
}

#[test]
fn a_group_of_columns_goes_before_the_row() {
    let rule = rule(
        "    columns:
      - { columns: [name], policy: latest, timestamp_column: changed }
      - { columns: [stock, sold], policy: delta }
      - { columns: [price], policy: region_priority, priority: [us-east, eu-west, ap-south] }
      - { columns: [note], policy: latest }
",
    );
    assert_eq!(rule.column_policy("STOCK"), Some(ColumnPolicy::Delta));
    assert_eq!(rule.column_policy("price").unwrap().name(), "region_priority");
    let latest =
        |column: Option<&str>| ColumnPolicy::Latest { timestamp_column: column.map(str::to_owned) };
    assert_eq!(rule.column_policy("note"), Some(latest(None)));
    assert_eq!(rule.column_policy("name"), Some(latest(Some("changed"))));
}

#[test]
fn a_priority_names_every_region_once() {
    let order = |list: &str| format!("    policy: region_priority\n    priority: [{list}]\n");
    check_rule(
        &order("eu-west, us-est, ap-south"),
        &["30:15: `priority` does not say where us-east", "30:25: unknown region `us-est`"],
    );
    check_rule(&order("eu-west, us-est, ap-south, us-east"), &["did you mean `us-east`?"]);
    check_rule(&order("eu-west, us-east, ap-south, eu-west"), &["`eu-west` stands twice"]);
    check_rule(&order(""), &["does not say where ap-south, eu-west, us-east stands"]);
    check_rule("    policy: region_priority\n", &["29:13: policy `region_priority` needs"]);
}

#[test]
fn delta_needs_columns() {
    check_rule("    policy: delta\n", &["policy `delta` needs `delta_columns`"]);
    let delta = |list: &str| format!("    policy: delta\n    delta_columns: [{list}]\n");
    check_rule(&delta(""), &["30:20: the list of columns is empty"]);
    check_rule(&delta("a, b, A"), &["30:27: column `A` has two policies"]);
    check_rule(&delta("''"), &["`` is no column name"]);
}

#[test]
fn options_of_another_policy_are_told() {
    let all = "timestamp_column: t, priority: [], delta_columns: [a]";
    for (policy, foreign) in [
        ("latest", &["priority", "delta_columns"][..]),
        ("insert_only", &["timestamp_column", "priority", "delta_columns"]),
        ("home", &["timestamp_column", "priority", "delta_columns"]),
    ] {
        let wanted: Vec<_> = foreign
            .iter()
            .map(|name| format!("`{name}` does not belong to policy `{policy}`"))
            .collect();
        let options = all.replace(", ", "\n    ");
        check_rule(
            &format!("    policy: {policy}\n    {options}\n"),
            &wanted.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
    check_rule("    delta_columns: [a]\n", &["or write `policy: delta`"]);
}

#[test]
fn groups_of_columns_are_checked() {
    let group = |row: &str, group: &str| {
        format!("    policy: {row}\n    columns:\n      - {{ columns: {group} }}\n")
    };
    for row in ["insert_only", "home"] {
        check_rule(
            &group(row, "[a], policy: latest"),
            &[&format!("31:7: `columns` does not go with policy `{row}`")],
        );
    }
    check_rule(
        "    timestamp_column: t\n    columns: [{ columns: [a], policy: delta }]\n",
        &["30:14: `columns` does not go with `timestamp_column`"],
    );
    let two = "[a, b], policy: latest }\n      - { columns: [c, B], policy: delta";
    check_rule(&group("latest", two), &["32:24: column `B` has two policies"]);
    check_rule(
        &group("latest", "[a], policy: home"),
        &["it is one of latest, region_priority, delta"],
    );
    check_rule(&group("latest", "[a], policy: dleta"), &["did you mean `delta`?"]);
    check_rule(&group("latest", "[], policy: latest"), &["the list of columns is empty"]);
    check_rule(
        &group("latest", "[a], policy: delta, priority: []"),
        &["`priority` does not belong to policy `delta`"],
    );
    check_rule(
        "    columns:\n      - { columns: [T], policy: delta }\n      \
         - { columns: [n], policy: latest, timestamp_column: t }\n",
        &["31:59: `timestamp_column` `t` is one that adds up"],
    );
    check_rule(
        "    policy: delta\n    delta_columns: [a]\n    columns: [{ columns: [a], policy: latest }]\n",
        &["31:27: column `a` has two policies"],
    );
}

#[test]
fn what_loses_is_a_row_or_a_transaction() {
    check_rule("    on_conflict: transction\n", &["did you mean `transaction`?"]);
    check_rule(
        "    policy: home\n    on_conflict: transaction\n",
        &["`on_conflict: transaction` does not go with policy `home`"],
    );
    check_rule(
        "    timestamp_column: t\n    on_conflict: transaction\n",
        &["`on_conflict: transaction` does not go with `timestamp_column`"],
    );
    check_rule(
        "    columns: [{ columns: [a], policy: delta }]\n    on_conflict: transaction\n",
        &["`on_conflict: transaction` does not go with `columns`"],
    );
}

#[test]
fn a_limit_is_told_at_its_own_line() {
    check("retention: 7d", "retention: 7", "--> t.yaml:33:14");
    check("heartbeat: 250ms", "batch_rows: many", "batch_rows: expected a whole number");
    check("heartbeat: 250ms", "batch_rows: 0", "batch_rows 0 is out of range");
}

#[test]
fn topics_take_more_than_a_record_and_more_than_a_batch() {
    for (record_bytes, wanted) in [(16 << 10, 2 << 20), (512 << 10, 4 << 20), (8 << 20, 64 << 20)] {
        let limits = Limits { record_bytes: ByteSize(record_bytes), ..Limits::default() };
        assert_eq!(limits.message_bytes(), wanted);
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let text = GOOD
        .replace("id: 2", "id: two")
        .replace("kafka: us-east", "kafka: us-eats")
        .replace("policy: latest", "polcy: latest")
        .replace("250ms", "12");
    let problems = topology::parse(&text).unwrap_err();
    let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let wanted = [
        "10:9: id: expected a whole number, found `two`",
        "12:12: unknown Kafka cluster `us-eats`",
        "22:5: no region uses Kafka cluster `us-east`",
        "29:5: unknown field `polcy`",
        "32:14: heartbeat: expected a duration such as 250ms, found `12`",
    ];
    assert_eq!(shown, wanted);
}

/// Of what can't be read nothing more is said.
#[test]
fn what_follows_from_a_told_problem_is_not_told() {
    #[track_caller]
    fn alone(from: &str, to: &str, wanted: &str) {
        let order = "    policy: region_priority\n    priority: [us-east, eu-west, ap-south]\n";
        let text = GOOD.replacen("    policy: latest\n", order, 1);
        assert!(text.contains(from), "{from:?}");
        let text = text.replacen(from, to, 1);
        let problems = topology::parse(&text).unwrap_err();
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(shown, [wanted]);
    }
    alone("id: 2", "id: two", "10:9: id: expected a whole number, found `two`");
    alone("kafka: us-east", "kafka: [a]", "12:12: kafka: expected text, found a list");
    alone("    kafka: us-east\n", "", "10:5: us-east lacks the field `kafka`");
    alone("[us-east, eu", "[[], eu", "30:16: priority: expected text, found a list");
    alone("policy: region", "policy: regional", "29:13: unknown policy `regional_priority`");
    let from = GOOD.find("regions:\n").unwrap()..GOOD.find("kafka:\n  eu").unwrap();
    alone(&GOOD[from], "regions: 5\n\n", "4:10: regions: expected names with values, found `5`");
    let from = GOOD.find("kafka:\n  eu").unwrap()..GOOD.find("tables:\n").unwrap();
    alone(&GOOD[from], "kafka: []\n\n", "18:8: kafka: expected names with values, found a list");
    alone("- tables: shop.*", "- tables: {}", "27:13: tables: expected text, found fields");
}

#[test]
fn the_schema_in_conf_is_the_one_of_the_code() {
    let schema = serde_json::to_string_pretty(&Topology::schema()).unwrap() + "\n";
    let kept = include_str!("../conf/topology.schema.json");
    assert!(schema == kept, "run: causeway topology schema > conf/topology.schema.json");
}

/// Whatever the text, nothing panics and every problem has its place.
#[track_caller]
fn check_places(text: &str) {
    for problem in topology::parse(text).err().into_iter().flatten() {
        assert!(problem.line > 0 && problem.column > 0, "{problem:?} of\n{text}");
    }
    for problem in causeway::conf::parse(text).err().into_iter().flatten() {
        assert!(problem.line > 0 && problem.column > 0, "{problem:?} of\n{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics_the_parser(text in ".{0,200}") {
        check_places(&text);
    }

    #[test]
    fn no_changed_character_panics_the_parser(at in 0usize..GOOD.len(), to in ".") {
        if GOOD.is_char_boundary(at) {
            check_places(&format!("{}{to}{}", &GOOD[..at], &GOOD[at..]));
        }
    }

    /// Any value in the place of any other: what the schema lets through, the types
    /// take.
    #[test]
    fn no_changed_value_is_told_without_its_place(
        line in 0usize..60,
        to in proptest::sample::select(vec![
            "", " 5", " -1", " 4294967296", " 99999999999999999999", " true", " x", " ''", " []",
            " [5, x]", " {}", " { file: x }", " { a: b }", " 250ms", " 1KiB", " *a", " &a x", " !x y",
        ]),
    ) {
        for text in [GOOD, CONF] {
            let changed: Vec<_> = text
                .lines()
                .enumerate()
                .map(|(at, text)| match text.find(':') {
                    Some(colon) if at == line => format!("{}{to}", &text[..=colon]),
                    _ => text.to_owned(),
                })
                .collect();
            check_places(&(changed.join("\n") + "\n"));
        }
    }
}

const CONF: &str = include_str!("../conf/agent.yaml");

#[test]
fn the_settings_are_checked_like_a_topology() {
    let conf = causeway::conf::parse(CONF).unwrap();
    assert_eq!(conf.admin.listen, "127.0.0.1:7070");
    let broken = CONF
        .replace("  user:", "  usr:")
        .replace("password: { file:", "password: { fil:")
        .replace("log_format: json", "log_format: jsn")
        .replace("grace: 10s", "grace: 10\nkafak: {}");
    let problems = causeway::conf::parse(&broken).unwrap_err();
    let shown: Vec<_> = problems.iter().map(|p| p.render("agent.yaml", &broken)).collect();
    insta::assert_snapshot!(shown.join("\n"));
}
