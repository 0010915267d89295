//! Captures: the files of one moment, taken while writers go on. Written into an empty directory they are the store of
//! that moment; as long as they are held, nothing takes them away.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{
    DIRECTORY, assert_contents, assert_error, contents, expected, files_in_memory, image, key,
    manual, put_all, roomy_keyspace, small_keyspace, threaded, value,
};
use vault_core::transform::{FileHeader, FileKind};
use vault_core::vfs::{FileSystem, MemoryFileSystem, read_whole};
use vault_core::{Engine, Error, KeyRange, WriteBatch, WriteOptions};
use vault_lsm::{Capture, Lsm, LsmOptions, OpenMode};

const COPY: &str = "/copy";

/// Writes the files where there was nothing.
fn write_out(capture: &Capture) -> MemoryFileSystem {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(Path::new(COPY)).unwrap();
    for file in &capture.files {
        let bytes = read_whole(&*file.content).unwrap();
        assert_eq!(bytes.len() as u64, file.bytes, "{}", file.name);
        fs.write_file(Path::new(COPY).join(&file.name), &bytes)
            .unwrap();
    }
    fs
}

fn open_copy(fs: &MemoryFileSystem) -> Lsm {
    Lsm::open(COPY, manual(fs).mode(OpenMode::MustExist)).unwrap()
}

fn large_values() -> vault_core::KeyspaceOptions {
    small_keyspace().large_values_from(Some(64))
}

#[test]
fn a_capture_is_the_store_of_its_moment() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let one = store.create_keyspace("one", &small_keyspace()).unwrap();
    let two = store.create_keyspace("two", &roomy_keyspace()).unwrap();
    let apart = store.create_keyspace("apart", &large_values()).unwrap();
    put_all(&store, one, 0..500, 1);
    put_all(&store, two, 0..50, 1);
    put_all(&store, apart, 0..300, 1);
    let generation = store.generation();
    let capture = store.capture().unwrap();
    assert_eq!(capture.sequence, store.latest_sequence());
    assert_eq!(capture.generation, generation);
    put_all(&store, one, 0..600, 2);
    store.drop_keyspace(two).unwrap();

    let copy_fs = write_out(&capture);
    // Its own pointer tells the generation: nobody need believe what stands beside it.
    let looked_at = Lsm::open_read_only(COPY, &manual(&copy_fs)).unwrap();
    assert_eq!(looked_at.generation(), generation);
    drop(looked_at);
    let copy = open_copy(&copy_fs);
    assert_eq!(copy.generation(), generation + 1);
    assert_eq!(copy.latest_sequence(), capture.sequence);
    assert_contents(&copy, one, &expected(0..500, 1));
    assert_contents(&copy, two, &expected(0..50, 1));
    assert_contents(&copy, apart, &expected(0..300, 1));
    // It goes its own way.
    put_all(&copy, one, 0..500, 3);
    copy.settle().unwrap();
    copy.close().unwrap();
    assert_contents(&open_copy(&copy_fs), one, &expected(0..500, 3));
    assert_contents(&store, one, &expected(0..600, 2));
}

