//! Which region's row stands, and what that makes of the others.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::database::Peer;
use super::history::{self, Told};
use super::repair::{Proposal, Repairer};
use super::{Hear, VerifyError};
use crate::change::{RegionId, TableName, Vector};
use crate::compare::{Class, Difference, Image, Plan, Repair, RepairOutcome, Report, begins};
use crate::resolve::Shows;

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
    told: Option<Told>,
}

impl Repairer<'_> {
    /// What would make the differing rows of a report equal, and the rows of which nobody
    /// knows. What all writes of a row come to decides which region's row stands, where the
    /// outboxes tell it; `from` where they do not. Reading them can take a while: `hear`
    /// hears how far it is.
    ///
    /// # Errors
    /// [`VerifyError`] when a region can't be read.
    pub async fn propose(
        &mut self,
        report: &Report,
        from: Option<&str>,
        hear: &mut Hear<'_>,
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
        let wanted: Vec<_> =
            rows.iter().map(|row| (row.plan.table.clone(), row.difference.row.clone())).collect();
        let mut applied = Vector::default();
        for here in try_join_all(self.peers.iter_mut().map(Peer::applied)).await? {
            for dot in here.iter() {
                applied.raise(dot.origin, dot.seq);
            }
        }
        let told = history::told(self.config, &wanted, &applied, &self.stop, hear);
        let told = Box::pin(told).await;
        let mut proposals = Vec::new();
        for (row, told) in rows.iter().zip(told) {
            match self.decide(row, told, from) {
                Ok(stands) => proposals.extend(self.proposals(row, &stands)),
                Err(why) => {
                    undecided.push(nobody(&row.plan.table.to_string(), row.difference, why));
                }
            }
        }
        // What goes may hold a unique value of what comes.
        proposals.sort_by_key(|proposal| proposal.after.is_some());
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

    /// Which region's row stands: one that has what all writes come to; else the one that
    /// the operator names.
    fn decide(
        &self,
        row: &Differing<'_>,
        told: Result<Told, String>,
        from: Option<&str>,
    ) -> Result<Stands, String> {
        let unknown = match told.and_then(|told| self.source(row, told)) {
            Ok(stands) => return Ok(stands),
            Err(why) => why,
        };
        let Some(from) = from else {
            return Err(format!("{unknown}; name the region whose row stands (--from)"));
        };
        let source = self.peers.iter().position(|peer| peer.name == from);
        let source = source.ok_or_else(|| format!("there is no region {from}"))?;
        Ok(Stands { source, why: format!("named by the operator; {unknown}"), told: None })
    }

    /// The region that has the row as it is told.
    fn source(&self, row: &Differing<'_>, told: Told) -> Result<Stands, String> {
        let stands = &told.stands;
        let has = |image: &Option<Image>| match (&stands.row, image) {
            (Some(row_told), Some(image)) => row.plan.holds(&stands.table, row_told, image),
            (None, None) => true,
            _ => false,
        };
        let dot = stands.write.dot;
        let write = format!("{} of {}", dot.seq, self.name(dot.origin));
        let what = match stands.shows {
            Shows::Left => format!("what the write that stands left, {write}"),
            Shows::Before => format!("what its last write, {write}, leaves, which is void"),
            Shows::Sum => format!("what all changes up to {write} come to"),
        };
        let mut sources = (0..row.images.len()).filter(|&at| has(&row.images[at]));
        let Some(first) = sources.next() else {
            return Err(format!("no region has {what}"));
        };
        // One region's word for its own row is not enough.
        let other = |at: usize| Some(self.peers[at].id) != stands.counted_from;
        let source = std::iter::once(first).chain(sources).find(|&at| other(at));
        let Some(source) = source else {
            let name = &self.peers[first].name;
            return Err(format!("{what} is counted from rows of {name}, which alone has it"));
        };
        Ok(Stands { source, why: format!("it is {what}"), told: Some(told) })
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
                told: stands.told.clone(),
            }
        };
        others.map(proposal).collect()
    }
}
