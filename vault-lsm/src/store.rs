//! The state of an open store, shared by handles, snapshots, cursors and background threads.
//!
//! # Locks, in the order in which they may be taken
//! 1. `checkpoint_turn`: who holds it takes stock for a checkpoint, or does what must not come in between:
//!    installs an ingest, creates or drops a keyspace.
//! 2. `commit`: who holds it gives out places in the log and inserts into memtables, and alone seals memtables.
//! 3. `manifest`: who holds it changes what the store is made of.
//! 4. the view cell's own: while a new view is put in place.
//! 5. what is kept for a shipper ([`crate::shipping`]).
//!
//! `log_spare_turn` comes before `manifest`, and nothing is held by who takes it.
//!
//! Readers take none of them. Nobody waits for a disk while holding 4. Whoever locks or unlocks the keys
//! ([`crate::locking`]) holds `locking.turn` before any of them. Whoever waits for a turn ([`crate::write::turns`])
//! may hold the first two; whose turn it is takes none of these four until it is over.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, TryLockError};

use vault_core::vfs::LockedFileSystem;
use vault_core::{Error, Event, KeyspaceId, MergeOperator, Result, SequenceNumber};

use crate::background::Background;
use crate::counters::Counters;
use crate::keyspace::KeyspaceView;
use crate::layout::Env;
use crate::locking::Locking;
use crate::log::{LogSync, LogWriter, Segment};
use crate::manifest::{Instance, Manifest};
use crate::memory::Memory;
use crate::options::Settings;
use crate::reclaim::ReclaimQueue;
use crate::replay::Progress;
use crate::rest::Rest;
use crate::rotation::Rotation;
use crate::shipping::Shipping;
use crate::snapshot::SnapshotRegistry;
use crate::sync::atomic::{AtomicU8, AtomicU64};
use crate::sync::{self, Mutex, MutexGuard, hint};
use crate::table::TableEnv;
use crate::view::{Pinned, ViewCell};
use crate::write::admission::Pacer;
use crate::write::turns::{Turns, TurnsTaken};

/// An open store.
pub(crate) struct Store {
    pub(crate) env: Env,
    pub(crate) settings: Settings,
    pub(crate) operators: BTreeMap<String, Arc<dyn MergeOperator>>,
    pub(crate) table_env: TableEnv,
    pub(crate) memory: Arc<Memory>,
    pub(crate) views: ViewCell,
    /// The last sequence number that readers may see.
    pub(crate) visible: AtomicU64,
    pub(crate) snapshots: SnapshotRegistry,
    pub(crate) reclaim: Arc<ReclaimQueue>,
    pub(crate) counters: Counters,
    pub(crate) pacer: Pacer,
    pub(crate) turns: Turns,
    pub(crate) background: Background,
    pub(crate) log_sync: Arc<LogSync>,
    /// The log segments on disk, with their bytes.
    pub(crate) log_segments: Mutex<BTreeMap<u64, u64>>,
    /// The segment that takes records now (0: none yet).
    pub(crate) log_current: AtomicU64,
    /// A segment made ready for when the current one is full.
    pub(crate) log_spare: Mutex<Option<Segment>>,
    /// Held by the one who makes it ready.
    pub(crate) log_spare_turn: Mutex<()>,
    /// The next number for a run of level 0.
    pub(crate) next_run: AtomicU64,
    /// While a checkpoint is made: memtables with a higher run number are not flushed.
    pub(crate) flush_barrier: AtomicU64,
    /// Held by the one checkpoint that takes stock, and by what must not come in between: an ingest that
    /// is installed, a keyspace that is created or dropped. Taken before all other locks.
    pub(crate) checkpoint_turn: Mutex<()>,
    /// From which sequence number on the log did not fit into memtables when it was first read.
    pub(crate) replay_left_from: Option<SequenceNumber>,
    /// The generation that the store was opened at.
    generation: u64,
    /// The instance of the store.
    pub(crate) instance: Instance,
    /// `None` when the store was opened read-only.
    writable: Option<Writable>,
    pub(crate) locking: Locking,
    pub(crate) rotation: Rotation,
    pub(crate) shipping: Shipping,
    pub(crate) rest: Rest,
    /// What stands in the way of operations, bit by bit; 0: nothing.
    status: AtomicU8,
    poison: Mutex<Option<Arc<Error>>>,
    /// The way to the directory, that ends with the process lock.
    locked: Option<Arc<LockedFileSystem>>,
}

