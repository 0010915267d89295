//! Loss of power and end of the process at every file operation of a workload of vaults: entries, transactions, expiry, and
//! vaults that are cleared, renamed, copied and deleted.
//!
//! What is opened after a crash must be what some prefix of the steps made, with everything acknowledged; and every count
//! must be exact: keys, bytes and expiring entries as a scan finds them.
//!
//! With debug assertions a slice of the operations is visited, else, or with `VAULT_SWEEP=full`, all.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a sweep says how much it has covered, or ends"
)]

mod workload;

use std::sync::Arc;

use vault_core::clock::ManualClock;
use vault_core::vfs::{CrashPolicy, MemoryFileSystem};
use vault_db::{Database, Timestamp};

use workload::{Account, Contents, check_counts, contents, open, run};

const STEPS: usize = 200;

fn stride() -> usize {
    match std::env::var("VAULT_SWEEP").as_deref() {
        Ok("full") => 1,
        _ if cfg!(debug_assertions) => 17,
        _ => 1,
    }
}

/// Opens what a crash left, and holds it against the steps that were taken.
fn recover(
    fs: &MemoryFileSystem,
    account: &Account,
    acknowledged: usize,
    context: &str,
) -> Database {
    let clock = Arc::new(ManualClock::new(account.now));
    let db = open(fs, &clock).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = contents(&db);
    // The step that the crash hit may have taken effect or not.
    let allowed = &account.states[acknowledged..];
    let at = allowed
        .iter()
        .position(|state| state.visible_at(account.now) == found);
    assert!(
        at.is_some(),
        "{context}: found {found:#?}, after {acknowledged} of {} steps: {:#?}",
        account.states.len(),
        allowed.first().map(|state| state.visible_at(account.now)),
    );
    check_counts(&db, context);
    db
}

fn sweep(seed: u64, crash: impl Fn(&MemoryFileSystem, u64) -> Vec<(String, MemoryFileSystem)>) {
    let whole = MemoryFileSystem::new();
    let account = run(&whole, seed, STEPS);
    assert!(account.error.is_none(), "{:?}", account.error);
    drop(account);
    let operations = whole.operations();
    let mut recovered = 0;
    for n in (0..=operations).step_by(stride()) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(n));
        let account = run(&fs, seed, STEPS);
        for (how, after) in crash(&fs, n) {
            let context = format!("seed {seed}, {how} at {n}");
            let db = recover(&after, &account, account.acknowledged, &context);
            // It goes on.
            db.vault("afterwards").unwrap().put("works", &1).unwrap();
            check_counts(&db, &context);
            recovered += 1;
        }
    }
    println!("{operations} operations, {recovered} recoveries");
}

#[test]
fn power_is_lost_at_every_operation() {
    for seed in [1, 2, 5, 6] {
        sweep(seed, |fs, n| {
            let policies = [
                CrashPolicy::DropUnsynced,
                CrashPolicy::KeepUnsynced,
                CrashPolicy::Random { percent: 50 },
            ];
            let crashed = |policy| (format!("{policy:?}"), fs.crash(n, policy));
            policies.into_iter().map(crashed).collect()
        });
    }
}

#[test]
fn the_process_ends_at_every_operation() {
    sweep(3, |fs, _| vec![("killed".to_owned(), fs.kill())]);
}

/// What a model says of no crash at all.
#[test]
fn without_a_crash_everything_is_there() {
    let fs = MemoryFileSystem::new();
    let account = run(&fs, 4, 600);
    assert!(account.error.is_none(), "{:?}", account.error);
    let expected: Contents = account.states.last().unwrap().visible_at(account.now);
    let db = recover(&fs.kill(), &account, account.states.len() - 1, "no crash");
    assert_eq!(contents(&db), expected);
    assert!(account.now > Timestamp(0) && !expected.is_empty());
}
