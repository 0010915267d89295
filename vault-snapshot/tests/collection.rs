//! The collection of blob files against a simulated keyspace: values that are written, overwritten and deleted, tables that
//! point to them, and the rewriting of tables that the policy asks for. What is copied and what is kept stay within the bounds
//! that the module promises, and whenever writes stop, so does the collection.

use std::collections::{BTreeMap, BTreeSet};

use vault_snapshot::collection::{
    BlobShape, Blobs, GARBAGE_PERCENT_MAX, JOINED_MIN, PointingTable, choose, file_bytes,
};

const VALUE_BYTES: u64 = 64;
const FLUSH_VALUES: u64 = 100;
/// What a pointer takes in a table, next to a value.
const POINTERS_PER_VALUE: u64 = 64;

/// A number that looks random, from another.
fn scrambled(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A keyspace whose merges keep up: every key has one version, in the table of its range.
struct Keyspace {
    keys: u64,
    tables: u64,
    /// The file of each key's value.
    values: BTreeMap<u64, u64>,
    /// Bytes that were written to each file.
    files: BTreeMap<u64, u64>,
    busy: BTreeSet<u64>,
    /// 0: no file is short.
    table_bytes: u64,
    next: u64,
    written: u64,
    copied: u64,
    rewritten: u64,
}

impl Keyspace {
    fn new(keys: u64, tables: u64) -> Self {
        Self {
            keys,
            tables,
            values: BTreeMap::new(),
            files: BTreeMap::new(),
            busy: BTreeSet::new(),
            table_bytes: 0,
            next: 1000,
            written: 0,
            copied: 0,
            rewritten: 0,
        }
    }

    fn table_of(&self, key: u64) -> u64 {
        key * self.tables / self.keys
    }

    fn flush(&mut self, keys: impl Iterator<Item = u64>) {
        let file = self.next;
        self.next += 1;
        for key in keys {
            self.values.insert(key, file);
            *self.files.entry(file).or_default() += VALUE_BYTES;
            self.written += VALUE_BYTES;
        }
        self.drop_unused();
    }

    fn drop_unused(&mut self) {
        let used: BTreeSet<u64> = self.values.values().copied().collect();
        self.files.retain(|file, _| used.contains(file));
    }

    fn shape(&self) -> Blobs {
        let mut live: BTreeMap<u64, u64> = BTreeMap::new();
        let mut uses: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
        let mut entries: BTreeMap<u64, u64> = BTreeMap::new();
        for (&key, &file) in &self.values {
            let table = self.table_of(key);
            *live.entry(file).or_default() += VALUE_BYTES;
            *uses.entry(table).or_default().entry(file).or_default() += VALUE_BYTES;
            *entries.entry(table).or_default() += 1;
        }
        Blobs {
            files: self
                .files
                .iter()
                .map(|(&number, &bytes)| BlobShape {
                    number,
                    bytes,
                    live: live.get(&number).copied().unwrap_or(0),
                    kept: false,
                })
                .collect(),
            tables: uses
                .into_iter()
                .map(|(number, uses)| PointingTable {
                    number,
                    bytes: entries[&number] * VALUE_BYTES / POINTERS_PER_VALUE,
                    uses: uses.into_iter().collect(),
                    busy: self.busy.contains(&number),
                })
                .collect(),
            table_bytes: self.table_bytes,
        }
    }

    /// Does what the policy asks for once; gives whether it asked.
    fn step(&mut self) -> bool {
        let shape = self.shape();
        let Some(collection) = choose(&shape) else {
            return false;
        };
        assert!(!collection.files.is_empty());
        let joined = collection.files.len() >= JOINED_MIN;
        for number in &collection.files {
            let file = shape.files.iter().find(|file| file.number == *number);
            let file = file.expect("a file of the keyspace");
            let is_won = file.live < file.bytes || joined;
            assert!(is_won, "nothing to be won from {file:?}");
        }
        let Some(table) = collection.table else {
            return false;
        };
        assert!(!self.busy.contains(&table), "a busy table was chosen");
        let file = self.next;
        self.next += 1;
        let (tables, keys) = (self.tables, self.keys);
        let mut moved = 0;
        let mut entries = 0;
        for (&key, place) in &mut self.values {
            if key * tables / keys != table {
                continue;
            }
            entries += 1;
            if collection.files.contains(place) {
                *place = file;
                moved += VALUE_BYTES;
            }
        }
        assert!(moved > 0, "table {table} was rewritten for nothing");
        self.files.insert(file, moved);
        self.copied += moved;
        self.rewritten += entries * VALUE_BYTES / POINTERS_PER_VALUE;
        self.drop_unused();
        true
    }

    fn settle(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 100_000, "it never comes to rest");
        }
    }

    fn bytes(&self) -> u64 {
        self.files.values().sum()
    }

    fn live(&self) -> u64 {
        self.values.len() as u64 * VALUE_BYTES
    }
}

