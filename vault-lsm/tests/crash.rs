//! Loss of power and end of the process at every file operation of a workload.
//!
//! For every n the workload runs until its nth file operation; what a crash there can leave is opened,
//! compared with the model, and put to work again. What is promised:
//! - what is recovered is the state after some prefix of the commits, batches and ingests whole;
//! - after a loss of power it holds everything acknowledged as durable: `Sync` writes, and what came
//!   before a `sync`, flush, ingest, checkpoint, drop of a keyspace or close that succeeded;
//! - after the end of the process it holds everything acknowledged.
//!
//! By default every 7th operation is visited. `VAULT_SWEEP=full cargo test --test crash` visits all, and
//! crashes at every operation of every recovery too.

mod sweep;

use vault_core::vfs::{CrashPolicy, MemoryFileSystem};

use sweep::run::{exercise, recover, run};
use sweep::{open, workload};

const ROUNDS: u64 = 44;

const POLICIES: [(CrashPolicy, u64); 4] = [
    (CrashPolicy::DropUnsynced, 0),
    (CrashPolicy::KeepUnsynced, 0),
    (CrashPolicy::Random { percent: 50 }, 1),
    (CrashPolicy::Random { percent: 50 }, 2),
];

fn full() -> bool {
    std::env::var_os("VAULT_SWEEP").is_some_and(|value| value == "full")
}

fn operations() -> u64 {
    let fs = MemoryFileSystem::new();
    let (account, error) = run(&fs, &workload(ROUNDS));
    assert!(error.is_none(), "{error:?}");
    drop(account.store);
    fs.operations()
}

#[test]
fn power_is_lost_at_every_operation() {
    let (operations, stride) = (operations(), if full() { 1 } else { 7 });
    let steps = workload(ROUNDS);
    let mut recovered = 0;
    for n in (0..=operations).step_by(stride) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(n));
        let (account, _) = run(&fs, &steps);
        for (policy, seed) in POLICIES {
            let context = format!("power lost at {n}, {policy:?} with seed {seed}");
            let after = fs.crash(seed + n, policy);
            let (store, _) = recover(&after, &account, account.durable, &context);
            exercise(store, &after, &context);
            recovered += 1;
        }
    }
    println!("{operations} operations, {recovered} recoveries");
}

#[test]
fn power_is_lost_again_while_recovering() {
    let (operations, stride) = (operations(), if full() { 3 } else { 97 });
    let steps = workload(ROUNDS);
    let mut recovered = 0;
    for n in (0..=operations).step_by(stride) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(n));
        let (account, _) = run(&fs, &steps);
        for (policy, seed) in POLICIES {
            let once = fs.crash(seed + n, policy);
            for m in 0.. {
                let again = once.kill();
                again.set_crash_point(Some(m));
                let opened = open(&again);
                if opened.is_ok() {
                    break;
                }
                let (policy, seed) = POLICIES[(m % 4) as usize];
                let context = format!("power lost at {n}, and at {m} of the recovery, {policy:?}");
                let twice = again.crash(seed + m, policy);
                // And a third time, a little further on.
                let thrice = twice.kill();
                thrice.set_crash_point(Some(m / 2 + 3));
                drop(open(&thrice));
                let thrice = thrice.crash(m, policy);
                for left in [twice, thrice] {
                    let (store, _) = recover(&left, &account, account.durable, &context);
                    if m % 5 == 0 {
                        exercise(store, &left, &context);
                    }
                    recovered += 1;
                }
            }
        }
    }
    println!("{operations} operations, {recovered} recoveries");
}

#[test]
fn the_process_ends_at_every_operation() {
    let (operations, stride) = (operations(), if full() { 1 } else { 5 });
    let steps = workload(ROUNDS);
    for n in (0..=operations).step_by(stride) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(n));
        let (account, _) = run(&fs, &steps);
        let context = format!("killed at {n}");
        let after = fs.kill();
        let (store, _) = recover(&after, &account, account.acknowledged, &context);
        exercise(store, &after, &context);
    }
}
