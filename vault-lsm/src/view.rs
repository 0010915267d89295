//! What readers read: a consistent set of memtables and tables, swapped as a whole.
//!
//! A [`View`] is immutable. Sealing a memtable, installing a flush or a compaction, creating or dropping
//! a keyspace each make a new one and publish it in the [`ViewCell`]. A reader pins the current view and
//! works on it without any lock; what it holds stays alive until it lets go.
//!
//! # Reading a consistent moment
//! A reader needs a view and a sequence number that belong together: a view that was replaced before
//! the number was read may lack writes up to that number. [`ViewCell::pin_at`] reads the number in
//! between two looks at the view's generation and tries again where it changed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crossbeam_utils::CachePadded;
use vault_core::{KeyspaceId, SequenceNumber};

use crate::keyspace::KeyspaceView;
use crate::sync::atomic::AtomicU64;
use crate::sync::{self, Mutex};

/// Copies of the pointer to the current view, so that threads don't share a reference count.
const SHARDS: usize = if sync::MODELLED { 2 } else { 16 };

/// A consistent set of keyspaces with their memtables and tables.
pub(crate) struct View {
    /// One more than the view before.
    pub(crate) generation: u64,
    /// By ascending id.
    pub(crate) keyspaces: Vec<Arc<KeyspaceView>>,
}

impl View {
    /// Finds a keyspace.
    #[inline]
    pub(crate) fn keyspace(&self, id: KeyspaceId) -> Option<&Arc<KeyspaceView>> {
        // Most stores have few keyspaces with small ids in a row: try the place where it would be.
        let guess = (id.0 as usize).wrapping_sub(1);
        if let Some(view) = self.keyspaces.get(guess)
            && view.keyspace.id == id
        {
            return Some(view);
        }
        let at = self
            .keyspaces
            .binary_search_by_key(&id, |view| view.keyspace.id)
            .ok()?;
        self.keyspaces.get(at)
    }

    /// The next view, with the same keyspaces.
    pub(crate) fn following(&self) -> Self {
        Self {
            generation: self.generation + 1,
            keyspaces: self.keyspaces.clone(),
        }
    }

    /// The next view, with one keyspace replaced.
    pub(crate) fn replacing(&self, keyspace: KeyspaceView) -> Self {
        let mut keyspaces = self.keyspaces.clone();
        let id = keyspace.keyspace.id;
        match keyspaces.binary_search_by_key(&id, |view| view.keyspace.id) {
            Ok(at) => keyspaces[at] = Arc::new(keyspace),
            Err(at) => keyspaces.insert(at, Arc::new(keyspace)),
        }
        Self {
            generation: self.generation + 1,
            keyspaces,
        }
    }

    /// The next view, without a keyspace.
    pub(crate) fn without(&self, id: KeyspaceId) -> Self {
        let mut keyspaces = self.keyspaces.clone();
        keyspaces.retain(|view| view.keyspace.id != id);
        Self {
            generation: self.generation + 1,
            keyspaces,
        }
    }
}

/// A view that stays as it is for as long as this is held.
pub(crate) type Pinned = Arc<Arc<View>>;

/// Holds the current view.
pub(crate) struct ViewCell {
    shards: Box<[CachePadded<Mutex<Pinned>>]>,
    generation: AtomicU64,
    /// Serializes the making of new views.
    update: Mutex<()>,
}

impl ViewCell {
    /// Starts with a view.
    pub(crate) fn new(view: View) -> Self {
        let generation = AtomicU64::new(view.generation);
        let view = Arc::new(view);
        let shards = (0..SHARDS)
            .map(|_| CachePadded::new(Mutex::new(Arc::new(Arc::clone(&view)))))
            .collect();
        Self {
            shards,
            generation,
            update: Mutex::new(()),
        }
    }

    /// Pins the current view.
    #[inline]
    pub(crate) fn pin(&self) -> Pinned {
        // A thread uses always the same copy.
        let shard = &self.shards[sync::thread_number() % SHARDS];
        Arc::clone(&shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Pins the current view together with the last sequence number that it is complete for.
    #[inline]
    pub(crate) fn pin_at(&self, visible: &AtomicU64) -> (Pinned, SequenceNumber) {
        loop {
            let view = self.pin();
            let sequence = visible.load(Ordering::Acquire);
            if self.generation.load(Ordering::Acquire) == view.generation {
                return (view, sequence);
            }
            // A new view is being put in place; let whoever does it finish.
            sync::thread::yield_now();
        }
    }

    /// Whether this is still the current view.
    pub(crate) fn is_current(&self, view: &View) -> bool {
        self.generation.load(Ordering::Acquire) == view.generation
    }

    /// Replaces the current view by what `change` makes of it (`None`: leaves it).
    pub(crate) fn update(&self, change: impl FnOnce(&View) -> Option<View>) {
        let _guard = self.update.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = change(&self.pin()) else {
            return;
        };
        let generation = next.generation;
        let next = Arc::new(next);
        // Before any shard shows the new view, nobody may take the old one for current: a write that
        // follows this update goes to the new view only.
        self.generation.store(generation, Ordering::Release);
        let mut old = Vec::with_capacity(SHARDS);
        for shard in &self.shards {
            let mut slot = shard.lock().unwrap_or_else(PoisonError::into_inner);
            old.push(std::mem::replace(&mut *slot, Arc::new(Arc::clone(&next))));
        }
        // Dropped here, outside the shards' locks: it may free memtables and remove files.
        drop(old);
    }
}
