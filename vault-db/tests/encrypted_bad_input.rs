//! Whatever is wrong with a secret, with where it comes from, or with the keyring of a store: a typed error that says what to
//! do next, and nothing on disk has changed.
//!
//! What a source, a derivation or a keyring refuses by itself is tested where they are, in `vault-crypto`; here it is that
//! the store passes it on and is left as it was.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "damage to files, and looking at them, is past the store"
)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use vault_db::encryption::{
    Command, EncryptedProtection, EnvironmentVariable, Kdf, KdfBounds, KeyFile, Passphrase, RawKey,
    SecretBytes, export, import,
};
use vault_db::engine::{
    EncryptedStore, Engine, Error, ErrorKind, KeyspaceId, KeyspaceOptions, Lsm, LsmOptions, Reader,
    Result, WriteOptions,
};

fn source(passphrase: &str) -> Passphrase {
    let secret = SecretBytes::from_string(passphrase.to_owned()).unwrap();
    Passphrase::new(secret).unwrap()
}

fn weak(protection: EncryptedProtection) -> EncryptedProtection {
    protection
        .kdf_bounds(KdfBounds::danger_weak())
        .kdf(Kdf::danger_weak())
}

fn protection(passphrase: &str) -> EncryptedProtection {
    weak(EncryptedProtection::with_source(Arc::new(source(
        passphrase,
    ))))
}

fn open(path: &Path, passphrase: &str) -> Result<EncryptedStore> {
    EncryptedStore::open_with(path, LsmOptions::default(), protection(passphrase))
}

fn users(store: &Lsm) -> KeyspaceId {
    store.keyspace("users").unwrap().unwrap()
}

#[track_caller]
fn assert_sound(store: &EncryptedStore) {
    let found = store.get(users(store), b"alice").unwrap();
    assert_eq!(found.as_deref(), Some(&b"admin"[..]));
}

/// A closed store with a table and a log, under the passphrase "right".
fn closed(directory: &Path) -> PathBuf {
    let path = directory.join("store");
    let store = open(&path, "right").unwrap();
    let users = store.create_keyspace("users", &KeyspaceOptions::default());
    let users = users.unwrap();
    store
        .put(users, b"alice", b"admin", &WriteOptions::SYNC)
        .unwrap();
    store.flush(None).unwrap();
    store
        .put(users, b"bob", b"guest", &WriteOptions::SYNC)
        .unwrap();
    store.close().unwrap();
    path
}

/// All files with their bytes, but for the lock's, which names who held it last.
fn image(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| !path.ends_with("LOCK"))
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect()
}

fn damage(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// Checks that opening is refused and nothing has changed by it. Gives the error.
#[track_caller]
fn refused(path: &Path, opened: impl FnOnce() -> Result<()>) -> Error {
    let before = image(path);
    let error = opened().unwrap_err();
    assert!(image(path) == before, "{error}: something has changed");
    error
}

#[test]
fn a_wrong_passphrase_is_told_from_a_damaged_keyring() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path());
    let wrong = refused(&path, || open(&path, "wrong").map(drop));
    assert!(matches!(wrong, Error::WrongKey { .. }), "{wrong}");
    assert_eq!(wrong.kind(), ErrorKind::Unlock);
    let names = ["KEYRING", "KEYRING.copy"];
    let len = std::fs::read(path.join(names[0])).unwrap().len();
    for at in [3, 8, 40, 70, 135, 150, 180, 210, 250, 290, 330, len - 2] {
        let whole = names.map(|name| std::fs::read(path.join(name)).unwrap());
        names.iter().for_each(|name| damage(&path.join(name), at));
        for passphrase in ["right", "wrong"] {
            let damaged = refused(&path, || open(&path, passphrase).map(drop));
            assert!(
                matches!(damaged, Error::Corruption { .. }),
                "{at}: {damaged}"
            );
            assert_eq!(damaged.kind(), ErrorKind::Restore);
        }
        for (name, bytes) in names.iter().zip(whole) {
            std::fs::write(path.join(name), bytes).unwrap();
        }
    }
    assert_sound(&open(&path, "right").unwrap());
}

