//! Scans over every form of bounds, prefixes, and range deletes.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::harness::{
    Entry, Fixture, Harness, assert_refused, backward, forward, got, keys, owned,
};
use crate::engine::{KeyspaceId, Reader};
use crate::error::Error;
use crate::limits::KEY_BYTES_MAX;
use crate::range::KeyRange;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys that sit close to each other and at both ends of the key space.
fn fill<H: Harness>(f: &Fixture<'_, H>, ks: KeyspaceId) -> Map {
    let names: [&[u8]; 14] = [
        b"",
        b"\0",
        b"\0\0",
        b"a",
        b"a\0",
        b"ab",
        b"b",
        b"b\xff",
        b"b\xff\xff",
        b"c",
        b"d",
        b"\xff",
        b"\xff\xff",
        b"\xff\xff\0",
    ];
    let mut map = Map::new();
    for (i, key) in names.into_iter().enumerate() {
        // Written in three portions and partly twice, so that engines keep them in several places.
        f.set(ks, key, b"old");
        if i % 5 == 4 {
            f.settle();
        }
        map.insert(key.to_vec(), b"old".to_vec());
    }
    for key in names.into_iter().step_by(3) {
        f.set(ks, key, key);
        map.insert(key.to_vec(), key.to_vec());
    }
    for key in [&b"aa"[..], b"bb", b"\xff\0"] {
        f.set(ks, key, b"gone");
        f.remove(ks, key);
    }
    map
}

fn expected(map: &Map, range: &KeyRange) -> Vec<Entry> {
    let inside = map.iter().filter(|(key, _)| range.contains(key));
    inside
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn check_range<R: Reader + ?Sized>(reader: &R, ks: KeyspaceId, map: &Map, range: &KeyRange) {
    let mut expected = expected(map, range);
    assert_eq!(forward(reader, ks, range.clone()), expected, "{range:?}");
    expected.reverse();
    assert_eq!(
        backward(reader, ks, range.clone()),
        expected,
        "{range:?} backwards"
    );
}

/// Every form of both bounds, at keys that are there and keys that aren't, in order and inverted.
pub fn scans_with_every_form_of_bounds<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    let map = fill(&f, ks);
    let points: [&[u8]; 10] = [
        b"",
        b"\0",
        b"a",
        b"aa",
        b"ab",
        b"b\xff",
        b"bz",
        b"d",
        b"\xff\xff",
        b"\xff\xff\xff",
    ];
    let mut bounds = vec![Bound::Unbounded];
    for point in points {
        bounds.push(Bound::Included(point.to_vec()));
        bounds.push(Bound::Excluded(point.to_vec()));
    }
    for settled in [false, true] {
        if settled {
            f.settle();
        }
        for start in &bounds {
            for end in &bounds {
                let (start, end) = (start.clone(), end.clone());
                check_range(&*f, ks, &map, &KeyRange { start, end });
            }
        }
    }
}

/// Prefixes, among them the empty one and those of only 0xff.
pub fn scans_by_prefix<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    let map = fill(&f, ks);
    let prefixes: [&[u8]; 9] = [
        b"",
        b"\0",
        b"a",
        b"b",
        b"b\xff",
        b"e",
        b"\xff",
        b"\xff\xff",
        b"\xff\xff\xff",
    ];
    for prefix in prefixes {
        let mut expected: Vec<Entry> = map
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(
            owned(f.scan_prefix(ks, prefix).unwrap()),
            expected,
            "{prefix:?}"
        );
        expected.reverse();
        assert_eq!(owned(f.scan_prefix(ks, prefix).unwrap().rev()), expected);
    }
}

/// A scan that is read from both ends gives each entry exactly once, however they take turns.
pub fn scans_meet_exactly_once<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    for count in 0..6_u8 {
        if count > 0 {
            f.set(ks, &[count], &[count]);
            f.settle();
        }
        // Each bit of the pattern says which end comes next.
        for pattern in 0..1_u32 << (count + 2) {
            let mut scan = f.scan(ks, KeyRange::all()).unwrap();
            let (mut front, mut back) = (Vec::new(), Vec::new());
            for turn in 0..count + 2 {
                if pattern >> turn & 1 == 0 {
                    front.extend(scan.next().map(|entry| entry.unwrap().0[0]));
                } else {
                    back.extend(scan.next_back().map(|entry| entry.unwrap().0[0]));
                }
            }
            front.extend(back.iter().rev());
            let all: Vec<u8> = (1..=count).collect();
            assert_eq!(front, all, "pattern {pattern:b}");
            assert!(scan.next().is_none() && scan.next_back().is_none());
        }
    }
}

