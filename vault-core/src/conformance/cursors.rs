//! Cursors: positions, ends, direction changes, forks.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::harness::{Fixture, Harness};
use crate::engine::Cursor;
use crate::random::SeededRandom;
use crate::range::KeyRange;

/// A seek's target, and the keys where `seek` and `seek_back` lead.
type SeekRow = (&'static [u8], Option<&'static [u8]>, Option<&'static [u8]>);

fn key_of(cursor: &dyn Cursor) -> Option<&[u8]> {
    cursor.entry().map(|(key, _)| key)
}

/// Cursors begin unpositioned, stay so until positioned, and are so again behind either end.
pub fn cursor_positions_and_ends<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    for key in [b"b", b"d", b"f"] {
        f.set(ks, key, &[key[0]; 40]);
        f.settle();
    }
    let mut cursor = f.cursor(ks, KeyRange::all()).unwrap();
    assert!(cursor.entry().is_none() && cursor.value().is_empty());
    cursor.next().unwrap();
    cursor.prev().unwrap();
    assert!(cursor.entry().is_none(), "moving an unpositioned cursor");
    cursor.first().unwrap();
    assert_eq!(cursor.entry(), Some((&b"b"[..], &[b'b'; 40][..])));
    assert_eq!(cursor.value(), &[b'b'; 40][..]);
    cursor.prev().unwrap();
    assert!(cursor.entry().is_none(), "before the first entry");
    cursor.next().unwrap();
    assert!(
        cursor.entry().is_none(),
        "unpositioned until positioned anew"
    );
    cursor.last().unwrap();
    assert_eq!(key_of(&*cursor), Some(&b"f"[..]));
    cursor.next().unwrap();
    cursor.prev().unwrap();
    assert!(cursor.entry().is_none() && cursor.value().is_empty());
    let rows: [SeekRow; 8] = [
        (&b""[..], Some(&b"b"[..]), None),
        (b"a", Some(b"b"), None),
        (b"b", Some(b"b"), Some(b"b")),
        (b"b\0", Some(b"d"), Some(&b"b"[..])),
        (b"e", Some(b"f"), Some(b"d")),
        (b"f", Some(b"f"), Some(b"f")),
        (b"g", None, Some(b"f")),
        (b"\xff\xff", None, Some(b"f")),
    ];
    for (target, at_or_behind, at_or_before) in rows {
        cursor.seek(target).unwrap();
        assert_eq!(key_of(&*cursor), at_or_behind, "seek {target:?}");
        cursor.seek_back(target).unwrap();
        assert_eq!(key_of(&*cursor), at_or_before, "seek_back {target:?}");
    }
}

/// Cursors stay within their range, also where a seek leads out of it.
pub fn cursors_stay_in_range<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    for key in b"abcdefgh" {
        f.set(ks, &[*key], b"");
    }
    f.settle();
    let range = KeyRange {
        start: Bound::Excluded(b"b".to_vec()),
        end: Bound::Excluded(b"f".to_vec()),
    };
    let mut cursor = f.cursor(ks, range).unwrap();
    let rows: [SeekRow; 6] = [
        (&b"a"[..], Some(&b"c"[..]), None),
        (b"b", Some(b"c"), None),
        (b"c", Some(b"c"), Some(&b"c"[..])),
        (b"e", Some(b"e"), Some(b"e")),
        (b"f", None, Some(b"e")),
        (b"z", None, Some(b"e")),
    ];
    for (target, at_or_behind, at_or_before) in rows {
        cursor.seek(target).unwrap();
        assert_eq!(key_of(&*cursor), at_or_behind, "seek {target:?}");
        cursor.seek_back(target).unwrap();
        assert_eq!(key_of(&*cursor), at_or_before, "seek_back {target:?}");
    }
    cursor.first().unwrap();
    assert_eq!(key_of(&*cursor), Some(&b"c"[..]));
    cursor.prev().unwrap();
    assert_eq!(key_of(&*cursor), None);
    cursor.last().unwrap();
    assert_eq!(key_of(&*cursor), Some(&b"e"[..]));
    cursor.next().unwrap();
    assert_eq!(key_of(&*cursor), None);
    for empty in [
        &b"c"[..]..&b"c"[..],
        &b"f"[..]..&b"b"[..],
        &b"bb"[..]..&b"c"[..],
    ] {
        let mut cursor = f.cursor(ks, KeyRange::new(empty)).unwrap();
        cursor.first().unwrap();
        assert!(cursor.entry().is_none());
        cursor.last().unwrap();
        assert!(cursor.entry().is_none());
        cursor.seek(b"c").unwrap();
        assert!(cursor.entry().is_none());
        cursor.seek_back(b"c").unwrap();
        assert!(cursor.entry().is_none());
    }
}

