//! Loss of power and end of the process at every file operation of a workload.
//!
//! For every n the workload runs until its nth file operation; what a crash there can leave is opened,
//! compared with the model, and put to work again. What is promised:
//! - what is recovered is the state after some prefix of the commits, batches and ingests whole;
//! - after a loss of power it holds everything acknowledged as durable: `Sync` writes, and what came
//!   before a `sync`, flush, ingest, checkpoint, drop of a keyspace or close that succeeded;
//! - after the end of the process it holds everything acknowledged.
//!
//! By default a slice of the operations is visited. `VAULT_SWEEP=full cargo test --release --test crash` visits
//! all, `0/4` to `3/4` every fourth one. With `VAULT_SWEEP=exhaustive` it also crashes at every operation of the recovery from each of them, which
//! takes a quarter of an hour; else of every 3rd.

#![expect(clippy::print_stdout, reason = "a sweep says how much it has covered")]

mod sweep;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use vault_core::vfs::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{Engine, Error, Event, KeyspaceId, Reader, WriteBatch, WriteOptions};
use vault_lsm::Lsm;

use sweep::run::{exercise, recover, run};
use sweep::{DIRECTORY, Step, keyspace_options, noise, open, options, part, thinned, workload};

const ROUNDS: u64 = 44;

const POLICIES: [(CrashPolicy, u64); 4] = [
    (CrashPolicy::DropUnsynced, 0),
    (CrashPolicy::KeepUnsynced, 0),
    (CrashPolicy::Random { percent: 50 }, 1),
    (CrashPolicy::Random { percent: 50 }, 2),
];

fn full() -> bool {
    exhaustive()
        || part().is_some()
        || std::env::var_os("VAULT_SWEEP").is_some_and(|value| value == "full")
}

fn exhaustive() -> bool {
    std::env::var_os("VAULT_SWEEP").is_some_and(|value| value == "exhaustive")
}

/// The operations to crash at: all, or every `stride`th and those of a store's first moments, each of which
/// is another story.
fn crash_points(operations: u64, stride: u64) -> impl Iterator<Item = u64> {
    const FIRST: u64 = 24;
    let (first, step) = match (full(), part()) {
        (true, Some(part)) => part,
        (true, None) => (0, 1),
        (false, _) => (0, thinned(stride)),
    };
    (0..=operations).filter(move |n| *n < FIRST || n % step == first)
}

fn operations() -> u64 {
    let fs = MemoryFileSystem::new();
    let (account, error) = run(&fs, &workload(ROUNDS));
    assert!(error.is_none(), "{error:?}");
    drop(account.store);
    fs.operations()
}

#[test]
fn power_is_lost_at_every_operation() {
    lose_power(7, MemoryFileSystem::new);
}

/// Not every file system maps. There the log is written as any file is.
#[test]
fn power_is_lost_where_nothing_is_mapped() {
    lose_power(23, || {
        let fs = MemoryFileSystem::new();
        let unsupported = FaultKind::Error(ErrorKind::Unsupported);
        fs.inject(Fault::new(OperationClass::Map, unsupported).sticky());
        fs
    });
}

fn lose_power(stride: u64, file_system: impl Fn() -> MemoryFileSystem) {
    let operations = operations();
    let steps = workload(ROUNDS);
    let mut recovered = 0;
    for n in crash_points(operations, stride) {
        let fs = file_system();
        fs.set_crash_point(Some(n));
        let (account, _) = run(&fs, &steps);
        let more = (3..if full() { 20 } else { 3 }).map(|seed| {
            let percent = (seed * 5) as u8;
            (CrashPolicy::Random { percent }, seed)
        });
        for (policy, seed) in POLICIES.into_iter().chain(more) {
            let context = format!("power lost at {n}, {policy:?} with seed {seed}");
            let after = fs.crash(seed + n, policy);
            let (store, _) = recover(&after, &account, account.durable, &context);
            exercise(store, &after, &context);
            recovered += 1;
        }
    }
    println!("{operations} operations, {recovered} recoveries");
}

