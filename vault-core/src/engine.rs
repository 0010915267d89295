//! The engine trait: what every storage engine of Vault can do, and nothing more.
//!
//! It is object-safe and small. Engines add what only they can do (bulk ingest, checkpoints) as
//! methods of their own. An engine's handle is cheap to clone and every method takes `&self`, so one
//! engine serves any number of threads.
//!
//! # What every engine guarantees
//! - Keys are byte strings in bytewise order, from empty to 64 KiB.
//! - A batch takes effect as a whole: no reader ever sees a part of it.
//! - Writes take effect one after the other; each gets the next [`SequenceNumber`]s.
//! - A read through the engine sees every write that returned before it began. A snapshot sees those
//!   that returned before it was taken, and nothing later, for as long as it is held.
//! - An entry whose expiry has come reads as deleted, everywhere, snapshots included.
//! - After [`Engine::close`] every call answers [`Closed`](crate::Error::Closed).

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::batch::WriteBatch;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::options::{KeyspaceOptions, WriteOptions};
use crate::range::KeyRange;
use crate::scan::Scan;
use crate::slice::Slice;
use crate::stats::EngineStats;

/// The place of a write in the order of all writes to a store. Starts at 1; 56 bits.
pub type SequenceNumber = u64;

/// Names a keyspace within one store. Never reused, not even after the keyspace is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u32);

impl fmt::Display for KeyspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A keyspace as [`Engine::keyspaces`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyspaceInfo {
    /// Its id.
    pub id: KeyspaceId,
    /// Its name.
    pub name: String,
    /// The options in force.
    pub options: KeyspaceOptions,
}

/// What is known of an entry without reading its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryInfo {
    /// Length of its value, in bytes.
    pub value_bytes: u64,
    /// When it ceases to be visible.
    pub expiry: Option<Timestamp>,
}

/// Reading, through an engine or through one of its snapshots.
pub trait Reader: Send + Sync {
    /// Looks a key up.
    ///
    /// # Errors
    /// [`UnknownKeyspace`](crate::Error::UnknownKeyspace), [`KeyTooLong`](crate::Error::KeyTooLong),
    /// [`Corruption`](crate::Error::Corruption), [`Io`](crate::Error::Io),
    /// [`MergeFailed`](crate::Error::MergeFailed), [`Closed`](crate::Error::Closed).
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Slice>>;

    /// Looks a key up without reading its value, where that saves something: a value that is kept apart stays where it
    /// is. The entry is there exactly when [`Reader::get`] would give its value. What merge operands are folded into
    /// has no expiry.
    ///
    /// # Errors
    /// As [`Reader::get`].
    fn entry_info(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<EntryInfo>>;

    /// Looks several keys up, all at one moment. The answers stand in the order of `keys`.
    ///
    /// # Errors
    /// As [`Reader::get`]; one failing key fails the call.
    fn multi_get(&self, keyspace: KeyspaceId, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>>;

    /// Opens a cursor over a range, unpositioned. It sees one moment, and holds it until dropped.
    ///
    /// # Errors
    /// [`UnknownKeyspace`](crate::Error::UnknownKeyspace), [`Closed`](crate::Error::Closed).
    fn cursor(&self, keyspace: KeyspaceId, range: KeyRange) -> Result<Box<dyn Cursor>>;

    /// Iterates over a range, from either end. An empty or inverted range gives nothing.
    ///
    /// # Errors
    /// As [`Reader::cursor`].
    fn scan(&self, keyspace: KeyspaceId, range: KeyRange) -> Result<Scan> {
        self.cursor(keyspace, range).map(Scan::new)
    }

    /// Iterates over every key that begins with `prefix`, from either end.
    ///
    /// # Errors
    /// As [`Reader::cursor`].
    fn scan_prefix(&self, keyspace: KeyspaceId, prefix: &[u8]) -> Result<Scan> {
        self.scan(keyspace, KeyRange::prefix(prefix))
    }
}

/// A moment of the store, held for as long as this value lives. Owns what it needs: it can move to
/// another thread and outlive the handle it came from.
pub trait Snapshot: Reader + fmt::Debug {
    /// The last write that the snapshot sees.
    fn sequence(&self) -> SequenceNumber;
}

/// A position among the entries of a range, movable in both directions.
///
/// After each move, [`Cursor::entry`] gives the entry the cursor stands on, or `None` where the move
/// led out of the range: the cursor is then unpositioned until it is positioned anew. Moving an
/// unpositioned cursor leaves it unpositioned. After an error it is unpositioned too.
pub trait Cursor: Send {
    /// Moves to the first entry.
    ///
    /// # Errors
    /// [`Corruption`](crate::Error::Corruption), [`Io`](crate::Error::Io),
    /// [`MergeFailed`](crate::Error::MergeFailed), [`Closed`](crate::Error::Closed).
    fn first(&mut self) -> Result<()>;

    /// Moves to the last entry.
    ///
    /// # Errors
    /// As [`Cursor::first`].
    fn last(&mut self) -> Result<()>;

    /// Moves to the first entry at or behind `key`.
    ///
    /// # Errors
    /// As [`Cursor::first`].
    fn seek(&mut self, key: &[u8]) -> Result<()>;

    /// Moves to the last entry at or before `key`.
    ///
    /// # Errors
    /// As [`Cursor::first`].
    fn seek_back(&mut self, key: &[u8]) -> Result<()>;

    /// Moves to the next entry.
    ///
    /// # Errors
    /// As [`Cursor::first`].
    fn next(&mut self) -> Result<()>;

    /// Moves to the entry before.
    ///
    /// # Errors
    /// As [`Cursor::first`].
    fn prev(&mut self) -> Result<()>;

    /// The key and value the cursor stands on, borrowed until its next move.
    fn entry(&self) -> Option<(&[u8], &[u8])>;

    /// The value the cursor stands on, as a slice that may share its block. Empty where unpositioned.
    fn value(&self) -> Slice {
        self.entry()
            .map_or_else(Slice::empty, |(_, value)| Slice::from(value))
    }

    /// Opens a second, unpositioned cursor over the same range and the same moment.
    ///
    /// # Errors
    /// As [`Cursor::first`].
    fn fork(&self) -> Result<Box<dyn Cursor>>;
}

/// What became of a compare-and-set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CasOutcome {
    /// The value was as expected and has been replaced by the write with this number.
    Swapped(SequenceNumber),
    /// The value was another one; nothing was written.
    Mismatch(Option<Slice>),
}

/// How far a compaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionProgress {
    /// Bytes of input read so far.
    pub bytes_done: u64,
    /// Bytes of input in all, as far as it is known.
    pub bytes_total: u64,
    /// Tables written so far.
    pub tables_written: u64,
}

