//! Each file operation of a workload fails, in each way that there is, once or from then on.
//!
//! What is promised:
//! - every call gives `Ok` or a typed error, and ends;
//! - reads give the right values throughout, or an error;
//! - after a sync that failed the handle stays read-only, whatever works again later;
//! - a full disk or a shortage of descriptors leaves the handle as it was, and usable once that is over;
//! - what was acknowledged is there after the process ended, what was durable after a loss of power.
//!
//! Once a sync has failed, the file system in memory does as Linux does: it reads back what never reached
//! the medium, and reports the next sync of it as a success.
//!
//! By default every 11th operation is visited. `VAULT_SWEEP=full cargo test --test faults` visits all.

#![expect(clippy::print_stdout, reason = "a sweep says how much it has covered")]

mod sweep;

use std::collections::BTreeMap;
use std::io::ErrorKind::StorageFull;
use std::ops::ControlFlow;

use vault_core::vfs::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{Engine, Error, KeyRange, KeyspaceId, Reader, Result, WriteOptions};
use vault_lsm::Lsm;

use sweep::modes::encrypted;
use sweep::run::{Account, exercise, id, perform, recover, run};
use sweep::{DIRECTORY, Step, contents, keyspace_options, noise, open, thinned, workload};

const ROUNDS: u64 = 44;
const EIO: FaultKind = FaultKind::Errno(5);
const EMFILE: FaultKind = FaultKind::Errno(24);
const FULL: FaultKind = FaultKind::Error(StorageFull);

fn full() -> bool {
    std::env::var_os("VAULT_SWEEP").is_some_and(|value| value == "full")
}

/// What became of the runs.
#[derive(Default, Debug)]
struct Outcomes(BTreeMap<String, u64>);

impl Outcomes {
    fn count(&mut self, what: &str) {
        *self.0.entry(what.to_owned()).or_default() += 1;
    }

    fn failures(&self) -> u64 {
        let ends = self.0.get("run to the end").copied().unwrap_or(0);
        self.0.values().sum::<u64>() - ends
    }
}

/// One run of the workload with something failing.
struct Faulty<'a> {
    fs: MemoryFileSystem,
    account: Account,
    context: String,
    /// Whether the failure may not make the handle read-only.
    harmless: bool,
    outcomes: &'a mut Outcomes,
}

impl Faulty<'_> {
    /// Opens the store; should that fail, again without the fault.
    fn open(&mut self) -> Lsm {
        open(&self.fs).unwrap_or_else(|error| {
            self.typed(&error);
            self.outcomes.count("not opened at first");
            self.repair();
            let context = &self.context;
            open(&self.fs).unwrap_or_else(|error| panic!("{context}: {error}"))
        })
    }

    fn repair(&self) {
        self.fs.clear_faults();
        self.fs.set_capacity(None);
    }

    fn typed(&self, error: &Error) {
        let expected = match error {
            Error::Io { .. } | Error::DiskFull { .. } | Error::TooManyOpenFiles { .. } => true,
            Error::Poisoned { .. } => !self.harmless,
            // What a short read looks like.
            Error::Corruption { .. } => self.context.contains("ShortRead"),
            _ => false,
        };
        assert!(expected, "{}: {error:?}", self.context);
    }

    fn run(mut self, steps: &[Step]) {
        let mut store = self.open();
        for step in steps {
            if !step
                .needs()
                .iter()
                .all(|&name| self.account.state().contains_key(name))
            {
                continue;
            }
            self.account.begin(step);
            let Err(error) = perform(&mut store, &self.fs, step) else {
                self.account.end(&store, step);
                continue;
            };
            self.typed(&error);
            let reopening = matches!(step, Step::Reopen);
            if matches!(error, Error::Poisoned { .. }) && !reopening {
                self.poisoned(&store, step);
                self.images();
                return;
            }
            if let Step::Drop(name) = step
                && encrypted()
                && store.keyspace(name).expect("it is open").is_none()
            {
                // It is gone, durably; what failed is to erase what is left of it.
                self.outcomes.count("dropped, not erased");
                self.account.end(&store, step);
                self.right(&store, false);
                continue;
            }
            self.outcomes.count("refused");
            self.account.refused(step);
            if reopening {
                drop(store);
                self.repair();
                store = self.open();
                self.right(&store, true);
            }
            self.right(&store, false);
        }
        self.repair();
        self.right(&store, true);
        self.images();
        self.outcomes.count("run to the end");
        exercise(store, &self.fs, &self.context);
    }

    /// Reads must be right, or fail if they may.
    fn right(&self, store: &Lsm, must: bool) {
        match contents(store) {
            Ok(found) => self.account.same(&found, &self.context),
            Err(error) if must => panic!("{}: {error}", self.context),
            Err(error) => self.typed(&error),
        }
    }

    fn poisoned(&mut self, store: &Lsm, step: &Step) {
        self.outcomes.count("read-only");
        self.repair();
        let found = contents(store).expect("reads go on");
        let what = format!("{}, read-only at {step:?}", self.context);
        self.account.check(&found, self.account.acknowledged, &what);
        for _ in 0..2 {
            for durability in [WriteOptions::OS, WriteOptions::SYNC] {
                let name = self.account.created.first().cloned();
                let Some(keyspace) = name.and_then(|name| id(store, &name).ok()) else {
                    continue;
                };
                let outcome = store.put(keyspace, b"late", b"late", &durability);
                assert!(
                    matches!(outcome, Err(Error::Poisoned { .. })),
                    "{what}: {outcome:?}"
                );
            }
            let outcome = store.sync();
            assert!(
                matches!(outcome, Err(Error::Poisoned { .. })),
                "{what}: {outcome:?}"
            );
            let outcome = store.flush(None);
            assert!(
                matches!(outcome, Err(Error::Poisoned { .. })),
                "{what}: {outcome:?}"
            );
        }
    }

    /// What the end of the process and the loss of power leave now.
    fn images(&self) {
        let (account, context) = (&self.account, &self.context);
        let killed = self.fs.kill();
        let (store, _) = recover(
            &killed,
            account,
            account.acknowledged,
            &format!("{context}, killed"),
        );
        exercise(store, &killed, context);
        for policy in [
            CrashPolicy::DropUnsynced,
            CrashPolicy::Random { percent: 50 },
        ] {
            let left = self.fs.crash(1, policy);
            let context = format!("{context}, power lost, {policy:?}");
            let (store, _) = recover(&left, account, account.durable, &context);
            exercise(store, &left, &context);
        }
    }
}

