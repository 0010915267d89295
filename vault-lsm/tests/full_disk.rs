//! A full disk, while writing, flushing and compacting: a typed error, reads that go on, nothing that was
//! acknowledged lost, and work that resumes once there is room, without reopening.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use support::{
    DIRECTORY, Events, TWO_THREADS, assert_contents, assert_error, expected, files_in_memory, key,
    keyspace_stats, manual, put_all, roomy_keyspace, small_keyspace, threaded, value, wait_until,
};
use vault_core::vfs::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{Engine, Error, Event, KeyRange, KeyspaceId, Result, WriteOptions};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions};

const FULL: FaultKind = FaultKind::Error(io::ErrorKind::StorageFull);

fn options(fs: &MemoryFileSystem, background: BackgroundWork) -> LsmOptions {
    if background == TWO_THREADS {
        threaded(fs)
    } else {
        manual(fs)
    }
}

/// Writes until a write is refused; gives the refusal and adds what was acknowledged.
fn write_until_refused(
    store: &Lsm,
    ks: KeyspaceId,
    acknowledged: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) -> Error {
    let first = acknowledged.len() as u64;
    for number in first..first + 100_000 {
        let (key, value) = (key(number), value(number, 1));
        match store.put(ks, &key, &value, &WriteOptions::default()) {
            Ok(_) => acknowledged.insert(key, value),
            Err(error) => return error,
        };
    }
    panic!("the disk never ran full");
}

/// The real thing: the space itself runs out, whatever is being written at that moment.
#[test]
fn the_space_runs_out_and_comes_back() {
    for background in [BackgroundWork::Manual, TWO_THREADS] {
        for capacity in [400 << 10, 555 << 10, 700 << 10] {
            let fs = MemoryFileSystem::new();
            let store = Lsm::open(DIRECTORY, options(&fs, background)).unwrap();
            let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
            fs.set_capacity(Some(capacity));
            let mut acknowledged = BTreeMap::new();
            for _ in 0..3 {
                let error = write_until_refused(&store, ks, &mut acknowledged);
                let refused: Result<()> = Err(error);
                assert_error!(refused, Error::DiskFull { .. }, Full);
                assert_contents(&store, ks, &acknowledged);
            }
            // What is there now is what any opening finds, however the process ends.
            for after in [fs.kill(), fs.crash(1, CrashPolicy::KeepUnsynced)] {
                after.set_capacity(None);
                let other = Lsm::open(DIRECTORY, options(&after, background)).unwrap();
                assert_contents(&other, ks, &acknowledged);
            }
            fs.set_capacity(None);
            resumes(&store, ks, &mut acknowledged);
            store.close().unwrap();
            let store = Lsm::open(DIRECTORY, options(&fs, background)).unwrap();
            assert_contents(&store, ks, &acknowledged);
        }
    }
}

/// Writes, flushes and compactions work again on the same handle.
fn resumes(store: &Lsm, ks: KeyspaceId, acknowledged: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    // A thread that has just failed tries again by itself; until then a writer that would have to wait
    // for it may still be given its error.
    let next = acknowledged.len() as u64;
    for number in next..next + 1_000 {
        wait_until("writes go on", || {
            let options = WriteOptions::default();
            let put = store.put(ks, &key(number), &value(number, 1), &options);
            let expected = matches!(put, Ok(_) | Err(Error::DiskFull { .. }));
            assert!(expected, "{put:?}");
            put.is_ok()
        });
    }
    acknowledged.extend(expected(next..next + 1_000, 1));
    let flushes = store.stats().unwrap().background.flushes;
    store.flush(None).unwrap();
    store.settle().unwrap();
    // The same once more: now there is something to merge.
    let before = store.stats().unwrap().written.compaction_bytes;
    put_all(store, ks, next..next + 1_000, 1);
    let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
    compacted.unwrap();
    assert!(store.stats().unwrap().written.compaction_bytes > before);
    assert!(store.stats().unwrap().background.flushes >= flushes);
    assert_eq!(keyspace_stats(store, ks).memtables_waiting, 0);
    assert_contents(store, ks, acknowledged);
}

#[test]
fn a_write_that_finds_no_room_for_the_log() {
    for class in [OperationClass::Allocate, OperationClass::Create] {
        let fs = MemoryFileSystem::new();
        let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
        let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
        let mut acknowledged = BTreeMap::new();
        fs.inject(Fault::new(class, FULL).sticky().on_path(".log"));
        let error = write_until_refused(&store, ks, &mut acknowledged);
        let refused: Result<()> = Err(error);
        let error = assert_error!(refused, Error::DiskFull { .. }, Full);
        assert!(error.to_string().contains(".log"), "{error}");
        // Again and again, with nothing written and no file left behind.
        let before = fs.list();
        for _ in 0..5 {
            let put = store.put(ks, b"k", b"v", &WriteOptions::SYNC);
            assert_error!(put, Error::DiskFull { .. }, Full);
        }
        assert_eq!(fs.list(), before);
        assert_contents(&store, ks, &acknowledged);
        fs.clear_faults();
        resumes(&store, ks, &mut acknowledged);
    }
}

