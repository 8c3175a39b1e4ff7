//! The status as text: readable without colour, `?` where something is not known.

use std::fmt::{Display, Write as _};

use crate::status::{AgentStatus, CaptureStatus, StreamStatus, VerifyStatus};

const HEAD: [&str; 12] = [
    "STREAM", "ASSIGNED", "REPORTED", "APPLIED", "BACKLOG", "RATE/S", "LAG p50", "p90", "p99",
    "p99.9", "MAX", "LINK",
];

/// The whole document.
pub(super) fn text(status: &AgentStatus) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(words.trim_end());
        text.push('\n');
    };
    let up = status.at_us.saturating_sub(status.started_us);
    line(format!(
        "region {}  agent {}  epoch {}  up {}  version {}",
        status.region,
        status.state,
        known(status.epoch),
        duration(up),
        status.version
    ));
    noted(&mut line, status.reason.as_deref(), None);
    let database = &status.database;
    line(format!(
        "database {} {} at {}  {}",
        known(database.flavor.as_ref()),
        known(database.version.as_ref()),
        known(database.address.as_ref()),
        database.reachable.map_or("?", |up| if up { "reachable" } else { "not reachable" }),
    ));
    captured(&mut line, &status.capture);
    let outbox = &status.outbox;
    line(format!(
        "outbox   {}  sent {}  acknowledged {}",
        known(outbox.topic.as_ref()),
        known(outbox.sent_seq),
        known(outbox.acked_seq)
    ));
    noted(&mut line, outbox.reason.as_deref(), None);
    let index = &status.index;
    line(format!(
        "index    {} rows, {} writes kept one by one",
        known(index.keys),
        known(index.writes)
    ));
    let clock = &status.clock;
    let peers = clock.offset_us.iter().map(|(peer, us)| format!(", {peer} {}", offset(*us)));
    let database = offset(clock.source_offset_us);
    line(format!("clocks   database {database}{}", peers.collect::<String>()));
    let off = clock.source_offset_us.map_or(0, i64::unsigned_abs);
    if off > clock.limit_us {
        let reason = "the database's clock is off by more than the limit: its stamps are set right";
        noted(&mut line, Some(reason), Some("set the database host's clock by NTP or PTP"));
    }
    if let Some(verify) = &status.verify {
        compared(&mut line, verify, status.at_us);
    }
    line(String::new());
    streams(&mut line, status);
    for hold in &status.ddl {
        line(format!("held by {}: {} (causeway ddl release {})", hold.id, hold.statement, hold.id));
    }
    text
}

/// The comparison of all regions, and what it has found.
fn compared(line: &mut impl FnMut(String), verify: &VerifyStatus, now_us: u64) {
    let table = verify.table.as_ref().map(|table| format!(" {table}")).unwrap_or_default();
    let last = verify.last_full_us.map(|at| duration(now_us.saturating_sub(at)));
    line(format!(
        "verify   {}{table}  {} rows  last whole pass {}",
        verify.state,
        verify.rows,
        last.map_or("?".to_owned(), |last| format!("{last} ago")),
    ));
    noted(line, verify.reason.as_deref(), None);
    for (table, found) in &verify.tables {
        let classes = found.differences.iter().filter(|(_, count)| **count > 0);
        let classes: Vec<_> = classes.map(|(class, count)| format!("{count} {class}")).collect();
        if !classes.is_empty() {
            line(format!("         {table} differs: {}", classes.join(", ")));
        }
        if let Some(why) = &found.not_compared {
            line(format!("         {table} is not compared: {why}"));
        }
    }
    if verify.tables.values().any(|found| found.differences.values().any(|count| *count > 0)) {
        noted(line, None, Some("causeway verify names the rows, --repair makes them equal"));
    }
}

fn captured(line: &mut impl FnMut(String), capture: &CaptureStatus) {
    line(format!(
        "capture  {}  captured {}  recognised {}  behind {}  gtid {}{}",
        capture.state,
        capture.captured_txns,
        capture.recognised_txns,
        known(capture.behind_us.map(duration)),
        known(capture.gtid.as_ref()),
        match capture.from_files {
            None => "",
            Some(true) => "  from files",
            Some(false) => "  from the server, not from files",
        },
    ));
    noted(line, capture.reason.as_deref(), capture.advice.as_deref());
    if let Some(table) = &capture.refused {
        let reason = format!("a local transaction changed rows of {table}, which is insert_only");
        let advice = "peers halt at it: give the table another policy in all regions, then resume";
        noted(line, Some(&reason), Some(advice));
    }
}

fn noted(line: &mut impl FnMut(String), reason: Option<&str>, advice: Option<&str>) {
    if let Some(reason) = reason {
        line(format!("         why: {reason}"));
    }
    if let Some(advice) = advice {
        line(format!("         do:  {advice}"));
    }
}

