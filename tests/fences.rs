//! An agent that was suspended while another took its region over writes on when it wakes:
//! what it writes is dropped everywhere, and both regions can list who was fenced, and when.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use lab::db::Flavour;
use lab::region::Lab;
use lab::{PATIENCE, wait_until};
use serde_json::Value;

const SHOP: &str = "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, n INT);\n";

/// What region `n` lists, the newest first.
async fn fences(lab: &Lab, n: usize) -> Vec<Value> {
    let (code, said, why) = lab.causeway(n, &["fences", "-o", "json"]).await;
    assert_eq!(code, 0, "{why}");
    serde_json::from_str(&said).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_agent_is_listed_with_what_was_dropped_of_it() {
    let mut lab = Lab::start(&[Flavour::MariaDb; 2]).await;
    lab.exec_everywhere(SHOP).await;
    lab.start_agents().await;
    lab.regions[0].db.exec("INSERT INTO shop.t VALUES (1, 1)").await;
    lab.converge(&["shop.t"], PATIENCE).await;

    let first = lab.regions[0].agent.take().unwrap();
    first.proc.signal("STOP");
    lab.begin_agent(0);
    lab.regions[0].agent().ready().await;
    lab.regions[0].db.exec("INSERT INTO shop.t VALUES (2, 2)").await;
    lab.converge(&["shop.t"], PATIENCE).await;
    first.proc.signal("CONT");
    wait_until("the peer has dropped something", PATIENCE, || async {
        fences(&lab, 1).await.iter().any(|fence| fence["dropped"].is_object())
    })
    .await;
    lab.regions[0].db.exec("INSERT INTO shop.t VALUES (3, 3)").await;
    lab.converge(&["shop.t"], PATIENCE).await;

    let epochs = |fence: &Value| (fence["ended"].as_u64(), fence["begun"].as_u64());
    let taken = fences(&lab, 0).await;
    let [second, begin] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!((epochs(begin), epochs(second)), ((Some(0), Some(1)), (Some(1), Some(2))));
    let pid = |agent: &lab::agent::Agent| format!("process {},", agent.proc.pid());
    assert!(begin["who"].as_str().unwrap().contains(&pid(&first)), "{begin}");
    let now = lab.regions[0].agent.as_ref().unwrap();
    assert!(second["who"].as_str().unwrap().contains(&pid(now)), "{second}");

    let there = fences(&lab, 1).await;
    let dropped = there.iter().find(|fence| fence["dropped"].is_object()).unwrap();
    assert_eq!((&dropped["origin"], epochs(dropped)), (&Value::from(1), (Some(1), Some(2))));
    assert!(dropped["dropped"]["records"].as_u64() > Some(0), "{dropped}");
    let (_, said, _) = lab.causeway(1, &["fences", "--limit", "1"]).await;
    let told = "records of epoch 1 dropped behind epoch 2";
    assert!(said.contains("  r1  ") && said.contains(told), "{said}");
}
