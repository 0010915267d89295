//! Loss of power and end of the process at every file operation of making, merging, pruning and restoring snapshots.
//!
//! For every n a workload runs until its nth file operation; whatever a crash there can leave must be a repository that lists only
//! whole snapshots, among them all that were acknowledged, and a target that is absent or whole. Then the work is done again on what is
//! left, and must succeed: nothing that a crash leaves is in the way.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

use std::path::Path;

use vault_core::vfs::{CrashPolicy, FileSystem, MemoryFileSystem};
use vault_snapshot::archive::{Manifest, SnapshotName};
use vault_snapshot::repository::Parent;
use vault_snapshot::retention::Retention;

use support::*;

const POLICIES: [(CrashPolicy, u64); 5] = [
    (CrashPolicy::DropUnsynced, 0),
    (CrashPolicy::KeepUnsynced, 0),
    (CrashPolicy::Random { percent: 50 }, 1),
    (CrashPolicy::Random { percent: 50 }, 2),
    (CrashPolicy::Random { percent: 80 }, 3),
];

/// Runs `work` on copies of a world, each cut off after another number of file operations, and shows `check` what crashes leave.
fn sweep<T>(
    before: &MemoryFileSystem,
    work: impl Fn(&World) -> Option<T>,
    check: impl Fn(&World, Option<&T>, &str),
) {
    let mut crashes = 0;
    for n in 0.. {
        let world = World::on(before.kill());
        world.clock.advance(std::time::Duration::from_secs(3600));
        let start = world.fs.operations();
        world.fs.set_crash_point(Some(start + n));
        let done = work(&world);
        let ended = done.is_some() && world.fs.operations() <= start + n;
        for (policy, seed) in POLICIES {
            let context = format!("power lost at {n}, {policy:?} with seed {seed}");
            let left = World::on(world.fs.crash(seed + n, policy));
            left.clock.advance(std::time::Duration::from_secs(7200));
            check(&left, done.as_ref(), &context);
            crashes += 1;
        }
        let killed = World::on(world.fs.kill());
        killed.clock.advance(std::time::Duration::from_secs(7200));
        check(&killed, done.as_ref(), &format!("killed at {n}"));
        if ended {
            break;
        }
    }
    assert!(crashes > 100, "{crashes} crashes were looked at");
}

/// Everything that is listed is whole, and what was there before the work still is, but for what may be gone.
fn whole(
    world: &World,
    before: &[SnapshotName],
    may_be_gone: &[SnapshotName],
    context: &str,
) -> Vec<SnapshotName> {
    let survey = world.repository.survey().unwrap();
    assert!(
        survey.unreadable.is_empty(),
        "{context}: {:?}",
        survey.unreadable
    );
    for manifest in &survey.snapshots {
        let verified = world.repository.verify(manifest.name, &());
        assert!(verified.is_ok(), "{context}: {verified:?}");
    }
    let names: Vec<_> = survey.snapshots.iter().map(|m| m.name).collect();
    for name in before.iter().filter(|name| !may_be_gone.contains(name)) {
        assert!(names.contains(name), "{context}: {name} is gone");
    }
    // What was interrupted can be removed, and nothing else goes with it.
    let cleaned = world.repository.clean().unwrap();
    assert_eq!(cleaned.removed, survey.interrupted, "{context}");
    assert_eq!(world.repository.names().unwrap(), names, "{context}");
    let left = picture(&world.fs).len();
    let beside = files_in(&world.fs, "/restored").len();
    assert_eq!(
        left - beside,
        2 * names.len(),
        "{context}: an archive and a manifest each"
    );
    names
}

/// A full snapshot, and two that build on it.
fn chain() -> (MemoryFileSystem, Vec<Manifest>, Files) {
    let world = World::new();
    let mut files = some_files(1);
    let mut made = vec![world.create(&files, Parent::None).unwrap()];
    for round in 0..2u8 {
        files.insert(format!("00001{round}.table"), vec![round; 600]);
        made.push(world.create(&files, Parent::Newest).unwrap());
    }
    (world.fs, made, files)
}

#[test]
fn a_first_snapshot_is_whole_or_not_there() {
    let files = some_files(1);
    let create = |world: &World| world.create(&files, Parent::Newest).ok();
    sweep(&MemoryFileSystem::new(), create, |left, done, context| {
        let names = whole(left, &[], &[], context);
        if let Some(done) = done {
            assert_eq!(names, [done.name], "{context}: it was acknowledged");
        }
        let again = left.create(&files, Parent::Newest).unwrap();
        assert_eq!(left.extract(again.name).unwrap(), files, "{context}");
    });
}

