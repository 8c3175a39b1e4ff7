//! `causeway conflicts` on the logs that the policies have filled.

use std::process::Stdio;

use causeway::conflicts::{self, Keep, Restored};
use mysql_async::prelude::Queryable as _;
use serde_json::Value as Json;
use tokio::io::AsyncReadExt as _;

use super::lab::PATIENCE;
use super::lab::db::Database;
use super::lab::region::Lab;
use super::policies::TABLES;

/// What a pipe holds that nobody reads.
const PIPE: usize = 64 << 10;

/// By number, by size and by age the oldest go, never one between others, and never the last.
async fn pruned(db: &Database) {
    let mut conn = mysql_async::Conn::new(db.opts()).await.unwrap();
    let mut keep = async |since_us: u64, entries: u64, bytes: u64| {
        let keep = Keep { since_us, entries, bytes };
        conflicts::prune(&mut conn, &keep).await.unwrap();
        db.number("SELECT COUNT(*) FROM causeway.conflicts").await
    };
    let all = db.number("SELECT COUNT(*) FROM causeway.conflicts").await;
    assert_eq!(keep(0, u64::MAX, u64::MAX).await, all);
    assert_eq!(keep(0, 200, u64::MAX).await, 200);
    let bytes = db
        .number(
            "SELECT SUM(bytes) FROM (SELECT LENGTH(entry) bytes FROM causeway.conflicts \
             ORDER BY id DESC LIMIT 180) newest",
        )
        .await;
    let bytes = u64::try_from(bytes).unwrap();
    assert_eq!(keep(0, u64::MAX, bytes).await, 180);
    assert_eq!(keep(0, u64::MAX, bytes - 1).await, 179);
    // One that looks old stands between others, as where a clock was set back.
    db.exec("UPDATE causeway.conflicts SET at_us = 5 ORDER BY id DESC LIMIT 51").await;
    db.exec("UPDATE causeway.conflicts SET at_us = 9 ORDER BY id DESC LIMIT 50").await;
    db.exec("UPDATE causeway.conflicts SET at_us = 1 ORDER BY id LIMIT 79").await;
    assert_eq!(keep(9, u64::MAX, u64::MAX).await, 100);
}

fn loser(entry: &Json) -> &'static str {
    if entry["winner"] == "incoming" { "existing" } else { "incoming" }
}

/// The newest such entry of a table, as (id, entry).
async fn newest(lab: &Lab, table: &str, such: impl Fn(&Json) -> bool) -> (u64, Json) {
    let list = ["list", "--table", table, "--limit", "10000", "-o", "json"];
    let (code, out, err) = lab.conflicts(0, &list).await;
    assert_eq!(code, 0, "{err}");
    let listed: Vec<Json> = serde_json::from_str(&out).unwrap();
    let mut found = listed.into_iter().rev().find(|held| such(&held["entry"])).expect("one");
    (found["id"].as_u64().unwrap(), found["entry"].take())
}

/// One whose loser is a row that was kept.
async fn lost(lab: &Lab, table: &str) -> (u64, Json) {
    let such = |entry: &Json| {
        let write = &entry[loser(entry)];
        entry["winner"] != "both" && write["action"] != "delete" && write["after"].is_object()
    };
    newest(lab, table, such).await
}

/// Where two writes shared the columns that both had changed, each gets its own back.
async fn exchanged(lab: &Lab) {
    let such = |entry: &Json| entry["winner"] == "both" && entry["columns"].is_object();
    let (id, entry) = newest(lab, "shop.parts", such).await;
    let key = &entry["key"]["id"];
    let sum = format!("SELECT n FROM shop.parts WHERE id = {key}");
    let before = lab.regions[0].db.number(&sum).await;
    let (code, out, err) = lab.conflicts(0, &["restore", &id.to_string(), "--yes"]).await;
    assert!(code == 0 && err.contains("what each side lost"), "{out}{err}");
    lab.converge(&["shop.parts"], PATIENCE).await;
    for region in &lab.regions {
        assert_eq!(region.db.number(&sum).await, before);
        for name in ["a", "b"] {
            let won = &entry["columns"]["incoming"].as_array().unwrap()[0];
            let loser = if won == name { "existing" } else { "incoming" };
            let held = format!("SELECT {name} FROM shop.parts WHERE id = {key}");
            let wanted = entry[loser]["after"][name].as_i64();
            assert_eq!(Some(region.db.number(&held).await), wanted, "{name}: {entry}");
        }
    }
}

