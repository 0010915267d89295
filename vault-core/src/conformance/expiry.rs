//! Entries that cease to be visible, by a clock that the suite moves.

use super::START;
use super::harness::{Fixture, Harness, assert_refused, backward, forward, got, keys};
use crate::clock::Timestamp;
use crate::engine::{CasOutcome, EntryInfo};
use crate::error::Error;
use crate::merge::APPEND;
use crate::options::WriteOptions;
use crate::range::KeyRange;

const fn at(ms: u64) -> Timestamp {
    Timestamp(START.0 + ms)
}

/// A put with an expiry is there until that very millisecond, and absent from then on, everywhere.
pub fn expired_puts_are_absent<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    f.batch(|b| {
        b.put_until(ks, b"a", b"1", at(1_000))
            .put(ks, b"b", b"stays");
        b.put_until(ks, b"c", b"2", at(2_000));
    });
    f.advance_ms(999);
    f.settle();
    assert_eq!(keys(&*f, ks).len(), 3, "nothing goes early");
    assert_eq!(got(&*f, ks, b"a").unwrap(), b"1");
    f.advance_ms(1);
    for _ in 0..2 {
        assert_eq!(got(&*f, ks, b"a"), None);
        assert_eq!(keys(&*f, ks), [b"b".to_vec(), b"c".to_vec()]);
        assert_eq!(backward(&*f, ks, KeyRange::all()).len(), 2);
        assert!(f.multi_get(ks, &[b"a"]).unwrap()[0].is_none());
        f.settle();
        f.compact_all(ks);
    }
    f.set(ks, b"a", b"again");
    f.advance_ms(1_000_000);
    assert_eq!(
        got(&*f, ks, b"a").unwrap(),
        b"again",
        "a new put has no expiry"
    );
    assert_eq!(keys(&*f, ks), [b"a".to_vec(), b"b".to_vec()]);
}

/// What is known of an entry without its value is what its value would tell, wherever it lies and however it came about.
pub fn entries_are_known_without_their_values<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.merging("k", APPEND);
    let large = vec![7; 100_000];
    f.batch(|b| {
        b.put(ks, b"plain", b"12345")
            .put(ks, b"large", &large)
            .put(ks, b"empty", b"")
            .put(ks, b"gone", b"1")
            .put(ks, b"under a range", b"1")
            .put_until(ks, b"until", b"123", at(1_000))
            .put_until(ks, b"merged until", b"123", at(1_000));
    });
    let snapshot = f.snapshot().unwrap();
    f.batch(|b| {
        b.delete(ks, b"gone")
            .delete_range(ks, b"under", b"underneath")
            .merge(ks, b"plain", b"67")
            .merge(ks, b"only merged", b"1234")
            .merge(ks, b"merged until", b"45");
    });
    let info = |value_bytes, expiry| {
        Some(EntryInfo {
            value_bytes,
            expiry,
        })
    };
    for round in 0..2 {
        let expected: [(&[u8], Option<EntryInfo>); 9] = [
            (b"plain", info(7, None)),
            (b"large", info(100_000, None)),
            (b"empty", info(0, None)),
            (b"gone", None),
            (b"under a range", None),
            (b"until", info(3, Some(at(1_000)))),
            (b"merged until", info(5, None)),
            (b"only merged", info(4, None)),
            (b"missing", None),
        ];
        for (key, expected) in expected {
            let found = f.entry_info(ks, key).unwrap();
            assert_eq!(found, expected, "round {round}, key {}", key.escape_ascii());
        }
        let before = |key: &[u8]| snapshot.entry_info(ks, key).unwrap();
        assert_eq!(before(b"gone"), info(1, None));
        assert_eq!(before(b"plain"), info(5, None));
        assert_eq!(before(b"only merged"), None);
        f.settle();
        f.compact_all(ks);
    }
    f.advance_ms(1_000);
    assert_eq!(f.entry_info(ks, b"until").unwrap(), None);
    assert_eq!(f.entry_info(ks, b"merged until").unwrap(), info(2, None));
    assert_eq!(snapshot.entry_info(ks, b"until").unwrap(), None);
    let nowhere = crate::engine::KeyspaceId(u32::MAX);
    assert_refused!(
        f.entry_info(nowhere, b"k"),
        Error::UnknownKeyspace { id: u32::MAX }
    );
}

