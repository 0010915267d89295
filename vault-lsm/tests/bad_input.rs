//! Everything wrong that a caller can hand in is a typed error; nothing is written and nothing lost.
//!
//! | what is wrong | shown by |
//! | --- | --- |
//! | key or value over its limit | conformance `limits::keys_from_empty_to_the_limit`, `limits::values_from_empty_to_the_limit` |
//! | batch over its limit | conformance `limits::batches_up_to_the_limit` |
//! | inverted bounds | conformance `ranges::scans_with_every_form_of_bounds`, `ranges::range_deletes_empty_and_inverted` |
//! | unknown or dropped keyspace | conformance `keyspaces::dropped_keyspaces_are_gone` |
//! | odd keyspace names | conformance `keyspaces::odd_names_are_refused` |
//! | options out of bounds | conformance `keyspaces::bad_options_create_nothing`; settings: here |
//! | contradicting options | conformance `keyspaces::options_that_conflict_are_refused`; after reopening: here |
//! | use after close | conformance `closing::use_after_close`; this engine's own verbs: here |
//! | zero, past and overflowing expiry | conformance `expiry::bad_expiries_are_refused` |
//! | operands that make no sense | conformance `merge::bad_operands_are_refused` |
//! | merge operator missing on reopen | conformance `reopening::reopening_without_the_merge_operator`; untouched files: here |
//! | unsorted, duplicate, oversized ingest | `ingesting.rs` |
//! | a checkpoint onto something | `checkpoints.rs` |
//! | a file; another program's directory; no permission; a newer format; open modes | here |
//! | a second writer in this process; writing through a read-only handle | here |
//! | a second writer in another process | `other_process.rs` |
//! | a full disk | `full_disk.rs`; real ones: `real_full_disk.rs`, `limits_of_the_process.rs` |
//! | foreign things in the directory, under Vault's names too | `foreign_entries.rs` |
//! | paths that are too long, odd, or empty; names that are not UTF-8 | `odd_paths.rs` |
//! | a directory that is moved, removed or replaced while open | `moved_while_open.rs` |
//! | a read-only medium | `read_only_medium.rs` |
//! | a clock that jumps | `clock_jumps.rs` |
//! | a store that is copied while it is written | `copied_while_open.rs` |
//! | a listener that panics | `listener_that_panics.rs` |
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "permission bits and foreign directories are the real disk's"
)]

mod support;

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use support::{
    DIRECTORY, Events, assert_contents, assert_error, expected, image, manual, put_all,
    roomy_keyspace, small_keyspace, small_settings,
};
use vault_core::merge::{APPEND, COUNTER};
use vault_core::vfs::{Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass};
use vault_core::{
    CompactionPolicy, Engine, Error, Event, KeyRange, KeyspaceOptions, MergeOperator, Reader,
    WriteBatch, WriteOptions,
};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, OpenMode, Settings};

/// A store with tables in one keyspace, unflushed writes in it, and closed again.
fn closed_store() -> MemoryFileSystem {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..500, 1);
    store.settle().unwrap();
    put_all(&store, ks, 500..550, 1);
    store.close().unwrap();
    fs
}

/// Everything of [`closed_store`] is there.
#[track_caller]
fn assert_unharmed(fs: &MemoryFileSystem) {
    let store = Lsm::open(DIRECTORY, manual(fs)).unwrap();
    let ks = store.keyspace("k").unwrap().unwrap();
    assert_contents(&store, ks, &expected(0..550, 1));
    store.close().unwrap();
}

#[test]
fn a_file_is_no_store() {
    let fs = MemoryFileSystem::new();
    fs.write_file("/notes", b"my notes").unwrap();
    let refused = Lsm::open("/notes", manual(&fs));
    let error = assert_error!(refused, Error::NotAStore { .. }, Input);
    assert!(error.to_string().contains("/notes"), "{error}");
    let refused = Lsm::open_read_only("/notes", &manual(&fs));
    assert_error!(refused, Error::NotAStore { .. }, Input);
    assert_eq!(fs.read_file("/notes").unwrap(), b"my notes");
    assert_eq!(fs.list().len(), 1);
    // And on the real disk.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("notes");
    std::fs::write(&file, b"my notes").unwrap();
    let refused = Lsm::open(&file, LsmOptions::default());
    assert_error!(refused, Error::NotAStore { .. }, Input);
    assert_eq!(std::fs::read(&file).unwrap(), b"my notes");
}

