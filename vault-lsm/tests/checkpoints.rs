//! Checkpoints: a store of its own with exactly the data of one moment, made while writers go on, sharing
//! the tables' space; and one that is interrupted is no store, and harms nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg_attr(
    unix,
    expect(
        clippy::disallowed_methods,
        reason = "whether tables are shared shows in the real disk's link counts"
    )
)]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use support::{
    DIRECTORY, Events, TWO_THREADS, assert_contents, assert_error, contents, expected,
    files_in_memory, image, key, manual, protected, put_all, roomy_keyspace, small_keyspace,
    small_settings, threaded, value,
};
use vault_core::vfs::{
    CrashPolicy, Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass,
};
use vault_core::{Engine, Error, Event, EventListener, KeyspaceId, WriteBatch, WriteOptions};
use vault_lsm::{Lsm, LsmOptions, OpenMode};

const COPY: &str = "/copies/one";

#[test]
fn a_checkpoint_is_a_store_of_its_own() {
    let fs = MemoryFileSystem::new();
    let events = Events::default();
    let store = Lsm::open(DIRECTORY, manual(&fs).listener(events.listener())).unwrap();
    let one = store.create_keyspace("one", &small_keyspace()).unwrap();
    let two = store.create_keyspace("two", &roomy_keyspace()).unwrap();
    put_all(&store, one, 0..1_000, 1);
    put_all(&store, two, 0..50, 1);
    let outcome = store.checkpoint(COPY).unwrap();
    assert_eq!(outcome.sequence, store.latest_sequence());
    assert!(outcome.tables_linked > 1 && outcome.bytes_linked > 0);
    assert_eq!(outcome.tables_copied, 0);
    assert_eq!(
        events.count(|e| matches!(e, Event::Checkpointed { path, .. } if path == Path::new(COPY))),
        1
    );
    // Each goes its own way, open at the same time.
    let copy = Lsm::open(COPY, manual(&fs).mode(OpenMode::MustExist)).unwrap();
    assert_eq!(copy.latest_sequence(), outcome.sequence);
    put_all(&store, one, 0..1_000, 2);
    put_all(&copy, one, 0..1_000, 3);
    store.drop_keyspace(two).unwrap();
    store.settle().unwrap();
    copy.settle().unwrap();
    assert_contents(&store, one, &expected(0..1_000, 2));
    assert_contents(&copy, one, &expected(0..1_000, 3));
    assert_contents(&copy, two, &expected(0..50, 1));
    // And a checkpoint of the checkpoint.
    copy.checkpoint("/copies/two").unwrap();
    copy.close().unwrap();
    store.close().unwrap();
    let second = Lsm::open("/copies/two", manual(&fs)).unwrap();
    assert_contents(&second, one, &expected(0..1_000, 3));
}

/// When it returns, a loss of power leaves the whole copy.
#[test]
fn a_checkpoint_is_durable_when_it_returns() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..500, 1);
    fs.create_dir_all(Path::new("/copies")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    store.checkpoint(COPY).unwrap();
    let after = fs.crash(3, CrashPolicy::DropUnsynced);
    let copy = Lsm::open(COPY, manual(&after).mode(OpenMode::MustExist)).unwrap();
    assert_contents(&copy, ks, &expected(0..500, 1));
}

/// As the test before, where the checkpoint has to create the directory above, too.
#[test]
fn a_checkpoint_below_a_new_directory_is_durable() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..50, 1);
    store.checkpoint("/a/b/c").unwrap();
    let after = fs.crash(3, CrashPolicy::DropUnsynced);
    let copy = Lsm::open("/a/b/c", manual(&after).mode(OpenMode::MustExist)).unwrap();
    assert_contents(&copy, ks, &expected(0..50, 1));
}

