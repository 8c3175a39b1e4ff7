//! `causeway doctor`: prints what the doctor found.

use std::fmt::Write as _;

use clap::Args;

use super::settings::SettingsArguments;
use super::{Exit, Output, print};
use crate::doctor::collect::{Plan, collect};
use crate::doctor::{Finding, Report, Severity};

/// Arguments of `causeway doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// How the report is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Print the SQL statements that fix what can be fixed by SQL, and nothing else;
    /// read them before you run them
    #[arg(long, conflicts_with = "output")]
    fix_sql: bool,
}

pub(super) fn run(arguments: &DoctorArguments) -> anyhow::Result<Exit> {
    let Some(settings) = arguments.settings.load()? else { return Ok(Exit::Usage) };
    let plan = Plan {
        topology: &settings.topology,
        region: &settings.region,
        login: settings.login()?,
        binlog_dir: settings.conf.database.binlog_dir.as_deref(),
        kafka: settings.kafka()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = Report::new(&runtime.block_on(collect(&plan)));
    print(&match (arguments.fix_sql, arguments.output) {
        (true, _) => fix_sql(&report),
        (false, Output::Text) => text_report(&report),
        (false, Output::Json) => format!("{}\n", serde_json::to_string_pretty(&report)?),
    })?;
    Ok(match report.verdict {
        Severity::Pass => Exit::Done,
        Severity::Warn => Exit::Warned,
        Severity::Fail => Exit::Failed,
    })
}

/// The worst first; one line for each pass.
fn text_report(report: &Report) -> String {
    let mut text = String::new();
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mut line = |words: std::fmt::Arguments<'_>| {
        writeln!(text, "{words}").expect("a string takes every text");
    };
    for finding in findings {
        let subject = finding.subject.as_ref().map(|s| format!("{s}: ")).unwrap_or_default();
        let (severity, check) = (finding.severity.name(), finding.check);
        line(format_args!("{severity}  {check:<30} {subject}{}", finding.found));
        if let Some(fix) = &finding.fix {
            line(format_args!("      why: {}", finding.why));
            line(format_args!("      fix: {fix}"));
        }
        for statement in &finding.sql {
            line(format_args!("      sql: {statement};"));
        }
    }
    let [fail, warn, pass] =
        [Severity::Fail, Severity::Warn, Severity::Pass].map(|severity| report.count(severity));
    let (region, verdict) = (&report.region, report.verdict.name());
    line(format_args!("\nregion {region}: {verdict} ({fail} fail, {warn} warn, {pass} pass)"));
    text
}

fn fix_sql(report: &Report) -> String {
    let mut text = String::new();
    for finding in report.findings.iter().filter(|finding| !finding.sql.is_empty()) {
        let subject = finding.subject.as_ref().map(|s| format!(" {s}")).unwrap_or_default();
        writeln!(text, "-- {}{subject}: {}", finding.check, finding.found)
            .expect("a string takes every text");
        for statement in &finding.sql {
            writeln!(text, "{statement};").expect("a string takes every text");
        }
    }
    text
}
