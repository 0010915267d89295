//! The range tombstones of a memtable: a list that grows, and its fragments, built when asked for.
//!
//! Inserting is an append. The first read after a change builds the fragments; the reads after it
//! share them. A memtable without range tombstones costs its readers one load.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::internal_key::RangeTombstone;
use crate::sync::atomic::AtomicUsize;
use crate::sync::{Mutex, MutexGuard, RwLock};
use crate::tombstones::Fragments;

#[derive(Default)]
pub(super) struct TombstoneList {
    /// Length of the list, stored after the list has grown.
    count: AtomicUsize,
    bytes: AtomicUsize,
    list: Mutex<Vec<RangeTombstone>>,
    /// The fragments of the first so many tombstones of the list.
    built: RwLock<Option<(usize, Arc<Fragments>)>>,
}

impl TombstoneList {
    pub(super) fn push(&self, tombstone: RangeTombstone) {
        let bytes = size_of::<RangeTombstone>() + tombstone.start.len() + tombstone.end.len();
        let mut list = self.lock();
        list.push(tombstone);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.count.store(list.len(), Ordering::Release);
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn fragments(&self) -> Option<Arc<Fragments>> {
        match self.count.load(Ordering::Acquire) {
            0 => None,
            count => Some(self.fragments_of(count)),
        }
    }

    fn fragments_of(&self, count: usize) -> Arc<Fragments> {
        {
            let built = self.built.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((built_of, fragments)) = &*built
                && *built_of >= count
            {
                return Arc::clone(fragments);
            }
        }
        // Readers that come meanwhile wait here rather than build the same thing.
        let mut built = self.built.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((built_of, fragments)) = &*built
            && *built_of >= count
        {
            return Arc::clone(fragments);
        }
        // The list is copied, so that the writer need not wait for the building.
        let list = self.list();
        let count = list.len();
        let fragments = Arc::new(Fragments::build(list));
        *built = Some((count, Arc::clone(&fragments)));
        fragments
    }

    pub(super) fn list(&self) -> Vec<RangeTombstone> {
        self.lock().clone()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<RangeTombstone>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