/// The copy is of one moment in all keyspaces: a batch that writes to both is in it for both or neither.
#[test]
fn one_moment_across_keyspaces_while_writers_go_on() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, threaded(&fs)).unwrap();
    let create = |name: &str| store.create_keyspace(name, &small_keyspace()).unwrap();
    let keyspaces = [create("a"), create("b"), create("c")];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..20_000 {
                let mut batch = WriteBatch::new();
                for ks in keyspaces {
                    batch.put(ks, &key(number), &value(number, 1));
                }
                store.write(&batch, &WriteOptions::default()).unwrap();
                if done.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        let mut before = 0;
        for round in 0..8 {
            let path = format!("/copy-{round}");
            let earliest = store.latest_sequence();
            let outcome = store.checkpoint(&path).unwrap();
            let latest = store.latest_sequence();
            assert!((earliest..=latest).contains(&outcome.sequence));
            assert_eq!(outcome.sequence % 3, 0, "no batch is cut");
            let copy = Lsm::open(&path, manual(&fs)).unwrap();
            let count = outcome.sequence / 3;
            for ks in keyspaces {
                assert_contents(&copy, ks, &expected(0..count, 1));
            }
            assert!(count >= before);
            before = count;
        }
        done.store(true, Ordering::Release);
    });
    store.settle().unwrap();
    let written = contents(&store, keyspaces[0]).len() as u64;
    for ks in keyspaces {
        assert_contents(&store, ks, &expected(0..written, 1));
    }
}

#[test]
fn what_is_in_the_way_is_left_alone() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..300, 1);
    fs.create_dir_all(Path::new("/empty")).unwrap();
    fs.write_file("/file", b"mine").unwrap();
    for target in ["/empty", "/file", DIRECTORY] {
        let before = image(&fs, "/");
        let error = assert_error!(store.checkpoint(target), Error::TargetExists { .. }, Input);
        assert!(error.to_string().contains(target), "{error}");
        assert_eq!(image(&fs, "/"), before, "{target}");
    }
}

/// A listener that does something at the first flush after it was armed: in the midst of a checkpoint, after its look at the target.
fn at_a_flush(
    armed: &Arc<AtomicBool>,
    act: impl Fn() + Send + Sync + 'static,
) -> Arc<dyn EventListener> {
    let armed = Arc::clone(armed);
    Arc::new(move |event: &Event| {
        if matches!(event, Event::Flushed { .. }) && armed.swap(false, Ordering::AcqRel) {
            act();
        }
    })
}

/// The target was looked at, then everything was flushed, then the directory was created, which was no error where it existed. Linking
/// the first table failed then, and what was removed for that was the checkpoint of whoever had been faster.
#[test]
fn a_checkpoint_that_was_made_meanwhile_is_left_alone() {
    let fs = MemoryFileSystem::new();
    let armed = Arc::new(AtomicBool::new(false));
    let files = fs.clone();
    let faster = at_a_flush(&armed, move || {
        files.create_dir_all(Path::new(COPY)).unwrap();
        for (path, bytes) in image(&files, "/first") {
            let to = Path::new(COPY).join(path.file_name().unwrap());
            files.write_file(to, &bytes).unwrap();
        }
    });
    let store = Lsm::open(DIRECTORY, manual(&fs).listener(faster)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..300, 1);
    store.checkpoint("/first").unwrap();
    let first = image(&fs, "/first");
    put_all(&store, ks, 300..310, 1);
    armed.store(true, Ordering::Release);
    assert_error!(store.checkpoint(COPY), Error::TargetExists { .. }, Input);
    assert!(!armed.load(Ordering::Acquire), "it was flushed for it");
    let left = image(&fs, COPY);
    let names = |image: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<(OsString, Vec<u8>)> {
        let files = image.iter();
        files
            .map(|(path, bytes)| (path.file_name().unwrap().to_owned(), bytes.clone()))
            .collect()
    };
    assert!(names(&left) == names(&first), "{:?}", left.keys());
    let copy = Lsm::open(COPY, manual(&fs).mode(OpenMode::MustExist)).unwrap();
    assert_contents(&copy, ks, &expected(0..300, 1));
}

