//! Makes the plan of one batch.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::align::{self, Aligned, Lacks};
use super::merge::{self, Effect};
use super::plan::{Earlier, Incoming, Plan, PlanError, TablePlan};
use super::stand::{self, GroupId, Places, Shown, Verdicts};
use super::{Order, Rulebook, Touched, touched};
use crate::change::{Dot, Table};
use crate::mutant::{self, Mutant};
use crate::version::{Index, Register, RowKey, Seen, Version, Write};

#[derive(Debug, Default)]
struct Place {
    seen: Seen,
    /// Where its operation is: table, place.
    op: Option<(usize, usize)>,
    /// Whether the batch finds a row here; unknown before its first write of it.
    found: Option<bool>,
}

#[derive(Debug)]
struct Op {
    effect: Effect,
    found: bool,
}

impl TablePlan {
    /// Those that find their row come before the others.
    fn push(&mut self, effect: Effect, found: bool) {
        let count = usize::from(found);
        match effect {
            Effect::Put(row) => {
                self.puts.push(row);
                self.found.puts += count;
            }
            Effect::Remove(row) => {
                self.removes.push(row);
                self.found.removes += count;
            }
            Effect::Merge(row) => {
                self.merges.push(row);
                self.found.merges += count;
            }
        }
    }
}

#[derive(Debug)]
struct TableOps {
    table: Arc<Table>,
    ops: Vec<Option<Op>>,
}

/// Why a row is worked out again.
#[derive(Clone, Copy, Debug)]
enum Cause {
    /// A write of it came: which of its transaction's.
    Came(usize),
    /// A write of it became void.
    Void(Dot),
}

/// Makes the plan of one batch.
#[derive(Debug)]
pub struct Planner<'a> {
    index: &'a Index,
    book: &'a Rulebook,
    places: HashMap<RowKey, Place>,
    /// Rows whose writes' groups are all loaded, and will be: each write brings its own.
    closed: HashSet<RowKey>,
    /// Groups of which that holds.
    grouped: HashSet<GroupId>,
    verdicts: Verdicts,
    tables: Vec<TableOps>,
    plan: Plan,
    /// What the batch's own writes have to do with rows of other tables: those of the
    /// first so many, filed when somebody asks.
    register: (Register, usize),
    /// Of a transaction of which a part comes, those before it; and whether it is the last.
    part: Option<(&'a Earlier, bool)>,
}

impl Places for HashMap<RowKey, Place> {
    fn seen(&self, place: RowKey) -> &Seen {
        &self.get(&place).expect("every place of a group is loaded").seen
    }
}

/// The places between two entries.
struct Standing<'a> {
    places: &'a HashMap<RowKey, Place>,
    verdicts: &'a Verdicts,
}

impl Places for Standing<'_> {
    fn seen(&self, place: RowKey) -> &Seen {
        self.places.seen(place)
    }

    fn verdicts(&self) -> Option<&Verdicts> {
        Some(self.verdicts)
    }
}

/// The rows to work out again, and why.
#[derive(Debug, Default)]
struct Shows {
    rows: Vec<(RowKey, Cause)>,
    /// Groups whose rows are among them.
    groups: HashSet<GroupId>,
}

impl Shows {
    /// A write has become void, and with it its group.
    fn void(&mut self, held: &Write) {
        let cause = Cause::Void(held.version.dot);
        let Some((id, keys)) = group(held) else { return self.rows.push((held.key, cause)) };
        if self.groups.insert(id) {
            self.rows.extend(keys.iter().map(|&key| (key, cause)));
        }
    }
}

/// The rows that a write stands or falls with.
fn group(held: &Write) -> Option<(GroupId, Arc<[RowKey]>)> {
    let keys = held.body.as_ref()?.group.clone()?;
    Some(((held.version.dot, *keys.first()?), keys))
}

impl<'a> Planner<'a> {
    /// An empty batch over the versions known here.
    #[must_use]
    pub fn new(index: &'a Index, book: &'a Rulebook) -> Self {
        let plan = Plan { local_writes: index.local_writes(), ..Plan::default() };
        Self {
            index,
            book,
            places: HashMap::new(),
            closed: HashSet::new(),
            grouped: HashSet::new(),
            verdicts: Verdicts::default(),
            tables: Vec::new(),
            plan,
            register: Default::default(),
            part: None,
        }
    }

