//! Drawings of a topology.

use std::fmt;

use serde_json::{Value, json};

use super::check::File;
use super::{ColumnPolicy, OnConflict, Policy, Region, TableRule, Topology};
use crate::change::RegionId;

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
            out += &format!("{} (id {})\n", region.name, region.id);
            out += &format!("  database  {}\n", region.databases.join(", "));
            let outbox = self.outbox(region);
            out += &format!("  outbox    {} on {}\n", outbox.name, outbox.brokers);
            for peer in self.peers(region) {
                let how = if shared(region, peer) { "shared" } else { "link" };
                let inbox = self.inbox(region, peer).name;
                out += &format!("  ◀── {:<12} {how:<6} {inbox}\n", peer.name);
            }
        }
        for rule in &self.tables {
            out += &format!("tables {}{}\n", rule.tables, self.resolution(rule));
        }
        out
    }

    /// For Graphviz.
    #[must_use]
    pub fn graph_dot(&self) -> String {
        let quoted = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"");
        let mut out = String::from("digraph causeway {\n  node [shape=box];\n");
        for region in &self.regions {
            let databases: Vec<_> = region.databases.iter().map(|d| quoted(d)).collect();
            let name = &region.name;
            out += &format!("  \"{name}\" [label=\"{name}\\n{}\"];\n", databases.join("\\n"));
        }
        for region in &self.regions {
            for peer in self.peers(region) {
                let style = if shared(region, peer) { " [style=dashed]" } else { "" };
                out += &format!("  \"{}\" -> \"{}\"{style};\n", peer.name, region.name);
            }
        }
        out + "}\n"
    }

    /// For Mermaid, as GitHub and GitLab draw it.
    #[must_use]
    pub fn graph_mermaid(&self) -> String {
        let quoted = |text: &str| text.replace('"', "#quot;");
        let mut out = String::from("flowchart LR\n");
        for region in &self.regions {
            let databases: Vec<_> = region.databases.iter().map(|d| quoted(d)).collect();
            let (id, name) = (region.id, &region.name);
            out += &format!("  r{id}[\"{name}<br/>{}\"]\n", databases.join("<br/>"));
        }
        for region in &self.regions {
            for peer in self.peers(region) {
                let arrow = if shared(region, peer) { "-.->" } else { "-->" };
                let inbox = self.inbox(region, peer).name;
                out += &format!("  r{} {arrow}|{inbox}| r{}\n", peer.id, region.id);
            }
        }
        out
    }

    /// For programs: regions, the streams between them, and the rules of the tables.
    #[must_use]
    pub fn graph_json(&self) -> Value {
        let regions = self.regions.iter().map(|region| {
            let outbox = self.outbox(region);
            json!({
                "name": region.name,
                "id": region.id.get(),
                "databases": region.databases,
                "kafka": region.cluster,
                "outbox": { "topic": outbox.name, "brokers": outbox.brokers },
            })
        });
        let streams = self.regions.iter().flat_map(|region| {
            self.peers(region).map(move |peer| {
                let inbox = self.inbox(region, peer);
                json!({
                    "from": peer.name,
                    "to": region.name,
                    "shared": shared(region, peer),
                    "inbox": { "topic": inbox.name, "brokers": inbox.brokers },
                })
            })
        });
        let tables = self.tables.iter().map(|rule| {
            let groups = rule
                .columns
                .iter()
                .map(|group| json!({ "columns": group.columns, "policy": group.policy.name() }));
            json!({
                "tables": rule.tables.to_string(),
                "exclude": rule.exclude.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "policy": rule.policy.name(),
                "on_conflict": rule.on_conflict.name(),
                "columns": groups.collect::<Vec<_>>(),
            })
        });
        json!({
            "regions": regions.collect::<Vec<_>>(),
            "streams": streams.collect::<Vec<_>>(),
            "tables": tables.collect::<Vec<_>>(),
        })
    }

    /// What a rule says beside its pattern, for people.
    fn resolution(&self, rule: &TableRule) -> String {
        let mut out = String::new();
        if !rule.exclude.is_empty() {
            out += &format!(" except {}", list(&rule.exclude));
        }
        out += &format!(" policy {}", rule.policy.name());
        match &rule.policy {
            Policy::Latest { timestamp_column } => out += &by(timestamp_column.as_ref()),
            Policy::RegionPriority { priority } => out += &self.order(priority),
            Policy::Delta { columns } => out += &format!(" of {}", list(columns)),
            Policy::InsertOnly | Policy::Home => {}
        }
        if rule.on_conflict == OnConflict::Transaction {
            out += " of whole transactions";
        }
        for group in &rule.columns {
            out += &format!("; {} policy {}", list(&group.columns), group.policy.name());
            match &group.policy {
                ColumnPolicy::Latest { timestamp_column } => out += &by(timestamp_column.as_ref()),
                ColumnPolicy::RegionPriority { priority } => out += &self.order(priority),
                ColumnPolicy::Delta => {}
            }
        }
        out
    }

    fn order(&self, priority: &[RegionId]) -> String {
        let names = self.names();
        let names: Vec<_> = priority.iter().filter_map(|id| names.get(id)).collect();
        format!(" {}", names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" > "))
    }
}

fn shared(region: &Region, peer: &Region) -> bool {
    region.cluster == peer.cluster
}

fn by(timestamp_column: Option<&String>) -> String {
    timestamp_column.map_or(String::new(), |column| format!(" by {column}"))
}

fn list(names: &[impl fmt::Display]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
