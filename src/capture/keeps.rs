//! Which schema changes leave a table's columns as they were.
//!
//! A closed list: what is not known to keep them may change them.

use super::additive::{clauses, skip_name};
use super::query::{beginning, words};

/// Whether a schema change leaves the columns of its tables, and their primary keys, for
/// certain as they were: rows are read by the same definition before and after it.
pub(super) fn keeps_columns(statement: &str) -> bool {
    let words: Vec<String> = words(statement).into_iter().map(upper).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((verb, rest)) = words[beginning(&words)..].split_first() else { return false };
    match *verb {
        "TRUNCATE" => true,
        "CREATE" => create_keeps_columns(rest),
        "DROP" => match skip(rest, &["ONLINE", "OFFLINE"]) {
            ["TRIGGER", ..] => true,
            ["INDEX", "IF", "EXISTS", name, ..] | ["INDEX", name, ..] => !is_primary(name),
            _ => false,
        },
        // Where a string ends that has a backslash in it is the session's to say.
        "ALTER" if !statement.contains('\\') => alter_keeps_columns(rest),
        _ => false,
    }
}

/// Names stay as they are, behind their backtick.
fn upper(word: String) -> String {
    if word.starts_with('`') { word } else { word.to_uppercase() }
}

/// Past all of these words that stand at the beginning.
fn skip<'a, 'b>(words: &'a [&'b str], these: &[&str]) -> &'a [&'b str] {
    let count = words.iter().take_while(|word| these.contains(word)).count();
    &words[count..]
}

/// Whether an index of that name may be the primary key.
fn is_primary(name: &str) -> bool {
    name.trim_start_matches('`').eq_ignore_ascii_case("PRIMARY")
}

fn create_keeps_columns(rest: &[&str]) -> bool {
    let noise = ["OR", "REPLACE", "UNIQUE", "FULLTEXT", "SPATIAL", "ONLINE", "OFFLINE"];
    // What has a definer is a trigger, or no change of a table at all.
    matches!(skip(rest, &noise), ["INDEX" | "TRIGGER" | "DEFINER", ..])
}

fn alter_keeps_columns(rest: &[&str]) -> bool {
    let rest = skip(rest, &["ONLINE", "OFFLINE", "IGNORE"]);
    let Some(rest) = rest.strip_prefix(&["TABLE"]) else { return false };
    let rest = skip_name(rest.strip_prefix(&["IF", "EXISTS"]).unwrap_or(rest));
    // MariaDB: how long to wait for locks.
    let rest = rest.map(|rest| match rest {
        ["WAIT", _, rest @ ..] | ["NOWAIT", rest @ ..] => rest,
        rest => rest,
    });
    let clauses = rest.and_then(clauses).unwrap_or_default();
    // Nothing else may stand in a statement about partitions.
    let is_about_partitions = clauses.first().is_some_and(|clause| is_about_partitions(clause));
    is_about_partitions
        || !clauses.is_empty() && clauses.iter().all(|clause| clause_keeps_columns(clause))
}

fn is_about_partitions(clause: &[&str]) -> bool {
    matches!(
        clause,
        [
            "ADD"
                | "DROP"
                | "TRUNCATE"
                | "REORGANIZE"
                | "COALESCE"
                | "REBUILD"
                | "OPTIMIZE"
                | "ANALYZE"
                | "CHECK"
                | "REPAIR",
            "PARTITION",
            _,
            ..
        ]
    )
}

/// Options of a table, with one word as their value.
const OPTIONS: [&str; 10] = [
    "ALGORITHM",
    "LOCK",
    "ENGINE",
    "COMMENT",
    "AUTO_INCREMENT",
    "ROW_FORMAT",
    "STATS_PERSISTENT",
    "STATS_AUTO_RECALC",
    "STATS_SAMPLE_PAGES",
    "KEY_BLOCK_SIZE",
];

