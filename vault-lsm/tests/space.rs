//! `explain_space` says where the bytes are, and who holds those that could be freed: each answer is shown by a
//! store that was built to have it, and the sums are those of the files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{
    DIRECTORY, assert_contents, expected, files_in_memory, key, manual, put_all, roomy_keyspace,
    small_keyspace, value,
};
use vault_core::clock::ManualClock;
use vault_core::stats::SpaceReport;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Clock, Engine, KeyRange, KeyspaceId, Timestamp, WriteBatch, WriteOptions};
use vault_lsm::Lsm;

/// Everything in one keyspace whose tables are only changed on request.
struct Built {
    fs: MemoryFileSystem,
    clock: Arc<ManualClock>,
    store: Lsm,
    ks: KeyspaceId,
}

impl Built {
    fn new() -> Self {
        let fs = MemoryFileSystem::new();
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
        let options = manual(&fs).clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let store = Lsm::open(DIRECTORY, options).unwrap();
        let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
        Self {
            fs,
            clock,
            store,
            ks,
        }
    }

    fn put(&self, numbers: std::ops::Range<u64>, version: u64) {
        put_all(&self.store, self.ks, numbers, version);
        self.store.flush(None).unwrap();
    }

    /// The report, after checking that it adds up to what is on the disk.
    fn report(&self) -> SpaceReport {
        let report = self.store.explain_space().unwrap();
        let bytes = |ending| -> u64 {
            let files = files_in_memory(&self.fs, DIRECTORY, ending);
            files.iter().map(|(_, bytes)| bytes).sum()
        };
        let tables: u64 = report.keyspaces.iter().map(|k| k.table_bytes).sum();
        let retired: u64 = report
            .pinned
            .iter()
            .filter(|p| p.sequence == 0)
            .map(|p| p.bytes)
            .sum();
        assert_eq!(tables + retired, bytes(".tab"));
        assert_eq!(report.log.bytes, bytes(".log"));
        assert_eq!(report.metadata_bytes, bytes(".man") + bytes("CURRENT"));
        assert_eq!(report.total_bytes, bytes("") - bytes("LOCK"));
        // Within the tables, every byte is somebody's.
        let by_snapshots: u64 = report
            .pinned
            .iter()
            .filter(|p| p.sequence > 0)
            .map(|p| p.bytes)
            .sum();
        let sorted =
            report.live_bytes + report.obsolete_bytes + report.expired_bytes + by_snapshots;
        assert!(
            sorted <= tables && tables - sorted <= 16,
            "{sorted} of {tables}"
        );
        let live: u64 = report.keyspaces.iter().map(|k| k.live_bytes).sum();
        assert_eq!(live, report.live_bytes);
        report
    }
}

/// Whether `part` is about this share of all the tables.
#[track_caller]
fn assert_share(part: u64, report: &SpaceReport, percent: u64) {
    let tables: u64 = report.keyspaces.iter().map(|k| k.table_bytes).sum();
    let share = part * 100 / tables.max(1);
    assert!(
        share.abs_diff(percent) <= 5,
        "{share} %, not {percent} %: {report:?}"
    );
}

#[test]
fn a_new_store_is_all_metadata() {
    let built = Built::new();
    let report = built.report();
    assert_eq!(
        report.live_bytes + report.obsolete_bytes + report.expired_bytes,
        0
    );
    assert!(report.metadata_bytes > 0);
    assert!(report.pinned.is_empty());
    assert_eq!(report.log.pinned_by, None);
}

#[test]
fn what_is_live() {
    let built = Built::new();
    built.put(0..1_000, 1);
    let report = built.report();
    assert_share(report.live_bytes, &report, 100);
    assert_eq!(report.keyspaces[0].name, "k");
    assert_eq!((report.obsolete_bytes, report.expired_bytes), (0, 0));
}

