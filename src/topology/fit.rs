//! Whether a rule fits a table: what can be said only with its columns at hand.

use super::{ColumnPolicy, OnConflict, Policy, TableRule, did_you_mean};
use crate::change::{ColumnType, Table};

/// A column as far as a policy needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// Its type; `Unspecified` when it is none of those that are replicated.
    pub column_type: ColumnType,
    /// Part of the primary key.
    pub key: bool,
    /// Worked out by the server.
    pub generated: bool,
    /// Whether it may be NULL; `None` when that is not known.
    pub nullable: Option<bool>,
}

const UNIQUE: &str = "the rule needs a table without unique keys beside the primary key";

const fn integer(column_type: ColumnType) -> bool {
    use ColumnType::{Bigint, Int, Mediumint, Smallint, Tinyint};
    matches!(column_type, Tinyint | Smallint | Mediumint | Int | Bigint)
}

impl TableRule {
    /// The policy of a column; `None` under a policy of whole rows (`insert_only`,
    /// `home`). Names compare as the servers compare them, without regard to case.
    #[must_use]
    pub fn column_policy(&self, column: &str) -> Option<ColumnPolicy> {
        let listed = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case(column));
        if let Some(group) = self.columns.iter().find(|group| listed(&group.columns)) {
            return Some(group.policy.clone());
        }
        match &self.policy {
            Policy::Latest { timestamp_column } => {
                Some(ColumnPolicy::Latest { timestamp_column: timestamp_column.clone() })
            }
            Policy::RegionPriority { priority } => {
                Some(ColumnPolicy::RegionPriority { priority: priority.clone() })
            }
            Policy::Delta { columns } if listed(columns) => Some(ColumnPolicy::Delta),
            Policy::Delta { .. } => Some(ColumnPolicy::Latest { timestamp_column: None }),
            Policy::InsertOnly | Policy::Home => None,
        }
    }

    /// Whether the rule fits a table as it was when rows of it were written. Whether
    /// a column may be NULL is not known there.
    ///
    /// # Errors
    /// All that does not fit, each with its column.
    pub fn check(&self, table: &Table) -> Result<(), Vec<String>> {
        let shapes: Vec<_> = table
            .columns
            .iter()
            .map(|column| ColumnShape {
                name: column.name.clone(),
                column_type: column.r#type(),
                key: column.key > 0,
                generated: column.generated,
                nullable: None,
            })
            .collect();
        self.check_columns(&shapes, !table.unique_keys.is_empty())
    }

    /// Whether the rule fits a table with these columns, and with unique keys beside
    /// the primary key or without.
    ///
    /// # Errors
    /// All that does not fit, each with its column.
    pub fn check_columns(
        &self,
        table: &[ColumnShape],
        unique_keys: bool,
    ) -> Result<(), Vec<String>> {
        let look = |name: &String, judge: fn(&ColumnShape) -> Option<String>| match table
            .iter()
            .find(|column| column.name.eq_ignore_ascii_case(name))
        {
            Some(column) => judge(column),
            None => {
                let guess = did_you_mean(name, table.iter().map(|column| column.name.as_str()));
                let guess = guess.map_or(String::new(), |guess| format!(", {guess}"));
                Some(format!("there is no column `{name}`{guess}"))
            }
        };
        let others = self.columns.iter().filter(|group| group.policy != ColumnPolicy::Delta);
        let others = others.flat_map(|group| &group.columns);
        let wrong: Vec<String> = self
            .delta_columns()
            .filter_map(|name| look(name, not_a_delta))
            .chain(self.timestamp_columns().filter_map(|name| look(name, not_a_clock)))
            .chain(others.filter_map(|name| look(name, not_resolved_alone)))
            .chain((unique_keys && self.shows_again()).then(|| UNIQUE.to_owned()))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Whether a row may be shown again that was not the last one written, as each order
    /// but the commit's own, sums and whole transactions do: a further unique value of
    /// it may be another row's by then.
    fn shows_again(&self) -> bool {
        let by_commit = match &self.policy {
            Policy::Latest { timestamp_column } => timestamp_column.is_none(),
            Policy::InsertOnly | Policy::Home => true,
            Policy::RegionPriority { .. } | Policy::Delta { .. } => false,
        };
        !by_commit || !self.columns.is_empty() || self.on_conflict == OnConflict::Transaction
    }

    /// Columns whose changes add up.
    fn delta_columns(&self) -> impl Iterator<Item = &String> {
        let row = match &self.policy {
            Policy::Delta { columns } => &columns[..],
            Policy::Latest { .. }
            | Policy::RegionPriority { .. }
            | Policy::InsertOnly
            | Policy::Home => &[],
        };
        let groups = self.columns.iter().filter(|group| group.policy == ColumnPolicy::Delta);
        row.iter().chain(groups.flat_map(|group| &group.columns))
    }

    /// Columns that say what is later.
    fn timestamp_columns(&self) -> impl Iterator<Item = &String> {
        let row = match &self.policy {
            Policy::Latest { timestamp_column } => timestamp_column.as_ref(),
            Policy::RegionPriority { .. }
            | Policy::Delta { .. }
            | Policy::InsertOnly
            | Policy::Home => None,
        };
        let groups = self.columns.iter().filter_map(|group| match &group.policy {
            ColumnPolicy::Latest { timestamp_column } => timestamp_column.as_ref(),
            ColumnPolicy::RegionPriority { .. } | ColumnPolicy::Delta => None,
        });
        row.into_iter().chain(groups)
    }
}