/// What is told of a file is what stands in it, and what is immutable is the same in the next capture.
#[test]
fn files_are_told_apart_by_their_salts() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &large_values()).unwrap();
    put_all(&store, ks, 0..300, 1);
    let first = store.capture().unwrap();
    put_all(&store, ks, 300..310, 1);
    let second = store.capture().unwrap();
    for capture in [&first, &second] {
        let kinds = [FileKind::Table, FileKind::Blob, FileKind::Manifest];
        for file in &capture.files {
            let bytes = read_whole(&*file.content).unwrap();
            assert_eq!(file.salt, Some(bytes[40..64].try_into().unwrap()));
            assert_eq!(capture.store, bytes[16..32]);
            let ending = file.name.split_once('.').map_or("", |(_, ending)| ending);
            assert_eq!(file.immutable, ["tab", "blob"].contains(&ending));
            let is_kind = |kind: &&FileKind| {
                FileHeader::decode(Path::new(&file.name), &bytes, **kind, 9).is_ok()
            };
            let found = kinds.iter().any(|kind| is_kind(&kind));
            let named = ["CURRENT", "KEYRING", "KEYRING.copy"].contains(&&*file.name);
            assert!(found || named, "{}", file.name);
        }
        let names: BTreeSet<_> = capture.files.iter().map(|file| &file.name).collect();
        assert_eq!(names.len(), capture.files.len());
        assert_eq!(capture.files.last().unwrap().name, "CURRENT");
        let bytes: u64 = capture.files.iter().map(|file| file.bytes).sum();
        assert_eq!(capture.bytes(), bytes);
    }
    let known: BTreeSet<_> = first.files.iter().map(|file| file.salt).collect();
    let immutable = |capture: &Capture| capture.files.iter().filter(|f| f.immutable).count();
    let shared = second
        .files
        .iter()
        .filter(|file| known.contains(&file.salt));
    let shared: Vec<_> = shared.map(|file| file.immutable).collect();
    assert_eq!(shared, vec![true; immutable(&first)]);
    assert!(immutable(&second) > immutable(&first) && immutable(&first) > 2);
}

/// A batch that writes to three keyspaces is in the capture for all or none.
#[test]
fn one_moment_across_keyspaces_while_writers_go_on() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, threaded(&fs)).unwrap();
    let create = |name: &str| store.create_keyspace(name, &small_keyspace()).unwrap();
    let keyspaces = [create("a"), create("b"), create("c")];
    let done = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Acquire) && number < 20_000 {
                let mut batch = WriteBatch::new();
                for ks in keyspaces {
                    batch.put(ks, &key(number), &value(number, 1));
                }
                store.write(&batch, &WriteOptions::default()).unwrap();
                number += 1;
            }
            number
        });
        for _ in 0..6 {
            let earliest = store.latest_sequence();
            let capture = store.capture().unwrap();
            assert!((earliest..=store.latest_sequence()).contains(&capture.sequence));
            assert_eq!(capture.sequence % 3, 0, "no batch is cut");
            let copy_fs = write_out(&capture);
            let copy = open_copy(&copy_fs);
            for ks in keyspaces {
                assert_contents(&copy, ks, &expected(0..capture.sequence / 3, 1));
            }
        }
        done.store(true, Ordering::Release);
        writer.join().unwrap()
    });
    for ks in keyspaces {
        assert_contents(&store, ks, &expected(0..written, 1));
    }
}

/// Files that compactions have replaced stay while they are held, and their space comes back afterwards.
#[test]
fn held_files_stay_and_go_when_they_are_let_go_of() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &large_values()).unwrap();
    put_all(&store, ks, 0..400, 1);
    let capture = store.capture().unwrap();
    put_all(&store, ks, 0..400, 2);
    store
        .compact(ks, KeyRange::all(), &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    store.settle().unwrap();
    let now = store.capture().unwrap();
    let in_use: BTreeSet<_> = now.files.iter().map(|file| file.salt).collect();
    let replaced = capture
        .files
        .iter()
        .filter(|file| file.immutable && !in_use.contains(&file.salt));
    let replaced: Vec<String> = replaced.map(|file| file.name.clone()).collect();
    assert!(replaced.len() > 2, "{replaced:?}");
    let path = |name: &String| Path::new(DIRECTORY).join(name);
    assert!(
        replaced
            .iter()
            .all(|n| fs.kind(&path(n)).unwrap().is_some())
    );
    let copy_fs = write_out(&capture);
    assert_contents(&open_copy(&copy_fs), ks, &expected(0..400, 1));
    // One file is enough to hold it, and no more than it.
    let mut files = capture.files;
    let at = files.iter().position(|f| f.name == replaced[0]).unwrap();
    let held = files.swap_remove(at);
    drop(files);
    while store.background_step().unwrap() {}
    let left = replaced
        .iter()
        .filter(|name| fs.kind(&path(name)).unwrap().is_some());
    assert_eq!(left.collect::<Vec<_>>(), [&held.name]);
    drop(held);
    while store.background_step().unwrap() {}
    assert_eq!(fs.kind(&path(&replaced[0])).unwrap(), None);
    assert_contents(&store, ks, &expected(0..400, 2));
}