/// What a policy keeps of the loser is not written again, nor what it takes from nobody.
async fn restored_under_policies(lab: &Lab) {
    let db = &lab.regions[0].db;
    let (id, entry) = lost(lab, "shop.stock").await;
    let (wanted, key) = (&entry[loser(&entry)]["after"]["v"], &entry["key"]["id"]);
    let sum = format!("SELECT CAST(n * 100 AS SIGNED) FROM shop.stock WHERE id = {key}");
    let before = db.number(&sum).await;
    db.exec(&format!("UPDATE shop.stock SET v = -1 WHERE id = {key}")).await;
    let (code, out, err) = lab.conflicts(0, &["restore", &id.to_string(), "--yes"]).await;
    assert!(code == 0 && !err.contains("`n`"), "{out}{err}");
    lab.converge(&["shop.stock"], PATIENCE).await;
    for region in &lab.regions {
        assert_eq!(region.db.number(&sum).await, before, "the loser's share was in the sum");
        let v = region.db.number(&format!("SELECT v FROM shop.stock WHERE id = {key}")).await;
        assert_eq!(Some(v), wanted.as_i64());
    }

    let (id, entry) = lost(lab, "shop.journal").await;
    let rows = "SELECT CAST(COUNT(*) + SUM(v) AS SIGNED) FROM shop.journal";
    let before = db.number(rows).await;
    let (code, out, err) = lab.conflicts(0, &["restore", &id.to_string(), "--yes"]).await;
    assert!(code == 2 && err.contains("`insert_only`"), "{code}: {out}{err}: {entry}");
    assert_eq!(db.number(rows).await, before);
}

/// A reader that has read enough of an export of `length` bytes ends it.
async fn cut_short(lab: &Lab, length: usize) {
    assert!(length > 4 * PIPE, "{length}");
    let mut export = lab.command(1, &["conflicts", "export"]);
    let mut export = export.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = export.stdout.take().unwrap();
    assert!(reader.read(&mut [0; 10]).await.unwrap() > 0);
    drop(reader);
    let ended = tokio::time::timeout(PATIENCE, export.wait_with_output()).await;
    let ended = ended.expect("it ends").unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(0) && said.is_empty(), "{}: {said}", ended.status);
}

/// Somebody wrote the row while the question stood open.
async fn changed_meanwhile(lab: &Lab) {
    let db = &lab.regions[0].db;
    let topology =
        causeway::topology::parse(&std::fs::read_to_string(lab.files(0).0).unwrap()).unwrap();
    let (id, entry) = lost(lab, "shop.latest").await;
    let key = &entry["key"]["id"];
    let mut conn = mysql_async::Conn::new(db.opts()).await.unwrap();
    conn.query_drop(format!("SET {}", causeway::database::SESSION)).await.unwrap();
    db.exec(&format!("REPLACE INTO shop.latest VALUES ({key}, -1, 'now', NULL)")).await;
    let held = conflicts::get(&mut conn, id).await.unwrap();
    let shown = conflicts::restore(&mut conn, &held, &topology).await.unwrap();
    db.exec(&format!("UPDATE shop.latest SET v = -2 WHERE id = {key}")).await;
    let done = conflicts::write(&mut conn, &held, &topology, &shown).await.unwrap();
    assert_eq!(done, Restored::Changed);
    let v = format!("SELECT v FROM shop.latest WHERE id = {key}");
    assert_eq!(db.number(&v).await, -2);
    let shown = conflicts::restore(&mut conn, &held, &topology).await.unwrap();
    let done = conflicts::write(&mut conn, &held, &topology, &shown).await.unwrap();
    assert_eq!(done, Restored::Written);
    assert_eq!(Some(db.number(&v).await), entry[loser(&entry)]["after"]["v"].as_i64());
}

