mod files;

use std::collections::BTreeMap;

use crate::change::TableName;
use crate::doctor::{
    Account, ClockSample, ColumnFacts, DatabaseFacts, Facts, Flavor, ForeignKey, Grant, Initial,
    KafkaFacts, Newest, PeerFacts, Report, Scope, Severity, TableFacts, TopicFacts, Trigger,
};
use crate::topology;

use Severity::{Fail, Pass, Warn};

fn table(name: &str) -> TableName {
    TableName { schema: "shop".to_owned(), name: name.to_owned() }
}

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn column(name: &str, column_type: &str) -> ColumnFacts {
    ColumnFacts {
        name: name.to_owned(),
        column_type: column_type.to_owned(),
        ..ColumnFacts::default()
    }
}

fn orders() -> TableFacts {
    TableFacts {
        engine: "InnoDB".to_owned(),
        kind: "BASE TABLE".to_owned(),
        columns: vec![ColumnFacts { auto_increment: true, ..column("id", "bigint(20)") }],
        unique_keys: BTreeMap::from([("PRIMARY".to_owned(), vec!["id".to_owned()])]),
        ..TableFacts::default()
    }
}

pub(super) fn grant(privileges: &[&str], scope: Scope) -> Grant {
    Grant { privileges: privileges.iter().map(|p| (*p).to_owned()).collect(), scope }
}

fn database() -> DatabaseFacts {
    DatabaseFacts {
        address: "db:3306".to_owned(),
        listed: 1,
        writable: vec!["db:3306".to_owned()],
        flavor: Flavor::MariaDb,
        version: (10, 11, 6),
        variables: strings(&[
            ("log_bin", "ON"),
            ("binlog_format", "ROW"),
            ("binlog_row_image", "FULL"),
            ("binlog_row_metadata", "FULL"),
            ("binlog_checksum", "CRC32"),
            ("sync_binlog", "1"),
            ("innodb_flush_log_at_trx_commit", "1"),
            ("gtid_strict_mode", "ON"),
            ("server_id", "1"),
            ("read_only", "OFF"),
            ("expire_logs_days", "0.000000"),
            ("binlog_expire_logs_seconds", "0"),
            ("auto_increment_increment", "10"),
            ("auto_increment_offset", "1"),
        ]),
        binlog_filters: Vec::new(),
        binlog_files: None,
        named_zones: true,
        account: Account {
            name: "'causeway'@'%'".to_owned(),
            grants: vec![
                grant(&["REPLICATION SLAVE", "BINLOG MONITOR"], Scope::Global),
                grant(&["ALL PRIVILEGES"], Scope::Schema("causeway".to_owned())),
                grant(
                    &["SELECT", "INSERT", "UPDATE", "DELETE", "TRIGGER"],
                    Scope::Schema("sh%".to_owned()),
                ),
            ],
        },
        tables: BTreeMap::from([(table("orders"), orders())]),
        rules: BTreeMap::new(),
        unmatched: Vec::new(),
        clock: ClockSample { offset_us: 100, round_trip_us: 200 },
    }
}

fn topic() -> TopicFacts {
    TopicFacts {
        partitions: 1,
        replicas: 3,
        in_sync: 3,
        settings: strings(&[
            ("cleanup.policy", "delete"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "-1"),
            ("max.message.bytes", "4194304"),
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
        ]),
    }
}

fn newest(age_s: Option<u64>) -> Result<Newest, String> {
    Ok(Newest { topic: "causeway.outbox.us".to_owned(), age_s, topology: Some(7) })
}

/// A region in which everything is as it should be.
pub(super) fn good() -> Facts {
    let kafka = KafkaFacts {
        bootstrap: "kafka:9092".to_owned(),
        brokers: 3,
        topics: BTreeMap::from([("causeway.outbox.eu".to_owned(), Some(topic()))]),
        refused: BTreeMap::new(),
    };
    let peer = PeerFacts {
        auto_increment: (10, 2),
        tables: BTreeMap::from([(table("orders"), orders())]),
        clock: ClockSample { offset_us: -900, round_trip_us: 2000 },
    };
    Facts {
        region: "eu".to_owned(),
        topology: 7,
        clock_offset_us_max: 500_000,
        outage_s_max: 604_800,
        message_bytes_max: 4_194_304,
        database: Ok(database()),
        peers: BTreeMap::from([("us".to_owned(), Ok(peer))]),
        kafka: BTreeMap::from([("own".to_owned(), Ok(kafka))]),
        newest: BTreeMap::from([("us".to_owned(), newest(Some(3)))]),
    }
}

