//! QUERY events: what a logged statement means for replication.

use bytes::Bytes;

use super::CaptureError;
use super::bytes::Cursor;
use crate::change::TableName;

/// What a logged statement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Begin,
    Commit,
    Rollback,
    /// Changes rows: never seen with `binlog_format=ROW`.
    Rows,
    /// Changes these tables' definition or empties them.
    Ddl(Vec<TableName>),
    Xa,
    /// Nothing of a table.
    Other,
}

/// The name that stands for all tables of a schema that is dropped.
pub const ALL_TABLES: &str = "*";

/// Default schema and text of a QUERY event.
pub(super) fn parse(data: Bytes, compressed: bool) -> Result<(String, String), CaptureError> {
    let mut at = Cursor::new(data);
    at.take(8)?;
    let schema = usize::from(at.u8()?);
    at.take(2)?;
    let variables = usize::from(at.u16()?);
    at.take(variables)?;
    let schema = String::from_utf8_lossy(&at.take(schema)?).into_owned();
    at.u8()?;
    let text = if compressed { super::bytes::inflate(at)? } else { at.rest() };
    Ok((schema, String::from_utf8_lossy(&text).into_owned()))
}

/// Splits into words, names and signs; comments and what strings hold are left out.
/// Of a statement that changes no table the beginning is enough.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '`' | '"' | '\'' => {
                let mut name = String::from("`");
                while let Some(next) = chars.next() {
                    if next == c && chars.next_if_eq(&c).is_none() {
                        break;
                    }
                    if next == '\\' && c == '\'' {
                        chars.next();
                    }
                    name.push(next);
                }
                words.push(if c == '\'' { "'".to_owned() } else { name });
            }
            '/' if chars.next_if_eq(&'*').is_some() => {
                // `/*!50000 … */` and `/*M!100100 … */` are run.
                let mariadb = chars.next_if_eq(&'M').is_some();
                if chars.next_if_eq(&'!').is_some() {
                    while chars.next_if(char::is_ascii_digit).is_some() {}
                    continue;
                }
                let mut last = if mariadb { 'M' } else { ' ' };
                for next in chars.by_ref() {
                    if last == '*' && next == '/' {
                        break;
                    }
                    last = next;
                }
            }
            '*' if chars.next_if_eq(&'/').is_some() => {}
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            '-' if chars.peek() == Some(&'-') => while chars.next_if(|c| *c != '\n').is_some() {},
            c if c.is_whitespace() => {}
            c if is_of_a_word(c) => {
                let mut word = String::from(c);
                while let Some(next) = chars.next_if(|c| is_of_a_word(*c)) {
                    word.push(next);
                }
                words.push(word);
            }
            sign => words.push(sign.to_string()),
        }
        if words.len() > 256 && !VERBS.iter().any(|verb| words[0].eq_ignore_ascii_case(verb)) {
            break;
        }
    }
    words
}

fn is_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// What a statement that changes tables begins with.
const VERBS: [&str; 6] = ["ALTER", "CREATE", "DROP", "RENAME", "SET", "TRUNCATE"];

/// Judges a statement; names without a schema are of `schema`.
pub(super) fn judge(schema: &str, text: &str) -> Statement {
    let words = words(text);
    let upper: Vec<String> = words.iter().map(|word| word.to_uppercase()).collect();
    let begin = beginning(&upper);
    let (words, upper) = (&words[begin..], &upper[begin..]);
    let at = |n: usize| upper.get(n).map(String::as_str).unwrap_or_default();
    match at(0) {
        "BEGIN" => Statement::Begin,
        "START" if at(1) == "TRANSACTION" => Statement::Begin,
        "COMMIT" => Statement::Commit,
        "ROLLBACK" if at(1) == "TO" => Statement::Other,
        "ROLLBACK" => Statement::Rollback,
        "XA" => Statement::Xa,
        "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "LOAD" | "WITH" => Statement::Rows,
        "ALTER" | "DROP" | "RENAME" | "TRUNCATE" | "CREATE" => ddl(schema, words, upper),
        _ => Statement::Other,
    }
}

