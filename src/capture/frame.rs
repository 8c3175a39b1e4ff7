//! How events lie in a binlog file: each with a header, and a checksum behind it where
//! the file's format description says so.

use bytes::Bytes;

use super::CaptureError;
use super::bytes::Cursor;
use super::event::{FORMAT, HEARTBEAT, MARIADB_ENCRYPTION, QUERY, ROTATE, XID};

/// What a file begins with.
pub(super) const MAGIC: &[u8] = b"\xfebin";
const HEADER: usize = 19;
const SUM: usize = 4;
/// Of an event that the server made up for a reader, and that stands in no file.
const ARTIFICIAL: u16 = 0x20;

/// An event as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawEvent {
    pub(super) kind: u8,
    /// Seconds since 1970.
    pub(super) timestamp: u32,
    /// The id of the server that wrote it first.
    pub(super) server: u32,
    /// Where it ends in its file, in its lowest 32 bits.
    pub(super) log_pos: u32,
    pub(super) flags: u16,
    /// Without header and checksum.
    pub(super) data: Bytes,
}

impl RawEvent {
    /// The header's fields that [`super::Assembler::event`] takes.
    pub(super) const fn place(&self) -> (u32, u32, u32) {
        (self.timestamp, self.server, self.log_pos)
    }

    /// Whether it says how the others of its file are.
    pub(super) const fn is_format(&self) -> bool {
        self.kind == FORMAT
    }

    /// Whether all behind it in its file is encrypted.
    pub(super) const fn is_encryption(&self) -> bool {
        self.kind == MARIADB_ENCRYPTION
    }

    /// The name of the file that comes next.
    pub(super) fn rotates_to(&self) -> Option<&[u8]> {
        self.data.get(8..).filter(|_| self.kind == ROTATE)
    }

    /// Whether the server's file holds it as it was sent: others are made for a reader, or
    /// changed, as a format description.
    pub(super) const fn is_same_in_file(&self) -> bool {
        self.flags & ARTIFICIAL == 0 && !matches!(self.kind, FORMAT | HEARTBEAT | ROTATE)
    }

    /// Whether it may be the last of a transaction.
    pub(super) const fn ends_transaction(&self) -> bool {
        matches!(self.kind, XID | QUERY)
    }
}

/// What is known of the events of one file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frames {
    summed: bool,
}

/// The next of some bytes.
#[derive(Debug)]
pub(super) enum Cut {
    /// An event, with its checksum right.
    Event(RawEvent),
    /// So many bytes are needed to say more.
    Needs(usize),
}

impl Frames {
    /// Cuts the next event off `bytes`, and nothing if it is not there whole. Its data share
    /// their memory.
    ///
    /// # Errors
    /// [`CaptureError::Checksum`], and [`CaptureError::Corrupt`] of an impossible size.
    pub(super) fn cut(&mut self, bytes: &mut Bytes) -> Result<Cut, CaptureError> {
        if bytes.len() < HEADER {
            return Ok(Cut::Needs(HEADER));
        }
        let mut at = Cursor::new(bytes.clone());
        let (timestamp, kind, server) = (at.u32()?, at.u8()?, at.u32()?);
        let (size, log_pos, flags) = (at.u32()?, at.u32()?, at.u16()?);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if bytes.len() < size {
            return Ok(Cut::Needs(size));
        }
        let mut whole = bytes.split_to(size);
        if kind == FORMAT {
            // The algorithm stands before the format description's own checksum.
            self.summed = size > HEADER + SUM + 1 && whole[size - SUM - 1] == 1;
        }
        if self.summed {
            let sum = Cursor::new(whole.split_off(size.saturating_sub(SUM))).u32()?;
            // The server changes a flag of a format description while its file is open.
            if sum != crc32fast::hash(&whole) && kind != FORMAT {
                return Err(CaptureError::Checksum);
            }
        }
        let mut data = Cursor::new(whole);
        data.take(HEADER)?;
        Ok(Cut::Event(RawEvent { kind, timestamp, server, log_pos, flags, data: data.rest() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event of `kind` with `data`, and a checksum.
    fn event(kind: u8, data: &[u8]) -> Vec<u8> {
        let size = u32::try_from(HEADER + data.len() + SUM).unwrap();
        let mut bytes = 7_u32.to_le_bytes().to_vec();
        bytes.push(kind);
        [1, size, 1_000].iter().for_each(|field: &u32| bytes.extend(field.to_le_bytes()));
        bytes.extend([0, 0]);
        bytes.extend(data);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// What is cut off a file of these bytes: the kinds of the events, and how it ends.
    #[track_caller]
    fn check(bytes: Vec<u8>, expected: &[u8], end: &str) {
        let (mut bytes, mut frames) = (Bytes::from(bytes), Frames::default());
        let mut kinds = Vec::new();
        let ended = loop {
            match frames.cut(&mut bytes) {
                Ok(Cut::Event(event)) => kinds.push(event.kind),
                Ok(Cut::Needs(count)) => break format!("needs {count}"),
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!((&kinds[..], &ended[..]), (expected, end));
    }

    #[test]
    fn events_are_cut_off_until_one_is_not_whole() {
        let both = [event(FORMAT, &[0, 1]), event(XID, b"12345678")].concat();
        check(both.clone(), &[FORMAT, XID], "needs 19");
        check(both[..both.len() - 1].to_vec(), &[FORMAT], "needs 31");
        check(both[..31].to_vec(), &[FORMAT], "needs 19");
    }

    #[test]
    fn what_is_damaged_is_told() {
        let mut both = [event(FORMAT, &[0, 1]), event(XID, b"12345678")].concat();
        let last = both.len() - 1;
        both[last] ^= 1;
        check(both, &[FORMAT], "a binlog event's checksum is wrong");
        // A format description whose file is open still has another flag.
        let mut open = event(FORMAT, &[0, 1]);
        open[17] = 1;
        check(open, &[FORMAT], "needs 19");
        let mut short = event(FORMAT, &[0, 1]);
        short[9..13].copy_from_slice(&[3, 0, 0, 0]);
        check(short, &[], "a binlog event is corrupt: an event ends too early");
    }

    #[test]
    fn files_hold_what_servers_do_not_make_up() {
        let (kind, data) = (XID, Bytes::new());
        let raw = RawEvent { kind, timestamp: 0, server: 1, log_pos: 400, flags: 0, data };
        assert!(raw.is_same_in_file());
        assert!(!RawEvent { flags: ARTIFICIAL, ..raw.clone() }.is_same_in_file());
        assert!(!RawEvent { kind: FORMAT, ..raw }.is_same_in_file());
    }
}
