//! The vocabulary of replication: regions, sequence numbers, positions, row changes.
//!
//! Owns the plain data that every other module speaks, and the record format that
//! goes over Kafka (`proto/causeway/v1/txn.proto`). No I/O, no clock.

mod collation;
mod order;
mod position;
mod record;
mod tables;

pub use collation::Equality;
pub use order::{Accepted, Dropped, OrderError, ReaderOrder, Side};
pub use position::{BinlogPoint, Position};
pub use record::{RECORD_VERSION, Record, RecordBody, RecordError};
pub use tables::Tables;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::mutant::{self, Mutant};

/// The messages of the record format, generated from the `.proto` file.
pub mod pb {
    #![expect(missing_docs, reason = "generated code")]
    include!(concat!(env!("OUT_DIR"), "/causeway.v1.rs"));
}

pub use pb::value::Kind;
pub use pb::{Column, ColumnType, ForeignKey, Row, RowChange, Table, Value};

/// A region's small id, 1 to 63, unique in the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(u8);

impl RegionId {
    /// `None` outside 1 to 63.
    #[must_use]
    pub const fn new(id: u8) -> Option<Self> {
        if id >= 1 && id <= 63 { Some(Self(id)) } else { None }
    }

    /// The id, 1 to 63.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Per origin 1, 2, 3 … without gaps; 0 stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The seq that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one transaction for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Where it was committed first.
    pub origin: RegionId,
    /// Its number there.
    pub seq: Seq,
}

impl Dot {
    /// Before all others.
    pub const MIN: Self = Self { origin: RegionId(1), seq: Seq(0) };
    /// After all others.
    pub const MAX: Self = Self { origin: RegionId(63), seq: Seq(u64::MAX) };
}

/// A place in an origin's log: its last transaction that counts there, and the epoch
/// that wrote it. Epoch 0 with a seq is a place of which the writer is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Of the agent that shipped it.
    pub epoch: u64,
    /// The last transaction, 0 before the first.
    pub seq: Seq,
}

/// Per origin the highest seq applied: what a region, or a transaction's author,
/// has seen. An absent origin counts as 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vector(BTreeMap<RegionId, Place>);

impl Vector {
    /// The highest seq seen of `origin`, 0 if none.
    #[must_use]
    pub fn get(&self, origin: RegionId) -> Seq {
        self.place(origin).seq
    }

    /// The same as a place in the origin's log.
    #[must_use]
    pub fn place(&self, origin: RegionId) -> Place {
        self.0.get(&origin).copied().unwrap_or_default()
    }

    /// Moves `origin` up to `seq`; never down. For what is not shipped: a reader that
    /// starts there would not know whom to trust.
    pub fn raise(&mut self, origin: RegionId, seq: Seq) {
        self.raise_to(origin, Place { epoch: 0, seq });
    }

    /// Moves `origin` up to `place`; never down.
    pub fn raise_to(&mut self, origin: RegionId, place: Place) {
        let held = self.0.entry(origin).or_default();
        if (place.seq, place.epoch) > (held.seq, held.epoch) {
            *held = place;
        }
    }

    /// Whether everything up to and with `dot` has been seen.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        self.get(dot.origin) >= dot.seq
    }

    /// What region `me`, which has applied this, lacks of what the author of one of
    /// `origin`'s transactions had seen (R3): it must come first. An origin's own
    /// transactions come in order anyway, and `me` has all of its own.
    #[must_use]
    pub fn awaits(&self, deps: &Self, origin: RegionId, me: RegionId) -> Option<Dot> {
        if mutant::is(Mutant::DepsIgnored) {
            return None;
        }
        deps.iter().find(|dot| dot.origin != me && dot.origin != origin && !self.covers(*dot))
    }

    /// In order of region id.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().map(|(&origin, place)| Dot { origin, seq: place.seq })
    }

    /// The same as places in the origins' logs.
    pub fn places(&self) -> impl Iterator<Item = (RegionId, Place)> + '_ {
        self.0.iter().map(|(&origin, &place)| (origin, place))
    }
}

impl FromIterator<(RegionId, Place)> for Vector {
    fn from_iter<T: IntoIterator<Item = (RegionId, Place)>>(places: T) -> Self {
        let mut vector = Self::default();
        for (origin, place) in places {
            vector.raise_to(origin, place);
        }
        vector
    }
}

impl FromIterator<Dot> for Vector {
    fn from_iter<T: IntoIterator<Item = Dot>>(dots: T) -> Self {
        let mut vector = Self::default();
        for dot in dots {
            vector.raise(dot.origin, dot.seq);
        }
        vector
    }
}

/// A table's full name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Database name.
    pub schema: String,
    /// Table name.
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Consecutive row changes of one table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableChange {
    /// The table as it was at the source when the rows were written.
    pub table: Arc<Table>,
    /// In binlog order.
    pub rows: Vec<RowChange>,
}

