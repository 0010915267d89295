//! Committing: a place in the log and the memtables, under the commit lock; then the record, unless it was written with
//! its place, and visibility, each commit in its turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::batch::{KIND_HAS_EXPIRY, OperationKind};
use vault_core::transform::FileKind;
use vault_core::{
    Durability, Error, KeyspaceId, Operation, Result, SequenceNumber, WriteBatch, WriteOptions,
};

use crate::counters::Operation as Counted;
use crate::internal_key::{SEQUENCE_MAX, pack};
use crate::keyspace::KeyspaceView;
use crate::log::{Reserved, Segment, SegmentSource, Start};
use crate::manifest::Edit;
use crate::memtable::Memtable;
use crate::store::{Commit, Store, lock};
use crate::sync::{self, MutexGuard};
use crate::view::{Pinned, View};
use crate::write::admission::{Patience, admit};
use crate::write::turns::{Publication, Turn};
use crate::write::validate;

/// What a commit came to.
pub(crate) struct Committed {
    /// Number of the batch's last operation.
    pub(crate) sequence: SequenceNumber,
    /// The log position behind it.
    pub(crate) log_end: u64,
}

impl Store {
    /// Writes a batch.
    pub(crate) fn write(
        self: &Arc<Self>,
        batch: &WriteBatch,
        options: &WriteOptions,
        patience: Patience,
    ) -> Result<SequenceNumber> {
        let timing = self.counters.begin(Counted::Write, &*self.env.clock);
        self.check_writable()?;
        let view = self.views.pin();
        validate::check(self, &view, batch)?;
        let committed = self.commit_admitted(view, batch, patience)?;
        self.make_durable(committed.log_end, options)?;
        self.counters.end(Counted::Write, &timing, &*self.env.clock);
        Ok(committed.sequence)
    }

    /// Writes a batch that was checked when it was first written, by this store before it was copied: what has expired since is
    /// taken all the same, and so is what is longer than callers are allowed now. Durable as the log is.
    pub(crate) fn write_again(self: &Arc<Self>, batch: &WriteBatch) -> Result<SequenceNumber> {
        self.check_writable()?;
        let view = self.views.pin();
        validate::check_keyspaces(&view, batch)?;
        let committed = self.commit_admitted(view, batch, Patience::Wait)?;
        Ok(committed.sequence)
    }

    /// Commits a checked batch, as soon as there is room for it.
    #[inline]
    fn commit_admitted(
        self: &Arc<Self>,
        view: Pinned,
        batch: &WriteBatch,
        patience: Patience,
    ) -> Result<Committed> {
        let mut admitted = admit(self, view, batch, patience)?;
        loop {
            let mut ahead = batch.iter();
            let view = admitted.checked.as_ref().map(|pinned| &***pinned);
            let commit = self.commit_beside_others(|| approach_next(view, &mut ahead))?;
            if admitted.is_outdated(self, batch) {
                // Others came in between, and memory is full again.
                drop(commit);
                // The view keeps what is waited for from being freed.
                admitted.checked = None;
                admitted = admit(self, self.views.pin(), batch, patience)?;
                continue;
            }
            return self.commit_batch(commit, batch, admitted.checked);
        }
    }

    /// Waits until the log is durable up to `end`, if the options ask for it.
    pub(crate) fn make_durable(&self, end: u64, options: &WriteOptions) -> Result<()> {
        match options.durability.unwrap_or(self.settings.durability) {
            Durability::Os => Ok(()),
            Durability::Sync => self.sync_log(end),
        }
    }

    /// Waits until the log is durable up to `end`.
    pub(crate) fn sync_log(&self, end: u64) -> Result<()> {
        self.log_sync
            .wait_for(end)
            .map_err(|error| self.poison_on(error))
    }

    /// Commits a checked batch. `checked` is the view it was checked against.
    pub(crate) fn commit_batch(
        &self,
        mut commit: MutexGuard<'_, Commit>,
        batch: &WriteBatch,
        checked: Option<Pinned>,
    ) -> Result<Committed> {
        let view = match checked {
            Some(view) if self.views.is_current(&view) => view,
            _ => {
                let view = self.views.pin();
                validate::check_keyspaces(&view, batch)?;
                view
            }
        };
        if batch.is_empty() {
            self.wait_for_all_turns(&commit);
            self.check_writable()?;
            let log_end = self.log_sync.position();
            return Ok(Committed {
                sequence: commit.last_sequence,
                log_end,
            });
        }
        let record = self.reserve(&mut commit, batch)?;
        let (sequence, appended) = (record.last, record.reserved.appended);
        insert(&view, batch, record.first, appended.segment);
        let current = &self.log_current;
        let segment_began = current.swap(appended.segment, Ordering::AcqRel) != appended.segment;
        let full = self.is_any_full(&view, batch);
        let is_on_its_way = record.turn.is_some();
        if is_on_its_way && !full && !segment_began {
            drop(commit);
            let log_end = self.write_record(record, batch)?;
            return Ok(Committed { sequence, log_end });
        }
        // What seals memtables knows nothing of turns.
        let log_end = self.write_record(record, batch)?;
        if full {
            self.seal_full(&commit, &view, batch);
        }
        if segment_began {
            self.bound_log(&commit);
            self.background.wake();
        }
        Ok(Committed { sequence, log_end })
    }

