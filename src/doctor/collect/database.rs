//! One server: variables, account, clock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder, Row, SslOpts};

use super::super::{Account, ClockSample, DatabaseFacts, Flavor, Grant, PeerFacts, Scope};
use super::{Plan, tables};
use crate::change::TableName;
use crate::clock::wall_us;
use crate::database::{Login, takes_writes};
use crate::topology::Region;

/// The best of these counts: the one with the shortest round trip.
const CLOCK_SAMPLES: u32 = 5;
/// How long a database may take to let the account in, as the agent has it.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) async fn own(plan: &Plan<'_>) -> Result<DatabaseFacts, String> {
    let Found { mut conn, address, writable } = find(&plan.region.databases, &plan.login).await?;
    let facts = own_facts(plan, &mut conn, address).await.map_err(|error| error.to_string());
    let facts = facts.map(|facts| DatabaseFacts { writable, ..facts });
    // The answer counts; that the goodbye did not arrive does not.
    drop(conn.disconnect().await);
    facts
}

async fn own_facts(
    plan: &Plan<'_>,
    conn: &mut Conn,
    address: String,
) -> Result<DatabaseFacts, mysql_async::Error> {
    let variables = variables(conn).await?;
    let version = variables.get("version").map_or("", String::as_str);
    let flavor = if version.contains("MariaDB") { Flavor::MariaDb } else { Flavor::MySql };
    let version = parse_version(version);
    let zone: Option<Option<String>> = conn
        .query_first("SELECT CONVERT_TZ('2024-06-01 12:00:00', 'UTC', 'Europe/Berlin')")
        .await?;
    let tables = tables::replicated(conn, plan.topology).await?;
    let status = binlog_status(conn, flavor, version).await?;
    Ok(DatabaseFacts {
        address,
        listed: plan.region.databases.len(),
        writable: Vec::new(),
        flavor,
        version,
        binlog_filters: filters(status.as_ref()),
        binlog_files: plan.binlog_dir.map(|dir| files(dir, status.as_ref())),
        named_zones: zone.flatten().is_some(),
        account: account(conn).await?,
        rules: tables::rules(plan.topology, &tables),
        unmatched: tables::unmatched(plan.topology, &tables),
        tables,
        clock: clock(conn).await?,
        variables,
    })
}

pub(super) async fn peer(plan: &Plan<'_>, peer: &Region) -> Result<PeerFacts, String> {
    let Found { mut conn, .. } = find(&peer.databases, &plan.login).await?;
    let facts = peer_facts(plan, &mut conn).await.map_err(|error| error.to_string());
    drop(conn.disconnect().await);
    facts
}

async fn peer_facts(plan: &Plan<'_>, conn: &mut Conn) -> Result<PeerFacts, mysql_async::Error> {
    let auto: Option<Row> = conn
        .query_first("SELECT @@global.auto_increment_increment, @@global.auto_increment_offset")
        .await?;
    let auto = auto.and_then(|row| Some((number(&row, 0)?, number(&row, 1)?)));
    let tables = tables::replicated(conn, plan.topology).await?;
    Ok(PeerFacts { auto_increment: auto.unwrap_or((1, 1)), tables, clock: clock(conn).await? })
}

struct Found {
    conn: Conn,
    address: String,
    writable: Vec<String>,
}

/// The first that takes writes; else the first that answers, so that it can be judged.
/// All are asked at once: one that is dead takes no time from the others.
async fn find(addresses: &[String], login: &Login) -> Result<Found, String> {
    let mut best: Option<(Conn, String)> = None;
    let mut writable = Vec::new();
    let mut failures = Vec::new();
    let asked = addresses.iter().map(|address| async {
        let connected = tokio::time::timeout(CONNECT, Box::pin(connect(address, login))).await;
        connected.unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT.as_secs())))
    });
    for (address, answer) in addresses.iter().zip(join_all(asked).await) {
        match answer {
            Ok((conn, true)) => {
                if writable.is_empty() {
                    best = Some((conn, address.clone()));
                }
                writable.push(address.clone());
            }
            Ok((conn, false)) => drop(best.get_or_insert((conn, address.clone()))),
            Err(why) => failures.push(format!("{address}: {why}")),
        }
    }
    let (conn, address) = best.ok_or_else(|| failures.join("; "))?;
    Ok(Found { conn, address, writable })
}

