//! Buffers of blocks that were evicted, for the blocks that take their places.
//!
//! Once the cache is full, each block that comes in puts one out: a thread keeps the buffers of those, and so
//! neither asks the allocator nor clears memory that is about to be written over. Lengths are rounded up, because
//! blocks of one table differ by an entry or so.

use std::cell::RefCell;
use std::sync::Arc;

/// What lengths are rounded up to.
const ROUNDED_TO: usize = 256;
/// Longer buffers are not kept, nor are those so short that the allocator is as fast.
const KEPT_BYTES: std::ops::RangeInclusive<usize> = 1 << 10..=16 << 10;
/// Buffers that a thread keeps: an insertion puts out one or two blocks.
const KEPT_MAX: usize = 4;

thread_local! {
    static KEPT: RefCell<Vec<Arc<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of at least `len` bytes that nobody else holds, with anything in it.
pub(super) fn take(len: usize) -> Arc<[u8]> {
    if !KEPT_BYTES.contains(&len) {
        return zeroes(len);
    }
    let rounded = len.next_multiple_of(ROUNDED_TO);
    let kept = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        let at = kept.iter().rposition(|buffer| buffer.len() == rounded)?;
        Some(kept.swap_remove(at))
    });
    kept.ok().flatten().unwrap_or_else(|| zeroes(rounded))
}

/// Takes a buffer back, unless others hold it too.
pub(super) fn give(mut buffer: Arc<[u8]>) {
    let fits = KEPT_BYTES.contains(&buffer.len()) && buffer.len().is_multiple_of(ROUNDED_TO);
    if !fits || Arc::get_mut(&mut buffer).is_none() {
        return;
    }
    // While the thread ends there is nothing to keep it in.
    let _ = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.len() == KEPT_MAX {
            kept.remove(0);
        }
        kept.push(buffer);
    });
}

fn zeroes(len: usize) -> Arc<[u8]> {
    std::iter::repeat_n(0, len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_unless_somebody_holds_them() {
        let first = take(4000);
        assert_eq!(first.len(), 4096);
        let address = first.as_ptr();
        let held = Arc::clone(&first);
        give(first);
        let second = take(4090);
        assert_ne!(second.as_ptr(), address, "a buffer in use was given out");
        give(held);
        assert_eq!(take(3900).as_ptr(), address, "nobody held it any more");
        for _ in 0..3 * KEPT_MAX {
            give(zeroes(2048));
        }
        KEPT.with(|kept| assert!(kept.borrow().len() <= KEPT_MAX));
        assert_eq!(take(100).len(), 100);
        assert_eq!(take(1 << 20).len(), 1 << 20);
    }
}
