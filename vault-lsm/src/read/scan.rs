//! Scans: a cursor over what a reader sees of a range.
//!
//! Underneath is the merge of all versions of all keys. Going forward, the cursor *stands on* the
//! merge where the visible version is a plain put, and borrows key and value from it; the other
//! versions are skipped with the next move. Going backward, versions come oldest first: those of one key are
//! gathered, then decided newest first, and the merge stands on the key before.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use vault_core::batch::OperationKind;
use vault_core::{Cursor, Error, KeyRange, Result, SequenceNumber, Slice};

use crate::blob::Pointer;
use crate::cursor::InternalCursor;
use crate::internal_key::{has_expiry, is_apart, kind_of, seek_trailer, sequence_of};
use crate::keyspace::KeyspaceView;
use crate::memory::Lease;
use crate::read::deleted::Deleted;
use crate::read::get::{malformed_entry, value_apart};
use crate::read::level::{Purpose, RunCursor};
use crate::read::merge::{MergeCursor, Source};
use crate::read::visible::Resolver;
use crate::store::Store;
use crate::tombstones::Fragments;

/// Versions of one key that are stepped over before the cursor seeks behind them.
const STEPS_BEFORE_SEEK: usize = 8;
/// A value that a cursor stands on is counted from this length on.
const COUNTED_BYTES_MIN: u64 = 4 << 10;
/// Versions of one key that are gathered, going backward.
const VERSIONS_GATHERED_MAX: usize = 1024;
/// What a source keeps for the key it stands on, mostly.
const KEY_BYTES: usize = 64;

/// A cursor over what a reader at one sequence number sees of a range.
pub(crate) struct ScanCursor {
    store: Arc<Store>,
    view: Arc<KeyspaceView>,
    snapshot: SequenceNumber,
    range: KeyRange,
    merge: MergeCursor,
    tombstones: Vec<Arc<Fragments>>,
    place: Place,
    /// The key the cursor stands on, or stood on last.
    key: Vec<u8>,
    value: Slice,
    /// What was stepped over since the cursor stood on an entry.
    deleted: Deleted,
    lease: Arc<Lease>,
    /// Bytes of `value` that are counted under the lease: those of one that is kept apart, in a block of its own.
    counted: u64,
    /// Keeps what the cursor must outlive: a registered snapshot, where it reads through one.
    held: Option<Arc<dyn Send + Sync>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On no entry.
    Nowhere,
    /// On the entry of the merge, which goes forward.
    OnMerge,
    /// On `key` and `value`; the merge goes forward and stands behind the visible version.
    ForwardOwned,
    /// On `key` and `value`; the merge goes backward and stands on an entry of a key before.
    BackwardOwned,
}

impl ScanCursor {
    pub(crate) fn new(
        store: Arc<Store>,
        view: Arc<KeyspaceView>,
        snapshot: SequenceNumber,
        range: KeyRange,
        held: Option<Arc<dyn Send + Sync>>,
    ) -> Result<Self> {
        let runs = view.version.runs().count();
        let sources = view.buffers().count() + runs;
        let lease = Lease::reader(&store.memory, sources, size_of::<Source>() + KEY_BYTES)?;
        let lease = Arc::new(lease);
        store.cursor_opened();
        let mut sources = Vec::with_capacity(sources);
        let mut tombstones = Vec::new();
        for buffer in view.buffers().filter(|buffer| !buffer.is_empty()) {
            sources.push(Source::Memtable(Box::new(buffer.memtable.cursor())));
            tombstones.extend(buffer.memtable.range_tombstones());
        }
        for run in view.version.runs() {
            let span = run.overlapping_span(&range);
            if !span.is_empty() {
                tombstones.extend(run.tombstones(&span).cloned());
                let cursor = RunCursor::new(Arc::clone(run), span, Purpose::Read);
                sources.push(Source::Run(cursor.leased(&lease)));
            }
        }
        Ok(Self {
            store,
            view,
            snapshot,
            range,
            merge: MergeCursor::new(sources).leased(Arc::clone(&lease)),
            lease,
            counted: 0,
            tombstones,
            place: Place::Nowhere,
            key: Vec::new(),
            value: Slice::empty(),
            deleted: Deleted::default(),
            held,
        })
    }

    fn covering(&self, key: &[u8]) -> SequenceNumber {
        let cover = |fragments: &Arc<Fragments>| fragments.covering(key, self.snapshot);
        self.tombstones.iter().filter_map(cover).max().unwrap_or(0)
    }

