//! Counts, sizes and latencies.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

use crate::engine::KeyspaceId;

/// Buckets a power of two is divided into: values are off by at most 1 part in 16.
const SUB_BUCKETS: usize = 16;
const SUB_BUCKET_BITS: u32 = SUB_BUCKETS.trailing_zeros();
const BUCKETS: usize = SUB_BUCKETS * (64 - SUB_BUCKET_BITS as usize + 1);

/// A histogram of durations that any number of threads record into without a lock.
///
/// Buckets grow logarithmically, each power of two in 16 steps, after Gil Tene's `HdrHistogram`:
/// what it reports is at most 6.25 % above what was recorded.
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }

    /// Records one duration.
    #[inline]
    pub fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(ns)].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
        if ns > self.max_ns.load(Relaxed) {
            self.max_ns.fetch_max(ns, Relaxed);
        }
    }

    /// How many durations lie within each of some ascending bounds, and not within the one before; then how many lie beyond
    /// all of them. And the sum of all. A duration within a sixteenth of a bound may be counted on its other side.
    #[must_use]
    pub fn counts_within(&self, bounds: &[Duration]) -> (Vec<u64>, Duration) {
        let mut counts = vec![0; bounds.len() + 1];
        for (bucket, count) in self.buckets.iter().enumerate() {
            let top = Duration::from_nanos(bucket_top(bucket));
            counts[bounds.partition_point(|bound| *bound < top)] += count.load(Relaxed);
        }
        (counts, Duration::from_nanos(self.sum_ns.load(Relaxed)))
    }

    /// Sums up what was recorded.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Relaxed))
            .collect();
        let count: u64 = counts.iter().sum();
        let max_ns = self.max_ns.load(Relaxed);
        let percentile = |per_mille_tenths: u64| {
            let rank = (count * per_mille_tenths).div_ceil(10_000).max(1);
            let mut seen = 0;
            for (i, &n) in counts.iter().enumerate() {
                seen += n;
                if seen >= rank {
                    return Duration::from_nanos(bucket_top(i).min(max_ns));
                }
            }
            Duration::ZERO
        };
        LatencySummary {
            count,
            mean: Duration::from_nanos(self.sum_ns.load(Relaxed).checked_div(count).unwrap_or(0)),
            p50: percentile(5_000),
            p90: percentile(9_000),
            p99: percentile(9_900),
            p999: percentile(9_990),
            max: Duration::from_nanos(max_ns),
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary().fmt(f)
    }
}

const fn bucket_of(ns: u64) -> usize {
    if ns < SUB_BUCKETS as u64 {
        return ns as usize;
    }
    let exponent = 63 - ns.leading_zeros() - SUB_BUCKET_BITS;
    let step = (ns >> exponent) as usize - SUB_BUCKETS;
    SUB_BUCKETS * (exponent as usize + 1) + step
}

const fn bucket_top(bucket: usize) -> u64 {
    if bucket < SUB_BUCKETS {
        return bucket as u64;
    }
    let exponent = bucket / SUB_BUCKETS - 1;
    let step = (bucket % SUB_BUCKETS + SUB_BUCKETS) as u64;
    (step << exponent) | ((1 << exponent) - 1)
}

/// What a [`Histogram`] recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LatencySummary {
    /// How many durations were recorded.
    pub count: u64,
    /// Their mean.
    pub mean: Duration,
    /// Half of them took at most this long.
    pub p50: Duration,
    /// 90 % of them took at most this long.
    pub p90: Duration,
    /// 99 % of them took at most this long.
    pub p99: Duration,
    /// 99.9 % of them took at most this long.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

/// Everything an engine counts. Counts run from the moment the engine was opened; sizes are of now.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct EngineStats {
    /// Each kind of operation.
    pub operations: Vec<OperationStats>,
    /// Each keyspace.
    pub keyspaces: Vec<KeyspaceStats>,
    /// The write-ahead log.
    pub log: LogStats,
    /// The cache of decoded blocks.
    pub cache: CacheStats,
    /// Memory held, by what for.
    pub memory: MemoryStats,
    /// Bytes written, by what for.
    pub written: WrittenStats,
    /// Flushes, compactions and what they removed.
    pub background: BackgroundStats,
    /// How writers were held up.
    pub backpressure: BackpressureStats,
    /// The last write that reads see.
    pub latest_sequence: u64,
    /// Snapshots (and cursors) that are open.
    pub snapshots_open: u64,
    /// Under which keys files are sealed, where there are keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_rotation: Option<KeyRotation>,
    /// How often the event listener has panicked. The engine goes on without it, each time.
    pub listener_panics: u64,
}