#[test]
fn a_directory_of_foreign_files_is_no_store() {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(Path::new(DIRECTORY)).unwrap();
    fs.write_file("/store/thesis.tex", b"chapter 1").unwrap();
    fs.write_file("/store/000001.man", b"a manual").unwrap();
    let before = image(&fs, DIRECTORY);
    for mode in [
        OpenMode::CreateIfMissing,
        OpenMode::MustExist,
        OpenMode::MustCreate,
    ] {
        let refused = Lsm::open(DIRECTORY, manual(&fs).mode(mode));
        let refusal = refused.as_ref().err().cloned();
        if mode == OpenMode::MustExist || mode == OpenMode::CreateIfMissing {
            let error = assert_error!(refused, Error::NotAStore { .. }, Input);
            assert!(error.to_string().contains("thesis.tex"), "{error}");
        }
        assert!(refusal.is_some());
    }
    let refused = Lsm::open_read_only(DIRECTORY, &manual(&fs));
    assert_error!(refused, Error::NotAStore { .. }, Input);
    assert_eq!(image(&fs, DIRECTORY), before, "nothing is touched");
}

/// `LevelDB` and its descendants name files as Vault does: `CURRENT`, `LOCK`, `000003.log`.
#[test]
fn a_leveldb_directory_is_no_store_and_stays_as_it_is() {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(Path::new(DIRECTORY)).unwrap();
    fs.write_file("/store/CURRENT", b"MANIFEST-000002\n")
        .unwrap();
    fs.write_file("/store/LOCK", b"").unwrap();
    fs.write_file("/store/LOG", b"2024/01/01-00:00:00.000 1 Recovering\n")
        .unwrap();
    fs.write_file("/store/MANIFEST-000002", &[7; 200]).unwrap();
    fs.write_file("/store/000003.log", &[9; 300]).unwrap();
    let before = image(&fs, DIRECTORY);
    let refused = Lsm::open(DIRECTORY, manual(&fs));
    assert_error!(refused, Error::NotAStore { .. }, Input);
    let refused = Lsm::open_read_only(DIRECTORY, &manual(&fs));
    assert_error!(refused, Error::NotAStore { .. }, Input);
    assert_eq!(image(&fs, DIRECTORY), before, "not even the lock is taken");
}

/// A store that somebody put a file beside opens, says so, and leaves the file alone.
#[test]
fn foreign_files_in_a_store_are_reported_and_kept() {
    let fs = closed_store();
    fs.write_file("/store/notes.txt", b"mine").unwrap();
    fs.write_file("/store/12.log", b"not a name of ours")
        .unwrap();
    let events = Events::default();
    let store = Lsm::open(DIRECTORY, manual(&fs).listener(events.listener())).unwrap();
    let mut named: Vec<_> = events
        .all()
        .into_iter()
        .filter_map(|event| match event {
            Event::ForeignFile { path } => Some(path),
            _ => None,
        })
        .collect();
    named.sort();
    assert_eq!(
        named,
        [Path::new("/store/12.log"), Path::new("/store/notes.txt")]
    );
    store.close().unwrap();
    assert_eq!(fs.read_file("/store/notes.txt").unwrap(), b"mine");
    assert_eq!(
        fs.read_file("/store/12.log").unwrap(),
        b"not a name of ours"
    );
    assert_unharmed(&fs);
}

/// The tables and logs of a store whose pointer is gone are not taken for an empty directory.
#[test]
fn a_store_without_its_pointer_is_damaged_rather_than_new() {
    let fs = closed_store();
    fs.remove(Path::new("/store/CURRENT")).unwrap();
    let before = image(&fs, DIRECTORY);
    assert_error!(
        Lsm::open(DIRECTORY, manual(&fs)),
        Error::Corruption { .. },
        Restore
    );
    assert_eq!(image(&fs, DIRECTORY), before);
}

