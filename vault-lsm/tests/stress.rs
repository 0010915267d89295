//! Everything at once, on a real directory: writers, readers that check what must always hold, flushes,
//! compactions, checkpoints and snapshots, for about two seconds; and then every key, again after reopening.
//!
//! The invariant: money is moved between accounts, two at a time in one batch, so the sum over all accounts
//! is the same at every moment, in every snapshot, and in every checkpoint.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use support::{TWO_THREADS, key, protected, small_keyspace, small_settings};
use vault_core::clock::SystemClock;
use vault_core::merge::COUNTER;
use vault_core::random::SeededRandom;
use vault_core::{
    Clock, CompactionPolicy, Engine, KeyRange, KeyspaceId, Reader, WriteBatch, WriteOptions,
};
use vault_lsm::{Lsm, LsmOptions};

const ACCOUNTS: u64 = 500;
const EACH: u64 = 1_000;
const RUNNING: Duration = Duration::from_secs(2);
/// How long it goes on where the machine is busy with other things, and not everything has had its turn.
const RUNNING_MAX: Duration = Duration::from_secs(120);
/// Turns that each reader, and the operator, must have had.
const READS_MIN: u64 = 20;
const OPERATIONS_MIN: u64 = 5;
const MOVES_MIN: u64 = 1_000;

/// An amount, padded so that memtables fill quickly.
fn amount(of: u64, salt: u64) -> Vec<u8> {
    let mut bytes = support::value(salt, of);
    bytes[..8].copy_from_slice(&of.to_le_bytes());
    bytes
}

fn read_amount(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().expect("an amount"))
}

/// Checks the sum over all accounts by a scan, forwards or backwards.
fn check_sum(reader: &dyn Reader, ks: KeyspaceId, backwards: bool) {
    let scan = reader.scan(ks, KeyRange::all()).unwrap();
    let amounts: Vec<u64> = if backwards {
        scan.rev()
            .map(|entry| read_amount(&entry.unwrap().1))
            .collect()
    } else {
        scan.map(|entry| read_amount(&entry.unwrap().1)).collect()
    };
    assert_eq!(amounts.len() as u64, ACCOUNTS);
    assert_eq!(amounts.iter().sum::<u64>(), ACCOUNTS * EACH);
}

struct Bank<'a> {
    store: &'a Lsm,
    accounts: KeyspaceId,
    counts: KeyspaceId,
    /// Moves are made one at a time: the engine has no transactions of its own.
    moving: Mutex<()>,
    moved: AtomicU64,
    /// Turns of each reader, and of the operator.
    reads: [AtomicU64; 3],
    operations: AtomicU64,
    done: AtomicBool,
}

impl Bank<'_> {
    fn goes_on(&self) -> bool {
        !self.done.load(Ordering::Acquire)
    }

    fn has_done_enough(&self) -> bool {
        let reads = self.reads.iter().map(|turns| turns.load(Ordering::Acquire));
        reads.min() > Some(READS_MIN)
            && self.operations.load(Ordering::Acquire) >= OPERATIONS_MIN
            && self.moved.load(Ordering::Acquire) > MOVES_MIN
    }

    fn move_money(&self, seed: u64) {
        let random = SeededRandom::new(seed);
        while self.goes_on() {
            let (from, to) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
            if from == to {
                continue;
            }
            let moving = self.moving.lock().unwrap();
            let of = |account| {
                let value = self.store.get(self.accounts, &key(account)).unwrap();
                read_amount(&value.expect("accounts are never closed"))
            };
            let (rich, poor) = (of(from), of(to));
            let sum = random.below(rich + 1);
            let mut batch = WriteBatch::new();
            batch
                .put(self.accounts, &key(from), &amount(rich - sum, seed))
                .put(self.accounts, &key(to), &amount(poor + sum, seed))
                .merge(self.counts, b"moves", &1_i64.to_le_bytes());
            let options = if sum.is_multiple_of(64) {
                WriteOptions::SYNC
            } else {
                WriteOptions::OS
            };
            self.store.write(&batch, &options).unwrap();
            self.moved.fetch_add(1, Ordering::AcqRel);
            drop(moving);
        }
    }

    /// Reads, each time in another way.
    fn read(&self, seed: u64) {
        let mut rounds = 0;
        while self.goes_on() {
            match (seed + rounds) % 4 {
                0 => check_sum(self.store, self.accounts, rounds % 8 < 4),
                1 => {
                    let snapshot = self.store.snapshot().unwrap();
                    check_sum(&*snapshot, self.accounts, false);
                    std::thread::yield_now();
                    check_sum(&*snapshot, self.accounts, true);
                }
                2 => {
                    let keys: Vec<Vec<u8>> = (0..ACCOUNTS).map(key).collect();
                    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                    let found = self.store.multi_get(self.accounts, &keys).unwrap();
                    let sum: u64 = found.iter().map(|v| read_amount(v.as_ref().unwrap())).sum();
                    assert_eq!(sum, ACCOUNTS * EACH, "all at one moment");
                }
                _ => {
                    let before = self.moved.load(Ordering::Acquire);
                    let counted = self.store.get(self.counts, b"moves").unwrap();
                    let counted = counted.map_or(0, |value| read_amount(&value));
                    assert!(counted >= before, "what was acknowledged is seen");
                }
            }
            rounds += 1;
            self.reads[seed as usize].store(rounds, Ordering::Release);
        }
    }

    /// What an operator does: flushes, compacts, takes checkpoints, asks for reports.
    fn operate(&self, copies: &Path) {
        let mut rounds = 0;
        while self.goes_on() {
            match rounds % 4 {
                0 => self.store.flush(None).unwrap(),
                1 => {
                    let range = KeyRange::new(key(100)..key(300));
                    let compacted = self
                        .store
                        .compact(self.accounts, range, &mut |_| ControlFlow::Continue(()));
                    compacted.unwrap();
                }
                2 => {
                    let path = copies.join(rounds.to_string());
                    self.store.checkpoint(&path).unwrap();
                    let copy = Lsm::open(&path, options()).unwrap();
                    check_sum(&copy, self.accounts, false);
                }
                _ => {
                    let report = self.store.explain_space().unwrap();
                    assert!(report.total_bytes > 0);
                    self.store.stats().unwrap();
                }
            }
            rounds += 1;
            self.operations.store(rounds, Ordering::Release);
        }
    }
}