/// The copy opened the store, and nobody ever wrote the damaged one anew: when the copy was damaged too, all was lost.
#[test]
fn a_damaged_keyring_is_rescued_by_its_copy_and_mended() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path());
    for (name, other) in [("KEYRING", "KEYRING.copy"), ("KEYRING.copy", "KEYRING")] {
        for missing in [true, false] {
            let harm = || match missing {
                true => std::fs::remove_file(path.join(name)).unwrap(),
                false => damage(&path.join(name), 200),
            };
            harm();
            let before = image(&path);
            let wrong = refused(&path, || open(&path, "wrong").map(drop));
            assert!(matches!(wrong, Error::WrongKey { .. }), "{wrong}");
            let options = LsmOptions::default();
            let reader = EncryptedStore::open_read_only(&path, options, protection("right"));
            assert_sound(&reader.unwrap());
            assert!(image(&path) == before, "reading mends nothing");
            let store = open(&path, "right").unwrap();
            assert_sound(&store);
            let info = store.keyring_info();
            assert!(info.main_flaw.is_none() && info.copy_flaw.is_none());
            store.close().unwrap();
            let files = [name, other].map(|name| std::fs::read(path.join(name)).unwrap());
            assert!(files[0] == files[1], "{name}, missing: {missing}");
        }
    }
}

/// Both were gone, and the store was called a plain one.
#[test]
fn a_store_without_its_keyring_says_so_and_an_exported_one_helps() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path());
    let fs: Arc<dyn vault_core::vfs::FileSystem> = Arc::new(vault_core::vfs::DiskFileSystem);
    let exported = export(&fs, &path).unwrap();
    std::fs::remove_file(path.join("KEYRING")).unwrap();
    std::fs::remove_file(path.join("KEYRING.copy")).unwrap();
    let missing = refused(&path, || open(&path, "right").map(drop));
    assert!(matches!(missing, Error::Corruption { .. }), "{missing}");
    let said = missing.to_string();
    assert!(
        said.contains("KEYRING") && said.contains("exported"),
        "{said}"
    );
    import(&fs, &path, &exported).unwrap();
    assert_sound(&open(&path, "right").unwrap());
}

#[test]
fn plain_and_encrypted_stores_are_refused_as_the_other_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path());
    for read_only in [false, true] {
        let opened = || match read_only {
            false => Lsm::open(&path, LsmOptions::default()).map(drop),
            true => Lsm::open_read_only(&path, &LsmOptions::default()).map(drop),
        };
        let error = refused(&path, opened);
        assert!(matches!(error, Error::Encrypted { .. }), "{error}");
        assert!(error.to_string().contains("passphrase or key"), "{error}");
    }
    let plain = directory.path().join("plain");
    Lsm::open(&plain, LsmOptions::default())
        .unwrap()
        .close()
        .unwrap();
    let options = LsmOptions::default;
    for read_only in [false, true] {
        let opened = || match read_only {
            false => open(&plain, "right").map(drop),
            true => {
                EncryptedStore::open_read_only(&plain, options(), protection("right")).map(drop)
            }
        };
        let error = refused(&plain, opened);
        assert!(matches!(error, Error::NotEncrypted { .. }), "{error}");
        assert!(error.to_string().contains("plain store"), "{error}");
    }
}

fn sources(directory: &Path) -> Vec<(&'static str, EncryptedProtection)> {
    let with = |source: Arc<dyn vault_db::encryption::KeySource>| {
        weak(EncryptedProtection::with_source(source))
    };
    let short = directory.join("short");
    std::fs::write(&short, [7; 31]).unwrap();
    let no_text: [&str; 0] = [];
    let hangs = Command::passphrase("sleep", ["60"]).time_limit(Duration::from_millis(200));
    vec![
        (
            "no such file",
            with(Arc::new(KeyFile::new(directory.join("absent")))),
        ),
        ("a short key", with(Arc::new(KeyFile::new(short)))),
        (
            "a variable that is not set",
            with(Arc::new(EnvironmentVariable::passphrase(
                "VAULT_TEST_NOT_SET",
            ))),
        ),
        (
            "a command that fails",
            with(Arc::new(Command::passphrase("false", no_text))),
        ),
        (
            "no such command",
            with(Arc::new(Command::key("vault-no-such-program", no_text))),
        ),
        ("a command that hangs", with(Arc::new(hangs))),
    ]
}

