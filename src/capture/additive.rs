//! Which schema changes are additive: they take nothing from any row, so replication
//! need not wait for anyone.
//!
//! A closed list, of columns with a constant default and of indexes that are not
//! unique; whatever is not understood to the last word is not additive.

/// A word of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// A bare word in upper case, or a number.
    Bare(String),
    /// In backticks or double quotes.
    Name,
    /// A string literal.
    Text,
    Sign(char),
}

/// Why a schema change needs no release; none when it needs one.
#[must_use]
pub fn additive(statement: &str) -> Option<&'static str> {
    let words = words(statement)?;
    let bare: Vec<&str> = words.iter().map(bare).collect();
    match bare.as_slice() {
        ["ALTER", rest @ ..] => {
            let rest = rest.strip_prefix(&["ONLINE"]).unwrap_or(rest);
            let rest = rest.strip_prefix(&["TABLE"])?;
            let rest = skip_name(rest.strip_prefix(&["IF", "EXISTS"]).unwrap_or(rest))?;
            let clauses = clauses(rest)?;
            let mut column = false;
            for clause in &clauses {
                column |= clause_is_additive(clause)?;
            }
            Some(if column { COLUMN } else { INDEX })
        }
        ["CREATE", rest @ ..] => {
            let rest = rest.strip_prefix(&["ONLINE"]).unwrap_or(rest);
            rest.strip_prefix(&["INDEX"]).map(|_| INDEX)
        }
        _ => None,
    }
}

const COLUMN: &str = "it adds columns with a constant default, which rows of regions without \
    them have as well";
const INDEX: &str = "it adds an index that is not unique, which refuses no row";

fn bare(word: &Word) -> &str {
    match word {
        Word::Bare(word) => word,
        Word::Name => "`",
        Word::Text => "'",
        Word::Sign('.') => ".",
        Word::Sign(',') => ",",
        Word::Sign('(') => "(",
        Word::Sign(')') => ")",
        Word::Sign('=') => "=",
        Word::Sign('-') => "-",
        Word::Sign(_) => "?",
    }
}

/// None for what can't be told apart for certain: comments and escapes.
fn words(text: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '`' | '"' | '\'' => {
                loop {
                    match chars.next()? {
                        '\\' => return None,
                        next if next == c && chars.next_if_eq(&c).is_none() => break,
                        _ => {}
                    }
                }
                words.push(if c == '\'' { Word::Text } else { Word::Name });
            }
            '#' | '/' | '\\' | ';' => return None,
            '-' if chars.peek() == Some(&'-') => return None,
            c if c.is_whitespace() => {}
            c if c.is_alphanumeric() || c == '_' || c == '$' => {
                let mut word = String::from(c);
                while let Some(next) =
                    chars.next_if(|c| c.is_alphanumeric() || *c == '_' || *c == '$')
                {
                    word.push(next);
                }
                words.push(Word::Bare(word.to_uppercase()));
            }
            sign => words.push(Word::Sign(sign)),
        }
    }
    Some(words)
}

/// Past `table` or `schema.table`.
pub(super) fn skip_name<'a, 'b>(words: &'a [&'b str]) -> Option<&'a [&'b str]> {
    match words {
        [_, ".", _, rest @ ..] | [_, rest @ ..] => Some(rest),
        [] => None,
    }
}

