//! A table is altered region by region, while the regions write the same rows and can't
//! reach each other: columns that are resolved apart, and sums, find each other by name.

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use lab::db::{Database, Flavour};
use lab::region::Lab;
use lab::{PATIENCE, wait_until};

const RULES: &str = "  - tables: shop.parts
    policy: delta
    delta_columns: [n]
    columns:
      - { columns: [a], policy: region_priority, priority: [r2, r1] }
";

/// id, a, b, n, x.
type Row = (i64, i64, i64, i64, i64);

async fn rows(database: &Database) -> Vec<Row> {
    database.rows("SELECT id, a, b, n, x FROM shop.parts ORDER BY id").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_different_columns_merge_by_name() {
    let servers = [Flavour::MariaDb, Flavour::MySql80];
    let mut lab = Lab::start_ruled(&servers, 64, (RULES, "")).await;
    lab.exec_everywhere(
        "CREATE DATABASE shop;\nCREATE TABLE shop.parts (id INT PRIMARY KEY, a INT NOT NULL, \
         b INT NOT NULL, n INT NOT NULL);\n",
    )
    .await;
    lab.start_agents().await;
    let [r1, r2] = [&lab.regions[0].db, &lab.regions[1].db];
    r1.exec("INSERT INTO shop.parts VALUES (1, 0, 0, 0), (2, 0, 0, 0), (3, 0, 0, 0)").await;
    lab.converge(&["shop.parts"], PATIENCE).await;

    lab.cut();
    // The old columns in one region, the new ones in the other: two of them, then as many
    // as here, in another order.
    r2.exec("UPDATE shop.parts SET a = 5, n = n + 10 WHERE id <= 2").await;
    r1.exec(
        "ALTER TABLE shop.parts ADD x INT NOT NULL DEFAULT 7 AFTER id;\n\
         UPDATE shop.parts SET a = 1, b = b + 1, n = n + 1, x = 70 WHERE id IN (1, 3)",
    )
    .await;
    // A MariaDB's commit has its time once capture has read it.
    wait_until("it has its stamp", PATIENCE, || async {
        let status = lab.regions[0].status().await;
        status.is_some_and(|status| status.outbox.acked_seq >= Some(2))
    })
    .await;
    r2.exec(
        "ALTER TABLE shop.parts ADD x INT NOT NULL DEFAULT 7;\n\
         UPDATE shop.parts SET b = 3, n = n + 100 WHERE id >= 2",
    )
    .await;
    lab.heal();
    // The last: both have changed `b`, and `x` is of its group, so it goes with it.
    let wanted = [(1, 5, 1, 11, 70), (2, 5, 3, 110, 7), (3, 1, 3, 101, 7)];
    wait_until("both regions have merged them", PATIENCE, || async {
        rows(r1).await == wanted && rows(r2).await == wanted
    })
    .await;

    let entries: Vec<(String, String)> = r1
        .rows(
            "SELECT CAST(JSON_EXTRACT(entry, '$.key.id') AS CHAR), \
             CAST(JSON_EXTRACT(entry, '$.columns') AS CHAR) FROM causeway.conflicts \
             WHERE JSON_EXTRACT(entry, '$.columns') IS NOT NULL ORDER BY 1",
        )
        .await;
    let columns = |won: &str| format!("{{\"existing\": [], \"incoming\": [\"{won}\"]}}");
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert_eq!(entries[0], ("1".to_owned(), columns("a")), "{entries:?}");
    assert!(entries[1].0 == "3" && entries[1].1.contains("\"b\""), "{entries:?}");
}
