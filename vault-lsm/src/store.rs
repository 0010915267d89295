//! The state of an open store, shared by handles, snapshots, cursors and background threads.
//!
//! # Locks, in the order in which they may be taken
//! 1. `checkpoint_turn`: who holds it takes stock for a checkpoint, or does what must not come in between:
//!    installs an ingest, creates or drops a keyspace.
//! 2. `commit`: who holds it appends to the log and inserts into memtables, and alone seals memtables.
//! 3. `manifest`: who holds it changes what the store is made of.
//! 4. the view cell's own: while a new view is put in place.
//!
//! Readers take none of them. Nobody waits for a disk while holding 4.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, TryLockError};

use vault_core::vfs::LockedFileSystem;
use vault_core::{Error, Event, KeyspaceId, MergeOperator, Result, SequenceNumber};

use crate::background::Background;
use crate::counters::Counters;
use crate::keyspace::KeyspaceView;
use crate::layout::Env;
use crate::log::{LogSync, LogWriter, Segment};
use crate::manifest::Manifest;
use crate::memory::Memory;
use crate::options::Settings;
use crate::reclaim::ReclaimQueue;
use crate::replay::Progress;
use crate::snapshot::SnapshotRegistry;
use crate::sync::atomic::{AtomicU8, AtomicU64};
use crate::sync::{self, Mutex, MutexGuard, hint};
use crate::table::TableEnv;
use crate::view::{Pinned, ViewCell};
use crate::write::admission::Pacer;

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
    pub(crate) background: Background,
    pub(crate) log_sync: Arc<LogSync>,
    /// The log segments on disk, with their bytes.
    pub(crate) log_segments: Mutex<BTreeMap<u64, u64>>,
    /// The segment that takes records now (0: none yet).
    pub(crate) log_current: AtomicU64,
    /// A segment made ready for when the current one is full.
    pub(crate) log_spare: Mutex<Option<Segment>>,
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
    /// `None` when the store was opened read-only.
    writable: Option<Writable>,
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
    /// The log, the manifest and the process lock; `None` when opened read-only.
    pub(crate) writing: Option<(LogWriter, Manifest, Arc<LockedFileSystem>)>,
}

const OPEN: u8 = 0;
const POISONED: u8 = 1;
const CLOSED: u8 = 2;

impl Store {
    pub(crate) fn new(parts: StoreParts) -> Self {
        let (writable, locked) = match parts.writing {
            Some((log, manifest, locked)) => {
                let commit = Commit {
                    log,
                    last_sequence: parts.progress.last_sequence,
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
            background: Background::default(),
            snapshots: SnapshotRegistry::default(),
            visible: AtomicU64::new(parts.progress.last_sequence),
            replay_left_from: parts.progress.left_from,
            log_current: AtomicU64::new(0),
            log_spare: Mutex::new(None),
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
            writable,
            status: AtomicU8::new(OPEN),
            poison: Mutex::new(None),
            locked,
        }
    }

    /// Refuses to go on with a closed store.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.status.load(Ordering::Acquire) == CLOSED {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Refuses to write to a store that is closed, read-only or poisoned.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.status.load(Ordering::Acquire) == OPEN && self.writable.is_some() {
            return Ok(());
        }
        self.check_open()?;
        match &*lock(&self.poison) {
            Some(cause) => Err(Error::Poisoned {
                cause: Arc::clone(cause),
            }),
            None => Err(Error::ReadOnly),
        }
    }

    /// Takes the commit lock.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::ReadOnly`], [`Error::Poisoned`]: checked under the lock.
    pub(crate) fn commit(&self) -> Result<MutexGuard<'_, Commit>> {
        let writable = self.writable.as_ref().ok_or(Error::ReadOnly)?;
        let guard = lock_spinning(&writable.commit);
        self.check_writable()?;
        Ok(guard)
    }

    /// Takes the manifest lock.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub(crate) fn manifest(&self) -> Result<MutexGuard<'_, Manifest>> {
        let writable = self.writable.as_ref().ok_or(Error::ReadOnly)?;
        let guard = lock(&writable.manifest);
        self.check_writable()?;
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
        self.writable
            .as_ref()
            .map(|writable| lock(&writable.commit))
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
        self.check_open()?;
        Ok(self.views.pin_at(&self.visible))
    }

    /// After an error that leaves unknown what is on disk, makes the store read-only for good. An error
    /// that changed nothing (a full disk) is passed on as it is.
    pub(crate) fn poison_on(&self, error: Error) -> Error {
        if matches!(
            error,
            Error::DiskFull { .. } | Error::Closed | Error::ReadOnly | Error::Cancelled
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
        let mut poison = lock(&self.poison);
        let first = poison.is_none();
        let cause = Arc::clone(poison.get_or_insert(cause));
        drop(poison);
        let _ = self
            .status
            .compare_exchange(OPEN, POISONED, Ordering::AcqRel, Ordering::Acquire);
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
        self.status.swap(CLOSED, Ordering::AcqRel) != CLOSED
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
/// because putting a thread to sleep and waking it costs several.
fn lock_spinning<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    const ATTEMPTS: usize = if sync::MODELLED { 1 } else { 16 };
    const PAUSES: usize = 8;
    for _ in 0..ATTEMPTS {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => (0..PAUSES).for_each(|_| hint::spin_loop()),
        }
    }
    lock(mutex)
}

/// Marks an error after which nobody knows what is on disk: [`Store::poison_if_unknown`] acts on it.
pub(crate) fn outcome_unknown(error: Error) -> Error {
    match error {
        Error::Poisoned { .. } => error,
        cause => Error::Poisoned {
            cause: Arc::new(cause),
        },
    }
}

/// Marks an error of a write. A full disk has taken a part of the bytes at most; after anything else
/// they may be there whole.
pub(crate) fn write_failed(error: Error) -> Error {
    match error {
        Error::DiskFull { .. } => error,
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