/// An expired entry reads as a delete at its place: nothing older comes back.
pub fn expired_hides_older<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.merging("k", APPEND);
    f.set(ks, b"a", b"old");
    f.settle();
    f.batch(|b| {
        b.put_until(ks, b"a", b"new", at(10));
    });
    f.settle();
    f.batch(|b| {
        b.merge(ks, b"a", b"+");
    });
    assert_eq!(got(&*f, ks, b"a").unwrap(), b"new+");
    f.advance_ms(10);
    for _ in 0..2 {
        assert_eq!(
            got(&*f, ks, b"a").unwrap(),
            b"+",
            "newer operands apply to nothing"
        );
        f.settle();
        f.compact_all(ks);
    }
    // A newer entry without an expiry is not touched by an older one that expires.
    f.batch(|b| {
        b.put_until(ks, b"b", b"1", at(20)).put(ks, b"b", b"2");
    });
    f.advance_ms(10);
    f.compact_all(ks);
    assert_eq!(got(&*f, ks, b"b").unwrap(), b"2");
}

/// Operands expire as puts do, with everything under them.
pub fn expired_operands<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.merging("k", APPEND);
    f.set(ks, b"a", b"0");
    f.batch(|b| {
        b.merge(ks, b"a", b"1").merge_until(ks, b"a", b"2", at(10));
        b.merge(ks, b"a", b"3").merge_until(ks, b"a", b"4", at(20));
        b.merge_until(ks, b"b", b"1", at(10));
    });
    f.settle();
    assert_eq!(got(&*f, ks, b"a").unwrap(), b"01234");
    f.compact_all(ks);
    assert_eq!(
        got(&*f, ks, b"a").unwrap(),
        b"01234",
        "folding early loses no expiry"
    );
    f.advance_ms(10);
    assert_eq!(got(&*f, ks, b"a").unwrap(), b"34");
    assert_eq!(got(&*f, ks, b"b"), None);
    f.compact_all(ks);
    assert_eq!(keys(&*f, ks), [b"a".to_vec()]);
    assert_eq!(got(&*f, ks, b"a").unwrap(), b"34");
    f.advance_ms(10);
    assert_eq!(got(&*f, ks, b"a"), None);
    f.compact_all(ks);
    assert!(forward(&*f, ks, KeyRange::all()).is_empty());
    // What lay under the expired operands stays hidden for later ones.
    f.batch(|b| {
        b.merge(ks, b"a", b"5");
    });
    assert_eq!(got(&*f, ks, b"a").unwrap(), b"5");
}

/// Snapshots and cursors that were open before see entries expire too.
pub fn expiry_reaches_snapshots_and_cursors<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    f.set(ks, b"b", b"under");
    f.batch(|b| {
        b.put(ks, b"a", b"")
            .put_until(ks, b"b", b"x", at(10))
            .put(ks, b"c", b"");
    });
    let snapshot = f.snapshot().unwrap();
    let mut cursor = f.cursor(ks, KeyRange::all()).unwrap();
    cursor.first().unwrap();
    let mut scan = snapshot.scan(ks, KeyRange::all()).unwrap();
    assert_eq!(scan.next().unwrap().unwrap().0, b"a");
    assert_eq!(got(&*snapshot, ks, b"b").unwrap(), b"x");
    f.advance_ms(10);
    assert_eq!(got(&*snapshot, ks, b"b"), None);
    assert_eq!(keys(&*snapshot, ks).len(), 2);
    cursor.seek(b"b").unwrap();
    assert_eq!(cursor.entry().unwrap().0, b"c");
    cursor.prev().unwrap();
    assert_eq!(cursor.entry().unwrap().0, b"a");
    cursor.next().unwrap();
    assert_eq!(cursor.entry().unwrap().0, b"c");
    // A scan may have read ahead, but not further than it has been asked to for now.
    f.settle();
    let rest: Vec<_> = scan.map(|entry| entry.unwrap().0.to_vec()).collect();
    assert_eq!(rest.last().unwrap(), b"c");
}

