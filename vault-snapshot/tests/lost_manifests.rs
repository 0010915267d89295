//! Manifests that are lost or cannot be read: what `clean` lets be, and what is the latest all the same.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

use std::path::Path;

use vault_core::vfs::{DiskFileSystem, FileSystem};
use vault_snapshot::archive::{Error, Manifest};
use vault_snapshot::repository::{Cleaned, Parent};
use vault_snapshot::retention::Retention;

use support::*;

/// Three that build on each other. The second holds nothing that the third shows.
fn chain(world: &World) -> [Manifest; 3] {
    let mut files = some_files(1);
    let first = world.create(&files, Parent::None).unwrap();
    files.insert("000011.table".into(), vec![2; 900]);
    let second = world.create(&files, Parent::Newest).unwrap();
    files.remove("000011.table");
    files.insert("000012.table".into(), vec![3; 900]);
    let third = world.create(&files, Parent::Newest).unwrap();
    assert_eq!(third.parent, Some(second.name));
    assert!(third.entries.iter().all(|e| e.holder != second.name));
    [first, second, third]
}

fn interrupted(world: &World, name: &str) {
    let directory = Path::new(ROOT).join(name);
    world.fs.create_dir_all(&directory).unwrap();
    world
        .fs
        .write_file(directory.join("snapshot.zip"), b"half of")
        .unwrap();
}

#[test]
fn what_has_lost_its_manifest_and_is_needed_stays() {
    for lost in [vec![0], vec![1], vec![0, 1]] {
        let world = World::new();
        let all = chain(&world);
        let right = world.extract(all[2].name).unwrap();
        interrupted(&world, "2026-11-22T160000Z");
        let mut manifests = Vec::new();
        for &at in &lost {
            let path = world.manifest_path(all[at].name);
            manifests.push((path.clone(), world.fs.read_file(&path).unwrap()));
            world.fs.remove(&path).unwrap();
        }
        let Cleaned { removed, kept_for } = world.repository.clean().unwrap();
        assert_eq!(removed, ["2026-11-22T160000Z".parse().unwrap()]);
        let kept: Vec<_> = kept_for.iter().map(|(name, _)| *name).collect();
        let names: Vec<_> = lost.iter().map(|&at| all[at].name).collect();
        assert_eq!(kept, names, "{lost:?}");
        assert!(kept_for.iter().all(|(_, by)| by.contains(&all[2].name)));
        // The manifests are put back, and everything is as it was.
        for (path, json) in manifests {
            world.fs.write_file(&path, &json).unwrap();
        }
        world.repository.verify(all[2].name, &()).unwrap();
        world.extract_to(all[2].name, "/restored/again").unwrap();
        assert_eq!(files_in(&world.fs, "/restored/again"), right);
    }
}

/// Two links are lost: the newer is named, and what it builds on in turn nobody knows.
#[test]
fn what_lies_before_a_lost_parent_stays() {
    let world = World::new();
    let [first, second, third] = chain(&world);
    let mut files = some_files(1);
    files.insert("000013.table".into(), vec![4; 900]);
    let fourth = world.create(&files, Parent::Newest).unwrap();
    for lost in [&second, &third] {
        world.fs.remove(&world.manifest_path(lost.name)).unwrap();
    }
    let cleaned = world.repository.clean().unwrap();
    assert_eq!(cleaned.removed, []);
    assert_eq!(
        cleaned.kept_for,
        [
            (second.name, vec![fourth.name]),
            (third.name, vec![fourth.name])
        ]
    );
    assert_eq!(world.repository.names().unwrap(), [first.name, fourth.name]);
}

/// What lies before a link whose manifest was lost was taken for unneeded, and removed: putting the manifest back came too late.
#[test]
fn nothing_that_a_lost_link_leads_to_is_pruned_or_removed() {
    let world = World::new();
    let [first, second, third] = chain(&world);
    let mut files = some_files(1);
    files.insert("000013.table".into(), vec![4; 900]);
    let fourth = world.create(&files, Parent::Newest).unwrap();
    let right = world.extract(fourth.name).unwrap();
    let other = world.create(&some_files(2), Parent::None).unwrap();
    let last = world.create(&some_files(3), Parent::None).unwrap();
    let path = world.manifest_path(third.name);
    let json = world.fs.read_file(&path).unwrap();
    world.fs.remove(&path).unwrap();

    for needed in [&first, &second] {
        let refused = world.repository.remove(needed.name).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains(&fourth.name.to_string()), "{said}");
    }
    world.repository.remove(other.name).unwrap();
    let two = Retention {
        last: 2,
        ..Retention::default()
    };
    let plan = world.repository.prune(&two, false).unwrap();
    assert_eq!(plan.remove, []);
    let needed = vec![fourth.name];
    assert_eq!(
        plan.kept_for,
        [(first.name, needed.clone()), (second.name, needed)]
    );
    world.fs.write_file(&path, &json).unwrap();
    world.extract_to(fourth.name, "/restored/again").unwrap();
    assert_eq!(files_in(&world.fs, "/restored/again"), right);
    assert!(world.repository.names().unwrap().contains(&last.name));
}

