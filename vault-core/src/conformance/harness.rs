//! What the suite needs to know about an engine, and the fixture that each case works with.

use std::fmt;
use std::ops::{ControlFlow, Deref};
use std::sync::Arc;
use std::time::Duration;

use crate::batch::WriteBatch;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::engine::{Engine, KeyspaceId, Reader, SequenceNumber};
use crate::error::Result;
use crate::limits::Limits;
use crate::merge::MergeOperator;
use crate::options::{CompactionPolicy, KeyspaceOptions, WriteOptions};
use crate::range::KeyRange;
use crate::slice::Slice;

/// The wall-clock time at which each case begins.
pub const START: Timestamp = Timestamp(1_700_000_000_000);

/// What an engine is to be opened with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where the engine takes time from.
    pub clock: Arc<dyn Clock>,
    /// The merge operators that the engine is to know besides the built-in ones.
    pub merge_operators: Vec<Arc<dyn MergeOperator>>,
    /// The limits that the engine is to hold its callers to.
    pub limits: Limits,
}

/// Opens engines for the suite. See the [module](super) for an example.
pub trait Harness: Sync {
    /// One store: an open engine, and what it takes to open it again.
    type Store: Send + Sync;

    /// Opens a new, empty store.
    fn open(&self, setup: &Setup) -> Self::Store;

    /// Hands out a handle of the store's engine.
    fn engine(&self, store: &Self::Store) -> Arc<dyn Engine>;

    /// Closes the engine (where it is not closed yet) and opens the same store again. `None` where
    /// the engine keeps nothing beyond its own life. After an error the store must be fit for another
    /// `reopen`.
    fn reopen(&self, _store: &mut Self::Store, _setup: &Setup) -> Option<Result<()>> {
        None
    }

    /// Called between the steps of many cases: an engine that moves data through stages (flushes,
    /// compactions) moves it here.
    fn settle(&self, _store: &Self::Store) {}

    /// The options that cases create keyspaces with: small buffers and tables, so that little data
    /// passes through every stage.
    fn options(&self) -> KeyspaceOptions {
        KeyspaceOptions {
            block_bytes: 512,
            write_buffer_bytes: 16 << 10,
            table_bytes: 16 << 10,
            ..KeyspaceOptions::default()
        }
    }

    /// The compaction policies that random histories choose from. None may drop what is visible.
    fn policies(&self) -> Vec<CompactionPolicy> {
        let leveled = CompactionPolicy::Leveled {
            level0_runs: 2,
            base_bytes: 32 << 10,
            fanout: 4,
        };
        let tiered = CompactionPolicy::Tiered {
            runs_min: 2,
            runs_max: 6,
            size_ratio_percent: 150,
        };
        let fifo = CompactionPolicy::Fifo {
            bytes_max: u64::MAX,
        };
        vec![leveled, tiered, fifo]
    }
}

/// A store under test, with the clock that it goes by.
pub(super) struct Fixture<'h, H: Harness> {
    pub(super) harness: &'h H,
    pub(super) clock: Arc<ManualClock>,
    pub(super) setup: Setup,
    pub(super) store: H::Store,
    engine: Arc<dyn Engine>,
}

impl<'h, H: Harness> Fixture<'h, H> {
    pub(super) fn new(harness: &'h H) -> Self {
        Self::with(harness, Vec::new(), Limits::default())
    }

