//! The memory budget: who holds how much of it, and what gives way when it is full.
//!
//! What is counted, and what happens when a share is used up, stands in `docs/internals/memory.md`. In
//! short: memtables are sealed and their writers wait; filters and indexes are read through the cache;
//! cursors read ahead less, and then hold one block instead of one for each source; compactions do with
//! smaller windows, and fewer run at once. What cannot give way takes from the cache, which is
//! made smaller for as long as that lasts ([`Memory::rebalance`]).
//!
//! Counting is a few relaxed additions for each chunk of a memtable, each cursor, each window read ahead.
//! A point lookup counts nothing.
//!
//! # Invariants
//! - Whatever is added under a class is taken off under the same class when it is freed, by the `Drop` of
//!   whatever holds it.
//! - Nobody who waits for memory holds a lock, or memory of the same class that others wait for.

mod lease;
mod memtables;
mod shares;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, TryLockError};

use crossbeam_utils::CachePadded;
use vault_core::stats::MemoryStats;
use vault_core::{Error, Result};

pub(crate) use lease::{Lease, Reservation};
pub(crate) use memtables::MemtableAccount;
pub(crate) use shares::Shares;

use crate::options::Settings;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::table::{BlockCache, MetadataBudget};

/// A block that takes more than this is read only while there is room for it beside the others that are
/// being read.
pub(crate) const LARGE_BLOCK_BYTES: usize = 256 << 10;
/// The cache is not made smaller for less than this.
const REBALANCE_BYTES: u64 = 64 << 10;

/// What memory is held for. The cache and the tables count for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Arenas and range tombstones of memtables, whoever still holds them.
    Memtables,
    /// Open cursors: what they stand on, and what they have read ahead.
    Cursors,
    /// Flushes, compactions and ingests: windows over inputs, tables being written.
    Background,
}

const CLASSES: usize = 3;

/// The accounts of a store.
#[derive(Debug)]
pub(crate) struct Memory {
    shares: Shares,
    used: [CachePadded<AtomicU64>; CLASSES],
    /// Of the memtables, those that take writes.
    active_memtables: AtomicU64,
    /// What those have that wait to be flushed.
    waiting_memtables: AtomicU64,
    cache: Arc<BlockCache>,
    tables: Arc<MetadataBudget>,
    /// What the cache held when it was last looked at, and what it may hold now.
    cache_seen: AtomicU64,
    cache_allowed: AtomicU64,
    /// Held while that is changed.
    rebalancing: Mutex<()>,
    peak: AtomicU64,
    compactions: AtomicU64,
    large_reads: Mutex<u64>,
    large_read_done: Condvar,
}

impl Memory {
    /// Accounts for a store with these shares, together with what the shares size.
    pub(crate) fn new(shares: Shares) -> Arc<Self> {
        let cache = Arc::new(BlockCache::new(shares.cache));
        let tables = Arc::new(MetadataBudget::new(shares.tables));
        Self::over(shares, cache, tables)
    }

    /// Accounts for who reads or writes tables without a store around them: nothing is cached, and only
    /// `metadata_bytes` of filters and indexes stay with their tables.
    pub(crate) fn without_store(metadata_bytes: u64) -> Arc<Self> {
        let settings = Settings {
            cache_bytes: Some(0),
            table_metadata_bytes: Some(metadata_bytes),
            ..Settings::default()
        };
        Self::new(Shares::of(&settings).expect("the usual budget has room for that"))
    }

    /// Accounts over a cache and a metadata budget that are there already.
    pub(crate) fn over(
        shares: Shares,
        cache: Arc<BlockCache>,
        tables: Arc<MetadataBudget>,
    ) -> Arc<Self> {
        Arc::new(Self {
            cache_allowed: AtomicU64::new(shares.cache),
            rebalancing: Mutex::new(()),
            shares,
            used: Default::default(),
            active_memtables: AtomicU64::new(0),
            waiting_memtables: AtomicU64::new(0),
            cache,
            tables,
            cache_seen: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            compactions: AtomicU64::new(0),
            large_reads: Mutex::new(0),
            large_read_done: Condvar::new(),
        })
    }

    /// How the budget is divided.
    pub(crate) const fn shares(&self) -> &Shares {
        &self.shares
    }

    pub(crate) const fn cache(&self) -> &Arc<BlockCache> {
        &self.cache
    }

    pub(crate) const fn tables(&self) -> &Arc<MetadataBudget> {
        &self.tables
    }

    /// Bytes in use for a class.
    pub(crate) fn used(&self, class: Class) -> u64 {
        self.used[class as usize].load(Relaxed)
    }

    const fn share(&self, class: Class) -> u64 {
        match class {
            Class::Memtables => self.shares.memtables,
            Class::Cursors => self.shares.cursors,
            Class::Background => self.shares.background,
        }
    }

    /// Whether a class has used up its share: whoever can do with less now should.
    pub(crate) fn is_tight(&self, class: Class) -> bool {
        self.used(class) >= self.share(class)
    }

