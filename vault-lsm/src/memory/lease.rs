//! What one cursor, compaction or table writer holds of the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{Class, Memory};
use vault_core::Result;

/// Bytes taken from the accounts at a time, so that they are not touched for every block.
const STEP_BYTES: u64 = 64 << 10;
/// The same where memory is tight.
const SMALL_STEP_BYTES: u64 = 4 << 10;
/// A cursor holds a value of this length whatever else is in memory.
const LARGE_VALUE_BYTES: u64 = 64 << 10;
/// The window over an input of a compaction, at most and at least.
const SCAN_WINDOW_BYTES: std::ops::RangeInclusive<u64> = 16 << 10..=1 << 20;
/// The most that a reading cursor reads ahead.
const READ_WINDOW_BYTES: usize = 256 << 10;

/// Bytes of a class, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    memory: Arc<Memory>,
    class: Class,
    bytes: u64,
}

impl Reservation {
    pub(crate) fn new(memory: &Arc<Memory>, class: Class, bytes: u64) -> Self {
        memory.add(class, bytes);
        Self {
            memory: Arc::clone(memory),
            class,
            bytes,
        }
    }

    /// Makes it `bytes`.
    pub(crate) fn resize(&mut self, bytes: u64) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.memory.add(self.class, more),
            None => self.memory.sub(self.class, self.bytes - bytes),
        }
        self.bytes = bytes;
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.sub(self.class, self.bytes);
    }
}

/// What the cursors of one scan, or over the inputs of one compaction, hold together: blocks, indexes of
/// partitions, windows read ahead. Used by one thread at a time.
#[derive(Debug)]
pub(crate) struct Lease {
    memory: Arc<Memory>,
    class: Class,
    /// Beyond this, a compaction is thrifty. Readers are when their class is over its share.
    quota: u64,
    window_max: usize,
    /// What the accounts have been told, and what is in use: never more.
    taken: AtomicU64,
    used: AtomicU64,
    thrifty: AtomicBool,
}

impl Lease {
    /// The lease of a reading cursor over `sources`, each of which takes `source_bytes` by itself.
    ///
    /// # Errors
    /// [`vault_core::Error::MemoryFull`] where so many cursors are open that even the cache could not
    /// make room for one more.
    pub(crate) fn reader(
        memory: &Arc<Memory>,
        sources: usize,
        source_bytes: usize,
    ) -> Result<Self> {
        let own = (sources * source_bytes) as u64;
        let tight = memory.is_tight(Class::Cursors);
        if tight {
            memory.check_room(Class::Cursors, own, "one more cursor")?;
            memory.rebalance();
        }
        // One addition for all of a short scan, where there is room.
        let taken = if tight { own } else { own + STEP_BYTES };
        memory.add(Class::Cursors, taken);
        Ok(Self {
            memory: Arc::clone(memory),
            class: Class::Cursors,
            quota: u64::MAX,
            window_max: READ_WINDOW_BYTES,
            taken: AtomicU64::new(taken),
            used: AtomicU64::new(own),
            thrifty: AtomicBool::new(tight),
        })
    }

    /// The lease of a compaction over `inputs` runs.
    pub(crate) fn compaction(memory: &Arc<Memory>, inputs: usize) -> Self {
        // Half is for the table that is written; of the rest, half for the blocks that the inputs stand on.
        let quota = memory.shares().compaction / 2;
        let window = quota / 2 / inputs.max(1) as u64;
        Self {
            memory: Arc::clone(memory),
            class: Class::Background,
            quota,
            window_max: window.clamp(*SCAN_WINDOW_BYTES.start(), *SCAN_WINDOW_BYTES.end()) as usize,
            taken: AtomicU64::new(0),
            used: AtomicU64::new(0),
            thrifty: AtomicBool::new(false),
        }
    }

    /// Whether what is not needed for the very next step should be let go of.
    #[inline]
    pub(crate) fn is_thrifty(&self) -> bool {
        self.thrifty.load(Relaxed)
    }

    /// The longest window that may be read ahead now; 0: none.
    pub(crate) fn window(&self, wanted: usize) -> usize {
        match self.class {
            Class::Cursors if self.memory.is_tight(Class::Cursors) => 0,
            _ => wanted.min(self.window_max),
        }
    }

    /// Notes that what took `before` bytes takes `now`.
    pub(crate) fn change(&self, before: u64, now: u64) {
        let used = (self.used.load(Relaxed) + now).saturating_sub(before);
        self.used.store(used, Relaxed);
        let taken = self.taken.load(Relaxed);
        let step = if self.is_thrifty() {
            SMALL_STEP_BYTES
        } else {
            STEP_BYTES
        };
        if used > taken {
            let more = (used - taken).next_multiple_of(step);
            self.memory.add(self.class, more);
            self.taken.store(taken + more, Relaxed);
            self.look_around(used);
        } else if taken - used > 2 * step {
            let less = taken - used - step;
            self.memory.sub(self.class, less);
            self.taken.store(taken - less, Relaxed);
            self.look_around(used);
        } else if self.quota != u64::MAX {
            self.thrifty.store(used > self.quota, Relaxed);
        }
    }

    /// Refuses a block of `bytes` that a cursor would have to hold where there is no room at all.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<()> {
        if self.class == Class::Cursors && bytes > LARGE_VALUE_BYTES {
            let what = "the large value that a cursor comes to";
            self.memory.check_room(Class::Cursors, bytes, what)?;
        }
        Ok(())
    }

    fn look_around(&self, used: u64) {
        let tight = match self.class {
            Class::Cursors => self.memory.is_tight(Class::Cursors),
            _ => used > self.quota,
        };
        self.thrifty.store(tight, Relaxed);
        if self.memory.is_tight(self.class) {
            self.memory.rebalance();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.memory.sub(self.class, self.taken.load(Relaxed));
        if self.memory.cache_gave_way() {
            self.memory.rebalance();
        }
    }
}