/// A cursor sees its one moment, and so do its forks, whenever they are made.
pub fn cursors_see_one_moment<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    for key in b"abc" {
        f.set(ks, &[*key], b"1");
    }
    let mut cursor = f.cursor(ks, KeyRange::all()).unwrap();
    cursor.first().unwrap();
    f.batch(|b| {
        b.put(ks, b"a", b"2").delete(ks, b"b").put(ks, b"bb", b"2");
        b.delete_range(ks, b"c", b"d");
    });
    f.settle();
    f.compact_all(ks);
    assert_eq!(
        cursor.entry(),
        Some((&b"a"[..], &b"1"[..])),
        "entries don't change underfoot"
    );
    let mut fork = cursor.fork().unwrap();
    assert!(fork.entry().is_none(), "a fork begins unpositioned");
    drop(cursor);
    let mut seen = Vec::new();
    fork.last().unwrap();
    while let Some((key, value)) = fork.entry() {
        seen.push((key.to_vec(), value.to_vec()));
        fork.prev().unwrap();
    }
    let expected = [b"c", b"b", b"a"].map(|key| (key.to_vec(), b"1".to_vec()));
    assert_eq!(seen, expected);
}

/// Thousands of moves in random directions over data that lies in many places, compared with a map.
pub fn cursors_change_direction<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.merging("k", crate::merge::APPEND);
    let random = SeededRandom::new(17);
    let mut map: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let random_key = || (random.below(400) as u16).to_be_bytes().to_vec();
    for step in 0..1_500_u32 {
        let (key, value) = (random_key(), step.to_be_bytes());
        match random.below(10) {
            0..5 => {
                f.set(ks, &key, &value);
                map.insert(key, value.to_vec());
            }
            5..8 => {
                f.batch(|b| {
                    b.merge(ks, &key, &value);
                });
                map.entry(key).or_default().extend(value);
            }
            _ => {
                f.remove(ks, &key);
                map.remove(&key);
            }
        }
        if step % 400 == 399 {
            f.settle();
        }
    }
    for round in 0..8 {
        let (start, end) = (random_key(), random_key());
        let range = match round % 4 {
            0 => KeyRange::all(),
            1 => KeyRange::from(&start.min(end.clone())[..]..),
            2 => KeyRange::from(..=&end[..]),
            _ => KeyRange::new(start.clone().min(end.clone())..start.max(end)),
        };
        map_walk(
            &*f.cursor(ks, range.clone()).unwrap().fork().unwrap(),
            &map,
            &range,
            &random,
        );
    }
}

/// Walks a fork of `cursor` at random and compares each position with the map.
fn map_walk(
    cursor: &dyn Cursor,
    map: &BTreeMap<Vec<u8>, Vec<u8>>,
    range: &KeyRange,
    random: &SeededRandom,
) {
    let mut cursor = cursor.fork().unwrap();
    let entries: Vec<_> = map.iter().filter(|(key, _)| range.contains(key)).collect();
    let mut at: Option<usize> = None;
    let index = |i: isize| usize::try_from(i).ok().filter(|&i| i < entries.len());
    for step in 0..600 {
        let target = (random.below(420) as u16).to_be_bytes();
        match random.below(20) {
            0 => {
                cursor.first().unwrap();
                at = index(0);
            }
            1 => {
                cursor.last().unwrap();
                at = index(entries.len() as isize - 1);
            }
            2 => {
                cursor.seek(&target).unwrap();
                at = index(entries.partition_point(|e| e.0[..] < target[..]) as isize);
            }
            3 => {
                cursor.seek_back(&target).unwrap();
                at = index(entries.partition_point(|e| e.0[..] <= target[..]) as isize - 1);
            }
            4..12 => {
                cursor.next().unwrap();
                at = at.and_then(|i| index(i as isize + 1));
            }
            _ => {
                cursor.prev().unwrap();
                at = at.and_then(|i| index(i as isize - 1));
            }
        }
        let expected = at.map(|i| (&entries[i].0[..], &entries[i].1[..]));
        assert_eq!(cursor.entry(), expected, "step {step} in {range:?}");
        assert_eq!(cursor.value(), expected.map_or(&[][..], |(_, value)| value));
    }
}
