//! Facts to findings: every check, pure.
//!
//! A check that holds gives one pass, so that the report shows what was looked at;
//! a check of many tables gives one finding for each that breaks it.

mod files;
mod kafka;
mod privileges;
mod regions;
mod schema;
mod server;
mod tables;

use super::{Facts, Finding};

pub use tables::refused;

const REACHABLE: &str = "the agent reads the binlog of this database and writes to it";

/// Every finding, in the order of the checks.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.database {
        Ok(database) => {
            findings.push(Finding::pass(
                "database_reachable",
                REACHABLE,
                format!("{} answers", database.address),
            ));
            findings.extend(server::judge(database, facts.outage_s_max));
            findings.extend(files::judge(database));
            findings.extend(privileges::judge(database));
            findings.extend(tables::judge(database));
            findings.extend(regions::judge(database, facts));
        }
        Err(why) => findings.push(
            Finding::fail("database_reachable", REACHABLE, why.clone())
                .fix("start the database, or correct its address or credentials"),
        ),
    }
    findings.extend(kafka::judge(facts));
    findings
}

#[cfg(test)]
mod tests;