#[test]
fn a_source_that_fails_leaves_everything_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path());
    for (what, protection) in sources(directory.path()) {
        let options = LsmOptions::default;
        let error = refused(&path, || {
            EncryptedStore::open_with(&path, options(), protection).map(drop)
        });
        let typed = matches!(
            error,
            Error::KeyUnavailable { .. } | Error::InvalidKey { .. }
        );
        assert!(typed, "{what}: {error}");
    }
    for (what, protection) in sources(directory.path()) {
        let new = directory.path().join("new");
        let opened = EncryptedStore::open_with(&new, LsmOptions::default(), protection);
        let error = opened.unwrap_err();
        let typed = matches!(
            error,
            Error::KeyUnavailable { .. } | Error::InvalidKey { .. }
        );
        assert!(typed, "{what}: {error}");
        // No more than the lock, under which the source was asked.
        assert!(image(&new).is_empty(), "{what}");
    }
    assert_sound(&open(&path, "right").unwrap());
    open(&directory.path().join("new"), "right").unwrap();
    assert!(matches!(
        RawKey::from_slice(&mut [1; 33]),
        Err(Error::InvalidKey { .. })
    ));
}

/// A secret of the other kind: no derivation is attempted.
#[test]
fn a_key_does_not_open_what_a_passphrase_opens() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path());
    let key = RawKey::from_slice(&mut [1; 32]).unwrap();
    let protection = EncryptedProtection::with_source(Arc::new(key));
    let error = refused(&path, || {
        let weak = protection.kdf_bounds(KdfBounds::danger_weak());
        EncryptedStore::open_with(&path, LsmOptions::default(), weak).map(drop)
    });
    assert!(error.to_string().contains("passphrase"), "{error}");
}

#[test]
fn reading_an_encrypted_store_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path());
    let before = image(&path);
    let options = LsmOptions::default();
    let reader = EncryptedStore::open_read_only(&path, options, protection("right")).unwrap();
    assert_sound(&reader);
    let put = reader.put(users(&reader), b"k", b"v", &WriteOptions::OS);
    assert!(matches!(put, Err(Error::ReadOnly)));
    assert!(matches!(reader.rotate_keys(), Err(Error::ReadOnly)));
    let change = reader.change_secret(&source("new"), Some(Kdf::danger_weak()));
    assert!(matches!(change, Err(Error::ReadOnly)), "{change:?}");
    reader.lock().unwrap();
    reader.unlock(&source("right")).unwrap();
    assert_sound(&reader);
    reader.close().unwrap();
    assert!(image(&path) == before);
}

/// Each handle has keys of its own.
#[test]
fn of_two_handles_one_is_locked_and_the_other_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path());
    let store = open(&path, "right").unwrap();
    let options = LsmOptions::default();
    let reader = EncryptedStore::open_read_only(&path, options, protection("right")).unwrap();
    let is_locked = |store: &EncryptedStore| {
        let got = store
            .keyspaces()
            .and_then(|_| store.get(KeyspaceId(1), b"alice"));
        matches!(got, Err(Error::Locked))
    };
    store.lock().unwrap();
    assert!(is_locked(&store) && !is_locked(&reader));
    assert_sound(&reader);
    store.unlock(&source("right")).unwrap();
    reader.lock().unwrap();
    assert!(!is_locked(&store) && is_locked(&reader));
    assert_sound(&store);
    store
        .put(users(&store), b"carol", b"guest", &WriteOptions::SYNC)
        .unwrap();
    store.close().unwrap();
    reader.unlock(&source("right")).unwrap();
    assert_sound(&reader);
}

