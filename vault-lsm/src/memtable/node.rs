//! The nodes of the tree: how they lie in the arena, how they are searched and appended to.
//!
//! Every node covers the internal keys from its *low* separator up to, not including, its *high* one
//! (either may be missing at the edges of the tree). A separator is the internal key of some entry,
//! named by the reference of that entry. A node begins with a sorted part, laid down when the node is
//! made, behind which the writer appends; the number of slots is published with `Release` after a
//! slot is complete, and a published slot never changes.
//!
//! - A **leaf** slot is the head of an entry's key (upper half) and the reference of the entry.
//! - An **inner** slot is a separator (with the head of its key) and the child that begins there.
//!   Slot 0 holds the low separator. A slot that is appended with a separator that is already there
//!   replaces the child: the last one counts. Publishing two slots at once therefore swaps one child
//!   for two in a single step.
//!
//! A *head* is four bytes of the key behind a prefix that belongs to the node. Heads compare as
//! their keys do, except that equal heads say nothing. Between two separators, the prefix is what
//! the keys of both have in common, and so every key of the node has it. At the edges it comes from
//! the entries at hand, and keys without it get the least or the greatest head.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::slice;
use std::sync::atomic::Ordering as Memory;

use super::arena::{Arena, Bump, NONE, Ref};
use super::entry;

use crate::sync;
use crate::sync::atomic::AtomicU32;

/// Slots of a leaf. Larger leaves split less often but take longer to search and to sort.
pub(super) const LEAF_SLOTS: usize = if sync::MODELLED { 4 } else { 64 };
/// Slots that an inner node has behind its sorted part.
pub(super) const INNER_TAIL_SLOTS: usize = if sync::MODELLED { 2 } else { 24 };
/// Sorted slots of an inner node, at most: more are cut into two nodes.
pub(super) const INNER_SORTED_MAX: usize = if sync::MODELLED { 3 } else { 104 };

/// An internal key that is looked for.
pub(super) type Target<'k> = (&'k [u8], u64);

#[repr(C)]
struct Header {
    count: AtomicU32,
    capacity: u32,
    sorted: u32,
    prefix_bytes: u32,
    /// The entry whose key has the prefix, or `NONE` if every key of the node has it.
    prefix_of: Ref,
    low: Ref,
    high: Ref,
    high_head: u32,
}

const HEADER_BYTES: usize = size_of::<Header>();

/// What a new node covers, and keys from which to choose its prefix where a bound is missing.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) low: Ref,
    pub(super) high: Ref,
    /// The smallest and the greatest entry of a neighbourhood of the node.
    pub(super) sample: (Ref, Ref),
}

/// The prefix behind which the heads of a node begin.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Its length.
    bytes: u32,
    /// The entry whose key has it, or `NONE` if every key of the node has it.
    of: Ref,
}

impl Prefix {
    /// Bytes that the edges of the tree hold back from the prefix that their entries share, so that
    /// the keys to come, which lie further out, still have it.
    const RESERVE_BYTES: usize = 2;

    pub(super) fn choose(arena: &Arena, span: Span) -> Self {
        if span.low != NONE && span.high != NONE {
            let bytes = common_prefix(arena, span.low, span.high) as u32;
            return Self { bytes, of: NONE };
        }
        let (first, last) = span.sample;
        if first == NONE || last == NONE {
            return Self::default();
        }
        match common_prefix(arena, first, last).saturating_sub(Self::RESERVE_BYTES) {
            0 => Self::default(),
            bytes => Self {
                bytes: bytes as u32,
                of: first,
            },
        }
    }

    /// The head of a key.
    #[inline]
    pub(super) fn head(self, arena: &Arena, key: &[u8]) -> u32 {
        let bytes = self.bytes as usize;
        if self.of != NONE {
            let prefix = &entry::key(arena, self.of).0[..bytes];
            match key[..key.len().min(bytes)].cmp(prefix) {
                Ordering::Less => return 0,
                Ordering::Greater => return u32::MAX,
                Ordering::Equal => {}
            }
        }
        let rest = key.get(bytes..).unwrap_or_default();
        if let Some(head) = rest.first_chunk::<4>() {
            return u32::from_be_bytes(*head);
        }
        let mut head = [0; 4];
        head[..rest.len()].copy_from_slice(rest);
        u32::from_be_bytes(head)
    }

    fn head_of(self, arena: &Arena, entry: Ref) -> u32 {
        if entry == NONE {
            return 0;
        }
        self.head(arena, entry::key(arena, entry).0)
    }
}