/// Fills a keyspace, then overwrites it `times` over with keys that `choose_key` gives.
fn overwritten(tables: u64, times: u64, choose_key: impl Fn(u64) -> u64) -> Keyspace {
    const KEYS: u64 = 4000;
    let mut keyspace = Keyspace::new(KEYS, tables);
    for flush in 0..KEYS / FLUSH_VALUES {
        keyspace.flush((0..FLUSH_VALUES).map(|n| flush * FLUSH_VALUES + n));
    }
    (keyspace.written, keyspace.copied, keyspace.rewritten) = (0, 0, 0);
    for flush in 0..times * KEYS / FLUSH_VALUES {
        let keys = (0..FLUSH_VALUES).map(|n| choose_key(flush * FLUSH_VALUES + n) % KEYS);
        keyspace.flush(keys.collect::<BTreeSet<_>>().into_iter());
        keyspace.settle();
        let (bytes, live) = (keyspace.bytes(), keyspace.live());
        let most = live * 100 / (100 - GARBAGE_PERCENT_MAX) + FLUSH_VALUES * VALUE_BYTES;
        assert!(bytes <= most, "{bytes} bytes for {live} that are live");
    }
    keyspace
}

/// Bytes written for each that callers gave, the log included, with values half as large when compressed.
fn amplification(keyspace: &Keyspace) -> f64 {
    let part = |bytes: u64| bytes as f64 / keyspace.written as f64;
    1.0 + 0.5 * (1.0 + part(keyspace.copied) + part(keyspace.rewritten))
}

#[test]
fn uniform_overwrites_cost_less_than_twice_what_is_written() {
    for tables in [1, 4, 16] {
        let keyspace = overwritten(tables, 12, scrambled);
        let cost = amplification(&keyspace);
        assert!(cost < 2.0, "{cost} with {tables} tables");
    }
}

#[test]
fn skewed_overwrites_cost_less_than_uniform_ones() {
    // Nine in ten go to a tenth of the keys.
    let skewed = |n| {
        let key = scrambled(n);
        if key.is_multiple_of(10) {
            key / 10
        } else {
            key / 10 % 400
        }
    };
    let cost = amplification(&overwritten(4, 12, skewed));
    assert!(
        cost < amplification(&overwritten(4, 12, scrambled)),
        "{cost}"
    );
}

#[test]
fn overwrites_in_order_copy_hardly_anything() {
    let keyspace = overwritten(4, 6, |n| n);
    assert!(
        keyspace.copied * 20 < keyspace.written,
        "{}",
        keyspace.copied
    );
}

#[test]
fn deletes_free_what_they_leave() {
    let mut keyspace = overwritten(8, 2, scrambled);
    for round in 0..40 {
        keyspace
            .values
            .retain(|&key, _| !scrambled(key * 64 + round).is_multiple_of(8));
        keyspace.drop_unused();
        keyspace.settle();
        assert!(keyspace.bytes() * (100 - GARBAGE_PERCENT_MAX) <= 100 * keyspace.live().max(1));
    }
    keyspace.values.clear();
    keyspace.drop_unused();
    assert_eq!((keyspace.bytes(), choose(&keyspace.shape())), (0, None));
}

#[test]
fn busy_tables_are_left_alone_and_what_is_merged_meanwhile_knows_the_files() {
    let mut keyspace = overwritten(4, 2, scrambled);
    keyspace.values.retain(|&key, _| key % 2 == 0);
    keyspace.busy = (0..4).collect();
    let collection = choose(&keyspace.shape()).expect("half of all is garbage");
    assert_eq!(collection.table, None);
    assert!(!collection.files.is_empty());
    keyspace.busy.remove(&2);
    assert_eq!(choose(&keyspace.shape()).and_then(|c| c.table), Some(2));
}

