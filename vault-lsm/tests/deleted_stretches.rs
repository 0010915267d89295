//! Stretches of deleted keys, which readers pass over by what others have found: whatever is written into them afterwards, and
//! by whoever, is seen by those who come later, and by nobody who came before.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use support::{DIRECTORY, key, manual, protected, small_keyspace, value};
use vault_core::random::SeededRandom;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Engine, KeyRange, KeyspaceId, Reader, Snapshot, WriteBatch, WriteOptions};
use vault_lsm::{Lsm, LsmOptions};

const KEYS: u64 = 600;

type Model = BTreeMap<u64, u64>;

/// A store beside a map that says what must be in it.
struct Compared {
    store: Lsm,
    ks: KeyspaceId,
    model: Model,
    held: Vec<(Arc<dyn Snapshot>, Model)>,
    random: SeededRandom,
    version: u64,
}

impl Compared {
    fn below(&self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    /// Neighbouring keys, many or few.
    fn stretch(&self) -> std::ops::Range<u64> {
        let long = [4, 40, 300][self.below(3) as usize];
        let begin = self.below(KEYS);
        begin..(begin + 1 + self.below(long)).min(KEYS)
    }

    fn step(&mut self) {
        let (ks, options) = (self.ks, WriteOptions::OS);
        self.version += 1;
        match self.below(20) {
            0..=3 => {
                for number in self.stretch() {
                    self.store.delete(ks, &key(number), &options).unwrap();
                    self.model.remove(&number);
                }
            }
            4 => {
                let stretch = self.stretch();
                let mut batch = WriteBatch::new();
                batch.delete_range(ks, &key(stretch.start), &key(stretch.end));
                self.store.write(&batch, &options).unwrap();
                self.model.retain(|number, _| !stretch.contains(number));
            }
            5..=9 => {
                let number = self.below(KEYS);
                let value = value(number, self.version);
                self.store.put(ks, &key(number), &value, &options).unwrap();
                self.model.insert(number, self.version);
            }
            10 => {
                let stretch = self.stretch();
                let version = self.version;
                let pairs = stretch.clone().map(|n| (key(n), value(n, version)));
                self.store.ingest(ks, pairs).unwrap();
                self.model.extend(stretch.map(|number| (number, version)));
            }
            11 => self.store.flush(None).unwrap(),
            12 => while self.store.background_step().unwrap() {},
            13 => {
                if self.held.len() >= 3 {
                    let oldest = self.below(3) as usize;
                    self.held.remove(oldest);
                }
                let snapshot = self.store.snapshot().unwrap();
                self.held.push((snapshot, self.model.clone()));
            }
            _ => {
                let number = self.below(KEYS);
                check(&self.store, ks, &self.model, number);
                for (snapshot, model) in &self.held {
                    check(&**snapshot, ks, model, number);
                }
            }
        }
    }
}

/// Looks from a key in both directions, and three entries on.
fn check(reader: &dyn Reader, ks: KeyspaceId, model: &Model, from: u64) {
    let mut cursor = reader.cursor(ks, KeyRange::all()).unwrap();
    cursor.seek(&key(from)).unwrap();
    let mut expected = model.range(from..);
    for _ in 0..3 {
        let entry = expected
            .next()
            .map(|(&n, &version)| (key(n), value(n, version)));
        let found = cursor.entry().map(|(k, v)| (k.to_vec(), v.to_vec()));
        assert_eq!(
            found,
            entry.map(|(k, v)| (k.to_vec(), v)),
            "forward from {from}"
        );
        cursor.next().unwrap();
    }
    cursor.seek_back(&key(from)).unwrap();
    let mut expected = model.range(..=from).rev();
    for _ in 0..3 {
        let entry = expected
            .next()
            .map(|(&n, &version)| (key(n), value(n, version)));
        let found = cursor.entry().map(|(k, v)| (k.to_vec(), v.to_vec()));
        assert_eq!(
            found,
            entry.map(|(k, v)| (k.to_vec(), v)),
            "backward from {from}"
        );
        cursor.prev().unwrap();
    }
}

#[test]
fn cursors_agree_with_a_model_across_stretches_that_come_and_go() {
    for seed in 0..12 {
        let store = Lsm::open(DIRECTORY, manual(&MemoryFileSystem::new())).unwrap();
        let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
        let mut compared = Compared {
            store,
            ks,
            model: Model::new(),
            held: Vec::new(),
            random: SeededRandom::new(seed),
            version: 0,
        };
        for number in 0..KEYS {
            let options = WriteOptions::OS;
            let put = compared
                .store
                .put(ks, &key(number), &value(number, 0), &options);
            put.unwrap();
            compared.model.insert(number, 0);
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..600).for_each(|_| compared.step());
        }));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

/// A writer fills a stretch from the middle, key by key, and says each time how far it is; readers, who leave word of what was
/// deleted as fast as they can, must find every key of which that was said.
#[test]
fn what_is_written_into_a_stretch_is_never_passed_over() {
    const ROUNDS: u64 = 10;
    let directory = tempfile::tempdir().unwrap();
    let store = Lsm::open(directory.path(), protected(LsmOptions::default())).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    // Round and key, in one word, so that they are read together.
    let written = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let read = |backward: bool| {
        while !done.load(Ordering::Acquire) {
            let said = written.load(Ordering::Acquire);
            let (round, number) = (said / KEYS, said % KEYS);
            let mut cursor = store.cursor(ks, KeyRange::all()).unwrap();
            if backward {
                cursor.seek_back(&key(KEYS)).unwrap();
            } else {
                cursor.seek(&key(0)).unwrap();
            }
            let found = cursor.entry().map(|(k, _)| k.to_vec());
            // Only while that round went on is it certain that nobody has deleted it again.
            if number > 0 && written.load(Ordering::Acquire) / KEYS == round {
                let found = found.unwrap_or_else(|| panic!("{number} was there"));
                let right = if backward {
                    found >= key(number).to_vec()
                } else {
                    found <= key(KEYS / 2).to_vec()
                };
                assert!(right, "round {round}: {found:?}, and {number} was there");
            }
        }
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(|| read(false)), scope.spawn(|| read(true))];
        for round in 0..ROUNDS {
            for number in KEYS / 2..KEYS {
                let value = value(number, round);
                store
                    .put(ks, &key(number), &value, &WriteOptions::OS)
                    .unwrap();
                written.store(round * KEYS + number, Ordering::Release);
            }
            // Nothing is promised from here on until the next round.
            written.store((round + 1) * KEYS, Ordering::Release);
            for number in 0..KEYS {
                store.delete(ks, &key(number), &WriteOptions::OS).unwrap();
            }
        }
        done.store(true, Ordering::Release);
        readers.map(|reader| reader.join().unwrap())
    });
}
