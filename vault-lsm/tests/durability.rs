//! What survives what: a `Sync` write a loss of power, an `Os` write the end of the process; and many
//! writers share a sync.

mod support;

use std::path::Path;
use std::sync::Barrier;

use support::{
    DIRECTORY, TWO_THREADS, assert_contents, contents, expected, key, manual, protected, put_all,
    roomy_keyspace, small_keyspace, small_settings, value,
};
use vault_core::vfs::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{Durability, Engine, Error, Event, Reader, WriteBatch, WriteOptions};
use vault_lsm::{Lsm, LsmOptions};

#[test]
fn a_sync_write_survives_a_loss_of_power() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(Path::new("/new/place"), manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let mut written = 0;
    for round in 0..20 {
        // Unsynced ones before it come along: what is left is always a prefix.
        put_all(&store, ks, written..written + 30, 1);
        written += 30;
        let put = store.put(ks, &key(written), &value(written, 1), &WriteOptions::SYNC);
        put.unwrap();
        written += 1;
        if round % 5 == 4 {
            store.settle().unwrap();
        }
        for policy in [
            CrashPolicy::DropUnsynced,
            CrashPolicy::KeepUnsynced,
            CrashPolicy::Random { percent: 50 },
        ] {
            let after = fs.crash(round, policy);
            let other = Lsm::open(Path::new("/new/place"), manual(&after)).unwrap();
            assert_contents(&other, ks, &expected(0..written, 1));
        }
    }
}

/// Writes that nobody synced may go with the power, but only from the end.
#[test]
fn os_writes_survive_the_process_and_a_prefix_of_them_the_power() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let other = store.create_keyspace("other", &roomy_keyspace()).unwrap();
    store.sync().unwrap();
    for number in 0..600 {
        let mut batch = WriteBatch::new();
        batch.put(ks, &key(number), &value(number, 1));
        batch.put(other, &key(number), &value(number, 1));
        store.write(&batch, &WriteOptions::OS).unwrap();
        if number == 450 {
            store.flush(Some(ks)).unwrap();
        }
    }
    let killed = Lsm::open(DIRECTORY, manual(&fs.kill())).unwrap();
    assert_contents(&killed, ks, &expected(0..600, 1));
    assert_contents(&killed, other, &expected(0..600, 1));
    for seed in 0..30 {
        let after = fs.crash(seed, CrashPolicy::Random { percent: 70 });
        let left = Lsm::open(DIRECTORY, manual(&after)).unwrap();
        let count = contents(&left, other).len() as u64;
        assert_contents(&left, other, &expected(0..count, 1));
        // Both keyspaces end at the same write, though one had been flushed.
        assert_contents(&left, ks, &expected(0..count, 1));
        assert!(count > 450, "what is flushed is durable");
    }
}

#[test]
fn sync_makes_durable_what_was_written_before() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    put_all(&store, ks, 0..100, 1);
    let lost = Lsm::open(DIRECTORY, manual(&fs.crash(0, CrashPolicy::DropUnsynced))).unwrap();
    assert!(contents(&lost, ks).is_empty(), "nobody asked for more");
    store.sync().unwrap();
    let kept = Lsm::open(DIRECTORY, manual(&fs.crash(0, CrashPolicy::DropUnsynced))).unwrap();
    assert_contents(&kept, ks, &expected(0..100, 1));
}

/// The store's default holds where a write names none.
#[test]
fn the_default_of_the_store() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs).durability(Durability::Sync)).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    put_all(&store, ks, 0..10, 1);
    store
        .put(ks, &key(10), &value(10, 1), &WriteOptions::OS)
        .unwrap();
    let after = fs.crash(0, CrashPolicy::DropUnsynced);
    let left = Lsm::open(DIRECTORY, manual(&after)).unwrap();
    assert_contents(&left, ks, &expected(0..10, 1));
}

/// Sixteen threads of `Sync` writes, on the disk: far fewer syncs than writes, and none is lost.
#[test]
fn many_writers_share_a_sync() {
    const THREADS: u64 = 16;
    const WRITES: u64 = 40;
    let directory = tempfile::tempdir().unwrap();
    let options = || protected(LsmOptions::new(small_settings(TWO_THREADS)));
    let store = Lsm::open(directory.path(), options()).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    let together = Barrier::new(THREADS as usize);
    let before = store.stats().unwrap().log;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, together) = (&store, &together);
            scope.spawn(move || {
                for write in 0..WRITES {
                    // All at once, so that it shows on a fast disk, too.
                    together.wait();
                    let number = thread * WRITES + write;
                    let put = store.put(ks, &key(number), &value(number, 1), &WriteOptions::SYNC);
                    put.unwrap();
                }
            });
        }
    });
    let log = store.stats().unwrap().log;
    let (syncs, writes) = (
        log.syncs - before.syncs,
        log.writes_synced - before.writes_synced,
    );
    assert_eq!(writes, THREADS * WRITES);
    assert!(syncs >= WRITES, "each round needs one: {syncs}");
    assert!(syncs * 2 < writes, "{syncs} syncs for {writes} writes");
    store.close().unwrap();
    let store = Lsm::open(directory.path(), options()).unwrap();
    assert_contents(&store, ks, &expected(0..THREADS * WRITES, 1));
}

/// A sync that fails is final: the write says so, the store takes no more, and reading goes on.
#[test]
fn a_failed_sync_poisons_the_store() {
    let fs = MemoryFileSystem::new();
    let events = support::Events::default();
    let store = Lsm::open(DIRECTORY, manual(&fs).listener(events.listener())).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    put_all(&store, ks, 0..10, 1);
    store.sync().unwrap();
    let broken = FaultKind::Error(std::io::ErrorKind::Other);
    fs.inject(Fault::new(OperationClass::Sync, broken).on_path(".log"));
    let put = store.put(ks, &key(10), &value(10, 1), &WriteOptions::SYNC);
    support::assert_error!(put, Error::Poisoned { .. }, Reopen);
    for _ in 0..2 {
        let put = store.put(ks, b"k", b"v", &WriteOptions::OS);
        support::assert_error!(put, Error::Poisoned { .. }, Reopen);
        support::assert_error!(store.sync(), Error::Poisoned { .. }, Reopen);
        support::assert_error!(store.flush(None), Error::Poisoned { .. }, Reopen);
    }
    assert_eq!(events.count(|e| matches!(e, Event::Poisoned { .. })), 1);
    assert!(store.get(ks, &key(3)).unwrap().is_some());
    store.close().unwrap();
    let after = fs.crash(0, CrashPolicy::DropUnsynced);
    let store = Lsm::open(DIRECTORY, manual(&after)).unwrap();
    assert_contents(&store, ks, &expected(0..10, 1));
}
