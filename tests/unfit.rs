//! Tables that can't be kept right: the agent refuses them by name, and nothing differs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use causeway::status::{CaptureState, DdlHold};
use lab::PATIENCE;
use lab::db::Flavour;
use lab::region::{Lab, Region};

/// Waits until the agent refuses to go on, and says this.
async fn refuses(region: &Region, wanted: &str) {
    lab::wait_until(wanted, PATIENCE, || async {
        region.status().await.is_some_and(|status| {
            let told = status.reason.unwrap_or_default();
            status.capture.state == CaptureState::Halted && told.contains(wanted)
        })
    })
    .await;
    let advice = region.status().await.unwrap().capture.advice.unwrap();
    assert!(advice.contains("in all regions"), "{advice}");
}

/// Writes a row there and waits until it has arrived; schema changes that wait are
/// released meanwhile.
async fn goes_on(from: &Region, to: &Region, row: u32) {
    from.db.exec(&format!("INSERT INTO shop.child VALUES ({row}, NULL)")).await;
    lab::wait_until("what is written then arrives", PATIENCE, || async {
        for DdlHold { id, .. } in from.status().await.into_iter().flat_map(|status| status.ddl) {
            from.agent.as_ref().unwrap().post(&format!("/ddl/{id}/release")).await;
        }
        let count = format!("SELECT COUNT(*) FROM shop.child WHERE id = {row}");
        to.db.number(&count).await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triggers_cascades_and_engines_are_refused_by_name() {
    let mut lab = Lab::start(&[Flavour::MariaDb, Flavour::MySql80]).await;
    lab.exec_everywhere(
        "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY);\n\
         CREATE TABLE shop.parent (id INT PRIMARY KEY);\n\
         CREATE TABLE shop.child (id INT PRIMARY KEY, p INT);\n",
    )
    .await;
    let trigger = "CREATE TRIGGER shop.counts AFTER INSERT ON shop.t FOR EACH ROW \
        REPLACE INTO shop.parent VALUES (NEW.id)";
    lab.regions[1].db.exec(trigger).await;
    lab.begin_agent(0);
    lab.begin_agent(1);
    let (r1, r2) = (&lab.regions[0], &lab.regions[1]);
    refuses(r2, "shop.t: trigger counts").await;
    lab::wait_until("the other region has begun", PATIENCE, || async {
        r1.status().await.is_some_and(|status| status.capture.state == CaptureState::Running)
    })
    .await;
    r1.db.exec("INSERT INTO shop.t VALUES (1)").await;
    let told = r2.status().await.unwrap();
    assert!(told.epoch.is_none(), "it takes nothing over: {told:?}");
    assert_eq!(r2.db.number("SELECT COUNT(*) FROM shop.t").await, 0);
    r2.db.exec("DROP TRIGGER shop.counts").await;
    lab::wait_until("it begins by itself", PATIENCE, || async {
        r2.status().await.is_some_and(|status| status.capture.state == CaptureState::Running)
    })
    .await;
    goes_on(r2, r1, 1).await;

    // While it runs, by a schema change, and by a table that is new.
    r2.db.exec(trigger).await;
    refuses(r2, "shop.t: trigger counts").await;
    r1.db.exec("INSERT INTO shop.t VALUES (2)").await;
    r2.db.exec("DROP TRIGGER shop.counts").await;
    goes_on(r2, r1, 2).await;
    r2.db
        .exec(
            "ALTER TABLE shop.child ADD CONSTRAINT follows FOREIGN KEY (p) \
             REFERENCES shop.parent (id) ON DELETE CASCADE",
        )
        .await;
    refuses(r2, "shop.child: foreign key follows: ON DELETE CASCADE").await;
    r2.db.exec("ALTER TABLE shop.child DROP FOREIGN KEY follows").await;
    goes_on(r2, r1, 3).await;
    r2.db.exec("CREATE TABLE shop.plain (id INT PRIMARY KEY) ENGINE=MyISAM").await;
    refuses(r2, "shop.plain: the engine is MyISAM").await;
    r2.db.exec("DROP TABLE shop.plain").await;
    goes_on(r2, r1, 4).await;
    r1.db.exec("INSERT INTO shop.t VALUES (3)").await;
    lab.converge(&["shop.t", "shop.parent", "shop.child"], PATIENCE).await;
    assert_eq!(r2.db.number("SELECT COUNT(*) FROM shop.parent").await, 0, "no trigger fired");
}