fn sweep(class: OperationClass, kind: FaultKind, harmless: bool) {
    /// So many runs in a row that nothing happened to mean that the fault came too late.
    const QUIET_MAX: u64 = 24;
    let (steps, stride) = (workload(ROUNDS), if full() { 1 } else { thinned(11) });
    let mut outcomes = Outcomes::default();
    let (mut n, mut quiet) = (0, 0);
    while quiet < QUIET_MAX {
        for sticky in [false, true] {
            let fs = MemoryFileSystem::new();
            // The directory's own entry is made durable only when a store is created: not in here.
            let fault = Fault::new(class, kind).after(n).on_path(DIRECTORY);
            fs.inject(if sticky { fault.sticky() } else { fault });
            let before = outcomes.failures();
            let faulty = Faulty {
                fs,
                account: Account::new(),
                context: format!("{class:?} {n} fails with {kind:?}, sticky: {sticky}"),
                harmless,
                outcomes: &mut outcomes,
            };
            faulty.run(&steps);
            quiet = if outcomes.failures() == before {
                quiet + 1
            } else {
                0
            };
        }
        n += stride;
    }
    println!("{class:?} with {kind:?}, up to the {n}th: {:?}", outcomes.0);
}

#[test]
fn any_operation_fails() {
    sweep(OperationClass::Any, EIO, false);
}

#[test]
fn a_write_is_cut_short() {
    sweep(OperationClass::Write, FaultKind::ShortWrite, false);
}

#[test]
fn a_read_is_cut_short() {
    sweep(OperationClass::Read, FaultKind::ShortRead, false);
}

#[test]
fn a_sync_fails() {
    sweep(OperationClass::Sync, EIO, false);
    sweep(OperationClass::SyncDir, EIO, false);
    // Some file systems find out only then that there is no space.
    sweep(OperationClass::Sync, FULL, false);
    sweep(OperationClass::SyncDir, FULL, false);
}

#[test]
fn descriptors_run_out() {
    sweep(OperationClass::Open, EMFILE, true);
    sweep(OperationClass::Create, EMFILE, true);
}

#[test]
fn the_disk_is_full_for_one_class_of_operations() {
    sweep(OperationClass::Write, FULL, true);
    sweep(OperationClass::Create, FULL, true);
    sweep(OperationClass::Allocate, FULL, true);
}

#[test]
fn the_disk_is_full() {
    let steps = workload(ROUNDS);
    let fs = MemoryFileSystem::new();
    let (account, _) = run(&fs, &steps);
    let most = fs.bytes_used() * 2;
    drop(account);
    let mut outcomes = Outcomes::default();
    for capacity in (4096..most).step_by(if full() { 4096 } else { 45_056 }) {
        let fs = MemoryFileSystem::new();
        fs.set_capacity(Some(capacity));
        let faulty = Faulty {
            fs,
            account: Account::new(),
            context: format!("capacity {capacity}"),
            harmless: true,
            outcomes: &mut outcomes,
        };
        faulty.run(&steps);
    }
    println!("capacities up to {most}: {:?}", outcomes.0);
}

