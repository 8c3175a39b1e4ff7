//! Column values from the binlog's forms into the record format's.

use std::io::Write as _;

use bytes::Bytes;

use super::CaptureError;
use super::bytes::Cursor;
use super::catalog::ColumnInfo;
use super::json;
use super::table_map::{Written, kind};
use crate::change::{Kind, Value};

/// Reads one value that is not NULL.
#[expect(clippy::too_many_lines, reason = "one arm for each type of the format")]
pub(super) fn read(
    at: &mut Cursor,
    how: Written,
    column: &ColumnInfo,
) -> Result<Value, CaptureError> {
    let unsigned = column.unsigned;
    let value = match how.kind {
        kind::TINY => int(at.uint_le(1)?, 8, unsigned),
        kind::SHORT => int(at.uint_le(2)?, 16, unsigned),
        kind::INT24 => int(at.uint_le(3)?, 24, unsigned),
        kind::LONG => int(at.uint_le(4)?, 32, unsigned),
        kind::LONGLONG => int(at.u64()?, 64, unsigned),
        kind::FLOAT => Kind::Float(at.f32()?),
        kind::DOUBLE => Kind::Double(at.f64()?),
        kind::YEAR => match at.u8()? {
            0 => Kind::Uint(0),
            since => Kind::Uint(1900 + u64::from(since)),
        },
        kind::NEWDECIMAL => {
            let (precision, scale) = (usize::from(how.meta >> 8), usize::from(how.meta & 0xff));
            Kind::Literal(decimal(at, precision, scale)?)
        }
        kind::DATE => {
            let packed = at.uint_le(3)?;
            literal(format_args!("{:04}-{:02}-{:02}", packed >> 9, packed >> 5 & 15, packed & 31))
        }
        kind::TIME2 => Kind::Literal(time(at, usize::from(how.meta))?),
        kind::DATETIME2 => {
            // 1 bit sign, 17 bits year*13+month, 5 day, 5 hour, 6 minute, 6 second.
            let packed = at.uint_be(5)?.wrapping_sub(0x80_0000_0000);
            let (date, clock) = (packed >> 17, packed & 0x1_ffff);
            let (months, day) = (date >> 5, date & 31);
            let text = format!(
                "{:04}-{:02}-{day:02} {:02}:{:02}:{:02}",
                months / 13,
                months % 13,
                clock >> 12,
                clock >> 6 & 63,
                clock & 63
            );
            with_fraction(at, text, usize::from(how.meta))?
        }
        kind::TIMESTAMP2 => {
            let seconds = at.uint_be(4)?;
            with_fraction(at, timestamp(seconds), usize::from(how.meta))?
        }
        kind::TIMESTAMP if column.fraction == 0 => {
            let seconds = u64::from(at.u32()?);
            with_fraction(at, timestamp(seconds), 0)?
        }
        kind::DATETIME if column.fraction == 0 => {
            let n = at.u64()?;
            let (date, clock) = (n / 1_000_000, n % 1_000_000);
            literal(format_args!(
                "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
                date / 10_000,
                date / 100 % 100,
                date % 100,
                clock / 10_000,
                clock / 100 % 100,
                clock % 100
            ))
        }
        kind::TIME if column.fraction == 0 => {
            let Kind::Int(n) = int(at.uint_le(3)?, 24, false) else {
                return Err(CaptureError::Corrupt("a TIME is no number"));
            };
            let (sign, n) = (if n < 0 { "-" } else { "" }, n.unsigned_abs());
            literal(format_args!("{sign}{:02}:{:02}:{:02}", n / 10_000, n / 100 % 100, n % 100))
        }
        kind::BIT => {
            let bits = usize::from(how.meta >> 8) * 8 + usize::from(how.meta & 0xff);
            Kind::Uint(at.uint_be(bits.div_ceil(8))?)
        }
        kind::ENUM | kind::SET => Kind::Uint(at.uint_le(usize::from(how.meta))?),
        kind::VARCHAR | kind::VAR_STRING => Kind::Bytes(short(at, how.meta)?),
        kind::STRING => {
            let bytes = short(at, how.meta)?;
            let bytes = column.binary_length.map_or(bytes.clone(), |length| padded(bytes, length));
            Kind::Bytes(if column.uuid { uuid(&bytes)? } else { bytes })
        }
        249..=kind::BLOB | kind::GEOMETRY => Kind::Bytes(long(at, how.meta)?),
        kind::VARCHAR_COMPRESSED => Kind::Bytes(whole(short(at, how.meta)?)?),
        kind::BLOB_COMPRESSED => Kind::Bytes(whole(long(at, how.meta)?)?),
        kind::JSON => Kind::Bytes(json::text(&long(at, how.meta)?)?),
        other => return Err(CaptureError::UnknownEvent(other)),
    };
    Ok(Value::new(value))
}

fn int(raw: u64, bits: u32, unsigned: bool) -> Kind {
    if unsigned {
        return Kind::Uint(raw);
    }
    let shift = 64 - bits;
    Kind::Int((raw << shift).cast_signed() >> shift)
}

fn literal(text: std::fmt::Arguments<'_>) -> Kind {
    let mut out = Vec::with_capacity(32);
    out.write_fmt(text).expect("a Vec takes all");
    Kind::Literal(out.into())
}

