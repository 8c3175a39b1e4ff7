//! The bad cases: rows chosen evenly, one hot row, conflicts, one huge transaction.

use std::time::Instant;

use serde_json::{Value, json};

use crate::catch_up::{self, equal, per_second};
use crate::lab::compare;
use crate::load::{self, Rows};
use crate::say;
use crate::site::{PATIENCE, Site, applied};

const EVEN: u32 = 40_000;
const HOT: u32 = 10_000;
const CONFLICTING: u32 = 10_000;
const HUGE_ROWS: u32 = 300_000;

/// Each against MariaDB's own with 8 threads, but for conflicts, which it has no
/// answer to.
pub(crate) async fn measure(site: &Site) -> Value {
    let replica = &site.replicas[0].1;
    catch_up::mariadb(site, replica).await;
    let even = catch_up::causeway(site, EVEN, Rows::Uniform, 2).await;
    let even = compared("rows chosen evenly", even, catch_up::mariadb(site, replica).await);
    let hot = hot_row(site).await;
    let hot = compared("one hot row", hot, catch_up::mariadb(site, replica).await);
    let huge = huge(site).await;
    equal(site, replica).await;
    let conflicts = conflicts(site).await;
    json!({
        "rows_chosen_evenly": even,
        "one_hot_row": hot,
        "one_huge_transaction": huge,
        "conflicts": conflicts,
    })
}

fn compared(what: &str, ours: f64, theirs: f64) -> Value {
    let times = (ours / theirs * 100.0).round() / 100.0;
    say!("{what}: Causeway {ours:.0}/s, MariaDB's own {theirs:.0}/s, {times} times");
    json!({
        "causeway_transactions_per_s": ours.round(),
        "mariadb_8_threads_transactions_per_s": theirs.round(),
        "times": times,
    })
}

/// Transactions that all update one row.
async fn hot_row(site: &Site) -> f64 {
    say!("{HOT} transactions that update one row");
    site.pause(1, true).await;
    let update = format!(
        "BEGIN NOT ATOMIC DECLARE i INT DEFAULT 0; WHILE i < {HOT} DO \
         UPDATE shop.hot SET n = n + 1; SET i = i + 1; END WHILE; END"
    );
    site.source().exec(&update).await;
    let through = site.shipped(0).await;
    catch_up::resume(site, through).await
}

/// One transaction of many rows: from its commit to its being visible at the peer.
async fn huge(site: &Site) -> Value {
    say!("one transaction of {HUGE_ROWS} rows");
    let before = Instant::now();
    site.source()
        .exec(&format!(
            "INSERT INTO shop.huge SELECT seq, REPEAT('12345678901-', 10) \
             FROM shop.seq_1_to_{HUGE_ROWS}"
        ))
        .await;
    let wrote = before.elapsed();
    let start = Instant::now();
    // Not all are counted: that would read what is not committed yet, again and again.
    let ends = format!("SELECT COUNT(*) FROM shop.huge WHERE id IN (1, {HUGE_ROWS})");
    let mut visible = 0;
    while visible < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        visible = site.target().number(&ends).await;
        assert!(visible != 1, "half a transaction is visible");
        assert!(start.elapsed() < PATIENCE, "the huge transaction has not arrived");
    }
    let ours = start.elapsed();
    let all = site.target().number("SELECT COUNT(*) FROM shop.huge").await;
    assert_eq!(all, i64::from(HUGE_ROWS), "half a transaction is visible");
    let replica = &site.replicas[0].1;
    let relayed = Instant::now();
    catch_up::mariadb(site, replica).await;
    let theirs = relayed.elapsed();
    say!("written in {wrote:.2?}, visible after {ours:.2?}; MariaDB's own {theirs:.2?}");
    json!({
        "rows": HUGE_ROWS,
        "causeway_s": ours.as_secs_f64(),
        "mariadb_s": theirs.as_secs_f64(),
    })
}

/// Both regions write the same rows without having seen each other.
async fn conflicts(site: &Site) -> Value {
    say!("both regions write the same rows, {CONFLICTING} transactions each");
    site.pause(0, true).await;
    site.pause(1, true).await;
    load::write(site.source(), CONFLICTING, Rows::Special, 3).await;
    load::write(site.target(), CONFLICTING, Rows::Special, 4).await;
    let through = (site.shipped(0).await, site.shipped(1).await);
    let before = counted(site).await;
    let start = Instant::now();
    site.pause(0, false).await;
    site.pause(1, false).await;
    applied(site.target(), 1, through.0).await;
    applied(site.source(), 2, through.1).await;
    let rate = per_second(2 * i64::from(CONFLICTING), start.elapsed());
    let tables = load::tables();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    compare::converge(&[site.source(), site.target()], &tables, PATIENCE).await;
    let met = counted(site).await - before;
    say!("{rate:.0} transactions/s in both directions together, {met} conflicts");
    json!({ "transactions_per_s": rate.round(), "conflicts": met })
}

async fn counted(site: &Site) -> i64 {
    let here = site.status(0).await["streams"]["r2"]["conflicts"].as_i64().unwrap_or(0);
    here + site.status(1).await["streams"]["r1"]["conflicts"].as_i64().unwrap_or(0)
}