fn common_prefix(arena: &Arena, a: Ref, b: Ref) -> usize {
    let (a, b) = (entry::key(arena, a).0, entry::key(arena, b).0);
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// What leaves and inner nodes have in common.
#[derive(Clone, Copy)]
struct Node<'a> {
    start: *mut u8,
    arena: PhantomData<&'a Arena>,
}

impl<'a> Node<'a> {
    fn at(arena: &'a Arena, reference: Ref) -> Self {
        Self {
            start: arena.at(reference),
            arena: PhantomData,
        }
    }

    fn create(
        arena: &'a Arena,
        bump: &mut Bump,
        span: Span,
        prefix: Prefix,
        (sorted, capacity): (usize, usize),
        slot_bytes: usize,
    ) -> (Ref, Self) {
        let (reference, start) = arena.allocate(bump, HEADER_BYTES + capacity * slot_bytes);
        let header = Header {
            count: AtomicU32::new(0),
            capacity: capacity as u32,
            sorted: sorted as u32,
            prefix_bytes: prefix.bytes,
            prefix_of: prefix.of,
            low: span.low,
            high: span.high,
            high_head: prefix.head_of(arena, span.high),
        };
        // SAFETY: the allocation is large enough, aligned to eight, and known to nobody else.
        unsafe { start.cast::<Header>().write(header) };
        sync::memory::written(start, HEADER_BYTES);
        (
            reference,
            Self {
                start,
                arena: PhantomData,
            },
        )
    }

    #[inline]
    fn header(self) -> &'a Header {
        sync::memory::read(self.start, HEADER_BYTES);
        // SAFETY: every node begins with a header, written before the node was published, of which
        // only the atomic field changes; it lives as long as the arena.
        unsafe { &*self.start.cast::<Header>() }
    }

    #[inline]
    fn count(self) -> usize {
        self.header().count.load(Memory::Acquire) as usize
    }

    #[inline]
    fn prefix(self) -> Prefix {
        let header = self.header();
        Prefix {
            bytes: header.prefix_bytes,
            of: header.prefix_of,
        }
    }

    /// The first `count` elements of the array that begins `offset` bytes behind the header.
    ///
    /// # Safety
    /// These elements must have been published (or be the caller's own), and be of type `T`.
    #[inline]
    unsafe fn array<T>(self, offset: usize, count: usize) -> &'a [T] {
        // SAFETY: the caller vouches for the elements. The writer only writes behind what is
        // published, so that nothing here changes any more.
        unsafe {
            let start = self.start.add(HEADER_BYTES + offset);
            sync::memory::read(start, count * size_of::<T>());
            slice::from_raw_parts(start.cast(), count)
        }
    }

    /// Writes element `index` of the array that begins `offset` bytes behind the header.
    ///
    /// # Safety
    /// The caller is the only writer, the element lies within the node, and is not yet published.
    #[inline]
    unsafe fn write<T>(self, offset: usize, index: usize, value: T) {
        // SAFETY: the caller vouches for it; no reader looks at elements that are not published.
        unsafe {
            let at = self.start.add(HEADER_BYTES + offset).cast::<T>().add(index);
            at.write(value);
            sync::memory::written(at.cast(), size_of::<T>());
        }
    }

    #[inline]
    fn publish(self, count: usize) {
        self.header().count.store(count as u32, Memory::Release);
    }
}

/// An entry in a leaf: the head of its key in the upper half, its reference in the lower.
///
/// The derived order is that of the heads, and arbitrary where these are equal.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(super) struct Slot(u64);

impl Slot {
    #[inline]
    pub(super) fn new(head: u32, entry: Ref) -> Self {
        Self(u64::from(head) << 32 | u64::from(entry))
    }

    #[inline]
    pub(super) fn head(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    pub(super) fn entry(self) -> Ref {
        self.0 as u32
    }

    /// Compares two slots of the same leaf.
    #[inline]
    pub(super) fn compare(self, arena: &Arena, other: Self) -> Ordering {
        self.head()
            .cmp(&other.head())
            .then_with(|| entry::compare(arena, self.entry(), entry::key(arena, other.entry())))
    }
}

/// A leaf.
#[derive(Clone, Copy)]
pub(super) struct Leaf<'a>(Node<'a>);

impl<'a> Leaf<'a> {
    #[inline]
    pub(super) fn at(arena: &'a Arena, reference: Ref) -> Self {
        Self(Node::at(arena, reference))
    }

