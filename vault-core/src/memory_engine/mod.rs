//! An engine in memory: the whole [`Engine`] trait, kept simple enough to be right by inspection.
//!
//! It is what other engines are compared with, and what programs use where nothing need outlive the
//! process. It keeps every version of every key that someone can still see, in a sorted map, behind
//! one lock.
//!
//! # Semantics
//! These hold for every engine of Vault; where the trait leaves room, this engine shows what is meant.
//! - **Sequence numbers.** Each operation of a batch takes the next number, in order, no-ops included.
//!   The batch becomes visible as a whole. `write` gives the last number; for an empty batch, the latest.
//! - **Order within a batch.** Later operations win over earlier ones: a put followed by a range
//!   delete that covers it is gone, the other way round it stays.
//! - **Expiry.** An entry (put or merge operand) with an expiry reads, from that moment on
//!   (`now >= expiry`), as a *delete* at its place in the history: it and everything older is
//!   invisible, and newer operands stacked on it apply to nothing. Time is not part of a snapshot:
//!   snapshots and open cursors see entries expire too.
//! - **Merges** fold lazily, when read, oldest first, over the value below them: that of the newest
//!   put, or nothing after a delete, a range delete or an expired entry. Operands are checked when
//!   written; an operator that fails when read gives [`Error::MergeFailed`], and so does a result over
//!   [`VALUE_BYTES_CEILING`].
//! - **Range deletes** hide smaller sequence numbers only. `start == end` deletes nothing; `start > end`
//!   is refused. The end is a bound and not a key: it is held to
//!   [`RANGE_END_BYTES_MAX`](crate::limits::RANGE_END_BYTES_MAX), whatever [`Limits::key_bytes_max`] says, so that deleting by a prefix that has
//!   no successor works under every limit.
//! - **Validation** covers the whole batch before anything is applied.
//! - **Keyspaces.** Ids start at 1 and are never reused. A dropped keyspace is unknown to everything
//!   but the snapshots and cursors that were opened before. A snapshot doesn't know keyspaces that were
//!   created after it.
//! - **Scans** over an empty or inverted range give nothing. Cursors are as [`Cursor`] says.
//! - **Closing** makes everything answer [`Error::Closed`], snapshots and cursors included;
//!   [`Engine::latest_sequence`] and [`Engine::now`], which cannot fail, go on answering.
//!
//! # Locks
//! `state` (all writers exclusively, all reads through the engine shared) is taken before a keyspace's
//! `history`. `pins` is a leaf: nothing else is taken while it is held. Reads through a view take no `state` lock: the view's pin keeps what
//! they need. Code of merge operators runs under these locks; it can panic only before anything has been
//! changed, so a poisoned lock guards a sound state and is taken regardless.

mod check;
mod history;
mod meter;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::history::{History, Pins};
use self::meter::Meters;
use self::view::{MemorySnapshot, View};
use crate::batch::WriteBatch;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::engine::{
    CasOutcome, CompactionOutcome, CompactionProgress, Cursor, Engine, EntryInfo, KeyspaceId,
    KeyspaceInfo, Reader, SequenceNumber, Snapshot,
};
use crate::error::{Error, Result};
use crate::limits::{
    BATCH_BYTES_CEILING, KEY_BYTES_MAX, KEYSPACES_MAX, Limits, VALUE_BYTES_CEILING,
    check_keyspace_name,
};
use crate::merge::{MergeOperator, built_in};
use crate::options::{KeyspaceOptions, WriteOptions};
use crate::range::KeyRange;
use crate::slice::Slice;
use crate::stats::{BlobStats, EngineStats, KeyspaceStats};

