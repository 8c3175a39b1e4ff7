//! A row that stands at the end without one that it references, whose last write and that
//! one's end had not seen each other, is in every region's conflict log; and what the log
//! calls an orphan references what the other write took away.

use std::collections::BTreeSet;

use crate::change::{Dot, Row};
use crate::resolve::{Conflict, Orphan, Side};
use crate::sim::oracle::{self, History, Wrote};
use crate::sim::region::Key;
use crate::sim::schema::{self, ID, Name};
use crate::sim::world::World;

/// Child, column, the child's write and the parent's.
type Told = (Key, usize, Dot, Dot);

fn told(orphan: &Orphan, conflict: &Conflict) -> Result<Told, String> {
    let (child, parent) = match orphan.child_came {
        true => (&conflict.incoming, &conflict.existing),
        false => (&conflict.existing, &conflict.incoming),
    };
    let name = schema::of(&orphan.child_table);
    let id = schema::int(&orphan.child, ID).expect("a key");
    let at = usize::try_from(orphan.key.columns[0]).expect("small");
    let of = |&&(column, ..): &&(usize, Name, usize)| column == at;
    let &(_, target, there) = name.references().iter().find(of).expect("a foreign key");
    let (from, to) = (child.version.dot, parent.version.dot);
    let value = schema::int(&orphan.child, at).ok_or("orphans: a NULL references nothing")?;
    let goes = |row: &Option<Row>| row.as_ref().and_then(|row| schema::int(row, there));
    let Side { before, after, .. } = parent;
    // Of a delete that was here before its row is not known where no policy keeps it.
    if before.is_some() && goes(before) != Some(value) || goes(after) == Some(value) {
        return Err(format!("orphans: {before:?} of {target:?} is not what {name:?} {id} lacks"));
    }
    Ok(((name, id), at, from, to))
}

pub(super) fn check(world: &World, history: &History) -> Result<(), String> {
    let mut logs = Vec::new();
    for region in &world.regions {
        let mut log = BTreeSet::new();
        for conflict in &region.conflicts {
            if let Some(orphan) = &conflict.orphan {
                log.insert(told(orphan, conflict)?);
            }
        }
        logs.push((region.id, log));
    }
    let rows = &world.regions[0].rows;
    for (&key, row) in rows {
        for &(at, parent, column) in key.0.references() {
            let Some(value) = schema::int(row, at) else { continue };
            let holds = |(held, row): (&Key, &Row)| {
                held.0 == parent && schema::int(row, column) == Some(value)
            };
            if rows.iter().any(holds) {
                continue;
            }
            let Some(child) = oracle::standing_at(history, key, at) else { continue };
            // Of a row whose columns are resolved apart, one of the writes that left the value;
            // of another one that the last had seen: whoever leaves a reference as it is does
            // not wait for its parent.
            let left =
                |w: &&Wrote| w.after.as_ref().and_then(|r| schema::int(r, at)) == Some(value);
            let all = history[&key].iter().filter(left);
            let all = all.filter(|w| key.0.merges() || child.saw(w));
            let children: Vec<Dot> = all.chain([child]).map(|w| w.dot).collect();
            let ends = ends(history, (parent, column, value), child);
            for (region, log) in &logs {
                let logged = |end: &&Wrote| {
                    children.iter().any(|&child| log.contains(&(key, at, child, end.dot)))
                };
                let missing = match column {
                    ID => ends.iter().any(|end| end.is_concurrent(child) && !logged(end)),
                    // Of several rows that held a value one is enough.
                    _ => {
                        ends.iter().any(|end| end.is_concurrent(child)) && !ends.iter().any(logged)
                    }
                };
                if missing {
                    return Err(format!(
                        "orphans: {key:?} lacks {parent:?} {value} and region {region} has not \
                         logged it\n{child:#?}\n{ends:#?}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// The writes by which rows let the value go that do not hold it in the end. A value that
/// was taken since, and lost again by the row that took it, has that conflict; so has one that
/// the child's author knew another row to hold, which lost it.
fn ends<'a>(
    history: &'a History,
    (parent, column, value): (Name, usize, i64),
    child: &Wrote,
) -> Vec<&'a Wrote> {
    let of = |row: &Option<Row>| row.as_ref().and_then(|row| schema::int(row, column));
    let rows = history.iter().filter(|(key, _)| key.0 == parent);
    let ends = rows.clone().flat_map(|(key, all)| {
        let standing =
            oracle::standing(history, *key).filter(|last| of(&last.after) != Some(value));
        let stands = move |end: &&Wrote| {
            standing.is_some_and(|last| {
                // One that another hid, which held the value, is told where that one goes.
                let hides = |w: &Wrote| of(&w.after) == Some(value) && w.is_concurrent(end);
                last.dot == end.dot || column != ID && last.saw(end) && !all.iter().any(hides)
            })
        };
        let ends = all.iter().filter(stands).filter(move |end| {
            let held = of(&end.before) == Some(value) || column == ID && key.1 == value;
            held && of(&end.after) != Some(value)
        });
        ends.map(move |end| (key, end))
    });
    let taken = |&(row, end): &(&Key, &Wrote)| {
        let known = |(key, other): (&Key, &Wrote)| {
            key != row && child.saw(other) && other.is_concurrent(end)
        };
        let mut holds = rows.clone().flat_map(|(key, all)| all.iter().map(move |w| (key, w)));
        holds.any(|(key, w)| of(&w.after) == Some(value) && (w.saw(end) || known((key, w))))
    };
    let ends = ends.filter(|end| column == ID || !taken(end));
    ends.map(|(_, end)| end).collect()
}
