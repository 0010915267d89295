//! Rotation: everything the store holds is sealed anew under keys of another epoch, and the old keys are destroyed.
//!
//! # The steps
//! 1. *Begin* ([`rotate`]): the keyring has fresh keys, and whatever file is created from now on is sealed under them. The
//!    manifest and its pointer are replaced at once.
//! 2. The log goes on in a new segment, and what older ones hold is flushed, so that they go.
//! 3. Tables are written anew, one by one, each in its place ([`crate::compact`]); those that an ordinary compaction
//!    merges meanwhile need no step of their own.
//! 4. *Retire*: the keys of epochs that no file needs any more are destroyed.
//!
//! All but the first are background work of the least urgency. Nothing records how far it has come: every file's header
//! names its epoch. So each step may be interrupted by a crash, and the next opening goes on with what it finds.
//!
//! # When an epoch is out of use
//! Never too early is all that matters: what is sealed under a destroyed key is lost. Asked under the manifest lock, under
//! which alone files become part of the store, an epoch is in use while it seals the manifest, the pointer, a log
//! segment, a table of the current view or one that a reader still holds, or while a job that began in it is writing
//! tables, which may yet become part of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use vault_core::stats::KeyRotation;
use vault_core::transform::{FileKind, Keys};
use vault_core::{CompactionProgress, Error, Event, Result};

use crate::compact::{self, job};
use crate::flush::{self, log_floor, remove_logs_below};
use crate::keyspace::Backoff;
use crate::locking::keys_of;
use crate::log::LOG_VERSION;
use crate::manifest::{Edit, Manifest};
use crate::options::BackgroundWork;
use crate::store::{Store, lock};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32};

/// How long to wait for others that work on the same files.
const BUSY_WAIT: Duration = Duration::from_millis(20);
/// How often to look whether the background lets go of a file that others may hold as well: for a second in all.
const HELD_LOOKS: usize = 50;

/// What is known of epochs beside what tables and manifest know themselves.
#[derive(Default)]
pub(crate) struct Rotation {
    /// Whether there may be something of an older epoch.
    pending: AtomicBool,
    /// Keeps a rotation that fails from being tried again at once.
    backoff: Backoff,
    /// The epochs of the log's segments; where one is missing here, it is of the current epoch since opening.
    logs: Mutex<BTreeMap<u64, u32>>,
    /// In which epochs the jobs began that are writing tables, and how many in each.
    writing: Arc<Mutex<BTreeMap<u32, usize>>>,
    /// The keys of all epochs before this are known to be destroyed.
    retired_before: AtomicU32,
}

/// Keeps the keys of an epoch while tables are written that may have been begun in it.
pub(crate) struct WritingIn {
    epoch: u32,
    writing: Arc<Mutex<BTreeMap<u32, usize>>>,
}

impl Drop for WritingIn {
    fn drop(&mut self) {
        let mut writing = lock(&self.writing);
        if let Some(jobs) = writing.get_mut(&self.epoch) {
            *jobs -= 1;
            if *jobs == 0 {
                writing.remove(&self.epoch);
            }
        }
    }
}

impl Rotation {
    /// To be held from before the first table of a job is created until its tables are part of the store, or gone. An
    /// epoch may begin between the two lines: then the older one is kept for nothing.
    pub(crate) fn writing_in(&self, keys: Option<&dyn Keys>) -> Option<WritingIn> {
        let epoch = keys?.epoch();
        *lock(&self.writing).entry(epoch).or_default() += 1;
        Some(WritingIn {
            epoch,
            writing: Arc::clone(&self.writing),
        })
    }

    /// Notes the epoch of a log segment. Under the manifest lock, with which it becomes part of the store.
    pub(crate) fn log_created(&self, number: u64, epoch: u32) {
        if epoch != 0 {
            lock(&self.logs).insert(number, epoch);
        }
    }

    /// Forgets the log segments that the manifest has let go of.
    pub(crate) fn logs_removed(&self, floor: u64) {
        let mut logs = lock(&self.logs);
        *logs = logs.split_off(&floor);
    }

    /// Whether a segment from number `from` on is sealed in an epoch before this.
    fn has_old_log(&self, from: u64, epoch: u32) -> bool {
        lock(&self.logs).range(from..).any(|(_, &of)| of < epoch)
    }

    fn is_old_log(&self, number: u64, epoch: u32) -> bool {
        lock(&self.logs).get(&number).is_some_and(|&of| of < epoch)
    }
}

