//! Rotations that are interrupted at every file operation, and rotations beside everything else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::rotating::{Content, Keyed, all};
use support::{
    DIRECTORY, assert_contents, contents, key, manual, put_all, threaded, value, wait_until,
};
use vault_core::vfs::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{CompactionProgress, Engine, Error, KeyRange, Reader};

/// A store with a little of everything, and a rotation of it: as far as it comes.
fn rotate_a_small_store(fs: &MemoryFileSystem) -> Option<Error> {
    let rotated = (|| {
        let keyed = Keyed::try_open(fs.clone(), DIRECTORY, manual)?;
        keyed.store.rotate_keys()?;
        keyed.store.finish_rotation(|_| ControlFlow::Continue(()))?;
        keyed.store.close()
    })();
    rotated.err()
}

fn small_store() -> (MemoryFileSystem, (Content, Content)) {
    let keyed = Keyed::open(manual);
    keyed.fill();
    let before = keyed.both();
    keyed.store.sync().unwrap();
    (keyed.fs.kill(), before)
}

fn sweep_is_full() -> bool {
    std::env::var_os("VAULT_SWEEP").is_some_and(|value| value == "full")
}

/// Power is lost at every file operation of a rotation. (`VAULT_SWEEP=full` visits all of them, else every third.)
#[test]
fn a_crash_at_any_operation_loses_neither_data_nor_keys() {
    let (filled, before) = small_store();
    let fs = filled.kill();
    let from = fs.operations();
    assert!(rotate_a_small_store(&fs).is_none());
    let operations = fs.operations() - from;
    assert!(operations > 100, "{operations}");
    let stride = if sweep_is_full() { 1 } else { 3 };
    let mut unfinished = 0;
    for n in (0..=operations).step_by(stride) {
        let fs = filled.kill();
        fs.set_crash_point(Some(fs.operations() + n));
        rotate_a_small_store(&fs);
        for policy in [CrashPolicy::DropUnsynced, CrashPolicy::KeepUnsynced] {
            let context = format!("crash at {n}, {policy:?}");
            let keyed = Keyed::try_open(fs.crash(n, policy), DIRECTORY, manual)
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(keyed.both() == before, "{context}");
            let status = keyed.status();
            unfinished +=
                u64::from(status.tables_left > 0 && status.tables_left < status.tables_total);
            keyed.finish();
            assert!(keyed.both() == before, "{context}, finished");
            keyed.assert_all_of(status.epoch);
            let again = keyed.reopened(manual);
            assert!(again.both() == before, "{context}, once more");
        }
    }
    assert!(unfinished > 10, "{unfinished} were found midway");
}

/// The disk is full at every file operation of a rotation, and has room again: the same handle goes on.
#[test]
fn an_error_at_any_operation_leaves_a_rotation_that_goes_on() {
    let (filled, before) = small_store();
    let full = FaultKind::Error(std::io::ErrorKind::StorageFull);
    let stride = if sweep_is_full() { 1 } else { 7 };
    let mut failed = 0;
    for n in (0..).step_by(stride) {
        let fs = filled.kill();
        let keyed = Keyed::open_in(fs.clone(), manual);
        fs.inject(Fault::new(OperationClass::Any, full).after(n).sticky());
        let go_on = |_: CompactionProgress| ControlFlow::Continue(());
        let rotated =
            (keyed.store.rotate_keys()).and_then(|_| keyed.store.finish_rotation(go_on).map(drop));
        let hit = fs.faults_hit();
        fs.clear_faults();
        let context = format!("full from operation {n} on");
        assert!(keyed.both() == before, "{context}");
        match rotated {
            Ok(()) if hit == 0 => break,
            // What failed was of no consequence: a removal.
            Ok(()) => {}
            Err(Error::Poisoned { .. }) => {
                drop(keyed);
                let again = Keyed::open_in(fs.kill(), manual);
                assert!(again.both() == before, "{context}, opened again");
                again.finish();
                again.assert_all_of(again.status().epoch);
                continue;
            }
            Err(Error::DiskFull { .. }) => failed += 1,
            Err(error) => panic!("{context}: {error:?}"),
        }
        keyed.finish();
        assert!(keyed.both() == before, "{context}, finished");
        assert_eq!(keyed.epochs().len(), 1, "{context}");
        let again = keyed.reopened(manual);
        assert!(again.both() == before, "{context}, once more");
        again.finish();
        again.assert_all_of(again.status().epoch);
    }
    assert!(failed > 10, "{failed}");
}

/// Writers, readers, flushes and compactions beside one rotation after the other.
#[test]
fn rotations_beside_everything() {
    let keyed = Keyed::open(threaded);
    let done = AtomicBool::new(false);
    let (keyed, done) = (&keyed, &done);
    let written = &Mutex::new(BTreeMap::<u64, u64>::new());
    let rotations = std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut version = 0;
            while !done.load(Ordering::Acquire) {
                version += 1;
                let number = version * 7 % 800;
                put_all(&keyed.store, keyed.ks, [number], version);
                written.lock().unwrap().insert(number, version);
            }
        });
        scope.spawn(move || {
            while !done.load(Ordering::Acquire) {
                let least = written.lock().unwrap().len();
                let seen = contents(&keyed.store, keyed.ks).len();
                assert!(seen >= least, "{seen} of {least} entries");
            }
        });
        scope.spawn(move || {
            while !done.load(Ordering::Acquire) {
                let go_on = &mut |_| ControlFlow::Continue(());
                keyed.store.compact(keyed.ks, all(), go_on).unwrap();
                keyed.store.flush(None).unwrap();
                let mut cursor = keyed.store.cursor(keyed.ks, KeyRange::all()).unwrap();
                cursor.first().unwrap();
                std::thread::yield_now();
                cursor.last().unwrap();
            }
        });
        let until = support::ends_in(Duration::from_secs(2));
        let mut rotations = 0;
        while !until() {
            keyed.store.rotate_keys().unwrap();
            if rotations % 2 == 0 {
                keyed.finish();
            }
            rotations += 1;
        }
        done.store(true, Ordering::Release);
        rotations
    });
    assert!(rotations > 3, "{rotations}");
    let expected: Content = {
        let written = written.lock().unwrap();
        let pair = |(&number, &version): (&u64, &u64)| (key(number), value(number, version));
        written.iter().map(pair).collect()
    };
    keyed.finish();
    assert_contents(&keyed.store, keyed.ks, &expected);
    wait_until("the old keys are gone", || keyed.epochs().len() == 1);
    keyed.assert_all_of(rotations + 1);
    keyed.store.close().unwrap();
    let again = Keyed::open_in(keyed.fs.clone(), manual);
    assert_contents(&again.store, again.ks, &expected);
}
