//! Conflict resolution: pure decisions.