fn options() -> LsmOptions {
    protected(LsmOptions::new(small_settings(TWO_THREADS)))
}

#[test]
fn the_sum_never_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Lsm::open(&path, options()).unwrap();
    let policy = CompactionPolicy::Leveled {
        level0_runs: 3,
        base_bytes: 64 << 10,
        fanout: 4,
    };
    let accounts = store
        .create_keyspace("accounts", &small_keyspace().policy(policy))
        .unwrap();
    let tiered = small_keyspace()
        .policy(CompactionPolicy::TIERED)
        .merge(COUNTER);
    let counts = store.create_keyspace("counts", &tiered).unwrap();
    let mut batch = WriteBatch::new();
    for account in 0..ACCOUNTS {
        batch.put(accounts, &key(account), &amount(EACH, 0));
    }
    store.write(&batch, &WriteOptions::SYNC).unwrap();
    let bank = Bank {
        store: &store,
        accounts,
        counts,
        moving: Mutex::new(()),
        moved: AtomicU64::new(0),
        reads: Default::default(),
        operations: AtomicU64::new(0),
        done: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let bank = &bank;
        let copies = directory.path().join("copies");
        let movers: Vec<_> = (1..=2)
            .map(|seed| scope.spawn(move || bank.move_money(seed)))
            .collect();
        let readers: Vec<_> = (0..3)
            .map(|seed| scope.spawn(move || bank.read(seed)))
            .collect();
        let operator = scope.spawn(move || bank.operate(&copies));
        let threads_run =
            || !readers.iter().any(ScopedJoinHandle::is_finished) && !operator.is_finished();
        let clock = SystemClock::new();
        let goes_on = || {
            let ran = clock.monotonic();
            ran < RUNNING || (ran < RUNNING_MAX && !bank.has_done_enough())
        };
        // A thread that ends early has panicked: then there is nothing to wait for.
        while goes_on() && threads_run() {
            clock.sleep(Duration::from_millis(20));
        }
        bank.done.store(true, Ordering::Release);
        movers.into_iter().for_each(|mover| mover.join().unwrap());
        readers
            .into_iter()
            .for_each(|reader| reader.join().unwrap());
        operator.join().unwrap();
    });
    assert!(bank.has_done_enough(), "too little was done at once");
    let moved = bank.moved.load(Ordering::Acquire);
    let stats = store.stats().unwrap();
    assert!(stats.background.flushes > 5 && stats.background.compactions > 2);
    assert_eq!(stats.background.failures, 0);
    let check = |store: &Lsm| {
        check_sum(store, accounts, false);
        let counted = store.get(counts, b"moves").unwrap().unwrap();
        assert_eq!(read_amount(&counted), moved);
    };
    check(&store);
    store.settle().unwrap();
    check(&store);
    store.close().unwrap();
    check(&Lsm::open(&path, options()).unwrap());
}
