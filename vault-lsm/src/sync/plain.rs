//! What every build on real threads has in common.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A small number for the calling thread, the same for as long as it lives.
#[inline]
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// Memory that is shared without atomics. A model checks that every read comes after the write by what
/// the program orders; here there is nothing to do.
pub(crate) mod memory {
    #[inline(always)]
    pub(crate) fn written(_start: *const u8, _bytes: usize) {}

    #[inline(always)]
    pub(crate) fn read(_start: *const u8, _bytes: usize) {}

    #[inline(always)]
    pub(crate) fn freed(_start: *const u8, _bytes: usize) {}
}