/// Range deletes: half-open, hiding only what was written before.
pub fn range_deletes<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    let letters = |keys: Vec<Vec<u8>>| String::from_utf8(keys.concat()).unwrap();
    for key in b"abcdefgh" {
        f.set(ks, &[*key], b"1");
    }
    f.settle();
    let before = f.snapshot().unwrap();
    f.batch(|b| {
        b.delete_range(ks, b"c", b"f");
    });
    let after = f.snapshot().unwrap();
    assert_eq!(letters(keys(&*f, ks)), "abfgh");
    assert_eq!(got(&*f, ks, b"c"), None);
    assert_eq!(got(&*f, ks, b"f").unwrap(), b"1");
    f.set(ks, b"d", b"again");
    f.settle();
    assert_eq!(
        letters(keys(&*f, ks)),
        "abdfgh",
        "later puts are not hidden"
    );
    assert_eq!(letters(keys(&*before, ks)), "abcdefgh");
    assert_eq!(letters(keys(&*after, ks)), "abfgh");
    assert_eq!(got(&*before, ks, b"d").unwrap(), b"1");
    assert_eq!(got(&*after, ks, b"d"), None);
    // Overlapping, repeated, and over nothing at all.
    f.batch(|b| {
        b.delete_range(ks, b"b", b"e").delete_range(ks, b"d", b"g");
        b.delete_range(ks, b"x", b"z").delete_range(ks, b"b", b"e");
    });
    f.settle();
    assert_eq!(letters(keys(&*f, ks)), "agh");
    assert_eq!(
        letters(
            backward(&*f, ks, KeyRange::all())
                .into_iter()
                .map(|e| e.0)
                .collect()
        ),
        "hga"
    );
    drop((before, after));
    f.compact_all(ks);
    assert_eq!(letters(keys(&*f, ks)), "agh");
    assert_eq!(got(&*f, ks, b"d"), None, "compaction brings nothing back");
}

/// Bounds that are equal delete nothing; inverted ones are refused with nothing written.
pub fn range_deletes_empty_and_inverted<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    f.set(ks, b"", b"empty");
    f.set(ks, b"b", b"1");
    let before = f.latest_sequence();
    let refused = f.try_batch(|b| {
        b.put(ks, b"x", b"").delete_range(ks, b"c", b"b");
    });
    assert_refused!(refused, Error::InvertedRange { .. });
    assert_eq!(f.latest_sequence(), before);
    assert_eq!(keys(&*f, ks).len(), 2);
    f.batch(|b| {
        b.delete_range(ks, b"b", b"b").delete_range(ks, b"", b"");
    });
    f.settle();
    assert_eq!(keys(&*f, ks).len(), 2, "an empty range deletes nothing");
    f.batch(|b| {
        b.delete_range(ks, b"", b"\0");
    });
    assert_eq!(
        keys(&*f, ks),
        [b"b".to_vec()],
        "the empty key is a key as any other"
    );
}

/// Deleting by prefix, also where no key ends the range.
pub fn prefix_deletes<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    for prefix in [&b"b"[..], b"\xff", b"\xff\xff", b"b\xff", b"nothing", b""] {
        let mut map = fill(&f, ks);
        f.settle();
        f.batch(|b| {
            b.delete_prefix(ks, prefix);
        });
        map.retain(|key, _| !key.starts_with(prefix));
        check_range(&*f, ks, &map, &KeyRange::all());
        f.settle();
        check_range(&*f, ks, &map, &KeyRange::all());
    }
    f.set(ks, &vec![0xff; KEY_BYTES_MAX - 1], b"");
    f.batch(|b| {
        b.delete_prefix(ks, b"");
    });
    assert!(keys(&*f, ks).is_empty());
}

/// Many range deletes among many keys, compared with a map, with a snapshot in between.
pub fn range_deletes_among_many_keys<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    let mut map = Map::new();
    let random = crate::random::SeededRandom::new(11);
    let mut frozen = None;
    for round in 0..40_u8 {
        for _ in 0..25 {
            let key = (random.below(600) as u16).to_be_bytes();
            f.set(ks, &key, &[round; 40]);
            map.insert(key.to_vec(), vec![round; 40]);
        }
        let start = random.below(600) as u16;
        let end = start + random.below(60) as u16;
        f.batch(|b| {
            b.delete_range(ks, &start.to_be_bytes(), &end.to_be_bytes());
        });
        map.retain(|key, _| {
            *key < start.to_be_bytes().to_vec() || *key >= end.to_be_bytes().to_vec()
        });
        if round % 8 == 7 {
            f.settle();
        }
        if round == 20 {
            frozen = Some((f.snapshot().unwrap(), map.clone()));
        }
        check_range(&*f, ks, &map, &KeyRange::all());
    }
    f.compact_all(ks);
    check_range(&*f, ks, &map, &KeyRange::all());
    let (snapshot, map) = frozen.unwrap();
    check_range(&*snapshot, ks, &map, &KeyRange::all());
}
