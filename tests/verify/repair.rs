//! What a repair leaves behind it, and what it yields to.

use std::process::Stdio;

use causeway::compare::Cursor;
use causeway::verify::Repairer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// By region the last transaction that went into the outbox.
async fn shipped(lab: &Lab) -> Vec<f64> {
    let all = (0..3).map(|n| metric(lab, n, "causeway_outbox_records_total"));
    join_all(all).await
}

async fn stream(lab: &Lab, region: usize, origin: &str, order: &str, state: &str) {
    let agent = lab.regions[region].agent.as_ref().unwrap();
    assert_eq!(agent.post(&format!("/streams/{origin}/{order}")).await.unwrap().0, 204);
    wait_until("the stream does as ordered", lab::PATIENCE, || async {
        let status = agent.get("/status").await.unwrap_or_default().1;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        status["streams"][origin]["state"] == state
    })
    .await;
}

/// What `carry_out` says of the only row that differs, after `act`.
async fn repaired<F: Future<Output = ()>>(
    config: &Config<'_>,
    act: impl FnOnce() -> F,
) -> (RepairOutcome, String) {
    let (report, _) =
        compare(config, None, CancellationToken::new(), |_| std::future::ready(())).await;
    let stop = CancellationToken::new();
    let mut repairer = Repairer::open(config, "me".to_owned(), stop).await.unwrap();
    let (proposals, undecided) = repairer.propose(&report, Some("r1"), &mut |_| ()).await.unwrap();
    assert_eq!((proposals.len(), undecided.len()), (1, 0), "{report:?}");
    act().await;
    let repair = repairer.carry_out(&proposals[0]).await.unwrap();
    repairer.close().await;
    (repair.outcome, repair.why)
}

/// What is written between the look and the lock, or is in flight, refuses a repair.
async fn refuse(lab: &Lab, spoil: &str, amount: &str) {
    let topology = topology(lab);
    let mut pay = config(&topology, "shop.pay");

    // Written after it was shown, where it is repaired and where it stands.
    for region in [1, 0] {
        silent(&lab.regions[1].db, spoil).await;
        let done = repaired(&pay, || async {
            lab.regions[region].db.exec("UPDATE shop.pay SET amount = 600 WHERE id = 5").await;
        })
        .await;
        assert_eq!(done.0, RepairOutcome::Refused, "{}", done.1);
        lab.regions[region].db.exec("UPDATE shop.pay SET amount = 601 WHERE id = 5").await;
        lab.converge(&["shop.pay"], lab::PATIENCE).await;
    }

    // Written twice, and now as it was: what is in flight decides, not the look of it.
    silent(&lab.regions[1].db, spoil).await;
    pay.patience = Duration::from_secs(3);
    let done = repaired(&pay, || async {
        stream(lab, 0, "r2", "pause", "paused").await;
        for amount in [602, -1] {
            let sql = format!("UPDATE shop.pay SET amount = {amount} WHERE id = 5");
            lab.regions[1].db.exec(&sql).await;
        }
    })
    .await;
    assert_eq!(done.0, RepairOutcome::Refused, "{}", done.1);
    stream(lab, 0, "r2", "resume", "running").await;
    lab.converge(&["shop.pay"], lab::PATIENCE).await;
    assert_eq!(lab.regions[0].db.number(amount).await, -1);
}

/// Ctrl-C while it compares: what has been found until then is not repaired.
async fn stopped_while_it_compares(lab: &Lab) {
    let topology = topology(lab);
    let pay = config(&topology, "shop.pay");
    let silence = |_| std::future::ready(());
    let (mut report, _) = compare(&pay, None, CancellationToken::new(), silence).await;
    report.finished_us = None;
    let state = State { report, cursor: Some(Cursor::default()) };
    let path = lab.regions[0].topology.with_file_name("state.json");
    std::fs::write(&path, serde_json::to_string(&state).unwrap()).unwrap();

    // A table that is locked holds the comparison up.
    let mut lock = lab.regions[1].db.conn().await;
    lock.query_drop("LOCK TABLES shop.pay WRITE").await.unwrap();
    let state = path.display().to_string();
    let (words, _) =
        command(lab, &["--state", &state, "--repair", "--from", "r1", "--yes", "shop.pay"]);
    let program = tokio::process::Command::new(&words[0])
        .args(&words[1..])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_until("it reads the table", lab::PATIENCE, || async {
        let waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                       WHERE STATE LIKE 'Waiting for table%' AND INFO LIKE '%`pay`%'";
        lab.regions[1].db.number(waiting).await > 0
    })
    .await;
    let id = program.id().unwrap().to_string();
    let killed = tokio::process::Command::new("kill").args(["-INT", &id]).status().await.unwrap();
    assert!(killed.success());
    lock.query_drop("UNLOCK TABLES").await.unwrap();
    lock.disconnect().await.unwrap();
    let output = program.wait_with_output().await.unwrap();
    let shown = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("nothing was repaired: the comparison was stopped"), "{shown}");
}

