//! What becomes of a store whose large values are damaged or gone: reads say so, `verify` names the blob file, `repair` keeps
//! every other value, and `salvage` takes what is left into a new store.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;
use std::path::PathBuf;

use support::{
    DIRECTORY, assert_contents, contents, expected, files_in_memory, key, manual, put_all,
    small_keyspace, value,
};
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{Engine, Error, KeyspaceId, KeyspaceOptions, Reader, WriteBatch, WriteOptions};
use vault_lsm::Lsm;
use vault_lsm::check::{
    FindingKind, RepairPermission, RepairVerdict, SalvageOptions, VerifyOptions, VerifyProgress,
    VerifyReport, repair, salvage, verify,
};

fn go_on(_: &VerifyProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A closed store of two hundred values in two blob files: the first hundred keys in one, the others in the other.
fn built() -> (MemoryFileSystem, KeyspaceId, Vec<PathBuf>) {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let options = small_keyspace().large_values_from(Some(64));
    let ks = store.create_keyspace("k", &options).unwrap();
    for numbers in [0..100, 100..200] {
        put_all(&store, ks, numbers, 1);
        store.flush(None).unwrap();
    }
    store.close().unwrap();
    let blobs = files_in_memory(&fs, DIRECTORY, ".blob");
    let blobs: Vec<PathBuf> = blobs.into_iter().map(|(path, _)| path).collect();
    assert_eq!(blobs.len(), 2);
    (fs, ks, blobs)
}

fn flip(fs: &MemoryFileSystem, path: &PathBuf, at: usize) {
    let mut bytes = fs.read_file(path).unwrap();
    bytes[at] ^= 1;
    fs.write_file(path, &bytes).unwrap();
}

fn verified(fs: &MemoryFileSystem) -> VerifyReport {
    verify(
        DIRECTORY,
        &manual(fs),
        &VerifyOptions::default(),
        &mut go_on,
    )
    .unwrap()
}

#[test]
fn a_damaged_value_costs_itself_and_nothing_else() {
    let (fs, ks, blobs) = built();
    flip(&fs, &blobs[0], 200);
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let read = store.get(ks, &key(0));
    let Err(Error::Corruption { path, offset, .. }) = read else {
        panic!("{read:?}");
    };
    assert_eq!((path, offset), (blobs[0].clone(), 128));
    assert!(store.get(ks, &key(1)).unwrap().is_some());
    let mut cursor = store.cursor(ks, vault_core::KeyRange::all()).unwrap();
    assert!(matches!(cursor.first(), Err(Error::Corruption { .. })));
    assert!(cursor.entry().is_none());
    cursor.seek(&key(1)).unwrap();
    assert_eq!(cursor.entry().unwrap().0, key(1));
    drop(cursor);
    store.close().unwrap();

    let report = verified(&fs);
    let name = blobs[0].file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(report.damaged_files(), [&*name], "{:#?}", report.findings);
    let kinds: Vec<_> = report.findings.iter().map(|f| f.kind).collect();
    assert!(
        kinds.iter().all(|kind| *kind == FindingKind::Value),
        "{kinds:?}"
    );

    let refused = repair(
        DIRECTORY,
        &manual(&fs),
        RepairPermission::LoseNothing,
        &mut go_on,
    );
    assert!(!refused.unwrap().done, "it would lose a value");
    let report = repair(
        DIRECTORY,
        &manual(&fs),
        RepairPermission::AcceptLoss,
        &mut go_on,
    )
    .unwrap();
    assert!(report.done, "{}", report.plan);
    assert_eq!(report.plan.losses.len(), 1, "{}", report.plan);
    assert!(report.plan.losses[0].keys.contains(&key(0)));
    assert!(!report.plan.losses[0].keys.contains(&key(1)));
    assert!(report.plan.set_aside.contains(&name));
    assert!(verified(&fs).is_clean());
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    assert_contents(&store, ks, &expected(1..200, 1));
    assert_eq!(
        files_in_memory(&fs, DIRECTORY, ".blob").len(),
        2,
        "one of them in `lost`"
    );
}

/// Garbage around a damaged value cannot be collected, because the value cannot be copied. That was met again with every merge: level 0 grew
/// until writers stood still. Now it is met once, and all else is merged and collected.
#[test]
fn a_damaged_value_does_not_keep_others_from_being_collected() {
    let (fs, ks, blobs) = built();
    flip(&fs, &blobs[0], 200);
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let settle = || {
        let settled: Vec<_> = (0..3).map(|_| store.settle()).collect();
        assert!(settled[2].is_ok(), "{settled:?}");
        settled
    };
    // Half of all is garbage, most of it around the value of key 0.
    put_all(&store, ks, (1..100).chain(150..200), 2);
    let met = settle().into_iter().filter(Result::is_err).count();
    assert!(met <= 1, "the damage was met {met} times");
    let mut left = expected(100..150, 1);
    left.extend(expected((1..100).chain(150..200), 2));
    for (key, value) in &left {
        assert_eq!(store.get(ks, key).unwrap().as_deref(), Some(&value[..]));
    }
    assert!(matches!(
        store.get(ks, &key(0)),
        Err(Error::Corruption { .. })
    ));
    // It goes on: what comes later is merged, and the other file is collected.
    for version in 3..6 {
        put_all(&store, ks, 100..200, version);
        settle();
    }
    assert!(fs.read_file(&blobs[0]).is_ok(), "key 0 still points to it");
    assert!(fs.read_file(&blobs[1]).is_err(), "nothing does to this one");
    // Once the damaged value is overwritten, its file goes too.
    put_all(&store, ks, 0..1, 6);
    let all = vault_core::KeyRange::all();
    let go_on = &mut |_| ControlFlow::Continue(());
    store.compact(ks, all, go_on).unwrap();
    settle();
    assert!(fs.read_file(&blobs[0]).is_err());
    store.close().unwrap();
}

/// What operands are merged over is read for that. Where it was damaged, every compaction that met the two failed, and the same one was
/// chosen again: level 0 grew until writers stood still. Now they stay as they are, and whoever reads the key is told.
#[test]
fn a_damaged_value_under_operands_stops_no_compaction() {
    let fs = MemoryFileSystem::new();
    let options = small_keyspace().large_values_from(Some(64));
    let options = options.merge(vault_core::merge::APPEND);
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &options).unwrap();
    put_all(&store, ks, 0..100, 1);
    store.flush(None).unwrap();
    store.close().unwrap();
    let blobs = files_in_memory(&fs, DIRECTORY, ".blob");
    assert_eq!(blobs.len(), 1);
    flip(&fs, &blobs[0].0, 200);

    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let append = |number| {
        let mut batch = WriteBatch::new();
        batch.merge(ks, &key(number), b"more");
        store.write(&batch, &WriteOptions::OS).unwrap();
    };
    append(0);
    append(1);
    // Nothing of the damaged file becomes garbage: what is met is met for the sake of the operand.
    for version in 1..20 {
        put_all(&store, ks, 100..200, version);
        store.flush(None).unwrap();
        store.settle().unwrap();
    }
    let all = vault_core::KeyRange::all();
    let go_on = &mut |_| ControlFlow::Continue(());
    store.compact(ks, all, go_on).unwrap();
    let mut left = expected(2..100, 1);
    left.extend(expected(100..200, 19));
    left.insert(key(1), [&value(1, 1)[..], b"more"].concat());
    for (key, value) in &left {
        assert_eq!(store.get(ks, key).unwrap().as_deref(), Some(&value[..]));
    }
    let read = store.get(ks, &key(0));
    assert!(matches!(read, Err(Error::Corruption { .. })), "{read:?}");
    // Once it is overwritten, all is well.
    put_all(&store, ks, 0..1, 2);
    append(0);
    store.settle().unwrap();
    left.insert(key(0), [&value(0, 2)[..], b"more"].concat());
    assert_contents(&store, ks, &left);
}

