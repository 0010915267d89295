//! An engine in memory.
/// An engine in memory.
#[derive(Debug)]
pub struct MemoryEngine;
