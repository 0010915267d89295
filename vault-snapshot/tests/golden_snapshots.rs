//! Snapshots of format version 1, as they were written when it was new: a full one, one that builds on it, and one of documents.
//!
//! `VAULT_GOLDEN=write cargo test -p vault-snapshot --test golden_snapshots` writes those of a version that has none yet. What is there
//! already is never written again: stores of today are to be restored tomorrow.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "the repository's own files; a test that cannot be set up has failed"
)]

mod support;

use std::path::{Path, PathBuf};

use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_snapshot::archive::{Form, Kind, Manifest};
use vault_snapshot::repository::{CreateOptions, Parent, Source};

use support::*;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshots-1")
}

fn contents() -> [Files; 2] {
    let mut first = some_files(1);
    first.retain(|_, content| content.len() < 1000);
    let mut second = first.clone();
    second.insert("000010.table".into(), b"later".to_vec());
    [first, second]
}

fn write(directory: &Path) {
    let world = World::new();
    let [first, second] = contents();
    world.create(&first, Parent::None).unwrap();
    world.create(&second, Parent::Newest).unwrap();
    let mut source = Source::new(STORE, Form::Logical);
    source.documents = vec![document("users", 3), document("über/alles", 1)];
    let options = CreateOptions {
        tags: vec!["golden".into()],
        note: "two vaults".into(),
        ..CreateOptions::default()
    };
    world.repository.create(source, &options, &()).unwrap();
    for (path, bytes) in picture(&world.fs) {
        let path = directory.join(path.strip_prefix(ROOT).unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn snapshots_of_version_1_are_restored() {
    let directory = golden();
    if std::env::var_os("VAULT_GOLDEN").is_some_and(|value| value == "write") && !directory.exists()
    {
        write(&directory);
    }
    let fs = MemoryFileSystem::new();
    for snapshot in std::fs::read_dir(&directory).unwrap() {
        let snapshot = snapshot.unwrap();
        let to = Path::new(ROOT).join(snapshot.file_name());
        fs.create_dir_all(&to).unwrap();
        for file in ["snapshot.zip", "manifest.json"] {
            let bytes = std::fs::read(snapshot.path().join(file)).unwrap();
            fs.write_file(to.join(file), &bytes).unwrap();
        }
    }
    let world = World::on(fs);
    let [full, next, logical]: [Manifest; 3] = world.repository.list().unwrap().try_into().unwrap();
    for manifest in [&full, &next, &logical] {
        assert_eq!(manifest.format_version, 1);
        world.repository.verify(manifest.name, &()).unwrap();
    }
    let [first, second] = contents();
    world.extract_to(full.name, "/one").unwrap();
    assert_eq!(files_in(&world.fs, "/one"), first);
    world.extract_to(next.name, "/two").unwrap();
    assert_eq!(files_in(&world.fs, "/two"), second);
    assert_eq!(
        (next.kind, next.parent),
        (Kind::Incremental, Some(full.name))
    );
    assert_eq!(logical.tags, ["golden"]);
    assert_eq!(logical.counts["users"].entries, 3);
    let users = world
        .repository
        .read_entry(logical.name, "vaults/users.json", 1000)
        .unwrap();
    assert!(users.starts_with(b"{\"vault\": \"users\", \"line\": 0}\n"));
}
