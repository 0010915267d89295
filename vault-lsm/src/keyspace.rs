//! A keyspace: what it is, and what a view holds of it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use vault_core::batch::OperationKind;
use vault_core::{
    Error, KeyspaceId, KeyspaceOptions, MergeOperator, Operation, SequenceNumber, Timestamp,
};
use vault_snapshot::policy::Planner;

use crate::gaps::Gaps;
use crate::memory::{Memory, MemtableAccount};
use crate::memtable::Memtable;
use crate::read::presence::Presence;
use crate::store::unknown_keyspace;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use crate::sync::{Mutex, MutexGuard, thread_number};
use crate::version::Version;
use crate::write::commit::apply;

/// What stays the same about a keyspace, and what is shared by all views of it.
pub(crate) struct Keyspace {
    pub(crate) id: KeyspaceId,
    pub(crate) name: String,
    pub(crate) operator: Option<Arc<dyn MergeOperator>>,
    /// Whether no key or value of it may stand in a message.
    confidential: bool,
    /// Set when the keyspace is dropped: background work on it ends.
    pub(crate) dropped: AtomicBool,
    /// Whether a memtable of it is being flushed right now. One at a time, oldest first.
    pub(crate) flushing: AtomicBool,
    /// Whether its shape changed since the planner last found nothing to do.
    pub(crate) shape_changed: AtomicBool,
    /// The caller that is compacting it, by the number of its thread and one; 0 where nobody is. Other callers wait, background
    /// compactions hold back. Changed from 0 while the set of busy tables is locked, and looked at under the same lock by whoever
    /// else claims tables.
    manual_compaction: AtomicU64,
    /// Whether lookups find what they look for.
    pub(crate) presence: Presence,
    /// Keeps failing compactions from being tried again at once.
    pub(crate) backoff: Backoff,
    busy: Mutex<BTreeSet<u64>>,
    /// Stretches of keys that are known to be deleted.
    pub(crate) gaps: Gaps,
}

impl Keyspace {
    pub(crate) fn new(
        id: KeyspaceId,
        name: String,
        operator: Option<Arc<dyn MergeOperator>>,
        confidential: bool,
    ) -> Self {
        Self {
            id,
            name,
            operator,
            confidential,
            dropped: AtomicBool::new(false),
            flushing: AtomicBool::new(false),
            shape_changed: AtomicBool::new(true),
            manual_compaction: AtomicU64::new(0),
            presence: Presence::default(),
            backoff: Backoff::default(),
            busy: Mutex::default(),
            gaps: Gaps::default(),
        }
    }

    /// The tables that a compaction is working on.
    pub(crate) fn busy(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a caller is compacting it.
    pub(crate) fn is_compacted_by_hand(&self) -> bool {
        self.manual_compaction.load(Ordering::Acquire) != 0
    }

    /// Makes the calling thread the one that compacts it, if nobody does.
    pub(crate) fn begin_manual_compaction(&self) -> ManualTurn {
        let own = thread_number() as u64 + 1;
        // Under this lock nobody claims tables: what was claimed before is seen to be busy, what comes sees the mark.
        let _busy = self.busy();
        match self.manual_compaction.load(Ordering::Acquire) {
            0 => {
                self.manual_compaction.store(own, Ordering::Release);
                ManualTurn::Begun
            }
            other if other == own => ManualTurn::WithinItself,
            _ => ManualTurn::OthersAtIt,
        }
    }

    pub(crate) fn end_manual_compaction(&self) {
        self.manual_compaction.store(0, Ordering::Release);
    }

    /// An error as it may be told.
    pub(crate) fn discreet(&self, error: Error) -> Error {
        if self.confidential {
            error.withholding_content()
        } else {
            error
        }
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    /// The error of work on it. A drop that came meanwhile destroys its keys, under which nothing can be written any more:
    /// what is wrong then is not the keyring.
    pub(crate) fn unless_dropped(&self, error: Error) -> Error {
        match error {
            Error::UnacceptableKeyring { .. } if self.is_dropped() => unknown_keyspace(self.id),
            other => other,
        }
    }
}

/// What came of asking for one's turn to compact a keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ManualTurn {
    /// It is this thread's from here on.
    Begun,
    /// Another caller compacts.
    OthersAtIt,
    /// This very thread does, and was called back by its own compaction.
    WithinItself,
}

/// How long to leave something alone that fails: twice as long each time, up to a bound.
#[derive(Default)]
pub(crate) struct Backoff {
    failures: AtomicU32,
    until_ms: AtomicU64,
}

impl Backoff {
    const FIRST_MS: u64 = 200;
    const MAX_MS: u64 = 30_000;

    /// Whether it may be tried again.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        now.as_millis() >= u128::from(self.until_ms.load(Ordering::Relaxed))
    }

    /// It worked, or somebody asks for it to be tried now.
    pub(crate) fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.until_ms.store(0, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, now: Duration) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(16);
        let wait = (Self::FIRST_MS << failures).min(Self::MAX_MS);
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.until_ms
            .store(now.saturating_add(wait), Ordering::Relaxed);
    }
}

