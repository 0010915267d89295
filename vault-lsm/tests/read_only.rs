//! Opening read-only beside a writer: it sees what was there when it was opened, log included, and is
//! disturbed by nothing that the writer does afterwards, nor disturbs it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use support::{
    DIRECTORY, TWO_THREADS, assert_contents, contents, expected, image, key, manual, protected,
    put_all, roomy_keyspace, small_keyspace, small_settings, threaded,
};
use vault_core::merge::COUNTER;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Engine, KeyRange, Reader, WriteBatch, WriteOptions};
use vault_lsm::{Lsm, LsmOptions};

fn compact_all(store: &Lsm, ks: vault_core::KeyspaceId) {
    let compacted = store.compact(ks, KeyRange::all(), &mut |_| {
        std::ops::ControlFlow::Continue(())
    });
    compacted.unwrap();
}

#[test]
fn it_sees_the_moment_of_its_opening() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let counts = store
        .create_keyspace("counts", &roomy_keyspace().merge(COUNTER))
        .unwrap();
    put_all(&store, ks, 0..500, 1);
    store.settle().unwrap();
    put_all(&store, ks, 400..600, 2);
    let mut batch = WriteBatch::new();
    batch
        .merge(counts, b"n", &5_i64.to_le_bytes())
        .delete_range(ks, &key(0), &key(100));
    store.write(&batch, &WriteOptions::default()).unwrap();
    let mut then = expected(100..400, 1);
    then.extend(expected(400..600, 2));

    let reading = Lsm::open_read_only(DIRECTORY, &manual(&fs)).unwrap();
    assert_eq!(reading.latest_sequence(), store.latest_sequence());
    assert_contents(&reading, ks, &then);
    let five = reading.get(counts, b"n").unwrap();
    assert_eq!(five.as_deref(), Some(&5_i64.to_le_bytes()[..]));

    // The writer goes on: overwrites all, compacts, so that every file the reader opened is removed.
    put_all(&store, ks, 0..600, 3);
    compact_all(&store, ks);
    store.drop_keyspace(counts).unwrap();
    store.settle().unwrap();
    assert_contents(&store, ks, &expected(0..600, 3));
    assert_contents(&reading, ks, &then);
    assert!(reading.get(counts, b"n").unwrap().is_some());
    assert_contents(&*reading.snapshot().unwrap(), ks, &then);
    // Another one sees the later moment.
    let later = Lsm::open_read_only(DIRECTORY, &manual(&fs)).unwrap();
    assert_contents(&later, ks, &expected(0..600, 3));
    assert_eq!(later.keyspace("counts").unwrap(), None);
    store.close().unwrap();
    assert_contents(&reading, ks, &then);
}

/// Opening, reading and closing changes no byte of the store, and takes no lock.
#[test]
fn it_touches_nothing() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..500, 1);
    let before = image(&fs, DIRECTORY);
    for _ in 0..2 {
        let reading = Lsm::open_read_only(DIRECTORY, &manual(&fs)).unwrap();
        assert_contents(&reading, ks, &expected(0..500, 1));
        let stats = reading.stats().unwrap();
        assert_eq!(stats.latest_sequence, 500);
        reading.explain_space().unwrap();
        assert!(reading.approximate_bytes(ks, &KeyRange::all()).unwrap() > 0);
        reading.close().unwrap();
    }
    assert_eq!(image(&fs, DIRECTORY), before);
    put_all(&store, ks, 500..600, 1);
    store.close().unwrap();
    // Without any writer, after a clean close and after a kill.
    for after in [fs.clone(), fs.kill()] {
        let before = image(&after, DIRECTORY);
        let reading = Lsm::open_read_only(DIRECTORY, &manual(&after)).unwrap();
        let writing_beside = Lsm::open(DIRECTORY, manual(&after)).unwrap();
        assert_contents(&reading, ks, &expected(0..600, 1));
        drop(writing_beside);
        drop(reading);
        assert!(image(&after, DIRECTORY).len() >= before.len() - 1);
    }
}

/// Enough for the writers never to be done first on any machine that is not in trouble.
const WRITES_MAX: u64 = 50_000;

struct EndOfWriting<'a>(&'a AtomicBool);

impl Drop for EndOfWriting<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Readers open one after the other while the writer flushes and compacts without pause, on the disk:
/// each sees a prefix of what was written, no shorter than what was acknowledged before.
#[test]
fn readers_open_while_the_writer_is_busy() {
    let directory = tempfile::tempdir().unwrap();
    let options = || protected(LsmOptions::new(small_settings(TWO_THREADS)));
    let store = Lsm::open(directory.path(), options()).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let fs = MemoryFileSystem::new();
    let in_memory = Lsm::open(DIRECTORY, threaded(&fs)).unwrap();
    in_memory.create_keyspace("k", &small_keyspace()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // However this ends, the writers are told: they would else write until the disk is full.
        let _end = EndOfWriting(&done);
        for store in [&store, &in_memory] {
            let done = &done;
            scope.spawn(move || {
                let mut number = 0;
                while !done.load(Ordering::Acquire) && number < WRITES_MAX {
                    put_all(store, ks, number..number + 10, 1);
                    number += 10;
                }
            });
        }
        for round in 0..60 {
            let acknowledged = store.latest_sequence();
            let reading = if round % 2 == 0 {
                Lsm::open_read_only(directory.path(), &options()).unwrap()
            } else {
                Lsm::open_read_only(DIRECTORY, &threaded(&fs)).unwrap()
            };
            let count = reading.latest_sequence();
            assert!(
                round % 2 == 1 || count >= acknowledged,
                "{count} {acknowledged}"
            );
            let seen = contents(&reading, ks);
            assert_eq!(seen.len() as u64, count);
            assert!(seen == expected(0..count, 1));
        }
    });
    store.close().unwrap();
}
