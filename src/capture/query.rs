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

/// Splits into words, names and signs; comments are left out.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '`' | '"' => {
                let mut name = String::from("`");
                while let Some(next) = chars.next() {
                    if next == c && chars.next_if_eq(&c).is_none() {
                        break;
                    }
                    name.push(next);
                }
                words.push(name);
            }
            '/' if chars.next_if_eq(&'*').is_some() => {
                // `/*!50000 … */` and `/*M! … */` are run.
                if chars.peek() == Some(&'!') || chars.peek() == Some(&'M') {
                    while chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '!').is_some() {}
                    continue;
                }
                let mut last = ' ';
                for next in chars.by_ref() {
                    if last == '*' && next == '/' {
                        break;
                    }
                    last = next;
                }
            }
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            '-' if chars.peek() == Some(&'-') => while chars.next_if(|c| *c != '\n').is_some() {},
            c if c.is_whitespace() => {}
            c if c.is_alphanumeric() || c == '_' || c == '$' => {
                let mut word = String::from(c);
                while let Some(next) =
                    chars.next_if(|c| c.is_alphanumeric() || *c == '_' || *c == '$')
                {
                    word.push(next);
                }
                words.push(word);
            }
            sign => words.push(sign.to_string()),
        }
        if words.len() > 256 {
            break;
        }
    }
    words
}

/// Judges a statement; names without a schema are of `schema`.
pub(super) fn judge(schema: &str, text: &str) -> Statement {
    let words = words(text);
    let at = |n: usize| words.get(n).map(|word| word.to_uppercase()).unwrap_or_default();
    match at(0).as_str() {
        "BEGIN" => Statement::Begin,
        "START" if at(1) == "TRANSACTION" => Statement::Begin,
        "COMMIT" => Statement::Commit,
        "ROLLBACK" if at(1) == "TO" => Statement::Other,
        "ROLLBACK" => Statement::Rollback,
        "XA" => Statement::Xa,
        "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "LOAD" | "WITH" => Statement::Rows,
        "ALTER" | "DROP" | "RENAME" | "TRUNCATE" | "CREATE" => ddl(schema, &words),
        _ => Statement::Other,
    }
}

const NOISE: [&str; 10] = [
    "ONLINE",
    "OFFLINE",
    "IGNORE",
    "TEMPORARY",
    "UNIQUE",
    "FULLTEXT",
    "SPATIAL",
    "OR",
    "REPLACE",
    "TABLES",
];

fn ddl(schema: &str, words: &[String]) -> Statement {
    let upper: Vec<String> = words.iter().map(|word| word.to_uppercase()).collect();
    if upper.iter().take(3).any(|word| word == "TEMPORARY") {
        return Statement::Other;
    }
    let mut at = 1;
    while upper.get(at).is_some_and(|word| NOISE.contains(&word.as_str()) && word != "TABLES") {
        at += 1;
    }
    let what = upper.get(at).map(String::as_str).unwrap_or_default();
    let verb = upper[0].as_str();
    let names = match (verb, what) {
        // A new table changes nothing that is replicated; its rows follow.
        ("CREATE", "TABLE") => return Statement::Other,
        (_, "TABLE" | "TABLES") => at + 1,
        ("TRUNCATE", _) => at,
        (_, "INDEX") => match upper.iter().position(|word| word == "ON") {
            Some(on) => on + 1,
            None => return Statement::Other,
        },
        ("DROP", "DATABASE" | "SCHEMA") => {
            let all = upper.iter().skip(at + 1).position(|w| w != "IF" && w != "EXISTS");
            let named = all.and_then(|n| words.get(at + 1 + n)).map(|name| plain(name));
            let schema = named.unwrap_or_default();
            return Statement::Ddl(vec![TableName { schema, name: "*".to_owned() }]);
        }
        _ => return Statement::Other,
    };
    Statement::Ddl(tables(schema, words, names, verb))
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
        check("CREATE TABLE t (id INT)", "Other");
        check("DROP TEMPORARY TABLE t", "Other");
        check("GRANT ALL ON *.* TO x", "Other");
        check("", "Other");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") {
            judge("s", &text);
        }
    }
}