/// The good region with one thing changed: `name` says so, and nothing else does.
#[track_caller]
fn check(name: &str, wanted: Severity, change: impl FnOnce(&mut Facts)) {
    let mut facts = good();
    change(&mut facts);
    let report = Report::new(&facts);
    let bad: Vec<_> = report.findings.iter().filter(|f| f.severity != Pass).collect();
    if wanted == Pass {
        assert!(bad.is_empty(), "{bad:#?}");
        assert!(report.findings.iter().any(|f| f.check == name), "{name} is not in the report");
        return;
    }
    assert!(!bad.is_empty(), "{name}: nothing found");
    for finding in bad {
        assert_eq!((finding.check, finding.severity), (name, wanted), "{finding:#?}");
        assert!(finding.fix.is_some(), "{name} has no fix");
    }
    assert_eq!(report.verdict, wanted);
}

#[track_caller]
fn on_database(name: &str, wanted: Severity, change: impl FnOnce(&mut DatabaseFacts)) {
    check(name, wanted, |facts| change(facts.database.as_mut().unwrap()));
}

#[track_caller]
fn on_variable(variable: &str, value: &str, name: &str, wanted: Severity) {
    on_database(name, wanted, |db| {
        db.variables.insert(variable.to_owned(), value.to_owned());
    });
}

#[track_caller]
fn on_table(name: &str, wanted: Severity, change: impl FnOnce(&mut TableFacts)) {
    on_database(name, wanted, |db| change(db.tables.get_mut(&table("orders")).unwrap()));
}

#[track_caller]
fn on_topic(setting: &str, value: &str, name: &str, wanted: Severity) {
    check(name, wanted, |facts| {
        let cluster = facts.kafka.get_mut("own").unwrap().as_mut().unwrap();
        let topic = cluster.topics.values_mut().next().unwrap().as_mut().unwrap();
        topic.settings.insert(setting.to_owned(), value.to_owned());
    });
}

#[test]
fn a_good_region_passes_every_check() {
    check("binlog_format", Pass, |_| {});
}

#[test]
fn an_unreachable_database_fails_and_kafka_is_judged_all_the_same() {
    check("database_reachable", Fail, |f| f.database = Err("connection refused".to_owned()));
    let mut facts = good();
    facts.database = Err("connection refused".to_owned());
    let report = Report::new(&facts);
    assert!(report.findings.iter().any(|f| f.check == "topic_partitions"));
}

#[test]
fn server_settings() {
    on_variable("log_bin", "OFF", "log_bin", Fail);
    on_variable("binlog_format", "MIXED", "binlog_format", Fail);
    on_variable("binlog_row_image", "MINIMAL", "binlog_row_image", Fail);
    on_variable("binlog_row_metadata", "NO_LOG", "binlog_row_metadata", Warn);
    on_variable("gtid_strict_mode", "OFF", "gtid_strict_mode", Warn);
    on_variable("sync_binlog", "0", "sync_binlog", Warn);
    on_variable("innodb_flush_log_at_trx_commit", "2", "innodb_flush_log_at_trx_commit", Warn);
    on_variable("binlog_checksum", "NONE", "binlog_checksum", Warn);
    on_variable("server_id", "0", "server_id", Fail);
    on_variable("read_only", "ON", "read_only", Fail);
    on_variable("binlog_expire_logs_seconds", "3600", "binlog_retention", Warn);
    on_variable("expire_logs_days", "0.500000", "binlog_retention", Warn);
    on_variable("expire_logs_days", "10.000000", "binlog_retention", Pass);
    on_database("server_version", Fail, |db| db.version = (10, 4, 30));
    on_database("time_zone_tables", Warn, |db| db.named_zones = false);
    on_database("binlog_filters", Fail, |db| db.binlog_filters.push("x".to_owned()));
    on_database("log_slave_updates", Fail, |db| db.listed = 2);
    on_database("read_only", Fail, |db| db.writable.push("db2:3306".to_owned()));
}

