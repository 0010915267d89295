//! Entries whose time has come: their tables are dropped whole where nothing else is in them, their files
//! go, and what a compaction removes is counted.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{
    DIRECTORY, Events, assert_contents, contents, expected, files_in_memory, key, keyspace_stats,
    manual, put_all, roomy_keyspace, threaded, value,
};
use vault_core::clock::ManualClock;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{
    Clock, CompactionPolicy, Engine, Event, KeyRange, KeyspaceId, Timestamp, WriteBatch,
    WriteOptions,
};
use vault_lsm::{Lsm, LsmOptions};

const BEGINNING: Timestamp = Timestamp(1_700_000_000_000);

fn put_until(store: &Lsm, ks: KeyspaceId, numbers: std::ops::Range<u64>, expiry: Timestamp) {
    let mut batch = WriteBatch::new();
    for number in numbers {
        batch.put_until(ks, &key(number), &value(number, 1), expiry);
    }
    store.write(&batch, &WriteOptions::default()).unwrap();
}

fn opened(options: LsmOptions) -> (Lsm, Arc<ManualClock>, Events) {
    let clock = Arc::new(ManualClock::new(BEGINNING));
    let events = Events::default();
    let options = options
        .clock(Arc::clone(&clock) as Arc<dyn Clock>)
        .listener(events.listener());
    (Lsm::open(DIRECTORY, options).unwrap(), clock, events)
}

/// Three tables with an hour each between their expiries go one after the other, without being read.
#[test]
fn expired_tables_go_whole() {
    // None of them may want to merge the few tables here: a merged one would not expire whole.
    for policy in [
        CompactionPolicy::Leveled {
            level0_runs: 16,
            base_bytes: 256 << 20,
            fanout: 10,
        },
        CompactionPolicy::Tiered {
            runs_min: 16,
            runs_max: 32,
            size_ratio_percent: 1,
        },
        CompactionPolicy::Fifo { bytes_max: 1 << 30 },
    ] {
        let fs = MemoryFileSystem::new();
        let (store, clock, events) = opened(manual(&fs));
        let ks = store
            .create_keyspace("k", &roomy_keyspace().policy(policy))
            .unwrap();
        put_all(&store, ks, 1_000..2_000, 1);
        store.flush(None).unwrap();
        for hour in 1..=3 {
            let expiry = clock
                .now()
                .after(Duration::from_secs(3_600 * hour))
                .unwrap();
            put_until(&store, ks, hour * 100..(hour + 1) * 100, expiry);
            store.flush(None).unwrap();
        }
        // Not settled: what is at rest is merged.
        while store.background_step().unwrap() {}
        let tables = files_in_memory(&fs, DIRECTORY, ".tab").len();
        for hour in 1..=3 {
            clock.advance(Duration::from_secs(3_600));
            // Time alone shows to readers at once.
            let left = (hour + 1) * 100..400;
            let mut all = expected(left, 1);
            all.extend(expected(1_000..2_000, 1));
            all.extend(expected(2_001..2_000 + hour, 1));
            assert_contents(&store, ks, &all);
            // A change of shape makes the policy look: any flush does.
            put_all(&store, ks, [2_000 + hour], 1);
            store.flush(None).unwrap();
            while store.background_step().unwrap() {}
            all.extend(expected([2_000 + hour], 1));
            assert_contents(&store, ks, &all);
        }
        let stats = store.stats().unwrap().background;
        assert_eq!(stats.expired_removed, 300, "{policy:?}: {stats:?}");
        assert_eq!(stats.tables_dropped, 3, "{policy:?}: {stats:?}");
        let dropped: usize = events
            .all()
            .iter()
            .map(|event| match event {
                Event::TablesDropped {
                    keyspace,
                    tables,
                    bytes,
                    ..
                } => {
                    assert_eq!(*keyspace, ks);
                    assert!(*bytes > 0);
                    *tables
                }
                _ => 0,
            })
            .sum();
        assert_eq!(dropped as u64, stats.tables_dropped);
        let now: usize = keyspace_stats(&store, ks)
            .levels
            .iter()
            .map(|l| l.tables)
            .sum();
        let files = files_in_memory(&fs, DIRECTORY, ".tab").len();
        assert_eq!(files, now, "no file outlives its table");
        assert_eq!(now, tables, "three went, three small ones came");
    }
}

/// Where expired entries share a table with others, compacting removes and counts them.
#[test]
fn compaction_removes_and_counts_what_has_expired() {
    let fs = MemoryFileSystem::new();
    let (store, clock, _) = opened(threaded(&fs));
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    let expiry = clock.now().after(Duration::from_secs(60)).unwrap();
    put_all(&store, ks, (0..400).step_by(2), 1);
    let mut batch = WriteBatch::new();
    for number in (1..400).step_by(2) {
        batch.put_until(ks, &key(number), &value(number, 1), expiry);
    }
    store.write(&batch, &WriteOptions::default()).unwrap();
    store.settle().unwrap();
    assert_contents(&store, ks, &expected(0..400, 1));
    clock.advance(Duration::from_secs(60));
    let outcome = store.compact(ks, KeyRange::all(), &mut |_| {
        std::ops::ControlFlow::Continue(())
    });
    assert!(outcome.unwrap().entries_dropped >= 200);
    assert_eq!(store.stats().unwrap().background.expired_removed, 200);
    let entries: u64 = keyspace_stats(&store, ks)
        .levels
        .iter()
        .map(|l| l.entries)
        .sum();
    assert_eq!(entries, 200);
    assert_contents(&store, ks, &expected((0..400).step_by(2), 1));
}

/// What had an expiry must not come to light again when the expired version is dropped above it.
#[test]
fn nothing_older_comes_to_light() {
    let fs = MemoryFileSystem::new();
    let (store, clock, _) = opened(manual(&fs));
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    put_all(&store, ks, 0..100, 7);
    store.settle().unwrap();
    let expiry = clock.now().after(Duration::from_secs(1)).unwrap();
    put_until(&store, ks, 0..100, expiry);
    store.settle().unwrap();
    clock.advance(Duration::from_secs(2));
    assert!(contents(&store, ks).is_empty());
    for round in 0..3 {
        put_all(&store, ks, [500 + round], 1);
        store.settle().unwrap();
        assert_contents(&store, ks, &expected(500..=500 + round, 1));
    }
    let done = store.compact(ks, KeyRange::all(), &mut |_| {
        std::ops::ControlFlow::Continue(())
    });
    done.unwrap();
    assert_contents(&store, ks, &expected(500..503, 1));
}
