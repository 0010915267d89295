//! The tree over the entries: a B+-tree that one writer changes while any number of threads read.
//!
//! Writing an entry costs a descent, the copy of the record into the arena and an append of eight
//! bytes to a leaf: leaves are sorted only when they are split. Keys that come in order skip the descent.
//!
//! What makes it safe without locks for readers:
//! - Published slots never change, and replaced nodes stay as they are until the memtable goes.
//! - A full leaf is replaced by two new ones; its parent learns of both in one step (see `node`). An
//!   inner node that is full is replaced likewise, and at the top the root word is.
//! - So a reader that comes by a replaced node finds in it, and below it, all that was inserted
//!   before it came there. It may miss what came later; those entries have sequence numbers that it
//!   would not look at.
//! - Separators are only ever added. A leaf that was reached by the high separator of another leaf
//!   therefore begins exactly there.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::arena::{Arena, Bump, NONE, Ref};
use super::entry;
use super::node::{INNER_SORTED_MAX, Inner, LEAF_SLOTS, Leaf, Pivot, Prefix, Slot, Span, Target};
use crate::memory::MemtableAccount;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64};

/// Slots that a leaf must have gained since it was made before the place of the latest ones tells
/// where to split it. Otherwise a hostile order of keys could make it split at the end every time.
const PATTERN_SLOTS_MIN: usize = LEAF_SLOTS / 4;
/// A half that no more inserts are expected in and that has at least so many slots is made without
/// room for more.
const TIGHT_SLOTS_MIN: usize = LEAF_SLOTS * 3 / 4;

/// The tree and the arena that it lives in.
pub(super) struct Tree {
    pub(super) arena: Arena,
    /// Number of inner levels in the upper half, root node in the lower. Zero while there is none.
    root: AtomicU64,
    entries: AtomicU64,
    /// Whether some entry came with a smaller trailer than one before it. If not, the entries of a
    /// leaf that came last are the newest.
    disordered: AtomicBool,
    /// Whether keys come in order, so that inserts know their leaf: see [`Finger`]. A hint.
    in_order: AtomicBool,
    writer: Mutex<Writer>,
}

/// What the one writer keeps from insert to insert.
#[derive(Default)]
struct Writer {
    bump: Bump,
    newest: u64,
    /// The leaf that the latest descent came to.
    reached: Ref,
    /// Nowhere but while keys come in order.
    finger: Finger,
    /// Whether they do, as others were told.
    in_order: bool,
}

/// The leaf of the latest inserts, with the first eight bytes of the keys of its bounds: most keys
/// that don't belong there are told apart by these alone.
#[derive(Default)]
struct Finger {
    leaf: Ref,
    low: Ref,
    high: Ref,
    low_head: u64,
    high_head: u64,
}

