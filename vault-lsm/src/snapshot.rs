//! Snapshots: a moment of the store, held for as long as somebody wants to read it.
//!
//! A snapshot is a sequence number in a registry. Compactions ask the registry which moments somebody
//! may still read, and keep what those need. Keyspaces that are dropped meanwhile are handed to the
//! snapshots that were taken before.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vault_core::{
    Cursor, EntryInfo, KeyRange, KeyspaceId, Reader, Result, SequenceNumber, Slice, Snapshot,
};

use crate::counters::Operation;
use crate::keyspace::KeyspaceView;
use crate::read::get;
use crate::read::scan::ScanCursor;
use crate::store::{Store, lock, unknown_keyspace};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU64;

/// The moments that somebody holds.
#[derive(Default)]
pub(crate) struct SnapshotRegistry {
    state: Mutex<Registered>,
}

#[derive(Default)]
struct Registered {
    next: u64,
    snapshots: BTreeMap<u64, Entry>,
}

struct Entry {
    sequence: SequenceNumber,
    opened: Duration,
    /// Keyspaces that were dropped since.
    dropped: Vec<Arc<KeyspaceView>>,
}

/// A snapshot as reports name it.
pub(crate) struct OpenSnapshot {
    pub(crate) sequence: SequenceNumber,
    pub(crate) opened: Duration,
}

impl SnapshotRegistry {
    /// Registers the moment that `visible` shows. Read under the registry's lock, so that a compaction
    /// that asks for the moments afterwards either sees this one or began with everything up to it
    /// visible.
    pub(crate) fn register(&self, visible: &AtomicU64, opened: Duration) -> (u64, SequenceNumber) {
        let mut state = lock(&self.state);
        let sequence = visible.load(Ordering::Acquire);
        let id = state.next;
        state.next += 1;
        state.snapshots.insert(
            id,
            Entry {
                sequence,
                opened,
                dropped: Vec::new(),
            },
        );
        (id, sequence)
    }

    pub(crate) fn release(&self, id: u64) {
        let entry = lock(&self.state).snapshots.remove(&id);
        // Outside the lock: this may be what kept a dropped keyspace's files.
        drop(entry);
    }

    /// The moments somebody holds, ascending, each once.
    pub(crate) fn sequences(&self) -> Vec<SequenceNumber> {
        let state = lock(&self.state);
        let mut sequences: Vec<_> = state
            .snapshots
            .values()
            .map(|entry| entry.sequence)
            .collect();
        drop(state);
        sequences.sort_unstable();
        sequences.dedup();
        sequences
    }

    /// The moments that a reader may still ask for: those that somebody holds, and what is visible now,
    /// which is the oldest that anybody can come to hold from here on. Ascending.
    ///
    /// The last one matters while a view shows what is not visible yet: an ingest publishes its tables
    /// first and its sequence number then. A merge that takes these tables in must keep what they hide
    /// for a snapshot that is opened in between.
    pub(crate) fn readers(&self, visible: &AtomicU64) -> Vec<SequenceNumber> {
        // Read first: should a snapshot be registered next, at this moment or a later one, it does no harm
        // to know of it as well.
        let now = visible.load(Ordering::Acquire);
        let mut sequences = self.sequences();
        let at = sequences.partition_point(|&sequence| sequence < now);
        if sequences.get(at) != Some(&now) {
            sequences.insert(at, now);
        }
        sequences
    }

    /// Every open snapshot, oldest first.
    pub(crate) fn open(&self) -> Vec<OpenSnapshot> {
        let state = lock(&self.state);
        let describe = |entry: &Entry| OpenSnapshot {
            sequence: entry.sequence,
            opened: entry.opened,
        };
        state.snapshots.values().map(describe).collect()
    }

    /// Hands a keyspace that is being dropped to every open snapshot. `publish` takes it out of the view:
    /// no snapshot is taken, and none looks for the keyspace here, in between.
    pub(crate) fn keep_dropped(&self, view: &Arc<KeyspaceView>, publish: impl FnOnce()) {
        let mut state = lock(&self.state);
        for entry in state.snapshots.values_mut() {
            entry.dropped.push(Arc::clone(view));
        }
        publish();
    }

    /// Has the keyspaces that are kept for snapshots taken as `change` makes them.
    pub(crate) fn change_dropped(&self, change: impl Fn(&KeyspaceView) -> KeyspaceView) {
        let mut state = lock(&self.state);
        let dropped = state.snapshots.values_mut().flat_map(|e| &mut e.dropped);
        let old: Vec<_> = dropped
            .map(|view| {
                let changed = Arc::new(change(view));
                std::mem::replace(view, changed)
            })
            .collect();
        drop(state);
        // Outside the lock: tables may go with them.
        drop(old);
    }

