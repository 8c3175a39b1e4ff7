//! Key ranges and how large they are.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The values of a row's primary key, as the server prints them, or as the bytes that
/// text and binary columns hold. Stored as hexadecimal, since any byte may occur.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub Vec<Vec<u8>>);

impl Key {
    /// For people: what is no text is shown in hexadecimal.
    #[must_use]
    pub fn shown(&self) -> Vec<String> {
        self.0.iter().map(|value| shown(value)).collect()
    }
}

/// A value for people.
pub(super) fn shown(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex(value)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes every text");
        text
    })
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.iter().map(|value| hex(value)).collect::<Vec<_>>().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let values: Option<Vec<_>> = texts.iter().map(|text| bytes(text)).collect();
        values.map(Self).ok_or_else(|| serde::de::Error::custom("a key is not hexadecimal"))
    }
}

/// Keys after one and up to and with another; an absent end is the table's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The last key before it.
    pub after: Option<Key>,
    /// Its last key.
    pub through: Option<Key>,
}

/// How many rows the next chunk has: so many that the slowest region reads them in
/// about [`ChunkRows::TARGET`], so that no database is held for long at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRows(u64);

impl Default for ChunkRows {
    fn default() -> Self {
        Self(10_000)
    }
}

impl ChunkRows {
    /// What one chunk should take.
    pub const TARGET: Duration = Duration::from_millis(400);
    /// Below, the round trips would count for more than the rows.
    const MIN: u64 = 1_000;
    /// Above, every chunk of a busy table would hold rows that are in flight.
    const MAX: u64 = 100_000;

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// After a chunk of `rows` rows took `took`: at most twice as many, at least half.
    pub fn took(&mut self, rows: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let target = u64::try_from(Self::TARGET.as_micros()).unwrap_or(u64::MAX);
        let fitting = rows.saturating_mul(target) / micros;
        self.0 = fitting.clamp(self.0 / 2, self.0 * 2).clamp(Self::MIN, Self::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_any_bytes_survives_the_state_file() {
        let key = Key(vec![b"a'b".to_vec(), vec![0, 255], Vec::new()]);
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text, r#"["612762","00ff",""]"#);
        assert_eq!(serde_json::from_str::<Key>(&text).unwrap(), key);
        assert!(serde_json::from_str::<Key>(r#"["zz"]"#).is_err());
        assert_eq!(key.shown(), ["a'b", "0x00ff", ""]);
    }

    #[test]
    fn chunks_grow_and_shrink_towards_the_target_within_bounds() {
        let mut rows = ChunkRows::default();
        rows.took(10_000, Duration::from_millis(1));
        assert_eq!(rows.get(), 20_000);
        rows.took(20_000, Duration::from_millis(500));
        assert_eq!(rows.get(), 16_000);
        rows.took(16_000, Duration::from_secs(60));
        assert_eq!(rows.get(), 8_000);
        for _ in 0..20 {
            rows.took(8_000, Duration::from_secs(60));
        }
        assert_eq!(rows.get(), ChunkRows::MIN);
        for _ in 0..20 {
            rows.took(rows.get(), Duration::ZERO);
        }
        assert_eq!(rows.get(), ChunkRows::MAX);
    }
}