fn streams(line: &mut impl FnMut(String), status: &AgentStatus) {
    let rows: Vec<[String; 12]> =
        status.streams.iter().map(|(origin, stream)| row(origin, stream)).collect();
    let mut widths = HEAD.map(|head| head.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    line(join(&HEAD, &widths));
    for (row, (origin, stream)) in rows.iter().zip(&status.streams) {
        line(join(row, &widths));
        if let Some(pause) = &stream.pause {
            let left = duration(pause.until_us.saturating_sub(status.at_us));
            line(format!("         by {}, ends in {left}: {}", pause.who, pause.reason));
        }
        noted(line, stream.reason.as_deref(), stream.advice.as_deref());
        if let Some(reason) = &stream.link.reason {
            line(format!("         link: {reason}"));
        }
        if let Some(silence) = status.silence_us(origin) {
            line(format!(
                "         silent for {}; the index, {} rows, keeps what is written until it is back; \
                 records are kept for {}",
                duration(silence),
                known(status.index.keys),
                known(status.retention_us.map(duration)),
            ));
        }
    }
}

/// Words to the left, numbers to the right.
fn join(cells: &[impl Display; 12], widths: &[usize; 12]) -> String {
    let mut text = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let written = if (3..11).contains(&at) {
            write!(text, "{cell:>width$}  ")
        } else {
            write!(text, "{cell:<width$}  ")
        };
        written.expect("a string takes every text");
    }
    text
}

fn row(origin: &str, stream: &StreamStatus) -> [String; 12] {
    let lag = stream.lag;
    let link = &stream.link;
    let link = match link.backlog {
        Some(backlog) if backlog > 0 => format!("{}, {backlog} to copy", link.state),
        _ => link.state.to_string(),
    };
    [
        origin.to_owned(),
        stream.assigned.to_string(),
        stream.state.to_string(),
        known(stream.applied_seq),
        known(stream.backlog),
        known(stream.rate_txns.map(|rate| format!("{rate:.1}"))),
        known(lag.map(|lag| duration(lag.p50_us))),
        known(lag.map(|lag| duration(lag.p90_us))),
        known(lag.map(|lag| duration(lag.p99_us))),
        known(lag.map(|lag| duration(lag.p999_us))),
        known(lag.map(|lag| duration(lag.max_us))),
        link,
    ]
}

fn known(value: Option<impl Display>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

fn offset(us: Option<i64>) -> String {
    us.map_or_else(
        || "?".to_owned(),
        |us| format!("{}{}", if us < 0 { "-" } else { "+" }, duration(us.unsigned_abs())),
    )
}

/// Three figures or so, with the unit.
fn duration(us: u64) -> String {
    let (ms, s) = (us / 1000, us / 1_000_000);
    match us {
        0..10_000 => format!("{ms}.{:02}ms", us % 1000 / 10),
        10_000..1_000_000 => format!("{ms}ms"),
        1_000_000..60_000_000 => format!("{s}.{:01}s", ms % 1000 / 100),
        60_000_000..3_600_000_000 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::status::{
        AgentState, AgentStatus, Assigned, CaptureState, LagSummary, LinkState, StreamState,
    };

    fn sample() -> AgentStatus {
        let mut status = AgentStatus {
            region: "eu-west".to_owned(),
            epoch: Some(4),
            version: "0.1.0".to_owned(),
            at_us: 7_500_000_000,
            state: AgentState::Running,
            ..AgentStatus::default()
        };
        status.retention_us = Some(604_800_000_000);
        status.capture.state = CaptureState::Running;
        status.capture.from_files = Some(true);
        status.capture.refused = Some("shop.journal".to_owned());
        status.clock.source_offset_us = Some(620_000);
        status.clock.limit_us = 500_000;
        status.clock.offset_us.insert("ap-south".to_owned(), None);
        status.clock.offset_us.insert("us-east".to_owned(), Some(-1_250));
        let us = status.streams.entry("us-east".to_owned()).or_default();
        us.state = StreamState::Running;
        us.applied_seq = Some(1_204_551);
        us.backlog = Some(3);
        us.rate_txns = Some(498.7);
        us.link.state = LinkState::Running;
        let (p50_us, p90_us, p99_us) = (3_100, 6_000, 14_000);
        us.lag = Some(LagSummary {
            samples: 9,
            p50_us,
            p90_us,
            p99_us,
            p999_us: 99_000,
            max_us: 2_500_000,
        });
        let ap = status.streams.entry("ap-south".to_owned()).or_default();
        ap.assigned = Assigned::Running;
        ap.state = StreamState::Halted;
        ap.reason = Some("table shop.orders is missing here".to_owned());
        ap.advice = Some("create it, then: causeway stream resume ap-south".to_owned());
        let sa = status.streams.entry("sa-east".to_owned()).or_default();
        sa.state = StreamState::Running;
        sa.heard_us = Some(300_000_000);
        status
    }

    #[test]
    fn status_reads_without_colour() {
        insta::assert_snapshot!(text(&sample()));
    }
}
