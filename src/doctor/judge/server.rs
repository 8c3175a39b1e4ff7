//! The server's version and global variables.

use super::super::{DatabaseFacts, Finding, Flavor, Severity};

const DURABLE: &str = "after a crash the database may lack a transaction that its peers have";

/// One variable that has to have one of some values.
struct Setting {
    check: &'static str,
    variable: &'static str,
    wanted: &'static [&'static str],
    severity: Severity,
    why: &'static str,
    /// Whether `SET GLOBAL` can change it while the server runs.
    dynamic: bool,
}

const BOTH: &[Setting] = &[
    Setting {
        check: "log_bin",
        variable: "log_bin",
        wanted: &["ON", "1"],
        severity: Severity::Fail,
        why: "the binlog is what capture reads",
        dynamic: false,
    },
    Setting {
        check: "binlog_format",
        variable: "binlog_format",
        wanted: &["ROW"],
        severity: Severity::Fail,
        why: "statements can't be resolved against concurrent writes; rows can",
        dynamic: true,
    },
    Setting {
        check: "binlog_row_image",
        variable: "binlog_row_image",
        wanted: &["FULL"],
        severity: Severity::Fail,
        why: "a partial row image lacks what resolving a conflict needs",
        dynamic: true,
    },
    Setting {
        check: "sync_binlog",
        variable: "sync_binlog",
        wanted: &["1"],
        severity: Severity::Warn,
        why: DURABLE,
        dynamic: true,
    },
    Setting {
        check: "innodb_flush_log_at_trx_commit",
        variable: "innodb_flush_log_at_trx_commit",
        wanted: &["1", "3"],
        severity: Severity::Warn,
        why: DURABLE,
        dynamic: true,
    },
    Setting {
        check: "binlog_checksum",
        variable: "binlog_checksum",
        wanted: &["CRC32"],
        severity: Severity::Warn,
        why: "without a checksum a damaged event is not seen",
        dynamic: true,
    },
];

const MARIADB: &[Setting] = &[Setting {
    check: "gtid_strict_mode",
    variable: "gtid_strict_mode",
    wanted: &["ON", "1"],
    severity: Severity::Warn,
    why: "without it a GTID's number can go back, and a position then means two things",
    dynamic: true,
}];

const MYSQL: &[Setting] = &[
    Setting {
        check: "gtid_mode",
        variable: "gtid_mode",
        wanted: &["ON"],
        severity: Severity::Fail,
        why: "capture goes on by GTID after a restart and after a change of primary",
        dynamic: false,
    },
    Setting {
        check: "enforce_gtid_consistency",
        variable: "enforce_gtid_consistency",
        wanted: &["ON", "1"],
        severity: Severity::Fail,
        why: "statements that GTIDs can't name would be refused late, or split",
        dynamic: false,
    },
];

pub(super) fn judge(database: &DatabaseFacts, outage_s_max: u64) -> Vec<Finding> {
    let mut findings = vec![version(database)];
    let own = match database.flavor {
        Flavor::MariaDb => MARIADB,
        Flavor::MySql => MYSQL,
    };
    findings.extend(BOTH.iter().chain(own).map(|setting| setting.judge(database)));
    findings.push(row_metadata(database));
    findings.push(server_id(database));
    findings.push(writable(database));
    findings.push(filters(database));
    findings.push(retention(database, outage_s_max));
    findings.push(named_zones(database));
    if database.listed > 1 {
        findings.push(log_replica_updates(database));
    }
    findings
}

impl Setting {
    fn judge(&self, database: &DatabaseFacts) -> Finding {
        let value = database.variables.get(self.variable);
        let shown = value.map_or("not there", String::as_str);
        let found = format!("{} is {shown}", self.variable);
        if value.is_some_and(|v| self.wanted.iter().any(|w| v.eq_ignore_ascii_case(w))) {
            return Finding::pass(self.check, self.why, found);
        }
        let (variable, wanted) = (self.variable, self.wanted[0]);
        let finding = Finding::new(self.check, self.severity, self.why, found);
        if self.dynamic {
            let value = if wanted.bytes().all(|b| b.is_ascii_digit()) {
                wanted.to_owned()
            } else {
                format!("'{wanted}'")
            };
            finding
                .fix(format!(
                    "set {variable}={wanted} in the server's configuration and at run time; \
                     sessions that are open keep the old value until they reconnect"
                ))
                .sql(format!("SET GLOBAL {variable} = {value}"))
        } else {
            finding.fix(format!(
                "set {variable}={wanted} in the server's configuration and restart it"
            ))
        }
    }
}

fn version(database: &DatabaseFacts) -> Finding {
    const WHY: &str = "older servers lack what capture needs in the binlog";
    let (major, minor, patch) = database.version;
    let (name, least) = match database.flavor {
        Flavor::MariaDb => ("MariaDB", (10, 5, 0)),
        // Before, a reading of the binlog by GTID does not end where that ends.
        Flavor::MySql => ("MySQL", (5, 6, 20)),
    };
    let found = format!("{name} {major}.{minor}.{patch}");
    if database.version >= least {
        return Finding::pass("server_version", WHY, found);
    }
    let (major, minor, patch) = least;
    Finding::fail("server_version", WHY, found)
        .fix(format!("move to {name} {major}.{minor}.{patch} or later"))
}

