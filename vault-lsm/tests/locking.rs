//! Locking: the keys go from memory while the store stays open, and come back without opening it again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock};

use support::keyed::Toy;
use support::locking::{Keyed, assert_locked};
use support::{
    DIRECTORY, assert_contents, assert_error, expected, files_in_memory, key, keyspace_stats,
    manual, put_all, roomy_keyspace, small_keyspace, threaded, value, wait_until,
};
use vault_core::transform::Keys as _;
use vault_core::vfs::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{
    Engine, Error, Event, EventListener, KeyRange, Reader, Result, WriteBatch, WriteOptions,
};
use vault_lsm::Lsm;

#[test]
fn every_operation_is_refused_until_the_store_resumes() {
    let Keyed { fs, toy, store, ks } = Keyed::open(threaded);
    put_all(&store, ks, 0..1000, 1);
    let snapshot = store.snapshot().unwrap();
    let mut cursor = store.cursor(ks, KeyRange::all()).unwrap();
    let mut of_snapshot = snapshot.cursor(ks, KeyRange::all()).unwrap();
    cursor.first().unwrap();
    of_snapshot.seek(&key(500)).unwrap();

    store.lock().unwrap();
    assert!(store.is_locked() && toy.keys().is_locked_now());
    let mut batch = WriteBatch::new();
    batch.put(ks, b"k", b"v");
    let (get, options) = (key(1), WriteOptions::SYNC);
    let all = || KeyRange::new::<&[u8]>(..);
    let no_pairs = || std::iter::once((b"k", b"v"));
    assert_locked!(
        store.get(ks, &get),
        store.multi_get(ks, &[&get]),
        store.cursor(ks, all()),
        store.scan(ks, all()),
        store.snapshot(),
        snapshot.get(ks, &get),
        snapshot.multi_get(ks, &[&get]),
        snapshot.cursor(ks, all()),
        cursor.next(),
        of_snapshot.prev(),
        of_snapshot.seek(&get),
        cursor.fork(),
        store.write(&batch, &options),
        store.try_write(&batch, &options),
        store.compare_and_set(ks, &get, None, Some(b"v"), &options),
        store.sync(),
        store.flush(None),
        store.settle(),
        store.compact(ks, all(), &mut |_| ControlFlow::Continue(())),
        store.ingest(ks, no_pairs()),
        store.checkpoint("/copy"),
        store.create_keyspace("more", &roomy_keyspace()),
        store.create_keyspace("secret", &small_keyspace()),
        store.keyspace("secret"),
        store.keyspaces(),
        store.drop_keyspace(ks),
        store.approximate_bytes(ks, &all()),
        store.explain_space(),
        store.background_step(),
    );
    assert!(cursor.entry().is_none() && of_snapshot.entry().is_none());
    assert!(files_in_memory(&fs, "/copy", "").is_empty());

    // What needs no key goes on, without names.
    let stats = keyspace_stats(&store, ks);
    assert!(stats.name.is_empty() && !stats.levels.is_empty());
    assert_locked!(store.resume());
    assert!(store.is_locked());

    toy.keys().unlock();
    store.resume().unwrap();
    assert!(!store.is_locked());
    assert_eq!(keyspace_stats(&store, ks).name, "secret");
    assert_contents(&store, ks, &expected(0..1000, 1));
    assert_contents(&*snapshot, ks, &expected(0..1000, 1));
    // Cursors are of use again, once they are positioned.
    assert!(cursor.entry().is_none());
    cursor.seek(&key(7)).unwrap();
    assert_eq!(cursor.entry().unwrap().0, key(7));
    put_all(&store, ks, 0..1000, 2);
    store.settle().unwrap();
    store.close().unwrap();
}

