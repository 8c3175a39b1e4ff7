//! `causeway doctor` against real MariaDB and MySQL.
//!
//! Where Kafka is away, it is so on purpose: that is a finding, and everything else is
//! examined all the same.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Command;

use causeway::clock::wall_us;
use lab::db::{Database, Flavour, Settings};
use lab::kafka::Kafka;
use lab::proc::free_port;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

async fn start(flavour: Flavour, id: u8, more: &[&str]) -> Database {
    let more = more.iter().map(|&option| option.to_owned()).collect();
    let database = Database::start(&Settings { more, ..Settings::small(flavour, id) }).await;
    if flavour == Flavour::MySql56 {
        // As it comes, it takes everyone from this machine for an account without a name.
        database.exec("DELETE FROM mysql.user WHERE User = '';\nFLUSH PRIVILEGES").await;
    }
    database
}

/// Runs the program's doctor on region `eu`: exit status and stdout.
fn doctor(eu: &Database, us: &Database, kafka: &str, arguments: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let topology = format!(
        "version: 1\nregions:\n\
         \x20 eu: {{ id: 1, databases: ['{}'], kafka: k }}\n\
         \x20 us: {{ id: 2, databases: ['{}'], kafka: k }}\n\
         kafka:\n  k: {{ brokers: ['{kafka}'] }}\n\
         tables:\n  - {{ tables: shop.goods, policy: delta, delta_columns: [stock] }}\n\
         \x20 - tables: shop.*\n",
        eu.address(),
        us.address()
    );
    let conf = format!(
        "database:\n  user: causeway\n  password: {{ env: DOCTOR_PASSWORD }}\n  binlog_dir: {}\n",
        eu.data().display()
    );
    std::fs::write(dir.path().join("topology.yaml"), topology).unwrap();
    std::fs::write(dir.path().join("agent.yaml"), conf).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_causeway"))
        .args(["doctor", "--topology", "topology.yaml", "--region", "eu", "--conf", "agent.yaml"])
        .args(arguments)
        .env("DOCTOR_PASSWORD", "pw")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), text)
}

/// The worst severity of each check, `name=severity`, sorted; passes left out.
fn troubles(eu: &Database, us: &Database, kafka: &str) -> Vec<String> {
    let (code, text) = doctor(eu, us, kafka, &["-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = match report["verdict"].as_str().unwrap() {
        "pass" => 0,
        "warn" => 3,
        "fail" => 1,
        other => panic!("{other}"),
    };
    assert_eq!(code, expected);
    let mut troubles: Vec<String> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] != "pass")
        .map(|finding| {
            format!(
                "{}={}",
                finding["check"].as_str().unwrap(),
                finding["severity"].as_str().unwrap()
            )
        })
        .collect();
    troubles.sort();
    troubles.dedup();
    troubles
}

const ACCOUNT: &str = "CREATE USER causeway@'%' IDENTIFIED BY 'pw';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO causeway@'%';
GRANT ALL PRIVILEGES ON causeway.* TO causeway@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON shop.* TO causeway@'%';
CREATE DATABASE shop;
";

const GOOD_TABLES: &str = "\
CREATE TABLE shop.orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(20));
CREATE TABLE shop.goods (id INT PRIMARY KEY, stock DECIMAL(9, 2) NOT NULL);
CREATE TABLE shop.parts (a INT, b VARBINARY(16), PRIMARY KEY (a, b));
CREATE TABLE shop.filled (id INT PRIMARY KEY, a INT, b INT NOT NULL DEFAULT 7,
    c INT(5) ZEROFILL NOT NULL DEFAULT 7, d DECIMAL(9, 2) DEFAULT -1.5, e FLOAT DEFAULT 0.25,
    f VARCHAR(20) NOT NULL DEFAULT 'it''s \\\\ NULL', g VARCHAR(20) DEFAULT 'NULL',
    h VARCHAR(20) NOT NULL DEFAULT '', i TEXT, j ENUM('a', 'b') DEFAULT 'b',
    k SET('a', 'b') NOT NULL DEFAULT 'a,b', l BIT(3) DEFAULT b'101', m YEAR DEFAULT 2020,
    n DATETIME DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    o TIMESTAMP(6) NOT NULL DEFAULT NOW(6), p DATE DEFAULT '2020-02-03',
    q VARCHAR(20) CHARACTER SET utf8 DEFAULT 'CURRENT_TIMESTAMP', r DOUBLE NOT NULL DEFAULT 1e30,
    s TINYINT UNSIGNED NOT NULL, t BOOLEAN DEFAULT TRUE, u TIME(3) DEFAULT '12:13:14.5');
