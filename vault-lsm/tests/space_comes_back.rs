//! Space comes back without being asked for: on real files, with the engine's own threads, nobody calls `flush`, `compact` or
//! `settle` after what makes it free. Each test waits for as long as a minute, and goes on as soon as it sees it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::time::Duration;

use support::{key, put_all, value};
use vault_core::clock::SystemClock;
use vault_core::{
    Clock, Durability, Engine, KeyspaceId, KeyspaceOptions, Reader, WriteBatch, WriteOptions,
};
use vault_lsm::{Lsm, LsmOptions};

const ENTRIES: u64 = 60_000;
/// Longest that space is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(directory: &Path) -> (Lsm, KeyspaceId) {
    let options = support::protected(LsmOptions::default()).durability(Durability::Os);
    let store = Lsm::open(directory, options).unwrap();
    let keyspace = KeyspaceOptions {
        // Small beside the store: what level 0 hides below it waits there until there is more of it.
        write_buffer_bytes: 128 << 10,
        table_bytes: 256 << 10,
        ..KeyspaceOptions::default()
    };
    let ks = store.create_keyspace("k", &keyspace).unwrap();
    (store, ks)
}

/// Bytes that the directory takes up on the disk: segments of the log are longer than what is in them.
#[expect(
    clippy::disallowed_methods,
    reason = "what the real file system says is what counts"
)]
fn bytes_of(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(directory).unwrap();
    // Files may go while they are looked at.
    let blocks = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.blocks()));
    blocks.map(|blocks| blocks * 512).sum()
}

/// Waits until the directory has at most `goal` bytes.
#[track_caller]
fn wait_for(directory: &Path, goal: u64) {
    let clock = SystemClock::new();
    while bytes_of(directory) > goal {
        assert!(
            clock.monotonic() < PATIENCE,
            "{} bytes, and not {goal}, after {PATIENCE:?}",
            bytes_of(directory)
        );
        clock.sleep(Duration::from_millis(50));
    }
}

/// Fills the store and gives what its directory takes up then.
fn fill(store: &Lsm, ks: KeyspaceId, directory: &Path) -> u64 {
    put_all(store, ks, 0..ENTRIES, 1);
    store.flush(None).unwrap();
    store.settle().unwrap();
    bytes_of(directory)
}

fn assert_empty(store: &Lsm, ks: KeyspaceId) {
    let mut cursor = store.cursor(ks, vault_core::KeyRange::all()).unwrap();
    cursor.first().unwrap();
    assert_eq!(cursor.entry(), None);
}

#[test]
fn after_every_key_was_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ks) = open(directory.path());
    let before = fill(&store, ks, directory.path());
    // In another order than they were written.
    for number in (0..ENTRIES).rev() {
        let options = WriteOptions::OS;
        store.delete(ks, &key(number), &options).unwrap();
    }
    wait_for(directory.path(), before / 20);
    assert_empty(&store, ks);
}

#[test]
fn after_one_range_delete() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ks) = open(directory.path());
    let before = fill(&store, ks, directory.path());
    let mut batch = WriteBatch::new();
    batch.delete_range(ks, &key(0), &key(ENTRIES));
    store.write(&batch, &WriteOptions::OS).unwrap();
    wait_for(directory.path(), before / 20);
    assert_empty(&store, ks);
    // The tables went as they were: none was read for it.
    let stats = store.stats().unwrap();
    assert!(
        stats.background.tables_dropped > 1,
        "{:?}",
        stats.background
    );
}

#[test]
fn after_everything_has_expired() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ks) = open(directory.path());
    let expiry = store.now().after(Duration::from_secs(4)).unwrap();
    let mut batch = WriteBatch::new();
    for number in 0..ENTRIES {
        batch.put_until(ks, &key(number), &value(number, 1), expiry);
        if number % 100 == 99 {
            store.write(&batch, &WriteOptions::OS).unwrap();
            batch = WriteBatch::new();
        }
    }
    let before = bytes_of(directory.path());
    // The last of them never left the memtable: it goes too.
    wait_for(directory.path(), before / 20);
    assert_empty(&store, ks);
}

/// The store is as good as new afterwards: it takes writes, and finds them again.
#[test]
fn and_the_store_goes_on_from_there() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ks) = open(directory.path());
    let before = fill(&store, ks, directory.path());
    let mut batch = WriteBatch::new();
    batch.delete_range(ks, &key(0), &key(ENTRIES));
    store.write(&batch, &WriteOptions::OS).unwrap();
    wait_for(directory.path(), before / 20);
    put_all(&store, ks, 10..2_000, 2);
    store.close().unwrap();
    drop(store);
    let (store, ks) = open(directory.path());
    support::assert_contents(&store, ks, &support::expected(10..2_000, 2));
}

/// A snapshot that is held while keys are overwritten costs what it pins, `explain_space` says so, and releasing it gives the
/// space back.
#[test]
fn after_a_snapshot_is_released() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ks) = open(directory.path());
    let before = fill(&store, ks, directory.path());
    let snapshot = store.snapshot().unwrap();
    // A quarter of the keys, several times: what is pinned is one version of each.
    for version in 2..5 {
        put_all(&store, ks, (0..ENTRIES).step_by(4), version);
    }
    store.flush(None).unwrap();
    store.settle().unwrap();
    let during: u64 = {
        let report = store.explain_space().unwrap();
        let held = report
            .pinned
            .iter()
            .find(|held| held.sequence == snapshot.sequence())
            .unwrap();
        let tables = report.keyspaces[0].table_bytes;
        // A fifth of five quarters; nobody else holds any of it.
        let share = held.bytes * 100 / tables;
        assert!((15..=25).contains(&share), "{share} %: {report:?}");
        assert_eq!(held.alone_bytes, held.bytes);
        tables
    };
    assert!(
        during < before * 3 / 2,
        "{during} bytes while held, {before} before"
    );
    let old = snapshot.get(ks, &key(4)).unwrap().unwrap();
    assert_eq!(&old[..], value(4, 1));
    drop(snapshot);
    let clock = SystemClock::new();
    loop {
        let report = store.explain_space().unwrap();
        let tables = report.keyspaces[0].table_bytes;
        if tables < during * 88 / 100 && report.obsolete_bytes * 10 < tables {
            break;
        }
        assert!(clock.monotonic() < PATIENCE, "{report:?}");
        clock.sleep(Duration::from_millis(50));
    }
}
