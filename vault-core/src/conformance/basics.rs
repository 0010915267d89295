//! Single verbs: put, get, delete, multi-get, batches, flush, sync, compact, stats.

use std::ops::ControlFlow;

use super::harness::{Fixture, Harness, assert_refused, got, keys};
use crate::batch::WriteBatch;
use crate::engine::{CompactionProgress, Engine, KeyspaceId, Reader};
use crate::error::Error;
use crate::options::WriteOptions;
use crate::range::KeyRange;

/// What is put is got, replaced by the next put, and gone after a delete.
pub fn put_get_delete<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    assert_eq!(got(&*f, ks, b"a"), None, "nothing was written yet");
    f.set(ks, b"a", b"1");
    f.settle();
    assert_eq!(got(&*f, ks, b"a").as_deref(), Some(&b"1"[..]));
    f.set(ks, b"a", b"2");
    assert_eq!(got(&*f, ks, b"a").as_deref(), Some(&b"2"[..]));
    f.settle();
    f.remove(ks, b"a");
    assert_eq!(got(&*f, ks, b"a"), None);
    f.settle();
    assert_eq!(got(&*f, ks, b"a"), None);
    f.remove(ks, b"never there");
    f.set(ks, b"a", b"3");
    assert_eq!(got(&*f, ks, b"a").as_deref(), Some(&b"3"[..]));
    assert_eq!(keys(&*f, ks), [b"a".to_vec()]);
}

/// Every durability, and `try_write`, write the same.
pub fn write_options_and_try_write<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    f.put(ks, b"sync", b"1", &WriteOptions::SYNC).unwrap();
    f.put(ks, b"os", b"2", &WriteOptions::OS).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(ks, b"try", b"3").delete(ks, b"os");
    // An engine may say that it is busy; it must then have written nothing.
    match f.try_write(&batch, &WriteOptions::default()) {
        Ok(sequence) => assert_eq!(sequence, f.latest_sequence()),
        Err(Error::Busy { .. }) => {
            assert_eq!(keys(&*f, ks).len(), 2);
            f.write(&batch, &WriteOptions::default()).unwrap();
        }
        Err(error) => panic!("{error}"),
    }
    assert_eq!(keys(&*f, ks), [b"sync".to_vec(), b"try".to_vec()]);
}

/// Each operation of a batch takes a number; `write` gives the last one.
pub fn sequence_numbers_count_operations<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    let start = f.latest_sequence();
    assert_eq!(f.batch(|_| {}), start, "an empty batch takes no number");
    assert_eq!(f.set(ks, b"a", b""), start + 1);
    let last = f.batch(|b| {
        b.put(ks, b"a", b"")
            .delete(ks, b"b")
            .delete_range(ks, b"c", b"d")
            .delete_range(ks, b"e", b"e");
    });
    assert_eq!(last, start + 5, "no-ops take a number too");
    assert_eq!(f.latest_sequence(), last);
    assert_eq!(f.snapshot().unwrap().sequence(), last);
    assert_eq!(f.remove(ks, b"a"), last + 1);
    f.settle();
    assert_eq!(f.batch(|_| {}), last + 1);
}

/// Later operations of a batch win over earlier ones.
pub fn order_within_a_batch<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.merging("k", crate::merge::APPEND);
    f.set(ks, b"c", b"old");
    f.batch(|b| {
        b.put(ks, b"a", b"1").put(ks, b"a", b"2");
        b.put(ks, b"b", b"1").delete(ks, b"b");
        b.delete(ks, b"c").put(ks, b"c", b"new");
        b.put(ks, b"d1", b"").delete_range(ks, b"d", b"e");
        b.delete_range(ks, b"f", b"g").put(ks, b"f1", b"kept");
        b.put(ks, b"m", b"1")
            .merge(ks, b"m", b"2")
            .merge(ks, b"m", b"3");
        b.merge(ks, b"n", b"1")
            .put(ks, b"n", b"2")
            .merge(ks, b"n", b"3");
        b.merge(ks, b"o", b"1")
            .delete(ks, b"o")
            .merge(ks, b"o", b"2");
        b.put(ks, b"p", b"1")
            .delete_range(ks, b"p", b"q")
            .merge(ks, b"p", b"2");
    });
    for _ in 0..2 {
        for (key, expected) in [
            ("a", Some("2")),
            ("b", None),
            ("c", Some("new")),
            ("d1", None),
            ("f1", Some("kept")),
            ("m", Some("123")),
            ("n", Some("23")),
            ("o", Some("2")),
            ("p", Some("2")),
        ] {
            let expected = expected.map(|value| value.as_bytes().to_vec());
            assert_eq!(got(&*f, ks, key.as_bytes()), expected, "key {key}");
        }
        assert_eq!(keys(&*f, ks).len(), 7);
        f.settle();
    }
}

/// A batch reaches all its keyspaces, or none.
pub fn batches_span_keyspaces<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let (one, two) = (f.plain("one"), f.plain("two"));
    f.batch(|b| {
        b.put(one, b"k", b"1")
            .put(two, b"k", b"2")
            .delete(one, b"x");
    });
    assert_eq!(got(&*f, one, b"k").unwrap(), b"1");
    assert_eq!(got(&*f, two, b"k").unwrap(), b"2");
    let before = f.latest_sequence();
    let nowhere = KeyspaceId(u32::MAX);
    let refused = f.try_batch(|b| {
        b.put(one, b"k", b"changed").put(nowhere, b"k", b"2");
    });
    assert_refused!(refused, Error::UnknownKeyspace { id: u32::MAX });
    assert_eq!(got(&*f, one, b"k").unwrap(), b"1", "nothing may be written");
    assert_eq!(f.latest_sequence(), before, "no number may be taken");
}

