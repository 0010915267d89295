//! What could make a store use more memory than it may, one story each.

use std::path::Path;

use vault_core::{
    Compression, Cursor, Engine, Error, KeyRange, KeyspaceId, KeyspaceOptions, Reader, WriteBatch,
    WriteOptions,
};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

use super::load::MIB;

/// Runs the story with that name; gives the engine's own peak.
pub(crate) fn run(name: &str, directory: &Path, budget: u64) -> u64 {
    let store = open(directory, budget);
    match name {
        "many_keyspaces" => many_keyspaces(&store),
        "huge_batches" => huge_batches(&store),
        "large_values" => large_values(&store, budget),
        "open_cursors" => open_cursors(&store),
        "many_tables" => many_tables(&store),
        "hot_keys" => hot_keys(&store),
        "held_memtables" => held_memtables(&store),
        "large_log" => return large_log(&store, directory, budget),
        "ingests" => ingests(&store),
        other => panic!("there is no story {other}"),
    }
    let peak = store.stats().unwrap().memory.peak;
    store.close().unwrap();
    peak
}

fn open(directory: &Path, budget: u64) -> Lsm {
    Lsm::open(directory, options(budget)).unwrap()
}

fn options(budget: u64) -> LsmOptions {
    LsmOptions::new(Settings {
        memory_bytes: budget,
        background: BackgroundWork::Threads { compaction: 2 },
        ..Settings::default()
    })
}

fn keyspace(store: &Lsm, name: &str, change: impl FnOnce(&mut KeyspaceOptions)) -> KeyspaceId {
    let mut options = KeyspaceOptions::default();
    change(&mut options);
    store.create_keyspace(name, &options).unwrap()
}

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// A value that does not compress and tells whose it is.
fn value(number: u64, len: usize) -> Vec<u8> {
    let mut x = number | 1 << 63;
    let mut bytes = number.to_le_bytes().to_vec();
    while bytes.len() < len {
        x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).rotate_left(29) ^ number;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Each keyspace has a memtable; together they have one share.
fn many_keyspaces(store: &Lsm) {
    const KEYSPACES: u64 = 200;
    const ROUNDS: u64 = 600;
    let create = |n: u64| keyspace(store, &format!("k{n}"), |_| ());
    let keyspaces: Vec<_> = (0..KEYSPACES).map(create).collect();
    for round in 0..ROUNDS {
        for &keyspace in &keyspaces {
            let value = value(round, 1000);
            let put = store.put(keyspace, &key(round), &value, &WriteOptions::OS);
            put.unwrap();
        }
    }
    for &keyspace in &keyspaces {
        for round in (0..ROUNDS).step_by(97) {
            let found = store.get(keyspace, &key(round)).unwrap();
            assert_eq!(found.as_deref(), Some(&value(round, 1000)[..]));
        }
    }
    assert!(store.stats().unwrap().background.flushes > KEYSPACES / 2);
}

/// A batch that is larger than the budget allows is refused with what would be allowed; some that are just
/// that large, from several threads at once, are written.
fn huge_batches(store: &Lsm) {
    let ks = keyspace(store, "k", |_| ());
    let mut batch = WriteBatch::new();
    let mut number = 0;
    let refused = loop {
        number += 1;
        batch.put(ks, &key(number), &value(number, 60_000));
        if batch.encoded().len() as u64 > store.stats().unwrap().memory.budget / 4 {
            break store.write(&batch, &WriteOptions::OS);
        }
    };
    let Err(Error::BatchTooLarge { max, .. }) = refused else {
        panic!("{refused:?}")
    };
    drop(batch);
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            scope.spawn(move || {
                // What the batch itself takes is the caller's, and counted here all the same.
                let mut batch = WriteBatch::with_capacity(max);
                let mut number = thread << 32;
                while batch.encoded().len() + 60_100 < max {
                    number += 1;
                    batch.put(ks, &key(number), &value(number, 60_000));
                }
                for _ in 0..8 {
                    store.write(&batch, &WriteOptions::OS).unwrap();
                }
                let found = store.get(ks, &key(number)).unwrap();
                assert_eq!(found.as_deref(), Some(&value(number, 60_000)[..]));
            });
        }
    });
}

