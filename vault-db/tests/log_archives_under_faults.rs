//! Going back to a point in time, and pruning the log, while the power is lost at every file operation or the disk runs full: the target is
//! not there or whole, and whatever is needed to go back is there afterwards.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod support;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use support::{numbers, shipped};
use vault_core::Timestamp;
use vault_core::clock::ManualClock;
use vault_core::vfs::{
    CrashPolicy, Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass,
};
use vault_db::engine::{BackgroundWork, Settings};
use vault_db::snapshot::{
    ArchiveError, Directory, LogArchive, Parent, Repository, RepositoryOptions, SnapshotOptions,
    Snapshots, Until,
};
use vault_db::{Database, Durability, Error, ErrorKind};

const STORE: &str = "/store";
const TARGET: &str = "/restored/then";
const POLICIES: [CrashPolicy; 3] = [
    CrashPolicy::DropUnsynced,
    CrashPolicy::KeepUnsynced,
    CrashPolicy::Random { percent: 50 },
];

fn open(fs: &MemoryFileSystem, path: &str) -> vault_db::Result<Database> {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    Database::builder()
        .settings(Settings {
            durability: Durability::Os,
            background: BackgroundWork::Manual,
            memory_bytes: 16 << 20,
            log_segment_bytes: Some(64 << 10),
            ..Settings::default()
        })
        .engine_options(|engine| engine.file_system(fs))
        .open(path)
}

fn snapshots(fs: &MemoryFileSystem, db: &Database) -> Snapshots {
    let place = Directory::new(Arc::new(fs.clone()), "/snapshots");
    let repository = Repository::open(
        Arc::new(place),
        RepositoryOptions {
            clock: Arc::new(ManualClock::new(Timestamp(1_800_000_000_000))),
            ..RepositoryOptions::default()
        },
    );
    db.snapshots_in(repository.unwrap())
        .on_file_system(Arc::new(fs.clone()))
}

fn archive(fs: &MemoryFileSystem, db: &Database) -> LogArchive {
    snapshots(fs, db).log_archive("/log")
}

/// A store that was closed, with two full snapshots and a shipment for each of sixteen writes, eight behind each snapshot.
fn world() -> MemoryFileSystem {
    let fs = MemoryFileSystem::new();
    let db = open(&fs, STORE).unwrap();
    let vault = db.vault("v").unwrap();
    let archive = archive(&fs, &db);
    let archiver = archive.start(Some(Duration::from_millis(1))).unwrap();
    for n in 0..16_i64 {
        if n == 8 {
            let full = SnapshotOptions {
                parent: Parent::None,
                ..SnapshotOptions::default()
            };
            snapshots(&fs, &db).create_with(&full, &()).unwrap();
        }
        vault.put(n, &n).unwrap();
        shipped(&db, &archiver);
    }
    archiver.stop();
    db.close().unwrap();
    fs.kill()
}

/// The files, but for those of locks: they say who had them, and are in nobody's way.
fn files(fs: &MemoryFileSystem) -> Vec<(PathBuf, u64)> {
    let files = fs.list().into_iter();
    let is_lock = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "lock");
    files.filter(|(path, _)| !is_lock(path)).collect()
}

/// The least of a handle that works on what lies in a file system.
fn elsewhere() -> Database {
    Database::temp().unwrap()
}

fn whole(fs: &MemoryFileSystem, context: &str) {
    let restored = open(fs, TARGET).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(numbers(&restored), Vec::from_iter(0..16), "{context}");
}

#[test]
fn power_is_lost_amid_going_back() {
    let base = world();
    let db = elsewhere();
    let (mut absent, mut there, mut n) = (0, 0, 0);
    loop {
        let fs = base.kill();
        fs.set_crash_point(Some(fs.operations() + n));
        let done = archive(&fs, &db).restore_to(Until::End, TARGET);
        for policy in POLICIES {
            let context = format!("{policy:?} at {n}");
            let after = fs.crash(n, policy);
            let found = after.kind(Path::new(TARGET)).unwrap();
            if found.is_some() {
                whole(&after, &context);
                there += 1;
                continue;
            }
            assert!(done.is_err(), "{context}: it was acknowledged");
            absent += 1;
            // What was left behind is in nobody's way.
            archive(&after, &db).restore_to(Until::End, TARGET).unwrap();
            whole(&after, &context);
        }
        if done.is_ok() {
            break;
        }
        n += 1 + n / 16;
    }
    assert!(absent > 60 && there >= 3, "{absent} and {there}");
}

