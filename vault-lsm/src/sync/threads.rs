//! Those of the standard library, taken apart so far that ThreadSanitizer sees all of them.
//!
//! The sanitizer knows only what was compiled for it, and the standard library was not: where a lock is
//! contended, the order that it makes is made in there, unseen, and everything it guards is reported as a
//! race. What is tried and not waited for is compiled here, with the crate. So locks are tried over and over,
//! and a condition variable is a count that is looked at. Slow, and with the same guarantees.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::Duration;

use vault_core::Clock;
use vault_core::clock::SystemClock;

pub(crate) use std::sync::{OnceLock, RwLockReadGuard, RwLockWriteGuard, atomic};
pub(crate) use std::{hint, thread};

pub(crate) use super::plain::{memory, thread_number};

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

/// Knows its mutex, so that a wait can let go of it.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    held: std::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        again_and_again(|| self.try_lock())
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
pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        again_and_again(|| self.0.try_read())
    }

    pub(crate) fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        again_and_again(|| self.0.try_write())
    }
}

fn again_and_again<G>(attempt: impl Fn() -> TryLockResult<G>) -> LockResult<G> {
    loop {
        match attempt() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Err(poisoned),
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
}

/// Counts notifications. Whoever waits goes on after any of them: a wait may always end for nothing.
#[derive(Debug, Default)]
pub(crate) struct Condvar(AtomicUsize);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_until(guard, || false).0
    }

    /// Gives whether it timed out beside the guard.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        at_most: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        let clock = SystemClock::new();
        let end = clock.monotonic() + at_most;
        match self.wait_until(guard, || clock.monotonic() >= end) {
            (Ok(guard), timed_out) => Ok((guard, timed_out)),
            (Err(poisoned), timed_out) => Err(PoisonError::new((poisoned.into_inner(), timed_out))),
        }
    }

    fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        is_over: impl Fn() -> bool,
    ) -> (LockResult<MutexGuard<'a, T>>, bool) {
        // Counted before the lock is let go: what is notified after that is not missed.
        let before = self.0.load(Ordering::Acquire);
        let mutex = guard.mutex;
        drop(guard);
        let mut timed_out = false;
        while self.0.load(Ordering::Acquire) == before && !timed_out {
            thread::yield_now();
            timed_out = is_over();
        }
        (mutex.lock(), timed_out)
    }

    pub(crate) fn notify_one(&self) {
        self.notify_all();
    }

    pub(crate) fn notify_all(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}
