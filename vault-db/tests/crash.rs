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
use std::time::Duration;

use vault_core::clock::ManualClock;
use vault_core::vfs::{CrashPolicy, MemoryFileSystem};
use vault_db::{Database, Durability, ImportMode, ImportOptions, Result, Timestamp};

use workload::{Account, Contents, check_counts, contents, open, run};

const STEPS: usize = 200;

fn stride() -> usize {
    match std::env::var("VAULT_SWEEP").as_deref() {
        Ok("full") => 1,
        _ if cfg!(debug_assertions) => 5,
        _ => 1,
    }
}

/// Opens what a crash left, and holds it against the steps that were taken, of which so many must have been kept.
fn recover(fs: &MemoryFileSystem, account: &Account, kept: usize, context: &str) -> Database {
    let clock = Arc::new(ManualClock::new(account.now));
    let db =
        open(fs, &clock, Durability::Sync).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = contents(&db);
    // The step that the crash hit may have taken effect or not.
    let allowed = &account.states[kept..];
    let at = allowed
        .iter()
        .position(|state| state.visible_at(account.now) == found);
    assert!(
        at.is_some(),
        "{context}: found {found:#?}, after {kept} of {} steps: {:#?}",
        account.states.len(),
        allowed.first().map(|state| state.visible_at(account.now)),
    );
    check_counts(&db, context);
    db
}

fn sweep(
    seed: u64,
    durability: Durability,
    crash: impl Fn(&MemoryFileSystem, u64) -> Vec<(String, MemoryFileSystem)>,
) {
    let whole = MemoryFileSystem::new();
    let account = run(&whole, seed, STEPS, durability);
    assert!(account.error.is_none(), "{:?}", account.error);
    drop(account);
    let operations = whole.operations();
    let mut recovered = 0;
    for n in (0..=operations).step_by(stride()) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(n));
        let account = run(&fs, seed, STEPS, durability);
        // Without syncs, what is left is what some prefix made, however short.
        let kept = match durability {
            Durability::Sync => account.acknowledged,
            Durability::Os => 0,
        };
        for (how, after) in crash(&fs, n) {
            let context = format!("seed {seed}, {how} at {n}");
            let db = recover(&after, &account, kept, &context);
            // It goes on.
            db.vault("afterwards").unwrap().put("works", &1).unwrap();
            check_counts(&db, &context);
            recovered += 1;
        }
    }
    println!("{operations} operations, {recovered} recoveries");
}

fn power_loss(fs: &MemoryFileSystem, n: u64) -> Vec<(String, MemoryFileSystem)> {
    let policies = [
        CrashPolicy::DropUnsynced,
        CrashPolicy::KeepUnsynced,
        CrashPolicy::Random { percent: 50 },
    ];
    let crashed = |policy| (format!("{policy:?}"), fs.crash(n, policy));
    policies.into_iter().map(crashed).collect()
}

#[test]
fn power_is_lost_at_every_operation() {
    for seed in [1, 2, 5, 6] {
        sweep(seed, Durability::Sync, power_loss);
    }
}

#[test]
fn power_is_lost_where_writes_wait_for_no_disk() {
    for seed in [7, 8] {
        sweep(seed, Durability::Os, power_loss);
    }
}

#[test]
fn the_process_ends_at_every_operation() {
    sweep(3, Durability::Sync, |fs, _| {
        vec![("killed".to_owned(), fs.kill())]
    });
}

/// What a model says of no crash at all.
#[test]
fn without_a_crash_everything_is_there() {
    let fs = MemoryFileSystem::new();
    let account = run(&fs, 4, 600, Durability::Sync);
    assert!(account.error.is_none(), "{:?}", account.error);
    let expected: Contents = account.states.last().unwrap().visible_at(account.now);
    let db = recover(&fs.kill(), &account, account.states.len() - 1, "no crash");
    assert_eq!(contents(&db), expected);
    assert!(account.now > Timestamp(0) && !expected.is_empty());
}

/// An import that is too large to be merged as one commit writes the vault anew: a crash leaves it as it was, or whole.
#[test]
fn power_is_lost_at_every_operation_of_a_large_merge() {
    const LARGE: usize = 400_000;
    let value = "x".repeat(LARGE);
    let lines: String = (5..15)
        .map(|n| format!("{{\"key\":\"key {n:02}\",\"value\":\"{value}\"}}\n"))
        .collect();
    let text = format!("{{\"format\":\"vault-jsonl-v1\"}}\n{lines}{{\"entries\":10}}\n");
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let options = ImportOptions {
        mode: ImportMode::Merge,
    };
    let run = |fs: &MemoryFileSystem| -> Result<()> {
        let db = open(fs, &clock, Durability::Sync)?;
        let vault = db.vault("v")?;
        vault.update((0..10).map(|n| (format!("key {n:02}"), n.to_string())))?;
        vault.put_for("expires", "1", Duration::from_secs(60))?;
        // From here on, the rest is the import.
        db.import("v", text.as_bytes(), &options).map(drop)
    };
    let look = |db: &Database| -> Vec<(String, usize)> {
        let Ok(vault) = db.existing_vault("v") else {
            return Vec::new();
        };
        let items = vault.items::<String, String>().unwrap();
        let items: Vec<_> = items
            .map(|item| item.unwrap())
            .map(|(key, value)| (key, value.len()))
            .collect();
        let (info, bytes) = (vault.info().unwrap(), items.iter());
        let bytes: usize = bytes.map(|(key, value)| key.len() + value).sum();
        assert_eq!(info.keys, items.len() as u64);
        assert!((bytes as u64..bytes as u64 + 30 * info.keys + 1).contains(&info.bytes));
        items
    };
    let whole = MemoryFileSystem::new();
    run(&whole).unwrap();
    let merged = look(&open(&whole.kill(), &clock, Durability::Sync).unwrap());
    assert_eq!(merged.len(), 16);
    let stride = if cfg!(debug_assertions) { 7 } else { 2 };
    for n in (0..=whole.operations()).rev().step_by(stride) {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(n));
        let done = run(&fs).is_ok();
        for (how, after) in power_loss(&fs, n) {
            let db = open(&after, &clock, Durability::Sync).unwrap();
            let found = look(&db);
            let context = format!("{how} at {n}: {found:?}");
            assert!([0, 10, 11, 16].contains(&found.len()), "{context}");
            let large = found.iter().filter(|(_, value)| *value == LARGE).count();
            assert_eq!(large, if found.len() == 16 { 10 } else { 0 }, "{context}");
            assert!(!done || found == merged, "{context}");
            let keyspaces = db.engine().keyspaces().unwrap();
            let of_vaults = keyspaces
                .iter()
                .filter(|info| info.name.starts_with("vault.v"));
            assert_eq!(of_vaults.count(), db.vaults().len(), "{context}");
        }
    }
}