#[test]
fn mysql_needs_gtids_and_may_lack_row_metadata() {
    let mysql = |db: &mut DatabaseFacts| {
        db.flavor = Flavor::MySql;
        db.version = (5, 6, 24);
        db.variables.remove("binlog_row_metadata");
        db.variables.remove("gtid_strict_mode");
        db.variables.insert("gtid_mode".to_owned(), "ON".to_owned());
        db.variables.insert("enforce_gtid_consistency".to_owned(), "ON".to_owned());
        let monitor = grant(&["REPLICATION CLIENT"], Scope::Global);
        db.account.grants.push(monitor);
    };
    on_database("gtid_mode", Pass, mysql);
    for (patch, wanted) in [(19, Fail), (20, Pass)] {
        on_database("server_version", wanted, |db| {
            mysql(db);
            db.version = (5, 6, patch);
        });
    }
    on_database("gtid_mode", Fail, |db| {
        mysql(db);
        db.variables.insert("gtid_mode".to_owned(), "OFF".to_owned());
    });
}

#[test]
fn privileges_are_looked_for_where_they_may_be_granted() {
    on_database("privileges", Fail, |db| {
        let rows = db.account.grants.remove(2);
        db.account.grants = vec![rows];
    });
    on_database("privileges", Fail, |db| drop(db.account.grants.remove(0)));
    on_database("privileges", Fail, |db| drop(db.account.grants.remove(1)));
    on_database("privileges", Pass, |db| {
        db.account.grants[2].scope = Scope::Table(table("orders"))
    });
    on_database("privileges", Pass, |db| {
        db.account.grants = vec![grant(&["ALL PRIVILEGES"], Scope::Global)];
        db.account.grants.push(grant(&["REPLICATION SLAVE", "BINLOG MONITOR"], Scope::Global));
    });
}

#[test]
fn what_the_account_can_not_see_is_not_a_pass() {
    on_database("triggers", Warn, |db| {
        assert!(db.account.grants[2].privileges.remove("TRIGGER"));
    });
    let mut facts = good();
    let db = facts.database.as_mut().unwrap();
    db.account.grants[2].scope = Scope::Schema(r"sh\_p".to_owned());
    let report = Report::new(&facts);
    let verdict = |name: &str| {
        report.findings.iter().filter(|f| f.check == name).map(|f| f.severity).max().unwrap()
    };
    assert_eq!(verdict("privileges"), Fail);
    assert_eq!(verdict("foreign_key_cascade"), Warn);
    assert_eq!(verdict("triggers"), Warn);
}

#[test]
fn tables_that_can_not_be_kept_right_are_named() {
    on_table("primary_key", Fail, |t| t.unique_keys.clear());
    on_table("storage_engine", Fail, |t| "MyISAM".clone_into(&mut t.engine));
    on_table("table_kind", Fail, |t| "SYSTEM VERSIONED".clone_into(&mut t.kind));
    let alone = |name: &str, wanted, change: fn(&mut TableFacts)| {
        check(name, wanted, |f| {
            f.peers.clear();
            change(f.database.as_mut().unwrap().tables.get_mut(&table("orders")).unwrap());
        });
    };
    alone("unique_keys", Warn, |t| {
        t.unique_keys.insert("mail".to_owned(), vec!["mail".to_owned()]);
    });
    alone("key_prefix", Fail, |t| {
        t.cut_keys.insert("PRIMARY".to_owned(), vec![("id".to_owned(), 10)]);
    });
    let trigger = |body: &str| Trigger { name: "t".to_owned(), body: body.to_owned() };
    on_table("triggers", Fail, |t| t.triggers.push(trigger("UPDATE x SET a = 1")));
    for guarded in
        ["USER() <> 'causeway@db'", "\"causeway\" <> @me", "@me NOT IN ('x', 'causeway')"]
    {
        on_table("triggers", Warn, |t| t.triggers.push(trigger(&format!("IF {guarded} THEN"))));
    }
    for unguarded in ["SET @a = causeway(1)", "IF USER() <> 'causeway2' THEN", "-- not causeway"] {
        on_table("triggers", Fail, |t| t.triggers.push(trigger(unguarded)));
    }
    for column_type in ["xmltype", "vector(3)"] {
        check("column_types", Fail, |f| {
            f.peers.clear();
            let db = f.database.as_mut().unwrap();
            let orders = db.tables.get_mut(&table("orders")).unwrap();
            orders.columns.push(column("x", column_type));
        });
    }
    check("key_type", Fail, |f| {
        f.peers.clear();
        let db = f.database.as_mut().unwrap();
        let orders = db.tables.get_mut(&table("orders")).unwrap();
        "double".clone_into(&mut orders.columns[0].column_type);
    });
    let collated = |collation: &str| {
        let collation = Some(collation.to_owned());
        move |t: &mut TableFacts| t.columns[0].collation = collation
    };
    on_table("key_collation", Warn, collated("utf8mb4_general_ci"));
    on_table("key_collation", Warn, collated("utf8mb4_0900_as_cs"));
    on_table("key_collation", Pass, collated("utf8mb4_bin"));
    on_table("key_collation", Fail, collated("utf8mb4_turkish_ci"));
    let reference = |target: &str, on_delete: &str| ForeignKey {
        name: "fk".to_owned(),
        columns: vec!["parent".to_owned()],
        target: table(target),
        target_columns: vec!["id".to_owned()],
        on_delete: on_delete.to_owned(),
        on_update: "RESTRICT".to_owned(),
    };
    on_table("foreign_key_cascade", Fail, |t| t.foreign_keys.push(reference("orders", "CASCADE")));
    on_table("foreign_key_scope", Warn, |t| t.foreign_keys.push(reference("other", "NO ACTION")));
    on_database("tables_matched", Warn, |db| db.unmatched.push("shpo.*".to_owned()));
}

