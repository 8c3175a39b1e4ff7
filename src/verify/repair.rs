//! Makes rows that differ what they are in the region whose row should stand.
//!
//! A repair is no write of its own: the row's versions are known everywhere, and one
//! region's row is not what they say. So it is an applied transaction ([`super::writer`])
//! and leaves the index as it is. It is exact for this order: the row is locked where it
//! is repaired, by writing it; then every stream passes all that is committed by then;
//! then the row that stands is read again. Held against what was shown, both rows have
//! seen the same writes: what was written here before the lock has reached the other
//! region by the second look, and nothing reaches this row while the lock is held. What
//! is written after that wins, as ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::database::Peer;
use super::fence::{Passed, Streams};
use super::history::Told;
use super::writer::{Writer, Written};
use super::{Config, VerifyError};
use crate::change::TableName;
use crate::clock::wall_us;
use crate::compare::{Image, Key, Plan, Repair, RepairOutcome, Shape};

/// How long a row's lock is held while the streams pass: below the applier's lock wait of
/// 3 s, so that a batch which meets the lock outlasts it.
const LOCKED_MAX: Duration = Duration::from_secs(2);

/// One row of one region, and what it is to become.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// `schema.table`.
    pub table: String,
    /// The primary key: columns and values, in key order.
    pub key: Vec<(String, String)>,
    /// The region to be repaired.
    pub region: String,
    /// The region whose row stands.
    pub from: String,
    /// Why.
    pub why: String,
    /// Columns that change, with the value before and after; none where there is no row.
    pub changes: Vec<(String, Option<String>, Option<String>)>,
    pub(super) row: Key,
    pub(super) plan: Arc<Plan>,
    pub(super) to: usize,
    pub(super) source: usize,
    pub(super) before: Option<Image>,
    pub(super) after: Option<Image>,
    /// What the outboxes tell of the row, where they do.
    pub(super) told: Option<Told>,
}

/// Works out repairs and carries them out.
pub struct Repairer<'a> {
    pub(super) config: &'a Config<'a>,
    who: String,
    pub(super) peers: Vec<Peer>,
    streams: Streams,
    pub(super) shapes: Vec<BTreeMap<TableName, Shape>>,
    pub(super) stop: CancellationToken,
}

enum Attempt {
    Done,
    Refused(String),
    Later(String),
}

impl<'a> Repairer<'a> {
    /// Connects to all regions; `who` is recorded with each repair.
    ///
    /// # Errors
    /// [`VerifyError`] when a region can't be read.
    pub async fn open(
        config: &'a Config<'a>,
        who: String,
        stop: CancellationToken,
    ) -> Result<Self, VerifyError> {
        let mut peers = super::connect(config).await?;
        let mut shapes = Vec::new();
        for peer in &mut peers {
            shapes.push(peer.shapes(config.topology).await?);
        }
        let streams = Streams::open(config, &peers)?;
        streams.ready(&stop).await;
        Ok(Self { config, who, peers, streams, shapes, stop })
    }

    /// Writes one row, or says why not. It waits for streams that are behind, within the
    /// configuration's patience.
    ///
    /// # Errors
    /// [`VerifyError`] when a region is away. Whether the row was written is then not
    /// known: comparing again tells.
    pub async fn carry_out(&mut self, proposal: &Proposal) -> Result<Repair, VerifyError> {
        let began = Instant::now();
        let (outcome, why) = loop {
            if self.stop.is_cancelled() {
                break (RepairOutcome::Refused, "stopped".to_owned());
            }
            match Box::pin(self.attempt(proposal)).await? {
                Attempt::Done => break (RepairOutcome::Repaired, proposal.why.clone()),
                Attempt::Refused(why) => break (RepairOutcome::Refused, why),
                Attempt::Later(why) if began.elapsed() >= self.config.patience => {
                    break (RepairOutcome::Refused, why);
                }
                Attempt::Later(why) => tracing::debug!(why, "a repair is tried again"),
            }
            let patience = self.config.patience;
            match self.streams.pass(&mut self.peers, patience, &self.stop).await? {
                Passed::Yes | Passed::Stopped => {}
                Passed::No(why) => break (RepairOutcome::Refused, why),
            }
        };
        Ok(Repair {
            table: proposal.table.clone(),
            key: proposal.key.clone(),
            region: Some(proposal.region.clone()),
            from: Some(proposal.from.clone()),
            outcome,
            why,
        })
    }

