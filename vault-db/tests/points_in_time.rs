//! Any point in time: snapshots brought forward by the log that was archived beside them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod support;

use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use support::{Place, numbers, shipped};
use vault_core::vfs::{DiskFileSystem, FileSystem};
use vault_core::{Clock, SystemClock};
use vault_db::encryption::{Passphrase, SecretBytes};
use vault_db::snapshot::{LogArchive, Parent, SnapshotOptions, Until};
use vault_db::{Database, EncryptedDatabase, Error, ImportOptions, Scope, VaultChoice};

impl Place {
    fn open(&self) -> Database {
        Database::open(self.at("store")).unwrap()
    }

    fn archive(&self, db: &Database) -> LogArchive {
        db.snapshots(self.at("snapshots"))
            .unwrap()
            .log_archive(self.at("log"))
    }
}

#[test]
fn every_write_can_be_gone_back_to() {
    let place = Place::new();
    let db = place.open();
    let archive = place.archive(&db);
    let archiver = archive.start(None).unwrap();
    let vault = db.vault("v").unwrap();
    let mut points = Vec::new();
    for n in 0..40_i64 {
        vault.put(n, &n).unwrap();
        points.push((db.engine().latest_sequence(), n));
        if n == 20 {
            // A second base, on top of the first.
            db.snapshots(place.at("snapshots"))
                .unwrap()
                .create()
                .unwrap();
        }
    }
    shipped(&db, &archiver);
    assert!(archiver.stop().error.is_none());
    for (sequence, n) in points.iter().step_by(7) {
        let target = place.at(&format!("at {n}"));
        let restored = archive
            .restore_to(Until::Sequence(*sequence), &target)
            .unwrap();
        assert_eq!(restored.sequence, *sequence);
        let then = Database::open(&target).unwrap();
        assert_eq!(numbers(&then), (0..=*n).collect::<Vec<_>>());
        assert_eq!(then.vault("v").unwrap().len().unwrap(), *n as u64 + 1);
        then.vault("goes").unwrap().put("on", &1).unwrap();
    }
    let end = archive.restore_to(Until::End, place.at("end")).unwrap();
    assert_eq!(end.sequence, points.last().unwrap().0);
    // From the newer base there is less to replay.
    assert!(end.batches < 25, "{end:?}");
}

#[test]
fn a_time_can_be_gone_back_to() {
    let place = Place::new();
    let db = place.open();
    let archive = place.archive(&db);
    let archiver = archive.start(Some(Duration::from_millis(20))).unwrap();
    let vault = db.vault("v").unwrap();
    vault.put(1, &1).unwrap();
    shipped(&db, &archiver);
    let good = SystemClock::new().now();
    thread::park_timeout(Duration::from_millis(50));
    vault.clear().unwrap();
    shipped(&db, &archiver);
    archiver.stop();
    archive
        .restore_to(Until::Time(good), place.at("then"))
        .unwrap();
    assert_eq!(numbers(&Database::open(place.at("then")).unwrap()), [1]);
    archive.restore_to(Until::End, place.at("end")).unwrap();
    assert!(numbers(&Database::open(place.at("end")).unwrap()).is_empty());
}

