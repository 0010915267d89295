//! The secret of a keyring: the wrong one, another one, one from a key service; locking and unlocking.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use support::*;
use vault_core::transform::{FileKind, Protection, Unopened};
use vault_core::{Error, ErrorKind, Result};
use vault_crypto::keyring::RootWrapping;
use vault_crypto::source::RawKey;
use vault_crypto::{EncryptedProtection, Kdf, KdfBounds, KeyService, KeySource, Secret, SecretKey};

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
    let refused: Vec<Result<()>> = vec![
        keys.add_domain(7),
        keys.keep_domains(&[]),
        keys.begin_epoch().map(drop),
        keys.retire_epochs(1).map(drop),
        keys.copied().map(drop),
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
    let locked = Unopened::Locked;
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
    let of_copy = store.keys().copied().unwrap();
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
