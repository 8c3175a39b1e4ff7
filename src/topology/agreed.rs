//! What of a topology all regions have to have alike: the regions with their ids, and
//! the rules of the tables. By them every region decides a conflict for itself; were they
//! not the same, the rows would silently differ (R6).

use xxhash_rust::xxh3::xxh3_64;

use super::{ColumnPolicy, Policy, TableRule, Topology};
use crate::change::RegionId;

impl Topology {
    /// It as text: a line for each region, then one for each rule, in order.
    #[must_use]
    pub fn agreed(&self) -> String {
        let regions =
            self.regions.iter().map(|region| format!("region {} {}", region.id, region.name));
        let rules = self.tables.iter().map(rule);
        regions.chain(rules).collect::<Vec<_>>().join("\n")
    }

    /// A hash of [`Self::agreed`], never 0.
    #[must_use]
    pub fn fingerprint(&self) -> u32 {
        let hash = xxh3_64(self.agreed().as_bytes());
        let low = u32::try_from(hash & 0xffff_ffff).expect("32 bits");
        low.max(1)
    }

    /// Where another region's [`Self::agreed`] first differs from this one.
    #[must_use]
    pub fn differs_from(&self, other: &str) -> Option<String> {
        let here = self.agreed();
        let mut lines = (here.lines(), other.lines());
        loop {
            let (here, there) = (lines.0.next(), lines.1.next());
            if here.is_none() && there.is_none() {
                return None;
            }
            if here != there {
                let said = |line: Option<&str>| {
                    line.map_or_else(|| "nothing".to_owned(), |line| format!("`{line}`"))
                };
                return Some(format!("here {}, there {}", said(here), said(there)));
            }
        }
    }
}

fn rule(rule: &TableRule) -> String {
    let exclude: Vec<_> = rule.exclude.iter().map(|pattern| format!(" but {pattern}")).collect();
    let groups: Vec<_> = rule
        .columns
        .iter()
        .map(|group| {
            let policy = match &group.policy {
                ColumnPolicy::Latest { timestamp_column } => latest(timestamp_column.as_deref()),
                ColumnPolicy::RegionPriority { priority } => region_priority(priority),
                ColumnPolicy::Delta => "delta".to_owned(),
            };
            format!("; {}: {policy}", names(&group.columns))
        })
        .collect();
    let policy = match &rule.policy {
        Policy::Latest { timestamp_column } => latest(timestamp_column.as_deref()),
        Policy::RegionPriority { priority } => region_priority(priority),
        Policy::Delta { columns } => format!("delta {}", names(columns)),
        Policy::InsertOnly | Policy::Home => rule.policy.name().to_owned(),
    };
    format!(
        "tables {}{}: {policy}, on_conflict {}{}",
        rule.tables,
        exclude.concat(),
        rule.on_conflict.name(),
        groups.concat()
    )
}

fn latest(column: Option<&str>) -> String {
    column.map_or_else(|| "latest".to_owned(), |column| format!("latest {}", column.to_lowercase()))
}

fn region_priority(priority: &[RegionId]) -> String {
    let ids: Vec<_> = priority.iter().map(ToString::to_string).collect();
    format!("region_priority {}", ids.join(" "))
}

/// Columns have no case, and no order in a list.
fn names(columns: &[String]) -> String {
    let mut names: Vec<_> = columns.iter().map(|name| name.to_lowercase()).collect();
    names.sort();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn topology(us: &str, kafka: &str, rules: &str) -> Topology {
        parse(&format!(
            "version: 1\nregions:\n  eu: {{ id: 1, databases: [\"d:1\"], kafka: k }}\n  \
             {us}: {{ id: 2, databases: [\"e:1\"], kafka: k }}\n\
             kafka: {{ k: {{ brokers: [\"{kafka}\"] }} }}\ntables: [{rules}]\n"
        ))
        .expect("a sound topology")
    }

    #[track_caller]
    fn check(other: &Topology, wanted: Option<&str>) {
        let rules =
            "{ tables: shop.stock, policy: delta, delta_columns: [a, B] }, { tables: shop.* }";
        let one = topology("us", "k:1", rules);
        assert_eq!(one.differs_from(&other.agreed()).as_deref(), wanted);
        assert_eq!(one.fingerprint() == other.fingerprint(), wanted.is_none());
    }

    #[test]
    fn what_decides_conflicts_has_to_be_alike_and_nothing_else() {
        let all = "{ tables: shop.* }";
        let stock = "{ tables: shop.stock, policy: delta, delta_columns: [b, A] }";
        check(&topology("us", "elsewhere:9", &format!("{stock}, {all}")), None);
        check(
            &topology("up", "k:1", &format!("{stock}, {all}")),
            Some("here `region 2 us`, there `region 2 up`"),
        );
        let sums = "here `tables shop.stock: delta a b, on_conflict row`, there ";
        check(
            &topology(
                "us",
                "k:1",
                &format!("{{ tables: shop.stock, policy: insert_only }}, {all}"),
            ),
            Some(&format!("{sums}`tables shop.stock: insert_only, on_conflict row`")),
        );
        check(
            &topology("us", "k:1", stock),
            Some("here `tables shop.*: latest, on_conflict row`, there nothing"),
        );
        let groups = "{ tables: shop.stock, exclude: [shop.s*], on_conflict: row, columns: \
            [{ columns: [c], policy: region_priority, priority: [us, eu] }] }";
        check(
            &topology("us", "k:1", &format!("{groups}, {all}")),
            Some(&format!(
                "{sums}`tables shop.stock but shop.s*: latest, on_conflict row; c: region_priority 2 1`"
            )),
        );
    }
}