    fn add(&self, class: Class, bytes: u64) {
        self.used[class as usize].fetch_add(bytes, Relaxed);
        let sum = self.sum();
        if sum > self.peak.load(Relaxed) {
            self.peak.fetch_max(sum, Relaxed);
        }
    }

    fn sub(&self, class: Class, bytes: u64) {
        let before = self.used[class as usize].fetch_sub(bytes, Relaxed);
        debug_assert!(before >= bytes, "more was freed than was counted");
    }

    fn sum(&self) -> u64 {
        let counted: u64 = self.used.iter().map(|used| used.load(Relaxed)).sum();
        counted + self.tables.used() + self.cache_seen.load(Relaxed)
    }

    /// Bytes by which those that cannot give way are over their shares.
    fn excess(&self) -> u64 {
        let over = |used: u64, share: u64| used.saturating_sub(share);
        let classes = [Class::Memtables, Class::Cursors, Class::Background];
        let classes: u64 = classes
            .iter()
            .map(|&class| over(self.used(class), self.share(class)))
            .sum();
        // A budget of nothing for metadata means that it shares the cache, not that it takes from it: what
        // each table needs in any case has a little room of its own.
        let tables = self.shares.tables.max(self.shares.budget / 32);
        classes + over(self.tables.used(), tables)
    }

    /// Gives the cache what the others leave of its share. Called where a share is found used up, and
    /// by the background now and then.
    pub(crate) fn rebalance(&self) {
        // Whoever comes meanwhile leaves it to the next: what is allowed and what the cache was told are to be the same. Not waited
        // for, because the cache gives memory back on the way.
        let _turn = match self.rebalancing.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let allowed = self.shares.cache.saturating_sub(self.excess());
        let before = self.cache_allowed.load(Relaxed);
        let differs = allowed.abs_diff(before) >= REBALANCE_BYTES;
        if differs || (allowed == self.shares.cache && before != allowed) {
            self.cache_allowed.store(allowed, Relaxed);
            self.cache.set_capacity(allowed);
            self.look_at_cache();
        }
    }

    /// Whether the cache has less than its share, and should be asked whether it may have it back.
    fn cache_gave_way(&self) -> bool {
        self.cache_allowed.load(Relaxed) < self.shares.cache
    }

    /// Notes what the cache holds. Walks over its parts: not for hot paths.
    pub(crate) fn look_at_cache(&self) {
        self.cache_seen.store(self.cache.bytes(), Relaxed);
        let sum = self.sum();
        self.peak.fetch_max(sum, Relaxed);
    }

    /// Refuses what would take a class beyond its share and all that the cache could give up.
    pub(crate) fn check_room(&self, class: Class, bytes: u64, what: &'static str) -> Result<()> {
        let available = self.share(class) + self.shares.cache;
        let needed = self.used(class).saturating_add(bytes);
        if needed <= available {
            return Ok(());
        }
        Err(Error::MemoryFull {
            what,
            needed,
            available,
        })
    }

    /// Takes a place among the compactions that may run at once, if there is one.
    pub(crate) fn begin_compaction(self: &Arc<Self>) -> Option<CompactionPlace> {
        let most = self.shares.compactions_max;
        self.compactions
            .fetch_update(Relaxed, Relaxed, |running| {
                (running < most).then_some(running + 1)
            })
            .ok()?;
        Some(CompactionPlace(Arc::clone(self)))
    }

    /// Waits until a large block of `bytes` may be read. Whoever holds a place gives it back without
    /// waiting for anybody, so this ends.
    pub(crate) fn begin_large_read(&self, bytes: usize) -> LargeRead<'_> {
        let bytes = bytes as u64;
        let mut reading = self.large_reads();
        while *reading > 0 && *reading + bytes > self.shares.cursors / 2 {
            reading = self
                .large_read_done
                .wait(reading)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *reading += bytes;
        drop(reading);
        self.add(Class::Cursors, bytes);
        LargeRead {
            memory: self,
            bytes,
        }
    }

    fn large_reads(&self) -> MutexGuard<'_, u64> {
        self.large_reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in use now, and the most that ever was.
    pub(crate) fn stats(&self) -> MemoryStats {
        self.rebalance();
        self.look_at_cache();
        MemoryStats {
            budget: self.shares.budget,
            memtables: self.used(Class::Memtables),
            cache: self.cache_seen.load(Relaxed),
            table_metadata: self.tables.used(),
            cursors: self.used(Class::Cursors),
            background: self.used(Class::Background),
            peak: self.peak.load(Relaxed),
            log_mapped: 0,
        }
    }
}

/// A place among the compactions that run.
#[derive(Debug)]
pub(crate) struct CompactionPlace(Arc<Memory>);

impl Drop for CompactionPlace {
    fn drop(&mut self) {
        self.0.compactions.fetch_sub(1, Relaxed);
    }
}

/// A large block that is being read.
#[derive(Debug)]
pub(crate) struct LargeRead<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Drop for LargeRead<'_> {
    fn drop(&mut self) {
        self.memory.sub(Class::Cursors, self.bytes);
        *self.memory.large_reads() -= self.bytes;
        self.memory.large_read_done.notify_all();
    }
}

#[cfg(test)]
mod tests;
