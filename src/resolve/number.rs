//! Exact decimal numbers, for columns whose changes add up.

use std::fmt;

use crate::change::{Kind, Value};

/// A decimal of at most 38 digits: `units` / 10^`scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    units: i128,
    scale: u32,
}

impl Number {
    /// Nothing.
    pub const ZERO: Self = Self { units: 0, scale: 0 };

    /// An integer or a decimal. `None` for NULL, for what is no exact number, and for
    /// too many digits.
    #[must_use]
    pub fn of(value: &Value) -> Option<Self> {
        match &value.kind {
            Some(Kind::Int(n)) => Some(Self { units: i128::from(*n), scale: 0 }),
            Some(Kind::Uint(n)) => Some(Self { units: i128::from(*n), scale: 0 }),
            Some(Kind::Literal(text)) => Self::parse(std::str::from_utf8(text).ok()?),
            Some(Kind::Float(_) | Kind::Double(_) | Kind::Bytes(_)) | None => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let scale = u32::try_from(fraction.len()).ok()?;
        let units = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { units, scale })
    }

    fn scaled(self, scale: u32) -> Option<i128> {
        self.units.checked_mul(10_i128.checked_pow(scale.checked_sub(self.scale)?)?)
    }

    /// The sum; `None` beyond 38 digits.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let units = self.scaled(scale)?.checked_add(other.scaled(scale)?)?;
        Some(Self { units, scale })
    }

    /// The difference; `None` beyond 38 digits.
    #[must_use]
    pub fn minus(self, other: Self) -> Option<Self> {
        self.plus(Self { units: other.units.checked_neg()?, scale: other.scale })
    }

    /// Whether it is 0.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.units == 0
    }

    /// As a value of the same kind as `like`; `None` when it does not fit.
    #[must_use]
    pub fn to_value(self, like: &Value) -> Option<Value> {
        Some(Value::new(match &like.kind {
            Some(Kind::Int(_)) => Kind::Int(i64::try_from(self.units).ok()?),
            Some(Kind::Uint(_)) => Kind::Uint(u64::try_from(self.units).ok()?),
            Some(Kind::Float(_) | Kind::Double(_) | Kind::Bytes(_) | Kind::Literal(_)) | None => {
                Kind::Literal(self.to_string().into())
            }
        }))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.units < 0 { "-" } else { "" };
        let digits = self.units.unsigned_abs().to_string();
        let scale = usize::try_from(self.scale).unwrap_or(0);
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Number {
        Number::of(&Value::new(Kind::Literal(text.to_owned().into()))).unwrap()
    }

    #[test]
    fn sums_are_exact() {
        assert_eq!(literal("0.10").plus(literal("0.2")).unwrap().to_string(), "0.30");
        assert_eq!(literal("-0.05").plus(literal("0.04")).unwrap().to_string(), "-0.01");
        assert_eq!(literal("1").minus(literal("1.000")).unwrap().to_string(), "0.000");
        let most = literal("99999999999999999999999999999999999999");
        assert_eq!(most.plus(most).and_then(|sum| sum.plus(most)), None);
    }

    #[test]
    fn only_exact_numbers_add_up() {
        assert_eq!(Number::of(&Value::new(Kind::Double(1.0))), None);
        assert_eq!(Number::of(&Value::new(Kind::Literal("1e5".to_owned().into()))), None);
    }
}