#[test]
fn without_permission_the_error_names_the_path() {
    let denied = FaultKind::Error(io::ErrorKind::PermissionDenied);
    // Looking at it, listing it, taking the lock, reading the pointer.
    for (class, part) in [
        (OperationClass::Metadata, "store"),
        (OperationClass::Lock, "LOCK"),
        (OperationClass::Open, "CURRENT"),
        (OperationClass::Open, ".man"),
        (OperationClass::Open, ".tab"),
        (OperationClass::Create, ".man"),
    ] {
        let fs = closed_store();
        let before = image(&fs, DIRECTORY);
        fs.inject(Fault::new(class, denied).sticky().on_path(part));
        let error = assert_error!(
            Lsm::open(DIRECTORY, manual(&fs)),
            Error::Io { .. },
            Unavailable
        );
        let Error::Io { path, source, .. } = &error else {
            unreachable!("it was just checked")
        };
        assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
        assert!(path.to_string_lossy().contains(part), "{error}");
        fs.clear_faults();
        let mut after = image(&fs, DIRECTORY);
        // The lock's text says who held it last; it is no data.
        let mut expected = before;
        after.remove(Path::new("/store/LOCK"));
        expected.remove(Path::new("/store/LOCK"));
        assert_eq!(after, expected, "{class:?} {part}");
        assert_unharmed(&fs);
    }
}

#[cfg(unix)]
#[test]
fn permission_bits_of_a_real_directory() {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("closed");
    std::fs::create_dir(&directory).unwrap();
    let set = |mode| std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(mode));
    set(0o500).unwrap();
    // Permission bits don't bind the superuser; the test before this one covers that case.
    let bound = std::fs::write(directory.join("probe"), b"").is_err();
    if bound {
        let refused = Lsm::open(&directory, LsmOptions::default());
        assert_error!(refused, Error::Io { .. }, Unavailable);
        set(0o000).unwrap();
        let refused = Lsm::open(&directory, LsmOptions::default());
        assert_error!(refused, Error::Io { .. }, Unavailable);
        set(0o700).unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }
    set(0o700).unwrap();
}

/// Sets the format version in a file's header, with the checksum that goes with it.
fn set_version(fs: &MemoryFileSystem, path: &Path, version: u16) {
    let mut bytes = fs.read_file(path).unwrap();
    bytes[8..10].copy_from_slice(&version.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&checksum.to_le_bytes());
    fs.write_file(path, &bytes).unwrap();
}

#[test]
fn newer_formats_are_named_and_left_alone() {
    for ending in ["CURRENT", ".man", ".tab", ".log"] {
        let fs = closed_store();
        let path = support::files_in_memory(&fs, DIRECTORY, ending)
            .pop()
            .unwrap_or_else(|| panic!("the store has a {ending}"))
            .0;
        let original = fs.read_file(&path).unwrap();
        set_version(&fs, &path, 9);
        let before = image(&fs, DIRECTORY);
        for read_only in [false, true] {
            let refused = if read_only {
                Lsm::open_read_only(DIRECTORY, &manual(&fs))
            } else {
                Lsm::open(DIRECTORY, manual(&fs))
            };
            let error = assert_error!(refused, Error::NewerFormat { .. }, Unavailable);
            let Error::NewerFormat {
                path: named,
                found,
                supported,
            } = error
            else {
                unreachable!("it was just checked")
            };
            assert_eq!(named, path);
            assert_eq!(found, 9);
            assert!(supported < 9);
        }
        let mut after = image(&fs, DIRECTORY);
        after.insert(
            "/store/LOCK".into(),
            before[Path::new("/store/LOCK")].clone(),
        );
        assert_eq!(after, before, "{ending}");
        fs.write_file(&path, &original).unwrap();
        assert_unharmed(&fs);
    }
}

#[test]
fn open_modes_are_held_to() {
    let fs = MemoryFileSystem::new();
    let refused = Lsm::open(DIRECTORY, manual(&fs).mode(OpenMode::MustExist));
    assert_error!(refused, Error::NoSuchStore { .. }, Input);
    let refused = Lsm::open_read_only(DIRECTORY, &manual(&fs));
    assert_error!(refused, Error::NoSuchStore { .. }, Input);
    assert_eq!(fs.kind(Path::new(DIRECTORY)).unwrap(), None, "not created");
    fs.create_dir_all(Path::new(DIRECTORY)).unwrap();
    let refused = Lsm::open(DIRECTORY, manual(&fs).mode(OpenMode::MustExist));
    assert_error!(refused, Error::NoSuchStore { .. }, Input);
    let store = Lsm::open(DIRECTORY, manual(&fs).mode(OpenMode::MustCreate)).unwrap();
    store.create_keyspace("k", &small_keyspace()).unwrap();
    store.close().unwrap();
    let before = image(&fs, DIRECTORY);
    let refused = Lsm::open(DIRECTORY, manual(&fs).mode(OpenMode::MustCreate));
    assert_error!(refused, Error::TargetExists { .. }, Input);
    assert_eq!(image(&fs, DIRECTORY), before);
    let store = Lsm::open(DIRECTORY, manual(&fs).mode(OpenMode::MustExist)).unwrap();
    assert!(store.keyspace("k").unwrap().is_some());
}

