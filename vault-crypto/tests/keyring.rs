//! The life of a keyring: made, opened, changed, locked, given another secret, copied, kept elsewhere.

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use support::*;
use vault_core::transform::{FileKind, Protection};
use vault_core::vfs::FileSystem;
use vault_core::{Error, ErrorKind, Result};
use vault_crypto::keyring::{self, RootWrapping};
use vault_crypto::source::RawKey;
use vault_crypto::{
    Algorithm, EncryptedProtection, Kdf, KdfBounds, KeyService, KeySource, Keyring, Secret,
    SecretKey,
};

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
fn a_wrong_passphrase_says_so_and_names_the_file() {
    let place = Place::new(1);
    drop(place.create("correct horse"));
    let error = place.try_open("correct house").err().unwrap();
    assert!(
        matches!(&error, Error::WrongKey { path } if path == Path::new(MAIN)),
        "{error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::Unlock);
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
    assert_eq!(opened, Err(vault_core::transform::Unopened::Damaged));
    let error = old.seal(2, b"more").unwrap_err();
    assert!(
        matches!(error, Error::UnacceptableKeyring { .. }),
        "{error:?}"
    );
}

#[test]
fn a_new_secret_is_the_only_one_and_the_data_stay() {
    let place = Place::new(1);
    let store = place.create("old");
    let file = store.create_file(FileKind::Log, 1, 0).unwrap();
    let mut sealed = file.seal(0, b"record").unwrap();
    let before = place.main();
    store.keyring.check_secret(&passphrase("old")).unwrap();
    store
        .keyring
        .change_secret(&passphrase("new"), Some(Kdf::danger_weak()))
        .unwrap();
    let wrong = store.keyring.check_secret(&passphrase("old")).unwrap_err();
    assert!(matches!(wrong, Error::WrongKey { .. }));
    store.keyring.check_secret(&passphrase("new")).unwrap();
    assert!(matches!(
        place.try_open("old").err(),
        Some(Error::WrongKey { .. })
    ));
    let again = place.open("new");
    let blocks = again.open_file(&file.header).unwrap();
    assert_eq!(blocks.open(&block(0), &mut sealed), Ok(&b"record"[..]));
    // Nothing of the old file is in the new ones: salts, commitment and both sealed parts are others.
    for file in [place.main(), place.copy()] {
        for at in (146..before.len() - 32).step_by(16) {
            let part = &before[at..at + 16];
            assert!(
                !file.windows(16).any(|w| w == part),
                "byte {at} is as it was"
            );
        }
    }
}

#[test]
fn a_new_secret_of_another_kind_and_parameters_out_of_bounds() {
    let place = Place::new(1);
    let store = place.create("old");
    let change = |kdf| store.keyring.change_secret(&passphrase("new"), Some(kdf));
    let zero = Kdf::Pbkdf2HmacSha256 { iterations: 0 };
    assert!(matches!(change(zero), Err(Error::InvalidSetting { .. })));
    assert!(matches!(change(Kdf::None), Err(Error::InvalidKey { .. })));
    let key = RawKey::new(SecretKey::from_bytes(&mut [9; 32]));
    assert_eq!(store.keys().version(), 1);
    store.keyring.change_secret(&key, None).unwrap();
    assert_eq!(
        store.keyring.info().wrapping,
        RootWrapping::Secret(Kdf::None)
    );
    drop(store);
    let error = place.try_open("old").err().unwrap();
    assert!(matches!(error, Error::InvalidKey { .. }), "{error:?}");
    Store::of(with_source(Arc::new(key)), |p| p.open(&place.get())).unwrap();
}

#[test]
fn while_it_is_locked_everything_says_so_and_a_wrong_secret_leaves_it_locked() {
    let place = Place::new(1);
    let store = place.create("s");
    let writing = store.create_file(FileKind::Log, 1, 0).unwrap();
    let mut sealed = writing.seal(0, b"first").unwrap();
    let reading = store.open_file(&writing.header).unwrap();
    store.keyring.lock();
    assert!(store.keyring.is_locked() && store.keys().is_locked());
    let keys = store.keys();
    let before = place.memory.list();
    let copy = Path::new("/elsewhere");
    let refused: Vec<Result<()>> = vec![
        keys.add_domain(7),
        keys.keep_domains(&[]),
        keys.begin_epoch().map(drop),
        keys.retire_epochs(1).map(drop),
        keys.copy_to(copy),
        store
            .keyring
            .change_secret(&passphrase("t"), Some(Kdf::danger_weak())),
        writing.seal(1, b"second").map(drop),
        store.create_file(FileKind::Log, 2, 0).map(drop),
        store.open_file(&writing.header).map(drop),
    ];
    for (index, outcome) in refused.into_iter().enumerate() {
        assert!(
            matches!(outcome, Err(Error::Locked)),
            "{index}: {outcome:?}"
        );
    }
    let locked = vault_core::transform::Unopened::Locked;
    assert_eq!(reading.open(&block(0), &mut sealed.clone()), Err(locked));
    assert_eq!(
        (keys.version(), keys.epoch()),
        (1, 1),
        "these are no secret"
    );
    assert_eq!(store.keyring.info().epochs, None);

    let error = store.keyring.unlock(&passphrase("t")).unwrap_err();
    assert!(matches!(error, Error::WrongKey { .. }));
    assert!(store.keyring.is_locked());
    assert_eq!(place.memory.list(), before, "nothing was written");

    store.keyring.unlock(&passphrase("s")).unwrap();
    assert!(!store.keyring.is_locked());
    assert_eq!(reading.open(&block(0), &mut sealed), Ok(&b"first"[..]));
    // The block that was refused is sealed now: its ordinal was not spent.
    let mut second = writing.seal(1, b"second").unwrap();
    assert_eq!(reading.open(&block(1), &mut second), Ok(&b"second"[..]));
    // Unlocking what is not locked checks the secret all the same.
    assert!(store.keyring.unlock(&passphrase("t")).is_err());
    store.keyring.unlock(&passphrase("s")).unwrap();
}

/// Found by the same operations under many options (`vault-sim/tests/metamorphic.rs`). A snapshot was held, the store was locked
/// and unlocked, and the keyspace dropped before anything of the snapshot was read: the keys of its files, which are derived
/// again when they are needed, could not be any more, and the snapshot said that its files were damaged.
#[test]
fn who_reads_a_file_when_its_domain_is_dropped_reads_on_after_a_lock_too() {
    let place = Place::new(1);
    let store = place.create("s");
    store.keys().add_domain(7).unwrap();
    let file = store.create_file(FileKind::Table, 3, 7).unwrap();
    let sealed = file.seal(1, b"content").unwrap();
    let reading = store.open_file(&file.header).unwrap();
    store.keyring.lock();
    store.keyring.unlock(&passphrase("s")).unwrap();
    store.keys().keep_domains(&[]).unwrap();
    let open = || {
        reading
            .open(&block(1), &mut sealed.clone())
            .map(<[u8]>::to_vec)
    };
    assert_eq!(open(), Ok(b"content".to_vec()));
    assert!(store.open_file(&file.header).is_err());
    // That was the last moment.
    store.keyring.lock();
    store.keyring.unlock(&passphrase("s")).unwrap();
    assert!(open().is_err());
}

#[test]
fn a_keyring_that_was_exchanged_while_it_was_locked_is_not_taken() {
    let place = Place::new(1);
    let store = place.create("s");
    let older = place.main();
    store.keys().add_domain(7).unwrap();
    let current = place.main();
    store.keys().copy_to(Path::new("/store")).unwrap_err();
    place.memory.create_dir_all(Path::new("/copy")).unwrap();
    store.keys().copy_to(Path::new("/copy")).unwrap();
    let of_copy = place.memory.read_file("/copy/KEYRING").unwrap();
    store.keyring.lock();
    let put = |bytes: &[u8]| {
        place.memory.write_file(MAIN, bytes).unwrap();
        place.memory.write_file(COPY, bytes).unwrap();
    };
    put(&older);
    let error = store.keyring.unlock(&passphrase("s")).unwrap_err();
    assert!(
        matches!(
            error,
            Error::RolledBack {
                found: 1,
                least: 2,
                ..
            }
        ),
        "{error:?}"
    );
    put(&of_copy);
    let error = store.keyring.unlock(&passphrase("s")).unwrap_err();
    assert!(
        matches!(error, Error::UnacceptableKeyring { .. }),
        "{error:?}"
    );
    assert!(store.keyring.is_locked());
    put(&current);
    store.keyring.unlock(&passphrase("s")).unwrap();
}

#[test]
fn a_copy_of_a_store_opens_with_the_same_secret_and_seals_under_keys_of_its_own() {
    let place = Place::new(1);
    let store = place.create("s");
    store.keys().add_domain(7).unwrap();
    let shared = store.create_file(FileKind::Table, 1, 7).unwrap();
    let mut sealed = shared.seal(1, b"shared").unwrap();
    let before = (place.main(), store.keys().version());
    place.memory.create_dir_all(Path::new("/copy")).unwrap();
    place.memory.sync_dir(Path::new("/")).unwrap();
    store.keys().copy_to(Path::new("/copy")).unwrap();
    assert_eq!(
        before,
        (place.main(), store.keys().version()),
        "nothing changes here"
    );
    // The bytes are durable, the names are the caller's to sync.
    place.memory.sync_dir(Path::new("/copy")).unwrap();
    let after = place
        .memory
        .crash(1, vault_core::vfs::CrashPolicy::DropUnsynced);
    let mut copy_place = Place::on(after, 2);
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
fn the_newer_of_two_whole_files_is_used() {
    let place = Place::new(1);
    let store = place.create("old");
    let older = place.main();
    store
        .keyring
        .change_secret(&passphrase("new"), Some(Kdf::danger_weak()))
        .unwrap();
    drop(store);
    let newer = place.main();
    for (put_back, other) in [(MAIN, COPY), (COPY, MAIN)] {
        place.memory.write_file(put_back, &older).unwrap();
        assert!(matches!(
            place.try_open("old").err(),
            Some(Error::WrongKey { .. })
        ));
        let store = place.open("new");
        assert_eq!(store.keys().version(), 2);
        store.keyring.mend().unwrap();
        assert_eq!(place.memory.read_file(put_back).unwrap(), newer);
        assert_eq!(place.memory.read_file(other).unwrap(), newer);
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
fn blocks_header(store: &Store, number: u64) -> vault_core::transform::FileHeader {
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

/// A host's key service with one key, which it never gives away.
struct Service {
    master: u8,
    contexts: Mutex<Vec<Vec<u8>>>,
}

impl KeyService for Service {
    fn name(&self) -> String {
        format!("service {}", self.master)
    }

    fn wrap(&self, key: &SecretKey, context: &[u8]) -> Result<Vec<u8>> {
        self.contexts.lock().unwrap().push(context.to_vec());
        if self.master == 0 {
            return Ok(Vec::new());
        }
        Ok(key.expose().iter().map(|byte| byte ^ self.master).collect())
    }

    fn unwrap(&self, wrapped: &[u8], context: &[u8]) -> Result<SecretKey> {
        self.contexts.lock().unwrap().push(context.to_vec());
        SecretKey::build(|key| {
            let plain = wrapped.iter().map(|byte| byte ^ self.master);
            key.iter_mut()
                .zip(plain)
                .for_each(|(place, byte)| *place = byte);
            Ok(())
        })
    }
}

fn service(master: u8) -> Arc<Service> {
    Arc::new(Service {
        master,
        contexts: Mutex::default(),
    })
}

#[test]
fn a_key_service_opens_what_it_wrapped() {
    let place = Place::new(1);
    let ours = service(0x5a);
    let by = |service: Arc<Service>| {
        EncryptedProtection::with_service(service).kdf_bounds(KdfBounds::danger_weak())
    };
    let create = |service| Store::of(by(service), |p| p.create(&place.get()));
    let error = create(service(0)).err().unwrap();
    assert!(matches!(error, Error::KeyUnavailable { .. }), "{error:?}");
    let store = create(Arc::clone(&ours)).unwrap();
    store.keyring.lock();
    let error = store.keyring.unlock_by(&*service(0x11)).unwrap_err();
    assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");
    let error = store.keyring.unlock(&passphrase("s")).unwrap_err();
    assert!(error.to_string().contains("key service"), "{error}");
    store.keyring.unlock_by(&*ours).unwrap();
    assert_eq!(store.keyring.info().wrapping, RootWrapping::Service);
    let context = [b"vault keyring 1 ".as_slice(), &STORE].concat();
    assert!(ours.contexts.lock().unwrap().iter().all(|c| *c == context));
    // To a passphrase, and back to a service.
    store
        .keyring
        .change_secret(&passphrase("s"), Some(Kdf::danger_weak()))
        .unwrap();
    assert!(store.keyring.unlock_by(&*ours).is_err());
    store.keyring.change_to_service(&*ours).unwrap();
    assert!(place.try_open("s").is_err());
    Store::of(by(ours), |p| p.open(&place.get())).unwrap();
}

/// A source that counts how often it is asked.
struct Counting(Mutex<u32>);

impl KeySource for Counting {
    fn name(&self) -> String {
        "a counter".to_owned()
    }

    fn secret(&self) -> Result<Secret> {
        *self.0.lock().unwrap() += 1;
        passphrase("s").secret()
    }
}

#[test]
fn opening_asks_for_the_secret_and_derives_once_with_a_damaged_file_too() {
    let place = Place::new(1);
    drop(place.create("s"));
    for damaged in [None, Some(MAIN), Some(COPY)] {
        if let Some(path) = damaged {
            place.memory.write_file(path, b"damaged").unwrap();
        }
        let source = Arc::new(Counting(Mutex::new(0)));
        let store = Store::of(
            with_source(Arc::clone(&source) as Arc<dyn KeySource>),
            |p| p.open(&place.get()),
        );
        store.unwrap().keyring.mend().unwrap();
        assert_eq!(*source.0.lock().unwrap(), 1);
    }
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
