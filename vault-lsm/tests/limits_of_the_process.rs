//! Limits that the operating system sets to a process: on the length of its files (`RLIMIT_FSIZE`) and on
//! how many it may have open (`RLIMIT_NOFILE`). What they hinder is a typed error, nothing that was
//! acknowledged is gone, and when the limit is raised the same handle works on, as does the next one.
//!
//! Each test runs in a process of its own, whose limits it sets. A file that would become too long is a
//! signal first, `SIGXFSZ`, which ends a process that does not ignore it: that is for the application to do,
//! and the tests do it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "the descriptors of this process are listed where the system shows them"
)]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::alone::{alone, alone_ignoring_xfsz};
use support::{
    TWO_THREADS, assert_contents, expected, key, keyspace_stats, protected, put_all,
    small_keyspace, small_settings, value, wait_until,
};
use vault_core::{
    Engine, Error, ErrorKind, KeyRange, KeyspaceId, KeyspaceOptions, Result, WriteOptions,
};
use vault_lsm::check::{RepairPermission, SalvageOptions, VerifyOptions, repair, salvage, verify};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

#[test]
fn files_that_may_not_grow() {
    alone_ignoring_xfsz("files_that_may_not_grow", || {
        for background in [BackgroundWork::Manual, TWO_THREADS] {
            // No byte; not a table; tables, but no segment of the log; both, but no longer ones.
            for limit in [0, 8 << 10, 40 << 10, 64 << 10] {
                let parent = tempfile::tempdir().unwrap();
                let directory = parent.path().join("store");
                let (store, ks, mut acknowledged) = begun(&directory, background);
                set(Resource::Fsize, Some(limit));
                if limit < 64 << 10 {
                    write_until_refused(&store, ks, &mut acknowledged, is_full);
                }
                // The tables of other options are longer.
                let pairs = (0..5_000).map(|number| (key(number), value(number, 9)));
                let long = KeyspaceOptions::default();
                let ingested = store
                    .create_keyspace("long", &long)
                    .and_then(|id| store.ingest(id, pairs));
                assert_error(ingested, is_full);
                if limit == 0 {
                    assert_error(store.flush(None), is_full);
                    assert_error(store.checkpoint(parent.path().join("copy")), is_full);
                    assert_error(store.drop_keyspace(ks), is_full);
                }
                assert_contents(&store, ks, &acknowledged);
                set(Resource::Fsize, None);
                works_on(&store, ks, &mut acknowledged, is_full);
                closes_and_reopens(store, &directory, ks, &acknowledged);
            }
        }
    });
}

/// Opening where nothing may be written is refused; reading needs no writing.
#[test]
fn opening_where_files_may_not_grow() {
    alone_ignoring_xfsz("opening_where_files_may_not_grow", || {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("store");
        let (store, ks, acknowledged) = begun(&directory, BackgroundWork::Manual);
        store.close().unwrap();
        drop(store);
        for limit in [0, 20, 130, 200] {
            set(Resource::Fsize, Some(limit));
            assert_error(Lsm::open(&directory, options(TWO_THREADS)), is_full);
            // One that is new takes less than 200 bytes.
            if limit < 200 {
                let new = Lsm::open(parent.path().join("new"), options(TWO_THREADS));
                assert_error(new, is_full);
            }
            let reading = Lsm::open_read_only(&directory, &options(TWO_THREADS)).unwrap();
            assert_contents(&reading, ks, &acknowledged);
        }
        set(Resource::Fsize, None);
        let store = Lsm::open(&directory, options(TWO_THREADS)).unwrap();
        assert_contents(&store, ks, &acknowledged);
        Lsm::open(parent.path().join("new"), options(TWO_THREADS)).unwrap();
    });
}

