//! The simulated tables: one for each policy.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::change::pb::UniqueKey;
use crate::change::{Column, ColumnType, ForeignKey, Kind, RegionId, Row, Table, Value};
use crate::resolve::{Allow, ColumnGroup, Merge, Order, Policy, Rulebook};

/// Which table; each has columns `id`, `a`, `b`, `n`, `u`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Name {
    Latest,
    Unique,
    Priority,
    Timestamp,
    Delta,
    Groups,
    Atomic,
    AtomicToo,
    Journal,
    /// Referenced alone.
    Parent,
    /// References `parent.id` by `a` and `unique.u` by `b`.
    Child,
    /// References `priority.id` by `a` and `parent.id` by `b`.
    Ward,
    /// References `parent.id` by `a` and `unique.u` by `b`, in one group of columns.
    Line,
    /// References `parent.id` by `a` and `priority.id` by `b`, each a group of its own.
    Member,
}

pub(super) const ALL: [Name; 14] = [
    Name::Latest,
    Name::Unique,
    Name::Priority,
    Name::Timestamp,
    Name::Delta,
    Name::Groups,
    Name::Atomic,
    Name::AtomicToo,
    Name::Journal,
    Name::Parent,
    Name::Child,
    Name::Ward,
    Name::Line,
    Name::Member,
];

pub(super) const ID: usize = 0;
pub(super) const A: usize = 1;
pub(super) const B: usize = 2;
pub(super) const N: usize = 3;
pub(super) const U: usize = 4;

impl Name {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Unique => "unique",
            Self::Priority => "priority",
            Self::Timestamp => "timestamp",
            Self::Delta => "delta",
            Self::Groups => "groups",
            Self::Atomic => "atomic",
            Self::AtomicToo => "atomictoo",
            Self::Journal => "journal",
            Self::Parent => "parent",
            Self::Child => "child",
            Self::Ward => "ward",
            Self::Line => "line",
            Self::Member => "member",
        }
    }

    /// Its definition, the same one each time.
    pub(super) fn table(self) -> Arc<Table> {
        static TABLES: LazyLock<BTreeMap<Name, Arc<Table>>> =
            LazyLock::new(|| ALL.map(|name| (name, Arc::new(name.defined()))).into());
        Arc::clone(&TABLES[&self])
    }

    fn defined(self) -> Table {
        let column = |name: &str, key| Column {
            name: name.into(),
            r#type: ColumnType::Bigint.into(),
            key,
            ..Default::default()
        };
        let columns = ["id", "a", "b", "n", "u"];
        let columns = columns.iter().enumerate().map(|(n, name)| column(name, u32::from(n == 0)));
        let unique_keys =
            if self == Self::Unique { vec![UniqueKey { columns: vec![4] }] } else { vec![] };
        let place = |at: usize| u32::try_from(at).expect("small");
        let foreign_keys = self.references().iter().map(|&(at, parent, column)| ForeignKey {
            columns: vec![place(at)],
            schema: "s".into(),
            table: parent.text().into(),
            referenced: vec![["id", "a", "b", "n", "u"][column].into()],
            unique: column == U,
        });
        Table {
            schema: "s".into(),
            name: self.text().into(),
            columns: columns.collect(),
            unique_keys,
            foreign_keys: foreign_keys.collect(),
        }
    }

    /// Of its writes nothing is kept but versions, as long as no row changes its key.
    pub(super) const fn is_plain(self) -> bool {
        matches!(self, Self::Latest | Self::Journal | Self::Parent | Self::Child)
    }

    /// Its foreign keys: by which column, which table and which column there.
    pub(super) const fn references(self) -> &'static [(usize, Self, usize)] {
        match self {
            Self::Child | Self::Line => &[(A, Self::Parent, ID), (B, Self::Unique, U)],
            Self::Member => &[(A, Self::Parent, ID), (B, Self::Priority, ID)],
            Self::Ward => &[(A, Self::Priority, ID), (B, Self::Parent, ID)],
            Self::Latest
            | Self::Unique
            | Self::Priority
            | Self::Timestamp
            | Self::Delta
            | Self::Groups
            | Self::Atomic
            | Self::AtomicToo
            | Self::Journal
            | Self::Parent => &[],
        }
    }

    /// Whether its columns are resolved apart.
    pub(super) const fn merges(self) -> bool {
        matches!(self, Self::Delta | Self::Groups | Self::Line | Self::Member)
    }

    /// What the regions' policy is: of three to five regions the odd ids come first.
    pub(super) fn policy(self) -> Policy {
        let regions = [3, 5, 1, 4, 2].map(|id| RegionId::new(id).expect("a small id"));
        let priority = || Order::Priority(regions.to_vec());
        let plain = Policy::default();
        match self {
            Self::Latest | Self::Unique | Self::Parent | Self::Child => plain,
            Self::Priority | Self::Ward => Policy { order: priority(), ..plain },
            Self::Timestamp => Policy { order: Order::Column("b".to_owned()), ..plain },
            Self::Delta | Self::Line => {
                let merge = Merge { deltas: vec![N], groups: vec![] };
                Policy { merge: Some(merge), ..plain }
            }
            Self::Groups | Self::Member => {
                let groups = vec![
                    ColumnGroup { columns: vec![A], order: priority() },
                    ColumnGroup { columns: vec![B], order: Order::Latest },
                ];
                Policy { merge: Some(Merge { deltas: vec![N], groups }), ..plain }
            }
            Self::Atomic | Self::AtomicToo => Policy { atomic: Some(1), ..plain },
            Self::Journal => Policy { allow: Allow::Inserts, ..plain },
        }
    }
}

pub(super) fn of(table: &Table) -> Name {
    ALL.into_iter().find(|name| name.text() == table.name).expect("a simulated table")
}

pub(super) fn book() -> Rulebook {
    Rulebook::new(|table| of(table).policy())
}

pub(super) fn row(values: [Option<i64>; 5]) -> Row {
    let value = |v: Option<i64>| v.map_or(Value::NULL, |v| Value::new(Kind::Int(v)));
    Row { values: values.into_iter().map(value).collect() }
}

pub(super) fn int(row: &Row, at: usize) -> Option<i64> {
    match row.values[at].kind {
        Some(Kind::Int(n)) => Some(n),
        _ => None,
    }
}
