//! Why a session ended.

use crate::apply::{self, ApplyError};
use crate::capture::{self, CaptureError};
use crate::doctor::Finding;
use crate::ship::{self, ShipError};
use crate::version::KeyError;

/// Tables that one error names.
const TOLD_MAX: usize = 5;

/// How the agent goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A new session follows.
    Retry,
    /// Someone must act; a new session is tried all the same.
    Halt,
    /// Another agent owns the region: this one does nothing more.
    Fenced,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The binlog.
    #[error("capture: {0}")]
    Capture(#[from] CaptureError),
    /// Kafka.
    #[error("shipping: {}", chain(.0))]
    Ship(#[from] ShipError),
    /// The applier's database.
    #[error("apply: {0}")]
    Apply(#[from] ApplyError),
    /// A local row without an exact identity.
    #[error("capture: {0}")]
    Key(#[from] KeyError),
    /// Replicated tables that can't be kept right.
    #[error("{}", told(.0))]
    Unfit(Vec<Finding>),
    /// A task ended without saying why.
    #[error("{0} has ended")]
    Ended(&'static str),
}

fn chain(error: &ShipError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The first tables, each with what is wrong with it.
fn told(findings: &[Finding]) -> String {
    let table = |finding: &Finding| finding.subject.clone().unwrap_or_default();
    let mut told: Vec<String> = findings
        .iter()
        .take(TOLD_MAX)
        .map(|finding| format!("{}: {}", table(finding), finding.found))
        .collect();
    if let Some(more) = findings.len().checked_sub(TOLD_MAX).filter(|&more| more > 0) {
        told.push(format!("and {more} more"));
    }
    format!("tables that can't be kept right: {}", told.join("; "))
}

impl AgentError {
    /// How the agent goes on.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Capture(error) => match error.kind() {
                capture::ErrorKind::Retry => ErrorKind::Retry,
                capture::ErrorKind::Halt => ErrorKind::Halt,
            },
            Self::Ship(error) => match error.kind() {
                ship::ErrorKind::Retry => ErrorKind::Retry,
                ship::ErrorKind::Halt => ErrorKind::Halt,
            },
            Self::Apply(error) => match error.kind() {
                apply::ErrorKind::Retry | apply::ErrorKind::Full | apply::ErrorKind::Row => {
                    ErrorKind::Retry
                }
                apply::ErrorKind::Halt => ErrorKind::Halt,
                apply::ErrorKind::Fenced => ErrorKind::Fenced,
            },
            Self::Key(_) | Self::Unfit(_) => ErrorKind::Halt,
            Self::Ended(_) => ErrorKind::Retry,
        }
    }

    /// The operator's next step.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Capture(error) => error.advice().to_owned(),
            Self::Ship(error) => error.advice().to_owned(),
            Self::Apply(error) => error.advice(),
            Self::Key(_) => "give the table a primary key of numbers, binary strings or a _bin \
                collation, or exclude it in the topology, in all regions"
                .to_owned(),
            Self::Unfit(found) => format!(
                "{}; in all regions, then the agent goes on by itself (causeway doctor lists all \
                 with their statements)",
                found.iter().find_map(|finding| finding.fix.as_deref()).unwrap_or_default()
            ),
            Self::Ended(_) => "none: it is tried again".to_owned(),
        }
    }
}
