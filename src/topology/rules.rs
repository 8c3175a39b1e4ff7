//! The section `tables`: rules as written, and the checks that need no database.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::policy::{ColumnPolicyName, PolicyName};
use super::{ColumnGroup, ColumnPolicy, OnConflict, Policy, TablePattern, TableRule};
use crate::change::RegionId;
use crate::yaml::{Place, Problems, Spanned, which};

type Text = Spanned<String>;
type List = Spanned<Vec<Text>>;

/// Which tables are replicated, and how their conflicts are resolved.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRule {
    /// `schema.table` with `*` and `?`.
    #[schemars(with = "String")]
    tables: Text,
    /// Tables of the pattern that are not replicated.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    exclude: Vec<Text>,
    /// How concurrent writes of one row are resolved; `latest` when absent.
    #[serde(default)]
    #[schemars(with = "PolicyName")]
    policy: Option<Spanned<PolicyName>>,
    /// For `latest`: the table's own column that says which write is later.
    #[serde(default)]
    #[schemars(with = "String")]
    timestamp_column: Option<Text>,
    /// For `region_priority`: every region, the strongest first.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    priority: Option<List>,
    /// For `delta`: the numeric columns whose changes add up.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    delta_columns: Option<List>,
    /// Whether a row that loses takes its whole transaction with it; `row` when
    /// absent.
    #[serde(default)]
    #[schemars(with = "OnConflict")]
    on_conflict: Option<Spanned<OnConflict>>,
    /// Groups of columns with a policy of their own.
    #[serde(default)]
    #[schemars(with = "Vec<FileGroup>")]
    columns: Option<Spanned<Vec<FileGroup>>>,
}

/// Columns with a policy of their own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FileGroup {
    /// Their names.
    #[schemars(with = "Vec<String>")]
    columns: List,
    /// How their concurrent writes are resolved.
    #[schemars(with = "ColumnPolicyName")]
    policy: Spanned<PolicyName>,
    /// For `latest`: the table's own column that says which write is later.
    #[serde(default)]
    #[schemars(with = "String")]
    timestamp_column: Option<Text>,
    /// For `region_priority`: every region, the strongest first.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    priority: Option<List>,
}

/// The policy, unless a stand-in is in its place.
fn known(written: &Spanned<PolicyName>) -> Option<PolicyName> {
    (!written.at.told()).then_some(written.value)
}

/// A policy's options as written, wherever it stands.
struct Options<'a> {
    timestamp_column: Option<&'a Text>,
    priority: Option<&'a List>,
    delta_columns: Option<&'a List>,
}

/// Where the rules are read: the regions by name (without id when that is wrong).
pub(super) struct Rules<'a> {
    pub(super) regions: &'a BTreeMap<&'a str, Option<RegionId>>,
    pub(super) problems: &'a mut Problems,
}

