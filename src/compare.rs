//! Comparing a table between regions: which columns and how, in which chunks, what
//! a difference means, and the report.
//!
//! Pure: SQL text goes out, what the databases answered comes in. Two rows are equal
//! when every compared column holds the same bytes in all regions; what only looks
//! the same (another case, a trailing blank, an empty string for NULL) differs.
//!
//! The sum of a chunk is the row count and the exclusive or of a strong hash of each
//! whole row, its key included. Swapped values, equal changes in two rows, and rows
//! moved between keys all change it; no sum over values does.

mod chunk;
mod columns;
mod lag;
mod repair;
mod report;
mod settle;
mod written;

pub use chunk::{ChunkRows, Key, Range};
pub use columns::{Column, Plan, Shape};
pub use lag::Lag;
pub use repair::{Image, Repair, RepairOutcome};
pub use report::{Cursor, Difference, Outcome, Report, State, TableReport, begins};
pub use settle::{Class, Seen, Sight, Suspect, Verdict};
pub use written::key_row;
