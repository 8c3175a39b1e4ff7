//! What has been read, as the servers name it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::change::{BinlogPoint, Position};

/// MariaDB: per domain the last (server, seq).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Domains(BTreeMap<u32, (u32, u64)>);

impl Domains {
    /// Reads `domain-server-seq,…`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut domains = BTreeMap::new();
        for gtid in text.split(',').map(str::trim).filter(|gtid| !gtid.is_empty()) {
            let mut parts = gtid.splitn(3, '-');
            let domain = parts.next()?.parse().ok()?;
            let server = parts.next()?.parse().ok()?;
            domains.insert(domain, (server, parts.next()?.parse().ok()?));
        }
        Some(Self(domains))
    }

    /// A domain that the other does not have.
    pub(super) fn beyond(&self, other: &Self) -> Option<u32> {
        self.0.keys().find(|domain| !other.0.contains_key(domain)).copied()
    }

    /// Gives what the domain had reached before.
    pub(super) fn enter(&mut self, domain: u32, server: u32, seq: u64) -> Option<(u32, u64)> {
        self.0.insert(domain, (server, seq))
    }

    /// The same without the last transaction of that domain.
    pub(super) fn before(&self, domain: u32, reached: Option<(u32, u64)>) -> Self {
        let mut domains = self.0.clone();
        match reached {
            Some(reached) => domains.insert(domain, reached),
            None => domains.remove(&domain),
        };
        Self(domains)
    }

    pub(super) fn position(&self) -> Position {
        let mut text = String::new();
        for (domain, (server, seq)) in &self.0 {
            let comma = if text.is_empty() { "" } else { "," };
            write!(text, "{comma}{domain}-{server}-{seq}").expect("a String takes all");
        }
        Position(text)
    }

    pub(super) fn point(&self) -> BinlogPoint {
        BinlogPoint::Domains(self.0.iter().map(|(&domain, &(_, seq))| (domain, seq)).collect())
    }
}

/// MySQL: per server uuid the executed intervals, ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GtidSet(BTreeMap<String, Vec<(u64, u64)>>);

impl GtidSet {
    /// Whether a set that can't be parsed has tags between uuids and numbers.
    pub(super) fn is_tagged(text: &str) -> bool {
        let mut pieces = text.split(',').flat_map(|part| part.split(':').skip(1));
        pieces.any(|piece| piece.trim().starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
    }

    /// Reads `uuid:1-5:7,uuid:…`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut pieces = part.split(':');
            let uuid = pieces.next()?.trim().to_lowercase();
            let intervals = set.0.entry(uuid).or_default();
            for piece in pieces {
                let (from, to) =
                    piece.trim().split_once('-').unwrap_or((piece.trim(), piece.trim()));
                let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
                if from == 0 || from > to {
                    return None;
                }
                intervals.push((from, to));
            }
            intervals.sort_unstable();
        }
        Some(set)
    }

    pub(super) fn enter(&mut self, uuid: &str, gno: u64) {
        let intervals = self.0.entry(uuid.to_owned()).or_default();
        let at = intervals.partition_point(|&(_, to)| to + 1 < gno);
        match intervals.get_mut(at) {
            Some((from, to)) if *from <= gno && gno <= *to => {}
            Some((_, to)) if *to + 1 == gno => {
                *to = gno;
                if let Some(&(next, end)) = intervals.get(at + 1)
                    && next == gno + 1
                {
                    intervals[at].1 = end;
                    intervals.remove(at + 1);
                }
            }
            Some((from, _)) if *from == gno + 1 => *from = gno,
            Some(_) | None => intervals.insert(at, (gno, gno)),
        }
    }

    /// Whether `uuid:number` is in it.
    pub(super) fn contains(&self, gtid: &str) -> bool {
        let Some((uuid, gno)) = gtid.rsplit_once(':') else { return false };
        let Ok(gno) = gno.parse::<u64>() else { return false };
        let intervals = self.0.get(uuid);
        intervals.is_some_and(|all| all.iter().any(|(from, to)| (from..=to).contains(&&gno)))
    }

    pub(super) fn position(&self) -> Position {
        Position(self.parts().join(","))
    }

    /// One `uuid:intervals` for each server.
    pub(super) fn parts(&self) -> Vec<String> {
        let part = |(uuid, intervals): (&String, &Vec<(u64, u64)>)| {
            let mut text = uuid.clone();
            for &(from, to) in intervals {
                if from == to {
                    write!(text, ":{from}").expect("a String takes all");
                } else {
                    write!(text, ":{from}-{to}").expect("a String takes all");
                }
            }
            text
        };
        self.0.iter().filter(|(_, intervals)| !intervals.is_empty()).map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mysql_set_grows_and_joins_its_intervals() {
        let mut set = GtidSet::parse("aa:1-3:7").unwrap();
        for gno in [5, 4, 6, 9, 8, 2] {
            set.enter("aa", gno);
        }
        set.enter("bb", 1);
        assert_eq!(set.position().0, "aa:1-9,bb:1");
        assert!(set.contains("aa:1") && set.contains("aa:9") && set.contains("bb:1"));
        assert!(!["aa:10", "bb:2", "cc:1", "aa:", "aa"].iter().any(|gtid| set.contains(gtid)));
        assert!(GtidSet::parse("aa:5-3").is_none() && !GtidSet::is_tagged("aa:5-3,bb:1"));
        assert!(GtidSet::parse("aa:1:tag:5").is_none() && GtidSet::is_tagged("aa:1:tag:5"));
    }

    #[test]
    fn a_mariadb_position_keeps_every_domain() {
        let mut domains = Domains::parse("0-1-5, 2-9-7").unwrap();
        domains.enter(0, 2, 6);
        assert_eq!(domains.position().0, "0-2-6,2-9-7");
        assert!(Domains::parse("0-1").is_none());
    }
}