impl Tree {
    pub(super) fn new(account: MemtableAccount) -> Self {
        Self {
            arena: Arena::new(account),
            root: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            disordered: AtomicBool::new(false),
            in_order: AtomicBool::new(false),
            writer: Mutex::new(Writer::default()),
        }
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Acquire)
    }

    #[cfg(all(test, vault_model = "loom"))]
    pub(super) fn inner_levels(&self) -> u64 {
        self.root.load(Ordering::Acquire) >> 32
    }

    /// Whether entries came in another order than that of their trailers. To be asked after the slots
    /// of a leaf were read, so that it holds for these.
    #[inline]
    pub(super) fn disordered(&self) -> bool {
        self.disordered.load(Ordering::Relaxed)
    }

    /// Whether the latest inserts had no need to look for their leaf.
    #[inline]
    pub(super) fn in_order(&self) -> bool {
        self.in_order.load(Ordering::Relaxed)
    }

    /// The leaf that covers `target`. `None` if the tree is empty.
    #[inline]
    pub(super) fn leaf(&self, target: Target<'_>) -> Option<Leaf<'_>> {
        self.descend(target, false, |_| ())
    }

    /// The last leaf. `None` if the tree is empty.
    pub(super) fn last_leaf(&self) -> Option<Leaf<'_>> {
        let root = self.root.load(Ordering::Acquire);
        let mut node = root as Ref;
        if node == NONE {
            return None;
        }
        for _ in 0..root >> 32 {
            node = Inner::at(&self.arena, node).last_child(&self.arena);
        }
        Some(Leaf::at(&self.arena, node))
    }

    /// The leaf that ends where the leaf with the given low separator begins.
    pub(super) fn leaf_before(&self, low: Ref) -> Option<Leaf<'_>> {
        if low == NONE {
            return None;
        }
        self.descend(entry::key(&self.arena, low), true, |_| ())
    }

    /// The leaf that begins where the leaf with the given high separator ends.
    pub(super) fn leaf_behind(&self, high: Ref) -> Option<Leaf<'_>> {
        if high == NONE {
            return None;
        }
        self.leaf(entry::key(&self.arena, high))
    }

    #[inline]
    fn descend<'a>(
        &'a self,
        target: Target<'_>,
        before: bool,
        mut passed: impl FnMut(Ref),
    ) -> Option<Leaf<'a>> {
        let root = self.root.load(Ordering::Acquire);
        let mut node = root as Ref;
        if node == NONE {
            return None;
        }
        for _ in 0..root >> 32 {
            passed(node);
            node = Inner::at(&self.arena, node).child(&self.arena, target, before);
        }
        passed(node);
        Some(Leaf::at(&self.arena, node))
    }

    /// Inserts an entry. `(key, trailer)` must be new.
    pub(super) fn insert(&self, key: &[u8], trailer: u64, value_parts: [&[u8]; 2]) {
        // The engine lets in one writer at a time, so this never waits; it makes sure.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = &mut *writer;
        if trailer < writer.newest {
            // Published by the slot that is published after it.
            self.disordered.store(true, Ordering::Relaxed);
        } else {
            writer.newest = trailer;
        }
        let entry = entry::write(&self.arena, &mut writer.bump, key, trailer, value_parts);
        let target = (key, trailer);
        if !writer.finger.covers(&self.arena, target) {
            let mut reached = NONE;
            if self.descend(target, false, |node| reached = node).is_none() {
                reached = self.plant(&mut writer.bump);
            }
            // The bounds of a leaf are two entries, which lie anywhere: looking at them costs as much as a descent, and
            // is worth it only where the next keys are likely to come here too.
            writer.finger = if reached == writer.reached {
                Finger::on(&self.arena, reached)
            } else {
                Finger::default()
            };
            writer.reached = reached;
            let in_order = writer.finger.leaf != NONE;
            if in_order != writer.in_order {
                // Only what changes: others look at it all the time.
                writer.in_order = in_order;
                self.in_order.store(in_order, Ordering::Relaxed);
            }
        }
        if !Leaf::at(&self.arena, writer.reached).append(&self.arena, key, entry) {
            self.split(&mut writer.bump, target, entry);
            writer.finger = Finger::default();
        }
        let entries = self.entries.load(Ordering::Relaxed);
        self.entries.store(entries + 1, Ordering::Release);
    }

    /// Makes the first leaf, empty.
    #[cold]
    fn plant(&self, bump: &mut Bump) -> Ref {
        let span = Span {
            low: NONE,
            high: NONE,
            sample: (NONE, NONE),
        };
        let prefix = Prefix::default();
        let leaf = Leaf::create(&self.arena, bump, span, &[], prefix, LEAF_SLOTS);
        self.set_root(0, leaf);
        leaf
    }

    fn set_root(&self, inner_levels: u64, node: Ref) {
        self.root
            .store(inner_levels << 32 | u64::from(node), Ordering::Release);
    }

    /// Replaces the full leaf that covers `target` by two that hold `entry` too.
    #[cold]
    #[inline(never)]
    fn split(&self, bump: &mut Bump, target: Target<'_>, entry: Ref) {
        let arena = &self.arena;
        let mut path = Vec::with_capacity(8);
        let leaf = self.descend(target, false, |node| path.push(node));
        let leaf = leaf.expect("there is a leaf to split");
        path.pop();

        let mut room = [Slot::default(); LEAF_SLOTS + 1];
        let count = sort_slots(arena, leaf, &mut room);
        let new = Slot::new(leaf.head(arena, target.0), entry);
        let at = room[..count].partition_point(|slot| slot.compare(arena, new).is_lt());
        let (_, tail) = leaf.slots();
        let halves = Halves::choose(&room[..count], tail, at);
        room.copy_within(at..count, at + 1);
        room[at] = new;
        let slots = &room[..=count];

        let (left, right) = slots.split_at(halves.cut);
        let separator = right[0].entry();
        let sample = (slots[0].entry(), slots[count].entry());
        let behind = leaf.prefix();
        let low = leaf.low();
        let span = Span {
            low,
            high: separator,
            sample,
        };
        let left = Leaf::create(arena, bump, span, left, behind, halves.left_capacity);
        let span = Span {
            low: separator,
            high: leaf.high(),
            sample,
        };
        let right = Leaf::create(arena, bump, span, right, behind, halves.right_capacity);
        self.replace(bump, &path, sample, &[(low, left), (separator, right)]);
    }

    /// Puts `children`, one or two, in the place of the child of the last node of `path` that has the
    /// separator of the first of them; in the place of the root, if the path is empty. `sample` is as
    /// in [`Span`].
    fn replace(&self, bump: &mut Bump, path: &[Ref], sample: (Ref, Ref), children: &[(Ref, Ref)]) {
        let arena = &self.arena;
        let levels = self.root.load(Ordering::Relaxed) >> 32;
        let Some((&parent, path)) = path.split_last() else {
            if let [(_, only)] = *children {
                return self.set_root(levels, only);
            }
            let root = |(separator, child)| Pivot {
                head: 0,
                separator,
                child,
            };
            let pivots: Vec<Pivot> = children.iter().copied().map(root).collect();
            let span = Span {
                low: NONE,
                high: NONE,
                sample,
            };
            let root = Inner::create(arena, bump, span, &pivots, None);
            return self.set_root(levels + 1, root);
        };
        let parent = Inner::at(arena, parent);
        if parent.append(arena, children) {
            return;
        }

        let pivots = parent.pivots_with(arena, children);
        let (low, high) = (parent.low(), parent.high());
        // The low separator may be none; the one behind it is some entry's.
        let sample = (
            pivots[1.min(pivots.len() - 1)].separator,
            pivots[pivots.len() - 1].separator,
        );
        let behind = Some(parent.prefix());
        if pivots.len() <= INNER_SORTED_MAX {
            let span = Span { low, high, sample };
            let node = Inner::create(arena, bump, span, &pivots, behind);
            return self.replace(bump, path, sample, &[(low, node)]);
        }
        // Ascending keys only ever add at the end: keep full what they leave behind.
        let newest = children[children.len() - 1].0;
        let ascending = high == NONE && pivots[pivots.len() - 1].separator == newest;
        let cut = if ascending {
            pivots.len() - 1
        } else {
            pivots.len() / 2
        };
        let (left, right) = pivots.split_at(cut);
        let separator = right[0].separator;
        let span = Span {
            low,
            high: separator,
            sample,
        };
        let left = Inner::create(arena, bump, span, left, behind);
        let span = Span {
            low: separator,
            high,
            sample,
        };
        let right = Inner::create(arena, bump, span, right, behind);
        self.replace(bump, path, sample, &[(low, left), (separator, right)]);
    }
}

