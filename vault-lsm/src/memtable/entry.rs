//! The record of one entry in the arena.
//!
//! ```text
//! trailer u64 | lengths u32 | key | stored value
//! ```
//!
//! The lengths are that of the key in the upper 12 bits and that of the stored value in the lower 20.
//! Where either is too long for that, the lengths are all ones, and two u32 follow them: the length of
//! the key and that of the stored value.
//!
//! Integers in the byte order of the machine: this never reaches a disk. A record is complete before
//! its reference is published, and never changes afterwards.

use std::cmp::Ordering;
use std::slice;

use super::arena::{Arena, Bump, Ref};
use crate::sync;

const TRAILER_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;
/// Bytes in front of the key, where both lengths are short and where they are not.
const SHORT_HEADER_BYTES: usize = TRAILER_BYTES + LENGTH_BYTES;
const LONG_HEADER_BYTES: usize = SHORT_HEADER_BYTES + 2 * LENGTH_BYTES;
const VALUE_BITS: u32 = 20;
const LONG: u32 = u32::MAX;

/// Packs two lengths, or returns `LONG` if one of them is too long for that.
#[inline]
fn pack_lengths(key_bytes: u32, value_bytes: u32) -> u32 {
    if key_bytes < (1 << (u32::BITS - VALUE_BITS)) - 1 && value_bytes < 1 << VALUE_BITS {
        key_bytes << VALUE_BITS | value_bytes
    } else {
        LONG
    }
}

/// Writes a record and returns where. The value comes in two parts, so that nobody has to join an
/// expiry and a value first.
///
/// # Panics
/// If the key or the value is 4 GiB long or more.
#[inline]
pub(super) fn write(
    arena: &Arena,
    bump: &mut Bump,
    key: &[u8],
    trailer: u64,
    value_parts: [&[u8]; 2],
) -> Ref {
    let [front, back] = value_parts;
    let narrow =
        |bytes: usize| u32::try_from(bytes).expect("limits keep keys and values below 4 GiB");
    let (key_bytes, value_bytes) = (narrow(key.len()), narrow(front.len() + back.len()));
    let lengths = pack_lengths(key_bytes, value_bytes);
    let header_bytes = if lengths == LONG {
        LONG_HEADER_BYTES
    } else {
        SHORT_HEADER_BYTES
    };
    let bytes = header_bytes + key.len() + front.len() + back.len();
    let (reference, start) = arena.allocate(bump, bytes);
    // SAFETY: the allocation has room for the header and the three parts one behind the other, is
    // aligned to eight, and is not yet known to anybody else, so that it overlaps no part.
    unsafe {
        start.cast::<u64>().write(trailer);
        let at = start.add(TRAILER_BYTES).cast::<u32>();
        at.write(lengths);
        if lengths == LONG {
            at.add(1).write(key_bytes);
            at.add(2).write(value_bytes);
        }
        let at = start.add(header_bytes);
        at.copy_from_nonoverlapping(key.as_ptr(), key.len());
        let at = at.add(key.len());
        at.copy_from_nonoverlapping(front.as_ptr(), front.len());
        let at = at.add(front.len());
        at.copy_from_nonoverlapping(back.as_ptr(), back.len());
    }
    sync::memory::written(start, bytes);
    reference
}

/// Bytes in front of the key, length of the key, length of the stored value.
///
/// # Safety
/// A record begins at `start`.
#[inline]
unsafe fn lengths(start: *const u8) -> (usize, usize, usize) {
    // SAFETY: a record begins with a trailer and lengths, aligned to eight; where these are `LONG`, two
    // more lengths follow.
    unsafe {
        sync::memory::read(start, SHORT_HEADER_BYTES);
        let at = start.add(TRAILER_BYTES).cast::<u32>();
        let lengths = at.read();
        if lengths == LONG {
            let (key, value) = (at.add(1).read(), at.add(2).read());
            return (LONG_HEADER_BYTES, key as usize, value as usize);
        }
        let value = lengths & ((1 << VALUE_BITS) - 1);
        (
            SHORT_HEADER_BYTES,
            (lengths >> VALUE_BITS) as usize,
            value as usize,
        )
    }
}

/// The internal key of a record.
#[inline]
pub(super) fn key(arena: &Arena, entry: Ref) -> (&[u8], u64) {
    let start = arena.at(entry);
    // SAFETY: `entry` refers to a record, complete and immutable since before it was published, which
    // lives as long as the arena that is borrowed here.
    unsafe {
        let trailer = start.cast::<u64>().read();
        let (header_bytes, key_bytes, _) = lengths(start);
        let key = slice::from_raw_parts(start.add(header_bytes), key_bytes);
        (key, trailer)
    }
}

/// The stored value of a record.
#[inline]
pub(super) fn value(arena: &Arena, entry: Ref) -> &[u8] {
    let start = arena.at(entry);
    // SAFETY: as in `key`.
    unsafe {
        let (header_bytes, key_bytes, value_bytes) = lengths(start);
        slice::from_raw_parts(start.add(header_bytes + key_bytes), value_bytes)
    }
}

/// Compares a record with an internal key.
#[inline]
pub(super) fn compare(arena: &Arena, entry: Ref, target: (&[u8], u64)) -> Ordering {
    crate::internal_key::compare(key(arena, entry), target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_around_the_limits_of_short_lengths() {
        let arena = Arena::new(crate::memory::MemtableAccount::uncounted());
        let mut bump = Bump::default();
        let filler = vec![7; (1 << VALUE_BITS) + 1];
        let key_limit = (1 << (u32::BITS - VALUE_BITS)) - 1;
        for key_bytes in [0, 1, key_limit - 1, key_limit, key_limit + 1, 65_536] {
            for value_bytes in [0, 1, (1 << VALUE_BITS) - 1, 1 << VALUE_BITS, filler.len()] {
                let (key_in, value_in) = (&filler[..key_bytes], &filler[..value_bytes]);
                let parts = value_in.split_at(value_bytes.min(8));
                let entry = write(&arena, &mut bump, key_in, u64::MAX, [parts.0, parts.1]);
                assert_eq!(key(&arena, entry), (key_in, u64::MAX));
                assert_eq!(value(&arena, entry), value_in);
            }
        }
    }
}
