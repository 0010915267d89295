//! What lies in a store's directory and is not the store's: files with names of others and names that are not
//! UTF-8, directories, links, pipes, sockets, and above all what has a name of Vault's and is something else.
//! All of it is left alone byte for byte, and reported on opening; none of it makes an opening wait, and no
//! file of the store is ever created over it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "links, pipes and sockets are the real disk's"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::{
    Events, TWO_THREADS, assert_contents, assert_error, expected, put_all, small_keyspace,
    small_settings,
};
use vault_core::{Engine, Error, Event, KeyspaceId};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions};

fn options() -> LsmOptions {
    LsmOptions::new(small_settings(BackgroundWork::Manual))
}

/// A closed store with tables and a log.
fn closed_store(directory: &Path) -> KeyspaceId {
    let store = Lsm::open(directory, options()).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..500, 1);
    store.settle().unwrap();
    put_all(&store, ks, 500..600, 1);
    store.close().unwrap();
    ks
}

fn make_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// What there is under a name, in words that differ where it does.
fn picture(path: &Path) -> String {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return format!("link to {:?}", std::fs::read_link(path).unwrap());
    }
    if kind.is_dir() {
        let inside = std::fs::read_dir(path).unwrap();
        let names: BTreeSet<_> = inside.map(|e| e.unwrap().file_name()).collect();
        return format!("directory of {names:?}");
    }
    if kind.is_fifo() || kind.is_socket() {
        return format!("{kind:?}");
    }
    format!(
        "file {:?}",
        std::fs::read(path).unwrap().escape_ascii().to_string()
    )
}

/// The first file of the store with this ending, and its bytes.
fn some_file(directory: &Path, ending: &str) -> (PathBuf, Vec<u8>) {
    let paths = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().path());
    let path = paths
        .filter(|path| path.extension() == Some(OsStr::new(ending)))
        .min()
        .unwrap();
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

/// Puts everything there is that is not the store's into its directory.
fn litter(directory: &Path) -> BTreeSet<PathBuf> {
    let outside = directory.parent().unwrap().join("outside");
    std::fs::write(&outside, b"a file elsewhere").unwrap();
    let other = directory.parent().unwrap().join("another-store");
    closed_store(&other);
    let (table, of_table) = some_file(directory, "tab");
    let (_, of_other) = some_file(&other, "tab");
    let (_, log_of_other) = some_file(&other, "log");

    let mut names: BTreeSet<OsString> = BTreeSet::new();
    let mut name = |name: &str| {
        names.insert(name.into());
        directory.join(name)
    };
    // Names of others.
    std::fs::write(name("notes.txt"), b"mine").unwrap();
    std::fs::write(name("12.log"), b"too short a number").unwrap();
    std::fs::write(name("000001.TAB"), b"in capitals").unwrap();
    std::fs::write(name("current"), b"in small letters").unwrap();
    std::fs::write(name("18446744073709551615.tab"), b"the greatest number").unwrap();
    std::fs::write(
        name("72057594037927936.log"),
        b"the greatest number of a file",
    )
    .unwrap();
    std::fs::create_dir(name("directory")).unwrap();
    symlink(&outside, name("link")).unwrap();
    symlink("nowhere", name("link-to-nowhere")).unwrap();
    make_pipe(&name("pipe"));
    drop(UnixListener::bind(name("socket")).unwrap());
    // Names of Vault's, and something else.
    std::fs::write(name("000900.tab"), b"not a table").unwrap();
    std::fs::write(name("000901.log"), b"not a log").unwrap();
    std::fs::write(name("000902.man"), vec![b'M'; 4096]).unwrap();
    std::fs::write(name("000003.tab.new"), b"news").unwrap();
    std::fs::create_dir(name("000903.tab")).unwrap();
    std::fs::write(directory.join("000903.tab/inside"), b"here").unwrap();
    symlink(&outside, name("000904.log")).unwrap();
    symlink("nowhere", name("000905.man")).unwrap();
    make_pipe(&name("000906.tab"));
    drop(UnixListener::bind(name("000907.log")).unwrap());
    std::fs::create_dir(name("CURRENT.new.d")).unwrap();
    // Files of Vault's in the wrong place: another store's, and a copy of one's own under another number.
    std::fs::write(name("000908.tab"), of_other).unwrap();
    std::fs::write(name("000909.log"), log_of_other).unwrap();
    std::fs::write(name("000910.tab"), of_table).unwrap();
    symlink(table.file_name().unwrap(), name("000911.tab")).unwrap();
    names.insert(OsString::from_vec(b"caf\xe9 \xff.tab".to_vec()));
    std::fs::write(
        directory.join(OsStr::from_bytes(b"caf\xe9 \xff.tab")),
        b"bytes",
    )
    .unwrap();
    names.iter().map(|name| directory.join(name)).collect()
}

