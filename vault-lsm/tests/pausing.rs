//! What a store does by itself once nobody writes: reads find few places to look in, and little is rewritten for it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use support::slow::SlowFiles;
use support::{
    TWO_THREADS, assert_contents, expected, keyspace_stats, protected, put_all, roomy_keyspace,
    small_keyspace, small_settings,
};
use vault_core::clock::{Clock, SystemClock};
use vault_core::vfs::DiskFileSystem;
use vault_core::{Engine, KeyspaceId, KeyspaceOptions, WriteOptions};
use vault_lsm::{Lsm, LsmOptions, Settings};

/// Two write buffers and most of a third: too few for a compaction while writes go on.
const KEYS: u64 = 300;
/// Four segments of the settings that the tests here share.
const SHORT_LOG_BYTES: u64 = 4 * (64 << 10);
const WAIT_MAX: Duration = Duration::from_secs(60);

fn runs(store: &Lsm, ks: KeyspaceId) -> usize {
    let levels = keyspace_stats(store, ks).levels;
    levels.iter().map(|level| level.runs).sum()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    let began = clock.monotonic();
    while !is_so() {
        let waited = clock.monotonic().saturating_sub(began);
        assert!(waited < WAIT_MAX, "not within a minute: {what}");
        clock.sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_store_that_nobody_writes_to_becomes_one_run_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let options = protected(LsmOptions::new(small_settings(TWO_THREADS)));
    let path = directory.path().join("store");
    let store = Lsm::open(&path, options.clone()).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, (0..KEYS).map(|i| i * 7919 % KEYS), 1);
    let stats = keyspace_stats(&store, ks);
    assert!(stats.memtable_bytes > 0 || stats.memtables_waiting > 0);

    wait_until("one run and an empty memtable", || {
        let stats = keyspace_stats(&store, ks);
        runs(&store, ks) == 1 && (stats.memtable_bytes, stats.memtables_waiting) == (0, 0)
    });
    assert_contents(&store, ks, &expected(0..KEYS, 1));

    // A few entries more are not worth a table: they stay where they are.
    put_all(&store, ks, 0..10, 2);
    let flushes = store.stats().unwrap().background.flushes;
    // Three times as long as a pause has to be.
    SystemClock::new().sleep(Duration::from_secs(3));
    assert_eq!(store.stats().unwrap().background.flushes, flushes);
    assert!(keyspace_stats(&store, ks).memtable_bytes > 0);
    store.close().unwrap();
}

#[test]
fn a_log_that_nothing_needs_begins_anew_in_a_short_segment() {
    const MANY: u64 = 10 * KEYS;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = protected(LsmOptions::new(small_settings(TWO_THREADS)));
    let store = Lsm::open(&path, options.clone()).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    put_all(&store, ks, 0..MANY, 1);
    assert!(log_files(&path).1 > SHORT_LOG_BYTES);
    store.settle().unwrap();
    let (numbers, bytes) = log_files(&path);
    assert!(bytes <= SHORT_LOG_BYTES, "{bytes} bytes of log");
    put_all(&store, ks, 0..10, 2);
    let written = store.stats().unwrap().latest_sequence;
    store.close().unwrap();

    // Numbers go on behind those whose records went with the log.
    let store = Lsm::open(&path, options).unwrap();
    assert_eq!(store.stats().unwrap().latest_sequence, written);
    let mut left = expected(0..MANY, 1);
    left.extend(expected(0..10, 2));
    assert_contents(&store, ks, &left);
    assert!(log_files(&path).0.first() >= numbers.first());
    store.close().unwrap();
}

/// The log segments in a directory: their numbers, and what all take up.
#[expect(clippy::disallowed_methods, reason = "looks at the files from outside")]
fn log_files(directory: &Path) -> (BTreeSet<u64>, u64) {
    let (mut numbers, mut bytes) = (BTreeSet::new(), 0);
    for file in std::fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        if let Some(number) = name.strip_suffix(".log") {
            numbers.insert(number.parse().unwrap());
            // It may be removed between the list and this look.
            bytes += file.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    (numbers, bytes)
}

/// No file is on its way in or out once [`Lsm::settle`] is back, neither by this thread nor by those in the background.
#[test]
fn a_settled_store_stands_still() {
    const ROUNDS: u64 = 6;
    const VALUE_BYTES: usize = 1 << 10;
    /// So long that the last one and the next are too long for a store at rest.
    const SEGMENT_BYTES: u64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let settings = Settings {
        log_segment_bytes: Some(SEGMENT_BYTES),
        ..Settings::default()
    };
    let options = protected(LsmOptions::new(settings));
    let options = options.file_system(Arc::new(SlowFiles {
        extension: "log",
        created_late: Duration::from_millis(100),
        removed_late: Duration::from_millis(150),
        disk: DiskFileSystem::new(),
    }));
    let store = Lsm::open(&path, options).unwrap();
    let ks = store
        .create_keyspace("k", &KeyspaceOptions::default())
        .unwrap();
    for round in 0..ROUNDS {
        for key in 0..2 * SEGMENT_BYTES / VALUE_BYTES as u64 {
            let value = [round as u8; VALUE_BYTES];
            let options = WriteOptions::default();
            store.put(ks, &key.to_be_bytes(), &value, &options).unwrap();
        }
        assert!(log_files(&path).1 > 2 * SEGMENT_BYTES);
        store.settle().unwrap();
        let (numbers, bytes) = log_files(&path);
        let named = store.stats().unwrap().log.segments;
        assert_eq!(numbers.len() as u64, named, "round {round}");
        assert!(
            bytes <= SEGMENT_BYTES,
            "round {round}: {bytes} bytes of log"
        );
        assert_eq!(numbers, log_files(&path).0);
    }
    store.close().unwrap();
}