    /// Gives a batch its numbers, its place in the log and, where it is not written there at once, its turn.
    fn reserve(&self, commit: &mut Commit, batch: &WriteBatch) -> Result<Unpublished<'_>> {
        let count = u32::try_from(batch.len()).expect("a batch is limited to less than 4 GiB");
        let first = commit.last_sequence + 1;
        let last = commit.last_sequence + u64::from(count);
        check_sequence(last)?;
        if !commit.log.has_room(batch.encoded().len()) {
            // The log goes on in the next segment once all of this one is there.
            self.wait_for_all_turns(commit);
            self.check_writable()?;
        }
        let alone = self.turns.are_over(&commit.turns);
        let reserved = commit
            .log
            .reserve(self, first, count, batch.encoded(), alone)
            .map_err(|error| self.poison_if_unknown(error))?;
        commit.last_sequence = last;
        let turn = if reserved.is_written() {
            None
        } else {
            let publish = |publication| self.publish(publication);
            Some(self.turns.take(&mut commit.turns, publish))
        };
        Ok(Unpublished {
            first,
            last,
            reserved,
            turn,
        })
    }

    /// Writes a record and makes its commit visible, in its turn. Gives the log position behind it.
    fn write_record(&self, record: Unpublished<'_>, batch: &WriteBatch) -> Result<u64> {
        let Unpublished {
            last,
            reserved,
            turn,
            ..
        } = record;
        let appended = reserved.appended;
        let publish = |publication| self.publish(publication);
        let publication = Publication {
            log_end: appended.end,
            sequence: last,
        };
        match turn {
            None => publish(publication),
            Some(turn) => {
                if let Err(error) = reserved.write(batch.encoded()) {
                    // Those behind it, which find that it failed, are to say why.
                    return Err(self.poison_and(Arc::new(error), || turn.fail(publish)));
                }
                if !turn.end(publication, publish) {
                    return Err(self.poison_for_hole());
                }
            }
        }
        let batch_bytes = batch.encoded().len() as u64;
        let counters = &self.counters;
        counters
            .user_bytes
            .fetch_add(batch_bytes, Ordering::Relaxed);
        counters
            .log_bytes
            .fetch_add(appended.bytes, Ordering::Relaxed);
        Ok(appended.end)
    }

    /// Moves on how far the log reaches and what readers see. May come late, and several times: nothing goes backwards.
    #[inline]
    pub(crate) fn publish(&self, publication: Publication) {
        self.log_sync.appended(publication.log_end);
        self.visible
            .fetch_max(publication.sequence, Ordering::AcqRel);
    }

    /// Whether a memtable of the batch's keyspaces is full, or all together are.
    fn is_any_full(&self, view: &View, batch: &WriteBatch) -> bool {
        let memtable_max = self.memory.shares().memtable_max;
        self.memory.seal_is_due()
            || keyspaces_of(batch).any(|id| {
                let keyspace = view.keyspace(id);
                keyspace.is_some_and(|keyspace| is_full(keyspace, memtable_max))
            })
    }

    /// Seals the memtables of the batch's keyspaces that are full, and the largest of all where all
    /// together have too much.
    fn seal_full(&self, commit: &Commit, view: &View, batch: &WriteBatch) {
        let memtable_max = self.memory.shares().memtable_max;
        for id in keyspaces_of(batch) {
            let keyspace = view.keyspace(id);
            // Where as many wait as may, it stays until one of them is flushed: nobody writes to it until then.
            let seals = |keyspace: &Arc<KeyspaceView>| {
                let waiting = keyspace.sealed.len();
                is_full(keyspace, memtable_max) && waiting < self.memtables_waiting_max()
            };
            if keyspace.is_some_and(seals) {
                self.seal(commit, id);
            }
        }
        if self.memory.seal_is_due() {
            self.seal_largest(commit.last_sequence);
        }
    }

    /// How many memtables of a keyspace may wait for their flush.
    pub(super) fn memtables_waiting_max(&self) -> usize {
        usize::from(self.settings.memtables_waiting_max)
    }

    /// Seals the largest memtable that takes writes, if there is one that is not empty.
    pub(crate) fn seal_largest(&self, last_sequence: SequenceNumber) -> Option<KeyspaceId> {
        let view = self.views.pin();
        let written = view.keyspaces.iter().filter(|view| !view.active.is_empty());
        let largest = written.max_by_key(|view| view.active.memtable.allocated_bytes())?;
        let id = largest.keyspace.id;
        self.seal_at(id, last_sequence);
        Some(id)
    }

    /// Seals a keyspace's memtable, unless it is empty. The caller holds the commit lock.
    pub(crate) fn seal(&self, commit: &Commit, id: KeyspaceId) {
        self.seal_at(id, commit.last_sequence);
    }

    /// Seals a keyspace's memtable, unless it is empty, while `last_sequence` is the last number that was
    /// given out. The caller holds the commit lock, or is alone with the store.
    fn seal_at(&self, id: KeyspaceId, last_sequence: SequenceNumber) {
        let log_end = (
            self.log_current.load(Ordering::Acquire),
            self.log_sync.position(),
        );
        let mut sealed = false;
        self.views.update(|view| {
            let keyspace = view
                .keyspace(id)
                .filter(|keyspace| !keyspace.active.is_empty())?;
            sealed = true;
            let run = self.next_run.fetch_add(1, Ordering::Relaxed);
            Some(view.replacing(keyspace.sealing(&self.memory, run, last_sequence, log_end)))
        });
        if sealed {
            self.background.wake();
        }
    }

    /// While the log is over its size, seals the memtables that keep the segments it is to lose.
    fn bound_log(&self, commit: &Commit) {
        // The newest segments that fit the bound stay; what is unflushed in older ones must go.
        let (mut bytes, mut cutoff) = (0_u64, 0);
        for (&number, &segment_bytes) in lock(&self.log_segments).iter().rev() {
            bytes = bytes.saturating_add(segment_bytes);
            if bytes > self.memory.shares().log_bytes_max {
                cutoff = number;
                break;
            }
        }
        if cutoff == 0 {
            return;
        }
        let view = self.views.pin();
        for keyspace in &view.keyspaces {
            let first = keyspace.active.first_log.load(Ordering::Acquire);
            if first != 0 && first <= cutoff {
                self.seal(commit, keyspace.keyspace.id);
            }
        }
    }

    /// Seals whatever is in memory.
    pub(crate) fn seal_all(&self) -> Result<()> {
        self.seal_under(&*self.commit()?);
        Ok(())
    }

    /// As [`Store::seal_all`], for whoever holds the commit lock.
    pub(crate) fn seal_under(&self, commit: &Commit) {
        let view = self.views.pin();
        view.keyspaces
            .iter()
            .for_each(|keyspace| self.seal(commit, keyspace.keyspace.id));
    }
}