    /// From where the merge stands, goes forward to the next key the reader sees something of.
    fn settle_forward(&mut self) -> Result<()> {
        self.place = Place::Nowhere;
        self.deleted.begin_anew();
        self.go_on_forward()?;
        self.leave_word(true);
        Ok(())
    }

    fn go_on_forward(&mut self) -> Result<()> {
        while self.merge.valid() {
            if !self.range.is_before_end(self.merge.key()) {
                return Ok(());
            }
            let trailer = self.merge.trailer();
            if sequence_of(trailer) > self.snapshot {
                self.merge.next()?;
                continue;
            }
            self.key.clear();
            self.key.extend_from_slice(self.merge.key());
            let covering = if self.tombstones.is_empty() {
                0
            } else {
                self.covering(&self.key)
            };
            let is_put = kind_of(trailer) == Some(OperationKind::Put);
            let is_hidden = covering > sequence_of(trailer);
            if is_put && !has_expiry(trailer) && !is_apart(trailer) && !is_hidden {
                self.place = Place::OnMerge;
                return Ok(());
            }
            if is_hidden || kind_of(trailer) == Some(OperationKind::Delete) {
                self.pass_deleted_forward(is_hidden)?;
                continue;
            }
            if let Some(value) = self.resolve_forward(covering)? {
                self.hold(value);
                self.place = Place::ForwardOwned;
                return Ok(());
            }
            // Expired, mostly: gone by the clock.
            self.leave_word(true);
            self.skip_key()?;
        }
        Ok(())
    }

    /// From `self.key`, which was deleted, by a range delete if `is_hidden` says so: as far ahead as is known to be deleted too.
    fn pass_deleted_forward(&mut self, is_hidden: bool) -> Result<()> {
        self.deleted.add(&self.key);
        if self.deleted.may_pass() {
            let gaps = &self.view.keyspace.gaps;
            if gaps.end_of(&self.key, self.snapshot, self.deleted.passed_to()) {
                self.deleted.passed_to_end();
                return self.merge.seek(self.deleted.last(), u64::MAX);
            }
            if is_hidden && let Some((sequence, _, end)) = self.covering_stretch(&self.key) {
                let end = end.to_vec();
                self.merge.pass_hidden_forward(sequence, &end)?;
            }
        }
        self.skip_key()
    }

    /// The newest range delete over the key that the reader sees, with the stretch of keys for which nothing changes about that.
    fn covering_stretch(&self, key: &[u8]) -> Option<(SequenceNumber, &[u8], &[u8])> {
        let tombstones = self.tombstones.iter();
        tombstones
            .filter_map(|fragments| fragments.covering_stretch(key, self.snapshot))
            .max_by_key(|stretch| stretch.0)
    }

    /// Leaves word of the deleted keys that were stepped over, going forward or backward.
    fn leave_word(&mut self, forward: bool) {
        if self.deleted.is_worth_leaving() {
            let at = (&*self.store, &*self.view, self.snapshot);
            self.deleted.leave_word(at, forward);
        }
        self.deleted.begin_anew();
    }

    /// Takes the value that the cursor stands on from now on.
    fn hold(&mut self, value: Slice) {
        let bytes = value.len() as u64;
        let counted = if bytes >= COUNTED_BYTES_MIN { bytes } else { 0 };
        if counted != self.counted {
            self.lease.change(self.counted, counted);
            self.counted = counted;
        }
        self.value = value;
    }

    /// Reads a value that is kept apart, if there is room to stand on it.
    fn value_apart(&self, pointer: &Pointer) -> Result<Slice> {
        self.lease.check_room(u64::from(pointer.raw))?;
        value_apart(&self.view, &self.key, pointer)
    }

    /// Decides `self.key` from the merge, which stands on its newest visible version.
    fn resolve_forward(&mut self, covering: SequenceNumber) -> Result<Option<Slice>> {
        let (clock, operator) = (
            &*self.store.env.clock,
            self.view.keyspace.operator.as_deref(),
        );
        let mut resolver = Resolver::new(&self.key, self.snapshot, clock, operator);
        resolver.hide_below(covering);
        while self.merge.valid() && self.merge.key() == self.key.as_slice() {
            let merge = &self.merge;
            let whole = |skip: usize| value_behind(&merge.value_slice(), skip);
            match resolver.offer(merge.trailer(), merge.value(), whole) {
                Ok(ControlFlow::Break(())) => break,
                Ok(ControlFlow::Continue(())) => self.merge.next()?,
                Err(_) => return Err(malformed_entry(&self.view)),
            }
        }
        let found = resolver.finish(|pointer| self.value_apart(pointer));
        found.map_err(|error| self.view.keyspace.discreet(error))
    }

