//! Snapshots in the course of time: by the clock and by how much has changed, told of while they are made, and tried out afterwards.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vault_core::Timestamp;
use vault_core::clock::ManualClock;
use vault_core::vfs::{DiskFileSystem, FileSystem, read_whole};
use vault_db::snapshot::{
    ArchiveError, Form, Parent, Schedule, SnapshotOptions, SnapshotRunner, Trigger,
};
use vault_db::{Database, Error};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn wait_for(runner: &SnapshotRunner, made: u64) {
    for _ in 0..600 {
        if runner.status().made >= made {
            return;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    panic!("{:?}", runner.status());
}

#[test]
fn a_runner_goes_by_the_clock_and_catches_up_once() {
    let place = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000)));
    let db = Database::builder().clock(clock.clone()).temp().unwrap();
    let snapshots = db.snapshots(place.path()).unwrap();
    let daily = Schedule {
        interval: Some(DAY),
        ..Schedule::default()
    };
    let runner = snapshots
        .clone()
        .run(daily, SnapshotOptions::default(), None)
        .unwrap();
    clock.advance(DAY);
    wait_for(&runner, 1);
    clock.advance(5 * DAY);
    wait_for(&runner, 2);
    // Four were missed. Looked at more often than a runner looks.
    thread::park_timeout(Duration::from_millis(2500));
    assert_eq!(runner.status().made, 2);
    let status = runner.stop();
    assert!(status.error.is_none(), "{status:?}");
    let listed = snapshots.list().unwrap();
    let triggers: Vec<_> = listed.iter().map(|made| made.trigger.clone()).collect();
    assert_eq!(triggers, [Trigger::Interval, Trigger::Interval]);
}

/// Documents of some vaults that somebody takes every now and then are no reason to put the next backup of everything off.
#[test]
fn a_runner_takes_no_documents_for_the_last_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000)));
    let db = Database::builder().clock(clock.clone()).temp().unwrap();
    let snapshots = db.snapshots(place.path()).unwrap();
    snapshots.create().unwrap();
    db.vault("v").unwrap().put("a", &1).unwrap();
    clock.advance(9 * DAY / 10);
    let documents = SnapshotOptions {
        form: Form::Logical,
        ..SnapshotOptions::default()
    };
    snapshots.create_with(&documents, &()).unwrap();
    let daily = Schedule {
        interval: Some(DAY),
        ..Schedule::default()
    };
    // Each time the program begins anew.
    let run = || {
        let options = SnapshotOptions::default();
        snapshots.clone().run(daily.clone(), options, None).unwrap()
    };
    let runner = run();
    clock.advance(DAY / 5);
    wait_for(&runner, 1);
    runner.stop();
    let listed = snapshots.list().unwrap();
    assert_eq!(listed.last().unwrap().form, Form::Physical);
    // What has changed is counted from there as well.
    snapshots.create_with(&documents, &()).unwrap();
    db.vault("v").unwrap().put("b", &1).unwrap();
    snapshots.create_with(&documents, &()).unwrap();
    let changes = Schedule {
        changed_entries: Some(1),
        ..Schedule::default()
    };
    let options = SnapshotOptions::default();
    let runner = snapshots.clone().run(changes, options, None).unwrap();
    wait_for(&runner, 1);
    assert_eq!(runner.stop().failed, 0);
}

#[test]
fn a_runner_goes_by_bytes() {
    let place = tempfile::tempdir().unwrap();
    let db = Database::temp().unwrap();
    let vault = db.vault("v").unwrap();
    let snapshots = db.snapshots(place.path()).unwrap();
    let by_bytes = Schedule {
        changed_bytes: Some(100_000),
        ..Schedule::default()
    };
    let runner = snapshots
        .run(by_bytes, SnapshotOptions::default(), None)
        .unwrap();
    vault.put_raw("few", &[0; 10_000]).unwrap();
    thread::park_timeout(Duration::from_millis(1500));
    assert_eq!(runner.status().made, 0);
    for n in 0..10 {
        vault.put_raw(n, &[0; 10_000]).unwrap();
    }
    wait_for(&runner, 1);
    assert_eq!(runner.stop().made, 1);
}

/// Whoever watches is told bytes of all there is to copy, in order, up to the last.
#[test]
fn making_one_tells_how_far_it_is() {
    let place = tempfile::tempdir().unwrap();
    let db = Database::temp().unwrap();
    let vault = db.vault("v").unwrap();
    let mut value = vec![0_u8; 1 << 20];
    for n in 0..8_u8 {
        // Nothing that compresses away.
        let mut state = u32::from(n) + 1;
        for byte in &mut value {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        vault.put_raw(i64::from(n), &value).unwrap();
    }
    let told = RefCell::new(Vec::new());
    let watcher = |done: u64, total: u64| {
        told.borrow_mut().push((done, total));
        ControlFlow::Continue(())
    };
    let snapshots = db.snapshots(place.path()).unwrap();
    let made = snapshots
        .create_with(&SnapshotOptions::default(), &watcher)
        .unwrap();
    let told = told.into_inner();
    assert!(told.len() > 4, "{told:?}");
    assert!(told.is_sorted(), "{told:?}");
    assert!(told.iter().all(|(_, total)| *total == made.own_bytes()));
    assert_eq!(told.last().map(|(done, _)| *done), Some(made.own_bytes()));
}

#[test]
fn a_drill_finds_what_is_damaged() {
    let place = tempfile::tempdir().unwrap();
    let db = Database::temp().unwrap();
    db.vault("v").unwrap().put(1, &1).unwrap();
    let snapshots = db.snapshots(place.path()).unwrap();
    let full = SnapshotOptions {
        parent: Parent::None,
        ..SnapshotOptions::default()
    };
    let made = snapshots.create_with(&full, &()).unwrap();
    assert!(snapshots.drill().unwrap().is_good());
    let path = place
        .path()
        .join(made.name.to_string())
        .join("snapshot.zip");
    let file = DiskFileSystem.open_for_write(&path).unwrap();
    let bytes = read_whole(&*file).unwrap();
    file.write_at(&[!bytes[bytes.len() / 3]], bytes.len() as u64 / 3)
        .unwrap();
    match snapshots.drill().unwrap_err() {
        Error::Snapshot(error) => {
            assert!(matches!(*error, ArchiveError::Damaged { .. }), "{error}");
        }
        other => panic!("{other:?}"),
    }
}