/// Ctrl-C where the operator is asked is a no. A shell that stayed between (`dash` does) would
/// be ended by it too, and its status be told.
async fn stopped_at_the_question(lab: &Lab) {
    let (words, _) = command(lab, &["--repair", "--from", "r1", "shop.pay"]);
    let mut terminal = tokio::process::Command::new("script")
        .args(["-qefc", &format!("exec {}", words.join(" ")), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.contains("? [y/N]") {
        let mut some = [0; 4096];
        let read = tokio::time::timeout(lab::PATIENCE, screen.read(&mut some)).await.unwrap();
        shown += &String::from_utf8_lossy(&some[..read.unwrap()]);
        assert!(!some.starts_with(&[0]), "{shown}");
    }
    keys.write_all(b"\x03").await.unwrap();
    let mut rest = String::new();
    let read = screen.read_to_string(&mut rest);
    tokio::time::timeout(lab::PATIENCE, read).await.unwrap().unwrap();
    assert!(rest.contains("nothing was written") && rest.contains("0 rows repaired"), "{rest}");
    assert_eq!(terminal.wait().await.unwrap().code(), Some(1), "{rest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_is_shipped_to_nobody_and_yields_to_every_genuine_write() {
    let lab = start().await;
    let amount = "SELECT amount FROM shop.pay WHERE id = 5";
    let spoil = "UPDATE shop.pay SET amount = -1 WHERE id = 5";
    for region in [1, 2] {
        silent(&lab.regions[region].db, spoil).await;
        silent(&lab.regions[region].db, "DELETE FROM shop.pay WHERE id = 6").await;
        silent(&lab.regions[region].db, "INSERT INTO shop.pay VALUES (-7, 7, 'ü')").await;
    }
    let before = shipped(&lab).await;
    let (status, report, shown) = verify(&lab, &["--repair", "shop.pay"]).await;
    assert_eq!(status, 1, "nobody knows which row stands, and nobody was asked: {shown}");
    let undecided = |report: Report| report.repairs.iter().filter(|r| r.region.is_none()).count();
    assert_eq!(undecided(report.unwrap()), 3, "{shown}");
    let (status, _, shown) = verify(&lab, &["--repair", "--from", "r1", "shop.pay"]).await;
    assert_eq!(status, 1, "nobody agreed: {shown}");
    assert!(shown.contains("shop.pay id=5: r2 gets the row of r1"), "{shown}");
    assert!(shown.contains("amount: -1 -> 155"), "{shown}");
    stopped_while_it_compares(&lab).await;
    stopped_at_the_question(&lab).await;
    assert_eq!(lab.regions[1].db.number(amount).await, -1);

    let repair = ["--repair", "--from", "r1", "--yes", "shop.pay"];
    let (status, _, shown) = verify(&lab, &repair).await;
    assert_eq!(status, 0, "{shown}");
    for region in [1, 2] {
        wait_until("capture has read the repairs", lab::PATIENCE, || async {
            metric(&lab, region, "causeway_capture_repairs_total").await >= 3.0
        })
        .await;
        let logged = "SELECT COUNT(*) FROM causeway.conflicts WHERE kind = 'repair'";
        assert_eq!(lab.regions[region].db.number(logged).await, 3);
        assert_eq!(lab.regions[region].db.number(amount).await, 155);
    }
    assert_eq!(shipped(&lab).await, before, "a repair was shipped");
    let mut conn = lab.regions[1].db.conn().await;
    let walked = causeway::conflicts::verify(&mut conn, |_| ()).await.unwrap();
    assert_eq!((walked.entries, walked.problem), (3, None));
    conn.disconnect().await.unwrap();

    lab.regions[1].db.exec("UPDATE shop.pay SET amount = 499 WHERE id = 5").await;
    lab.converge(&["shop.pay"], lab::PATIENCE).await;
    lab.regions[2].db.exec("UPDATE shop.pay SET amount = 500 WHERE id = 5").await;
    lab.converge(&["shop.pay"], lab::PATIENCE).await;
    assert_eq!(lab.regions[1].db.number(amount).await, 500, "a later write wins");

    // The last write decides, whatever most regions have, and whether it wrote or deleted.
    lab.regions[0].db.exec("DELETE FROM shop.pay WHERE id = 8").await;
    lab.converge(&["shop.pay"], lab::PATIENCE).await;
    for region in [0, 1] {
        silent(&lab.regions[region].db, spoil).await;
        silent(&lab.regions[region].db, "INSERT INTO shop.pay VALUES (8, 8, NULL)").await;
    }
    let (status, report, shown) = verify(&lab, &["--repair", "--yes", "shop.pay"]).await;
    assert_eq!((status, report.unwrap().repairs.len()), (0, 4), "{shown}");
    for region in &lab.regions {
        assert_eq!(region.db.number(amount).await, 500);
        assert_eq!(region.db.number("SELECT COUNT(*) FROM shop.pay WHERE id = 8").await, 0);
    }
    let logged =
        "SELECT COUNT(*) FROM causeway.conflicts WHERE entry LIKE '%\"origin\":3,\"seq\":%'";
    assert_eq!(lab.regions[0].db.number(logged).await, 1, "the write that it stands for");
    refuse(&lab, spoil, amount).await;
}
