//! Targets that are taken, disks that are full, operations that fail, clocks that go back: nothing is half done.

mod support;

use std::ops::ControlFlow;
use std::path::Path;

use vault_core::vfs::{Fault, FaultKind, FileSystem, OperationClass};
use vault_core::{ErrorKind, Timestamp};
use vault_snapshot::archive::{Entry, Error};
use vault_snapshot::repository::Parent;
use vault_snapshot::retention::{Reason, Retention};

use support::*;

#[test]
fn a_target_that_is_not_empty_is_left_alone() {
    let world = World::new();
    let name = world.create(&some_files(1), Parent::None).unwrap().name;
    let check = |part: &str| {
        let before = picture(&world.fs);
        let error = world.extract(name).unwrap_err();
        assert!(matches!(error, Error::TargetOccupied { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(picture(&world.fs), before);
    };
    world.fs.create_dir_all(Path::new(TARGET)).unwrap();
    world
        .fs
        .write_file(Path::new(TARGET).join("mine"), b"precious")
        .unwrap();
    check("not empty");
    world.fs.remove(&Path::new(TARGET).join("mine")).unwrap();
    world.fs.remove_dir(Path::new(TARGET)).unwrap();
    world.fs.write_file(TARGET, b"a file").unwrap();
    check("no directory");
    world.fs.remove(Path::new(TARGET)).unwrap();
    // What only looks like a remnant of ours: there is no lock beside it.
    let temporary = "/restored/store.restoring";
    world.fs.create_dir_all(Path::new(temporary)).unwrap();
    world
        .fs
        .write_file(format!("{temporary}/mine"), b"precious")
        .unwrap();
    check("something is there");
    // With it, it is one.
    world
        .fs
        .write_file(format!("{temporary}.lock"), b"a restore by process 1")
        .unwrap();
    world.extract(name).unwrap();
    assert!(
        !files_in(&world.fs, "/restored")
            .keys()
            .any(|name| name.contains("restoring"))
    );
    for target in ["/", "/a/.."] {
        let error = world.extract_to(name, target).unwrap_err();
        assert!(
            matches!(
                error,
                Error::InvalidRequest { .. } | Error::TargetOccupied { .. }
            ),
            "{error}"
        );
    }
}

#[test]
fn two_restores_into_one_target_do_not_meet() {
    let world = World::new();
    let files = some_files(1);
    let name = world.create(&files, Parent::None).unwrap().name;
    let target = Path::new(TARGET);
    let all = |_: &Entry| true;
    let other = |_: &Path| {
        let error = world.extract(name).unwrap_err();
        assert!(matches!(error, Error::Busy { .. }), "{error}");
        assert!(
            error.to_string().contains("a restore by process"),
            "{error}"
        );
        // Another target is another matter.
        Ok(world.extract_to(name, "/restored/other")?)
    };
    world
        .repository
        .extract(name, &world.fs, target, &all, other, &())
        .unwrap();
    assert_eq!(files_in(&world.fs, TARGET), files);
    assert_eq!(files_in(&world.fs, "/restored/other"), files);
    // Somebody puts something there at the last moment.
    let target = Path::new("/restored/third");
    let meanwhile = |_: &Path| {
        world.fs.create_dir_all(target)?;
        Ok(world.fs.write_file(target.join("mine"), b"precious")?)
    };
    let error = world
        .repository
        .extract(name, &world.fs, target, &all, meanwhile, &());
    assert!(matches!(error, Err(Error::TargetOccupied { .. })));
    assert_eq!(files_in(&world.fs, "/restored/third").len(), 1);
    assert_eq!(
        world
            .fs
            .kind(Path::new("/restored/third.restoring"))
            .unwrap(),
        None
    );
}

#[test]
fn a_host_that_cannot_prepare_or_cancels_leaves_no_target() {
    let world = World::new();
    let name = world.create(&some_files(1), Parent::None).unwrap().name;
    let before = picture(&world.fs);
    let target = Path::new(TARGET);
    let all = |_: &Entry| true;
    let refuse = |_: &Path| Err("the key is another's".into());
    let error = world
        .repository
        .extract(name, &world.fs, target, &all, refuse, &())
        .unwrap_err();
    assert!(matches!(error, Error::Prepare { .. }), "{error}");
    assert_eq!(picture(&world.fs), before);
    for stop_at in [0, 70_000, 120_000] {
        let watcher = |done: u64, _| match done > stop_at {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let stopped = world
            .repository
            .extract(name, &world.fs, target, &all, |_| Ok(()), &watcher);
        assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
        assert_eq!(picture(&world.fs), before);
    }
}

#[test]
fn a_full_disk_leaves_nothing_half_done() {
    let world = World::new();
    let files = some_files(1);
    let name = world.create(&files, Parent::None).unwrap().name;
    let before = picture(&world.fs);
    let used = world.fs.bytes_used();
    for room in [0, 4096, 8192, 40_960, 77_824] {
        world.fs.set_capacity(Some(used + room));
        let error = world.create(&some_files(2), Parent::None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{room}: {error}");
        let error = world.extract(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{room}: {error}");
        assert_eq!(picture(&world.fs), before, "{room}");
        assert_eq!(world.repository.names().unwrap(), [name]);
    }
    world.fs.set_capacity(None);
    assert_eq!(world.extract(name).unwrap(), files);
    world.create(&some_files(2), Parent::None).unwrap();
}

/// Every file operation of each kind fails once: whatever is said to have failed has left nothing, and what is said to have
/// worked, has.
#[test]
fn an_operation_that_fails_leaves_a_repository_of_whole_snapshots() {
    let files = some_files(1);
    let fail = |kind, at| {
        let world = World::new();
        let first = world.create(&files, Parent::None).unwrap().name;
        world
            .fs
            .inject(Fault::new(OperationClass::Any, kind).after(at));
        let second = world.create(&some_files(2), Parent::Newest);
        let restored = world.extract(first);
        let hit = world.fs.faults_hit() > 0;
        world.fs.clear_faults();
        for manifest in world.repository.list().unwrap() {
            world.repository.verify(manifest.name, &()).unwrap();
        }
        let listed = world.repository.names().unwrap();
        assert!(listed.contains(&first), "{kind:?} at {at}");
        if let Ok(second) = &second {
            assert!(listed.contains(&second.name), "{kind:?} at {at}");
        }
        match &restored {
            Ok(restored) => assert_eq!(*restored, files),
            Err(_) => {
                let there = files_in(&world.fs, TARGET);
                assert!(there.is_empty() || there == files, "{kind:?} at {at}");
            }
        }
        hit
    };
    for (kind, least) in [
        (FaultKind::Error(std::io::ErrorKind::StorageFull), 60),
        (FaultKind::ShortRead, 15),
        (FaultKind::ShortWrite, 7),
    ] {
        let steps = (0..).take_while(|&at| fail(kind, at)).count();
        assert!(steps > least, "{kind:?}: {steps}");
    }
}

#[test]
fn a_clock_that_goes_back_removes_nothing() {
    let world = World::new();
    let made: Vec<_> = (0..3)
        .map(|_| world.create(&some_files(1), Parent::None).unwrap().name)
        .collect();
    world.clock.set(Timestamp(NOW.0 - 86_400_000));
    let plan = world
        .repository
        .prune(&Retention::default(), false)
        .unwrap();
    assert_eq!(plan.remove, []);
    assert!(
        plan.keep
            .iter()
            .all(|(_, reasons)| reasons.contains(&Reason::AheadOfClock))
    );
    assert_eq!(world.repository.names().unwrap(), made);
    // Beyond the last second that can be named there is no next one.
    world.clock.set(Timestamp(253_402_207_200_000));
    let last = world.create(&some_files(1), Parent::None).unwrap();
    assert_eq!(last.name.to_string(), "9999-12-30T220000Z");
    let error = world.create(&some_files(1), Parent::None).unwrap_err();
    assert!(matches!(error, Error::InvalidName { .. }), "{error}");
}