#[test]
fn an_incremental_one_is_whole_or_not_there() {
    let (fs, made, mut files) = chain();
    let before: Vec<_> = made.iter().map(|m| m.name).collect();
    files.insert("000020.table".into(), vec![9; 5000]);
    let create = |world: &World| world.create(&files, Parent::Newest).ok();
    sweep(&fs, create, |left, done, context| {
        let names = whole(left, &before, &[], context);
        if let Some(done) = done {
            assert_eq!(
                names.last(),
                Some(&done.name),
                "{context}: it was acknowledged"
            );
            assert_eq!(left.extract(done.name).unwrap(), files, "{context}");
        }
        left.create(&files, Parent::Newest).unwrap();
    });
}

#[test]
fn a_consolidated_one_is_whole_or_not_there() {
    let (fs, made, files) = chain();
    let before: Vec<_> = made.iter().map(|m| m.name).collect();
    let last = before[2];
    let consolidate = |world: &World| world.repository.consolidate(last, &()).ok();
    sweep(&fs, consolidate, |left, done, context| {
        let names = whole(left, &before, &[], context);
        if let Some(done) = done {
            assert_eq!(
                names.last(),
                Some(&done.name),
                "{context}: it was acknowledged"
            );
            assert_eq!(left.extract(done.name).unwrap(), files, "{context}");
        }
        left.repository.consolidate(last, &()).unwrap();
    });
}

#[test]
fn pruning_never_leaves_one_without_what_it_needs() {
    let (fs, made, files) = chain();
    let world = World::on(fs);
    world.clock.advance(std::time::Duration::from_secs(1800));
    let kept = world.create(&files, Parent::None).unwrap().name;
    let mut before: Vec<_> = made.iter().map(|m| m.name).collect();
    let gone = before.clone();
    before.push(kept);
    let prune = |world: &World| world.repository.prune(&Retention::default(), false).ok();
    sweep(&world.fs, prune, |left, done, context| {
        let names = whole(left, &before, &gone, context);
        if let Some(plan) = done {
            assert_eq!(plan.remove, gone, "{context}");
            assert_eq!(
                names,
                [kept],
                "{context}: the others were said to be removed"
            );
        }
        left.repository.prune(&Retention::default(), false).unwrap();
        assert_eq!(left.repository.names().unwrap(), [kept], "{context}");
    });
}

#[test]
fn what_is_cleaned_stays_clean() {
    let world = World::new();
    let kept = world.create(&some_files(1), Parent::None).unwrap().name;
    let cut = Path::new(ROOT).join("2026-11-22T153030Z");
    world.fs.create_dir_all(&cut).unwrap();
    world
        .fs
        .write_file(cut.join("snapshot.zip"), &[1; 5000])
        .unwrap();
    world
        .fs
        .write_file(cut.join("manifest.json.new"), b"{")
        .unwrap();
    for n in 0..12 {
        let cut_off = World::on(world.fs.kill());
        cut_off
            .fs
            .set_crash_point(Some(cut_off.fs.operations() + n));
        let done = cut_off.repository.clean();
        for (policy, seed) in POLICIES {
            let left = World::on(cut_off.fs.crash(seed + n, policy));
            let names = whole(&left, &[kept], &[], &format!("{n}, {policy:?}, {done:?}"));
            assert_eq!(names, [kept]);
        }
    }
}

#[test]
fn a_target_is_absent_or_whole() {
    let (fs, made, mut files) = chain();
    let before: Vec<_> = made.iter().map(|m| m.name).collect();
    fs.create_dir_all(Path::new("/restored")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let extract = |world: &World| {
        let target = Path::new(TARGET);
        let prepare = |directory: &Path| {
            let file = world.fs.create(&directory.join("prepared"))?;
            file.write_at(b"another instance", 0)?;
            Ok(file.sync()?)
        };
        let all = |_: &_| true;
        world
            .repository
            .extract(before[2], &world.fs, target, &all, prepare, &())
            .ok()
    };
    files.insert("prepared".into(), b"another instance".to_vec());
    sweep(&fs, extract, |left, done, context| {
        whole(left, &before, &[], context);
        let there = left.fs.kind(Path::new(TARGET)).unwrap().is_some();
        if there {
            assert_eq!(files_in(&left.fs, TARGET), files, "{context}");
        }
        assert!(there || done.is_none(), "{context}: it was acknowledged");
        // What was left beside it is not in the way of the next one.
        if !there {
            assert!(extract(left).is_some(), "{context}");
            assert_eq!(
                files_in(&left.fs, "/restored").len(),
                files.len(),
                "{context}"
            );
        }
    });
}
