//! What `memory.rs` measures: the long run, phase by phase, and stories that would take too much memory.

pub(crate) mod load;
pub(crate) mod meter;
pub(crate) mod phases;
pub(crate) mod stories;
