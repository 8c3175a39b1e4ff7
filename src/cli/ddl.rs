//! `causeway ddl` and `causeway stream`: commands to a running agent.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;

use clap::Subcommand;
use hyper::Method;

use super::client::{Agent, Answer, runtime};
use super::{Exit, Output, complain, print};
use crate::status::DdlHold;
use crate::topology::Span;

/// Schema changes that hold a stream.
#[derive(Debug, Subcommand)]
pub(super) enum DdlCommand {
    /// List the schema changes that wait for a release, and the last that were released
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
        /// Why, for the record
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        agent: Agent,
    },
}

/// What a stream shall do.
#[derive(Debug, Subcommand)]
pub(super) enum StreamCommand {
    /// Finish the batch in flight and apply nothing more, for a time
    Pause {
        /// The region whose transactions the stream applies
        origin: String,
        /// Why, for the log and the status
        #[arg(long)]
        reason: String,
        /// After how long the stream goes on by itself, e.g. 30m
        #[arg(long = "for", value_name = "TIME", default_value = "1h")]
        span: Span,
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
        DdlCommand::Release { id, reason, agent } => {
            let body = serde_json::json!({ "who": who(), "reason": reason }).to_string();
            post(agent, &format!("/ddl/{}/release", escaped(id)), body)
        }
    }
}

pub(super) fn run_stream(command: &StreamCommand) -> anyhow::Result<Exit> {
    match command {
        StreamCommand::Pause { origin, reason, span, agent } => {
            let body = serde_json::json!({
                "who": who(), "reason": reason, "for": span.to_string()
            });
            let body = body.to_string();
            post(agent, &format!("/streams/{}/pause", escaped(origin)), body)
        }
        StreamCommand::Resume { origin, agent } => {
            let body = serde_json::json!({ "who": who() }).to_string();
            post(agent, &format!("/streams/{}/resume", escaped(origin)), body)
        }
    }
}

/// Who runs this: the user of the operating system, behind sudo as well, and the host.
pub(super) fn who() -> String {
    let named = ["SUDO_USER", "LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok());
    let user = named.filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let uid = std::fs::metadata("/proc/self").map(|process| process.uid());
        uid.map_or_else(|_| "unknown".to_owned(), |uid| format!("uid {uid}"))
    });
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
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
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    if holds.iter().all(|hold| hold.released.is_some()) {
        line("no schema change waits".to_owned());
    }
    for hold in holds {
        let table = hold.table.as_deref().unwrap_or("unknown table");
        let gtid = hold.gtid.as_deref().unwrap_or("unknown");
        let state = if hold.released.is_some() { "released" } else { "waits" };
        line(format!("{}  {state}  from {}, {table}, gtid {gtid}", hold.id, hold.origin));
        line(format!("    {}", hold.statement));
        if let Some(release) = &hold.released {
            line(format!("    by {}: {}", release.by, release.why));
        }
    }
    text
}