";

const BAD_TABLES: &str = "\
CREATE TABLE shop.orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(20) UNIQUE);
CREATE TABLE shop.child (code VARCHAR(9) CHARACTER SET latin1 PRIMARY KEY, o BIGINT,
    CONSTRAINT of_order FOREIGN KEY (o) REFERENCES shop.orders (id) ON DELETE CASCADE);
CREATE TABLE shop.goods (id INT PRIMARY KEY, stock DECIMAL(9, 2));
CREATE TABLE shop.keyless (a INT) ENGINE=MyISAM;
CREATE TABLE shop.begins (name VARBINARY(40), n INT, PRIMARY KEY (name(10), n));
CREATE TRIGGER shop.counts BEFORE INSERT ON shop.orders FOR EACH ROW SET NEW.note = 'x';
";

/// The smallest set of named zones that the doctor looks for.
const ZONES: &str = "\
INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (1, 'N');
INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('UTC', 1), ('Europe/Berlin', 1);
INSERT INTO mysql.time_zone_transition_type
    (Time_zone_id, Transition_type_id, `Offset`, Is_DST, Abbreviation) VALUES (1, 0, 0, 0, 'U');
";

/// Nothing listens there.
fn no_kafka() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[tokio::test]
async fn a_good_mariadb_and_a_good_mysql_want_nothing_but_kafka() {
    let eu = start(Flavour::MariaDb, 1, &[]).await;
    eu.exec(&format!("{ACCOUNT}{GOOD_TABLES}{ZONES}")).await;
    let kafka = no_kafka();
    for flavour in Flavour::MYSQL {
        let us = start(flavour, 2, &[]).await;
        us.exec(&format!("{ACCOUNT}{GOOD_TABLES}{ZONES}")).await;
        assert_eq!(troubles(&eu, &us, &kafka), ["kafka_reachable=fail"], "{flavour:?}");
        let of_mysql = ["binlog_dir=warn", "kafka_reachable=fail"];
        assert_eq!(troubles(&us, &eu, &kafka), of_mysql, "{flavour:?}");
        let (code, text) = doctor(&eu, &us, &kafka, &[]);
        assert_eq!(code, 1);
        assert!(text.contains("the database clock of us is "), "{text}");
    }
}

