//! Row versions: which write of a row stands, and who had seen what (R5).
//!
//! The [`Index`] is a function of the local binlog's order: capture enters local
//! writes and, at its marker, each applied batch; the applier sees its own batches
//! that capture has not read yet as an overlay. It holds only versions that are not
//! stable: what every region has applied can't be concurrent with anything to come.

mod index;
mod key;

pub use index::{BatchId, Index};
pub use key::{KeyError, RowKey};

use std::sync::Arc;

use smallvec::SmallVec;

use crate::change::{Dot, RegionId, Vector};
use crate::clock::Hlc;

/// One write of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The transaction that wrote it.
    pub dot: Dot,
    /// Its stamp.
    pub hlc: Hlc,
    /// The write was a delete: a tombstone.
    pub removed: bool,
}

impl Version {
    /// The total order of `latest`: stamp, then region. No two versions are equal.
    #[must_use]
    pub const fn rank(&self) -> (Hlc, RegionId) {
        (self.hlc, self.dot.origin)
    }
}

/// The surviving versions of one row: none of them had seen another.
pub type Versions = SmallVec<[Version; 1]>;

/// A write on its way into the index.
#[derive(Clone, Debug)]
pub struct Write {
    /// Which row.
    pub key: RowKey,
    /// What was written.
    pub version: Version,
    /// What its author had seen, shared by the writes of one transaction.
    pub deps: Arc<Vector>,
}

impl Write {
    /// Whether the author of this write had seen `other`.
    #[must_use]
    pub fn saw(&self, other: &Version) -> bool {
        saw(self.version.dot, &self.deps, other.dot)
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
