//! Every single operation on the file system fails once, in stories that write, flush, compact, ingest,
//! create and drop: whatever the error, the store answers with one, never panics, and when it is opened again
//! everything that was acknowledged is there.
//!
//! Regressions: a failed sync of the manifest removed the tables that the manifest may name nonetheless,
//! and a failed sync of the directory removed a manifest that `CURRENT` already named; neither store
//! opened again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::ControlFlow;

use support::{DIRECTORY, assert_contents, expected, key, manual, small_keyspace, value};
use vault_core::vfs::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{Engine, Error, KeyRange, KeyspaceId, Result, WriteBatch, WriteOptions};
use vault_lsm::Lsm;

/// What the store has answered for, and what it may hold besides.
#[derive(Default)]
struct Model {
    acknowledged: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What calls that failed may have written.
    in_doubt: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

impl Model {
    fn note<T>(&mut self, outcome: &Result<T>, pairs: BTreeMap<Vec<u8>, Vec<u8>>) {
        match outcome {
            Ok(_) => {
                for (key, value) in pairs {
                    self.in_doubt.remove(&key);
                    self.acknowledged.insert(key, value);
                }
            }
            // Refused with nothing written.
            Err(Error::DiskFull { .. }) => {}
            Err(_) => {
                for (key, value) in pairs {
                    self.in_doubt.entry(key).or_default().push(value);
                }
            }
        }
    }

    /// Whether a call that failed may have written this.
    fn doubts(&self, key: &[u8], value: &[u8]) -> bool {
        let values = self.in_doubt.get(key);
        values.is_some_and(|values| values.iter().any(|doubtful| doubtful == value))
    }

    #[track_caller]
    fn check(&self, store: &Lsm, ks: KeyspaceId, what: &str) {
        let found = support::contents(store, ks);
        for (key, value) in &self.acknowledged {
            let got = found.get(key);
            assert!(
                got.is_some_and(|got| got == value || self.doubts(key, got)),
                "{what}: {} is lost or wrong",
                key.escape_ascii()
            );
        }
        for (key, value) in &found {
            let known = self.acknowledged.get(key) == Some(value) || self.doubts(key, value);
            assert!(known, "{what}: {} was never written", key.escape_ascii());
        }
    }
}

/// The story, each step whether or not the ones before it failed.
fn story(store: &Lsm, ks: KeyspaceId, model: &mut Model) {
    let write = |store: &Lsm, model: &mut Model, from: u64, to: u64, version| {
        let mut batch = WriteBatch::new();
        for number in from..to {
            batch.put(ks, &key(number), &value(number, version));
        }
        let outcome = store.write(&batch, &WriteOptions::SYNC);
        model.note(&outcome, expected(from..to, version));
    };
    write(store, model, 0, 100, 2);
    let _ = store.flush(None);
    write(store, model, 100, 300, 2);
    let _ = store.flush(None);
    write(store, model, 50, 150, 3);
    let _ = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
    let pairs = (250..400).map(|n| (key(n), value(n, 4)));
    model.note(&store.ingest(ks, pairs), expected(250..400, 4));
    if let Ok(other) = store.create_keyspace("other", &small_keyspace()) {
        let _ = store.put(other, b"k", b"v", &WriteOptions::SYNC);
        let _ = store.drop_keyspace(other);
    }
    write(store, model, 350, 500, 5);
    while store.background_step().unwrap_or(false) {}
}

fn prepared() -> (MemoryFileSystem, KeyspaceId, Model) {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let mut model = Model::default();
    for version in [0, 1] {
        support::put_all(&store, ks, 0..200, version);
        store.flush(None).unwrap();
        model.acknowledged.extend(expected(0..200, version));
    }
    store.close().unwrap();
    (fs, ks, model)
}

/// Opens what is left, in each way that it may be left, and looks for everything.
fn check_all_ends(fs: &MemoryFileSystem, ks: KeyspaceId, model: &Model, what: &str, seed: u64) {
    for (end, after) in [
        ("killed", fs.kill()),
        ("all kept", fs.crash(seed, CrashPolicy::KeepUnsynced)),
        ("all dropped", fs.crash(seed, CrashPolicy::DropUnsynced)),
        ("half", fs.crash(seed, CrashPolicy::Random { percent: 50 })),
    ] {
        let what = format!("{what}, {end}");
        let store = match Lsm::open(DIRECTORY, manual(&after)) {
            Ok(store) => store,
            Err(error) => panic!("{what}: {error}"),
        };
        model.check(&store, ks, &what);
        store.settle().unwrap();
        model.check(&store, ks, &what);
    }
}

fn sweep(kind: FaultKind, sticky: bool) {
    for nth in 0.. {
        let (fs, ks, mut model) = prepared();
        let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
        let began = fs.operations();
        let fault = Fault::new(OperationClass::Any, kind).after(nth);
        fs.inject(if sticky { fault.sticky() } else { fault });
        story(&store, ks, &mut model);
        let fired = fs.operations() - began > nth;
        fs.clear_faults();
        let what = format!("{kind:?} at operation {nth}");
        model.check(&store, ks, &what);
        check_all_ends(&fs, ks, &model, &what, nth);
        let _ = store.close();
        drop(store);
        let store = match Lsm::open(DIRECTORY, manual(&fs)) {
            Ok(store) => store,
            Err(error) => panic!("{what}, reopened: {error}"),
        };
        model.check(&store, ks, &what);
        if !fired {
            assert!(nth > 50, "the story has more operations than {nth}");
            break;
        }
    }
}

#[test]
fn one_operation_fails() {
    sweep(FaultKind::Error(ErrorKind::Other), false);
}

#[test]
fn all_operations_fail_from_one_on() {
    sweep(FaultKind::Error(ErrorKind::Other), true);
}

#[test]
fn one_operation_finds_the_disk_full() {
    sweep(FaultKind::Error(ErrorKind::StorageFull), false);
}

#[test]
fn the_disk_is_full_from_one_operation_on() {
    sweep(FaultKind::Error(ErrorKind::StorageFull), true);
}

#[test]
fn one_write_is_cut_short() {
    sweep(FaultKind::ShortWrite, false);
}

/// A sync of each kind of file that fails, with every error, under a manifest that has to be replaced.
#[test]
fn syncs_fail_while_the_manifest_is_replaced() {
    for error in [ErrorKind::Other, ErrorKind::StorageFull] {
        for class in [
            OperationClass::Sync,
            OperationClass::SyncDir,
            OperationClass::Rename,
        ] {
            for nth in 0..8 {
                let (fs, ks, mut model) = prepared();
                let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
                // An append that finds no room makes the next commit replace the file.
                let full = FaultKind::Error(ErrorKind::StorageFull);
                fs.inject(Fault::new(OperationClass::Write, full).on_path(".man"));
                assert!(store.create_keyspace("x", &small_keyspace()).is_err());
                fs.inject(Fault::new(class, FaultKind::Error(error)).after(nth));
                story(&store, ks, &mut model);
                fs.clear_faults();
                let what = format!("{class:?} {nth} fails with {error:?}");
                model.check(&store, ks, &what);
                check_all_ends(&fs, ks, &model, &what, nth);
            }
        }
    }
}

/// The helper itself: nothing fails, everything is as the model says.
#[test]
fn without_a_fault() {
    let (fs, ks, mut model) = prepared();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    story(&store, ks, &mut model);
    assert!(model.in_doubt.is_empty());
    assert_eq!(model.acknowledged.len(), 500);
    assert_contents(&store, ks, &model.acknowledged);
}
