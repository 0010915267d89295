//! Those of shuttle, which runs the whole engine on random schedules.
//!
//! It knows no weak memory: whatever order an access asks for, all threads see all accesses in one order.

use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::Duration;

pub(crate) use ::shuttle::sync::{RwLock, atomic};
pub(crate) use ::shuttle::{hint, thread};
pub(crate) use std::sync::OnceLock;

use super::broken::{Break, is_broken};

/// Waits that are to end after this long or later never time out: a notification that such a wait needs
/// and does not get shows, as a deadlock or as an endless loop. Shorter ones time out at once: whoever
/// waits so looks again and again.
const NEVER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(::shuttle::sync::Mutex<T>);

/// Knows its mutex, so that a wait can end without a notification.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    held: ::shuttle::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(::shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        match self.0.lock() {
            Ok(held) => Ok(MutexGuard { mutex: self, held }),
            Err(poisoned) => Err(PoisonError::new(MutexGuard {
                mutex: self,
                held: poisoned.into_inner(),
            })),
        }
    }

    pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(held) => Ok(MutexGuard { mutex: self, held }),
            Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
            Err(TryLockError::Poisoned(poisoned)) => {
                let held = poisoned.into_inner();
                let guard = MutexGuard { mutex: self, held };
                Err(PoisonError::new(guard).into())
            }
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.held
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.held
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(::shuttle::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let MutexGuard { mutex, held } = guard;
        match self.0.wait(held) {
            Ok(held) => Ok(MutexGuard { mutex, held }),
            Err(poisoned) => {
                let held = poisoned.into_inner();
                Err(PoisonError::new(MutexGuard { mutex, held }))
            }
        }
    }

    /// Gives whether it timed out beside the guard.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        at_most: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        let timed_out = at_most < NEVER;
        let outcome = if timed_out {
            let mutex = guard.mutex;
            drop(guard);
            thread::yield_now();
            mutex.lock()
        } else {
            self.wait(guard)
        };
        match outcome {
            Ok(guard) => Ok((guard, timed_out)),
            Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), timed_out))),
        }
    }

    #[track_caller]
    pub(crate) fn notify_one(&self) {
        if !is_broken(Break::LoseOne, Location::caller()) {
            self.0.notify_one();
        }
    }

    #[track_caller]
    pub(crate) fn notify_all(&self) {
        if !is_broken(Break::LoseAll, Location::caller()) {
            self.0.notify_all();
        }
    }
}

/// A small number for the calling thread: the threads of one execution count from 0.
pub(crate) fn thread_number() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    ::shuttle::lazy_static! {
        static ref NEXT: AtomicUsize = AtomicUsize::new(0);
    }
    ::shuttle::thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// Nothing to check without weak memory.
pub(crate) mod memory {
    pub(crate) fn written(_start: *const u8, _bytes: usize) {}

    pub(crate) fn read(_start: *const u8, _bytes: usize) {}

    pub(crate) fn freed(_start: *const u8, _bytes: usize) {}
}
