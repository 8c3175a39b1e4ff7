//! Shipping: outbox, link and inbox over Kafka.
//!
//! Owns the topics. One partition each, so the order of the partition is the order
//! of the origin's commits. Fencing is in the log (`change::ReaderOrder`), not in
//! Kafka's transactions, which would add a commit to every batch's way and hide what
//! was acknowledged in an aborted one. Retention is the longest outage that a region
//! can catch up from.

mod acks;
mod copy;
mod detour;
mod error;
mod inbox;
mod kafka;
mod link;
mod outbox;
mod producer;
mod reader;
mod tail;

pub use error::{ErrorKind, ShipError};
pub use inbox::{Inbox, InboxConfig, InboxItem, Newest, Range, head, held_from, newest_topology};
pub use kafka::{Cluster, TopicSettings};
pub use link::{Detour, LinkConfig, LinkReport, LinkStatus, run_link};
pub use outbox::{Outbox, OutboxConfig};
pub use tail::{Begin, Tail};
