//! Chains of snapshots in which one is missing, another store's, or not what the next one took it for.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

use vault_core::vfs::FileSystem;
use vault_snapshot::archive::{Entry, Error, Form, Hex, Kind, Manifest};
use vault_snapshot::repository::{CreateOptions, Parent, Source};

use support::*;

/// A chain of three.
fn chain() -> (World, [Manifest; 3]) {
    let world = World::new();
    let mut files = some_files(1);
    let full = world.create(&files, Parent::None).unwrap();
    files.insert("000010.table".into(), vec![5; 100]);
    let second = world.create(&files, Parent::Newest).unwrap();
    let third = world.create(&files, Parent::Newest).unwrap();
    (world, [full, second, third])
}

#[test]
fn a_parent_that_is_missing_is_named() {
    for missing in [0, 1] {
        let (world, chain) = chain();
        world
            .fs
            .remove(&world.manifest_path(chain[missing].name))
            .unwrap();
        let before = picture(&world.fs);
        let error = world.extract(chain[2].name).unwrap_err();
        assert!(matches!(error, Error::Parent { .. }), "{error}");
        assert!(error.to_string().contains("it is missing"), "{error}");
        assert!(world.repository.verify(chain[2].name, &()).is_err());
        assert!(world.repository.consolidate(chain[2].name, &()).is_err());
        assert!(
            world
                .create(&some_files(1), Parent::Named(chain[2].name))
                .is_err()
        );
        assert_eq!(picture(&world.fs), before);
        // What can be built on, is.
        let next = world.create(&some_files(1), Parent::Newest).unwrap();
        assert_eq!(next.kind, Kind::Full);
    }
    let (world, chain) = chain();
    world.fs.remove(&world.archive_path(chain[0].name)).unwrap();
    assert!(damaged(world.extract(chain[2].name)).contains("the archive is missing"));
}

#[test]
fn a_parent_of_another_store_is_refused() {
    let (world, chain) = chain();
    let logical = {
        let mut source = Source::new(STORE, Form::Logical);
        source.documents.push(document("a", 1));
        world
            .repository
            .create(source, &CreateOptions::default(), &())
            .unwrap()
    };
    let error = world
        .create(&some_files(1), Parent::Named(logical.name))
        .unwrap_err();
    assert!(error.to_string().contains("holds documents"), "{error}");
    // One that somebody put there afterwards.
    let mut other = chain[0].clone();
    other.store = Hex([8; 16]);
    world
        .fs
        .write_file(world.manifest_path(other.name), &other.to_json())
        .unwrap();
    let error = world.extract(chain[2].name).unwrap_err();
    assert!(error.to_string().contains("it is of store 0808"), "{error}");
}

#[test]
fn a_parent_that_holds_something_else_is_refused() {
    let (world, chain) = chain();
    let before = picture(&world.fs);
    let mut other = chain[0].clone();
    let shared = other
        .entries
        .iter()
        .position(|entry| entry.path == "store/000002.table")
        .unwrap();
    for change in [
        &(|entry: &mut Entry| entry.sha256 = Hex([1; 32])) as &dyn Fn(&mut Entry),
        &|entry| entry.bytes += 1,
        &|entry| entry.identity = Some(Hex([1; 24])),
    ] {
        other.entries[shared] = chain[0].entries[shared].clone();
        change(&mut other.entries[shared]);
        world
            .fs
            .write_file(world.manifest_path(other.name), &other.to_json())
            .unwrap();
        let error = world.extract(chain[2].name).unwrap_err();
        assert!(error.to_string().contains("does not hold"), "{error}");
        assert!(world.repository.verify(chain[2].name, &()).is_err());
    }
    world
        .fs
        .write_file(world.manifest_path(other.name), &chain[0].to_json())
        .unwrap();
    assert_eq!(picture(&world.fs), before);
    world.extract(chain[2].name).unwrap();
}

/// Chains that lead nowhere, in circles, or into the future.
#[test]
fn a_chain_that_is_none_is_refused() {
    let (world, chain) = chain();
    let names = [chain[0].name, chain[1].name, chain[2].name];
    let changes: [&dyn Fn(&mut Manifest); 8] = [
        &|m| m.parent = Some(m.name),
        &|m| m.parent = m.name.next().ok(),
        &|m| m.parent = None,
        &|m| m.kind = Kind::Full,
        &|m| m.chain_root = m.name,
        &|m| m.chain_root = names[1],
        &|m| m.entries[0].holder = m.name.next().unwrap(),
        &|m| m.content_of = Some(m.name),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut forged = chain[2].clone();
        change(&mut forged);
        world
            .fs
            .write_file(world.manifest_path(names[2]), &forged.to_json())
            .unwrap();
        let before = picture(&world.fs);
        let error = world.extract(names[2]).unwrap_err();
        assert!(
            matches!(error, Error::Damaged { .. } | Error::Parent { .. }),
            "{at}: {error}"
        );
        assert!(world.repository.verify(names[2], &()).is_err());
        assert_eq!(picture(&world.fs), before);
    }
}
