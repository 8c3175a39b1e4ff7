//! Drawings of a topology.

use std::fmt::Write as _;

use super::{Topology, check::File};

impl Topology {
    /// The JSON Schema of the file format.
    #[must_use]
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(File)
    }

    /// For a terminal: per region its database, its Kafka, and where its records go.
    #[must_use]
    pub fn graph_text(&self) -> String {
        let mut out = String::new();
        for region in &self.regions {
            let line = format!("{} (id {})", region.name, region.id);
            writeln!(out, "{line}").expect("a String takes all");
            writeln!(out, "  database  {}", region.databases.join(", "))
                .expect("a String takes all");
            let outbox = self.outbox(region);
            writeln!(out, "  outbox    {} on {}", outbox.name, outbox.brokers)
                .expect("a String takes all");
            for peer in self.peers(region) {
                let shared = region.cluster == peer.cluster;
                let how = if shared { "shared" } else { "link" };
                let inbox = self.inbox(region, peer);
                writeln!(out, "  ◀── {:<12} {how:<6} {}", peer.name, inbox.name)
                    .expect("a String takes all");
            }
        }
        for rule in &self.tables {
            writeln!(out, "tables {} policy {}", rule.tables, rule.policy.name())
                .expect("a String takes all");
        }
        out
    }

    /// For Graphviz.
    #[must_use]
    pub fn graph_dot(&self) -> String {
        let mut out = String::from("digraph causeway {\n  node [shape=box];\n");
        for region in &self.regions {
            let label = format!("{}\\n{}", region.name, region.databases.join("\\n"));
            writeln!(out, "  \"{}\" [label=\"{label}\"];", region.name)
                .expect("a String takes all");
        }
        for region in &self.regions {
            for peer in self.peers(region) {
                let style = if region.cluster == peer.cluster { " [style=dashed]" } else { "" };
                writeln!(out, "  \"{}\" -> \"{}\"{style};", peer.name, region.name)
                    .expect("a String takes all");
            }
        }
        out + "}\n"
    }
}