/// A copy that began before the archiver did writes its tables past the log. What it takes in when it ends is in a snapshot that
/// is made for it.
#[test]
fn what_began_before_the_archiver_is_in_the_archive() {
    let place = Place::new();
    let db = place.open();
    let archive = place.archive(&db);
    let vault = db.vault("v").unwrap();
    vault.update((0..5000).map(|n| (n, n))).unwrap();
    let mut archiver = None;
    vault
        .copy_with("copy", |_| {
            archiver.get_or_insert_with(|| archive.start(None).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
    let archiver = archiver.expect("there was progress");
    vault.put(5000, &1).unwrap();
    shipped(&db, &archiver);
    let status = archiver.stop();
    assert!(status.error.is_none(), "{status:?}");
    archive.restore_to(Until::End, place.at("then")).unwrap();
    let then = Database::open(place.at("then")).unwrap();
    let copy = then.existing_vault("copy").unwrap();
    assert_eq!(copy.len().unwrap(), 5000);
    assert_eq!(copy.keys::<i64>().unwrap().count(), 5000);
    assert_eq!(then.vault("v").unwrap().len().unwrap(), 5001);
}

/// What whole vaults went through is in the archive as well: copies, imports, restores, tenants.
#[test]
fn bulk_work_is_in_the_archive() {
    let place = Place::new();
    let db = place.open();
    let archive = place.archive(&db);
    let archiver = archive.start(None).unwrap();
    let vault = db.vault("v").unwrap();
    vault.update((0..2000).map(|n| (n, n))).unwrap();
    vault.copy_to("copy").unwrap();
    let text = r#"{"format": "vault-json-v1", "entries": [{"key": "a", "value": 1}]}"#;
    db.import("imported", text.as_bytes(), &ImportOptions::default())
        .unwrap();
    let other = Database::temp().unwrap();
    other
        .vault("v")
        .unwrap()
        .update((0..50).map(|n| (n, n)))
        .unwrap();
    db.restore_from(&other, &Scope::Vaults(vec![VaultChoice::named("v")]))
        .unwrap();
    vault.put(99, &99).unwrap();
    shipped(&db, &archiver);
    archiver.stop();
    archive.restore_to(Until::End, place.at("then")).unwrap();
    let then = Database::open(place.at("then")).unwrap();
    assert_eq!(then.vault("v").unwrap().len().unwrap(), 51);
    assert_eq!(then.vault("copy").unwrap().len().unwrap(), 2000);
    assert_eq!(then.vault("imported").unwrap().len().unwrap(), 1);
}

#[test]
fn an_archiver_goes_on_where_the_last_one_ended() {
    let place = Place::new();
    for round in 0..3 {
        let db = place.open();
        let archive = place.archive(&db);
        let archiver = archive.start(None).unwrap();
        db.vault("v").unwrap().put(round, &round).unwrap();
        archiver.stop();
        db.close().unwrap();
    }
    let db = place.open();
    let archive = place.archive(&db);
    assert_eq!(archive.chains().unwrap().len(), 1);
    // Where somebody wrote without one, the log may be gone: then a chain begins, with a snapshot of its own.
    db.vault("v").unwrap().put(3, &3).unwrap();
    let archiver = archive.start(None).unwrap();
    db.vault("v").unwrap().put(4, &4).unwrap();
    archiver.stop();
    archive.restore_to(Until::End, place.at("then")).unwrap();
    assert_eq!(
        numbers(&Database::open(place.at("then")).unwrap()),
        [0, 1, 2, 3, 4]
    );
}

#[test]
fn what_cannot_be_gone_back_to_changes_nothing() {
    let place = Place::new();
    let db = place.open();
    db.vault("v").unwrap().put(1, &1).unwrap();
    let before = db.engine().latest_sequence();
    db.vault("v").unwrap().put(2, &2).unwrap();
    let archive = place.archive(&db);
    let target = place.at("never");
    // No archive yet.
    let refused = archive.restore_to(Until::End, &target).unwrap_err();
    assert!(matches!(refused, Error::NoBase { .. }), "{refused:?}");
    let archiver = archive.start(None).unwrap();
    db.vault("v").unwrap().put(3, &3).unwrap();
    let wanted = db.engine().latest_sequence();
    // A second one at the same time.
    assert!(archive.start(None).is_err());
    archiver.stop();
    // Before the first base.
    let refused = archive
        .restore_to(Until::Sequence(before), &target)
        .unwrap_err();
    assert!(matches!(refused, Error::NoBase { .. }), "{refused:?}");
    // A directory in which there is something.
    assert!(archive.restore_to(Until::End, place.at("store")).is_err());
    assert_eq!(db.vault("v").unwrap().len().unwrap(), 3);
    // A shipment that was damaged.
    let chain = DiskFileSystem
        .read_dir(&place.at("log"))
        .unwrap()
        .remove(0)
        .name;
    let chain = place.at("log").join(chain);
    let files = DiskFileSystem.read_dir(&chain).unwrap();
    let last = files
        .iter()
        .map(|file| chain.join(&file.name))
        .max()
        .unwrap();
    let file = DiskFileSystem.open_for_write(&last).unwrap();
    file.write_at(b"x", file.len().unwrap() / 2).unwrap();
    let refused = archive
        .restore_to(Until::Sequence(wanted), &target)
        .unwrap_err();
    assert!(refused.to_string().contains("damaged"), "{refused}");
    assert_eq!(DiskFileSystem.kind(&target).unwrap(), None);
}

#[test]
fn an_encrypted_database_can_be_gone_back_in() {
    let place = Place::new();
    let secret =
        || Passphrase::new(SecretBytes::from_string("correct horse".to_owned()).unwrap()).unwrap();
    let db = EncryptedDatabase::open(place.at("store"), secret()).unwrap();
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let archive = snapshots
        .clone()
        .with_key(secret())
        .log_archive(place.at("log"));
    let archiver = archive.start(None).unwrap();
    db.vault("v").unwrap().put(1, &1).unwrap();
    let good = db.engine().latest_sequence();
    db.vault("v").unwrap().clear().unwrap();
    archiver.stop();
    archive
        .restore_to(Until::Sequence(good), place.at("then"))
        .unwrap();
    let then = EncryptedDatabase::open(place.at("then"), secret()).unwrap();
    assert_eq!(numbers(&then), [1]);
    // Replaying needs the key.
    let blind = snapshots.log_archive(place.at("log"));
    let refused = blind
        .restore_to(Until::Sequence(good), place.at("never"))
        .unwrap_err();
    assert!(
        matches!(refused, Error::UnsupportedSnapshot { .. }),
        "{refused:?}"
    );
}

#[test]
fn what_no_snapshot_needs_is_removed() {
    let place = Place::new();
    let db = place.open();
    let archive = place.archive(&db);
    let archiver = archive.start(Some(Duration::from_millis(10))).unwrap();
    let vault = db.vault("v").unwrap();
    for n in 0..20_i64 {
        vault.put(n, &n).unwrap();
        shipped(&db, &archiver);
    }
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let full = SnapshotOptions {
        parent: Parent::None,
        ..SnapshotOptions::default()
    };
    let newer = snapshots.create_with(&full, &()).unwrap();
    vault.put(20, &20).unwrap();
    shipped(&db, &archiver);
    archiver.stop();
    let count = || archive.chains().unwrap()[0].shipments;
    let before = count();
    assert_eq!(
        archive.prune().unwrap(),
        0,
        "the first snapshot needs all of it"
    );
    for made in snapshots.list().unwrap() {
        if made.name != newer.name {
            snapshots.repository().remove(made.name).unwrap();
        }
    }
    let removed = archive.prune().unwrap();
    assert!(removed >= 15, "{removed} of {before}");
    assert_eq!(count(), before - removed);
    archive.restore_to(Until::End, place.at("then")).unwrap();
    assert_eq!(
        numbers(&Database::open(place.at("then")).unwrap()).len(),
        21
    );
}

/// How much is lost with the machine: what was written within the last second at most. Where others keep the disk busy, syncs take as
/// long as they take: one of five runs has to show it.
#[test]
fn the_recovery_point_is_within_a_second() {
    let mut points = Vec::new();
    for _ in 0..5 {
        let point = recovery_point();
        if point <= Duration::from_secs(1) {
            return;
        }
        points.push(point);
    }
    panic!("{points:?}");
}

/// The age of the oldest write that was not in the archive yet, at worst.
fn recovery_point() -> Duration {
    let place = Place::new();
    let db = place.open();
    let archive = place.archive(&db);
    let archiver = archive.start(None).unwrap();
    let clock = SystemClock::new();
    let vault = db.vault("v").unwrap();
    let mut worst = Duration::ZERO;
    let mut n = 0_i64;
    let end = clock.monotonic() + Duration::from_secs(3);
    // What was written, and when, and is not in the archive yet.
    let mut pending: std::collections::VecDeque<(u64, Duration)> =
        std::collections::VecDeque::new();
    while clock.monotonic() < end {
        vault.put(n % 1000, &n).unwrap();
        n += 1;
        pending.push_back((db.engine().latest_sequence(), clock.monotonic()));
        let there = archiver.status().sequence;
        while let Some((_, when)) = pending.pop_front_if(|(sequence, _)| *sequence <= there) {
            worst = worst.max(clock.monotonic().saturating_sub(when));
        }
    }
    assert!(n > 50 && worst > Duration::ZERO);
    // What is still under way counts as well.
    if let Some((_, when)) = pending.front() {
        worst = worst.max(clock.monotonic().saturating_sub(*when));
    }
    archiver.stop();
    worst
}

/// Where nobody shipped, the log is gone: another chain begins. A restore takes the one that goes on from the newest snapshot, whatever
/// its name, and a point between two of them is refused.
#[test]
fn chains_that_ended_are_not_taken_for_the_one_that_goes_on() {
    let place = Place::new();
    let small = Database::builder().memory_bytes(64 << 20);
    let db = small.open(place.at("store")).unwrap();
    let archive = place.archive(&db);
    let vault = db.vault("v").unwrap();
    let mut between = Vec::new();
    for round in 0..5_i64 {
        let archiver = archive.start(None).unwrap();
        vault.put(2 * round, &round).unwrap();
        archiver.stop();
        vault.put(2 * round + 1, &round).unwrap();
        between.push(db.engine().latest_sequence());
        // More than two segments of the log, and a flush: they are gone.
        for _ in 0..12 {
            vault.put("filler", &vec![0_u8; 1 << 20]).unwrap();
        }
        db.engine().flush(None).unwrap();
    }
    let archiver = archive.start(None).unwrap();
    vault.put(100, &1).unwrap();
    let last = db.engine().latest_sequence();
    archiver.stop();
    for (n, until) in [Until::End, Until::Sequence(last)].into_iter().enumerate() {
        let target = place.at(&format!("end {n}"));
        let restored = archive.restore_to(until, &target).unwrap();
        assert_eq!(restored.sequence, last);
        assert_eq!(
            Database::open(&target)
                .unwrap()
                .vault("v")
                .unwrap()
                .len()
                .unwrap(),
            12
        );
    }
    assert_eq!(archive.chains().unwrap().len(), 6);
    let target = place.at("between");
    for sequence in &between {
        let refused = archive.restore_to(Until::Sequence(*sequence), &target);
        assert!(
            matches!(refused, Err(Error::BeyondLog { .. })),
            "{refused:?} for {sequence}"
        );
        assert_eq!(DiskFileSystem.kind(&target).unwrap(), None);
    }
    let beyond = archive.restore_to(Until::Sequence(last + 10), place.at("beyond"));
    assert!(matches!(beyond, Err(Error::BeyondLog { .. })), "{beyond:?}");
}

/// The secret of a store does not open the keys that were shipped under another one. What came before and behind the change can be gone
/// back to all the same, with the secret of the snapshot that it begins with.
#[test]
fn another_secret_in_between_cuts_nothing_off() {
    let place = Place::new();
    let secret =
        |text: &str| Passphrase::new(SecretBytes::from_string(text.to_owned()).unwrap()).unwrap();
    let db = EncryptedDatabase::open(place.at("store"), secret("old")).unwrap();
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let archive_with = |text: &str| {
        let snapshots = snapshots.clone().with_key(secret(text));
        snapshots.log_archive(place.at("log"))
    };
    let archiver = archive_with("old").start(None).unwrap();
    let vault = db.vault("v").unwrap();
    vault.put(1, &1).unwrap();
    shipped(&db, &archiver);
    db.change_secret(&secret("new"), None).unwrap();
    vault.put(2, &2).unwrap();
    let before = db.engine().latest_sequence();
    shipped(&db, &archiver);
    snapshots.create().unwrap();
    vault.put(3, &3).unwrap();
    shipped(&db, &archiver);
    archiver.stop();

    let end = place.at("end");
    archive_with("new").restore_to(Until::End, &end).unwrap();
    let then = EncryptedDatabase::open(&end, secret("new")).unwrap();
    assert_eq!(numbers(&then), [1, 2, 3]);
    let middle = place.at("middle");
    archive_with("old")
        .restore_to(Until::Sequence(before), &middle)
        .unwrap();
    let then = EncryptedDatabase::open(&middle, secret("old")).unwrap();
    assert_eq!(numbers(&then), [1, 2]);
}

/// Nobody gets less back than somebody knows of, unless it is what was asked for.
#[test]
fn what_a_snapshot_knows_beyond_the_log_is_not_passed_over() {
    let place = Place::new();
    let db = place.open();
    let archive = place.archive(&db);
    let archiver = archive.start(None).unwrap();
    let vault = db.vault("v").unwrap();
    vault.put(1, &1).unwrap();
    let good = db.engine().latest_sequence();
    shipped(&db, &archiver);
    archiver.stop();
    thread::park_timeout(Duration::from_millis(5));
    let between = SystemClock::new().now();
    thread::park_timeout(Duration::from_millis(5));
    vault.put(2, &2).unwrap();
    let later = db
        .snapshots(place.at("snapshots"))
        .unwrap()
        .create()
        .unwrap();

    // The snapshot is the last that anybody knows of.
    for (n, until) in [Until::End, Until::Time(SystemClock::new().now())]
        .into_iter()
        .enumerate()
    {
        let target = place.at(&format!("end {n}"));
        let restored = archive.restore_to(until, &target).unwrap();
        assert_eq!((restored.base, restored.batches), (later.name, 0));
        assert_eq!(numbers(&Database::open(&target).unwrap()), [1, 2]);
    }
    archive
        .restore_to(Until::Sequence(good), place.at("good"))
        .unwrap();
    let refused = archive.restore_to(Until::Time(between), place.at("never"));
    assert!(
        matches!(refused, Err(Error::BeyondLog { .. })),
        "{refused:?}"
    );

    // One that cannot be read may know of more: the end may not be the end. What the log covers is sure.
    let manifest = place
        .at("snapshots")
        .join(later.name.to_string())
        .join("manifest.json");
    let file = DiskFileSystem.open_for_write(&manifest).unwrap();
    file.write_at(b"no manifest", 0).unwrap();
    let refused = archive.restore_to(Until::End, place.at("never"));
    assert!(matches!(refused, Err(Error::Snapshot(_))), "{refused:?}");
    assert_eq!(DiskFileSystem.kind(&place.at("never")).unwrap(), None);
    archive
        .restore_to(Until::Sequence(good), place.at("good again"))
        .unwrap();
}

/// A consolidated snapshot has the newest name, and shows what an old one did.
#[test]
fn a_consolidated_snapshot_is_as_old_as_what_it_shows() {
    let place = Place::new();
    let small = Database::builder().memory_bytes(64 << 20);
    let db = small.open(place.at("store")).unwrap();
    let (archive, vault) = (place.archive(&db), db.vault("v").unwrap());
    let snapshots = db.snapshots(place.at("snapshots")).unwrap();
    let mut first = None;
    for round in 0..2_i64 {
        let archiver = archive.start(None).unwrap();
        vault.put(round, &round).unwrap();
        first.get_or_insert_with(|| snapshots.create().unwrap().name);
        archiver.stop();
        // A gap in the log.
        for _ in 0..12 {
            vault.put("filler", &vec![0_u8; 1 << 20]).unwrap();
        }
        db.engine().flush(None).unwrap();
    }
    let archiver = archive.start(None).unwrap();
    vault.put(2, &2).unwrap();
    let last = db.engine().latest_sequence();
    archiver.stop();
    assert!(archive.chains().unwrap().len() > 1);
    snapshots
        .repository()
        .consolidate(first.unwrap(), &())
        .unwrap();
    for (n, until) in [Until::End, Until::Time(SystemClock::new().now())]
        .into_iter()
        .enumerate()
    {
        let restored = archive
            .restore_to(until, place.at(&format!("end {n}")))
            .unwrap();
        assert_eq!(restored.sequence, last);
    }
}
