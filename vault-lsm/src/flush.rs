//! Flushing: a sealed memtable becomes a table at the top of its keyspace's levels.
//!
//! The memtables of a keyspace are flushed one at a time, oldest first, so that what the manifest calls
//! *flushed through* never has a gap. Before the manifest learns of the table, the log is made durable up
//! to where the memtable was sealed, if another keyspace has unflushed writes from before: otherwise a
//! loss of power could take those and leave later ones, and what is recovered would be no prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use vault_core::transform::FileKind;
use vault_core::{Error, Event, KeyspaceId, Result};
use vault_snapshot::visibility::Rules;

use crate::background::AtWork;
use crate::compact::output::Output;
use crate::compact::written::OutputTables;
use crate::counters::Operation;
use crate::keyspace::{Keyspace, KeyspaceView, WriteBuffer};
use crate::manifest::Edit;
use crate::options::BackgroundWork;
use crate::store::{Store, lock, unknown_keyspace};
use crate::tombstones::Fragments;
use crate::version::Placed;

/// Flushes the oldest memtable that waits. Gives whether there was one.
/// Where flushing one keyspace fails, the others are tried before the failure is told.
pub(crate) fn flush_next(store: &Arc<Store>) -> Result<bool> {
    let mut failure = None;
    for keyspace in waiting(store) {
        match flush_oldest(store, &keyspace) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error @ (Error::Closed | Error::Locked | Error::Poisoned { .. })) => {
                return Err(error);
            }
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    failure.map_or(Ok(false), Err)
}

/// What [`flush_any`] found.
pub(crate) enum Progressed {
    Flushed,
    /// Memtables wait that another thread is flushing, or that a checkpoint holds back.
    OthersAtIt,
    NothingLeft,
}

/// Flushes one of the memtables that wait.
pub(crate) fn flush_any(store: &Arc<Store>) -> Result<Progressed> {
    if flush_next(store)? {
        return Ok(Progressed::Flushed);
    }
    Ok(if waiting(store).is_empty() {
        Progressed::NothingLeft
    } else {
        Progressed::OthersAtIt
    })
}

/// The keyspaces whose memtables wait, by the age of the oldest.
fn waiting(store: &Store) -> Vec<Arc<Keyspace>> {
    let pinned = store.views.pin();
    let oldest = |view: &Arc<KeyspaceView>| {
        let run = view.sealed.last()?.run.load(Acquire);
        Some((run, Arc::clone(&view.keyspace)))
    };
    let mut waiting: Vec<_> = pinned.keyspaces.iter().filter_map(oldest).collect();
    waiting.sort_unstable_by_key(|(run, _)| *run);
    waiting.into_iter().map(|(_, keyspace)| keyspace).collect()
}

/// Flushes the oldest memtable of a keyspace, unless another thread is at it.
fn flush_oldest(store: &Arc<Store>, keyspace: &Arc<Keyspace>) -> Result<bool> {
    let _at_work = AtWork::new(&store.background)?;
    if keyspace.flushing.swap(true, AcqRel) {
        return Ok(false);
    }
    let _flushing = Flushing(keyspace);
    // Look again, now that nobody else flushes this keyspace.
    let pinned = store.views.pin();
    let Some(view) = pinned.keyspace(keyspace.id) else {
        return Ok(false);
    };
    let barrier = store.flush_barrier.load(Acquire);
    let oldest = view.sealed.last();
    let Some(buffer) = oldest.filter(|buffer| buffer.run.load(Acquire) < barrier) else {
        return Ok(false);
    };
    let timing = store.counters.begin(Operation::Flush, &*store.env.clock);
    match flush_buffer(store, view, buffer) {
        // Dropped meanwhile, keys and all: nobody waits for its memtable any more.
        Err(Error::UnacceptableKeyring { .. }) if keyspace.is_dropped() => return Ok(false),
        flushed => flushed?,
    }
    store
        .counters
        .end(Operation::Flush, &timing, &*store.env.clock);
    Ok(true)
}

