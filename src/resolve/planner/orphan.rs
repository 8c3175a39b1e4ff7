//! Rows that reference one that is gone: what a foreign key would have refused, had both
//! transactions met in one database.
//!
//! Both writes stand. The pair is told by whoever meets the second of them, so by every
//! region: a child that comes looks for the end of its parent, an end that comes looks for
//! children. A write counts while its row shows it, or may come to show it; where a row is
//! void, its own conflict has been told.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::Planner;
use crate::change::{Dot, ForeignKey, Table};
use crate::mutant::{self, Mutant};
use crate::resolve::conflict::Orphan;
use crate::resolve::stand::{self, Places as _};
use crate::resolve::{Conflict, ConflictKind, Order, Outcome, Policy, Side, Touched, merge};
use crate::version::{Action, BatchId, Body, Foreign, Role, RowKey, Version, Write};

/// Every batch.
const ALL: BatchId = BatchId(u64::MAX);

/// By value, row and transaction, the writes that reference the value.
type Children = HashMap<RowKey, HashMap<(RowKey, Dot), Write>>;

/// A write that is kept, or all that is known of one.
struct Held {
    version: Version,
    body: Option<Arc<Body>>,
}

impl Planner<'_> {
    /// Tells of the rows that `one` leaves without their parent, or that it makes the
    /// orphans of. All writes of its transaction have been entered.
    pub(super) fn orphans(&mut self, one: &Touched<'_>, gtid: &str) {
        let write = &one.write;
        if let Some(foreign) = &write.foreign {
            for &(number, value) in &foreign.references {
                let Some(key) = one.table.foreign_keys.get(number) else { continue };
                for parent in self.gone(write, key, value) {
                    if self.shows_child(write, &one.table, key) {
                        self.child_came(one, gtid, (key, parent));
                    }
                }
            }
            for released in &foreign.released {
                self.parent_came(one, gtid, (released.value, true));
            }
        }
        if write.version.action == Action::Delete {
            self.parent_came(one, gtid, (write.key, false));
        }
    }

    /// The writes that took away what a child references, neither author having seen the
    /// other's, and no one having put it back.
    fn gone(&mut self, child: &Write, key: &ForeignKey, value: RowKey) -> Vec<Held> {
        if !key.unique {
            let deletes = self.deletes(value).into_iter().filter(|version| !child.saw(version));
            let deletes: Vec<Version> = deletes.collect();
            return deletes.into_iter().map(|version| self.held(value, version)).collect();
        }
        let released = self.filed(value, Role::Releases);
        let mut gone = Vec::new();
        for write in released.into_iter().filter(|write| !child.saw(&write.version)) {
            if self.is_released(&write, value) {
                gone.push(self.held(write.key, write.version));
            }
        }
        gone
    }

    /// Whether a value that a write let go is held neither by its row, which later writes
    /// may have shown since, nor by another.
    fn is_released(&mut self, write: &Write, value: RowKey) -> bool {
        self.load(write.key);
        let seen = self.places.seen(write.key);
        let Some(best) = stand::best(&self.policy_at(write.key), seen) else { return false };
        let best = seen.history.iter().find(|held| held.version.dot == best.dot);
        let claims = best.and_then(|best| best.body.as_ref()).map(|body| &body.claims);
        let mut released = write.foreign.iter().flat_map(|foreign| &foreign.released);
        let claim = released.find(|held| held.value == value).map(|held| held.claim);
        let is_held = claim.is_none_or(|claim| claims.is_none_or(|held| held.contains(&claim)));
        !is_held && !self.is_taken(write, value)
    }

    /// Whether another row has taken the value with it or since.
    fn is_taken(&mut self, released: &Write, value: RowKey) -> bool {
        let foreign = released.foreign.iter().flat_map(|foreign| &foreign.released);
        let claims: SmallVec<[RowKey; 1]> =
            foreign.filter(|held| held.value == value).map(|held| held.claim).collect();
        claims.into_iter().any(|claim| {
            self.load(claim);
            let history = &self.places.seen(claim).history;
            let later = history
                .iter()
                .filter(|held| held.key != released.key && held.saw(&released.version));
            let later: Vec<(RowKey, Dot)> =
                later.map(|held| (held.key, held.version.dot)).collect();
            later.into_iter().any(|(row, dot)| self.shows(row, dot))
        })
    }

    /// The deletes of a row that it shows, or may come to show.
    fn deletes(&mut self, row: RowKey) -> SmallVec<[Version; 1]> {
        let gone = |version: &&Version| version.action == Action::Delete;
        match self.places.get(&row) {
            Some(place) if place.seen.versions.iter().any(|version| gone(&version)) => {}
            Some(_) => return SmallVec::new(),
            None => {
                let index = self.index;
                let known = self.plan.parents.entry(row);
                let is_known = !known.or_insert_with(|| index.deletes(row, ALL)).is_empty();
                if !is_known && self.part.is_none_or(|(earlier, _)| earlier.of(row).is_empty()) {
                    return SmallVec::new();
                }
            }
        }
        self.close(vec![row]);
        let seen = self.places.seen(row);
        let policy = self.policy_at(row);
        let best = stand::best(&policy, seen).map(|version| version.dot);
        let deletes = seen.versions.iter().filter(gone).filter(|version| {
            let shows = policy.order != Order::Latest || best == Some(version.dot);
            // Void it shows what was before, but for a row that holds unique values.
            shows && !self.is_void(row, version.dot, |body| body.table.unique_keys.is_empty())
        });
        deletes.copied().collect()
    }

    fn is_void(&self, row: RowKey, dot: Dot, counts: impl Fn(&Body) -> bool) -> bool {
        let history = &self.places.seen(row).history;
        let write = history.iter().find(|held| held.version.dot == dot);
        let body = write.and_then(|write| Some((write, write.body.as_deref()?)));
        body.is_some_and(|(write, body)| {
            counts(body) && stand::is_void(&self.standing(), write, body)
        })
    }

    /// The policy of a row that is loaded. Of one whose writes are not kept it is plain.
    fn policy_at(&self, row: RowKey) -> Arc<Policy> {
        let kept = self.places.seen(row).history.iter().find_map(|held| held.body.as_ref());
        kept.map_or_else(Arc::default, |body| self.book.of(&body.table).1)
    }

    /// Whether the row's best write is this one.
    fn shows(&mut self, row: RowKey, dot: Dot) -> bool {
        self.load(row);
        let best = stand::best(&self.policy_at(row), self.places.seen(row));
        best.is_some_and(|version| version.dot == dot)
    }

    /// Whether a row shows this write of it, or may come to show it: of a row whose columns
    /// are resolved apart, in the columns of the key.
    fn shows_child(&mut self, write: &Write, table: &Table, key: &ForeignKey) -> bool {
        let dot = write.version.dot;
        self.close(vec![write.key]);
        let (table, policy) = self.book.of(table);
        let seen = self.places.seen(write.key);
        if write.version.action == Action::Delete {
            return false;
        }
        if let Some(merge) = &policy.merge {
            // What can't be laid out is refused when it is shown.
            let laid = self.aligned(&table, write.key).ok().flatten();
            let (table, merge, history) = match &laid {
                Some(laid) => {
                    (&laid.table, laid.policy.merge.as_ref().unwrap_or(merge), &laid.history)
                }
                None => (&table, merge, &seen.history),
            };
            let held = history.iter().find(|held| held.version.dot == dot);
            let Some(held) = held.and_then(|held| Some((held, held.body.as_deref()?))) else {
                return false;
            };
            let columns: Vec<usize> =
                key.columns.iter().filter_map(|&at| usize::try_from(at).ok()).collect();
            return !merge::loses(merge, table, (history, held), &columns);
        }
        if seen.versions.iter().all(|version| version.dot != dot) {
            return false;
        }
        if policy.order != Order::Latest {
            return true;
        }
        stand::best(&policy, seen).is_some_and(|best| best.dot == dot)
            && !self.is_void(write.key, dot, |_| true)
    }

    /// The writes filed under a value, with what the batch adds; what was there before it
    /// is part of what the plan stands on.
    fn filed(&mut self, value: RowKey, role: Role) -> Vec<Write> {
        let mut writes: Vec<Write> = self.index.filed(value, role, ALL).cloned().collect();
        let dots = writes.iter().map(|write| write.version.dot).collect();
        self.plan.filed.push((value, role, dots));
        let (register, filed) = &mut self.register;
        for write in self.plan.writes.iter().skip(*filed) {
            register.enter(write, None);
        }
        *filed = self.plan.writes.len();
        writes.extend(register.of(value, role, ALL).cloned());
        writes
    }

    fn held(&self, row: RowKey, version: Version) -> Held {
        let mut history = self.places.get(&row).into_iter().flat_map(|place| &place.seen.history);
        let write = history.find(|held| held.version.dot == version.dot);
        Held { version, body: write.and_then(|write| write.body.clone()) }
    }

    /// A parent's end came, or the end of a value that it held: tells of those that
    /// reference it.
    fn parent_came(&mut self, one: &Touched<'_>, gtid: &str, (value, unique): (RowKey, bool)) {
        if mutant::is(Mutant::OrphanOneWay) {
            return;
        }
        let dot = one.write.version.dot;
        let mut children = self.filed(value, Role::References);
        children.retain(|child| !one.write.saw(&child.version));
        if children.is_empty() {
            return;
        }
        let gone = match unique {
            true => self.is_released(&one.write, value),
            false => self.deletes(value).iter().any(|version| version.dot == dot),
        };
        if !gone {
            return;
        }
        for child in children {
            let Some(foreign) = child.foreign.clone() else { continue };
            for (number, _) in foreign.references.iter().filter(|(_, held)| *held == value) {
                let Some(key) = foreign.table.foreign_keys.get(*number) else { continue };
                if !self.shows_child(&child, &foreign.table, key) {
                    continue;
                }
                let held = self.held(child.key, child.version);
                self.parent_went(one, gtid, (key, &foreign, held));
            }
        }
    }

    fn child_came(&mut self, one: &Touched<'_>, gtid: &str, (key, parent): (&ForeignKey, Held)) {
        let Some(child) = one.after.cloned() else { return };
        let orphan = Orphan {
            child_came: true,
            key: key.clone(),
            child_table: Arc::clone(&one.table),
            child,
            parent_table: parent.body.as_ref().map(|body| Arc::clone(&body.table)),
        };
        let policy = one.policy.name();
        self.tell(one, gtid, (parent, policy, orphan));
    }

    fn parent_went(
        &mut self,
        one: &Touched<'_>,
        gtid: &str,
        (key, foreign, child): (&ForeignKey, &Foreign, Held),
    ) {
        let row = child.body.as_ref().and_then(|body| body.after.clone());
        let orphan = Orphan {
            child_came: false,
            key: key.clone(),
            child_table: Arc::clone(&foreign.table),
            child: row.unwrap_or_else(|| foreign.row()),
            parent_table: Some(Arc::clone(&one.table)),
        };
        let policy = self.book.of(&foreign.table).1.name();
        self.tell(one, gtid, (child, policy, orphan));
    }

    fn tell(
        &mut self,
        one: &Touched<'_>,
        gtid: &str,
        (existing, policy, orphan): (Held, &'static str, Orphan),
    ) {
        let body = existing.body.as_deref();
        let met = Conflict {
            table: Arc::clone(&one.table),
            kind: ConflictKind::ForeignKey,
            policy,
            incoming: Side {
                version: one.write.version,
                gtid: Some(gtid.to_owned()),
                before: one.before.cloned(),
                after: one.after.cloned(),
            },
            existing: Side {
                version: existing.version,
                gtid: None,
                before: body.and_then(|body| body.before.clone()),
                after: body.and_then(|body| body.after.clone()),
            },
            shows: true,
            outcome: Outcome::Both,
            orphan: Some(Arc::new(orphan)),
        };
        match self.part {
            Some((_, false)) => self.plan.orphans.push((one.write.clone(), met)),
            Some((_, true)) | None => self.plan.conflicts.push(met),
        }
    }

    /// Tells of the rows without their parent that earlier parts left, now that all of the
    /// transaction is known.
    pub(super) fn left(&mut self, orphans: Vec<(Write, Conflict)>) {
        let mut children = HashMap::new();
        for (came, met) in orphans {
            if self.is_left(&came, &met, &mut children) {
                self.plan.conflicts.push(met);
            }
        }
    }

    /// Whether what came and what was there still are a row and the one that it lacks.
    /// `children` holds the writes filed under the values that were asked for.
    fn is_left(&mut self, came: &Write, met: &Conflict, children: &mut Children) -> bool {
        let Some(orphan) = met.orphan.as_deref() else { return false };
        let (table, key) = (&orphan.child_table, &orphan.key);
        let row = RowKey::of(table, &table.key_columns(), &orphan.child).ok();
        let Some(value) = RowKey::referenced(table, key, &orphan.child) else { return false };
        let (child, parent) = match orphan.child_came {
            true => (Some(came.clone()), met.existing.version),
            false => {
                let filed = children.entry(value).or_insert_with(|| {
                    let filed = self.filed(value, Role::References).into_iter();
                    filed.map(|write| ((write.key, write.version.dot), write)).collect()
                });
                let child = row.and_then(|row| filed.get(&(row, met.existing.version.dot)));
                (child.cloned(), came.version)
            }
        };
        let Some(child) = child else { return false };
        self.gone(&child, key, value).iter().any(|held| held.version.dot == parent.dot)
            && self.shows_child(&child, table, key)
    }
}

#[cfg(test)]
mod tests;
