//! A repository is for the snapshots of one store: two that shared one would remove each other's snapshots.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

use vault_snapshot::archive::{Error, Form, Hex, Manifest};
use vault_snapshot::repository::{CreateOptions, Parent, Source};
use vault_snapshot::retention::Retention;

use support::*;

const OTHER: [u8; 16] = [8; 16];

/// What is asked for by somebody who would keep only the newest.
fn only_the_newest() -> Retention {
    Retention {
        last: 1,
        ..Retention::default()
    }
}

fn physical(store: [u8; 16]) -> Source {
    let mut source = source_of(&some_files(1));
    source.store = store;
    source
}

fn logical(store: [u8; 16]) -> Source {
    let mut source = Source::new(store, Form::Logical);
    source.documents.push(document("a", 1));
    source
}

#[track_caller]
fn other_store(error: &Error, found: [u8; 16], expected: [u8; 16]) {
    let Error::OtherStore {
        found: said,
        expected: wanted,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((*said, *wanted), (Hex(found), Hex(expected)));
    let text = error.to_string();
    assert!(text.contains(&said.to_string()), "{text}");
    assert!(text.contains("a place of its own"), "{text}");
}

/// A repository with a snapshot of each of two stores, as it comes of copying one into another by hand.
fn mixed() -> (World, [Manifest; 2]) {
    let world = World::new();
    let first = world.create(&some_files(1), Parent::None).unwrap();
    let second = world.create(&some_files(2), Parent::None).unwrap();
    let mut other = second.clone();
    other.store = Hex(OTHER);
    world
        .fs
        .write_file(world.manifest_path(other.name), &other.to_json())
        .unwrap();
    (world, [first, other])
}

#[test]
fn another_store_is_refused_and_nothing_is_written() {
    let world = World::new();
    let made = world.create(&some_files(1), Parent::None).unwrap();
    let before = picture(&world.fs);
    for source in [physical, logical] {
        for parent in [Parent::None, Parent::Newest, Parent::Named(made.name)] {
            let source = source(OTHER);
            if source.form == Form::Logical && parent != Parent::None {
                continue;
            }
            let options = CreateOptions {
                parent,
                ..CreateOptions::default()
            };
            let error = world.repository.create(source, &options, &()).unwrap_err();
            other_store(&error, STORE, OTHER);
            assert_eq!(picture(&world.fs), before);
        }
    }
    other_store(
        &world.repository.check_store(Hex(OTHER)).unwrap_err(),
        STORE,
        OTHER,
    );
    // Its own store goes on, in both forms; and what is there can be restored by anybody.
    world.repository.check_store(Hex(STORE)).unwrap();
    world
        .repository
        .create(logical(STORE), &CreateOptions::default(), &())
        .unwrap();
    assert_eq!(
        world.create(&some_files(1), Parent::Newest).unwrap().parent,
        Some(made.name)
    );
    assert_eq!(world.extract(made.name).unwrap(), some_files(1));
}

#[test]
fn retention_removes_nothing_where_there_are_snapshots_of_two_stores() {
    let (world, [first, other]) = mixed();
    let before = picture(&world.fs);
    for dry_run in [true, false] {
        let error = world
            .repository
            .prune(&only_the_newest(), dry_run)
            .unwrap_err();
        other_store(&error, STORE, OTHER);
    }
    for store in [STORE, OTHER] {
        let error = world
            .repository
            .create(physical(store), &CreateOptions::default(), &());
        assert!(matches!(error, Err(Error::OtherStore { .. })), "{error:?}");
    }
    assert_eq!(picture(&world.fs), before);
    // What does not belong here is removed knowingly, and then all is well.
    world.repository.remove(other.name).unwrap();
    assert_eq!(
        world
            .repository
            .prune(&only_the_newest(), false)
            .unwrap()
            .remove,
        []
    );
    let next = world.create(&some_files(1), Parent::Newest).unwrap();
    assert_eq!(next.parent, Some(first.name));
}
