//! What the engine tells of itself: every event at its time, counts that are exact, latencies and level shapes
//! that can be.

mod support;

use std::ops::ControlFlow;
use std::time::Duration;

use support::{
    DIRECTORY, Events, assert_contents, expected, key, keyspace_stats, manual, put_all,
    roomy_keyspace, small_keyspace, value,
};
use vault_core::stats::{EngineStats, OperationStats};
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Engine, Event, KeyRange, Reader, WriteBatch, WriteOptions};
use vault_lsm::{Lsm, LsmOptions, Settings};

fn operation<'a>(stats: &'a EngineStats, name: &str) -> &'a OperationStats {
    let found = stats
        .operations
        .iter()
        .find(|operation| operation.name == name);
    found.unwrap_or_else(|| panic!("{name} is counted"))
}

#[test]
fn events_come_in_the_order_of_what_happens() {
    let fs = MemoryFileSystem::new();
    let events = Events::default();
    let store = Lsm::open(DIRECTORY, manual(&fs).listener(events.listener())).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    put_all(&store, ks, 0..300, 1);
    store.flush(None).unwrap();
    put_all(&store, ks, 0..300, 2);
    store.flush(None).unwrap();
    let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
    let compacted = compacted.unwrap();
    store.ingest(ks, [(key(900), value(900, 1))]).unwrap();
    store.checkpoint("/copy").unwrap();
    store.drop_keyspace(ks).unwrap();
    let all = events.all();
    let seen: Vec<&str> = all.iter().map(name_of).collect();
    assert_eq!(
        seen,
        [
            "recovered",
            "created",
            "flushed",
            "flushed",
            "compacted",
            "ingested",
            "checkpointed",
            "dropped"
        ]
    );
    for event in &all {
        match event {
            Event::Recovered {
                log_segments,
                batches,
                torn_bytes,
                ..
            } => {
                assert_eq!((*log_segments, *batches, *torn_bytes), (0, 0, 0));
            }
            Event::KeyspaceCreated { id, name } => assert_eq!((*id, &name[..]), (ks, "k")),
            Event::Flushed {
                keyspace,
                entries,
                bytes,
                ..
            } => {
                assert_eq!((*keyspace, *entries), (ks, 300));
                assert!(*bytes > 30_000);
            }
            Event::Compacted {
                keyspace,
                tables_read,
                bytes_read,
                bytes_written,
                reason,
                ..
            } => {
                assert_eq!((*keyspace, *tables_read), (ks, 2));
                assert_eq!(*bytes_read, compacted.bytes_read);
                assert_eq!(*bytes_written, compacted.bytes_written);
                assert!(!reason.is_empty());
            }
            Event::Ingested {
                keyspace, entries, ..
            } => assert_eq!((*keyspace, *entries), (ks, 1)),
            Event::KeyspaceDropped { id, name, bytes } => {
                assert_eq!((*id, &name[..]), (ks, "k"));
                assert!(*bytes > 30_000);
            }
            _ => {}
        }
    }
}

fn name_of(event: &Event) -> &'static str {
    match event {
        Event::Recovered { .. } => "recovered",
        Event::KeyspaceCreated { .. } => "created",
        Event::KeyspaceDropped { .. } => "dropped",
        Event::Flushed { .. } => "flushed",
        Event::Compacted { .. } => "compacted",
        Event::Ingested { .. } => "ingested",
        Event::Checkpointed { .. } => "checkpointed",
        other => panic!("nothing of the kind happened: {other:?}"),
    }
}

/// Opening again tells what was found in the log.
#[test]
fn recovery_tells_what_it_found() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    put_all(&store, ks, 0..1_000, 1);
    for (after, segments) in [(fs.kill(), 2..), (fs.clone(), 2..)] {
        let events = Events::default();
        if after.list() == fs.list() {
            store.close().unwrap();
        }
        let again = Lsm::open(DIRECTORY, manual(&after).listener(events.listener())).unwrap();
        let Some(Event::Recovered {
            log_segments,
            batches,
            torn_bytes,
            ..
        }) = events.all().into_iter().next()
        else {
            panic!("recovery comes first");
        };
        assert!(segments.contains(&log_segments), "{log_segments}");
        assert_eq!((batches, torn_bytes), (1_000, 0));
        assert_contents(&again, ks, &expected(0..1_000, 1));
    }
}

