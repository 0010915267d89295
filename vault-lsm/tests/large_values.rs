//! Large values are kept apart from their keys: they are read, expire, are overwritten, deleted, pinned, copied, sealed anew and
//! dropped like all others, and what they took is given back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use support::{
    DIRECTORY, assert_contents, contents, expected, files_in_memory, key, keyspace_stats, manual,
    put_all, small_keyspace, threaded, value,
};
use vault_core::clock::ManualClock;
use vault_core::stats::BlobStats;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{
    Clock, CompactionPolicy, Engine, Error, KeyRange, KeyspaceId, KeyspaceOptions, Reader,
    Timestamp, WriteBatch, WriteOptions,
};
use vault_lsm::Lsm;

/// Every value that these tests write is longer, and shorter than twice that.
const LARGE: u32 = 64;

fn apart() -> KeyspaceOptions {
    small_keyspace().large_values_from(Some(LARGE))
}

struct Built {
    fs: MemoryFileSystem,
    clock: Arc<ManualClock>,
    store: Lsm,
    ks: KeyspaceId,
}

impl Built {
    fn new(options: &KeyspaceOptions) -> Self {
        let fs = MemoryFileSystem::new();
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
        let (store, ks) = open(&fs, &clock, options);
        Self {
            fs,
            clock,
            store,
            ks,
        }
    }

    fn reopen(&mut self, options: &KeyspaceOptions) {
        self.store.close().unwrap();
        (self.store, self.ks) = open(&self.fs, &self.clock, options);
    }

    fn put(&self, numbers: std::ops::Range<u64>, version: u64) {
        put_all(&self.store, self.ks, numbers, version);
        self.store.flush(None).unwrap();
    }

    fn compact(&self) {
        let mut go_on = |_| std::ops::ControlFlow::Continue(());
        self.store
            .compact(self.ks, KeyRange::all(), &mut go_on)
            .unwrap();
    }

    fn blobs(&self) -> BlobStats {
        keyspace_stats(&self.store, self.ks).blobs
    }

    /// The blob files of the directory, by what the store says of them too.
    fn files(&self) -> u64 {
        let files = files_in_memory(&self.fs, DIRECTORY, ".blob");
        let (stats, bytes) = (
            self.blobs(),
            files.iter().map(|(_, bytes)| bytes).sum::<u64>(),
        );
        assert_eq!((stats.files, stats.bytes), (files.len() as u64, bytes));
        stats.files
    }

    fn table_bytes(&self) -> u64 {
        let files = files_in_memory(&self.fs, DIRECTORY, ".tab");
        files.iter().map(|(_, bytes)| bytes).sum()
    }
}

fn open(
    fs: &MemoryFileSystem,
    clock: &Arc<ManualClock>,
    options: &KeyspaceOptions,
) -> (Lsm, KeyspaceId) {
    let opened = manual(fs).clock(Arc::clone(clock) as Arc<dyn Clock>);
    let store = Lsm::open(DIRECTORY, opened).unwrap();
    let ks = store.create_keyspace("k", options).unwrap();
    (store, ks)
}

#[test]
fn values_from_the_threshold_on_are_apart_and_shorter_ones_are_not() {
    let built = Built::new(&apart());
    for (number, len) in [(1, LARGE - 1), (2, LARGE), (3, LARGE + 1), (4, 0)] {
        let value = vec![number as u8; len as usize];
        let options = WriteOptions::default();
        built
            .store
            .put(built.ks, &key(number), &value, &options)
            .unwrap();
    }
    assert_eq!(built.blobs(), BlobStats::default(), "memtables hold all");
    built.store.flush(None).unwrap();
    assert_eq!((built.files(), built.blobs().values), (1, 2));
    for (number, len) in [(1, LARGE - 1), (2, LARGE), (3, LARGE + 1), (4, 0)] {
        let found = built.store.get(built.ks, &key(number)).unwrap().unwrap();
        assert_eq!(&found[..], vec![number as u8; len as usize]);
    }
}

#[test]
fn reads_scans_and_reopening_see_values_that_are_apart() {
    let mut built = Built::new(&apart());
    built.put(0..300, 1);
    built.put(100..200, 2);
    let mut wanted = expected(0..300, 1);
    wanted.extend(expected(100..200, 2));
    assert_contents(&built.store, built.ks, &wanted);
    let backwards: BTreeMap<_, _> = built
        .store
        .scan(built.ks, KeyRange::all())
        .unwrap()
        .rev()
        .map(|entry| {
            entry
                .map(|(key, value)| (key.to_vec(), value.to_vec()))
                .unwrap()
        })
        .collect();
    assert!(backwards == wanted);
    built.reopen(&apart());
    assert!(built.files() >= 2);
    assert_contents(&built.store, built.ks, &wanted);
}