/// Values as large as they may be: a block each, of which a compaction or a cursor has many at once.
fn large_values(store: &Lsm, budget: u64) {
    const VALUES: u64 = 150;
    let refused = |len: u64| {
        let ks = store.keyspace("raw").unwrap().unwrap();
        let put = store.put(ks, b"k", &vec![1; len as usize], &WriteOptions::OS);
        put.is_err_and(|error| matches!(error, Error::ValueTooLong { .. }))
    };
    let raw = keyspace(store, "raw", |o| o.compression = Compression::None);
    let packed = keyspace(store, "packed", |o| o.compression = Compression::Lz4);
    let len = budget / 33;
    assert!(refused(budget / 20) && !refused(len));
    let value_of = |number: u64| {
        let mut value = value(number, len as usize / 2);
        value.resize(len as usize, 3);
        value
    };
    for round in 0..2 {
        for number in 0..VALUES {
            let number = number * 7 % VALUES;
            if round == 1 && number.is_multiple_of(3) {
                continue;
            }
            for ks in [raw, packed] {
                let value = value_of(number + round * 1000);
                store
                    .put(ks, &key(number), &value, &WriteOptions::OS)
                    .unwrap();
            }
        }
    }
    let is_right = |number: u64, value: &[u8]| {
        let round = u64::from(!number.is_multiple_of(3));
        value == value_of(number + round * 1000)
    };
    // Several at once, each of which holds the value it stands on.
    for ks in [raw, packed] {
        let mut cursors: Vec<_> = (0..4)
            .map(|_| store.cursor(ks, KeyRange::all()).unwrap())
            .collect();
        cursors
            .iter_mut()
            .for_each(|cursor| cursor.first().unwrap());
        for number in 0..VALUES {
            for cursor in &mut cursors {
                let (found, value) = cursor.entry().unwrap();
                assert!(found == key(number) && is_right(number, value), "{number}");
                cursor.next().unwrap();
            }
        }
    }
    for ks in [raw, packed] {
        let mut on = |_| std::ops::ControlFlow::Continue(());
        store.compact(ks, KeyRange::all(), &mut on).unwrap();
        for number in 0..VALUES {
            let found = store.get(ks, &key(number)).unwrap();
            assert!(is_right(number, &found.unwrap()), "{number}");
        }
    }
}

/// A thousand cursors stay open, over many runs, and all go on in both directions.
fn open_cursors(store: &Lsm) {
    const KEYS: u64 = 40_000;
    const CURSORS: u64 = 1000;
    let ks = keyspace(store, "k", |o| o.write_buffer_bytes = 1 << 20);
    for round in 0..2 {
        for number in 0..KEYS {
            let number = number * 7919 % KEYS;
            let value = value(number + round, 500);
            store
                .put(ks, &key(number), &value, &WriteOptions::OS)
                .unwrap();
        }
    }
    let mut cursors: Vec<(u64, Box<dyn Cursor>)> = (0..CURSORS)
        .map(|n| {
            let at = n * (KEYS - 100) / CURSORS + 50;
            let mut cursor = store.cursor(ks, KeyRange::all()).unwrap();
            cursor.seek(&key(at)).unwrap();
            (at, cursor)
        })
        .collect();
    for step in 0..60 {
        for (at, cursor) in &mut cursors {
            let (found, value_found) = cursor.entry().unwrap();
            assert_eq!(found, key(*at));
            assert_eq!(value_found, value(*at + 1, 500));
            if step < 40 {
                cursor.next().unwrap();
                *at += 1;
            } else {
                cursor.prev().unwrap();
                *at -= 1;
            }
        }
    }
}

/// So many tables that their filters and indexes are more than the budget: they are read through the
/// cache, and every read is right.
fn many_tables(store: &Lsm) {
    const KEYS: u64 = 2_000_000;
    let ks = keyspace(store, "k", |o| {
        o.table_bytes = 256 << 10;
        o.block_bytes = 1 << 10;
        o.filter = vault_core::FilterPolicy::Bloom { bits_per_key: 32 };
        o.compression = Compression::None;
    });
    let pairs = (0..KEYS).map(|number| (key(number * 2), value(number, 24)));
    let outcome = store.ingest(ks, pairs).unwrap();
    assert!(outcome.tables > 200, "{outcome:?}");
    let filters = KEYS * 32 / 8;
    let budget = store.stats().unwrap().memory.budget;
    assert!(filters > budget / 3, "more than metadata may take");
    for number in 0..200_000 {
        let number = number * 7_919 % KEYS;
        let found = store.get(ks, &key(number * 2)).unwrap();
        assert_eq!(found.as_deref(), Some(&value(number, 24)[..]));
        assert_eq!(store.get(ks, &key(number * 2 + 1)).unwrap(), None);
    }
    let mut cursor = store.cursor(ks, KeyRange::all()).unwrap();
    cursor.first().unwrap();
    let mut entries = 0;
    while cursor.entry().is_some() {
        entries += 1;
        cursor.next().unwrap();
    }
    assert_eq!(entries, KEYS);
}