/// A whole transaction (part 0, last), or one part of a large one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// 0, 1, 2 … within the transaction.
    pub part: u32,
    /// No part follows.
    pub last: bool,
    /// The origin rolled the transaction back: its parts are void. It keeps its seq.
    pub aborted: bool,
    /// When the origin committed, microseconds since the Unix epoch.
    pub commit_us: u64,
    /// In the order of the source's binlog.
    pub changes: Vec<TableChange>,
}

impl Table {
    /// The table's full name.
    #[must_use]
    pub fn full_name(&self) -> TableName {
        TableName { schema: self.schema.clone(), name: self.name.clone() }
    }

    /// Whether rows of both are read and written alike. Foreign keys may differ: they
    /// decide what is told, and not every region has or ships the same.
    #[must_use]
    pub fn same_shape(&self, other: &Self) -> bool {
        self.schema == other.schema
            && self.name == other.name
            && self.columns == other.columns
            && self.unique_keys == other.unique_keys
    }

    /// Where the column of this name stands; regions may spell it differently.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// Indices into `columns` of the primary key, in key order; empty without one.
    #[must_use]
    pub fn key_columns(&self) -> Vec<usize> {
        let mut key: Vec<usize> =
            (0..self.columns.len()).filter(|&i| self.columns[i].key > 0).collect();
        key.sort_by_key(|&i| self.columns[i].key);
        key
    }
}

impl Column {
    /// The character set of its collation, as the server names it; empty without one.
    #[must_use]
    pub fn charset(&self) -> &str {
        self.collation.split('_').next().unwrap_or_default()
    }

    /// Whether its character set has no byte for a letter of ASCII alone.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        ["ucs2", "utf16", "utf16le", "utf32"].contains(&self.charset())
    }
}

impl ColumnType {
    /// The type that the servers call by this name in `information_schema`, in lower
    /// case; `Unspecified` for one that is not replicated.
    #[must_use]
    pub fn of_sql(data_type: &str) -> Self {
        match data_type {
            "tinyint" => Self::Tinyint,
            "smallint" => Self::Smallint,
            "mediumint" => Self::Mediumint,
            "int" => Self::Int,
            "bigint" => Self::Bigint,
            "decimal" => Self::Decimal,
            "float" => Self::Float,
            "double" => Self::Double,
            "bit" => Self::Bit,
            "year" => Self::Year,
            "date" => Self::Date,
            "time" => Self::Time,
            "datetime" => Self::Datetime,
            "timestamp" => Self::Timestamp,
            "char" | "varchar" => Self::Char,
            // MariaDB's inet types are the bytes of the address.
            "binary" | "varbinary" | "inet4" | "inet6" => Self::Binary,
            "uuid" => Self::Uuid,
            "tinytext" | "text" | "mediumtext" | "longtext" => Self::Text,
            "tinyblob" | "blob" | "mediumblob" | "longblob" => Self::Blob,
            "enum" => Self::Enum,
            "set" => Self::Set,
            "json" => Self::Json,
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "geomcollection" => Self::Geometry,
            _ => Self::Unspecified,
        }
    }
}

impl Value {
    /// SQL NULL.
    pub const NULL: Self = Self { kind: None };

    /// A value of that kind.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self { kind: Some(kind) }
    }

    /// The same in memory of its own, where it keeps no whole record alive.
    #[must_use]
    pub fn compact(&self) -> Self {
        let own = |bytes: &bytes::Bytes| bytes::Bytes::copy_from_slice(bytes);
        match &self.kind {
            Some(Kind::Bytes(bytes)) => Self::new(Kind::Bytes(own(bytes))),
            Some(Kind::Literal(bytes)) => Self::new(Kind::Literal(own(bytes))),
            None | Some(Kind::Int(_) | Kind::Uint(_) | Kind::Float(_) | Kind::Double(_)) => {
                self.clone()
            }
        }
    }
}

impl Row {
    /// The same in memory of its own, as [`Value::compact`].
    #[must_use]
    pub fn compact(&self) -> Self {
        Self { values: self.values.iter().map(Value::compact).collect() }
    }
}

#[cfg(test)]
impl ForeignKey {
    /// Of the column at that place to `id` of a table `s.parent`.
    pub(crate) fn to(parent: &str, at: u32) -> Self {
        Self {
            columns: vec![at],
            schema: "s".into(),
            table: parent.into(),
            referenced: vec!["id".into()],
            unique: false,
        }
    }
}

/// Whether `extra` of information_schema.columns says that the server works the column
/// out: MariaDB's `VIRTUAL` and `PERSISTENT` or both servers' `… GENERATED`, but not
/// MySQL 8's word for a default that is an expression.
#[must_use]
pub fn is_generated(extra: &str) -> bool {
    let extra = extra.to_ascii_uppercase();
    extra.contains("GENERATED") && !extra.contains("DEFAULT_GENERATED")
        || extra.contains("VIRTUAL")
        || extra.contains("PERSISTENT")
}
