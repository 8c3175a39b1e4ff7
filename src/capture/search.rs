//! From the server's stream to its files: the search for the file to go on in.
//!
//! A folder may hold the files of another server, and a copy of the server has files that
//! begin with the same bytes. So a file counts once transactions that the server sent after
//! it was opened have ended in it, byte for byte; and it is gone over to only behind the
//! last event that was sent.

use std::path::Path;
use std::time::Duration;

use mysql_async::binlog::BinlogVersion;
use mysql_async::binlog::events::Event;
use tokio::time::Instant;

use super::frame::RawEvent;
use super::stream::{CaptureConfig, SILENCE_MAX};
use super::tail::{Candidate, Tail};

/// The pause after a file that can't be read.
const AGAIN: Duration = Duration::from_secs(60);

/// What is known of the file.
#[derive(Debug)]
pub(super) struct Search {
    state: State,
    /// The file that the stream is in, by name; the first has four bytes behind it.
    file: Vec<u8>,
    /// Why none could be read last: told once.
    why: String,
}

#[derive(Debug)]
enum State {
    /// None was looked for.
    Begun,
    /// The server writes to another file than the stream is in.
    Behind,
    /// One is compared with what comes.
    Compared(Box<Candidate>, Proof),
    /// None can be read until then.
    Barred(Instant),
}

/// Whether what the server sends stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proof {
    /// What is behind this was written after the file was opened.
    length: u64,
    /// Where the transaction ends that the last event sent has ended in the file.
    end: Option<u64>,
}

impl Proof {
    /// Takes the next event sent; gives where it must end in the file, if that is known.
    /// From MariaDB 11.4 on events within a transaction do not say it.
    fn sent(&mut self, event: &RawEvent) -> Option<u64> {
        if !event.is_same_in_file() {
            return None;
        }
        let end = u64::from(event.log_pos);
        let counts = end > self.length;
        self.end = (counts && event.ends_transaction()).then_some(end);
        counts.then_some(end)
    }
}

impl Search {
    /// `barred`: files were read just now, and it went wrong.
    pub(super) fn new(barred: bool) -> Self {
        let state = if barred { State::Barred(Instant::now() + AGAIN) } else { State::Begun };
        Self { state, file: Vec::new(), why: String::new() }
    }

    /// The server has sent this.
    pub(super) fn sent(&mut self, raw: &RawEvent, event: &Event) {
        if let Some(file) = raw.rotates_to() {
            self.file = file.to_vec();
            if !matches!(self.state, State::Barred(_)) {
                self.state = State::Begun;
            }
        }
        if let State::Compared(candidate, proof) = &mut self.state
            && let Some(end) = proof.sent(raw)
        {
            let mut sent = Vec::new();
            let written = event.write(BinlogVersion::Version4, &mut sent);
            let written = written.map_err(|error| error.to_string());
            if let Err(why) = written.and_then(|()| candidate.holds(&sent, end)) {
                self.bar(why);
            }
        }
    }

    /// Gives the file once it can be gone over to. Asked when all that was sent is taken,
    /// and no transaction is open.
    pub(super) async fn turn(&mut self, dir: &Path, config: &CaptureConfig) -> Option<Tail> {
        if self.file.is_empty() {
            return None;
        }
        self.state = match std::mem::replace(&mut self.state, State::Begun) {
            State::Compared(candidate, Proof { end: Some(end), .. }) => {
                match within(candidate.into_tail(end)).await {
                    Ok(tail) => return Some(tail),
                    Err(why) => return self.bar(why),
                }
            }
            State::Barred(until) if Instant::now() < until => State::Barred(until),
            State::Begun | State::Barred(_) => {
                let opened = Candidate::open(dir, &config.opts, &config.from);
                match within(opened).await {
                    Ok(candidate) if self.file.starts_with(candidate.name().as_bytes()) => {
                        let proof = Proof { length: candidate.length(), end: None };
                        State::Compared(Box::new(candidate), proof)
                    }
                    Ok(_) => State::Behind,
                    Err(why) => return self.bar(why),
                }
            }
            other @ (State::Compared(..) | State::Behind) => other,
        };
        None
    }

    fn bar(&mut self, why: String) -> Option<Tail> {
        if why != self.why {
            tracing::warn!(why, "the binlog can't be read from its files: the server sends it");
            self.why = why;
        }
        self.state = State::Barred(Instant::now() + AGAIN);
        None
    }
}

async fn within<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let done = tokio::time::timeout(SILENCE_MAX, work).await;
    done.unwrap_or_else(|_| Err("the database does not answer".to_owned()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::capture::event::{MARIADB_GTID as GTID, TABLE_MAP as MAP, XID};

    /// MariaDB's, behind a transaction and of none.
    const CHECKPOINT: u8 = 161;

    /// What of these events must stand in a file of 1,000 bytes, and where it is gone over.
    #[track_caller]
    fn check(events: &[(u8, u32)], compared: &[u64], end: Option<u64>) {
        let mut proof = Proof { length: 1_000, end: None };
        let asked: Vec<u64> = events
            .iter()
            .filter_map(|&(kind, log_pos)| {
                let (data, timestamp, server, flags) = (Bytes::new(), 0, 1, 0);
                proof.sent(&RawEvent { kind, timestamp, server, log_pos, flags, data })
            })
            .collect();
        assert_eq!((&asked[..], proof.end), (compared, end));
    }

    #[test]
    fn a_file_counts_behind_the_end_of_a_transaction() {
        check(&[(GTID, 1_040), (MAP, 1_100), (XID, 1_130)], &[1_040, 1_100, 1_130], Some(1_130));
        check(&[(XID, 1_000)], &[], None);
        check(&[(XID, 1_130), (GTID, 1_170)], &[1_130, 1_170], None);
        check(&[(XID, 1_130), (CHECKPOINT, 1_170)], &[1_130, 1_170], None);
    }

    #[test]
    fn events_that_do_not_say_where_they_end_prove_nothing() {
        check(&[(GTID, 1_040), (MAP, 0), (XID, 1_130)], &[1_040, 1_130], Some(1_130));
        check(&[(XID, 1_130), (GTID, 1_170), (MAP, 0)], &[1_130, 1_170], None);
        // The position has 32 bits.
        check(&[(XID, 1_130), (XID, 20)], &[1_130], None);
    }
}
