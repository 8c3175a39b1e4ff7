//! What must hold: looked at all the time, or when faults have stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use causeway::change::{Kind, Place, Record, RecordBody, RegionId, Seq};
use causeway::ship::{Cluster, InboxConfig, Range};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};
use tokio_util::sync::CancellationToken;

use crate::lab::load::{Entry, TABLES, Written};
use crate::lab::region::{Lab, Region};
use crate::lab::{PATIENCE, wait_until};

const ORPHANS: &str = "SELECT COUNT(*) FROM shop.child c \
    LEFT JOIN shop.parent p ON p.id = c.parent_id WHERE p.id IS NULL";

/// Looks for children without their parent; gives how often.
pub(super) async fn no_orphan(opts: Opts, stop: CancellationToken) -> u64 {
    let (mut looked, mut conn) = (0, None);
    while !stop.is_cancelled() {
        let asked = match conn.as_mut() {
            None => {
                // A killed database is back soon.
                conn = Conn::new(opts.clone()).await.ok();
                None
            }
            Some(open) => {
                let asked = Conn::query_first::<u64, _>(open, ORPHANS).await;
                if asked.is_err() {
                    conn = None;
                }
                asked.ok().flatten()
            }
        };
        if let Some(orphans) = asked {
            assert_eq!(orphans, 0, "children without their parent");
            looked += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    looked
}

pub(super) async fn equal(lab: &Lab, within: Duration) {
    lab.converge(&TABLES, within).await;
}

pub(super) async fn each_entry_once(lab: &Lab, written: &Written) {
    for region in &lab.regions {
        let rows: Vec<Entry> = region.db.rows("SELECT region, worker, n FROM shop.journal").await;
        let found: BTreeSet<Entry> = rows.iter().copied().collect();
        assert_eq!(rows.len(), found.len(), "{}: entries are doubled", region.name);
        let lost: Vec<_> = written.acked.difference(&found).collect();
        assert!(lost.is_empty(), "{}: acknowledged and lost: {lost:?}", region.name);
        let strange: Vec<_> = found
            .iter()
            .filter(|e| !written.acked.contains(e) && !written.unknown.contains(e))
            .collect();
        assert!(strange.is_empty(), "{}: rolled back and there: {strange:?}", region.name);
    }
}

/// Every outbox holds the transactions of its own region's clients, each once: as many
/// as they know of, and each row with its region's number in it.
pub(super) async fn no_loop(lab: &Lab, written: &Written, steps_wrote: &[u64]) {
    for (n, region) in lab.regions.iter().enumerate() {
        let id = u8::try_from(n + 1).unwrap();
        let shipped = written.shipped.get(&id).copied().unwrap_or_default();
        let least = shipped.certain + steps_wrote[n];
        let most = least + shipped.unknown;
        // What changes no row of a peer may be on its way still.
        wait_until(&format!("the outbox of {} has all", region.name), PATIENCE, || async {
            outbox(region, id).await.transactions >= least
        })
        .await;
        let outbox = outbox(region, id).await;
        assert!(
            outbox.transactions <= most,
            "{}: {} transactions shipped, its clients committed {least} to {most}",
            region.name,
            outbox.transactions
        );
        let own = format!("SELECT COUNT(*) FROM shop.journal WHERE region = {id}");
        let own = usize::try_from(region.db.number(&own).await).unwrap();
        assert_eq!(outbox.entries.len(), own, "{}: entries in the outbox", region.name);
    }
}

/// What a region has shipped.
#[derive(Default)]
struct Outbox {
    transactions: u64,
    entries: BTreeMap<String, Seq>,
}

async fn outbox(region: &Region, id: u8) -> Outbox {
    let origin = RegionId::new(id).unwrap();
    let agent = region.agent.as_ref().unwrap();
    let (_, status) = agent.get("/status").await.expect("the agent answers");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let through = Seq(status["outbox"]["acked_seq"].as_u64().unwrap_or(0));
    let config = InboxConfig {
        cluster: Cluster { brokers: region.kafka.brokers(), extra: BTreeMap::new() },
        topic: format!("causeway.outbox.{}", region.name),
        origin,
        after: Place::default(),
    };
    let mut outbox = Outbox::default();
    let mut range = Range::open(&config, through).await.unwrap();
    while let Some(record) = range.next().await.unwrap() {
        outbox.take(&record, origin);
    }
    outbox
}

impl Outbox {
    fn take(&mut self, record: &Record, origin: RegionId) {
        let RecordBody::Transaction(txn) = &record.body else { return };
        self.transactions += u64::from(txn.last);
        for change in &txn.changes {
            let table = &change.table;
            let at = |name: &str| table.columns.iter().position(|c| c.name == name).unwrap();
            for row in change.rows.iter().filter_map(|row| row.after.as_ref()) {
                let region = match &row.values[at("region")].kind {
                    Some(Kind::Uint(v)) => *v,
                    other => panic!("a region of {other:?}"),
                };
                assert_eq!(region, u64::from(origin.get()), "a loop at seq {}", record.seq);
                if table.name == "journal" {
                    let key = format!("{:?} {:?}", row.values[at("worker")], row.values[at("n")]);
                    let before = self.entries.insert(key, record.seq);
                    assert_eq!(before, None, "shipped twice, again at seq {}", record.seq);
                }
            }
        }
    }
}

/// Replication goes on, in all directions.
pub(super) async fn goes_on(lab: &Lab, within: Duration) {
    for (n, region) in lab.regions.iter().enumerate() {
        region.db.write(&format!("INSERT INTO shop.parent (region) VALUES ({})", 100 + n)).await;
    }
    lab.converge(&TABLES, within).await;
    let count = lab.regions[0].db.number("SELECT COUNT(*) FROM shop.parent WHERE region >= 100");
    assert_eq!(count.await, i64::try_from(lab.regions.len()).unwrap());
}