struct Writable {
    commit: Mutex<Commit>,
    manifest: Mutex<Manifest>,
}

/// What the commit lock guards.
pub(crate) struct Commit {
    pub(crate) log: LogWriter,
    pub(crate) last_sequence: SequenceNumber,
    pub(crate) turns: TurnsTaken,
}

/// What a store is made from when it is opened.
pub(crate) struct StoreParts {
    pub(crate) env: Env,
    pub(crate) settings: Settings,
    pub(crate) operators: BTreeMap<String, Arc<dyn MergeOperator>>,
    pub(crate) table_env: TableEnv,
    pub(crate) views: ViewCell,
    pub(crate) progress: Progress,
    pub(crate) reclaim: Arc<ReclaimQueue>,
    pub(crate) log_sync: Arc<LogSync>,
    pub(crate) log_segments: BTreeMap<u64, u64>,
    pub(crate) next_run: u64,
    pub(crate) generation: u64,
    pub(crate) instance: Instance,
    /// The log, the manifest and the process lock; `None` when opened read-only.
    pub(crate) writing: Option<(LogWriter, Manifest, Arc<LockedFileSystem>)>,
}

/// An error has left unknown what is on disk: nothing is written any more.
const POISONED: u8 = 1;
/// The store was closed.
const CLOSED: u8 = 1 << 1;
/// Callers are refused, because the keys are being wiped or have been.
const LOCKED: u8 = 1 << 2;
/// The engine's own work is refused too.
const PAUSED: u8 = 1 << 3;
/// Nothing was asked since this was set. The next operation takes it back ([`Store::is_quiet`]).
const QUIET: u8 = 1 << 4;

impl Store {
    pub(crate) fn new(parts: StoreParts) -> Self {
        let (writable, locked) = match parts.writing {
            Some((log, manifest, locked)) => {
                let commit = Commit {
                    log,
                    last_sequence: parts.progress.last_sequence,
                    turns: TurnsTaken::default(),
                };
                let writable = Writable {
                    commit: Mutex::new(commit),
                    manifest: Mutex::new(manifest),
                };
                (Some(writable), Some(locked))
            }
            None => (None, None),
        };
        Self {
            counters: Counters::new(parts.settings.latency_sample_every),
            pacer: Pacer::default(),
            turns: Turns::default(),
            background: Background::default(),
            snapshots: SnapshotRegistry::default(),
            visible: AtomicU64::new(parts.progress.last_sequence),
            replay_left_from: parts.progress.left_from,
            log_current: AtomicU64::new(0),
            log_spare: Mutex::new(None),
            log_spare_turn: Mutex::new(()),
            log_segments: Mutex::new(parts.log_segments),
            next_run: AtomicU64::new(parts.next_run),
            flush_barrier: AtomicU64::new(u64::MAX),
            checkpoint_turn: Mutex::new(()),
            env: parts.env,
            settings: parts.settings,
            operators: parts.operators,
            memory: Arc::clone(&parts.table_env.memory),
            table_env: parts.table_env,
            views: parts.views,
            reclaim: parts.reclaim,
            log_sync: parts.log_sync,
            generation: parts.generation,
            instance: parts.instance,
            writable,
            locking: Locking::default(),
            rotation: Rotation::default(),
            shipping: Shipping::default(),
            rest: Rest::default(),
            status: AtomicU8::new(0),
            poison: Mutex::new(None),
            locked,
        }
    }

