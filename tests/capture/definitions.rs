//! Which definition a row is read by: the one that it was written with.

use super::*;

/// A table's shape as text, a column a line.
pub(super) fn shape(table: &Table) -> Vec<String> {
    let column = |c: &Column| {
        let labels: Vec<_> = c.labels.iter().map(|label| hex(label)).collect();
        let (sign, generated) = (
            if c.unsigned { " unsigned" } else { "" },
            if c.generated { " generated" } else { "" },
        );
        let (name, key, collation) = (&c.name, c.key, &c.collation);
        format!("{name} {:?}{sign} {collation} {key} {labels:?}{generated}", c.r#type())
    };
    table.columns.iter().map(column).collect()
}

const MORE: &str = ", j JSON, gv INT GENERATED ALWAYS AS (i + 1) VIRTUAL, \
    gs VARCHAR(40) GENERATED ALWAYS AS (CONCAT(vs, '!')) STORED, \
    el ENUM('a','é','x\\\\y','n\\nl','q''q') CHARACTER SET latin1, \
    eu ENUM('ü','я') CHARACTER SET ucs2, \
    u UUID, i6 INET6, i4 INET4, vc VARCHAR(300) COMPRESSED, bc BLOB COMPRESSED, \
    tc TEXT COMPRESSED, vbc VARBINARY(30) COMPRESSED, inv INT INVISIBLE";

const SPECIAL: &str = "INSERT INTO shop.zoo (id, el, eu, u, i6, i4, vc, bc, tc, vbc) VALUES \
    (11, 'é', 'я', '123e4567-e89b-12d3-a456-426614174000', '2001:db8::', '192.0.2.0', \
    REPEAT('é', 150), REPEAT(x'00', 9000), 'short', x'0001'), \
    (12, 'x\\\\y', 'ü', '01890a5d-ac96-774b-bcce-b302099a8057', '::', '0.0.0.0', '', '', '', ''), \
    (13, 'n\\nl', 'ü', '00000000-0000-0000-0000-000000000000', '::ffff:1.2.3.4', '1.2.3.4', \
    'v', x'80', REPEAT('я', 5000), REPEAT(x'55', 30)), \
    (14, 'q''q', 'ü', 'a3bb189e-8bf9-3888-9912-ace4e6543002', 'fe80::1', '255.255.255.255', \
    REPEAT('x', 300), x'', 'é', x''), \
    (15, 'a', 'я', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '::1', '10.0.0.1', NULL, NULL, NULL, \
    NULL)";

/// What the server says of a value that `expression` does not cover.
fn select(column: &str) -> String {
    match column {
        "u" | "i6" | "i4" => format!("HEX(CAST({column} AS BINARY))"),
        _ => format!("HEX({column})"),
    }
}

/// All 52 types and MariaDB's own: an event's description is the dictionary's.
#[tokio::test]
async fn an_event_describes_a_table_as_the_dictionary_does() {
    let create = format!(
        "{SHOP}SET NAMES utf8mb4, sql_mode = '', time_zone = '+00:00';\n{}, PRIMARY KEY (vs, id)\
         {MORE})",
        TABLE.replace("id INT PRIMARY KEY", "id INT NOT NULL").replace(
            "vs VARCHAR(20)",
            "vs \
         VARCHAR(20) NOT NULL DEFAULT 'k'"
        )
    );
    let (db, here) = start(Flavour::MariaDb, &[], &create).await;
    let session = "SET sql_mode = '', time_zone = '+00:00', NAMES utf8mb4;\n";
    db.exec(&format!("{session}{SPECIAL}")).await;
    let mut follow = Follow::from(&db, here.position.clone());
    let (by_event, rows, _) = follow.rows().await;
    drop(follow);

    let names = ["el", "eu", "u", "i6", "i4", "vc", "bc", "tc", "vbc"];
    let columns: Vec<_> = names.iter().map(|name| select(name)).collect();
    let sql = format!("SELECT CONCAT_WS(',', {}) FROM shop.zoo ORDER BY id", columns.join(","));
    let labels = [(1, "61"), (2, "E9"), (3, "785C79"), (4, "6E0A6C"), (5, "712771")];
    let wide = [(1, "00FC"), (2, "044F")];
    let wanted: Vec<String> = db.rows(&sql).await;
    let got = rows.iter().map(|row| {
        let all = decoded(row.after.as_ref().unwrap());
        let value = |name: &&str| {
            let at = by_event.columns.iter().position(|c| c.name == **name).unwrap();
            let label = |set: &[(i32, &str)]| {
                set.iter().find(|(n, _)| n.to_string() == all[at]).unwrap().1.to_owned()
            };
            match *name {
                "el" => label(&labels),
                "eu" => label(&wide),
                _ => all[at].clone(),
            }
        };
        let values: Vec<_> = names.iter().map(value).filter(|value| value != "NULL").collect();
        values.join(",")
    });
    assert_eq!(got.collect::<Vec<_>>(), wanted);

    db.exec(&format!(
        "SET GLOBAL binlog_row_metadata = NO_LOG;\nFLUSH TABLES;\n{session}\
         DELETE FROM shop.zoo ORDER BY id"
    ))
    .await;
    let mut follow = Follow::from(&db, here.position.clone());
    follow.rows().await;
    let (by_dictionary, gone, _) = follow.rows().await;
    assert_eq!(shape(&by_event), shape(&by_dictionary));
    assert!(rows.iter().map(|r| &r.after).eq(gone.iter().map(|r| &r.before)));

    // With the table gone the event is all there is. It can't tell a UUID from the
    // bytes it is stored in, nor a column that is generated.
    db.exec("DROP TABLE shop.zoo").await;
    let (alone, again, _) = Follow::from(&db, here.position).rows().await;
    let wanted: Vec<_> = shape(&by_dictionary)
        .iter()
        .map(|line| line.replace(" generated", "").replace("u Uuid", "u Binary"))
        .collect();
    assert_eq!(shape(&alone), wanted);
    for (again, row) in again.iter().zip(&rows) {
        let (again, row) = (again.after.as_ref().unwrap(), row.after.as_ref().unwrap());
        for (at, column) in alone.columns.iter().enumerate().filter(|(_, c)| c.name != "u") {
            assert_eq!(again.values[at], row.values[at], "{}", column.name);
        }
    }
}

/// The stream's tables and rows as lines, a change of schema as `ddl`.
pub(super) async fn lines(follow: &mut Follow, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        match follow.next().await {
            CaptureEvent::Changes { changes, .. } => {
                for change in changes {
                    let names: Vec<_> = change.table.columns.iter().collect();
                    for row in &change.rows {
                        let image = row.after.as_ref().or(row.before.as_ref()).unwrap();
                        let values = decoded(image);
                        let pair = |(c, v): (&&Column, &String)| {
                            format!("{}:{:?}={v}", c.name, c.r#type())
                        };
                        let pairs: Vec<_> = names.iter().zip(&values).map(pair).collect();
                        lines.push(pairs.join(" "));
                    }
                }
            }
            CaptureEvent::Ddl { .. } => lines.push("ddl".to_owned()),
            other => panic!("{other:?}"),
        }
    }
    lines
}

/// A table altered in every way while nobody followed: each row comes with the
/// definition that it was written with.
#[tokio::test]
async fn rows_from_before_a_change_of_schema_are_read_as_they_were_written() {
    let create = "CREATE DATABASE shop CHARACTER SET utf8mb4;\n\
        CREATE TABLE shop.t (id INT PRIMARY KEY, v INT UNSIGNED, g BIGINT AS (v + 1) STORED);\n\
        CREATE TABLE shop.s (gone INT, k INT PRIMARY KEY, last INT)";
    let (db, here) = start(Flavour::MariaDb, &[], create).await;
    db.exec(
        "INSERT INTO shop.t (id, v) VALUES (1, 4294967295);\n\
         ALTER TABLE shop.t DROP g, ADD e ENUM('a','b') AFTER id;\n\
         INSERT INTO shop.t VALUES (2, 'b', 2);\n\
         ALTER TABLE shop.t CHANGE v w VARCHAR(12), CHANGE e e ENUM('b','a');\n\
         INSERT INTO shop.t VALUES (3, 'b', 'x');\n\
         DELETE FROM shop.t ORDER BY id;\n\
         ALTER TABLE shop.t DROP PRIMARY KEY, DROP w, ADD PRIMARY KEY (e), \
         MODIFY id BIGINT;\n\
         INSERT INTO shop.t VALUES (4, 'a');\n\
         RENAME TABLE shop.t TO shop.old;\n\
         CREATE TABLE shop.t (only TIMESTAMP(6) PRIMARY KEY);\n\
         SET time_zone = '+00:00';\n\
         INSERT INTO shop.t VALUES ('2024-01-02 03:04:05.000006');\n\
         DROP TABLE shop.t;\n\
         INSERT INTO shop.s VALUES (1, 2, 3);\n\
         ALTER TABLE shop.s DROP gone",
    )
    .await;
    let mut follow = Follow::from(&db, here.position);
    let wanted = [
        "id:Int=1 v:Int=4294967295 g:Bigint=4294967296",
        "ddl",
        "id:Int=2 e:Enum=2 v:Int=2",
        "ddl",
        "id:Int=3 e:Enum=1 w:Char=78",
        "id:Int=1 e:Enum=NULL w:Char=34323934393637323935",
        "id:Int=2 e:Enum=1 w:Char=32",
        "id:Int=3 e:Enum=1 w:Char=78",
        "ddl",
        "id:Bigint=4 e:Enum=2",
        "ddl",
        "only:Timestamp=2024-01-02 03:04:05.000006",
        "ddl",
        "gone:Int=1 k:Int=2 last:Int=3",
        "ddl",
    ];
    assert_eq!(lines(&mut follow, wanted.len()).await, wanted);
}

const MINIMAL: &[&str] = &["--binlog-row-metadata=MINIMAL"];

/// Servers whose events describe no columns.
const UNDESCRIBED: [(Flavour, &[&str]); 4] = [
    (Flavour::MariaDb, MINIMAL),
    (Flavour::MySql56, &[]),
    (Flavour::MySql57, &[]),
    (Flavour::MySql80, MINIMAL),
];

/// Without descriptions a table's definition is read before its first row, so that a
/// change of schema that capture has not come to yet does no harm.
#[tokio::test]
async fn definitions_are_read_ahead_where_events_have_none() {
    for (flavour, more) in UNDESCRIBED {
        let create = format!("{SHOP}CREATE TABLE shop.u (id INT PRIMARY KEY)");
        let (db, here) = start(flavour, more, &create).await;
        let mut follow = Follow::from(&db, here.position);
        db.exec("INSERT INTO shop.u VALUES (0)").await;
        assert_eq!(lines(&mut follow, 1).await, ["id:Int=0"]);
        // More than the channel takes stand before the rows in question.
        let mut sql: String =
            (1..100).map(|id| format!("INSERT INTO shop.u VALUES ({id});\n")).collect();
        sql += "INSERT INTO shop.t VALUES (1, 'a');\nALTER TABLE shop.t DROP v;\n\
            INSERT INTO shop.t VALUES (2)";
        db.exec(&sql).await;
        let said = lines(&mut follow, 102).await;
        assert_eq!(said[99..], ["id:Int=1 v:Blob=61", "ddl", "id:Int=2"]);
    }
}

/// Where neither the event nor the dictionary knows, capture says so.
#[tokio::test]
async fn a_table_altered_while_nobody_followed_is_named_where_events_describe_none() {
    let (db, here) = start(Flavour::MySql56, &[], SHOP).await;
    db.exec("INSERT INTO shop.t VALUES (1, 'a');\nALTER TABLE shop.t DROP v").await;
    let error = Follow::from(&db, here.position).error().await;
    assert!(matches!(error, CaptureError::Moved(_)), "{error}");
}

/// What is read of these statements, which ran while nobody followed; with `Moved` at the
/// end where it is refused to go on.
async fn check_while_away(db: &Database, statements: &str, wanted: &[&str]) {
    let here = current(&mut db.conn().await).await.unwrap();
    db.exec(statements).await;
    let mut follow = Follow::from(db, here.position);
    let is_refused = wanted.last() == Some(&"Moved");
    let count = wanted.len() - usize::from(is_refused);
    assert_eq!(lines(&mut follow, count).await, wanted[..count], "{statements}");
    if is_refused {
        let error = follow.error().await;
        assert!(matches!(error, CaptureError::Moved(_)), "{statements}: {error}");
    } else {
        follow.stop().await;
    }
}

/// An old row would be read by the new names, though the number and the types of the
/// columns are what they were.
#[tokio::test]
async fn a_change_that_stands_ahead_bars_the_rows_before_it_and_no_others() {
    for (flavour, more) in UNDESCRIBED {
        let make = |name: &str| format!("CREATE TABLE shop.{name} (id INT PRIMARY KEY, v INT);\n");
        let tables: String = ["a", "b", "c", "d", "e"].iter().map(|name| make(name)).collect();
        let parts = "CREATE TABLE shop.p (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id) \
            (PARTITION o VALUES LESS THAN (10))";
        let setup = format!("CREATE DATABASE shop;\n{tables}{parts}");
        let (db, _) = start(flavour, more, &setup).await;
        let (db, change) = (&db, "CHANGE v w INT, ADD INDEX (w)");
        let rows = "INSERT INTO shop.a VALUES (1, 1);\n";
        check_while_away(db, &format!("{rows}ALTER TABLE shop.a {change}"), &["Moved"]).await;
        // An index, and rows behind the change alone.
        let sql = format!(
            "INSERT INTO shop.b VALUES (1, 1);\nALTER TABLE shop.b ADD INDEX (v);\n\
             ALTER TABLE shop.c {change};\nINSERT INTO shop.c VALUES (1, 2)"
        );
        let wanted = ["id:Int=1 v:Int=1", "ddl", "ddl", "id:Int=1 w:Int=2"];
        check_while_away(db, &sql, &wanted).await;
        // What a dump is loaded with, and partitions.
        let sql = "INSERT INTO shop.b VALUES (2, 2);\n\
             /*!40000 ALTER TABLE shop.b DISABLE KEYS */;\n\
             INSERT INTO shop.b VALUES (3, 3);\n\
             /*!40000 ALTER TABLE shop.b ENABLE KEYS */;\n\
             INSERT INTO shop.p VALUES (1, 1);\n\
             ALTER TABLE shop.p ADD PARTITION (PARTITION q VALUES LESS THAN (20));\n\
             INSERT INTO shop.p VALUES (11, 1);\n\
             ALTER TABLE shop.p DROP PARTITION q";
        let wanted = [
            "id:Int=2 v:Int=2",
            "ddl",
            "id:Int=3 v:Int=3",
            "ddl",
            "id:Int=1 v:Int=1",
            "ddl",
            "id:Int=11 v:Int=1",
            "ddl",
        ];
        check_while_away(db, sql, &wanted).await;
        // Of two changes the second bars what stands between them.
        let two = |between: &str| {
            format!(
                "ALTER TABLE shop.d CHANGE v w INT;\n{between};\n\
                 ALTER TABLE shop.d CHANGE w v INT;\nINSERT INTO shop.d VALUES (2, 2)"
            )
        };
        check_while_away(db, &two("DO 1"), &["ddl", "ddl", "id:Int=2 v:Int=2"]).await;
        check_while_away(
            db,
            &two("INSERT INTO shop.d VALUES (1, 1)").replace("(2, 2)", "(3, 3)"),
            &["ddl", "Moved"],
        )
        .await;
        // A table that is new, and one that replaces another.
        let new = make("n") + "INSERT INTO shop.n VALUES (1, 1);\n";
        check_while_away(db, &format!("{new}ALTER TABLE shop.n {change}"), &["Moved"]).await;
        let replaced = "DROP TABLE shop.e;\nCREATE TABLE shop.e (v INT, id INT PRIMARY KEY);\n\
                        INSERT INTO shop.e VALUES (5, 6)";
        check_while_away(db, replaced, &["ddl", "v:Int=5 id:Int=6"]).await;
        let replaced = format!(
            "INSERT INTO shop.e VALUES (7, 8);\n{}",
            replaced.replace("(v INT, id INT PRIMARY KEY)", "(id INT PRIMARY KEY, v INT)")
        );
        check_while_away(db, &replaced, &["Moved"]).await;
    }
}

/// What the server is set to now says nothing of the rows that wait.
#[tokio::test]
async fn rows_that_describe_nothing_are_barred_whatever_is_set_since() {
    let create = "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, v INT)";
    let (db, here) = start(Flavour::MariaDb, MINIMAL, create).await;
    db.exec("INSERT INTO shop.t VALUES (1, 1);\nALTER TABLE shop.t CHANGE v w INT").await;
    let after = current(&mut db.conn().await).await.unwrap();
    db.exec("INSERT INTO shop.t VALUES (2, 2)").await;
    for metadata in ["MINIMAL", "FULL"] {
        db.exec(&format!("SET GLOBAL binlog_row_metadata = {metadata}")).await;
        let error = Follow::from(&db, here.position.clone()).error().await;
        assert!(matches!(error, CaptureError::Moved(_)), "{metadata}: {error}");
        let mut follow = Follow::from(&db, after.position.clone());
        assert_eq!(lines(&mut follow, 1).await, ["id:Int=2 w:Int=2"], "{metadata}");
        follow.stop().await;
    }
}

/// What capture will halt at keeps it neither from the rows before it, nor from seeing the
/// changes behind it.
#[tokio::test]
async fn a_look_ahead_goes_past_what_capture_halts_at() {
    let create = "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, v INT);\n\
        CREATE TABLE shop.u (id INT PRIMARY KEY, v INT)";
    for (flavour, more) in &UNDESCRIBED[..2] {
        let (db, here) = start(*flavour, more, create).await;
        let by_statement = "SET SESSION binlog_format = STATEMENT;\n\
            INSERT INTO shop.u VALUES (1, 1)";
        db.exec("INSERT INTO shop.t VALUES (1, 1)").await;
        db.exec(by_statement).await;
        let mut follow = Follow::from(&db, here.position.clone());
        assert_eq!(lines(&mut follow, 1).await, ["id:Int=1 v:Int=1"], "{flavour:?}");
        let error = follow.error().await;
        assert!(matches!(error, CaptureError::Statement(_)), "{flavour:?}: {error}");
        db.exec("ALTER TABLE shop.t CHANGE v w INT").await;
        let error = Follow::from(&db, here.position).error().await;
        assert!(matches!(error, CaptureError::Moved(_)), "{flavour:?}: {error}");
    }
}

/// A key counts from when there is the table that it refers to.
#[tokio::test]
async fn foreign_keys_follow_the_tables_that_they_refer_to() {
    let unchecked = "SET foreign_key_checks = 0;\n";
    let create = format!(
        "CREATE DATABASE shop;\n{unchecked}CREATE TABLE shop.child (id INT PRIMARY KEY, p INT, \
         FOREIGN KEY (p) REFERENCES shop.parent (id))"
    );
    for flavour in [Flavour::MariaDb, Flavour::MySql56] {
        let (db, here) = start(flavour, &[], &create).await;
        let mut follow = Follow::from(&db, here.position);
        db.exec(&format!("{unchecked}INSERT INTO shop.child VALUES (1, 1)")).await;
        assert!(follow.rows().await.0.foreign_keys.is_empty(), "{flavour:?}");
        db.exec(
            "CREATE TABLE shop.parent (id INT PRIMARY KEY);\n\
             INSERT INTO shop.parent VALUES (2);\nINSERT INTO shop.child VALUES (2, 2)",
        )
        .await;
        assert_eq!(follow.rows().await.0.name, "parent");
        let keys = follow.rows().await.0.foreign_keys.clone();
        assert_eq!(keys.len(), 1, "{flavour:?}");
        assert_eq!((&*keys[0].table, &*keys[0].referenced[0]), ("parent", "id"));
    }
}
