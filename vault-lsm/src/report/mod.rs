//! What the engine tells about itself.

pub(crate) mod space;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

use vault_core::stats::{
    BackgroundStats, BackpressureStats, EngineStats, KeyspaceStats, LogStats, MemoryStats,
    WrittenStats,
};
use vault_core::{Error, Result};

use crate::keyspace::KeyspaceView;
use crate::options::BackgroundWork;
use crate::rest;
use crate::store::{Store, lock};

/// Sums up the engine's counts. None of them needs a key, so that a store can be watched while it is locked; that
/// somebody watches does not keep it from being locked. Only names are withheld then.
pub(crate) fn stats(store: &Store) -> Result<EngineStats> {
    if store.is_closed() {
        return Err(Error::Closed);
    }
    let named = !store.is_locked();
    let counters = &store.counters;
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    let pinned = store.views.pin();
    let (syncs, writes_synced) = store.log_sync.counts();
    let (segments, log_bytes) = {
        let segments = lock(&store.log_segments);
        (segments.len() as u64, segments.values().sum())
    };
    let cache = store.table_env.cache.stats();
    let mut stats = EngineStats::default();
    stats.operations = counters.operations();
    let keyspaces = pinned.keyspaces.iter();
    stats.keyspaces = keyspaces.map(|view| keyspace(view, named)).collect();
    stats.log = LogStats {
        segments,
        bytes: log_bytes,
        syncs,
        writes_synced,
    };
    stats.memory = MemoryStats {
        // A locked store has let go of its segments.
        log_mapped: if named { store.log_mapped_bytes() } else { 0 },
        ..store.memory.stats()
    };
    stats.cache = cache;
    stats.written = WrittenStats {
        user_bytes: count(&counters.user_bytes),
        log_bytes: count(&counters.log_bytes),
        flush_bytes: count(&counters.flush_bytes),
        compaction_bytes: count(&counters.compaction_bytes),
        ingest_bytes: count(&counters.ingest_bytes),
        manifest_bytes: store
            .manifest_unchecked()
            .map_or(0, |manifest| manifest.bytes_written()),
    };
    stats.background = BackgroundStats {
        flushes: count(&counters.flushes),
        compactions: count(&counters.compactions),
        tables_moved: count(&counters.tables_moved),
        tables_dropped: count(&counters.tables_dropped),
        obsolete_removed: count(&counters.obsolete_removed),
        tombstones_removed: count(&counters.tombstones_removed),
        expired_removed: count(&counters.expired_removed),
        collections: count(&counters.collections),
        blobs_removed: count(&counters.blobs_removed),
        failures: count(&counters.failures),
    };
    stats.backpressure = BackpressureStats {
        delayed: count(&counters.delayed),
        delayed_for: Duration::from_nanos(count(&counters.delayed_ns)),
        stopped: count(&counters.stopped),
        stopped_for: Duration::from_nanos(count(&counters.stopped_ns)),
        longest: Duration::from_nanos(count(&counters.longest_wait_ns)),
    };
    let keys = store.env.transform.keys();
    stats.key_rotation = keys.map(|keys| crate::rotation::status(store, keys));
    stats.listener_panics = count(&store.env.listener_panics);
    stats.latest_sequence = store.visible.load(Acquire);
    stats.snapshots_open = store.snapshots.open().len() as u64 + count(&counters.cursors_open);
    Ok(stats)
}

fn keyspace(view: &Arc<KeyspaceView>, named: bool) -> KeyspaceStats {
    let name = named.then(|| view.keyspace.name.clone());
    KeyspaceStats {
        id: view.keyspace.id,
        name: name.unwrap_or_default(),
        memtable_bytes: view.active.memtable.bytes() as u64,
        memtables_waiting: view.sealed.len() as u64,
        levels: view.version.level_stats(),
        blobs: view.version.blob_stats(),
    }
}

/// Flushes, tells that nobody writes, and waits until there is nothing left to flush or to compact.
pub(crate) fn settle(store: &Arc<Store>) -> Result<()> {
    /// Should a notification be missed.
    const CHECK_AFTER: Duration = Duration::from_millis(20);
    store.background.forget_failures();
    crate::flush::flush_and_wait(store, None)?;
    let pinned = store.views.pin();
    for view in &pinned.keyspaces {
        view.keyspace.backoff.succeeded();
        view.keyspace.shape_changed.store(true, Release);
    }
    drop(pinned);
    rest::begin(store, store.visible.load(Acquire));
    loop {
        store.check_writable()?;
        if store.settings.background == BackgroundWork::Manual {
            if !crate::background::step(store)? {
                return rest::shorten_log(store);
            }
            continue;
        }
        let failure = store
            .background
            .flush_failure()
            .or_else(|| store.background.compact_failure());
        if let Some(error) = failure {
            return Err(error);
        }
        let ticket = store.background.ticket();
        let pinned = store.views.pin();
        let quiet = pinned.keyspaces.iter().all(|view| {
            view.sealed.is_empty()
                && !view.keyspace.shape_changed.load(Acquire)
                && view.keyspace.busy().is_empty()
        });
        if quiet && store.background.is_idle() {
            store.reclaim_files();
            rest::shorten_log(store)?;
            // What the thread in the background would do next, and tells of if it fails.
            let _ = store.prepare_segment();
            return Ok(());
        }
        store.background.wake();
        store.background.wait_for_progress(ticket, CHECK_AFTER);
    }
}
