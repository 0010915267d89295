//! Locking: the keys go from memory while the store stays open, and come back without opening it again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use support::keyed::Toy;
use support::{
    DIRECTORY, Events, assert_contents, assert_error, expected, files_in_memory, key,
    keyspace_stats, manual, put_all, roomy_keyspace, small_keyspace, threaded, value, wait_until,
};
use vault_core::clock::ManualClock;
use vault_core::vfs::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{
    Engine, Error, Event, EventListener, KeyRange, KeyspaceId, Reader, Timestamp, WriteBatch,
    WriteOptions,
};
use vault_lsm::{Lsm, LsmOptions};

/// A store with toy keys.
struct Keyed {
    fs: MemoryFileSystem,
    toy: Arc<Toy>,
    store: Lsm,
    ks: KeyspaceId,
}

impl Keyed {
    fn open(options: fn(&MemoryFileSystem) -> LsmOptions) -> Self {
        Self::open_with(options, |options| options)
    }

    fn open_with(
        options: fn(&MemoryFileSystem) -> LsmOptions,
        set: impl FnOnce(LsmOptions) -> LsmOptions,
    ) -> Self {
        let (fs, toy) = (MemoryFileSystem::new(), Toy::new());
        let options = set(options(&fs).protection(Arc::clone(&toy) as _));
        let store = Lsm::open(DIRECTORY, options).unwrap();
        let ks = store.create_keyspace("secret", &small_keyspace()).unwrap();
        Self { fs, toy, store, ks }
    }

    fn unlock_and_resume(&self) {
        self.toy.keys().unlock();
        self.store.resume().unwrap();
    }

    fn reopened_in(&self, fs: &MemoryFileSystem) -> Lsm {
        let options = manual(fs).protection(Arc::clone(&self.toy) as _);
        Lsm::open(DIRECTORY, options).unwrap()
    }

    fn put(&self, number: u64) -> vault_core::Result<()> {
        let (key, value) = (key(number), value(number, 1));
        let written = self.store.put(self.ks, &key, &value, &WriteOptions::OS);
        written.map(drop)
    }
}

macro_rules! assert_locked {
    ($($call:expr),+ $(,)?) => { $( assert_error!($call, Error::Locked, Unlock); )+ };
}

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
    outcome: Mutex<Option<vault_core::Result<()>>>,
    resumed: Mutex<Option<vault_core::Result<()>>>,
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

const IDLE: Duration = Duration::from_secs(60);

struct Idle {
    keyed: Keyed,
    clock: Arc<ManualClock>,
    events: Events,
}

impl Idle {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
        let events = Events::default();
        let (time, listener) = (Arc::clone(&clock), events.listener());
        let keyed = Keyed::open_with(manual, |options| {
            options.clock(time).listener(listener).lock_after_idle(IDLE)
        });
        Self {
            keyed,
            clock,
            events,
        }
    }

    /// Lets seconds pass, with steps of background work as its threads would make them.
    fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            let _ = self.keyed.store.background_step();
        }
    }
}

#[test]
fn a_store_locks_itself_when_nothing_is_asked() {
    let idle = Idle::new();
    let Keyed { store, ks, toy, .. } = &idle.keyed;
    put_all(store, *ks, 0..100, 1);
    let snapshot = store.snapshot().unwrap();
    let mut cursor = store.cursor(*ks, KeyRange::all()).unwrap();
    let mut asking: Vec<Box<dyn FnMut() + '_>> = vec![
        Box::new(|| drop(store.get(*ks, &key(1)).unwrap())),
        Box::new(|| idle.keyed.put(1).unwrap()),
        Box::new(|| drop(snapshot.get(*ks, &key(1)).unwrap())),
        Box::new(move || cursor.first().unwrap()),
        Box::new(|| store.sync().unwrap()),
    ];
    for ask in &mut asking {
        idle.pass(50);
        ask();
    }
    drop(asking);
    // Whoever only watches does not keep it from locking.
    for _ in 0..10 {
        idle.pass(5);
        store.stats().unwrap();
    }
    assert!(!store.is_locked());
    idle.pass(19);
    assert!(store.is_locked() && toy.keys().is_locked_now());
    assert_eq!(
        idle.events
            .count(|e| matches!(e, Event::Locked { idle: true })),
        1
    );
    assert_locked!(store.get(*ks, &key(1)));

    idle.pass(100);
    idle.keyed.unlock_and_resume();
    assert_eq!(idle.events.count(|e| matches!(e, Event::Resumed)), 1);
    idle.pass(50);
    assert_contents(store, *ks, &expected(0..100, 1));
    idle.pass(50);
    assert!(!store.is_locked());
    idle.pass(20);
    assert!(store.is_locked());
    assert_eq!(idle.events.count(|e| matches!(e, Event::Locked { .. })), 2);
}

#[test]
fn steps_of_a_cursor_and_pairs_of_an_ingest_count_as_asking() {
    let idle = Idle::new();
    let Keyed { store, ks, .. } = &idle.keyed;
    put_all(store, *ks, 0..20, 1);
    let mut cursor = store.cursor(*ks, KeyRange::all()).unwrap();
    cursor.first().unwrap();
    for _ in 0..10 {
        idle.pass(50);
        cursor.next().unwrap();
    }
    assert!(cursor.entry().is_some());
    let pairs = (100..110_u64).map(|number| {
        idle.pass(50);
        (key(number), value(number, 1))
    });
    store.ingest(*ks, pairs).unwrap();
    assert!(!store.is_locked());
}