#[test]
fn operations_are_counted_exactly() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    let options = WriteOptions::default();
    put_all(&store, ks, 0..100, 1);
    let mut batch = WriteBatch::new();
    batch.put(ks, b"a", b"1").put(ks, b"b", b"2");
    store.write(&batch, &options).unwrap();
    store.try_write(&batch, &options).unwrap();
    store.delete(ks, b"a", &options).unwrap();
    for number in 0..50 {
        store.get(ks, &key(number)).unwrap();
    }
    store.multi_get(ks, &[b"a", b"b", b"c"]).unwrap();
    store
        .compare_and_set(ks, b"b", Some(b"2"), Some(b"3"), &options)
        .unwrap();
    for _ in 0..7 {
        store.scan(ks, KeyRange::all()).unwrap();
    }
    store.sync().unwrap();
    store.flush(None).unwrap();
    let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
    compacted.unwrap();
    let stats = store.stats().unwrap();
    for (name, count) in [
        ("write", 103),
        ("get", 50),
        ("multi_get", 1),
        ("compare_and_set", 1),
        ("cursor", 7),
        ("sync", 1),
        ("flush", 1),
    ] {
        let operation = operation(&stats, name);
        assert_eq!(operation.count, count, "{name}");
        let latency = operation.latency;
        assert_eq!(latency.count, count, "{name}: each one is timed");
        assert!(
            latency.p50 <= latency.p90 && latency.p90 <= latency.p99,
            "{name}"
        );
        assert!(
            latency.p99 <= latency.p999 && latency.p999 <= latency.max,
            "{name}"
        );
        assert!(latency.mean <= latency.max, "{name}");
        assert!(
            latency.max > Duration::ZERO && latency.max < Duration::from_secs(30),
            "{name}"
        );
    }
    assert_eq!(stats.latest_sequence, 100 + 2 + 2 + 1 + 1);
    assert_eq!(stats.background.flushes, 1);
    assert!(stats.written.user_bytes > 100 * 112);
    assert!(stats.written.log_bytes > stats.written.user_bytes);
    assert!(stats.written.flush_bytes > 0 && stats.written.manifest_bytes > 0);
    assert!(stats.written.amplification() > 1.0);
}

/// Where only some are timed, all are still counted, whatever the number of threads.
#[test]
fn sampled_latencies_and_exact_counts_on_many_threads() {
    let fs = MemoryFileSystem::new();
    let settings = Settings {
        latency_sample_every: 16,
        ..support::small_settings(support::TWO_THREADS)
    };
    let options = LsmOptions::new(settings).file_system(std::sync::Arc::new(fs));
    let store = Lsm::open(DIRECTORY, options).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                put_all(store, ks, thread * 1_000..thread * 1_000 + 320, 1);
                for number in 0..640 {
                    store.get(ks, &key(number)).unwrap();
                }
            });
        }
    });
    let stats = store.stats().unwrap();
    let (write, get) = (operation(&stats, "write"), operation(&stats, "get"));
    assert_eq!((write.count, get.count), (4 * 320, 4 * 640));
    let timed = write.latency.count + get.latency.count;
    assert_eq!(timed, 4 * 960 / 16, "one in sixteen");
}

#[test]
fn shapes_and_sizes_are_those_of_now() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    put_all(&store, ks, 0..200, 1);
    let counts = keyspace_stats(&store, ks);
    assert_eq!((counts.name.as_str(), counts.memtables_waiting), ("k", 0));
    assert!(counts.memtable_bytes > 200 * 100);
    // What was allocated: with the end of the last chunk and the table of chunks.
    let memory = store.stats().unwrap().memory;
    let slack = counts.memtable_bytes..counts.memtable_bytes + (16 << 10);
    assert!(slack.contains(&memory.memtables), "{memory:?}");
    assert!(memory.peak >= memory.memtables && memory.peak <= memory.budget);
    store.flush(None).unwrap();
    let memory = store.stats().unwrap().memory;
    assert_eq!((memory.memtables, memory.background), (0, 0));
    assert!(memory.table_metadata > 0 && memory.log_mapped > 0);
    store.delete(ks, &key(0), &WriteOptions::default()).unwrap();
    store.flush(None).unwrap();
    let counts = keyspace_stats(&store, ks);
    assert_eq!(counts.memtable_bytes, 0);
    let top = &counts.levels[0];
    assert_eq!(
        (top.runs, top.tables, top.entries, top.tombstones),
        (2, 2, 201, 1)
    );
    let files = support::files_in_memory(&fs, DIRECTORY, ".tab");
    assert_eq!(top.bytes, files.iter().map(|(_, bytes)| bytes).sum::<u64>());
    // The cache: a second look finds what the first one read.
    store.get(ks, &key(100)).unwrap();
    let first = store.stats().unwrap().cache;
    store.get(ks, &key(100)).unwrap();
    let second = store.stats().unwrap().cache;
    assert!(first.misses > 0 && second.hits > first.hits && second.misses == first.misses);
    assert!(second.bytes > 0 && second.bytes <= second.capacity_bytes);
    // Snapshots and cursors that are open.
    let snapshot = store.snapshot().unwrap();
    let cursor = store.cursor(ks, KeyRange::all()).unwrap();
    assert_eq!(store.stats().unwrap().snapshots_open, 2);
    assert!(store.stats().unwrap().memory.cursors > 0);
    drop((snapshot, cursor));
    assert_eq!(store.stats().unwrap().snapshots_open, 0);
    assert_eq!(store.stats().unwrap().memory.cursors, 0);
    let segments = support::files_in_memory(&fs, DIRECTORY, ".log");
    let log = store.stats().unwrap().log;
    assert_eq!(log.segments, segments.len() as u64);
    assert_eq!(
        log.bytes,
        segments.iter().map(|(_, bytes)| bytes).sum::<u64>()
    );
}
