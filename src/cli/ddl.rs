//! `causeway ddl` and `causeway stream`: commands to a running agent.

use std::fmt::Write as _;

use clap::Subcommand;
use hyper::Method;

use super::client::{Agent, Answer, runtime};
use super::{Exit, Output, complain, print};
use crate::status::DdlHold;

/// Schema changes that hold a stream.
#[derive(Debug, Subcommand)]
pub(super) enum DdlCommand {
    /// List the schema changes that wait for a release
    List {
        #[command(flatten)]
        agent: Agent,
        /// How the list is printed
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Let the stream go on past a schema change, once the tables fit
    Release {
        /// The id that `causeway ddl list` prints
        id: String,
        #[command(flatten)]
        agent: Agent,
    },
}

/// What a stream shall do.
#[derive(Debug, Subcommand)]
pub(super) enum StreamCommand {
    /// Finish the batch in flight and apply nothing more
    Pause {
        /// The region whose transactions the stream applies
        origin: String,
        /// Why, for the log and the status
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        agent: Agent,
    },
    /// Apply again
    Resume {
        /// The region whose transactions the stream applies
        origin: String,
        #[command(flatten)]
        agent: Agent,
    },
}

pub(super) fn run(command: &DdlCommand) -> anyhow::Result<Exit> {
    match command {
        DdlCommand::List { agent, output } => {
            let answer = runtime()?.block_on(agent.ask(Method::GET, "/ddl", String::new()))?;
            let body = match answer {
                Answer::Done(body) => body,
                Answer::Refused(why) => return Ok(refused(&why)),
            };
            let holds: Vec<DdlHold> = serde_json::from_slice(&body)?;
            print(&match output {
                Output::Text => list(&holds),
                Output::Json => format!("{}\n", serde_json::to_string_pretty(&holds)?),
            })?;
            Ok(Exit::Done)
        }
        DdlCommand::Release { id, agent } => {
            post(agent, &format!("/ddl/{}/release", escaped(id)), String::new())
        }
    }
}

pub(super) fn run_stream(command: &StreamCommand) -> anyhow::Result<Exit> {
    match command {
        StreamCommand::Pause { origin, reason, agent } => {
            let body = serde_json::json!({ "reason": reason }).to_string();
            post(agent, &format!("/streams/{}/pause", escaped(origin)), body)
        }
        StreamCommand::Resume { origin, agent } => {
            post(agent, &format!("/streams/{}/resume", escaped(origin)), String::new())
        }
    }
}

fn post(agent: &Agent, path: &str, body: String) -> anyhow::Result<Exit> {
    match runtime()?.block_on(agent.ask(Method::POST, path, body))? {
        Answer::Done(_) => Ok(Exit::Done),
        Answer::Refused(why) => Ok(refused(&why)),
    }
}

fn refused(why: &str) -> Exit {
    complain(&format!("refused: {why}"));
    Exit::Failed
}

/// A path segment: everything but unreserved characters (RFC 3986) is escaped.
fn escaped(text: &str) -> String {
    let mut path = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            write!(path, "%{byte:02X}").expect("a string takes every text");
        }
    }
    path
}

fn list(holds: &[DdlHold]) -> String {
    if holds.is_empty() {
        return "no schema change waits\n".to_owned();
    }
    let mut text = String::new();
    for hold in holds {
        let table = hold.table.as_deref().unwrap_or("unknown table");
        let gtid = hold.gtid.as_deref().unwrap_or("unknown");
        let (id, origin, statement) = (&hold.id, &hold.origin, &hold.statement);
        writeln!(text, "{id}  from {origin}, {table}, gtid {gtid}\n    {statement}")
            .expect("a string takes every text");
    }
    text
}
