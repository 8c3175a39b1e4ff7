//! Apply: what the peers wrote goes into the local database, exactly once.
//!
//! Owns the applier's tables (schema `causeway`), the SQL of both dialects and the
//! loop that keeps the rules: position with the data (R1), whole transactions (R2),
//! causal order (R3), the marker that capture recognises (R4), no blind overwrite
//! (R7). Decisions are [`crate::resolve`]'s; this module carries them out.

mod advice;
mod batch;
mod bootstrap;
mod conflicts;
mod error;
mod fence;
mod gate;
mod interface;
mod large;
mod redo;
mod run;
mod schema;
mod session;
mod sql;
mod stream;
mod tell;
mod unfit;

pub use batch::BatchLimits;
pub use bootstrap::{
    Flavor, Shipped, applied, bootstrap, end_sessions, find_writable, forget_own, set_shipped,
    shipped, still_owns, take_epoch,
};
pub use error::{ApplyError, ErrorKind};
pub use fence::{DroppedRecords, Fence, dropped, fences};
pub use gate::SharedIndex;
pub use interface::{AppliedTxn, ApplyConfig, ApplyInputs, Gone, Order, Report};
pub use run::run;
pub use session::{Mark, Session};
pub use stream::{Arrival, StreamState};