#[test]
fn what_is_overwritten_or_deleted() {
    let built = Built::new();
    built.put(0..1_000, 1);
    built.put(0..500, 2);
    let report = built.report();
    assert_share(report.live_bytes, &report, 67);
    assert_share(report.obsolete_bytes, &report, 33);
    // A range delete alone makes all of it obsolete, even while it is in memory.
    let mut batch = WriteBatch::new();
    batch.delete_range(built.ks, &key(0), &key(1_000));
    built.store.write(&batch, &WriteOptions::default()).unwrap();
    let report = built.report();
    assert_share(report.obsolete_bytes, &report, 100);
    // Compacting frees what was obsolete.
    let compacted = built.store.compact(built.ks, KeyRange::all(), &mut |_| {
        std::ops::ControlFlow::Continue(())
    });
    compacted.unwrap();
    let report = built.report();
    assert_eq!(report.keyspaces[0].table_bytes, 0);
    assert_eq!(report.obsolete_bytes, 0);
}

#[test]
fn what_has_expired() {
    let built = Built::new();
    built.put(0..600, 1);
    let expiry = built.clock.now().after(Duration::from_secs(9)).unwrap();
    let mut batch = WriteBatch::new();
    for number in 600..1_000 {
        batch.put_until(built.ks, &key(number), &value(number, 1), expiry);
    }
    built.store.write(&batch, &WriteOptions::default()).unwrap();
    built.store.flush(None).unwrap();
    let report = built.report();
    assert_share(report.live_bytes, &report, 100);
    assert_eq!(report.expired_bytes, 0);
    built.clock.advance(Duration::from_secs(9));
    let report = built.report();
    assert_share(report.expired_bytes, &report, 40);
    assert_share(report.live_bytes, &report, 60);
    assert_eq!(report.keyspaces[0].expired_bytes, report.expired_bytes);
}

#[test]
fn what_a_snapshot_holds() {
    let built = Built::new();
    built.put(0..1_000, 1);
    let snapshot = built.store.snapshot().unwrap();
    built.put(0..1_000, 2);
    let second = built.store.snapshot().unwrap();
    built.clock.advance(Duration::from_secs(3));
    let report = built.report();
    assert_share(report.live_bytes, &report, 50);
    assert_eq!(report.obsolete_bytes, 0, "the snapshot still reads it");
    let held = report
        .pinned
        .iter()
        .find(|p| p.sequence == snapshot.sequence())
        .unwrap();
    assert_share(held.bytes, &report, 50);
    let named = format!("snapshot at sequence {}", snapshot.sequence());
    assert!(held.holder.contains(&named), "{}", held.holder);
    assert!(held.holder.contains("3.0s"), "{}", held.holder);
    // The second one holds nothing that is not live.
    let other = report
        .pinned
        .iter()
        .find(|p| p.sequence == second.sequence())
        .unwrap();
    assert_eq!(other.bytes, 0);
    drop(snapshot);
    let report = built.report();
    assert_share(report.obsolete_bytes, &report, 50);
    assert!(report.pinned.iter().all(|p| p.bytes == 0));
}

/// What two snapshots hold together is told of the older one, as nothing is told twice; what each holds alone is told apart, for
/// that is what releasing just this one would free.
#[test]
fn what_snapshots_hold_together_and_alone() {
    let built = Built::new();
    built.put(0..1_000, 1);
    let first = built.store.snapshot().unwrap();
    // Half of the keys have a version that the first alone sees, and one that the second alone sees.
    built.put(0..500, 2);
    built.clock.advance(Duration::from_secs(2));
    let second = built.store.snapshot().unwrap();
    // Of all others both see the same.
    built.put(0..1_000, 3);
    built.clock.advance(Duration::from_secs(3));
    let report = built.report();
    let held = |sequence| {
        let mut pinned = report.pinned.iter();
        pinned.find(|held| held.sequence == sequence).unwrap()
    };
    let (first_held, second_held) = (held(first.sequence()), held(second.sequence()));
    assert_share(first_held.bytes, &report, 40);
    assert_share(first_held.alone_bytes, &report, 20);
    assert_share(second_held.bytes, &report, 20);
    assert_share(second_held.alone_bytes, &report, 20);
    assert_eq!((first_held.open_ms, second_held.open_ms), (5_000, 3_000));
    // With the first one gone, the second holds alone what they held together.
    drop(first);
    let report = built.report();
    let held = &report.pinned[0];
    assert_share(held.alone_bytes, &report, 40);
    assert_eq!(held.alone_bytes, held.bytes);
    assert_share(report.obsolete_bytes, &report, 20);
}

