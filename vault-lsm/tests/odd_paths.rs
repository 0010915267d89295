//! Where a store can lie: at the end of a path as long as the system takes, in directories with spaces, line ends and
//! bytes that are not UTF-8, behind links, `.` and `..`, and in the working directory of a process that then
//! goes elsewhere. A path that cannot be is refused, typed, before anything is made there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "paths are the real disk's")]

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use support::alone::alone;
use support::{
    TWO_THREADS, assert_contents, assert_error, expected, put_all, small_keyspace, small_settings,
};
use vault_core::{Engine, Error, KeyspaceOptions, Result};
use vault_lsm::{Lsm, LsmOptions};

fn options() -> LsmOptions {
    LsmOptions::new(small_settings(TWO_THREADS))
}

/// Creates a store, fills it, makes a checkpoint beside it, and opens both again, writing and reading.
fn lives_at(directory: &Path) -> Result<()> {
    let store = Lsm::open(directory, options())?;
    let ks = store.create_keyspace("k", &small_keyspace())?;
    put_all(&store, ks, 0..500, 1);
    store.settle()?;
    put_all(&store, ks, 500..600, 1);
    let mut beside = directory.as_os_str().to_owned();
    beside.push("2");
    let beside = PathBuf::from(beside);
    store.checkpoint(&beside)?;
    store.close()?;
    for path in [directory, &beside] {
        assert_contents(&Lsm::open(path, options())?, ks, &expected(0..600, 1));
        assert_contents(
            &Lsm::open_read_only(path, &options())?,
            ks,
            &expected(0..600, 1),
        );
    }
    Ok(())
}

/// A path of exactly so many bytes. Its directories are not there yet.
fn path_of(parent: &Path, bytes: usize) -> PathBuf {
    let mut path = parent.as_os_str().as_bytes().to_vec();
    while path.len() < bytes {
        path.push(b'/');
        // Neither may a name be longer than 255, nor may the path end with the slash.
        let name = (bytes - path.len()).min(200);
        let rest = bytes - path.len() - name;
        path.extend(vec![b'p'; if rest == 1 { name - 1 } else { name }]);
    }
    assert_eq!(path.len(), bytes);
    PathBuf::from(OsStr::from_bytes(&path))
}

#[test]
fn as_long_as_the_system_takes() {
    // The longest name of a store's files has 25 bytes more than this, and the path ends with a zero.
    const LONGEST: usize = 4095 - 26;
    let parent = tempfile::tempdir().unwrap();
    lives_at(&path_of(parent.path(), 4_000)).unwrap();
    lives_at(&path_of(parent.path(), LONGEST - 2)).unwrap();
}

#[test]
fn longer_than_the_system_takes() {
    for bytes in (4_070..4_110).chain([5_000, 70_000]) {
        let parent = tempfile::tempdir().unwrap();
        let path = path_of(parent.path(), bytes);
        let error = assert_error!(Lsm::open(&path, options()), Error::Io { .. }, Input);
        let text = error.to_string();
        assert!(
            text.contains("too long") && text.contains("choose a shorter path"),
            "{text}"
        );
        let reading = Lsm::open_read_only(&path, &options());
        assert_error!(reading, Error::Io { .. }, Input);
        assert_eq!(entries(parent.path()), 0, "{bytes}: nothing was begun");
        let store = Lsm::open(parent.path().join("store"), options()).unwrap();
        assert_error!(store.checkpoint(&path), Error::Io { .. }, Input);
        assert_eq!(entries(parent.path()), 1, "{bytes}: nothing was begun");
    }
}

/// One name in the middle is too long, which shows only when the directory above it is there.
#[test]
fn one_name_longer_than_a_name_can_be() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent
        .path()
        .join("new/directories")
        .join("n".repeat(300))
        .join("store");
    assert_error!(Lsm::open(&path, options()), Error::Io { .. }, Input);
    assert_error!(
        Lsm::open_read_only(&path, &options()),
        Error::NoSuchStore { .. },
        Input
    );
    let store = Lsm::open(parent.path().join("store"), options()).unwrap();
    assert_error!(store.checkpoint(&path), Error::Io { .. }, Input);
    assert_eq!(entries(parent.path()), 1, "what was begun is gone");
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn names_of_any_bytes() {
    let names: [&[u8]; 8] = [
        b"with spaces and \"quotes\"",
        b"line\nend\ttab",
        b"\xff\xfe\xc3\x28 not UTF-8",
        "überall \u{1f980}".as_bytes(),
        b"-rf",
        b"CURRENT",
        b"000001.tab",
        b"%s%n {} \\",
    ];
    for name in names {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join(OsStr::from_bytes(name));
        lives_at(&directory).unwrap();
        // Errors name it, as well as they can.
        let store = Lsm::open(&directory, options()).unwrap();
        let error = assert_error!(
            Lsm::open(&directory, options()),
            Error::AlreadyOpen { .. },
            Unavailable
        );
        assert!(
            error.to_string().contains(&*directory.to_string_lossy()),
            "{error}"
        );
        store.close().unwrap();
    }
}

