//! What a memtable holds of the budget.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use super::{Class, Memory};

/// Takes writes.
const ACTIVE: u8 = 0;
/// Takes none any more, and is to be flushed.
const WAITING: u8 = 1;
/// Is in tables, or dropped, and there for readers only.
const LEFT: u8 = 2;

/// The account of one memtable, kept by its arena: closed when the memtable is freed, which may be long
/// after its flush, where a reader holds it.
pub(crate) struct MemtableAccount {
    /// `None`: nobody counts, as in tests of the memtable alone.
    memory: Option<Arc<Memory>>,
    bytes: AtomicU64,
    stage: AtomicU8,
}

impl MemtableAccount {
    /// An account with these accounts.
    pub(crate) const fn new(memory: Arc<Memory>) -> Self {
        Self {
            memory: Some(memory),
            bytes: AtomicU64::new(0),
            stage: AtomicU8::new(ACTIVE),
        }
    }

    /// An account that nobody adds up: of checks and repairs, beside which nothing else runs.
    pub(crate) const fn uncounted() -> Self {
        Self {
            memory: None,
            bytes: AtomicU64::new(0),
            stage: AtomicU8::new(ACTIVE),
        }
    }

    /// Adds what was allocated. Not after [`Self::seal`].
    pub(crate) fn grow(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.bytes.fetch_add(bytes, Relaxed);
        if let Some(memory) = &self.memory {
            memory.active_memtables.fetch_add(bytes, Relaxed);
            memory.add(Class::Memtables, bytes);
        }
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Notes that the memtable takes no more writes, and waits for its flush.
    pub(crate) fn seal(&self) {
        let sealed = self
            .stage
            .compare_exchange(ACTIVE, WAITING, Relaxed, Relaxed);
        if let (Ok(_), Some(memory)) = (sealed, &self.memory) {
            memory.active_memtables.fetch_sub(self.bytes(), Relaxed);
            memory.waiting_memtables.fetch_add(self.bytes(), Relaxed);
        }
    }

    /// Notes that nobody waits for the memtable's flush any more: it is over, or its keyspace is dropped.
    pub(crate) fn leave(&self) {
        let stage = self.stage.swap(LEFT, Relaxed);
        let Some(memory) = &self.memory else { return };
        match stage {
            ACTIVE => memory.active_memtables.fetch_sub(self.bytes(), Relaxed),
            WAITING => memory.waiting_memtables.fetch_sub(self.bytes(), Relaxed),
            _ => 0,
        };
    }
}

impl Drop for MemtableAccount {
    fn drop(&mut self) {
        self.leave();
        if let Some(memory) = &self.memory {
            memory.sub(Class::Memtables, self.bytes());
        }
    }
}

impl fmt::Debug for MemtableAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemtableAccount")
            .field("bytes", &self.bytes())
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Whether the memtables that take writes have so much together that the largest should be sealed.
    #[inline]
    pub(crate) fn seal_is_due(&self) -> bool {
        let active = self.active_memtables.load(Relaxed);
        if !self.active_is_worth_sealing() {
            return false;
        }
        // What waits, or is held by readers, leaves less to those that take writes.
        let elsewhere = self.used(Class::Memtables).saturating_sub(active);
        let left = self.shares.memtables.saturating_sub(elsewhere);
        active > left.min(self.shares.active_max)
    }

    /// Whether those that take writes have enough together to be worth a table.
    pub(crate) fn active_is_worth_sealing(&self) -> bool {
        self.active_memtables.load(Relaxed) > self.shares.active_max / 8
    }

    /// Whether any memtable waits for its flush.
    #[inline]
    pub(crate) fn memtables_wait(&self) -> bool {
        self.waiting_memtables.load(Relaxed) > 0
    }

    /// What part of their share those memtables take up that flushes can free: those that wait and those that take
    /// writes. What readers hold of others is no part of the share then.
    pub(crate) fn memtables_fill(&self) -> f64 {
        let own = self.waiting_memtables.load(Relaxed) + self.active_memtables.load(Relaxed);
        let held = self.used(Class::Memtables).saturating_sub(own);
        let share = self.shares.memtables.saturating_sub(held).max(1);
        own as f64 / share as f64
    }

    /// Whether writing `bytes` more would take the memtables over their share.
    #[inline]
    pub(crate) fn memtables_full(&self, bytes: u64) -> bool {
        self.used(Class::Memtables) + bytes > self.shares.memtables
    }
}
