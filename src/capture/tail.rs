//! The end of a MariaDB's binlog, read from its files.
//!
//! A server that sends its binlog wakes a thread of its own for each group of commits, and
//! pays for each event that goes through a socket. Beside the server, the files say the
//! same: it is only asked how far they are durable, once for all that was gathered
//! meanwhile. Its answer waits for a sync that is under way (`LOCK_log`), so nothing is
//! read that a crash of the machine could take back.
//!
//! Where to begin, and what is missing, only the server's own stream says (`search.rs`).
//! When anything is not as expected the tail ends, and the server's stream comes again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use inotify::{EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, Row};

use super::CaptureError;
use super::frame::{Cut, Frames, MAGIC, RawEvent};
use super::gtid::Domains;
use crate::change::Position;

/// Read at once, but for a larger event.
const CHUNK: usize = 256 << 10;
/// Events say where they end in 32 bits.
const FILE_MAX: u64 = u32::MAX as u64;
/// Asked this often when no change of the file is told, which a dead server does not.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long the server's answer may take: it waits for a large transaction to be written,
/// or for a disk. A server that has died answers at once, on its own machine.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A file that may be the one which the server writes to.
#[derive(Debug)]
pub(super) struct Candidate {
    conn: Conn,
    dir: PathBuf,
    log: Log,
    written: Written,
    length: u64,
}

/// The files from a place on.
#[derive(Debug)]
pub(super) struct Tail {
    conn: Conn,
    dir: PathBuf,
    log: Log,
    written: Written,
    /// How far the server says that its files are durable: file and offset.
    durable: (String, u64),
    /// The open file was watched already when the server was asked last.
    is_watched: bool,
}

/// An open file.
#[derive(Debug)]
struct Log {
    name: String,
    file: File,
    frames: Frames,
    /// Read and not taken yet.
    buffer: Bytes,
    /// Where that ends in the file.
    at: u64,
}

/// Tells when files are written to.
#[derive(Debug)]
struct Written(EventStream<[u8; 1024]>, Option<WatchDescriptor>);

impl Candidate {
    /// Opens the server's present file in `dir`.
    ///
    /// # Errors
    /// Why it can't be read.
    pub(super) async fn open(dir: &Path, opts: &Opts, from: &Position) -> Result<Self, String> {
        let mut conn = connect(opts, from).await?;
        let (name, _) = durable(&mut conn).await.map_err(|error| error.to_string())?;
        let mut log = Log::open(dir, &name)?;
        let length = log.length()?;
        if length > FILE_MAX {
            return Err(format!("{name} is larger than 4 GiB; the next file may do"));
        }
        // It says whether events have checksums.
        let first = log.event(length).map_err(|error| format!("{name}: {error}"))?;
        if !first.is_some_and(|event| event.is_format()) {
            return Err(format!("{name} does not begin as a binlog"));
        }
        let mut written = Written::new().map_err(|error| format!("inotify: {error}"))?;
        written.watch(&dir.join(&name)).map_err(|error| format!("inotify: {error}"))?;
        Ok(Self { conn, dir: dir.to_owned(), log, written, length })
    }

    pub(super) fn name(&self) -> &str {
        &self.log.name
    }

    /// The file's, as it was opened.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Looks whether it holds what the server has sent: an event, with header and checksum,
    /// and where it ends.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn holds(&self, sent: &[u8], end: u64) -> Result<(), String> {
        let mut held = vec![0; sent.len()];
        let begin = end.saturating_sub(held.len() as u64);
        self.log.read_at(&mut held, begin)?;
        if held == sent {
            Ok(())
        } else {
            Err(format!("{} holds something else than the server sends", self.log.name))
        }
    }

    /// Goes on behind `end`.
    ///
    /// # Errors
    /// What the server says of its files does not fit this one.
    pub(super) async fn into_tail(self, end: u64) -> Result<Tail, String> {
        let Self { mut conn, dir, mut log, written, .. } = self;
        (log.buffer, log.at) = (Bytes::new(), end);
        let durable = durable(&mut conn).await.map_err(|error| error.to_string())?;
        let tail = Tail { conn, dir, log, written, durable, is_watched: true };
        let end = tail.end().map_err(|error| error.to_string())?;
        if tail.log.length()? < end {
            return Err(format!("{} does not grow as the server says", tail.log.name));
        }
        Ok(tail)
    }
}