/// Ten times what is live is written. Never are there more than 1.5 times as many bytes of values as are live, once
/// there is nothing left to do.
#[test]
fn garbage_is_collected_under_overwrites() {
    let built = Built::new(&apart());
    let mut wanted = BTreeMap::new();
    for version in 0..10 {
        for part in 0..10 {
            // Not in the order of the keys, so that every file keeps a little of everything.
            let numbers = (0..100).map(|n| (n * 37 + part * 101 + version * 13) % 1000);
            put_all(&built.store, built.ks, numbers.clone(), version * 10 + part);
            wanted.extend(expected(numbers, version * 10 + part));
        }
        built.store.settle().unwrap();
        let stats = built.blobs();
        let live = stats.bytes - stats.garbage_bytes;
        assert!(2 * stats.bytes < 3 * live, "{stats:?}");
        assert!(stats.values >= wanted.len() as u64);
        built.files();
    }
    let background = built.store.stats().unwrap().background;
    assert!(background.blobs_removed > 10, "{background:?}");
    assert_contents(&built.store, built.ks, &wanted);
}

/// The policies that merge little leave all of it to the collection.
#[test]
fn garbage_is_collected_where_nothing_is_merged() {
    let lazy = CompactionPolicy::Leveled {
        level0_runs: 64,
        base_bytes: 1 << 30,
        fanout: 10,
    };
    let built = Built::new(&apart().policy(lazy));
    built.put(0..1000, 1);
    let whole = built.blobs();
    built
        .store
        .write(
            WriteBatch::new().delete_range(built.ks, &key(0), &key(900)),
            &WriteOptions::default(),
        )
        .unwrap();
    built.compact();
    built.store.settle().unwrap();
    let stats = built.blobs();
    assert_eq!(stats.values, 100);
    assert!(stats.bytes < whole.bytes / 6, "{whole:?} {stats:?}");
    assert_contents(&built.store, built.ks, &expected(900..1000, 1));
}

#[test]
fn all_files_go_when_everything_is_deleted() {
    let built = Built::new(&apart());
    built.put(0..1000, 1);
    let mut batch = WriteBatch::new();
    for number in 0..1000 {
        batch.delete(built.ks, &key(number));
    }
    built.store.write(&batch, &WriteOptions::default()).unwrap();
    built.store.settle().unwrap();
    assert_eq!(built.files(), 0);
    assert_eq!(built.store.explain_space().unwrap().live_bytes, 0);
}

#[test]
fn all_files_go_when_everything_expires() {
    let built = Built::new(&apart());
    let mut batch = WriteBatch::new();
    let expiry = Timestamp(built.clock.now().0 + 1000);
    for number in 0..500 {
        batch.put_until(built.ks, &key(number), &value(number, 1), expiry);
    }
    built.store.write(&batch, &WriteOptions::default()).unwrap();
    built.store.settle().unwrap();
    assert!(built.files() > 0);
    assert_contents(&built.store, built.ks, &expected(0..500, 1));
    built.clock.advance(std::time::Duration::from_secs(2));
    assert_eq!(built.store.get(built.ks, &key(3)).unwrap(), None);
    built.store.settle().unwrap();
    assert_eq!(built.files(), 0);
}

#[test]
fn a_snapshot_keeps_the_values_it_sees_and_a_cursor_the_files() {
    let built = Built::new(&apart());
    built.put(0..500, 1);
    let snapshot = built.store.snapshot().unwrap();
    let mut cursor = built.store.cursor(built.ks, KeyRange::all()).unwrap();
    cursor.first().unwrap();
    for version in 2..6 {
        built.put(0..500, version);
        built.store.settle().unwrap();
    }
    assert_contents(&*snapshot, built.ks, &expected(0..500, 1));
    let space = built.store.explain_space().unwrap();
    let pinned: u64 = space.pinned.iter().map(|p| p.bytes).sum();
    assert!(pinned > 500 * 100, "{space:?}");
    for number in 0..500 {
        let (found, stored) = cursor.entry().unwrap();
        assert_eq!((found, stored), (&key(number)[..], &value(number, 1)[..]));
        cursor.next().unwrap();
    }
    assert!(cursor.entry().is_none());
    drop((snapshot, cursor));
    built.compact();
    built.store.settle().unwrap();
    let stats = built.blobs();
    assert!(stats.values == 500 && built.files() > 0, "{stats:?}");
    let report = built.store.explain_space().unwrap();
    assert!(report.pinned.iter().all(|p| p.bytes == 0), "{report:?}");
    assert_contents(&built.store, built.ks, &expected(0..500, 5));
}

