//! Making the log durable, for many writers at once.
//!
//! A writer that asked for [`Durability::Sync`](vault_core::Durability::Sync) appends its record
//! and then, holding no lock, waits here until the durable position has passed it. The
//! first to arrive syncs for everybody who has appended by then; those who come while it is at it wait,
//! and one of them is the next. Before it syncs, the next waits a moment for as many writers as there were
//! in the round before: those who were just woken are about to write again, and would otherwise miss
//! the round by a hair. (Group commit: DeWitt et al., "Implementation techniques for main
//! memory database systems", 1984.)
//!
//! A sync that failed is final: nothing is known about what was written since the last good one, and
//! trying again could report success for data that is gone. Everyone who waits gets
//! [`Error::Poisoned`], now and later.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use vault_core::vfs::File;
use vault_core::{Error, Result};

use crate::sync::atomic::{AtomicU64, AtomicUsize};
use crate::sync::{Condvar, Mutex, MutexGuard, thread};

/// Times the next leader lets other threads go first while it waits for company.
const YIELDS_MAX: usize = 64;

/// The durable end of the log, and the files that must be synced to move it.
pub(crate) struct LogSync {
    /// Log position behind the last record appended that has no hole before it.
    appended: AtomicU64,
    /// Log position up to which everything is durable.
    synced: AtomicU64,
    /// Writers that wait, the one that syncs included.
    waiting: AtomicUsize,
    state: Mutex<State>,
    /// Those who wait for an even round, and for an odd one.
    rounds: [Condvar; 2],
    syncs: AtomicU64,
    waits: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Segments with records that are not known to be durable, oldest first. One whose records are all in tables is none of them.
    dirty: Vec<Dirty>,
    /// The sync that is running, or the next one.
    round: usize,
    /// Up to where the running sync reaches (while that is open: everywhere); `None` while none runs.
    syncing: Option<u64>,
    /// Writers that waited when the last sync began.
    last_group: usize,
    /// Writers that sleep, by the round that they wait for: where there are none, nobody is woken, which would be a system
    /// call.
    asleep: [usize; 2],
    failed: Option<Arc<Error>>,
}

/// A segment that a sync has to reach.
#[derive(Clone)]
struct Dirty {
    number: u64,
    file: Arc<dyn File>,
    path: PathBuf,
}

impl LogSync {
    /// Starts with everything up to `position` durable.
    pub(crate) fn new(position: u64) -> Self {
        Self {
            appended: AtomicU64::new(position),
            synced: AtomicU64::new(position),
            waiting: AtomicUsize::new(0),
            state: Mutex::default(),
            rounds: [Condvar::new(), Condvar::new()],
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

    /// How often the log was synced.
    #[inline]
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// How often the log was synced, and for how many waiting writers.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.syncs.load(Ordering::Relaxed),
            self.waits.load(Ordering::Relaxed),
        )
    }

    /// Notes that the log is whole up to `position`, unless it is known to be whole further.
    #[inline]
    pub(crate) fn appended(&self, position: u64) {
        self.appended.fetch_max(position, Ordering::AcqRel);
    }

    /// Notes that the next records go to another file. Called under the commit lock.
    pub(crate) fn begin_segment(&self, number: u64, file: Arc<dyn File>, path: PathBuf) {
        self.lock().dirty.push(Dirty { number, file, path });
    }

    /// Notes that nothing below this segment is needed any more: it is in tables, which are durable. Those segments are not synced,
    /// and not held open, or else their bytes would stay on the disk and be written to it for nothing.
    pub(crate) fn forget_below(&self, floor: u64) {
        let mut state = self.lock();
        let kept = state.dirty.partition_point(|dirty| dirty.number < floor);
        let forgotten: Vec<Dirty> = state.dirty.drain(..kept).collect();
        drop(state);
        // Closing a long file takes a while.
        drop(forgotten);
    }

    /// Waits until everything up to `position` is durable, syncing where nobody else does.
    pub(crate) fn wait_for(&self, position: u64) -> Result<()> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let outcome = self.wait_in_turn(position);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        outcome
    }

    fn wait_in_turn(&self, position: u64) -> Result<()> {
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
            state = match state.syncing {
                // Whom the running sync does not reach waits for the next one.
                Some(target) => {
                    let round = state.round + usize::from(target < position);
                    state.asleep[round % 2] += 1;
                    let ended = self.rounds[round % 2].wait(state);
                    let mut state = ended.unwrap_or_else(PoisonError::into_inner);
                    state.asleep[round % 2] -= 1;
                    state
                }
                None => self.sync(state),
            };
        }
    }

    /// Syncs for everybody who has appended by now, and wakes them.
    fn sync<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        // Nobody else may begin. Whoever comes while this one waits for company has appended already, and
        // so is reached: only who comes later waits for the next round, and can lead it.
        state.syncing = Some(u64::MAX);
        let expected = state.last_group;
        drop(state);
        for _ in 0..YIELDS_MAX {
            if self.waiting.load(Ordering::Relaxed) >= expected {
                break;
            }
            thread::yield_now();
        }
        let mut state = self.lock();
        // Order matters: a file that gets records up to `target` is in `dirty` before the position is
        // published, so reading the position first and the files second misses none.
        let target = self.position();
        state.syncing = Some(target);
        state.last_group = self.waiting.load(Ordering::Relaxed);
        let files = state.dirty.clone();
        drop(state);
        let outcome = sync_all(&files);
        self.syncs.fetch_add(1, Ordering::Relaxed);

        let mut state = self.lock();
        match outcome {
            Ok(()) => {
                // All but the newest are complete: nothing is appended to them any more.
                let newest = files.last().map_or(0, |dirty| dirty.number);
                state.dirty.retain(|dirty| dirty.number >= newest);
                self.synced.store(target, Ordering::Release);
            }
            Err(error) => state.failed = Some(Arc::new(error)),
        }
        let round = state.round;
        state.syncing = None;
        state.round += 1;
        let asleep = state.asleep;
        if asleep[round % 2] > 0 {
            self.rounds[round % 2].notify_all();
        }
        let next = (round + 1) % 2;
        if asleep[next] > 0 {
            if state.failed.is_some() {
                self.rounds[next].notify_all();
            } else {
                // One of those who came too late leads the next round; the others go on waiting for it.
                self.rounds[next].notify_one();
            }
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sync_all(files: &[Dirty]) -> Result<()> {
    files.iter().try_for_each(|dirty| {
        let synced = dirty.file.sync();
        synced.map_err(|e| Error::io("sync", &dirty.path, e))
    })
}