/// What a compaction that was asked for has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionOutcome {
    /// Bytes of tables read.
    pub bytes_read: u64,
    /// Bytes of tables written.
    pub bytes_written: u64,
    /// Entries that were no longer needed.
    pub entries_dropped: u64,
}

/// A transactional, ordered key-value store of named keyspaces. See the [module](self) for what every
/// engine guarantees.
pub trait Engine: Reader {
    /// Creates the keyspace, or opens it where it exists. An existing one takes over the options that
    /// may change.
    ///
    /// # Errors
    /// [`InvalidKeyspaceName`](crate::Error::InvalidKeyspaceName),
    /// [`InvalidSetting`](crate::Error::InvalidSetting),
    /// [`OptionsConflict`](crate::Error::OptionsConflict) where an option that cannot change differs,
    /// [`MissingMergeOperator`](crate::Error::MissingMergeOperator),
    /// [`ReadOnly`](crate::Error::ReadOnly), [`Closed`](crate::Error::Closed).
    fn create_keyspace(&self, name: &str, options: &KeyspaceOptions) -> Result<KeyspaceId>;

    /// Looks a keyspace up by name.
    ///
    /// # Errors
    /// [`Closed`](crate::Error::Closed).
    fn keyspace(&self, name: &str) -> Result<Option<KeyspaceId>>;

    /// Lists the keyspaces in the order of their ids.
    ///
    /// # Errors
    /// [`Closed`](crate::Error::Closed).
    fn keyspaces(&self) -> Result<Vec<KeyspaceInfo>>;

    /// Drops a keyspace with everything in it, and gives its space back at once. Snapshots and cursors
    /// that are open on it go on reading.
    ///
    /// In an encrypted store it is erased too: when this has succeeded, nothing in the directory tells of it that the
    /// passphrase could open. Not reached are copies and backups made before, and readers that are still open on it. After an
    /// error the keyspace may be gone all the same, and only not be erased: [`keyspace`](Engine::keyspace) tells, and the next
    /// drop or the next opening erases it.
    ///
    /// # Errors
    /// [`UnknownKeyspace`](crate::Error::UnknownKeyspace), [`ReadOnly`](crate::Error::ReadOnly),
    /// [`Closed`](crate::Error::Closed); in an encrypted store those of a flush.
    fn drop_keyspace(&self, keyspace: KeyspaceId) -> Result<()>;

