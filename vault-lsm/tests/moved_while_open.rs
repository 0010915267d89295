//! The directory of an open store is moved away, removed, or replaced by another store's: the handle notices
//! before it uses a name there. It never creates or removes a file in a directory that is not its own; what it
//! has acknowledged is where its directory is now.
//!
//! Paths were used as they were given: with another store in its place, a handle removed that one's log
//! when it flushed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "directories are the real disk's")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use support::{
    TWO_THREADS, assert_contents, assert_error, contents, expected, key, protected, put_all,
    small_keyspace, small_settings, value,
};
use vault_core::{Engine, Error, KeyspaceId, WriteOptions};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions};

fn options(background: BackgroundWork) -> LsmOptions {
    protected(LsmOptions::new(small_settings(background)))
}

fn begun(directory: &Path, background: BackgroundWork) -> (Lsm, KeyspaceId) {
    let store = Lsm::open(directory, options(background)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..700, 1);
    store.settle().unwrap();
    put_all(&store, ks, 700..800, 1);
    (store, ks)
}

fn image(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect()
}

/// Writes until the store needs a name and is refused; gives how many entries are there.
fn write_until_displaced(store: &Lsm, ks: KeyspaceId, directory: &Path) -> u64 {
    for number in 800..5_000 {
        match store.put(ks, &key(number), &value(number, 1), &WriteOptions::SYNC) {
            Ok(_) => {}
            Err(error) => {
                let error = assert_error!(Err::<(), _>(error), Error::Displaced { .. }, Reopen);
                assert!(
                    error.to_string().contains(directory.to_str().unwrap()),
                    "{error}"
                );
                return number;
            }
        }
    }
    panic!("the store never needed a name");
}

fn everything_else_is_refused(store: &Lsm, ks: KeyspaceId, elsewhere: &Path) {
    assert_error!(store.flush(None), Error::Displaced { .. }, Reopen);
    assert_error!(
        store.ingest(ks, [(b"k", b"v")]),
        Error::Displaced { .. },
        Reopen
    );
    let target = elsewhere.join("copy");
    assert_error!(store.checkpoint(&target), Error::Displaced { .. }, Reopen);
    assert!(!target.exists());
}

#[test]
fn moved_away_and_another_store_in_its_place() {
    for background in [BackgroundWork::Manual, TWO_THREADS] {
        let parent = tempfile::tempdir().unwrap();
        let (directory, moved) = (parent.path().join("store"), parent.path().join("moved"));
        let (store, ks) = begun(&directory, background);
        std::fs::rename(&directory, &moved).unwrap();
        let (other, _) = begun(&directory, background);
        let before = image(&directory);
        let count = write_until_displaced(&store, ks, &directory);
        everything_else_is_refused(&store, ks, parent.path());
        assert_contents(&store, ks, &expected(0..count, 1));
        assert_error!(store.close(), Error::Displaced { .. }, Reopen);
        drop(store);
        assert_eq!(
            image(&directory),
            before,
            "not a byte of the other store changed"
        );
        // All that was acknowledged is where the directory is now.
        let store = Lsm::open(&moved, options(background)).unwrap();
        assert_contents(&store, ks, &expected(0..count, 1));
        put_all(&other, ks, 800..1_600, 1);
        other.settle().unwrap();
        assert_contents(&other, ks, &expected(0..1_600, 1));
        other.close().unwrap();
    }
}

/// Moved, and moved back: what failed meanwhile is made up for.
#[test]
fn moved_there_and_back() {
    let parent = tempfile::tempdir().unwrap();
    let (directory, moved) = (parent.path().join("store"), parent.path().join("moved"));
    let (store, ks) = begun(&directory, BackgroundWork::Manual);
    std::fs::rename(&directory, &moved).unwrap();
    let count = write_until_displaced(&store, ks, &directory);
    std::fs::rename(&moved, &directory).unwrap();
    put_all(&store, ks, count..count + 800, 1);
    store.settle().unwrap();
    assert_contents(&store, ks, &expected(0..count + 800, 1));
    store.close().unwrap();
    drop(store);
    let store = Lsm::open(&directory, options(TWO_THREADS)).unwrap();
    assert_contents(&store, ks, &expected(0..count + 800, 1));
}

/// A link that led to the store now leads to another one.
#[test]
fn a_link_that_is_turned() {
    let parent = tempfile::tempdir().unwrap();
    let [link, mine, others] = ["link", "mine", "others"].map(|name| parent.path().join(name));
    std::fs::create_dir(&mine).unwrap();
    std::os::unix::fs::symlink("mine", &link).unwrap();
    let (store, ks) = begun(&link, TWO_THREADS);
    let (other, _) = begun(&others, TWO_THREADS);
    other.close().unwrap();
    let before = image(&others);
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("others", &link).unwrap();
    let count = write_until_displaced(&store, ks, &link);
    assert_error!(store.close(), Error::Displaced { .. }, Reopen);
    assert_eq!(image(&others), before);
    let store = Lsm::open(&mine, options(TWO_THREADS)).unwrap();
    assert_contents(&store, ks, &expected(0..count, 1));
}

/// Removed under a handle: what it has open it still reads, and it is told as soon as it needs a name.
#[test]
fn removed() {
    for background in [BackgroundWork::Manual, TWO_THREADS] {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("store");
        let (store, ks) = begun(&directory, background);
        let snapshot = store.snapshot().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let count = write_until_displaced(&store, ks, &directory);
        everything_else_is_refused(&store, ks, parent.path());
        assert_contents(&store, ks, &expected(0..count, 1));
        assert_contents(&*snapshot, ks, &expected(0..800, 1));
        assert_error!(store.close(), Error::Displaced { .. }, Reopen);
        assert_eq!(
            std::fs::read_dir(parent.path()).unwrap().count(),
            0,
            "nothing is made anew"
        );
    }
}

/// The lock file alone is removed. Another could now take a lock of the same name, so the handle stops.
#[test]
fn the_lock_file_is_removed() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let (store, ks) = begun(&directory, TWO_THREADS);
    std::fs::remove_file(directory.join("LOCK")).unwrap();
    let other = Lsm::open(&directory, options(TWO_THREADS)).unwrap();
    assert_contents(&other, ks, &expected(0..800, 1));
    put_all(&other, ks, 800..900, 2);
    write_until_displaced(&store, ks, &directory);
    assert_error!(store.close(), Error::Displaced { .. }, Reopen);
    put_all(&other, ks, 900..1_500, 2);
    other.settle().unwrap();
    let mut all = expected(0..800, 1);
    all.extend(expected(800..1_500, 2));
    assert_eq!(contents(&other, ks), all);
    other.close().unwrap();
    assert_eq!(
        contents(&Lsm::open(&directory, options(TWO_THREADS)).unwrap(), ks),
        all
    );
}