/// Tables that were replaced while a cursor reads them.
#[test]
fn what_a_cursor_holds() {
    let built = Built::new();
    built.put(0..1_000, 1);
    let mut cursor = vault_core::Reader::cursor(&built.store, built.ks, KeyRange::all()).unwrap();
    built.put(0..1_000, 2);
    let compacted = built.store.compact(built.ks, KeyRange::all(), &mut |_| {
        std::ops::ControlFlow::Continue(())
    });
    compacted.unwrap();
    let report = built.report();
    let held: u64 = report.pinned.iter().map(|p| p.bytes).sum();
    assert!(held > 100_000, "{report:?}");
    cursor.first().unwrap();
    assert_eq!(cursor.entry().unwrap().1, value(0, 1));
    drop(cursor);
    while built.store.background_step().unwrap() {}
    let report = built.report();
    assert!(report.pinned.is_empty(), "{report:?}");
}

/// A keyspace with one unflushed write keeps the log, and is named.
#[test]
fn what_the_log_holds() {
    let built = Built::new();
    let quiet = built
        .store
        .create_keyspace("quiet", &roomy_keyspace())
        .unwrap();
    put_all(&built.store, quiet, [0], 1);
    let first = built.report().log;
    assert_eq!(first.pinned_by.as_deref(), Some("quiet"));
    for part in 0..4 {
        put_all(&built.store, built.ks, part * 500..(part + 1) * 500, 1);
        built.store.flush(Some(built.ks)).unwrap();
    }
    let log = built.report().log;
    assert_eq!(log.pinned_by.as_deref(), Some("quiet"));
    assert_eq!(log.oldest_segment, first.oldest_segment);
    assert!(log.segments > first.segments && log.bytes > first.bytes);
    built.store.flush(Some(quiet)).unwrap();
    let freed = built.report().log;
    assert_eq!(freed.pinned_by, None);
    assert!(freed.oldest_segment > first.oldest_segment);
    assert!(freed.bytes < log.bytes);
}

/// Keyspaces are told apart.
#[test]
fn each_keyspace_has_its_share() {
    let built = Built::new();
    let other = built
        .store
        .create_keyspace("other", &small_keyspace())
        .unwrap();
    built.put(0..1_000, 1);
    put_all(&built.store, other, 0..300, 1);
    put_all(&built.store, other, 0..300, 2);
    built.store.flush(None).unwrap();
    let report = built.report();
    assert_eq!(report.keyspaces.len(), 2);
    let [first, second] = &report.keyspaces[..] else {
        unreachable!("there are two")
    };
    assert_eq!((first.name.as_str(), second.name.as_str()), ("k", "other"));
    assert_eq!(first.obsolete_bytes, 0);
    assert!(first.live_bytes > 2 * second.live_bytes);
    assert!(second.obsolete_bytes * 3 > second.table_bytes, "{second:?}");
    assert_contents(&built.store, other, &expected(0..300, 2));
}

/// A snapshot behind the range delete that took an entry away does not hold it, whatever was deleted once more since.
#[test]
fn a_snapshot_behind_a_range_delete_is_not_blamed() {
    let built = Built::new();
    built.put(0..1_000, 1);
    let delete = || {
        let mut batch = WriteBatch::new();
        batch.delete_range(built.ks, &key(0), &key(500));
        built.store.write(&batch, &WriteOptions::OS).unwrap();
        built.store.flush(None).unwrap();
    };
    let before = built.store.snapshot().unwrap();
    delete();
    let behind = built.store.snapshot().unwrap();
    delete();
    let report = built.report();
    let held = |sequence| {
        let mut pinned = report.pinned.iter();
        pinned.find(|held| held.sequence == sequence).unwrap().bytes
    };
    assert_share(held(before.sequence()), &report, 50);
    assert_eq!(held(behind.sequence()), 0);
}
