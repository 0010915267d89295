//! Bulk ingest: what it replaces, who sees it when, what it refuses, and that it survives.

mod support;

use std::ops::ControlFlow;

use support::modes::encrypted;
use support::{
    DIRECTORY, Events, assert_contents, assert_error, contents, expected, files_in_memory, key,
    keyspace_stats, manual, put_all, roomy_keyspace, small_keyspace, threaded, value,
};
use vault_core::vfs::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
use vault_core::{
    Engine, Error, Event, KeyRange, KeyspaceId, Limits, Reader, WriteBatch, WriteOptions,
};
use vault_lsm::{IngestOutcome, Lsm};

fn ingest(
    store: &Lsm,
    ks: KeyspaceId,
    numbers: std::ops::Range<u64>,
    version: u64,
) -> IngestOutcome {
    let pairs = numbers.map(|number| (key(number), value(number, version)));
    store
        .ingest(ks, pairs)
        .expect("sorted pairs within the limits")
}

#[test]
fn ingested_data_replaces_what_was_there() {
    let fs = MemoryFileSystem::new();
    let events = Events::default();
    let store = Lsm::open(DIRECTORY, manual(&fs).listener(events.listener())).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let other = store.create_keyspace("other", &roomy_keyspace()).unwrap();
    put_all(&store, ks, 0..1_000, 1);
    put_all(&store, other, 0..10, 1);
    let deleted = store
        .delete(ks, &key(600), &WriteOptions::default())
        .unwrap();
    let snapshot = store.snapshot().unwrap();

    let outcome = ingest(&store, ks, 500..2_000, 2);
    assert_eq!(outcome.entries, 1_500);
    assert!(outcome.tables > 1 && outcome.bytes > 150_000, "{outcome:?}");
    assert_eq!(outcome.sequence, deleted + 1);
    assert_eq!(store.latest_sequence(), outcome.sequence);
    let mut all = expected(0..500, 1);
    all.extend(expected(500..2_000, 2));
    assert_contents(&store, ks, &all);
    // The moment from before is as it was.
    let mut before = expected(0..1_000, 1);
    before.remove(&key(600));
    assert_contents(&*snapshot, ks, &before);
    assert_contents(&store, other, &expected(0..10, 1));

    // Writes go on above it.
    put_all(&store, ks, 1_900..2_100, 3);
    store
        .delete(ks, &key(501), &WriteOptions::default())
        .unwrap();
    all.extend(expected(1_900..2_100, 3));
    all.remove(&key(501));
    assert_contents(&store, ks, &all);
    for round in 0..2 {
        if round == 1 {
            store.settle().unwrap();
            let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
            compacted.unwrap();
        }
        assert_contents(&store, ks, &all);
        assert_contents(&*snapshot, ks, &before);
    }
    assert_eq!(
        events.count(|e| matches!(e, Event::Ingested { entries: 1_500, .. })),
        1
    );
    assert_eq!(store.stats().unwrap().written.ingest_bytes, outcome.bytes);
    drop(snapshot);
    store.close().unwrap();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    assert_contents(&store, ks, &all);
    assert!(store.latest_sequence() > outcome.sequence);
}

/// When ingest returns, a loss of power takes nothing of it, and nothing of what was written before it.
#[test]
fn an_ingest_is_durable_when_it_returns() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let other = store.create_keyspace("other", &roomy_keyspace()).unwrap();
    put_all(&store, other, 0..50, 1);
    put_all(&store, ks, 0..50, 1);
    ingest(&store, ks, 25..300, 2);
    let after = fs.crash(7, CrashPolicy::DropUnsynced);
    let store = Lsm::open(DIRECTORY, manual(&after)).unwrap();
    let mut all = expected(0..25, 1);
    all.extend(expected(25..300, 2));
    assert_contents(&store, ks, &all);
    assert_contents(&store, other, &expected(0..50, 1));
}

#[test]
fn bad_input_is_refused_whole() {
    let fs = MemoryFileSystem::new();
    let limits = Limits {
        key_bytes_max: 100,
        value_bytes_max: 1_000,
        ..Limits::default()
    };
    let store = Lsm::open(DIRECTORY, manual(&fs).limits(limits)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..100, 1);
    store.settle().unwrap();
    let tables = files_in_memory(&fs, DIRECTORY, ".tab");
    let latest = store.latest_sequence();
    // Enough that several tables are complete before the fault.
    let good = || (0..2_000).map(|n| (key(n), value(n, 2)));
    let check = |what: &str| {
        assert_eq!(files_in_memory(&fs, DIRECTORY, ".tab"), tables, "{what}");
        assert_eq!(store.latest_sequence(), latest, "{what}");
        assert_contents(&store, ks, &expected(0..100, 1));
    };

    let unsorted = store.ingest(ks, good().chain([(key(5), vec![])]));
    let error = assert_error!(unsorted, Error::UnsortedInput { .. }, Input);
    let Error::UnsortedInput {
        index,
        key: named,
        previous,
    } = error
    else {
        unreachable!("it was just checked")
    };
    assert_eq!(index, 2_000);
    if encrypted() {
        assert!(named.contains("withheld") && previous.contains("withheld"));
    } else {
        assert!(named.contains("00000005") && previous.contains("00001999"));
    }
    check("unsorted");

    let twice = store.ingest(ks, good().chain([(key(1_999), vec![])]));
    assert_error!(twice, Error::UnsortedInput { .. }, Input);
    check("a key twice");

    let long_key = store.ingest(ks, good().chain([(vec![b'x'; 101], vec![])]));
    assert_error!(long_key, Error::KeyTooLong { len: 101, max: 100 }, Input);
    check("a long key");

    let long_value = store.ingest(ks, good().chain([(key(2_000), vec![0; 1_001])]));
    assert_error!(long_value, Error::ValueTooLong { .. }, Input);
    check("a long value");

    let nowhere = store.ingest(KeyspaceId(99), good());
    assert_error!(nowhere, Error::UnknownKeyspace { id: 99 }, Input);
    check("an unknown keyspace");

    let empty = store
        .ingest(ks, std::iter::empty::<(Vec<u8>, Vec<u8>)>())
        .unwrap();
    assert_eq!((empty.entries, empty.tables, empty.bytes), (0, 0, 0));
    assert_eq!(empty.sequence, latest);
    check("nothing");
}