    pub(super) fn with(
        harness: &'h H,
        merge_operators: Vec<Arc<dyn MergeOperator>>,
        limits: Limits,
    ) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let setup = Setup {
            clock: Arc::<ManualClock>::clone(&clock),
            merge_operators,
            limits,
        };
        let store = harness.open(&setup);
        let engine = harness.engine(&store);
        Self {
            harness,
            clock,
            setup,
            store,
            engine,
        }
    }

    /// Opens the store again; false where the engine does not persist.
    pub(super) fn reopen(&mut self) -> bool {
        match self.try_reopen() {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => panic!("the store does not open again: {error}"),
        }
    }

    pub(super) fn try_reopen(&mut self) -> Option<Result<()>> {
        let outcome = self.harness.reopen(&mut self.store, &self.setup)?;
        if outcome.is_ok() {
            self.engine = self.harness.engine(&self.store);
        }
        Some(outcome)
    }

    pub(super) fn settle(&self) {
        self.harness.settle(&self.store);
    }

    /// Moves wall-clock and monotonic time on.
    pub(super) fn advance_ms(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    /// Creates a keyspace without a merge operator.
    pub(super) fn plain(&self, name: &str) -> KeyspaceId {
        self.create(name, &self.harness.options())
    }

    /// Creates a keyspace with a merge operator.
    pub(super) fn merging(&self, name: &str, operator: &str) -> KeyspaceId {
        self.create(name, &self.harness.options().merge(operator))
    }

    pub(super) fn create(&self, name: &str, options: &KeyspaceOptions) -> KeyspaceId {
        self.create_keyspace(name, options)
            .unwrap_or_else(|error| panic!("cannot create keyspace {name:?}: {error}"))
    }

    pub(super) fn set(&self, keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> SequenceNumber {
        self.put(keyspace, key, value, &WriteOptions::default())
            .unwrap_or_else(|error| panic!("cannot put: {error}"))
    }

    pub(super) fn remove(&self, keyspace: KeyspaceId, key: &[u8]) -> SequenceNumber {
        self.delete(keyspace, key, &WriteOptions::default())
            .unwrap_or_else(|error| panic!("cannot delete: {error}"))
    }

    /// Writes what `fill` puts into a batch.
    pub(super) fn batch(&self, fill: impl FnOnce(&mut WriteBatch)) -> SequenceNumber {
        self.try_batch(fill)
            .unwrap_or_else(|error| panic!("cannot write: {error}"))
    }

    pub(super) fn try_batch(&self, fill: impl FnOnce(&mut WriteBatch)) -> Result<SequenceNumber> {
        let mut batch = WriteBatch::new();
        fill(&mut batch);
        self.write(&batch, &WriteOptions::default())
    }

    /// Compacts a whole keyspace.
    pub(super) fn compact_all(&self, keyspace: KeyspaceId) {
        self.compact(
            keyspace,
            KeyRange::all(),
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap_or_else(|error| panic!("cannot compact: {error}"));
    }
}

impl<H: Harness> Deref for Fixture<'_, H> {
    type Target = dyn Engine;

    fn deref(&self) -> &Self::Target {
        &*self.engine
    }
}

impl<H: Harness> fmt::Debug for Fixture<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").finish_non_exhaustive()
    }
}

/// An entry as cases compare it.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// Reads a key, owned.
pub(super) fn got<R: Reader + ?Sized>(
    reader: &R,
    keyspace: KeyspaceId,
    key: &[u8],
) -> Option<Vec<u8>> {
    reader
        .get(keyspace, key)
        .unwrap_or_else(|error| panic!("cannot get {}: {error}", key.escape_ascii()))
        .map(|value| value.to_vec())
}

/// Reads a range forwards.
pub(super) fn forward<R: Reader + ?Sized>(
    reader: &R,
    keyspace: KeyspaceId,
    range: KeyRange,
) -> Vec<Entry> {
    let scan = reader.scan(keyspace, range);
    owned(scan.unwrap_or_else(|error| panic!("cannot scan: {error}")))
}

/// Reads a range backwards; gives what it read in the order in which it came.
pub(super) fn backward<R: Reader + ?Sized>(
    reader: &R,
    keyspace: KeyspaceId,
    range: KeyRange,
) -> Vec<Entry> {
    let scan = reader.scan(keyspace, range);
    owned(
        scan.unwrap_or_else(|error| panic!("cannot scan: {error}"))
            .rev(),
    )
}

/// Collects the entries of a scan.
pub(super) fn owned(scan: impl Iterator<Item = Result<(Slice, Slice)>>) -> Vec<Entry> {
    scan.map(|entry| {
        let (key, value) = entry.unwrap_or_else(|error| panic!("a scan failed: {error}"));
        (key.to_vec(), value.to_vec())
    })
    .collect()
}

/// The keys of a keyspace, in order.
pub(super) fn keys<R: Reader + ?Sized>(reader: &R, keyspace: KeyspaceId) -> Vec<Vec<u8>> {
    let all = forward(reader, keyspace, KeyRange::all());
    all.into_iter().map(|(key, _)| key).collect()
}

/// Asserts that a result is an error of the given form.
macro_rules! assert_refused {
    ($result:expr, $pattern:pat) => {
        match $result {
            Err($pattern) => {}
            other => panic!(
                "expected {}, found {:?}",
                stringify!($pattern),
                other.map(|_| "success")
            ),
        }
    };
}
pub(super) use assert_refused;
