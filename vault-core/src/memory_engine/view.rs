//! Views: moments of a memory engine that are held open, as snapshots and as cursors.
//!
//! A view owns everything it reads: the keyspaces of its moment (dropped ones included, for they live
//! as long as anyone holds them) and a pin, which keeps the versions that its sequence number sees.
//! Time is not part of a view: each read asks the clock what has expired.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use super::history::resolve;
use super::{Keyspace, Shared, read};
use crate::engine::{Cursor, EntryInfo, KeyspaceId, Reader, SequenceNumber, Snapshot};
use crate::error::{Error, Result};
use crate::range::KeyRange;
use crate::slice::Slice;

/// A moment of the engine.
pub(super) struct View {
    shared: Arc<Shared>,
    sequence: SequenceNumber,
    keyspaces: BTreeMap<KeyspaceId, Arc<Keyspace>>,
}

impl View {
    /// Holds the present moment, with the keyspaces that `select` picks.
    pub(super) fn open(
        shared: &Arc<Shared>,
        select: impl FnOnce(
            &BTreeMap<KeyspaceId, Arc<Keyspace>>,
        ) -> Result<BTreeMap<KeyspaceId, Arc<Keyspace>>>,
    ) -> Result<Arc<Self>> {
        // No write comes between reading the sequence number and pinning it: writers are locked out.
        let state = read(&shared.state);
        shared.check_open()?;
        let keyspaces = select(&state.keyspaces)?;
        shared.pin(state.latest);
        Ok(Arc::new(Self {
            shared: Arc::clone(shared),
            sequence: state.latest,
            keyspaces,
        }))
    }

    /// Opens a cursor on one of the view's keyspaces.
    pub(super) fn cursor(
        self: &Arc<Self>,
        keyspace: KeyspaceId,
        range: KeyRange,
    ) -> Result<Box<dyn Cursor>> {
        Ok(Box::new(MemoryCursor {
            keyspace: Arc::clone(self.keyspace(keyspace)?),
            view: Arc::clone(self),
            range,
            position: None,
        }))
    }

    fn keyspace(&self, id: KeyspaceId) -> Result<&Arc<Keyspace>> {
        self.shared.check_open()?;
        self.keyspaces
            .get(&id)
            .ok_or(Error::UnknownKeyspace { id: id.0 })
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.unpin(self.sequence);
    }
}

/// A view handed out as a snapshot.
pub(super) struct MemorySnapshot(pub(super) Arc<View>);

impl Reader for MemorySnapshot {
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Slice>> {
        let view = &self.0;
        let keyspace = view.keyspace(keyspace)?;
        let now = view.shared.clock.now();
        view.shared.get(keyspace, key, view.sequence, now)
    }

    fn entry_info(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<EntryInfo>> {
        let view = &self.0;
        view.shared
            .entry_info(view.keyspace(keyspace)?, key, view.sequence)
    }

    fn multi_get(&self, keyspace: KeyspaceId, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        let view = &self.0;
        let keyspace = view.keyspace(keyspace)?;
        let now = view.shared.clock.now();
        keys.iter()
            .map(|key| view.shared.get(keyspace, key, view.sequence, now))
            .collect()
    }

    fn cursor(&self, keyspace: KeyspaceId, range: KeyRange) -> Result<Box<dyn Cursor>> {
        self.0.cursor(keyspace, range)
    }
}

impl Snapshot for MemorySnapshot {
    fn sequence(&self) -> SequenceNumber {
        self.0.sequence
    }
}

impl fmt::Debug for MemorySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySnapshot")
            .field("sequence", &self.0.sequence)
            .finish_non_exhaustive()
    }
}

/// A cursor: a view, a range and the entry it stands on. Each move looks the next key up anew, so no
/// lock is held between moves.
struct MemoryCursor {
    view: Arc<View>,
    keyspace: Arc<Keyspace>,
    range: KeyRange,
    position: Option<(Vec<u8>, Slice)>,
}

#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Back,
}

impl MemoryCursor {
    /// As [`MemoryCursor::move_to`], counted and timed as a seek.
    fn position_at(&mut self, range: &KeyRange, direction: Direction) -> Result<()> {
        let shared = Arc::clone(&self.view.shared);
        shared
            .meters
            .seek
            .time(&*shared.clock, || self.move_to(range, direction))
    }

    /// Moves to the visible entry of `range` that lies first in the given direction.
    fn move_to(&mut self, range: &KeyRange, direction: Direction) -> Result<()> {
        self.position = None;
        let shared = &self.view.shared;
        shared.check_open()?;
        let now = shared.clock.now();
        let history = read(&self.keyspace.history);
        let mut entries = history.range(range);
        loop {
            let entry = match direction {
                Direction::Forward => entries.next(),
                Direction::Back => entries.next_back(),
            };
            let Some((key, versions)) = entry else {
                return Ok(());
            };
            let operator = self.keyspace.operator.as_deref();
            if let Some(value) = resolve(key, versions, self.view.sequence, now, operator)? {
                self.position = Some((key.clone(), value));
                return Ok(());
            }
        }
    }

    /// The part of the cursor's range at or behind `start`, which must not lie before it.
    fn range_from(&self, start: Bound<Vec<u8>>) -> KeyRange {
        KeyRange {
            start,
            end: self.range.end.clone(),
        }
    }

    /// The part of the cursor's range at or before `end`, which must not lie behind it.
    fn range_to(&self, end: Bound<Vec<u8>>) -> KeyRange {
        KeyRange {
            start: self.range.start.clone(),
            end,
        }
    }
}

impl Cursor for MemoryCursor {
    fn first(&mut self) -> Result<()> {
        let range = self.range.clone();
        self.position_at(&range, Direction::Forward)
    }

    fn last(&mut self) -> Result<()> {
        let range = self.range.clone();
        self.position_at(&range, Direction::Back)
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let range = if self.range.is_after_start(key) {
            self.range_from(Bound::Included(key.to_vec()))
        } else {
            self.range.clone()
        };
        self.position_at(&range, Direction::Forward)
    }

    fn seek_back(&mut self, key: &[u8]) -> Result<()> {
        let range = if self.range.is_before_end(key) {
            self.range_to(Bound::Included(key.to_vec()))
        } else {
            self.range.clone()
        };
        self.position_at(&range, Direction::Back)
    }

    fn next(&mut self) -> Result<()> {
        match self.position.take() {
            Some((key, _)) => {
                let range = self.range_from(Bound::Excluded(key));
                self.move_to(&range, Direction::Forward)
            }
            None => self.view.shared.check_open(),
        }
    }

    fn prev(&mut self) -> Result<()> {
        match self.position.take() {
            Some((key, _)) => {
                let range = self.range_to(Bound::Excluded(key));
                self.move_to(&range, Direction::Back)
            }
            None => self.view.shared.check_open(),
        }
    }

    fn entry(&self) -> Option<(&[u8], &[u8])> {
        let (key, value) = self.position.as_ref()?;
        Some((key, value))
    }

    fn value(&self) -> Slice {
        self.position
            .as_ref()
            .map_or_else(Slice::empty, |(_, value)| value.clone())
    }

    fn fork(&self) -> Result<Box<dyn Cursor>> {
        self.view.shared.check_open()?;
        Ok(Box::new(Self {
            view: Arc::clone(&self.view),
            keyspace: Arc::clone(&self.keyspace),
            range: self.range.clone(),
            position: None,
        }))
    }
}