    async fn attempt(&mut self, proposal: &Proposal) -> Result<Attempt, VerifyError> {
        let Proposal { plan, row, to, source, before, after, .. } = proposal;
        let changed = |region: &str| format!("the row in {region} was written after it was shown");
        let mut writer = Writer::connect(&self.peers[*to]).await?;
        let written = writer.write(plan, row, (before.as_ref(), after.as_ref())).await?;
        let mut failed = refusal(written, || changed(&proposal.region));
        // Twice: MySQL lists a GTID a moment after its rows can be seen.
        for _ in 0..2 {
            if failed.is_none() {
                let passed = self.streams.pass(&mut self.peers, LOCKED_MAX, &self.stop).await?;
                failed = match passed {
                    Passed::Yes => None,
                    Passed::No(why) => Some(Attempt::Later(why)),
                    Passed::Stopped => Some(Attempt::Refused("stopped".to_owned())),
                };
            }
        }
        if failed.is_none() {
            let stands = self.peers[*source].image(&plan.image(row, false)).await?;
            if stands != *after {
                failed = Some(Attempt::Refused(changed(&proposal.from)));
            }
        }
        if failed.is_none() {
            let entry = self.entry(proposal, self.policy(plan));
            let logged = writer.log(entry).await?;
            failed = refusal(logged, String::new);
        }
        match failed {
            None => writer.commit().await.map(|()| Attempt::Done),
            Some(why) => {
                writer.rollback().await;
                Ok(why)
            }
        }
    }

    fn policy(&self, plan: &Plan) -> &'static str {
        let rule = self.config.topology.rule(&plan.table.schema, &plan.table.name);
        rule.map_or("latest", |rule| rule.policy.name())
    }

    /// The entry of the conflict log: who, when, before and after (R12).
    fn entry(&self, proposal: &Proposal, policy: &str) -> Json {
        let Proposal { plan, to, source, before, after, .. } = proposal;
        let (before, after) = (plan.logged(before.as_ref()), plan.logged(after.as_ref()));
        let row = if after.is_null() { &before } else { &after };
        let action = |row: &Json, other: &Json| match (row.is_null(), other.is_null()) {
            (true, _) => "delete",
            (false, true) => "insert",
            (false, false) => "update",
        };
        let side = |at: usize, row: &Json, other: &Json| {
            json!({
                "origin": self.peers[at].id.get(),
                "action": action(row, other),
                "before": if row.is_null() { other } else { &Json::Null },
                "after": row,
            })
        };
        let mut incoming = side(*source, &after, &before);
        if let Some(told) = &proposal.told {
            let write = &told.stands.write;
            incoming["origin"] = json!(write.dot.origin.get());
            incoming["seq"] = json!(write.dot.seq.0);
            incoming["hlc"] = json!(write.hlc.0);
            incoming["gtid"] = json!(told.gtid);
        }
        json!({
            "at_us": wall_us(),
            "region": self.peers[*to].id.get(),
            "table": proposal.table,
            "key": plan.logged_key(row),
            "kind": "repair",
            "policy": policy,
            "winner": "incoming",
            "why": format!("{}; repaired by {}", proposal.why, self.who),
            "by": self.who,
            "from": self.peers[*source].id.get(),
            "incoming": incoming,
            "existing": side(*to, &before, &after),
        })
    }

    /// Says goodbye.
    pub async fn close(self) {
        for peer in self.peers {
            peer.close().await;
        }
    }
}

fn refusal(written: Written, changed: impl Fn() -> String) -> Option<Attempt> {
    match written {
        Written::Yes => None,
        Written::Changed => Some(Attempt::Refused(changed())),
        Written::No(why) => Some(Attempt::Refused(why)),
        Written::Later(why) => Some(Attempt::Later(why)),
    }
}
