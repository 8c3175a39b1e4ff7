//! This region against the others: keys, clocks, tables.

use super::super::{DatabaseFacts, Facts, Finding, PeerFacts};
use super::schema;
use super::server::number;

const AUTO: &str = "two regions that count alike give one key to two rows";
const CLOCK: &str = "stamps follow commit times; a clock that is off by more than the limit is set \
                     right by its measured offset, which is less exact";
const PEER: &str = "what the regions need of each other can't be checked from here";

pub(super) fn judge(database: &DatabaseFacts, facts: &Facts) -> Vec<Finding> {
    let mut findings =
        vec![auto_increment(database, facts), machine(database, facts.clock_offset_us_max)];
    for (name, peer) in &facts.peers {
        match peer {
            Ok(peer) => {
                findings.push(clock(database, name, peer, facts.clock_offset_us_max));
                findings.extend(schema::judge(database, name, peer));
            }
            Err(why) => findings.push(
                Finding::warn("peer_database", PEER, why.clone())
                    .on(name)
                    .fix("run doctor where the database of that region can be reached"),
            ),
        }
    }
    findings
}

fn auto_increment(database: &DatabaseFacts, facts: &Facts) -> Finding {
    const CHECK: &str = "auto_increment";
    let counting: Vec<String> = database
        .tables
        .iter()
        .filter(|(_, table)| table.columns.iter().any(|column| column.auto_increment))
        .map(|(name, _)| name.to_string())
        .collect();
    let Some(first) = counting.first() else {
        return Finding::pass(CHECK, AUTO, "no replicated table has an AUTO_INCREMENT column");
    };
    let increment = number(database, "auto_increment_increment").unwrap_or(1).max(1);
    let offset = number(database, "auto_increment_offset").unwrap_or(1);
    let regions = u64::try_from(facts.peers.len()).unwrap_or(u64::MAX).saturating_add(1);
    let found =
        format!("increment {increment}, offset {offset}, {} tables ({first} …)", counting.len());
    if increment < regions {
        let fix = format!(
            "set auto_increment_increment to {regions} or more in every region (leave room for \
             further regions) and auto_increment_offset to a number of its own in each"
        );
        return Finding::fail(CHECK, AUTO, found)
            .fix(fix)
            .sql(format!("SET GLOBAL auto_increment_increment = {}", regions.max(10)));
    }
    for (name, peer) in &facts.peers {
        let Ok(PeerFacts { auto_increment: (theirs, their_offset), .. }) = peer else { continue };
        if *theirs != increment || their_offset % increment == offset % increment {
            return Finding::fail(
                CHECK,
                AUTO,
                format!("{found}; {name} has increment {theirs}, offset {their_offset}"),
            )
            .on(name)
            .fix("give every region the same increment and an offset of its own");
        }
    }
    Finding::pass(CHECK, AUTO, found)
}

/// The agent's machine is this one.
fn machine(database: &DatabaseFacts, max_us: u64) -> Finding {
    const CHECK: &str = "database_clock";
    let (offset, doubt) = (database.clock.offset_us, database.clock.round_trip_us / 2);
    let found = format!(
        "the database's clock is {} ms from this machine's (give or take {} ms)",
        milli(offset),
        milli(i64::try_from(doubt).unwrap_or(i64::MAX))
    );
    let surely = offset.unsigned_abs().saturating_sub(doubt);
    let finding = if surely > max_us {
        Finding::fail(CHECK, CLOCK, found)
    } else if surely > max_us / 2 {
        Finding::warn(CHECK, CLOCK, found)
    } else {
        return Finding::pass(CHECK, CLOCK, found);
    };
    finding.fix(format!("set both clocks by NTP or PTP; the topology allows {} ms", max_us / 1000))
}

fn clock(database: &DatabaseFacts, name: &str, peer: &PeerFacts, max_us: u64) -> Finding {
    const CHECK: &str = "clock_offset";
    let offset = peer.clock.offset_us - database.clock.offset_us;
    let doubt = (peer.clock.round_trip_us + database.clock.round_trip_us) / 2;
    let found = format!(
        "the database clock of {name} is {} ms from this region's (give or take {} ms)",
        milli(offset),
        milli(i64::try_from(doubt).unwrap_or(i64::MAX))
    );
    let surely = offset.unsigned_abs().saturating_sub(doubt);
    let finding = if surely > max_us {
        Finding::fail(CHECK, CLOCK, found)
    } else if offset.unsigned_abs() > max_us / 2 {
        Finding::warn(CHECK, CLOCK, found)
    } else {
        return Finding::pass(CHECK, CLOCK, found).on(name);
    };
    finding
        .on(name)
        .fix(format!("set the clocks by NTP or PTP; the topology allows {} ms", max_us / 1000))
}

/// Microseconds as milliseconds with three places.
fn milli(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let us = us.unsigned_abs();
    format!("{sign}{}.{:03}", us / 1000, us % 1000)
}