/// Looks at what a store that has just been opened was left with.
pub(crate) fn take_up(store: &Store) -> Result<()> {
    let Some(keys) = store.env.transform.keys() else {
        return Ok(());
    };
    let first = keys.epoch() <= 1;
    let segments: Vec<u64> = lock(&store.log_segments).keys().copied().collect();
    for number in segments {
        let epoch = if first {
            keys.epoch()
        } else {
            let opened = store.env.open_file(FileKind::Log, number, LOG_VERSION)?;
            opened.blocks.epoch()
        };
        store.rotation.log_created(number, epoch);
    }
    // Even where every file is of the current epoch: the last step may be left to do.
    store.rotation.pending.store(!first, Release);
    Ok(())
}

/// Begins an epoch. Gives its number.
pub(crate) fn rotate(store: &Arc<Store>) -> Result<u32> {
    let keys = keys_of(store)?;
    store.check_writable()?;
    let mut manifest = store.manifest()?;
    store.shipping.keys_change(keys)?;
    let epoch = keys
        .begin_epoch()
        .map_err(|error| store.poison_if_unknown(error))?;
    store.rotation.pending.store(true, Release);
    store.rotation.backoff.succeeded();
    let restated = manifest.restate(&store.env);
    drop(manifest);
    store.env.emit(&Event::KeysRotated { epoch });
    restated.map_err(|error| store.poison_if_unknown(error))?;
    store.background.wake();
    follow_with_log(store, keys)?;
    Ok(epoch)
}

/// Gets the log into the current epoch, also where the background is at the flush that it needs.
fn follow_with_log(store: &Arc<Store>, keys: &dyn Keys) -> Result<()> {
    for _ in 0..HELD_LOOKS {
        let ticket = store.background.ticket();
        while renew_log(store, keys)? {}
        if !store.rotation.has_old_log(0, keys.epoch()) || !store.background.is_at_work_elsewhere()
        {
            break;
        }
        store.background.wait_for_progress(ticket, BUSY_WAIT);
    }
    Ok(())
}

/// Carries a rotation on by a step, in the background. Gives whether there was one.
pub(crate) fn step(store: &Arc<Store>) -> Result<bool> {
    let rotation = &store.rotation;
    if !rotation.pending.load(Acquire) {
        return Ok(false);
    }
    let keys = keys_of(store)?;
    let now = store.env.clock.monotonic();
    if store.settings.background != BackgroundWork::Manual && !rotation.backoff.is_over(now) {
        return Ok(false);
    }
    store.check_job()?;
    let stepped = advance(store, keys, &mut |_| ControlFlow::Continue(()));
    match &stepped {
        Ok(_) => rotation.backoff.succeeded(),
        Err(Error::Closed | Error::Locked | Error::Poisoned { .. }) => {}
        Err(_) => rotation.backoff.failed(now),
    }
    stepped
}

/// Does what is left of a rotation, on the caller's thread.
pub(crate) fn finish(
    store: &Arc<Store>,
    progress: &mut dyn FnMut(CompactionProgress) -> ControlFlow<()>,
) -> Result<KeyRotation> {
    let keys = keys_of(store)?;
    store.check_writable()?;
    let mut done = CompactionProgress {
        bytes_total: bytes_left(store, keys.epoch()),
        ..CompactionProgress::default()
    };
    if progress(done).is_break() {
        return Err(Error::Cancelled);
    }
    loop {
        store.check_writable()?;
        let ticket = store.background.ticket();
        let mut of_table = 0;
        let advanced = advance(store, keys, &mut |table| {
            of_table = table.bytes_done;
            if store.check_writable().is_err() {
                // The work itself finds out why.
                return ControlFlow::Continue(());
            }
            progress(CompactionProgress {
                bytes_done: done.bytes_done + of_table,
                ..done
            })
        })?;
        done.bytes_done += of_table;
        done.tables_written += u64::from(of_table > 0);
        if advanced {
            continue;
        }
        let status = status(store, keys);
        if status.tables_left == 0 && !is_held_by_jobs(store, keys) {
            break;
        }
        if store.settings.background != BackgroundWork::Manual {
            store.background.wait_for_progress(ticket, BUSY_WAIT);
        } else if !crate::background::step(store)? {
            break;
        }
    }
    for _ in 0..HELD_LOOKS {
        let ticket = store.background.ticket();
        store.reclaim_files();
        retire(store, keys)?;
        // A job of the background may be about to let go of the last view that shows what is gone.
        if status(store, keys).held_by_snapshots == 0 || !store.background.is_at_work_elsewhere() {
            break;
        }
        store.background.wait_for_progress(ticket, BUSY_WAIT);
    }
    Ok(status(store, keys))
}

