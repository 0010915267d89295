//! The process ends, and the power goes while the next one opens the store.
//!
//! Regression: a process ended between writing an edit of the manifest and syncing it. The next one read
//! the edit from the page cache, and removed the files that it had let go of before anything had made it
//! durable. When the power went then, the manifest came back without the edit, naming files that were
//! gone, and the store was refused for good. Found by a simulation.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sweep;

use vault_core::vfs::{
    CrashPolicy, Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass,
};
use vault_core::{Engine, Error};
use vault_lsm::Lsm;

use sweep::run::{recover, run};
use sweep::{DIRECTORY, Step, contents, open, options, workload};

const POLICIES: [CrashPolicy; 4] = [
    CrashPolicy::DropUnsynced,
    CrashPolicy::Random { percent: 50 },
    CrashPolicy::Random { percent: 80 },
    CrashPolicy::KeepUnsynced,
];

#[test]
fn the_process_ends_and_the_power_goes_while_the_next_one_opens() {
    let steps = workload(20);
    let operations = {
        let fs = MemoryFileSystem::new();
        let (account, error) = run(&fs, &steps);
        assert!(error.is_none(), "{error:?}");
        drop(account);
        fs.operations()
    };
    let mut recovered = 0;
    for n in (0..operations).step_by(11) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(n));
        let (account, _) = run(&fs, &steps);
        let killed = fs.kill();
        for m in 0.. {
            let opening = killed.kill();
            opening.set_crash_point(Some(m));
            if open(&opening).is_ok() {
                break;
            }
            let policy = POLICIES[(m % 4) as usize];
            let context = format!("killed at {n}, power lost at {m} of the opening, {policy:?}");
            let left = opening.crash(n + m, policy);
            recover(&left, &account, account.durable, &context);
            recovered += 1;
        }
    }
    assert!(recovered > 500, "{recovered}");
}

/// A read that gave fewer bytes than the file has was taken for the file's end: what the log held behind it
/// was cut off without a word, in an opening for writing for good.
#[test]
fn a_short_read_is_not_taken_for_the_end_of_a_file() {
    let fs = MemoryFileSystem::new();
    let steps = workload(30);
    let (account, error) = run(&fs, &steps);
    assert!(error.is_none(), "{error:?}");
    let mut refused = 0;
    for nth in 0.. {
        for for_writing in [true, false] {
            let after = fs.kill();
            let fault = Fault::new(OperationClass::Read, FaultKind::ShortRead).after(nth);
            after.inject(fault.sticky());
            let opened = match for_writing {
                true => open(&after),
                false => Lsm::open_read_only(DIRECTORY, &options(&after)),
            };
            match opened.and_then(|store| contents(&store)) {
                Ok(found) => assert!(found == *account.state(), "{nth}, writing: {for_writing}"),
                Err(Error::Io { .. } | Error::Corruption { .. }) => refused += 1,
                Err(error) => panic!("{error:?}"),
            }
            after.clear_faults();
            let store = open(&after).unwrap();
            assert!(
                contents(&store).unwrap() == *account.state(),
                "{nth}, afterwards"
            );
        }
        let reads = fs.kill();
        reads.inject(Fault::new(OperationClass::Read, FaultKind::ShortRead).after(nth));
        let _ = open(&reads).and_then(|store| contents(&store));
        if reads.faults_hit() == 0 {
            assert!(nth > 10, "an opening reads more than {nth} times");
            break;
        }
    }
    assert!(refused > 10, "{refused}");
}

/// The file system of a checkpoint's target is another one, and a read there ends early: what was copied of
/// a table was called a checkpoint.
#[test]
fn a_short_read_does_not_cut_a_copied_table() {
    let fs = MemoryFileSystem::new();
    let (account, error) = run(&fs, &[workload(12), vec![Step::Flush(None)]].concat());
    assert!(error.is_none(), "{error:?}");
    let store = account.store.as_ref().unwrap();
    let elsewhere = FaultKind::Error(std::io::ErrorKind::CrossesDevices);
    fs.inject(Fault::new(OperationClass::Link, elsewhere).sticky());
    let short = Fault::new(OperationClass::Read, FaultKind::ShortRead).on_path(".tab");
    fs.inject(short);
    let refused = store.checkpoint("/copy");
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    assert_eq!(fs.kind("/copy".as_ref()).unwrap(), None);
    let made = store.checkpoint("/copy").unwrap();
    assert!(made.tables_copied > 1, "{made:?}");
    let copy = Lsm::open("/copy", options(&fs)).unwrap();
    assert!(contents(&copy).unwrap() == *account.state());
    copy.close().unwrap();
}
