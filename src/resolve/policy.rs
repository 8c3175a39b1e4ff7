//! Policies as resolution reads them: columns by place, regions by id.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::{Equivalent, HashMap};

use crate::change::{ColumnType, Kind, RegionId, Row, Table, Value};
use crate::clock::Hlc;
use crate::mutant::{self, Mutant};
use crate::version::{Body, Version};

/// How concurrent writes of one table's rows are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which of concurrent writes stands.
    pub order: Order,
    /// Columns with rules of their own; only under [`Order::Latest`].
    pub merge: Option<Merge>,
    /// What may come at all.
    pub allow: Allow,
    /// Tables under the same number win or lose by transaction; only under
    /// [`Order::Latest`], without `merge`.
    pub atomic: Option<u16>,
    /// Why the table's rows can't be kept right under its rule.
    pub unfit: Option<String>,
}

/// A total order of writes. Any order but `Latest` may let a write stand that
/// another's author had not seen and that is older.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The later stamp, then the higher region.
    #[default]
    Latest,
    /// The region that stands first; those that are absent come last.
    Priority(Vec<RegionId>),
    /// The greater value of the column of this name, wherever the write's table has it; a
    /// delete counts with the value of the row that it removed, and what was written without
    /// the column least.
    Column(String),
}

/// What may come at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allow {
    /// Everything.
    #[default]
    All,
    /// Inserts: updates and deletes stop the stream.
    Inserts,
    /// What is concurrent with nothing: a conflict stops the stream.
    Unopposed,
}

/// Columns with rules of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Places of numeric columns whose changes add up.
    pub deltas: Vec<usize>,
    /// Columns that are resolved apart from the rest of the row.
    pub groups: Vec<ColumnGroup>,
}

/// Columns that are resolved together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnGroup {
    /// Their places.
    pub columns: Vec<usize>,
    /// Which of concurrent changes stands.
    pub order: Order,
}

/// A write's place in an order; greater stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    weight: Weight,
    stamp: (Hlc, RegionId),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Least,
    Number(i128),
    Text(Vec<u8>),
}

impl Order {
    /// Its name in conflict logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Priority(_) => "region_priority",
            Self::Column(_) => "timestamp_column",
        }
    }

    /// Where a write stands in this order.
    #[must_use]
    pub fn rank(&self, version: &Version, body: Option<&Body>) -> Rank {
        let weight = match self {
            Self::Latest => Weight::Least,
            Self::Priority(regions) => {
                let place = regions.iter().position(|&region| region == version.dot.origin);
                place.map_or(Weight::Least, |place| {
                    Weight::Number(i128::try_from(regions.len() - place).unwrap_or(0))
                })
            }
            Self::Column(name) => {
                let held = |body: &Body| {
                    let row = body.after.as_ref().or(body.before.as_ref())?;
                    row.values.get(body.table.place(name)?).map(weight)
                };
                body.and_then(held).unwrap_or(Weight::Least)
            }
        };
        Rank { weight, stamp: version.rank() }
    }
}

fn weight(value: &Value) -> Weight {
    match &value.kind {
        Some(Kind::Int(n)) => Weight::Number(i128::from(*n)),
        Some(Kind::Uint(n)) => Weight::Number(i128::from(*n)),
        // A time as the servers print it; all of one column have one form.
        Some(Kind::Literal(text)) => Weight::Text(text.to_vec()),
        Some(Kind::Float(_) | Kind::Double(_) | Kind::Bytes(_)) | None => Weight::Least,
    }
}

impl Policy {
    /// The names of all policies.
    pub const NAMES: [&'static str; 7] = [
        "latest",
        "timestamp_column",
        "region_priority",
        "delta",
        "columns",
        "insert_only",
        "home",
    ];

    /// Its name in conflict logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match (&self.allow, &self.order, &self.merge) {
            (Allow::Inserts, ..) => "insert_only",
            (Allow::Unopposed, ..) => "home",
            (_, Order::Latest, Some(merge)) if merge.deltas.is_empty() => "columns",
            (_, Order::Latest, Some(_)) => "delta",
            (_, order, _) => order.name(),
        }
    }

    /// Whether the writes of `table` have to be kept whole until they are stable.
    #[must_use]
    pub fn keeps(&self, table: &Table) -> bool {
        self.order != Order::Latest
            || self.merge.is_some()
            || self.atomic.is_some()
            || !table.unique_keys.is_empty()
    }

    /// Whether the rows of one transaction can win or lose together.
    #[must_use]
    pub fn groups(&self) -> bool {
        self.order == Order::Latest && self.merge.is_none() && !mutant::is(Mutant::KeyChangeSplit)
    }

    /// Columns in no group: one of their own under `latest`. What the server works out
    /// from others is in none. Of the key those are that may look different and be equal
    /// (letters' case, trailing blanks): the last write says how.
    pub(super) fn rest(merge: &Merge, table: &Table) -> ColumnGroup {
        let named = |at: &usize| {
            merge.deltas.contains(at) || merge.groups.iter().any(|g| g.columns.contains(at))
        };
        let own = |at: &usize| {
            let column = &table.columns[*at];
            let is_spelled =
                column.key == 0 || matches!(column.r#type(), ColumnType::Char | ColumnType::Text);
            is_spelled && !column.generated && !named(at)
        };
        let columns = (0..table.columns.len()).filter(own).collect();
        ColumnGroup { columns, order: Order::Latest }
    }

    pub(super) fn same(a: &Row, b: &Row, columns: &[usize]) -> bool {
        columns.iter().all(|&at| a.values.get(at) == b.values.get(at))
    }
}

