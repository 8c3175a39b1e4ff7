//! Where in a binlog something stands.
//!
//! Two different questions have two types: from where a replica resumes
//! ([`Position`], always GTIDs, never file and offset), and whether capture has
//! passed a point that the applier read under its locks ([`BinlogPoint`]).

use std::collections::BTreeMap;
use std::fmt;

/// The source's position as the server takes it for a restart: MariaDB
/// `domain-server-seq,…`, MySQL a GTID set. Empty is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position(pub String);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point of the binlog that both the applier's connection and capture can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BinlogPoint {
    /// MariaDB: per domain the last seq in the binlog (`@@gtid_binlog_pos`).
    Domains(BTreeMap<u32, u64>),
    /// MySQL: file number and offset (`SHOW MASTER STATUS`), which run ahead of
    /// `gtid_executed`.
    File {
        /// The number in the file's name.
        file: u64,
        /// Bytes from its start.
        offset: u64,
    },
}

impl BinlogPoint {
    /// Whether everything up to `other` lies at or before this point. Points of
    /// different kinds never cover each other.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Domains(mine), Self::Domains(theirs)) => theirs
                .iter()
                .all(|(domain, &seq)| mine.get(domain).is_some_and(|&held| held >= seq)),
            (Self::File { file, offset }, Self::File { file: f, offset: o }) => {
                (file, offset) >= (f, o)
            }
            (Self::Domains(_), Self::File { .. }) | (Self::File { .. }, Self::Domains(_)) => false,
        }
    }

    /// Reads `@@gtid_binlog_pos`, e.g. `0-1-4711,2-2-9`; empty is the beginning.
    #[must_use]
    pub fn from_mariadb(text: &str) -> Option<Self> {
        let mut domains = BTreeMap::new();
        for gtid in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut parts = gtid.split('-');
            let domain = parts.next()?.parse().ok()?;
            let _server: u32 = parts.next()?.parse().ok()?;
            let seq = parts.next()?.parse().ok()?;
            if parts.next().is_some() {
                return None;
            }
            domains.insert(domain, seq);
        }
        Some(Self::Domains(domains))
    }

    /// Reads a file name like `binlog.000042` with an offset.
    #[must_use]
    pub fn from_file(name: &str, offset: u64) -> Option<Self> {
        let file = name.rsplit('.').next()?.parse().ok()?;
        Some(Self::File { file, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::BinlogPoint;

    #[test]
    fn a_point_covers_what_lies_before_it_in_every_domain() {
        let point = |text| BinlogPoint::from_mariadb(text).unwrap();
        assert!(point("0-1-5,1-1-9").covers(&point("0-2-5")));
        assert!(!point("0-1-5").covers(&point("0-1-5,1-1-1")));
        assert!(point("0-1-5").covers(&point("")));
        assert!(BinlogPoint::from_mariadb("0-1").is_none());
    }

    #[test]
    fn a_later_file_covers_any_offset_of_an_earlier_one() {
        let point = |name, offset| BinlogPoint::from_file(name, offset).unwrap();
        assert!(point("bin.000010", 4).covers(&point("bin.000009", 9000)));
        assert!(!point("bin.000009", 9000).covers(&point("bin.000010", 4)));
    }
}
