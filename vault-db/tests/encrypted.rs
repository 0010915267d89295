//! Encrypted stores as an application uses them: what the type adds to the engine.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vault_core::vfs::{DiskFileSystem, FileSystem};
use vault_db::encryption::{EncryptedProtection, Kdf, KdfBounds, Passphrase, SecretBytes};
use vault_db::engine::{
    Clock, EncryptedStore, Engine, Error, ErrorKind, KeyspaceOptions, Lsm, LsmOptions, Reader,
    Result, SystemClock, WriteOptions,
};

/// As weak as key derivation gets: these tests are not about guessing.
fn protection(passphrase: &str) -> EncryptedProtection {
    EncryptedProtection::with_source(Arc::new(source(passphrase)))
        .kdf_bounds(KdfBounds::danger_weak())
        .kdf(Kdf::danger_weak())
}

fn source(passphrase: &str) -> Passphrase {
    let secret = SecretBytes::from_string(passphrase.to_owned()).expect("short enough");
    Passphrase::new(secret).expect("not empty")
}

fn open(path: &Path, passphrase: &str) -> Result<EncryptedStore> {
    EncryptedStore::open_with(path, LsmOptions::default(), protection(passphrase))
}

fn read(store: &EncryptedStore) -> Result<Option<Vec<u8>>> {
    let id = store.keyspace("users")?.ok_or(Error::Closed)?;
    Ok(store.get(id, b"alice")?.map(|value| value.to_vec()))
}

fn filled(path: &Path) -> EncryptedStore {
    let store = open(path, "old").expect("a new store");
    let users = store.create_keyspace("users", &KeyspaceOptions::default());
    let users = users.expect("a new keyspace");
    store
        .put(users, b"alice", b"admin", &WriteOptions::SYNC)
        .expect("a write");
    store
}

#[test]
fn a_changed_passphrase_opens_and_the_old_one_does_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let store = filled(&path);
    store
        .change_secret(&source("new"), Some(Kdf::danger_weak()))
        .expect("a change");
    assert_eq!(read(&store).unwrap().as_deref(), Some(&b"admin"[..]));
    store.close().unwrap();
    drop(store);
    let refused = open(&path, "old").unwrap_err();
    assert!(matches!(refused, Error::WrongKey { .. }), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::Unlock);
    let store = open(&path, "new").expect("the new passphrase");
    assert_eq!(read(&store).unwrap().as_deref(), Some(&b"admin"[..]));
}

#[test]
fn a_locked_store_answers_locked_until_the_right_passphrase_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = filled(&directory.path().join("store"));
    store.lock().unwrap();
    assert!(store.is_locked());
    assert!(matches!(read(&store), Err(Error::Locked)));
    let change = store.change_secret(&source("new"), None);
    assert!(matches!(change, Err(Error::Locked)));
    let wrong = store.unlock(&source("wrong"));
    assert!(matches!(wrong, Err(Error::WrongKey { .. })));
    assert!(store.is_locked());
    store.unlock(&source("old")).expect("the right passphrase");
    assert_eq!(read(&store).unwrap().as_deref(), Some(&b"admin"[..]));
}

#[test]
fn an_idle_store_locks_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = LsmOptions::default();
    options.settings.lock_after_idle = Some(Duration::from_secs(1));
    let path = directory.path().join("store");
    let store = EncryptedStore::open_with(&path, options, protection("old")).expect("a new store");
    let clock = SystemClock::new();
    let mut waits = (0..200).map(|_| clock.sleep(Duration::from_millis(100)));
    assert!(waits.any(|()| store.is_locked()), "open after 20 seconds");
    store.unlock(&source("old")).expect("the right passphrase");
    assert!(store.keyspaces().unwrap().is_empty());
}

#[test]
fn plain_and_encrypted_stores_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let (plain, encrypted) = (directory.path().join("p"), directory.path().join("e"));
    filled(&encrypted).close().unwrap();
    Lsm::open(&plain, LsmOptions::default())
        .and_then(|store| store.close())
        .expect("a plain store");
    let refused = Lsm::open(&encrypted, LsmOptions::default()).unwrap_err();
    assert!(matches!(refused, Error::Encrypted { .. }), "{refused}");
    assert!(refused.to_string().contains("passphrase"), "{refused}");
    let refused = open(&plain, "old").unwrap_err();
    assert!(matches!(refused, Error::NotEncrypted { .. }), "{refused}");
    let keyring = DiskFileSystem.kind(&plain.join("KEYRING"));
    assert!(keyring.expect("a look").is_none(), "nothing was written");
    // Neither came to harm.
    open(&encrypted, "old").expect("as it was").close().unwrap();
    Lsm::open(&plain, LsmOptions::default()).expect("as it was");
}

#[test]
fn keys_rotate_and_all_is_still_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = filled(&directory.path().join("store"));
    store.flush(None).unwrap();
    let before = store.keyring_info().epoch;
    store.rotate_keys().unwrap();
    store
        .finish_rotation(&mut |_| ControlFlow::Continue(()))
        .unwrap();
    let info = store.keyring_info();
    assert_eq!((info.epoch, info.epochs), (before + 1, Some(1)));
    assert_eq!(read(&store).unwrap().as_deref(), Some(&b"admin"[..]));
}
