//! The data of the long run: keyspaces of several kinds, values of many sizes, overwritten and deleted; and
//! what must be there at its end, without a copy of it.

use std::ops::Range;

use vault_core::{
    CompactionPolicy, Compression, Engine, KeyspaceId, KeyspaceOptions, Reader, WriteBatch,
    WriteOptions,
};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

/// Keys of each keyspace are written this often on average.
const WRITES_A_KEY: u64 = 3;
/// One key in so many is deleted with its last write.
const DELETED_EVERY: u64 = 17;
/// Bytes of all writes for each number that is written, on average, at least.
const BYTES_A_NUMBER: u64 = 1000;

pub(crate) const MIB: u64 = 1 << 20;

/// How the store is opened, and how much is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) budget: u64,
    pub(crate) bytes: u64,
}

impl Scale {
    pub(crate) fn options(&self) -> LsmOptions {
        LsmOptions::new(Settings {
            memory_bytes: self.budget,
            background: BackgroundWork::Threads { compaction: 2 },
            ..Settings::default()
        })
    }

    /// Keys of each keyspace.
    pub(crate) fn keys(&self) -> u64 {
        self.writes() / WRITES_A_KEY
    }

    /// Writes to each keyspace.
    pub(crate) fn writes(&self) -> u64 {
        self.bytes / BYTES_A_NUMBER / KEYSPACES.len() as u64
    }

    /// The largest value: as large as the budget allows, up to 1 MiB.
    fn value_max(&self) -> usize {
        (self.budget / 64).min(MIB) as usize
    }
}

const KEYSPACES: [(&str, Compression, CompactionPolicy); 4] = [
    ("plain", Compression::None, CompactionPolicy::LEVELED),
    ("leveled", Compression::Lz4, SMALL_LEVELS),
    ("tiered", Compression::Lz4, CompactionPolicy::TIERED),
    ("small", Compression::Lz4, CompactionPolicy::LEVELED),
];
/// Levels of which even the short run fills several.
const SMALL_LEVELS: CompactionPolicy = CompactionPolicy::Leveled {
    level0_runs: 4,
    base_bytes: 16 << 20,
    fanout: 8,
};

/// The keyspaces, created where they are missing.
pub(crate) fn keyspaces(store: &Lsm) -> Vec<KeyspaceId> {
    let create = |&(name, compression, policy): &(&str, Compression, CompactionPolicy)| {
        let options = KeyspaceOptions {
            compression,
            table_bytes: if name == "small" { 1 << 20 } else { 64 << 20 },
            ..KeyspaceOptions::default().policy(policy)
        };
        store.create_keyspace(name, &options).unwrap()
    };
    KEYSPACES.iter().map(create).collect()
}

/// Keys come in no order, and fit into ten bytes and a few more.
pub(crate) fn key(index: u64) -> Vec<u8> {
    format!("{:016x}-{index}", mix(index)).into_bytes()
}

fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The value of a write: mostly some hundred bytes, some of many KiB, a few as large as allowed. Half of it
/// compresses.
pub(crate) fn value(write: u64, scale: &Scale) -> Vec<u8> {
    let random = mix(!write);
    let max = scale.value_max();
    let len = match random % 10_000 {
        0..2 => max - (random >> 20) as usize % (max / 2),
        2..200 => 4096 + (random >> 20) as usize % 32768,
        _ => 64 + (random >> 20) as usize % 1024,
    };
    let mut bytes = Vec::with_capacity(len + 16);
    bytes.extend_from_slice(&write.to_le_bytes());
    let mut x = random;
    while bytes.len() < len {
        x = mix(x);
        bytes.extend_from_slice(&x.to_le_bytes());
        bytes.extend_from_slice(&[7; 8]);
    }
    bytes.truncate(len.max(8));
    bytes
}

/// Writes everything, in batches of many sizes, from one thread for each half of the keyspaces.
pub(crate) fn write_all(store: &Lsm, scale: &Scale) {
    let keyspaces = keyspaces(store);
    std::thread::scope(|scope| {
        for half in keyspaces.chunks(2) {
            scope.spawn(move || write_part(store, half, scale));
        }
    });
}

fn write_part(store: &Lsm, keyspaces: &[KeyspaceId], scale: &Scale) {
    let keys = scale.keys();
    let mut batch = WriteBatch::new();
    for write in 0..scale.writes() {
        let index = write % keys;
        let (key, value) = (key(index), value(write, scale));
        for &keyspace in keyspaces {
            if last_write(index, scale) == write && index.is_multiple_of(DELETED_EVERY) {
                batch.delete(keyspace, &key);
            } else {
                batch.put(keyspace, &key, &value);
            }
        }
        let room = 1 + mix(write / 64) % 100;
        if batch.len() as u64 >= room || batch.encoded().len() as u64 > MIB / 2 {
            store.write(&batch, &WriteOptions::OS).unwrap();
            batch.clear();
        }
    }
    store.write(&batch, &WriteOptions::OS).unwrap();
}

fn last_write(index: u64, scale: &Scale) -> u64 {
    let (keys, writes) = (scale.keys(), scale.writes());
    index + (writes - 1 - index) / keys * keys
}

/// Whether `found` is what must stand under a key at the end.
pub(crate) fn is_right(index: u64, found: Option<&[u8]>, scale: &Scale) -> bool {
    if index.is_multiple_of(DELETED_EVERY) {
        return found.is_none();
    }
    found == Some(&value(last_write(index, scale), scale))
}

/// The number of keys that are there at the end.
pub(crate) fn keys_left(scale: &Scale) -> u64 {
    scale.keys() - scale.keys().div_ceil(DELETED_EVERY)
}

/// Looks random keys up.
pub(crate) fn read_some(store: &Lsm, scale: &Scale, range: Range<u64>) {
    for keyspace in keyspaces(store) {
        for number in range.clone() {
            let index = mix(number) % scale.keys();
            let found = store.get(keyspace, &key(index)).unwrap();
            assert!(
                is_right(index, found.as_deref(), scale),
                "key {index} of {keyspace:?}: {:?} bytes found",
                found.map(|found| found.len())
            );
        }
    }
}

/// The number of the key, as it stands behind its hash.
pub(crate) fn index_of(key: &[u8]) -> u64 {
    let text = std::str::from_utf8(&key[17..]).unwrap();
    text.parse().unwrap()
}