fn options(address: &str, login: &Login) -> Result<Opts, String> {
    let (host, port) = address.rsplit_once(':').ok_or("the address has no port")?;
    let port: u16 = port.parse().map_err(|_| "the port is no number".to_owned())?;
    let opts = OptsBuilder::default()
        .ip_or_hostname(host.trim_matches(['[', ']']))
        .tcp_port(port)
        .user(Some(&login.user))
        .pass(login.password.as_ref())
        .prefer_socket(false)
        .ssl_opts(login.tls.then(SslOpts::default))
        .init(vec!["SET time_zone = '+00:00'"]);
    Ok(opts.into())
}

/// The connection, and whether the server takes writes.
async fn connect(address: &str, login: &Login) -> Result<(Conn, bool), String> {
    let opts = options(address, login)?;
    let mut conn = Conn::new(opts).await.map_err(|error| refusal(&error.to_string()))?;
    let read_only: Option<Row> =
        conn.query_first("SELECT @@global.read_only").await.map_err(|error| error.to_string())?;
    let read_only = read_only.and_then(|row| row.get_opt::<String, _>(0)?.ok());
    Ok((conn, read_only.is_some_and(|text| takes_writes(&text))))
}

/// A value, if it is a number.
fn number(row: &Row, at: usize) -> Option<u64> {
    row.get_opt::<u64, _>(at)?.ok()
}

/// The driver names the kind of an error once for each of its own layers.
fn refusal(text: &str) -> String {
    let mut text = text;
    while let Some(rest) = text.strip_prefix("Input/output error: ") {
        text = rest;
    }
    text.to_owned()
}

async fn variables(conn: &mut Conn) -> Result<BTreeMap<String, String>, mysql_async::Error> {
    let rows: Vec<(String, Option<String>)> = conn.query("SHOW GLOBAL VARIABLES").await?;
    Ok(rows
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.unwrap_or_default()))
        .collect())
}