/// A commit that is in the memtables, and neither whole in the log nor visible yet.
struct Unpublished<'a> {
    /// Numbers of the batch's first operation and of its last.
    first: SequenceNumber,
    last: SequenceNumber,
    reserved: Reserved,
    /// `None` where the record is written.
    turn: Option<Turn<'a>>,
}

/// The keyspaces of a batch, each run of the same once.
pub(super) fn keyspaces_of(batch: &WriteBatch) -> impl Iterator<Item = KeyspaceId> {
    let mut last = None;
    let ids = batch.iter().map(|operation| operation.keyspace);
    ids.filter(move |&id| last.replace(id) != Some(id))
}

/// Whether a keyspace's memtable takes up what it may.
pub(super) fn is_full(keyspace: &KeyspaceView, memtable_max: u64) -> bool {
    let (memtable, wanted) = (
        &keyspace.active.memtable,
        keyspace.options.write_buffer_bytes,
    );
    memtable.bytes() as u64 >= wanted.min(memtable_max)
        || memtable.range_tombstone_count() >= RANGE_TOMBSTONES_MAX
}

/// Refuses to go on when all sequence numbers are used up.
pub(crate) const fn check_sequence(sequence: SequenceNumber) -> Result<()> {
    if sequence > SEQUENCE_MAX {
        let operation = "more than 2^56 writes; copy the data into a new store";
        return Err(Error::Unsupported {
            engine: "this store",
            operation,
        });
    }
    Ok(())
}

/// Range tombstones a memtable holds before it is flushed: reads cut them into fragments anew after
/// each change.
const RANGE_TOMBSTONES_MAX: usize = 1024;

