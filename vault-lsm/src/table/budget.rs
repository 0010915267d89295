//! Bounds the memory that tables keep for their filters and indexes.

use std::sync::atomic::Ordering::Relaxed;

use crate::sync::atomic::AtomicU64;

/// A number of bytes that all tables of a store share. Lock-free.
#[derive(Debug)]
pub(crate) struct MetadataBudget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl MetadataBudget {
    /// A budget of `limit_bytes`.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            used_bytes: AtomicU64::new(0),
        }
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.used_bytes.load(Relaxed)
    }

    /// Takes `bytes` if they are there.
    pub(crate) fn try_reserve(&self, bytes: u64) -> bool {
        self.used_bytes
            .fetch_update(Relaxed, Relaxed, |used| {
                used.checked_add(bytes)
                    .filter(|&sum| sum <= self.limit_bytes)
            })
            .is_ok()
    }

    /// Takes `bytes` whether or not they are there: for what a table cannot do without.
    pub(crate) fn reserve(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Relaxed);
    }

    /// Gives back what was taken.
    pub(crate) fn release(&self, bytes: u64) {
        let before = self.used_bytes.fetch_sub(bytes, Relaxed);
        debug_assert!(before >= bytes, "more was released than reserved");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_not_exceeded() {
        let budget = MetadataBudget::new(100);
        assert!(budget.try_reserve(60) && !budget.try_reserve(41) && budget.try_reserve(40));
        budget.release(60);
        assert_eq!(budget.used(), 40);
        assert!(!budget.try_reserve(u64::MAX));
        budget.reserve(1000);
        assert!(!budget.try_reserve(1));
    }
}
