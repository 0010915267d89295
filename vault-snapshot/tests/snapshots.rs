//! Snapshots through their life: made, listed, verified, read, restored, merged, removed.

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vault_core::vfs::{DiskFileSystem, FileSystem, MemoryFileSystem};
use vault_core::{ErrorKind, Timestamp};
use vault_snapshot::archive::{Error, Form, Hex, Kind, SnapshotName, Trigger};
use vault_snapshot::destination::Directory;
use vault_snapshot::repository::{
    Cleaned, CreateOptions, Limits, Parent, Repository, RepositoryOptions, Source,
};
use vault_snapshot::retention::Retention;

use support::*;

#[test]
fn what_goes_in_comes_out() {
    let world = World::new();
    let files = some_files(1);
    let options = CreateOptions {
        trigger: Trigger::Event("deploy".into()),
        tags: vec!["release".into()],
        note: "before the migration".into(),
        ..CreateOptions::default()
    };
    let made = world
        .repository
        .create(source_of(&files), &options, &())
        .unwrap();
    assert_eq!(made.name.to_string(), "2026-11-22T153000Z");
    assert_eq!((made.kind, made.form), (Kind::Full, Form::Physical));
    assert_eq!((made.generation, made.sequence), (3, 4711));
    assert_eq!(made.store, Hex(STORE));
    assert_eq!(made.time, NOW);
    assert_eq!(made.trigger, Trigger::Event("deploy".into()));
    assert_eq!(made.entries.len(), files.len());
    assert_eq!(
        made.bytes(),
        files.values().map(|f| f.len() as u64).sum::<u64>()
    );

    let listed = world.repository.list().unwrap();
    assert_eq!(listed, std::slice::from_ref(&made));
    assert_eq!(world.repository.manifest(made.name).unwrap(), made);
    assert_eq!(world.repository.latest().unwrap(), Some(made.clone()));
    let verified = world.repository.verify(made.name, &()).unwrap();
    assert_eq!(verified.entries, files.len() as u64);
    assert_eq!(verified.bytes_read, made.bytes());
    assert_eq!(verified.chain, [made.name]);
    assert_eq!(world.extract(made.name).unwrap(), files);
    for (name, content) in &files {
        let path = format!("store/{name}");
        let read = world.repository.read_entry(made.name, &path, 1 << 20);
        assert_eq!(read.unwrap(), *content);
    }
}

#[test]
fn documents_are_written_compressed_and_counted() {
    let world = World::new();
    let mut source = Source::new(STORE, Form::Logical);
    for (name, lines) in [("users", 100_000), ("über/alles", 3), ("CON", 0)] {
        source.documents.push(document(name, lines));
    }
    let made = world
        .repository
        .create(source, &CreateOptions::default(), &())
        .unwrap();
    assert_eq!(made.form, Form::Logical);
    assert_eq!(made.counts["users"].entries, 100_000);
    assert_eq!(made.counts["über/alles"].bytes, 30);
    let paths: Vec<_> = made.entries.iter().map(|e| e.path.as_str()).collect();
    let right = [
        "vaults/%43ON.json",
        "vaults/%C3%BCber%2Falles.json",
        "vaults/users.json",
    ];
    assert_eq!(paths, right);
    assert_eq!(made.entries[1].document.as_deref(), Some("über/alles"));
    let archive = world.fs.read_file(world.archive_path(made.name)).unwrap();
    assert!(
        (archive.len() as u64) < made.bytes() / 4,
        "it is compressed"
    );
    world.repository.verify(made.name, &()).unwrap();
    let users = world
        .repository
        .read_entry(made.name, "vaults/users.json", 1 << 30)
        .unwrap();
    assert_eq!(users.iter().filter(|byte| **byte == b'\n').count(), 100_000);
    assert_eq!(world.extract(made.name).unwrap()["users.json"], users);
}