/// Ends the claim on a keyspace's memtables.
struct Flushing<'a>(&'a Keyspace);

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.flushing.store(false, Release);
    }
}

fn flush_buffer(store: &Arc<Store>, view: &KeyspaceView, buffer: &Arc<WriteBuffer>) -> Result<()> {
    let began = store.env.clock.monotonic();
    let memtable = &buffer.memtable;
    let rules = Rules {
        snapshots: store.snapshots.readers(&store.visible),
        bottommost: view.version.tables().next().is_none(),
        now: store.env.clock.now(),
    };
    let tombstones = Fragments::build_without(memtable.range_tombstone_list(), |older, newer| {
        rules.range_tombstone_adds_nothing(older, newer)
    });
    let output = Output::new(store, view, u64::MAX, BTreeSet::new());
    let mut prepares = store.settings.background != BackgroundWork::Manual;
    let written = output.write(memtable.cursor(), &tombstones, &rules, &mut |_| {
        store.check_working()?;
        // Writers may use up a log segment while this goes on, and would have to make the next one themselves. Should that
        // fail, the step after this one tries again, and tells.
        prepares = prepares && store.prepare_segment().is_ok();
        Ok(())
    })?;
    let bytes = written.bytes();
    install(store, view, buffer, &written)
        .inspect_err(|error| written.discard_after(store, error))?;

    store.counters.flushes.fetch_add(1, Relaxed);
    store.counters.flush_bytes.fetch_add(bytes, Relaxed);
    let elapsed = store.env.clock.monotonic().saturating_sub(began);
    store.counters.flushed_in(elapsed);
    let (keyspace, entries) = (view.keyspace.id, memtable.entries());
    store.env.emit(&Event::Flushed {
        keyspace,
        entries,
        bytes,
        elapsed,
    });
    store.background.wake();
    Ok(())
}

/// Makes the tables part of the store in the place of the memtable.
fn install(
    store: &Arc<Store>,
    view: &KeyspaceView,
    buffer: &Arc<WriteBuffer>,
    written: &OutputTables,
) -> Result<()> {
    let id = view.keyspace.id;
    if others_are_older(store, id, buffer) {
        store.sync_log(buffer.log_end.load(Acquire))?;
    }
    let run = buffer.run.load(Acquire);
    let mut edits = written.additions(id, 0, run);
    let sequence = buffer.last_sequence.load(Acquire);
    edits.push(Edit::FlushedThrough {
        keyspace: id.0,
        sequence,
    });
    let opened = written.open(store, id)?;

    let mut manifest = store.manifest()?;
    if view.keyspace.is_dropped() {
        drop(manifest);
        written.discard(store);
        return Ok(());
    }
    let position = buffer.log_end.load(Acquire);
    if store.log_sync.synced() >= position {
        let segment = buffer.last_log.load(Acquire);
        edits.push(Edit::LogSynced { segment, position });
    }
    let floor = log_floor(store, Some(buffer));
    edits.push(Edit::LogFloor(floor));
    manifest
        .commit(&store.env, &edits)
        .map_err(|error| store.poison_if_unknown(error))?;
    store.update_keyspace(id, |current| {
        let mut next = KeyspaceView::clone(current);
        next.sealed.retain(|sealed| !Arc::ptr_eq(sealed, buffer));
        let blobs = opened.blobs_added();
        let added = opened.tables.into_iter();
        let added = added.map(|file| Placed {
            level: 0,
            run,
            file,
        });
        next.version = Arc::new(current.version.changed(&[], added.collect(), blobs));
        next
    });
    drop(manifest);
    buffer.memtable.leave();
    written.counts.add_to(&store.counters);
    remove_logs_below(store, floor);
    crate::compact::shape_changed(store, id);
    Ok(())
}

