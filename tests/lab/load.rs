//! Writers: inserts, updates and deletes on keys of their own and on shared ones, from
//! a seed, that know afterwards what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error, Opts};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::db::Database;

/// The tables that the writers use.
pub const TABLES: [&str; 4] = ["shop.journal", "shop.item", "shop.parent", "shop.child"];

/// Makes them.
pub const SCHEMA: &str = "CREATE DATABASE shop;
CREATE TABLE shop.journal (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  region TINYINT UNSIGNED NOT NULL, worker TINYINT UNSIGNED NOT NULL, n BIGINT UNSIGNED NOT NULL,
  at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB;
CREATE TABLE shop.item (id BIGINT NOT NULL PRIMARY KEY, region TINYINT UNSIGNED NOT NULL,
  n BIGINT NOT NULL, note VARCHAR(64)) ENGINE=InnoDB;
CREATE TABLE shop.parent (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  region TINYINT UNSIGNED NOT NULL) ENGINE=InnoDB;
CREATE TABLE shop.child (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  parent_id BIGINT UNSIGNED NOT NULL, region TINYINT UNSIGNED NOT NULL) ENGINE=InnoDB;
";

/// A small generator of numbers, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        dice.below(2);
        dice
    }

    /// 0 to `end` - 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % end
    }
}

/// A row of the journal: region, worker, number.
pub type Entry = (u8, u8, u64);

/// What became of the writes.
#[derive(Debug, Default)]
pub struct Written {
    /// The commit was acknowledged.
    pub acked: BTreeSet<Entry>,
    /// The connection broke before the answer.
    pub unknown: BTreeSet<Entry>,
    /// Transactions that were committed, of every kind.
    pub transactions: u64,
    /// By region.
    pub shipped: BTreeMap<u8, Shipped>,
}

/// How many transactions of a region's clients belong into its outbox.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shipped {
    /// Committed, and they changed a row.
    pub certain: u64,
    /// Nobody knows.
    pub unknown: u64,
}

/// Running writers.
pub struct Load {
    stop: CancellationToken,
    tasks: JoinSet<Written>,
    seen: Arc<Seen>,
}

/// What the writers see while they run.
#[derive(Debug, Default)]
struct Seen {
    committed: AtomicU64,
    slowest_us: AtomicU64,
}

impl Load {
    /// `workers` for each database; each rests for `pause` between transactions.
    pub fn start(databases: &[&Database], workers: u8, seed: u64, pause: Duration) -> Self {
        let (stop, seen) = (CancellationToken::new(), Arc::new(Seen::default()));
        let mut tasks = JoinSet::new();
        for (n, database) in databases.iter().enumerate() {
            let region = u8::try_from(n + 1).unwrap();
            for worker in 0..workers {
                let seed = seed * 1000 + u64::from(region) * 100 + u64::from(worker);
                let writer = Writer {
                    opts: database.opts(),
                    region,
                    worker,
                    dice: Dice::new(seed),
                    written: Written::default(),
                };
                tasks.spawn(writer.run(stop.clone(), Arc::clone(&seen), pause));
            }
        }
        Self { stop, tasks, seen }
    }

    /// Transactions committed so far.
    pub fn committed(&self) -> u64 {
        self.seen.committed.load(Ordering::Relaxed)
    }

    /// How long the slowest committed transaction took since this was asked last.
    pub fn slowest(&self) -> Duration {
        Duration::from_micros(self.seen.slowest_us.swap(0, Ordering::Relaxed))
    }

    /// Ends the writers.
    pub async fn finish(mut self) -> Written {
        self.stop.cancel();
        let mut all = Written::default();
        while let Some(done) = self.tasks.join_next().await {
            let written = done.unwrap();
            all.acked.extend(written.acked);
            all.unknown.extend(written.unknown);
            all.transactions += written.transactions;
            for (region, shipped) in written.shipped {
                let sum = all.shipped.entry(region).or_default();
                sum.certain += shipped.certain;
                sum.unknown += shipped.unknown;
            }
        }
        all
    }
}

