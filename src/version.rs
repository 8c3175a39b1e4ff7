//! Row versions.