/// Under which keys the files of a store are sealed. A rotation is finished when the oldest epoch in use is the current
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct KeyRotation {
    /// The epoch whose keys seal new files.
    pub epoch: u32,
    /// The oldest epoch whose keys something needs.
    pub oldest_epoch_in_use: u32,
    /// Tables that are sealed under older keys than the current ones, or that point to values in files that are.
    pub tables_left: u64,
    /// Their bytes, with those of the values that they point to.
    pub bytes_left: u64,
    /// All tables.
    pub tables_total: u64,
    /// Their bytes, with those of the values that they point to.
    pub bytes_total: u64,
    /// Tables under older keys that have been replaced, and that exist only for snapshots and cursors that still read them:
    /// their keys are destroyed when these are gone.
    pub held_by_snapshots: u64,
}

/// One kind of operation.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OperationStats {
    /// Its name: `get`, `write`, `seek`, …
    pub name: &'static str,
    /// How often it was called (not sampled).
    pub count: u64,
    /// How long the timed ones took.
    pub latency: LatencySummary,
}

/// One keyspace.
#[derive(Debug, Clone, Serialize)]
pub struct KeyspaceStats {
    /// Its id.
    #[serde(skip)]
    pub id: KeyspaceId,
    /// Its name.
    pub name: String,
    /// Bytes in the memtable that takes writes.
    pub memtable_bytes: u64,
    /// Memtables waiting to be flushed.
    pub memtables_waiting: u64,
    /// Its levels, top first.
    pub levels: Vec<LevelStats>,
    /// Its large values, kept apart.
    pub blobs: BlobStats,
}

/// The files in which a keyspace keeps its large values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlobStats {
    /// Files.
    pub files: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Values in them that tables point to.
    pub values: u64,
    /// Bytes of values that no table points to any more, and that are not freed yet.
    pub garbage_bytes: u64,
}

/// One level of a keyspace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LevelStats {
    /// Sorted runs.
    pub runs: usize,
    /// Tables.
    pub tables: usize,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Their entries, tombstones included.
    pub entries: u64,
    /// Tombstones among them.
    pub tombstones: u64,
}

/// The write-ahead log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogStats {
    /// Segments on disk.
    pub segments: u64,
    /// Their bytes, preallocated ones included.
    pub bytes: u64,
    /// Calls that put the log on stable storage.
    pub syncs: u64,
    /// Writes that those calls made durable.
    pub writes_synced: u64,
}

/// The cache of decoded blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheStats {
    /// Lookups that found their block.
    pub hits: u64,
    /// Lookups that had to read it.
    pub misses: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes it may hold.
    pub capacity_bytes: u64,
}

/// Memory held, in bytes, by what for. The parts and the budget count heap memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// What all of the below may add up to; 0 where the engine has no budget.
    pub budget: u64,
    /// Memtables: those that take writes, those that wait or are being flushed, and those that a reader
    /// still holds.
    pub memtables: u64,
    /// Decoded blocks.
    pub cache: u64,
    /// What open tables keep: filters, indexes, and what is known of each.
    pub table_metadata: u64,
    /// What open cursors hold and have read ahead.
    pub cursors: u64,
    /// Flushes, compactions and ingests that are running.
    pub background: u64,
    /// The most that all of these ever were at once.
    pub peak: u64,
    /// Mapped pages of log segments: backed by files, and so not part of the budget.
    pub log_mapped: u64,
}

/// Bytes handed to the file system, by what for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WrittenStats {
    /// Keys and values as the callers gave them.
    pub user_bytes: u64,
    /// To the write-ahead log.
    pub log_bytes: u64,
    /// By flushes.
    pub flush_bytes: u64,
    /// By compactions.
    pub compaction_bytes: u64,
    /// By ingests.
    pub ingest_bytes: u64,
    /// To manifests.
    pub manifest_bytes: u64,
}

impl WrittenStats {
    /// Bytes written for each byte that callers gave: the write amplification. 0 where none were given.
    #[must_use]
    pub fn amplification(&self) -> f64 {
        let all = self.log_bytes + self.flush_bytes + self.compaction_bytes + self.manifest_bytes;
        if self.user_bytes == 0 {
            0.0
        } else {
            all as f64 / self.user_bytes as f64
        }
    }
}