/// Also where nothing is in it yet, or something that is none of a store's.
#[test]
fn a_directory_that_was_made_meanwhile_is_left_alone() {
    for name in [None, Some("mine")] {
        let fs = MemoryFileSystem::new();
        let armed = Arc::new(AtomicBool::new(false));
        let files = fs.clone();
        let faster = at_a_flush(&armed, move || {
            files.create_dir_all(Path::new(COPY)).unwrap();
            if let Some(name) = name {
                files
                    .write_file(Path::new(COPY).join(name), b"mine")
                    .unwrap();
            }
        });
        let store = Lsm::open(DIRECTORY, manual(&fs).listener(faster)).unwrap();
        let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
        put_all(&store, ks, 0..10, 1);
        armed.store(true, Ordering::Release);
        assert_error!(store.checkpoint(COPY), Error::TargetExists { .. }, Input);
        assert!(fs.kind(Path::new(COPY)).unwrap().is_some());
        assert_eq!(image(&fs, COPY).len(), usize::from(name.is_some()));
    }
}

/// Of several checkpoints to one path, one succeeds, and it is whole.
#[test]
fn of_checkpoints_to_one_path_one_gets_it() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, threaded(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    for round in 0..20 {
        let numbers = round * 100..(round + 1) * 100;
        put_all(&store, ks, numbers, 1);
        let target = format!("/copies/{round}");
        let start = Barrier::new(3);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let make = || {
                start.wait();
                store.checkpoint(&target)
            };
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(make)).collect();
            let outcomes = threads.into_iter().map(|thread| thread.join().unwrap());
            outcomes.collect()
        });
        for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert!(matches!(refused, Error::TargetExists { .. }), "{refused:?}");
        }
        let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(made, 1, "{outcomes:?}");
        let copy = Lsm::open(&target, manual(&fs).mode(OpenMode::MustExist)).unwrap();
        assert_contents(&copy, ks, &expected(0..(round + 1) * 100, 1));
    }
}

/// Where links are not possible, tables are copied.
#[test]
fn without_hard_links_tables_are_copied() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..1_000, 1);
    let crosses = FaultKind::Error(std::io::ErrorKind::CrossesDevices);
    fs.inject(Fault::new(OperationClass::Link, crosses).sticky());
    let outcome = store.checkpoint(COPY).unwrap();
    assert_eq!(outcome.tables_linked, 0);
    assert_eq!(outcome.bytes_linked, 0);
    assert!(outcome.tables_copied > 1);
    let copy = Lsm::open(COPY, manual(&fs)).unwrap();
    assert_contents(&copy, ks, &expected(0..1_000, 1));
}

/// Fails every operation of a checkpoint in turn, with several errors.
#[test]
fn an_interrupted_checkpoint_is_no_store_and_harms_nothing() {
    for kind in [
        FaultKind::Error(std::io::ErrorKind::StorageFull),
        FaultKind::Error(std::io::ErrorKind::Other),
        FaultKind::ShortWrite,
    ] {
        let mut failed = 0;
        for nth in 0.. {
            let (fs, ks) = store_to_copy();
            let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
            put_all(&store, ks, 500..600, 1);
            let began = fs.operations();
            fs.inject(Fault::new(OperationClass::Any, kind).after(nth));
            let outcome = store.checkpoint(COPY);
            let fired = fs.operations() - began > nth;
            fs.clear_faults();
            if outcome.is_err() {
                failed += 1;
            }
            check_copy(&fs, ks, outcome.is_ok());
            // The source reads on, and opens again with everything.
            assert_contents(&store, ks, &expected(0..600, 1));
            drop(store);
            let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
            assert_contents(&store, ks, &expected(0..600, 1));
            if !fired {
                break;
            }
        }
        assert!(failed >= 3, "{kind:?}: {failed} operations failed");
    }
}

