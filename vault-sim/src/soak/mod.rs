//! Many threads on a real file system for a long time: nothing locks up, grows, leaks or goes wrong.
//!
//! - `writer` has keys of its own and a model of them: puts, deletes, batches over keyspaces,
//!   range deletes, merges, compare-and-set, expiries. It compares as it goes, and everything after each reopening.
//! - `banker` moves money between accounts that all share, in batches.
//! - `reader` holds snapshots for a while: what it sees stays the same, the money adds up, both
//!   directions of a scan agree with lookups, counters never go back, bulk data is of one load.
//! - `keeper` flushes, compacts, makes checkpoints and opens them, ingests, creates and drops
//!   keyspaces, and now and then stops everybody, compares the directory with what the store names, closes
//!   it and opens it again with other settings.
//!   Where the store is encrypted, it also rotates the keys, changes the secret, and locks and unlocks the store (`secrecy`).
//! - `stage` is what they share: the store, who is doing what, and a watchdog that ends the run where
//!   an operation takes longer than [`Settings::hung_after`].
//! - `sample` measures the process and the directory, and compares the second quarter of the run with the
//!   last: what was steady then and is more now has grown.
//!
//! The seed decides what each thread does; how they interleave, the machine decides.

mod banker;
mod directory;
mod keeper;
mod reader;
mod sample;
mod secrecy;
mod stage;
mod writer;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use vault_core::Clock as _;

use sample::Samples;
use stage::Stage;

/// What a soak is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long it goes on.
    pub duration: Duration,
    /// Threads, 4 to 64.
    pub threads: usize,
    /// An empty directory, or one that is not there yet. It is left behind where something was wrong.
    pub directory: PathBuf,
    /// Decides what the threads do.
    pub seed: u64,
    /// How often the process is measured.
    pub sample_every: Duration,
    /// How often the store is closed and opened again.
    pub reopen_every: Duration,
    /// How long an operation may take.
    pub hung_after: Duration,
    /// Whether the store is encrypted.
    pub encrypted: bool,
}

impl Settings {
    /// The usual soak: what remains to be chosen is how long, where, and which.
    #[must_use]
    pub const fn new(duration: Duration, directory: PathBuf, seed: u64) -> Self {
        Self {
            duration,
            threads: 8,
            directory,
            seed,
            sample_every: Duration::from_secs(10),
            reopen_every: Duration::from_secs(30),
            hung_after: Duration::from_secs(60),
            encrypted: false,
        }
    }
}

/// What became of a soak.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Operations that were performed, checks included.
    pub operations: u64,
    /// How often the store was closed and opened again.
    pub reopenings: u64,
    /// What was wrong, in words. Empty: nothing.
    pub problems: Vec<String>,
}

/// Runs a soak and writes a line for each sample, and the verdict.
///
/// # Errors
/// Those of writing to `out`. What is wrong with the store is in the outcome.
///
/// # Panics
/// Where there are fewer than four threads, or more than 64.
pub fn run(settings: &Settings, out: &mut dyn Write) -> io::Result<Outcome> {
    assert!(
        (4..=64).contains(&settings.threads),
        "a soak has 4 to 64 threads"
    );
    writeln!(
        out,
        "soak: {} threads, {}, {:?}, seed {}, in {}",
        settings.threads,
        if settings.encrypted {
            "encrypted"
        } else {
            "plain"
        },
        settings.duration,
        settings.seed,
        settings.directory.display()
    )?;
    let stage = match Stage::open(settings) {
        Ok(stage) => stage,
        Err(problem) => {
            let mut outcome = Outcome::default();
            outcome.problems.push(problem);
            return conclude(outcome, out);
        }
    };
    let mut samples = Samples::new(settings.sample_every);
    let written = std::thread::scope(|scope| {
        for thread in 0..settings.threads {
            let stage = &stage;
            let name = format!("soak-{thread}");
            let work = move || stage.perform(thread, || role(stage, thread));
            let spawned = std::thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, work);
            if let Err(error) = spawned {
                stage.problem(format!("cannot start thread {thread}: {error}"));
            }
        }
        scope.spawn(|| stage.watch());
        // However measuring ends, the others are told.
        let _end = stage.ending();
        samples.take_until(&stage, settings.duration, out)
    });
    written?;
    stage.perform(settings.threads, || keeper::take_leave(&stage));
    let mut outcome = stage.outcome();
    samples.judge(settings.duration, &mut outcome.problems, out)?;
    conclude(outcome, out)
}

/// What a thread does until the end.
fn role(stage: &Stage, thread: usize) -> Result<(), String> {
    match thread {
        0 => keeper::work(stage, thread),
        1 => reader::work(stage, thread),
        2 => banker::work(stage, thread),
        // For each further banker or reader there are two writers.
        _ => match thread % 6 {
            0 => banker::work(stage, thread),
            1 => reader::work(stage, thread),
            _ => writer::work(stage, thread),
        },
    }
}

fn conclude(outcome: Outcome, out: &mut dyn Write) -> io::Result<Outcome> {
    writeln!(
        out,
        "{} operations, {} reopenings",
        outcome.operations, outcome.reopenings
    )?;
    for problem in &outcome.problems {
        writeln!(out, "WRONG: {problem}")?;
    }
    let verdict = if outcome.problems.is_empty() {
        "soak: every invariant held, nothing grew, nothing leaked"
    } else {
        "soak: FAILED"
    };
    writeln!(out, "{verdict}")?;
    Ok(outcome)
}

/// Removes a directory of stores and all that is in it.
///
/// # Errors
/// The operating system's.
pub fn remove_tree(path: &std::path::Path) -> io::Result<()> {
    directory::remove_tree(path)
}

/// Waits without holding anything.
fn pause(stage: &Stage, duration: Duration) {
    stage.clock.sleep(duration);
}
