//! A cursor over an event's bytes: every read is checked.

use bytes::Bytes;

use super::CaptureError;

/// Reads from the front.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    bytes: Bytes,
}

impl Cursor {
    pub(super) const fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn take(&mut self, n: usize) -> Result<Bytes, CaptureError> {
        if n > self.bytes.len() {
            return Err(CaptureError::Corrupt("an event ends too early"));
        }
        Ok(self.bytes.split_to(n))
    }

    pub(super) fn rest(self) -> Bytes {
        self.bytes
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CaptureError> {
        let Some((head, _)) = self.bytes.split_first_chunk::<N>() else {
            return Err(CaptureError::Corrupt("an event ends too early"));
        };
        let head = *head;
        bytes::Buf::advance(&mut self.bytes, N);
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, CaptureError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, CaptureError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, CaptureError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, CaptureError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn f32(&mut self) -> Result<f32, CaptureError> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    pub(super) fn f64(&mut self) -> Result<f64, CaptureError> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// Little-endian, 0 to 8 bytes.
    pub(super) fn uint_le(&mut self, n: usize) -> Result<u64, CaptureError> {
        Ok(self.take(n)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// Big-endian, 0 to 8 bytes.
    pub(super) fn uint_be(&mut self, n: usize) -> Result<u64, CaptureError> {
        Ok(self.take(n)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// A length-encoded integer.
    pub(super) fn lenenc(&mut self) -> Result<usize, CaptureError> {
        let value = match self.u8()? {
            first @ 0..=0xfa => u64::from(first),
            0xfc => self.uint_le(2)?,
            0xfd => self.uint_le(3)?,
            0xfe => self.u64()?,
            0xfb | 0xff => return Err(CaptureError::Corrupt("a length is no length")),
        };
        usize::try_from(value).map_err(|_| CaptureError::Corrupt("a length is too large"))
    }
}

/// MariaDB's compressed bytes: a header with the algorithm (zlib), whether zlib's own
/// header and sum are left out, and the width of the length; the length in
/// big-endian; the deflated bytes.
pub(super) fn inflate(mut at: Cursor) -> Result<Bytes, CaptureError> {
    use std::io::Read as _;
    const LENGTH_MAX: u64 = 1 << 30;
    let header = at.u8()?;
    if header & 0x80 == 0 || header >> 4 & 7 != 0 {
        return Err(CaptureError::Corrupt("compressed bytes have an unknown header"));
    }
    let length = at.uint_be(usize::from(header & 7))?;
    if length > LENGTH_MAX {
        return Err(CaptureError::Corrupt("compressed bytes claim to be too large"));
    }
    let mut out = Vec::new();
    let rest = at.rest();
    let read = if header & 8 == 0 {
        flate2::read::ZlibDecoder::new(&rest[..]).take(length).read_to_end(&mut out)
    } else {
        flate2::read::DeflateDecoder::new(&rest[..]).take(length).read_to_end(&mut out)
    };
    read.map_err(|_| CaptureError::Corrupt("compressed bytes can't be read"))?;
    if u64::try_from(out.len()).ok() != Some(length) {
        return Err(CaptureError::Corrupt("compressed bytes are too short"));
    }
    Ok(out.into())
}
