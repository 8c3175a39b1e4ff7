//! What only MySQL's servers write.

use causeway::clock::CommitTime;

use super::definitions::{lines, shape};
use super::*;

/// JSON as the server prints it: the order of keys, numbers, escapes, values of SQL's
/// own types.
#[tokio::test]
async fn json_is_what_the_server_selects() {
    const VALUES: &str = "INSERT INTO shop.zoo (j) VALUES
        ('{\"bb\": 1, \"a\": {\"c\": [], \"B\": {}}, \"\": null, \"ab\": [true, false]}'),
        ('[0.1, 1.5e300, 1e-7, 123456789012345678, 1e20, 3e-320, 1e-15, 1.5e-15, 1e-16, 2e-17]'),
        ('[0, -1, 32767, 32768, -32769, 65535, 65536, 2147483648, 4294967296]'),
        ('[-9223372036854775808, 9223372036854775807, 18446744073709551615]'),
        ('\"é 😀 \\\\n \\\\t \\\\\" \\\\\\\\ \\\\/ \\\\u0001 \\\\u007f\"'), ('null'), ('\"\"'), ('[]'), ('{}'), (NULL),
        ('[1e15, 1e16, 1e17, 123456789.125, 1.7976931348623157e308, 5e-324, 0.00001, 0.0001]'),
        (JSON_ARRAY(CAST('2024-02-29' AS DATE), CAST('12:34:56.000001' AS TIME(6)),
            CAST('-12:34:56' AS TIME), CAST('2024-02-29 01:02:03.5' AS DATETIME(6)))),
        (JSON_ARRAY(1.50, CAST('-0.10' AS DECIMAL(10,2)), CAST(7 AS DECIMAL(65,30)))),
        (JSON_ARRAY(x'00ff', b'101', CAST('b' AS BINARY(3)), CAST(2024 AS UNSIGNED))),
        (JSON_OBJECT('k', REPEAT('x', 70000), 'l', JSON_ARRAY(REPEAT('y', 300)))),
        (JSON_OBJECT('é', 1, 'zzz', TRUE, 'b', JSON_OBJECT('x', JSON_ARRAY(1, NULL))))";
    for flavour in [Flavour::MySql57, Flavour::MySql80] {
        let create =
            format!("{SHOP}CREATE TABLE shop.zoo (id INT PRIMARY KEY AUTO_INCREMENT, j JSON)");
        let (db, here) = start(flavour, &[], &create).await;
        let mut follow = Follow::from(&db, here.position);
        db.exec(VALUES).await;
        let (table, rows, _) = follow.rows().await;
        let wanted = selected(&db, &table).await;
        check(&table, &wanted, rows.iter().map(|row| row.after.as_ref().unwrap()));
    }
}

