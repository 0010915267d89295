//! The whole engine, its background threads included, on random schedules.
//!
//! Writers move amounts between accounts in two keyspaces while snapshots, scans, flushes, compactions,
//! checkpoints, an ingest and a drop go on. The sum over all accounts is the same in every snapshot, what
//! was acknowledged is found, and the store ends: it settles, closes, and opens again with all of it.
//!
//! Background threads that wait for work never time out here (`sync/shuttle.rs`). A wake that was forgotten
//! shows, where outside of models the timeout would mend it.
//!
//! Each schedule follows from a seed: `VAULT_MODELS_SEED` sets the first one.
#![expect(clippy::unwrap_used, reason = "a model fails by panicking")]

use std::ops::{ControlFlow, Deref};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ::shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use ::shuttle::{Config, MaxSteps, Runner};
use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{
    CompactionPolicy, Durability, Engine, Error, KeyRange, KeyspaceId, KeyspaceOptions, Reader,
    Timestamp, WriteBatch, WriteOptions,
};

use super::Tally;
use crate::sync::{Break, break_in, thread};
use crate::{BackgroundWork, Lsm, LsmOptions, Settings};

/// Random schedules of each model, and as many by priorities that change at a few random steps. (Burckhardt
/// et al., "A randomized scheduler with probabilistic guarantees of finding bugs", 2010.)
const SCHEDULES: usize = 500;
/// Steps at which the second kind changes priorities.
const CHANGES: usize = 3;
/// Accesses in one execution, at most: more are an endless loop.
const STEPS_MAX: usize = 200_000;
const STACK_BYTES: usize = 1 << 20;

const ACCOUNTS: u64 = 4;
const EACH: u64 = 100;
const MOVES: u64 = 6;
/// So long that three or four moves fill a memtable.
const VALUE_BYTES: usize = 700;

struct Bank {
    fs: MemoryFileSystem,
    lsm: Lsm,
    left: KeyspaceId,
    right: KeyspaceId,
}

const DIRECTORY: &str = "/store";

fn options(fs: &MemoryFileSystem) -> LsmOptions {
    let settings = Settings {
        background: BackgroundWork::Threads { compaction: 1 },
        cache_bytes: 64 << 10,
        table_metadata_bytes: 64 << 10,
        log_segment_bytes: Some(64 << 10),
        ..Settings::default()
    };
    LsmOptions::new(settings)
        .file_system(Arc::new(fs.clone()))
        .clock(Arc::new(ManualClock::new(Timestamp(1_000))))
        .random(Arc::new(SeededRandom::new(1)))
}

fn open(fs: &MemoryFileSystem) -> Lsm {
    Lsm::open(DIRECTORY, options(fs)).unwrap()
}

fn small_keyspace() -> KeyspaceOptions {
    let options = KeyspaceOptions {
        write_buffer_bytes: 4 << 10,
        table_bytes: 4 << 10,
        block_bytes: 1 << 10,
        ..KeyspaceOptions::default()
    };
    options.policy(CompactionPolicy::Leveled {
        level0_runs: 2,
        base_bytes: 8 << 10,
        fanout: 2,
    })
}

fn key(account: u64) -> [u8; 8] {
    account.to_be_bytes()
}

fn amount(of: u64) -> Vec<u8> {
    let mut value = of.to_le_bytes().to_vec();
    value.resize(VALUE_BYTES, of as u8);
    value
}

