//! What the outboxes tell of rows: which row all writes of it come to, under its table's
//! policy.
//!
//! The outboxes are read backwards, a longer time with each turn, until what they hold is
//! enough to tell ([`Extent`](crate::resolve::Extent) and what judges by it).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::outbox::{Bounds, Outbox, Silence};
use super::search::{Reader, Search, extent};
use super::{Config, Hear, Progress};
use crate::change::{RegionId, TableName, Vector};
use crate::clock::wall_us;
use crate::compare::Key;
use crate::resolve::{Extent, Recounted, Rulebook, book};

/// How far back each turn reads; after the last one comes all that there is.
const HOURS: [u64; 3] = [1, 8, 64];
/// What all turns may take. Who needs more names the region (`--from`).
const READ_MAX: Duration = Duration::from_secs(600);

/// What the outboxes tell of a row.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) stands: Recounted,
    /// The source's name of the write that stands.
    pub(super) gtid: String,
}

type Wanted = [(TableName, Key)];

/// What the outboxes tell of each row, or why they don't. What is `applied` anywhere they
/// held before.
pub(super) async fn told(
    config: &Config<'_>,
    wanted: &Wanted,
    applied: &Vector,
    stop: &CancellationToken,
    hear: &mut Hear<'_>,
) -> Vec<Result<Told, String>> {
    let turns = HOURS.iter().map(Some).chain([None]);
    let mut told: Vec<Result<Told, String>> =
        wanted.iter().map(|_| Err("nothing was read".to_owned())).collect();
    let bounds = Bounds { began: Instant::now(), most: READ_MAX, stop };
    let book = book(config.topology);
    for hours in turns {
        let open: Vec<usize> = (0..told.len()).filter(|&at| told[at].is_err()).collect();
        if open.is_empty() {
            break;
        }
        let rows: Vec<_> = open.iter().map(|&at| wanted[at].clone()).collect();
        let turn = Turn { config, bounds: &bounds, applied, hours: hours.copied() };
        match Box::pin(turn.read(&book, &rows, hear)).await {
            Ok(found) => {
                for (at, found) in open.into_iter().zip(found) {
                    told[at] = found;
                }
            }
            Err(silence) => {
                for at in open {
                    told[at] = Err(silence.to_string());
                }
                // Further back it may be known.
                if !matches!(silence, Silence::Fenced(_)) {
                    break;
                }
            }
        }
    }
    told
}

/// One reading of all outboxes.
struct Turn<'a> {
    config: &'a Config<'a>,
    bounds: &'a Bounds<'a>,
    applied: &'a Vector,
    /// All there is when absent.
    hours: Option<u64>,
}

impl Turn<'_> {
    async fn read(
        &self,
        book: &Rulebook,
        wanted: &Wanted,
        hear: &mut Hear<'_>,
    ) -> Result<Vec<Result<Told, String>>, Silence> {
        let ago = |hours: u64| (wall_us() / 1_000).saturating_sub(hours * 3_600_000);
        let since_ms = self.hours.map(ago);
        let regions = self.config.topology.regions.iter();
        let outboxes = regions.map(|region| Outbox::open(self.config, region, since_ms));
        let outboxes = outboxes.collect::<Result<Vec<_>, _>>()?;
        let mut search = Search::new(book, wanted);
        let mut extent = Box::pin(self.round(&outboxes, &mut search, hear)).await?;
        if search.gather.look_beside() {
            let second = Box::pin(self.round(&outboxes, &mut search, hear)).await?;
            extent = extent.both(&second);
        }
        let (keys, gather) = search.finish();
        let gtids = gather.gtids();
        let recount = gather.finish();
        let row = |key| {
            let table = recount.table(key)?;
            recount.row(&book.of(&table).1, key, &extent)
        };
        let told = |stands: Recounted| {
            let gtid = gtids.get(&stands.write.dot).map(ToString::to_string).unwrap_or_default();
            Told { stands, gtid }
        };
        let found = keys.into_iter().map(|key| {
            self.bounds.hold()?;
            Ok(key.and_then(row).map(told).map_err(|untold| untold.to_string()))
        });
        found.collect()
    }

    async fn round(
        &self,
        outboxes: &[Outbox],
        search: &mut Search<'_>,
        hear: &mut Hear<'_>,
    ) -> Result<Extent, Silence> {
        let total = outboxes.iter().map(Outbox::records).sum();
        let what = self.hours.map_or_else(
            || "all history".to_owned(),
            |hours| format!("history of the last {hours} h"),
        );
        let (mut done, began) = (0, Instant::now());
        let mut readers: HashMap<RegionId, Reader> = HashMap::new();
        for outbox in outboxes {
            let reader = readers.entry(outbox.origin).or_default();
            let each = |record| {
                done += 1;
                hear(&Progress {
                    table: &what,
                    unit: "records",
                    rows: done,
                    rows_estimate: total,
                    elapsed: began.elapsed(),
                    rows_here: done,
                    waits: None,
                });
                reader.take(record, search)
            };
            Box::pin(outbox.read(self.config, self.bounds, each)).await?;
        }
        let held = |outbox: &Outbox| outbox.records() > 0 || outbox.is_purged;
        let readers = outboxes.iter().map(|outbox| {
            let reader = readers.get(&outbox.origin).filter(|_| held(outbox));
            (outbox.origin, reader)
        });
        Ok(extent(readers, self.applied))
    }
}
