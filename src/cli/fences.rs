//! `causeway fences`: who took a region over, and what of its peers was dropped.

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::Args;

use super::settings::SettingsArguments;
use super::{Exit, Output, print, utc};
use crate::apply::{self, DroppedRecords, Fence};
use crate::topology::Topology;

/// Which entries, and how.
#[derive(Debug, Args)]
pub(super) struct FencesArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// How many at most
    #[arg(long, default_value_t = 50)]
    limit: u64,
    /// How the list is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(arguments: &FencesArguments) -> anyhow::Result<Exit> {
    let Some(settings) = arguments.settings.load()? else { return Ok(Exit::Usage) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fences = runtime.block_on(async {
        let mut conn = Box::pin(settings.connect()).await?;
        let fences = apply::fences(&mut conn, arguments.limit).await;
        conn.disconnect().await?;
        fences.context("the fences can't be read: they are there once an agent has run here")
    })?;
    print(&match arguments.output {
        Output::Text => list(&fences, &settings.topology),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&fences)?),
    })?;
    Ok(Exit::Done)
}

fn list(fences: &[Fence], topology: &Topology) -> String {
    let mut text = format!("{:>8}  {:<19}  {:<12}  WHAT, WHO\n", "ID", "TIME (UTC)", "REGION");
    for fence in fences {
        let Fence { id, at_us, origin, ended, begun, dropped, who } = fence;
        let mut regions = topology.regions.iter();
        let region = regions.find(|region| region.id.get() == *origin);
        let region = region.map_or_else(|| format!("id {origin}"), |region| region.name.clone());
        let what = match dropped {
            None if *ended == 0 => format!("epoch {begun} begins"),
            None => format!("epoch {begun} ends epoch {ended}"),
            Some(DroppedRecords { first_seq, last_seq, records }) => format!(
                "{records} records of epoch {ended} dropped behind epoch {begun}, transactions \
                 {first_seq} to {last_seq}"
            ),
        };
        let at = utc(*at_us);
        writeln!(text, "{id:>8}  {at:<19}  {region:<12}  {what}; {who}")
            .expect("a string takes every text");
    }
    text
}