/// Cuts the process off at every operation of a checkpoint in turn.
#[test]
fn a_process_that_ends_during_a_checkpoint() {
    for nth in 0.. {
        let (fs, ks) = store_to_copy();
        let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
        put_all(&store, ks, 500..600, 1);
        let began = fs.operations();
        fs.set_crash_point(Some(began + nth));
        let outcome = store.checkpoint(COPY);
        for (seed, after) in [
            (0, fs.kill()),
            (1, fs.crash(nth, CrashPolicy::Random { percent: 50 })),
            (2, fs.crash(nth, CrashPolicy::DropUnsynced)),
        ] {
            check_copy(&after, ks, outcome.is_ok() && seed == 0);
            let source = Lsm::open(DIRECTORY, manual(&after)).unwrap();
            let seen = contents(&source, ks).len() as u64;
            // Writes of the default durability may go with the power, not with the process.
            assert!(seen == 600 || (seed > 0 && seen >= 500), "{seen}");
            assert_contents(&source, ks, &expected(0..seen, 1));
        }
        if outcome.is_ok() {
            break;
        }
        assert!(nth < 1_000, "it never ended");
    }
}

/// A closed store with several tables, in durable files.
fn store_to_copy() -> (MemoryFileSystem, KeyspaceId) {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(Path::new("/copies")).unwrap();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..500, 1);
    store.flush(None).unwrap();
    store.close().unwrap();
    (fs.crash(0, CrashPolicy::KeepUnsynced), ks)
}

/// The target opens with everything, or is no store.
fn check_copy(fs: &MemoryFileSystem, ks: KeyspaceId, complete: bool) {
    match Lsm::open(COPY, manual(fs).mode(OpenMode::MustExist)) {
        Ok(copy) => assert_contents(&copy, ks, &expected(0..600, 1)),
        Err(error) => {
            assert!(!complete, "{error}");
            assert!(
                matches!(error, Error::NoSuchStore { .. } | Error::Corruption { .. }),
                "{error:?}"
            );
        }
    }
    assert!(!complete || !files_in_memory(fs, COPY, ".tab").is_empty());
}

#[cfg(unix)]
#[test]
fn tables_are_shared_on_the_disk() {
    use std::os::unix::fs::MetadataExt as _;
    let parent = tempfile::tempdir().unwrap();
    let options = || protected(LsmOptions::new(small_settings(TWO_THREADS)));
    let source = parent.path().join("source");
    let store = Lsm::open(&source, options()).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..1_000, 1);
    let target = parent.path().join("target");
    let outcome = store.checkpoint(&target).unwrap();
    let (mut tables, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(&target).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "tab") {
            let copy = std::fs::metadata(&path).unwrap();
            tables += 1;
            bytes += copy.len();
            // The source may have compacted its own name away by now; then one is left.
            if let Ok(original) = std::fs::metadata(source.join(path.file_name().unwrap())) {
                assert_eq!((copy.nlink(), copy.ino()), (2, original.ino()));
            }
        }
    }
    assert_eq!(
        (tables, bytes),
        (outcome.tables_linked, outcome.bytes_linked)
    );
    // The source lets go of all of them; the copy keeps them.
    store.drop_keyspace(ks).unwrap();
    store.close().unwrap();
    let copy = Lsm::open(&target, options()).unwrap();
    assert_contents(&copy, ks, &expected(0..1_000, 1));
    copy.close().unwrap();
    for entry in std::fs::read_dir(&target).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "tab") {
            assert_eq!(std::fs::metadata(&path).unwrap().nlink(), 1);
        }
    }
}

/// The directory had been created when the one above it could not be synced. It stayed, and was in the way of
/// the next attempt.
#[test]
fn a_directory_that_was_begun_is_removed() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..100, 1);
    fs.create_dir_all(Path::new("/copies")).unwrap();
    let failing = FaultKind::Error(std::io::ErrorKind::StorageFull);
    let fault = Fault::new(OperationClass::SyncDir, failing).on_path("copies");
    fs.inject(fault);
    assert_error!(store.checkpoint(COPY), Error::DiskFull { .. }, Full);
    assert_eq!(fs.kind(Path::new(COPY)).unwrap(), None);
    store.checkpoint(COPY).unwrap();
    let copy = Lsm::open(COPY, manual(&fs)).unwrap();
    assert_contents(&copy, ks, &expected(0..100, 1));
}