/// Keyspace names are text by their type. Bytes that are not UTF-8 stand in a string only as their
/// replacement, and that is refused, like all that is no plain letter.
#[test]
fn keyspace_names_that_were_no_text() {
    let parent = tempfile::tempdir().unwrap();
    let store = Lsm::open(parent.path(), options()).unwrap();
    for name in [
        &b"\xff\xfe"[..],
        b"caf\xe9",
        "größe".as_bytes(),
        b"a\0b",
        b"a/b",
        b"..",
    ] {
        let text = String::from_utf8_lossy(name);
        let refused = store.create_keyspace(&text, &KeyspaceOptions::default());
        assert_error!(refused, Error::InvalidKeyspaceName { .. }, Input);
        assert_eq!(store.keyspace(&text).unwrap(), None);
    }
    assert_eq!(store.keyspaces().unwrap().len(), 0);
}

#[test]
fn paths_that_lead_nowhere() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    std::fs::write(&file, b"mine").unwrap();
    let empty = Lsm::open("", options());
    let error = assert_error!(empty, Error::Io { .. }, Input);
    assert!(error.to_string().contains("empty"), "{error}");
    assert_error!(Lsm::open_read_only("", &options()), Error::Io { .. }, Input);
    let zero = parent.path().join("a\0b");
    assert_error!(Lsm::open(&zero, options()), Error::Io { .. }, Input);
    assert_error!(
        Lsm::open(file.join("store"), options()),
        Error::Io { .. },
        Unavailable
    );
    assert_error!(Lsm::open(&file, options()), Error::NotAStore { .. }, Input);
    assert_error!(
        Lsm::open("/dev/null", options()),
        Error::NotAStore { .. },
        Input
    );
    let dangling = parent.path().join("dangling");
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    assert_error!(
        Lsm::open(&dangling, options()),
        Error::Io { .. },
        Unavailable
    );
    let circle = parent.path().join("circle");
    std::os::unix::fs::symlink("circle", &circle).unwrap();
    assert_error!(Lsm::open(&circle, options()), Error::Io { .. }, Unavailable);
    assert_eq!(entries(parent.path()), 3);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

/// Every way of writing it down leads to the one store, and to its one lock.
#[test]
fn many_paths_to_one_store() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let link = parent.path().join("link");
    std::os::unix::fs::symlink("store", &link).unwrap();
    std::fs::create_dir_all(parent.path().join("a/b")).unwrap();
    std::os::unix::fs::symlink("../..", parent.path().join("a/b/up")).unwrap();
    let text = directory.to_str().unwrap();
    let ways = [
        directory.clone(),
        PathBuf::from(format!("{text}/")),
        PathBuf::from(format!("{text}///")),
        PathBuf::from(format!("{text}/.")),
        PathBuf::from(format!("{text}/../store")),
        parent.path().join("./a/../store"),
        parent.path().join("a/b/up/store"),
        link.clone(),
        PathBuf::from(format!("{}/", link.display())),
    ];
    let mut count = 0;
    std::fs::create_dir(&directory).unwrap();
    for way in &ways {
        let store = Lsm::open(way, options()).unwrap();
        let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
        assert_contents(&store, ks, &expected(0..count, 1));
        put_all(&store, ks, count..count + 100, 1);
        count += 100;
        for other in &ways {
            let refused = Lsm::open(other, options());
            let error = assert_error!(refused, Error::AlreadyOpen { .. }, Unavailable);
            let holder = format!("process {}", std::process::id());
            assert!(error.to_string().contains(&holder), "{error}");
            let reading = Lsm::open_read_only(other, &options()).unwrap();
            assert_contents(&reading, ks, &expected(0..count, 1));
        }
        store.settle().unwrap();
        store.close().unwrap();
    }
}

/// A relative path is meant where the process is when it opens the store. The process then goes elsewhere,
/// where another store lies under the same relative path: each handle stays with its own.
///
/// Files were created, and removed, at the relative path: in the other store.
#[test]
fn a_process_that_changes_its_directory() {
    alone("a_process_that_changes_its_directory", || {
        let parent = tempfile::tempdir().unwrap();
        let places = ["here", "there"].map(|name| parent.path().join(name));
        let mut stores = Vec::new();
        for (version, place) in (1..).zip(&places) {
            std::fs::create_dir(place).unwrap();
            std::env::set_current_dir(place).unwrap();
            let store = Lsm::open("store", options()).unwrap();
            let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
            put_all(&store, ks, 0..100, version);
            stores.push((version, place, store, ks));
        }
        std::env::set_current_dir("/").unwrap();
        for (version, _, store, ks) in &stores {
            put_all(store, *ks, 100..1_500, *version);
            store.settle().unwrap();
        }
        for (version, place, store, ks) in stores {
            store.close().unwrap();
            drop(store);
            let store = Lsm::open(place.join("store"), options()).unwrap();
            assert_contents(&store, ks, &expected(0..1_500, version));
        }
    });
}
