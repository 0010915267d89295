//! A store that locks itself when nothing is asked of it.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::keyed::Toy;
use support::locking::{Keyed, assert_locked};
use support::{
    DIRECTORY, Events, assert_contents, assert_error, expected, key, manual, put_all, threaded,
    value, wait_until,
};
use vault_core::clock::ManualClock;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Engine, Error, Event, KeyRange, Reader, Timestamp};
use vault_lsm::Lsm;

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
