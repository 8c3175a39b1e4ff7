//! Plays the scenarios of chaos/ on real regions: a safety phase with faults, then a
//! liveness phase without.
#![expect(unreachable_pub, reason = "what its users may use is pub")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod file;
mod holds;
mod play;

pub use file::{names, parse, read};
pub use play::play;
