//! A large transaction: its parts are written as they arrive, in one transaction
//! here. In memory together is only what of them is kept anyhow ([`Parts`]).
//!
//! What can't be taken back part by part is read again from the inbox: the applier
//! ends with [`ApplyError::Again`] and the agent starts it anew from the applied
//! position.

use std::borrow::Cow;

use tokio_util::sync::CancellationToken;

use super::advice::plan_advice;
use super::batch::{self, Batch};
use super::conflicts::Standing;
use super::gate::{Written, finish, lock, miss_text};
use super::run::{Applier, halt};
use super::stream::{Body, Item};
use super::{ApplyError, ErrorKind, Mark, Session};
use crate::change::{BinlogPoint, RegionId};
use crate::failpoint;
use crate::resolve::{Earlier, Parts, Plan, PlanError, Planner, Rulebook, TablePlan};
use crate::version::BatchId;

/// What is known of the parts that are written.
#[derive(Default)]
struct Whole {
    plan: Plan,
    /// Rows that stood in the way, by the place of their conflict in the plan.
    stood: Standing,
    earlier: Earlier,
    parts: Parts,
}

impl Whole {
    /// Takes a part in that is about to be written: what it overwrites stands until then.
    fn take(&mut self, part: Plan, stood: Standing) {
        let before = self.plan.conflicts.len();
        self.stood.extend(stood.into_iter().map(|(n, row)| (before + n, row)));
        self.plan.join(part);
    }
}

/// Leaves of a part what is judged with it.
fn hold(parts: &mut Parts, book: &Rulebook, part: &mut Item) -> Result<(), PlanError> {
    let Body::Part { changes, last, .. } = &mut part.body else { return Ok(()) };
    if let Cow::Owned(judged) = parts.take(book, changes, *last)? {
        *changes = judged;
    }
    if let Some(bytes) = parts.grown() {
        tracing::warn!(gtid = part.gtid, bytes, "rows of a large transaction are held in memory");
    }
    Ok(())
}

/// Writes a part, and tells of the rows that are missing.
async fn write_part(
    session: &mut Session,
    book: &Rulebook,
    part: &[Item],
    tables: &[TablePlan],
    whole: &mut Plan,
) -> Result<BinlogPoint, ApplyError> {
    session.savepoint();
    let (point, found) = session.write_and_count(tables).await?;
    if found {
        return Ok(point);
    }
    session.take_back().await?;
    let absent = session.absent(tables).await?;
    whole.conflicts.extend(batch::missing(book, part, absent));
    session.write_and_point(tables).await
}

/// A large transaction whose parts are written, and not committed.
struct Done {
    whole: Whole,
    /// Its last part.
    item: Item,
    point: BinlogPoint,
}

impl Applier {
    /// Applies the large transaction at the front of a stream.
    pub(super) async fn large(
        &mut self,
        origin: RegionId,
        session: &mut Session,
        cancel: &CancellationToken,
    ) -> Result<(), ApplyError> {
        self.batches += 1;
        let id = BatchId(self.batches);
        let Some(first) = self.part(origin, cancel).await? else { return Ok(()) };
        let item = &first.0;
        let slot = u8::try_from(id.0 % 8).expect("a remainder of 8 fits");
        let mark = Mark { dot: item.dot, epoch: item.epoch, hlc: item.hlc };
        session.begin(slot, &[mark]).await?;
        let schema = self.schema;
        let Some(done) = Box::pin(self.parts(first, id, session, cancel)).await? else {
            return Ok(());
        };
        let Done { whole: Whole { plan, stood, .. }, mut item, point } = done;
        let logged = session.log_conflicts(self.config.region, &plan.conflicts, stood).await;
        if let Err(error) = logged {
            session.rollback().await?;
            return Err(error);
        }
        item.body = Body::Whole(Vec::new());
        let mut batch = Batch { id, items: vec![item], plan, care: false };
        batch.stage(&mut lock(&self.index));
        let mut written = Written { large: true, ..Written::new(batch, point, schema) };
        if let Err(miss) = finish(&self.gate, session, Some(&mut written)).await
            && !(miss.is_unknown() && self.was_committed(session, &written.batch).await?)
        {
            lock(&self.index).abandon(id);
            session.rollback().await?;
            return Err(ApplyError::Again(miss_text(&miss)));
        }
        self.planned.raise(origin, mark.dot.seq);
        self.committed_batch(written.batch);
        Ok(())
    }