impl Finger {
    fn on(arena: &Arena, reference: Ref) -> Self {
        let leaf = Leaf::at(arena, reference);
        let (low, high) = (leaf.low(), leaf.high());
        let bound = |entry, missing| match entry {
            NONE => missing,
            _ => first_eight(entry::key(arena, entry).0),
        };
        Self {
            leaf: reference,
            low,
            high,
            low_head: bound(low, 0),
            high_head: bound(high, u64::MAX),
        }
    }

    #[inline]
    fn covers(&self, arena: &Arena, target: Target<'_>) -> bool {
        if self.leaf == NONE {
            return false;
        }
        let head = first_eight(target.0);
        if head < self.low_head || head > self.high_head {
            return false;
        }
        let from_low = head > self.low_head
            || self.low == NONE
            || entry::compare(arena, self.low, target).is_le();
        let to_high = head < self.high_head
            || self.high == NONE
            || entry::compare(arena, self.high, target).is_gt();
        from_low && to_high
    }
}

#[inline]
fn first_eight(key: &[u8]) -> u64 {
    if let Some(head) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*head);
    }
    let mut head = [0; 8];
    head[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(head)
}

/// How a leaf is to be cut: slots that go to the left (the new entry is counted), and the capacities.
struct Halves {
    cut: usize,
    left_capacity: usize,
    right_capacity: usize,
}

