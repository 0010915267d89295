//! The life of a keyring: made, opened, changed, mended, copied, kept elsewhere.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use support::*;
use vault_core::random::SystemRandom;
use vault_core::transform::{FileHeader, FileKind, Protection, Unopened};
use vault_core::vfs::{DiskFileSystem, FileSystem, MemoryFileSystem};
use vault_core::{Error, ErrorKind};
use vault_crypto::keyring::{self, RootWrapping};
use vault_crypto::{Algorithm, EncryptedProtection, Kdf, Keyring};

#[test]
fn what_is_sealed_opens_in_a_later_session() {
    let place = Place::new(1);
    let store = place.create("correct horse");
    store.keys().add_domain(7).unwrap();
    let file = store.create_file(FileKind::Table, 3, 7).unwrap();
    let mut sealed = file.seal(1, b"content").unwrap();
    drop(store);
    let again = place.open("correct horse");
    let blocks = again.open_file(&file.header).unwrap();
    assert_eq!(blocks.open(&block(1), &mut sealed), Ok(&b"content"[..]));
    assert_eq!((again.keys().version(), again.keys().epoch()), (2, 1));
    assert!(again.keyring.recovered_from_copy().is_none());
}

#[test]
fn on_a_real_disk_it_is_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut place = Place::new(1);
    place.fs = Arc::new(DiskFileSystem);
    place.random = Arc::new(SystemRandom);
    place.directory = directory.path().to_path_buf();
    let store = place.create("old");
    for domain in 1..9 {
        store.keys().add_domain(domain).unwrap();
    }
    let file = store.create_file(FileKind::Table, 3, 7).unwrap();
    let sealed = file.seal(1, b"content").unwrap();
    store.keys().begin_epoch().unwrap();
    store.keys().keep_domains(&[7]).unwrap();
    store
        .keyring
        .change_secret(&passphrase("new"), Some(Kdf::danger_weak()))
        .unwrap();
    let copy = place.directory.join("copy");
    place.fs.create_dir_all(&copy).unwrap();
    let bytes = store.keys().copied().unwrap();
    for name in ["KEYRING", "KEYRING.copy"] {
        let file = place.fs.create(&copy.join(name)).unwrap();
        file.write_at(&bytes, 0).unwrap();
    }
    drop(store);
    place.fs.remove(&place.directory.join("KEYRING")).unwrap();
    assert!(matches!(
        place.try_open("old").err(),
        Some(Error::WrongKey { .. })
    ));
    let store = place.open("new");
    store.keys().mend().unwrap();
    let names = place.fs.read_dir(&place.directory).unwrap();
    let names: BTreeSet<_> = names.into_iter().map(|entry| entry.name).collect();
    assert_eq!(
        names,
        ["KEYRING", "KEYRING.copy", "copy"].map(Into::into).into()
    );
    place.directory = copy;
    for store in [store, place.open("new")] {
        let blocks = store.open_file(&file.header).unwrap();
        assert_eq!(
            blocks.open(&block(1), &mut sealed.clone()),
            Ok(&b"content"[..])
        );
    }
}

#[test]
fn a_store_without_a_keyring_is_not_encrypted() {
    let place = Place::new(1);
    let error = place.try_open("any").err().unwrap();
    assert!(matches!(error, Error::NotEncrypted { .. }), "{error:?}");
    drop(place.create("s"));
    place.fs.remove(Path::new(MAIN)).unwrap();
    place.memory.write_file(COPY, b"short").unwrap();
    let error = place.try_open("s").err().unwrap();
    assert!(
        matches!(&error, Error::Corruption { path, .. } if path == Path::new(COPY)),
        "{error:?}"
    );
}

