//! Models of what threads share: the real code, run on every schedule (loom) or on many (shuttle).
//!
//! `cargo xtask models` builds this crate's tests twice, with `--cfg vault_model="loom"` and with
//! `--cfg vault_model="shuttle"`, each time with `--cfg vault_model` as well. `crate::sync` then gives
//! the engine the model's locks, atomics and threads. What each model proves, and what none covers, is
//! listed in `docs/internals/concurrency.md`.
//!
//! A model that cannot fail proves nothing. So beside the models stand the same ones broken on purpose:
//! the orderings of a source file weakened, notifications lost ([`crate::sync::Break`]), or a step left
//! out; [`fails`] demands that these fail, and with the right words.
//!
//! Schedules are explored up to [`PREEMPTIONS_MAX`] preemptions: a switch away from a thread that could have
//! gone on. Switches where a thread waits or ends are free. Nearly all known bugs of this kind take one or
//! two. (Musuvathi and Qadeer, "Iterative context bounding for systematic testing of multithreaded
//! programs", 2007.)

#[cfg(vault_model = "loom")]
mod commit;
#[cfg(vault_model = "shuttle")]
mod engine;
#[cfg(vault_model = "loom")]
mod log;
#[cfg(vault_model = "loom")]
mod memtable;
#[cfg(vault_model = "loom")]
mod snapshots;
#[cfg(vault_model = "loom")]
mod tables;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use vault_core::Clock;
use vault_core::clock::SystemClock;

/// Preemptions in one execution of a loom model, at most.
#[cfg(vault_model = "loom")]
const PREEMPTIONS_MAX: usize = 2;
/// Accesses in one execution of a loom model, at most: more are an endless loop.
#[cfg(vault_model = "loom")]
const ACCESSES_MAX: usize = 50_000;

/// What running a model came to.
struct Tally {
    executions: Arc<AtomicUsize>,
    clock: SystemClock,
    began: Duration,
}

impl Tally {
    fn begin() -> Self {
        let clock = SystemClock::new();
        let began = clock.monotonic();
        let executions = Arc::default();
        Self {
            executions,
            clock,
            began,
        }
    }

    /// Prints the line that `cargo xtask models` shows.
    fn print(&self, name: &str, outcome: &str) {
        let executions = self.executions.load(Ordering::Relaxed);
        let elapsed = self.clock.monotonic().saturating_sub(self.began);
        let seconds = elapsed.as_secs_f64();
        println!("model: {name}: {executions} executions, {seconds:.1} s, {outcome}");
    }
}

/// Runs each of `cases` on every schedule within the bounds.
#[cfg(vault_model = "loom")]
fn explore<C: Copy + Send + Sync + 'static>(
    tally: &Tally,
    cases: impl IntoIterator<Item = C>,
    model: fn(C),
) {
    for case in cases {
        let mut builder = ::loom::model::Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS_MAX);
        builder.max_branches = ACCESSES_MAX;
        let executions = Arc::clone(&tally.executions);
        builder.check(move || {
            executions.fetch_add(1, Ordering::Relaxed);
            model(case);
        });
    }
}

/// The model holds in every case.
#[cfg(vault_model = "loom")]
fn holds<C: Copy + Send + Sync + 'static>(
    name: &str,
    cases: impl IntoIterator<Item = C>,
    model: fn(C),
) {
    let tally = Tally::begin();
    explore(&tally, cases, model);
    tally.print(name, "holds");
}

/// The model, which is broken, fails in some case, and `with` these words.
#[cfg(vault_model = "loom")]
fn fails<C: Copy + Send + Sync + 'static>(
    name: &str,
    with: &str,
    cases: impl IntoIterator<Item = C>,
    model: fn(C),
) {
    let tally = Tally::begin();
    let outcome = catch_unwind(AssertUnwindSafe(|| explore(&tally, cases, model)));
    expect_failure(outcome, with);
    tally.print(name, "fails, as it must");
}

/// Something panicked `with` these words.
fn expect_failure(outcome: std::thread::Result<()>, with: &str) {
    let panic = outcome.expect_err("the broken code went unnoticed");
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    assert!(words.contains(with), "it failed otherwise: {words}");
}