/// Flushes, compactions and what they removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BackgroundStats {
    /// Memtables flushed.
    pub flushes: u64,
    /// Compactions that merged tables.
    pub compactions: u64,
    /// Tables moved down a level without rewriting.
    pub tables_moved: u64,
    /// Tables dropped whole.
    pub tables_dropped: u64,
    /// Versions removed because newer ones stand above them.
    pub obsolete_removed: u64,
    /// Tombstones removed because nothing is left under them.
    pub tombstones_removed: u64,
    /// Entries removed because their expiry had come.
    pub expired_removed: u64,
    /// Tables rewritten because the blob files that they pointed into held too much garbage.
    pub collections: u64,
    /// Blob files removed because no table pointed into them any more.
    pub blobs_removed: u64,
    /// Jobs that failed and were tried again.
    pub failures: u64,
}

/// How writers were held up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BackpressureStats {
    /// Writes that were slowed down.
    pub delayed: u64,
    /// Time they waited in all.
    pub delayed_for: Duration,
    /// Writes that had to stand still.
    pub stopped: u64,
    /// Time they waited in all.
    pub stopped_for: Duration,
    /// Longest single wait.
    pub longest: Duration,
}

/// Where the bytes of a store go, and who holds those that could be freed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SpaceReport {
    /// Bytes of all files of the store.
    pub total_bytes: u64,
    /// Bytes of tables that hold what reads see now. Estimated from each table's counts.
    pub live_bytes: u64,
    /// Bytes of overwritten or deleted entries that the next compactions free.
    pub obsolete_bytes: u64,
    /// Bytes of entries whose expiry has come.
    pub expired_bytes: u64,
    /// Bytes of files that exist only because something reads them.
    pub pinned: Vec<PinnedSpace>,
    /// Bytes of the write-ahead log, and which keyspace keeps the oldest segment.
    pub log: LogSpace,
    /// Bytes of manifests, pointers and other small files.
    pub metadata_bytes: u64,
    /// Each keyspace's share.
    pub keyspaces: Vec<KeyspaceSpace>,
}

/// One keyspace's share of the space.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KeyspaceSpace {
    /// Its name.
    pub name: String,
    /// Bytes of its tables.
    pub table_bytes: u64,
    /// Bytes of the files in which it keeps large values.
    pub blob_bytes: u64,
    /// Of these, what reads see now (estimate).
    pub live_bytes: u64,
    /// Of these, overwritten or deleted (estimate).
    pub obsolete_bytes: u64,
    /// Of these, expired (estimate).
    pub expired_bytes: u64,
}

/// Space that an open snapshot or cursor keeps from being freed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PinnedSpace {
    /// Who: `snapshot at sequence 17, open for 3.2 s`.
    pub holder: String,
    /// The sequence number it reads at.
    pub sequence: u64,
    /// Bytes that it holds, and that no older snapshot does (estimate). Over all holders they add up to what is pinned.
    pub bytes: u64,
    /// Bytes that nobody else holds: what releasing this one alone would free (estimate).
    pub alone_bytes: u64,
    /// For how long it has been open, in milliseconds; 0 where that is not known.
    pub open_ms: u64,
}

/// Space of the write-ahead log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogSpace {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// The oldest segment still needed.
    pub oldest_segment: u64,
    /// The keyspace whose unflushed writes need it.
    pub pinned_by: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_every_duration_in_order() {
        let mut last = 0;
        for shift in 0..64 {
            for ns in [
                (1_u64 << shift) - 1,
                1 << shift,
                (1 << shift) | (1_u64 << shift >> 1),
            ] {
                let bucket = bucket_of(ns);
                assert!(bucket < BUCKETS);
                assert!(bucket_top(bucket) >= ns, "{ns}");
                assert!(
                    bucket_top(bucket) as f64 <= ns as f64 * 1.0625 + 1.0,
                    "{ns}"
                );
                last = last.max(bucket);
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_within_a_sixteenth() {
        let histogram = Histogram::new();
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        let summary = histogram.summary();
        assert_eq!(summary.count, 1000);
        for (found, expected) in [
            (summary.p50, 500.0),
            (summary.p99, 990.0),
            (summary.p999, 999.0),
        ] {
            let ratio = found.as_nanos() as f64 / (expected * 1000.0);
            assert!(
                (1.0..1.0625).contains(&ratio),
                "{found:?} for {expected} us"
            );
        }
        assert_eq!(summary.max, Duration::from_millis(1));
        assert_eq!(Histogram::new().summary(), LatencySummary::default());
    }
}