fn read_amount(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

fn sum(reader: &dyn Reader, keyspaces: &[KeyspaceId], backwards: bool) -> u64 {
    let mut sum = 0;
    for &keyspace in keyspaces {
        let scan = reader.scan(keyspace, KeyRange::all()).unwrap();
        let amounts: Vec<u64> = if backwards {
            scan.rev().map(|e| read_amount(&e.unwrap().1)).collect()
        } else {
            scan.map(|e| read_amount(&e.unwrap().1)).collect()
        };
        assert_eq!(amounts.len() as u64, ACCOUNTS);
        sum += amounts.iter().sum::<u64>();
    }
    sum
}

impl Bank {
    fn open(fs: &MemoryFileSystem) -> Self {
        let lsm = open(fs);
        let [left, right] =
            ["left", "right"].map(|name| lsm.create_keyspace(name, &small_keyspace()).unwrap());
        let mut batch = WriteBatch::new();
        for account in 0..ACCOUNTS {
            batch.put(left, &key(account), &amount(EACH));
            batch.put(right, &key(account), &amount(EACH));
        }
        lsm.write(&batch, &WriteOptions::default()).unwrap();
        let fs = fs.clone();
        Self {
            fs,
            lsm,
            left,
            right,
        }
    }

    /// Moves one from left to right, over and over. Each writer has an account of its own.
    fn move_on(&self, account: u64, durability: Durability) {
        let options = WriteOptions {
            durability: Some(durability),
            ..WriteOptions::default()
        };
        for moved in 1..=MOVES {
            let mut batch = WriteBatch::new();
            batch.put(self.left, &key(account), &amount(EACH - moved));
            batch.put(self.right, &key(account), &amount(EACH + moved));
            self.lsm.write(&batch, &options).unwrap();
            let found = self.lsm.get(self.left, &key(account)).unwrap().unwrap();
            assert_eq!(read_amount(&found), EACH - moved, "an acknowledged write");
        }
    }

    fn check_snapshots(&self) {
        for round in 0..6 {
            let snapshot = self.lsm.snapshot().unwrap();
            for backwards in [false, true] {
                let sum = sum(&*snapshot, &[self.left, self.right], backwards);
                assert_eq!(
                    sum,
                    2 * ACCOUNTS * EACH,
                    "round {round}, backwards: {backwards}"
                );
            }
        }
    }

    fn compact(&self) {
        let all = KeyRange::all();
        self.lsm.flush(None).unwrap();
        self.lsm
            .compact(self.left, all, &mut |_| ControlFlow::Continue(()))
            .unwrap();
    }

    /// A checkpoint is a store of its own, of one moment.
    fn check_checkpoint(&self) {
        self.lsm.checkpoint("/checkpoint").unwrap();
        let copy = Lsm::open_read_only("/checkpoint", &options(&self.fs)).unwrap();
        assert_eq!(
            sum(&copy, &[self.left, self.right], false),
            2 * ACCOUNTS * EACH
        );
        copy.close().unwrap();
    }

    /// A keyspace of its own, filled past the log. A snapshot still reads it after it was dropped.
    fn create_ingest_and_drop(&self) {
        let keyspace = self
            .lsm
            .create_keyspace("other", &small_keyspace())
            .unwrap();
        let pairs = (0..ACCOUNTS).map(|account| (key(account), amount(EACH)));
        self.lsm.ingest(keyspace, pairs).unwrap();
        let options = WriteOptions::default();
        self.lsm
            .put(keyspace, &key(0), &amount(EACH), &options)
            .unwrap();
        let snapshot = self.lsm.snapshot().unwrap();
        self.lsm.drop_keyspace(keyspace).unwrap();
        for _ in 0..2 {
            assert_eq!(sum(&*snapshot, &[keyspace], false), ACCOUNTS * EACH);
        }
    }

    fn check_after_all(&self, writers: u64) {
        for account in 0..writers {
            let found = self.lsm.get(self.right, &key(account)).unwrap().unwrap();
            assert_eq!(read_amount(&found), EACH + MOVES, "an acknowledged write");
        }
        let both = [self.left, self.right];
        assert_eq!(sum(&self.lsm, &both, false), 2 * ACCOUNTS * EACH);
    }
}

/// Runs each of `works` in a thread of its own, then checks that the store ends well.
fn run(works: &[fn(&Bank)], writers: u64) {
    let fs = MemoryFileSystem::new();
    let bank = Arc::new(Bank::open(&fs));
    let threads: Vec<_> = works
        .iter()
        .map(|&work| {
            let bank = Arc::clone(&bank);
            thread::spawn(move || work(&bank))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    bank.check_after_all(writers);
    bank.lsm.settle().unwrap();
    bank.check_after_all(writers);
    assert!(
        bank.lsm.stats().unwrap().background.flushes > 0,
        "memtables are too large"
    );
    bank.lsm.close().unwrap();
    let again = Bank {
        fs: fs.clone(),
        lsm: open(&fs),
        left: bank.left,
        right: bank.right,
    };
    again.check_after_all(writers);
    again.lsm.close().unwrap();
}

fn first_seed() -> u64 {
    std::env::var("VAULT_MODELS_SEED").map_or(1, |seed| seed.parse().expect("a number"))
}

fn holds(name: &str, model: fn()) {
    let seed = first_seed();
    let tally = Tally::begin();
    explore(
        &tally,
        RandomScheduler::new_from_seed(seed, SCHEDULES),
        model,
    );
    explore(
        &tally,
        PctScheduler::new_from_seed(seed, CHANGES, SCHEDULES),
        model,
    );
    tally.print(name, &format!("holds (seed {seed})"));
}

/// As [`holds`], of a model that is broken.
fn fails(name: &str, with: &str, model: fn()) {
    let tally = Tally::begin();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        explore(&tally, RandomScheduler::new_from_seed(1, SCHEDULES), model);
    }));
    super::expect_failure(outcome, with);
    tally.print(name, "fails, as it must");
}