    /// Refuses to go on with a store that is closed or locked.
    ///
    /// Whoever pins a view asks afterwards: a view from before the lock goes with its reader, but one from
    /// after it may not be filled any more with what was decoded ([`crate::locking`]).
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        let status = self.status.load(Ordering::Acquire);
        if status & (CLOSED | LOCKED | QUIET) == 0 {
            return Ok(());
        }
        self.refuse(status & !POISONED)
    }

    /// Refuses to write to a store that is closed, locked, read-only or poisoned.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        let status = self.status.load(Ordering::Acquire);
        if status == 0 && self.writable.is_some() {
            return Ok(());
        }
        self.refuse(status)?;
        if self.writable.is_some() {
            Ok(())
        } else {
            Err(Error::ReadOnly)
        }
    }

    /// As [`Store::check_writable`], for work that nobody asked for: it gives way as soon as callers are refused,
    /// and keeps no store from becoming idle.
    pub(crate) fn check_job(&self) -> Result<()> {
        self.refuse_for(self.status.load(Ordering::Acquire) & !QUIET)?;
        self.writable
            .as_ref()
            .map_or(Err(Error::ReadOnly), |_| Ok(()))
    }

    /// As [`Store::check_job`], for the work that brings the store to rest: it goes on until all work is paused.
    pub(crate) fn check_working(&self) -> Result<()> {
        let status = self.status.load(Ordering::Acquire);
        let status = if status & PAUSED == 0 {
            status & !LOCKED
        } else {
            status
        };
        self.refuse_for(status & !QUIET)
    }

    /// Says what is in the way of an operation, if anything is; that it came is noted.
    #[cold]
    fn refuse(&self, status: u8) -> Result<()> {
        if status & QUIET != 0 {
            self.status.fetch_and(!QUIET, Ordering::AcqRel);
        }
        self.refuse_for(status & !QUIET)
    }

    fn refuse_for(&self, status: u8) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        if status & CLOSED != 0 {
            return Err(Error::Closed);
        }
        if status & (LOCKED | PAUSED) != 0 {
            return Err(Error::Locked);
        }
        match &*lock(&self.poison) {
            Some(cause) => Err(Error::Poisoned {
                cause: Arc::clone(cause),
            }),
            None => Err(Error::ReadOnly),
        }
    }

    /// Whether the store writes, but for being locked.
    pub(crate) fn is_writing(&self) -> bool {
        let refused = self.status.load(Ordering::Acquire) & (CLOSED | POISONED) != 0;
        self.writable.is_some() && !refused
    }

    /// What a call that failed is told: whose keys went because the store was closed need not unlock it.
    #[cold]
    pub(crate) fn told(&self, error: Error) -> Error {
        match error {
            Error::Locked if self.is_closed() => Error::Closed,
            error => error,
        }
    }

    /// Refuses callers from now on, and where `all_work` says so the engine's own work too.
    pub(crate) fn refuse_as_locked(&self, all_work: bool) {
        let bits = if all_work { LOCKED | PAUSED } else { LOCKED };
        self.status.fetch_or(bits, Ordering::AcqRel);
    }

    /// Ends [`Store::refuse_as_locked`].
    pub(crate) fn accept_again(&self) {
        self.status
            .fetch_and(!(LOCKED | PAUSED | QUIET), Ordering::AcqRel);
    }

    /// Whether callers are refused because the keys are being wiped or have been.
    pub(crate) fn is_locked(&self) -> bool {
        self.status.load(Ordering::Acquire) & LOCKED != 0
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.status.load(Ordering::Acquire) & POISONED != 0
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.status.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Whether no caller has asked for anything since this was called last. Costs operations nothing: all look at
    /// the status anyway.
    pub(crate) fn is_quiet(&self) -> bool {
        self.status.fetch_or(QUIET, Ordering::AcqRel) & QUIET != 0
    }

    /// Takes the commit lock, with every commit before this published.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::ReadOnly`], [`Error::Poisoned`]: checked under the lock.
    pub(crate) fn commit(&self) -> Result<MutexGuard<'_, Commit>> {
        let writable = self.writable.as_ref().ok_or(Error::ReadOnly)?;
        let guard = lock_spinning(&writable.commit, || false);
        self.wait_for_all_turns(&guard);
        self.check_writable()?;
        Ok(guard)
    }

    /// Takes the commit lock while the records of others may still be on their way into the log. While another thread has it,
    /// `prepare` is called for a little of what can be done without it, as long as it gives `true`.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub(crate) fn commit_beside_others(
        &self,
        prepare: impl FnMut() -> bool,
    ) -> Result<MutexGuard<'_, Commit>> {
        let writable = self.writable.as_ref().ok_or(Error::ReadOnly)?;
        let guard = lock_spinning(&writable.commit, prepare);
        self.check_writable()?;
        Ok(guard)
    }

    /// The last sequence number that was given out, with the commit lock held while `act` runs with it. `None` where another has
    /// the lock, or where the store doesn't write: for readers, who wait for nobody.
    pub(crate) fn if_nobody_commits<T>(
        &self,
        act: impl FnOnce(SequenceNumber) -> Option<T>,
    ) -> Option<T> {
        let commit = self.writable.as_ref()?.commit.try_lock().ok()?;
        self.check_writable().ok()?;
        act(commit.last_sequence)
    }

    /// Waits until every commit that has a place in the log is published. Where one has failed, the store is poisoned
    /// from here on.
    #[inline]
    pub(crate) fn wait_for_all_turns(&self, commit: &Commit) {
        let publish = |publication| self.publish(publication);
        if !self.turns.wait_for_all(&commit.turns, publish) {
            drop(self.poison_for_hole());
        }
    }

    /// Makes the store read-only for good because there is a hole in the log.
    #[cold]
    pub(crate) fn poison_for_hole(&self) -> Error {
        let hole = std::io::Error::other("an earlier write did not get into the log");
        self.poison_on(Error::io("append to", &self.env.directory, hole))
    }

    /// As [`Store::commit`], for work that nobody asked for.
    pub(crate) fn commit_for_job(&self) -> Result<MutexGuard<'_, Commit>> {
        let writable = self.writable.as_ref().ok_or(Error::ReadOnly)?;
        let guard = lock(&writable.commit);
        self.wait_for_all_turns(&guard);
        self.check_job()?;
        Ok(guard)
    }

    /// Takes the manifest lock.
    ///
    /// # Errors
    /// As [`Store::commit`], but while the store is being locked, only once all work is paused.
    pub(crate) fn manifest(&self) -> Result<MutexGuard<'_, Manifest>> {
        let writable = self.writable.as_ref().ok_or(Error::ReadOnly)?;
        let guard = lock(&writable.manifest);
        self.check_working()?;
        Ok(guard)
    }

    /// The manifest, whatever state the store is in; `None` when it was opened read-only.
    pub(crate) fn manifest_unchecked(&self) -> Option<MutexGuard<'_, Manifest>> {
        self.writable
            .as_ref()
            .map(|writable| lock(&writable.manifest))
    }

    /// The commit lock, whatever state the store is in; `None` when it was opened read-only.
    pub(crate) fn commit_unchecked(&self) -> Option<MutexGuard<'_, Commit>> {
        let guard = lock(&self.writable.as_ref()?.commit);
        self.wait_for_all_turns(&guard);
        Some(guard)
    }

    /// The generation of the store: one more with each opening for writing, each close, and some changes between.
    pub(crate) fn generation(&self) -> u64 {
        let manifest = self.manifest_unchecked();
        manifest.map_or(self.generation, |manifest| manifest.generation())
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.writable.is_none()
    }

    /// Pins the current view, with the sequence number that it is complete for.
    #[inline]
    pub(crate) fn pin(&self) -> Result<(Pinned, SequenceNumber)> {
        let pinned = self.views.pin_at(&self.visible);
        self.check_open()?;
        Ok(pinned)
    }

    /// After an error that leaves unknown what is on disk, makes the store read-only for good. An error
    /// that changed nothing (a full disk) is passed on as it is.
    pub(crate) fn poison_on(&self, error: Error) -> Error {
        if matches!(
            error,
            Error::DiskFull { .. }
                | Error::Closed
                | Error::Locked
                | Error::ReadOnly
                | Error::Cancelled
        ) {
            return error;
        }
        if let Error::Poisoned { cause } = error {
            return self.poison(cause);
        }
        self.poison(Arc::new(error))
    }

    /// As [`Store::poison_on`], for errors of the manifest and of the log's writer, which know
    /// themselves whether anything changed: only [`Error::Poisoned`] says that it may have.
    pub(crate) fn poison_if_unknown(&self, error: Error) -> Error {
        match error {
            Error::Poisoned { cause } => self.poison(cause),
            nothing_changed => nothing_changed,
        }
    }

    fn poison(&self, cause: Arc<Error>) -> Error {
        self.poison_and(cause, || ())
    }

    /// Makes the store read-only for good, and does the rest before anybody is told.
    pub(crate) fn poison_and(&self, cause: Arc<Error>, rest: impl FnOnce()) -> Error {
        let mut poison = lock(&self.poison);
        let first = poison.is_none();
        let cause = Arc::clone(poison.get_or_insert(cause));
        drop(poison);
        self.status.fetch_or(POISONED, Ordering::AcqRel);
        rest();
        let error = Error::Poisoned { cause };
        if first {
            self.env.emit(&Event::Poisoned {
                error: error.clone(),
            });
            self.background.notify_progress();
        }
        error
    }

    /// Marks the store closed; gives whether it was open until now.
    pub(crate) fn mark_closed(&self) -> bool {
        self.status.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED == 0
    }

    /// Lets go of the process lock.
    pub(crate) fn unlock_process(&self) {
        if let Some(locked) = &self.locked {
            locked.release();
        }
    }

    /// Runs `change` on the current view of a keyspace and publishes the result.
    pub(crate) fn update_keyspace(
        &self,
        id: KeyspaceId,
        change: impl FnOnce(&Arc<KeyspaceView>) -> KeyspaceView,
    ) {
        self.views.update(|view| {
            view.keyspace(id)
                .map(|keyspace| view.replacing(change(keyspace)))
        });
    }

    /// Removes the files that nobody reads any more. Gives how many there were.
    pub(crate) fn reclaim_files(&self) -> usize {
        self.reclaim.run(&*self.env.fs, &self.table_env.cache)
    }

    /// Bytes of log segments that are mapped: the one that takes records, and the next.
    pub(crate) fn log_mapped_bytes(&self) -> u64 {
        let current = self.log_current.load(Ordering::Acquire);
        let current = lock(&self.log_segments).get(&current).copied();
        let spare = lock(&self.log_spare).as_ref().map(Segment::capacity);
        current.unwrap_or(0) + spare.unwrap_or(0)
    }

    pub(crate) fn cursor_opened(&self) {
        self.counters.cursors_open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn cursor_closed(&self) {
        self.counters.cursors_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a mutex. A thread that panicked while holding it has left no state half-changed that the
/// others would rely on: every change under these locks ends with a single assignment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a mutex that is mostly held for less than a microsecond: tries for about two before it sleeps,
/// because putting a thread to sleep and waking it costs several. Between two tries it calls `prepare`, or where that
/// gives `false` waits for a moment.
fn lock_spinning<T>(mutex: &Mutex<T>, mut prepare: impl FnMut() -> bool) -> MutexGuard<'_, T> {
    const ATTEMPTS: usize = if sync::MODELLED { 1 } else { 16 };
    const PAUSES: usize = 8;
    for _ in 0..ATTEMPTS {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                if !prepare() {
                    (0..PAUSES).for_each(|_| hint::spin_loop());
                }
            }
        }
    }
    lock(mutex)
}

