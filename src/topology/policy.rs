//! How the conflicts of a table are resolved: the policies and what belongs to them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::TableRule;
use crate::change::RegionId;

/// How concurrent writes of one row are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The later write wins, then the higher region id.
    Latest {
        /// The table's own column that says what is later, instead of the commit
        /// time.
        timestamp_column: Option<String>,
    },
    /// The first region in this order wins.
    RegionPriority {
        /// Every region of the topology once, the strongest first.
        priority: Vec<RegionId>,
    },
    /// Each change of these columns adds its difference; the others follow `latest`.
    Delta {
        /// Numeric columns, one at least.
        columns: Vec<String>,
    },
    /// Inserts unite; an update or a delete stops the stream.
    InsertOnly,
    /// Concurrent writes can't happen; if they do, it is an alarm.
    Home,
}

impl Default for Policy {
    fn default() -> Self {
        Self::Latest { timestamp_column: None }
    }
}

impl Policy {
    /// Its name in the topology.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }

    const fn kind(&self) -> PolicyName {
        match self {
            Self::Latest { .. } => PolicyName::Latest,
            Self::RegionPriority { .. } => PolicyName::RegionPriority,
            Self::Delta { .. } => PolicyName::Delta,
            Self::InsertOnly => PolicyName::InsertOnly,
            Self::Home => PolicyName::Home,
        }
    }
}

/// How concurrent writes of one column are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnPolicy {
    /// The later write wins, then the higher region id.
    Latest {
        /// The table's own column that says what is later, instead of the commit
        /// time.
        timestamp_column: Option<String>,
    },
    /// The first region in this order wins.
    RegionPriority {
        /// Every region of the topology once, the strongest first.
        priority: Vec<RegionId>,
    },
    /// Each change adds its difference.
    Delta,
}

impl ColumnPolicy {
    /// Its name in the topology.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Latest { .. } => PolicyName::Latest.name(),
            Self::RegionPriority { .. } => PolicyName::RegionPriority.name(),
            Self::Delta => PolicyName::Delta.name(),
        }
    }
}

/// Columns with a policy of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnGroup {
    /// One at least, none of them in another group of the rule.
    pub columns: Vec<String>,
    /// How their concurrent writes are resolved.
    pub policy: ColumnPolicy,
}

impl TableRule {
    /// Whether the changes of a column add up.
    #[must_use]
    pub fn adds_up(&self, column: &str) -> bool {
        let holds = |names: &[String]| names.iter().any(|held| held.eq_ignore_ascii_case(column));
        matches!(&self.policy, Policy::Delta { columns } if holds(columns))
            || self
                .columns
                .iter()
                .any(|group| group.policy == ColumnPolicy::Delta && holds(&group.columns))
    }
}

/// What a write that loses takes with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// The row alone loses.
    #[default]
    Row,
    /// The whole transaction loses.
    Transaction,
}

impl OnConflict {
    /// Its name in the topology.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Transaction => "transaction",
        }
    }
}

/// How concurrent writes are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Policy")]
pub(super) enum PolicyName {
    /// The later write wins, by commit time or by `timestamp_column`; then the higher
    /// region id.
    Latest,
    /// The first region in the order `priority` wins.
    RegionPriority,
    /// The changes of `delta_columns` add up; the other columns follow `latest`.
    Delta,
    /// Inserts unite; updates and deletes stop the stream.
    InsertOnly,
    /// Concurrent writes can't happen; if they do, it is an alarm.
    Home,
}

impl PolicyName {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::RegionPriority => "region_priority",
            Self::Delta => "delta",
            Self::InsertOnly => "insert_only",
            Self::Home => "home",
        }
    }
}

/// How concurrent writes of a group of columns are resolved.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", rename = "ColumnPolicy")]
#[expect(dead_code, reason = "the schema's view of a column's policy")]
pub(super) enum ColumnPolicyName {
    /// The later write wins, by commit time or by `timestamp_column`; then the higher
    /// region id.
    Latest,
    /// The first region in the order `priority` wins.
    RegionPriority,
    /// The changes add up.
    Delta,
}
