//! Which write a row shows, and when a write is void: pure functions of what is seen.
//!
//! A write is *void* when one of the rows of its group, or one of its unique values,
//! was written by a concurrent transaction with the later stamp. That never ends: no
//! write that comes later can make it valid again, so all regions agree whatever came
//! first. A row whose best write is void shows what was before that write; in a table
//! with further unique keys it goes, since its old values may be taken.

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;

use super::{Order, Policy};
use crate::change::{Dot, Row, Table};
use crate::mutant::{self, Mutant};
use crate::version::{Body, RowKey, Seen, Version, Write};

/// What a row shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shown {
    /// This row, of the table as it was where the row was written.
    Row(Row, Arc<Table>),
    /// Nothing; a row with the key, to find it by, and which write elsewhere took it away.
    Nothing(Row, Arc<Table>, Option<Dot>),
    /// What the version's own write left.
    As(Version),
}

/// How the rows of a transaction that win or lose together are known: by the first of them.
pub(super) type GroupId = (Dot, RowKey);

/// For which write a group can't stand.
pub(super) type Verdicts = RefCell<HashMap<GroupId, Option<Dot>>>;

/// What the writes of a row and of its group are looked up in.
pub(super) trait Places {
    fn seen(&self, place: RowKey) -> &Seen;

    /// What was worked out of groups, as long as nothing is entered that may change it: each
    /// row of a group has the group's verdict, and a group may have a million rows.
    fn verdicts(&self) -> Option<&Verdicts> {
        None
    }
}

fn body<'a>(seen: &'a Seen, version: &Version) -> Option<&'a Write> {
    seen.history.iter().find(|held| held.version.dot == version.dot)
}

/// The version that stands among the survivors.
pub(super) fn best<'a>(policy: &Policy, seen: &'a Seen) -> Option<&'a Version> {
    if mutant::is(Mutant::PriorityOverCausality) && policy.order != Order::Latest {
        let all = seen.history.iter();
        let best = all.max_by_key(|w| policy.order.rank(&w.version, w.body.as_deref()));
        return best.map(|write| &write.version);
    }
    seen.versions.iter().max_by_key(|version| {
        let write = body(seen, version);
        policy.order.rank(version, write.and_then(|write| write.body.as_deref()))
    })
}

/// What the row shows; `None` when nothing is known of it.
pub(super) fn shown(policy: &Policy, places: &impl Places, key: RowKey) -> Option<Shown> {
    let seen = places.seen(key);
    let version = best(policy, seen)?;
    let Some((write, body)) =
        body(seen, version).and_then(|write| write.body.as_deref().map(|body| (write, body)))
    else {
        return Some(Shown::As(*version));
    };
    let void = voider(places, write, body);
    let row = if void.is_none() {
        body.after.as_ref()
    } else if body.table.unique_keys.is_empty() {
        body.before.as_ref()
    } else {
        None
    };
    let table = Arc::clone(&body.table);
    Some(match row {
        Some(row) => Shown::Row(row.clone(), table),
        None => {
            let known = body.after.as_ref().or(body.before.as_ref());
            Shown::Nothing(known.expect("a kept write has a row").clone(), table, void)
        }
    })
}

/// Whether the write can't stand, for its unique values or for its group.
pub(super) fn is_void(places: &impl Places, write: &Write, body: &Body) -> bool {
    voider(places, write, body).is_some()
}

/// A write for which this one can't stand.
fn voider(places: &impl Places, write: &Write, body: &Body) -> Option<Dot> {
    let lost = |half: &Write| {
        half.body.iter().flat_map(|body| &body.claims).find_map(|&claim| {
            let mut others = places.seen(claim).history.iter();
            others.find(|other| beats(other, half) && other.key != half.key)
        })
    };
    let beaten = |&member: &RowKey| {
        let history = &places.seen(member).history;
        let half = history.iter().find(|held| held.version.dot == write.version.dot)?;
        lost(half).or_else(|| history.iter().find(|other| beats(other, half)))
    };
    let Some(group) = &body.group else { return lost(write).map(|other| other.version.dot) };
    let id = (write.version.dot, *group.first()?);
    let known = places.verdicts();
    if let Some(verdict) = known.and_then(|known| known.borrow().get(&id).copied()) {
        return verdict;
    }
    let verdict = group.iter().find_map(beaten).map(|other| other.version.dot);
    if let Some(known) = known {
        known.borrow_mut().insert(id, verdict);
    }
    verdict
}

/// Whether `write` is concurrent with the other and later.
pub(super) fn beats(write: &Write, other: &Write) -> bool {
    write.version.dot != other.version.dot
        && write.is_concurrent(other)
        && write.version.rank() > other.version.rank()
}