#[test]
fn locking_and_resuming_twice_is_fine_and_needs_keys() {
    let keyed = Keyed::open(manual);
    keyed.put(1).unwrap();
    keyed.store.resume().unwrap();
    for _ in 0..3 {
        keyed.store.lock().unwrap();
        keyed.store.lock().unwrap();
        keyed.unlock_and_resume();
        keyed.store.resume().unwrap();
    }
    assert_contents(&keyed.store, keyed.ks, &expected([1], 1));

    let fs = MemoryFileSystem::new();
    let plain = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    assert_error!(plain.lock(), Error::Unsupported { .. }, Input);
    assert_error!(plain.resume(), Error::Unsupported { .. }, Input);
    assert!(!plain.is_locked());
}

#[test]
fn nothing_decoded_stays_in_memtables_cache_tables_and_log() {
    let Keyed { toy, store, ks, .. } = Keyed::open(manual);
    put_all(&store, ks, 0..2000, 1);
    store.settle().unwrap();
    let opened = store.stats().unwrap().memory.table_metadata;
    assert_contents(&store, ks, &expected(0..2000, 1));
    put_all(&store, ks, 2000..2010, 1);
    let before = store.stats().unwrap();
    assert!(before.cache.bytes > 0 && before.memory.table_metadata > opened);
    assert!(keyspace_stats(&store, ks).memtable_bytes > 0);
    assert!(before.memory.log_mapped > 0);

    store.lock().unwrap();
    let after = store.stats().unwrap();
    assert_eq!(after.cache.bytes, 0);
    assert_eq!(keyspace_stats(&store, ks).memtable_bytes, 0);
    assert_eq!(keyspace_stats(&store, ks).memtables_waiting, 0);
    assert_eq!(after.memory.log_mapped, 0);
    // One table more, from the flush, and none has read anything yet.
    let table = opened
        / before.keyspaces[0]
            .levels
            .iter()
            .map(|l| l.tables as u64)
            .sum::<u64>();
    assert!(after.memory.table_metadata <= opened + 2 * table);

    toy.keys().unlock();
    store.resume().unwrap();
    assert_contents(&store, ks, &expected(0..2010, 1));
    assert!(store.stats().unwrap().cache.bytes > 0);
}

#[test]
fn the_log_goes_on_in_another_segment() {
    let keyed = Keyed::open(manual);
    keyed.put(1).unwrap();
    let segments = || -> Vec<_> {
        let files = files_in_memory(&keyed.fs, DIRECTORY, ".log");
        files.into_iter().map(|(path, _)| path).collect()
    };
    let before = segments();
    keyed.store.lock().unwrap();
    keyed.unlock_and_resume();
    keyed.put(2).unwrap();
    assert!(segments().iter().any(|segment| !before.contains(segment)));
    for fs in [
        keyed.fs.kill(),
        keyed.fs.crash(1, CrashPolicy::KeepUnsynced),
    ] {
        let again = keyed.reopened_in(&fs);
        assert_contents(&again, keyed.ks, &expected(1..3, 1));
    }
}

#[test]
fn a_full_disk_keeps_nobody_from_locking() {
    let keyed = Keyed::open(manual);
    for number in 0..50 {
        keyed.put(number).unwrap();
    }
    let full = FaultKind::Error(std::io::ErrorKind::StorageFull);
    let fault = || Fault::new(OperationClass::Write, full).sticky();
    keyed.fs.inject(fault().on_path(".tab"));
    keyed.store.lock().unwrap();
    assert!(keyed.store.is_locked() && keyed.toy.keys().is_locked_now());
    assert_locked!(keyed.put(50));
    // What could not be flushed is in the log, and stays in memory.
    let after = keyed.reopened_in(&keyed.fs.kill());
    assert_contents(&after, keyed.ks, &expected(0..50, 1));
    after.close().unwrap();
    drop(after);
    keyed.fs.clear_faults();
    let keys = keyed.toy.keys();
    assert!(keys.is_locked_now(), "those of the second handle");
}

