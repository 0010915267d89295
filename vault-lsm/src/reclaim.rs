//! Giving space back: removing the files of tables that nothing refers to any more.
//!
//! A table's file is removed when the manifest has let go of it *and* the last reader has. The last
//! reader only notes the file here; the removal happens on a background thread, or on the thread that
//! dropped a keyspace.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::PoisonError;

use vault_core::vfs::FileSystem;

use crate::sync::{Mutex, MutexGuard};
use crate::table::BlockCache;

/// Files waiting to be removed.
#[derive(Default)]
pub(crate) struct ReclaimQueue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Tables that no version holds, but some reader still does.
    retired: BTreeMap<u64, Held>,
    /// Files that nobody holds.
    ready: Vec<(u64, PathBuf)>,
}

/// A table that exists only for readers that still hold it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) bytes: u64,
    /// The epoch of the key that seals it; 0: none.
    pub(crate) epoch: u32,
}

impl ReclaimQueue {
    /// Notes that no version holds this table any more.
    pub(crate) fn retired(&self, number: u64, held: Held) {
        self.lock().retired.insert(number, held);
    }

    /// Notes that nobody reads this table any more.
    pub(crate) fn push(&self, path: PathBuf, number: u64) {
        let mut state = self.lock();
        state.retired.remove(&number);
        state.ready.push((number, path));
    }

    /// Bytes of tables that exist only for readers that still hold them.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.lock().retired.values().map(|held| held.bytes).sum()
    }

    /// The epochs of tables that exist only for readers that still hold them.
    pub(crate) fn held_epochs(&self) -> Vec<u32> {
        self.lock()
            .retired
            .values()
            .map(|held| held.epoch)
            .collect()
    }

    /// Whether there are files to remove.
    pub(crate) fn has_work(&self) -> bool {
        !self.lock().ready.is_empty()
    }

    /// Removes the files that nobody holds, and their blocks from the cache. Gives how many there were.
    /// One that cannot be removed is left to the next opening.
    pub(crate) fn run(&self, fs: &dyn FileSystem, cache: &BlockCache) -> usize {
        let ready = std::mem::take(&mut self.lock().ready);
        if ready.is_empty() {
            return 0;
        }
        for (_, path) in &ready {
            // The manifest no longer names the file: should this fail, it is an orphan, not a danger.
            let _ = fs.remove(path);
        }
        cache.remove_tables(&ready.iter().map(|&(number, _)| number).collect());
        ready.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
