//! The section `verify`: which agent compares the regions' tables, and how fast.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Span;
use super::limits::take;
use crate::change::RegionId;
use crate::yaml::{Problems, Spanned, which};

/// Comparing all regions' tables, pass after pass.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The region whose agent compares. It logs in to the databases of all regions.
    pub region: String,
    /// From the beginning of a pass to that of the next, 1s to 365d.
    #[serde(default = "interval")]
    pub interval: Span,
    /// How many rows of each region are read a second, 100 to 10000000.
    #[serde(default = "rows_per_second")]
    #[schemars(range(min = 100, max = 10_000_000))]
    pub rows_per_second: u32,
    /// It waits while a region is further behind another than this, 100ms to 1d.
    #[serde(default = "max_lag")]
    pub max_lag: Span,
}

const fn interval() -> Span {
    Span::from_millis(24 * 3_600_000)
}

/// A tenth of what one core of a small database reads.
const fn rows_per_second() -> u32 {
    20_000
}

const fn max_lag() -> Span {
    Span::from_millis(10_000)
}

/// The section as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileVerify {
    region: Spanned<String>,
    interval: Option<Spanned<Span>>,
    rows_per_second: Option<u32>,
    max_lag: Option<Spanned<Span>>,
}

impl FileVerify {
    /// The section; what is wrong is told. `regions` are by name, where they are known.
    pub(super) fn check(
        &self,
        regions: Option<&BTreeMap<&str, Option<RegionId>>>,
        problems: &mut Problems,
    ) -> Verify {
        let name = &self.region;
        let known = regions.filter(|known| !known.contains_key(name.value.as_str()));
        if let Some(known) = known.filter(|_| !name.at.told()) {
            let help = which(&name.value, "regions", known.keys().copied());
            problems.add(name.at, format!("unknown region `{}`", name.value), Some(help));
        }
        let ms = Span::from_millis;
        let every = (ms(1_000), ms(365 * 86_400_000));
        let lag = (ms(100), ms(86_400_000));
        Verify {
            region: name.value.clone(),
            interval: take("interval", self.interval.as_ref(), every, interval(), problems),
            rows_per_second: self.rows_per_second.unwrap_or_else(rows_per_second),
            max_lag: take("max_lag", self.max_lag.as_ref(), lag, max_lag(), problems),
        }
    }
}
