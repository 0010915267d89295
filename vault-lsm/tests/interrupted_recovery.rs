//! The process ends, and the power goes while the next one opens the store.
//!
//! Regression: a process ended between writing an edit of the manifest and syncing it. The next one read
//! the edit from the page cache, and removed the files that it had let go of before anything had made it
//! durable. When the power went then, the manifest came back without the edit, naming files that were
//! gone, and the store was refused for good. Found by a simulation.

mod sweep;

use vault_core::vfs::{
    CrashPolicy, Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass,
};
use vault_core::{Engine, Error};
use vault_lsm::Lsm;

use sweep::run::{recover, run};
use sweep::{Change, DIRECTORY, Step, contents, noise, open, options, workload};

/// How many ways of losing power are tried at each operation.
const LOSSES: u64 = 8;

fn put(key: &str, value: Vec<u8>) -> Step {
    Step::Write {
        changes: vec![Change::Put("a", key.into(), value)],
        sync: false,
    }
}

#[test]
fn the_process_ends_and_the_power_goes_while_the_next_one_opens() {
    // Each flush lets go of a log segment, and the compaction of tables.
    let flushed = |n: u64| vec![put("k", noise(n, 3_000)), Step::Flush(None)];
    let before = [
        vec![Step::Create("a")],
        flushed(1),
        flushed(2),
        vec![Step::Reopen],
    ]
    .concat();
    let steps = [before.clone(), flushed(3), vec![Step::Compact("a")]].concat();
    let operations = |steps: &[Step]| {
        let fs = MemoryFileSystem::new();
        let (account, error) = run(&fs, steps);
        assert!(error.is_none(), "{error:?}");
        drop(account);
        fs.operations()
    };
    let mut recovered = 0;
    for n in operations(&before)..operations(&steps) {
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
            for seed in 0..LOSSES {
                let percent = [0, 30, 50, 70][(seed % 4) as usize];
                let context = format!("killed at {n}, power lost at {m} of the opening, {seed}");
                let left = opening.crash(seed, CrashPolicy::Random { percent });
                recover(&left, &account, account.durable, &context);
                recovered += 1;
            }
        }
    }
    assert!(recovered > 1_000, "{recovered}");
}

/// A read that gave fewer bytes than the file has was taken for the file's end: what the log held behind it
/// was cut off without a word, and for good where the opening was one for writing.
#[test]
fn a_short_read_is_not_taken_for_the_end_of_a_file() {
    let fs = MemoryFileSystem::new();
    // The first record reaches beyond the middle of its segment.
    let steps = [
        Step::Create("a"),
        put("large", noise(1, 40_000)),
        put("small", noise(2, 40)),
    ];
    let (account, error) = run(&fs, &steps);
    assert!(error.is_none(), "{error:?}");
    for for_writing in [true, false] {
        for nth in 0.. {
            let after = fs.kill();
            let short = Fault::new(OperationClass::Read, FaultKind::ShortRead).after(nth);
            after.inject(short.sticky());
            let opened = match for_writing {
                true => open(&after),
                false => Lsm::open_read_only(DIRECTORY, &options(&after)),
            };
            match opened.and_then(|store| contents(&store)) {
                Ok(found) => assert!(found == *account.state(), "{nth}, writing: {for_writing}"),
                Err(Error::Io { .. } | Error::Corruption { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
            let hit = after.faults_hit();
            after.clear_faults();
            let store = open(&after).unwrap();
            assert!(
                contents(&store).unwrap() == *account.state(),
                "{nth}, afterwards"
            );
            if hit == 0 {
                assert!(nth > 3, "an opening reads more than {nth} times");
                break;
            }
        }
    }
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