/// What region 0 does not log of a write that was here, `show` reads from the records of
/// its region: the same that a region to which it came logged of it.
async fn looked_up(lab: &Lab, table: &str, kind: &str) {
    let (code, out, err) = lab.conflicts(1, &["export", "--table", table]).await;
    assert_eq!(code, 0, "{err}");
    let came: Vec<Json> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let whole = |entry: &Json| {
        let write = &entry["existing"];
        came.iter().map(|held| &held["entry"]).find_map(|other| {
            let same = ["origin", "seq", "hlc", "after"]
                .iter()
                .all(|at| other["incoming"][at] == write[at] && !write[at].is_null());
            (same && write["gtid"].is_null() && entry["kind"] == kind).then(|| &other["incoming"])
        })
    };
    let (id, entry) = newest(lab, table, |entry| whole(entry).is_some()).await;
    let wanted = whole(&entry).unwrap();
    let (code, out, err) = lab.conflicts(0, &["show", &id.to_string()]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let shown: Json = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["entry"], entry, "the entry is what is chained");
    assert!(wanted["gtid"].as_str().is_some_and(|gtid| gtid.len() > 4), "{wanted}");
    for name in ["gtid", "before", "after"] {
        assert_eq!(shown["records"]["existing"][name], wanted[name], "{name}: {out}");
    }
}

/// What an entry does not hold of the loser comes from the records of its region.
async fn restored_from_records(lab: &Lab) {
    let such = |entry: &Json| {
        let write = &entry["existing"];
        let gone = write["origin"].is_number() && write["after"].is_null();
        entry["winner"] == "incoming" && gone && write["before"].is_null()
    };
    let (id, entry) = newest(lab, "shop.latest", such).await;
    let key = &entry["key"]["id"];
    let (code, out, err) = lab.conflicts(0, &["restore", &id.to_string(), "--yes"]).await;
    assert_eq!(code, 0, "{out}{err}: {entry}");
    lab.converge(&["shop.latest"], PATIENCE).await;
    let (_, shown, _) = lab.conflicts(0, &["show", &id.to_string()]).await;
    let shown: Json = serde_json::from_str(&shown).unwrap();
    let wanted = shown["records"]["existing"]["after"]["v"].as_i64();
    let v = format!("SELECT v FROM shop.latest WHERE id = {key}");
    let held: Vec<i64> = lab.regions[2].db.rows(&v).await;
    assert_eq!(held.first().copied(), wanted, "{entry}");
}

/// What is asked for in vain is told.
async fn filters(lab: &Lab) {
    let (code, _, err) = lab.conflicts(0, &["list", "--kind", "update_updat"]).await;
    assert!(code == 64 && err.contains("update_update"), "{code}: {err}");
    let (code, _, err) = lab.conflicts(0, &["list", "--table", "shop.latests"]).await;
    assert!(code == 0 && err.contains("did you mean `shop.latest`?"), "{code}: {err}");
    for (name, value) in [("policy", "region_priority"), ("winner", "existing")] {
        let option = format!("--{name}");
        let (code, out, err) = lab.conflicts(0, &["export", &option, value]).await;
        assert_eq!(code, 0, "{err}");
        let counted = format!("SELECT COUNT(*) FROM causeway.conflicts WHERE {name} = '{value}'");
        let wanted = lab.regions[0].db.number(&counted).await;
        assert!(wanted > 0 && i64::try_from(out.lines().count()).unwrap() == wanted, "{wanted}");
        let is_so =
            |line: &str| serde_json::from_str::<Json>(line).unwrap()["entry"][name] == value;
        assert!(out.lines().all(is_so));
    }
}

