//! The replicated tables: keys, triggers, foreign keys, engines, collations.

use std::collections::BTreeMap;

use super::super::{Account, ColumnFacts, DatabaseFacts, Finding, ForeignKey, TableFacts};
use super::privileges::lacking;
use crate::change::{ColumnType, Equality, TableName};
use crate::topology::{ColumnShape, TableRule};

const PRIMARY: &str = "PRIMARY";

/// A check of one table: the findings that break it.
type Check = fn(&TableName, &TableFacts, &Seen<'_>) -> Vec<Finding>;

/// What a check may look at beside its table.
struct Seen<'a> {
    account: &'a Account,
    tables: &'a BTreeMap<TableName, TableFacts>,
    /// The topology's rule of each of them.
    rules: &'a BTreeMap<TableName, TableRule>,
}

/// Name, why, check.
const CHECKS: &[(&str, &str, Check)] = &[
    ("table_kind", KIND, kind),
    ("storage_engine", ENGINE, engine),
    ("primary_key", KEY, primary_key),
    ("key_prefix", PREFIX, key_prefix),
    ("key_collation", COLLATION, key_collation),
    ("key_type", KEY_TYPE, key_type),
    ("column_types", TYPES, column_types),
    ("policy_fit", POLICY, policy),
    ("unique_keys", UNIQUE, unique_keys),
    ("triggers", TRIGGER, triggers),
    ("foreign_key_cascade", CASCADE, cascades),
    ("foreign_key_scope", FK_SCOPE, foreign_key_scope),
];

/// Of these the agent refuses to begin: nothing would stop by itself, and rows would
/// silently differ between regions.
const REFUSED: [&str; 4] = ["table_kind", "storage_engine", "triggers", "foreign_key_cascade"];

const MATCHED: &str = "a pattern that matches nothing is often a misspelt one";
const KIND: &str = "system-versioned tables write history rows and sequences events of their own, \
                    which can't be replicated as rows";
const ENGINE: &str = "only a transactional engine can take a batch and its position as one";
const KEY: &str = "a row is known by its primary key; without one a change can't be matched";
const PREFIX: &str = "rows that share the beginning are one row to the server and two to the \
                      agent, which knows rows by whole values: it stops at the table";
const COLLATION: &str = "two spellings can be one row there; the agent folds printable ASCII \
                         only, and stops the stream at other values rather than guess";
const KEY_TYPE: &str = "floating point keys do not compare equal after a round trip";
const TYPES: &str = "capture stops at a type whose rows it can't read exactly";
const POLICY: &str = "a policy needs the columns that it names, of a type that it can work with, and \
                      some need a table without further unique keys; otherwise the stream stops \
                      at the table's first row";
const UNIQUE: &str = "two regions may give one value to two rows at the same time; only one of \
                      them can stay";
const TRIGGER: &str = "a trigger's effects are in the binlog, and it fires again where they are \
                       applied: they would count twice";
const CASCADE: &str = "cascades are not in the binlog (MySQL before 9.6, MariaDB): the other \
                       regions would keep the child rows";
const FK_SCOPE: &str = "the referenced rows are not replicated, so a child may arrive without \
                        its parent";

pub(super) fn judge(database: &DatabaseFacts) -> Vec<Finding> {
    let mut findings = vec![matched(database)];
    findings.extend(database.unmatched.iter().map(|pattern| {
        Finding::warn("tables_matched", MATCHED, format!("`{pattern}` matches no table"))
            .on(pattern)
            .fix("correct the pattern in the topology, or create the table")
    }));
    let DatabaseFacts { account, tables, rules, .. } = database;
    let seen = Seen { account, tables, rules };
    for (name, why, check) in CHECKS {
        let found = broken((name, why, *check), &seen);
        if found.is_empty() {
            let count = tables.len();
            findings.push(Finding::pass(name, why, format!("{count} tables looked at")));
        }
        findings.extend(found);
    }
    findings
}

/// What the agent does not begin with (`Fail`), and what it can't see of that (`Warn`).
/// Of the tables their kind, engine, triggers and foreign keys are looked at.
#[must_use]
pub fn refused(account: &Account, tables: &BTreeMap<TableName, TableFacts>) -> Vec<Finding> {
    let seen = Seen { account, tables, rules: &BTreeMap::new() };
    let checks = CHECKS.iter().filter(|(name, ..)| REFUSED.contains(name));
    checks.flat_map(|&(name, why, check)| broken((name, why, check), &seen)).collect()
}

