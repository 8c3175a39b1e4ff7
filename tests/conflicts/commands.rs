//! `causeway conflicts` on the logs that the policies have filled.

use super::lab::PATIENCE;
use super::lab::db::Database;
use super::lab::region::Lab;
use super::policies::TABLES;

/// By number and by age the oldest go, never one between others, and never the last.
async fn pruned(db: &Database) {
    let mut conn = mysql_async::Conn::new(db.opts()).await.unwrap();
    let mut keep = async |older_us: u64, newest: u64| {
        causeway::conflicts::prune(&mut conn, older_us, newest).await.unwrap();
        db.number("SELECT COUNT(*) FROM causeway.conflicts").await
    };
    let all = db.number("SELECT COUNT(*) FROM causeway.conflicts").await;
    assert_eq!(keep(0, u64::MAX).await, all);
    assert_eq!(keep(0, 200).await, 200);
    // One that looks old stands between others, as where a clock was set back.
    db.exec("UPDATE causeway.conflicts SET at_us = 5 ORDER BY id DESC LIMIT 51").await;
    db.exec("UPDATE causeway.conflicts SET at_us = 9 ORDER BY id DESC LIMIT 50").await;
    db.exec("UPDATE causeway.conflicts SET at_us = 1 ORDER BY id LIMIT 100").await;
    assert_eq!(keep(9, u64::MAX).await, 100);
}

/// The command line on these logs: whole, then a row taken back, then a log that someone
/// has altered.
pub(crate) async fn commands(lab: &Lab) {
    for n in 0..3 {
        let (code, out, err) = lab.conflicts(n, &["verify"]).await;
        assert_eq!(code, 0, "{out}{err}");
    }
    let (code, out, err) =
        lab.conflicts(0, &["list", "--table", "shop.latest", "-o", "json"]).await;
    assert_eq!(code, 0, "{err}");
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let lost = listed.as_array().unwrap().iter().find(|entry| {
        let loser = if entry["entry"]["winner"] == "incoming" { "existing" } else { "incoming" };
        let held = &entry["entry"][loser];
        held["action"] != "delete" && held["after"].is_object()
    });
    let lost = lost.expect("a conflict whose loser was kept");
    let (id, key) = (lost["id"].to_string(), lost["entry"]["key"]["id"].to_string());
    // The session's settings are the command's own.
    let server = "SET GLOBAL time_zone = '+05:00';\nSET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES'";
    lab.regions[0].db.exec(server).await;
    let (code, _, err) = lab.conflicts(0, &["restore", &id]).await;
    assert_eq!(code, 64, "nobody can be asked: {err}");
    let (code, out, err) = lab.conflicts(0, &["restore", &id, "--yes"]).await;
    assert_eq!(code, 0, "{out}{err}");
    let loser = if lost["entry"]["winner"] == "incoming" { "existing" } else { "incoming" };
    let wanted = &lost["entry"][loser]["after"];
    lab.converge(&TABLES, PATIENCE).await;
    let w: String = wanted["w"].as_str().unwrap().bytes().map(|b| format!("{b:02X}")).collect();
    let sql = format!(
        "SELECT COUNT(*) FROM shop.latest WHERE id = {key} AND v = {} AND HEX(w) = '{w}' \
         AND at = CONVERT_TZ('{}', '+00:00', @@session.time_zone)",
        wanted["v"],
        wanted["at"].as_str().unwrap()
    );
    assert_eq!(lab.regions[2].db.number(&sql).await, 1, "restored everywhere: {wanted}");

    let (_, stats, _) = lab.conflicts(1, &["stats"]).await;
    assert!(stats.contains("shop.uniq") && stats.contains("region_priority"), "{stats}");
    let (_, lines, _) = lab.conflicts(1, &["export"]).await;
    let count = lab.regions[1].db.number("SELECT COUNT(*) FROM causeway.conflicts").await;
    assert_eq!(i64::try_from(lines.lines().count()).unwrap(), count);
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
    lab.regions[2].db.exec(&format!("DELETE FROM causeway.conflicts WHERE id = {last}")).await;
    let (code, out, _) = lab.conflicts(2, &["verify"]).await;
    assert!(code == 1 && out.contains("are missing"), "{code}: {out}");
}
