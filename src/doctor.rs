//! `causeway doctor`: examines a region before the start (R11).
//!
//! [`collect`] gathers facts from databases and Kafka and judges nothing; [`judge`]
//! turns facts into findings and touches nothing. It changes no setting: it prints
//! what to change. What could not be measured is a finding of its own, never a pass.

pub mod collect;
mod facts;
pub mod judge;

pub use facts::{
    Account, ClockSample, ColumnDefault, ColumnFacts, DatabaseFacts, Facts, Flavor, ForeignKey,
    Grant, Initial, KafkaFacts, Newest, PeerFacts, Scope, TableFacts, TopicFacts, Trigger,
};

use serde::Serialize;

/// How bad a finding is; the report is as bad as its worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Pass,
    /// Replication works; something may go wrong that is better known before.
    Warn,
    /// Replication would stop, or would not be right.
    Fail,
}

impl Severity {
    /// The name in both output formats.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing examined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name, stable across versions.
    pub check: &'static str,
    /// How bad.
    pub severity: Severity,
    /// The table, region or topic concerned, when there is one.
    pub subject: Option<String>,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do; `None` for a pass.
    pub fix: Option<String>,
    /// Statements that do it, where statements can.
    pub sql: Vec<String>,
}

impl Finding {
    fn new(check: &'static str, severity: Severity, why: &'static str, found: String) -> Self {
        Self { check, severity, subject: None, found, why, fix: None, sql: Vec::new() }
    }

    fn pass(check: &'static str, why: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Severity::Pass, why, found.into())
    }

    fn warn(check: &'static str, why: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Severity::Warn, why, found.into())
    }

    fn fail(check: &'static str, why: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Severity::Fail, why, found.into())
    }

    fn on(mut self, subject: impl ToString) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    fn sql(mut self, statement: impl Into<String>) -> Self {
        self.sql.push(statement.into());
        self
    }
}

/// Everything found in one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The region examined.
    pub region: String,
    /// The worst severity.
    pub verdict: Severity,
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Judges `facts`.
    #[must_use]
    pub fn new(facts: &Facts) -> Self {
        let findings = judge::judge(facts);
        let verdict = findings.iter().map(|f| f.severity).max().unwrap_or(Severity::Pass);
        Self { region: facts.region.clone(), verdict, findings }
    }

    /// How many findings have that severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).count()
    }
}