fn row_metadata(database: &DatabaseFacts) -> Finding {
    const CHECK: &str = "binlog_row_metadata";
    const WHY: &str = "with it the binlog itself says names and types as they were at the write";
    match database.variables.get(CHECK) {
        None => Finding::pass(
            CHECK,
            WHY,
            "this server has no binlog_row_metadata: names come from information_schema",
        ),
        Some(value) if value.eq_ignore_ascii_case("FULL") => {
            Finding::pass(CHECK, WHY, "binlog_row_metadata is FULL")
        }
        Some(value) => Finding::warn(CHECK, WHY, format!("binlog_row_metadata is {value}"))
            .fix("set binlog_row_metadata=FULL in the server's configuration and at run time")
            .sql("SET GLOBAL binlog_row_metadata = 'FULL'"),
    }
}

fn server_id(database: &DatabaseFacts) -> Finding {
    const WHY: &str = "a server with id 0 refuses to send its binlog";
    match number(database, "server_id") {
        Some(id) if id > 0 => Finding::pass("server_id", WHY, format!("server_id is {id}")),
        _ => Finding::fail("server_id", WHY, "server_id is 0 or not set")
            .fix("give the server an id of its own in its configuration"),
    }
}

fn writable(database: &DatabaseFacts) -> Finding {
    const WHY: &str = "the applier writes here";
    let on = |name: &str| database.variables.get(name).is_some_and(|v| v != "OFF" && v != "0");
    for variable in ["read_only", "super_read_only"] {
        if on(variable) {
            return Finding::fail("read_only", WHY, format!("{variable} is on"))
                .fix("list the primary in the topology, or make this server writable")
                .sql(format!("SET GLOBAL {variable} = OFF"));
        }
    }
    if database.writable.len() > 1 {
        let names = database.writable.join(", ");
        return Finding::fail("read_only", WHY, format!("several databases take writes: {names}"))
            .fix("make all but the primary read-only: SET GLOBAL read_only = ON");
    }
    Finding::pass("read_only", WHY, "one server takes writes")
}

fn filters(database: &DatabaseFacts) -> Finding {
    const WHY: &str = "what a filter keeps out of the binlog is never replicated";
    if database.binlog_filters.is_empty() {
        return Finding::pass("binlog_filters", WHY, "the binlog has no filter");
    }
    Finding::fail("binlog_filters", WHY, database.binlog_filters.join(", ")).fix(
        "remove binlog_do_db and binlog_ignore_db from the server's configuration; \
         the topology says what is replicated",
    )
}

fn retention(database: &DatabaseFacts, outage_s_max: u64) -> Finding {
    const CHECK: &str = "binlog_retention";
    const WHY: &str = "a binlog purged before it was read can't be captured: the region would \
                       have to be seeded again";
    let seconds = number(database, "binlog_expire_logs_seconds").filter(|s| *s > 0);
    let days = database.variables.get("expire_logs_days").and_then(|d| d.parse::<f64>().ok());
    let days = days.filter(|d| *d > 0.0).map(|d| std::time::Duration::from_secs_f64(d * 86_400.0));
    match seconds.or(days.map(|d| d.as_secs())) {
        None => Finding::pass(CHECK, WHY, "binlogs are not purged by age"),
        Some(s) if s >= outage_s_max => Finding::pass(CHECK, WHY, format!("binlogs stay {s} s")),
        Some(s) => {
            Finding::warn(CHECK, WHY, format!("binlogs stay {s} s, less than {outage_s_max} s"))
                .fix(format!("keep binlogs for {outage_s_max} s at least"))
                .sql(if database.variables.contains_key("binlog_expire_logs_seconds") {
                    format!("SET GLOBAL binlog_expire_logs_seconds = {outage_s_max}")
                } else {
                    format!("SET GLOBAL expire_logs_days = {}", outage_s_max.div_ceil(86_400))
                })
        }
    }
}

fn named_zones(database: &DatabaseFacts) -> Finding {
    const CHECK: &str = "time_zone_tables";
    const WHY: &str = "without them CONVERT_TZ with a named zone gives NULL, in generated columns \
                       and defaults too; regions that differ in this compute different rows";
    if database.named_zones {
        return Finding::pass(CHECK, WHY, "named time zones are known");
    }
    Finding::warn(CHECK, WHY, "the time zone tables are empty").fix(
        "load them: mysql_tzinfo_to_sql /usr/share/zoneinfo | mysql mysql (mariadb-tzinfo-to-sql \
         for MariaDB)",
    )
}

fn log_replica_updates(database: &DatabaseFacts) -> Finding {
    const CHECK: &str = "log_slave_updates";
    const WHY: &str = "after a change of primary capture reads the new primary's binlog, which \
                       has to hold what the old one wrote";
    let on = ["log_slave_updates", "log_replica_updates"]
        .iter()
        .any(|name| database.variables.get(*name).is_some_and(|v| v == "ON" || v == "1"));
    if on {
        return Finding::pass(CHECK, WHY, "replicas write what they apply to their binlog");
    }
    Finding::fail(CHECK, WHY, "log_slave_updates is off and several databases are listed")
        .fix("set log_slave_updates=ON in each server's configuration and restart it")
}

pub(super) fn number(database: &DatabaseFacts, variable: &str) -> Option<u64> {
    database.variables.get(variable).and_then(|value| value.parse().ok())
}
