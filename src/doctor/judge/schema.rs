//! This region's tables against those of another: what differs, and what that means.

use std::collections::BTreeSet;

use super::super::{
    ColumnDefault, ColumnFacts, DatabaseFacts, Finding, Initial, PeerFacts, Severity, TableFacts,
};
use crate::change::TableName;

const CHECK: &str = "peer_schema";
const SCHEMA: &str = "a row that does not fit stops the stream";
const IDENTITY: &str = "what is one value in one region is two in the other: they would not agree \
                        on which row, or which claim of a value, is meant";
const DEFAULT: &str = "a row that leaves the column out, or comes from a region without it, would \
                       not be the same everywhere";

pub(super) fn judge(database: &DatabaseFacts, name: &str, peer: &PeerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (table, facts) in &database.tables {
        let Some(theirs) = peer.tables.get(table) else {
            findings.push(
                Finding::fail(CHECK, SCHEMA, format!("{name} has no such table"))
                    .on(table)
                    .fix(format!("create {table} in {name}")),
            );
            continue;
        };
        let mut pair = Pair { table, name, ours: facts, theirs, findings: Vec::new() };
        pair.keys();
        pair.one_sided();
        pair.columns();
        findings.extend(pair.findings);
    }
    for table in peer.tables.keys().filter(|table| !database.tables.contains_key(*table)) {
        findings.push(
            Finding::fail(CHECK, SCHEMA, format!("{name} has it and this region has not"))
                .on(table)
                .fix(format!("create {table} here")),
        );
    }
    if findings.is_empty() {
        findings
            .push(Finding::pass(CHECK, SCHEMA, format!("the tables fit those of {name}")).on(name));
    }
    findings
}

/// A table here and there.
struct Pair<'a> {
    table: &'a TableName,
    name: &'a str,
    ours: &'a TableFacts,
    theirs: &'a TableFacts,
    findings: Vec<Finding>,
}

impl Pair<'_> {
    fn find(&mut self, severity: Severity, why: &'static str, found: String, fix: &str) {
        self.findings.push(Finding::new(CHECK, severity, why, found).on(self.table).fix(fix));
    }

    fn keys(&mut self) {
        let keys = (self.ours.unique_keys.get("PRIMARY"), self.theirs.unique_keys.get("PRIMARY"));
        if matches!(keys, (Some(here), Some(there)) if !alike(here, there)) {
            let found = format!("the primary key differs from the one in {}", self.name);
            let fix = "give the table one primary key in every region";
            self.find(Severity::Fail, IDENTITY, found, fix);
        }
        let (ours, theirs) = (further(self.ours), further(self.theirs));
        let only = |side: &str, some: &BTreeSet<String>, others: &BTreeSet<String>| {
            let keys = some.difference(others);
            keys.map(|key| format!("only {side} has a unique key on {key}")).collect::<Vec<_>>()
        };
        let mut found = only("this region", &ours, &theirs);
        found.extend(only(self.name, &theirs, &ours));
        for found in found {
            let fix = "give the table the same unique keys in every region";
            self.find(Severity::Fail, IDENTITY, found, fix);
        }
    }

    fn one_sided(&mut self) {
        let (name, ours, theirs) = (self.name, self.ours, self.theirs);
        for (side, some, others) in [("this region", ours, theirs), (name, theirs, ours)] {
            for column in &some.columns {
                if others.columns.iter().any(|o| o.name.eq_ignore_ascii_case(&column.name)) {
                    continue;
                }
                let found = format!("only {side} has the column {}", column.name);
                let further = some.unique_keys.keys().any(|key| key != "PRIMARY");
                let severity =
                    if column.optional && !further { Severity::Warn } else { Severity::Fail };
                let fix = "add the column on the other side, with the same default";
                self.find(severity, SCHEMA, found, fix);
            }
        }
    }

    fn columns(&mut self) {
        for here in &self.ours.columns {
            let there = self.theirs.columns.iter();
            let mut there = there.filter(|o| o.name.eq_ignore_ascii_case(&here.name));
            if let Some(there) = there.next() {
                self.column(here, there);
            }
        }
    }

    fn column(&mut self, here: &ColumnFacts, there: &ColumnFacts) {
        let name = &here.name;
        let says = |ours: &str, theirs: &str| {
            format!("{name} is {ours} here and {theirs} in {}", self.name)
        };
        let mut found = Vec::new();
        if plain(&here.column_type) != plain(&there.column_type) {
            let types = [&here.column_type, &there.column_type];
            let labels = types.iter().any(|t| t.starts_with("enum") || t.starts_with("set"));
            let severity = if labels { Severity::Fail } else { Severity::Warn };
            let fix = "give the column one type in every region".to_owned();
            found.push((severity, SCHEMA, says(types[0], types[1]), fix));
        }
        let in_key = self.is_in_key(name);
        let collations = (canonical(here), canonical(there));
        if let (Some(ours), Some(theirs)) = &collations
            && if in_key { ours != theirs } else { charset(ours) != charset(theirs) }
        {
            let (severity, why, what) = if in_key {
                (Severity::Fail, IDENTITY, "collation")
            } else {
                (Severity::Warn, SCHEMA, "character set")
            };
            let fix = format!("give the column one {what} in every region");
            found.push((severity, why, says(ours, theirs), fix));
        }
        let words = [
            (here.nullable, there.nullable, "NULL", "NOT NULL"),
            (here.generated, there.generated, "generated", "stored as written"),
            (here.auto_increment, there.auto_increment, "AUTO_INCREMENT", "not"),
        ];
        for (ours, theirs, yes, no) in words {
            if ours != theirs {
                let word = |is: bool| if is { yes } else { no };
                let fix = "define the column alike in every region".to_owned();
                found.push((Severity::Warn, SCHEMA, says(word(ours), word(theirs)), fix));
            }
        }
        // MySQL 5.6 gives the columns of a key a default of its own.
        if here.default != there.default && !in_key && here.generated == there.generated {
            let (ours, theirs) = (here.default.to_string(), there.default.to_string());
            let mut text = format!("{name} has {ours} here and {theirs} in {}", self.name);
            if are_expressions(&here.default, &there.default) {
                text.push_str(" (as the servers print it: it may be the same)");
            }
            let fix = "give the column one default in every region: ALTER TABLE … ALTER … SET \
                       DEFAULT …";
            found.push((Severity::Warn, DEFAULT, text, fix.to_owned()));
        }
        for (severity, why, found, fix) in found {
            self.find(severity, why, found, &fix);
        }
    }

    fn is_in_key(&self, name: &str) -> bool {
        let keys = self.ours.unique_keys.values().chain(self.theirs.unique_keys.values());
        keys.flatten().any(|column| column.eq_ignore_ascii_case(name))
    }
}

