//! The whole engine, its background threads included, on random schedules.
//!
//! The [`bank`](super::bank) is open while snapshots, scans, flushes, compactions, checkpoints, an ingest and
//! a drop go on.
//!
//! Background threads that wait for work never time out here (`sync/shuttle.rs`). A wake that was forgotten
//! shows, where outside of models the timeout would mend it.
//!
//! Each schedule follows from a seed: `cargo xtask models --seed N --schedules M` runs others, and more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ::shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use ::shuttle::{Config, MaxSteps, Runner};
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Durability, Engine, Error, KeyRange, WriteOptions};

use super::bank::{ACCOUNTS, Bank, EACH, Place, amount, key, run, sum};
use super::tally::{Tally, expect_failure};
use crate::sync::{Break, break_in, thread};

/// Random schedules of each model, and as many by priorities that change at a few random steps. (Burckhardt
/// et al., "A randomized scheduler with probabilistic guarantees of finding bugs", 2010.)
const SCHEDULES: u64 = 500;
/// Steps at which the second kind changes priorities.
const CHANGES: usize = 3;
/// Accesses in one execution, at most: more are an endless loop.
const STEPS_MAX: usize = 200_000;
const STACK_BYTES: usize = 1 << 20;
const MOVES: u64 = 6;

pub(super) fn place() -> Place {
    Place {
        fs: Arc::new(MemoryFileSystem::new()),
        directory: PathBuf::from("/"),
        cache_bytes: 64 << 10,
        moves: MOVES,
    }
}

/// A number that can be set from outside.
fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

pub(super) fn holds(name: &str, model: fn()) {
    let seed = variable("VAULT_MODELS_SEED", 1);
    let schedules = variable("VAULT_MODELS_SCHEDULES", SCHEDULES) as usize;
    let tally = Tally::begin();
    let random = RandomScheduler::new_from_seed(seed, schedules);
    explore(&tally, random, model);
    let by_priority = PctScheduler::new_from_seed(seed, CHANGES, schedules);
    explore(&tally, by_priority, model);
    tally.print(name, &format!("holds (seed {seed})"));
}

/// As [`holds`], of a model that is broken.
pub(super) fn fails(name: &str, with: &str, model: fn()) {
    let tally = Tally::begin();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        explore(
            &tally,
            RandomScheduler::new_from_seed(1, SCHEDULES as usize),
            model,
        );
    }));
    expect_failure(outcome, with);
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
        run(&place(), &works, 2);
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
            run(&place(), &works, 1);
        },
    );
}

/// What a thread does until the store is closed.
type Work = fn(&Bank) -> Result<(), Error>;

#[test]
fn closing_beside_everything() {
    holds("engine: closing beside everything", || {
        let place = place();
        let bank = Arc::new(Bank::open(&place));
        let works: [Work; 4] = [
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
        let again = place.open();
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
        run(&place(), &[|bank| bank.move_on(0, Durability::Os), look], 1);
    });
}

#[test]
fn background_threads_that_are_not_woken() {
    break_in("background.rs", Break::LoseAll);
    let name = "engine: broken, nobody wakes the background threads";
    fails(name, "max_steps", || {
        run(&place(), &[|bank| bank.move_on(0, Durability::Os)], 1);
    });
}