#[test]
fn power_is_lost_amid_pruning() {
    let base = world();
    // Only the second snapshot is kept: about half of the shipments go.
    {
        let db = elsewhere();
        let snapshots = snapshots(&base, &db);
        let oldest = snapshots.list().unwrap()[0].name;
        snapshots.repository().remove(oldest).unwrap();
    }
    let mut n = 0;
    loop {
        let fs = base.kill();
        let db = open(&fs, STORE).unwrap();
        fs.set_crash_point(Some(fs.operations() + n));
        let done = archive(&fs, &db).prune();
        drop(db);
        for policy in POLICIES {
            let context = format!("{policy:?} at {n}");
            let after = fs.crash(n, policy);
            let db = elsewhere();
            let archive = archive(&after, &db);
            let chains = archive.chains().unwrap();
            assert_eq!(chains.len(), 1, "{context}");
            let restored = archive.restore_to(Until::End, TARGET);
            restored.unwrap_or_else(|error| panic!("{context}: {error}"));
            whole(&after, &context);
            // What was pruned, and what no snapshot goes on to, is said.
            let first = archive.restore_to(Until::Sequence(3), "/restored/first");
            assert!(
                matches!(first, Err(Error::NoBase { .. })),
                "{context}: {first:?}"
            );
            // And the rest goes the next time.
            let db = open(&after, STORE).unwrap();
            self::archive(&after, &db).prune().unwrap();
            assert_eq!(self::archive(&after, &db).prune().unwrap(), 0, "{context}");
        }
        if let Ok(removed) = done {
            assert!(removed >= 6, "{removed}");
            break;
        }
        n += 1;
    }
    assert!(n > 6, "{n}");
}

/// A shipment that is missing parts a chain in two. Each does for what it has.
#[test]
fn a_missing_shipment_costs_what_it_held_and_no_more() {
    let base = world();
    let db = elsewhere();
    let archive = archive(&base, &db);
    let bases = snapshots(&base, &db).list().unwrap();
    let newest = bases.last().unwrap().sequence;
    let files = base.list().into_iter().map(|(path, _)| path);
    let mut shipments: Vec<_> = files.filter(|path| path.starts_with("/log")).collect();
    shipments.sort();
    // One between the two snapshots.
    base.remove(&shipments[4]).unwrap();
    archive.restore_to(Until::End, TARGET).unwrap();
    whole(&base, "behind the gap");
    let early = archive.restore_to(Until::Sequence(bases[0].sequence + 1), "/restored/early");
    assert_eq!(early.unwrap().base, bases[0].name);
    let within = archive.restore_to(Until::Sequence(newest - 1), "/restored/within");
    assert!(within.is_err(), "{within:?}");
    assert_eq!(base.kind(Path::new("/restored/within")).unwrap(), None);
}

#[test]
fn a_disk_that_runs_full_amid_going_back_leaves_no_target() {
    let base = world();
    let db = elsewhere();
    let before = files(&base);
    let (mut refused, mut came) = (0, 0);
    for room in (0..).step_by(16 << 10) {
        let fs = base.kill();
        fs.set_capacity(Some(fs.bytes_used() + room));
        let restored = archive(&fs, &db).restore_to(Until::End, TARGET);
        fs.set_capacity(None);
        let Err(error) = restored else {
            whole(&fs, "with room");
            came += 1;
            break;
        };
        assert_eq!(error.kind(), ErrorKind::Full, "{room}: {error}");
        assert_eq!(fs.kind(Path::new(TARGET)).unwrap(), None, "{room}");
        assert_eq!(files(&fs), before, "{room}");
        archive(&fs, &db).restore_to(Until::End, TARGET).unwrap();
        whole(&fs, "with room again");
        refused += 1;
    }
    assert!(refused >= 3 && came == 1, "{refused} and {came}");
    // One operation without room, each in turn.
    let full = FaultKind::Error(std::io::ErrorKind::StorageFull);
    let mut after = 0;
    loop {
        let fs = base.kill();
        fs.inject(Fault::new(OperationClass::Write, full).after(after));
        let restored = archive(&fs, &db).restore_to(Until::End, TARGET);
        let hit = fs.faults_hit();
        fs.clear_faults();
        match restored {
            Ok(_) => whole(&fs, "in spite of it"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{after}: {error}");
                assert_eq!(fs.kind(Path::new(TARGET)).unwrap(), None, "{after}");
            }
        }
        if hit == 0 {
            break;
        }
        after += 1;
    }
    assert!(after > 5, "{after}");
}