#[test]
fn an_incremental_one_stores_only_what_its_chain_has_not() {
    let world = World::new();
    let mut files = some_files(1);
    let full = world.create(&files, Parent::Newest).unwrap();
    assert_eq!(full.kind, Kind::Full, "there is nothing to build on");
    files.insert("000010.table".into(), vec![5; 9_000]);
    files.remove("000003.table");
    files.insert("CURRENT".into(), b"another".to_vec());
    let second = world.create(&files, Parent::Newest).unwrap();
    assert_eq!(second.kind, Kind::Incremental);
    assert_eq!(second.parent, Some(full.name));
    let own: Vec<_> = second.own_entries().map(|e| e.path.as_str()).collect();
    assert_eq!(
        own,
        ["store/000009.log", "store/000010.table", "store/CURRENT"]
    );
    // Of the same name and length, but another file.
    files.insert("000004.table".into(), vec![1; 70_000]);
    let third = world.create(&files, Parent::Named(second.name)).unwrap();
    assert!(third.own_entries().any(|e| e.path == "store/000004.table"));
    assert_eq!(
        third.entry("store/000010.table").unwrap().holder,
        second.name
    );
    assert_eq!(third.chain_root, full.name);

    let verified = world.repository.verify(third.name, &()).unwrap();
    assert_eq!(verified.chain, [third.name, second.name, full.name]);
    assert_eq!(world.extract(third.name).unwrap(), files);
    let read = world
        .repository
        .read_entry(third.name, "store/000010.table", 9_000);
    assert_eq!(read.unwrap(), files["000010.table"]);
}

#[test]
fn consolidation_needs_neither_the_store_nor_the_chain_afterwards() {
    let world = World::new();
    let mut files = some_files(1);
    let full = world.create(&files, Parent::None).unwrap();
    files.insert("000010.table".into(), vec![5; 3 << 20]);
    let old = world.create(&files, Parent::Newest).unwrap();
    let error = world.repository.consolidate(full.name, &()).unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }));

    let new = world.repository.consolidate(old.name, &()).unwrap();
    assert_eq!((new.kind, new.parent), (Kind::Full, None));
    assert_eq!(new.content_of, Some(old.name));
    assert_eq!((new.time, new.sequence), (old.time, old.sequence));
    assert_eq!(world.repository.latest().unwrap().unwrap().name, new.name);
    let kept = Retention {
        last: 1,
        ..Retention::default()
    };
    let plan = world.repository.prune(&kept, false).unwrap();
    assert_eq!(plan.remove, [full.name, old.name]);
    assert_eq!(world.repository.names().unwrap(), [new.name]);
    world.repository.verify(new.name, &()).unwrap();
    assert_eq!(world.extract(new.name).unwrap(), files);
}

/// What is consolidated later is still older than what was made before that.
#[test]
fn a_consolidated_one_counts_as_of_its_moment() {
    let world = World::new();
    let mut files = some_files(1);
    world.create(&files, Parent::None).unwrap();
    files.insert("000010.table".into(), vec![5; 10]);
    let old = world.create(&files, Parent::Newest).unwrap();
    let newest = world.create(&some_files(2), Parent::None).unwrap();
    let late = world.repository.consolidate(old.name, &()).unwrap();
    assert!(late.name > newest.name);
    assert_eq!(
        world.repository.latest().unwrap().unwrap().name,
        newest.name
    );
    let next = world.create(&some_files(2), Parent::Newest).unwrap();
    assert_eq!(next.parent, Some(newest.name));
}

#[test]
fn pruning_keeps_what_kept_ones_build_on() {
    let world = World::new();
    let mut made = vec![world.create(&some_files(1), Parent::None).unwrap().name];
    for round in 0..3u8 {
        let mut files = some_files(1);
        files.insert("000010.table".into(), vec![round; 100]);
        made.push(world.create(&files, Parent::Newest).unwrap().name);
    }
    let lone = world.create(&some_files(2), Parent::None).unwrap().name;
    let before = picture(&world.fs);
    let kept = Retention {
        last: 2,
        ..Retention::default()
    };
    let dry = world.repository.prune(&kept, true).unwrap();
    assert!(dry.remove.is_empty());
    let by: Vec<_> = dry
        .kept_for
        .iter()
        .map(|(name, by)| (*name, by.clone()))
        .collect();
    assert_eq!(
        by,
        made[..3]
            .iter()
            .map(|n| (*n, vec![made[3]]))
            .collect::<Vec<_>>()
    );
    assert_eq!(picture(&world.fs), before, "a dry run removes nothing");

    let plan = world
        .repository
        .prune(&Retention::default(), false)
        .unwrap();
    assert_eq!(plan.remove, made);
    assert_eq!(world.repository.names().unwrap(), [lone]);
    let left = picture(&world.fs);
    assert_eq!(left.len(), 2, "an archive and a manifest: {left:?}");
    world.repository.verify(lone, &()).unwrap();
}

#[test]
fn what_others_need_is_not_removed_by_name() {
    let world = World::new();
    let full = world.create(&some_files(1), Parent::None).unwrap().name;
    let next = world.create(&some_files(1), Parent::Newest).unwrap().name;
    let before = picture(&world.fs);
    let error = world.repository.remove(full).unwrap_err();
    assert!(error.to_string().contains(&next.to_string()), "{error}");
    assert_eq!(picture(&world.fs), before);
    world.repository.remove(next).unwrap();
    world.repository.remove(full).unwrap();
    assert!(world.repository.list().unwrap().is_empty());
    let error = world.repository.remove(full).unwrap_err();
    assert!(matches!(error, Error::NoSuchSnapshot { .. }));
}