#[test]
fn nothing_is_cleaned_beside_a_manifest_that_cannot_be_read() {
    let world = World::new();
    let [first, _, third] = chain(&world);
    world.fs.remove(&world.manifest_path(first.name)).unwrap();
    let path = world.manifest_path(third.name);
    let json = world.fs.read_file(&path).unwrap();
    let cut = &json[..json.len() / 2];
    world.fs.write_file(&path, cut).unwrap();
    interrupted(&world, "2026-11-22T160000Z");
    let before = picture(&world.fs);
    let said = damaged(world.repository.clean());
    assert!(said.contains("nothing was removed"), "{said}");
    assert!(said.contains("end of its own zip"), "{said}");
    assert_eq!(picture(&world.fs), before);
}

#[test]
fn a_manifest_that_is_a_directory_is_not_taken_for_none() {
    let world = World::new();
    let name = world.create(&some_files(1), Parent::None).unwrap().name;
    let path = world.manifest_path(name);
    world.fs.remove(&path).unwrap();
    world.fs.create_dir_all(&path).unwrap();
    interrupted(&world, "2026-11-22T160000Z");
    let said = damaged(world.repository.clean());
    assert!(said.contains("leads to no file"), "{said}");
    assert!(world.fs.kind(&world.archive_path(name)).unwrap().is_some());
}

/// The consolidated one has a later name than the one that cannot be read, and shows an earlier moment.
#[test]
fn the_latest_is_told_by_moments_and_not_by_names() {
    let world = World::new();
    let mut files = some_files(1);
    let root = world.create(&files, Parent::None).unwrap();
    files.insert("000011.table".into(), vec![2; 900]);
    let old = world.create(&files, Parent::Newest).unwrap();
    let newest = world.create(&some_files(2), Parent::None).unwrap();
    let consolidated = world.repository.consolidate(old.name, &()).unwrap();
    assert!(consolidated.name > newest.name);
    let latest = || world.repository.latest();
    assert_eq!(latest().unwrap(), Some(newest.clone()));

    let path = world.manifest_path(newest.name);
    let json = world.fs.read_file(&path).unwrap();
    world.fs.write_file(&path, b"{").unwrap();
    let said = damaged(latest());
    assert!(said.contains(&newest.name.to_string()), "{said}");
    assert!(said.contains("name the snapshot that you mean"), "{said}");

    // What is certainly older is in nobody's way: the original of the newest, and what came before it.
    world.fs.write_file(&path, &json).unwrap();
    for original in [&root, &old] {
        let path = world.manifest_path(original.name);
        world.fs.write_file(&path, b"{").unwrap();
    }
    assert_eq!(latest().unwrap(), Some(newest.clone()));
    world.fs.remove(&path).unwrap();
    assert_eq!(latest().unwrap(), Some(consolidated.clone()));

    // Nothing can be read at all.
    let path = world.manifest_path(consolidated.name);
    world.fs.write_file(&path, b"{").unwrap();
    damaged(latest());
}

#[cfg(unix)]
#[test]
fn a_manifest_that_is_a_link_is_one() {
    use std::sync::Arc;
    use vault_snapshot::destination::Directory;
    use vault_snapshot::repository::{CreateOptions, Repository, RepositoryOptions};

    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("repository");
    let place = Directory::new(Arc::new(DiskFileSystem), &root);
    let repository = Repository::open(Arc::new(place), RepositoryOptions::default()).unwrap();
    let source = source_of(&some_files(1));
    let made = repository
        .create(source, &CreateOptions::default(), &())
        .unwrap();
    let inside = root.join(made.name.to_string());
    let (path, elsewhere) = (inside.join("manifest.json"), scratch.path().join("kept"));
    DiskFileSystem.rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert_eq!(repository.clean().unwrap(), Cleaned::default());
    repository.verify(made.name, &()).unwrap();

    // It leads nowhere: what lies beside it stays all the same.
    DiskFileSystem.remove(&elsewhere).unwrap();
    let survey = repository.survey().unwrap();
    assert!(matches!(survey.unreadable[..], [(name, Error::Damaged { .. })] if name == made.name));
    assert_eq!(repository.clean().unwrap(), Cleaned::default());
    assert!(DiskFileSystem.open(&inside.join("snapshot.zip")).is_ok());
}