#[test]
fn power_is_lost_again_while_recovering() {
    let operations = operations();
    let steps = workload(ROUNDS);
    let stride = match (exhaustive(), full()) {
        (true, _) => 1,
        (_, true) => 3,
        _ => thinned(97),
    };
    // By far the longest of the sweeps, so that it is shared out. Each place has a thread of its own: seeds are counted by
    // thread, and so are the same in each run.
    let next = AtomicU64::new(0);
    let recovered = AtomicU64::new(0);
    let take = || Some(next.fetch_add(stride, Ordering::Relaxed)).filter(|&n| n <= operations);
    let work = || {
        while let Some(n) = take() {
            let twice = thread::scope(|scope| scope.spawn(|| lose_power_twice(&steps, n)).join());
            let twice = twice.unwrap_or_else(|panic| resume_unwind(panic));
            recovered.fetch_add(twice, Ordering::Relaxed);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let recovered = recovered.into_inner();
    println!("{operations} operations, {recovered} recoveries");
    assert!(recovered > 0);
}

/// Loses power at operation `n`, and again at each operation of the recovery from that. Gives how many recoveries there were.
fn lose_power_twice(steps: &[Step], n: u64) -> u64 {
    let mut recovered = 0;
    let fs = MemoryFileSystem::new();
    fs.set_crash_point(Some(n));
    let (account, _) = run(&fs, steps);
    for (policy, seed) in POLICIES {
        let once = fs.crash(seed + n, policy);
        for m in 0.. {
            let again = once.kill();
            again.set_crash_point(Some(m));
            let opened = open(&again);
            if opened.is_ok() {
                break;
            }
            let (policy, seed) = POLICIES[(m % 4) as usize];
            let context = format!("power lost at {n}, and at {m} of the recovery, {policy:?}");
            let twice = again.crash(seed + m, policy);
            // And a third time, a little further on.
            let thrice = twice.kill();
            thrice.set_crash_point(Some(m / 2 + 3));
            drop(open(&thrice));
            let thrice = thrice.crash(m, policy);
            for left in [twice, thrice] {
                let (store, _) = recover(&left, &account, account.durable, &context);
                if m % 5 == 0 {
                    exercise(store, &left, &context);
                }
                recovered += 1;
            }
        }
    }
    recovered
}

#[test]
fn the_process_ends_at_every_operation() {
    let operations = operations();
    let steps = workload(ROUNDS);
    for n in crash_points(operations, 5) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(n));
        let (account, _) = run(&fs, &steps);
        let context = format!("killed at {n}");
        let after = fs.kill();
        let (store, _) = recover(&after, &account, account.acknowledged, &context);
        exercise(store, &after, &context);
    }
}

/// The numbers of files that an interrupted run left behind, named by nothing, are not given out again: two
/// files under one number could be taken for each other by whoever keeps copies or derives keys from it.
#[test]
fn the_number_of_a_file_is_never_used_again() {
    let steps = workload(ROUNDS);
    // By number, whatever kind of file has it.
    let headers = |fs: &MemoryFileSystem| -> BTreeMap<_, Vec<u8>> {
        let numbered = |path: &Path| {
            path.extension().is_some_and(|extension| {
                ["log", "tab", "blob", "man"]
                    .iter()
                    .any(|&own| extension == own)
            })
        };
        let paths = fs.list().into_iter().map(|(path, _)| path);
        paths
            .filter(|path| path.starts_with(DIRECTORY) && numbered(path))
            .filter_map(|path| {
                let header = fs.read_file(&path).ok()?.get(..128)?.to_vec();
                Some((path.file_stem()?.to_owned(), header))
            })
            .collect()
    };
    for n in crash_points(operations(), 5) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(n));
        let (account, _) = run(&fs, &steps);
        let context = format!("killed at {n}");
        let after = fs.kill();
        if after
            .read_file(Path::new(DIRECTORY).join("CURRENT"))
            .is_err()
        {
            // There was no store yet: what its creation left gives way to another one, with another id.
            continue;
        }
        let before = headers(&after);
        let (store, _) = recover(&after, &account, account.acknowledged, &context);
        let check = || {
            for (number, header) in headers(&after) {
                // The header tells the kind, and holds the salt, which is drawn for each file.
                let same = before.get(&number).is_none_or(|earlier| *earlier == header);
                assert!(same, "{context}: {number:?} is another file now");
            }
        };
        check();
        exercise(store, &after, &context);
        check();
    }
}

