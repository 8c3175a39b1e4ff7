//! Rebuilds the index at the start of a session, from outbox and inboxes.
//!
//! What is stable needs no version. The rest is read again and entered in order of
//! the stamps, which respects what saw what.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{AgentError, Shared};
use crate::change::{Dot, Record, RecordBody, RegionId, Seq, Vector};
use crate::failpoint;
use crate::ship::{InboxConfig, head, read_range};
use crate::version::{Index, RowKey, Version, Write};

/// The index of everything after the stable vector, up to what the outbox holds and
/// what is applied.
pub(crate) async fn index(
    shared: &Shared,
    applied: &BTreeMap<RegionId, Seq>,
    own: Seq,
) -> Result<Index, AgentError> {
    let me = shared.setup.region.id;
    let topology = &shared.setup.topology;
    let mut topics = BTreeMap::new();
    let outbox = topology.outbox(&shared.setup.region);
    topics.insert(me, (outbox, own));
    for peer in shared.peers() {
        let seq = applied.get(&peer.id).copied().unwrap_or_default();
        topics.insert(peer.id, (topology.inbox(&shared.setup.region, peer), seq));
    }
    let config = |origin: RegionId, after: Seq| {
        let (topic, _) = &topics[&origin];
        InboxConfig { cluster: shared.cluster(topic), topic: topic.name.clone(), origin, after }
    };
    let mut heads = BTreeMap::new();
    for (&origin, &(_, seq)) in topics.iter().filter(|(origin, _)| **origin != me) {
        let record = Box::pin(head(&config(origin, Seq(0)), seq)).await?;
        heads.insert(origin, record.map(|record| record.deps).unwrap_or_default());
    }
    let stable = stable(me, &heads, applied);
    let mut writes = Vec::new();
    for (n, (&origin, &(_, through))) in topics.iter().enumerate() {
        if n == 1 {
            failpoint::hit("rebuild.halfway");
        }
        let from = config(origin, stable.get(origin));
        let mut failed = None;
        let each = |record| {
            if let Err(error) = enter(record, &mut writes) {
                failed = Some(error);
            }
        };
        Box::pin(read_range(&from, through, each)).await?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    writes.sort_by_key(|write| write.version.rank());
    let mut index = Index::default();
    index.collect(&stable);
    tracing::info!(versions = writes.len(), "index rebuilt");
    for write in &writes {
        index.restore(write);
    }
    Ok(index)
}

/// Per origin what every region is known to have applied.
fn stable(
    me: RegionId,
    heads: &BTreeMap<RegionId, Vector>,
    applied: &BTreeMap<RegionId, Seq>,
) -> Vector {
    let least = |origin: RegionId| {
        let others = heads.iter().filter(|(peer, _)| **peer != origin);
        let seen = others.map(|(_, deps)| deps.get(origin));
        let mine = (origin != me).then(|| applied.get(&origin).copied().unwrap_or_default());
        seen.chain(mine).min().unwrap_or_default()
    };
    heads.keys().copied().chain([me]).map(|origin| Dot { origin, seq: least(origin) }).collect()
}

fn enter(record: Record, writes: &mut Vec<Write>) -> Result<(), AgentError> {
    let RecordBody::Transaction(txn) = record.body else { return Ok(()) };
    let dot = Dot { origin: record.origin, seq: record.seq };
    let deps = Arc::new(record.deps);
    for change in &txn.changes {
        let Some(table) = &change.table else { continue };
        let key = table.key_columns();
        for row in &change.rows {
            for (hash, removed) in RowKey::touched(table, &key, row)? {
                let version = Version { dot, hlc: record.hlc, removed };
                writes.push(Write { key: hash, version, deps: Arc::clone(&deps) });
            }
        }
    }
    Ok(())
}
