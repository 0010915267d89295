//! The memtable against a model, over orders of keys that make the tree grow in each of its ways.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::Memtable;
use crate::cursor::InternalCursor;
use crate::memory::MemtableAccount;

type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Vec<u8>>;

/// A small generator of repeatable numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn scaled(count: usize) -> usize {
    if cfg!(miri) { count / 40 } else { count }
}

struct Pair {
    table: Arc<Memtable>,
    model: Model,
}

impl Pair {
    fn new() -> Self {
        Self {
            table: Arc::new(Memtable::new(MemtableAccount::uncounted())),
            model: Model::new(),
        }
    }

    fn insert(&mut self, key: &[u8], trailer: u64, value: &[u8]) {
        let (front, back) = value.split_at(value.len() / 3);
        self.table.insert(key, trailer, [front, back]);
        self.model
            .insert((key.to_vec(), Reverse(trailer)), value.to_vec());
    }

    fn check_all(&self) {
        assert_eq!(self.table.entries(), self.model.len() as u64);
        let mut cursor = self.table.cursor();
        assert!(!cursor.valid());
        cursor.first().unwrap();
        for ((key, Reverse(trailer)), value) in &self.model {
            assert_at(&cursor, Some((key, *trailer, value)));
            cursor.next().unwrap();
        }
        assert!(!cursor.valid());
        cursor.last().unwrap();
        for ((key, Reverse(trailer)), value) in self.model.iter().rev() {
            assert_at(&cursor, Some((key, *trailer, value)));
            cursor.prev().unwrap();
        }
        assert!(!cursor.valid());
    }

    fn check_visit(&self, key: &[u8], from_trailer: u64) {
        let mut found = Vec::new();
        let _ = self.table.visit(key, from_trailer, |trailer, value| {
            found.push((trailer, value.to_vec()));
            ControlFlow::Continue(())
        });
        let from = (key.to_vec(), Reverse(from_trailer));
        let to = (key.to_vec(), Reverse(0));
        let expected: Vec<_> = self
            .model
            .range(from..=to)
            .map(|((_, Reverse(trailer)), value)| (*trailer, value.clone()))
            .collect();
        assert_eq!(found, expected, "versions of {key:?} from {from_trailer}");
    }

    /// Moves a cursor about at random and compares each position.
    fn check_walk(&self, random: &mut Random, keys: &[Vec<u8>], steps: usize) {
        let mut cursor = self.table.cursor();
        let mut at: Option<(Vec<u8>, Reverse<u64>)> = None;
        for _ in 0..steps {
            let key = &keys[random.below(keys.len())];
            let trailer = random.next() % (self.model.len() as u64 * 2 + 2);
            match random.below(12) {
                0 => {
                    cursor.seek(key, trailer).unwrap();
                    let from = (key.clone(), Reverse(trailer));
                    at = self.model.range(from..).next().map(|(k, _)| k.clone());
                }
                1 => {
                    cursor.seek_back(key, trailer).unwrap();
                    let to = (key.clone(), Reverse(trailer));
                    at = self.model.range(..=to).next_back().map(|(k, _)| k.clone());
                }
                2 if random.below(8) == 0 => {
                    cursor.first().unwrap();
                    at = self.model.keys().next().cloned();
                }
                3 if random.below(8) == 0 => {
                    cursor.last().unwrap();
                    at = self.model.keys().next_back().cloned();
                }
                2..=7 => {
                    cursor.next().unwrap();
                    at = at.and_then(|k| {
                        use std::ops::Bound::{Excluded, Unbounded};
                        let mut behind = self.model.range((Excluded(k), Unbounded));
                        behind.next().map(|(k, _)| k.clone())
                    });
                }
                _ => {
                    cursor.prev().unwrap();
                    at = at.and_then(|k| self.model.range(..k).next_back().map(|(k, _)| k.clone()));
                }
            }
            let expected = at.as_ref().map(|k| (&k.0, k.1.0, &self.model[k]));
            assert_at(&cursor, expected);
        }
    }
}

fn assert_at(cursor: &impl InternalCursor, expected: Option<(&Vec<u8>, u64, &Vec<u8>)>) {
    let found = cursor
        .valid()
        .then(|| (cursor.key(), cursor.trailer(), cursor.value()));
    let expected = expected.map(|(key, trailer, value)| (&key[..], trailer, &value[..]));
    assert!(found == expected, "at {found:?} instead of {expected:?}");
    if cursor.valid() {
        assert_eq!(cursor.value_slice(), *cursor.value());
    }
}

