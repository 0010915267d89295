//! A cursor over a memtable.
//!
//! It copies the slots of one leaf at a time, in order, and finds the next leaf by descending again
//! with the separator at which this one ends: leaves have no pointers to their neighbours, which
//! would have to change when a neighbour is split. Entries that are inserted into the current leaf
//! after it was copied are not seen; a reader does not look for them.

use std::cmp::Ordering;
use std::sync::Arc;

use vault_core::{Result, Slice};

use super::Memtable;
use super::arena::{NONE, Ref};
use super::entry;
use super::node::{LEAF_SLOTS, Leaf, Prefix, Slot};
use super::tree::sort_slots;
use crate::cursor::InternalCursor;

/// How many entries ahead of the position are fetched into the processor's cache. Entries lie in
/// the order of their insertion, so that each step is a cache miss otherwise.
const PREFETCH_AHEAD: usize = 8;

/// A position in a memtable. It keeps the memtable alive.
pub(crate) struct MemtableCursor {
    memtable: Arc<Memtable>,
    /// The entries of the current leaf, in order: the first `count`.
    slots: [Slot; LEAF_SLOTS],
    count: usize,
    /// Index of the current entry; `count` or more if the cursor is invalid.
    position: usize,
    prefix: Prefix,
    /// The separators between which the current leaf lies.
    low: Ref,
    high: Ref,
}

impl MemtableCursor {
    pub(super) fn new(memtable: Arc<Memtable>) -> Self {
        Self {
            memtable,
            slots: [Slot::default(); LEAF_SLOTS],
            count: 0,
            position: 0,
            prefix: Prefix::default(),
            low: NONE,
            high: NONE,
        }
    }
}

impl InternalCursor for MemtableCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.position < self.count
    }

    fn first(&mut self) -> Result<()> {
        // Nothing sorts before the empty key with the greatest trailer.
        self.seek(&[], u64::MAX)
    }

    fn last(&mut self) -> Result<()> {
        self.load(|memtable| memtable.tree.last_leaf());
        self.step_back_from(self.count);
        Ok(())
    }

    fn seek(&mut self, key: &[u8], trailer: u64) -> Result<()> {
        self.load(|memtable| memtable.tree.leaf((key, trailer)));
        self.position = self.partition(Ordering::is_lt, key, trailer);
        self.prefetch_from(self.position);
        self.load_next_if_passed();
        Ok(())
    }

    fn seek_back(&mut self, key: &[u8], trailer: u64) -> Result<()> {
        self.load(|memtable| memtable.tree.leaf((key, trailer)));
        let behind = self.partition(Ordering::is_le, key, trailer);
        self.step_back_from(behind);
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if self.valid() {
            self.position += 1;
            if let Some(slot) = self.slots[..self.count].get(self.position + PREFETCH_AHEAD) {
                self.memtable.tree.arena.prefetch(slot.entry());
            }
            self.load_next_if_passed();
        }
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if self.valid() {
            if let Some(ahead) = self.position.checked_sub(PREFETCH_AHEAD) {
                self.memtable.tree.arena.prefetch(self.slots[ahead].entry());
            }
            self.step_back_from(self.position);
        }
        Ok(())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.current().0
    }

    #[inline]
    fn trailer(&self) -> u64 {
        self.current().1
    }

    #[inline]
    fn value(&self) -> &[u8] {
        entry::value(&self.memtable.tree.arena, self.entry())
    }

    fn value_slice(&self) -> Slice {
        Slice::from(self.value())
    }
}

impl MemtableCursor {
    #[inline]
    fn entry(&self) -> Ref {
        assert!(self.valid(), "the cursor stands on no entry");
        self.slots[self.position].entry()
    }

    #[inline]
    fn current(&self) -> (&[u8], u64) {
        entry::key(&self.memtable.tree.arena, self.entry())
    }

    /// Copies the slots of a leaf. Without a leaf, the cursor becomes invalid.
    fn load(&mut self, find: impl FnOnce(&Memtable) -> Option<Leaf<'_>>) {
        let memtable = &*self.memtable;
        self.position = 0;
        match find(memtable) {
            Some(leaf) => {
                self.count = sort_slots(&memtable.tree.arena, leaf, &mut self.slots);
                self.prefix = leaf.prefix();
                self.low = leaf.low();
                self.high = leaf.high();
            }
            None => self.count = 0,
        }
    }

    /// Number of entries of the leaf, from its beginning, whose order to the given internal key
    /// passes `test`.
    fn partition(&self, test: impl Fn(Ordering) -> bool, key: &[u8], trailer: u64) -> usize {
        let arena = &self.memtable.tree.arena;
        let head = self.prefix.head(arena, key);
        self.slots[..self.count].partition_point(|slot| {
            let by_head = slot.head().cmp(&head);
            test(by_head.then_with(|| entry::compare(arena, slot.entry(), (key, trailer))))
        })
    }

    /// Moves on to the next leaf with an entry if the position is behind the last of this one.
    #[inline]
    fn load_next_if_passed(&mut self) {
        while self.position >= self.count && self.count > 0 && self.high != NONE {
            let high = self.high;
            self.load(|memtable| memtable.tree.leaf_behind(high));
            self.prefetch_from(0);
        }
    }

    /// Moves to the entry before `position`, which may be in the leaf before.
    #[inline]
    fn step_back_from(&mut self, position: usize) {
        if let Some(before) = position.checked_sub(1) {
            self.position = before;
            return;
        }
        self.step_back_to_another_leaf();
    }

    #[cold]
    fn step_back_to_another_leaf(&mut self) {
        let low = self.low;
        if self.count == 0 {
            return;
        }
        self.load(|memtable| memtable.tree.leaf_before(low));
        for slot in self.slots[..self.count].iter().rev().take(PREFETCH_AHEAD) {
            self.memtable.tree.arena.prefetch(slot.entry());
        }
        // Only the one leaf of an empty tree has no entries: this one has some, or there is none.
        self.position = self.count.saturating_sub(1);
    }

    fn prefetch_from(&self, position: usize) {
        for slot in self.slots[..self.count]
            .iter()
            .skip(position)
            .take(PREFETCH_AHEAD)
        {
            self.memtable.tree.arena.prefetch(slot.entry());
        }
    }
}
