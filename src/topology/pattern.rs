//! Table patterns: `schema.table` with `*` for any characters and `?` for one.

use std::fmt;
use std::str::FromStr;

/// A pattern of table names; names compare as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePattern {
    schema: String,
    table: String,
}

impl FromStr for TablePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('.') {
            Some((schema, table)) if !schema.is_empty() && !table.is_empty() => {
                Ok(Self { schema: schema.to_owned(), table: table.to_owned() })
            }
            _ => Err(format!("`{text}` is no table pattern: write schema.table, e.g. `shop.*`")),
        }
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl TablePattern {
    /// Whether the table is one of the pattern's.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        glob(self.schema.as_bytes(), schema.as_bytes())
            && glob(self.table.as_bytes(), table.as_bytes())
    }

    /// Whether tables of the schema may be the pattern's.
    #[must_use]
    pub fn matches_schema(&self, schema: &str) -> bool {
        glob(self.schema.as_bytes(), schema.as_bytes())
    }

    /// Whether every table of `other` is also one of this pattern's, as far as the
    /// texts show.
    #[must_use]
    pub fn shadows(&self, other: &Self) -> bool {
        !other.table.contains('?')
            && !other.schema.contains('?')
            && self.matches(&other.schema, &other.table)
    }
}

/// Linear in the text for each `*`: the last one seen takes up what does not fit.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            p = at + 1;
            t = from + 1;
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::TablePattern;

    #[track_caller]
    fn check(pattern: &str, table: &str, wanted: bool) {
        let (schema, name) = table.split_once('.').unwrap();
        assert_eq!(pattern.parse::<TablePattern>().unwrap().matches(schema, name), wanted);
    }

    #[test]
    fn patterns_match_whole_names() {
        check("shop.*", "shop.orders", true);
        check("shop.*", "shop2.orders", false);
        check("shop.order_?", "shop.order_1", true);
        check("shop.order_?", "shop.order_12", false);
        check("*.a*b*c", "x.aXXbYYc", true);
        check("*.a*b*c", "x.aXXbYY", false);
        assert!("shop".parse::<TablePattern>().is_err());
    }

    #[test]
    fn a_dropped_schema_concerns_the_patterns_of_its_tables() {
        let pattern = |text: &str| text.parse::<TablePattern>().unwrap();
        assert!(pattern("sh*.orders").matches_schema("shop"));
        assert!(!pattern("shop.orders").matches_schema("shops"));
    }

    #[test]
    fn a_wider_pattern_shadows_a_narrower_one() {
        let pattern = |text: &str| text.parse::<TablePattern>().unwrap();
        assert!(pattern("shop.*").shadows(&pattern("shop.orders")));
        assert!(!pattern("shop.orders").shadows(&pattern("shop.*")));
    }
}
