//! The newest entries of a keyspace, in memory, in order, until they are flushed to a table.
//!
//! One writer at a time inserts; any number of readers look up and walk at the same time and never
//! wait. A reader sees every entry whose insert happened before its read began. It may see later ones
//! too, and tells them by their trailers: readers look at a sequence number that the engine has
//! published, and the engine publishes it after the insert.
//!
//! Steps of an insert: copy the record into the arena ([`entry`]), find the leaf ([`tree`]), append
//! eight bytes to it ([`node`]). Everything lies in one [`arena`] and is freed whole.
//!
//! Range tombstones are kept beside the tree: see [`tombstone_list`].
//!
//! Invariants:
//! - No `(key, trailer)` is inserted twice: every operation has a sequence number of its own.
//! - Nothing published is ever changed or moved; see `docs/internals/memtable.md` for why that
//!   suffices.
#![expect(
    unsafe_code,
    reason = "readers share memory with the writer without a lock; the arena frees it whole"
)]

mod arena;
mod cursor;
mod entry;
mod node;
mod tombstone_list;
mod tree;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod threads_tests;

use std::hint;
use std::ops::ControlFlow;
use std::sync::Arc;

pub(crate) use self::cursor::MemtableCursor;
use self::tombstone_list::TombstoneList;
use self::tree::Tree;
use crate::internal_key::RangeTombstone;
use crate::memory::MemtableAccount;
use crate::tombstones::Fragments;

/// How often a range tombstone is in memory: in the list, in the fragments that readers ask, and in those
/// that are being built to replace them.
const RANGE_TOMBSTONE_COPIES: usize = 3;

/// The newest entries of a keyspace.
pub(crate) struct Memtable {
    tree: Tree,
    tombstones: TombstoneList,
}

impl Memtable {
    /// An empty memtable, which holds almost no memory yet. What it comes to hold is told to `account`.
    pub(crate) fn new(account: MemtableAccount) -> Self {
        Self {
            tree: Tree::new(account),
            tombstones: TombstoneList::default(),
        }
    }

    /// Notes that nothing more will be inserted.
    pub(crate) fn seal(&self) {
        self.tree.arena.account().seal();
    }

    /// Notes that nobody waits for its flush any more.
    pub(crate) fn leave(&self) {
        self.tree.arena.account().leave();
    }