#[tokio::test]
async fn a_mariadb_as_it_comes_is_told_everything() {
    let as_it_comes = [
        "--binlog-format=MIXED",
        "--binlog-row-metadata=NO_LOG",
        "--gtid-strict-mode=0",
        "--sync-binlog=0",
        "--auto-increment-increment=1",
    ];
    let eu = start(Flavour::MariaDb, 1, &as_it_comes).await;
    let us = start(Flavour::MariaDb, 2, &[]).await;
    eu.exec(&format!("{ACCOUNT}{BAD_TABLES}")).await;
    eu.exec("CREATE TABLE shop.v (a INT PRIMARY KEY) WITH SYSTEM VERSIONING").await;
    eu.exec("REVOKE REPLICATION SLAVE ON *.* FROM causeway@'%'").await;
    us.exec(&format!("{ACCOUNT}{GOOD_TABLES}{ZONES}")).await;
    let kafka = no_kafka();
    let expected = [
        "auto_increment=fail",
        "binlog_format=fail",
        "binlog_row_metadata=warn",
        "foreign_key_cascade=fail",
        "gtid_strict_mode=warn",
        "kafka_reachable=fail",
        "key_collation=warn",
        "key_prefix=fail",
        "peer_schema=fail",
        "peer_schema=warn",
        "policy_fit=fail",
        "primary_key=fail",
        "privileges=fail",
        "storage_engine=fail",
        "sync_binlog=warn",
        "table_kind=fail",
        "time_zone_tables=warn",
        "triggers=fail",
        "unique_keys=warn",
    ];
    assert_eq!(troubles(&eu, &us, &kafka), expected);

    // What SQL can fix is fixed by the SQL that the doctor prints.
    let (_, statements) = doctor(&eu, &us, &kafka, &["--fix-sql"]);
    eu.exec(&statements).await;
    let by_hand = [
        "auto_increment=fail",
        "kafka_reachable=fail",
        "peer_schema=fail",
        "peer_schema=warn",
        "policy_fit=fail",
        "primary_key=fail",
        "table_kind=fail",
        "time_zone_tables=warn",
        "unique_keys=warn",
    ];
    let left = troubles(&eu, &us, &kafka);
    for trouble in &left {
        assert!(by_hand.contains(&trouble.as_str()), "{trouble} is left of {left:?}");
    }
}

