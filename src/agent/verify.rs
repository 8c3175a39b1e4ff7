//! Compares all regions' tables, pass after pass, where the topology names this region.
//!
//! One agent compares, since one comparison takes in all regions; each for itself would
//! read every table as often as there are regions. It stands outside sessions and only
//! reads. A pass that a region's absence interrupts goes on where it was; one that the
//! agent's end interrupts begins anew, as the agent keeps nothing on disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::clock::wall_us;
use crate::compare::{Class, State, TableReport};
use crate::status::{TableVerify, VerifyState, VerifyStatus};
use crate::topology;
use crate::verify::{self, Config, Progress, VerifyError, Watcher};

/// Before a pass that failed goes on.
const RETRY: Duration = Duration::from_secs(10);
/// How long the streams may take to pass rows that differ.
const SETTLE: Duration = Duration::from_secs(60);
/// A table with more differences is not read to its end.
const DIFFERENCES_MAX: usize = 1_000;

/// Compares until cancelled.
pub(crate) async fn keep(shared: Arc<Shared>, rule: topology::Verify, cancel: CancellationToken) {
    let interval_us = rule.interval.micros();
    let first = VerifyStatus { interval_us, ..VerifyStatus::default() };
    shared.board.update(|status| status.verify = Some(first));
    let mut keeper = Keeper { shared: Arc::clone(&shared), state: None, chunks: 0 };
    let mut began = Instant::now();
    loop {
        let next = match Box::pin(pass(&shared, &rule, &mut keeper, &cancel)).await {
            Ok(()) => {
                keeper.state = None;
                keeper.chunks = 0;
                began + rule.interval.get()
            }
            Err(error) => {
                let reason = told(&error);
                tracing::warn!(reason, "the comparison of the regions is interrupted");
                show(&shared, |verify| {
                    verify.state = VerifyState::Retrying;
                    verify.reason = Some(reason);
                });
                Instant::now() + RETRY
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
        if keeper.state.is_none() {
            began = Instant::now();
        }
    }
}

/// With its cause, which says what to do.
fn told(error: &VerifyError) -> String {
    use std::error::Error as _;
    let cause = error.source().map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

fn show(shared: &Shared, change: impl FnOnce(&mut VerifyStatus)) {
    shared.board.update(|status| change(status.verify.get_or_insert_default()));
}

/// One pass, or the rest of one.
async fn pass(
    shared: &Shared,
    rule: &topology::Verify,
    keeper: &mut Keeper,
    cancel: &CancellationToken,
) -> Result<(), VerifyError> {
    let setup = &shared.setup;
    let config = Config {
        topology: &setup.topology,
        here: &setup.region,
        login: setup.verify.clone(),
        kafka: setup.kafka.clone(),
        tables: Vec::new(),
        lag_max: rule.max_lag.get(),
        rows_per_second: Some(rule.rows_per_second),
        patience: SETTLE,
        differences_max: DIFFERENCES_MAX,
        values: false,
    };
    let state = keeper.state.clone();
    if state.is_none() {
        show(shared, |verify| verify.began_us = Some(wall_us()));
    }
    let report = verify::run(&config, state, keeper, cancel.clone()).await?;
    let full_us = report.is_whole().then(wall_us);
    let count: usize = report.tables.iter().map(|table| table.differences.len()).sum();
    if report.finished_us.is_some() {
        tracing::info!(differences = count, whole = full_us.is_some(), "the regions are compared");
    }
    show(shared, |verify| {
        verify.state = VerifyState::Waiting;
        verify.reason = None;
        verify.table = None;
        verify.last_full_us = full_us.or(verify.last_full_us);
        // Those that are gone.
        verify.tables.retain(|name, _| report.tables.iter().any(|table| table.table == *name));
    });
    Ok(())
}

/// Shows how far a pass is, and keeps its place.
struct Keeper {
    shared: Arc<Shared>,
    state: Option<State>,
    /// Of this pass, as counted.
    chunks: u64,
}

impl Watcher for Keeper {
    fn progress(&mut self, progress: &Progress<'_>) {
        show(&self.shared, |verify| {
            verify.state = VerifyState::Comparing;
            verify.table = Some(progress.table.to_owned());
            verify.reason.clone_from(&progress.waits);
        });
    }

    fn keep(&mut self, state: &State) -> std::io::Result<()> {
        let tables = &state.report.tables;
        let under_way = usize::from(state.cursor.is_some());
        let done = &tables[..tables.len().saturating_sub(under_way)];
        let chunks: u64 = tables.iter().map(|table| table.chunks).sum();
        let more = chunks.saturating_sub(self.chunks);
        self.chunks = chunks;
        self.shared.metrics.verify_chunks.with_label_values::<&str>(&[]).inc_by(more);
        let at_us = wall_us();
        show(&self.shared, |verify| {
            verify.rows = tables.iter().map(|table| table.rows).sum();
            verify.chunks += more;
            for table in done {
                let known = verify.tables.get(&table.table);
                if known.is_none_or(|known| known.at_us < verify.began_us) {
                    verify.tables.insert(table.table.clone(), found(table, Some(at_us)));
                }
            }
            // What a table's rest may hide is no reason to be silent.
            for table in &tables[done.len()..] {
                let known = verify.tables.get(&table.table);
                let before = known.map_or(0, |known| known.differences.values().sum::<u64>());
                if u64::try_from(table.differences.len()).unwrap_or(u64::MAX) > before {
                    let at_us = known.and_then(|known| known.at_us);
                    verify.tables.insert(table.table.clone(), found(table, at_us));
                }
            }
        });
        self.state = Some(state.clone());
        Ok(())
    }
}

fn found(table: &TableReport, at_us: Option<u64>) -> TableVerify {
    let count = |class: Class| {
        let those = table.differences.iter().filter(|difference| difference.class == class);
        u64::try_from(those.count()).unwrap_or(u64::MAX)
    };
    TableVerify {
        at_us,
        rows: table.rows,
        differences: Class::ALL.map(|class| (class.name().to_owned(), count(class))).into(),
        not_compared: table.not_compared.clone(),
    }
}