fn broken(
    (name, why, check): (&'static str, &'static str, Check),
    seen: &Seen<'_>,
) -> Vec<Finding> {
    let found = seen.tables.iter().flat_map(|(table, facts)| check(table, facts, seen));
    found.chain(unseen(name, why, seen)).collect()
}

/// Servers hide triggers from an account without TRIGGER on the table, and foreign
/// keys from one that may only read it; that nothing is seen says nothing then.
fn unseen(check: &'static str, why: &'static str, seen: &Seen<'_>) -> Option<Finding> {
    let needed: &[&'static str] = match check {
        "triggers" => &["TRIGGER"],
        "foreign_key_cascade" | "foreign_key_scope" => &["INSERT", "UPDATE", "DELETE"],
        _ => return None,
    };
    let account = seen.account;
    let mut tables = seen.tables.keys();
    let table = tables.find(|table| lacking(account, needed, table).len() == needed.len())?;
    let schema = &table.schema;
    let list = needed.join(", ");
    Some(
        Finding::warn(check, why, format!("not known: {} may not see them", account.name))
            .on(table)
            .fix(format!("grant {list} on `{schema}`.* to the agent's account, and look again"))
            .sql(format!("GRANT {list} ON `{schema}`.* TO {}", account.name)),
    )
}

fn matched(database: &DatabaseFacts) -> Finding {
    let count = database.tables.len();
    if count > 0 {
        return Finding::pass("tables_matched", MATCHED, format!("{count} tables are replicated"));
    }
    Finding::warn("tables_matched", MATCHED, "no table is replicated")
        .fix("name tables in the topology, or create them")
}

fn kind(table: &TableName, facts: &TableFacts, _: &Seen<'_>) -> Vec<Finding> {
    if facts.kind.eq_ignore_ascii_case("BASE TABLE") {
        return Vec::new();
    }
    let found = format!("its kind is {}", facts.kind);
    vec![
        Finding::fail("table_kind", KIND, found)
            .on(table)
            .fix("leave it out of the topology, or make it an ordinary table"),
    ]
}

fn engine(table: &TableName, facts: &TableFacts, _: &Seen<'_>) -> Vec<Finding> {
    let good = ["InnoDB", "XtraDB", "ROCKSDB"];
    let ordinary = facts.kind.eq_ignore_ascii_case("BASE TABLE");
    if !ordinary || good.iter().any(|e| facts.engine.eq_ignore_ascii_case(e)) {
        return Vec::new();
    }
    vec![
        Finding::fail("storage_engine", ENGINE, format!("the engine is {}", facts.engine))
            .on(table)
            .fix("move the table to InnoDB")
            .sql(format!("ALTER TABLE {} ENGINE=InnoDB", quoted(table))),
    ]
}

fn primary_key(table: &TableName, facts: &TableFacts, _: &Seen<'_>) -> Vec<Finding> {
    if facts.unique_keys.contains_key(PRIMARY) || facts.kind.eq_ignore_ascii_case("SEQUENCE") {
        return Vec::new();
    }
    let finding = Finding::fail("primary_key", KEY, "it has no primary key").on(table);
    let fit = facts.unique_keys.iter().next();
    vec![match fit {
        Some((key, columns)) => finding
            .fix(format!("make the unique key {key} the primary key, if none of it is NULL"))
            .sql(format!("ALTER TABLE {} ADD PRIMARY KEY ({})", quoted(table), list(columns))),
        None => finding.fix(
            "add a primary key in every region: the columns that name a row, or a UUID given by \
             the application; rows that are there need the same value in every region",
        ),
    }]
}

