//! Code that is broken on purpose, so that a model shows that it would notice.
//!
//! The code itself is left alone: what the model gives it in the place of atomics and condition variables
//! looks at the source file that calls.

use std::cell::Cell;
use std::panic::Location;

/// How code can be broken.
#[cfg_attr(
    vault_model = "shuttle",
    expect(dead_code, reason = "orders mean nothing where memory is not weak")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// Stores and read-modify-writes publish nothing.
    RelaxStores,
    /// Loads and read-modify-writes acquire nothing.
    RelaxLoads,
    /// `notify_one` wakes nobody.
    LoseOne,
    /// `notify_all` wakes nobody.
    LoseAll,
}

thread_local! {
    /// All threads of a model are coroutines of one.
    static BROKEN: Cell<Option<(&'static str, Break)>> = const { Cell::new(None) };
}

/// Breaks the source file `file` for the models that this test runs from here on.
pub(crate) fn break_in(file: &'static str, how: Break) {
    BROKEN.set(Some((file, how)));
}

pub(super) fn is_broken(how: Break, place: &Location<'_>) -> bool {
    BROKEN
        .get()
        .is_some_and(|(file, broken)| broken == how && place.file().ends_with(file))
}