/// A table that points to values in a file full of garbage is rewritten for it. Where the table was damaged, that failed, and the same one
/// was chosen again: nothing of the keyspace was collected any more. Now it is met once, and what it does not point to is collected.
#[test]
fn a_damaged_table_does_not_keep_the_values_of_others_from_being_collected() {
    let fs = MemoryFileSystem::new();
    let options = KeyspaceOptions {
        write_buffer_bytes: 1 << 20,
        table_bytes: 1 << 20,
        ..small_keyspace().large_values_from(Some(64))
    };
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &options).unwrap();
    // Two tables beside each other, each with a file of its own, the first one's with the greater share of garbage.
    for (all, deleted) in [(0..300, 30..300), (1000..1900, 1300..1900)] {
        let range = || vault_core::KeyRange::new(key(all.start)..key(all.end));
        let compact = || {
            let go_on = &mut |_| ControlFlow::Continue(());
            store.flush(None).unwrap();
            store.compact(ks, range(), go_on).unwrap();
        };
        put_all(&store, ks, all.clone(), 1);
        compact();
        for number in deleted {
            let gone = store.delete(ks, &key(number), &WriteOptions::OS);
            gone.unwrap();
        }
        compact();
    }
    store.close().unwrap();
    let paths = |ending| {
        let files = files_in_memory(&fs, DIRECTORY, ending).into_iter();
        files.map(|(path, _)| path).collect::<Vec<_>>()
    };
    let (tables, blobs) = (paths(".tab"), paths(".blob"));
    assert_eq!((tables.len(), blobs.len()), (2, 2));
    flip(&fs, &tables[0], 200);

    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let damaged = store.get(ks, &key(0));
    assert!(
        matches!(&damaged, Err(Error::Corruption { path, .. }) if *path == tables[0]),
        "{damaged:?}"
    );
    let settled: Vec<_> = (0..4).map(|_| store.settle()).collect();
    let met = settled.iter().filter(|settled| settled.is_err()).count();
    assert!(met == 1 && settled[0].is_err(), "{settled:?}");
    assert!(
        fs.read_file(&blobs[0]).is_ok(),
        "the damaged table points to it"
    );
    assert!(fs.read_file(&blobs[1]).is_err(), "it was collected");
    for (key, value) in expected(1000..1300, 1) {
        assert_eq!(store.get(ks, &key).unwrap().as_deref(), Some(&value[..]));
    }
}