fn key_prefix(table: &TableName, facts: &TableFacts, _: &Seen<'_>) -> Vec<Finding> {
    let Some(cut) = facts.cut_keys.get(PRIMARY) else { return Vec::new() };
    let key = facts.unique_keys.get(PRIMARY).map_or(&[][..], Vec::as_slice);
    let parts: Vec<_> = cut.iter().map(|(column, part)| format!("{column}({part})")).collect();
    let finding = Finding::fail(
        "key_prefix",
        PREFIX,
        format!("the primary key covers only {}", parts.join(", ")),
    )
    .on(table);
    let wide = |column: &&ColumnFacts| {
        matches!(column_type(column), ColumnType::Text | ColumnType::Blob)
            && cut.iter().any(|(name, _)| *name == column.name)
    };
    vec![match facts.columns.iter().find(wide) {
        Some(column) => finding.fix(format!(
            "give the table another primary key in every region: {} is {}, which no key covers \
             whole (a VARCHAR or VARBINARY could be), or exclude the table in the topology",
            column.name, column.column_type
        )),
        None => finding.fix("let the key cover whole columns in every region").sql(format!(
            "ALTER TABLE {} DROP PRIMARY KEY, ADD PRIMARY KEY ({})",
            quoted(table),
            list(key)
        )),
    }]
}

fn key_columns(facts: &TableFacts) -> impl Iterator<Item = &ColumnFacts> {
    let key = facts.unique_keys.get(PRIMARY).map_or(&[][..], Vec::as_slice);
    facts.columns.iter().filter(move |column| key.contains(&column.name))
}

fn key_collation(table: &TableName, facts: &TableFacts, _: &Seen<'_>) -> Vec<Finding> {
    key_columns(facts)
        .filter_map(|column| Some((column, column.collation.as_deref()?)))
        .filter_map(|(column, collation)| {
            let charset = collation.split('_').next().unwrap_or(collation);
            let (name, column_type) = (&column.name, &column.column_type);
            let found = format!("key column {name} has the collation {collation}");
            let finding = match Equality::of(collation) {
                Equality::Bytes => return None,
                Equality::Ascii | Equality::AsciiFolded => {
                    Finding::warn("key_collation", COLLATION, found)
                }
                Equality::Unknown => {
                    let found = format!("{found}, of which no value's equality is known");
                    Finding::fail("key_collation", COLLATION, found)
                }
            };
            let sql = format!(
                "ALTER TABLE {} MODIFY `{name}` {column_type} CHARACTER SET {charset} \
                 COLLATE {charset}_bin NOT NULL",
                quoted(table)
            );
            let fix = "give key columns a binary collation in every region";
            Some(finding.on(table).fix(fix).sql(sql))
        })
        .collect()
}

fn key_type(table: &TableName, facts: &TableFacts, _: &Seen<'_>) -> Vec<Finding> {
    key_columns(facts)
        .filter(|c| c.column_type.starts_with("float") || c.column_type.starts_with("double"))
        .map(|column| {
            let found = format!("key column {} is {}", column.name, column.column_type);
            Finding::fail("key_type", KEY_TYPE, found)
                .on(table)
                .fix("use an exact type (DECIMAL, an integer) for the key")
        })
        .collect()
}

/// By the first word of the type.
fn column_type(column: &ColumnFacts) -> ColumnType {
    let text = column.column_type.to_ascii_lowercase();
    let word = text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    ColumnType::of_sql(word)
}

fn column_types(table: &TableName, facts: &TableFacts, _: &Seen<'_>) -> Vec<Finding> {
    let unknown = |column: &&ColumnFacts| column_type(column) == ColumnType::Unspecified;
    let broken = facts.columns.iter().filter(unknown);
    broken
        .map(|column| {
            let found = format!("column {} is {}", column.name, column.column_type);
            Finding::fail("column_types", TYPES, found)
                .on(table)
                .fix("exclude the table in the topology, or change the column's type")
        })
        .collect()
}

fn policy(table: &TableName, facts: &TableFacts, seen: &Seen<'_>) -> Vec<Finding> {
    let Some(rule) = seen.rules.get(table) else { return Vec::new() };
    let key = facts.unique_keys.get(PRIMARY).map_or(&[][..], Vec::as_slice);
    let shape = |column: &ColumnFacts| ColumnShape {
        name: column.name.clone(),
        column_type: column_type(column),
        key: key.contains(&column.name),
        generated: column.generated,
        nullable: Some(column.nullable),
    };
    let shapes: Vec<_> = facts.columns.iter().map(shape).collect();
    let unique_keys = facts.unique_keys.keys().any(|name| name != PRIMARY);
    let wrong = rule.check_columns(&shapes, unique_keys).err().unwrap_or_default();
    wrong
        .into_iter()
        .map(|found| {
            Finding::fail("policy_fit", POLICY, found).on(table).fix(format!(
                "change the table, or its rule `tables: {}` in the topology",
                rule.tables
            ))
        })
        .collect()
}

