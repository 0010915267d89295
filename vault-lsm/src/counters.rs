//! What the engine counts while it runs.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use vault_core::Clock;
use vault_core::stats::{Histogram, OperationStats};

/// The kinds of operations that are counted and timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    MultiGet,
    Write,
    CompareAndSet,
    Cursor,
    Sync,
    Flush,
    Compact,
}

impl Operation {
    /// Whether timing every single one would cost more than it is worth.
    const fn is_frequent(self) -> bool {
        matches!(self, Self::Get | Self::Write | Self::Cursor)
    }
}

const OPERATIONS: [(Operation, &str); 8] = [
    (Operation::Get, "get"),
    (Operation::MultiGet, "multi_get"),
    (Operation::Write, "write"),
    (Operation::CompareAndSet, "compare_and_set"),
    (Operation::Cursor, "cursor"),
    (Operation::Sync, "sync"),
    (Operation::Flush, "flush"),
    (Operation::Compact, "compact"),
];

/// Copies of each count, so that threads don't share cache lines.
const SHARDS: usize = 8;

/// Counts and latencies. Every count is relaxed: they are for people, not for decisions.
pub(crate) struct Counters {
    sample_every: u32,
    counts: Box<[CachePadded<[AtomicU64; OPERATIONS.len()]>]>,
    latencies: [Histogram; OPERATIONS.len()],
    pub(crate) user_bytes: AtomicU64,
    pub(crate) log_bytes: AtomicU64,
    pub(crate) flush_bytes: AtomicU64,
    pub(crate) compaction_bytes: AtomicU64,
    pub(crate) ingest_bytes: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) tables_moved: AtomicU64,
    pub(crate) tables_dropped: AtomicU64,
    pub(crate) obsolete_removed: AtomicU64,
    pub(crate) tombstones_removed: AtomicU64,
    pub(crate) expired_removed: AtomicU64,
    pub(crate) collections: AtomicU64,
    pub(crate) blobs_removed: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) delayed: AtomicU64,
    pub(crate) delayed_ns: AtomicU64,
    pub(crate) stopped: AtomicU64,
    pub(crate) stopped_ns: AtomicU64,
    pub(crate) longest_wait_ns: AtomicU64,
    pub(crate) cursors_open: AtomicU64,
    last_flush_ns: AtomicU64,
}

/// A timing that was begun, for one in so many operations.
#[must_use]
pub(crate) struct Timing(Option<Duration>);

impl Counters {
    pub(crate) fn new(sample_every: u32) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            sample_every,
            counts: (0..SHARDS).map(|_| CachePadded::default()).collect(),
            latencies: std::array::from_fn(|_| Histogram::new()),
            user_bytes: zero(),
            log_bytes: zero(),
            flush_bytes: zero(),
            compaction_bytes: zero(),
            ingest_bytes: zero(),
            flushes: zero(),
            compactions: zero(),
            tables_moved: zero(),
            tables_dropped: zero(),
            obsolete_removed: zero(),
            tombstones_removed: zero(),
            expired_removed: zero(),
            collections: zero(),
            blobs_removed: zero(),
            failures: zero(),
            delayed: zero(),
            delayed_ns: zero(),
            stopped: zero(),
            stopped_ns: zero(),
            longest_wait_ns: zero(),
            cursors_open: zero(),
            last_flush_ns: zero(),
        }
    }

    /// Counts an operation and begins its timing, if this one is timed: rare operations always
    /// are, frequent ones once in so many.
    #[inline]
    pub(crate) fn begin(&self, operation: Operation, clock: &dyn Clock) -> Timing {
        thread_local! {
            /// Which copy of the counts this thread uses, and operations since the last timed one.
            static THREAD: (usize, Cell<u32>) = {
                static NEXT: AtomicU64 = AtomicU64::new(0);
                (NEXT.fetch_add(1, Relaxed) as usize % SHARDS, const { Cell::new(0) })
            };
        }
        let timed = THREAD.with(|(shard, since)| {
            self.counts[*shard][operation as usize].fetch_add(1, Relaxed);
            if !operation.is_frequent() {
                return true;
            }
            let n = since.get() + 1;
            let timed = n >= self.sample_every;
            since.set(if timed { 0 } else { n });
            timed
        });
        Timing(timed.then(|| clock.monotonic()))
    }

    /// Ends a timing.
    #[inline]
    pub(crate) fn end(&self, operation: Operation, timing: &Timing, clock: &dyn Clock) {
        if let Some(began) = timing.0 {
            self.latencies[operation as usize].record(clock.monotonic().saturating_sub(began));
        }
    }

    /// Sums up each operation.
    pub(crate) fn operations(&self) -> Vec<OperationStats> {
        OPERATIONS
            .iter()
            .map(|&(operation, name)| OperationStats {
                name,
                count: self
                    .counts
                    .iter()
                    .map(|c| c[operation as usize].load(Relaxed))
                    .sum(),
                latency: self.latencies[operation as usize].summary(),
            })
            .collect()
    }

    /// Notes how long a flush took.
    pub(crate) fn flushed_in(&self, elapsed: Duration) {
        self.last_flush_ns.store(
            u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
            Relaxed,
        );
    }

    /// About how long until a memtable has been flushed: as long as the last one took, or a guess.
    pub(crate) fn flush_estimate(&self) -> Duration {
        const GUESS: Duration = Duration::from_millis(100);
        match self.last_flush_ns.load(Relaxed) {
            0 => GUESS,
            ns => Duration::from_nanos(ns),
        }
    }

    /// Notes that a writer waited.
    pub(crate) fn waited(&self, stopped: bool, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (count, total) = if stopped {
            (&self.stopped, &self.stopped_ns)
        } else {
            (&self.delayed, &self.delayed_ns)
        };
        count.fetch_add(1, Relaxed);
        total.fetch_add(ns, Relaxed);
        self.longest_wait_ns.fetch_max(ns, Relaxed);
    }
}