    /// Makes a leaf of sorted slots whose heads were made behind the prefix `heads_behind`.
    pub(super) fn create(
        arena: &'a Arena,
        bump: &mut Bump,
        span: Span,
        slots: &[Slot],
        heads_behind: Prefix,
        capacity: usize,
    ) -> Ref {
        debug_assert!(slots.len() <= capacity && capacity <= LEAF_SLOTS);
        let prefix = Prefix::choose(arena, span);
        let shape = (slots.len(), capacity);
        let (reference, node) = Node::create(arena, bump, span, prefix, shape, size_of::<Slot>());
        for (i, &slot) in slots.iter().enumerate() {
            let slot = if prefix == heads_behind {
                slot
            } else {
                Slot::new(prefix.head_of(arena, slot.entry()), slot.entry())
            };
            // SAFETY: the node is ours alone until its reference is published.
            unsafe { node.write(0, i, slot) };
        }
        node.publish(slots.len());
        reference
    }

    /// The slots: a sorted part and, behind it, what came later, in the order in which it came.
    #[inline]
    pub(super) fn slots(self) -> (&'a [Slot], &'a [Slot]) {
        // SAFETY: as many were published.
        let slots = unsafe { self.0.array(0, self.0.count()) };
        slots.split_at(self.0.header().sorted as usize)
    }

    /// Appends an entry. Returns false if there is no room.
    ///
    /// The caller holds the writer lock, and the leaf is one of the current tree.
    #[inline]
    pub(super) fn append(self, arena: &Arena, key: &[u8], entry: Ref) -> bool {
        let header = self.0.header();
        let count = header.count.load(Memory::Relaxed);
        if count == header.capacity {
            return false;
        }
        let slot = Slot::new(self.head(arena, key), entry);
        // SAFETY: there is one writer, and slot `count` is within the capacity and not published.
        unsafe { self.0.write(0, count as usize, slot) };
        self.0.publish(count as usize + 1);
        true
    }

    #[inline]
    pub(super) fn head(self, arena: &Arena, key: &[u8]) -> u32 {
        self.0.prefix().head(arena, key)
    }

    pub(super) fn prefix(self) -> Prefix {
        self.0.prefix()
    }

    pub(super) fn low(self) -> Ref {
        self.0.header().low
    }

    pub(super) fn high(self) -> Ref {
        self.0.header().high
    }

    /// The head of the key of the high separator; 0 if there is none.
    #[inline]
    pub(super) fn high_head(self) -> u32 {
        self.0.header().high_head
    }
}

/// One child of an inner node, while the node is put together.
#[derive(Clone, Copy)]
pub(super) struct Pivot {
    pub(super) head: u32,
    pub(super) separator: Ref,
    pub(super) child: Ref,
}

/// An inner node: arrays of heads, of separators and of children, each as long as the capacity.
#[derive(Clone, Copy)]
pub(super) struct Inner<'a>(Node<'a>);

impl<'a> Inner<'a> {
    #[inline]
    pub(super) fn at(arena: &'a Arena, reference: Ref) -> Self {
        Self(Node::at(arena, reference))
    }

    /// Makes an inner node of sorted pivots. Their heads are made anew unless they were made behind
    /// the prefix that the node turns out to have.
    pub(super) fn create(
        arena: &'a Arena,
        bump: &mut Bump,
        span: Span,
        pivots: &[Pivot],
        heads_behind: Option<Prefix>,
    ) -> Ref {
        debug_assert!(!pivots.is_empty() && pivots[0].separator == span.low);
        let prefix = Prefix::choose(arena, span);
        let shape = (pivots.len(), pivots.len() + INNER_TAIL_SLOTS);
        let (reference, node) =
            Node::create(arena, bump, span, prefix, shape, 3 * size_of::<u32>());
        let inner = Self(node);
        for (i, pivot) in pivots.iter().enumerate() {
            let mut pivot = *pivot;
            if heads_behind != Some(prefix) {
                pivot.head = prefix.head_of(arena, pivot.separator);
            }
            inner.write(i, pivot);
        }
        node.publish(pivots.len());
        reference
    }

    /// Appends children, all at once. Returns false if there is no room.
    ///
    /// The caller holds the writer lock, and the node is one of the current tree.
    pub(super) fn append(self, arena: &Arena, children: &[(Ref, Ref)]) -> bool {
        let count = self.0.count();
        if count + children.len() > self.capacity() {
            return false;
        }
        for (i, &(separator, child)) in children.iter().enumerate() {
            let head = self.prefix().head_of(arena, separator);
            self.write(
                count + i,
                Pivot {
                    head,
                    separator,
                    child,
                },
            );
        }
        self.0.publish(count + children.len());
        true
    }