#[tokio::test]
async fn tables_that_differ_are_told_by_column() {
    let eu = start(Flavour::MariaDb, 1, &[]).await;
    let us = start(Flavour::MySql56, 2, &[]).await;
    for database in [&eu, &us] {
        database.exec(&format!("{ACCOUNT}{GOOD_TABLES}{ZONES}")).await;
    }
    us.exec(
        "ALTER TABLE shop.filled MODIFY b INT NOT NULL DEFAULT 8, MODIFY i TEXT NOT NULL,\n\
         MODIFY n DATETIME DEFAULT CURRENT_TIMESTAMP, MODIFY g VARCHAR(20), MODIFY u TIME(6),\n\
         ADD UNIQUE (f(5)), ADD INDEX (h);\n\
         ALTER TABLE shop.orders MODIFY note VARCHAR(20) CHARACTER SET latin1;\n\
         ALTER TABLE shop.parts MODIFY b VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin",
    )
    .await;
    eu.exec("ALTER TABLE shop.parts MODIFY b VARCHAR(16) CHARACTER SET utf8 COLLATE utf8_bin")
        .await;
    let (_, text) = doctor(&eu, &us, &no_kafka(), &["-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let found: Vec<String> = findings
        .filter(|finding| finding["check"] == "peer_schema")
        .map(|finding| {
            let word = |name: &str| finding[name].as_str().unwrap().to_owned();
            format!("{} {}: {}", word("severity"), word("subject"), word("found"))
        })
        .collect();
    let expected = [
        "fail shop.filled: only us has a unique key on f(5)",
        "warn shop.filled: b has DEFAULT 7 here and DEFAULT 8 in us",
        "warn shop.filled: g has DEFAULT NULL as text here and DEFAULT NULL in us",
        "warn shop.filled: i is NULL here and NOT NULL in us",
        "warn shop.filled: i has DEFAULT NULL here and no default in us",
        "warn shop.filled: n has DEFAULT current_timestamp(), ON UPDATE current_timestamp() here \
         and DEFAULT current_timestamp() in us",
        "warn shop.filled: u is time(3) here and time(6) in us",
        "warn shop.filled: u has DEFAULT 12:13:14.500 here and DEFAULT NULL in us",
        "warn shop.orders: note is utf8mb4_general_ci here and latin1_swedish_ci in us",
        "fail shop.parts: b is utf8mb3_bin here and ascii_bin in us",
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_mysql_without_gtids_is_told_so() {
    let options = [
        "--gtid-mode=OFF",
        "--enforce-gtid-consistency=OFF",
        "--binlog-format=STATEMENT",
        "--binlog-row-image=MINIMAL",
        "--sync-binlog=0",
        "--auto-increment-increment=1",
    ];
    let eu = start(Flavour::MySql56, 1, &options).await;
    let us = start(Flavour::MySql56, 2, &[]).await;
    eu.exec(&format!("{ACCOUNT}{BAD_TABLES}{ZONES}SET GLOBAL read_only = ON")).await;
    us.exec(&format!("{ACCOUNT}{BAD_TABLES}")).await;
    let expected = [
        "auto_increment=fail",
        "binlog_dir=warn",
        "binlog_format=fail",
        "binlog_row_image=fail",
        "enforce_gtid_consistency=fail",
        "foreign_key_cascade=fail",
        "gtid_mode=fail",
        "kafka_reachable=fail",
        "key_collation=warn",
        "key_prefix=fail",
        "policy_fit=fail",
        "primary_key=fail",
        "read_only=fail",
        "storage_engine=fail",
        "sync_binlog=warn",
        "triggers=fail",
        "unique_keys=warn",
    ];
    assert_eq!(troubles(&eu, &us, &no_kafka()), expected);
}

/// Makes a topic and waits until the node tells of it.
async fn create(admin: &AdminClient<DefaultClientContext>, topic: &NewTopic<'_>) {
    for made in admin.create_topics([topic], &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
    lab::wait_until("the topic is there", lab::PATIENCE, || async {
        let told = admin.inner().fetch_metadata(Some(topic.name), lab::PATIENCE).unwrap();
        told.topics().iter().all(|t| t.error().is_none() && !t.partitions().is_empty())
    })
    .await;
}

/// Writes a record as of so many days ago; a topic that is compacted wants a key.
async fn last_came(config: &ClientConfig, topic: &str, days: i64) {
    let producer: FutureProducer = config.create().unwrap();
    let then = i64::try_from(wall_us() / 1000).unwrap() - days * 86_400_000;
    let record = FutureRecord::to(topic).partition(0).key("k").payload("x").timestamp(then);
    producer.send(record, lab::PATIENCE).await.unwrap();
}

#[tokio::test]
async fn topics_are_judged_by_their_settings() {
    let kafka = Kafka::start("doctor", &[]).await;
    let eu = start(Flavour::MariaDb, 1, &[]).await;
    let us = start(Flavour::MariaDb, 2, &[]).await;
    for database in [&eu, &us] {
        database.exec(&format!("{ACCOUNT}{GOOD_TABLES}{ZONES}")).await;
    }
    let brokers = kafka.brokers();
    // One node is all that this Kafka has; topics that are not there are made later.
    assert_eq!(troubles(&eu, &us, &brokers), ["kafka_brokers=warn"]);

    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let good = NewTopic::new("causeway.outbox.eu", 1, TopicReplication::Fixed(1))
        .set("retention.ms", "604800000")
        .set("max.message.bytes", "4194304")
        .set("unclean.leader.election.enable", "false");
    let bad = NewTopic::new("causeway.outbox.us", 2, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("retention.ms", "3600000")
        .set("max.message.bytes", "1000");
    create(&admin, &good).await;
    assert_eq!(troubles(&eu, &us, &brokers), ["kafka_brokers=warn", "topic_in_sync=warn"]);
    create(&admin, &bad).await;
    // Half of `retention` is three and a half days.
    last_came(&config, "causeway.outbox.us", 4).await;
    let mut expected = [
        "kafka_brokers=warn",
        "region_away=warn",
        "topic_cleanup=fail",
        "topic_in_sync=warn",
        "topic_partitions=fail",
        "topic_record_size=fail",
        "topic_retention=fail",
    ];
    assert_eq!(troubles(&eu, &us, &brokers), expected);
    last_came(&config, "causeway.outbox.us", 8).await;
    expected[1] = "region_away=fail";
    assert_eq!(troubles(&eu, &us, &brokers), expected);
}