type Rules = dyn Fn(&Table) -> Policy + Send + Sync;
type Known = HashMap<(String, String), Vec<(Arc<Table>, Arc<Policy>)>>;

/// A table's schema and name, to look it up.
#[derive(Hash)]
struct Name<'a>(&'a str, &'a str);

impl Equivalent<(String, String)> for Name<'_> {
    fn equivalent(&self, (schema, name): &(String, String)) -> bool {
        self.0 == schema && self.1 == name
    }
}

/// Shapes that are shared of one table: a region that alters it is ahead of the others,
/// and each may have foreign keys of its own.
const SHAPES_MAX: usize = 4;

/// The policies of all tables, each worked out once for each shape of its table.
#[derive(Clone)]
pub struct Rulebook {
    rules: Arc<Rules>,
    known: Arc<Mutex<Known>>,
}

impl fmt::Debug for Rulebook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rulebook").finish_non_exhaustive()
    }
}

impl Default for Rulebook {
    /// `latest` for all.
    fn default() -> Self {
        Self::new(|_| Policy::default())
    }
}

impl Rulebook {
    /// The policies that `rules` gives.
    pub fn new(rules: impl Fn(&Table) -> Policy + Send + Sync + 'static) -> Self {
        Self { rules: Arc::new(rules), known: Arc::default() }
    }

    /// A table's policy, with the table to share.
    #[must_use]
    pub fn of(&self, table: &Table) -> (Arc<Table>, Arc<Policy>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |held: &Table| std::ptr::eq(held, table) || *held == *table;
        let shapes = known.get(&Name(&table.schema, &table.name));
        if let Some(found) = shapes.into_iter().flatten().find(|(held, _)| same(held)) {
            return found.clone();
        }
        let shapes = known.entry((table.schema.clone(), table.name.clone())).or_default();
        let found = (Arc::new(table.clone()), Arc::new((self.rules)(table)));
        if shapes.len() == SHAPES_MAX {
            shapes.remove(0);
        }
        shapes.push(found.clone());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Column, Dot, ForeignKey, Seq};
    use crate::version::Action;

    /// Where a region has one column more before the one that decides.
    #[test]
    fn a_column_that_decides_is_found_by_its_name() {
        let body = |names: &[&str], values: &[i64]| {
            let column = |name: &&str| Column { name: (*name).to_owned(), ..Column::default() };
            let columns = names.iter().map(column).collect();
            let values = values.iter().map(|&n| Value::new(Kind::Int(n))).collect();
            Body {
                table: Arc::new(Table { columns, ..Table::default() }),
                before: None,
                after: Some(Row { values }),
                group: None,
                claims: smallvec::SmallVec::new(),
                adds_up: false,
            }
        };
        let dot = Dot { origin: RegionId::new(1).unwrap(), seq: Seq(1) };
        let version = Version { dot, hlc: Hlc(1), action: Action::Insert };
        let order = Order::Column("at".to_owned());
        let rank = |names, values| order.rank(&version, Some(&body(names, values)));
        let narrow = rank(&["id", "at"], &[1, 30]);
        assert!(rank(&["id", "x", "AT"], &[1, 90, 20]) < narrow);
        assert!(rank(&["id", "x", "at"], &[1, 10, 40]) > narrow);
        assert!(rank(&["id", "x"], &[1, 99]) < rank(&["id", "at"], &[1, -5]));
    }

    #[test]
    fn a_table_that_regions_have_differently_is_shared_in_each_shape() {
        let book = Rulebook::default();
        let keys = |n| Table { foreign_keys: vec![ForeignKey::default(); n], ..Table::default() };
        let first = book.of(&keys(0)).0;
        let other = book.of(&keys(1)).0;
        assert_eq!((first.foreign_keys.len(), other.foreign_keys.len()), (0, 1));
        assert!(Arc::ptr_eq(&first, &book.of(&keys(0)).0));
        assert!(Arc::ptr_eq(&other, &book.of(&keys(1)).0));
        for n in 2..=SHAPES_MAX {
            assert_eq!(book.of(&keys(n)).0.foreign_keys.len(), n);
        }
        assert!(!Arc::ptr_eq(&first, &book.of(&keys(0)).0), "the oldest is forgotten");
    }

    #[test]
    fn a_key_that_can_be_spelled_in_two_ways_is_among_the_rest() {
        let column =
            |r#type: ColumnType, key| Column { r#type: r#type.into(), key, ..Default::default() };
        let (int, text) = (ColumnType::Int, ColumnType::Char);
        let columns = vec![column(text, 2), column(int, 1), column(int, 0), column(text, 0)];
        let table = Table { columns, ..Table::default() };
        let merge = Merge { deltas: vec![2], groups: Vec::new() };
        assert_eq!(Policy::rest(&merge, &table).columns, [0, 3]);
    }
}