#[test]
fn settings_out_of_bounds_create_nothing() {
    let small = small_settings(BackgroundWork::Manual);
    let bad = [
        (
            "log_segment_bytes",
            Settings {
                log_segment_bytes: Some(1),
                ..small.clone()
            },
        ),
        (
            "log_bytes_max",
            Settings {
                log_bytes_max: Some(1),
                ..small.clone()
            },
        ),
        (
            "memtables_waiting_max",
            Settings {
                memtables_waiting_max: 0,
                ..small.clone()
            },
        ),
        (
            "background.threads.compaction",
            Settings {
                background: BackgroundWork::Threads { compaction: 0 },
                ..small.clone()
            },
        ),
        (
            "latency_sample_every",
            Settings {
                latency_sample_every: 0,
                ..small
            },
        ),
    ];
    for (name, settings) in bad {
        let fs = MemoryFileSystem::new();
        let options = LsmOptions::new(settings).file_system(Arc::new(fs.clone()));
        let error = assert_error!(
            Lsm::open(DIRECTORY, options),
            Error::InvalidSetting { .. },
            Input
        );
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(fs.kind(Path::new(DIRECTORY)).unwrap(), None);
    }
}

#[test]
fn options_that_contradict_the_stored_ones_after_reopening() {
    let fs = MemoryFileSystem::new();
    let stored = small_keyspace()
        .policy(CompactionPolicy::TIERED)
        .merge(APPEND);
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &stored).unwrap();
    put_all(&store, ks, 0..300, 1);
    store.close().unwrap();

    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let without = KeyspaceOptions {
        merge_operator: None,
        ..stored.clone()
    };
    for (option, asked) in [
        ("policy", stored.clone().policy(CompactionPolicy::LEVELED)),
        (
            "policy",
            stored
                .clone()
                .policy(CompactionPolicy::Fifo { bytes_max: 9 }),
        ),
        ("merge_operator", stored.clone().merge(COUNTER)),
        ("merge_operator", without),
    ] {
        let before = image(&fs, DIRECTORY);
        let refused = store.create_keyspace("k", &asked);
        let error = assert_error!(refused, Error::OptionsConflict { .. }, Input);
        let Error::OptionsConflict { option: named, .. } = error else {
            unreachable!("it was just checked")
        };
        assert_eq!(named, option);
        assert_eq!(image(&fs, DIRECTORY), before, "nothing is written");
    }
    assert_eq!(store.create_keyspace("k", &stored).unwrap(), ks);
    assert_contents(&store, ks, &expected(0..300, 1));
}

#[test]
fn a_second_writer_in_this_process_is_told_who_has_it() {
    for on_disk in [false, true] {
        let temporary = tempfile::tempdir().unwrap();
        let fs = MemoryFileSystem::new();
        let (directory, options) = if on_disk {
            (temporary.path(), LsmOptions::default())
        } else {
            (Path::new(DIRECTORY), manual(&fs))
        };
        let first = Lsm::open(directory, options.clone()).unwrap();
        let ks = first.create_keyspace("k", &small_keyspace()).unwrap();
        put_all(&first, ks, 0..10, 1);
        let refused = Lsm::open(directory, options.clone());
        let error = assert_error!(refused, Error::AlreadyOpen { .. }, Unavailable);
        let pid = std::process::id().to_string();
        assert!(error.to_string().contains(&pid), "{error}");
        put_all(&first, ks, 10..20, 1);
        first.close().unwrap();
        let second = Lsm::open(directory, options).unwrap();
        assert_contents(&second, ks, &expected(0..20, 1));
    }
}

