//! A copy of a store becomes an instance of its own when it is first opened for writing: before anything else it has an id that no
//! other has, and where it is encrypted an epoch of keys that no other has either.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use support::modes::encrypted;
use support::{
    DIRECTORY, assert_contents, assert_error, expected, image, key, manual, put_all,
    small_keyspace, value,
};
use vault_core::vfs::{
    CrashPolicy, Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass, read_whole,
};
use vault_core::{Engine, Error, KeyspaceId, WriteOptions};
use vault_lsm::check::{RepairPermission, repair};
use vault_lsm::{Capture, Lsm, OpenMode, mark_restored};

const COPY: &str = "/copy";
const MARK: &str = "/store/RESTORED";

fn open(fs: &MemoryFileSystem, directory: &str) -> Lsm {
    try_open(fs, directory).unwrap()
}

fn try_open(fs: &MemoryFileSystem, directory: &str) -> vault_core::Result<Lsm> {
    Lsm::open(directory, manual(fs).mode(OpenMode::MustExist))
}

/// A closed store with some tables, some log, and two epochs of keys where it is encrypted.
fn store() -> (MemoryFileSystem, KeyspaceId, [u8; 16]) {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..300, 1);
    store.flush(None).unwrap();
    put_all(&store, ks, 300..310, 1);
    store.sync().unwrap();
    let instance = store.instance().unwrap();
    store.close().unwrap();
    (fs, ks, instance)
}

fn write_out(capture: &Capture) -> MemoryFileSystem {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(Path::new(COPY)).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    for file in &capture.files {
        let bytes = read_whole(&*file.content).unwrap();
        let path = Path::new(COPY).join(&file.name);
        fs.write_file(path, &bytes).unwrap();
    }
    fs
}

/// The epoch that the header of a file names; 0 in plain stores.
fn epoch_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[66..70].try_into().unwrap())
}

/// The newest epoch of a directory's keyring.
fn newest_epoch(files: &BTreeMap<PathBuf, Vec<u8>>) -> u32 {
    let mut keyrings = files.iter().filter(|(path, _)| path.ends_with("KEYRING"));
    keyrings.next().map_or(0, |(_, bytes)| epoch_of(bytes))
}

/// Whether every file that was not there `before` is sealed in a later epoch than there was.
fn assert_sealed_later(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
    context: &str,
) {
    if !encrypted() {
        return;
    }
    let known = newest_epoch(before);
    assert!(known > 0);
    for (path, bytes) in after {
        let name = path.file_name().unwrap().to_string_lossy();
        let sealed = !name.starts_with("KEYRING") && !["LOCK", "RESTORED"].contains(&&*name);
        // Files that never got their header hold nothing.
        let begun = bytes.len() >= 128 && bytes[..5] == *b"VAULT";
        let salt = |bytes: &[u8]| bytes.get(40..64).map(<[u8]>::to_vec);
        let is_new = !before.values().any(|old| salt(old) == salt(bytes));
        if sealed && begun && is_new {
            assert!(epoch_of(bytes) > known, "{context}: {name}");
        }
    }
}

#[test]
fn an_instance_is_drawn_once() {
    let (fs, _, instance) = store();
    for _ in 0..2 {
        let store = open(&fs, DIRECTORY);
        assert_eq!(store.instance(), Some(instance));
        store.close().unwrap();
    }
    let reading = Lsm::open_read_only(DIRECTORY, &manual(&fs)).unwrap();
    assert_eq!(reading.instance(), Some(instance));
    let (_, _, other) = store();
    assert_ne!(other, instance);
}

#[test]
fn copies_become_instances_of_their_own() {
    let (fs, ks, instance) = store();
    let original = open(&fs, DIRECTORY);
    let capture = original.capture().unwrap();
    assert_eq!(capture.instance, Some(instance));
    original.checkpoint(COPY).unwrap();
    let places = [write_out(&capture), write_out(&capture), fs.clone()];
    let mut seen = BTreeSet::from([instance]);
    for fs in &places {
        let reading = Lsm::open_read_only(COPY, &manual(fs)).unwrap();
        assert_eq!(reading.instance(), None, "nobody has made it one");
        let before = image(fs, COPY);
        let copy = open(fs, COPY);
        assert!(seen.insert(copy.instance().unwrap()));
        assert_sealed_later(&before, &image(fs, COPY), "opened");
        assert_contents(&copy, ks, &expected(0..310, 1));
        put_all(&copy, ks, 310..400, 1);
        let mine = copy.instance();
        copy.close().unwrap();
        assert_sealed_later(&before, &image(fs, COPY), "written");
        // From then on it is what it is.
        let epoch = newest_epoch(&image(fs, COPY));
        let copy = open(fs, COPY);
        assert_eq!(copy.instance(), mine);
        assert_eq!(newest_epoch(&image(fs, COPY)), epoch);
        assert_contents(&copy, ks, &expected(0..400, 1));
    }
    assert_eq!(original.instance(), Some(instance));
}