fn not_a_delta(column: &ColumnShape) -> Option<String> {
    let name = &column.name;
    let why = if column.key {
        "is part of the primary key, and a key can't add up"
    } else if column.generated {
        "is generated: let the columns add up that it is made from"
    } else if matches!(column.column_type, ColumnType::Float | ColumnType::Double) {
        "is a floating point number, whose sum depends on the order: make it DECIMAL"
    } else if !integer(column.column_type) && column.column_type != ColumnType::Decimal {
        "is neither an integer nor DECIMAL, so its changes can't add up"
    } else if column.nullable == Some(true) {
        "may be NULL, and a change from NULL has no difference: make it NOT NULL"
    } else {
        return None;
    };
    Some(format!("delta column `{name}` {why}"))
}

fn not_a_clock(column: &ColumnShape) -> Option<String> {
    use ColumnType::{Date, Datetime, Timestamp};
    let name = &column.name;
    let time = matches!(column.column_type, Date | Datetime | Timestamp);
    let why = if column.key {
        "is part of the primary key: all versions of a row agree in it"
    } else if !time && !integer(column.column_type) {
        "is neither a date, DATETIME, TIMESTAMP nor an integer"
    } else if column.nullable == Some(true) {
        "may be NULL, which is neither earlier nor later: make it NOT NULL"
    } else {
        return None;
    };
    Some(format!("timestamp_column `{name}` {why}"))
}

fn not_resolved_alone(column: &ColumnShape) -> Option<String> {
    let name = &column.name;
    let why = if column.key {
        "is part of the primary key, which names the row and has no policy"
    } else if column.generated {
        "is generated: give the policy to the columns that it is made from"
    } else {
        return None;
    };
    Some(format!("column `{name}` {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use crate::change::{Column, ColumnType, Table};

    /// A rule held against `shop.goods`: key `id`, then some columns of every sort.
    #[track_caller]
    fn check(rule: &str, wanted: &[&str]) {
        let text = format!(
            "version: 1\nregions: {{ eu: {{ id: 1, databases: [\"db:1\"], kafka: k }} }}\n\
             kafka: {{ k: {{ brokers: [\"k:1\"] }} }}\ntables: [{{ tables: shop.*, {rule} }}]\n"
        );
        let topology = parse(&text).unwrap();
        let column = |name: &str, r#type: ColumnType| Column {
            name: name.to_owned(),
            r#type: r#type.into(),
            key: u32::from(name == "id"),
            generated: name == "total",
            ..Column::default()
        };
        let table = Table {
            schema: "shop".to_owned(),
            name: "goods".to_owned(),
            columns: vec![
                column("id", ColumnType::Bigint),
                column("stock", ColumnType::Int),
                column("price", ColumnType::Decimal),
                column("weight", ColumnType::Double),
                column("name", ColumnType::Char),
                column("total", ColumnType::Decimal),
                column("changed", ColumnType::Datetime),
            ],
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
        };
        let found = topology.rule("shop", "goods").unwrap().check(&table).err().unwrap_or_default();
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.contains(wanted), "wanted {wanted:?} in {found:?}");
        }
    }

    #[test]
    fn a_rule_is_held_against_a_tables_columns() {
        check("policy: latest", &[]);
        check("policy: delta, delta_columns: [STOCK, price]", &[]);
        check(
            "policy: delta, delta_columns: [id, name, weight, total, stok]",
            &["primary key", "neither an integer", "floating", "is generated", "mean `stock`?"],
        );
        check("timestamp_column: changed", &[]);
        check("timestamp_column: stock", &[]);
        check("timestamp_column: id", &["`id` is part of the primary key"]);
        check("timestamp_column: name", &["`name` is neither a date"]);
        check("columns: [{ columns: [name, changed], policy: latest }]", &[]);
        check(
            "columns: [{ columns: [id, total], policy: latest, timestamp_column: changd }]",
            &["mean `changed`?", "which names the row", "is generated"],
        );
        check("columns: [{ columns: [name], policy: delta }]", &["neither an integer nor"]);
        check("policy: home", &[]);
    }

    #[test]
    fn an_order_of_its_own_stands_against_further_unique_keys() {
        let shapes = |rule: &str, unique_keys: bool| {
            let text = format!(
                "version: 1\nregions: {{ eu: {{ id: 1, databases: [\"db:1\"], kafka: k }} }}\n\
                 kafka: {{ k: {{ brokers: [\"k:1\"] }} }}\ntables: [{{ tables: shop.*, {rule} }}]\n"
            );
            let rule = parse(&text).unwrap().tables.remove(0);
            rule.check_columns(&[], unique_keys).is_ok()
        };
        for rule in ["policy: region_priority, priority: [eu]", "on_conflict: transaction"] {
            assert!(shapes(rule, false), "{rule}");
            assert!(!shapes(rule, true), "{rule}");
        }
        for rule in ["policy: latest", "policy: insert_only", "policy: home"] {
            assert!(shapes(rule, true), "{rule}");
        }
    }
}