impl Tail {
    /// File and offset, for people.
    pub(super) fn at(&self) -> String {
        format!("{}:{}", self.log.name, self.log.at - self.log.buffer.len() as u64)
    }

    /// The next event that is known to be durable; `None` when there is none yet.
    ///
    /// # Errors
    /// [`CaptureError`]; whether it is so the server's own stream will say.
    pub(super) fn event(&mut self) -> Result<Option<RawEvent>, CaptureError> {
        let end = self.end()?;
        let Some(event) = self.log.event(end)? else { return Ok(None) };
        if event.is_encryption() {
            return Err(CaptureError::Away("the binlog is encrypted now".to_owned()));
        }
        if let Some(name) = event.rotates_to() {
            let name = String::from_utf8_lossy(name);
            self.log = Log::open(&self.dir, &name).map_err(CaptureError::Away)?;
            let watched = self.written.watch(&self.dir.join(&*name));
            watched.map_err(|error| CaptureError::Away(format!("inotify: {error}")))?;
            self.is_watched = false;
        }
        Ok(Some(event))
    }

    /// Waits until there is more.
    ///
    /// # Errors
    /// [`CaptureError::Away`]: the stream has to be begun anew.
    pub(super) async fn more(&mut self) -> Result<(), CaptureError> {
        loop {
            if std::mem::replace(&mut self.is_watched, true) {
                self.written.wait().await?;
            }
            // What is written from here on is told anew.
            self.written.forget()?;
            self.durable = durable(&mut self.conn).await?;
            if self.log.at < self.end()? {
                return Ok(());
            }
            if self.durable.0 != self.log.name {
                return Err(CaptureError::Away("a binlog file has no end".to_owned()));
            }
        }
    }

    /// Where the open file ends.
    fn end(&self) -> Result<u64, CaptureError> {
        let (name, offset) = &self.durable;
        let begun_anew = if *name == self.log.name {
            *offset < self.log.at
        } else {
            number(name) < number(&self.log.name)
        };
        if begun_anew {
            return Err(CaptureError::Away("the binlog was begun anew".to_owned()));
        }
        if *name == self.log.name {
            return Ok(*offset);
        }
        // Nothing is written to it any more.
        self.log.length().map_err(CaptureError::Away)
    }
}

/// The number of a binlog file, which grows.
fn number(name: &str) -> Option<u64> {
    name.rsplit('.').next().and_then(|number| number.parse().ok())
}

/// A connection that may stay idle for long, if the server knows all domains of `from`: it
/// looks at those that it does not know when their first event comes, and files do not.
async fn connect(opts: &Opts, from: &Position) -> Result<Conn, String> {
    let told = |error: mysql_async::Error| error.to_string();
    let mut conn = Conn::new(opts.clone()).await.map_err(told)?;
    conn.query_drop("SET SESSION wait_timeout = 31536000").await.map_err(told)?;
    let state = conn.query_first("SELECT @@global.gtid_binlog_state").await.map_err(told)?;
    let state: Option<String> = state;
    let known = Domains::parse(&state.unwrap_or_default().replace('\n', ""));
    let beyond = Domains::parse(&from.0).zip(known).map(|(from, known)| from.beyond(&known));
    match beyond {
        Some(None) => Ok(conn),
        Some(Some(domain)) => Err(format!("its binlog has nothing of the GTID domain {domain}")),
        None => Err("its gtid_binlog_state can't be read".to_owned()),
    }
}