fn unique_keys(table: &TableName, facts: &TableFacts, _: &Seen<'_>) -> Vec<Finding> {
    let further = facts.unique_keys.iter().filter(|(name, _)| *name != PRIMARY);
    further
        .map(|(name, columns)| {
            let cut = facts.cut_keys.get(name).map_or(&[][..], Vec::as_slice);
            let part = |column: &String| {
                let found = cut.iter().find(|(cut, _)| cut == column);
                found.map_or_else(|| column.clone(), |(_, part)| format!("{column}({part})"))
            };
            let parts: Vec<_> = columns.iter().map(part).collect();
            let mut found = format!("unique key {name} ({})", parts.join(", "));
            if !cut.is_empty() {
                found.push_str(
                    "; the agent compares whole values: of different ones that begin alike, the \
                     second stops the stream that brings it",
                );
            }
            Finding::warn("unique_keys", UNIQUE, found).on(table).fix(
                "make sure that one region alone gives such values, or that the values of \
                 different regions differ (a prefix, a UUID); or drop the uniqueness",
            )
        })
        .collect()
}

fn triggers(table: &TableName, facts: &TableFacts, seen: &Seen<'_>) -> Vec<Finding> {
    let user = seen.account.name.split('@').next().unwrap_or_default();
    let user = user.trim_matches(|c| c == '\'' || c == '`');
    // As a text of its own: `repl` stands in `REPLACE(` too.
    let texts =
        [format!("'{user}'"), format!("\"{user}\""), format!("'{user}@"), format!("\"{user}@")];
    let named = |body: &str| !user.is_empty() && texts.iter().any(|text| body.contains(text));
    facts
        .triggers
        .iter()
        .map(|trigger| {
            let name = &trigger.name;
            if named(&trigger.body) {
                return Finding::warn(
                    "triggers",
                    TRIGGER,
                    format!("trigger {name} names the agent's user {user}; it is not tried"),
                )
                .on(table)
                .fix(format!("make sure that {name} does nothing for the user {user}"));
            }
            Finding::fail("triggers", TRIGGER, format!("trigger {name}"))
                .on(table)
                .fix(format!(
                    "move what {name} does into the application, or let it do nothing for the \
                     agent: IF SUBSTRING_INDEX(USER(), '@', 1) <> '{user}' THEN … END IF"
                ))
                .sql(format!("DROP TRIGGER `{}`.`{name}`", table.schema))
        })
        .collect()
}

fn cascades(table: &TableName, facts: &TableFacts, _: &Seen<'_>) -> Vec<Finding> {
    let acts = |rule: &str| !matches!(rule, "RESTRICT" | "NO ACTION");
    facts
        .foreign_keys
        .iter()
        .filter(|key| acts(&key.on_delete) || acts(&key.on_update))
        .map(|key| {
            let found = format!(
                "foreign key {}: ON DELETE {}, ON UPDATE {}",
                key.name, key.on_delete, key.on_update
            );
            Finding::fail("foreign_key_cascade", CASCADE, found)
                .on(table)
                .fix("use RESTRICT, and change or delete the children in the application")
                .sql(restrict(table, key))
        })
        .collect()
}

fn restrict(table: &TableName, key: &ForeignKey) -> String {
    format!(
        "ALTER TABLE {} DROP FOREIGN KEY `{}`, ADD CONSTRAINT `{}_restrict` FOREIGN KEY ({}) \
         REFERENCES {} ({})",
        quoted(table),
        key.name,
        key.name,
        list(&key.columns),
        quoted(&key.target),
        list(&key.target_columns)
    )
}

fn foreign_key_scope(table: &TableName, facts: &TableFacts, seen: &Seen<'_>) -> Vec<Finding> {
    facts
        .foreign_keys
        .iter()
        .filter(|key| !seen.tables.contains_key(&key.target))
        .map(|key| {
            let found = format!("foreign key {} points to {}", key.name, key.target);
            Finding::warn("foreign_key_scope", FK_SCOPE, found)
                .on(table)
                .fix(format!("replicate {} too, or drop the foreign key", key.target))
        })
        .collect()
}

fn quoted(table: &TableName) -> String {
    format!("`{}`.`{}`", table.schema, table.name)
}

fn list(columns: &[String]) -> String {
    columns.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ")
}
