//! Making the log durable, for many writers at once.
//!
//! A writer that asked for [`Durability::Sync`](vault_core::Durability::Sync) appends its record
//! and then, holding no lock, waits here until the durable position has passed it. The
//! first to arrive syncs for everybody who has appended by then; those who come while it is at it wait,
//! and one of them is the next. Before it syncs, the next waits a moment for others: those who were just woken are about to
//! write again, and would otherwise miss the round by a hair. For how many, [`company`](super::company) knows. (Group commit:
//! DeWitt et al., "Implementation techniques for main memory database systems", 1984.)
//!
//! A sync that failed is final: nothing is known about what was written since the last good one, and
//! trying again could report success for data that is gone. Everyone who waits gets
//! [`Error::Poisoned`], now and later.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use vault_core::clock::Clock;
use vault_core::vfs::File;
use vault_core::{Error, Result};

use super::company::Company;
use crate::sync::atomic::{AtomicU64, AtomicUsize};
use crate::sync::{Condvar, MODELLED, Mutex, MutexGuard, thread};

/// Times the next leader lets other threads go first while it waits for company, at least.
const YIELDS_MIN: usize = if MODELLED { 1 } else { 64 };

/// The durable end of the log, and the files that must be synced to move it.
pub(crate) struct LogSync {
    /// Log position behind the last record appended that has no hole before it.
    appended: AtomicU64,
    /// Log position up to which everything is durable.
    synced: AtomicU64,
    state: Mutex<State>,
    /// Those who wait for an even round, and for an odd one.
    rounds: [Condvar; 2],
    /// How many these are. Changed under the lock. Where there are none, nobody is woken, which would be a system call.
    asleep: [AtomicUsize; 2],
    clock: Arc<dyn Clock>,
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
    company: Company,
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
    pub(crate) fn new(position: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            appended: AtomicU64::new(position),
            synced: AtomicU64::new(position),
            state: Mutex::default(),
            rounds: [Condvar::new(), Condvar::new()],
            asleep: [AtomicUsize::new(0), AtomicUsize::new(0)],
            clock,
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
                    self.asleep[round % 2].fetch_add(1, Ordering::Relaxed);
                    let ended = self.rounds[round % 2].wait(state);
                    let state = ended.unwrap_or_else(PoisonError::into_inner);
                    self.asleep[round % 2].fetch_sub(1, Ordering::Relaxed);
                    state
                }
                None => {
                    self.sync(state);
                    self.lock()
                }
            };
        }
    }

    /// Syncs for everybody who has appended by now, and wakes them.
    fn sync(&self, mut state: MutexGuard<'_, State>) {
        // Nobody else may begin. Whoever comes while this one waits for company has appended already, and
        // so is reached: only who comes later waits for the next round, and can lead it.
        state.syncing = Some(u64::MAX);
        let round = state.round;
        let (expected, patience) = (state.company.expected(), state.company.patience());
        drop(state);
        let (begun, waited) = self.wait_for_company(round, expected, patience);
        let mut state = self.lock();
        state.company.gathered(self.company(round), waited);
        // Order matters: a file that gets records up to `target` is in `dirty` before the position is
        // published, so reading the position first and the files second misses none.
        let target = self.position();
        state.syncing = Some(target);
        let files = state.dirty.clone();
        drop(state);
        let outcome = sync_all(&files);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let ended = self.clock.monotonic();
        let took = ended.saturating_sub(begun).saturating_sub(waited);

        let mut state = self.lock();
        state.company.synced(took);
        match outcome {
            Ok(()) => {
                // All but the newest are complete: nothing is appended to them any more.
                let newest = files.last().map_or(0, |dirty| dirty.number);
                state.dirty.retain(|dirty| dirty.number >= newest);
                self.synced.store(target, Ordering::Release);
            }
            Err(error) => state.failed = Some(Arc::new(error)),
        }
        state.syncing = None;
        state.round += 1;
        let failed = state.failed.is_some();
        let asleep = |round: usize| self.asleep[round % 2].load(Ordering::Relaxed);
        let (served, late) = (asleep(round), asleep(round + 1));
        // Whoever is woken wants the lock first.
        drop(state);
        if late > 0 {
            let late = &self.rounds[(round + 1) % 2];
            if failed {
                late.notify_all();
            } else {
                // One of those who came too late leads the next round; the others go on waiting for it. It is the first to be
                // woken, for the disk has nothing to do until it runs.
                late.notify_one();
            }
        }
        if served > 0 {
            self.rounds[round % 2].notify_all();
        }
    }

    /// Waits for so many writers, the leader included. Gives when that began and how long it took.
    fn wait_for_company(
        &self,
        round: usize,
        expected: usize,
        patience: Duration,
    ) -> (Duration, Duration) {
        let begun = self.clock.monotonic();
        let mut yields = 0;
        loop {
            let waited = self.clock.monotonic().saturating_sub(begun);
            if self.company(round) >= expected || (yields >= YIELDS_MIN && waited >= patience) {
                return (begun, waited);
            }
            thread::yield_now();
            yields += 1;
        }
    }

    /// Writers that this round's sync is for, the leader included.
    fn company(&self, round: usize) -> usize {
        1 + self.asleep[round % 2].load(Ordering::Relaxed)
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