fn clause_keeps_columns(clause: &[&str]) -> bool {
    match clause {
        [option, "=", _] | [option, _] if OPTIONS.contains(option) => true,
        ["ADD", kind, rest @ ..] => {
            let unquoted = ["INDEX", "KEY", "UNIQUE", "FULLTEXT", "SPATIAL", "FOREIGN", "CHECK"];
            // A constraint may be the primary key.
            let constrains = *kind == "CONSTRAINT" && !rest.contains(&"PRIMARY");
            (unquoted.contains(kind) || constrains) && rest.contains(&"(")
        }
        ["DROP", "FOREIGN", "KEY", ..]
        | ["FORCE"]
        | ["ENABLE" | "DISABLE", "KEYS"]
        | ["RENAME", "INDEX" | "KEY", _, "TO", _] => true,
        ["DROP", "INDEX" | "KEY" | "CONSTRAINT" | "CHECK", "IF", "EXISTS", name]
        | ["DROP", "INDEX" | "KEY" | "CONSTRAINT" | "CHECK", name] => !is_primary(name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::keeps_columns;

    #[track_caller]
    fn check(wanted: bool, statements: &[&str]) {
        for statement in statements {
            assert_eq!(keeps_columns(statement), wanted, "{statement}");
        }
    }

    #[test]
    fn indexes_triggers_and_options_keep_columns() {
        check(
            true,
            &[
                "TRUNCATE shop.t",
                "truncate table t",
                "CREATE UNIQUE INDEX i ON t (a)",
                "CREATE OR REPLACE INDEX i ON t (a)",
                "DROP INDEX i ON t",
                "DROP INDEX IF EXISTS i ON t",
                "DROP TRIGGER g",
                "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 'x\\''",
                "CREATE OR REPLACE DEFINER=`a`@`%` TRIGGER g BEFORE INSERT ON t FOR EACH ROW DO 1",
                "ALTER TABLE shop.t ADD UNIQUE KEY i (a), DROP INDEX j",
                "ALTER TABLE t DROP KEY IF EXISTS i, DROP INDEX IF EXISTS j",
                "ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES p (id)",
                "ALTER TABLE t DROP FOREIGN KEY f, ALGORITHM=INPLACE, LOCK NONE",
                "ALTER TABLE t DROP CONSTRAINT c, DROP CHECK d",
                "ALTER TABLE t ENGINE=InnoDB",
                "SET STATEMENT max_statement_time=5 FOR ALTER TABLE t ADD INDEX (a)",
                "ALTER TABLE t WAIT 5 ADD INDEX (a)",
                "ALTER TABLE t NOWAIT DROP INDEX i",
                "ALTER TABLE t COMMENT = 'DROP COLUMN a'",
                "ALTER TABLE t STATS_PERSISTENT=1, STATS_AUTO_RECALC=0, STATS_SAMPLE_PAGES 20",
                "ALTER TABLE t KEY_BLOCK_SIZE = 8",
            ],
        );
    }

    #[test]
    fn comments_are_read_as_the_server_reads_them() {
        check(
            true,
            &[
                "/*!40000 ALTER TABLE `t` DISABLE KEYS */",
                "/*!40000 ALTER TABLE `shop`.`t` ENABLE KEYS */",
                "/* x */ CREATE INDEX i ON t (a)",
                "ALTER TABLE t ADD INDEX (a) -- , DROP COLUMN b",
                "ALTER TABLE t ADD INDEX (a) /* , DROP COLUMN b */",
            ],
        );
        check(
            false,
            &[
                "ALTER TABLE t ADD INDEX (a) /*!, DROP COLUMN b */",
                "ALTER TABLE t ADD INDEX (a) /*M!100100 , DROP COLUMN b */",
                "ALTER TABLE t ADD INDEX (a) -- x\n, DROP COLUMN b",
                // With NO_BACKSLASH_ESCAPES the first text ends at once.
                "ALTER TABLE t COMMENT 'x\\', DROP COLUMN b, COMMENT ''",
            ],
        );
    }

    #[test]
    fn partitions_come_and_go_without_the_columns() {
        check(
            true,
            &[
                "ALTER TABLE t ADD PARTITION (PARTITION p VALUES LESS THAN (9))",
                "ALTER TABLE shop.t DROP PARTITION p, q",
                "ALTER TABLE t TRUNCATE PARTITION ALL",
                "ALTER TABLE t REORGANIZE PARTITION p INTO (PARTITION q VALUES LESS THAN (9))",
                "ALTER TABLE t COALESCE PARTITION 2",
                "ALTER TABLE t REBUILD PARTITION p",
                "ALTER TABLE t OPTIMIZE PARTITION p",
                "ALTER TABLE t ANALYZE PARTITION p",
                "ALTER TABLE t CHECK PARTITION p",
                "ALTER TABLE t REPAIR PARTITION p",
            ],
        );
        check(
            false,
            &[
                "ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u",
                "ALTER TABLE t ADD `partition` INT",
                "ALTER TABLE t DROP `partition`, DROP b",
            ],
        );
    }

    #[test]
    fn what_is_not_known_to_keep_columns_may_change_them() {
        check(
            false,
            &[
                "SET STATEMENT max_statement_time=5 FOR ALTER TABLE t DROP COLUMN a",
                "ALTER TABLE t WAIT 5 DROP COLUMN a",
                "SET STATEMENT max_statement_time=5",
                "ALTER TABLE t ADD c INT DEFAULT 1",
                "ALTER TABLE t ADD COLUMN c INT, ADD INDEX (c)",
                "ALTER TABLE t RENAME COLUMN a TO b",
                "ALTER TABLE t MODIFY a INT UNSIGNED",
                "ALTER TABLE t CHANGE a b INT",
                "ALTER TABLE t CONVERT TO CHARACTER SET latin1",
                "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (b)",
                "ALTER TABLE t ADD CONSTRAINT p PRIMARY KEY (b)",
                "ALTER TABLE t DROP INDEX `PRIMARY`",
                "ALTER TABLE t DROP KEY IF EXISTS `primary`",
                "ALTER TABLE t DROP CONSTRAINT `PRIMARY`",
                "DROP INDEX `PRIMARY` ON t",
                "DROP INDEX IF EXISTS `PRIMARY` ON t",
                "ALTER TABLE t DROP `index`",
                "ALTER TABLE t DROP `index`, DROP INDEX i",
                "ALTER TABLE t ADD `key` INT",
                "ALTER TABLE t RENAME TO u",
                "RENAME TABLE t TO u",
                "DROP TABLE t",
                "CREATE OR REPLACE TABLE t (id INT)",
                "CREATE TABLE `index` (id INT)",
                "ALTER TABLE t",
                "",
            ],
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(ALTER TABLE t (ADD|DROP) )?.{0,60}") {
            keeps_columns(&text);
        }
    }
}