/// A keyspace that is dropped while its data comes in: refused, with no files left.
#[test]
fn a_keyspace_dropped_meanwhile() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let pairs = (0..2_000).map(|n| {
        if n == 1_500 {
            store.drop_keyspace(ks).unwrap();
        }
        (key(n), value(n, 1))
    });
    assert_error!(
        store.ingest(ks, pairs),
        Error::UnknownKeyspace { .. },
        Input
    );
    assert!(files_in_memory(&fs, DIRECTORY, ".tab").is_empty());
}

/// The disk runs full in the middle: nothing was taken in, no file is left, and it works later.
#[test]
fn a_full_disk_during_an_ingest() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..100, 1);
    store.settle().unwrap();
    let tables = files_in_memory(&fs, DIRECTORY, ".tab");
    let full = FaultKind::Error(std::io::ErrorKind::StorageFull);
    for (class, after, path) in [
        (OperationClass::Create, 2, ".tab"),
        (OperationClass::Write, 3, ".tab"),
        (OperationClass::Write, 0, ".man"),
    ] {
        fs.inject(Fault::new(class, full).after(after).on_path(path).sticky());
        let pairs = || (0..2_000).map(|n| (key(n), value(n, 2)));
        assert_error!(store.ingest(ks, pairs()), Error::DiskFull { .. }, Full);
        fs.clear_faults();
        assert_eq!(
            files_in_memory(&fs, DIRECTORY, ".tab"),
            tables,
            "{class:?} {path}"
        );
        assert_contents(&store, ks, &expected(0..100, 1));
    }
    ingest(&store, ks, 0..2_000, 2);
    assert_contents(&store, ks, &expected(0..2_000, 2));
    store.close().unwrap();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    assert_contents(&store, ks, &expected(0..2_000, 2));
}

/// Ingests and writers side by side: each ingest is seen whole or not at all, and nothing is lost.
#[test]
fn ingests_beside_writers() {
    const ROUNDS: u64 = 12;
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, threaded(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| put_all(&store, ks, 10_000..14_000, 1));
        let reader = scope.spawn(|| {
            let mut highest = 0;
            while highest < ROUNDS {
                let scan = store.scan(ks, KeyRange::new(key(0)..key(10_000))).unwrap();
                let versions: Vec<_> = scan.map(|e| e.unwrap().1).collect();
                let Some(first) = versions.first() else {
                    continue;
                };
                assert_eq!(versions.len(), 300, "an ingest is seen whole");
                let version = (1..=ROUNDS).find(|&v| value(0, v) == **first).unwrap();
                let all = (0..300).zip(&versions);
                let torn = all
                    .filter(|(n, found)| value(*n, version) != ***found)
                    .count();
                assert_eq!(torn, 0, "all of one ingest");
                assert!(version >= highest, "time goes on");
                highest = version;
            }
        });
        for version in 1..=ROUNDS {
            ingest(&store, ks, 0..300, version);
        }
        writer.join().unwrap();
        reader.join().unwrap();
    });
    let mut all = expected(0..300, ROUNDS);
    all.extend(expected(10_000..14_000, 1));
    assert_contents(&store, ks, &all);
    store.settle().unwrap();
    assert_contents(&store, ks, &all);
    store.close().unwrap();
    let store = Lsm::open(DIRECTORY, threaded(&fs)).unwrap();
    assert_contents(&store, ks, &all);
    assert!(
        keyspace_stats(&store, ks)
            .levels
            .iter()
            .any(|l| l.tables > 0)
    );
}

/// A range delete from before an ingest doesn't reach it; one from after does.
#[test]
fn range_deletes_and_ingests_keep_their_order() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let delete = |from, to| {
        let mut batch = WriteBatch::new();
        batch.delete_range(ks, &key(from), &key(to));
        store.write(&batch, &WriteOptions::default()).unwrap();
    };
    put_all(&store, ks, 0..100, 1);
    delete(0, 50);
    ingest(&store, ks, 25..75, 2);
    delete(60, 70);
    let mut all = expected(25..60, 2);
    all.extend(expected(70..75, 2));
    all.extend(expected(75..100, 1));
    assert_contents(&store, ks, &all);
    store.settle().unwrap();
    assert_contents(&store, ks, &all);
    let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
    compacted.unwrap();
    assert_contents(&store, ks, &all);
    assert_eq!(contents(&store, ks).len(), all.len());
}