#[test]
fn a_policy_is_held_against_its_table() {
    let rule = |policy: &str| {
        let text = format!(
            "version: 1\nregions: {{ eu: {{ id: 1, databases: [\"db:1\"], kafka: k }} }}\n\
             kafka: {{ k: {{ brokers: [\"k:1\"] }} }}\ntables: [{{ tables: shop.*, {policy} }}]\n"
        );
        topology::parse(&text).unwrap().tables.remove(0)
    };
    let on_stock = |wanted, policy: &str, stock: ColumnFacts| {
        check("policy_fit", wanted, |f| {
            f.peers.clear();
            let db = f.database.as_mut().unwrap();
            db.rules.insert(table("orders"), rule(policy));
            db.tables.get_mut(&table("orders")).unwrap().columns.push(stock);
        });
    };
    let delta = "policy: delta, delta_columns: [stock]";
    let nullable = |column: ColumnFacts| ColumnFacts { nullable: true, ..column };
    on_stock(Pass, delta, column("stock", "int(11)"));
    on_stock(Pass, delta, column("Stock", "decimal(12,2)"));
    on_stock(Fail, delta, column("stocks", "int(11)"));
    on_stock(Fail, delta, column("stock", "double"));
    on_stock(Fail, delta, nullable(column("stock", "int(11)")));
    on_stock(Fail, "policy: delta, delta_columns: [id]", column("stock", "int(11)"));
    let clock = "timestamp_column: changed";
    on_stock(Pass, clock, column("changed", "timestamp(6)"));
    on_stock(Pass, clock, column("changed", "bigint(20)"));
    on_stock(Fail, clock, column("changed", "varchar(20)"));
    on_stock(Fail, clock, nullable(column("changed", "datetime")));
}

#[track_caller]
fn on_peer(name: &str, wanted: Severity, change: impl FnOnce(&mut PeerFacts)) {
    check(name, wanted, |f| change(f.peers.get_mut("us").unwrap().as_mut().unwrap()));
}