    /// What comes is a part of a transaction, after the earlier ones; perhaps the last.
    #[must_use]
    pub const fn part(mut self, earlier: &'a Earlier, last: bool) -> Self {
        self.part = Some((earlier, last));
        self
    }

    /// Adds a transaction, after those added before.
    ///
    /// # Errors
    /// [`PlanError`]; the planner must then be thrown away.
    pub fn add(&mut self, txn: &Incoming<'_>) -> Result<(), PlanError> {
        let writes = touched(self.book, txn)?;
        let mut shows = Shows::default();
        self.verdicts.get_mut().clear();
        for (n, one) in writes.iter().enumerate() {
            if one.policy.merge.is_none() {
                self.check_shape(&one.table)?;
            }
            for place in one.write.places() {
                self.load(place);
            }
            self.meet(one, txn.gtid)?;
            let key = one.write.key;
            let plain = one.write.body.is_none() && self.places.seen(key).history.is_empty();
            if plain {
                self.expect(one);
                self.plain(one);
            } else {
                self.victims(&one.write, &mut shows);
                self.expect(one);
                shows.rows.push((key, Cause::Came(n)));
            }
            if self.is_dropped(one) {
                continue;
            }
            for place in one.write.places() {
                let held = self.places.get_mut(&place).expect("it was just loaded");
                held.seen.enter(place, &one.write);
            }
            self.plan.writes.push(one.write.clone());
        }
        self.verdicts.get_mut().clear();
        for one in &writes {
            self.orphans(one, txn.gtid);
        }
        for (key, cause) in shows.rows {
            match cause {
                Cause::Came(n) => self.show(key, Some(&writes[n]))?,
                Cause::Void(dot) if self.stands(key, dot) => self.show(key, None)?,
                Cause::Void(_) => {}
            }
        }
        Ok(())
    }

    /// The plan.
    #[must_use]
    pub fn finish(mut self) -> Plan {
        if let Some((earlier, true)) = self.part {
            self.left(self.plan.without_again(earlier.orphans.clone()));
        }
        for TableOps { table, mut ops } in self.tables {
            let mut plan = TablePlan::new(Table::clone(&table));
            // What finds its row first. Each is taken out where it stands: of a large
            // transaction they are many.
            for found in [true, false] {
                let taken = ops.iter_mut().filter_map(|op| op.take_if(|op| op.found == found));
                taken.for_each(|op| plan.push(op.effect, found));
            }
            if plan.puts.len() + plan.removes.len() + plan.merges.len() > 0 {
                self.plan.tables.push(plan);
            }
        }
        self.plan
    }

    fn load(&mut self, place: RowKey) {
        if self.places.contains_key(&place) {
            return;
        }
        let mut seen = self.index.seen(place);
        if mutant::is(Mutant::NaiveUniqueEviction) {
            seen.history.retain(|held| {
                if held.key == place {
                    return true;
                }
                let row = self.index.seen(held.key);
                row.versions.iter().any(|v| v.dot == held.version.dot)
            });
        }
        let dots = seen.dots();
        if dots.is_empty() {
            self.plan.fresh.push(place);
        } else {
            self.plan.basis.push((place, dots));
        }
        for write in self.part.map_or(&[][..], |(earlier, _)| earlier.of(place)) {
            seen.enter(place, write);
        }
        self.places.insert(place, Place { seen, op: None, found: None });
    }

