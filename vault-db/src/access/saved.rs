//! What is noted of a vault's accesses, as the catalog keeps it.

use serde::{Deserialize, Serialize};

use super::hours::Hours;
use super::sketch::Sketch;

/// What is noted of a vault's accesses, as the catalog keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Saved {
    /// Reads, writes, deletes and scans.
    pub(crate) counts: [u64; 4],
    /// When the last sampled one was, in milliseconds since 1970; 0: never.
    pub(crate) last: u64,
    pub(crate) hours: Hours,
    pub(crate) keys: Sketch,
}
