//! The memory budget, measured: an allocator that counts, in a process of its own for each case.
//!
//! By default a small slice runs: a budget of 16 MiB and 32 MiB, and ten times as much data. The whole, 2 GiB
//! under budgets of 64, 128 and 512 MiB, is
//!
//! ```text
//! cargo xtask memory
//! ```
//!
//! which prints the figures that `docs/internals/memory.md` cites.
#![expect(unsafe_code, reason = "an allocator that counts has to be one")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::print_stdout,
    reason = "children tell what they measured, and the test the figures"
)]

mod memory_cases;

use std::path::PathBuf;

use memory_cases::load::{MIB, Scale};
use memory_cases::meter::Measured;
use memory_cases::{meter, phases, stories};

/// Set to `full`: the long run takes its time.
const EXTENT_VARIABLE: &str = "VAULT_MEMORY";

/// A process of its own, started by the tests below. Without a case in the environment this is none.
#[test]
fn as_the_measured_process() {
    let Some(case) = meter::case_of_this_process() else {
        return;
    };
    let directory = PathBuf::from(std::env::var_os("VAULT_MEMORY_DIRECTORY").unwrap());
    let words: Vec<&str> = case.split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap() * MIB;
    match words[0] {
        "phase" => {
            let (budget, bytes) = (number(2), number(3));
            let scale = Scale { budget, bytes };
            meter::measure(|| phases::run(words[1], &directory, &scale));
            if words[1] == "write" {
                std::process::abort();
            }
        }
        story => meter::measure(|| stories::run(story, &directory, number(1))),
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

fn row(name: &str, budget: u64, measured: &Measured) -> String {
    format!(
        "{name:<22} {:>7.0} {:>8.1} {:>8.1} {:>8.1} {:>8.1}",
        mib(budget),
        mib(measured.heap),
        mib(measured.counted),
        mib(measured.anonymous),
        mib(measured.resident),
    )
}

const HEAD: &str = "MiB                     budget     heap  counted     anon      rss";

/// Holds a case to its budget. What the allocator of the system needs for itself is its own affair, and not the
/// same everywhere; but if far more is resident than was asked for, something is wrong.
fn check(name: &str, budget: u64, measured: &Measured) -> String {
    let row = row(name, budget, measured);
    println!("{HEAD}\n{row}");
    assert!(measured.heap <= budget, "over the budget\n{HEAD}\n{row}");
    assert!(measured.counted > 0 && measured.counted <= budget, "{row}");
    row
}

fn long_run(budget_mib: u64, data_mib: u64) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let phase = |phase: &&str| {
        let case = format!("phase {phase} {budget_mib} {data_mib}");
        let measured = meter::in_child(&case, directory.path());
        check(phase, budget_mib * MIB, &measured)
    };
    phases::PHASES.iter().map(phase).collect()
}

/// Writing, recovering after a kill, compacting, scanning with many cursors and reading stay within the
/// budget, and everything is there.
#[test]
fn the_long_run_stays_within_its_budget() {
    let full = std::env::var(EXTENT_VARIABLE).is_ok_and(|extent| extent == "full");
    let runs: &[(u64, u64)] = if full {
        &[(64, 2048), (128, 2048), (512, 2048)]
    } else {
        &[(16, 160), (32, 256)]
    };
    let rows: Vec<_> = runs
        .iter()
        .flat_map(|&(budget, data)| long_run(budget, data))
        .collect();
    println!("\n{HEAD}\n{}", rows.join("\n"));
}

/// A story under a budget that fits it.
fn story(name: &str, budget_mib: u64) {
    let directory = tempfile::tempdir().unwrap();
    let case = format!("{name} {budget_mib}");
    let measured = meter::in_child(&case, directory.path());
    check(name, budget_mib * MIB, &measured);
}

macro_rules! stories {
    ($($name:ident under $mib:literal;)*) => {
        $(#[test]
        fn $name() {
            story(stringify!($name), $mib);
        })*
    };
}

stories! {
    many_keyspaces under 64;
    huge_batches under 64;
    large_values under 64;
    open_cursors under 64;
    many_tables under 16;
    hot_keys under 16;
    held_memtables under 32;
    large_log under 64;
    ingests under 16;
}
