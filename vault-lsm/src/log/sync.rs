//! Making the log durable, for many writers at once.
//!
//! A writer that asked for [`Durability::Sync`](vault_core::Durability::Sync) appends under the commit
//! lock and then, holding no lock, waits here until the durable position has passed its record. The
//! first to arrive syncs for everybody who has appended by then; those who come while it is at it wait,
//! and one of them is the next. (Group commit: DeWitt et al., "Implementation techniques for main
//! memory database systems", 1984.)
//!
//! A sync that failed is final: nothing is known about what was written since the last good one, and
//! trying again could report success for data that is gone. Everyone who waits gets
//! [`Error::Poisoned`], now and later.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vault_core::vfs::File;
use vault_core::{Error, Result};

/// The durable end of the log, and the files that must be synced to move it.
pub(crate) struct LogSync {
    /// Log position behind the last record appended.
    appended: AtomicU64,
    /// Log position up to which everything is durable.
    synced: AtomicU64,
    state: Mutex<State>,
    moved: Condvar,
    syncs: AtomicU64,
    waits: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Segments with records that are not known to be durable, oldest first.
    dirty: Vec<(Arc<dyn File>, PathBuf)>,
    /// Whether a thread is syncing right now.
    syncing: bool,
    failed: Option<Arc<Error>>,
}

impl LogSync {
    /// Starts with everything up to `position` durable.
    pub(crate) fn new(position: u64) -> Self {
        Self {
            appended: AtomicU64::new(position),
            synced: AtomicU64::new(position),
            state: Mutex::default(),
            moved: Condvar::new(),
            syncs: AtomicU64::new(0),
            waits: AtomicU64::new(0),
        }
    }

    /// Up to where everything is durable.
    #[inline]
    pub(crate) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Behind the last record appended.
    pub(crate) fn position(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// How often the log was synced, and for how many waiting writers.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.syncs.load(Ordering::Relaxed),
            self.waits.load(Ordering::Relaxed),
        )
    }

    /// Notes that records up to `position` have been appended. Called under the commit lock.
    #[inline]
    pub(crate) fn appended(&self, position: u64) {
        self.appended.store(position, Ordering::Release);
    }

    /// Notes that the next records go to another file. Called under the commit lock.
    pub(crate) fn begin_segment(&self, file: Arc<dyn File>, path: PathBuf) {
        self.lock().dirty.push((file, path));
    }

    /// Waits until everything up to `position` is durable, syncing where nobody else does.
    pub(crate) fn wait_for(&self, position: u64) -> Result<()> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        loop {
            if self.synced() >= position {
                return Ok(());
            }
            if let Some(cause) = &state.failed {
                return Err(Error::Poisoned {
                    cause: Arc::clone(cause),
                });
            }
            if state.syncing {
                state = self
                    .moved
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            // Order matters: a file that gets records up to `target` is in `dirty` before the position
            // is published, so reading the position first and the files second misses none.
            let target = self.position();
            let files = state.dirty.clone();
            drop(state);
            let outcome = sync_all(&files);
            self.syncs.fetch_add(1, Ordering::Relaxed);
            state = self.lock();
            state.syncing = false;
            match outcome {
                Ok(()) => {
                    // All but the newest are complete: nothing is appended to them any more.
                    let complete = files.len().saturating_sub(1);
                    state.dirty.drain(..complete);
                    self.synced.store(target, Ordering::Release);
                }
                Err(error) => state.failed = Some(Arc::new(error)),
            }
            self.moved.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sync_all(files: &[(Arc<dyn File>, PathBuf)]) -> Result<()> {
    files
        .iter()
        .try_for_each(|(file, path)| file.sync().map_err(|e| Error::io("sync", path, e)))
}
