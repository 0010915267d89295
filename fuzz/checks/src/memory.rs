//! How much memory a parser takes, counted, and the bound that it is held to.
//!
//! A few bytes on disk can claim anything: a length of two gigabytes, a million entries, a block that
//! decompresses to all of memory. Whoever believes them before looking what is really there can be stopped
//! by one flipped bit. So no parser may take more than [`FACTOR`] times its input and [`FREE_BYTES`].
//!
//! Counted is what is asked for by the thread that parses, live at once, from the moment at which parsing
//! begins: neither what a harness holds nor what other threads do.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// How many times its input a parser may take.
pub const FACTOR: usize = 16;
/// What a parser may take besides, in bytes.
pub const FREE_BYTES: usize = 1 << 20;

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { live: 0, peak: 0 }) };
}

#[derive(Clone, Copy)]
struct Counts {
    /// May go below zero: what was taken before the count began can be given back within it.
    live: isize,
    peak: isize,
}

/// The system's allocator, counting.
#[derive(Debug)]
pub struct Counting;

// SAFETY: every call goes to the system's allocator with the arguments it came with; counting touches
// nothing but a thread-local cell, which needs no memory of its own and has no destructor.
#[expect(unsafe_code, reason = "the trait of allocators is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the promises that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

fn count(bytes: isize) {
    // Not there any more while a thread ends: nothing is measured then.
    let _ = COUNTS.try_with(|counts| {
        let Counts { live, peak } = counts.get();
        let live = live + bytes;
        counts.set(Counts {
            live,
            peak: peak.max(live),
        });
    });
}

/// Runs `f`; also gives the most bytes that it held at once.
pub fn peak_of<R>(f: impl FnOnce() -> R) -> (R, usize) {
    let before = COUNTS.replace(Counts { live: 0, peak: 0 });
    let result = f();
    let during = COUNTS.get();
    COUNTS.set(Counts {
        live: before.live + during.live,
        peak: before.peak.max(before.live + during.peak),
    });
    (result, during.peak.unsigned_abs())
}

/// Runs a parser that was given `input_bytes`, and holds it to the bound.
///
/// # Panics
/// Where it takes more.
pub fn bounded<R>(input_bytes: usize, parse: impl FnOnce() -> R) -> R {
    let (result, peak) = peak_of(parse);
    let most = input_bytes * FACTOR + FREE_BYTES;
    assert!(
        peak <= most,
        "{peak} bytes were allocated for an input of {input_bytes}, at most {most} may be"
    );
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_counted_and_not_the_sum() {
        let (_, peak) = peak_of(|| {
            for _ in 0..100 {
                drop(std::hint::black_box(vec![1_u8; 1000]));
            }
            let mut grown = std::hint::black_box(vec![1_u8; 500]);
            grown.reserve_exact(4500);
            std::hint::black_box(grown.capacity())
        });
        assert_eq!(peak, 5000);
    }

    #[test]
    fn what_is_given_back_within_does_not_hide_what_is_taken() {
        let before = vec![1_u8; 100_000];
        let (kept, peak) = peak_of(|| {
            let kept = vec![1_u8; 3000];
            drop(before);
            kept
        });
        assert_eq!((kept.len(), peak), (3000, 3000));
    }

    #[test]
    #[should_panic(expected = "at most")]
    fn a_parser_that_takes_too_much_is_stopped() {
        bounded(10, || std::hint::black_box(vec![0_u8; FREE_BYTES + 161]));
    }
}