/// Where what is run begins among a statement's words, behind MariaDB's `SET STATEMENT
/// variable = value FOR`.
pub(super) fn beginning(words: &[impl AsRef<str>]) -> usize {
    match words {
        [set, statement, ..] if set.as_ref() == "SET" && statement.as_ref() == "STATEMENT" => {
            words.iter().position(|word| word.as_ref() == "FOR").map_or(words.len(), |at| at + 1)
        }
        _ => 0,
    }
}

/// What may stand between the verb and what it is about.
const NOISE: [&str; 9] =
    ["ONLINE", "OFFLINE", "IGNORE", "TEMPORARY", "UNIQUE", "FULLTEXT", "SPATIAL", "OR", "REPLACE"];

fn ddl(schema: &str, words: &[String], upper: &[String]) -> Statement {
    let is_noise = |word: &&String| NOISE.contains(&word.as_str());
    let noise = upper[1..].iter().take_while(is_noise);
    let at = 1 + noise.clone().count();
    let (mut temporary, mut replaces) = (false, false);
    for word in noise {
        temporary |= word == "TEMPORARY";
        replaces |= word == "REPLACE";
    }
    if temporary {
        return Statement::Other;
    }
    let what = upper.get(at).map(String::as_str).unwrap_or_default();
    let verb = upper[0].as_str();
    let names = match (verb, what) {
        // A new table changes nothing that is replicated; its rows follow. One that
        // replaces another drops it first.
        ("CREATE", "TABLE" | "DATABASE" | "SCHEMA") if !replaces => return Statement::Other,
        ("CREATE" | "DROP", "DATABASE" | "SCHEMA") => {
            let all = upper.iter().skip(at + 1).position(|w| w != "IF" && w != "EXISTS");
            let named = all.and_then(|n| words.get(at + 1 + n)).map(|name| plain(name));
            let schema = named.unwrap_or_default();
            return Statement::Ddl(vec![TableName { schema, name: ALL_TABLES.to_owned() }]);
        }
        ("CREATE", "TRIGGER" | "DEFINER") => match triggered(upper) {
            Some(table) => table,
            None => return Statement::Other,
        },
        (_, "TABLE" | "TABLES") => at + 1,
        ("TRUNCATE", _) => at,
        (_, "INDEX") => match upper.iter().position(|word| word == "ON") {
            Some(on) => on + 1,
            None => return Statement::Other,
        },
        _ => return Statement::Other,
    };
    let mut tables = tables(schema, words, names, verb);
    if verb == "ALTER" {
        tables.extend(further(schema, words, upper, names));
    }
    Statement::Ddl(tables)
}

/// Where a `CREATE TRIGGER` names its table: it will fire for what is applied there too.
/// The definers of routines, views and events come here as well.
fn triggered(upper: &[String]) -> Option<usize> {
    let others = ["EVENT", "FUNCTION", "PROCEDURE", "SQL", "VIEW"];
    let kind = upper.iter().position(|w| w == "TRIGGER" || others.contains(&w.as_str()))?;
    let when = upper.iter().skip(kind).position(|w| w == "BEFORE" || w == "AFTER")? + kind;
    let on = upper.iter().skip(when).position(|w| w == "ON")? + when;
    (upper[kind] == "TRIGGER").then_some(on + 1)
}

/// Other tables that an `ALTER TABLE` touches: its new name, and the other side of a
/// partition that is exchanged or converted.
fn further(schema: &str, words: &[String], upper: &[String], from: usize) -> Vec<TableName> {
    let mut found = Vec::new();
    for (at, word) in upper.iter().enumerate().skip(from + 1) {
        let next = |n: usize| upper.get(at + n).map(String::as_str).unwrap_or_default();
        let name = match (word.as_str(), next(1)) {
            ("RENAME", "COLUMN" | "INDEX" | "KEY") => continue,
            ("RENAME", "TO" | "AS" | "=") => at + 2,
            ("RENAME" | "TABLE", _) => at + 1,
            _ => continue,
        };
        // A column of that name in the list before it.
        if name < words.len() && next(1) != "," && next(1) != ")" {
            found.extend(tables(schema, words, name, "ALTER"));
        }
    }
    found
}