fn alike(here: &[String], there: &[String]) -> bool {
    here.len() == there.len() && here.iter().zip(there).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// The unique keys beside the primary key, by what they cover: names don't matter.
fn further(facts: &TableFacts) -> BTreeSet<String> {
    let keys = facts.unique_keys.iter().filter(|(name, _)| *name != "PRIMARY");
    let named = keys.map(|(name, columns)| {
        let cut = facts.cut_keys.get(name).map_or(&[][..], Vec::as_slice);
        let part = |column: &String| {
            let part = cut.iter().find(|(cut, _)| cut == column);
            let part = part.map_or_else(String::new, |(_, part)| format!("({part})"));
            format!("{}{part}", column.to_lowercase())
        };
        columns.iter().map(part).collect::<Vec<_>>().join(", ")
    });
    named.collect()
}

/// `utf8` is the old name of `utf8mb3`.
fn canonical(column: &ColumnFacts) -> Option<String> {
    let collation = column.collation.as_deref()?;
    let old = collation.strip_prefix("utf8_");
    Some(old.map_or_else(|| collation.to_owned(), |rest| format!("utf8mb3_{rest}")))
}

fn charset(collation: &str) -> &str {
    collation.split('_').next().unwrap_or(collation)
}

/// Two servers may print one expression in two ways; not the clock.
fn are_expressions(here: &ColumnDefault, there: &ColumnDefault) -> bool {
    let other = |default: &ColumnDefault| matches!(&default.initial, Initial::Expression(text) if !text.starts_with("current_"));
    other(here) && other(there)
}

/// The type without what differs between servers and says nothing: the display
/// width of integers, and comments.
fn plain(column_type: &str) -> String {
    let text = column_type.to_ascii_lowercase();
    let text = text.split("/*").next().unwrap_or_default().trim();
    let integer = ["tinyint", "smallint", "mediumint", "int", "bigint", "year"]
        .iter()
        .any(|name| text.starts_with(&format!("{name}(")));
    match (integer, text.split_once('('), text.split_once(')')) {
        (true, Some((name, _)), Some((_, rest))) => format!("{name}{rest}"),
        _ => text.to_owned(),
    }
}
