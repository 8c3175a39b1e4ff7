//! Causeway: multi-active replication for MySQL and MariaDB over Kafka.
//!
//! `docs/ARCHITECTURE.md` draws the map; `tests/architecture.rs` holds who may import
//! whom.

pub mod admin;
pub mod agent;
pub mod apply;
pub mod capture;
pub mod change;
pub mod cli;
pub mod clock;
pub mod command;
pub mod compare;
pub mod conf;
pub mod conflicts;
pub mod database;
pub mod doctor;
pub mod failpoint;
pub mod metrics;
mod mutant;
pub mod resolve;
pub mod ship;
#[cfg(test)]
mod sim;
pub mod status;
pub mod topology;
pub mod verify;
pub mod version;
pub mod yaml;
