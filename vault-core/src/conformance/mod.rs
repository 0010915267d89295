//! A suite of tests that any implementation of the [`Engine`](crate::Engine) trait can run against
//! itself, in this repository or elsewhere.
//!
//! It holds an engine to what the trait and its [reference](crate::memory_engine) promise. A case panics
//! with what it expected and what it found. Time stands still unless a case moves it, and nothing
//! depends on the timing of background work.
//!
//! ```
//! # #![allow(clippy::needless_doctest_main)]
//! use std::sync::Arc;
//! use vault_core::conformance::{Harness, Setup, run_all};
//! use vault_core::{Engine, MemoryEngine};
//!
//! struct InMemory;
//!
//! impl Harness for InMemory {
//!     type Store = MemoryEngine;
//!     fn open(&self, setup: &Setup) -> MemoryEngine {
//!         MemoryEngine::new()
//!             .with_clock(Arc::clone(&setup.clock))
//!             .with_merge_operators(setup.merge_operators.clone())
//!             .with_limits(setup.limits)
//!     }
//!     fn engine(&self, store: &MemoryEngine) -> Arc<dyn Engine> {
//!         Arc::new(store.clone())
//!     }
//! }
//!
//! // As one `#[test]` for each case, at the top level of a test file:
//! vault_core::conformance_tests!(InMemory);
//! // Or all at once:
//! # fn all_at_once() {
//! run_all(&InMemory).assert_passed();
//! # }
//! # fn main() {}
//! ```
//!
//! [`random_history`] is one of the cases, with a few seeds and few steps;
//! call it with more of both for a thorough comparison.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "these are tests: they panic where the engine is wrong"
)]

pub mod basics;
pub mod cas;
pub mod closing;
pub mod cursors;
pub mod expiry;
mod harness;
pub mod history;
pub mod keyspaces;
pub mod limits;
pub mod merge;
pub mod model;
pub mod ranges;
pub mod reopening;
pub mod snapshots;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use harness::{Harness, START, Setup};
pub use history::random_history;

/// A case of the suite that did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The case.
    pub case: &'static str,
    /// What it expected and found.
    pub message: String,
}

/// What came of a run of the whole suite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The cases that passed.
    pub passed: Vec<&'static str>,
    /// Those that didn't.
    pub failed: Vec<Failure>,
}

impl Report {
    /// Panics with the list of failures, if there are any.
    pub fn assert_passed(&self) {
        assert!(self.failed.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed) = (self.passed.len(), self.failed.len());
        write!(f, "{passed} cases passed, {failed} failed")?;
        for failure in &self.failed {
            write!(f, "\n{}: {}", failure.case, failure.message)?;
        }
        Ok(())
    }
}

/// A case, by the name of its function.
type Case<H> = (&'static str, fn(&H));

/// Runs every case, each on stores of its own, and reports which passed.
pub fn run_all<H: Harness>(harness: &H) -> Report {
    let mut report = Report::default();
    for (name, case) in cases::<H>() {
        match catch_unwind(AssertUnwindSafe(|| case(harness))) {
            Ok(()) => report.passed.push(name),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                report.failed.push(Failure {
                    case: name,
                    message: text.unwrap_or("a panic without a message").to_owned(),
                });
            }
        }
    }
    report
}

/// Every case of the suite, by its name.
#[must_use]
pub fn cases<H: Harness>() -> Vec<Case<H>> {
    crate::__conformance_cases!(__conformance_list, H)
}

/// Expands to one `#[test]` for each case of the suite. The argument is an expression of a type that
/// implements [`Harness`]; it is evaluated once for each test.
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr) => {
        $crate::__conformance_cases!(__conformance_tests, $harness);
    };
}

/// The list of cases, handed to another macro. New cases are added here and nowhere else.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($then:ident, $argument:tt) => {
        $crate::$then! { $argument;
            basics::put_get_delete,
            basics::write_options_and_try_write,
            basics::sequence_numbers_count_operations,
            basics::order_within_a_batch,
            basics::batches_span_keyspaces,
            basics::multi_get_order,
            basics::flush_sync_compact_keep_everything,
            basics::compaction_can_be_cancelled,
            basics::stats_count,
            basics::time_comes_from_the_clock,
            basics::writers_on_many_threads,
            ranges::scans_with_every_form_of_bounds,
            ranges::scans_by_prefix,
            ranges::scans_meet_exactly_once,
            ranges::range_deletes,
            ranges::range_deletes_empty_and_inverted,
            ranges::prefix_deletes,
            ranges::range_deletes_among_many_keys,
            snapshots::snapshots_stay_frozen,
            snapshots::snapshots_in_any_number_and_order,
            snapshots::no_torn_batch_is_ever_seen,
            snapshots::snapshots_outlive_their_handle,
            snapshots::one_snapshot_on_many_threads,
            snapshots::snapshots_keep_dropped_keyspaces,
            cursors::cursor_positions_and_ends,
            cursors::cursors_stay_in_range,
            cursors::cursors_see_one_moment,
            cursors::cursors_change_direction,
            expiry::expired_puts_are_absent,
            expiry::entries_are_known_without_their_values,
            expiry::expired_hides_older,
            expiry::expired_operands,
            expiry::expiry_reaches_snapshots_and_cursors,
            expiry::expired_is_absent_for_compare_and_set,
            expiry::deletes_of_entries_with_expiry,
            expiry::bad_expiries_are_refused,
            expiry::the_clock_jumps_back,
            limits::keys_from_empty_to_the_limit,
            limits::values_from_empty_to_the_limit,
            limits::batches_up_to_the_limit,
            limits::limits_are_those_given,
            merge::counters_add_up,
            merge::what_lies_below_operands,
            merge::merges_and_snapshots,
            merge::bad_operands_are_refused,
            merge::operators_that_fail_when_read,
            merge::long_chains_of_operands,
            cas::compare_and_set_outcomes,
            cas::compare_and_set_and_snapshots,
            cas::counting_threads_lose_nothing,
            keyspaces::keyspaces_are_created_and_found,
            keyspaces::odd_names_are_refused,
            keyspaces::dropped_keyspaces_are_gone,
            keyspaces::options_that_conflict_are_refused,
            keyspaces::bad_options_create_nothing,
            keyspaces::keyspaces_from_many_threads,
            closing::use_after_close,
            closing::closing_under_load,
            reopening::reopening_brings_everything_back,
            reopening::reopening_an_empty_store,
            reopening::reopening_without_the_merge_operator,
            history::random_histories,
        }
    };
    ($then:ident, $argument:expr) => {
        $crate::__conformance_cases!($then, { $argument })
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($harness:expr; $($module:ident::$case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::$module::$case(&$harness);
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_list {
    ($harness:ty; $($module:ident::$case:ident,)*) => {
        vec![$((stringify!($case), $crate::conformance::$module::$case::<$harness>)),*]
    };
}
