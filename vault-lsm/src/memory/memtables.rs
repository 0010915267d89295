//! What a memtable holds of the budget.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{Class, Memory};

/// The account of one memtable, kept by its arena: closed when the memtable is freed, which may be long
/// after its flush, where a reader holds it.
pub(crate) struct MemtableAccount {
    /// `None`: nobody counts, as in tests of the memtable alone.
    memory: Option<Arc<Memory>>,
    bytes: AtomicU64,
    sealed: AtomicBool,
}

impl MemtableAccount {
    /// An account with these accounts.
    pub(crate) const fn new(memory: Arc<Memory>) -> Self {
        Self {
            memory: Some(memory),
            bytes: AtomicU64::new(0),
            sealed: AtomicBool::new(false),
        }
    }

    /// An account that nobody adds up: of checks and repairs, beside which nothing else runs.
    pub(crate) const fn uncounted() -> Self {
        Self {
            memory: None,
            bytes: AtomicU64::new(0),
            sealed: AtomicBool::new(false),
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

    /// Notes that the memtable takes no more writes.
    pub(crate) fn seal(&self) {
        if !self.sealed.swap(true, Relaxed)
            && let Some(memory) = &self.memory
        {
            memory.active_memtables.fetch_sub(self.bytes(), Relaxed);
        }
    }
}

impl Drop for MemtableAccount {
    fn drop(&mut self) {
        self.seal();
        if let Some(memory) = &self.memory {
            memory.sub(Class::Memtables, self.bytes());
        }
    }
}

impl fmt::Debug for MemtableAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemtableAccount")
            .field("bytes", &self.bytes())
            .field("sealed", &self.sealed)
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

    /// Whether writing `bytes` more would take the memtables over their share.
    #[inline]
    pub(crate) fn memtables_full(&self, bytes: u64) -> bool {
        self.used(Class::Memtables) + bytes > self.shares.memtables
    }
}