#[test]
fn regions_are_compared() {
    on_variable("auto_increment_increment", "1", "auto_increment", Fail);
    on_peer("auto_increment", Fail, |peer| peer.auto_increment = (10, 1));
    on_peer("auto_increment", Fail, |peer| peer.auto_increment = (7, 2));
    for (wanted, offset_us) in [(Fail, -600_000), (Fail, 600_000), (Warn, 300_000)] {
        check("database_clock", wanted, |f| {
            f.peers.clear();
            f.database.as_mut().unwrap().clock.offset_us = offset_us;
        });
    }
    on_peer("clock_offset", Fail, |peer| peer.clock.offset_us = -2_000_000);
    on_peer("clock_offset", Warn, |peer| peer.clock.offset_us = 400_000);
    on_peer("clock_offset", Warn, |peer| {
        peer.clock.offset_us = 900_000;
        peer.clock.round_trip_us = 2_000_000;
    });
    on_peer("peer_schema", Fail, |peer| peer.tables.clear());
    on_peer("peer_schema", Fail, |peer| {
        peer.tables.get_mut(&table("orders")).unwrap().columns.push(column("extra", "int(11)"));
    });
    on_peer("peer_schema", Warn, |peer| {
        let column = ColumnFacts { optional: true, ..column("extra", "int(11)") };
        peer.tables.get_mut(&table("orders")).unwrap().columns.push(column);
    });
    let retyped = |text: &str| {
        let text = text.to_owned();
        move |peer: &mut PeerFacts| {
            peer.tables.get_mut(&table("orders")).unwrap().columns[0].column_type = text;
        }
    };
    on_peer("peer_schema", Fail, |peer| {
        let key = BTreeMap::from([("PRIMARY".to_owned(), vec!["other".to_owned()])]);
        peer.tables.get_mut(&table("orders")).unwrap().unique_keys = key;
    });
    on_peer("peer_schema", Fail, retyped("enum('a','b')"));
    on_peer("peer_schema", Warn, retyped("int(11)"));
    on_peer("peer_schema", Warn, retyped("bigint(20) unsigned"));
    on_peer("peer_schema", Pass, retyped("bigint"));
    on_peer("peer_schema", Fail, |peer| {
        let keys = &mut peer.tables.get_mut(&table("orders")).unwrap().unique_keys;
        keys.insert("u".to_owned(), vec!["id".to_owned()]);
    });
    let on_key = |change: fn(&mut ColumnFacts)| {
        move |peer: &mut PeerFacts| {
            change(&mut peer.tables.get_mut(&table("orders")).unwrap().columns[0]);
        }
    };
    on_peer("peer_schema", Warn, on_key(|column| column.nullable = true));
    on_peer("peer_schema", Warn, on_key(|column| column.auto_increment = false));
    // Servers differ in what they say of a key's default.
    on_peer(
        "peer_schema",
        Pass,
        on_key(|column| {
            column.default.initial = Initial::Literal("0".to_owned());
        }),
    );
    check("peer_database", Warn, |f| {
        f.peers.insert("us".to_owned(), Err("access denied".to_owned()));
    });
}

#[test]
fn kafka_is_judged_by_what_it_would_lose() {
    check("kafka_reachable", Fail, |f| {
        f.kafka.insert("own".to_owned(), Err("refused".to_owned()));
    });
    let cluster = |f: &mut Facts| f.kafka.remove("own").unwrap().unwrap();
    check("kafka_brokers", Warn, |f| {
        let mut own = cluster(f);
        own.brokers = 1;
        f.kafka.insert("own".to_owned(), Ok(own));
    });
    check("kafka_rights", Fail, |f| {
        let mut own = cluster(f);
        own.topics.insert("causeway.inbox.us".to_owned(), None);
        own.refused.insert("causeway.inbox.us".to_owned(), "not authorized".to_owned());
        f.kafka.insert("own".to_owned(), Ok(own));
    });
    check("topic_partitions", Fail, |f| {
        let mut own = cluster(f);
        own.topics.values_mut().next().unwrap().as_mut().unwrap().partitions = 3;
        f.kafka.insert("own".to_owned(), Ok(own));
    });
    on_topic("cleanup.policy", "compact", "topic_cleanup", Fail);
    on_topic("retention.ms", "3600000", "topic_retention", Fail);
    on_topic("retention.ms", "-1", "topic_retention", Pass);
    on_topic("retention.bytes", "1000", "topic_retention", Warn);
    // What a broker gives that is not told otherwise.
    on_topic("max.message.bytes", "1048588", "topic_record_size", Fail);
    on_topic("min.insync.replicas", "1", "topic_in_sync", Warn);
    on_topic("min.insync.replicas", "4", "topic_in_sync", Fail);
    on_topic("unclean.leader.election.enable", "true", "topic_unclean_election", Fail);
}

#[test]
fn a_region_that_is_away_is_told_before_it_is_too_late() {
    let last = |age_s, wanted| {
        check("region_away", wanted, |f| {
            f.newest.insert("us".to_owned(), newest(age_s));
        });
    };
    last(Some(0), Pass);
    last(Some(302_399), Pass);
    last(Some(302_400), Warn);
    last(Some(604_800), Warn);
    last(Some(604_801), Fail);
    last(None, Fail);
    check("region_away", Warn, |f| {
        f.newest.insert("us".to_owned(), Err("not allowed to read".to_owned()));
    });
    // Nothing came of it yet.
    check("topology_agrees", Pass, |_| {});
    check("topology_agrees", Fail, |f| f.topology = 8);
    check("topic_retention", Pass, |f| f.newest.clear());
}
