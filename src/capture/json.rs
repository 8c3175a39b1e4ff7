//! MySQL's binary JSON as the text that the server prints of it.
//!
//! Format after MySQL's `sql-common/json_binary.h`, text after `json_dom.cc`. One thing
//! is said more exactly than servers before 8.0.17 do: a DOUBLE without a fraction has
//! its `.0`, or who reads the text would make an integer of it. Of SQL's own types
//! inside a document (DECIMAL, DATE, TIME, DATETIME, bytes) the text is all that
//! arrives: a number or a string.

use std::fmt::Write as _;

use bytes::Bytes;

use super::CaptureError;
use super::bytes::Cursor;
use super::table_map::kind;
use super::value::decimal;

const BAD: CaptureError = CaptureError::Corrupt("a JSON value can't be read");
/// The server's own limit.
const DEPTH_MAX: u32 = 100;

/// Prints a document.
pub(super) fn text(document: &Bytes) -> Result<Bytes, CaptureError> {
    let Some(&kind) = document.first() else { return Ok(Bytes::new()) };
    // Each value has bytes of its own: a document that says otherwise is damaged.
    let mut printer = Printer { out: String::with_capacity(document.len()), left: document.len() };
    printer.value(kind, &document.slice(1..), DEPTH_MAX)?;
    Ok(printer.out.into())
}

struct Printer {
    out: String,
    /// Bytes that no printed value has accounted for.
    left: usize,
}

impl Printer {
    fn spend(&mut self, bytes: usize) -> Result<(), CaptureError> {
        self.left = self.left.checked_sub(bytes).ok_or(BAD)?;
        Ok(())
    }

    fn value(&mut self, kind: u8, at: &Bytes, depth: u32) -> Result<(), CaptureError> {
        self.spend(1)?;
        let mut cursor = Cursor::new(at.clone());
        match kind {
            0..=3 => return self.container(kind, at, depth.checked_sub(1).ok_or(BAD)?),
            4 => self.out.push_str(match cursor.u8()? {
                0 => "null",
                1 => "true",
                2 => "false",
                _ => return Err(BAD),
            }),
            5 => self.number(cursor.u16()?.cast_signed()),
            6 => self.number(cursor.u16()?),
            7 => self.number(cursor.u32()?.cast_signed()),
            8 => self.number(cursor.u32()?),
            9 => self.number(cursor.u64()?.cast_signed()),
            10 => self.number(cursor.u64()?),
            11 => self.double(cursor.f64()?),
            12 => {
                let bytes = sized(&mut cursor)?;
                self.spend(bytes.len())?;
                self.string(std::str::from_utf8(&bytes).map_err(|_| BAD)?);
            }
            15 => {
                let kind = cursor.u8()?;
                let bytes = sized(&mut cursor)?;
                self.spend(bytes.len())?;
                self.opaque(kind, bytes)?;
            }
            _ => return Err(BAD),
        }
        Ok(())
    }

    fn number(&mut self, number: impl std::fmt::Display) {
        write!(self.out, "{number}").expect("a String takes all");
    }

    /// The fewest digits that give the same number, with an exponent below 1e-15 and from 1e15 on.
    fn double(&mut self, number: f64) {
        let text = format!("{number:e}");
        let exponent = text.split_once('e').and_then(|(_, e)| e.parse::<i32>().ok()).unwrap_or(0);
        if (-15..15).contains(&exponent) {
            let whole = number.fract() == 0.0;
            write!(self.out, "{number}{}", if whole { ".0" } else { "" })
                .expect("a String takes all");
        } else {
            self.out.push_str(&text);
        }
    }

