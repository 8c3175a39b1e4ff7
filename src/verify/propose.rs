//! Which region's row stands, and what that makes of the others.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::VerifyError;
use super::history::{self, Write};
use super::repair::{Proposal, Repairer};
use crate::change::{RegionId, TableName};
use crate::compare::{Class, Difference, Image, Plan, Repair, RepairOutcome, Report, begins};

/// A row that differs.
struct Differing<'a> {
    plan: Arc<Plan>,
    difference: &'a Difference,
    images: Vec<Option<Image>>,
}

/// The region whose row stands, and why.
struct Stands {
    source: usize,
    why: String,
    write: Option<Write>,
}

impl Repairer<'_> {
    /// What would make the differing rows of a report equal, and the rows of which nobody
    /// knows. A row's last write decides which region's row stands, where the outboxes tell
    /// it; `from` where they do not.
    ///
    /// # Errors
    /// [`VerifyError`] when a region can't be read.
    pub async fn propose(
        &mut self,
        report: &Report,
        from: Option<&str>,
    ) -> Result<(Vec<Proposal>, Vec<Repair>), VerifyError> {
        let (mut rows, mut undecided) = (Vec::new(), Vec::new());
        let nobody = |table: &str, difference: &Difference, why: String| Repair {
            table: table.to_owned(),
            key: difference.key.clone(),
            region: None,
            from: None,
            outcome: RepairOutcome::Undecided,
            why,
        };
        for table in &report.tables {
            let Some((schema, name)) = table.table.split_once('.') else { continue };
            let name = TableName { schema: schema.to_owned(), name: name.to_owned() };
            let shapes: Vec<_> = self.shapes.iter().map(|shapes| shapes.get(&name)).collect();
            let plan = super::plan(&name, &self.peers, &shapes).map(Arc::new);
            for difference in &table.differences {
                let found = match &plan {
                    Ok(plan) => self.images(plan, difference).await?,
                    Err(why) => Err(why.clone()),
                };
                match found {
                    Ok(row) => rows.push(row),
                    Err(why) => undecided.push(nobody(&table.table, difference, why)),
                }
            }
        }
        let known = self.last_writes(&rows).await;
        let mut proposals = Vec::new();
        for (row, write) in rows.iter().zip(known) {
            match self.decide(row, write, from) {
                Ok(stands) => proposals.extend(self.proposals(row, &stands)),
                Err(why) => {
                    undecided.push(nobody(&row.plan.table.to_string(), row.difference, why));
                }
            }
        }
        Ok((proposals, undecided))
    }

    /// The row as each region has it, if it still is what the report saw.
    async fn images<'r>(
        &mut self,
        plan: &Arc<Plan>,
        difference: &'r Difference,
    ) -> Result<Result<Differing<'r>, String>, VerifyError> {
        if difference.class == Class::Unsettled {
            return Ok(Err("it may be in flight: the streams did not pass it".to_owned()));
        }
        let sql = plan.image(&difference.row, false);
        let images = try_join_all(self.peers.iter_mut().map(|peer| peer.image(&sql))).await?;
        let same = self.peers.iter().zip(&images).all(|(peer, image)| {
            let held = image.as_ref().map(|image| begins(&image.hash));
            difference.regions.get(&peer.name) == Some(&held)
        });
        let written = || "it was written after it had been compared".to_owned();
        let row = || Differing { plan: Arc::clone(plan), difference, images };
        Ok(same.then(row).ok_or_else(written))
    }

    /// The last write of each row; or why it is not known, or does not decide.
    async fn last_writes(&self, rows: &[Differing<'_>]) -> Vec<Result<Write, String>> {
        let decides = |row: &Differing<'_>| history::decides(self.config, &row.plan.table);
        let asked: Vec<_> = rows
            .iter()
            .filter(|row| decides(row))
            .map(|row| (row.plan.table.clone(), row.difference.row.clone()))
            .collect();
        let found = Box::pin(history::last_writes(self.config, &asked, &self.stop)).await;
        let (mut found, silence) = match found {
            Ok(found) => (found.into_iter(), None),
            Err(silence) => (Vec::new().into_iter(), Some(silence.to_string())),
        };
        let mut answer = |row: &Differing<'_>| {
            if !decides(row) {
                return Err("under its policy the last write does not decide".to_owned());
            }
            if let Some(silence) = &silence {
                return Err(silence.clone());
            }
            let none = || "no outbox reaches back to its last write".to_owned();
            let write = found.next().flatten().ok_or_else(none)?;
            if write.moved || !write.table.unique_keys.is_empty() {
                return Err("its last write may be void: it moved a key, or the table has \
                    further unique keys"
                    .to_owned());
            }
            Ok(write)
        };
        rows.iter().map(&mut answer).collect()
    }

    /// Which region's row stands: one that has what the last write left; else the one that
    /// the operator names.
    fn decide(
        &self,
        row: &Differing<'_>,
        write: Result<Write, String>,
        from: Option<&str>,
    ) -> Result<Stands, String> {
        let unknown = match write {
            Ok(write) => {
                let left = |image: &Option<Image>| match (&write.after, image) {
                    (Some(after), Some(image)) => row.plan.holds(&write.table, after, image),
                    (None, None) => true,
                    _ => false,
                };
                let (origin, seq) = (self.name(write.origin), write.seq.0);
                if let Some(source) = row.images.iter().position(left) {
                    let why = format!("it is what the last write left, {seq} of {origin}");
                    return Ok(Stands { source, why, write: Some(write) });
                }
                format!("no region has what the last write left, {seq} of {origin}")
            }
            Err(why) => why,
        };
        let Some(from) = from else {
            return Err(format!("{unknown}; name the region whose row stands (--from)"));
        };
        let source = self.peers.iter().position(|peer| peer.name == from);
        let source = source.ok_or_else(|| format!("there is no region {from}"))?;
        Ok(Stands { source, why: format!("named by the operator; {unknown}"), write: None })
    }

    fn name(&self, origin: RegionId) -> &str {
        let known = self.peers.iter().find(|peer| peer.id == origin);
        known.map_or("unknown", |peer| peer.name.as_str())
    }

    /// The repairs of one row, one for each region that has another than the one that
    /// stands.
    fn proposals(&self, row: &Differing<'_>, stands: &Stands) -> Vec<Proposal> {
        let Differing { plan, difference, images } = row;
        let source = stands.source;
        let others = (0..images.len()).filter(|&to| images[to] != images[source]);
        let proposal = |to: usize| {
            let (before, after) = (images[to].clone(), images[source].clone());
            Proposal {
                table: plan.table.to_string(),
                key: difference.key.clone(),
                region: self.peers[to].name.clone(),
                from: self.peers[source].name.clone(),
                why: stands.why.clone(),
                changes: plan.changes(before.as_ref(), after.as_ref()),
                row: difference.row.clone(),
                plan: Arc::clone(plan),
                to,
                source,
                before,
                after,
                write: stands.write.clone(),
            }
        };
        others.map(proposal).collect()
    }
}