/// Answers of a multi-get stand in the order of the keys, duplicates and missing ones included.
pub fn multi_get_order<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    for i in 0..100_u8 {
        f.set(ks, &[i], &[i, i]);
        if i == 50 {
            f.settle();
        }
    }
    f.remove(ks, &[7]);
    let wanted: [&[u8]; 8] = [&[99], &[7], &[0], &[99], b"missing", b"", &[42], &[7]];
    let snapshot = f.snapshot().unwrap();
    for reader in [&*f as &dyn Reader, &*snapshot as &dyn Reader] {
        let found = reader.multi_get(ks, &wanted).unwrap();
        let found: Vec<_> = found.iter().map(|value| value.as_deref()).collect();
        let expected: [Option<&[u8]>; 8] = [
            Some(&[99, 99]),
            None,
            Some(&[0, 0]),
            Some(&[99, 99]),
            None,
            None,
            Some(&[42, 42]),
            None,
        ];
        assert_eq!(found, expected);
        assert!(reader.multi_get(ks, &[]).unwrap().is_empty());
    }
}

/// Flush, sync and compact change nothing that can be read, and name unknown keyspaces.
pub fn flush_sync_compact_keep_everything<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let (ks, other) = (f.plain("k"), f.plain("other"));
    for i in 0..300_u32 {
        f.set(ks, &i.to_be_bytes(), &[7; 100]);
    }
    f.batch(|b| {
        b.delete_range(ks, &100_u32.to_be_bytes(), &200_u32.to_be_bytes());
    });
    f.set(other, b"k", b"v");
    let before = keys(&*f, ks);
    assert_eq!(before.len(), 200);
    f.sync().unwrap();
    f.flush(Some(ks)).unwrap();
    f.flush(None).unwrap();
    assert_eq!(keys(&*f, ks), before);
    let middle = KeyRange::from(&50_u32.to_be_bytes()[..]..&150_u32.to_be_bytes()[..]);
    for range in [middle, KeyRange::all(), KeyRange::prefix(b"\xff")] {
        f.compact(ks, range, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        assert_eq!(keys(&*f, ks), before);
    }
    assert_eq!(keys(&*f, other).len(), 1);
    let nowhere = KeyspaceId(u32::MAX);
    assert_refused!(f.flush(Some(nowhere)), Error::UnknownKeyspace { .. });
    let compacted = f.compact(nowhere, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
    assert_refused!(compacted, Error::UnknownKeyspace { .. });
}

/// A compaction reports progress, stops where told to, and refuses an inverted range.
pub fn compaction_can_be_cancelled<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    for i in 0..300_u32 {
        f.set(ks, &i.to_be_bytes(), &[7; 100]);
    }
    f.flush(None).unwrap();
    let mut calls = 0;
    let cancelled = f.compact(ks, KeyRange::all(), &mut |_: CompactionProgress| {
        calls += 1;
        ControlFlow::Break(())
    });
    assert_refused!(cancelled, Error::Cancelled);
    assert_eq!(
        calls, 1,
        "progress is called, and not again after it said to stop"
    );
    assert_eq!(
        keys(&*f, ks).len(),
        300,
        "a cancelled compaction loses nothing"
    );
    let mut calls = 0;
    f.compact(ks, KeyRange::all(), &mut |progress| {
        assert!(progress.bytes_done <= progress.bytes_total, "{progress:?}");
        calls += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(calls > 0, "progress is called at least once");
    let inverted = KeyRange::new(&b"b"[..]..&b"a"[..]);
    let refused = f.compact(ks, inverted, &mut |_| ControlFlow::Continue(()));
    assert_refused!(refused, Error::InvertedRange { .. });
}

/// Statistics name every keyspace, count the operations, and know the latest write and open views.
pub fn stats_count<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let (ks, _two) = (f.plain("one"), f.plain("two"));
    for i in 0..10_u8 {
        f.set(ks, &[i], b"value");
        got(&*f, ks, &[i]);
    }
    let stats = f.stats().unwrap();
    let names: Vec<_> = stats.keyspaces.iter().map(|k| k.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(stats.latest_sequence, f.latest_sequence());
    for name in ["get", "write"] {
        let count = stats.operations.iter().find(|o| o.name == name);
        let count = count.map(|operation| operation.count);
        assert!(count >= Some(10), "{count:?} operations {name:?}");
    }
    let idle = stats.snapshots_open;
    let snapshot = f.snapshot().unwrap();
    assert!(f.stats().unwrap().snapshots_open > idle);
    drop(snapshot);
    assert_eq!(f.stats().unwrap().snapshots_open, idle);
}

/// The engine's own idea of the time is the clock that it was given.
pub fn time_comes_from_the_clock<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    assert_eq!(f.now(), super::START);
    f.advance_ms(1_234);
    assert_eq!(f.now().0, super::START.0 + 1_234);
}

/// An engine is used through a trait object, from any number of threads.
pub fn writers_on_many_threads<H: Harness>(harness: &H) {
    const THREADS: u8 = 4;
    const WRITES: u16 = 250;
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    let start = f.latest_sequence();
    let engine: &dyn Engine = &*f;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut last = 0;
                for i in 0..WRITES {
                    let key = [&[thread][..], &i.to_be_bytes()].concat();
                    let sequence = engine
                        .put(ks, &key, &key, &WriteOptions::default())
                        .unwrap();
                    assert!(sequence > last, "numbers only grow");
                    last = sequence;
                    assert_eq!(got(engine, ks, &key).unwrap(), key, "own writes are seen");
                }
            });
        }
    });
    let all = u64::from(THREADS) * u64::from(WRITES);
    assert_eq!(f.latest_sequence(), start + all);
    assert_eq!(keys(&*f, ks).len() as u64, all);
}
