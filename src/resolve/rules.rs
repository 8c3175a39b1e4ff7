//! From the topology's rules to the policies that resolution reads: names of columns
//! become places, and what a table can't be kept right with is refused.

use std::sync::Arc;

use super::{Allow, ColumnGroup, Merge, Order, Policy, Rulebook};
use crate::change::Table;
use crate::topology::{self, ColumnPolicy, OnConflict, TableRule, Topology};

/// The policies of a topology.
#[must_use]
pub fn book(topology: &Topology) -> Rulebook {
    let topology = Arc::new(topology.clone());
    Rulebook::new(move |table| {
        topology.rule(&table.schema, &table.name).map_or_else(Policy::default, |rule| {
            let number = topology.tables.iter().position(|held| std::ptr::eq(held, rule));
            policy(rule, u16::try_from(number.unwrap_or(0)).unwrap_or(u16::MAX), table)
        })
    })
}

fn places(table: &Table, names: &[String]) -> Vec<usize> {
    names.iter().filter_map(|name| table.place(name)).collect()
}

fn by_column(table: &Table, column: Option<&String>) -> Order {
    let known = column.filter(|name| table.place(name).is_some());
    known.map_or(Order::Latest, |name| Order::Column(name.clone()))
}

fn policy(rule: &TableRule, number: u16, table: &Table) -> Policy {
    let unfit = rule.check(table).err().map(|wrong| wrong.join("; "));
    let mut policy = Policy { unfit, ..Policy::default() };
    let mut merge = Merge::default();
    match &rule.policy {
        topology::Policy::Latest { timestamp_column } => {
            policy.order = by_column(table, timestamp_column.as_ref());
        }
        topology::Policy::RegionPriority { priority } => {
            policy.order = Order::Priority(priority.clone());
        }
        topology::Policy::Delta { columns } => merge.deltas = places(table, columns),
        topology::Policy::InsertOnly => policy.allow = Allow::Inserts,
        topology::Policy::Home => policy.allow = Allow::Unopposed,
    }
    for group in &rule.columns {
        let columns = places(table, &group.columns);
        match &group.policy {
            ColumnPolicy::Delta => merge.deltas.extend(columns),
            ColumnPolicy::Latest { timestamp_column } => {
                let order = by_column(table, timestamp_column.as_ref());
                merge.groups.push(ColumnGroup { columns, order });
            }
            ColumnPolicy::RegionPriority { priority } => {
                let order = Order::Priority(priority.clone());
                merge.groups.push(ColumnGroup { columns, order });
            }
        }
    }
    if merge != Merge::default() {
        policy.merge = Some(merge);
    }
    if rule.on_conflict == OnConflict::Transaction {
        policy.atomic = Some(number);
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::pb::UniqueKey;
    use crate::change::{Column, ColumnType};

    #[track_caller]
    fn check(rule: &str, keys: bool) -> Policy {
        let text = format!(
            "version: 1\nregions:\n  eu: {{ id: 1, databases: [\"d:1\"], kafka: k }}\n  \
             us: {{ id: 2, databases: [\"e:1\"], kafka: k }}\n\
             kafka: {{ k: {{ brokers: [\"k:1\"] }} }}\ntables: [{{ tables: shop.*, {rule} }}]\n"
        );
        let topology = topology::parse(&text).expect("a sound topology");
        let column = |name: &str, key| Column {
            name: name.to_owned(),
            r#type: ColumnType::Bigint.into(),
            key,
            ..Column::default()
        };
        let table = Table {
            schema: "shop".to_owned(),
            name: "t".to_owned(),
            columns: vec![column("id", 1), column("n", 0), column("v", 0)],
            unique_keys: if keys { vec![UniqueKey { columns: vec![2] }] } else { vec![] },
            foreign_keys: Vec::new(),
        };
        let policy = Policy::clone(&book(&topology).of(&table).1);
        assert!(Policy::NAMES.contains(&policy.name()), "{}", policy.name());
        policy
    }

    #[test]
    fn names_become_places() {
        let priority = check("policy: region_priority, priority: [us, eu]", false);
        assert!(matches!(&priority.order, Order::Priority(ids) if ids[0].get() == 2));
        let delta = check("policy: delta, delta_columns: [N]", false);
        assert_eq!(delta.merge.map(|merge| merge.deltas), Some(vec![1]));
        assert_eq!(
            check("policy: latest, timestamp_column: v", false).order,
            Order::Column("v".to_owned())
        );
        let group = "policy: latest, columns: [{ columns: [n], policy: POLICY }]";
        for (policy, name) in [("latest", "columns"), ("delta", "delta")] {
            assert_eq!(check(&group.replace("POLICY", policy), false).name(), name);
        }
        assert_eq!(check("on_conflict: transaction", false).atomic, Some(0));
        assert_eq!(check("policy: insert_only", true).unfit, None);
    }

    #[test]
    fn what_a_unique_key_stands_against_is_refused() {
        for rule in ["policy: region_priority, priority: [us, eu]", "on_conflict: transaction"] {
            assert!(check(rule, true).unfit.is_some(), "{rule}");
        }
        assert!(check("policy: delta, delta_columns: [gone]", false).unfit.is_some());
    }
}