/// A memtable with what the engine must know of it.
pub(crate) struct WriteBuffer {
    pub(crate) memtable: Arc<Memtable>,
    /// The log segment of its first write; 0 while it is empty.
    pub(crate) first_log: AtomicU64,
    /// Its place among the runs of level 0, given when it is sealed; 0 before.
    pub(crate) run: AtomicU64,
    /// The last sequence number given out when it was sealed.
    pub(crate) last_sequence: AtomicU64,
    /// The log position when it was sealed.
    pub(crate) log_end: AtomicU64,
    /// The log segment in which that position lies; 0: none.
    pub(crate) last_log: AtomicU64,
    /// Deletes of single keys in it.
    deletes: AtomicU64,
    /// The moment, in milliseconds, at which all of it will have expired; `u64::MAX`: never.
    expires: AtomicU64,
}

impl WriteBuffer {
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        let account = MemtableAccount::new(Arc::clone(memory));
        Self {
            memtable: Arc::new(Memtable::new(account)),
            first_log: AtomicU64::new(0),
            run: AtomicU64::new(0),
            last_sequence: AtomicU64::new(0),
            log_end: AtomicU64::new(0),
            last_log: AtomicU64::new(0),
            deletes: AtomicU64::new(0),
            expires: AtomicU64::new(0),
        }
    }

    /// Inserts one operation. The caller holds the commit lock, or is alone with the store.
    #[inline]
    pub(crate) fn apply(&self, operation: &Operation<'_>, sequence: SequenceNumber) {
        apply(&self.memtable, operation, sequence);
        // One writer at a time: nothing is lost between the look and the change.
        if operation.kind == OperationKind::Delete {
            let deletes = self.deletes.load(Ordering::Relaxed) + 1;
            self.deletes.store(deletes, Ordering::Relaxed);
        }
        let expires = operation.expiry.map_or(u64::MAX, |expiry| expiry.0);
        if expires > self.expires.load(Ordering::Relaxed) {
            self.expires.store(expires, Ordering::Relaxed);
        }
    }

    /// Whether flushing it is sure to free more than it writes, in a keyspace that has so many entries in tables: it holds
    /// deletes that count there, or has expired whole.
    pub(crate) fn is_worth_flushing(&self, now: Timestamp, entries_in_tables: u64) -> bool {
        let deletes = self.deletes.load(Ordering::Relaxed);
        let expires = self.expires.load(Ordering::Relaxed);
        !self.is_empty()
            && (self.memtable.range_tombstone_count() > 0
                || deletes * DELETES_SHARE > entries_in_tables + self.memtable.entries()
                || expires <= now.0)
    }

    /// Whether nothing was ever written to it.
    pub(crate) fn is_empty(&self) -> bool {
        self.first_log.load(Ordering::Acquire) == 0
    }
}

/// One in so many of a keyspace's entries: as many deletes are worth a flush of their own.
const DELETES_SHARE: u64 = 32;

/// What a view holds of a keyspace.
#[derive(Clone)]
pub(crate) struct KeyspaceView {
    pub(crate) keyspace: Arc<Keyspace>,
    pub(crate) options: Arc<KeyspaceOptions>,
    pub(crate) planner: Arc<dyn Planner>,
    /// Takes writes.
    pub(crate) active: Arc<WriteBuffer>,
    /// Waiting to be flushed, newest first.
    pub(crate) sealed: Vec<Arc<WriteBuffer>>,
    pub(crate) version: Arc<Version>,
}

impl KeyspaceView {
    /// The memtables, newest first.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = &Arc<WriteBuffer>> {
        std::iter::once(&self.active).chain(&self.sealed)
    }

    /// This view for somebody who is interested in its tables only, for a long time maybe: it does not
    /// keep memtables that have been flushed meanwhile from being freed.
    pub(crate) fn without_memtables(&self, memory: &Arc<Memory>) -> Self {
        Self {
            active: Arc::new(WriteBuffer::new(memory)),
            sealed: Vec::new(),
            ..self.clone()
        }
    }

    /// This view with its active memtable sealed and an empty one in its place.
    pub(crate) fn sealing(
        &self,
        memory: &Arc<Memory>,
        run: u64,
        last_sequence: SequenceNumber,
        (last_log, log_end): (u64, u64),
    ) -> Self {
        self.active.run.store(run, Ordering::Release);
        self.active
            .last_sequence
            .store(last_sequence, Ordering::Release);
        self.active.log_end.store(log_end, Ordering::Release);
        self.active.last_log.store(last_log, Ordering::Release);
        self.active.memtable.seal();
        let mut next = self.clone();
        let fresh = Arc::new(WriteBuffer::new(memory));
        let sealed = std::mem::replace(&mut next.active, fresh);
        next.sealed.insert(0, sealed);
        next
    }
}
