//! The cache of decoded blocks, shared by all tables of a store.
//!
//! A hit takes a read lock of one shard and no other lock. What is evicted is decided by the cache
//! (a variant of CLOCK with a ghost list), and which data blocks come in at all while it is full by the
//! [`doorkeeper`](super::doorkeeper): a scan does not flush what lookups keep using.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, Weighter};
use vault_core::stats::CacheStats;

use super::block::Block;
use super::doorkeeper::Doorkeeper;
use super::filter::Filter;
use super::index::IndexPartition;
use super::recycle;
use crate::sync::thread_number;

/// What an entry takes beside its block: the slot, the hash table, the allocation's header.
const ENTRY_OVERHEAD_BYTES: u64 = 160;
/// What a block is expected to take: only sizes the cache's tables at the start.
const BLOCK_BYTES_EXPECTED: u64 = 4 << 10;
/// Most slots that are made room for at the start; the tables grow beyond that where needed.
const SLOTS_EXPECTED_MAX: u64 = 1 << 20;
/// Counters of hits and misses: each thread has its own, unless there are more. A power of two.
const COUNTERS: usize = 16;

/// A block as it is used.
#[derive(Debug, Clone)]
pub(super) enum Cached {
    Data(Block),
    Index(Arc<IndexPartition>),
    Filter(Arc<Filter>),
}

impl Cached {
    fn bytes(&self) -> u64 {
        match self {
            Self::Data(block) => block.memory_bytes(),
            Self::Index(index) => index.memory_bytes(),
            Self::Filter(filter) => filter.memory_bytes(),
        }
    }
}

/// Which block: table number and ordinal within the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CacheKey {
    pub(super) table: u64,
    pub(super) ordinal: u64,
}

type Blocks = Cache<CacheKey, Cached, Weight, FoldBuilder, Recycling>;

/// Decoded blocks, up to a number of bytes.
pub(crate) struct BlockCache {
    /// `None` with a capacity of zero.
    blocks: Option<Blocks>,
    doorkeeper: Doorkeeper,
    /// Whether a block was evicted since there was room last: then the next ones are asked for at the door.
    full: AtomicBool,
    /// While the keys are wiped nothing that was decoded before is kept.
    shut: AtomicBool,
    counters: [Counter; COUNTERS],
}

impl BlockCache {
    /// A cache of `capacity_bytes`, what it needs for itself included. Zero: nothing is kept.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        let slots = (capacity_bytes / BLOCK_BYTES_EXPECTED).clamp(1, SLOTS_EXPECTED_MAX);
        let blocks = (capacity_bytes > 0).then(|| {
            Cache::with(
                slots as usize,
                capacity_bytes,
                Weight,
                FoldBuilder,
                Recycling,
            )
        });
        Self {
            blocks,
            doorkeeper: Doorkeeper::new(slots),
            full: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            counters: Default::default(),
        }
    }

    /// Hits, misses and sizes.
    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.counters.iter().map(|c| c.hits.load(Relaxed)).sum(),
            misses: self.counters.iter().map(|c| c.misses.load(Relaxed)).sum(),
            bytes: self.bytes(),
            capacity_bytes: self.blocks.as_ref().map_or(0, Cache::capacity),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.as_ref().map_or(0, Cache::weight)
    }

    /// Makes the cache smaller, or lets it grow again; what no longer fits goes at once.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        if let Some(blocks) = &self.blocks {
            blocks.set_capacity(bytes);
            self.full.store(false, Relaxed);
        }
    }

    /// Drops the blocks of tables that are gone. Walks over the whole cache: not for hot paths.
    pub(crate) fn remove_tables(&self, numbers: &BTreeSet<u64>) {
        if let Some(blocks) = &self.blocks {
            blocks.retain(|key, _| !numbers.contains(&key.table));
            self.full.store(false, Relaxed);
        }
    }

    #[inline]
    pub(super) fn get(&self, key: CacheKey) -> Option<Cached> {
        let found = self.blocks.as_ref()?.get(&key);
        let counter = &self.counters[thread_number() % COUNTERS];
        if found.is_some() {
            counter.hits.fetch_add(1, Relaxed);
        } else {
            counter.misses.fetch_add(1, Relaxed);
        }
        found
    }

    /// Whether a data block is to be [inserted](Self::insert), after it was not found.
    #[inline]
    pub(super) fn admits(&self, key: CacheKey) -> bool {
        let full = self.full.load(Relaxed);
        self.blocks.is_some() && (!full || self.doorkeeper.knows(FoldBuilder.hash_one(key)))
    }

    pub(super) fn insert(&self, key: CacheKey, block: Cached) {
        if let Some(blocks) = &self.blocks {
            let mut evicted = Evicted::default();
            blocks.insert_with_lifecycle(key, block, &mut evicted);
            if evicted.first[0].is_some() && !self.full.load(Relaxed) {
                self.full.store(true, Relaxed);
            }
            // Asked afterwards: either the clearing finds the block, or this finds that it was cleared.
            if self.shut.load(SeqCst) {
                blocks.remove(&key);
            }
        }
    }

    /// Drops everything, and keeps nothing until [`BlockCache::reopen`]. A reader that has decoded a block just before
    /// brings it too late.
    pub(crate) fn shut(&self) {
        self.shut.store(true, SeqCst);
        if let Some(blocks) = &self.blocks {
            blocks.clear();
            self.full.store(false, Relaxed);
        }
    }

    /// Ends [`BlockCache::shut`].
    pub(crate) fn reopen(&self) {
        self.shut.store(false, SeqCst);
    }
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stats().fmt(f)
    }
}

/// Alone on its cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Counter {
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Clone)]
struct Weight;

