//! What an engine tells while it works.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::KeyspaceId;
use crate::error::Error;

/// Hears of what an engine does in the background. Called on the engine's own threads: return
/// quickly, and do not call back into the engine. One that panics is called again for the next event all the
/// same; [`EngineStats::listener_panics`](crate::stats::EngineStats::listener_panics) counts how often it did.
pub trait EventListener: Send + Sync {
    /// Something happened.
    fn on_event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> EventListener for F {
    fn on_event(&self, event: &Event) {
        self(event);
    }
}

/// Something an engine did or noticed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A store was opened and its log replayed.
    Recovered {
        /// Segments of the log that were read.
        log_segments: u64,
        /// Writes that were found in them.
        batches: u64,
        /// Bytes behind the last whole write, cut off.
        torn_bytes: u64,
        /// How long opening took.
        elapsed: Duration,
    },
    /// A keyspace came into being.
    KeyspaceCreated {
        /// Its id.
        id: KeyspaceId,
        /// Its name.
        name: String,
    },
    /// A keyspace was dropped.
    KeyspaceDropped {
        /// Its id.
        id: KeyspaceId,
        /// Its name.
        name: String,
        /// Bytes of tables that this gave back.
        bytes: u64,
    },
    /// A memtable is now a table.
    Flushed {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// Entries in the memtable.
        entries: u64,
        /// Bytes of the table (0 where nothing needed to be kept).
        bytes: u64,
        /// How long it took.
        elapsed: Duration,
    },
    /// Tables were merged.
    Compacted {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// Level that received the output.
        output_level: usize,
        /// Tables read.
        tables_read: usize,
        /// Tables written.
        tables_written: usize,
        /// Bytes read.
        bytes_read: u64,
        /// Bytes written.
        bytes_written: u64,
        /// How long it took.
        elapsed: Duration,
        /// Why it was done, in the policy's words.
        reason: &'static str,
    },
    /// Tables went whole: everything in them had expired, or the keyspace was over its size.
    TablesDropped {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// How many.
        tables: usize,
        /// Their bytes.
        bytes: u64,
        /// Why, in the policy's words.
        reason: &'static str,
    },
    /// Sorted data was taken in.
    Ingested {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// Entries.
        entries: u64,
        /// Bytes of tables written.
        bytes: u64,
    },
    /// A checkpoint was made.
    Checkpointed {
        /// Where.
        path: PathBuf,
        /// Bytes of tables it shares with the store.
        bytes_shared: u64,
    },
    /// Writers are being slowed down (once for each time it begins).
    WritesDelayed {
        /// The keyspace that is behind.
        keyspace: KeyspaceId,
        /// Bytes a second that writers are held to.
        bytes_per_second: u64,
        /// What they wait for.
        reason: &'static str,
    },
    /// Writers stand still until a flush or compaction ends.
    WritesStopped {
        /// The keyspace that is behind.
        keyspace: KeyspaceId,
        /// What they wait for.
        reason: &'static str,
    },
    /// A background job failed and will be tried again.
    BackgroundFailed {
        /// What was being done.
        job: &'static str,
        /// How it failed.
        error: Error,
    },
    /// The engine went read-only.
    Poisoned {
        /// Why.
        error: Error,
    },
    /// The keys were wiped from memory.
    Locked {
        /// Whether because nothing was asked for long enough.
        idle: bool,
    },
    /// A new epoch has begun: what is written from now on is sealed under fresh keys, and the rest follows.
    KeysRotated {
        /// Its number.
        epoch: u32,
    },
    /// The keys of epochs that nothing is sealed under any more were destroyed.
    EpochsRetired {
        /// How many.
        epochs: u32,
        /// The oldest of those that are left.
        oldest: u32,
    },
    /// The keys are there again, and so are operations.
    Resumed,
    /// Something in the store's directory is none of the store's own files: it has another name, is no file,
    /// or was written by somebody else. It is left alone. Told on opening.
    ForeignFile {
        /// What it is called.
        path: PathBuf,
    },
}