impl Halves {
    /// Cuts in the middle, unless the new entry, which belongs at index `at` of the sorted slots,
    /// comes right beside the one before it: then where the two meet, on the side where the next
    /// one is expected.
    fn choose(sorted: &[Slot], tail: &[Slot], at: usize) -> Self {
        let count = sorted.len();
        let beside = |index: Option<usize>| {
            tail.len() >= PATTERN_SLOTS_MIN
                && index.and_then(|i| sorted.get(i)).map(|s| s.entry())
                    == tail.last().map(|s| s.entry())
        };
        let tight = |slots: usize| {
            if slots >= TIGHT_SLOTS_MIN {
                slots.min(LEAF_SLOTS)
            } else {
                LEAF_SLOTS
            }
        };
        if beside(at.checked_sub(1)) && at > 0 {
            // Ascending: the new entry begins the right leaf, and the left one is done.
            return Self {
                cut: at,
                left_capacity: tight(at),
                right_capacity: LEAF_SLOTS,
            };
        }
        if beside(Some(at)) {
            // Descending, as the versions of one key come: the new entry ends the left leaf.
            let right = count - at;
            return Self {
                cut: at + 1,
                left_capacity: LEAF_SLOTS,
                right_capacity: tight(right),
            };
        }
        Self {
            cut: count.div_ceil(2),
            left_capacity: LEAF_SLOTS,
            right_capacity: LEAF_SLOTS,
        }
    }
}

/// Copies the slots of a leaf into `room` in order, and returns how many there are.
///
/// Heads decide almost always, so that the slots are first sorted and merged by these alone, which
/// needs no branch and no look at an entry; what has equal heads is put in order afterwards.
pub(super) fn sort_slots(arena: &Arena, leaf: Leaf<'_>, room: &mut [Slot]) -> usize {
    let (sorted, tail) = leaf.slots();
    let count = sorted.len() + tail.len();
    let room = &mut room[..count];
    if tail.is_empty() {
        room.copy_from_slice(sorted);
        return count;
    }
    let mut late = [Slot::default(); LEAF_SLOTS];
    let late = &mut late[..tail.len()];
    late.copy_from_slice(tail);
    late.sort_unstable();
    let (mut i, mut j) = (0, 0);
    let mut filled = 0;
    while i < sorted.len() && j < late.len() {
        let from_late = late[j].head() < sorted[i].head();
        room[filled] = if from_late { late[j] } else { sorted[i] };
        i += usize::from(!from_late);
        j += usize::from(from_late);
        filled += 1;
    }
    let (rest, rest_late) = (&sorted[i..], &late[j..]);
    room[filled..filled + rest.len()].copy_from_slice(rest);
    room[filled + rest.len()..].copy_from_slice(rest_late);

    for run in room.chunk_by_mut(|a, b| a.head() == b.head()) {
        if run.len() > 1 {
            run.sort_unstable_by(|a, b| a.compare(arena, *b));
        }
    }
    count
}
