//! The inbox: a peer's records in order, each once.

use std::collections::BTreeMap;

use super::ShipError;
use super::kafka::Cluster;
use super::reader::{Found, Reader};
use crate::change::{Accepted, Dropped, Place, ReaderOrder, Record, RecordBody, RegionId, Seq};
use crate::clock::wall_us;

/// How an inbox is opened.
#[derive(Clone, Debug)]
pub struct InboxConfig {
    /// The Kafka that holds it.
    pub cluster: Cluster,
    /// The topic.
    pub topic: String,
    /// Whose records it holds.
    pub origin: RegionId,
    /// Up to where they are applied here.
    pub after: Place,
}

/// A record that counts.
#[derive(Debug)]
pub struct InboxItem {
    /// The record.
    pub record: Record,
    /// `Next` or `NewEpoch`.
    pub accepted: Accepted,
    /// Its size.
    pub bytes: usize,
    /// When it was read, microseconds since the Unix epoch.
    pub received_us: u64,
}

/// The reading end of an inbox.
pub struct Inbox {
    reader: Reader,
    topic: String,
    order: ReaderOrder,
    duplicates: u64,
    fenced: u64,
    /// Of those, what was not taken yet, by epoch.
    runs: BTreeMap<u64, Dropped>,
    /// Whether a record of the epoch was read: what is older is of a fenced agent from
    /// there on, and may stand before the place until then.
    met: bool,
}

impl Inbox {
    /// Finds the place after `after` and reads from there.
    ///
    /// # Errors
    /// [`ShipError`].
    pub async fn open(config: &InboxConfig) -> Result<Self, ShipError> {
        let InboxConfig { cluster, topic, origin, after } = config;
        let mut reader = Reader::new(cluster, topic, *origin)?;
        let from = reader.find(*after).await?;
        reader.seek(from)?;
        Ok(Self {
            reader,
            topic: topic.clone(),
            order: ReaderOrder::after(*after),
            duplicates: 0,
            fenced: 0,
            runs: BTreeMap::new(),
            met: false,
        })
    }

    /// The next record that counts. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ShipError`]; after one that can be retried, go on calling.
    pub async fn next(&mut self) -> Result<InboxItem, ShipError> {
        loop {
            let Found { offset, bytes, record } = self.reader.next().await?;
            self.met |= record.epoch >= self.order.place().epoch;
            match self.order.accept(&record) {
                Ok(accepted @ (Accepted::Next | Accepted::NewEpoch)) => {
                    return Ok(InboxItem { record, accepted, bytes, received_us: wall_us() });
                }
                Ok(Accepted::Duplicate) => self.duplicates += 1,
                Ok(Accepted::Fenced) => self.drop_fenced(&record),
                Err(source) => {
                    let topic = self.topic.clone();
                    return Err(ShipError::Order { topic, offset, source });
                }
            }
        }
    }

    /// Looks for the place again, in a topic that was made anew: what it lacks shows as
    /// a gap.
    ///
    /// # Errors
    /// [`ShipError`].
    pub async fn find_again(&mut self) -> Result<(), ShipError> {
        let from = self.reader.find(self.order.place()).await?;
        self.met = false;
        self.reader.seek(from)
    }

    fn drop_fenced(&mut self, record: &Record) {
        self.fenced += 1;
        if !self.met {
            return;
        }
        let (ended, begun, seq) = (record.epoch, self.order.place().epoch, record.seq);
        let fresh = Dropped { ended, begun, first: seq, last: seq, records: 0 };
        let run = self.runs.entry(ended).or_insert(fresh);
        run.last = run.last.max(seq);
        run.records += 1;
    }

    /// What was dropped of a fenced agent, and not taken before, by epoch.
    pub fn take_fenced(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.runs).into_values().collect()
    }

    /// Records dropped so far: seen before, and of a fenced agent.
    #[must_use]
    pub const fn dropped(&self) -> (u64, u64) {
        (self.duplicates, self.fenced)
    }
}

/// Records that may stand behind the newest of an owner: a fenced agent's.
const FENCED_MAX: i64 = 64;