#[test]
fn no_file_descriptor_left() {
    alone("no_file_descriptor_left", || {
        for background in [BackgroundWork::Manual, TWO_THREADS] {
            for spare in 0..4 {
                let parent = tempfile::tempdir().unwrap();
                let directory = parent.path().join("store");
                let (store, ks, mut acknowledged) = begun(&directory, background);
                leave_descriptors(spare);
                write_until_refused(&store, ks, &mut acknowledged, is_descriptors);
                if spare == 0 {
                    assert_error(store.flush(None), is_descriptors);
                    let compacted =
                        store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
                    assert_error(compacted, is_descriptors);
                    assert_error(store.ingest(ks, [(b"k", b"v")]), is_descriptors);
                    assert_error(store.checkpoint(parent.path().join("copy")), is_descriptors);
                }
                assert_contents(&store, ks, &acknowledged);
                assert_contents(&*store.snapshot().unwrap(), ks, &acknowledged);
                set(Resource::Nofile, None);
                works_on(&store, ks, &mut acknowledged, is_descriptors);
                closes_and_reopens(store, &directory, ks, &acknowledged);
            }
        }
    });
}

/// However many there are: opening and closing work, or say what is missing and lose nothing.
#[test]
fn opening_and_closing_with_few_descriptors() {
    alone("opening_and_closing_with_few_descriptors", || {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("store");
        let (store, ks, mut acknowledged) = begun(&directory, BackgroundWork::Manual);
        store.close().unwrap();
        drop(store);
        let mut opened = 0;
        let mut refused = [0; 3];
        for spare in 0..25 {
            leave_descriptors(spare);
            match Lsm::open_read_only(&directory, &options(TWO_THREADS)) {
                Ok(reading) => assert_contents(&reading, ks, &acknowledged),
                Err(error) => {
                    refused[0] += 1;
                    assert_error(Err::<(), _>(error), is_descriptors);
                }
            }
            // Threads that compact would close files while closing is short of them.
            match Lsm::open(&directory, options(BackgroundWork::Manual)) {
                Ok(store) => {
                    opened += 1;
                    leave_descriptors(spare % 3);
                    assert_contents(&store, ks, &acknowledged);
                    if let Err(error) = store.close() {
                        refused[1] += 1;
                        assert_error(Err::<(), _>(error), is_descriptors);
                    }
                }
                Err(error) => {
                    refused[2] += 1;
                    assert_error(Err::<(), _>(error), is_descriptors);
                }
            }
            set(Resource::Nofile, None);
            let store = Lsm::open(&directory, options(BackgroundWork::Manual)).unwrap();
            let next = acknowledged.len() as u64;
            put_all(&store, ks, next..next + 10, 1);
            acknowledged.extend(expected(next..next + 10, 1));
            assert_contents(&store, ks, &acknowledged);
        }
        // Otherwise the limits were none.
        assert!(
            opened > 5 && refused.iter().all(|&count| count > 0),
            "{opened} {refused:?}"
        );
    });
}

/// Whoever checks a store opens far fewer files than it has, and takes none for lost because it cannot be opened just now.
#[test]
fn checking_many_files_with_few_descriptors() {
    alone("checking_many_files_with_few_descriptors", || {
        const FILES: u64 = 80;
        const VALUES: u64 = 6;
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("store");
        let options = options(BackgroundWork::Manual);
        let store = Lsm::open(&directory, options.clone()).unwrap();
        let apart = KeyspaceOptions {
            large_value_bytes: Some(64),
            // With this many values no file is short, and joined with others.
            table_bytes: 4 << 10,
            ..small_keyspace()
        };
        let ks = store.create_keyspace("k", &apart).unwrap();
        for number in 0..FILES {
            put_all(&store, ks, VALUES * number..VALUES * (number + 1), 1);
            store.flush(None).unwrap();
        }
        assert!(keyspace_stats(&store, ks).blobs.files >= FILES);
        store.close().unwrap();
        drop(store);
        let all = VerifyOptions::default();
        let mut go_on = |_: &_| ControlFlow::Continue(());
        let mut refused = 0;
        for spare in [1, 2, 4, 50] {
            leave_descriptors(spare);
            match verify(&directory, &options, &all, &mut go_on) {
                Ok(report) => assert!(report.findings.is_empty(), "{:?}", report.findings),
                Err(error) => {
                    refused += 1;
                    assert_error(Err::<(), _>(error), is_descriptors);
                }
            }
            let planned = repair(&directory, &options, RepairPermission::Plan, &mut go_on);
            match planned {
                Ok(report) => assert!(report.plan.actions.is_empty(), "{:?}", report.plan),
                Err(error) => assert_error(Err::<(), _>(error), is_descriptors),
            }
        }
        assert!((1..4).contains(&refused), "{refused}");
        let copy = parent.path().join("copy");
        let report = salvage(
            &directory,
            &copy,
            &options,
            &SalvageOptions::default(),
            &mut go_on,
        );
        assert!(
            report
                .unwrap()
                .files
                .iter()
                .all(|file| file.problems.is_empty())
        );
        set(Resource::Nofile, None);
        let store = Lsm::open(&copy, options).unwrap();
        let ks = store.keyspace("k").unwrap().unwrap();
        assert_contents(&store, ks, &expected(0..VALUES * FILES, 1));
    });
}

