//! What the data layer costs over the engine below it, and how long it takes to list vaults.
//!
//! `cargo bench -p vault-bench --bench layer` measures: reads of one vault, by the engine, as raw bytes and as values, and what
//! noting an access takes of one; then, on a store of 10 million entries, how long 1,000 vaults with all that is known of them take
//! to be listed. As a test it does the same on small numbers, and holds against each other what was written and what is read.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints what it measures, and ends where it cannot go on"
)]

use std::hint::black_box;
use std::time::Duration;

use vault_core::random::SeededRandom;
use vault_core::{Clock, SystemClock};
use vault_db::{Database, Durability, Vault};

/// How much is measured.
struct Plan {
    /// Entries of the vault that is read.
    entries: u64,
    /// Reads of a round.
    reads: u64,
    rounds: usize,
    /// Vaults that are listed.
    vaults: u64,
    entries_each: u64,
}

const MEASURED: Plan = Plan {
    entries: 200_000,
    reads: 200_000,
    rounds: 15,
    vaults: 1_000,
    entries_each: 10_000,
};

const TRIED: Plan = Plan {
    entries: 500,
    reads: 100,
    rounds: 2,
    vaults: 10,
    entries_each: 20,
};

const VALUE: [u8; 100] = [7; 100];

fn main() {
    let plan = match std::env::args().any(|argument| argument == "--bench") {
        true => MEASURED,
        false => TRIED,
    };
    let clock = SystemClock::new();
    reads(&plan, &clock);
    listing(&plan, &clock);
}

fn open(directory: &std::path::Path) -> Database {
    Database::builder()
        .durability(Durability::Os)
        .memory_bytes(1 << 30)
        .open(directory)
        .unwrap()
}

/// On the disk that everything is built on: a temporary directory may be in memory.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A way to read, by its name.
type Way<'a> = (&'static str, Box<dyn FnMut() + 'a>);

fn reads(plan: &Plan, clock: &SystemClock) {
    let directory = directory();
    let db = open(directory.path());
    let (raw, typed) = (db.vault("raw").unwrap(), db.vault("typed").unwrap());
    for n in 0..plan.entries {
        raw.put_raw(n, &VALUE).unwrap();
        typed
            .put(n, &(n, true, "a small struct of several fields"))
            .unwrap();
    }
    db.engine().flush(None).unwrap();
    let keyspace = db.engine().keyspace("vault.v1").unwrap().unwrap();
    let random = SeededRandom::new(1);
    let keys: Vec<u64> = (0..plan.reads)
        .map(|_| random.below(plan.entries))
        .collect();
    let encoded: Vec<Vec<u8>> = keys.iter().map(encode).collect();
    let note = |vault: &Vault| vault_db::benching::note_reads(vault, &encoded[0], plan.reads);
    let mut ways: [Way<'_>; 4] = [
        (
            "engine, get",
            Box::new(|| {
                for key in &encoded {
                    let found = db.engine().get(keyspace, key).unwrap().unwrap();
                    // Whoever reads a value looks at it: that is a line of memory that is not in the processor's cache yet.
                    assert_eq!(black_box(found[1]), VALUE[0]);
                }
            }),
        ),
        (
            "vault, get_raw",
            Box::new(|| {
                for &key in &keys {
                    let found = raw.get_raw(key).unwrap().unwrap();
                    assert_eq!(black_box(found[0]), VALUE[0]);
                }
            }),
        ),
        (
            "vault, get of a small struct",
            Box::new(|| {
                for &key in &keys {
                    let found = typed.get::<(u64, bool, String)>(key).unwrap();
                    assert_eq!(black_box(found).unwrap().0, key);
                }
            }),
        ),
        ("noting an access alone", Box::new(|| note(&raw))),
    ];
    // In turns, so that whatever else the machine does meets all of them.
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..plan.rounds {
        for (times, (_, run)) in times.iter_mut().zip(&mut ways) {
            times.push(time(clock, run));
        }
    }
    let each: Vec<f64> = times
        .iter_mut()
        .map(|times| median(times).as_secs_f64() * 1e9 / plan.reads as f64)
        .collect();
    for ((name, _), nanoseconds) in ways.iter().zip(&each) {
        let share = 100.0 * nanoseconds / each[0];
        println!("{name}: {nanoseconds:.0} ns, {share:.1} % of the engine's get");
    }
    println!(
        "noting an access: {:.1} % of a get_raw, {:.1} % of a get",
        100.0 * each[3] / each[1],
        100.0 * each[3] / each[2]
    );
    drop(ways);
    let stats = raw.stats().unwrap();
    assert_eq!(stats.reads, 2 * plan.reads * plan.rounds as u64);
}

/// A key as a vault encodes it.
fn encode(key: &u64) -> Vec<u8> {
    let mut out = Vec::new();
    vault_db::EncodeKey::encode_key(key, &mut out).unwrap();
    out
}

fn listing(plan: &Plan, clock: &SystemClock) {
    let directory = directory();
    let db = open(directory.path());
    let filled = time(clock, &mut || {
        for n in 0..plan.vaults {
            let vault = db.vault(&format!("vault {n:04}")).unwrap();
            vault
                .set_tags([format!("tag {}", n % 7), "every".to_owned()])
                .unwrap();
            vault.describe(Some("one of many")).unwrap();
            vault
                .update((0..plan.entries_each).map(|k| (k, k)))
                .unwrap();
        }
    });
    let total = plan.vaults * plan.entries_each;
    println!(
        "{total} entries in {} vaults, written in {filled:.0?}",
        plan.vaults
    );
    let list = |db: &Database| {
        let mut times: Vec<Duration> = (0..50)
            .map(|_| {
                time(clock, &mut || {
                    let vaults = black_box(db.vaults());
                    assert_eq!(vaults.len() as u64, plan.vaults);
                    assert_eq!(vaults.iter().map(|vault| vault.keys).sum::<u64>(), total);
                })
            })
            .collect();
        (
            median(&mut times),
            times.last().copied().unwrap_or_default(),
        )
    };
    let (median, worst) = list(&db);
    println!("listed with metadata in {median:.0?}, at worst {worst:.0?}");
    db.close().unwrap();
    drop(db);
    let mut opened = None;
    let opening = time(clock, &mut || opened = Some(open(directory.path())));
    let first = time(clock, &mut || {
        let vaults = opened.as_ref().map(|db| db.vaults().len() as u64);
        assert_eq!(vaults, Some(plan.vaults));
    });
    println!("opened again in {opening:.0?}, and listed for the first time in {first:.0?}");
}

fn time(clock: &SystemClock, run: &mut dyn FnMut()) -> Duration {
    let begin = clock.monotonic();
    run();
    clock.monotonic() - begin
}

/// Sorts them; gives the one in the middle.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