    /// Moves the merge forward behind all versions of `self.key`.
    fn skip_key(&mut self) -> Result<()> {
        for _ in 0..STEPS_BEFORE_SEEK {
            if !self.merge.valid() || self.merge.key() != self.key.as_slice() {
                return Ok(());
            }
            self.merge.next()?;
        }
        if self.merge.valid() && self.merge.key() == self.key.as_slice() {
            self.merge.seek(&self.key, 0)?;
        }
        Ok(())
    }

    /// From where the merge stands, goes backward to the next key the reader sees something of.
    fn settle_backward(&mut self) -> Result<()> {
        self.place = Place::Nowhere;
        self.deleted.begin_anew();
        self.go_on_backward()?;
        self.leave_word(false);
        Ok(())
    }

    fn go_on_backward(&mut self) -> Result<()> {
        let mut versions: Vec<(u64, Slice)> = Vec::new();
        while self.merge.valid() {
            if !self.range.is_after_start(self.merge.key()) {
                return Ok(());
            }
            self.key.clear();
            self.key.extend_from_slice(self.merge.key());
            versions.clear();
            let mut many = false;
            while self.merge.valid() && self.merge.key() == self.key.as_slice() {
                let trailer = self.merge.trailer();
                if sequence_of(trailer) <= self.snapshot {
                    // Anything but an operand hides what is older, and that came before.
                    if kind_of(trailer) != Some(OperationKind::Merge) {
                        versions.clear();
                    }
                    many |= versions.len() >= VERSIONS_GATHERED_MAX;
                    if !many {
                        versions.push((trailer, self.merge.value_slice()));
                    }
                }
                self.merge.prev()?;
            }
            let value = if many {
                self.resolve_many()?
            } else {
                self.resolve_gathered(&versions)?
            };
            if let Some(value) = value {
                self.hold(value);
                self.place = Place::BackwardOwned;
                return Ok(());
            }
            if many {
                self.leave_word(false);
            } else {
                self.pass_deleted_backward(&versions)?;
            }
        }
        Ok(())
    }

    /// From `self.key`, of which nothing is seen among these versions, and before which the merge stands: as far back as is known
    /// to be deleted too.
    fn pass_deleted_backward(&mut self, versions: &[(u64, Slice)]) -> Result<()> {
        let covering = if self.tombstones.is_empty() {
            0
        } else {
            self.covering(&self.key)
        };
        let Some(&(newest, _)) = versions.last() else {
            // Everything there is of it is newer than the reader.
            self.leave_word(false);
            return Ok(());
        };
        let is_hidden = covering > sequence_of(newest);
        if !is_hidden && kind_of(newest) != Some(OperationKind::Delete) {
            self.leave_word(false);
            return Ok(());
        }
        self.deleted.add(&self.key);
        if !self.deleted.may_pass() {
            return Ok(());
        }
        let gaps = &self.view.keyspace.gaps;
        if gaps.first_of(&self.key, self.snapshot, self.deleted.passed_to()) {
            return self.merge.seek_back(self.deleted.last(), u64::MAX);
        }
        if is_hidden
            && self.merge.valid()
            && let Some((sequence, start, _)) = self.covering_stretch(&self.key)
        {
            let start = start.to_vec();
            self.merge.pass_hidden_backward(sequence, &start)?;
        }
        Ok(())
    }

    /// Decides `self.key` from its versions, given oldest first.
    fn resolve_gathered(&self, versions: &[(u64, Slice)]) -> Result<Option<Slice>> {
        let (clock, operator) = (
            &*self.store.env.clock,
            self.view.keyspace.operator.as_deref(),
        );
        let mut resolver = Resolver::new(&self.key, self.snapshot, clock, operator);
        if !self.tombstones.is_empty() {
            resolver.hide_below(self.covering(&self.key));
        }
        for (trailer, stored) in versions.iter().rev() {
            match resolver.offer(*trailer, stored, |skip| value_behind(stored, skip)) {
                Ok(ControlFlow::Break(())) => break,
                Ok(ControlFlow::Continue(())) => {}
                Err(_) => return Err(malformed_entry(&self.view)),
            }
        }
        let found = resolver.finish(|pointer| self.value_apart(pointer));
        found.map_err(|error| self.view.keyspace.discreet(error))
    }

