//! The memory of one memtable: chunks that are filled from front to back and freed whole.
//!
//! A [`Ref`] names eight-byte-aligned bytes in 32 bits: the number of the chunk in the upper ten and
//! the offset within it, in units of eight bytes, in the lower 22. That halves what the tree spends
//! on pointers, and reaching the bytes costs one load from a small table that stays in cache.
//!
//! Invariants:
//! - Nothing that was allocated moves or is freed before the arena is dropped. Replaced nodes stay
//!   intact for the readers that may still be on them.
//! - Only the holder of the [`Bump`] allocates; there is one `Bump` for an arena, kept under the
//!   memtable's writer lock.
//! - A reference is used only with the arena that made it. References never leave the memtable, so
//!   the module `memtable` as a whole is the boundary that keeps this.
//! - The first eight bytes of a chunk hold its size, so that no allocation has the reference zero:
//!   [`NONE`] stands for "none".

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr;
use std::sync::atomic::Ordering;

use crate::sync;
use crate::sync::atomic::{AtomicPtr, AtomicUsize};

use crate::memory::MemtableAccount;

/// Where something lies in the arena.
pub(super) type Ref = u32;
/// The reference that refers to nothing.
pub(super) const NONE: Ref = 0;

/// Alignment of every allocation and unit of the offsets, in bytes.
const UNIT_BYTES: usize = 8;
const OFFSET_BITS: u32 = 22;
const OFFSET_MASK: Ref = (1 << OFFSET_BITS) - 1;
/// Chunks an arena can have. Once half of them are taken, new ones have the greatest size, and any
/// two in a row hold more than one of that size: 8 GiB at the very least, and more than 30 GiB where
/// entries are small. The largest write buffer is 4 GiB and the largest batch is 2 GiB.
const CHUNKS_MAX: usize = if sync::MODELLED {
    16
} else {
    1 << (u32::BITS - OFFSET_BITS)
};
/// Largest chunk that is shared by several allocations, in bytes.
const CHUNK_BYTES_MAX: usize = UNIT_BYTES << OFFSET_BITS;
/// Smallest chunk, in bytes: what a memtable with a single small entry takes.
const CHUNK_BYTES_MIN: usize = 4096;
/// A new chunk is this part of all that the arena uses, so that its unused end is never much.
const CHUNK_SHARE: usize = 32;
/// An allocation larger than this part of a chunk gets a chunk of its own, so that the rest of the
/// current one is not lost.
const LARGE_SHARE: usize = 4;
/// Bytes at the front of a chunk that hold its size.
const CHUNK_HEADER_BYTES: usize = UNIT_BYTES;

const TABLE_LAYOUT: Layout = Layout::new::<[AtomicPtr<u8>; CHUNKS_MAX]>();

/// The chunks, readable by any thread.
pub(super) struct Arena {
    /// Points at `CHUNKS_MAX` pointers once there is a chunk. Allocated late, because a store may
    /// have tens of thousands of keyspaces whose memtables stay empty.
    table: AtomicPtr<AtomicPtr<u8>>,
    used_bytes: AtomicUsize,
    /// Knows of every byte that was allocated.
    account: MemtableAccount,
}

/// What only the writer needs to know of the arena.
#[derive(Default)]
pub(super) struct Bump {
    chunks: usize,
    /// The chunk being filled, and the part of it that is free, as byte offsets.
    current: usize,
    free: usize,
    end: usize,
    /// Bytes of the other chunks.
    elsewhere_bytes: usize,
}

impl Arena {
    pub(super) fn new(account: MemtableAccount) -> Self {
        Self {
            table: AtomicPtr::new(ptr::null_mut()),
            used_bytes: AtomicUsize::new(0),
            account,
        }
    }

    pub(super) const fn account(&self) -> &MemtableAccount {
        &self.account
    }

    /// Bytes of chunks that cannot be allocated any more: all but the end of the current chunk, which
    /// nobody has touched, so that the system need not have given memory for it. The table of chunks,
    /// 8 KiB, is not counted, lest a memtable with a small budget seem full from the start.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Takes `bytes` uninitialised bytes, aligned to eight.
    ///
    /// # Panics
    /// If the arena is full, which takes several times the largest write buffer.
    #[inline]
    pub(super) fn allocate(&self, bump: &mut Bump, bytes: usize) -> (Ref, *mut u8) {
        let bytes = bytes.next_multiple_of(UNIT_BYTES);
        if bytes > bump.end - bump.free {
            return self.allocate_in_new_chunk(bump, bytes);
        }
        let offset = bump.free;
        bump.free += bytes;
        self.note_use(bump);
        let reference = Self::reference(bump.current, offset);
        (reference, self.at(reference))
    }