#[test]
fn a_full_chain_is_begun_anew() {
    let limits = Limits {
        chain_max: 2,
        ..Limits::default()
    };
    let world = World::with(MemoryFileSystem::new(), limits);
    let kinds: Vec<_> = (0..4)
        .map(|_| world.create(&some_files(1), Parent::Newest).unwrap().kind)
        .collect();
    assert_eq!(
        kinds,
        [Kind::Full, Kind::Incremental, Kind::Full, Kind::Incremental]
    );
    let newest = world.repository.latest().unwrap().unwrap().name;
    let error = world
        .create(&some_files(1), Parent::Named(newest))
        .unwrap_err();
    assert!(matches!(error, Error::Parent { .. }), "{error}");
}

#[test]
fn names_ascend_even_where_the_clock_goes_back() {
    let world = World::new();
    let first = world.create(&some_files(1), Parent::None).unwrap();
    world.clock.set(Timestamp(NOW.0 - 3_600_000));
    let second = world.create(&some_files(1), Parent::None).unwrap();
    assert!(second.name > first.name);
    assert_eq!(second.time, Timestamp(NOW.0 - 3_600_000));
    assert_eq!(second.clock_behind, Some(first.name));
    // Two within one second are no jump.
    world.clock.set(Timestamp(NOW.0 + 3_600_000));
    let third = world.create(&some_files(1), Parent::None).unwrap();
    world.clock.set(Timestamp(NOW.0 + 3_600_500));
    let fourth = world.create(&some_files(1), Parent::None).unwrap();
    assert_eq!(fourth.name, third.name.next().unwrap());
    assert_eq!(fourth.clock_behind, None);
    let names = world.repository.names().unwrap();
    assert_eq!(names, [first.name, second.name, third.name, fourth.name]);
}

#[test]
fn a_source_that_cannot_be_stored_is_refused_before_anything_is_written() {
    let world = World::new();
    let untouched = picture(&world.fs);
    let with = |change: &dyn Fn(&mut Source)| {
        let mut source = source_of(&some_files(1));
        change(&mut source);
        let error = world
            .repository
            .create(source, &CreateOptions::default(), &());
        assert_eq!(picture(&world.fs), untouched);
        error.unwrap_err()
    };
    for bad in [
        "../etc/passwd",
        "/absolute",
        "a\\b",
        "NUL",
        "",
        "a/../b",
        "x:y",
    ] {
        let error = with(&|source| source.files[0].name = bad.into());
        assert!(matches!(error, Error::InvalidPath { .. }), "{bad}: {error}");
    }
    let error = with(&|source| source.files[1].name = source.files[0].name.clone());
    assert!(error.to_string().contains("given twice"), "{error}");
    let error = with(&|source| source.documents.push(document("x", 1)));
    assert!(matches!(error, Error::InvalidRequest { .. }));
    let error = with(&|source| source.files.iter_mut().for_each(|f| f.bytes = u64::MAX));
    assert!(matches!(error, Error::InvalidRequest { .. }));
    let error = with(&|source| source.files[0].bytes = u64::MAX / 2);
    assert!(matches!(error, Error::OverLimit { .. }), "{error}");

    let logical = Source::new(STORE, Form::Logical);
    let options = CreateOptions {
        parent: Parent::Newest,
        ..CreateOptions::default()
    };
    let error = world.repository.create(logical, &options, &()).unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }));
    let limits = Limits {
        chain_max: 0,
        ..Limits::default()
    };
    let options = RepositoryOptions {
        limits,
        ..RepositoryOptions::default()
    };
    let place = Directory::new(Arc::new(world.fs.clone()), ROOT);
    assert!(Repository::open(Arc::new(place), options).is_err());
}