/// By which topology the region resolves conflicts now, as its newest record says; none
/// of a topic that holds none.
///
/// # Errors
/// [`ShipError`].
pub async fn newest_topology(config: &InboxConfig) -> Result<Option<u32>, ShipError> {
    let InboxConfig { cluster, topic, origin, .. } = config;
    let mut reader = Reader::new(cluster, topic, *origin)?;
    let (low, high) = reader.bounds()?;
    reader.seek((high - FENCED_MAX).max(low))?;
    let mut newest: Option<Record> = None;
    while reader.next_offset() < high {
        match reader.next_soon().await {
            Ok(Found { record, .. }) => {
                let fenced = newest.as_ref().is_some_and(|held| held.epoch > record.epoch);
                if !fenced {
                    newest = Some(record);
                }
            }
            // The stream's own reader will stop there.
            Err(error) if error.is_unreadable() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(newest.map(|record| record.topology))
}

/// The end of an inbox, looked at again and again.
pub struct Newest(Reader);

impl Newest {
    /// Connects once it is asked.
    ///
    /// # Errors
    /// [`ShipError`].
    pub fn open(config: &InboxConfig) -> Result<Self, ShipError> {
        let InboxConfig { cluster, topic, origin, .. } = config;
        Ok(Self(Reader::jumping(cluster, topic, *origin)?))
    }

    /// Its last record now, which may be a fenced agent's; none of a topic that holds none,
    /// and when it can't be read.
    ///
    /// # Errors
    /// [`ShipError`].
    pub async fn read(&mut self) -> Result<Option<Record>, ShipError> {
        let (low, high) = self.0.bounds()?;
        if low == high {
            return Ok(None);
        }
        self.0.seek(high - 1)?;
        match self.0.next_soon().await {
            Ok(Found { record, .. }) => Ok(Some(record)),
            // The stream's own reader will stop there.
            Err(error) if error.is_unreadable() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Every record of the transactions after a place up to and with one of them.
pub struct Range {
    /// None once the last was given.
    inbox: Option<Inbox>,
    through: Seq,
}

impl Range {
    /// Those after `config.after`, up to and with `through`.
    ///
    /// # Errors
    /// [`ShipError`].
    pub async fn open(config: &InboxConfig, through: Seq) -> Result<Self, ShipError> {
        let inbox = match through <= config.after.seq {
            true => None,
            false => Some(Inbox::open(config).await?),
        };
        Ok(Self { inbox, through })
    }

    /// The next; none behind the last.
    ///
    /// # Errors
    /// [`ShipError`]; a gap when the topic does not reach back far enough.
    pub async fn next(&mut self) -> Result<Option<Record>, ShipError> {
        let Some(inbox) = &mut self.inbox else { return Ok(None) };
        let record = inbox.next().await?.record;
        let last = match &record.body {
            RecordBody::Transaction(txn) => record.seq >= self.through && txn.last,
            RecordBody::Start(_) | RecordBody::Heartbeat(_) => false,
        };
        if last {
            self.inbox = None;
        }
        Ok(Some(record))
    }
}

/// From where on the topic holds everything: `config.after`, or a later place when what
/// follows that is purged. None when the topic held something and holds nothing now.
///
/// # Errors
/// [`ShipError`].
pub async fn held_from(config: &InboxConfig) -> Result<Option<Place>, ShipError> {
    let InboxConfig { cluster, topic, origin, after } = config;
    let mut reader = Reader::new(cluster, topic, *origin)?;
    let (low, high) = reader.bounds()?;
    if high == 0 {
        return Ok(Some(*after));
    }
    reader.seek(low)?;
    while reader.next_offset() < high {
        let record = match reader.next_soon().await {
            Ok(found) => found.record,
            Err(error) if error.is_unreadable() => continue,
            Err(error) => return Err(error),
        };
        let seq = match &record.body {
            RecordBody::Start(_) | RecordBody::Heartbeat(_) => record.seq,
            RecordBody::Transaction(txn) if txn.aborted => record.seq,
            RecordBody::Transaction(txn) if txn.part == 0 => Seq(record.seq.0.saturating_sub(1)),
            RecordBody::Transaction(_) => continue,
        };
        if seq <= after.seq {
            return Ok(Some(*after));
        }
        // Else a fenced agent's, which says nothing.
        if record.epoch >= after.epoch {
            return Ok(Some(Place { epoch: record.epoch, seq }));
        }
    }
    Ok(None)
}

/// The last record before the transaction that follows `config.after`: a heartbeat, or
/// that one itself. None for the place before the first, and when the topic holds neither
/// any more.
///
/// # Errors
/// [`ShipError`].
pub async fn head(config: &InboxConfig) -> Result<Option<Record>, ShipError> {
    let InboxConfig { cluster, topic, origin, after } = config;
    if after.seq == Seq(0) {
        return Ok(None);
    }
    let mut reader = Reader::new(cluster, topic, *origin)?;
    let from = reader.find(*after).await?;
    let (_, high) = reader.bounds()?;
    reader.seek(from)?;
    let (mut order, mut last) = (ReaderOrder::after(*after), None);
    while reader.next_offset() < high {
        let record = match reader.next_soon().await {
            Ok(found) => found.record,
            // The stream's own reader will stop there.
            Err(error) if error.is_unreadable() => break,
            Err(error) => return Err(error),
        };
        let wrote = after.epoch == 0 || record.epoch == after.epoch;
        match order.accept(&record) {
            Ok(Accepted::Next | Accepted::NewEpoch) if record.seq == after.seq => {
                last = Some(record);
            }
            Ok(Accepted::Duplicate) if wrote && record.seq == after.seq && last.is_none() => {
                last = Some(record);
            }
            Ok(Accepted::Duplicate | Accepted::Fenced) => {}
            Ok(Accepted::Next | Accepted::NewEpoch) | Err(_) => break,
        }
    }
    Ok(last)
}