    fn dropped(&self, snapshot: u64, keyspace: KeyspaceId) -> Option<Arc<KeyspaceView>> {
        let state = lock(&self.state);
        let entry = state.snapshots.get(&snapshot)?;
        entry
            .dropped
            .iter()
            .find(|view| view.keyspace.id == keyspace)
            .cloned()
    }
}

/// A snapshot of an LSM store.
pub(crate) struct LsmSnapshot {
    held: Arc<Held>,
}

/// Keeps a moment registered.
struct Held {
    store: Arc<Store>,
    id: u64,
    sequence: SequenceNumber,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.store.snapshots.release(self.id);
        // What it kept may be freed now.
        self.store.background.shapes_changed(&self.store);
    }
}

impl LsmSnapshot {
    pub(crate) fn take(store: &Arc<Store>) -> Result<Self> {
        store.check_open()?;
        let opened = store.env.clock.monotonic();
        let (id, sequence) = store.snapshots.register(&store.visible, opened);
        Ok(Self {
            held: Arc::new(Held {
                store: Arc::clone(store),
                id,
                sequence,
            }),
        })
    }

    fn view(&self, keyspace: KeyspaceId) -> Result<Arc<KeyspaceView>> {
        let Held { store, id, .. } = &*self.held;
        let view = match store.views.pin().keyspace(keyspace) {
            Some(view) => Some(Arc::clone(view)),
            None => store.snapshots.dropped(*id, keyspace),
        };
        store.check_open()?;
        view.ok_or_else(|| unknown_keyspace(keyspace))
    }
}

impl Reader for LsmSnapshot {
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Slice>> {
        let Held {
            store, sequence, ..
        } = &*self.held;
        let clock = &*store.env.clock;
        let timing = store.counters.begin(Operation::Get, clock);
        store.settings.limits.check_key(key)?;
        let found = get::get(&*self.view(keyspace)?, key, *sequence, &*store.env.clock);
        store.counters.end(Operation::Get, &timing, clock);
        found.map_err(|error| store.told(error))
    }

    fn entry_info(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<EntryInfo>> {
        let Held {
            store, sequence, ..
        } = &*self.held;
        store.settings.limits.check_key(key)?;
        let view = self.view(keyspace)?;
        get::entry_info(&view, key, *sequence, &*store.env.clock).map_err(|error| store.told(error))
    }

    fn multi_get(&self, keyspace: KeyspaceId, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        let Held {
            store, sequence, ..
        } = &*self.held;
        let view = self.view(keyspace)?;
        keys.iter()
            .try_for_each(|key| store.settings.limits.check_key(key))?;
        keys.iter()
            .map(|key| get::get(&view, key, *sequence, &*store.env.clock))
            .collect::<Result<_>>()
            .map_err(|error| store.told(error))
    }

    fn cursor(&self, keyspace: KeyspaceId, range: KeyRange) -> Result<Box<dyn Cursor>> {
        let view = self.view(keyspace)?;
        let Held {
            store, sequence, ..
        } = &*self.held;
        let held: Arc<dyn Send + Sync> = Arc::clone(&self.held) as _;
        Ok(Box::new(ScanCursor::new(
            Arc::clone(store),
            view,
            *sequence,
            range,
            Some(held),
        )?))
    }
}

impl Snapshot for LsmSnapshot {
    fn sequence(&self) -> SequenceNumber {
        self.held.sequence
    }
}

impl fmt::Debug for LsmSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LsmSnapshot")
            .field("sequence", &self.held.sequence)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use vault_core::Timestamp;
    use vault_snapshot::visibility::{Decision, Fate, Rules, Version, VersionKind};

    use super::*;

    /// A merge asked for the snapshots after an ingest had published its tables and before it had made
    /// its sequence number visible. A snapshot that was taken right then found neither the new version
    /// nor the old one, which the merge had dropped.
    #[test]
    fn what_is_visible_now_is_kept_for_a_snapshot_yet_to_come() {
        let (registry, visible) = (SnapshotRegistry::default(), AtomicU64::new(4));
        let rules = Rules {
            snapshots: registry.readers(&visible),
            bottommost: true,
            now: Timestamp(1),
        };
        let (_, sequence) = registry.register(&visible, Duration::ZERO);
        assert_eq!(sequence, 4);
        visible.store(5, Ordering::Release);

        let put = |sequence| Version {
            sequence,
            kind: VersionKind::Put,
            expiry: None,
        };
        let mut decision = Decision::default();
        rules.decide(&[put(5), put(4)], &[], &mut decision);
        assert_eq!(decision.fates, [Fate::Keep, Fate::Keep]);
        assert_eq!(registry.readers(&visible), [4, 5]);
        visible.store(4, Ordering::Release);
        assert_eq!(registry.readers(&visible), [4]);
    }
}
