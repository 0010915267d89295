//! Batches that several threads write one after the other, numbered, and what must be there of them whenever
//! the store stops at some moment of its history: of each thread a prefix, each batch whole over both
//! keyspaces, and with each batch those of another thread that were acknowledged before it began.
#![allow(unused, reason = "each test binary uses a part of this")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vault_core::{CompactionPolicy, Engine, KeyspaceId, Reader, WriteBatch, WriteOptions};
use vault_lsm::Lsm;

use super::{contents, small_keyspace, value};

/// Threads that write. Every other one asks for `Sync`.
pub(crate) const THREADS: u64 = 4;
/// Entries of a batch in each of the two keyspaces.
const PARTS: u64 = 3;
/// How many of a thread's last batches are kept; older ones are deleted by the batch that follows.
const KEPT: u64 = 40;

/// The last batch of each thread.
pub(crate) type Batches = [u64; THREADS as usize];

/// Those who write.
pub(crate) struct Writers {
    pub(crate) keyspaces: (KeyspaceId, KeyspaceId),
    /// The last batch of each thread that was acknowledged.
    pub(crate) acknowledged: [AtomicU64; THREADS as usize],
}

impl Writers {
    pub(crate) fn new(store: &Lsm) -> Self {
        let tiered = small_keyspace().policy(CompactionPolicy::TIERED);
        let one = store
            .create_keyspace("one", &small_keyspace())
            .expect("the store is open");
        let two = store
            .create_keyspace("two", &tiered)
            .expect("the store is open");
        let last = |thread| AtomicU64::new(number(store, two, &last_key(thread as u64)));
        Self {
            keyspaces: (one, two),
            acknowledged: std::array::from_fn(last),
        }
    }

    /// Writes one batch after the other: its entries, its number, what was acknowledged to another thread,
    /// and the deletion of what is too old.
    pub(crate) fn write(
        &self,
        store: &Lsm,
        thread: u64,
        stop: &AtomicBool,
        acknowledge: impl Fn(u64),
    ) {
        let (one, two) = self.keyspaces;
        let mine = &self.acknowledged[thread as usize];
        let others = &self.acknowledged[other(thread) as usize];
        let durability = [WriteOptions::OS, WriteOptions::SYNC];
        for number in mine.load(Ordering::Acquire) + 1.. {
            if stop.load(Ordering::Acquire) {
                return;
            }
            let seen = others.load(Ordering::Acquire);
            let mut batch = WriteBatch::new();
            for part in 0..PARTS {
                let (key, value) = entry(thread, number, part);
                batch.put(one, &key, &value).put(two, &key, &value);
            }
            if let Some(old) = number.checked_sub(KEPT).filter(|&old| old > 0) {
                for part in 0..PARTS {
                    batch.delete(one, &entry(thread, old, part).0);
                }
                batch.delete_prefix(two, format!("{thread}/{old:08}/").as_bytes());
            }
            batch.put(one, &seen_key(thread), &seen.to_be_bytes());
            batch.put(two, &last_key(thread), &number.to_be_bytes());
            let written = store.write(&batch, &durability[thread as usize % 2]);
            written.expect("nothing hinders this write");
            mine.store(number, Ordering::Release);
            acknowledge(number);
        }
    }
}

/// Checks that the store holds, of each thread, exactly the batches up to some number that is no lower
/// than the one acknowledged. Gives these numbers.
pub(crate) fn check(store: &Lsm, acknowledged: &Batches, context: &str) -> Batches {
    let keyspace = |name| store.keyspace(name).expect("the store is open");
    let (Some(one), Some(two)) = (keyspace("one"), keyspace("two")) else {
        let none = Batches::default();
        assert_eq!(*acknowledged, none, "{context}: the keyspaces are gone");
        return none;
    };
    let found = std::array::from_fn(|thread| number(store, two, &last_key(thread as u64)));
    let mut expected = [BTreeMap::new(), BTreeMap::new()];
    for thread in 0..THREADS {
        let last = found[thread as usize];
        let promised = acknowledged[thread as usize];
        assert!(
            last >= promised,
            "{context}: thread {thread} was told that batch {promised} is safe, and {last} is there"
        );
        for batch in (last + 1).saturating_sub(KEPT).max(1)..=last {
            for part in 0..PARTS {
                let (key, value) = entry(thread, batch, part);
                expected[0].insert(key.clone(), value.clone());
                expected[1].insert(key, value);
            }
        }
        if last > 0 {
            let seen = number(store, one, &seen_key(thread));
            let there = found[other(thread) as usize];
            assert!(
                there >= seen,
                "{context}: batch {last} of thread {thread} is there, and began after batch {seen} of \
                 thread {}, of which only {there} are",
                other(thread)
            );
            expected[0].insert(seen_key(thread), seen.to_be_bytes().to_vec());
            expected[1].insert(last_key(thread), last.to_be_bytes().to_vec());
        }
    }
    for (id, expected) in [one, two].into_iter().zip(expected) {
        let contents = contents(store, id);
        let missing = expected.keys().find(|key| !contents.contains_key(*key));
        let surplus = contents.keys().find(|key| !expected.contains_key(*key));
        let text = |key: Option<&Vec<u8>>| key.map(|key| key.escape_ascii().to_string());
        assert!(
            contents == expected,
            "{context}: {found:?}: missing {:?}, too many {:?}",
            text(missing),
            text(surplus)
        );
    }
    found
}

/// The thread whose batches this one looks at.
const fn other(thread: u64) -> u64 {
    (thread + 1) % THREADS
}

fn number(store: &Lsm, keyspace: KeyspaceId, key: &[u8]) -> u64 {
    let found = store.get(keyspace, key).expect("nothing is damaged");
    found.map_or(0, |bytes| {
        u64::from_be_bytes(bytes[..].try_into().expect("a number is there"))
    })
}

fn entry(thread: u64, batch: u64, part: u64) -> (Vec<u8>, Vec<u8>) {
    let key = format!("{thread}/{batch:08}/{part}").into_bytes();
    (key, value(batch * PARTS + part, thread))
}

fn last_key(thread: u64) -> Vec<u8> {
    format!("{thread}/last").into_bytes()
}

fn seen_key(thread: u64) -> Vec<u8> {
    format!("{thread}/seen").into_bytes()
}