/// An engine in memory. Handles are cheap to clone and share one store. See the [module](self).
///
/// ```
/// use vault_core::{Engine, KeyspaceOptions, MemoryEngine, Reader, WriteOptions};
///
/// # fn main() -> vault_core::Result<()> {
/// let engine = MemoryEngine::new();
/// let hits = engine.create_keyspace("hits", &KeyspaceOptions::default())?;
/// let before = engine.snapshot()?;
/// engine.put(hits, b"/", b"1", &WriteOptions::default())?;
/// assert_eq!(engine.get(hits, b"/")?.as_deref(), Some(&b"1"[..]));
/// assert_eq!(before.get(hits, b"/")?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryEngine {
    shared: Arc<Shared>,
}

/// What all handles, snapshots and cursors of one engine share.
struct Shared {
    clock: Arc<dyn Clock>,
    operators: Vec<Arc<dyn MergeOperator>>,
    limits: Limits,
    state: RwLock<State>,
    pins: Mutex<Pins>,
    /// Counts the views that have closed, so that writers know when there may be something to free.
    views_closed: AtomicU64,
    closed: AtomicBool,
    meters: Meters,
}

/// What writers change.
#[derive(Default)]
struct State {
    latest: SequenceNumber,
    last_keyspace: u32,
    keyspaces: BTreeMap<KeyspaceId, Arc<Keyspace>>,
    /// The value of `views_closed` when memory was last given back.
    released_at: u64,
}

struct Keyspace {
    name: String,
    options: RwLock<KeyspaceOptions>,
    operator: Option<Arc<dyn MergeOperator>>,
    history: RwLock<History>,
}

impl MemoryEngine {
    /// Opens an empty engine with the system's clock, the built-in merge operators and the default
    /// limits.
    #[must_use]
    pub fn new() -> Self {
        Self::build(Arc::new(SystemClock::new()), built_in(), Limits::default())
    }

    /// Opens an empty engine that differs from this one by its clock. Configure before use: nothing
    /// of what this one holds is taken along.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use vault_core::{Engine, MemoryEngine, Timestamp, clock::ManualClock};
    /// let engine = MemoryEngine::new().with_clock(Arc::new(ManualClock::new(Timestamp(7))));
    /// assert_eq!(engine.now(), Timestamp(7));
    /// ```
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self::build(clock, self.shared.operators.clone(), self.shared.limits)
    }

    /// Opens an empty engine that knows these merge operators besides those that this one knows. Of
    /// two with the same name, the one registered last counts. Configure before use, as with
    /// [`MemoryEngine::with_clock`].
    #[must_use]
    pub fn with_merge_operators(self, operators: Vec<Arc<dyn MergeOperator>>) -> Self {
        let mut all = self.shared.operators.clone();
        all.extend(operators);
        Self::build(Arc::clone(&self.shared.clock), all, self.shared.limits)
    }

    /// Opens an empty engine with other limits; those above what Vault supports are lowered to that.
    /// Configure before use, as with [`MemoryEngine::with_clock`].
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        let limits = Limits {
            key_bytes_max: limits.key_bytes_max.min(KEY_BYTES_MAX),
            value_bytes_max: limits.value_bytes_max.min(VALUE_BYTES_CEILING),
            batch_bytes_max: limits.batch_bytes_max.min(BATCH_BYTES_CEILING),
        };
        let clock = Arc::clone(&self.shared.clock);
        Self::build(clock, self.shared.operators.clone(), limits)
    }

    fn build(
        clock: Arc<dyn Clock>,
        operators: Vec<Arc<dyn MergeOperator>>,
        limits: Limits,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                operators,
                limits,
                state: RwLock::default(),
                pins: Mutex::default(),
                views_closed: AtomicU64::new(0),
                closed: AtomicBool::new(false),
                meters: Meters::default(),
            }),
        }
    }
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEngine")
            .field("latest", &self.latest_sequence())
            .field("keyspaces", &read(&self.shared.state).keyspaces.len())
            .finish_non_exhaustive()
    }
}

impl Reader for MemoryEngine {
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Slice>> {
        let shared = &self.shared;
        shared.meters.get.time(&*shared.clock, || {
            let state = shared.reading()?;
            let keyspace = state.keyspace(keyspace)?;
            shared.get(keyspace, key, state.latest, shared.clock.now())
        })
    }