/// A store with a keyspace that has two tables and writes in memory.
fn filled(fs: &MemoryFileSystem) -> (Lsm, KeyspaceId) {
    let store = open(fs).expect("nothing fails here");
    let a = store
        .create_keyspace("a", &keyspace_options("a"))
        .expect("nothing fails here");
    for round in [b"1", b"2"] {
        store
            .put(a, b"key", round, &WriteOptions::OS)
            .expect("nothing fails here");
        store.flush(None).expect("nothing fails here");
    }
    store
        .put(a, b"last", b"x", &WriteOptions::SYNC)
        .expect("nothing fails here");
    (store, a)
}

/// The sync of a manifest edit failed, and the tables or the log segment that it named were removed. The
/// edit was written all the same: the next opening found it and refused the store, its files missing.
/// And when it was a full disk that the sync reported, the handle stayed writable with the manifest and
/// the memory of it apart.
#[test]
fn what_an_edit_names_stays_when_its_sync_fails() {
    let all = || KeyRange::new::<&[u8]>(..);
    let compact = |store: &Lsm, a| {
        let progress = &mut |_| ControlFlow::Continue(());
        store.compact(a, all(), progress).map(drop)
    };
    let ingest = |store: &Lsm, a| store.ingest(a, [(b"new", b"x")]).map(drop);
    let begin_segment = |store: &Lsm, a| {
        let large = noise(1, 70_000);
        store.put(a, b"large", &large, &WriteOptions::OS).map(drop)
    };
    let flush = |store: &Lsm, _| store.flush(None);
    type Job<'a> = &'a dyn Fn(&Lsm, KeyspaceId) -> Result<()>;
    let jobs: [(&str, Job<'_>); 4] = [
        ("compact", &compact),
        ("ingest", &ingest),
        ("begin a segment", &begin_segment),
        ("flush", &flush),
    ];
    for (name, job) in jobs {
        for kind in [EIO, FULL] {
            let fs = MemoryFileSystem::new();
            let (store, a) = filled(&fs);
            fs.inject(Fault::new(OperationClass::Sync, kind).on_path(".man"));
            let outcome = job(&store, a);
            assert!(
                matches!(outcome, Err(Error::Poisoned { .. })),
                "{name}: {outcome:?}"
            );
            let outcome = store.put(a, b"key", b"3", &WriteOptions::OS);
            assert!(
                matches!(outcome, Err(Error::Poisoned { .. })),
                "{name}: {outcome:?}"
            );
            let after = open(&fs.kill()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(after.get(a, b"key").unwrap().as_deref(), Some(&b"2"[..]));
            assert_eq!(after.get(a, b"last").unwrap().as_deref(), Some(&b"x"[..]));
        }
    }
}

/// A manifest was replaced, and the directory could not be synced behind the renaming of the pointer. The
/// new manifest was removed although the pointer named it: the store never opened again.
#[test]
fn a_manifest_that_the_pointer_may_name_stays() {
    for kind in [EIO, FULL] {
        let fs = MemoryFileSystem::new();
        let (store, a) = filled(&fs);
        // An edit that finds the disk full makes the next one begin a new manifest.
        fs.inject(Fault::new(OperationClass::Write, FULL).on_path(".man"));
        let outcome = store.flush(None);
        assert!(
            matches!(outcome, Err(Error::DiskFull { .. })),
            "{outcome:?}"
        );
        // The syncs are those of the table, the new manifest and the pointer.
        fs.inject(Fault::new(OperationClass::SyncDir, kind).after(2));
        let outcome = store.flush(None);
        assert!(
            matches!(outcome, Err(Error::Poisoned { .. })),
            "{outcome:?}"
        );
        let after = open(&fs.kill()).expect("the manifest that the pointer names");
        assert_eq!(after.get(a, b"last").unwrap().as_deref(), Some(&b"x"[..]));
    }
}

/// Each try to flush wrote a table, and then found no space for the manifest's edit. The tables stayed: a
/// full disk became fuller with every try.
#[test]
fn a_flush_that_finds_no_space_for_its_edit_leaves_no_table() {
    let fs = MemoryFileSystem::new();
    let (store, _) = filled(&fs);
    let tables = || {
        fs.list()
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|e| e == "tab"))
            .count()
    };
    let before = tables();
    fs.inject(
        Fault::new(OperationClass::Write, FULL)
            .on_path(".man")
            .sticky(),
    );
    for _ in 0..3 {
        assert!(matches!(store.flush(None), Err(Error::DiskFull { .. })));
    }
    assert_eq!(tables(), before);
    fs.clear_faults();
    store.flush(None).unwrap();
    assert_eq!(tables(), before + 1);
}