#[test]
fn keys_are_not_rotated_and_secrets_not_changed_while_it_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path());
    let store = open(&path, "right").unwrap();
    store.lock().unwrap();
    let before = image(&path);
    let go_on = |_| ControlFlow::Continue(());
    assert!(matches!(store.rotate_keys(), Err(Error::Locked)));
    assert!(matches!(store.finish_rotation(go_on), Err(Error::Locked)));
    assert!(matches!(store.key_rotation(), Err(Error::Locked)));
    let change = store.change_secret(&source("new"), Some(Kdf::danger_weak()));
    assert!(matches!(change, Err(Error::Locked)));
    assert!(matches!(store.keys_changed(), Err(Error::Locked)));
    let copy = store.checkpoint(directory.path().join("copy"));
    assert!(matches!(copy, Err(Error::Locked)));
    assert!(!directory.path().join("copy").exists());
    assert!(image(&path) == before);
    store.unlock(&source("right")).unwrap();
    assert_sound(&store);
    store.rotate_keys().unwrap();
    store.finish_rotation(go_on).unwrap();
    assert_sound(&store);
}

/// Writers are in the midst of it: each hears `Locked` or has written, and what was acknowledged is there.
#[test]
fn a_lock_beside_writers_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path());
    let store = open(&path, "right").unwrap();
    let users = users(&store);
    let acknowledged: [AtomicU64; 3] = Default::default();
    let stop = AtomicBool::new(false);
    let locked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (thread, acknowledged) in acknowledged.iter().enumerate() {
            let (store, stop, locked) = (&store, &stop, &locked);
            scope.spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let next = acknowledged.load(Ordering::Relaxed);
                    let key = [&[thread as u8][..], &next.to_be_bytes()].concat();
                    match store.put(users, &key, &key, &WriteOptions::default()) {
                        Ok(_) => acknowledged.store(next + 1, Ordering::Relaxed),
                        Err(Error::Locked) => {
                            locked.fetch_add(1, Ordering::Relaxed);
                            std::thread::yield_now();
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for _ in 0..20 {
            store.lock().unwrap();
            std::thread::sleep(Duration::from_millis(2));
            store.unlock(&source("right")).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        stop.store(true, Ordering::Release);
    });
    assert!(locked.load(Ordering::Relaxed) > 0);
    let check = |store: &EncryptedStore| {
        for (thread, acknowledged) in acknowledged.iter().enumerate() {
            for n in 0..acknowledged.load(Ordering::Relaxed) {
                let key = [&[thread as u8][..], &n.to_be_bytes()].concat();
                let found = store.get(users, &key).unwrap();
                assert_eq!(found.as_deref(), Some(&key[..]), "{thread}: {n}");
            }
        }
    };
    check(&store);
    store.lock().unwrap();
    // The end of the process, as far as the log is concerned.
    store.close().unwrap();
    drop(store);
    check(&open(&path, "right").unwrap());
}

#[test]
fn an_older_copy_of_the_whole_store_is_refused_where_its_generation_is_too_low() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path());
    let older = image(&path);
    let store = open(&path, "right").unwrap();
    store
        .put(users(&store), b"alice", b"nobody", &WriteOptions::SYNC)
        .unwrap();
    store.close().unwrap();
    let kept = store.generation();
    drop(store);
    let with_least = |least| {
        let mut options = LsmOptions::default();
        options.settings.least_generation = least;
        EncryptedStore::open_with(&path, options, protection("right"))
    };
    assert!(with_least(kept).is_ok());
    for entry in image(&path).keys() {
        std::fs::remove_file(entry).unwrap();
    }
    for (path, bytes) in &older {
        std::fs::write(path, bytes).unwrap();
    }
    let error = refused(&path, || with_least(kept).map(drop));
    let Error::RolledBack { found, least, .. } = error else {
        panic!("{error}");
    };
    assert!(found < least && least == kept);
    // Knowingly.
    assert_sound(&with_least(found).unwrap());
}