#[tokio::test]
async fn a_commit_is_timed_as_exactly_as_the_server_says() {
    for flavour in Flavour::MYSQL {
        let (db, here) = start(flavour, &[], SHOP).await;
        let mut follow = Follow::from(&db, here.position);
        let now = "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)";
        let before = u64::try_from(db.number(now).await).unwrap();
        db.exec("INSERT INTO shop.t VALUES (1, 'a')").await;
        let after = u64::try_from(db.number(now).await).unwrap();
        let CaptureEvent::Changes { commit, .. } = follow.next().await else { panic!("no row") };
        match (flavour, commit) {
            (Flavour::MySql80, CommitTime::Micros(at)) => {
                assert!((before..=after).contains(&at), "{before} {at} {after}");
            }
            (Flavour::MySql56 | Flavour::MySql57, CommitTime::Second(at)) => {
                assert!((before / 1_000_000..=after / 1_000_000).contains(&at));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// An update that logs a part of a JSON document lacks the rest of it.
#[tokio::test]
async fn partial_json_is_refused_by_name() {
    let setup = "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, j JSON);\n\
        INSERT INTO shop.t VALUES (1, '{\"a\": \"some text\", \"b\": 2}')";
    let (db, here) = start(Flavour::MySql80, &[], setup).await;
    let follow = Follow::from(&db, here.position);
    db.exec(
        "SET binlog_row_value_options = 'PARTIAL_JSON';\n\
         UPDATE shop.t SET j = JSON_SET(j, '$.a', 'other')",
    )
    .await;
    let error = follow.error().await;
    assert!(matches!(error, CaptureError::PartialImage(_)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Halt);
}

#[tokio::test]
async fn xa_is_refused_by_name() {
    let xa =
        "XA START 'a';\nUPDATE shop.t SET v = 'b';\nXA END 'a';\nXA PREPARE 'a';\nXA COMMIT 'a'";
    for flavour in [Flavour::MySql57, Flavour::MySql80] {
        let error = refused(flavour, xa).await;
        assert!(matches!(error, CaptureError::Xa), "{error}");
    }
}

/// A replica that was promoted without all that had been shipped from the old primary.
#[tokio::test]
async fn a_server_that_lacks_what_was_shipped_is_refused_by_name() {
    const OTHERS: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-7:9";
    for flavour in Flavour::MYSQL {
        let (db, here) = start(flavour, &[], SHOP).await;
        let (own, _) = here.position.0.rsplit_once(':').unwrap();
        let beyond = Position(format!("{own}:1-1000000"));
        let mixed = Position(format!("{},{OTHERS}", here.position.0));
        let (beyond, mixed) =
            tokio::join!(Follow::from(&db, beyond).error(), Follow::from(&db, mixed).error());
        assert_eq!(mixed, CaptureError::Lacks { missing: OTHERS.to_owned() });
        assert_eq!(mixed.kind(), ErrorKind::Halt);
        let CaptureError::Lacks { missing } = &beyond else { panic!("{beyond}") };
        assert!(missing.starts_with(own) && missing.ends_with("-1000000"), "{missing}");
        let mut follow = Follow::from(&db, here.position);
        db.exec("INSERT INTO shop.t VALUES (1, 'a')").await;
        assert_eq!(follow.rows().await.1.len(), 1);
    }
}

/// MySQL 8's own: its default collation, defaults that are expressions, an index over
/// one, columns named as its reserved words.
const EIGHT: &str = "CREATE TABLE shop.`rank` (`groups` INT, `system` VARCHAR(20) NOT NULL, \
    `lateral` VARCHAR(20) COLLATE utf8mb4_0900_ai_ci, b VARCHAR(9) COLLATE utf8mb4_0900_as_cs, \
    u BIGINT UNSIGNED, el ENUM('a','é','q''q') CHARACTER SET latin1, bi BINARY(4), \
    st SET('x','ü') CHARACTER SET utf8mb4, x VARCHAR(40) DEFAULT (UUID()), j JSON, \
    y INT DEFAULT (1 + 1), g BIGINT AS (u + 1) VIRTUAL, gs BIGINT AS (u + 2) STORED, \
    ge GEOMETRY, t TIMESTAMP(3) NULL, PRIMARY KEY (`system`, `groups`), UNIQUE (u), \
    KEY ((u + y)), UNIQUE ((u DIV 2)))";

#[tokio::test]
async fn an_event_of_mysql_8_describes_a_table_as_the_dictionary_does() {
    let (db, here) = start(Flavour::MySql80, &[], &format!("{SHOP}{EIGHT}")).await;
    let names = "`groups`, `system`, `lateral`, b, u, el, bi, st, j, ge, t";
    db.exec(&format!(
        "INSERT INTO shop.`rank` ({names}) VALUES (1, 'it', 'é', 'e', 9223372036854775805, 'é', \
         x'0100', 'x,ü', '[1]', POINT(1, 2), '2024-02-29 01:02:03.004')"
    ))
    .await;
    let (by_event, rows, _) = Follow::from(&db, here.position.clone()).rows().await;
    assert_eq!(rows[0].after.as_ref().unwrap().values.len(), 15, "none of a hidden column");
    db.exec("SET GLOBAL binlog_row_metadata = MINIMAL;\nDELETE FROM shop.`rank`").await;
    let mut follow = Follow::from(&db, here.position.clone());
    follow.rows().await;
    let (by_dictionary, gone, _) = follow.rows().await;
    assert_eq!(shape(&by_event), shape(&by_dictionary));
    assert_eq!(by_event.unique_keys, by_dictionary.unique_keys);
    assert_eq!(by_event.unique_keys.len(), 1, "an expression is left to the servers");
    assert!(rows.iter().map(|r| &r.after).eq(gone.iter().map(|r| &r.before)));
    db.exec("DROP TABLE shop.`rank`").await;
    let (alone, again, _) = Follow::from(&db, here.position).rows().await;
    let wanted = shape(&by_dictionary);
    let wanted: Vec<_> = wanted.iter().map(|line| line.replace(" generated", "")).collect();
    assert_eq!(shape(&alone), wanted);
    assert_eq!(again, rows);
}

/// A column that is added at once changes nothing of the rows that are there, whose
/// images have it all the same.
#[tokio::test]
async fn rows_have_the_columns_that_were_added_at_once() {
    let (db, here) = start(
        Flavour::MySql80,
        &[],
        "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, v INT UNSIGNED);\n\
         INSERT INTO shop.t VALUES (1, 4294967295)",
    )
    .await;
    db.exec(
        "ALTER TABLE shop.t ADD w VARCHAR(9) NOT NULL DEFAULT 'x', ALGORITHM = INSTANT;\n\
         UPDATE shop.t SET v = 1;\n\
         ALTER TABLE shop.t DROP w, ADD e ENUM('a','b') DEFAULT 'b';\n\
         DELETE FROM shop.t",
    )
    .await;
    let mut follow = Follow::from(&db, here.position);
    let wanted = ["ddl", "id:Int=1 v:Int=1 w:Char=78", "ddl", "id:Int=1 v:Int=1 e:Enum=2"];
    assert_eq!(lines(&mut follow, wanted.len()).await, wanted);
}

/// An account as MySQL 8 makes it by default: the first login of all asks for the
/// password itself, which goes out encrypted with the server's key when TLS is off.
#[tokio::test]
async fn an_account_with_caching_sha2_password_reads_the_binlog_without_tls() {
    let setup = format!(
        "{SHOP}CREATE USER c@'%' IDENTIFIED WITH caching_sha2_password BY 'a long ''password''';\n\
         CREATE USER n@'%' IDENTIFIED WITH mysql_native_password BY 'p';\n\
         GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO c@'%', n@'%'"
    );
    let (db, here) = start(Flavour::MySql80, &[], &setup).await;
    for (user, password) in [("c", "a long 'password'"), ("n", "p")] {
        let opts =
            mysql_async::OptsBuilder::from_opts(db.opts()).user(Some(user)).pass(Some(password));
        // Each server process asks once, then takes the hash.
        for _ in 0..2 {
            let mut follow = Follow::with(opts.clone().into(), here.position.clone());
            db.exec("REPLACE INTO shop.t VALUES (1, 'a')").await;
            assert!(!follow.rows().await.1.is_empty());
        }
    }
}
