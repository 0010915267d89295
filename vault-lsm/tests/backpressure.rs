//! When writes come faster than they can be worked off: who is refused, who waits, and how it is counted.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::slow::SlowFiles;
use support::{
    DIRECTORY, Events, TWO_THREADS, assert_contents, assert_error, expected, key, keyspace_stats,
    manual, put_all, small_keyspace, small_settings, value,
};
use vault_core::clock::{Clock, ManualClock};
use vault_core::vfs::{DiskFileSystem, FileSystem, MemoryFileSystem};
use vault_core::{
    CompactionPolicy, Engine, Error, Event, KeyspaceId, KeyspaceOptions, Result, SequenceNumber,
    Timestamp, WriteBatch, WriteOptions,
};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

/// A small keyspace that merges when there are more runs than this, and in which they pile up fast.
fn tiered(runs_max: u8) -> KeyspaceOptions {
    small_keyspace().policy(CompactionPolicy::Tiered {
        runs_min: 2,
        runs_max,
        size_ratio_percent: 100,
    })
}

fn try_put(store: &Lsm, ks: KeyspaceId, number: u64) -> Result<SequenceNumber> {
    let mut batch = WriteBatch::new();
    batch.put(ks, &key(number), &value(number, 1));
    store.try_write(&batch, &WriteOptions::default())
}

/// Writes until it is refused; gives how many writes went through.
fn fill_until_busy(store: &Lsm, ks: KeyspaceId, from: u64) -> u64 {
    for number in from..from + 100_000 {
        if let Err(error) = try_put(store, ks, number) {
            let refused: Result<()> = Err(error);
            let error = assert_error!(refused, Error::Busy { .. }, Retry);
            let Error::Busy { retry_after } = error else {
                unreachable!("it was just checked")
            };
            assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(1));
            return number;
        }
    }
    panic!("it was never busy");
}

/// Memtables wait: `try_write` is refused with nothing written; each background step makes room.
#[test]
fn busy_while_memtables_wait() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let other = store.create_keyspace("other", &small_keyspace()).unwrap();
    let mut written = fill_until_busy(&store, ks, 0);
    assert_eq!(keyspace_stats(&store, ks).memtables_waiting, 3);
    for _ in 0..3 {
        let latest = store.latest_sequence();
        let stats = store.stats().unwrap();
        assert_error!(try_put(&store, ks, written), Error::Busy { .. }, Retry);
        assert_eq!(store.latest_sequence(), latest);
        assert_eq!(
            store.stats().unwrap().written.log_bytes,
            stats.written.log_bytes
        );
        assert_contents(&store, ks, &expected(0..written, 1));
        // Only this keyspace is full; a batch that touches it is refused whole.
        put_all(&store, other, [latest], 1);
        let mut both = WriteBatch::new();
        both.put(other, b"both", b"").put(ks, b"both", b"");
        let refused = store.try_write(&both, &WriteOptions::default());
        assert_error!(refused, Error::Busy { .. }, Retry);
        // One flush, and there is room for one memtable more.
        let flushes = store.stats().unwrap().background.flushes;
        while store.stats().unwrap().background.flushes == flushes {
            assert!(store.background_step().unwrap());
        }
        assert_eq!(keyspace_stats(&store, ks).memtables_waiting, 2);
        let until = fill_until_busy(&store, ks, written);
        assert!(until > written + 50);
        written = until;
    }
    assert_contents(&store, ks, &expected(0..written, 1));
    assert_eq!(store.stats().unwrap().backpressure.stopped, 0);
}

/// A patient writer does the work itself where nobody else does, and that is counted and told.
#[test]
fn patient_writers_wait_for_memtables() {
    let fs = MemoryFileSystem::new();
    let events = Events::default();
    let store = Lsm::open(DIRECTORY, manual(&fs).listener(events.listener())).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let written = fill_until_busy(&store, ks, 0);
    put_all(&store, ks, [written], 1);
    let stats = store.stats().unwrap();
    assert_eq!(stats.backpressure.stopped, 1);
    assert!(stats.backpressure.longest <= stats.backpressure.stopped_for);
    assert_eq!(stats.background.flushes, 1);
    assert_eq!(
        events.count(|e| matches!(e, Event::WritesStopped { keyspace, .. } if *keyspace == ks)),
        1
    );
    assert_contents(&store, ks, &expected(0..=written, 1));
}