    #[cold]
    #[inline(never)]
    fn allocate_in_new_chunk(&self, bump: &mut Bump, bytes: usize) -> (Ref, *mut u8) {
        let (regular, large_above) = if bump.chunks < CHUNKS_MAX / 2 {
            let share = self.used_bytes() / CHUNK_SHARE;
            let regular = share.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX) & !(CHUNK_BYTES_MIN - 1);
            (regular, regular / LARGE_SHARE)
        } else {
            (CHUNK_BYTES_MAX, CHUNK_BYTES_MAX - CHUNK_HEADER_BYTES)
        };
        let needed = bytes + CHUNK_HEADER_BYTES;
        let chunk = bump.chunks;
        if bytes > large_above {
            bump.elsewhere_bytes += self.add_chunk(bump, needed);
        } else {
            bump.elsewhere_bytes += bump.end;
            bump.end = self.add_chunk(bump, regular);
            bump.current = chunk;
            bump.free = needed;
        }
        self.note_use(bump);
        let reference = Self::reference(chunk, CHUNK_HEADER_BYTES);
        (reference, self.at(reference))
    }

    /// Adds a chunk of `bytes`, and returns that.
    fn add_chunk(&self, bump: &mut Bump, bytes: usize) -> usize {
        assert!(
            bump.chunks < CHUNKS_MAX,
            "the engine replaces a memtable long before it holds {CHUNKS_MAX} chunks"
        );
        let mut table = self.table.load(Ordering::Relaxed);
        if table.is_null() {
            // SAFETY: the layout is not empty. Zeroed memory is valid for null `AtomicPtr`s.
            table = unsafe { alloc_zeroed(TABLE_LAYOUT) }.cast();
            if table.is_null() {
                handle_alloc_error(TABLE_LAYOUT);
            }
            if sync::MODELLED {
                for index in 0..CHUNKS_MAX {
                    let null = AtomicPtr::new(ptr::null_mut());
                    // SAFETY: the table has room for `CHUNKS_MAX` pointers. Those of a model are not
                    // valid when zeroed.
                    unsafe { table.add(index).write(null) };
                }
            }
            self.table.store(table, Ordering::Release);
            self.account.grow(TABLE_LAYOUT.size());
        }
        let layout = chunk_layout(bytes);
        // SAFETY: the layout is not empty, because every chunk has a header.
        let chunk = unsafe { alloc(layout) };
        if chunk.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: the chunk is at least as large and aligned as its header, and ours alone.
        unsafe { chunk.cast::<usize>().write(layout.size()) };
        // SAFETY: the table has `CHUNKS_MAX` initialised pointers and the index is below that.
        unsafe { &*table.add(bump.chunks) }.store(chunk, Ordering::Release);
        bump.chunks += 1;
        self.account.grow(bytes);
        bytes
    }

    #[inline]
    fn note_use(&self, bump: &Bump) {
        let used = bump.elsewhere_bytes + bump.free;
        self.used_bytes.store(used, Ordering::Relaxed);
    }

    fn reference(chunk: usize, offset: usize) -> Ref {
        debug_assert!(chunk < CHUNKS_MAX && offset < CHUNK_BYTES_MAX);
        (chunk as Ref) << OFFSET_BITS | (offset / UNIT_BYTES) as Ref
    }

    /// The address of what `reference` refers to.
    ///
    /// Relaxed loads are enough: whoever knows a reference got it by an acquiring load of something
    /// that the writer published after the chunk.
    #[inline]
    pub(super) fn at(&self, reference: Ref) -> *mut u8 {
        let table = self.table.load(Ordering::Relaxed);
        // SAFETY: a reference exists, so the table does, with an initialised pointer for every value
        // that the upper bits can have.
        let chunk = unsafe { &*table.add((reference >> OFFSET_BITS) as usize) };
        let offset = (reference & OFFSET_MASK) as usize * UNIT_BYTES;
        // SAFETY: this arena made the reference, so that the offset lies within the chunk.
        unsafe { chunk.load(Ordering::Relaxed).add(offset) }
    }

    /// Asks the processor to fetch the first bytes of what `reference` refers to.
    #[inline]
    pub(super) fn prefetch(&self, reference: Ref) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: prefetching never faults, and SSE is part of the architecture.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.at(reference).cast()) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = reference;
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let table = *self.table.get_mut();
        if table.is_null() {
            return;
        }
        for index in 0..CHUNKS_MAX {
            // SAFETY: the table has `CHUNKS_MAX` pointers, which are ours alone by now.
            let chunk = *unsafe { &mut *table.add(index) }.get_mut();
            if chunk.is_null() {
                break;
            }
            // SAFETY: the header was written when the chunk was allocated, and never after.
            let bytes = unsafe { chunk.cast::<usize>().read() };
            // SAFETY: this is the layout the chunk was allocated with; nobody can reach it any more,
            // because all borrows of the arena have ended.
            unsafe { dealloc(chunk, chunk_layout(bytes)) };
            sync::memory::freed(chunk, bytes);
        }
        // SAFETY: allocated with this layout, and not used after this.
        unsafe { dealloc(table.cast(), TABLE_LAYOUT) };
    }
}

fn chunk_layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, UNIT_BYTES)
        .expect("lengths of entries are limited to far less than isize::MAX")
}

const _: () = assert!(size_of::<usize>() <= CHUNK_HEADER_BYTES);
const _: () = assert!(align_of::<AtomicPtr<u8>>() <= UNIT_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_aligned_disjoint_and_stay() {
        let arena = Arena::new(MemtableAccount::uncounted());
        let mut bump = Bump::default();
        assert_eq!(arena.used_bytes(), 0);
        let sizes = [1, 8, 9, 500, 4000, 70_000, 3, 0, 12, 5000, 900];
        let mut made = Vec::new();
        let rounds = if cfg!(miri) { 3 } else { 100 };
        for (i, &size) in sizes.iter().cycle().take(sizes.len() * rounds).enumerate() {
            let (reference, pointer) = arena.allocate(&mut bump, size);
            assert_ne!(reference, NONE);
            assert_eq!(pointer as usize % UNIT_BYTES, 0);
            // SAFETY: just allocated with this size.
            unsafe { pointer.write_bytes(i as u8, size) };
            made.push((reference, size, i as u8));
        }
        for (reference, size, fill) in made {
            // SAFETY: written above with this size.
            let bytes = unsafe { std::slice::from_raw_parts(arena.at(reference), size) };
            assert!(bytes.iter().all(|&b| b == fill));
        }
        let used: usize = sizes.iter().map(|s| s.next_multiple_of(8)).sum::<usize>() * rounds;
        assert!(arena.used_bytes() >= used);
        assert!(cfg!(miri) || arena.used_bytes() < used + used / 4);
    }
}
