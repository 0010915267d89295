//! Dropping a keyspace gives its space back at once; readers that have it open keep it until they go.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "how much space is left shows on the real disk"
)]

mod support;

use std::path::Path;

use support::modes::encrypted;
use support::{
    DIRECTORY, Events, TWO_THREADS, assert_contents, expected, files_in_memory, manual, protected,
    put_all, roomy_keyspace, small_keyspace, small_settings, threaded,
};
use vault_core::vfs::{CrashPolicy, MemoryFileSystem};
use vault_core::{Engine, Error, Event, KeyRange, Reader};
use vault_lsm::{Lsm, LsmOptions};

fn table_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let tables = entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "tab"));
    tables.map(|entry| entry.metadata().unwrap().len()).sum()
}

#[test]
fn the_space_comes_back_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let options = protected(LsmOptions::new(small_settings(TWO_THREADS)));
    let store = Lsm::open(directory.path(), options).unwrap();
    let large = store.create_keyspace("large", &small_keyspace()).unwrap();
    let kept = store.create_keyspace("kept", &small_keyspace()).unwrap();
    put_all(&store, kept, 0..300, 1);
    store.settle().unwrap();
    let before = table_bytes(directory.path());
    put_all(&store, large, 0..5_000, 1);
    store.settle().unwrap();
    assert!(table_bytes(directory.path()) > before + 500_000);
    store.drop_keyspace(large).unwrap();
    assert_eq!(
        table_bytes(directory.path()),
        before,
        "as soon as it returns"
    );
    assert_contents(&store, kept, &expected(0..300, 1));
}

#[test]
fn snapshots_and_cursors_keep_what_they_read() {
    let fs = MemoryFileSystem::new();
    let events = Events::default();
    let store = Lsm::open(DIRECTORY, manual(&fs).listener(events.listener())).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..1_000, 1);
    store.settle().unwrap();
    put_all(&store, ks, 1_000..1_050, 1);
    let tables = files_in_memory(&fs, DIRECTORY, ".tab").len();
    assert!(tables > 3);
    let snapshot = store.snapshot().unwrap();
    let mut cursor = store.cursor(ks, KeyRange::all()).unwrap();
    store.drop_keyspace(ks).unwrap();
    let bytes = events.all().into_iter().find_map(|event| match event {
        Event::KeyspaceDropped { id, name, bytes } => {
            assert_eq!(id, ks);
            assert!(name == "k" || encrypted() && name.contains("withheld"));
            Some(bytes)
        }
        _ => None,
    });
    assert!(bytes.unwrap() > 100_000);
    while store.background_step().unwrap() {}
    assert_eq!(files_in_memory(&fs, DIRECTORY, ".tab").len(), tables);
    assert_contents(&*snapshot, ks, &expected(0..1_050, 1));
    // A new keyspace of the same name has nothing to do with it.
    let again = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, again, 0..10, 2);
    assert_contents(&*snapshot, ks, &expected(0..1_050, 1));
    drop(snapshot);
    cursor.first().unwrap();
    let mut seen = 0;
    while cursor.entry().is_some() {
        seen += 1;
        cursor.next().unwrap();
    }
    assert_eq!(seen, 1_050, "the cursor alone still holds it");
    drop(cursor);
    while store.background_step().unwrap() {}
    assert!(
        files_in_memory(&fs, DIRECTORY, ".tab").is_empty(),
        "the last reader has gone"
    );
    assert_contents(&store, again, &expected(0..10, 2));
}

/// The unflushed writes of a dropped keyspace no longer keep log segments.
#[test]
fn the_log_no_longer_waits_for_it() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let quiet = store.create_keyspace("quiet", &roomy_keyspace()).unwrap();
    let busy = store.create_keyspace("busy", &small_keyspace()).unwrap();
    put_all(&store, quiet, 0..1, 1);
    put_all(&store, busy, 0..1_500, 1);
    store.flush(Some(busy)).unwrap();
    let oldest = store.explain_space().unwrap().log;
    assert_eq!(oldest.pinned_by.as_deref(), Some("quiet"));
    let segments = files_in_memory(&fs, DIRECTORY, ".log").len();
    assert!(segments > 2);
    store.drop_keyspace(quiet).unwrap();
    let left = files_in_memory(&fs, DIRECTORY, ".log").len();
    assert!(left <= 2, "{segments} segments before, {left} after");
    assert_contents(&store, busy, &expected(0..1_500, 1));
    store.close().unwrap();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    assert_contents(&store, busy, &expected(0..1_500, 1));
}

/// A drop that returned is durable: nothing brings the keyspace back.
#[test]
fn a_drop_survives_a_loss_of_power() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..500, 1);
    store.drop_keyspace(ks).unwrap();
    for policy in [CrashPolicy::DropUnsynced, CrashPolicy::KeepUnsynced] {
        let after = fs.crash(1, policy);
        let store = Lsm::open(DIRECTORY, manual(&after)).unwrap();
        assert!(store.keyspaces().unwrap().is_empty());
        assert!(files_in_memory(&after, DIRECTORY, ".tab").is_empty());
        let new = store.create_keyspace("k", &small_keyspace()).unwrap();
        assert!(new > ks, "ids are never reused");
        assert_contents(&store, new, &expected(0..0, 1));
    }
}

/// A flush or compaction of an encrypted keyspace that was dropped meanwhile, and its keys destroyed, failed for want of a
/// key: the background reported failures, and whoever had asked for the flush of all keyspaces heard that the keyring was
/// not acceptable.
#[test]
fn a_drop_beside_flushes_and_compactions_is_no_failure() {
    const ROUNDS: u64 = 40;
    let fs = MemoryFileSystem::new();
    let events = Events::default();
    let store = Lsm::open(DIRECTORY, threaded(&fs).listener(events.listener())).unwrap();
    let kept = store.create_keyspace("kept", &small_keyspace()).unwrap();
    for round in 0..ROUNDS {
        let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
        put_all(&store, ks, 0..400, round);
        put_all(&store, kept, round * 10..round * 10 + 10, 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The others must be flushed, whatever becomes of this one.
                store.flush(None).unwrap();
                let compacted = store.compact(ks, KeyRange::all(), &mut |_| {
                    std::ops::ControlFlow::Continue(())
                });
                let fine = matches!(compacted, Ok(_) | Err(Error::UnknownKeyspace { .. }));
                assert!(fine, "{compacted:?}");
            });
            for _ in 0..round * 3 {
                std::thread::yield_now();
            }
            store.drop_keyspace(ks).unwrap();
        });
    }
    let failed = |event: &Event| matches!(event, Event::BackgroundFailed { .. });
    assert_eq!(events.count(failed), 0, "{:?}", events.all());
    assert_contents(&store, kept, &expected(0..ROUNDS * 10, 1));
}