/// Runs pile up faster than they are merged: at full pressure `try_write` is refused until a step
/// relieves it.
#[test]
fn busy_while_the_pressure_is_high() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &tiered(4)).unwrap();
    let mut written = 0;
    // Flushing by hand never compacts.
    let refused = loop {
        match try_put(&store, ks, written) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        store.flush(None).unwrap();
        assert!(written < 100, "it was never busy");
    };
    let refused: Result<()> = Err(refused);
    assert_error!(refused, Error::Busy { .. }, Retry);
    assert!(keyspace_stats(&store, ks).levels[0].runs >= 12);
    assert_error!(try_put(&store, ks, written), Error::Busy { .. }, Retry);
    assert_eq!(store.latest_sequence(), written, "nothing was written");
    while store.background_step().unwrap() {}
    assert!(keyspace_stats(&store, ks).levels[0].runs <= 4);
    try_put(&store, ks, written).unwrap();
    assert_contents(&store, ks, &expected(0..=written, 1));
}

/// Under pressure short of full, writers are slowed down a little each; that is counted and told.
#[test]
fn writers_are_delayed_before_they_are_stopped() {
    let fs = MemoryFileSystem::new();
    let events = Events::default();
    // Compactions crawl, so that runs pile up for certain.
    let settings = Settings {
        compaction_bytes_per_second: 20 << 10,
        ..small_settings(TWO_THREADS)
    };
    let options = LsmOptions::new(settings)
        .file_system(Arc::new(fs) as Arc<dyn FileSystem>)
        .listener(events.listener());
    let store = Lsm::open(DIRECTORY, options).unwrap();
    let ks = store.create_keyspace("k", &tiered(2)).unwrap();
    let mut number = 0;
    while store.stats().unwrap().backpressure.delayed == 0 {
        put_all(&store, ks, number..number + 20, 1);
        number += 20;
        assert!(number < 100_000, "nobody was ever delayed");
    }
    let stats = store.stats().unwrap().backpressure;
    assert!(stats.delayed_for >= Duration::from_millis(1), "{stats:?}");
    assert!(events.count(|e| matches!(e, Event::WritesDelayed { .. })) >= 1);
    assert_contents(&store, ks, &expected(0..number, 1));
    store.close().unwrap();
}

/// A flush takes long: writers get slower the fuller the memtables are, and nobody stands still for it.
#[test]
fn writers_are_slowed_down_by_flushes_before_they_stand_still() {
    const VALUE_BYTES: usize = 4000;
    let directory = tempfile::tempdir().unwrap();
    let events = Events::default();
    let options = LsmOptions::new(Settings::default())
        .file_system(Arc::new(SlowFiles {
            extension: "tab",
            created_late: Duration::from_millis(100),
            removed_late: Duration::ZERO,
            disk: DiskFileSystem::new(),
        }))
        .listener(events.listener());
    let store = Lsm::open(directory.path().join("store"), options).unwrap();
    let options = KeyspaceOptions {
        write_buffer_bytes: 4 << 20,
        ..KeyspaceOptions::default()
    };
    let ks = store.create_keyspace("k", &options).unwrap();
    let mut number: u64 = 0;
    let reasons = loop {
        for _ in 0..100 {
            let options = WriteOptions::default();
            let value = [number as u8; VALUE_BYTES];
            store
                .put(ks, &number.to_be_bytes(), &value, &options)
                .unwrap();
            number += 1;
        }
        let told = events.all().into_iter().filter_map(|event| match event {
            Event::WritesDelayed {
                keyspace, reason, ..
            } if keyspace == ks => Some(reason),
            _ => None,
        });
        let reasons: Vec<_> = told.collect();
        if !reasons.is_empty() {
            break reasons;
        }
        assert!(number < 1_000_000, "nobody was ever delayed");
    };
    assert_eq!(reasons[0], "flushes are behind");
    let stats = store.stats().unwrap().backpressure;
    assert_eq!(stats.stopped, 0, "{stats:?}");
    store.close().unwrap();
}