#[test]
fn going_back_tells_how_far_it_is_and_can_be_ended() {
    let base = world();
    let db = elsewhere();
    let archive = archive(&base, &db);
    let before = files(&base);
    let untouched = || assert_eq!(files(&base), before);
    let stopped =
        archive.restore_to_with(Until::End, TARGET, &|_, _| ControlFlow::Break(()), |_| {
            panic!("nothing is replayed")
        });
    match stopped.unwrap_err() {
        Error::Snapshot(error) => assert!(matches!(*error, ArchiveError::Cancelled)),
        other => panic!("{other:?}"),
    }
    untouched();
    let stopped =
        archive.restore_to_with(Until::End, TARGET, &(), |told| match told.shipments_done {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    untouched();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        archive.restore_to_with(Until::End, TARGET, &(), |_| panic!("the caller's"))
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"the caller's"));
    untouched();
    let mut told = Vec::new();
    archive
        .restore_to_with(Until::End, TARGET, &(), |progress| {
            assert!(progress.shipments_total >= 8);
            told.push(progress.shipments_done);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(told, Vec::from_iter(0..told.len() as u64));
    assert!(told.len() >= 8);
    whole(&base, "told");
}

/// A manifest that cannot be read may be that of the snapshot for whose sake the log is kept.
#[test]
fn nothing_is_pruned_where_a_manifest_cannot_be_read() {
    let fs = world();
    let db = open(&fs, STORE).unwrap();
    let archive = archive(&fs, &db);
    let oldest = snapshots(&fs, &db).list().unwrap()[0].name;
    let manifest = format!("/snapshots/{oldest}/manifest.json");
    fs.write_file(&manifest, b"{}").unwrap();
    let before = files(&fs);
    match archive.prune().unwrap_err() {
        Error::Snapshot(error) => assert!(matches!(*error, ArchiveError::Damaged { .. })),
        other => panic!("{other:?}"),
    }
    assert_eq!(files(&fs), before);
}

/// The log is kept while the archive does not take it: when it does again, the chain goes on, without another snapshot.
#[test]
fn an_archive_that_is_away_for_a_while_has_no_gap() {
    let fs = MemoryFileSystem::new();
    let db = open(&fs, STORE).unwrap();
    let vault = db.vault("v").unwrap();
    let archive = archive(&fs, &db);
    let archiver = archive.start(Some(Duration::from_millis(5))).unwrap();
    vault.put(0, &0).unwrap();
    shipped(&db, &archiver);
    let gone = FaultKind::Error(std::io::ErrorKind::NotConnected);
    let fault = Fault::new(OperationClass::Create, gone).sticky();
    fs.inject(fault.on_path(".shipment"));
    for n in 1..8_i64 {
        vault.put(n, &n).unwrap();
    }
    while archiver.status().error.is_none() {
        thread::park_timeout(Duration::from_millis(1));
    }
    fs.clear_faults();
    vault.put(8, &8).unwrap();
    shipped(&db, &archiver);
    let status = archiver.stop();
    assert!(status.error.is_none(), "{status:?}");
    assert_eq!(archive.chains().unwrap().len(), 1);
    assert_eq!(snapshots(&fs, &db).list().unwrap().len(), 1);
    archive.restore_to(Until::End, TARGET).unwrap();
    let then = open(&fs, TARGET).unwrap();
    assert_eq!(numbers(&then), Vec::from_iter(0..9));
}

/// Stopping ships all that there is, also where the last shipment was not taken and waits to be tried again.
#[test]
fn stopping_behind_an_archive_that_was_away_leaves_nothing_out() {
    let fs = MemoryFileSystem::new();
    let db = open(&fs, STORE).unwrap();
    let vault = db.vault("v").unwrap();
    let archive = archive(&fs, &db);
    let archiver = archive.start(Some(Duration::from_millis(5))).unwrap();
    vault.put(0, &0).unwrap();
    shipped(&db, &archiver);
    let gone = FaultKind::Error(std::io::ErrorKind::NotConnected);
    let fault = Fault::new(OperationClass::Create, gone).sticky();
    fs.inject(fault.on_path(".shipment"));
    vault.put(1, &1).unwrap();
    while archiver.status().error.is_none() {
        thread::park_timeout(Duration::from_millis(1));
    }
    for n in 2..8_i64 {
        vault.put(n, &n).unwrap();
    }
    fs.clear_faults();
    // Long before it is tried again by itself.
    let status = archiver.stop();
    assert!(status.error.is_none(), "{status:?}");
    archive.restore_to(Until::End, TARGET).unwrap();
    let then = open(&fs, TARGET).unwrap();
    assert_eq!(numbers(&then), Vec::from_iter(0..8));
}

/// Nobody's snapshot holds shipping up: what is written meanwhile is in the archive before the first one is there.
#[test]
fn shipping_begins_while_somebody_else_is_at_a_snapshot() {
    let fs = MemoryFileSystem::new();
    let db = open(&fs, STORE).unwrap();
    let vault = db.vault("v").unwrap();
    let archive = archive(&fs, &db);
    let repository = snapshots(&fs, &db);
    let held = repository.repository().destination().lock().unwrap();
    assert!(held.is_some());
    let archiver = thread::scope(|scope| {
        let starting = scope.spawn(|| archive.start(Some(Duration::from_millis(5))));
        vault.put(1, &1).unwrap();
        let latest = db.engine().latest_sequence();
        let reached = |chains: Vec<vault_db::snapshot::LogChain>| {
            chains.iter().any(|chain| chain.until >= latest)
        };
        while !archive.chains().is_ok_and(reached) {
            thread::park_timeout(Duration::from_millis(1));
        }
        assert!(!starting.is_finished());
        drop(held);
        starting.join().unwrap().unwrap()
    });
    vault.put(2, &2).unwrap();
    shipped(&db, &archiver);
    let status = archiver.stop();
    assert!(status.error.is_none(), "{status:?}");
    assert_eq!(repository.list().unwrap().len(), 1);
    archive.restore_to(Until::End, TARGET).unwrap();
    assert_eq!(numbers(&open(&fs, TARGET).unwrap()), [1, 2]);
}