fn plain(word: &str) -> String {
    word.strip_prefix('`').unwrap_or(word).to_owned()
}

fn tables(schema: &str, words: &[String], from: usize, verb: &str) -> Vec<TableName> {
    let mut tables = Vec::new();
    let mut words = words[from.min(words.len())..].iter().peekable();
    while let Some(word) = words.next() {
        if ["IF", "EXISTS", "NOT", "TO", ","].contains(&word.to_uppercase().as_str()) {
            continue;
        }
        let first = plain(word);
        let table = if words.next_if(|word| *word == ".").is_some() {
            let name = words.next().map(|name| plain(name)).unwrap_or_default();
            TableName { schema: first, name }
        } else {
            TableName { schema: schema.to_owned(), name: first }
        };
        tables.push(table);
        // MariaDB: how long to wait for locks.
        if words.next_if(|word| word.eq_ignore_ascii_case("WAIT")).is_some() {
            words.next();
        }
        words.next_if(|word| word.eq_ignore_ascii_case("NOWAIT"));
        let more = match verb {
            "DROP" => words.peek().is_some_and(|word| *word == ","),
            "RENAME" => words.peek().is_some_and(|w| *w == "," || w.eq_ignore_ascii_case("TO")),
            _ => false,
        };
        if !more {
            break;
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, wanted: &str) {
        let judged = judge("shop", text);
        let judged = if let Statement::Ddl(tables) = &judged {
            let names: Vec<_> = tables.iter().map(ToString::to_string).collect();
            format!("ddl {}", names.join(" "))
        } else {
            format!("{judged:?}")
        };
        assert_eq!(judged, wanted, "{text}");
    }

    #[test]
    fn statements_are_judged_by_what_they_do() {
        check("BEGIN", "Begin");
        check("COMMIT", "Commit");
        check("/* x */ insert into t values (1)", "Rows");
        check("ALTER TABLE `a b`.`t``x` ADD c INT", "ddl a b.t`x");
        check("ALTER ONLINE TABLE t ADD c INT", "ddl shop.t");
        check("CREATE UNIQUE INDEX i ON other.t (a)", "ddl other.t");
        check("DROP TABLE IF EXISTS `a`,b.c /* generated by server */", "ddl shop.a b.c");
        check("RENAME TABLE a TO b, c TO d", "ddl shop.a shop.b shop.c shop.d");
        check("TRUNCATE t", "ddl shop.t");
        check("truncate table t", "ddl shop.t");
        check("DROP DATABASE IF EXISTS x", "ddl x.*");
        check("GRANT ALL ON *.* TO x", "Other");
        check("", "Other");
    }

    #[test]
    fn a_table_that_is_dropped_or_replaced_is_changed() {
        check("DROP TABLE shop.t", "ddl shop.t");
        check("DROP TABLES a, b RESTRICT", "ddl shop.a shop.b");
        check("DROP TABLE a WAIT 5", "ddl shop.a");
        check("DROP TABLE temporary", "ddl shop.temporary");
        check("DROP TABLE \"a b\".\"t\"\"x\"", "ddl a b.t\"x");
        check("CREATE OR REPLACE TABLE t (id INT)", "ddl shop.t");
        check("create or replace table `s`.`t` like x", "ddl s.t");
        check("CREATE OR REPLACE TABLE t AS SELECT * FROM u", "ddl shop.t");
        check("/* who */ -- why\n# how\nDROP TABLE t", "ddl shop.t");
        check("/*!50000 DROP TABLE t*/", "ddl shop.t");
        check("/*!50000DROP*/ TABLE t", "ddl shop.t");
        check("/*!DROP TABLE a*/,b", "ddl shop.a shop.b");
        check("CREATE /*M!100103 OR REPLACE */ TABLE t (id INT)", "ddl shop.t");
        check("/*Mine*/ DROP /*M*/ TABLE t", "ddl shop.t");
        check("SET STATEMENT sql_mode='FOR', wait_timeout=5 FOR DROP TABLE t", "ddl shop.t");
        check("DROP DATABASE x", "ddl x.*");
        check("CREATE OR REPLACE DATABASE x", "ddl x.*");
        let many: Vec<_> = (0..500).map(|n| format!("s.t{n}")).collect();
        let wanted = format!("ddl {}", many.join(" "));
        check(&format!("DROP TABLE {}", many.join(",")), &wanted);
    }

    #[test]
    fn a_table_is_known_under_both_names() {
        check("RENAME TABLE a TO s.b, `c` TO d", "ddl shop.a s.b shop.c shop.d");
        check("RENAME TABLES IF EXISTS a WAIT 5 TO b", "ddl shop.a shop.b");
        check("RENAME TABLE a NOWAIT TO b, c TO d", "ddl shop.a shop.b shop.c shop.d");
        check("ALTER TABLE new RENAME TO t", "ddl shop.new shop.t");
        check("ALTER TABLE x.new ADD c INT, RENAME s.t", "ddl x.new s.t");
        check("ALTER TABLE t RENAME COLUMN a TO b, RENAME INDEX i TO j", "ddl shop.t");
        check("ALTER TABLE x EXCHANGE PARTITION p WITH TABLE t", "ddl shop.x shop.t");
        check("ALTER TABLE x CONVERT PARTITION p TO TABLE t", "ddl shop.x shop.t");
        check("ALTER TABLE t COMMENT 'it\\'s TABLE u' WAIT 3", "ddl shop.t");
        check("ALTER TABLE t ADD CHECK (a <> 'RENAME ''u')", "ddl shop.t");
    }

    #[test]
    fn a_new_or_a_temporary_table_changes_nothing() {
        check("CREATE TABLE t (id INT)", "Other");
        check("CREATE TABLE IF NOT EXISTS t (id INT)", "Other");
        check("CREATE TABLE t LIKE u", "Other");
        check("CREATE DATABASE IF NOT EXISTS x", "Other");
        check("DROP TEMPORARY TABLE t", "Other");
        check("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS t", "Other");
        check("CREATE OR REPLACE TEMPORARY TABLE t (id INT)", "Other");
        check("CREATE OR REPLACE VIEW t AS SELECT 1", "Other");
        check("DROP VIEW t", "Other");
        check("RENAME USER a TO b", "Other");
        check("SET PASSWORD FOR x = 'y'", "Other");
    }

    #[test]
    fn a_trigger_changes_what_writes_of_its_table_do() {
        let body = "AFTER INSERT ON t FOR EACH ROW INSERT INTO shop.log VALUES (NEW.id)";
        check(&format!("CREATE TRIGGER x {body}"), "ddl shop.t");
        check(&format!("CREATE OR REPLACE TRIGGER IF NOT EXISTS a.x {body}"), "ddl shop.t");
        check(&format!("CREATE DEFINER=`root`@`%` TRIGGER `on` {body}"), "ddl shop.t");
        check(
            "create definer=current_user trigger x before update on `s`.`t` for each row set @a = 1",
            "ddl s.t",
        );
        check("CREATE DEFINER=`a`@`b` VIEW trigger AS SELECT * FROM u JOIN v ON 1", "Other");
        check("CREATE DEFINER=`a`@`b` SQL SECURITY INVOKER VIEW v AS SELECT 1", "Other");
        check("CREATE DEFINER=`a`@`b` PROCEDURE p() CREATE TRIGGER x AFTER INSERT ON t", "Other");
        check("CREATE TRIGGER", "Other");
        check("DROP TRIGGER x", "Other");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") {
            judge("s", &text);
        }
    }
}
