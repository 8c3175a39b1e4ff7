//! A large transaction: its parts are written as they arrive, in one transaction
//! here, and are never in memory together.
//!
//! What can't be taken back part by part is read again from the inbox: the applier
//! ends with [`ApplyError::Again`] and the agent starts it anew from the applied
//! position.

use tokio_util::sync::CancellationToken;

use super::advice::plan_advice;
use super::batch::{self, Batch};
use super::gate::{Written, finish, lock, miss_text};
use super::run::{Applier, halt};
use super::stream::{Body, Item};
use super::{ApplyError, ErrorKind, Mark, Session};
use crate::change::{BinlogPoint, RegionId};
use crate::failpoint;
use crate::resolve::{Plan, Rulebook, TablePlan};
use crate::version::BatchId;

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
        let Some((mut item, mut last)) = self.part(origin, cancel).await else { return Ok(()) };
        let slot = u8::try_from(id.0 % 8).expect("a remainder of 8 fits");
        let mark = Mark { dot: item.dot, epoch: item.epoch, hlc: item.hlc };
        session.begin(slot, &[mark]).await?;
        let (schema, book) = (self.schema, self.gate.book.clone());
        let mut whole = Plan::default();
        let point = loop {
            let part = std::slice::from_ref(&item);
            let plan = batch::plan(&lock(&self.index), &book, part);
            let mut plan = match plan {
                Ok(plan) => plan,
                Err((_, error)) => {
                    session.rollback().await?;
                    halt(&mut self.streams, origin, &error.to_string(), plan_advice(&error));
                    self.reread.insert(origin);
                    return Ok(());
                }
            };
            let tables = std::mem::take(&mut plan.tables);
            whole.join(plan);
            let point = match write_part(session, &book, part, &tables, &mut whole).await {
                Ok(point) => point,
                Err(error) => {
                    session.rollback().await?;
                    if error.kind() != ErrorKind::Row {
                        return Err(error);
                    }
                    self.knew_all(session, (&whole, id)).await?;
                    self.stop(origin, &error, error.table_in(&tables));
                    self.reread.insert(origin);
                    return Ok(());
                }
            };
            if last {
                break point;
            }
            failpoint::hit("apply.part_written");
            match self.part(origin, cancel).await {
                Some((next, is_last)) => (item, last) = (next, is_last),
                None => return session.rollback().await,
            }
        };
        let (region, own) = (self.config.region, |dot| dot == item.dot);
        let conflicts = &whole.conflicts;
        let logged = match session.standing(conflicts, &own).await {
            Ok(stood) => session.log_conflicts(region, conflicts, stood).await,
            Err(error) => Err(error),
        };
        if let Err(error) = logged {
            session.rollback().await?;
            return Err(error);
        }
        item.body = Body::Whole(Vec::new());
        let mut batch = Batch { id, items: vec![item], plan: whole, care: false };
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

    /// As the gate says, or the transaction is read again.
    async fn knew_all(
        &self,
        session: &mut Session,
        plan: (&Plan, BatchId),
    ) -> Result<(), ApplyError> {
        let knew = self.gate.knew_all(session, plan).await;
        knew.map_err(|miss| ApplyError::Again(miss_text(&miss)))
    }

    /// The next part of the stream; none when the parts are void or a stop is wanted.
    async fn part(&mut self, origin: RegionId, cancel: &CancellationToken) -> Option<(Item, bool)> {
        let stream = self.streams.get_mut(&origin)?;
        if stream.queue.is_empty() {
            tokio::select! {
                () = cancel.cancelled() => return None,
                arrival = stream.arrivals.recv() => stream.push(arrival?),
            }
        }
        let item = stream.queue.pop_front()?;
        match &item.body {
            Body::Part { last, .. } => {
                let last = *last;
                Some((item, last))
            }
            Body::Heartbeat | Body::Whole(_) | Body::Void => {
                stream.queue.push_front(item);
                None
            }
        }
    }
}