#[test]
fn threads_lock_an_idle_store_too() {
    let keyed = Keyed::open_with(threaded, |options| {
        options.lock_after_idle(Duration::from_secs(1))
    });
    put_all(&keyed.store, keyed.ks, 0..100, 1);
    wait_until("it is idle for long enough", || {
        keyed.toy.keys().is_locked_now()
    });
    assert!(keyed.store.is_locked());
    // The keys are gone just before the lock is complete.
    wait_until("it has resumed", || {
        keyed.toy.keys().unlock();
        keyed.store.resume().is_ok() && !keyed.store.is_locked()
    });
    assert_contents(&keyed.store, keyed.ks, &expected(0..100, 1));
}

#[test]
fn an_idle_time_is_refused_where_there_are_no_keys() {
    let fs = MemoryFileSystem::new();
    drop(Lsm::open(DIRECTORY, manual(&fs)).unwrap());
    let opened = Lsm::open(DIRECTORY, manual(&fs).lock_after_idle(IDLE));
    let error = assert_error!(opened, Error::InvalidSetting { .. }, Input);
    assert!(error.to_string().contains("lock_after_idle"), "{error}");
    let keyed = Toy::new();
    let too_short = manual(&MemoryFileSystem::new())
        .protection(keyed)
        .lock_after_idle(Duration::from_millis(999));
    assert_error!(
        Lsm::open(DIRECTORY, too_short),
        Error::InvalidSetting { .. },
        Input
    );
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

/// Writers, readers, scans, ingests and compactions, while the store is locked and resumed over and over.
#[test]
fn nothing_acknowledged_is_lost_and_nothing_wrong_is_seen() {
    let keyed = Keyed::open(threaded);
    let began = std::sync::atomic::AtomicBool::new(true);
    let done = || !began.load(std::sync::atomic::Ordering::Acquire);
    let written: Vec<Mutex<BTreeMap<u64, u64>>> = (0..2).map(|_| Mutex::default()).collect();
    let version_of = |number: u64, found: &[u8]| -> u64 {
        let version = u64::from_le_bytes(found[..8].try_into().unwrap());
        assert_eq!(found[8..], value(number, version), "a value nobody wrote");
        version
    };
    let allowed = |error: Error| assert!(matches!(error, Error::Locked), "{error:?}");
    let (keyed, written) = (&keyed, &written);
    let cycles = std::thread::scope(|scope| {
        for (writer, own) in written.iter().enumerate() {
            scope.spawn(move || {
                let mut version = 0;
                while !done() {
                    version += 1;
                    let number = version * 7 % 500 * 2 + writer as u64;
                    let bytes = [&version.to_le_bytes()[..], &value(number, version)].concat();
                    let options = if version % 16 == 0 {
                        WriteOptions::SYNC
                    } else {
                        WriteOptions::OS
                    };
                    match keyed.store.put(keyed.ks, &key(number), &bytes, &options) {
                        Ok(_) => drop(own.lock().unwrap().insert(number, version)),
                        Err(error) => allowed(error),
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done() {
                for number in 0..1000 {
                    let least = {
                        let own = written[number as usize % 2].lock().unwrap();
                        own.get(&number).copied()
                    };
                    match keyed.store.get(keyed.ks, &key(number)) {
                        Ok(Some(found)) => {
                            let version = version_of(number, &found);
                            assert!(version >= least.unwrap_or(0), "an old value");
                        }
                        Ok(None) => assert!(least.is_none(), "{number} is gone"),
                        Err(error) => allowed(error),
                    }
                }
            }
        });
        scope.spawn(|| {
            while !done() {
                let least: Vec<u64> = {
                    let all = written.iter().map(|own| own.lock().unwrap());
                    all.flat_map(|own| own.keys().copied().collect::<Vec<_>>())
                        .collect()
                };
                let Ok(scan) = keyed.store.scan(keyed.ks, KeyRange::all()) else {
                    continue;
                };
                let seen: Result<Vec<_>, Error> = scan.collect();
                match seen {
                    Ok(seen) => {
                        let keys: std::collections::BTreeSet<_> =
                            seen.iter().map(|(key, _)| key.to_vec()).collect();
                        let missing = least.iter().find(|&&n| !keys.contains(&key(n)));
                        assert_eq!(missing, None, "missing in a scan");
                    }
                    Err(error) => allowed(error),
                }
            }
        });
        scope.spawn(|| {
            while !done() {
                let range = KeyRange::new::<&[u8]>(..);
                let compacted =
                    (keyed.store).compact(keyed.ks, range, &mut |_| ControlFlow::Continue(()));
                compacted.map_or_else(allowed, drop);
                keyed.store.flush(None).unwrap_or_else(allowed);
                let pairs = (2000..2100_u64).map(|n| (key(n), value(n, 1)));
                keyed
                    .store
                    .ingest(keyed.ks, pairs)
                    .map_or_else(allowed, drop);
            }
        });
        let mut cycles = 0;
        let until = support::ends_in(Duration::from_secs(3));
        while !until() {
            std::thread::sleep(Duration::from_millis(3 + cycles % 20));
            keyed.store.lock().unwrap();
            assert!(keyed.toy.keys().is_locked_now());
            assert_locked!(keyed.put(5000));
            keyed.unlock_and_resume();
            cycles += 1;
        }
        began.store(false, std::sync::atomic::Ordering::Release);
        cycles
    });
    assert!(cycles > 10, "{cycles} cycles");
    keyed.store.settle().unwrap();
    let check = |store: &Lsm| {
        for (number, least) in written.iter().flat_map(|own| own.lock().unwrap().clone()) {
            let found = store.get(keyed.ks, &key(number)).unwrap();
            assert_eq!(version_of(number, &found.expect("acknowledged")), least);
        }
    };
    check(&keyed.store);
    keyed.store.close().unwrap();
    check(&keyed.reopened_in(&keyed.fs));
}