#[test]
fn a_lower_threshold_takes_hold_with_compactions_and_a_higher_one_leaves_what_is_apart() {
    let mut built = Built::new(&apart().large_values_from(None));
    built.put(0..400, 1);
    assert_eq!(built.files(), 0);
    let inline = built.table_bytes();
    built.reopen(&apart());
    assert_eq!(built.files(), 0, "altering alone moves nothing");
    built.put(400..401, 1);
    built.compact();
    // Tables that nothing has to be done to are left alone.
    assert!(built.blobs().values > 200, "{:?}", built.blobs());
    assert!(built.table_bytes() < inline / 2);
    let moved = built.blobs().values;
    built.reopen(&apart().large_values_from(None));
    built.put(0..401, 1);
    let stats = built.blobs();
    assert_eq!(stats.values, moved, "what is written now stays in tables");
    built.compact();
    assert_eq!(built.files(), 0, "and nothing else is left");
    assert_contents(&built.store, built.ks, &expected(0..401, 1));
}

#[test]
fn thresholds_out_of_bounds_are_refused() {
    let built = Built::new(&apart());
    for wrong in [0, 15, (1 << 30) + 1, u32::MAX] {
        let refused = built
            .store
            .create_keyspace("other", &apart().large_values_from(Some(wrong)));
        let Err(Error::InvalidSetting { setting, problem }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(setting, "large_value_bytes");
        assert!(problem.contains(&wrong.to_string()), "{problem}");
    }
    for right in [Some(16), Some(1 << 30), None] {
        let options = apart().large_values_from(right);
        built.store.create_keyspace("other", &options).unwrap();
        let listed = built.store.keyspaces().unwrap();
        let other = listed.iter().find(|k| k.name == "other").unwrap();
        assert_eq!(other.options.large_value_bytes, right);
    }
}

#[test]
fn merge_operands_fold_over_a_value_that_is_apart() {
    let built = Built::new(&apart().merge(vault_core::merge::APPEND));
    let base = vec![b'a'; 200];
    let options = WriteOptions::default();
    built.store.put(built.ks, b"k", &base, &options).unwrap();
    built.store.flush(None).unwrap();
    let mut wanted = base;
    for number in 0..3_u8 {
        let mut batch = WriteBatch::new();
        batch.merge(built.ks, b"k", &[b'0' + number]);
        built.store.write(&batch, &options).unwrap();
        wanted.push(b'0' + number);
        let found = built.store.get(built.ks, b"k").unwrap().unwrap();
        assert_eq!(&found[..], wanted);
        built.store.flush(None).unwrap();
    }
    assert_eq!(built.blobs().values, 1);
    built.compact();
    let found = built.store.get(built.ks, b"k").unwrap().unwrap();
    assert_eq!(&found[..], wanted);
    assert_eq!((built.files(), built.blobs().values), (1, 1));
    assert_eq!(built.blobs().garbage_bytes, 0, "the outcome is apart again");
}

#[test]
fn large_operands_stay_in_tables() {
    let built = Built::new(&apart().merge(vault_core::merge::APPEND));
    let mut batch = WriteBatch::new();
    batch.merge(built.ks, b"k", &[7; 500]);
    let expiry = Timestamp(built.clock.now().0 + 1000);
    batch.merge_until(built.ks, b"l", &[8; 500], expiry);
    built.store.write(&batch, &WriteOptions::default()).unwrap();
    built.store.flush(None).unwrap();
    // The first could be folded over nothing, for there is nothing beneath it.
    assert!(built.blobs().values <= 1);
    assert_eq!(
        &built.store.get(built.ks, b"l").unwrap().unwrap()[..],
        [8; 500]
    );
}

#[test]
fn ingested_values_are_apart() {
    let built = Built::new(&apart());
    let pairs = (0..500).map(|n| (key(n), value(n, 1)));
    let outcome = built.store.ingest(built.ks, pairs).unwrap();
    let stats = built.blobs();
    assert_eq!((stats.values, outcome.entries), (500, 500));
    assert_eq!(outcome.bytes, built.table_bytes() + stats.bytes);
    assert_contents(&built.store, built.ks, &expected(0..500, 1));
    let unsorted = [(key(600), value(1, 1)), (key(599), value(1, 1))];
    let before = built.files();
    built.store.ingest(built.ks, unsorted).unwrap_err();
    assert_eq!(built.files(), before, "nothing is left of what was refused");
}

#[test]
fn a_checkpoint_holds_the_values_of_its_moment() {
    let built = Built::new(&apart());
    built.put(0..300, 1);
    let outcome = built.store.checkpoint("/copy").unwrap();
    assert_eq!(
        (outcome.blobs_linked, outcome.blobs_copied),
        (built.files(), 0)
    );
    for version in 2..5 {
        built.put(0..300, version);
        built.store.settle().unwrap();
    }
    let copy = Lsm::open("/copy", manual(&built.fs)).unwrap();
    assert_contents(&copy, built.ks, &expected(0..300, 1));
    assert_contents(&built.store, built.ks, &expected(0..300, 4));
}

#[test]
fn dropping_a_keyspace_gives_its_values_back() {
    let built = Built::new(&apart());
    built.put(0..300, 1);
    let other = built.store.create_keyspace("other", &apart()).unwrap();
    put_all(&built.store, other, 0..300, 1);
    built.store.flush(None).unwrap();
    assert_eq!(
        files_in_memory(&built.fs, DIRECTORY, ".blob").len(),
        2 * built.files_of(other)
    );
    built.store.drop_keyspace(other).unwrap();
    assert_eq!(built.files(), 3);
    let snapshot = built.store.snapshot().unwrap();
    built.store.drop_keyspace(built.ks).unwrap();
    assert_contents(&*snapshot, built.ks, &expected(0..300, 1));
    drop(snapshot);
    built.store.settle().unwrap();
    assert!(files_in_memory(&built.fs, DIRECTORY, ".blob").is_empty());
}

impl Built {
    fn files_of(&self, keyspace: KeyspaceId) -> usize {
        keyspace_stats(&self.store, keyspace).blobs.files as usize
    }
}

#[test]
fn a_reader_without_the_lock_sees_them_too() {
    let built = Built::new(&apart());
    built.put(0..300, 1);
    let reader = Lsm::open_read_only(DIRECTORY, &manual(&built.fs)).unwrap();
    assert_contents(&reader, built.ks, &expected(0..300, 1));
}

/// The size of a FIFO keyspace is that of its values, wherever they are.
#[test]
fn fifo_counts_values_that_are_apart() {
    let bytes_max = 64 << 10;
    let built = Built::new(&apart().policy(CompactionPolicy::Fifo { bytes_max }));
    for part in 0..20 {
        built.put(part * 100..(part + 1) * 100, 1);
        built.store.settle().unwrap();
    }
    let stats = built.blobs();
    assert!(stats.bytes + built.table_bytes() <= bytes_max, "{stats:?}");
    assert!(stats.values >= 300, "{stats:?}");
    let found = contents(&built.store, built.ks);
    assert!(found.contains_key(&key(1999)) && !found.contains_key(&key(0)));
}

#[test]
fn threads_collect_while_others_read_and_write() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, threaded(&fs)).unwrap();
    let ks = store.create_keyspace("k", &apart()).unwrap();
    put_all(&store, ks, 0..500, 0);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..4000_u64 {
                    let number = (round * 7 + reader * 3) % 500;
                    let found = store.get(ks, &key(number)).unwrap().unwrap();
                    let known = (0..40).any(|version| found[..] == value(number, version));
                    assert!(known, "a value that nobody wrote");
                }
            });
        }
        for version in 1..40 {
            let numbers = (0..500).filter(|n| (n * 31 + version) % 3 != 0);
            put_all(&store, ks, numbers, version);
        }
    });
    store.settle().unwrap();
    let stats = keyspace_stats(&store, ks).blobs;
    let live = stats.bytes - stats.garbage_bytes;
    assert!(2 * stats.bytes < 3 * live, "{stats:?}");
    assert!(store.stats().unwrap().background.blobs_removed > 0);
}

