//! Those of shuttle, which runs the whole engine on random schedules.
//!
//! It knows no weak memory: whatever order an access asks for, all threads see all accesses in one order.

pub(crate) use ::shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock, atomic};
pub(crate) use ::shuttle::{hint, thread};
pub(crate) use std::sync::OnceLock;

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