/// One key that is overwritten without end, and one that is counted up, under an open snapshot: what a
/// flush or a compaction gathers of one key is bounded.
fn hot_keys(store: &Lsm) {
    const WRITES: u64 = 300_000;
    let plain = keyspace(store, "plain", |_| ());
    let counter = keyspace(store, "counter", |o| {
        o.merge_operator = Some(vault_core::merge::COUNTER.to_owned());
    });
    let list = keyspace(store, "list", |o| {
        o.merge_operator = Some(vault_core::merge::APPEND.to_owned());
    });
    let snapshot = store.snapshot().unwrap();
    let mut batch = WriteBatch::new();
    for write in 0..WRITES {
        batch.put(plain, b"hot", &value(write, 200));
        batch.merge(counter, b"hits", &1_i64.to_le_bytes());
        if write % 300 == 0 {
            batch.merge(list, b"list", &value(write, 1000));
        }
        if batch.len() > 100 {
            store.write(&batch, &WriteOptions::OS).unwrap();
            batch.clear();
        }
    }
    store.write(&batch, &WriteOptions::OS).unwrap();
    for ks in [plain, counter, list] {
        let mut on = |_| std::ops::ControlFlow::Continue(());
        store.compact(ks, KeyRange::all(), &mut on).unwrap();
        assert_eq!(snapshot.get(ks, b"hot").unwrap(), None);
    }
    let last = store.get(plain, b"hot").unwrap();
    assert_eq!(last.as_deref(), Some(&value(WRITES - 1, 200)[..]));
    let hits = store.get(counter, b"hits").unwrap().unwrap();
    assert_eq!(hits[..], (WRITES as i64).to_le_bytes());
    let mut expected = Vec::new();
    for write in (0..WRITES).step_by(300) {
        expected.extend_from_slice(&value(write, 1000));
    }
    assert_eq!(
        store.get(list, b"list").unwrap().as_deref(),
        Some(&expected[..])
    );
}

/// Cursors that stay open keep the memtables that were there when they were opened. Writing goes on with
/// less, and does not wait for the cursors, which may be the writer's own.
fn held_memtables(store: &Lsm) {
    let ks = keyspace(store, "k", |_| ());
    let mut cursors = Vec::new();
    for number in 0..120_000_u64 {
        store
            .put(ks, &key(number), &value(number, 1000), &WriteOptions::OS)
            .unwrap();
        if number % 10_000 == 5_000 {
            let mut cursor = store.cursor(ks, KeyRange::all()).unwrap();
            cursor.seek(&key(number)).unwrap();
            cursors.push((number, cursor));
        }
    }
    for (number, cursor) in &mut cursors {
        assert_eq!(cursor.entry().unwrap().0, key(*number));
        cursor.next().unwrap();
        assert!(cursor.entry().is_none(), "written after it was opened");
        cursor.prev().unwrap();
        cursor.last().unwrap();
        let (found, last) = cursor.entry().unwrap();
        assert!(found == key(*number) && last == value(*number, 1000));
    }
    drop(cursors);
    store.settle().unwrap();
    assert!(store.stats().unwrap().memory.memtables < MIB);
}

/// A log that a large budget left behind, in segments as large as memory is now, is opened with a small
/// one: batch by batch, flushing. Read-only, where nothing can be flushed, it is refused with the reason.
fn large_log(store: &Lsm, directory: &Path, budget: u64) -> u64 {
    store.close().unwrap();
    const KEYS: u64 = 100_000;
    let len = (3 * budget / 2 / KEYS) as usize;
    let large = Lsm::open(directory, options(4 << 30)).unwrap();
    let ks = keyspace(&large, "k", |o| o.write_buffer_bytes = 1 << 30);
    for number in 0..KEYS {
        large
            .put(ks, &key(number), &value(number, len), &WriteOptions::OS)
            .unwrap();
    }
    assert_eq!(large.stats().unwrap().background.flushes, 0);
    large.close().unwrap();
    drop(large);
    // That was another process's, really: from here on it counts.
    super::meter::begin_again();
    let refused = Lsm::open_read_only(directory, &options(budget)).map(drop);
    assert!(
        matches!(refused, Err(Error::MemoryFull { .. })),
        "{refused:?}"
    );
    let store = open(directory, budget);
    assert!(store.stats().unwrap().background.flushes > 1);
    for number in (0..KEYS).step_by(91) {
        let found = store.get(ks, &key(number)).unwrap();
        assert_eq!(found.as_deref(), Some(&value(number, len)[..]));
    }
    let peak = store.stats().unwrap().memory.peak;
    store.close().unwrap();
    // Now most of it is in tables, and the rest fits.
    let reader = Lsm::open_read_only(directory, &options(budget)).unwrap();
    assert!(reader.get(ks, &key(KEYS - 1)).unwrap().is_some());
    peak
}

/// Ingests run in their callers' threads, as many as there are.
fn ingests(store: &Lsm) {
    const KEYS: u64 = 30_000;
    let create = |n: u64| {
        keyspace(store, &format!("k{n}"), |o| {
            o.compression = Compression::Lz4;
        })
    };
    let keyspaces: Vec<_> = (0..8).map(create).collect();
    std::thread::scope(|scope| {
        for &ks in &keyspaces {
            scope.spawn(move || {
                let pairs = (0..KEYS).map(|number| (key(number), value(number, 300)));
                store.ingest(ks, pairs).unwrap();
            });
        }
    });
    for &ks in &keyspaces {
        let found = store.get(ks, &key(KEYS - 1)).unwrap();
        assert_eq!(found.as_deref(), Some(&value(KEYS - 1, 300)[..]));
    }
}