/// Where the rotation stands.
pub(crate) fn status(store: &Store, keys: &dyn Keys) -> KeyRotation {
    let manifest = store.manifest_unchecked();
    let epoch = keys.epoch();
    let mut status = KeyRotation {
        epoch,
        oldest_epoch_in_use: oldest_in_use(store, keys, manifest.as_deref()),
        ..KeyRotation::default()
    };
    for (table, bytes) in tables(store) {
        status.tables_total += 1;
        status.bytes_total += bytes;
        if table < epoch {
            status.tables_left += 1;
            status.bytes_left += bytes;
        }
    }
    let held = store.reclaim.held_epochs();
    status.held_by_snapshots = held.iter().filter(|&&of| of < epoch).count() as u64;
    status
}

/// The epochs and bytes of the tables that make up the store, with the values that they point to.
fn tables(store: &Store) -> impl Iterator<Item = (u32, u64)> {
    let pinned = store.views.pin();
    let of = |view: &Arc<crate::keyspace::KeyspaceView>| -> Vec<(u32, u64)> {
        let tables = view.version.tables();
        tables
            .map(|(_, _, file)| {
                let bytes = file.meta().bytes + file.meta().apart_bytes();
                (view.version.epoch_of(file), bytes)
            })
            .collect()
    };
    let all: Vec<Vec<_>> = pinned.keyspaces.iter().map(of).collect();
    all.into_iter().flatten()
}

/// Bytes that are read to write the tables of older epochs anew, and the values that they point to there.
fn bytes_left(store: &Store, epoch: u32) -> u64 {
    let pinned = store.views.pin();
    let left = |view: &Arc<crate::keyspace::KeyspaceView>| -> u64 {
        let version = &view.version;
        let old: BTreeSet<u64> = version.blobs_before(epoch).collect();
        let tables = version.tables();
        let tables = tables.filter(|(_, _, file)| version.epoch_of(file) < epoch);
        let bytes = tables.map(|(_, _, file)| {
            let apart = file.meta().blobs.iter();
            let apart = apart.filter(|blob| old.contains(&blob.file));
            file.meta().raw_bytes + apart.map(|blob| blob.bytes).sum::<u64>()
        });
        bytes.sum()
    };
    pinned.keyspaces.iter().map(left).sum()
}

/// The oldest epoch that something is still sealed under, or may be. Nothing changes meanwhile for whoever holds the
/// manifest lock.
fn oldest_in_use(store: &Store, keys: &dyn Keys, manifest: Option<&Manifest>) -> u32 {
    let rotation = &store.rotation;
    let logs: Vec<u32> = lock(&rotation.logs).values().copied().collect();
    let writing = lock(&rotation.writing).keys().next().copied();
    tables(store)
        .map(|(epoch, _)| epoch)
        .chain(logs)
        .chain(writing)
        .chain(store.reclaim.held_epochs())
        .chain(manifest.map(Manifest::oldest_epoch))
        .fold(keys.epoch(), u32::min)
}

/// Whether the log or a job that is running keeps an older epoch in use.
fn is_held_by_jobs(store: &Store, keys: &dyn Keys) -> bool {
    let epoch = keys.epoch();
    let writing = lock(&store.rotation.writing).keys().next().copied();
    store.rotation.has_old_log(0, epoch) || writing.is_some_and(|of| of < epoch)
}

/// Does the next thing there is to do. Gives whether there was one.
fn advance(store: &Arc<Store>, keys: &dyn Keys, progress: job::Progress<'_>) -> Result<bool> {
    Ok(renew_manifest(store, keys)?
        || renew_log(store, keys)?
        || rewrite_next(store, keys, progress)?
        || retire(store, keys)?)
}

fn renew_manifest(store: &Store, keys: &dyn Keys) -> Result<bool> {
    let mut manifest = store.manifest()?;
    if manifest.oldest_epoch() >= keys.epoch() {
        return Ok(false);
    }
    let restated = manifest.restate(&store.env);
    restated.map_err(|error| store.poison_if_unknown(error))?;
    Ok(true)
}

