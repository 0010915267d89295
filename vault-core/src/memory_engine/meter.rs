//! Counts and latencies of a memory engine's operations.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Clock;
use crate::stats::{Histogram, OperationStats};

/// One kind of operation: how often, and how long each took.
#[derive(Debug)]
pub(super) struct Meter {
    name: &'static str,
    count: AtomicU64,
    latency: Histogram,
}

impl Meter {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            count: AtomicU64::new(0),
            latency: Histogram::new(),
        }
    }

    /// Runs an operation, counting and timing it.
    pub(super) fn time<T>(&self, clock: &dyn Clock, operation: impl FnOnce() -> T) -> T {
        let begun = clock.monotonic();
        let outcome = operation();
        self.latency.record(clock.monotonic().saturating_sub(begun));
        self.count.fetch_add(1, Relaxed);
        outcome
    }
}

/// Every kind of operation that is counted, and the bytes that callers have written.
#[derive(Debug)]
pub(super) struct Meters {
    pub(super) get: Meter,
    pub(super) multi_get: Meter,
    pub(super) seek: Meter,
    pub(super) write: Meter,
    pub(super) compare_and_set: Meter,
    pub(super) user_bytes: AtomicU64,
    pub(super) obsolete_removed: AtomicU64,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            get: Meter::new("get"),
            multi_get: Meter::new("multi_get"),
            seek: Meter::new("seek"),
            write: Meter::new("write"),
            compare_and_set: Meter::new("compare_and_set"),
            user_bytes: AtomicU64::new(0),
            obsolete_removed: AtomicU64::new(0),
        }
    }
}

impl Meters {
    /// What was counted so far.
    pub(super) fn summary(&self) -> Vec<OperationStats> {
        [
            &self.get,
            &self.multi_get,
            &self.seek,
            &self.write,
            &self.compare_and_set,
        ]
        .into_iter()
        .map(|meter| OperationStats {
            name: meter.name,
            count: meter.count.load(Relaxed),
            latency: meter.latency.summary(),
        })
        .collect()
    }
}