    /// Applies a batch. Waits where the store is catching up. Gives the number of its last operation
    /// (of the latest write where the batch is empty).
    ///
    /// # Errors
    /// Before anything is written: [`UnknownKeyspace`](crate::Error::UnknownKeyspace),
    /// [`KeyTooLong`](crate::Error::KeyTooLong), [`ValueTooLong`](crate::Error::ValueTooLong),
    /// [`BatchTooLarge`](crate::Error::BatchTooLarge), [`InvertedRange`](crate::Error::InvertedRange),
    /// [`InvalidExpiry`](crate::Error::InvalidExpiry), [`NoMergeOperator`](crate::Error::NoMergeOperator),
    /// [`MergeFailed`](crate::Error::MergeFailed), [`ReadOnly`](crate::Error::ReadOnly),
    /// [`DiskFull`](crate::Error::DiskFull), [`Closed`](crate::Error::Closed).
    /// Afterwards, with the outcome unknown until the store is opened again:
    /// [`Poisoned`](crate::Error::Poisoned).
    fn write(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<SequenceNumber>;

    /// Applies a batch, or answers at once where [`Engine::write`] would wait for room.
    ///
    /// # Errors
    /// [`Busy`](crate::Error::Busy) with an estimate of when room is there, with nothing written; else
    /// as [`Engine::write`].
    fn try_write(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<SequenceNumber>;

    /// Sets a key.
    ///
    /// # Errors
    /// As [`Engine::write`].
    fn put(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        value: &[u8],
        options: &WriteOptions,
    ) -> Result<SequenceNumber> {
        let mut batch = WriteBatch::with_capacity(key.len() + value.len() + 16);
        batch.put(keyspace, key, value);
        self.write(&batch, options)
    }

    /// Removes a key, whether or not it is there.
    ///
    /// # Errors
    /// As [`Engine::write`].
    fn delete(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        options: &WriteOptions,
    ) -> Result<SequenceNumber> {
        let mut batch = WriteBatch::with_capacity(key.len() + 16);
        batch.delete(keyspace, key);
        self.write(&batch, options)
    }

    /// Replaces the value of `key` with `new` if it is `expected`; `None` stands for absent on both
    /// sides. No other write comes between the comparison and the change.
    ///
    /// # Errors
    /// As [`Reader::get`] and [`Engine::write`].
    fn compare_and_set(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        options: &WriteOptions,
    ) -> Result<CasOutcome>;

    /// Holds this moment for reading.
    ///
    /// # Errors
    /// [`Closed`](crate::Error::Closed).
    fn snapshot(&self) -> Result<Arc<dyn Snapshot>>;

    /// The last write that reads now see.
    fn latest_sequence(&self) -> SequenceNumber;

    /// The wall-clock time that this engine goes by, for computing expiries.
    fn now(&self) -> Timestamp;

    /// Puts everything acknowledged so far on stable storage.
    ///
    /// # Errors
    /// [`Poisoned`](crate::Error::Poisoned), [`Closed`](crate::Error::Closed).
    fn sync(&self) -> Result<()>;

    /// Moves what is in memory to tables (all keyspaces, or one), and waits for it.
    ///
    /// # Errors
    /// [`DiskFull`](crate::Error::DiskFull), [`Io`](crate::Error::Io),
    /// [`UnknownKeyspace`](crate::Error::UnknownKeyspace), [`Closed`](crate::Error::Closed).
    fn flush(&self, keyspace: Option<KeyspaceId>) -> Result<()>;

    /// Rewrites a range of a keyspace into its most compact form, and waits for it. `progress` is
    /// called from time to time and can stop the work by returning [`ControlFlow::Break`]; what was
    /// done until then stands. Callers that compact the same keyspace may have to take turns: `progress` must not do so.
    ///
    /// # Errors
    /// [`Busy`](crate::Error::Busy) where `progress` compacts the same keyspace,
    /// [`Cancelled`](crate::Error::Cancelled), [`InvertedRange`](crate::Error::InvertedRange), else as
    /// [`Engine::flush`].
    fn compact(
        &self,
        keyspace: KeyspaceId,
        range: KeyRange,
        progress: &mut dyn FnMut(CompactionProgress) -> ControlFlow<()>,
    ) -> Result<CompactionOutcome>;

    /// Counts, sizes and latencies since the engine was opened.
    ///
    /// # Errors
    /// [`Closed`](crate::Error::Closed).
    fn stats(&self) -> Result<EngineStats>;

    /// Ends all work and lets go of the store. Gives the error that dropping the engine would hide.
    /// Closing a closed engine does nothing.
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io), [`DiskFull`](crate::Error::DiskFull),
    /// [`Poisoned`](crate::Error::Poisoned).
    fn close(&self) -> Result<()>;
}