/// Whether another keyspace has unflushed writes from before this memtable was sealed.
fn others_are_older(store: &Store, id: KeyspaceId, buffer: &WriteBuffer) -> bool {
    let last_log = buffer.log_end.load(Acquire);
    let pinned = store.views.pin();
    let unflushed = |view: &Arc<KeyspaceView>| {
        // A memtable sealed later may still begin earlier; whether it does is not worth finding out.
        view.keyspace.id != id && view.buffers().any(|other| !other.is_empty())
    };
    last_log > store.log_sync.synced() && pinned.keyspaces.iter().any(unflushed)
}

/// The oldest log segment that unflushed writes need, as it will be once `flushed` is in tables.
pub(crate) fn log_floor(store: &Store, flushed: Option<&Arc<WriteBuffer>>) -> u64 {
    // First the segment that takes records now, then the memtables: a memtable that gets its first
    // write meanwhile gets it in this segment or a later one.
    let current = store.log_current.load(Acquire);
    let pinned = store.views.pin();
    pinned
        .keyspaces
        .iter()
        .flat_map(|view| view.buffers())
        .filter(|buffer| flushed.is_none_or(|flushed| !Arc::ptr_eq(buffer, flushed)))
        .map(|buffer| buffer.first_log.load(Acquire))
        .filter(|&first| first != 0)
        .chain(std::iter::once(current))
        .min()
        .unwrap_or(current)
}

/// Removes the log segments below the floor, which the manifest has let go of.
pub(crate) fn remove_logs_below(store: &Store, floor: u64) {
    let removed = {
        let mut segments = lock(&store.log_segments);
        let kept = segments.split_off(&floor);
        std::mem::replace(&mut *segments, kept)
    };
    store.log_sync.forget_below(floor);
    store.shipping.let_go_below(floor);
    for &number in BTreeMap::keys(&removed) {
        // The manifest no longer names it: should this fail, the next opening removes it.
        let _ = store.env.fs.remove(&store.env.path(FileKind::Log, number));
    }
    // Only now: who waits for them to go finds them gone.
    store.rotation.logs_removed(floor);
}

/// Moves what is in memory now to tables (of one keyspace, or all), and waits for it.
pub(crate) fn flush_and_wait(store: &Arc<Store>, keyspace: Option<KeyspaceId>) -> Result<()> {
    let targets: Vec<KeyspaceId> = {
        let commit = store.commit()?;
        let pinned = store.views.pin();
        let targets = match keyspace {
            Some(id) => {
                pinned.keyspace(id).ok_or_else(|| unknown_keyspace(id))?;
                vec![id]
            }
            None => pinned
                .keyspaces
                .iter()
                .map(|view| view.keyspace.id)
                .collect(),
        };
        targets.iter().for_each(|&id| store.seal(&commit, id));
        targets
    };
    let waiting: Vec<Arc<WriteBuffer>> = {
        let pinned = store.views.pin();
        targets
            .iter()
            .filter_map(|&id| pinned.keyspace(id))
            .flat_map(|view| view.sealed.iter().cloned())
            .collect()
    };
    wait_until_flushed(store, &waiting)
}

/// Waits until none of these memtables is waiting any more; flushes them itself where no thread does.
pub(crate) fn wait_until_flushed(store: &Arc<Store>, waiting: &[Arc<WriteBuffer>]) -> Result<()> {
    /// Should a notification be missed.
    const CHECK_AFTER: std::time::Duration = std::time::Duration::from_millis(50);
    loop {
        let ticket = store.background.ticket();
        let pinned = store.views.pin();
        let left = pinned.keyspaces.iter().find(|view| {
            view.sealed
                .iter()
                .any(|sealed| waiting.iter().any(|w| Arc::ptr_eq(w, sealed)))
        });
        let Some(view) = left else { return Ok(()) };
        store.check_writable()?;
        // The caller's thread is as good as any: this also gives it the error, if there is one.
        if flush_oldest(store, &view.keyspace)? {
            store.background.notify_progress();
        } else {
            store.background.wait_for_progress(ticket, CHECK_AFTER);
        }
    }
}