    /// Writes part after part as they come; none when the transaction was rolled back, for
    /// which its stream may have been stopped.
    async fn parts(
        &mut self,
        (mut item, mut last): (Item, bool),
        id: BatchId,
        session: &mut Session,
        cancel: &CancellationToken,
    ) -> Result<Option<Done>, ApplyError> {
        let (dot, origin) = (item.dot, item.dot.origin);
        let (book, mut whole) = (self.gate.book.clone(), Whole::default());
        loop {
            let held = hold(&mut whole.parts, &book, &mut item);
            let part = std::slice::from_ref(&item);
            let planned = held.and_then(|()| {
                let index = lock(&self.index);
                let planner = Planner::new(&index, &book).part(&whole.earlier, last);
                batch::plan(planner, part).map_err(|(_, error)| error)
            });
            let mut plan = match planned {
                Ok(plan) => plan,
                Err(error) => {
                    session.rollback().await?;
                    halt(&mut self.streams, origin, &error.to_string(), plan_advice(&error));
                    self.reread.insert(origin);
                    return Ok(None);
                }
            };
            whole.earlier.take(&mut plan);
            let tables = std::mem::take(&mut plan.tables);
            let written = async {
                let stood = session.standing(&plan.conflicts, &|held| held == dot).await?;
                whole.take(plan, stood);
                write_part(session, &book, part, &tables, &mut whole.plan).await
            };
            let point = match Box::pin(written).await {
                Ok(point) => point,
                Err(error) => {
                    session.rollback().await?;
                    if error.kind() != ErrorKind::Row {
                        return Err(error);
                    }
                    self.knew_all(session, (&whole.plan, id)).await?;
                    self.stop(origin, &error, error.table_in(&tables));
                    self.reread.insert(origin);
                    return Ok(None);
                }
            };
            if last {
                Parts::settle(&mut whole.plan.writes);
                return Ok(Some(Done { whole, item, point }));
            }
            failpoint::hit("apply.part_written");
            match self.part(origin, cancel).await {
                Ok(Some((next, is_last))) => (item, last) = (next, is_last),
                given_up => {
                    session.rollback().await?;
                    return given_up.map(|_| None);
                }
            }
        }
    }

    /// As the gate says, or the transaction is read again.
    async fn knew_all(
        &self,
        session: &mut Session,
        plan: (&Plan, BatchId),
    ) -> Result<(), ApplyError> {
        let knew = self.gate.knew_all(session, plan).await;
        knew.map_err(|miss| ApplyError::Again(miss_text(&miss)))
    }

    /// The next part of the stream; none when the parts are void or a stop is wanted. It is
    /// in the inbox already ([`Arrival`](super::Arrival)), so what does not come by and by
    /// is waited for without the locks.
    async fn part(
        &mut self,
        origin: RegionId,
        cancel: &CancellationToken,
    ) -> Result<Option<(Item, bool)>, ApplyError> {
        let wait_max = self.config.wait_max;
        let Some(stream) = self.streams.get_mut(&origin) else { return Ok(None) };
        if stream.queue.is_empty() {
            tokio::select! {
                () = cancel.cancelled() => return Ok(None),
                () = tokio::time::sleep(wait_max) => {
                    let why = "the rest of a large transaction does not come from the inbox";
                    return Err(ApplyError::Again(why.to_owned()));
                }
                arrival = stream.arrivals.recv() => match arrival {
                    Some(arrival) => stream.push(arrival),
                    None => return Ok(None),
                },
            }
        }
        let Some(item) = stream.queue.pop_front() else { return Ok(None) };
        match &item.body {
            Body::Part { last, .. } => {
                let last = *last;
                Ok(Some((item, last)))
            }
            Body::Heartbeat | Body::Whole(_) | Body::Void => {
                stream.queue.push_front(item);
                Ok(None)
            }
        }
    }
}