/// Marks an error after which nobody knows what is on disk: [`Store::poison_if_unknown`] acts on it. Whoever goes on
/// while the store is closed finds the directory let go of, and has changed nothing there.
pub(crate) fn outcome_unknown(error: Error) -> Error {
    match error {
        Error::Poisoned { .. } | Error::Closed => error,
        cause => Error::Poisoned {
            cause: Arc::new(cause),
        },
    }
}

/// Marks an error of a write to a place that nothing lies behind. A full disk has taken a part of the bytes at most, and
/// without its key nothing was even begun; after anything else they may be there whole.
pub(crate) fn write_failed(error: Error) -> Error {
    match error {
        Error::DiskFull { .. } | Error::Locked => error,
        other => outcome_unknown(other),
    }
}

/// Marks a failed sync of a file that nothing names yet. The file is given up, so nothing is lost with it;
/// but a device that could not write it is not to be trusted with what comes next. Only where the reason
/// is space, or a directory that could not be opened for syncing it, may the next file do better.
pub(crate) fn sync_failed(error: Error) -> Error {
    match error {
        Error::TooManyOpenFiles { .. } => error,
        other => write_failed(other),
    }
}

/// The error for an id that names no keyspace.
pub(crate) const fn unknown_keyspace(id: KeyspaceId) -> Error {
    Error::UnknownKeyspace { id: id.0 }
}