/// Gets the log into the current epoch: a new segment takes what is written from now on, what the old ones hold is
/// flushed, and then they go.
fn renew_log(store: &Arc<Store>, keys: &dyn Keys) -> Result<bool> {
    let (rotation, epoch) = (&store.rotation, keys.epoch());
    if !rotation.has_old_log(0, epoch) {
        return Ok(false);
    }
    if switch_log(store, epoch)? || flush::flush_next(store)? {
        return Ok(true);
    }
    let mut manifest = store.manifest()?;
    let floor = log_floor(store, None);
    let first = lock(&store.log_segments).keys().next().copied();
    if first.is_none_or(|first| first >= floor) {
        return Ok(false);
    }
    manifest
        .commit(&store.env, &[Edit::LogFloor(floor)])
        .map_err(|error| store.poison_if_unknown(error))?;
    remove_logs_below(store, floor);
    Ok(true)
}

/// Has the log go on in a segment of this epoch, and seals the memtables that need older ones. Gives whether there was
/// anything to do.
fn switch_log(store: &Store, epoch: u32) -> Result<bool> {
    let mut commit = store.commit_for_job()?;
    let current = store.log_current.load(Acquire);
    // One that was made ready before the epoch began would be next.
    let switches = current != 0 && store.rotation.has_old_log(current, epoch);
    if switches {
        drop(lock(&store.log_spare).take());
        let segment = commit
            .log
            .switch(store)
            .map_err(|error| store.poison_if_unknown(error))?;
        store.log_current.store(segment, Release);
    }
    let mut sealed = false;
    for view in &store.views.pin().keyspaces {
        let first = view.active.first_log.load(Acquire);
        if first != 0 && store.rotation.is_old_log(first, epoch) {
            store.seal(&commit, view.keyspace.id);
            sealed = true;
        }
    }
    Ok(switches || sealed)
}

/// Writes the next table of an older epoch anew. Where one fails, the others are tried before the failure is told.
fn rewrite_next(store: &Arc<Store>, keys: &dyn Keys, progress: job::Progress<'_>) -> Result<bool> {
    let Some(_place) = store.memory.begin_compaction() else {
        return Ok(false);
    };
    let epoch = keys.epoch();
    let mut failed = Vec::new();
    let mut failure = None;
    let keyspaces: Vec<_> = {
        let pinned = store.views.pin();
        let keyspaces = pinned.keyspaces.iter().map(|view| &view.keyspace);
        keyspaces.cloned().collect()
    };
    for keyspace in &keyspaces {
        // A caller that compacts takes what was written since it began for its own.
        if keyspace.is_compacted_by_hand() {
            continue;
        }
        loop {
            let claim = job::claim_table(store, keyspace.id, |version, file| {
                version.epoch_of(file) < epoch && !failed.contains(&file.meta().number)
            });
            let Some(mut claim) = claim else { break };
            let outcome = claim.rewrite_in(store, epoch, &mut *progress);
            let number = claim.first_table();
            drop(claim);
            compact::shape_changed(store, keyspace.id);
            match outcome {
                Ok(()) => return Ok(true),
                Err(
                    error @ (Error::Closed
                    | Error::Locked
                    | Error::Cancelled
                    | Error::Poisoned { .. }),
                ) => return Err(error),
                // The keyspace was dropped meanwhile.
                Err(Error::UnknownKeyspace { .. }) => break,
                Err(error) => {
                    failed.extend(number);
                    failure.get_or_insert(error);
                }
            }
        }
    }
    failure.map_or(Ok(false), Err)
}

/// Destroys the keys of epochs that are out of use. Gives whether there were any.
fn retire(store: &Arc<Store>, keys: &dyn Keys) -> Result<bool> {
    let rotation = &store.rotation;
    let mut manifest = store.manifest()?;
    let oldest = oldest_in_use(store, keys, Some(&manifest));
    let finished = oldest == keys.epoch();
    // Under the manifest lock no epoch begins.
    if rotation.retired_before.load(Acquire) >= oldest {
        rotation.pending.store(!finished, Release);
        return Ok(false);
    }
    let unknown = |error| store.poison_if_unknown(error);
    let epochs = keys.retire_epochs(oldest).map_err(unknown)?;
    rotation.retired_before.store(oldest, Release);
    rotation.pending.store(!finished, Release);
    if epochs > 0 {
        // The keyring with the old keys, put back, is to be noticed.
        manifest.renew_pointer(&store.env).map_err(unknown)?;
    }
    drop(manifest);
    if epochs > 0 {
        store.env.emit(&Event::EpochsRetired { epochs, oldest });
    }
    Ok(epochs > 0)
}