fn parse_version(text: &str) -> (u32, u32, u32) {
    let digits = text.split(|c: char| !(c.is_ascii_digit() || c == '.')).next().unwrap_or_default();
    let mut parts = digits.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

async fn binlog_status(
    conn: &mut Conn,
    flavor: Flavor,
    version: (u32, u32, u32),
) -> Result<Option<Row>, mysql_async::Error> {
    let renamed = flavor == Flavor::MySql && version >= (8, 2, 0);
    let statement = if renamed { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    match conn.query_first(statement).await {
        Ok(row) => Ok(row),
        // The lack of the privilege is a finding of its own.
        Err(mysql_async::Error::Server(error)) if error.code == 1227 => Ok(None),
        Err(error) => Err(error),
    }
}

fn filters(status: Option<&Row>) -> Vec<String> {
    let value = |column: &str| status?.get_opt::<Option<String>, _>(column)?.ok().flatten();
    ["Binlog_Do_DB", "Binlog_Ignore_DB"]
        .iter()
        .filter_map(|name| Some((name, value(name)?)))
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name} is {value}"))
        .collect()
}

/// The present binlog file in `dir`, if it can be read here and may be the server's.
fn files(dir: &Path, status: Option<&Row>) -> Result<String, String> {
    const UNKNOWN: &str = "the server does not tell the account which binlog file it writes";
    let place = |row: &Row| Some((row.get_opt::<String, _>(0)?.ok()?, number(row, 1)?));
    let (name, written) = status.and_then(place).ok_or(UNKNOWN)?;
    let path = dir.join(name).display().to_string();
    let mut magic = [0; 4];
    let read = File::open(&path).and_then(|mut file| {
        file.read_exact(&mut magic)?;
        file.metadata()
    });
    match read {
        Err(error) => Err(format!("{path}: {error}")),
        Ok(told) if magic != *b"\xfebin" || told.len() < written => {
            Err(format!("{path} is not the file that the server writes"))
        }
        Ok(_) => Ok(path),
    }
}

pub(super) async fn account(conn: &mut Conn) -> Result<Account, mysql_async::Error> {
    let user: Option<String> = conn.query_first("SELECT CURRENT_USER()").await?;
    let user = user.unwrap_or_default();
    let (name, host) = user.rsplit_once('@').unwrap_or((&user, "%"));
    let lines: Vec<String> = conn.query("SHOW GRANTS FOR CURRENT_USER()").await?;
    Ok(Account {
        name: format!("'{name}'@'{host}'"),
        grants: lines.iter().filter_map(|line| parse_grant(line)).collect(),
    })
}

/// `GRANT a, b (columns) ON scope TO …`; `None` for grants of roles.
fn parse_grant(line: &str) -> Option<Grant> {
    let (privileges, rest) = line.strip_prefix("GRANT ")?.split_once(" ON ")?;
    let (place, _) = rest.split_once(" TO ")?;
    // A privilege on some columns only is no privilege on the table.
    let privileges = privileges
        .split(", ")
        .filter(|privilege| !privilege.contains('('))
        .map(|privilege| privilege.trim().to_ascii_uppercase())
        .map(|privilege| if privilege == "ALL" { "ALL PRIVILEGES".to_owned() } else { privilege })
        .collect();
    let scope = match place.split_once('.')? {
        ("*", "*") => Scope::Global,
        (schema, "*") => Scope::Schema(unquote(schema)),
        (schema, table) => {
            Scope::Table(TableName { schema: unquote(schema), name: unquote(table) })
        }
    };
    Some(Grant { privileges, scope })
}

fn unquote(name: &str) -> String {
    name.trim_matches('`').replace("``", "`")
}

async fn clock(conn: &mut Conn) -> Result<ClockSample, mysql_async::Error> {
    let mut best: Option<ClockSample> = None;
    for _ in 0..CLOCK_SAMPLES {
        let before = wall_us();
        let text: Option<String> = conn.query_first("SELECT UNIX_TIMESTAMP(SYSDATE(6))").await?;
        let after = wall_us();
        let there = text.as_deref().and_then(micros).unwrap_or_default();
        let round_trip_us = after.saturating_sub(before);
        let here = before.saturating_add(round_trip_us / 2);
        let offset_us = i64::try_from(i128::from(there) - i128::from(here)).unwrap_or(i64::MAX);
        let sample = ClockSample { offset_us, round_trip_us };
        if best.is_none_or(|best| round_trip_us < best.round_trip_us) {
            best = Some(sample);
        }
    }
    Ok(best.expect("at least one sample is taken"))
}

/// `seconds.fraction` as microseconds.
fn micros(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Login, Scope, find, micros, options, parse_grant, parse_version};

    fn login() -> Login {
        Login { user: "causeway".to_owned(), password: None, tls: false }
    }

    #[test]
    fn an_address_of_ipv6_loses_its_brackets() {
        let opts = options("[::1]:3306", &login()).unwrap();
        assert_eq!((opts.ip_or_hostname(), opts.tcp_port()), ("::1", 3306));
    }

    #[tokio::test]
    async fn a_database_that_is_silent_takes_no_time_from_the_next() {
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses: Vec<_> =
            silent.iter().map(|one| one.local_addr().unwrap().to_string()).collect();
        let login = login();
        let found = tokio::time::timeout(Duration::from_secs(15), find(&addresses, &login)).await;
        let why = found.expect("within the time of all questions").err().unwrap();
        for address in addresses {
            assert!(why.contains(&format!("{address}: no answer within 5 s")), "{why}");
        }
    }

    #[test]
    fn grants_are_read_as_the_servers_print_them() {
        let grant = parse_grant(
            "GRANT SELECT, REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `c`@`%` IDENTIFIED BY 'x'",
        )
        .unwrap();
        assert_eq!(grant.scope, Scope::Global);
        assert!(grant.privileges.contains("BINLOG MONITOR"));
        let grant = parse_grant(r"GRANT ALL PRIVILEGES ON `shop\_a`.* TO 'c'@'%'").unwrap();
        assert_eq!(grant.scope, Scope::Schema(r"shop\_a".to_owned()));
        let grant = parse_grant("GRANT SELECT (a), INSERT ON `s`.`t` TO `c`@`%`").unwrap();
        assert_eq!(grant.privileges.iter().collect::<Vec<_>>(), ["INSERT"]);
        assert!(parse_grant("GRANT `role` TO `c`@`%`").is_none());
    }

    #[test]
    fn versions_and_times_are_read() {
        assert_eq!(parse_version("10.11.19-MariaDB-0+deb12u1-log"), (10, 11, 19));
        assert_eq!(parse_version("5.6.24"), (5, 6, 24));
        assert_eq!(micros("1700000000.25"), Some(1_700_000_000_250_000));
        assert_eq!(micros("1700000000"), Some(1_700_000_000_000_000));
    }
}