/// Two restores of the same files count the same epochs, and have other keys in them.
#[test]
fn what_one_copy_writes_does_not_open_in_the_other() {
    if !encrypted() {
        return;
    }
    let (fs, ks, _) = store();
    let capture = open(&fs, DIRECTORY).capture().unwrap();
    let places = [write_out(&capture), write_out(&capture)];
    for fs in &places {
        let copy = open(fs, COPY);
        put_all(&copy, ks, 400..500, 1);
        copy.close().unwrap();
    }
    let [one, two] = places;
    let taken = image(&one, COPY);
    let mut swapped = 0;
    for (path, bytes) in image(&two, COPY) {
        let ending = path.extension().unwrap_or_default();
        if !["log", "man"].contains(&ending.to_str().unwrap()) || !taken.contains_key(&path) {
            continue;
        }
        let after = one.kill();
        after.write_file(&path, &bytes).unwrap();
        assert_error!(
            try_open(&after, COPY).map(drop),
            Error::Corruption { .. },
            Restore
        );
        swapped += 1;
    }
    assert!(swapped > 0);
}

#[test]
fn a_marked_store_becomes_another_instance() {
    let (fs, ks, instance) = store();
    mark_restored(&fs, DIRECTORY).unwrap();
    mark_restored(&fs, DIRECTORY).unwrap();
    let before = image(&fs, DIRECTORY);
    assert!(before.contains_key(Path::new(MARK)));
    let reading = Lsm::open_read_only(DIRECTORY, &manual(&fs)).unwrap();
    assert_contents(&reading, ks, &expected(0..310, 1));
    assert_eq!(image(&fs, DIRECTORY), before);
    let copy = open(&fs, DIRECTORY);
    let mine = copy.instance().unwrap();
    assert_ne!(mine, instance);
    assert_contents(&copy, ks, &expected(0..310, 1));
    assert_sealed_later(&before, &image(&fs, DIRECTORY), "opened");
    assert!(!image(&fs, DIRECTORY).contains_key(Path::new(MARK)));
    copy.close().unwrap();
    assert_eq!(open(&fs, DIRECTORY).instance(), Some(mine));
}

#[test]
fn only_a_store_that_nobody_has_open_is_marked() {
    let (fs, _, instance) = store();
    fs.create_dir_all(Path::new("/empty")).unwrap();
    fs.create_dir_all(Path::new("/foreign")).unwrap();
    fs.write_file("/foreign/notes", b"mine").unwrap();
    let held = open(&fs, DIRECTORY);
    let before = image(&fs, "/");
    let mark = |directory: &str| mark_restored(&fs, directory);
    assert_error!(mark(DIRECTORY), Error::AlreadyOpen { .. }, Unavailable);
    assert_error!(mark("/empty"), Error::NoSuchStore { .. }, Input);
    assert_error!(mark("/nowhere"), Error::NoSuchStore { .. }, Input);
    assert_error!(mark("/foreign"), Error::NotAStore { .. }, Input);
    assert_eq!(image(&fs, "/"), before);
    held.close().unwrap();
    assert_eq!(open(&fs, DIRECTORY).instance(), Some(instance));
}