#[test]
fn keys_come_and_go_and_each_change_counts() {
    let place = Place::new(1);
    let store = place.create("s");
    let keys = store.keys();
    keys.add_domain(7).unwrap();
    keys.add_domain(7).unwrap();
    keys.add_domain(9).unwrap();
    assert_eq!(keys.version(), 3, "a domain that has keys is no change");
    assert_eq!(keys.begin_epoch().unwrap(), 2);
    assert_eq!(keys.begin_epoch().unwrap(), 3);
    let info = store.keyring.info();
    assert_eq!(
        (info.keys, info.epochs, info.domains),
        (9, Some(3), Some(3))
    );
    assert_eq!(keys.retire_epochs(1).unwrap(), 0);
    assert_eq!(keys.version(), 5);
    assert_eq!(keys.retire_epochs(3).unwrap(), 2);
    assert_eq!(store.keyring.info().keys, 3);
    let error = keys.retire_epochs(4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    keys.keep_domains(&[9, 100]).unwrap();
    keys.keep_domains(&[9]).unwrap();
    assert_eq!(keys.version(), 7);
    assert_eq!(store.keyring.info().domains, Some(2));
    assert_eq!(place.main(), place.copy());
    let again = place.open("s");
    assert_eq!((again.keys().version(), again.keys().epoch()), (7, 3));
    assert_eq!(again.keyring.info().keys, 2);
}

#[test]
fn what_destroyed_keys_sealed_cannot_be_opened_any_more() {
    let place = Place::new(1);
    let store = place.create("s");
    store.keys().add_domain(7).unwrap();
    let dropped = store.create_file(FileKind::Table, 1, 7).unwrap();
    let old = store.create_file(FileKind::Table, 2, 0).unwrap();
    let mut sealed = [
        dropped.seal(1, b"seven").unwrap(),
        old.seal(1, b"zero").unwrap(),
    ];
    store.keys().begin_epoch().unwrap();
    store.keys().keep_domains(&[]).unwrap();
    store.keys().retire_epochs(2).unwrap();
    for store in [&store, &place.open("s")] {
        for (file, says) in [
            (&dropped, "epoch 1 of keyspace 7"),
            (&old, "epoch 1 of keyspace 0"),
        ] {
            let error = store.open_file(&file.header).unwrap_err();
            assert!(
                matches!(error, Error::UnacceptableKeyring { .. }),
                "{error:?}"
            );
            assert!(error.to_string().contains(says), "{error}");
        }
    }
    // A file that is open goes on until it is closed: somebody may still read it.
    let opened = dropped.blocks.open(&block(1), &mut sealed[0]);
    assert_eq!(opened, Ok(&b"seven"[..]));
    // But its key does not come back once it was wiped.
    store.keyring.lock();
    store.keyring.unlock(&passphrase("s")).unwrap();
    let opened = old.blocks.open(&block(1), &mut sealed[1]);
    assert_eq!(opened, Err(Unopened::Damaged));
    let error = old.seal(2, b"more").unwrap_err();
    assert!(
        matches!(error, Error::UnacceptableKeyring { .. }),
        "{error:?}"
    );
}

#[test]
fn a_copy_of_a_store_opens_with_the_same_secret_and_seals_under_keys_of_its_own() {
    let place = Place::new(1);
    let store = place.create("s");
    store.keys().add_domain(7).unwrap();
    let shared = store.create_file(FileKind::Table, 1, 7).unwrap();
    let mut sealed = shared.seal(1, b"shared").unwrap();
    let before = (place.main(), store.keys().version());
    let bytes = store.keys().copied().unwrap();
    assert_eq!(
        before,
        (place.main(), store.keys().version()),
        "nothing changes here"
    );
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(Path::new("/copy")).unwrap();
    let mut copy_place = Place::on(fs, 2);
    for name in ["KEYRING", "KEYRING.copy"] {
        let path = Path::new("/copy").join(name);
        copy_place.memory.write_file(path, &bytes).unwrap();
    }
    copy_place.directory = "/copy".into();
    let copy = copy_place.open("s");
    assert_eq!((copy.keys().version(), copy.keys().epoch()), (3, 2));
    let blocks = copy.open_file(&shared.header).unwrap();
    assert_eq!(blocks.open(&block(1), &mut sealed), Ok(&b"shared"[..]));
    // The same number, the same salt and the same epoch, begun here and there.
    store.keys().begin_epoch().unwrap();
    let here = store.create_file(FileKind::Table, 2, 7).unwrap();
    let there = copy.create_file(FileKind::Table, 2, 7).unwrap();
    assert_eq!(here.header, there.header);
    let mut sealed = here.seal(1, b"here").unwrap();
    assert!(there.blocks.open(&block(1), &mut sealed).is_err());
}

#[test]
fn creating_again_takes_the_place_of_an_interrupted_attempt_and_of_nothing_else() {
    let mut place = Place::new(1);
    drop(place.create("first"));
    place.store = *b"another attempt.";
    drop(place.create("second"));
    assert_eq!(place.main(), place.copy());
    let store = place.open("second");
    store.keys().add_domain(1).unwrap();
    drop(store);
    let before = place.main();
    for strange in [MAIN, COPY] {
        let error = protection("third").create(&place.get()).unwrap_err();
        assert!(
            matches!(&error, Error::TargetExists { path } if path == Path::new(strange)),
            "{error:?}"
        );
        assert_eq!(place.memory.read_file(strange).unwrap(), before);
        place.fs.remove(Path::new(strange)).unwrap();
    }
    // What has the name of an unfinished keyring is written over only where it is one.
    place
        .memory
        .write_file("/store/KEYRING.new", b"my keys")
        .unwrap();
    let error = protection("third").create(&place.get()).unwrap_err();
    assert!(matches!(&error, Error::TargetExists { .. }), "{error:?}");
    place
        .memory
        .write_file("/store/KEYRING.new", &[0; 700])
        .unwrap();
    drop(place.create("third"));
    assert_eq!(place.memory.list().len(), 2);
}

#[test]
fn one_of_the_two_files_stands_in_for_the_other_and_mends_it() {
    let place = Place::new(1);
    let store = place.create("s");
    store.keys().add_domain(7).unwrap();
    drop(store);
    let whole = place.main();
    for (lost, damage) in [
        (MAIN, None),
        (COPY, None),
        (MAIN, Some(200)),
        (COPY, Some(200)),
    ] {
        match damage {
            None => place.fs.remove(Path::new(lost)).unwrap(),
            Some(at) => {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                place.memory.write_file(lost, &bytes).unwrap();
            }
        }
        let before = place.memory.list();
        let store = place.open("s");
        assert_eq!(store.keyring.recovered_from_copy().is_some(), lost == MAIN);
        let info = store.keyring.info();
        assert_eq!(
            (info.main_flaw.is_some(), info.copy_flaw.is_some()),
            (lost == MAIN, lost == COPY)
        );
        assert_eq!(place.memory.list(), before, "opening writes nothing");
        store.keys().mend().unwrap();
        assert_eq!((place.main(), place.copy()), (whole.clone(), whole.clone()));
        assert!(store.keyring.info().main_flaw.is_none());
        let operations = place.memory.operations();
        store.keys().mend().unwrap();
        assert_eq!(
            place.memory.operations(),
            operations,
            "there is nothing left to mend"
        );
    }
}

#[test]
fn a_handle_for_reading_changes_nothing_and_follows_the_writer() {
    let mut place = Place::new(1);
    let writer = place.create("s");
    place.writable = false;
    let reader = place.open("s");
    let keys = reader.keys();
    for outcome in [
        keys.add_domain(7),
        keys.begin_epoch().map(drop),
        keys.keep_domains(&[]),
    ] {
        assert!(matches!(outcome, Err(Error::ReadOnly)), "{outcome:?}");
    }
    let secret = reader.keyring.change_secret(&passphrase("t"), None);
    assert!(matches!(secret, Err(Error::ReadOnly)));
    writer.keys().add_domain(7).unwrap();
    writer.keys().begin_epoch().unwrap();
    let file = writer.create_file(FileKind::Table, 1, 7).unwrap();
    let mut sealed = file.seal(1, b"later").unwrap();
    let blocks = reader.open_file(&file.header).unwrap();
    assert_eq!(blocks.open(&block(1), &mut sealed), Ok(&b"later"[..]));
    assert_eq!(reader.keys().epoch(), 2);
    // Behind another secret it cannot look, and says so.
    writer
        .keyring
        .change_secret(&passphrase("t"), Some(Kdf::danger_weak()))
        .unwrap();
    writer.keys().add_domain(8).unwrap();
    let file = writer.create_file(FileKind::Table, 2, 8).unwrap();
    let error = reader.open_file(&file.header).unwrap_err();
    assert!(error.to_string().contains("secret was changed"), "{error}");
    assert!(reader.open_file(&blocks_header(&writer, 3)).is_ok());
}

/// The header of a file of the store's own in the first epoch's domain.
fn blocks_header(store: &Store, number: u64) -> FileHeader {
    store.create_file(FileKind::Log, number, 0).unwrap().header
}

#[test]
fn what_is_kept_elsewhere_helps_when_both_files_are_lost() {
    let place = Place::new(1);
    let store = place.create("s");
    store.keys().add_domain(7).unwrap();
    let exported = store.keyring.export();
    drop(store);
    assert_eq!(
        keyring::export(&place.fs, &place.directory).unwrap(),
        exported
    );
    let import = |bytes: &[u8]| keyring::import(&place.fs, &place.directory, bytes);
    assert!(matches!(import(&exported), Err(Error::TargetExists { .. })));
    place.memory.write_file(MAIN, &[0; 512]).unwrap();
    assert!(matches!(import(&exported), Err(Error::TargetExists { .. })));
    place.fs.remove(Path::new(COPY)).unwrap();
    assert!(matches!(
        import(&exported[1..]),
        Err(Error::Corruption { .. })
    ));
    assert!(matches!(
        import(&exported[..300]),
        Err(Error::Corruption { .. })
    ));
    assert!(matches!(
        import(&vec![0; 20 << 20]),
        Err(Error::Corruption { .. })
    ));
    import(&exported).unwrap();
    assert_eq!((place.main(), place.copy()), (exported.clone(), exported));
    assert_eq!(place.open("s").keys().version(), 2);
}

#[test]
fn what_can_be_told_without_a_secret() {
    let place = Place::new(1);
    let store = Store::of(protection("s").algorithm(Algorithm::Aes256Gcm), |p| {
        p.create(&place.get())
    })
    .unwrap();
    store.keys().add_domain(7).unwrap();
    store.keys().begin_epoch().unwrap();
    let open = store.keyring.info();
    drop(store);
    let closed = keyring::read_info(&place.fs, &place.directory).unwrap();
    for info in [&open, &closed] {
        assert_eq!((info.store, info.version, info.epoch), (STORE, 3, 2));
        assert_eq!(info.algorithm, Algorithm::Aes256Gcm);
        assert_eq!(info.wrapping, RootWrapping::Secret(Kdf::danger_weak()));
        assert_eq!((info.keys, info.bytes), (4, place.main().len()));
        assert!(info.main_flaw.is_none() && info.copy_flaw.is_none());
    }
    assert_eq!((open.epochs, closed.epochs), (Some(2), None));
    place.fs.remove(Path::new(COPY)).unwrap();
    let closed = keyring::read_info(&place.fs, &place.directory).unwrap();
    assert!(closed.copy_flaw.unwrap().to_string().contains("missing"));
}

#[test]
fn nothing_that_is_printed_holds_a_key() {
    let place = Place::new(1);
    let protection = protection("correct horse");
    let transform = protection.create(&place.get()).unwrap();
    let keyring = protection.keyring().unwrap();
    let said = format!(
        "{protection:?} {transform:?} {keyring:?} {:?}",
        keyring.info()
    );
    assert!(!said.contains("correct horse"), "{said}");
    assert!(said.len() < 1500, "{said}");
    // The protection keeps no keys: they go with the store.
    drop((transform, keyring));
    assert!(protection.keyring().is_none());
}

#[test]
fn a_keyring_can_be_shared_by_threads() {
    const fn shared<T: Send + Sync + 'static>() {}
    shared::<Keyring>();
    shared::<EncryptedProtection>();
    shared::<vault_crypto::KeyringTransform>();
    let place = Place::new(1);
    let store = place.create("s");
    std::thread::scope(|scope| {
        for domain in 1..9 {
            let store = &store;
            scope.spawn(move || store.keys().add_domain(domain).unwrap());
        }
    });
    assert_eq!(store.keys().version(), 9);
    assert_eq!(place.open("s").keyring.info().domains, Some(9));
}
