//! What a difference means: rows that differ are looked at again until each has shown
//! what it is.

use serde::{Deserialize, Serialize};

use super::chunk::Key;

/// A row as one region showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its key as that region holds it.
    pub key: Key,
    /// Its hash.
    pub hash: Vec<u8>,
}

/// A row as each region showed it, in the order of the regions; `None` where it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight(pub Vec<Option<Seen>>);

impl Sight {
    /// The row is the same everywhere.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.0.windows(2).all(|two| match (&two[0], &two[1]) {
            (Some(a), Some(b)) => a.hash == b.hash,
            (None, None) => true,
            _ => false,
        })
    }

    /// The row's key, as the first region that has the row holds it.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.0.iter().flatten().next().map(|seen| &seen.key)
    }

    /// What kind of difference it is, when nothing is in flight.
    ///
    /// Without the row's history nobody can tell a row that one region lost from one
    /// that another made up, so the many are believed: what most regions lack is
    /// extra. Of two regions neither is the many, and a row is rather called lost
    /// than extra.
    #[must_use]
    pub fn class(&self) -> Class {
        let have = self.0.iter().flatten().count();
        if have == self.0.len() {
            Class::PolicyViolated
        } else if have * 2 >= self.0.len() {
            Class::Lost
        } else {
            Class::Extra
        }
    }
}

/// What kind of difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A row is missing.
    Lost,
    /// A row is there that most regions do not have.
    Extra,
    /// All regions have the row, with other values: the policy lets one version stand.
    PolicyViolated,
    /// It differs, and the streams did not pass the first look in time: it may be in
    /// flight.
    Unsettled,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Lost, Self::Extra, Self::PolicyViolated, Self::Unsettled];

    /// The name in both output formats.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Extra => "extra",
            Self::PolicyViolated => "policy_violated",
            Self::Unsettled => "unsettled",
        }
    }
}

/// What looking again has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The difference went away: it was in flight.
    InFlight,
    /// It is there to stay.
    Differs,
    /// It was written in the meantime: look again.
    Again,
}

/// A row that differed when it was first read.
#[derive(Clone, Debug)]
pub struct Suspect {
    /// Its key.
    pub key: Key,
    sight: Option<Sight>,
    unchanged: u32,
}

/// So many looks must show the same, each after all streams have passed the one
/// before. One proves it where a row can be seen only once its position can; MySQL
/// lists a GTID a moment later, hence two.
const UNCHANGED: u32 = 2;

impl Suspect {
    /// A row first read as differing.
    #[must_use]
    pub const fn new(key: Key) -> Self {
        Self { key, sight: None, unchanged: 0 }
    }

    /// The last look.
    #[must_use]
    pub const fn sight(&self) -> Option<&Sight> {
        self.sight.as_ref()
    }

    /// It was written between the last two looks.
    #[must_use]
    pub const fn is_moving(&self) -> bool {
        self.unchanged == 0
    }

    /// Another look, made after every stream has passed everything that had been
    /// committed at the time of the last one. What then shows the same difference as
    /// before has not been written since, and everything written before has arrived:
    /// nothing on its way can mend it.
    pub fn look(&mut self, sight: Sight) -> Verdict {
        if sight.is_equal() {
            return Verdict::InFlight;
        }
        if self.sight.as_ref() == Some(&sight) {
            self.unchanged += 1;
        } else {
            self.unchanged = 0;
        }
        self.sight = Some(sight);
        if self.unchanged >= UNCHANGED { Verdict::Differs } else { Verdict::Again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(rows: &[&str]) -> Sight {
        let seen = |text: &&str| {
            let key = Key(vec![b"1".to_vec()]);
            (!text.is_empty()).then(|| Seen { key, hash: text.as_bytes().to_vec() })
        };
        Sight(rows.iter().map(seen).collect())
    }

    #[track_caller]
    fn check(looks: &[&[&str]], wanted: &[Verdict]) {
        let mut suspect = Suspect::new(Key(vec![]));
        let got: Vec<_> = looks.iter().map(|rows| suspect.look(sight(rows))).collect();
        assert_eq!(got, wanted);
    }

    use Verdict::{Again, Differs, InFlight};

    #[test]
    fn what_goes_away_was_in_flight() {
        check(&[&["a", "b", "a"], &["b", "b", "b"]], &[Again, InFlight]);
        check(&[&["a", "", ""], &["", "", ""]], &[Again, InFlight]);
    }

    #[test]
    fn what_stays_as_it_is_differs() {
        check(&[&["a", "b"], &["a", "b"], &["a", "b"]], &[Again, Again, Differs]);
    }

    #[test]
    fn what_is_being_written_is_looked_at_again() {
        let looks: [&[&str]; 5] = [&["a", "b"], &["a", "b"], &["c", "b"], &["c", "b"], &["c", "b"]];
        check(&looks, &[Again, Again, Again, Again, Differs]);
    }

    #[test]
    fn classes_follow_the_many() {
        for (rows, class) in [
            (&["a", "b", "a"][..], Class::PolicyViolated),
            (&["a", "", "a"], Class::Lost),
            (&["", "a", ""], Class::Extra),
            (&["a", ""], Class::Lost),
            (&["a", "", "", "b"], Class::Lost),
        ] {
            assert_eq!(sight(rows).class(), class, "{rows:?}");
        }
    }
}
