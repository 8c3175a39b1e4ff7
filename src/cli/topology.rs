//! `causeway topology validate|schema|graph`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};

use super::{Exit, Output, complain, print};
use crate::topology::{self, Problem, Region, Topology};

#[derive(Debug, Subcommand)]
pub(super) enum TopologyCommand {
    /// Check topology files; every problem is named with its line and column
    Validate {
        /// Topology files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// How the result is printed
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print the JSON Schema of topology files, for editors
    Schema,
    /// Draw which region receives from which
    Graph {
        /// A topology file
        file: PathBuf,
        /// How it is drawn
        #[arg(short, long, value_enum, default_value_t)]
        output: Drawing,
    },
}

/// How a topology is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Drawing {
    /// For a terminal.
    #[default]
    Text,
    /// For Graphviz.
    Dot,
    /// For Mermaid.
    Mermaid,
    /// For programs.
    Json,
}

pub(super) fn run(command: &TopologyCommand) -> anyhow::Result<Exit> {
    match command {
        TopologyCommand::Validate { files, output } => validate(files, *output),
        TopologyCommand::Schema => {
            print(&format!("{}\n", serde_json::to_string_pretty(&Topology::schema())?))?;
            Ok(Exit::Done)
        }
        TopologyCommand::Graph { file, output } => {
            let Some(topology) = load(file)? else { return Ok(Exit::Usage) };
            print(&match output {
                Drawing::Text => topology.graph_text(),
                Drawing::Dot => topology.graph_dot(),
                Drawing::Mermaid => topology.graph_mermaid(),
                Drawing::Json => {
                    format!("{}\n", serde_json::to_string_pretty(&topology.graph_json())?)
                }
            })?;
            Ok(Exit::Done)
        }
    }
}

/// Reads a topology; its problems go to stderr, and then there is none.
pub(super) fn load(file: &Path) -> anyhow::Result<Option<Topology>> {
    let text = read(file)?;
    match topology::parse(&text) {
        Ok(topology) => Ok(Some(topology)),
        Err(problems) => {
            tell(file, &text, &problems);
            Ok(None)
        }
    }
}

/// The region of that name; when there is none, that goes to stderr with a guess.
pub(super) fn region(topology: &Topology, name: &str) -> Option<Region> {
    let region = topology.region(name).cloned();
    if region.is_none() {
        let known = topology.regions.iter().map(|region| region.name.as_str());
        let help = topology::which(name, "regions", known);
        complain(&format!("error: unknown region `{name}`, {help}"));
    }
    region
}

pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))
}

/// Problems of a file, to stderr.
pub(super) fn tell(file: &Path, text: &str, problems: &[Problem]) {
    let name = file.display().to_string();
    for problem in problems {
        complain(&format!("{}\n", problem.render(&name, text)));
    }
    complain(&format!("{name}: {} problem(s)", problems.len()));
}

fn validate(files: &[PathBuf], output: Output) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    let mut report = Vec::new();
    for file in files {
        let text = read(file)?;
        let name = file.display().to_string();
        let mut fingerprint = None;
        let problems = match topology::parse(&text) {
            Ok(topology) => {
                let print_of = format!("{:08x}", topology.fingerprint());
                if output == Output::Text {
                    let regions: Vec<_> =
                        topology.regions.iter().map(|region| region.name.as_str()).collect();
                    let regions = regions.join(", ");
                    print(&format!("{name}: valid, regions {regions}, fingerprint {print_of}\n"))?;
                }
                fingerprint = Some(print_of);
                Vec::new()
            }
            Err(problems) => problems,
        };
        if !problems.is_empty() {
            exit = Exit::Failed;
            if output == Output::Text {
                tell(file, &text, &problems);
            }
        }
        let problems: Vec<_> = problems
            .iter()
            .map(|p| {
                serde_json::json!({
                    "line": p.line, "column": p.column, "message": p.message, "help": p.help,
                })
            })
            .collect();
        report.push(serde_json::json!({
            "file": name, "fingerprint": fingerprint, "problems": problems,
        }));
    }
    if output == Output::Json {
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    }
    Ok(exit)
}