    fn check_shape(&self, table: &Table) -> Result<(), PlanError> {
        let same_name =
            |ops: &&TableOps| ops.table.name == table.name && ops.table.schema == table.schema;
        match self.tables.iter().find(same_name) {
            Some(ops) if !ops.table.same_shape(table) => {
                Err(PlanError::Shape(table.full_name().to_string()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A write whose version says all: the later stamp stands.
    fn plain(&mut self, one: &Touched<'_>) {
        let seen = self.places.seen(one.write.key);
        let mine = one.write.version.rank();
        let loses = |v: &Version| {
            if mutant::is(Mutant::EqualStampsKeepOwn) { v.hlc < mine.0 } else { v.rank() < mine }
        };
        if seen.versions.iter().all(|v| one.write.saw(v) || loses(v)) {
            self.operate(&one.table, one.write.key, own(one));
        }
    }

    /// Loads the rows that the write may make void, and that may make it void.
    fn victims(&mut self, write: &Write, shows: &mut Shows) {
        let before = shows.rows.len();
        let mut groups = Vec::new();
        groups.extend(group(write));
        for held in &self.places.seen(write.key).history {
            groups.extend(group(held));
            if group(held).is_some() && stand::beats(write, held) {
                shows.void(held);
            }
        }
        for claim in write.body.iter().flat_map(|body| &body.claims) {
            for held in &self.places.seen(*claim).history {
                groups.extend(group(held));
                if stand::beats(write, held) && held.key != write.key {
                    shows.void(held);
                }
            }
        }
        let mut rows: Vec<RowKey> = shows.rows[before..].iter().map(|(key, _)| *key).collect();
        rows.push(write.key);
        for (id, keys) in groups {
            if self.grouped.insert(id) {
                rows.extend(keys.iter().copied());
            }
        }
        self.close(rows);
    }

    /// A deliberate bug: what loses by priority is forgotten.
    fn is_dropped(&self, one: &Touched<'_>) -> bool {
        let Touched { write, policy, .. } = one;
        let rank = |write: &Write| policy.order.rank(&write.version, write.body.as_deref());
        let stronger = |held: &Write| held.is_concurrent(write) && rank(held) > rank(write);
        mutant::is(Mutant::PriorityWithoutSiblings)
            && matches!(policy.order, Order::Priority(_))
            && self.places.seen(write.key).history.iter().any(stronger)
    }

    /// Whether the row shows what this write, now void, made of it. One that shows another
    /// write is not looked at again: what made that one void may be forgotten by now.
    fn stands(&self, key: RowKey, dot: Dot) -> bool {
        let seen = self.places.seen(key);
        if mutant::is(Mutant::VoidShowsAll) {
            return true;
        }
        // What another has seen shows nowhere: most writes of a hot row.
        if seen.versions.iter().all(|version| version.dot != dot) {
            return false;
        }
        let kept = seen.history.iter().find_map(|held| held.body.as_ref());
        let best = kept.and_then(|body| stand::best(&self.book.of(&body.table).1, seen).copied());
        best.is_some_and(|best| best.dot == dot)
    }

    /// Loads rows, the groups of their writes, and the unique values of these.
    fn close(&mut self, mut rows: Vec<RowKey>) {
        while let Some(key) = rows.pop() {
            if !self.closed.insert(key) {
                continue;
            }
            self.load(key);
            let mut claims = Vec::new();
            for held in &self.places.seen(key).history {
                if let Some((id, keys)) = group(held)
                    && self.grouped.insert(id)
                {
                    rows.extend(keys.iter().copied());
                }
                claims.extend(held.body.iter().flat_map(|body| body.claims.iter().copied()));
            }
            for claim in claims {
                self.load(claim);
            }
        }
    }

    /// What is known of the places, as long as nothing is entered.
    const fn standing(&self) -> Standing<'_> {
        Standing { places: &self.places, verdicts: &self.verdicts }
    }

    /// Works out what a row shows, and makes it so. `one` is the write that came to it.
    fn show(&mut self, key: RowKey, one: Option<&Touched<'_>>) -> Result<(), PlanError> {
        if let Some(one) = one
            && let (Some(merge), Some(body)) = (&one.policy.merge, one.write.body.as_deref())
        {
            let sum = || PlanError::Sum(one.table.full_name().to_string());
            let Some(laid) = self.aligned(&one.table, key)? else {
                let history = &self.places.seen(key).history;
                let effect =
                    merge::effect(merge, &one.table, (history, &Lacks::new()), (&one.write, body));
                return self.join(&one.table, key, effect.ok_or_else(sum)?);
            };
            let mine = |held: &&Write| held.version.dot == one.write.version.dot;
            let mine = laid.history.iter().find(mine).and_then(|w| Some((w, w.body.as_deref()?)));
            let merge = laid.policy.merge.as_ref().unwrap_or(merge);
            let mine = mine.expect("the write was entered before it is shown");
            let effect = merge::effect(merge, &laid.table, (&laid.history, &laid.lacks), mine);
            return self.join(&laid.table, key, effect.ok_or_else(sum)?);
        }
        let history = &self.places.seen(key).history;
        let kept = history.iter().find_map(|held| held.body.as_ref());
        let (table, policy) = match (one, kept) {
            (Some(one), _) => (Arc::clone(&one.table), Arc::clone(&one.policy)),
            (None, Some(body)) => self.book.of(&body.table),
            (None, None) => return Ok(()),
        };
        // A row that merges is decided by its own writes alone.
        if one.is_none() && policy.merge.is_some() {
            return Ok(());
        }
        match stand::shown(&policy, &self.standing(), key) {
            Some(Shown::Row(row, table)) => self.operate(&table, key, Effect::Put(row)),
            Some(Shown::Nothing(row, table, by)) => {
                self.plan.hidden.extend(by.map(|by| (key, by)));
                self.operate(&table, key, Effect::Remove(row));
            }
            Some(Shown::As(version)) => {
                if let Some(one) = one.filter(|one| one.write.version.dot == version.dot) {
                    self.operate(&table, key, own(one));
                }
            }
            None => {}
        }
        Ok(())
    }

    /// The row's writes laid out alike, where they were made with other columns than the
    /// table has.
    fn aligned(&self, table: &Arc<Table>, key: RowKey) -> Result<Option<Aligned>, PlanError> {
        let history = &self.places.seen(key).history;
        align::aligned(self.book, table, history)
            .map_err(|_| PlanError::Shape(table.full_name().to_string()))
    }

    fn join(&mut self, table: &Arc<Table>, key: RowKey, later: Effect) -> Result<(), PlanError> {
        let held = self.places.get(&key).and_then(|place| place.op);
        let earlier = held.and_then(|(held, at)| {
            let TableOps { table, ops } = &mut self.tables[held];
            Some((Arc::clone(table), ops[at].take()?.effect))
        });
        let effect = match earlier {
            Some((from, earlier)) => {
                let earlier = merge::relaid(earlier, &from, table)
                    .map_err(|_| PlanError::Shape(table.full_name().to_string()))?;
                merge::join(earlier, later)
                    .ok_or_else(|| PlanError::Sum(table.full_name().to_string()))?
            }
            None => later,
        };
        self.operate(table, key, effect);
        Ok(())
    }

    /// The operation on a row, in place of an earlier one.
    fn operate(&mut self, table: &Arc<Table>, key: RowKey, effect: Effect) {
        let place = self.places.get_mut(&key).expect("a row is loaded before it is decided");
        let effect = Op { effect, found: *place.found.get_or_insert(false) };
        let same = |ops: &TableOps| Arc::ptr_eq(&ops.table, table) || ops.table.same_shape(table);
        if let Some((held, at)) = place.op.take() {
            if same(&self.tables[held]) {
                self.tables[held].ops[at] = Some(effect);
                place.op = Some((held, at));
                return;
            }
            self.tables[held].ops[at] = None;
        }
        let at = self.tables.iter().position(same).unwrap_or_else(|| {
            self.tables.push(TableOps { table: Arc::clone(table), ops: Vec::new() });
            self.tables.len() - 1
        });
        place.op = Some((at, self.tables[at].ops.len()));
        self.tables[at].ops.push(Some(effect));
    }
}

/// What a write makes of its row when it stands.
fn own(one: &Touched<'_>) -> Effect {
    match one.after {
        Some(row) => Effect::Put(row.clone()),
        None => Effect::Remove(one.before.expect("a touched row was there or is").clone()),
    }
}

mod found;
mod meet;
mod orphan;

#[cfg(test)]
mod tests;
