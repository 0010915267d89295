//! Running a loom model on all its schedules, up to [`PREEMPTIONS_MAX`] preemptions.
//!
//! A preemption is a switch away from a thread that could have gone on; switches where a thread waits or ends
//! are free. Nearly all known bugs of this kind take one or two. (Musuvathi and Qadeer, "Iterative context
//! bounding for systematic testing of multithreaded programs", 2007.) Three threads in a whole store have
//! too many schedules even so: they get one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::tally::{Tally, expect_failure};

/// Preemptions in one execution of a loom model, at most.
const PREEMPTIONS_MAX: usize = 2;
/// Accesses in one execution of a loom model, at most: more are an endless loop.
const ACCESSES_MAX: usize = 50_000;

/// Runs each of `cases` on every schedule within the bounds.
fn explore<C: Copy + Send + Sync + 'static>(
    tally: &Tally,
    preemptions: usize,
    cases: impl IntoIterator<Item = C>,
    model: fn(C),
) {
    for case in cases {
        let mut builder = ::loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.max_branches = ACCESSES_MAX;
        let executions = Arc::clone(&tally.executions);
        builder.check(move || {
            executions.fetch_add(1, Ordering::Relaxed);
            model(case);
        });
    }
}

/// The model holds in every case.
pub(super) fn holds<C: Copy + Send + Sync + 'static>(
    name: &str,
    cases: impl IntoIterator<Item = C>,
    model: fn(C),
) {
    holds_within(PREEMPTIONS_MAX, name, cases, model);
}

/// The model holds in every case, on schedules of at most so many preemptions.
pub(super) fn holds_within<C: Copy + Send + Sync + 'static>(
    preemptions: usize,
    name: &str,
    cases: impl IntoIterator<Item = C>,
    model: fn(C),
) {
    let tally = Tally::begin();
    explore(&tally, preemptions, cases, model);
    tally.print(name, "holds");
}

/// The model, which is broken, fails in some case, and `with` these words.
pub(super) fn fails<C: Copy + Send + Sync + 'static>(
    name: &str,
    with: &str,
    cases: impl IntoIterator<Item = C>,
    model: fn(C),
) {
    let tally = Tally::begin();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        explore(&tally, PREEMPTIONS_MAX, cases, model);
    }));
    expect_failure(outcome, with);
    tally.print(name, "fails, as it must");
}
