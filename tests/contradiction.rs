//! Regions whose topologies differ: the streams between them are held, by name, the others
//! go on, and nothing is lost once all have the same.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use causeway::status::StreamState;
use lab::PATIENCE;
use lab::db::Flavour;
use lab::region::{Lab, Region};

async fn stream(at: &Region, from: &str) -> Option<(StreamState, String)> {
    let status = at.status().await?;
    let stream = status.streams.get(from)?;
    Some((stream.state, stream.reason.clone().unwrap_or_default()))
}

async fn is_held(at: &Region, from: &str, wanted: &str) {
    lab::wait_until("the stream is held", PATIENCE, || async {
        stream(at, from)
            .await
            .is_some_and(|(state, reason)| state == StreamState::Held && reason.contains(wanted))
    })
    .await;
}

/// Changes a region's topology and starts its agent with that.
fn restart(lab: &mut Lab, n: usize, (from, to): (&str, &str)) {
    let file = lab.files(n).0;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(file, text.replace(from, to)).unwrap();
    lab.regions[n].agent().restart();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_with_another_topology_is_held_until_all_have_the_same() {
    let old = "  - { tables: shop.*, policy: latest }\n";
    let new = "  - { tables: shop.*, policy: delta, delta_columns: [n] }\n";
    let mut lab = Lab::start_ruled(&[Flavour::MariaDb; 3], 64, (old, "")).await;
    lab.exec_everywhere(
        "CREATE DATABASE shop;\nCREATE TABLE shop.t (id INT PRIMARY KEY, n INT NOT NULL);\n",
    )
    .await;
    lab.start_agents().await;
    lab.write_everywhere(1).await;
    lab.converge(&["shop.t"], PATIENCE).await;

    restart(&mut lab, 1, (old, new));
    let [r1, r2, r3] = [0, 1, 2].map(|n| &lab.regions[n]);
    let latest = "`tables shop.*: latest, on_conflict row`";
    let delta = "`tables shop.*: delta n, on_conflict row`";
    is_held(r1, "r2", &format!("here {latest}, there {delta}")).await;
    is_held(r3, "r2", "region r2 runs another topology").await;
    is_held(r2, "r1", "region r1 runs another topology").await;
    is_held(r2, "r3", "region r3 runs another topology").await;
    let (_, report, _) = lab.causeway(1, &["doctor", "-o", "json"]).await;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let agrees: Vec<_> = findings.filter(|finding| finding["check"] == "topology_agrees").collect();
    assert_eq!(agrees.len(), 2, "{report}");
    assert!(agrees.iter().all(|finding| finding["severity"] == "fail"), "{agrees:?}");
    lab.write_everywhere(2).await;
    lab::wait_until("the others go on", PATIENCE, || async {
        let sql = "SELECT COUNT(*) FROM shop.t WHERE id >= 20";
        r1.db.number(sql).await == 2 && r3.db.number(sql).await == 2
    })
    .await;
    assert_eq!(r2.db.number("SELECT COUNT(*) FROM shop.t WHERE id >= 20").await, 1);

    // One after the other gets the new one; what they wrote under the old one arrives.
    restart(&mut lab, 0, (old, new));
    let [r1, r3] = [0, 2].map(|n| &lab.regions[n]);
    lab::wait_until("the one goes on", PATIENCE, || async {
        r1.db.number("SELECT COUNT(*) FROM shop.t WHERE id = 21").await == 1
    })
    .await;
    is_held(r1, "r3", "region r3 runs another topology").await;
    is_held(r3, "r1", "region r1 runs another topology").await;
    lab.write_everywhere(3).await;
    restart(&mut lab, 2, (old, new));
    lab.converge(&["shop.t"], PATIENCE).await;
    lab.write_everywhere(4).await;
    lab.converge(&["shop.t"], PATIENCE).await;
    for (at, from) in [(0, "r3"), (1, "r1"), (2, "r2")] {
        let (state, reason) = stream(&lab.regions[at], from).await.unwrap();
        assert_eq!((state, reason.as_str()), (StreamState::Running, ""), "{at} {from}");
    }
}