/// An expired entry is absent for compare-and-set, and hidden by nothing else that happened to it.
pub fn expired_is_absent_for_compare_and_set<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    f.batch(|b| {
        b.put_until(ks, b"a", b"1", at(10));
    });
    let cas = |expected, new| {
        f.compare_and_set(ks, b"a", expected, new, &WriteOptions::default())
            .unwrap()
    };
    assert!(matches!(
        cas(None, Some(b"2")),
        CasOutcome::Mismatch(Some(_))
    ));
    f.advance_ms(10);
    assert_eq!(cas(Some(b"1"), Some(b"2")), CasOutcome::Mismatch(None));
    assert!(matches!(cas(None, Some(b"2")), CasOutcome::Swapped(_)));
    assert_eq!(got(&*f, ks, b"a").unwrap(), b"2");
}

/// Range deletes and deletes remove entries that have an expiry, for good.
pub fn deletes_of_entries_with_expiry<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    for key in [b"a", b"b", b"c"] {
        f.batch(|b| {
            b.put_until(ks, key, b"1", at(10));
        });
    }
    f.settle();
    f.remove(ks, b"a");
    f.batch(|b| {
        b.delete_range(ks, b"b", b"c");
    });
    assert_eq!(keys(&*f, ks), [b"c".to_vec()]);
    f.set(ks, b"b", b"2");
    f.advance_ms(10);
    f.compact_all(ks);
    assert_eq!(keys(&*f, ks), [b"b".to_vec()]);
}

/// Expiries at zero, in the past, at this moment and beyond the year 9999 are refused; nothing of
/// the batch is written.
pub fn bad_expiries_are_refused<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.merging("k", APPEND);
    let beyond = Timestamp(Timestamp::MAX.0 + 1);
    for bad in [
        Timestamp(0),
        Timestamp(1),
        at(0),
        beyond,
        Timestamp(u64::MAX),
    ] {
        let before = f.latest_sequence();
        let put = f.try_batch(|b| {
            b.put(ks, b"x", b"").put_until(ks, b"k", b"", bad);
        });
        assert_refused!(put, Error::InvalidExpiry { .. });
        let merge = f.try_batch(|b| {
            b.put(ks, b"x", b"").merge_until(ks, b"k", b"", bad);
        });
        assert_refused!(merge, Error::InvalidExpiry { .. });
        assert_eq!(f.latest_sequence(), before);
        assert!(keys(&*f, ks).is_empty(), "{bad}");
    }
    f.batch(|b| {
        b.put_until(ks, b"soon", b"", at(1));
        b.put_until(ks, b"late", b"", Timestamp::MAX);
    });
    f.settle();
    assert_eq!(keys(&*f, ks).len(), 2);
    f.clock.set(Timestamp(Timestamp::MAX.0 - 1));
    assert_eq!(keys(&*f, ks), [b"late".to_vec()]);
}

/// A clock that jumps back drops nothing early and never brings back what an expired entry hid.
pub fn the_clock_jumps_back<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    f.advance_ms(1_000);
    f.set(ks, b"a", b"hidden");
    f.batch(|b| {
        b.put_until(ks, b"a", b"1", at(2_000));
        b.put_until(ks, b"b", b"1", at(5_000));
    });
    f.settle();
    f.clock.set(at(500));
    f.settle();
    assert_eq!(
        got(&*f, ks, b"a").unwrap(),
        b"1",
        "it has not expired at any time"
    );
    // By the clock as it is now, this is not in the past.
    f.batch(|b| {
        b.put_until(ks, b"c", b"1", at(600));
    });
    f.clock.set(at(3_000));
    assert_eq!(keys(&*f, ks), [b"b".to_vec()]);
    f.settle();
    f.compact_all(ks);
    f.clock.set(at(500));
    // Whether what had expired shows again depends on whether it has been removed meanwhile.
    let a = got(&*f, ks, b"a");
    assert!(a.is_none() || a.as_deref() == Some(b"1"), "found {a:?}");
    assert_eq!(got(&*f, ks, b"b").unwrap(), b"1");
    f.clock.set(at(5_000));
    assert!(keys(&*f, ks).is_empty());
}