/// The creation of a store was interrupted behind its first manifest, and the next attempt again behind
/// its own: two manifests and no pointer. That was taken for a store that had lost its pointer, and
/// the directory never opened again, though nothing had ever been in it.
#[test]
fn a_creation_that_was_interrupted_twice_is_tried_again() {
    let interrupted = |fs: &MemoryFileSystem, operations| {
        fs.set_crash_point(Some(operations));
        let opened = open(fs);
        opened
            .is_err()
            .then(|| fs.crash(0, CrashPolicy::KeepUnsynced))
    };
    for first in 0.. {
        let Some(once) = interrupted(&MemoryFileSystem::new(), first) else {
            break;
        };
        for second in 0.. {
            let Some(twice) = interrupted(&once.kill(), second) else {
                break;
            };
            let store = open(&twice).expect("nothing was ever lost here");
            assert!(store.keyspaces().unwrap().is_empty());
        }
    }
}

fn two_keyspaces(fs: &MemoryFileSystem) -> (Lsm, KeyspaceId, KeyspaceId) {
    let store = open(fs).expect("a new store");
    let create = |name| store.create_keyspace(name, &keyspace_options(name));
    let (a, b) = (create("a").expect("new"), create("b").expect("new"));
    (store, a, b)
}

/// Data was moved from one keyspace to another without syncing, and the first one dropped. The drop was
/// durable at once, the copy was not: a loss of power took both.
#[test]
fn dropping_a_keyspace_does_not_outlive_the_writes_before_it() {
    let fs = MemoryFileSystem::new();
    let (store, a, b) = two_keyspaces(&fs);
    store.put(a, b"key", b"value", &WriteOptions::SYNC).unwrap();
    store.put(b, b"key", b"value", &WriteOptions::OS).unwrap();
    store.drop_keyspace(a).unwrap();

    let after = open(&fs.crash(0, CrashPolicy::DropUnsynced)).unwrap();
    assert_eq!(after.keyspace("a").unwrap(), None);
    assert_eq!(
        after.get(b, b"key").unwrap().as_deref(),
        Some(&b"value"[..])
    );
}

/// A loss of power left a log segment whose first sector was lost, with a later one there. Recovery cut the
/// log before it, rightly, but noted the offset in that segment as the end of the one before, and kept
/// the broken one in the manifest: at the next opening everything in the good segment was skipped.
#[test]
fn a_segment_that_lost_its_beginning_does_not_cut_the_one_before_it() {
    let fs = MemoryFileSystem::new();
    let (store, a, _) = two_keyspaces(&fs);
    store
        .put(a, b"safe", b"value", &WriteOptions::SYNC)
        .unwrap();
    let before: Vec<_> = fs.list();
    // More than the segment holds: it begins another.
    store
        .put(a, b"large", &noise(1, 70_000), &WriteOptions::OS)
        .unwrap();
    let after = fs.kill();
    let log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    let (newest, _) = after
        .list()
        .into_iter()
        .rfind(|(path, _)| log(path))
        .unwrap();
    assert!(before.iter().all(|(path, _)| *path != newest));
    let mut bytes = after.read_file(&newest).unwrap();
    bytes[128..512].fill(0);
    after.write_file(&newest, &bytes).unwrap();

    for round in 0_u8..3 {
        let store = open(&after).expect("an unsynced tail is cut");
        assert_eq!(
            store.get(a, b"safe").unwrap().as_deref(),
            Some(&b"value"[..])
        );
        for earlier in 0..round {
            assert!(store.get(a, &[earlier]).unwrap().is_some(), "round {round}");
        }
        store
            .put(a, &[round], b"more", &WriteOptions::SYNC)
            .unwrap();
        store.close().unwrap();
    }
}