#[test]
fn a_flush_that_finds_no_room() {
    for (class, after, path) in [
        (OperationClass::Create, 0, ".tab"),
        (OperationClass::Write, 0, ".tab"),
        (OperationClass::Sync, 0, ".tab"),
        (OperationClass::Write, 0, ".man"),
    ] {
        let fs = MemoryFileSystem::new();
        let events = Events::default();
        let store = Lsm::open(DIRECTORY, manual(&fs).listener(events.listener())).unwrap();
        let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
        put_all(&store, ks, 0..500, 1);
        let mut acknowledged = expected(0..500, 1);
        fs.inject(Fault::new(class, FULL).after(after).sticky().on_path(path));
        for _ in 0..3 {
            let flushed = store.flush(None);
            assert!(flushed.is_err(), "{class:?} {after} {path}");
            assert_error!(flushed, Error::DiskFull { .. }, Full);
        }
        assert_error!(store.background_step(), Error::DiskFull { .. }, Full);
        assert_eq!(
            events.count(|e| matches!(e, Event::BackgroundFailed { job: "flush", .. })),
            1
        );
        // The next log segment is prepared before anything is flushed, and needs the manifest too.
        let failures = if path == ".man" { 2 } else { 1 };
        assert_eq!(store.stats().unwrap().background.failures, failures);
        let left = files_in_memory(&fs, DIRECTORY, ".tab");
        assert!(
            left.is_empty(),
            "a full disk is not filled further: {left:?}"
        );
        assert_contents(&store, ks, &acknowledged);
        // The log still takes writes: what was begun is not lost with it.
        put_all(&store, ks, 500..510, 1);
        acknowledged.extend(expected(500..510, 1));
        let killed = fs.kill();
        let other = Lsm::open(DIRECTORY, manual(&killed)).unwrap();
        assert_contents(&other, ks, &acknowledged);
        fs.clear_faults();
        resumes(&store, ks, &mut acknowledged);
        store.close().unwrap();
        let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
        assert_contents(&store, ks, &acknowledged);
    }
}

#[test]
fn a_compaction_that_finds_no_room() {
    for (class, after, path) in [
        (OperationClass::Create, 1, ".tab"),
        (OperationClass::Write, 2, ".tab"),
        (OperationClass::Write, 0, ".man"),
    ] {
        let fs = MemoryFileSystem::new();
        let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
        let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
        for _ in 0..3 {
            put_all(&store, ks, 0..400, 1);
            store.flush(None).unwrap();
        }
        let mut acknowledged = expected(0..400, 1);
        let tables = files_in_memory(&fs, DIRECTORY, ".tab");
        fs.inject(Fault::new(class, FULL).after(after).sticky().on_path(path));
        for _ in 0..3 {
            let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
            assert_error!(compacted, Error::DiskFull { .. }, Full);
            assert_eq!(files_in_memory(&fs, DIRECTORY, ".tab"), tables, "{path}");
        }
        assert_contents(&store, ks, &acknowledged);
        put_all(&store, ks, 400..410, 1);
        acknowledged.extend(expected(400..410, 1));
        let killed = fs.kill();
        let other = Lsm::open(DIRECTORY, manual(&killed)).unwrap();
        assert_contents(&other, ks, &acknowledged);
        fs.clear_faults();
        resumes(&store, ks, &mut acknowledged);
    }
}

/// Background threads that fail keep trying: nobody has to ask for it.
#[test]
fn threads_resume_by_themselves() {
    let fs = MemoryFileSystem::new();
    let events = Events::default();
    let store = Lsm::open(DIRECTORY, threaded(&fs).listener(events.listener())).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    fs.inject(
        Fault::new(OperationClass::Create, FULL)
            .sticky()
            .on_path(".tab"),
    );
    let mut acknowledged = BTreeMap::new();
    let refused: Result<()> = Err(write_until_refused(&store, ks, &mut acknowledged));
    assert_error!(refused, Error::DiskFull { .. }, Full);
    wait_until("it was told", || {
        events.count(|e| matches!(e, Event::BackgroundFailed { .. })) > 0
    });
    assert_contents(&store, ks, &acknowledged);
    fs.clear_faults();
    wait_until("the memtables are flushed", || {
        keyspace_stats(&store, ks).memtables_waiting == 0
    });
    resumes(&store, ks, &mut acknowledged);
}

/// Creating and dropping keyspaces without room changes nothing.
#[test]
fn keyspaces_on_a_full_disk() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..300, 1);
    fs.inject(
        Fault::new(OperationClass::Write, FULL)
            .sticky()
            .on_path(".man"),
    );
    fs.inject(
        Fault::new(OperationClass::Create, FULL)
            .sticky()
            .on_path(".man"),
    );
    for _ in 0..2 {
        let created = store.create_keyspace("new", &small_keyspace());
        assert_error!(created, Error::DiskFull { .. }, Full);
        assert_error!(store.drop_keyspace(ks), Error::DiskFull { .. }, Full);
    }
    assert_eq!(store.keyspaces().unwrap().len(), 1);
    assert_contents(&store, ks, &expected(0..300, 1));
    fs.clear_faults();
    let new = store.create_keyspace("new", &small_keyspace()).unwrap();
    assert_ne!(new, ks);
    store.drop_keyspace(ks).unwrap();
    store.close().unwrap();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    assert_eq!(store.keyspaces().unwrap().len(), 1);
    assert_eq!(store.keyspace("new").unwrap(), Some(new));
}

/// Opening without room is refused, and the store is as it was.
#[test]
fn opening_on_a_full_disk() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..300, 1);
    store.close().unwrap();
    fs.set_capacity(Some(fs.bytes_used()));
    assert_error!(
        Lsm::open(DIRECTORY, manual(&fs)),
        Error::DiskFull { .. },
        Full
    );
    let reading = Lsm::open_read_only(DIRECTORY, &manual(&fs)).unwrap();
    assert_contents(&reading, ks, &expected(0..300, 1));
    fs.set_capacity(None);
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    assert_contents(&store, ks, &expected(0..300, 1));
}
