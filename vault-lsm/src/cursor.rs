//! The cursor that memtables, tables, levels and merges of them all offer inside the engine.

use vault_core::{Result, SequenceNumber, Slice};

/// A position among the entries (all versions) of one source, in internal key order.
///
/// `key`, `trailer` and `value` may be called only while `valid`; moves off an end make the cursor
/// invalid, and moving an invalid one (other than by `first`, `last` and the seeks) leaves it so.
pub(crate) trait InternalCursor {
    /// Whether the cursor stands on an entry.
    fn valid(&self) -> bool;
    /// Moves to the first entry.
    fn first(&mut self) -> Result<()>;
    /// Moves to the last entry.
    fn last(&mut self) -> Result<()>;
    /// Moves to the first entry at or behind `(key, trailer)` in internal key order.
    fn seek(&mut self, key: &[u8], trailer: u64) -> Result<()>;
    /// Moves to the last entry at or before `(key, trailer)` in internal key order.
    fn seek_back(&mut self, key: &[u8], trailer: u64) -> Result<()>;
    /// Moves to the next entry.
    fn next(&mut self) -> Result<()>;
    /// Moves to the entry before.
    fn prev(&mut self) -> Result<()>;
    /// The user key.
    fn key(&self) -> &[u8];
    /// The trailer.
    fn trailer(&self) -> u64;
    /// The stored value: with its expiry in front where the trailer says so.
    fn value(&self) -> &[u8];
    /// The stored value as a slice that may share its block.
    fn value_slice(&self) -> Slice;
    /// Moves forward to `end` over entries that are all known to have sequence numbers of at most `sequence`; less far where that
    /// is not known of all, and not at all where it is of none. Says whether it moved.
    fn pass_forward(&mut self, _sequence: SequenceNumber, _end: &[u8]) -> Result<bool> {
        Ok(false)
    }
    /// As [`pass_forward`](Self::pass_forward), backward to the last entry before `start`.
    fn pass_backward(&mut self, _sequence: SequenceNumber, _start: &[u8]) -> Result<bool> {
        Ok(false)
    }
    /// Lets go of what only the value needs, because memory is tight. Until [`unpark`](Self::unpark), or
    /// a move, only `valid`, `key` and `trailer` may be called.
    fn park(&mut self) {}
    /// Brings back what was let go of.
    fn unpark(&mut self) -> Result<()> {
        Ok(())
    }
    /// Lets go of everything that was read: the cursor is not valid until it is positioned anew.
    fn forget(&mut self) {}
}