/// The process ended between the making of the directory and the sync of its parent. The next attempt
/// found the directory there and did not sync the parent either: a loss of power took the whole store,
/// with all that it had called durable.
#[test]
fn the_entry_of_a_directory_that_was_there_is_durable_too() {
    let fs = MemoryFileSystem::new();
    vault_core::vfs::FileSystem::create_dir_all(&fs, DIRECTORY.as_ref()).unwrap();
    let (store, a, _) = two_keyspaces(&fs);
    store.put(a, b"key", b"value", &WriteOptions::SYNC).unwrap();
    let after = open(&fs.crash(0, CrashPolicy::DropUnsynced)).unwrap();
    assert_eq!(
        after.get(a, b"key").unwrap().as_deref(),
        Some(&b"value"[..])
    );
}

/// A thread that flushed while a checkpoint was being made moved writes from after its moment into
/// tables, and so into the copy: one half of a batch across keyspaces, without the other.
#[test]
fn a_flush_beside_a_checkpoint_does_not_tear_a_batch_in_it() {
    let fs = MemoryFileSystem::new();
    let handle: Arc<OnceLock<(Lsm, KeyspaceId, KeyspaceId)>> = Arc::default();
    let begun = AtomicBool::new(false);
    let of_listener = Arc::clone(&handle);
    let listener = move |event: &Event| {
        let Some((store, a, b)) = of_listener.get() else {
            return;
        };
        if !matches!(event, Event::Flushed { .. }) || begun.swap(true, Ordering::SeqCst) {
            return;
        }
        // The first of the two keyspaces has been flushed for the checkpoint, the other has not.
        let mut batch = WriteBatch::new();
        batch.put(*a, b"late", b"x").put(*b, b"late", b"x");
        store.write(&batch, &WriteOptions::OS).unwrap();
        let (done, wait) = mpsc::channel();
        let (store, b) = (store.clone(), *b);
        thread::spawn(move || done.send(store.flush(Some(b))));
        // It should not end before the checkpoint does; give it the time to do so.
        let _ = wait.recv_timeout(Duration::from_millis(200));
    };
    let store = Lsm::open(DIRECTORY, options(&fs).listener(Arc::new(listener))).unwrap();
    let a = store.create_keyspace("a", &keyspace_options("a")).unwrap();
    let b = store.create_keyspace("b", &keyspace_options("b")).unwrap();
    store.put(a, b"early", b"x", &WriteOptions::OS).unwrap();
    store.put(b, b"early", b"x", &WriteOptions::OS).unwrap();
    assert!(handle.set((store.clone(), a, b)).is_ok());
    store.checkpoint("/copy").unwrap();

    let copy = Lsm::open("/copy", options(&fs)).unwrap();
    for keyspace in [a, b] {
        assert!(copy.get(keyspace, b"early").unwrap().is_some());
        assert_eq!(copy.get(keyspace, b"late").unwrap(), None);
    }
}

/// A store of which only the pointer was lost, before anything was written but with keyspaces created,
/// looked like a creation that was interrupted, and silently became an empty one.
#[test]
fn a_young_store_without_its_pointer_is_not_taken_for_an_empty_one() {
    let fs = MemoryFileSystem::new();
    let (store, ..) = two_keyspaces(&fs);
    store.close().unwrap();
    let pointer = Path::new(DIRECTORY).join("CURRENT");
    vault_core::vfs::FileSystem::remove(&fs, &pointer).unwrap();
    assert!(matches!(open(&fs), Err(Error::Corruption { .. })));
}