fn reported(events: &Events) -> BTreeSet<PathBuf> {
    let foreign = events.all().into_iter().filter_map(|event| match event {
        Event::ForeignFile { path } => Some(path),
        _ => None,
    });
    foreign.collect()
}

#[test]
fn everything_foreign_is_left_alone_and_reported() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let ks = closed_store(&directory);
    let foreign = litter(&directory);
    let pictures = || -> BTreeMap<PathBuf, String> {
        foreign
            .iter()
            .map(|path| (path.clone(), picture(path)))
            .collect()
    };
    let before = pictures();
    let reading = Lsm::open_read_only(&directory, &options()).unwrap();
    assert_contents(&reading, ks, &expected(0..600, 1));
    drop(reading);
    let mut count = 600;
    for _ in 0..3 {
        let events = Events::default();
        let store = Lsm::open(&directory, options().listener(events.listener())).unwrap();
        assert_eq!(reported(&events), foreign);
        assert_contents(&store, ks, &expected(0..count, 1));
        put_all(&store, ks, count..count + 400, 1);
        count += 400;
        store.settle().unwrap();
        store
            .checkpoint(parent.path().join(format!("copy-{count}")))
            .unwrap();
        store.close().unwrap();
        assert_eq!(pictures(), before);
    }
    let outside = std::fs::read(parent.path().join("outside")).unwrap();
    assert_eq!(outside, b"a file elsewhere");
    let other = Lsm::open(parent.path().join("another-store"), options()).unwrap();
    assert_contents(&other, ks, &expected(0..600, 1));
}

/// Directories whose names are the very next that the store would give its files.
///
/// They were not looked at when the next number was chosen, so that the store came upon them, one after the
/// other, and each write that needed a file failed.
#[test]
fn directories_with_the_next_numbers() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let ks = closed_store(&directory);
    let names = std::fs::read_dir(&directory)
        .unwrap()
        .map(|e| e.unwrap().file_name());
    let numbers = names.filter_map(|name| name.to_str()?.split('.').next()?.parse::<u64>().ok());
    let last = numbers.max().unwrap();
    for number in last + 1..last + 40 {
        for ending in ["tab", "log", "man"] {
            std::fs::create_dir(directory.join(format!("{number:06}.{ending}"))).unwrap();
        }
    }
    let store = Lsm::open(&directory, options()).unwrap();
    put_all(&store, ks, 600..1_200, 1);
    store.settle().unwrap();
    assert_contents(&store, ks, &expected(0..1_200, 1));
    store.close().unwrap();
}