#[test]
fn what_could_not_be_flushed_is_there_when_it_resumes() {
    let keyed = Keyed::open(manual);
    for number in 0..50 {
        keyed.put(number).unwrap();
    }
    let full = FaultKind::Error(std::io::ErrorKind::StorageFull);
    let fault = Fault::new(OperationClass::Write, full).sticky();
    keyed.fs.inject(fault.on_path(".tab"));
    keyed.store.lock().unwrap();
    assert!(keyspace_stats(&keyed.store, keyed.ks).memtables_waiting > 0);
    keyed.fs.clear_faults();
    keyed.unlock_and_resume();
    assert_contents(&keyed.store, keyed.ks, &expected(0..50, 1));
    keyed.store.settle().unwrap();
    assert_contents(&keyed.store, keyed.ks, &expected(0..50, 1));
}

#[test]
fn a_poisoned_store_is_locked_and_read_again() {
    let keyed = Keyed::open(manual);
    for number in 0..50 {
        keyed.put(number).unwrap();
    }
    let fault = Fault::new(OperationClass::Sync, FaultKind::Errno(5));
    keyed.fs.inject(fault.on_path(".log"));
    assert_error!(keyed.store.sync(), Error::Poisoned { .. }, Reopen);
    keyed.store.lock().unwrap();
    assert!(keyed.toy.keys().is_locked_now());
    assert_locked!(keyed.store.get(keyed.ks, &key(1)), keyed.put(1));
    keyed.unlock_and_resume();
    assert_contents(&keyed.store, keyed.ks, &expected(0..50, 1));
    assert_error!(keyed.put(1), Error::Poisoned { .. }, Reopen);
}

#[test]
fn keys_go_when_the_store_is_closed_and_when_the_last_handle_goes() {
    let keyed = Keyed::open(threaded);
    let cursor = keyed.store.cursor(keyed.ks, KeyRange::all()).unwrap();
    keyed.store.close().unwrap();
    assert!(keyed.toy.keys().is_locked_now());
    keyed.store.lock().unwrap();
    assert_error!(keyed.store.resume(), Error::Closed, Reopen);
    assert_error!(keyed.store.get(keyed.ks, b"k"), Error::Closed, Reopen);
    drop(cursor);

    let Keyed { toy, store, ks, .. } = Keyed::open(threaded);
    let mut cursor = store.cursor(ks, KeyRange::all()).unwrap();
    let other = store.clone();
    drop(store);
    assert!(!toy.keys().is_locked_now());
    drop(other);
    assert!(toy.keys().is_locked_now());
    assert_error!(cursor.first(), Error::Closed, Reopen);
}

#[test]
fn a_locked_store_is_closed_and_opened_again() {
    for options in [manual, threaded] {
        let keyed = Keyed::open(options);
        put_all(&keyed.store, keyed.ks, 0..300, 1);
        keyed.store.lock().unwrap();
        keyed.store.close().unwrap();
        let again = keyed.reopened_in(&keyed.fs);
        assert_contents(&again, keyed.ks, &expected(0..300, 1));
    }
}

#[test]
fn a_read_only_handle_has_keys_of_its_own() {
    let keyed = Keyed::open(manual);
    put_all(&keyed.store, keyed.ks, 0..300, 1);
    let toy = Toy::new();
    let options = manual(&keyed.fs).protection(Arc::clone(&toy) as _);
    let reading = Lsm::open_read_only(DIRECTORY, &options).unwrap();
    reading.lock().unwrap();
    assert!(toy.keys().is_locked_now() && !keyed.toy.keys().is_locked_now());
    assert_locked!(reading.get(keyed.ks, &key(1)));
    assert_contents(&keyed.store, keyed.ks, &expected(0..300, 1));
    toy.keys().unlock();
    reading.resume().unwrap();
    assert_contents(&reading, keyed.ks, &expected(0..300, 1));
}

/// Locks the store at the first event that it wants to.
struct LockingListener {
    store: OnceLock<Lsm>,
    wanted: fn(&Event) -> bool,
    outcome: Mutex<Option<Result<()>>>,
    resumed: Mutex<Option<Result<()>>>,
}

