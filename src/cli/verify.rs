//! `causeway verify`: compares the tables of all regions, shows how far it is, and
//! keeps the report and the state. With `--repair` it makes equal what differs.

mod progress;
mod repair;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::settings::{Settings, SettingsArguments};
use super::{Exit, Output, complain, print};
use crate::compare::{Difference, Outcome, Report, State, TableReport};
use crate::topology::{Span, TablePattern};
use crate::verify::{self, Config, Progress, Watcher};

/// How many differences of a table are shown; the report has them all.
const SHOWN_MAX: usize = 50;

/// Arguments of `causeway verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Tables to compare, e.g. `shop.orders` or `shop.*`; all replicated ones when absent
    tables: Vec<TablePattern>,
    /// Write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Keep the state in this file, and go on from it if it is there; it is removed at
    /// the end
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Wait while a region is further behind another than this
    #[arg(long, value_name = "TIME", default_value = "10s")]
    max_lag: Span,
    /// How long the streams may take to pass rows that differ before these are called
    /// unsettled
    #[arg(long, value_name = "TIME", default_value = "60s")]
    settle: Span,
    /// Read no further in a table that has so many differences
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000)]
    max_differences: usize,
    /// Show the values of differing columns; without it none leaves the databases
    #[arg(long)]
    values: bool,
    /// Make rows that differ what they are in the region whose row should stand, with the
    /// stamps that they have; what is to be written is shown first
    #[arg(long)]
    repair: bool,
    /// The region whose rows stand where the outboxes do not tell
    #[arg(long, value_name = "REGION", requires = "repair")]
    from: Option<String>,
    /// Do not ask before repairing
    #[arg(long, requires = "repair")]
    yes: bool,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(arguments: &VerifyArguments) -> anyhow::Result<Exit> {
    let Some(settings) = arguments.settings.load()? else { return Ok(Exit::Usage) };
    let regions: Vec<_> = settings.topology.regions.iter().map(|r| r.name.clone()).collect();
    let state = match &arguments.state {
        Some(path) => load(path, &regions)?,
        None => None,
    };
    let unknown = |from: &&String| !regions.contains(from);
    if let Some(from) = arguments.from.as_ref().filter(unknown) {
        complain(&format!("there is no region {from}: there are {}", regions.join(", ")));
        return Ok(Exit::Usage);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let config = config(arguments, &settings)?;
    let mut report = runtime.block_on(compare(arguments, &config, state))?;
    keep(arguments, &report)?;
    if let Some(path) = arguments.state.as_ref().filter(|_| report.finished_us.is_some()) {
        std::fs::remove_file(path).with_context(|| format!("can't remove {}", path.display()))?;
    }
    if arguments.output == Output::Text {
        print(&text(&report))?;
    }
    let differs = arguments.repair && report.outcome() == Outcome::Differs;
    if differs && report.finished_us.is_none() {
        complain("nothing was repaired: the comparison was stopped before its end");
    } else if differs {
        let repaired = runtime.block_on(Box::pin(repair::run(arguments, &config, &mut report)));
        // What was repaired before it failed is written down all the same.
        keep(arguments, &report)?;
        repaired?;
        if arguments.output == Output::Text {
            print(&repair::text(&report.repairs))?;
        }
    }
    if arguments.output == Output::Json {
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    }
    match report.outcome() {
        Outcome::Equal => Ok(Exit::Done),
        Outcome::Differs if report.is_repaired() && report.is_whole() => Ok(Exit::Done),
        Outcome::Differs => Ok(Exit::Failed),
        Outcome::Incomplete => anyhow::bail!("not everything was compared"),
    }
}

fn keep(arguments: &VerifyArguments, report: &Report) -> anyhow::Result<()> {
    let Some(path) = &arguments.report else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)?;
    write_whole(path, &text).with_context(|| format!("can't write {}", path.display()))
}

fn config<'a>(arguments: &VerifyArguments, settings: &'a Settings) -> anyhow::Result<Config<'a>> {
    Ok(Config {
        topology: &settings.topology,
        here: &settings.region,
        login: settings.login()?,
        kafka: settings.kafka()?,
        tables: arguments.tables.clone(),
        lag_max: arguments.max_lag.get(),
        rows_per_second: None,
        patience: arguments.settle.get(),
        differences_max: arguments.max_differences.max(1),
        values: arguments.values,
    })
}