/// Too many open files kept a log segment from being created. Nothing had been changed by that, but the
/// handle was read-only from then on.
#[test]
fn a_segment_that_cannot_be_created_leaves_the_handle_writable() {
    let fs = MemoryFileSystem::new();
    let (store, a) = filled(&fs);
    fs.inject(Fault::new(OperationClass::Create, EMFILE).on_path(".log"));
    let large = noise(1, 70_000);
    let outcome = store.put(a, b"large", &large, &WriteOptions::SYNC);
    assert!(
        matches!(outcome, Err(Error::TooManyOpenFiles { .. })),
        "{outcome:?}"
    );
    assert_eq!(store.get(a, b"large").unwrap(), None);
    store.put(a, b"large", &large, &WriteOptions::SYNC).unwrap();
    let after = open(&fs.kill()).unwrap();
    assert_eq!(after.get(a, b"large").unwrap().as_deref(), Some(&large[..]));
}

/// A sync failed, the program ended and opened the store again. It read the records back from the page cache
/// and synced them, which succeeded without doing anything; writes behind them were then called durable. A loss
/// of power took the first and left the second: the store was refused, for damage in the middle of its log.
#[test]
fn what_a_failed_sync_left_behind_is_written_again() {
    for again in [false, true] {
        let fs = MemoryFileSystem::new();
        let (store, a) = filled(&fs);
        store.put(a, b"unsynced", b"x", &WriteOptions::OS).unwrap();
        fs.inject(Fault::new(OperationClass::Sync, EIO).on_path(".log"));
        let outcome = store.put(a, b"in doubt", b"x", &WriteOptions::SYNC);
        assert!(
            matches!(outcome, Err(Error::Poisoned { .. })),
            "{outcome:?}"
        );
        drop(store);
        if again {
            // The opening's own sync fails too, and the one after it is as little to be trusted.
            fs.inject(Fault::new(OperationClass::Sync, EIO).on_path(".log"));
            let outcome = open(&fs);
            assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
        }

        let store = open(&fs).unwrap();
        assert!(store.get(a, b"in doubt").unwrap().is_some());
        store.put(a, b"durable", b"x", &WriteOptions::SYNC).unwrap();
        drop(store);
        let after = open(&fs.crash(0, CrashPolicy::DropUnsynced)).unwrap();
        for key in [&b"last"[..], b"unsynced", b"in doubt", b"durable"] {
            let found = after.get(a, key).unwrap();
            assert_eq!(found.as_deref(), Some(&b"x"[..]), "{}", key.escape_ascii());
        }
    }
}

/// A device that could not write a new table was asked to write the next one: the sync of a file that nothing
/// names yet was tried again with another file for as long as it took. A failed sync is final, whose ever
/// file it is; only where it failed for want of space may the next one do better.
#[test]
fn a_failed_sync_of_a_new_file_is_final_too() {
    let begin_segment = |store: &Lsm, a| {
        let large = noise(1, 70_000);
        store.put(a, b"large", &large, &WriteOptions::OS).map(drop)
    };
    type Job<'a> = &'a dyn Fn(&Lsm, KeyspaceId) -> Result<()>;
    let jobs: [(&str, &str, Job<'_>); 3] = [
        (".tab", "flush", &|store, _| store.flush(None)),
        (".tab", "ingest", &|store, a| {
            store.ingest(a, [(b"new", b"x")]).map(drop)
        }),
        (".log", "begin a segment", &begin_segment),
    ];
    for (suffix, name, job) in jobs {
        let fs = MemoryFileSystem::new();
        let (store, a) = filled(&fs);
        fs.inject(Fault::new(OperationClass::Sync, FULL).on_path(suffix));
        let outcome = job(&store, a);
        assert!(
            matches!(outcome, Err(Error::DiskFull { .. })),
            "{name}: {outcome:?}"
        );
        job(&store, a).unwrap_or_else(|error| panic!("{name}, with space: {error}"));

        let (fs, _) = (MemoryFileSystem::new(), drop(store));
        let (store, a) = filled(&fs);
        fs.inject(Fault::new(OperationClass::Sync, EIO).on_path(suffix));
        for _ in 0..2 {
            let outcome = job(&store, a);
            assert!(
                matches!(outcome, Err(Error::Poisoned { .. })),
                "{name}: {outcome:?}"
            );
        }
        assert_eq!(store.get(a, b"last").unwrap().as_deref(), Some(&b"x"[..]));
    }
}