impl EventListener for LockingListener {
    fn on_event(&self, event: &Event) {
        let mut outcome = self.outcome.lock().unwrap();
        if outcome.is_some() {
            return;
        }
        if let Some(store) = self.store.get().filter(|_| (self.wanted)(event)) {
            *outcome = Some(store.lock());
            *self.resumed.lock().unwrap() = Some(store.resume());
        }
    }
}

fn locking_listener(wanted: fn(&Event) -> bool) -> Arc<LockingListener> {
    Arc::new(LockingListener {
        store: OnceLock::new(),
        wanted,
        outcome: Mutex::default(),
        resumed: Mutex::default(),
    })
}

#[test]
fn a_listener_may_lock_and_the_background_does_the_rest() {
    for options in [threaded, manual] {
        let listener = locking_listener(|event| matches!(event, Event::Flushed { .. }));
        let told = Arc::clone(&listener);
        let keyed = Keyed::open_with(options, |options| options.listener(told));
        listener.store.set(keyed.store.clone()).ok().unwrap();
        for number in 0..100 {
            keyed.put(number).unwrap();
        }
        let flushed = keyed.store.flush(None);
        assert!(
            matches!(flushed, Ok(()) | Err(Error::Locked)),
            "{flushed:?}"
        );
        // A flush of the background is over for the caller a moment before it is told of.
        wait_until("the listener was told", || {
            listener.outcome.lock().unwrap().is_some()
        });
        assert!(matches!(*listener.outcome.lock().unwrap(), Some(Ok(()))));
        let resumed = listener.resumed.lock().unwrap().take().unwrap();
        assert_error!(resumed, Error::Unsupported { .. }, Input);
        // Refused at once.
        assert!(keyed.store.is_locked());
        assert_locked!(keyed.put(1), keyed.store.get(keyed.ks, &key(1)));
        let is_manual = keyed.store.background_step();
        assert!(matches!(is_manual, Ok(_) | Err(Error::Locked)));
        wait_until("the keys are gone", || keyed.toy.keys().is_locked_now());
        wait_until("the background has locked", || {
            keyed.toy.keys().unlock();
            keyed.store.resume().is_ok()
        });
        assert_contents(&keyed.store, keyed.ks, &expected(0..100, 1));
        keyed.store.close().unwrap();
    }
}

/// An event that is told while the commit lock and the manifest lock are held.
#[test]
fn a_listener_may_lock_where_the_store_is_poisoned() {
    let listener = locking_listener(|event| matches!(event, Event::Poisoned { .. }));
    let told = Arc::clone(&listener);
    let keyed = Keyed::open_with(threaded, |options| options.listener(told));
    listener.store.set(keyed.store.clone()).ok().unwrap();
    let fault = Fault::new(OperationClass::Sync, FaultKind::Errno(5)).sticky();
    keyed.fs.inject(fault);
    let write = |n| {
        let options = WriteOptions::SYNC;
        keyed.store.put(keyed.ks, &key(n), b"value", &options)
    };
    assert!(write(1).is_err());
    wait_until("the keys are gone", || keyed.toy.keys().is_locked_now());
    assert_locked!(write(2));
}

#[test]
fn an_ingest_that_is_under_way_takes_nothing_in() {
    for options in [manual, threaded] {
        let keyed = Keyed::open(options);
        put_all(&keyed.store, keyed.ks, 0..10, 1);
        keyed.store.settle().unwrap();
        let tables = || files_in_memory(&keyed.fs, DIRECTORY, ".tab");
        let before = tables();
        let pairs = (0..2000_u64).map(|number| {
            if number == 1500 {
                keyed.store.lock().unwrap();
            }
            (key(number), value(number, 2))
        });
        assert_locked!(keyed.store.ingest(keyed.ks, pairs));
        assert_eq!(tables(), before);
        keyed.unlock_and_resume();
        assert_contents(&keyed.store, keyed.ks, &expected(0..10, 1));
    }
}

