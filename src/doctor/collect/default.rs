//! A column's default in one spelling, whichever server printed it.
//!
//! MariaDB (10.2.7 on) quotes literals and prints expressions bare; MySQL prints
//! literals bare and, from 8 on, marks expressions in EXTRA.

use super::super::{ColumnDefault, Initial};

/// What information_schema.COLUMNS says.
pub(super) struct Printed<'a> {
    pub(super) default: Option<&'a str>,
    pub(super) extra: &'a str,
    pub(super) data_type: &'a str,
    pub(super) nullable: bool,
    pub(super) mariadb: bool,
}

impl Printed<'_> {
    pub(super) fn default(&self) -> ColumnDefault {
        let extra = self.extra.to_ascii_lowercase();
        let on_update = extra.split_once("on update ").map(|(_, what)| expression(what));
        ColumnDefault { initial: self.initial(&extra), on_update }
    }

    fn initial(&self, extra: &str) -> Initial {
        let Some(text) = self.default else {
            return if self.nullable { Initial::Null } else { Initial::None };
        };
        let temporal = matches!(self.data_type, "timestamp" | "datetime");
        let clock = text.to_ascii_lowercase().starts_with("current_timestamp");
        if !self.mariadb {
            let computed = extra.contains("default_generated") || temporal && clock;
            return if computed {
                Initial::Expression(expression(text))
            } else {
                Initial::Literal(self.literal(text))
            };
        }
        if text == "NULL" {
            return Initial::Null;
        }
        match text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
            Some(inner) => Initial::Literal(self.literal(&unescaped(inner))),
            None if is_number(text) || text.starts_with("b'") => {
                Initial::Literal(self.literal(text))
            }
            None => Initial::Expression(expression(text)),
        }
    }

    fn literal(&self, text: &str) -> String {
        let numeric =
            ["tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double"];
        if numeric.contains(&self.data_type) { number(text) } else { text.to_owned() }
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'e' | b'+'))
}

/// Without zeros in front (ZEROFILL) and behind the point.
fn number(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let digits = digits.trim_start_matches('0');
    let digits = if digits.contains('.') && !digits.contains('e') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    };
    let whole = if digits.is_empty() || digits.starts_with('.') { "0" } else { "" };
    let sign = if whole == "0" && digits.is_empty() { "" } else { sign };
    format!("{sign}{whole}{digits}")
}

/// What stands between the quotes of MariaDB's literal.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                chars.next_if_eq(&'\'');
                plain.push('\'');
            }
            '\\' => match chars.next() {
                Some('n') => plain.push('\n'),
                Some('r') => plain.push('\r'),
                Some('t') => plain.push('\t'),
                Some('0') => plain.push('\0'),
                Some('Z') => plain.push('\u{1a}'),
                Some(other) => plain.push(other),
                None => {}
            },
            c => plain.push(c),
        }
    }
    plain
}

/// Lower case, without blanks, backticks and parentheses around it; the clock with its
/// parentheses, and without a precision of 0.
fn expression(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_whitespace() && *c != '`').collect();
    let mut text = text.to_ascii_lowercase();
    while let Some(inner) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
        // `(a)+(b)` is not in parentheses.
        let mut depth = 0_i32;
        let closed = inner.chars().all(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth >= 0
        });
        if !closed {
            break;
        }
        text = inner.to_owned();
    }
    match text.as_str() {
        "current_timestamp" | "current_timestamp(0)" | "now()" => "current_timestamp()".to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(data_type: &str, mariadb: Option<&str>, mysql: (Option<&str>, &str), wanted: &str) {
        for (default, extra, mariadb) in [(mariadb, "", true), (mysql.0, mysql.1, false)] {
            let printed = Printed { default, extra, data_type, nullable: true, mariadb };
            assert_eq!(printed.default().to_string(), wanted, "{default:?}");
        }
    }

    #[test]
    fn both_servers_spell_one_default_alike() {
        check("int", Some("NULL"), (None, ""), "DEFAULT NULL");
        check("int", Some("7"), (Some("7"), ""), "DEFAULT 7");
        check("int", Some("7"), (Some("00007"), ""), "DEFAULT 7");
        check("int", Some("0"), (Some("0"), ""), "DEFAULT 0");
        check("decimal", Some("-1.50"), (Some("-1.5"), ""), "DEFAULT -1.5");
        check("decimal", Some("0.00"), (Some("0.00"), ""), "DEFAULT 0");
        check("varchar", Some("'NULL'"), (Some("NULL"), ""), "DEFAULT NULL as text");
        check("varchar", Some(r"'it''s a \\'"), (Some(r"it's a \"), ""), r"DEFAULT it's a \");
        check("varchar", Some("''"), (Some(""), ""), "DEFAULT ''");
        check(
            "varchar",
            Some("'current_timestamp()'"),
            (Some("current_timestamp()"), ""),
            "DEFAULT current_timestamp()",
        );
        check("bit", Some("b'101'"), (Some("b'101'"), ""), "DEFAULT b'101'");
        check("enum", Some("'a'"), (Some("a"), ""), "DEFAULT a");
        check(
            "datetime",
            Some("current_timestamp()"),
            (Some("CURRENT_TIMESTAMP"), ""),
            "DEFAULT current_timestamp()",
        );
        check(
            "timestamp",
            Some("current_timestamp(6)"),
            (Some("CURRENT_TIMESTAMP(6)"), "DEFAULT_GENERATED"),
            "DEFAULT current_timestamp(6)",
        );
        check("varchar", Some("uuid()"), (Some("(uuid())"), "DEFAULT_GENERATED"), "DEFAULT uuid()");
        check(
            "int",
            Some("(1 + 1) * (2)"),
            (Some("(1+1)*(2)"), "DEFAULT_GENERATED"),
            "DEFAULT (1+1)*(2)",
        );
    }

    #[test]
    fn a_clock_on_update_is_part_of_it() {
        let printed = |extra, mariadb| {
            Printed { default: None, extra, data_type: "datetime", nullable: false, mariadb }
                .default()
        };
        let mariadb = printed("on update current_timestamp()", true);
        assert_eq!(mariadb, printed("DEFAULT_GENERATED on update CURRENT_TIMESTAMP", false));
        assert_eq!(mariadb.to_string(), "no default, ON UPDATE current_timestamp()");
    }
}