    /// Objects and arrays: places are counted from their beginning, and have two or four
    /// bytes; small scalars stand in place of theirs.
    fn container(&mut self, kind: u8, at: &Bytes, depth: u32) -> Result<(), CaptureError> {
        let (object, width) = (kind < 2, if kind.is_multiple_of(2) { 2 } else { 4 });
        let mut header = Cursor::new(at.clone());
        let count = place(&mut header, width)?;
        place(&mut header, width)?;
        let mut keys = Vec::new();
        for _ in 0..if object { count } else { 0 } {
            let from = place(&mut header, width)?;
            let length = usize::from(header.u16()?);
            let key = at.get(from..from.saturating_add(length)).ok_or(BAD)?;
            self.spend(length)?;
            keys.push(std::str::from_utf8(key).map_err(|_| BAD)?);
        }
        let mut keys = keys.into_iter();
        self.out.push(if object { '{' } else { '[' });
        for n in 0..count {
            self.out.push_str(if n == 0 { "" } else { ", " });
            if let Some(key) = keys.next() {
                self.string(key);
                self.out.push_str(": ");
            }
            let kind = header.u8()?;
            let inlined = header.take(width)?;
            if matches!(kind, 4..=6) || width == 4 && matches!(kind, 7 | 8) {
                self.value(kind, &inlined, depth)?;
            } else {
                let from = place(&mut Cursor::new(inlined), width)?;
                if from > at.len() {
                    return Err(BAD);
                }
                self.value(kind, &at.slice(from..), depth)?;
            }
        }
        self.out.push(if object { '}' } else { ']' });
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\0'..='\u{1f}' => {
                    write!(self.out, "\\u{:04x}", u32::from(c)).expect("a String takes all");
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    /// A value of one of SQL's own types.
    fn opaque(&mut self, kind: u8, bytes: Bytes) -> Result<(), CaptureError> {
        let mut at = Cursor::new(bytes.clone());
        if kind == kind::NEWDECIMAL {
            let (precision, scale) = (usize::from(at.u8()?), usize::from(at.u8()?));
            let digits = decimal(&mut at, precision, scale)?;
            self.out.push_str(std::str::from_utf8(&digits).map_err(|_| BAD)?);
            return Ok(());
        }
        let text = match kind {
            kind::DATE | kind::TIME | kind::DATETIME | kind::TIMESTAMP => {
                temporal(kind, at.u64()?.cast_signed())
            }
            _ => format!("base64:type{kind}:{}", base64(&bytes)),
        };
        self.string(&text);
        Ok(())
    }
}

/// 24 bits of microseconds below second, minute, hour, day and year*13+month.
fn temporal(kind: u8, packed: i64) -> String {
    let sign = if packed < 0 { "-" } else { "" };
    let packed = packed.unsigned_abs();
    let (micros, clock, date) = (packed & 0xff_ffff, packed >> 24, packed >> 41);
    let (day, months) = (date & 31, date >> 5);
    let day = format!("{:04}-{:02}-{day:02}", months / 13, months % 13);
    let (minute, second) = (clock >> 6 & 63, clock & 63);
    match kind {
        kind::DATE => day,
        kind::TIME => {
            format!("{sign}{:02}:{minute:02}:{second:02}.{micros:06}", clock >> 12 & 0x3ff)
        }
        _ => format!("{day} {:02}:{minute:02}:{second:02}.{micros:06}", clock >> 12 & 31),
    }
}

/// In lines of 76, as the server breaks them.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for (n, group) in bytes.chunks(3).enumerate() {
        if n > 0 && n % 19 == 0 {
            out.push('\n');
        }
        let bits = group.iter().fold(0, |bits, &byte| bits << 8 | usize::from(byte));
        let bits = bits << (8 * (3 - group.len()));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            out.push(if digit > group.len() { '=' } else { char::from(DIGITS[value]) });
        }
    }
    out
}

fn place(at: &mut Cursor, width: usize) -> Result<usize, CaptureError> {
    usize::try_from(at.uint_le(width)?).map_err(|_| BAD)
}

/// Bytes behind their length, seven bits of it a byte.
fn sized(at: &mut Cursor) -> Result<Bytes, CaptureError> {
    let mut length = 0_usize;
    for n in 0..5 {
        let byte = at.u8()?;
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte < 0x80 {
            return at.take(length);
        }
    }
    Err(BAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(document: &[u8], wanted: &str) {
        assert_eq!(text(&document.to_vec().into()).unwrap(), wanted);
    }

    #[test]
    fn a_double_is_never_taken_for_an_integer() {
        for (number, wanted) in [
            (1000.0, "1000.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e-7, "0.0000001"),
            (1e14, "100000000000000.0"),
            (1e15, "1e15"),
            (1.5e300, "1.5e300"),
        ] {
            let document = [&[11][..], &f64::to_le_bytes(number)].concat();
            check(&document, wanted);
        }
    }

    #[test]
    fn bytes_are_base64_in_lines() {
        check(&[15, 252, 2, 0, 255], "\"base64:type252:AP8=\"");
        let long = [&[15, 252, 58][..], &[0; 58]].concat();
        check(&long, &format!("\"base64:type252:{}\\nAA==\"", "A".repeat(76)));
    }

    #[test]
    fn a_document_that_repeats_itself_is_damaged() {
        // An array whose two elements are the array itself.
        let document = [2, 2, 0, 10, 0, 2, 0, 0, 2, 0, 0];
        assert!(text(&document.to_vec().into()).is_err());
    }

    proptest! {
        #[test]
        fn no_document_panics(document in proptest::collection::vec(any::<u8>(), 0..60)) {
            drop(text(&document.into()));
        }
    }
}