/// At full pressure small writes go on at a crawl, none of them for long; only who writes much at once stands still.
#[test]
fn only_large_batches_stand_still_while_compactions_are_far_behind() {
    const FAR_BEHIND_RUNS: usize = 12;
    let fs = MemoryFileSystem::new();
    let settings = Settings {
        compaction_bytes_per_second: 1 << 10,
        ..small_settings(TWO_THREADS)
    };
    let options = LsmOptions::new(settings).file_system(Arc::new(fs) as Arc<dyn FileSystem>);
    let store = Lsm::open(DIRECTORY, options).unwrap();
    let ks = store.create_keyspace("k", &tiered(4)).unwrap();
    // Runs that no compaction gets through: it takes seconds for each of them.
    for run in 0..FAR_BEHIND_RUNS as u64 {
        put_all(&store, ks, run * 100..(run + 1) * 100, 1);
        store.flush(None).unwrap();
    }
    assert!(keyspace_stats(&store, ks).levels[0].runs >= FAR_BEHIND_RUNS);
    put_all(&store, ks, 0..50, 2);
    let stats = store.stats().unwrap().backpressure;
    assert_eq!(stats.stopped, 0, "{stats:?}");
    let mut batch = WriteBatch::new();
    batch.put(ks, b"large", &[0; 100 << 10]);
    store.write(&batch, &WriteOptions::default()).unwrap();
    let stats = store.stats().unwrap().backpressure;
    assert_eq!(stats.stopped, 1, "{stats:?}");
    // What it would be due in at the lowest rate.
    assert!(stats.stopped_for >= Duration::from_millis(90), "{stats:?}");
    store.close().unwrap();
}

/// However much a compaction does between two looks at the clock, on average it keeps to the rate that was set.
#[test]
fn compactions_keep_to_their_rate() {
    const BYTES_PER_SECOND: u64 = 1 << 10;
    let fs = MemoryFileSystem::new();
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let settings = Settings {
        compaction_bytes_per_second: BYTES_PER_SECOND,
        ..small_settings(BackgroundWork::Manual)
    };
    let options = LsmOptions::new(settings)
        .file_system(Arc::new(fs) as Arc<dyn FileSystem>)
        .clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let store = Lsm::open(DIRECTORY, options).unwrap();
    let ks = store.create_keyspace("k", &tiered(4)).unwrap();
    for run in 0..6 {
        put_all(&store, ks, run * 100..(run + 1) * 100, 1);
        store.flush(None).unwrap();
    }
    let began = clock.monotonic();
    while store.background_step().unwrap() {}
    let written = store.stats().unwrap().written.compaction_bytes;
    assert!(written > 50 << 10, "{written}");
    let due = Duration::from_secs(written / BYTES_PER_SECOND);
    let took = clock.monotonic() - began;
    assert!(took >= due, "{took:?} for {written} bytes, due in {due:?}");
    assert_contents(&store, ks, &expected(0..600, 1));
}

/// Steps by hand: nothing happens between them, each does one thing, and they come to an end.
#[test]
fn manual_steps_do_one_thing_each() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    assert!(
        !store.background_step().unwrap(),
        "a new store has nothing to do"
    );
    let written = fill_until_busy(&store, ks, 0);
    assert_eq!(store.stats().unwrap().background.flushes, 0);
    let (mut steps, mut before) = (0, store.stats().unwrap().background);
    while store.background_step().unwrap() {
        let now = store.stats().unwrap().background;
        let done = (now.flushes - before.flushes) + (now.compactions - before.compactions);
        assert!(done <= 1, "{before:?} {now:?}");
        before = now;
        steps += 1;
        assert!(steps < 100);
    }
    assert_eq!(before.flushes, 3);
    assert!(!store.background_step().unwrap());
    assert_contents(&store, ks, &expected(0..written, 1));
}