    /// Writes a slot that is not yet published: only for the writer.
    fn write(self, index: usize, pivot: Pivot) {
        assert!(index < self.capacity());
        let array_bytes = self.capacity() * size_of::<u32>();
        // SAFETY: the index is within the three arrays, of as many elements as the capacity. Both
        // callers are the only writer and write behind what is published.
        unsafe {
            self.0.write(0, index, pivot.head);
            self.0.write(array_bytes, index, pivot.separator);
            self.0.write(2 * array_bytes, index, pivot.child);
        }
    }

    fn capacity(self) -> usize {
        self.0.header().capacity as usize
    }

    /// Heads, separators and children.
    #[inline]
    fn arrays(self) -> [&'a [u32]; 3] {
        let count = self.0.count();
        let array_bytes = self.capacity() * size_of::<u32>();
        // SAFETY: as many elements of each array were published.
        [0, 1, 2].map(|array| unsafe { self.0.array(array * array_bytes, count) })
    }

    /// The child that covers `target`, or, if `before`, the keys just before it (in which case the
    /// node must cover some).
    #[inline]
    pub(super) fn child(self, arena: &Arena, target: Target<'_>, before: bool) -> Ref {
        let [heads, separators, children] = self.arrays();
        let sorted = self.0.header().sorted as usize;
        let head = self.prefix().head(arena, target.0);
        let reached = |i: usize| match entry::compare(arena, separators[i], target) {
            Ordering::Less => true,
            Ordering::Equal => !before,
            Ordering::Greater => false,
        };

        // Slot 0 is the low separator, which is reached by any key of the node.
        let mut best = heads[1..sorted].partition_point(|&h| h < head);
        if best + 1 < sorted && heads[best + 1] == head {
            let mut end = heads[1..sorted].partition_point(|&h| h <= head);
            while best < end {
                let middle = best + (end - best) / 2 + 1;
                if reached(middle) {
                    best = middle;
                } else {
                    end = middle - 1;
                }
            }
        }

        for i in sorted..heads.len() {
            if heads[i] > head {
                continue;
            }
            if separators[i] == separators[best] {
                best = i;
                continue;
            }
            let behind_best =
                separators[best] == NONE || (separators[i] != NONE && heads[i] >= heads[best]);
            if !behind_best || (heads[i] == head && !reached(i)) {
                continue;
            }
            let greater = separators[best] == NONE
                || heads[i] > heads[best]
                || entry::compare(arena, separators[i], entry::key(arena, separators[best]))
                    == Ordering::Greater;
            if greater {
                best = i;
            }
        }
        children[best]
    }

    /// The child that covers the greatest keys.
    pub(super) fn last_child(self, arena: &Arena) -> Ref {
        let pivots = self.pivots_with(arena, &[]);
        pivots[pivots.len() - 1].child
    }

    /// The children that count, in order, after `more` will have been appended.
    pub(super) fn pivots_with(self, arena: &Arena, more: &[(Ref, Ref)]) -> Vec<Pivot> {
        let [heads, separators, children] = self.arrays();
        let sorted = self.0.header().sorted as usize;
        let prefix = self.prefix();
        let published = (0..heads.len()).map(|i| Pivot {
            head: heads[i],
            separator: separators[i],
            child: children[i],
        });
        let added = more.iter().map(|&(separator, child)| Pivot {
            head: prefix.head_of(arena, separator),
            separator,
            child,
        });
        let mut pivots = Vec::with_capacity(heads.len() + more.len());
        pivots.extend(published.clone().take(sorted));
        for pivot in published.skip(sorted).chain(added) {
            let same = |other: &&mut Pivot| other.separator == pivot.separator;
            if let Some(replaced) = pivots.iter_mut().find(same) {
                replaced.child = pivot.child;
                continue;
            }
            let key = entry::key(arena, pivot.separator);
            // Slot 0 is the low separator (or none), before which nothing belongs.
            let at = 1 + pivots[1..].partition_point(|other| {
                let order = other.head.cmp(&pivot.head);
                order.then_with(|| entry::compare(arena, other.separator, key)) == Ordering::Less
            });
            pivots.insert(at, pivot);
        }
        pivots
    }

    pub(super) fn prefix(self) -> Prefix {
        self.0.prefix()
    }

    pub(super) fn low(self) -> Ref {
        self.0.header().low
    }

    pub(super) fn high(self) -> Ref {
        self.0.header().high
    }
}

// Arrays behind the header are aligned: the header is a multiple of eight bytes long.
const _: () = assert!(HEADER_BYTES.is_multiple_of(8));
