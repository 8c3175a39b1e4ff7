//! Row versions: which write of a row stands, and who had seen what (R5).
//!
//! The [`Index`] is a function of the local binlog's order: capture enters local
//! writes and, at its marker, each applied batch; the applier sees its own batches
//! that capture has not read yet as an overlay. It holds only versions that are not
//! stable: what every region has applied can't be concurrent with anything to come.
//!
//! Of most writes a [`Version`] says all. Where a policy may have to show another
//! write than the last, or to take one back, the index keeps the write's [`Body`]
//! too, until it and all that is concurrent with it are stable.

mod foreign;
mod heads;
mod hidden;
mod index;
mod key;
mod unstable;

pub use foreign::{Foreign, Register, Released, Role};
pub use heads::{Heads, Reread, Span};
pub use hidden::Hidden;
pub use index::{BatchId, Index, Seen};
pub use key::{KeyError, RowKey, Touch};

use std::sync::Arc;

use smallvec::SmallVec;

use crate::change::{Dot, RegionId, Row, Table, Vector};
use crate::clock::Hlc;

/// What a transaction did to a row, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It was not there before.
    Insert,
    /// It was there before and is after.
    Update,
    /// It is not there after: a tombstone.
    Delete,
}

impl Action {
    /// From what was and what is.
    #[must_use]
    pub const fn of(before: bool, after: bool) -> Self {
        match (before, after) {
            (_, false) => Self::Delete,
            (true, true) => Self::Update,
            (false, true) => Self::Insert,
        }
    }

    /// Its name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// One write of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The transaction that wrote it.
    pub dot: Dot,
    /// Its stamp.
    pub hlc: Hlc,
    /// What it did.
    pub action: Action,
}

impl Version {
    /// The total order of `latest`: stamp, then region. It respects what saw what,
    /// and no two versions of a row are equal.
    #[must_use]
    pub const fn rank(&self) -> (Hlc, RegionId) {
        (self.hlc, self.dot.origin)
    }
}

/// The surviving versions of one row: none of them had seen another.
pub type Versions = SmallVec<[Version; 1]>;

/// What is kept of a write beside its version, where its policy may need it again.
#[derive(Debug)]
pub struct Body {
    /// The row's table, as it was at the origin.
    pub table: Arc<Table>,
    /// The row before the transaction.
    pub before: Option<Row>,
    /// The row after it.
    pub after: Option<Row>,
    /// The rows of its transaction that win or lose together, this one among them.
    pub group: Option<Arc<[RowKey]>>,
    /// The values of further unique keys that the row holds after it.
    pub claims: SmallVec<[RowKey; 1]>,
    /// Its row is worked out from all of its writes, also from those that later ones had
    /// seen.
    pub adds_up: bool,
}

/// A write on its way into the index.
#[derive(Clone, Debug)]
pub struct Write {
    /// Which row.
    pub key: RowKey,
    /// What was written.
    pub version: Version,
    /// What its author had seen, shared by the writes of one transaction.
    pub deps: Arc<Vector>,
    /// What may be needed again; none where the version says all.
    pub body: Option<Arc<Body>>,
    /// What it has to do with rows of other tables; none when that is nothing.
    pub foreign: Option<Arc<Foreign>>,
}

impl Write {
    /// Whether the author of this write had seen `other`.
    #[must_use]
    pub fn saw(&self, other: &Version) -> bool {
        saw(self.version.dot, &self.deps, other.dot)
    }

    /// Whether neither author had seen the other's write.
    #[must_use]
    pub fn is_concurrent(&self, other: &Self) -> bool {
        !self.saw(&other.version) && !other.saw(&self.version)
    }

    /// Where the write has to be found again: its row, and the unique values that it
    /// claims.
    pub fn places(&self) -> impl Iterator<Item = RowKey> + '_ {
        let claims = self.body.iter().flat_map(|body| body.claims.iter().copied());
        std::iter::once(self.key).chain(claims)
    }

    /// Puts the write among the survivors, in place of those it had seen. A write
    /// that a survivor already covers (the same or an older one of its origin) adds
    /// nothing.
    pub fn enter(&self, versions: &mut Versions) {
        let mine = self.version.dot;
        if versions.iter().any(|v| v.dot.origin == mine.origin && v.dot.seq > mine.seq) {
            return;
        }
        versions.retain(|v| !self.saw(v));
        versions.push(self.version);
    }
}

/// Whether the author of `dot`, who had seen `deps`, had seen `other` (or is it).
#[must_use]
pub fn saw(dot: Dot, deps: &Vector, other: Dot) -> bool {
    if dot.origin == other.origin { dot.seq >= other.seq } else { deps.covers(other) }
}
