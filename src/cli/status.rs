//! `causeway status`: the status document for people, or as it is.

mod table;

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use hyper::Method;

use super::client::{Agent, Answer, runtime};
use super::{Exit, Output, complain, printed};
use crate::status::AgentStatus;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// Arguments of `causeway status`.
#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    agent: Agent,
    /// Look again every two seconds
    #[arg(short, long)]
    watch: bool,
    /// How the status is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// `Exit::Failed` when a part does not do what it is assigned.
pub(super) fn run(arguments: &StatusArguments) -> anyhow::Result<Exit> {
    runtime()?.block_on(async {
        loop {
            match look(arguments).await {
                looked if !arguments.watch => return looked.map(|(exit, _)| exit),
                Ok((_, true)) => {}
                // Nobody watches any more.
                Ok((_, false)) => return Ok(Exit::Done),
                Err(error) => complain(&format!("error: {error:#}")),
            }
            tokio::time::sleep(EVERY).await;
        }
    })
}

/// Shows the status once; and whether anybody reads it.
async fn look(arguments: &StatusArguments) -> anyhow::Result<(Exit, bool)> {
    let body = match arguments.agent.ask(Method::GET, "/status", String::new()).await? {
        Answer::Done(body) => body,
        Answer::Refused(why) => anyhow::bail!(why),
    };
    let status: AgentStatus = serde_json::from_slice(&body)?;
    let clear = arguments.watch && std::io::stdout().is_terminal();
    let read = printed(&match arguments.output {
        Output::Text if clear => format!("\x1b[H\x1b[2J{}", table::text(&status)),
        Output::Text => table::text(&status),
        Output::Json if arguments.watch => format!("{}\n", serde_json::to_string(&status)?),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&status)?),
    })?;
    let exit = if status.not_ready().is_empty() { Exit::Done } else { Exit::Failed };
    Ok((exit, read))
}
