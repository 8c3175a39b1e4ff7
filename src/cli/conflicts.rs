//! `causeway conflicts`: the conflict log of a region.

mod writes;

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use mysql_async::Conn;
use serde_json::Value as Json;

use super::settings::{Settings, SettingsArguments};
use super::{Exit, Output, complain, print, printed, utc};
use crate::conflicts::{self, Entry, Filter, LogError, Restored};
use crate::topology::{Span, did_you_mean};

/// What to do with the conflict log.
#[derive(Debug, Subcommand)]
pub(super) enum ConflictsCommand {
    /// List the newest conflicts
    List {
        #[command(flatten)]
        settings: SettingsArguments,
        #[command(flatten)]
        filter: FilterArguments,
        /// How many at most
        #[arg(long, default_value_t = 50)]
        limit: u64,
        /// How the list is printed
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show one conflict whole: both versions, who won and why; what the log lacks of them is
    /// read from the records of their regions, and shown as `records`
    Show {
        /// Its number
        id: u64,
        #[command(flatten)]
        settings: SettingsArguments,
    },
    /// Count conflicts by table, kind, policy and winner
    Stats {
        #[command(flatten)]
        settings: SettingsArguments,
        /// How the counts are printed
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print conflicts as JSON lines, in order
    Export {
        #[command(flatten)]
        settings: SettingsArguments,
        #[command(flatten)]
        filter: FilterArguments,
        /// Begin after this number: the last one of the export before
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Walk along the chain of hashes: exit status 1 if an entry is missing or altered
    Verify {
        #[command(flatten)]
        settings: SettingsArguments,
    },
    /// Write the version that lost back, as an ordinary new write
    Restore {
        /// The conflict's number
        id: u64,
        #[command(flatten)]
        settings: SettingsArguments,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which conflicts.
#[derive(Clone, Debug, Args)]
pub(super) struct FilterArguments {
    /// Only of this table, `schema.table`
    #[arg(long)]
    table: Option<String>,
    /// Only of this kind: what was here, then what came; or `unique_key`, `foreign_key`, `row_missing`, `repair`
    #[arg(long, value_parser = PossibleValuesParser::new(conflicts::kinds()), hide_possible_values = true)]
    kind: Option<String>,
    /// Only those that this policy decided
    #[arg(long, value_parser = PossibleValuesParser::new(conflicts::POLICIES))]
    policy: Option<String>,
    /// Only those that this side won
    #[arg(long, value_parser = PossibleValuesParser::new(["incoming", "existing", "both"]))]
    winner: Option<String>,
    /// Only of the time since so long ago, such as `2h`
    #[arg(long)]
    since: Option<Span>,
}

impl FilterArguments {
    fn filter(&self, after: u64) -> Filter {
        let since = self.since.map(|span| crate::clock::wall_us().saturating_sub(span.micros()));
        let Self { table, kind, policy, winner, .. } = self.clone();
        Filter { table, kind, policy, winner, since_us: since, after }
    }
}

pub(super) fn run(command: &ConflictsCommand) -> anyhow::Result<Exit> {
    let (ConflictsCommand::List { settings, .. }
    | ConflictsCommand::Show { settings, .. }
    | ConflictsCommand::Stats { settings, .. }
    | ConflictsCommand::Export { settings, .. }
    | ConflictsCommand::Verify { settings }
    | ConflictsCommand::Restore { settings, .. }) = command;
    let Some(settings) = settings.load()? else { return Ok(Exit::Usage) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut conn = Box::pin(settings.connect()).await?;
        let done = Box::pin(obey(&mut conn, &settings, command)).await;
        conn.disconnect().await?;
        done
    })
}

async fn obey(
    conn: &mut Conn,
    settings: &Settings,
    command: &ConflictsCommand,
) -> anyhow::Result<Exit> {
    match command {
        ConflictsCommand::List { filter, limit, output, .. } => {
            let entries = conflicts::list(conn, &filter.filter(0), (true, *limit)).await?;
            if let (Some(table), true) = (&filter.table, entries.is_empty()) {
                say_where(conn, table).await?;
            }
            print(&match output {
                Output::Text => list(&entries),
                Output::Json => format!("{}\n", serde_json::to_string_pretty(&entries)?),
            })?;
        }
        ConflictsCommand::Show { id, .. } => {
            let mut entry = serde_json::to_value(conflicts::get(conn, *id).await?)?;
            let lacking = Box::pin(writes::lacking(settings, &entry["entry"])).await;
            if !lacking.is_empty() {
                entry["records"] = lacking.into();
            }
            print(&format!("{}\n", serde_json::to_string_pretty(&entry)?))?;
        }
        ConflictsCommand::Stats { output, .. } => {
            let counts = conflicts::stats(conn).await?;
            print(&match output {
                Output::Text => stats(&counts),
                Output::Json => format!("{}\n", serde_json::to_string_pretty(&counts)?),
            })?;
        }
        ConflictsCommand::Export { filter, after, .. } => {
            let mut filter = filter.filter(*after);
            loop {
                let entries = conflicts::list(conn, &filter, (false, 1_000)).await?;
                let Some(last) = entries.last() else { break };
                filter.after = last.id;
                let lines: Result<Vec<_>, _> = entries.iter().map(serde_json::to_string).collect();
                if !printed(&format!("{}\n", lines?.join("\n")))? {
                    break;
                }
            }
        }
        ConflictsCommand::Verify { .. } => return verify(conn).await,
        ConflictsCommand::Restore { id, yes, .. } => {
            return restore(conn, *id, settings, *yes).await;
        }
    }
    Ok(Exit::Done)
}

/// Says which tables there are conflicts of, where there is none of this one.
async fn say_where(conn: &mut Conn, table: &str) -> anyhow::Result<()> {
    let known = conflicts::tables(conn).await?;
    if known.iter().any(|held| held == table) {
        return Ok(());
    }
    let help = match did_you_mean(table, known.iter().map(String::as_str)) {
        Some(guess) => guess,
        None if known.is_empty() => "the log is empty".to_owned(),
        None => format!("it tells of {}", known.join(", ")),
    };
    complain(&format!("the log tells of no conflict of `{table}`: {help}"));
    Ok(())
}

fn list(entries: &[Entry]) -> String {
    let mut text = format!(
        "{:>8}  {:<19}  {:<28}  {:<14}  {:<16}  {:<8}  KEY, WHY\n",
        "ID", "TIME (UTC)", "TABLE", "KIND", "POLICY", "WINNER"
    );
    for Entry { id, entry, .. } in entries {
        let word = |name: &str| entry[name].as_str().unwrap_or("?").to_owned();
        let at = utc(entry["at_us"].as_u64().unwrap_or(0));
        let (table, kind, policy) = (word("table"), word("kind"), word("policy"));
        let (winner, why) = (word("winner"), word("why"));
        let key = entry["key"].to_string();
        writeln!(
            text,
            "{id:>8}  {at:<19}  {table:<28}  {kind:<14}  {policy:<16}  {winner:<8}  {key} {why}"
        )
        .expect("a string takes every text");
    }
    text
}

fn stats(counts: &[conflicts::Count]) -> String {
    let mut text =
        format!("{:>10}  {:<28}  {:<14}  {:<16}  WINNER\n", "COUNT", "TABLE", "KIND", "POLICY");
    for held in counts {
        writeln!(
            text,
            "{:>10}  {:<28}  {:<14}  {:<16}  {}",
            held.count, held.table, held.kind, held.policy, held.winner
        )
        .expect("a string takes every text");
    }
    text
}

async fn verify(conn: &mut Conn) -> anyhow::Result<Exit> {
    let shows = std::io::stderr().is_terminal();
    let found = conflicts::verify(conn, |count| {
        if shows && count % 10_000 == 0 {
            complain(&format!("{count} entries"));
        }
    })
    .await?;
    let first = found.first.map_or("none".to_owned(), |id| id.to_string());
    match &found.problem {
        None => {
            print(&format!("the log is whole: {} entries, the first {first}\n", found.entries))?;
            Ok(Exit::Done)
        }
        Some(problem) => {
            print(&format!("{problem}; {} entries before it are sound\n", found.entries))?;
            Ok(Exit::Failed)
        }
    }
}

async fn restore(conn: &mut Conn, id: u64, settings: &Settings, yes: bool) -> anyhow::Result<Exit> {
    let topology = &settings.topology;
    let mut held = conflicts::get(conn, id).await?;
    let plan = match conflicts::restore(conn, &held, topology).await {
        Err(LogError::NotKept(..)) => {
            Box::pin(writes::complete(settings, &mut held.entry)).await;
            conflicts::restore(conn, &held, topology).await?
        }
        planned => planned?,
    };
    let Some(sql) = &plan.sql else {
        print(&format!("conflict {id}: the row of {} is so already\n", plan.table))?;
        return Ok(Exit::Done);
    };
    let what = match plan.side {
        "both" => "what each side lost".to_owned(),
        side => format!("the {side} version"),
    };
    complain(&format!("{}: {what} in conflict {id} goes back", plan.table));
    complain(&difference(plan.now.as_ref(), plan.then.as_ref()));
    complain(&format!("{sql};"));
    if !yes {
        if !std::io::stdin().is_terminal() {
            complain("nothing was written: give --yes where nobody can be asked");
            return Ok(Exit::Usage);
        }
        complain("write it? [y/N]");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            complain("nothing was written");
            return Ok(Exit::Failed);
        }
    }
    let done = conflicts::write(conn, &held, topology, &plan).await;
    match done.context("the row was not written")? {
        Restored::Written => {
            print(&format!("conflict {id}: restored\n"))?;
            Ok(Exit::Done)
        }
        Restored::Changed => {
            complain("nothing was written: the row has changed since it was shown; look again");
            Ok(Exit::Failed)
        }
    }
}

/// The columns that change, before and after.
fn difference(now: Option<&Json>, then: Option<&Json>) -> String {
    let text = |row: Option<&Json>, name: &str| {
        row.map_or("(no row)".to_owned(), |row| {
            row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned)
        })
    };
    let names =
        [now, then].into_iter().flatten().filter_map(Json::as_object).flat_map(|m| m.keys());
    let names: std::collections::BTreeSet<_> = names.collect();
    let lines = names.into_iter().filter_map(|name| {
        let (old, new) = (text(now, name), text(then, name));
        (old != new).then(|| format!("  {name}: {old} -> {new}"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_shown() {
        let (now, lost) =
            (serde_json::json!({"id": "1", "v": "a"}), serde_json::json!({"id": "1", "v": "b"}));
        assert_eq!(difference(Some(&now), Some(&lost)), "  v: a -> b");
        assert_eq!(difference(None, Some(&lost)), "  id: (no row) -> 1\n  v: (no row) -> b");
    }
}
