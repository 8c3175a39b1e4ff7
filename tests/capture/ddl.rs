//! Schema changes as real servers log them.

use std::fmt::Write as _;

use causeway::capture::CaptureEvent;
use mysql_async::prelude::Queryable as _;

use super::{Database, Flavour, Follow, SHOP, start};

/// What capture says of some statements, up to a row with the id 99 in shop.e.
async fn said(db: &Database, follow: &mut Follow, statements: &str) -> String {
    db.exec(statements).await;
    db.exec("INSERT INTO shop.e VALUES (99)").await;
    let mut said = String::new();
    loop {
        match follow.next().await {
            CaptureEvent::Ddl { tables, .. } => {
                let tables: Vec<_> = tables.iter().map(ToString::to_string).collect();
                writeln!(said, "ddl {}", tables.join(" ")).unwrap();
            }
            CaptureEvent::Changes { changes, .. } => {
                let table = &changes[0].table;
                if table.name == "e" {
                    return said;
                }
                writeln!(said, "{} rows of {}", changes[0].rows.len(), table.name).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

const END: &str = "CREATE TABLE shop.e (id INT PRIMARY KEY);\n";

#[tokio::test]
async fn a_replaced_table_is_a_change_and_its_rows_follow() {
    let setup = format!(
        "{SHOP}{END}CREATE TABLE shop.s (id INT PRIMARY KEY);\n\
        INSERT INTO shop.s VALUES (1), (2)"
    );
    for metadata in ["FULL", "NO_LOG"] {
        replace(&setup, &format!("--binlog-row-metadata={metadata}")).await;
    }
}

async fn replace(setup: &str, metadata: &str) {
    let more = ["--binlog-alter-two-phase=1", metadata];
    let (db, here) = start(Flavour::MariaDb, &more, setup).await;
    let mut follow = Follow::from(&db, here.position.clone());
    let replaced = "CREATE OR REPLACE TABLE shop.t (PRIMARY KEY (id)) SELECT id FROM shop.s";
    assert_eq!(said(&db, &mut follow, replaced).await, "ddl shop.t\n2 rows of t\n");
    // Whoever stops at the change comes back to it, and to its rows.
    let mut follow = Follow::from(&db, here.position);
    let CaptureEvent::Ddl { after, .. } = follow.next().await else { panic!("no change") };
    let mut follow = Follow::from(&db, after.position);
    assert!(matches!(follow.next().await, CaptureEvent::Ddl { .. }));
    assert_eq!(follow.rows().await.1.len(), 2);
    assert!(matches!(follow.next().await, CaptureEvent::Changes { .. }));

    db.exec("DELETE FROM shop.e").await;
    assert!(matches!(follow.next().await, CaptureEvent::Changes { .. }));
    let statements = "CREATE OR REPLACE TABLE shop.t (id INT PRIMARY KEY);\n\
        CREATE OR REPLACE TEMPORARY TABLE shop.x (id INT);\n\
        SET STATEMENT lock_wait_timeout = 5 FOR ALTER TABLE shop.t ADD a INT NOT NULL;\n\
        RENAME TABLE IF EXISTS shop.t WAIT 5 TO shop.u;\n\
        ALTER TABLE shop.u RENAME shop.t, ADD b INT;\n\
        /*!50000DROP TABLE shop.t*/;\n\
        CREATE TABLE IF NOT EXISTS shop.t (id INT PRIMARY KEY);\n\
        CREATE DATABASE IF NOT EXISTS shop";
    let wanted = "ddl shop.t\nddl shop.t\nddl shop.t shop.u\nddl shop.u shop.t\nddl shop.t\n";
    assert_eq!(said(&db, &mut follow, statements).await, wanted);
}

#[tokio::test]
async fn an_alter_in_two_phases_counts_once_it_is_done() {
    let setup = format!("{SHOP}{END}INSERT INTO shop.t VALUES (1, NULL)");
    let (db, here) = start(Flavour::MariaDb, &["--binlog-alter-two-phase=1"], &setup).await;
    let before = here.position.0.rsplit('-').next().unwrap().parse::<i64>().unwrap();
    let mut follow = Follow::from(&db, here.position);
    let mut conn = db.conn().await;
    let refused = "ALTER TABLE shop.t ADD a INT NOT NULL, ADD CHECK (id > 1)";
    conn.query_drop(refused).await.unwrap_err();
    let done = "ALTER TABLE shop.t ADD a INT NOT NULL, ADD CHECK (id > 0)";
    assert_eq!(said(&db, &mut follow, done).await, "ddl shop.t\n");
    // Two for each ALTER, and the row: five transactions.
    let seq = "SELECT CAST(SUBSTRING_INDEX(@@gtid_binlog_pos, '-', -1) AS SIGNED)";
    assert_eq!(db.number(seq).await - before, 5);
}

#[tokio::test]
async fn mysql_names_what_it_drops() {
    for flavour in Flavour::MYSQL {
        let (db, here) = start(flavour, &[], &format!("{SHOP}{END}")).await;
        let mut follow = Follow::from(&db, here.position);
        let statements = "CREATE TABLE shop.u LIKE shop.t;\n\
            RENAME TABLE shop.t TO shop.x, shop.u TO shop.t;\n\
            /* who */ DROP /*!50000 TABLE */ IF EXISTS shop.t, `shop`.`x`;\n\
            DROP DATABASE IF EXISTS other";
        let wanted = "ddl shop.t shop.x shop.u shop.t\nddl shop.t shop.x\n";
        assert_eq!(said(&db, &mut follow, statements).await, wanted, "{flavour:?}");
    }
}

/// Rows have the names in lower case there, statements as they were typed.
#[tokio::test]
async fn a_server_whose_names_have_no_case_tells_of_its_schema_changes() {
    let setup = format!("{SHOP}{END}");
    let (db, here) = start(Flavour::MariaDb, &["--lower-case-table-names=1"], &setup).await;
    let mut follow = Follow::from(&db, here.position);
    let statements = "ALTER TABLE Shop.T ADD a INT;\nINSERT INTO SHOP.T (id) VALUES (1)";
    assert_eq!(said(&db, &mut follow, statements).await, "ddl shop.t\n1 rows of t\n");
    // Where they have case, that is another table.
    let (db, here) = start(Flavour::MariaDb, &[], &setup).await;
    let mut follow = Follow::from(&db, here.position);
    let statements = "CREATE DATABASE Shop;\nCREATE TABLE Shop.T (id INT PRIMARY KEY)";
    assert_eq!(said(&db, &mut follow, statements).await, "");
}

#[tokio::test]
async fn a_trigger_on_a_table_is_a_change_of_it() {
    for flavour in Flavour::ALL {
        let (db, here) = start(flavour, &[], &format!("{SHOP}{END}")).await;
        let mut follow = Follow::from(&db, here.position);
        let trigger = "USE shop;\nCREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 'x'";
        assert_eq!(said(&db, &mut follow, trigger).await, "ddl shop.t\n", "{flavour:?}");
    }
}
