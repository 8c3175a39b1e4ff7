//! `causeway verify --repair`: shows what would be written, asks, and writes it.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use tokio_util::sync::CancellationToken;

use super::{SHOWN_MAX, VerifyArguments};
use crate::cli::{complain, ddl};
use crate::compare::{Repair, RepairOutcome, Report};
use crate::verify::{Config, Proposal, Repairer};

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
    let mut repairer = Box::pin(Repairer::open(config, ddl::who(), stop.clone())).await?;
    let (proposals, undecided) =
        Box::pin(repairer.propose(report, arguments.from.as_deref())).await?;
    report.repairs = undecided;
    complain(shown(&proposals).trim_end());
    if !proposals.is_empty() && agreed(arguments.yes, proposals.len())? {
        let work = carry_out(&mut repairer, &proposals, report);
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => done?,
            _ = tokio::signal::ctrl_c() => {
                stop.cancel();
                work.await?;
            }
        }
    } else {
        report.repairs.extend(proposals.iter().map(declined));
    }
    repairer.close().await;
    Ok(())
}

async fn carry_out(
    repairer: &mut Repairer<'_>,
    proposals: &[Proposal],
    report: &mut Report,
) -> anyhow::Result<()> {
    for proposal in proposals {
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

/// Whether to write: the operator is asked, where there is one.
fn agreed(yes: bool, rows: usize) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        complain("nothing was written: give --yes where nobody can be asked");
        return Ok(false);
    }
    complain(&format!("write {rows} rows? [y/N]"));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
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