impl Rules<'_> {
    /// The rules; what is wrong is told, and the rest is looked at all the same.
    pub(super) fn read(&mut self, file: &Spanned<Vec<FileRule>>) -> Vec<TableRule> {
        let mut rules: Vec<TableRule> = Vec::new();
        if file.value.is_empty() {
            let help = Some("add a rule, e.g. `- tables: shop.*`".to_owned());
            self.problems.add(file.at, "no tables are replicated".to_owned(), help);
        }
        for written in &file.value {
            let Some(rule) = self.rule(written) else { continue };
            if let Some(wider) = rules.iter().find(|held| held.tables.shadows(&rule.tables)) {
                let message = format!(
                    "`{}` is never reached: `{}` stands before it",
                    rule.tables, wider.tables
                );
                let help = Some("put the narrower pattern first".to_owned());
                self.problems.add(written.tables.at, message, help);
            }
            rules.push(rule);
        }
        rules
    }

    fn rule(&mut self, written: &FileRule) -> Option<TableRule> {
        let tables = self.pattern(&written.tables);
        let exclude = written.exclude.iter().filter_map(|text| self.pattern(text)).collect();
        let kind = match &written.policy {
            Some(name) => known(name),
            None => Some(PolicyName::Latest),
        };
        let options = Options {
            timestamp_column: written.timestamp_column.as_ref(),
            priority: written.priority.as_ref(),
            delta_columns: written.delta_columns.as_ref(),
        };
        let at = written.policy.as_ref().map_or(written.tables.at, |name| name.at);
        let policy = match kind {
            Some(kind) => self.policy(kind, at, &options),
            None => Policy::default(),
        };
        let on_conflict =
            written.on_conflict.as_ref().map_or_else(OnConflict::default, |o| o.value);
        let columns = match &written.columns {
            Some(groups) => self.groups(groups),
            None => Vec::new(),
        };
        self.disjoint(written, kind);
        if let Some(kind) = kind {
            self.combination(written, kind);
        }
        let rule = TableRule { tables: tables?, exclude, policy, on_conflict, columns };
        self.clocks(written, &rule);
        Some(rule)
    }

    fn pattern(&mut self, text: &Text) -> Option<TablePattern> {
        let parsed: Result<TablePattern, String> = text.value.parse();
        parsed.map_err(|message| self.problems.add(text.at, message, None)).ok()
    }

    /// The policy with its options; those of another policy are told.
    fn policy(&mut self, kind: PolicyName, at: Place, options: &Options<'_>) -> Policy {
        let placed = [
            ("timestamp_column", options.timestamp_column.map(|o| o.at), PolicyName::Latest),
            ("priority", options.priority.map(|o| o.at), PolicyName::RegionPriority),
            ("delta_columns", options.delta_columns.map(|o| o.at), PolicyName::Delta),
        ];
        for (name, at, owner) in placed {
            if let Some(at) = at.filter(|_| owner != kind) {
                let message = format!("`{name}` does not belong to policy `{}`", kind.name());
                let help = format!("leave it out, or write `policy: {}`", owner.name());
                self.problems.add(at, message, Some(help));
            }
        }
        match kind {
            PolicyName::Latest => Policy::Latest {
                timestamp_column: options.timestamp_column.map(|column| {
                    self.column(column);
                    column.value.clone()
                }),
            },
            PolicyName::RegionPriority => {
                Policy::RegionPriority { priority: self.priority(at, options.priority) }
            }
            PolicyName::Delta => {
                let columns = options.delta_columns.map(|list| self.columns(list));
                if columns.is_none() {
                    let message = "policy `delta` needs `delta_columns`".to_owned();
                    let help = "list the numeric columns that add up: `delta_columns: [stock]`";
                    self.problems.add(at, message, Some(help.to_owned()));
                }
                Policy::Delta { columns: columns.unwrap_or_default() }
            }
            PolicyName::InsertOnly => Policy::InsertOnly,
            PolicyName::Home => Policy::Home,
        }
    }

    /// The order of regions: each one once. Of regions that can't be read nothing is
    /// said.
    fn priority(&mut self, at: Place, written: Option<&List>) -> Vec<RegionId> {
        let every = self.regions.keys().copied().collect::<Vec<_>>().join(", ");
        let Some(list) = written else {
            let message = "policy `region_priority` needs `priority`".to_owned();
            let help = format!("list every region, the strongest first: `priority: [{every}]`");
            self.problems.add(at, message, Some(help));
            return Vec::new();
        };
        let mut seen: Vec<&str> = Vec::new();
        let readable = list.value.iter().filter(|_| !self.regions.is_empty());
        for name in readable {
            let text = name.value.as_str();
            let wrong = if !self.regions.contains_key(text) {
                let help = which(text, "regions", self.regions.keys().copied());
                Some((format!("unknown region `{text}` in `priority`"), help))
            } else if seen.contains(&text) {
                let message = format!("region `{text}` stands twice in `priority`");
                Some((message, "keep the first of the two".to_owned()))
            } else {
                None
            };
            if let Some((message, help)) = wrong {
                self.problems.add(name.at, message, Some(help));
            }
            seen.push(text);
        }
        let missing: Vec<_> =
            self.regions.keys().copied().filter(|name| !seen.contains(name)).collect();
        if !missing.is_empty() && !list.value.iter().any(|name| name.at.told()) {
            let message = format!("`priority` does not say where {} stands", missing.join(", "));
            let help = "every region stands in it once, the strongest first".to_owned();
            self.problems.add(list.at, message, Some(help));
        }
        seen.iter().filter_map(|name| self.regions.get(name).copied().flatten()).collect()
    }

    /// What one rule can't have together: a group of columns and a whole transaction
    /// both ask for the commit's own order.
    fn combination(&mut self, written: &FileRule, kind: PolicyName) {
        let clock = written.timestamp_column.is_some() && kind == PolicyName::Latest;
        let policy = format!("policy `{}`", kind.name());
        if let Some(groups) = &written.columns {
            let fits = matches!(kind, PolicyName::Latest | PolicyName::Delta);
            let other = if clock { "`timestamp_column`" } else { &policy };
            if clock || !fits {
                let message = format!("`columns` does not go with {other}");
                let help = "groups of columns stand under plain `latest` or `delta`; a group may \
                            have an order of its own";
                self.problems.add(groups.at, message, Some(help.to_owned()));
            }
        }
        let whole = written.on_conflict.as_ref().filter(|o| o.value == OnConflict::Transaction);
        if let Some(whole) = whole {
            let other = if kind != PolicyName::Latest {
                &policy
            } else if clock {
                "`timestamp_column`"
            } else if written.columns.is_some() {
                "`columns`"
            } else {
                return;
            };
            let message = format!("`on_conflict: transaction` does not go with {other}");
            let help = "it stands under plain `latest`".to_owned();
            self.problems.add(whole.at, message, Some(help));
        }
    }

    fn column(&mut self, written: &Text) {
        let name = written.value.as_str();
        if name.is_empty() || name.chars().count() > 64 {
            let message = format!("`{name}` is no column name");
            self.problems.add(written.at, message, Some("1 to 64 characters".to_owned()));
        }
    }

    fn columns(&mut self, list: &List) -> Vec<String> {
        if list.value.is_empty() {
            let help = Some("name one column at least".to_owned());
            self.problems.add(list.at, "the list of columns is empty".to_owned(), help);
        }
        for column in &list.value {
            self.column(column);
        }
        list.value.iter().map(|column| column.value.clone()).collect()
    }

    fn groups(&mut self, groups: &Spanned<Vec<FileGroup>>) -> Vec<ColumnGroup> {
        groups.value.iter().filter_map(|group| self.group(group)).collect()
    }

    fn group(&mut self, group: &FileGroup) -> Option<ColumnGroup> {
        let columns = self.columns(&group.columns);
        let kind = known(&group.policy)?;
        let options = Options {
            timestamp_column: group.timestamp_column.as_ref(),
            priority: group.priority.as_ref(),
            // The group's own columns are those that add up.
            delta_columns: (kind == PolicyName::Delta).then_some(&group.columns),
        };
        let policy = match self.policy(kind, group.policy.at, &options) {
            Policy::Latest { timestamp_column } => ColumnPolicy::Latest { timestamp_column },
            Policy::RegionPriority { priority } => ColumnPolicy::RegionPriority { priority },
            Policy::Delta { .. } | Policy::InsertOnly | Policy::Home => ColumnPolicy::Delta,
        };
        Some(ColumnGroup { columns, policy })
    }

    /// A column has one policy.
    fn disjoint(&mut self, written: &FileRule, kind: Option<PolicyName>) {
        let groups = written.columns.as_ref().map_or(&[][..], |groups| &groups.value);
        let deltas = written.delta_columns.as_ref().filter(|_| kind == Some(PolicyName::Delta));
        let lists = deltas.into_iter().chain(groups.iter().map(|group| &group.columns));
        let mut seen: Vec<&Text> = Vec::new();
        for column in lists.flat_map(|list| &list.value) {
            if let Some(first) = seen.iter().find(|c| c.value.eq_ignore_ascii_case(&column.value)) {
                let message = format!("column `{}` has two policies", column.value);
                let help = format!("it stands in line {} already", first.at.line);
                self.problems.add(column.at, message, Some(help));
            }
            seen.push(column);
        }
    }

    /// A column that adds up says nothing about time.
    fn clocks(&mut self, written: &FileRule, rule: &TableRule) {
        let groups = written.columns.as_ref().map_or(&[][..], |groups| &groups.value);
        let clocks = groups.iter().filter_map(|group| group.timestamp_column.as_ref());
        for clock in written.timestamp_column.as_ref().into_iter().chain(clocks) {
            if rule.column_policy(&clock.value) == Some(ColumnPolicy::Delta) {
                let message = format!("`timestamp_column` `{}` is one that adds up", clock.value);
                let help = "a time is taken as it was written: leave it out of `delta`".to_owned();
                self.problems.add(clock.at, message, Some(help));
            }
        }
    }
}