struct Writer {
    opts: Opts,
    region: u8,
    worker: u8,
    dice: Dice,
    written: Written,
}

impl Writer {
    async fn run(mut self, stop: CancellationToken, seen: Arc<Seen>, pause: Duration) -> Written {
        let mut conn = None;
        for n in 1.. {
            if stop.is_cancelled() {
                break;
            }
            if conn.is_none() {
                let connect = Conn::new(self.opts.clone());
                conn = tokio::time::timeout(Duration::from_secs(5), connect)
                    .await
                    .ok()
                    .and_then(Result::ok);
            }
            let Some(open) = conn.as_mut() else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let began = Instant::now();
            let one =
                tokio::time::timeout(Duration::from_secs(30), self.transaction(open, n)).await;
            let shipped = self.written.shipped.entry(self.region).or_default();
            if let Ok(Ok(changed)) = one {
                shipped.certain += u64::from(changed);
                self.written.transactions += 1;
                seen.committed.fetch_add(1, Ordering::Relaxed);
                let took = u64::try_from(began.elapsed().as_micros()).unwrap();
                seen.slowest_us.fetch_max(took, Ordering::Relaxed);
            } else {
                shipped.unknown += 1;
                conn = None;
            }
            tokio::time::sleep(pause).await;
        }
        self.written
    }

    /// Whether it changed a row.
    async fn transaction(&mut self, conn: &mut Conn, n: u64) -> Result<bool, Error> {
        let sql = match self.dice.below(10) {
            0..=3 => return self.journal(conn, n).await.map(|()| true),
            4..=6 => self.item(),
            7 => {
                let mut ids = [self.shared_key(), self.shared_key()];
                ids.sort_unstable();
                format!(
                    "UPDATE shop.item SET n = n + 1, region = {} WHERE id IN ({}, {})",
                    self.region, ids[0], ids[1]
                )
            }
            8 => format!("INSERT INTO shop.parent (region) VALUES ({})", self.region),
            _ => {
                let last = "SELECT id FROM shop.parent ORDER BY id DESC LIMIT 1";
                let Some(parent) = conn.query_first::<u64, _>(last).await? else {
                    return Ok(false);
                };
                format!(
                    "INSERT INTO shop.child (parent_id, region) VALUES ({parent}, {})",
                    self.region
                )
            }
        };
        conn.query_drop(sql).await?;
        Ok(conn.affected_rows() > 0)
    }

    /// A row that must be there exactly once, and a change of a shared row with it.
    async fn journal(&mut self, conn: &mut Conn, n: u64) -> Result<(), Error> {
        let (region, worker) = (self.region, self.worker);
        let entry = (region, worker, n);
        conn.query_drop("START TRANSACTION").await?;
        conn.query_drop(format!(
            "INSERT INTO shop.journal (region, worker, n) VALUES ({region}, {worker}, {n})"
        ))
        .await?;
        let sql = self.item();
        conn.query_drop(sql).await?;
        self.written.unknown.insert(entry);
        conn.query_drop("COMMIT").await?;
        self.written.unknown.remove(&entry);
        self.written.acked.insert(entry);
        Ok(())
    }

    fn shared_key(&mut self) -> u64 {
        1 + self.dice.below(48)
    }

    fn item(&mut self) -> String {
        let own = 1000 * u64::from(self.region) + self.dice.below(100);
        let id = if self.dice.below(3) == 0 { own } else { self.shared_key() };
        let (region, n) = (self.region, self.dice.below(1_000_000));
        if self.dice.below(4) == 0 {
            return format!("DELETE FROM shop.item WHERE id = {id}");
        }
        format!(
            "INSERT INTO shop.item (id, region, n, note) VALUES ({id}, {region}, {n}, 'é{n}') \
             ON DUPLICATE KEY UPDATE region = VALUES(region), n = VALUES(n), note = VALUES(note)"
        )
    }
}