    fn entry_info(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<EntryInfo>> {
        let shared = &self.shared;
        let state = shared.reading()?;
        shared.entry_info(state.keyspace(keyspace)?, key, state.latest)
    }

    fn multi_get(&self, keyspace: KeyspaceId, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        let shared = &self.shared;
        shared.meters.multi_get.time(&*shared.clock, || {
            let state = shared.reading()?;
            let keyspace = state.keyspace(keyspace)?;
            let now = shared.clock.now();
            keys.iter()
                .map(|key| shared.get(keyspace, key, state.latest, now))
                .collect()
        })
    }

    fn cursor(&self, keyspace: KeyspaceId, range: KeyRange) -> Result<Box<dyn Cursor>> {
        let view = View::open(&self.shared, |keyspaces| {
            let found = keyspaces
                .get_key_value(&keyspace)
                .ok_or(Error::UnknownKeyspace { id: keyspace.0 })?;
            Ok(BTreeMap::from([(*found.0, Arc::clone(found.1))]))
        })?;
        view.cursor(keyspace, range)
    }
}

impl Engine for MemoryEngine {
    fn create_keyspace(&self, name: &str, options: &KeyspaceOptions) -> Result<KeyspaceId> {
        let mut state = self.shared.writing()?;
        check_keyspace_name(name)?;
        options.check()?;
        if let Some((id, keyspace)) = state.find(name) {
            keyspace.check_conflict(options)?;
            *write(&keyspace.options) = options.clone();
            return Ok(id);
        }
        let operator = self.shared.operator(name, options)?;
        if state.keyspaces.len() >= KEYSPACES_MAX || state.last_keyspace == u32::MAX {
            return Err(Error::InvalidSetting {
                setting: "keyspaces",
                problem: format!(
                    "the store holds {} already and can hold {KEYSPACES_MAX}; drop one first",
                    state.keyspaces.len()
                ),
            });
        }
        state.last_keyspace += 1;
        let id = KeyspaceId(state.last_keyspace);
        let keyspace = Keyspace {
            name: name.to_owned(),
            options: RwLock::new(options.clone()),
            operator,
            history: RwLock::default(),
        };
        state.keyspaces.insert(id, Arc::new(keyspace));
        Ok(id)
    }

    fn keyspace(&self, name: &str) -> Result<Option<KeyspaceId>> {
        Ok(self.shared.reading()?.find(name).map(|(id, _)| id))
    }

    fn keyspaces(&self) -> Result<Vec<KeyspaceInfo>> {
        let state = self.shared.reading()?;
        let info = |(&id, keyspace): (&KeyspaceId, &Arc<Keyspace>)| KeyspaceInfo {
            id,
            name: keyspace.name.clone(),
            options: read(&keyspace.options).clone(),
        };
        Ok(state.keyspaces.iter().map(info).collect())
    }

    fn drop_keyspace(&self, keyspace: KeyspaceId) -> Result<()> {
        let mut state = self.shared.writing()?;
        state
            .keyspaces
            .remove(&keyspace)
            .map(drop)
            .ok_or(Error::UnknownKeyspace { id: keyspace.0 })
    }

    fn write(&self, batch: &WriteBatch, _options: &WriteOptions) -> Result<SequenceNumber> {
        let shared = &self.shared;
        shared.meters.write.time(&*shared.clock, || {
            let mut state = shared.writing()?;
            shared.check_batch(&state, batch)?;
            shared.apply(&mut state, batch);
            Ok(state.latest)
        })
    }