/// Who has captured a store can go on copying when it is closed, and opened again by others.
#[test]
fn a_capture_outlives_its_handle() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..400, 1);
    let capture = store.capture().unwrap();
    put_all(&store, ks, 0..400, 2);
    store.settle().unwrap();
    store.close().unwrap();
    drop(store);
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    store.settle().unwrap();
    let copy_fs = write_out(&capture);
    assert_contents(&open_copy(&copy_fs), ks, &expected(0..400, 1));
    assert_contents(&store, ks, &expected(0..400, 2));
}

/// Nothing is written through a capture, and nothing by making one but tables and what says so.
#[test]
fn what_was_captured_is_for_reading_only() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..400, 1);
    store.flush(None).unwrap();
    let before = image(&fs, "/");
    let capture = store.capture().unwrap();
    assert_eq!(image(&fs, "/"), before);
    for file in &capture.files {
        file.content.write_at(b"x", 0).unwrap_err();
        file.content.set_len(0).unwrap_err();
        file.content.allocate(1 << 20).unwrap_err();
        file.content.map(4096).unwrap_err();
    }
    assert_eq!(image(&fs, "/"), before);
    assert_contents(&open_copy(&write_out(&capture)), ks, &expected(0..400, 1));
}

#[test]
fn who_cannot_write_cannot_capture() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    store.create_keyspace("k", &small_keyspace()).unwrap();
    let options: LsmOptions = manual(&fs);
    let reader = Lsm::open_read_only(DIRECTORY, &options).unwrap();
    assert_error!(reader.capture(), Error::ReadOnly, Input);
    store.close().unwrap();
    assert_error!(store.capture(), Error::Closed, Reopen);
}

/// Everything of an empty store, and of one that was captured before.
#[test]
fn a_copy_of_a_copy() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let empty = write_out(&store.capture().unwrap());
    let empty = open_copy(&empty);
    assert!(empty.keyspaces().unwrap().is_empty());
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..100, 1);
    let first_fs = write_out(&store.capture().unwrap());
    let first = open_copy(&first_fs);
    put_all(&first, ks, 100..200, 1);
    let second_fs = write_out(&first.capture().unwrap());
    let second = open_copy(&second_fs);
    assert_contents(&second, ks, &expected(0..200, 1));
    assert_eq!(contents(&store, ks).len(), 100);
    assert!(!files_in_memory(&second_fs, COPY, ".tab").is_empty());
}

/// A key rotation that began between the copy of the keyring and the manifest sealed beside it left a copy that did not open:
/// its manifest was under a key of an epoch that the copied keyring had others for.
#[test]
fn keys_are_rotated_while_copies_are_made() {
    if !support::modes::encrypted() {
        return;
    }
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, threaded(&fs)).unwrap();
    let ks = store.create_keyspace("k", &large_values()).unwrap();
    put_all(&store, ks, 0..300, 1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let rotating = scope.spawn(|| {
            // Bounded, should the other thread fail.
            for _ in 0..2_000 {
                if done.load(Ordering::Acquire) {
                    return;
                }
                store.rotate_keys().unwrap();
                store
                    .finish_rotation(|_| std::ops::ControlFlow::Continue(()))
                    .unwrap();
            }
        });
        for round in 0..30 {
            let copy = write_out(&store.capture().unwrap());
            assert_contents(&open_copy(&copy), ks, &expected(0..300, 1));
            let path = format!("/copies/{round}");
            store.checkpoint(&path).unwrap();
            let copy = Lsm::open(&path, manual(&fs)).unwrap();
            assert_contents(&copy, ks, &expected(0..300, 1));
        }
        done.store(true, Ordering::Release);
        rotating.join().unwrap();
    });
}