/// A flush every now and then, of a few values each: their files are joined, so that a process does not come to its bound of
/// open files, and nothing of what snapshots read goes with them.
#[test]
fn short_files_are_joined() {
    let mut built = Built::new(&KeyspaceOptions {
        // What is short is so by the length of a table.
        table_bytes: 1 << 20,
        ..apart()
    });
    let mut most = 0;
    let mut first = None;
    for flush in 0..400 {
        // Anywhere, so that the tables are merged.
        let numbers = [2 * flush, 2 * flush + 1].map(|n| n * 317 % 800);
        put_all(&built.store, built.ks, numbers, 1);
        built.store.settle().unwrap();
        most = most.max(built.blobs().files);
        if flush == 10 {
            first = Some(built.store.snapshot().unwrap());
        }
    }
    assert!((32..100).contains(&most), "{most} files");
    assert!(built.store.stats().unwrap().background.collections > 0);
    let first = first.unwrap();
    for number in (0..22).map(|n| n * 317 % 800) {
        let found = first.get(built.ks, &key(number)).unwrap();
        assert_eq!(found.as_deref(), Some(&value(number, 1)[..]));
    }
    drop(first);
    built.store.settle().unwrap();
    assert!(built.files() < 100);
    built.reopen(&apart());
    assert_contents(&built.store, built.ks, &expected(0..800, 1));
}