    fn try_write(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<SequenceNumber> {
        // Nothing here ever makes a writer wait for room.
        self.write(batch, options)
    }

    fn compare_and_set(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        _options: &WriteOptions,
    ) -> Result<CasOutcome> {
        let shared = &self.shared;
        let mut batch = WriteBatch::new();
        match new {
            Some(value) => batch.put(keyspace, key, value),
            None => batch.delete(keyspace, key),
        };
        shared.meters.compare_and_set.time(&*shared.clock, || {
            let mut state = shared.writing()?;
            shared.check_batch(&state, &batch)?;
            let now = shared.clock.now();
            let found = shared.get(state.keyspace(keyspace)?, key, state.latest, now)?;
            if found.as_deref() != expected {
                return Ok(CasOutcome::Mismatch(found));
            }
            shared.apply(&mut state, &batch);
            Ok(CasOutcome::Swapped(state.latest))
        })
    }

    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        let view = View::open(&self.shared, |keyspaces| Ok(keyspaces.clone()))?;
        Ok(Arc::new(MemorySnapshot(view)))
    }

    fn latest_sequence(&self) -> SequenceNumber {
        read(&self.shared.state).latest
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn sync(&self) -> Result<()> {
        self.shared.check_open()
    }

    fn flush(&self, keyspace: Option<KeyspaceId>) -> Result<()> {
        let state = self.shared.reading()?;
        keyspace.map_or(Ok(()), |id| state.keyspace(id).map(drop))
    }

    fn compact(
        &self,
        keyspace: KeyspaceId,
        range: KeyRange,
        progress: &mut dyn FnMut(CompactionProgress) -> ControlFlow<()>,
    ) -> Result<CompactionOutcome> {
        let keyspace = Arc::clone(self.shared.reading()?.keyspace(keyspace)?);
        range.check_order()?;
        // No lock is held here: the callback may well use the engine.
        let bytes_total = read(&keyspace.history).bytes();
        let begin = CompactionProgress {
            bytes_total,
            ..CompactionProgress::default()
        };
        if progress(begin).is_break() {
            return Err(Error::Cancelled);
        }
        let _state = self.shared.writing()?;
        let entries_dropped = self.shared.release(&keyspace);
        Ok(CompactionOutcome {
            entries_dropped,
            ..CompactionOutcome::default()
        })
    }

    fn stats(&self) -> Result<EngineStats> {
        let state = self.shared.reading()?;
        let meters = &self.shared.meters;
        let mut stats = EngineStats {
            operations: meters.summary(),
            latest_sequence: state.latest,
            snapshots_open: self.shared.pins().values().map(|&n| n as u64).sum(),
            ..EngineStats::default()
        };
        for (&id, keyspace) in &state.keyspaces {
            let memtable_bytes = read(&keyspace.history).bytes();
            stats.memory.memtables += memtable_bytes;
            stats.keyspaces.push(KeyspaceStats {
                id,
                name: keyspace.name.clone(),
                memtable_bytes,
                memtables_waiting: 0,
                levels: Vec::new(),
                blobs: BlobStats::default(),
            });
        }
        stats.written.user_bytes = meters.user_bytes.load(Ordering::Relaxed);
        stats.background.obsolete_removed = meters.obsolete_removed.load(Ordering::Relaxed);
        Ok(stats)
    }

    fn close(&self) -> Result<()> {
        let mut state = write(&self.shared.state);
        self.shared.closed.store(true, Ordering::SeqCst);
        state.keyspaces.clear();
        Ok(())
    }
}

impl State {
    fn keyspace(&self, id: KeyspaceId) -> Result<&Arc<Keyspace>> {
        self.keyspaces
            .get(&id)
            .ok_or(Error::UnknownKeyspace { id: id.0 })
    }