/// Inserts `count` versions of keys picked by `pick`, comparing on the way and at the end.
fn exercise(seed: u64, count: usize, keys: &[Vec<u8>], pick: impl Fn(usize, &mut Random) -> usize) {
    let mut random = Random(seed);
    let mut pair = Pair::new();
    for i in 0..count {
        let key = &keys[pick(i, &mut random)];
        let value = vec![i as u8; random.below(40)];
        pair.insert(key, (i as u64 + 1) * 2, &value);
        if random.below(count / 50 + 1) == 0 {
            let key = &keys[random.below(keys.len())];
            pair.check_visit(key, random.next() % (count as u64 * 2));
            pair.check_walk(&mut random, keys, 20);
        }
    }
    pair.check_all();
    pair.check_walk(&mut random, keys, scaled(4000));
    for key in keys {
        pair.check_visit(key, u64::MAX);
        pair.check_visit(key, random.next() % (count as u64 * 2));
        let newest = pair.model.range((key.clone(), Reverse(u64::MAX))..).next();
        let newest = newest.filter(|((k, _), _)| k == key).map(|((_, t), _)| t.0);
        assert_eq!(pair.table.latest_version(key), newest);
    }
}

fn numbered(count: usize, prefix: &str) -> Vec<Vec<u8>> {
    (0..count)
        .map(|i| format!("{prefix}{i:08}").into_bytes())
        .collect()
}

#[test]
fn an_empty_memtable_has_nothing() {
    let table = Arc::new(Memtable::new(MemtableAccount::uncounted()));
    assert!(table.is_empty() && table.entries() == 0 && table.bytes() == 0);
    assert_eq!(table.latest_version(b"k"), None);
    assert!(table.range_tombstones().is_none());
    let mut cursor = table.cursor();
    cursor.first().unwrap();
    assert!(!cursor.valid());
    cursor.last().unwrap();
    assert!(!cursor.valid());
    cursor.seek(b"k", 5).unwrap();
    assert!(!cursor.valid());
    cursor.seek_back(b"k", 5).unwrap();
    cursor.next().unwrap();
    cursor.prev().unwrap();
    assert!(!cursor.valid());
}

#[test]
fn random_keys_agree_with_the_model() {
    let mut random = Random(11);
    let keys: Vec<Vec<u8>> = (0..scaled(30_000))
        .map(|_| random.next().to_be_bytes().to_vec())
        .collect();
    exercise(1, scaled(40_000), &keys, |_, random| {
        random.below(keys.len())
    });
}

#[test]
fn ascending_and_descending_keys_agree_with_the_model() {
    let keys = numbered(scaled(20_000), "some/long/common/prefix/");
    let last = keys.len() - 1;
    exercise(2, keys.len(), &keys, |i, _| i);
    exercise(3, keys.len(), &keys, |i, _| last - i);
}

#[test]
fn several_ascending_runs_at_once_agree_with_the_model() {
    let keys: Vec<Vec<u8>> = ["a/", "b/", "c/", "d/"]
        .iter()
        .flat_map(|prefix| numbered(scaled(5_000), prefix))
        .collect();
    let run = keys.len() / 4;
    exercise(4, keys.len(), &keys, |i, _| (i % 4) * run + i / 4);
    // In blocks, so that the finger is used within each.
    exercise(5, keys.len(), &keys, |i, _| {
        (i / 50 % 4) * run + (i / 200 * 50 + i % 50) % run
    });
}

#[test]
fn many_versions_of_few_keys_agree_with_the_model() {
    let keys = numbered(7, "k");
    exercise(6, scaled(20_000), &keys, |_, random| {
        random.below(7).min(random.below(7))
    });
    exercise(7, scaled(6_000), &keys[..1], |_, _| 0);
}

#[test]
fn adversarial_bytes_agree_with_the_model() {
    // Zeros and 0xff, keys that begin others, and lengths around those of heads.
    let mut random = Random(12);
    let alphabet = [0_u8, 0, 0, 1, 0x7f, 0x80, 0xff, 0xff];
    let mut keys: Vec<Vec<u8>> = (0..scaled(8_000))
        .map(|_| {
            (0..random.below(12))
                .map(|_| alphabet[random.below(8)])
                .collect()
        })
        .collect();
    keys.push(Vec::new());
    exercise(8, scaled(30_000), &keys, |_, random| {
        random.below(keys.len())
    });
}

#[test]
fn keys_of_every_length_agree_with_the_model() {
    let longest = if cfg!(miri) { 400 } else { 64 * 1024 };
    let stems = [vec![b'a'; longest], vec![0; longest], vec![0xff; longest]];
    let mut random = Random(13);
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for _ in 0..scaled(800) {
        let stem = &stems[random.below(3)];
        let mut key = stem[..random.below(longest + 1)].to_vec();
        if let Some(last) = key.last_mut() {
            *last = random.next() as u8;
        }
        keys.push(key);
    }
    keys.extend(stems);
    keys.push(Vec::new());
    exercise(9, keys.len() * 2, &keys, |i, _| i % keys.len());
}