/// Every verb that changes something answers `ReadOnly`, and the files stay as they are.
#[test]
fn a_read_only_handle_changes_nothing() {
    let fs = closed_store();
    let before = image(&fs, DIRECTORY);
    let store = Lsm::open_read_only(DIRECTORY, &manual(&fs)).unwrap();
    let ks = store.keyspace("k").unwrap().unwrap();
    let options = WriteOptions::default();
    let mut batch = WriteBatch::new();
    batch.put(ks, b"k", b"v");
    let mut range = WriteBatch::new();
    range.delete_range(ks, b"a", b"z");
    assert_error!(store.put(ks, b"k", b"v", &options), Error::ReadOnly, Input);
    assert_error!(store.delete(ks, b"k", &options), Error::ReadOnly, Input);
    assert_error!(store.write(&batch, &options), Error::ReadOnly, Input);
    assert_error!(store.write(&range, &options), Error::ReadOnly, Input);
    assert_error!(store.try_write(&batch, &options), Error::ReadOnly, Input);
    assert_error!(
        store.write(&WriteBatch::new(), &options),
        Error::ReadOnly,
        Input
    );
    let cas = store.compare_and_set(ks, b"k", None, Some(b"v"), &options);
    assert_error!(cas, Error::ReadOnly, Input);
    let created = store.create_keyspace("new", &small_keyspace());
    assert_error!(created, Error::ReadOnly, Input);
    assert_error!(store.drop_keyspace(ks), Error::ReadOnly, Input);
    assert_error!(store.sync(), Error::ReadOnly, Input);
    assert_error!(store.flush(None), Error::ReadOnly, Input);
    assert_error!(store.flush(Some(ks)), Error::ReadOnly, Input);
    let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
    assert_error!(compacted, Error::ReadOnly, Input);
    assert_error!(store.ingest(ks, [(b"k", b"v")]), Error::ReadOnly, Input);
    assert_error!(store.checkpoint("/copy"), Error::ReadOnly, Input);
    assert_error!(store.background_step(), Error::ReadOnly, Input);
    assert_error!(store.settle(), Error::ReadOnly, Input);
    assert_contents(&store, ks, &expected(0..550, 1));
    store.close().unwrap();
    assert_eq!(image(&fs, DIRECTORY), before);
    assert_unharmed(&fs);
}

/// What only this engine can do answers `Closed` too.
#[test]
fn its_own_verbs_after_closing() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    store.close().unwrap();
    let before = image(&fs, DIRECTORY);
    assert_error!(store.ingest(ks, [(b"k", b"v")]), Error::Closed, Reopen);
    assert_error!(store.checkpoint("/copy"), Error::Closed, Reopen);
    assert_error!(store.explain_space(), Error::Closed, Reopen);
    let bytes = store.approximate_bytes(ks, &KeyRange::all());
    assert_error!(bytes, Error::Closed, Reopen);
    assert_error!(store.background_step(), Error::Closed, Reopen);
    assert_error!(store.settle(), Error::Closed, Reopen);
    assert_eq!(image(&fs, DIRECTORY), before);
    assert_eq!(fs.kind(Path::new("/copy")).unwrap(), None);
}

/// Keeps the longest operand.
#[derive(Debug)]
struct Longest;

impl MergeOperator for Longest {
    fn name(&self) -> &'static str {
        "test.longest"
    }

    fn merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> Result<Vec<u8>, String> {
        let all = base.iter().chain(operands).copied();
        Ok(all.max_by_key(|o| o.len()).unwrap_or_default().to_vec())
    }
}

#[test]
fn a_merge_operator_that_is_missing_on_reopening() {
    let fs = MemoryFileSystem::new();
    let with = || manual(&fs).merge_operator(Arc::new(Longest));
    let store = Lsm::open(DIRECTORY, with()).unwrap();
    let options = small_keyspace().merge("test.longest");
    let ks = store.create_keyspace("k", &options).unwrap();
    let merge = |operand: &[u8]| {
        let mut batch = WriteBatch::new();
        batch.merge(ks, b"key", operand);
        store.write(&batch, &WriteOptions::default()).unwrap();
    };
    merge(b"long");
    store.flush(None).unwrap();
    merge(b"longest");
    merge(b"mid");
    store.close().unwrap();
    let before = image(&fs, DIRECTORY);
    for read_only in [false, true] {
        let refused = if read_only {
            Lsm::open_read_only(DIRECTORY, &manual(&fs))
        } else {
            Lsm::open(DIRECTORY, manual(&fs))
        };
        let error = assert_error!(refused, Error::MissingMergeOperator { .. }, Input);
        let text = error.to_string();
        assert!(
            text.contains("test.longest") && text.contains("\"k\""),
            "{text}"
        );
        assert_eq!(image(&fs, DIRECTORY), before);
    }
    let store = Lsm::open(DIRECTORY, with()).unwrap();
    assert_eq!(
        store.get(ks, b"key").unwrap().as_deref(),
        Some(&b"longest"[..])
    );
}