async fn compare(
    arguments: &VerifyArguments,
    config: &Config<'_>,
    state: Option<State>,
) -> anyhow::Result<Report> {
    let stop = CancellationToken::new();
    let mut keeper = Keeper { bar: progress::Bar::default(), state: arguments.state.clone() };
    let mut work = Box::pin(verify::run(config, state, &mut keeper, stop.clone()));
    let report = tokio::select! {
        report = &mut work => report,
        _ = tokio::signal::ctrl_c() => {
            stop.cancel();
            (&mut work).await
        }
    };
    drop(work);
    keeper.bar.clear();
    Ok(report?)
}

/// Shows the progress and writes the state.
struct Keeper {
    bar: progress::Bar,
    state: Option<PathBuf>,
}

impl Watcher for Keeper {
    fn progress(&mut self, progress: &Progress<'_>) {
        self.bar.show(progress);
    }

    fn keep(&mut self, state: &State) -> std::io::Result<()> {
        let Some(path) = &self.state else { return Ok(()) };
        write_whole(path, &serde_json::to_string(state).map_err(std::io::Error::other)?)
    }
}

/// The old content or the new, never a half.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}

fn load(path: &Path, regions: &[String]) -> anyhow::Result<Option<State>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
    };
    let state = State::parse(&text, regions).map_err(anyhow::Error::msg);
    let state = state.with_context(|| format!("can't go on from {}", path.display()))?;
    complain(&format!("going on from {}", path.display()));
    Ok(Some(state))
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let (mut rows, mut differences, mut elapsed) = (0, 0, 0);
    for table in &report.tables {
        table_text(&mut out, report, table).expect("a string takes every text");
        rows += table.rows;
        differences += table.differences.len();
        elapsed += table.elapsed_ms;
    }
    let end = if report.finished_us.is_some() { "" } else { ", stopped before its end" };
    let regions = report.regions.join(", ");
    writeln!(
        out,
        "{} tables of {regions}: {} rows, {differences} differences, {}{end}",
        report.tables.len(),
        grouped(rows),
        seconds(elapsed)
    )
    .expect("a string takes every text");
    out
}

fn table_text(out: &mut String, report: &Report, table: &TableReport) -> std::fmt::Result {
    let count = table.differences.len();
    let verdict = match (count, table.not_compared.is_some()) {
        (0, false) => "equal".to_owned(),
        (0, true) => "not compared".to_owned(),
        (count, _) => format!("{count} differ"),
    };
    let (rows, took) = (grouped(table.rows), seconds(table.elapsed_ms));
    writeln!(out, "{:<32} {rows:>13} rows  {verdict}  ({took})", table.table)?;
    if table.in_flight + table.busy > 0 {
        let (in_flight, busy) = (grouped(table.in_flight), grouped(table.busy));
        writeln!(out, "  in flight: {in_flight} rows settled, {busy} were written at every look")?;
    }
    for why in table.left_out.iter().chain(&table.not_compared) {
        writeln!(out, "  not compared: {why}")?;
    }
    for difference in table.differences.iter().take(SHOWN_MAX) {
        difference_text(out, report, difference)?;
    }
    if let Some(why) = &table.unsettled {
        writeln!(out, "  unsettled: {why}")?;
    }
    if count > SHOWN_MAX {
        writeln!(out, "  … and {} more: see the report (--report)", count - SHOWN_MAX)?;
    }
    Ok(())
}

fn difference_text(out: &mut String, report: &Report, found: &Difference) -> std::fmt::Result {
    let key: Vec<_> = found.key.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let names = |there: bool| {
        let has = |name: &&String| found.regions.get(*name).is_some_and(|h| h.is_some() == there);
        report.regions.iter().filter(has).map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    let (have, lack) = (names(true), names(false));
    let mut what =
        if lack.is_empty() { String::new() } else { format!("in {have}, not in {lack}") };
    if !found.columns.is_empty() {
        let columns = found.columns.join(", ");
        write!(what, "{}{columns} differ", if what.is_empty() { "" } else { "; " })?;
    }
    writeln!(out, "  {:<16} {:<24} {what}", found.class.name(), key.join(" "))?;
    for (region, columns) in &found.values {
        let shown: Vec<_> = columns
            .iter()
            .map(|(name, value)| match value {
                Some(value) => format!("{name}={value:?}"),
                None => format!("{name}=NULL"),
            })
            .collect();
        writeln!(out, "    {region}: {}", shown.join(" "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