impl Weighter<CacheKey, Cached> for Weight {
    fn weight(&self, _: &CacheKey, block: &Cached) -> u64 {
        block.bytes() + ENTRY_OVERHEAD_BYTES
    }
}

/// What is evicted is dropped once the shard is unlocked, and the buffers of blocks are kept for the next ones.
#[derive(Clone)]
struct Recycling;

/// What one insertion evicted: one or two blocks mostly, as they are of about one size.
#[derive(Default)]
struct Evicted {
    first: [Option<Cached>; 2],
    more: Vec<Cached>,
}

impl Lifecycle<CacheKey, Cached> for Recycling {
    type RequestState = Evicted;

    #[inline]
    fn on_evict(&self, evicted: &mut Evicted, _: CacheKey, block: Cached) {
        match evicted.first.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(block),
            None => evicted.more.push(block),
        }
    }
}

impl Drop for Evicted {
    fn drop(&mut self) {
        for block in self.first.iter_mut().filter_map(Option::take) {
            if let Cached::Data(block) = block {
                recycle::give(block.into_buffer());
            }
        }
    }
}

/// Makes [`Fold`]s. Keys are our own numbers, so nobody can choose them to collide.
#[derive(Clone)]
struct FoldBuilder;

impl BuildHasher for FoldBuilder {
    type Hasher = Fold;

    #[inline]
    fn build_hasher(&self) -> Fold {
        Fold(0x243f_6a88_85a3_08d3)
    }
}

/// Hashes words by multiplying to twice their width and folding the halves.
struct Fold(u64);

impl Hasher for Fold {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        // The low half alone orders like the word, the high half alone loses small ones.
        self.0 = (wide as u64 ^ (wide >> 64) as u64).rotate_left(23);
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        let wide = u128::from(self.0) * u128::from(0xd6e8_feb8_6659_fd93_u64);
        wide as u64 ^ (wide >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Cached {
        Cached::Filter(Arc::new(Filter::build(&[1, 2, 3], 10)))
    }

    const fn key(table: u64, ordinal: u64) -> CacheKey {
        CacheKey { table, ordinal }
    }

    #[test]
    fn blocks_are_found_counted_and_removed_by_table() {
        let cache = BlockCache::new(1 << 20);
        assert!(cache.get(key(1, 1)).is_none());
        cache.insert(key(1, 1), filter());
        cache.insert(key(2, 1), filter());
        assert!(cache.get(key(1, 1)).is_some());
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses), (1, 1));
        assert!(stats.bytes > 0 && stats.capacity_bytes == 1 << 20);
        cache.remove_tables(&[1].into());
        assert!(cache.get(key(1, 1)).is_none() && cache.get(key(2, 1)).is_some());
    }

    #[test]
    fn the_capacity_is_kept() {
        let cache = BlockCache::new(64 << 10);
        for ordinal in 0..10_000 {
            cache.insert(key(1, ordinal), filter());
        }
        let bytes = cache.stats().bytes;
        assert!(bytes > 0 && bytes <= 64 << 10, "{bytes}");
    }

    #[test]
    fn a_full_cache_takes_in_what_is_wanted_again() {
        const MANY: u64 = 100_000;
        let cache = BlockCache::new(4 << 20);
        let offer = |ordinal: u64| {
            let admitted = cache.admits(key(1, ordinal));
            if admitted {
                cache.insert(key(1, ordinal), filter());
            }
            admitted
        };
        let room = (0..MANY).take_while(|_| !cache.full.load(Relaxed));
        let first = room.filter(|&ordinal| !offer(ordinal)).count();
        assert_eq!(first, 0, "turned away while there was room");

        let once = (MANY..2 * MANY).filter(|&ordinal| offer(ordinal)).count() as u64;
        assert!(once < MANY * 4 / 10, "{once} of {MANY} that come once");
        let again = (0..100).filter(|&n| offer(3 * MANY + n) || offer(3 * MANY + n));
        assert!(again.count() > 90, "what is wanted twice is taken in");

        cache.remove_tables(&[1].into());
        assert!(offer(4 * MANY), "there is room again");
        assert!(!BlockCache::new(0).admits(key(1, 1)), "nothing is kept");
    }

    #[test]
    fn nothing_is_kept_while_it_is_shut() {
        let cache = BlockCache::new(1 << 20);
        cache.insert(key(1, 1), filter());
        cache.shut();
        assert!(cache.get(key(1, 1)).is_none());
        cache.insert(key(1, 2), filter());
        assert!(cache.get(key(1, 2)).is_none());
        assert_eq!(cache.stats().bytes, 0);
        cache.reopen();
        assert!(cache.get(key(1, 2)).is_none());
        cache.insert(key(1, 2), filter());
        assert!(cache.get(key(1, 2)).is_some());
    }

    #[test]
    fn without_capacity_nothing_is_kept() {
        let cache = BlockCache::new(0);
        cache.insert(key(1, 1), filter());
        assert!(cache.get(key(1, 1)).is_none());
        cache.remove_tables(&[1].into());
        assert_eq!(cache.stats().bytes, 0);
    }

    #[test]
    fn hashes_of_neighbours_spread() {
        use std::hash::Hash;
        let mut low = BTreeSet::new();
        let mut high = BTreeSet::new();
        for ordinal in 0..1024 {
            let mut hasher = FoldBuilder.build_hasher();
            key(7, ordinal).hash(&mut hasher);
            low.insert(hasher.finish() & 0x3ff);
            high.insert(hasher.finish() >> 54);
        }
        // 1024 balls into 1024 bins leave 63 % of them filled.
        assert!(
            low.len() > 560 && high.len() > 560,
            "{} {}",
            low.len(),
            high.len()
        );
    }
}