#[test]
fn large_values_come_back() {
    let mut pair = Pair::new();
    let sizes = [0, 1, 4095, 4096, 100_000, 1 << 20, (1 << 20) + 1, 3 << 20];
    for (i, &size) in sizes.iter().cycle().take(24).enumerate() {
        pair.insert(&[i as u8 % 5], i as u64, &vec![i as u8; size]);
    }
    pair.check_all();
    let payload: usize = sizes.iter().sum::<usize>() * 3;
    assert!(pair.table.bytes() >= payload && pair.table.bytes() < payload + payload / 4);
}

#[test]
fn entries_in_any_order_of_trailers_agree_with_the_model() {
    let mut random = Random(14);
    let keys = numbered(40, "key");
    let mut trailers: Vec<u64> = (0..scaled(10_000) as u64).collect();
    for i in (1..trailers.len()).rev() {
        trailers.swap(i, random.below(i + 1));
    }
    let mut pair = Pair::new();
    for &trailer in &trailers {
        let key = &keys[random.below(keys.len())];
        pair.insert(key, trailer, &trailer.to_le_bytes());
        if random.below(50) == 0 {
            pair.check_visit(&keys[random.below(keys.len())], random.next() % 10_000);
        }
    }
    pair.check_all();
    for key in &keys {
        pair.check_visit(key, u64::MAX);
    }
}

#[test]
fn visiting_stops_when_told() {
    let table = Memtable::new(MemtableAccount::uncounted());
    for trailer in 1..=500 {
        table.insert(b"k", trailer, [b"", b"v"]);
    }
    let mut seen = Vec::new();
    let flow = table.visit(b"k", 400, |trailer, _| {
        seen.push(trailer);
        if seen.len() == 200 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    assert!(flow.is_break());
    assert_eq!(seen, (201..=400).rev().collect::<Vec<_>>());
}

#[test]
fn a_cursor_keeps_the_memtable_and_goes_to_another_thread() {
    let table = Arc::new(Memtable::new(MemtableAccount::uncounted()));
    table.insert(b"k", 1, [b"a", b"b"]);
    let mut cursor = table.cursor();
    drop(table);
    let value = std::thread::spawn(move || {
        cursor.first().unwrap();
        cursor.value().to_vec()
    });
    assert_eq!(value.join().unwrap(), b"ab");
}

#[test]
fn range_tombstones_are_found_after_each_change() {
    let table = Memtable::new(MemtableAccount::uncounted());
    table.insert_range_tombstone(b"b", b"b", 1);
    table.insert_range_tombstone(b"c", b"b", 2);
    assert!(table.is_empty() && table.range_tombstones().is_none());
    table.insert_range_tombstone(b"b", b"f", 3);
    assert!(!table.is_empty() && table.entries() == 0);
    let first = table.range_tombstones().expect("there is one");
    assert_eq!(first.covering(b"c", 9), Some(3));
    let again = table.range_tombstones().expect("there is one");
    assert!(Arc::ptr_eq(&first, &again), "built once");
    table.insert_range_tombstone(b"c", b"d", 5);
    let second = table.range_tombstones().expect("there are two");
    assert_eq!(second.covering(b"c", 9), Some(5));
    assert_eq!(second.covering(b"c", 4), Some(3));
    assert_eq!(
        first.covering(b"c", 9),
        Some(3),
        "the old ones stay as they were"
    );
    assert_eq!(table.range_tombstone_list().len(), 2);
    assert!(table.bytes() > 0);
}

#[test]
fn small_memtables_are_small() {
    let table = Memtable::new(MemtableAccount::uncounted());
    let mut before = 0;
    for trailer in 0..10 {
        table.insert(&[trailer as u8; 10], trailer, [b"", b"value"]);
        assert!(table.bytes() > before, "grows with every insert");
        before = table.bytes();
    }
    assert!(before < 1024, "{before}");
}

#[test]
fn memory_beside_the_entries_is_bounded() {
    if cfg!(miri) {
        return;
    }
    let mut random = Random(15);
    let value = [0; 100];
    let count = 100_000;
    let shuffled = Memtable::new(MemtableAccount::uncounted());
    let ascending = Memtable::new(MemtableAccount::uncounted());
    for i in 0..count as u64 {
        let key = [random.next().to_be_bytes(), i.to_be_bytes()].concat();
        shuffled.insert(&key, i, [&[], &value]);
        ascending.insert(&[[0; 8], i.to_be_bytes()].concat(), i, [&[], &value]);
    }
    let overhead = |table: &Memtable| table.bytes() / count - 116;
    assert!(overhead(&shuffled) < 50, "{}", overhead(&shuffled));
    assert!(overhead(&ascending) < 40, "{}", overhead(&ascending));
}
