//! What an operator can ask of a running agent.
//!
//! The admin API sends a [`Command`] and waits for its reply; the agent receives and
//! answers. No policy here.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::status::Assigned;

/// Where commands go. Bounded: an agent that does not answer refuses more.
pub type Commands = mpsc::Sender<Command>;

/// The agent's answer: done, or why not.
pub type Reply = oneshot::Sender<Result<(), Refusal>>;

/// Commands that may wait for the agent.
pub const COMMANDS_MAX: usize = 16;

/// How long a pause lasts when nothing else is said.
pub const PAUSE: Duration = Duration::from_secs(3600);

/// Who gives a command, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct By {
    /// A name; none when only the token is known.
    pub who: Option<String>,
    /// For the log, the status and the record.
    pub reason: Option<String>,
}

impl By {
    /// The name, or what is known instead.
    #[must_use]
    pub fn name(&self) -> &str {
        self.who.as_deref().unwrap_or("a holder of the admin token")
    }

    /// The reason, or that there is none.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or("no reason given")
    }
}

/// What an operator asks.
#[derive(Debug)]
pub enum Command {
    /// Pause or resume the stream of an origin.
    Assign {
        /// The origin's name.
        origin: String,
        /// What it shall do.
        assigned: Assigned,
        /// Who asks and why.
        by: By,
        /// How long a pause lasts; [`PAUSE`] when nothing is said.
        span: Option<Duration>,
        /// Answered once the assignment stands; the stream may take longer to stop.
        reply: Reply,
    },
    /// Let a stream go on past a schema change that holds it.
    ReleaseDdl {
        /// The hold's id.
        id: String,
        /// Who asks and why.
        by: By,
        /// Answered once the release stands.
        reply: Reply,
    },
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such stream or hold.
    #[error("{0}")]
    NotFound(String),
    /// It can't be done in the present state.
    #[error("{0}")]
    Conflict(String),
}