/// Walks to where the next operation of a batch goes, so that less is waited for memory under the commit lock. Gives `false` where
/// there is none left.
#[inline]
fn approach_next<'a>(view: Option<&View>, ahead: &mut impl Iterator<Item = Operation<'a>>) -> bool {
    // What a model would have to look at besides: readers do the same at any time, and have models of their own.
    let Some(view) = view.filter(|_| !sync::MODELLED) else {
        return false;
    };
    let Some(operation) = ahead.next() else {
        return false;
    };
    view.keyspace(operation.keyspace)
        .is_some_and(|keyspace| keyspace.active.memtable.approach(operation.key))
}

/// Inserts the operations of a batch into the active memtables.
fn insert(view: &View, batch: &WriteBatch, first: SequenceNumber, segment: u64) {
    let mut last: Option<(KeyspaceId, &KeyspaceView)> = None;
    for (operation, sequence) in batch.iter().zip(first..) {
        let keyspace = match last {
            Some((id, keyspace)) if id == operation.keyspace => keyspace,
            _ => {
                let keyspace = view
                    .keyspace(operation.keyspace)
                    .expect("the batch was checked against this view");
                if keyspace.active.is_empty() {
                    keyspace.active.first_log.store(segment, Ordering::Release);
                }
                keyspace
            }
        };
        last = Some((operation.keyspace, keyspace));
        keyspace.active.apply(&operation, sequence);
        if !is_delete(operation.kind) {
            keyspace.keyspace.gaps.written(operation.key);
        }
    }
}

/// Whether an operation only takes away.
const fn is_delete(kind: OperationKind) -> bool {
    matches!(kind, OperationKind::Delete | OperationKind::RangeDelete)
}

/// Inserts one operation into a memtable.
#[inline]
pub(crate) fn apply(memtable: &Memtable, operation: &Operation<'_>, sequence: SequenceNumber) {
    if operation.kind == OperationKind::RangeDelete {
        if operation.key < operation.value {
            memtable.insert_range_tombstone(operation.key, operation.value, sequence);
        }
        return;
    }
    let kind = operation.kind as u8;
    match operation.expiry {
        None => memtable.insert(operation.key, pack(sequence, kind), [&[], operation.value]),
        Some(expiry) => {
            let trailer = pack(sequence, kind | KIND_HAS_EXPIRY);
            memtable.insert(
                operation.key,
                trailer,
                [&expiry.0.to_le_bytes(), operation.value],
            );
        }
    }
}

impl SegmentSource for Store {
    fn new_segment(&self, bytes: u64, after: u64) -> Result<Segment> {
        let spare = lock(&self.log_spare).take();
        // One that is too small for this batch, or that another was used before while it was being
        // made, stays unused, and goes with the log floor.
        if let Some(spare) = spare
            && spare.capacity() >= bytes
            && spare.number > after
        {
            return Ok(spare);
        }
        self.create_segment(bytes)
    }

    fn segment_begun(&self, segment: &Segment, start: &Start) {
        // All commits before it are published: none is on its way when a segment begins.
        let before = self.visible.load(Ordering::Acquire);
        self.shipping.segment_begun(segment, start, before);
    }
}

impl Store {
    /// Creates a log segment that the manifest knows.
    pub(crate) fn create_segment(&self, bytes: u64) -> Result<Segment> {
        let mut manifest = self.manifest()?;
        let number = manifest.next_file_number();
        let segment = Segment::create(&self.env, number, bytes)
            .map_err(|error| self.poison_if_unknown(error))?;
        let salt = segment.salt;
        if let Err(error) = manifest.commit(&self.env, &[Edit::AddLog { number, salt }]) {
            // Where the next opening may find it named, it has to be there.
            if !matches!(error, Error::Poisoned { .. }) {
                let _ = self.env.fs.remove(&self.env.path(FileKind::Log, number));
            }
            return Err(self.poison_if_unknown(error));
        }
        lock(&self.log_segments).insert(number, bytes);
        self.rotation.log_created(number, segment.epoch());
        Ok(segment)
    }

    /// Makes the next log segment ready, if there is none. When this returns, nobody else is about to.
    pub(crate) fn prepare_segment(&self) -> Result<bool> {
        let _turn = lock(&self.log_spare_turn);
        if self.log_current.load(Ordering::Acquire) == 0 || lock(&self.log_spare).is_some() {
            return Ok(false);
        }
        let largest = lock(&self.log_segments)
            .values()
            .copied()
            .max()
            .unwrap_or(0);
        let bytes = (largest * 2).min(self.memory.shares().log_segment_bytes);
        let segment = self.create_segment(bytes)?;
        *lock(&self.log_spare) = Some(segment);
        Ok(true)
    }
}