/// Split at the commas that stand in no parentheses.
pub(super) fn clauses<'a, 'b>(words: &'a [&'b str]) -> Option<Vec<&'a [&'b str]>> {
    let (mut clauses, mut depth, mut from) = (Vec::new(), 0_usize, 0);
    for (at, word) in words.iter().enumerate() {
        match *word {
            "(" => depth += 1,
            ")" => depth = depth.checked_sub(1)?,
            "," if depth == 0 => {
                clauses.push(&words[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    clauses.push(&words[from..]);
    (depth == 0).then_some(clauses)
}

/// Whether it adds a column; none when it is not additive.
fn clause_is_additive(clause: &[&str]) -> Option<bool> {
    match clause {
        ["ALGORITHM" | "LOCK", "=", _] | ["ALGORITHM" | "LOCK", _] => Some(false),
        ["ADD", "INDEX" | "KEY", rest @ ..] => rest.contains(&"(").then_some(false),
        ["ADD", rest @ ..] => {
            let rest = rest.strip_prefix(&["COLUMN"]).unwrap_or(rest);
            let rest = rest.strip_prefix(&["IF", "NOT", "EXISTS"]).unwrap_or(rest);
            // `ADD UNIQUE (a)`, `ADD CONSTRAINT …`, `ADD (a INT, b INT)` and their like.
            let [name, kind, rest @ ..] = rest else { return None };
            let named = *name == "`" || !RESERVED.contains(name);
            (named && TYPES.contains(kind)).then_some(())?;
            // Some servers give a TIMESTAMP a default of their own: the time of writing.
            let told = *kind != "TIMESTAMP" || rest.contains(&"DEFAULT");
            (told && attributes_are_additive(rest)).then_some(true)
        }
        _ => None,
    }
}

/// Words that begin something else than a column; as a column's name they are quoted.
const RESERVED: [&str; 12] = [
    "INDEX",
    "KEY",
    "UNIQUE",
    "PRIMARY",
    "FULLTEXT",
    "SPATIAL",
    "CONSTRAINT",
    "FOREIGN",
    "CHECK",
    "PARTITION",
    "PERIOD",
    "SYSTEM",
];

const TYPES: [&str; 36] = [
    "TINYINT",
    "SMALLINT",
    "MEDIUMINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "BOOL",
    "BOOLEAN",
    "DECIMAL",
    "NUMERIC",
    "DEC",
    "FLOAT",
    "DOUBLE",
    "REAL",
    "BIT",
    "YEAR",
    "DATE",
    "TIME",
    "DATETIME",
    "TIMESTAMP",
    "CHAR",
    "VARCHAR",
    "BINARY",
    "VARBINARY",
    "TINYTEXT",
    "TEXT",
    "MEDIUMTEXT",
    "LONGTEXT",
    "TINYBLOB",
    "BLOB",
    "MEDIUMBLOB",
    "LONGBLOB",
    "ENUM",
    "SET",
    "JSON",
    "CHARACTER",
];

/// Nullable without a default has the default NULL; otherwise it must be a literal.
fn attributes_are_additive(words: &[&str]) -> bool {
    let (mut nullable, mut default) = (true, false);
    let mut rest = words;
    // Length, precision or labels.
    if let ["(", ..] = rest {
        let Some(end) = rest.iter().position(|word| *word == ")") else { return false };
        rest = &rest[end + 1..];
    }
    while let [word, after @ ..] = rest {
        rest = match (*word, after) {
            ("UNSIGNED" | "ZEROFILL" | "SIGNED" | "NULL" | "FIRST" | "BINARY", _) => after,
            ("NOT", ["NULL", after @ ..]) => {
                nullable = false;
                after
            }
            ("DEFAULT", ["-", _, after @ ..]) => {
                default = true;
                fraction(after)
            }
            ("DEFAULT", [value, after @ ..]) if is_literal(value) => {
                default = true;
                fraction(after)
            }
            ("COMMENT", ["'", after @ ..])
            | ("AFTER" | "COLLATE" | "CHARSET", [_, after @ ..])
            | ("CHARACTER", ["SET", _, after @ ..]) => after,
            _ => return false,
        };
    }
    nullable || default
}

fn is_literal(word: &str) -> bool {
    matches!(word, "'" | "NULL" | "TRUE" | "FALSE")
        || word.starts_with(|c: char| c.is_ascii_digit())
}

/// The digits behind a decimal point are words of their own.
fn fraction<'a, 'b>(words: &'a [&'b str]) -> &'a [&'b str] {
    match words {
        [".", digits, rest @ ..] if digits.starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use super::additive;

    #[track_caller]
    fn check(wanted: bool, statement: &str) {
        assert_eq!(additive(statement).is_some(), wanted, "{statement}");
    }

    #[test]
    fn a_column_with_a_constant_default_is_additive() {
        check(true, "ALTER TABLE shop.t ADD COLUMN note INT DEFAULT 7");
        check(true, "alter table t add c decimal(10,2) unsigned not null default -1.50 after b");
        check(true, "ALTER ONLINE TABLE `a b`.`t` ADD COLUMN IF NOT EXISTS `key` VARCHAR(9)");
        check(true, "ALTER TABLE t ADD a ENUM('x','y') NOT NULL DEFAULT 'it''s', ADD b TEXT NULL");
        check(true, "ALTER TABLE t ADD a INT, ADD INDEX (a), ALGORITHM=INSTANT, LOCK=NONE");
        check(true, "ALTER TABLE t ADD a VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
        check(true, "ALTER TABLE t ADD at TIMESTAMP(6) NULL DEFAULT NULL");
        check(false, "ALTER TABLE t ADD at TIMESTAMP");
        check(false, "ALTER TABLE t ADD COLUMN note INT NOT NULL");
        check(false, "ALTER TABLE t ADD at DATETIME DEFAULT CURRENT_TIMESTAMP");
        check(false, "ALTER TABLE t ADD at DATETIME NULL ON UPDATE CURRENT_TIMESTAMP");
        check(false, "ALTER TABLE t ADD id CHAR(36) DEFAULT (UUID())");
        check(false, "ALTER TABLE t ADD id INT DEFAULT NEXTVAL(s)");
        check(false, "ALTER TABLE t ADD id INT AUTO_INCREMENT UNIQUE");
        check(false, "ALTER TABLE t ADD g INT AS (a + 1)");
        check(false, "ALTER TABLE t ADD c INT DEFAULT 1 UNIQUE");
        check(false, "ALTER TABLE t ADD c INT DEFAULT 1 REFERENCES p (id)");
        check(false, "ALTER TABLE t ADD c INT DEFAULT 1, DROP COLUMN d");
        check(false, "ALTER TABLE t ADD c CHAR(1) DEFAULT '(', DROP COLUMN d, ADD INDEX (c)");
        check(false, "ALTER TABLE t ADD c INT DEFAULT 1 /*!50000 , DROP COLUMN d */");
        check(false, "ALTER IGNORE TABLE t ADD c INT DEFAULT 1");
    }

    #[test]
    fn an_index_that_is_not_unique_is_additive() {
        check(true, "CREATE INDEX i ON t (a)");
        check(true, "ALTER TABLE t ADD KEY i (a, b)");
        check(false, "CREATE UNIQUE INDEX i ON t (a)");
        check(false, "ALTER TABLE t ADD UNIQUE KEY i (a)");
        check(false, "ALTER TABLE t ADD UNIQUE (a)");
        check(false, "ALTER TABLE t ADD PRIMARY KEY (a)");
        check(false, "ALTER TABLE t ADD CONSTRAINT c UNIQUE (a)");
        check(false, "CREATE OR REPLACE INDEX i ON t (a)");
    }

    #[test]
    fn all_else_needs_a_release() {
        for statement in ["DROP TABLE t", "TRUNCATE t", "RENAME TABLE a TO b", "", "ALTER TABLE"] {
            check(false, statement);
        }
        check(false, "ALTER TABLE t MODIFY a BIGINT");
        check(false, "ALTER TABLE t RENAME COLUMN a TO b");
        check(false, "ALTER TABLE t ENGINE=InnoDB");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(ALTER TABLE t ADD )?.{0,60}") {
            assert!(additive(&text).is_none_or(|why| !why.is_empty()));
        }
    }
}