    /// Bytes allocated, the untouched end of the current chunk included.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.tree.arena.account().bytes()
    }

    /// Inserts one version of a key. Its stored value is `value_parts` joined.
    ///
    /// Writers that come at the same time wait for one another; the engine's write lock sees to it
    /// that none does. `(key, trailer)` must not be there yet.
    ///
    /// # Panics
    /// If the key or the value is 4 GiB long or more, or the memtable holds more than 8 GiB: limits
    /// and settings keep both far below.
    pub(crate) fn insert(&self, key: &[u8], trailer: u64, value_parts: [&[u8]; 2]) {
        self.tree.insert(key, trailer, value_parts);
    }

    /// Walks to where a key will be inserted, so that the nodes on the way are in the processor's cache by then. May be
    /// called at any time, by any thread, and changes nothing. Gives `false` where that is no use: while keys come in order,
    /// inserts don't walk, and looking at their leaf would only take it away from whoever writes to it.
    #[inline]
    pub(crate) fn approach(&self, key: &[u8]) -> bool {
        if self.tree.in_order() {
            return false;
        }
        if let Some(leaf) = self.tree.leaf((key, u64::MAX)) {
            let (_, tail) = leaf.slots();
            hint::black_box(tail.last().map(|slot| slot.head()));
        }
        true
    }

    /// Deletes the keys in `[start, end)` as of `sequence`. An empty range deletes nothing.
    pub(crate) fn insert_range_tombstone(&self, start: &[u8], end: &[u8], sequence: u64) {
        if start < end {
            let bytes = size_of::<RangeTombstone>() + start.len() + end.len();
            let account = self.tree.arena.account();
            account.grow(RANGE_TOMBSTONE_COPIES * bytes);
            self.tombstones.push(RangeTombstone {
                start: start.to_vec(),
                end: end.to_vec(),
                sequence,
            });
        }
    }

    /// Calls `found` with the trailer and the stored value of each version of `key` whose trailer is
    /// at most `from_trailer`, newest first, until it breaks.
    pub(crate) fn visit<F>(&self, key: &[u8], from_trailer: u64, mut found: F) -> ControlFlow<()>
    where
        F: FnMut(u64, &[u8]) -> ControlFlow<()>,
    {
        let Some(mut leaf) = self.tree.leaf((key, from_trailer)) else {
            return ControlFlow::Continue(());
        };
        let arena = &self.tree.arena;
        loop {
            let head = leaf.head(arena, key);
            let (sorted, tail) = leaf.slots();
            let begin = sorted.partition_point(|slot| slot.head() < head);
            let equal = sorted[begin..]
                .iter()
                .take_while(|slot| slot.head() == head);
            let late = tail.iter().rev().filter(|slot| slot.head() == head);
            let versions = late.chain(equal).filter_map(|slot| {
                let (found_key, trailer) = entry::key(arena, slot.entry());
                (trailer <= from_trailer && found_key == key).then_some((trailer, slot.entry()))
            });
            if self.tree.disordered() {
                let mut versions: Vec<_> = versions.collect();
                versions.sort_unstable_by(|a, b| b.cmp(a));
                for (trailer, entry) in versions {
                    found(trailer, entry::value(arena, entry))?;
                }
            } else {
                // What came later is newer, and the sorted part is older than all that came since.
                for (trailer, entry) in versions {
                    found(trailer, entry::value(arena, entry))?;
                }
            }
            // Older versions are in the next leaf only if that begins with one.
            let high = leaf.high();
            if leaf.high_head() != head || high == arena::NONE || entry::key(arena, high).0 != key {
                return ControlFlow::Continue(());
            }
            match self.tree.leaf_behind(high) {
                Some(next) => leaf = next,
                None => return ControlFlow::Continue(()),
            }
        }
    }

    /// The trailer of the newest version of `key`.
    pub(crate) fn latest_version(&self, key: &[u8]) -> Option<u64> {
        let mut latest = None;
        let _ = self.visit(key, u64::MAX, |trailer, _| {
            latest = Some(trailer);
            ControlFlow::Break(())
        });
        latest
    }

    /// A cursor over all versions of all keys. It keeps the memtable alive.
    pub(crate) fn cursor(self: &Arc<Self>) -> MemtableCursor {
        MemtableCursor::new(Arc::clone(self))
    }

    /// The range tombstones, ready to be asked. `None` if there are none.
    #[inline]
    pub(crate) fn range_tombstones(&self) -> Option<Arc<Fragments>> {
        self.tombstones.fragments()
    }

    /// Number of range tombstones.
    pub(crate) fn range_tombstone_count(&self) -> usize {
        self.tombstones.count()
    }

    /// The range tombstones as they were inserted.
    pub(crate) fn range_tombstone_list(&self) -> Vec<RangeTombstone> {
        self.tombstones.list()
    }

    /// Bytes of memory in use, for the memory budget: chunks of the arena, with replaced nodes and all
    /// else that is lost in them, but without the untouched end of the current chunk; and range
    /// tombstones. Grows with every insert.
    pub(crate) fn bytes(&self) -> usize {
        self.tree.arena.used_bytes() + self.tombstones.bytes()
    }

    /// Number of entries, without range tombstones.
    pub(crate) fn entries(&self) -> u64 {
        self.tree.entries()
    }

    /// Number of levels above the leaves.
    #[cfg(all(test, vault_model = "loom"))]
    pub(crate) fn inner_levels(&self) -> u64 {
        self.tree.inner_levels()
    }

    /// Whether there is neither an entry nor a range tombstone.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries() == 0 && self.tombstones.is_empty()
    }
}