#[test]
fn pressure_rises_with_garbage_and_never_stops_writers() {
    let blobs = |live| Blobs {
        files: vec![BlobShape {
            number: 1,
            bytes: 100,
            live,
            kept: false,
        }],
        ..Blobs::default()
    };
    assert_eq!(Blobs::default().pressure(), 0.0);
    assert_eq!(blobs(100).pressure(), 0.0);
    assert_eq!(blobs(70).pressure(), 0.0);
    assert!((0.4..0.7).contains(&blobs(50).pressure()));
    assert!((1.5..2.0).contains(&blobs(0).pressure()));
}

/// A few large values among many small ones: every table points into the files, and to rewrite all of them would cost a
/// hundred times what it frees.
#[test]
fn tables_are_not_rewritten_for_little() {
    let mixed = |table_bytes| Blobs {
        files: vec![BlobShape {
            number: 1,
            bytes: 100,
            live: 10,
            kept: false,
        }],
        tables: (10..20)
            .map(|number| PointingTable {
                number,
                bytes: table_bytes,
                uses: vec![(1, 1)],
                busy: false,
            })
            .collect(),
        table_bytes: 0,
    };
    // 90 bytes of garbage: worth 360 of tables.
    assert_eq!(choose(&mixed(37)), None);
    assert_eq!(mixed(37).pressure(), 0.0);
    assert!(choose(&mixed(36)).is_some());
    assert!(mixed(36).pressure() > 1.0);
}

#[test]
fn files_are_short_where_there_is_little_and_bounded_where_there_is_much() {
    const MIB: u64 = 1 << 20;
    assert_eq!(file_bytes(0, 64 * MIB), 64 * MIB);
    assert_eq!(file_bytes(64 * 100 * MIB, 64 * MIB), 100 * MIB);
    assert_eq!(file_bytes(u64::MAX, 64 * MIB), 1024 * MIB);
}

/// A checkpoint every few minutes, or a pause after each burst: each flush makes a file of a few values. There are never many, and
/// each value is copied a few times at most.
#[test]
fn short_files_are_joined() {
    for tables in [1, 4] {
        let mut keyspace = Keyspace::new(6_000, tables);
        keyspace.table_bytes = 1 << 20;
        let mut most = 0;
        for flush in 0..3_000_u64 {
            // Two new keys, anywhere.
            keyspace.flush(
                [2 * flush, 2 * flush + 1]
                    .map(|n| n * 7_919 % 6_000)
                    .into_iter(),
            );
            keyspace.settle();
            most = most.max(keyspace.files.len());
        }
        assert_eq!(keyspace.values.len(), 6_000);
        let copies = keyspace.copied as f64 / keyspace.written as f64;
        assert!(most < 200, "{most} files with {tables} tables");
        assert!(copies < 5.0, "{copies} copies with {tables} tables");
    }
}

/// Where each short file is pointed into by tables of its own, nothing would be won by rewriting them; nor is what cannot be
/// read joined, nor a file that is as long as others are when they end.
#[test]
fn files_are_joined_only_where_that_makes_fewer() {
    let blobs = |bytes: u64, kept: bool, tables: u64, table_bytes: u64| Blobs {
        files: (0..64)
            .map(|number| BlobShape {
                number,
                bytes,
                live: bytes,
                kept,
            })
            .collect(),
        tables: (0..tables)
            .map(|table| PointingTable {
                number: 100 + table,
                bytes: table_bytes,
                uses: (0..64)
                    .filter(|file| file % tables == table)
                    .map(|file| (file, bytes))
                    .collect(),
                busy: false,
            })
            .collect(),
        table_bytes: 8_000,
    };
    let joined = choose(&blobs(1_000, false, 2, 100)).expect("64 short files");
    assert_eq!((joined.files.len(), joined.table), (64, Some(101)));
    assert_eq!(choose(&blobs(1_001, false, 2, 100)), None, "long");
    assert_eq!(choose(&blobs(1_000, true, 2, 100)), None, "kept");
    assert_eq!(choose(&blobs(1_000, false, 32, 100)), None, "apart");
    let dear = 4 * 32 * 1_000;
    assert!(choose(&blobs(1_000, false, 2, dear)).is_some());
    assert_eq!(choose(&blobs(1_000, false, 2, dear + 1)), None, "dear");
    let mut busy = blobs(1_000, false, 1, 100);
    busy.tables[0].busy = true;
    assert_eq!(choose(&busy), None);
    let mut few = blobs(1_000, false, 1, 100);
    few.files.truncate(JOINED_MIN - 1);
    assert_eq!(choose(&few), None);
}
