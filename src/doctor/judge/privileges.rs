//! What the agent's account may do.

use super::super::{Account, DatabaseFacts, Finding, Flavor, Grant, Scope};
use crate::change::TableName;

const CHECK: &str = "privileges";
const WHY: &str = "the agent reads the binlog and writes to the replicated tables and to its own \
                   schema; it needs no SUPER";
const ROWS: &[&str] = &["SELECT", "INSERT", "UPDATE", "DELETE"];
const OWN: &[&str] = &["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "INDEX"];
/// The schema of the agent's own tables.
const OWN_SCHEMA: &str = "causeway";

pub(super) fn judge(database: &DatabaseFacts) -> Vec<Finding> {
    let mut findings = needed(database);
    findings.extend(annotations(database));
    findings
}

/// Without the right nothing but room and time is lost, so it is no warning.
fn annotations(database: &DatabaseFacts) -> Option<Finding> {
    const CHECK: &str = "binlog_annotate_row_events";
    const WHY: &str = "where it is ON, the binlog holds what the agent applies twice: as rows, \
                       and as the text of its statements";
    let value = database.variables.get(CHECK)?;
    let account = &database.account;
    let found = if matches!(value.as_str(), "OFF" | "0") {
        format!("{CHECK} is {value}")
    } else if may_choose(database) {
        format!("{CHECK} is {value}, and the agent leaves its own statements out")
    } else {
        let name = &account.name;
        format!("{CHECK} is {value}; to leave its own statements out {name} lacks BINLOG ADMIN")
    };
    Some(Finding::pass(CHECK, WHY, found))
}

/// From 11.0 on SUPER no longer holds BINLOG ADMIN.
fn may_choose(database: &DatabaseFacts) -> bool {
    let holds = |name| holds(&database.account, name, None);
    holds("BINLOG ADMIN") || database.version < (11, 0, 0) && holds("SUPER")
}

fn needed(database: &DatabaseFacts) -> Vec<Finding> {
    let account = &database.account;
    let mut missing: Vec<Finding> = global(database).into_iter().collect();
    let own = TableName { schema: OWN_SCHEMA.to_owned(), name: String::new() };
    let lacking = lacking(account, OWN, &own);
    if !lacking.is_empty() {
        missing.push(lack(account, &lacking, &format!("`{OWN_SCHEMA}`.*")));
    }
    let mut schemas: Vec<(&str, Vec<&str>)> = Vec::new();
    for table in database.tables.keys() {
        let lacking = self::lacking(account, ROWS, table);
        if lacking.is_empty() || schemas.iter().any(|(s, l)| *s == table.schema && *l == lacking) {
            continue;
        }
        missing.push(lack(account, &lacking, &format!("`{}`.*", table.schema)));
        schemas.push((&table.schema, lacking));
    }
    if missing.is_empty() {
        missing.push(Finding::pass(CHECK, WHY, format!("{} has what it needs", account.name)));
    }
    missing
}

/// Privileges that exist only for the whole server.
fn global(database: &DatabaseFacts) -> Option<Finding> {
    let needed: &[&[&str]] = match database.flavor {
        Flavor::MariaDb => &[
            &["REPLICATION SLAVE", "REPLICATION REPLICA"],
            &["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"],
        ],
        Flavor::MySql => &[&["REPLICATION SLAVE"], &["REPLICATION CLIENT", "SUPER"]],
    };
    let lacking: Vec<&str> = needed
        .iter()
        .filter(|names| !names.iter().any(|name| holds(&database.account, name, None)))
        .map(|names| names[0])
        .collect();
    if lacking.is_empty() { None } else { Some(lack(&database.account, &lacking, "*.*")) }
}

fn lack(account: &Account, privileges: &[&str], place: &str) -> Finding {
    let list = privileges.join(", ");
    Finding::fail(CHECK, WHY, format!("{} lacks {list} on {place}", account.name))
        .on(place)
        .fix(format!("grant {list} on {place} to the agent's account"))
        .sql(format!("GRANT {list} ON {place} TO {}", account.name))
}

/// Those of `needed` that the account has not on `table`.
pub(super) fn lacking(
    account: &Account,
    needed: &[&'static str],
    table: &TableName,
) -> Vec<&'static str> {
    needed.iter().copied().filter(|name| !holds(account, name, Some(table))).collect()
}

fn holds(account: &Account, privilege: &str, table: Option<&TableName>) -> bool {
    account.grants.iter().any(|grant| covers(grant, table) && grants(grant, privilege))
}

fn grants(grant: &Grant, privilege: &str) -> bool {
    grant.privileges.contains(privilege) || grant.privileges.contains("ALL PRIVILEGES")
}

fn covers(grant: &Grant, table: Option<&TableName>) -> bool {
    match (&grant.scope, table) {
        (Scope::Global, _) => true,
        (Scope::Schema(pattern), Some(table)) => like(pattern.as_bytes(), table.schema.as_bytes()),
        (Scope::Table(granted), Some(table)) => granted == table,
        (Scope::Schema(_) | Scope::Table(_), None) => false,
    }
}

/// SQL's LIKE, with `\` before a literal `%` or `_`.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'%', rest @ ..] => (0..=text.len()).any(|skip| like(rest, &text[skip..])),
        [b'\\', literal, rest @ ..] => {
            text.split_first().is_some_and(|(first, text)| first == literal && like(rest, text))
        }
        [b'_', rest @ ..] => text.split_first().is_some_and(|(_, text)| like(rest, text)),
        [literal, rest @ ..] => {
            text.split_first().is_some_and(|(first, text)| first == literal && like(rest, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, grant};
    use super::*;
    use crate::doctor::{Report, Severity};

    #[track_caller]
    fn check(value: &str, (held, major): (&str, u32), expected: &str) {
        let mut facts = good();
        let db = facts.database.as_mut().unwrap();
        db.version = (major, 4, 0);
        db.variables.insert("binlog_annotate_row_events".to_owned(), value.to_owned());
        db.account.grants.push(grant(&[held], Scope::Global));
        let told = |f: &Finding| f.severity == Severity::Pass && f.found.ends_with(expected);
        assert!(Report::new(&facts).findings.iter().any(told));
    }

    #[test]
    fn who_writes_statements_into_the_binlog_is_told_how_not_to() {
        check("OFF", ("PROCESS", 11), "_events is OFF");
        check("ON", ("BINLOG ADMIN", 11), "leaves its own statements out");
        check("ON", ("SUPER", 10), "leaves its own statements out");
        check("ON", ("SUPER", 11), "'causeway'@'%' lacks BINLOG ADMIN");
    }
}