#[test]
fn what_goes_wrong_half_way_leaves_nothing_behind() {
    let world = World::new();
    world.create(&some_files(1), Parent::None).unwrap();
    let before = picture(&world.fs);
    let check = |source: Source, watcher: &dyn vault_snapshot::archive::Watcher| {
        let error = world
            .repository
            .create(source, &CreateOptions::default(), watcher);
        assert_eq!(picture(&world.fs), before);
        assert_eq!(world.repository.survey().unwrap().interrupted, []);
        error.unwrap_err()
    };
    // A file that is shorter than it was said to be.
    let mut source = source_of(&some_files(1));
    source.files[4].bytes += 1;
    let error = check(source, &());
    assert!(
        matches!(
            error,
            Error::SourceChanged {
                expected: 70_001,
                found: 0 | 70_000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Retry);
    // A document that cannot be written.
    let mut source = Source::new(STORE, Form::Logical);
    source.documents.push(document("a", 10));
    source.documents.push(vault_snapshot::repository::Document {
        name: "b".into(),
        write: Box::new(|to| {
            to.write_all(&[b'x'; 3 << 20])?;
            Err("no such vault".into())
        }),
    });
    let error = check(source, &());
    assert!(error.to_string().contains("no such vault"), "{error}");
    // Cancelled: at once, later, and by a document's own bytes.
    for calls in 0..8 {
        let left = AtomicU64::new(calls);
        let watcher = |_, _| match left.fetch_sub(1, Ordering::Relaxed) {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let mut source = Source::new(STORE, Form::Logical);
        source.documents.push(document("a", 300_000));
        let error = if calls % 2 == 0 {
            check(source_of(&some_files(3)), &watcher)
        } else {
            check(source, &watcher)
        };
        assert!(matches!(error, Error::Cancelled), "{calls}: {error}");
    }
}

#[test]
fn only_one_writes_at_a_time() {
    let world = World::new();
    let name = world.create(&some_files(1), Parent::None).unwrap().name;
    let held = world.repository.destination().lock().unwrap();
    let error = world.create(&some_files(1), Parent::None).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(
        world
            .repository
            .prune(&Retention::default(), false)
            .is_err()
    );
    assert!(world.repository.clean().is_err());
    assert!(world.repository.remove(name).is_err());
    // Reading needs no lock.
    assert_eq!(world.repository.names().unwrap(), [name]);
    world.repository.verify(name, &()).unwrap();
    world.extract(name).unwrap();
    drop(held);
    world.repository.remove(name).unwrap();
}

#[test]
fn what_is_interrupted_is_never_listed_and_can_be_cleaned() {
    let world = World::new();
    let whole = world.create(&some_files(1), Parent::None).unwrap().name;
    let cut: SnapshotName = "2026-11-22T160000Z".parse().unwrap();
    let directory = Path::new(ROOT).join(cut.to_string());
    world.fs.create_dir_all(&directory).unwrap();
    world
        .fs
        .write_file(directory.join("snapshot.zip"), b"half of")
        .unwrap();
    world
        .fs
        .write_file(directory.join("manifest.json.new"), b"{")
        .unwrap();
    world
        .fs
        .create_dir_all(&Path::new(ROOT).join("not a snapshot"))
        .unwrap();
    let survey = world.repository.survey().unwrap();
    assert_eq!(survey.interrupted, [cut]);
    assert_eq!(survey.snapshots.len(), 1);
    assert!(matches!(
        world.repository.manifest(cut),
        Err(Error::NoSuchSnapshot { .. })
    ));
    // Its name is not given out again.
    let next = world.create(&some_files(2), Parent::Newest).unwrap();
    assert_eq!(next.name, cut.next().unwrap());

    assert_eq!(world.repository.clean().unwrap().removed, [cut]);
    assert_eq!(world.repository.clean().unwrap(), Cleaned::default());
    assert_eq!(world.fs.kind(&directory).unwrap(), None);
    assert_eq!(world.repository.names().unwrap(), [whole, next.name]);
    assert!(
        world
            .fs
            .kind(&Path::new(ROOT).join("not a snapshot"))
            .unwrap()
            .is_some()
    );
}

#[test]
fn entries_are_chosen_prepared_and_nested() {
    let world = World::new();
    let mut files = some_files(1);
    files.insert("keys/a/ring".into(), b"sealed".to_vec());
    let name = world.create(&files, Parent::None).unwrap().name;
    let chosen = |entry: &vault_snapshot::archive::Entry| {
        entry.path.contains("keys") || entry.path.ends_with("CURRENT")
    };
    let fs = world.fs.clone();
    let prepare = move |directory: &Path| {
        assert!(directory.ends_with("store.restoring"));
        let file = fs.create(&directory.join("prepared"))?;
        file.write_at(b"yes", 0)?;
        Ok(file.sync()?)
    };
    let target = Path::new(TARGET);
    let done = world
        .repository
        .extract(name, &world.fs, target, &chosen, prepare, &())
        .unwrap();
    assert_eq!(
        (done.files, done.bytes),
        (2, 6 + files["CURRENT"].len() as u64)
    );
    assert_eq!(done.target, target);
    let mut right: BTreeMap<_, _> = files;
    right.retain(|name, _| name.contains("keys") || name == "CURRENT");
    right.insert("prepared".into(), b"yes".to_vec());
    assert_eq!(files_in(&world.fs, TARGET), right);
    assert_eq!(
        files_in(&world.fs, "/restored").len(),
        3,
        "nothing else is left there"
    );
}

#[test]
fn what_has_no_such_name_or_path_is_said_so() {
    let world = World::new();
    let none: SnapshotName = "2020-01-01T000000Z".parse().unwrap();
    assert!(
        world.repository.list().unwrap().is_empty(),
        "not even a directory"
    );
    assert!(world.repository.latest().unwrap().is_none());
    let repository = &world.repository;
    assert!(matches!(
        repository.verify(none, &()),
        Err(Error::NoSuchSnapshot { .. })
    ));
    assert!(matches!(
        world.extract(none),
        Err(Error::NoSuchSnapshot { .. })
    ));
    assert!(matches!(
        world.create(&some_files(1), Parent::Named(none)),
        Err(Error::NoSuchSnapshot { .. })
    ));
    let name = world.create(&some_files(1), Parent::None).unwrap().name;
    for path in ["store/none", "../x", "manifest.json", ""] {
        let error = repository.read_entry(name, path, 100).unwrap_err();
        assert!(matches!(error, Error::NoSuchEntry { .. }), "{error}");
    }
    let error = repository
        .read_entry(name, "store/000004.table", 69_999)
        .unwrap_err();
    assert!(
        matches!(error, Error::OverLimit { found: 70_000, .. }),
        "{error}"
    );
}

/// The same on a real disk, with real locks.
#[test]
fn a_directory_on_disk_holds_snapshots() {
    let scratch = tempfile::tempdir().unwrap();
    let place = || {
        let directory = Directory::new(Arc::new(DiskFileSystem::new()), scratch.path().join("a/b"));
        Repository::open(Arc::new(directory), RepositoryOptions::default()).unwrap()
    };
    let (one, other) = (place(), place());
    let files = some_files(1);
    let options = CreateOptions {
        parent: Parent::Newest,
        ..CreateOptions::default()
    };
    let full = one.create(source_of(&files), &options, &()).unwrap();
    let next = other.create(source_of(&files), &options, &()).unwrap();
    assert_eq!(next.parent, Some(full.name));
    let held = one.destination().lock().unwrap();
    assert!(matches!(other.clean(), Err(Error::Busy { .. })));
    drop(held);
    let target = scratch.path().join("restored");
    let fs = DiskFileSystem::new();
    fs.create_dir_all(&target).unwrap();
    other
        .extract(next.name, &fs, &target, &|_| true, |_| Ok(()), &())
        .unwrap();
    for (name, content) in &files {
        let file = fs.open(&target.join(name)).unwrap();
        assert_eq!(vault_core::vfs::read_whole(&*file).unwrap(), *content);
    }
    let beside = fs.read_dir(scratch.path()).unwrap();
    assert_eq!(beside.len(), 2, "{beside:?}");
    std::thread::scope(|scope| {
        // Readers beside a writer.
        let reader = scope.spawn(|| other.verify(next.name, &()).unwrap());
        one.create(source_of(&some_files(2)), &options, &())
            .unwrap();
        reader.join().unwrap();
    });
    assert_eq!(one.names().unwrap().len(), 3);
}

/// A moment was taken, another snapshot was made, and then this one: it became the newest, and showed less.
#[test]
fn what_was_overtaken_is_not_put_behind_what_shows_more() {
    let world = World::new();
    let first = world.create(&some_files(1), Parent::None).unwrap();
    let overtaken = Source {
        taken_behind: Some(first.name),
        ..source_of(&some_files(2))
    };
    let more = Source {
        sequence: overtaken.sequence + 1,
        ..source_of(&some_files(3))
    };
    let create = |source| {
        let options = CreateOptions::default();
        world.repository.create(source, &options, &())
    };
    let newest = create(more).unwrap();
    let before = picture(&world.fs);
    match create(overtaken) {
        Err(Error::Busy { holder, .. }) => {
            assert!(holder.contains(&newest.name.to_string()), "{holder}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(picture(&world.fs), before);
    assert_eq!(world.repository.latest().unwrap(), Some(newest.clone()));

    // A store that was put back to an earlier state goes on: what shows more is older than the moment.
    let put_back = Source {
        taken_behind: Some(newest.name),
        ..source_of(&some_files(4))
    };
    assert!(create(put_back).is_ok());
}