/// A string whose length has one byte when it can't be longer than 255, else two.
fn short(at: &mut Cursor, most: u16) -> Result<Bytes, CaptureError> {
    let length = if most < 256 { usize::from(at.u8()?) } else { usize::from(at.u16()?) };
    at.take(length)
}

/// A string whose length has as many bytes as the metadata says.
fn long(at: &mut Cursor, width: u16) -> Result<Bytes, CaptureError> {
    let length = at.uint_le(usize::from(width))?;
    at.take(usize::try_from(length).unwrap_or(usize::MAX))
}

/// A value of a compressed column (MariaDB): empty, or a byte 0 before what did not
/// get smaller, or compressed.
fn whole(mut bytes: Bytes) -> Result<Bytes, CaptureError> {
    match bytes.first() {
        None => Ok(bytes),
        Some(0) => Ok(bytes.split_off(1)),
        Some(_) => super::bytes::inflate(Cursor::new(bytes)),
    }
}

/// MariaDB stores a UUID with its parts reversed, so that times sort, unless that
/// would gain nothing; this is its own test of which it did (`rec_need_swap` in
/// plugin/type_uuid). The result is in the order of the text.
fn uuid(stored: &Bytes) -> Result<Bytes, CaptureError> {
    let Ok(s) = <&[u8; 16]>::try_from(&stored[..]) else {
        return Err(CaptureError::Corrupt("a UUID has not 16 bytes"));
    };
    if s[6] & s[8].wrapping_neg() & 0x80 == 0 {
        return Ok(stored.clone());
    }
    Ok([&s[12..16], &s[10..12], &s[8..10], &s[6..8], &s[..6]].concat().into())
}

/// BINARY(n) travels without its trailing zeros.
fn padded(bytes: Bytes, length: usize) -> Bytes {
    if bytes.len() >= length {
        return bytes;
    }
    let mut whole = bytes.to_vec();
    whole.resize(length, 0);
    whole.into()
}

fn with_fraction(at: &mut Cursor, mut text: String, digits: usize) -> Result<Kind, CaptureError> {
    push_fraction(&mut text, at.uint_be(digits.div_ceil(2))?, digits);
    Ok(Kind::Literal(text.into()))
}

/// Fractions are stored in whole bytes of two digits each.
fn push_fraction(text: &mut String, stored: u64, digits: usize) {
    if digits > 0 {
        let width = digits.div_ceil(2) * 2;
        let whole = format!("{stored:0width$}");
        text.push('.');
        text.push_str(&whole[..digits.min(whole.len())]);
    }
}

fn timestamp(seconds: u64) -> String {
    if seconds == 0 {
        return "0000-00-00 00:00:00".to_owned();
    }
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    // After Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        clock / 3_600,
        clock / 60 % 60,
        clock % 60
    )
}

/// TIME2: with its fraction one number in big-endian, biased so that it sorts.
fn time(at: &mut Cursor, digits: usize) -> Result<Bytes, CaptureError> {
    let fraction_bytes = digits.div_ceil(2);
    let bits = u32::try_from(fraction_bytes * 8).expect("3 bytes at most");
    let raw = at.uint_be(3 + fraction_bytes)?;
    let bias = 1_u64 << (23 + bits);
    let (sign, packed) = if raw >= bias { ("", raw - bias) } else { ("-", bias - raw) };
    let (clock, fraction) = (packed >> bits, packed & ((1 << bits) - 1));
    let mut text =
        format!("{sign}{:02}:{:02}:{:02}", clock >> 12 & 0x3ff, clock >> 6 & 63, clock & 63);
    push_fraction(&mut text, fraction, digits);
    Ok(text.into())
}

/// NEWDECIMAL: groups of nine digits in four bytes, the leftmost and the rightmost
/// group in as few as hold them; the sign in the first bit, inverted.
pub(super) fn decimal(
    at: &mut Cursor,
    precision: usize,
    scale: usize,
) -> Result<Bytes, CaptureError> {
    const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    if scale > precision || precision > 65 {
        return Err(CaptureError::Corrupt("a DECIMAL has impossible digits"));
    }
    let whole = precision - scale;
    let length = whole / 9 * 4 + BYTES[whole % 9] + scale / 9 * 4 + BYTES[scale % 9];
    let mut raw = at.take(length)?.to_vec();
    let Some(first) = raw.first_mut() else {
        return Err(CaptureError::Corrupt("a DECIMAL has no digits"));
    };
    let negative = *first & 0x80 == 0;
    *first ^= 0x80;
    if negative {
        raw.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut raw = Cursor::new(raw.into());
    let mut digits = String::with_capacity(precision + 2);
    let mut group = |digits: &mut String, count: usize| -> Result<(), CaptureError> {
        if count > 0 {
            let value = raw.uint_be(BYTES[count])?;
            write!(digits, "{value:0count$}").expect("a String takes all");
        }
        Ok(())
    };
    use std::fmt::Write as _;
    group(&mut digits, whole % 9)?;
    for _ in 0..whole / 9 {
        group(&mut digits, 9)?;
    }
    let mut fraction = String::with_capacity(scale);
    for _ in 0..scale / 9 {
        group(&mut fraction, 9)?;
    }
    group(&mut fraction, scale % 9)?;
    let whole = digits.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if negative { "-" } else { "" };
    let dot = if scale > 0 { "." } else { "" };
    Ok(format!("{sign}{whole}{dot}{fraction}").into())
}