/// Something takes a name while the store is open, just before the store would: at most one write and one flush
/// are refused, with the name, and the next ones take other numbers.
#[test]
fn names_that_are_taken_meanwhile() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let ks = closed_store(&directory);
    let store = Lsm::open(&directory, options()).unwrap();
    let names = std::fs::read_dir(&directory)
        .unwrap()
        .map(|e| e.unwrap().file_name());
    let numbers = names.filter_map(|name| name.to_str()?.split('.').next()?.parse::<u64>().ok());
    let last = numbers.max().unwrap();
    let mut taken = Vec::new();
    for number in last + 1..last + 4 {
        for ending in ["tab", "log", "man"] {
            let path = directory.join(format!("{number:06}.{ending}"));
            std::fs::write(&path, b"taken").unwrap();
            taken.push(path);
        }
    }
    let mut refusals = 0;
    for number in 600..900 {
        let (key, value) = (support::key(number), support::value(number, 1));
        while let Err(error) = store.put(ks, &key, &value, &vault_core::WriteOptions::SYNC) {
            assert!(error.to_string().contains("File exists"), "{error}");
            refusals += 1;
            assert!(refusals <= 4, "{error}");
        }
    }
    let _ = store.flush(None);
    let _ = store.flush(None);
    store.settle().unwrap();
    assert_contents(&store, ks, &expected(0..900, 1));
    store.close().unwrap();
    let store = Lsm::open(&directory, options()).unwrap();
    assert_contents(&store, ks, &expected(0..900, 1));
    for path in taken {
        assert_eq!(std::fs::read(path).unwrap(), b"taken");
    }
}

/// The names that every store has, taken by what is no file. Nothing waits for a pipe, and nothing is written
/// through a link.
#[test]
fn fixed_names_that_are_no_files() {
    for name in ["CURRENT", "LOCK", "CURRENT.new"] {
        for what in ["pipe", "socket", "directory", "link", "link to nowhere"] {
            let parent = tempfile::tempdir().unwrap();
            let directory = parent.path().join("store");
            let with_store = parent.path().join("with store");
            let ks = closed_store(&with_store);
            let outside = parent.path().join("outside");
            std::fs::write(&outside, b"a file elsewhere").unwrap();
            std::fs::create_dir(&directory).unwrap();
            for within in [&directory, &with_store] {
                let path = within.join(name);
                let _ = std::fs::remove_file(&path);
                match what {
                    "pipe" => make_pipe(&path),
                    "socket" => drop(UnixListener::bind(&path).unwrap()),
                    "directory" => std::fs::create_dir(&path).unwrap(),
                    "link" => symlink(&outside, &path).unwrap(),
                    _ => symlink("nowhere", &path).unwrap(),
                }
                let before = picture(&path);
                // With a store beside it, an unfinished pointer is in the way of the next one, and so is what
                // has the lock's name. A directory without a store must not become one.
                let opened = Lsm::open(within, options());
                let error = opened.map(drop).expect_err(&format!("{name} is a {what}"));
                assert!(
                    matches!(
                        error,
                        Error::NotAStore { .. } | Error::Io { .. } | Error::Corruption { .. }
                    ),
                    "{name} is a {what}: {error:?}"
                );
                assert_eq!(picture(&path), before, "{name} is a {what}");
                let reading = Lsm::open_read_only(within, &options());
                if let Ok(reading) = reading {
                    assert_contents(&reading, ks, &expected(0..600, 1));
                }
                assert_eq!(picture(&path), before, "{name} is a {what}");
            }
            assert_eq!(std::fs::read(outside).unwrap(), b"a file elsewhere");
        }
    }
}

/// A file that is called as the lock is, in a directory that is no store: it is somebody's, and the holder's
/// name was written over it.
#[test]
fn a_lock_of_another_program() {
    let parent = tempfile::tempdir().unwrap();
    let lock = parent.path().join("LOCK");
    std::fs::write(&lock, b"combination: 12 34 56").unwrap();
    let refused = Lsm::open(parent.path(), LsmOptions::new(small_settings(TWO_THREADS)));
    let error = assert_error!(refused, Error::NotAStore { .. }, Input);
    assert!(error.to_string().contains("LOCK"), "{error}");
    assert_eq!(std::fs::read(&lock).unwrap(), b"combination: 12 34 56");
    // One of an interrupted creation, written or not, is taken.
    for text in [&b""[..], b"process 12 (vault)", b"\0\0\0\0\0\0\0\0\0\0"] {
        std::fs::write(&lock, text).unwrap();
        let store = Lsm::open(parent.path(), options()).unwrap();
        store.close().unwrap();
        drop(store);
        std::fs::remove_file(parent.path().join("CURRENT")).unwrap();
        let manifest = some_file(parent.path(), "man").0;
        std::fs::remove_file(manifest).unwrap();
    }
}
