//! Sleeping until something that needs no lock has changed, and waking those who do.
//!
//! Whoever changes it asks afterwards whether anybody sleeps; whoever wants to sleep says so, and then looks once more. Both
//! change one number, and of two changes the later sees the earlier: so either the one sees a sleeper, or the other sees
//! what was changed.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use crate::store::lock;
use crate::sync::atomic::AtomicUsize;
use crate::sync::{Condvar, Mutex};

/// Those that sleep.
#[derive(Default)]
pub(super) struct Sleepers {
    count: AtomicUsize,
    asleep: Mutex<()>,
    changed: Condvar,
}

impl Sleepers {
    /// Sleeps until `is_over`, which is looked at again after each [`Sleepers::wake`].
    #[cold]
    pub(super) fn sleep_until(&self, is_over: impl Fn() -> bool) {
        let mut asleep = lock(&self.asleep);
        self.count.fetch_add(1, AcqRel);
        while !is_over() {
            let woken = self.changed.wait(asleep);
            asleep = woken.unwrap_or_else(PoisonError::into_inner);
        }
        self.count.fetch_sub(1, Relaxed);
    }

    /// Wakes those that sleep, after a change.
    #[inline]
    pub(super) fn wake(&self) {
        // A mere load could give what was there before the change.
        if self.count.fetch_add(0, AcqRel) != 0 {
            // Held by those that have looked and do not sleep yet.
            drop(lock(&self.asleep));
            self.changed.notify_all();
        }
    }

    #[cfg(all(test, not(vault_model)))]
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }
}
