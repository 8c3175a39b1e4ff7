//! Rows that somebody took away without the binlog, in two regions of three.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::lab::PATIENCE;
use super::lab::region::Lab;
use super::{TABLES, log};

/// A row of a table of one policy each.
const TAKEN: [(&str, i64); 7] = [
    ("latest", 1),
    ("latest", 2),
    ("priority", 1),
    ("stock", 1),
    ("parts", 1),
    ("uniq", 1),
    ("large", 3),
];

/// Rows that are changed without being there, beyond what is looked at in one request.
const MANY: usize = 1_199;

/// Those that a peer changes come back, the one that it deletes is gone everywhere; each
/// is told by the regions that lacked it, whole transactions and large ones alike.
pub(crate) async fn missing(lab: &Lab) {
    let made = "CREATE TABLE shop.large (id INT PRIMARY KEY, v LONGBLOB, n INT);\n\
        CREATE TABLE shop.many (id INT PRIMARY KEY, v INT)";
    lab.exec_everywhere(made).await;
    let many = (0..=MANY).map(|id| format!("({id},0)")).collect::<Vec<_>>().join(",");
    lab.regions[2].db.exec(&format!("INSERT INTO shop.many VALUES {many}")).await;
    let rows = "INSERT INTO shop.large VALUES ";
    let values = (1..=4).map(|id| format!("({id},REPEAT('x',700000),0)"));
    lab.regions[2].db.exec(&format!("{rows}{}", values.collect::<Vec<_>>().join(","))).await;
    for table in ["latest", "priority", "stock", "parts", "uniq"] {
        let sql = format!("DELETE FROM shop.{table} WHERE id <= 3");
        lab.regions[2].db.exec(&sql).await;
    }
    let sql = "INSERT INTO shop.latest VALUES (1,1,'a',NULL),(2,1,'b',NULL),(3,1,'c',NULL);
        INSERT INTO shop.priority VALUES (1,1),(2,1); INSERT INTO shop.stock (id, n, v) VALUES (1,5,1),(2,5,1);
        INSERT INTO shop.parts (id, a, b, n) VALUES (1,1,1,1),(2,1,1,1);
        INSERT INTO shop.uniq VALUES (1,'a',1),(2,'b',1);";
    lab.regions[2].db.exec(sql).await;
    let tables: Vec<&str> = TABLES.into_iter().chain(["shop.large", "shop.many"]).collect();
    lab.converge(&tables, PATIENCE).await;

    let ends = log::ends(lab).await;
    for region in &lab.regions[..2] {
        for (table, id) in TAKEN {
            let sql = format!("SET sql_log_bin = 0; DELETE FROM shop.{table} WHERE id = {id}");
            region.db.exec(&sql).await;
        }
        let sql = "SET sql_log_bin = 0; DELETE FROM shop.many WHERE id <> 7";
        region.db.exec(sql).await;
    }
    let sql = "BEGIN; UPDATE shop.latest SET v = v + 1 WHERE id IN (1, 3);
        DELETE FROM shop.latest WHERE id = 2; UPDATE shop.priority SET v = 9;
        UPDATE shop.stock SET n = n + 1; UPDATE shop.parts SET a = a + 1, n = n + 1;
        UPDATE shop.uniq SET v = v + 1 WHERE id <= 2; COMMIT;
        UPDATE shop.large SET v = REPEAT('y',700000), n = 1; UPDATE shop.many SET v = 1;";
    lab.regions[2].db.exec(sql).await;
    lab.converge(&tables, PATIENCE).await;

    let wanted: BTreeSet<(String, i64)> =
        TAKEN.iter().map(|&(table, id)| (format!("shop.{table}"), id)).collect();
    let logs = log::Logs::after(lab, &ends).await;
    let told = TAKEN.len() + MANY;
    assert_eq!(logs.sizes(), [told, told, 0]);
    for n in 0..2 {
        let many = "SELECT COUNT(DISTINCT entry) FROM causeway.conflicts \
            WHERE kind = 'row_missing' AND table_name = 'shop.many'";
        assert_eq!(lab.regions[n].db.number(many).await, i64::try_from(MANY).unwrap());
        let args = ["export", "--kind", "row_missing"];
        let (code, out, err) = lab.conflicts(n, &args).await;
        assert_eq!(code, 0, "{err}");
        let told = out.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
        let told: Vec<_> = told.filter(|held| held["entry"]["table"] != "shop.many").collect();
        let rows = told.iter().map(|held| {
            let entry = &held["entry"];
            assert!(entry["existing"].is_null() && entry["incoming"]["origin"] == 3, "{entry}");
            assert!(entry["incoming"]["gtid"].is_string(), "{entry}");
            (entry["table"].as_str().unwrap().to_owned(), entry["key"]["id"].as_i64().unwrap())
        });
        assert_eq!(rows.collect::<BTreeSet<_>>(), wanted, "at region {n}");
        let id = told[0]["id"].to_string();
        let (code, out, err) = lab.conflicts(n, &["restore", &id, "--yes"]).await;
        assert!(code == 2 && err.contains("nothing was lost"), "{code}: {out}{err}");
        let (code, out, err) = lab.conflicts(n, &["show", &id]).await;
        assert!(code == 0 && out.contains("row_missing"), "{code}: {out}{err}");
        let (code, out, err) = lab.conflicts(n, &["verify"]).await;
        assert_eq!(code, 0, "{out}{err}");
    }
}
