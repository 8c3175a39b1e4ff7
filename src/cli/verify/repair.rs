//! `causeway verify --repair`: shows what would be written, asks, and writes it.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::progress::Bar;
use super::{SHOWN_MAX, VerifyArguments};
use crate::cli::{complain, ddl};
use crate::compare::{Repair, RepairOutcome, Report};
use crate::verify::{Config, Progress, Proposal, Repairer};

/// Repairs what a report says differs; the report then says how each repair ended.
///
/// # Errors
/// A region is away. What was repaired until then stands in the report.
pub(super) async fn run(
    arguments: &VerifyArguments,
    config: &Config<'_>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    // Listened for all the time: a Ctrl-C that comes with the question, or between two steps,
    // would be lost.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut repairer = Box::pin(Repairer::open(config, ddl::who(), stop.clone())).await?;
    let mut bar = Bar::default();
    let mut hear = |progress: &Progress<'_>| bar.show(progress);
    let work = Box::pin(repairer.propose(report, arguments.from.as_deref(), &mut hear));
    let (proposals, undecided) = until_stopped(work, &stop, &mut interrupt).await?;
    bar.clear();
    report.repairs = undecided;
    complain(shown(&proposals).trim_end());
    let ask = !proposals.is_empty() && !stop.is_cancelled();
    if ask && agreed(arguments.yes, proposals.len(), &mut interrupt).await? {
        let work = Box::pin(carry_out(&mut repairer, &proposals, report, &mut bar));
        let done = until_stopped(work, &stop, &mut interrupt).await;
        bar.clear();
        done?;
    } else {
        report.repairs.extend(proposals.iter().map(declined));
    }
    repairer.close().await;
    Ok(())
}

/// Ctrl-C lets the work come to an end of its own.
async fn until_stopped<T>(
    mut work: impl Future<Output = T> + Unpin,
    stop: &CancellationToken,
    interrupt: &mut Signal,
) -> T {
    tokio::select! {
        done = &mut work => done,
        _ = interrupt.recv() => {
            stop.cancel();
            work.await
        }
    }
}

async fn carry_out(
    repairer: &mut Repairer<'_>,
    proposals: &[Proposal],
    report: &mut Report,
    bar: &mut Bar,
) -> anyhow::Result<()> {
    let (began, total) = (Instant::now(), u64::try_from(proposals.len()).unwrap_or(u64::MAX));
    for (done, proposal) in (0_u64..).zip(proposals) {
        bar.show(&Progress {
            table: &proposal.table,
            unit: "repairs",
            rows: done,
            rows_estimate: total,
            elapsed: began.elapsed(),
            rows_here: done,
            waits: None,
        });
        report.repairs.push(Box::pin(repairer.carry_out(proposal)).await?);
    }
    Ok(())
}

fn declined(proposal: &Proposal) -> Repair {
    Repair {
        table: proposal.table.clone(),
        key: proposal.key.clone(),
        region: Some(proposal.region.clone()),
        from: Some(proposal.from.clone()),
        outcome: RepairOutcome::Refused,
        why: "not agreed to".to_owned(),
    }
}

/// Whether to write: the operator is asked, where there is one. Ctrl-C is a no.
async fn agreed(yes: bool, rows: usize, interrupt: &mut Signal) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        complain("nothing was written: give --yes where nobody can be asked");
        return Ok(false);
    }
    complain(&format!("write {rows} rows? [y/N]"));
    let (answered, answer) = tokio::sync::oneshot::channel();
    // A thread that nobody waits for: a line that does not come holds up no end.
    std::thread::spawn(move || {
        let mut line = String::new();
        drop(answered.send(std::io::stdin().read_line(&mut line).map(|_| line)));
    });
    tokio::select! {
        answer = answer => Ok(matches!(answer??.trim(), "y" | "Y" | "yes")),
        _ = interrupt.recv() => {
            complain("nothing was written");
            Ok(false)
        }
    }
}

fn named(table: &str, key: &[(String, String)]) -> String {
    let key: Vec<_> = key.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{table} {}", key.join(" "))
}

/// What would be written, column by column.
fn shown(proposals: &[Proposal]) -> String {
    let mut out = String::new();
    for proposal in proposals.iter().take(SHOWN_MAX) {
        let row = named(&proposal.table, &proposal.key);
        let Proposal { region, from, why, .. } = proposal;
        writeln!(out, "{row}: {region} gets the row of {from} ({why})")
            .expect("a string takes every text");
        for (column, before, after) in &proposal.changes {
            let text = |value: &Option<String>| value.clone().unwrap_or("(no row)".to_owned());
            writeln!(out, "  {column}: {} -> {}", text(before), text(after))
                .expect("a string takes every text");
        }
    }
    if proposals.len() > SHOWN_MAX {
        writeln!(out, "… and {} more", proposals.len() - SHOWN_MAX)
            .expect("a string takes every text");
    }
    out
}

/// How the repairs ended.
pub(super) fn text(repairs: &[Repair]) -> String {
    let mut out = String::new();
    let count = |outcome| repairs.iter().filter(|repair| repair.outcome == outcome).count();
    for repair in repairs.iter().filter(|repair| repair.outcome != RepairOutcome::Repaired) {
        let row = named(&repair.table, &repair.key);
        let region = repair.region.as_ref().map(|region| format!(" in {region}"));
        let region = region.unwrap_or_default();
        writeln!(out, "{:<9} {row}{region}: {}", repair.outcome.name(), repair.why)
            .expect("a string takes every text");
    }
    let (repaired, refused, undecided) = (
        count(RepairOutcome::Repaired),
        count(RepairOutcome::Refused),
        count(RepairOutcome::Undecided),
    );
    writeln!(out, "{repaired} rows repaired, {refused} refused, {undecided} undecided")
        .expect("a string takes every text");
    out
}