/// The command line on these logs: whole, then a row taken back, then a log that someone
/// has altered.
pub(crate) async fn commands(lab: &Lab) {
    for n in 0..3 {
        let (code, out, err) = lab.conflicts(n, &["verify"]).await;
        assert_eq!(code, 0, "{out}{err}");
    }
    looked_up(lab, "shop.latest", "update_update").await;
    looked_up(lab, "shop.uniq", "unique_key").await;
    let (id, lost) = lost(lab, "shop.latest").await;
    let (id, key) = (id.to_string(), lost["key"]["id"].to_string());
    // The session's settings are the command's own.
    let server = "SET GLOBAL time_zone = '+05:00';\nSET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES'";
    lab.regions[0].db.exec(server).await;
    let (code, _, err) = lab.conflicts(0, &["restore", &id]).await;
    assert_eq!(code, 64, "nobody can be asked: {err}");
    let (code, out, err) = lab.conflicts(0, &["restore", &id, "--yes"]).await;
    assert_eq!(code, 0, "{out}{err}");
    let wanted = &lost[loser(&lost)]["after"];
    lab.converge(&TABLES, PATIENCE).await;
    let w: String = wanted["w"].as_str().unwrap().bytes().map(|b| format!("{b:02X}")).collect();
    let sql = format!(
        "SELECT COUNT(*) FROM shop.latest WHERE id = {key} AND v = {} AND HEX(w) = '{w}' \
         AND at = CONVERT_TZ('{}', '+00:00', @@session.time_zone)",
        wanted["v"],
        wanted["at"].as_str().unwrap()
    );
    assert_eq!(lab.regions[2].db.number(&sql).await, 1, "restored everywhere: {wanted}");
    restored_under_policies(lab).await;
    exchanged(lab).await;
    restored_from_records(lab).await;
    changed_meanwhile(lab).await;
    lab.converge(&TABLES, PATIENCE).await;
    filters(lab).await;

    let (_, stats, _) = lab.conflicts(1, &["stats"]).await;
    assert!(stats.contains("shop.uniq") && stats.contains("region_priority"), "{stats}");
    let (_, lines, _) = lab.conflicts(1, &["export"]).await;
    let count = lab.regions[1].db.number("SELECT COUNT(*) FROM causeway.conflicts").await;
    assert_eq!(i64::try_from(lines.lines().count()).unwrap(), count);
    cut_short(lab, lines.len()).await;
    let db = &lab.regions[1].db;
    db.exec(
        "UPDATE causeway.conflicts SET entry = REPLACE(entry, 'region', 'Region') WHERE id = 3",
    )
    .await;
    let (code, out, _) = lab.conflicts(1, &["verify"]).await;
    assert!(code == 1 && out.contains("entry 3 was altered"), "{code}: {out}");
    db.exec("DELETE FROM causeway.conflicts WHERE id = 3").await;
    let (code, out, _) = lab.conflicts(1, &["verify"]).await;
    assert!(code == 1 && out.contains("entries 3 to 3 are missing"), "{code}: {out}");
    pruned(&lab.regions[2].db).await;
    let (code, out, _) = lab.conflicts(2, &["verify"]).await;
    assert!(code == 0 && out.contains("100 entries"), "{code}: {out}");
    let last = lab.regions[2].db.number("SELECT MAX(id) FROM causeway.conflicts").await;
    let head = "UPDATE causeway.conflict_head SET hash = REVERSE(hash) WHERE id = 1";
    lab.regions[2].db.exec(head).await;
    let (code, out, _) = lab.conflicts(2, &["verify"]).await;
    assert!(code == 1 && out.contains(&format!("entry {last} was altered")), "{code}: {out}");
    lab.regions[2].db.exec(head).await;
    lab.regions[2].db.exec(&format!("DELETE FROM causeway.conflicts WHERE id = {last}")).await;
    let (code, out, _) = lab.conflicts(2, &["verify"]).await;
    assert!(code == 1 && out.contains("are missing"), "{code}: {out}");
    let first = lab.regions[2].db.number("SELECT MIN(id) FROM causeway.conflicts").await;
    lab.regions[2].db.exec(&format!("DELETE FROM causeway.conflicts WHERE id = {first}")).await;
    let (code, out, _) = lab.conflicts(2, &["verify"]).await;
    let wanted = format!("entries {first} to {first} are missing; 0 entries before");
    assert!(code == 1 && out.contains(&wanted), "{code}: {out}");
}