    /// Decides `self.key`, of which there are too many versions to gather, as going forward would; the
    /// merge then stands on the key before again.
    fn resolve_many(&mut self) -> Result<Option<Slice>> {
        self.merge.seek(&self.key, seek_trailer(self.snapshot))?;
        let value = self.resolve_forward(self.covering(&self.key))?;
        self.merge.seek_back(&self.key, u64::MAX)?;
        Ok(value)
    }

    /// Runs a move: refuses it on a closed or locked store, and unpositions the cursor where it fails.
    fn moving(&mut self, go: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let outcome = self.store.check_open().and_then(|()| go(self));
        outcome.map_err(|error| {
            self.place = Place::Nowhere;
            if let Error::Locked = error {
                self.forget();
            }
            self.store.told(error)
        })
    }

    /// Lets go of what was decoded: a cursor is in its owner's hands, where a lock does not reach it.
    #[cold]
    fn forget(&mut self) {
        self.merge.forget();
        self.key = Vec::new();
        self.hold(Slice::empty());
        self.deleted = Deleted::default();
    }

    fn go_to_first(&mut self) -> Result<()> {
        match &self.range.start {
            Bound::Included(start) => self.merge.seek(start, u64::MAX)?,
            Bound::Excluded(start) => self.merge.seek(start, 0)?,
            Bound::Unbounded => self.merge.first()?,
        }
        self.settle_forward()
    }

    fn go_to_last(&mut self) -> Result<()> {
        match &self.range.end {
            Bound::Included(end) => self.merge.seek_back(end, 0)?,
            Bound::Excluded(end) => self.merge.seek_back(end, u64::MAX)?,
            Bound::Unbounded => self.merge.last()?,
        }
        self.settle_backward()
    }
}

/// The stored value without the expiry in front of it.
fn value_behind(stored: &Slice, skip: usize) -> Slice {
    if skip == 0 {
        stored.clone()
    } else {
        Slice::from(&stored[skip..])
    }
}

impl Cursor for ScanCursor {
    fn first(&mut self) -> Result<()> {
        self.moving(Self::go_to_first)
    }

    fn last(&mut self) -> Result<()> {
        self.moving(Self::go_to_last)
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.moving(|cursor| {
            if !cursor.range.is_after_start(key) {
                return cursor.go_to_first();
            }
            cursor.merge.seek(key, seek_trailer(cursor.snapshot))?;
            cursor.settle_forward()
        })
    }

    fn seek_back(&mut self, key: &[u8]) -> Result<()> {
        self.moving(|cursor| {
            if !cursor.range.is_before_end(key) {
                return cursor.go_to_last();
            }
            cursor.merge.seek_back(key, 0)?;
            cursor.settle_backward()
        })
    }

    fn next(&mut self) -> Result<()> {
        self.moving(|cursor| {
            match cursor.place {
                Place::Nowhere => return Ok(()),
                Place::OnMerge => {
                    cursor.merge.next()?;
                    cursor.skip_key()?;
                }
                Place::ForwardOwned => cursor.skip_key()?,
                Place::BackwardOwned => cursor.merge.seek(&cursor.key, 0)?,
            }
            cursor.settle_forward()
        })
    }

    fn prev(&mut self) -> Result<()> {
        self.moving(|cursor| {
            match cursor.place {
                Place::Nowhere => return Ok(()),
                Place::OnMerge | Place::ForwardOwned => {
                    cursor.merge.seek_back(&cursor.key, u64::MAX)?;
                }
                Place::BackwardOwned => {}
            }
            cursor.settle_backward()
        })
    }

    fn entry(&self) -> Option<(&[u8], &[u8])> {
        match self.place {
            Place::Nowhere => None,
            Place::OnMerge => Some((self.merge.key(), self.merge.value())),
            Place::ForwardOwned | Place::BackwardOwned => Some((&self.key, &self.value)),
        }
    }

    fn value(&self) -> Slice {
        match self.place {
            Place::Nowhere => Slice::empty(),
            Place::OnMerge => self.merge.value_slice(),
            Place::ForwardOwned | Place::BackwardOwned => self.value.clone(),
        }
    }

    fn fork(&self) -> Result<Box<dyn Cursor>> {
        self.store.check_open()?;
        Ok(Box::new(Self::new(
            Arc::clone(&self.store),
            Arc::clone(&self.view),
            self.snapshot,
            self.range.clone(),
            self.held.clone(),
        )?))
    }
}

impl Drop for ScanCursor {
    fn drop(&mut self) {
        self.store.cursor_closed();
    }
}