fn explore(tally: &Tally, scheduler: impl Scheduler + 'static, model: fn()) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    let executions = Arc::clone(&tally.executions);
    Runner::new(scheduler, config).run(move || {
        executions.fetch_add(1, Relaxed);
        model();
    });
}

#[test]
fn moves_beside_snapshots_and_compactions() {
    holds("engine: moves, snapshots, compactions", || {
        let works: [fn(&Bank); 4] = [
            |bank| bank.move_on(0, Durability::Os),
            |bank| bank.move_on(1, Durability::Sync),
            Bank::check_snapshots,
            Bank::compact,
        ];
        run(&works, 2);
    });
}

#[test]
fn moves_beside_checkpoints_and_keyspaces_that_come_and_go() {
    holds(
        "engine: moves, checkpoints, keyspaces that come and go",
        || {
            let works: [fn(&Bank); 4] = [
                |bank| bank.move_on(0, Durability::Os),
                Bank::check_checkpoint,
                Bank::create_ingest_and_drop,
                Bank::check_snapshots,
            ];
            run(&works, 1);
        },
    );
}

#[test]
fn closing_beside_everything() {
    holds("engine: closing beside everything", || {
        let fs = MemoryFileSystem::new();
        let bank = Arc::new(Bank::open(&fs));
        let works: [fn(&Bank) -> Result<(), Error>; 4] = [
            |bank| bank.lsm.close(),
            |bank| {
                let value = amount(EACH);
                let options = WriteOptions::default();
                (0..8).try_for_each(|account| {
                    let account = account % ACCOUNTS;
                    let put = bank.lsm.put(bank.left, &key(account), &value, &options);
                    put.map(drop)
                })
            },
            |bank| {
                let snapshot = bank.lsm.snapshot()?;
                let mut scan = snapshot.scan(bank.left, KeyRange::all())?;
                scan.try_for_each(|entry| entry.map(drop))
            },
            |bank| bank.lsm.flush(None),
        ];
        let threads = works.map(|work| {
            let bank = Arc::clone(&bank);
            thread::spawn(move || match work(&bank) {
                Ok(()) | Err(Error::Closed) => {}
                Err(error) => panic!("closing showed as {error}"),
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        let again = open(&fs);
        assert_eq!(sum(&again, &[bank.left], false), ACCOUNTS * EACH);
        again.close().unwrap();
    });
}

#[test]
fn two_reads_without_a_snapshot() {
    let name = "engine: broken, readers take no snapshot";
    fails(name, "what one moment shows", || {
        let look: fn(&Bank) = |bank| {
            for _ in 0..2 * MOVES {
                let left = sum(&bank.lsm, &[bank.left], false);
                let right = sum(&bank.lsm, &[bank.right], false);
                assert_eq!(left + right, 2 * ACCOUNTS * EACH, "what one moment shows");
            }
        };
        run(&[|bank| bank.move_on(0, Durability::Os), look], 1);
    });
}

#[test]
fn background_threads_that_are_not_woken() {
    break_in("background.rs", Break::LoseAll);
    let name = "engine: broken, nobody wakes the background threads";
    fails(name, "max_steps", || {
        run(&[|bank| bank.move_on(0, Durability::Os)], 1);
    });
}