/// How far the binlog is durable: the server looks between two groups of commits, each of
/// which it has synced then, or has told its clients that it could not.
///
/// # Errors
/// [`CaptureError::Away`] alone: what else it may be, the stream's connection will say.
async fn durable(conn: &mut Conn) -> Result<(String, u64), CaptureError> {
    let asked = conn.query_first::<Row, _>("SHOW MASTER STATUS");
    let asked = tokio::time::timeout(ANSWER_MAX, asked).await;
    let row = asked.map_err(|_| CaptureError::Away("SHOW MASTER STATUS: no answer".to_owned()))?;
    let row = row.map_err(|error| CaptureError::Away(error.to_string()))?;
    let place = row.and_then(|row| Some((row.get_opt(0)?.ok()?, row.get_opt(1)?.ok()?)));
    place.ok_or_else(|| CaptureError::Away("SHOW MASTER STATUS names no file".to_owned()))
}

impl Log {
    /// Opens a file at its beginning.
    fn open(dir: &Path, name: &str) -> Result<Self, String> {
        if name.contains('/') || number(name).is_none() {
            return Err(format!("{name} is no name of a binlog file"));
        }
        let file = File::open(dir.join(name)).map_err(|error| format!("{name}: {error}"))?;
        let (name, at) = (name.to_owned(), MAGIC.len() as u64);
        let log = Self { name, file, frames: Frames::default(), buffer: Bytes::new(), at };
        let mut magic = [0; MAGIC.len()];
        log.read_at(&mut magic, 0)?;
        if magic != MAGIC {
            return Err(format!("{} is no binlog file, or an encrypted one", log.name));
        }
        Ok(log)
    }

    fn length(&self) -> Result<u64, String> {
        let told = self.file.metadata();
        told.map(|told| told.len()).map_err(|error| format!("{}: {error}", self.name))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), String> {
        let read = self.file.read_exact_at(bytes, offset);
        read.map_err(|error| format!("{}: {error}", self.name))
    }

    /// The next event, none at `end`.
    fn event(&mut self, end: u64) -> Result<Option<RawEvent>, CaptureError> {
        loop {
            let needed = match self.frames.cut(&mut self.buffer)? {
                Cut::Event(event) => {
                    // What is kept of it keeps all that it was read with.
                    let data = Bytes::copy_from_slice(&event.data);
                    return Ok(Some(RawEvent { data, ..event }));
                }
                Cut::Needs(bytes) => bytes,
            };
            let left = end.saturating_sub(self.at);
            if left == 0 && self.buffer.is_empty() {
                return Ok(None);
            }
            let held = self.buffer.len();
            let wanted = needed.max(CHUNK) - held;
            let wanted = usize::try_from(left).map_or(wanted, |left| left.min(wanted));
            if held + wanted < needed {
                return Err(CaptureError::Corrupt("an event ends behind its file"));
            }
            let mut bytes = Vec::with_capacity(held + wanted);
            bytes.extend_from_slice(&self.buffer);
            bytes.resize(held + wanted, 0);
            self.read_at(&mut bytes[held..], self.at).map_err(CaptureError::Away)?;
            self.buffer = Bytes::from(bytes);
            self.at += wanted as u64;
        }
    }
}

impl Written {
    fn new() -> io::Result<Self> {
        Ok(Self(Inotify::init()?.into_event_stream([0; 1024])?, None))
    }

    /// Watches this file in place of the one before, which may be gone.
    fn watch(&mut self, path: &Path) -> io::Result<()> {
        let new = self.0.watches().add(path, WatchMask::MODIFY)?;
        if let Some(old) = self.1.replace(new) {
            self.0.watches().remove(old).ok();
        }
        Ok(())
    }

    /// Forgets what it was told so far.
    fn forget(&mut self) -> Result<(), CaptureError> {
        while let Some(told) = self.0.next().now_or_never() {
            is_told(told)?;
        }
        Ok(())
    }

    /// Waits for what comes after, and a while at most.
    async fn wait(&mut self) -> Result<(), CaptureError> {
        tokio::time::timeout(ASK_EVERY, self.0.next()).await.map_or(Ok(()), is_told)
    }
}

fn is_told(told: Option<io::Result<EventOwned>>) -> Result<(), CaptureError> {
    match told {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(CaptureError::Away(format!("inotify: {error}"))),
        None => Err(CaptureError::Away("inotify has ended".to_owned())),
    }
}