    fn find(&self, name: &str) -> Option<(KeyspaceId, &Arc<Keyspace>)> {
        self.keyspaces
            .iter()
            .find(|(_, keyspace)| keyspace.name == name)
            .map(|(&id, keyspace)| (id, keyspace))
    }
}

impl Keyspace {
    /// Refuses options that contradict those the keyspace was created with.
    fn check_conflict(&self, requested: &KeyspaceOptions) -> Result<()> {
        let stored = read(&self.options);
        let conflict = |option, stored: &str, requested: &str| Error::OptionsConflict {
            subject: format!("keyspace {:?}", self.name),
            option,
            stored: stored.to_owned(),
            requested: requested.to_owned(),
        };
        if stored.policy.name() != requested.policy.name() {
            return Err(conflict(
                "policy",
                stored.policy.name(),
                requested.policy.name(),
            ));
        }
        if stored.merge_operator != requested.merge_operator {
            let name = |options: &KeyspaceOptions| {
                let operator = options.merge_operator.as_deref();
                operator.unwrap_or("none").to_owned()
            };
            return Err(conflict("merge_operator", &name(&stored), &name(requested)));
        }
        Ok(())
    }
}

impl Shared {
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Locks writers out, unless the engine is closed.
    fn reading(&self) -> Result<RwLockReadGuard<'_, State>> {
        let state = read(&self.state);
        self.check_open()?;
        Ok(state)
    }

    /// Locks everyone out, unless the engine is closed.
    fn writing(&self) -> Result<RwLockWriteGuard<'_, State>> {
        let state = write(&self.state);
        self.check_open()?;
        Ok(state)
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pin(&self, sequence: SequenceNumber) {
        *self.pins().entry(sequence).or_default() += 1;
    }

    fn unpin(&self, sequence: SequenceNumber) {
        let mut pins = self.pins();
        if let Some(views) = pins.get_mut(&sequence) {
            *views -= 1;
            if *views == 0 {
                pins.remove(&sequence);
            }
        }
        self.views_closed.fetch_add(1, Ordering::SeqCst);
    }

    /// Looks up the merge operator that the options name.
    fn operator(
        &self,
        keyspace: &str,
        options: &KeyspaceOptions,
    ) -> Result<Option<Arc<dyn MergeOperator>>> {
        let Some(name) = &options.merge_operator else {
            return Ok(None);
        };
        let known = self
            .operators
            .iter()
            .rev()
            .find(|known| known.name() == name);
        known
            .map(|operator| Some(Arc::clone(operator)))
            .ok_or_else(|| Error::MissingMergeOperator {
                keyspace: keyspace.to_owned(),
                operator: name.clone(),
            })
    }

    fn get(
        &self,
        keyspace: &Keyspace,
        key: &[u8],
        sequence: SequenceNumber,
        now: Timestamp,
    ) -> Result<Option<Slice>> {
        self.limits.check_key(key)?;
        read(&keyspace.history).get(key, sequence, now, keyspace.operator.as_deref())
    }

    fn entry_info(
        &self,
        keyspace: &Keyspace,
        key: &[u8],
        sequence: SequenceNumber,
    ) -> Result<Option<EntryInfo>> {
        self.limits.check_key(key)?;
        let operator = keyspace.operator.as_deref();
        read(&keyspace.history).entry_info(key, sequence, self.clock.now(), operator)
    }

    /// Applies a batch that has been checked. Nobody reads through the engine meanwhile, and views
    /// stop at their own sequence number, so the batch is seen as a whole or not at all.
    fn apply(&self, state: &mut State, batch: &WriteBatch) {
        let views_closed = self.views_closed.load(Ordering::SeqCst);
        if state.released_at != views_closed {
            for keyspace in state.keyspaces.values() {
                self.release(keyspace);
            }
            state.released_at = views_closed;
        }
        let pins = self.pins().clone();
        let mut user_bytes = 0;
        for operation in batch {
            state.latest += 1;
            if let Some(keyspace) = state.keyspaces.get(&operation.keyspace) {
                write(&keyspace.history).apply(&operation, state.latest, &pins);
            }
            user_bytes += (operation.key.len() + operation.value.len()) as u64;
        }
        self.meters
            .user_bytes
            .fetch_add(user_bytes, Ordering::Relaxed);
    }

    /// Gives back what only closed views kept. For writers: the state must be locked exclusively, so
    /// that no view is being opened meanwhile.
    fn release(&self, keyspace: &Keyspace) -> u64 {
        let pins = self.pins().clone();
        let released = write(&keyspace.history).release(&pins);
        self.meters
            .obsolete_removed
            .fetch_add(released, Ordering::Relaxed);
        released
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