/// Loses power, or the process, at every operation of the first opening: it is a copy still, or an instance of its own, and nothing
/// is ever sealed in an epoch that the original has too.
#[test]
fn power_is_lost_at_every_operation_of_the_first_opening() {
    let (fs, ks, instance) = store();
    let original = open(&fs, DIRECTORY);
    let captured = write_out(&original.capture().unwrap());
    original.close().unwrap();
    mark_restored(&fs, DIRECTORY).unwrap();
    for (begin, directory) in [(&captured, COPY), (&fs, DIRECTORY)] {
        let before = image(begin, directory);
        let mut seen = BTreeSet::from([instance]);
        let (mut again, mut done) = (0, 0);
        for nth in 0.. {
            let fs = begin.crash(0, CrashPolicy::KeepUnsynced);
            fs.set_crash_point(Some(fs.operations() + nth));
            let opened = try_open(&fs, directory).and_then(|copy| {
                copy.put(ks, &key(310), &value(310, 1), &WriteOptions::SYNC)?;
                copy.close()
            });
            for (seed, after) in [
                (0, fs.kill()),
                (1, fs.crash(nth, CrashPolicy::Random { percent: 50 })),
                (2, fs.crash(nth, CrashPolicy::DropUnsynced)),
            ] {
                let context = format!("{directory}, operation {nth}, {seed}");
                let left = image(&after, directory);
                assert_sealed_later(&before, &left, &context);
                let found = Lsm::open_read_only(directory, &manual(&after)).unwrap();
                let was = found.instance().filter(|was| *was != instance);
                let copy = open(&after, directory);
                let now = copy.instance().unwrap();
                let marked = left.contains_key(Path::new(directory).join("RESTORED").as_path());
                match was {
                    // Where only the mark was left to go, it counts once more.
                    Some(was) if !marked => {
                        assert_eq!(was, now, "{context}");
                        done += 1;
                    }
                    _ => {
                        assert!(seen.insert(now), "{context}");
                        assert_sealed_later(&left, &image(&after, directory), &context);
                        again += 1;
                    }
                }
                assert_sealed_later(&before, &image(&after, directory), &context);
                let last = copy.latest_sequence();
                assert!((310..=311).contains(&last), "{context}");
                assert_contents(&copy, ks, &expected(0..last, 1));
            }
            if opened.is_ok() {
                break;
            }
            assert!(nth < 1_000, "it never ended");
        }
        assert!(again > 20 && done > 5, "{again} and {done}");
    }
}

/// Fails every operation of the first opening once.
#[test]
fn an_error_at_any_operation_of_the_first_opening() {
    let (fs, ks, instance) = store();
    let original = open(&fs, DIRECTORY);
    let captured = write_out(&original.capture().unwrap());
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::Other] {
        let mut failed = 0;
        for nth in 0.. {
            let fs = captured.crash(0, CrashPolicy::KeepUnsynced);
            let before = image(&fs, COPY);
            let began = fs.operations();
            fs.inject(Fault::new(OperationClass::Any, FaultKind::Error(kind)).after(nth));
            let opened = try_open(&fs, COPY);
            let fired = fs.operations() - began > nth;
            fs.clear_faults();
            failed += u32::from(opened.is_err());
            drop(opened);
            assert_sealed_later(&before, &image(&fs, COPY), &format!("{kind}, {nth}"));
            let copy = open(&fs, COPY);
            assert_ne!(copy.instance(), Some(instance));
            assert_contents(&copy, ks, &expected(0..310, 1));
            if !fired {
                break;
            }
        }
        assert!(failed > 5, "{kind}: {failed}");
    }
}

/// What a repair leaves of a copy that nobody has opened is a copy still.
#[test]
fn a_copy_that_was_repaired_is_a_copy_still() {
    let (fs, _, instance) = store();
    open(&fs, DIRECTORY).checkpoint(COPY).unwrap();
    let is_table = |path: &PathBuf| path.extension().is_some_and(|e| e == "tab");
    let damaged = image(&fs, COPY).into_keys().find(is_table).unwrap();
    let mut bytes = fs.read_file(&damaged).unwrap();
    bytes[200] ^= 1;
    // Another file in its place: the original shares the one that was there.
    fs.remove(&damaged).unwrap();
    fs.write_file(&damaged, &bytes).unwrap();
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let report = repair(COPY, &manual(&fs), RepairPermission::AcceptLoss, &mut go_on);
    assert!(report.unwrap().done);
    let reading = Lsm::open_read_only(COPY, &manual(&fs)).unwrap();
    assert_eq!(reading.instance(), None);
    let before = image(&fs, COPY);
    let copy = open(&fs, COPY);
    assert!(copy.instance().is_some_and(|id| id != instance));
    assert_sealed_later(&before, &image(&fs, COPY), "opened");
}