#[test]
fn a_compaction_gives_up_and_leaves_no_files() {
    for options in [manual, threaded] {
        let keyed = Keyed::open(options);
        put_all(&keyed.store, keyed.ks, 0..4000, 1);
        keyed.store.settle().unwrap();
        let tables = || files_in_memory(&keyed.fs, DIRECTORY, ".tab");
        let before = tables();
        let range = KeyRange::new::<&[u8]>(..);
        let mut calls = 0;
        let compacted = keyed.store.compact(keyed.ks, range, &mut |_| {
            calls += 1;
            if calls == 3 {
                keyed.store.lock().unwrap();
            }
            ControlFlow::Continue(())
        });
        assert_locked!(compacted);
        assert_eq!(tables(), before);
        keyed.unlock_and_resume();
        keyed.store.settle().unwrap();
        assert_contents(&keyed.store, keyed.ks, &expected(0..4000, 1));
    }
}

#[test]
fn a_checkpoint_that_is_under_way_is_given_up() {
    // Locked while its memtables are flushed.
    let listener = locking_listener(|event| matches!(event, Event::Flushed { .. }));
    let told = Arc::clone(&listener);
    let keyed = Keyed::open_with(manual, |options| options.listener(told));
    let other = keyed.store.create_keyspace("b", &small_keyspace()).unwrap();
    put_all(&keyed.store, keyed.ks, 0..100, 1);
    put_all(&keyed.store, other, 0..100, 1);
    listener.store.set(keyed.store.clone()).ok().unwrap();
    assert_locked!(keyed.store.checkpoint("/copy"));
    assert!(files_in_memory(&keyed.fs, "/copy", "").is_empty());
    assert!(keyed.store.background_step().unwrap());
    assert!(keyed.toy.keys().is_locked_now());
    keyed.unlock_and_resume();
    assert_contents(&keyed.store, keyed.ks, &expected(0..100, 1));
}

/// The keyspace is gone when it is told so; its keys are still to be destroyed, when there are none at hand.
#[test]
fn a_drop_that_a_lock_interrupts_is_finished_when_the_store_resumes() {
    let store = Arc::new(OnceLock::<(Lsm, Arc<Toy>)>::new());
    let told = Arc::clone(&store);
    let listener = move |event: &Event| {
        if let (Some((store, toy)), Event::KeyspaceDropped { .. }) = (told.get(), event) {
            store.lock().unwrap();
            wait_until("the background has locked", || toy.keys().is_locked_now());
        }
    };
    let keyed = Keyed::open_with(threaded, |options| options.listener(Arc::new(listener)));
    let gone = keyed
        .store
        .create_keyspace("gone", &small_keyspace())
        .unwrap();
    put_all(&keyed.store, gone, 0..20, 1);
    put_all(&keyed.store, keyed.ks, 0..20, 1);
    let both = (keyed.store.clone(), Arc::clone(&keyed.toy));
    store.set(both).ok().unwrap();
    assert_locked!(keyed.store.drop_keyspace(gone));
    keyed.toy.keys().unlock();
    assert!(keyed.toy.keys().domains().contains(&gone.0));
    keyed.store.resume().unwrap();
    assert!(!keyed.toy.keys().domains().contains(&gone.0));
    assert!(keyed.store.keyspace("gone").unwrap().is_none());
    assert_contents(&keyed.store, keyed.ks, &expected(0..20, 1));
}

/// Whoever has the keyring may lock it behind the store's back. Writes are refused then, before anything is in memory or in
/// the log, and go on with the keys.
#[test]
fn a_keyring_locked_by_itself_refuses_writes_and_spoils_nothing() {
    let Keyed { toy, store, ks, .. } = Keyed::open(manual);
    put_all(&store, ks, 0..10, 1);
    toy.keys().lock();
    for _ in 0..2 {
        let refused = store.put(ks, &key(10), b"refused", &WriteOptions::default());
        assert!(matches!(refused, Err(Error::Locked)), "{refused:?}");
    }
    toy.keys().unlock();
    put_all(&store, ks, 10..20, 1);
    assert_contents(&store, ks, &expected(0..20, 1));
    store.close().unwrap();
}