fn options(background: BackgroundWork) -> LsmOptions {
    protected(LsmOptions::new(small_settings(background)))
}

fn begun(directory: &Path, background: BackgroundWork) -> (Lsm, KeyspaceId, Contents) {
    let store = Lsm::open(directory, options(background)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..800, 1);
    store.settle().unwrap();
    put_all(&store, ks, 800..900, 1);
    (store, ks, expected(0..900, 1))
}

/// Sets the limit, or takes it away.
fn set(resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    let current = current.or(maximum);
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

/// Leaves so many file descriptors to open.
fn leave_descriptors(count: usize) {
    set(Resource::Nofile, None);
    let descriptors = Path::new("/proc/self/fd");
    let taken: Vec<usize> = std::fs::read_dir(descriptors)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .parse()
                .unwrap()
        })
        .collect();
    // The listing had one itself, which is closed again by now.
    let is_open = |number: usize| {
        taken.contains(&number) && descriptors.join(number.to_string()).read_link().is_ok()
    };
    // The limit is one above the highest number that may be given out, and low ones are given out first.
    let limit = (0..).filter(|&number| !is_open(number)).nth(count).unwrap();
    set(Resource::Nofile, Some(limit as u64));
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::DiskFull { .. })
}

fn is_descriptors(error: &Error) -> bool {
    matches!(error, Error::TooManyOpenFiles { .. })
}

#[track_caller]
fn assert_error<T>(outcome: Result<T>, is_expected: fn(&Error) -> bool) {
    let error = outcome.map(drop).expect_err("the limit is in force");
    assert!(is_expected(&error), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Full);
}

fn write_until_refused(
    store: &Lsm,
    ks: KeyspaceId,
    acknowledged: &mut Contents,
    is_expected: fn(&Error) -> bool,
) {
    let first = acknowledged.len() as u64;
    for number in first..first + 100_000 {
        let (key, value) = (key(number), value(number, 1));
        let durability = if number % 64 == 0 {
            WriteOptions::SYNC
        } else {
            WriteOptions::default()
        };
        match store.put(ks, &key, &value, &durability) {
            Ok(_) => acknowledged.insert(key, value),
            Err(error) => return assert_error(Err::<(), _>(error), is_expected),
        };
    }
    panic!("the limit hinders nobody");
}

/// Writes, flushes and compactions work again, without opening anew.
fn works_on(
    store: &Lsm,
    ks: KeyspaceId,
    acknowledged: &mut Contents,
    is_expected: fn(&Error) -> bool,
) {
    let next = acknowledged.len() as u64;
    for number in next..next + 500 {
        // A thread that has just failed tries again by itself. Until it has, a writer that would have to
        // wait for it may still be given its error.
        wait_until("writes go on", || {
            match store.put(
                ks,
                &key(number),
                &value(number, 1),
                &WriteOptions::default(),
            ) {
                Ok(_) => true,
                Err(error) => {
                    assert!(is_expected(&error), "{error:?}");
                    false
                }
            }
        });
    }
    acknowledged.extend(expected(next..next + 500, 1));
    store.settle().unwrap();
    let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
    compacted.unwrap();
    assert_eq!(keyspace_stats(store, ks).memtables_waiting, 0);
    assert_contents(store, ks, acknowledged);
}

fn closes_and_reopens(store: Lsm, directory: &Path, ks: KeyspaceId, acknowledged: &Contents) {
    store.close().unwrap();
    drop(store);
    let store = Lsm::open(directory, options(TWO_THREADS)).unwrap();
    assert_contents(&store, ks, acknowledged);
    store.close().unwrap();
}
