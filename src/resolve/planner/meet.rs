//! What a write is in conflict with, among the versions known of its row and its values.

use std::sync::Arc;

use super::Planner;
use crate::change::{Dot, Row};
use crate::resolve::align::{self, Aligned};
use crate::resolve::conflict::Outcome;
use crate::resolve::plan::PlanError;
use crate::resolve::stand::{self, Places as _};
use crate::resolve::{Allow, Conflict, ConflictKind, Side, Touched, merge};
use crate::version::{Action, Body, Seen, Version, Write};

/// What a write meets.
struct Met<'a> {
    kind: ConflictKind,
    version: Version,
    /// The other write's, where it is kept.
    body: Option<&'a Body>,
    /// Whether the row here is the other write's: no version of it stands above.
    shows: bool,
    outcome: Outcome,
}

impl Planner<'_> {
    /// Notes what the write is in conflict with, and refuses what its policy refuses.
    pub(super) fn meet(&mut self, one: &Touched<'_>, gtid: &str) -> Result<(), PlanError> {
        let Touched { write, table, policy, .. } = one;
        if let Some(why) = policy.unfit.clone() {
            return Err(PlanError::Unfit { table: table.full_name().to_string(), why });
        }
        if one.is_refused() {
            let (table, action) = (table.full_name().to_string(), write.version.action.name());
            return Err(PlanError::NotInsert { table, action });
        }
        let seen = self.places.seen(write.key);
        let laid = match policy.merge {
            Some(_) => self.aligned(table, write.key)?,
            None => None,
        };
        let mut found = in_row(one, seen, laid.as_ref());
        for claim in write.body.iter().flat_map(|body| &body.claims) {
            let others = self.places.seen(*claim).history.iter();
            for other in others.filter(|o| o.key != write.key && o.is_concurrent(write)) {
                found.push(Met {
                    kind: ConflictKind::UniqueKey,
                    version: other.version,
                    body: other.body.as_deref(),
                    shows: true,
                    outcome: whole(stand::beats(write, other)),
                });
            }
        }
        if policy.allow == Allow::Unopposed && !found.is_empty() {
            return Err(PlanError::NotHome(table.full_name().to_string()));
        }
        // A row that was written with other columns is told with those of the table here.
        let image = |met: &Met<'_>, of: fn(&Body) -> &Option<Row>| {
            let (body, row) = met.body.and_then(|body| Some((body, of(body).as_ref()?)))?;
            match align::is_laid_out(&body.table, table) {
                true => Some(row.clone()),
                false => align::relaid(row, &body.table, table).ok(),
            }
        };
        let conflicts = found.into_iter().map(|met| Conflict {
            table: Arc::clone(table),
            kind: met.kind,
            policy: policy.name(),
            incoming: Side {
                version: write.version,
                gtid: Some(gtid.to_owned()),
                before: one.before.cloned(),
                after: one.after.cloned(),
            },
            existing: Side {
                version: met.version,
                gtid: None,
                before: image(&met, |body| &body.before),
                after: image(&met, |body| &body.after),
            },
            shows: met.shows,
            outcome: met.outcome,
            orphan: None,
        });
        self.plan.conflicts.extend(conflicts);
        Ok(())
    }
}

/// Of what is concurrent with the write the best; where columns are resolved apart, all
/// that it meets in its own.
fn in_row<'a>(one: &Touched<'_>, seen: &'a Seen, laid: Option<&'a Aligned>) -> Vec<Met<'a>> {
    let Touched { write, .. } = one;
    let (table, policy, history) = match laid {
        Some(laid) => (&laid.table, &laid.policy, &laid.history),
        None => (&one.table, &one.policy, &seen.history),
    };
    let action = write.version.action;
    let rank = |version: &Version, write: Option<&Write>| {
        policy.order.rank(version, write.and_then(|w| w.body.as_deref()))
    };
    let held = |dot: Dot| seen.history.iter().find(|held| held.version.dot == dot);
    let concurrent = seen.versions.iter().filter(|v| !write.saw(v));
    let Some(best) = concurrent.max_by_key(|v| rank(v, held(v.dot))) else { return Vec::new() };
    let met = |version: Version, body, outcome| {
        let kind = ConflictKind::Row { existing: version.action, incoming: action };
        let above = |v: &Version| rank(v, held(v.dot)) > rank(&version, held(version.dot));
        Met { kind, version, body, shows: !seen.versions.iter().any(above), outcome }
    };
    let body = held(best.dot).and_then(|held| held.body.as_deref());
    match (&policy.merge, write.body.as_deref()) {
        _ if action == Action::Delete && best.action == Action::Delete => Vec::new(),
        (Some(merge), Some(own)) if action != Action::Delete => {
            let found = merge::met(merge, table, history, (write, own));
            match found.is_empty() {
                true => vec![met(*best, body, Outcome::Both)],
                false => found
                    .into_iter()
                    .map(|((other, body), outcome)| met(other.version, Some(body), outcome))
                    .collect(),
            }
        }
        _ => {
            let wins = rank(&write.version, Some(write)) > rank(best, held(best.dot));
            vec![met(*best, body, whole(wins))]
        }
    }
}

/// All of a row goes to one of the two.
const fn whole(incoming_wins: bool) -> Outcome {
    if incoming_wins { Outcome::Incoming } else { Outcome::Existing }
}

#[cfg(test)]
mod tests;