/// The end of a file is for those who have no manifest: without it no value is lost, and a repair loses none.
#[test]
fn damage_that_hits_no_value_is_repaired_without_loss() {
    let (fs, ks, blobs) = built();
    let bytes = fs.read_file(&blobs[1]).unwrap().len();
    flip(&fs, &blobs[1], bytes - 1);
    assert!(!verified(&fs).is_clean());
    let report = repair(
        DIRECTORY,
        &manual(&fs),
        RepairPermission::LoseNothing,
        &mut go_on,
    )
    .unwrap();
    assert!(report.done, "{}", report.plan);
    assert!(report.plan.losses.is_empty(), "{}", report.plan);
    assert!(verified(&fs).is_clean());
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    assert_contents(&store, ks, &expected(0..200, 1));
}

#[test]
fn a_missing_file_is_refused_and_costs_its_values() {
    let (fs, ks, blobs) = built();
    fs.remove(&blobs[0]).unwrap();
    let opened = Lsm::open(DIRECTORY, manual(&fs));
    let Err(Error::Corruption { path, problem, .. }) = opened else {
        panic!("it was opened");
    };
    assert!(path == blobs[0] && problem.contains("missing"), "{problem}");
    let kinds: Vec<_> = verified(&fs).findings.iter().map(|f| f.kind).collect();
    assert!(kinds.contains(&FindingKind::Missing), "{kinds:?}");
    let report = repair(
        DIRECTORY,
        &manual(&fs),
        RepairPermission::AcceptLoss,
        &mut go_on,
    )
    .unwrap();
    assert!(report.done, "{}", report.plan);
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    assert_contents(&store, ks, &expected(100..200, 1));
    store.close().unwrap();
    assert!(verified(&fs).is_clean());
}

#[test]
fn salvage_takes_the_values_along_without_a_manifest() {
    let (fs, ks, blobs) = built();
    for (path, _) in files_in_memory(&fs, DIRECTORY, ".man") {
        fs.remove(&path).unwrap();
    }
    flip(&fs, &blobs[1], 200);
    let plan = repair(DIRECTORY, &manual(&fs), RepairPermission::Plan, &mut go_on).unwrap();
    let verdict = plan.plan.verdict;
    assert!(
        matches!(verdict, RepairVerdict::NeedsSalvage { .. }),
        "{verdict:?}"
    );
    let options = SalvageOptions::default();
    let report = salvage(DIRECTORY, "/new", &manual(&fs), &options, &mut go_on).unwrap();
    assert!(!report.complete);
    let store = Lsm::open("/new", manual(&fs)).unwrap();
    let mut found = contents(&store, ks);
    // The log may still have what the damaged file has lost.
    if let Some(value) = found.insert(key(100), value(100, 1)) {
        assert_eq!(value, support::value(100, 1), "never a wrong one");
    }
    assert!(found == expected(0..200, 1));
}
