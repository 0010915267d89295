//! What is done while nobody writes: fewer places for reads to look in, and no space that only the next write would give back.
//!
//! Under writes a keyspace keeps several runs and a memtable, because merging each of them at once would cost
//! more than it saves. When writes pause, the next read is what counts: memtables that are large enough go to tables, and the
//! policy is told ([`Shape::at_rest`](vault_snapshot::Shape::at_rest)) and merges the youngest runs, as far as that
//! rewrites no more than a few times their own bytes. So a pause costs a bounded number of rewrites of what was
//! written since the last one, and none where only little was written.
//!
//! Compactions free what is deleted or has expired, but they see tables only. Where writing ends with deletes, the last of them stay in
//! a memtable, on top of all that they delete. So a memtable into which nothing was written between two looks, a few seconds
//! apart, goes to a table too if that is sure to free more than it writes
//! ([`WriteBuffer::is_worth_flushing`](crate::keyspace::WriteBuffer::is_worth_flushing)). Others stay in the log, from where
//! reading them back is cheap ([ADR 0011](../../docs/adr/0011-no-flush-on-close.md)).
//!
//! Once nothing is left in memtables, the log is needed for nothing: it begins anew in a short segment, and the long ones go.
//! What is on disk is then what the tables take, and opening has nothing to replay.
//!
//! The store is at rest from when its last sequence number has stood still for [`PAUSE`] until the next write.
//! Where there are no threads, only [`Lsm::settle`](crate::Lsm::settle) says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use vault_core::{KeyspaceId, Result};
use vault_snapshot::policy::REST_RATIO;

use crate::background::IDLE_MAX;
use crate::flush::{log_floor, remove_logs_below};
use crate::keyspace::KeyspaceView;
use crate::manifest::Edit;
use crate::store::{Store, lock};
use crate::sync::MutexGuard;
use crate::sync::atomic::AtomicU64;

/// How long writes pause before the store counts as at rest.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// A memtable below this part of the write buffer stays: it is found in the processor's caches.
const SMALL_FRACTION: u64 = 16;
/// A log of so many bytes, or of four segments where they are short, is left as it is.
const SHORT_LOG_BYTES: u64 = 1 << 20;

/// Since when nobody writes.
pub(crate) struct Rest {
    /// The last sequence number when the store was found at rest; `u64::MAX`: it never was.
    at: AtomicU64,
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            at: AtomicU64::new(u64::MAX),
        }
    }
}

/// What a thread that watches for rest remembers between two looks.
#[derive(Default)]
pub(crate) struct Watch {
    /// The last sequence number at the look before, and when it was first seen.
    seen: Option<(u64, Duration)>,
    /// When it looked into the memtables last, and what it found of each that takes writes: its first segment and its bytes.
    looked: Duration,
    memtables: BTreeMap<KeyspaceId, (u64, usize)>,
}

impl Watch {
    /// Looks whether writes have paused; if they have just now, prepares for reads. Gives how long the thread may sleep
    /// before the next look.
    pub(crate) fn look(&mut self, store: &Arc<Store>) -> Result<Duration> {
        let sequence = store.visible.load(Acquire);
        let now = store.env.clock.monotonic();
        let since = match self.seen {
            Some((seen, since)) if seen == sequence => since,
            _ => now,
        };
        self.seen = Some((sequence, since));
        if now.saturating_sub(self.looked) >= IDLE_MAX {
            self.looked = now;
            self.free_space(store)?;
        }
        if store.rest.at.load(Acquire) == sequence {
            try_shorten_log(store)?;
            return Ok(Duration::MAX);
        }
        if now.saturating_sub(since) < PAUSE {
            return Ok(PAUSE);
        }
        let large: Vec<KeyspaceId> = {
            let pinned = store.views.pin();
            let large = pinned
                .keyspaces
                .iter()
                .filter(|view| is_worth_a_flush(view));
            large.map(|view| view.keyspace.id).collect()
        };
        if !large.is_empty() {
            let commit = store.commit_for_job()?;
            large.iter().for_each(|&id| store.seal(&commit, id));
        }
        begin(store, sequence);
        Ok(PAUSE)
    }

    /// Seals the memtables that nobody has written to since the look before, and whose flush is sure to free space.
    fn free_space(&mut self, store: &Arc<Store>) -> Result<()> {
        let pinned = store.views.pin();
        let now = store.env.clock.now();
        let mut found = BTreeMap::new();
        let mut worth_it = Vec::new();
        for view in &pinned.keyspaces {
            let (id, active) = (view.keyspace.id, &view.active);
            let state = (active.first_log.load(Acquire), active.memtable.bytes());
            let is_quiet = self.memtables.get(&id) == Some(&state);
            if is_quiet && active.is_worth_flushing(now, entries_in_tables(view)) {
                worth_it.push(id);
            }
            found.insert(id, state);
        }
        self.memtables = found;
        drop(pinned);
        if !worth_it.is_empty() {
            let commit = store.commit_for_job()?;
            worth_it.iter().for_each(|&id| store.seal(&commit, id));
        }
        Ok(())
    }
}

fn entries_in_tables(view: &KeyspaceView) -> u64 {
    let tables = view.version.tables();
    tables.map(|(_, _, file)| file.meta().entries).sum()
}

/// Whether the policy may take it that nobody writes.
pub(crate) fn is_at_rest(store: &Store) -> bool {
    store.rest.at.load(Acquire) == store.visible.load(Acquire)
}

/// The store is at rest for as long as `sequence` stays the last number.
pub(crate) fn begin(store: &Store, sequence: u64) {
    store.rest.at.store(sequence, Release);
    store.background.shapes_changed(store);
}

/// Has the log go on in a short segment and lets go of the others, if the store is at rest and has everything in tables.
/// When this returns, nobody else is about to.
pub(crate) fn shorten_log(store: &Arc<Store>) -> Result<()> {
    let turn = lock(&store.checkpoint_turn);
    shorten_log_in(store, &turn)
}

/// As [`shorten_log`], unless a checkpoint takes stock just now: nobody waits for this, and the next look comes soon.
fn try_shorten_log(store: &Arc<Store>) -> Result<()> {
    match store.checkpoint_turn.try_lock() {
        Ok(turn) => shorten_log_in(store, &turn),
        Err(_) => Ok(()),
    }
}

/// A checkpoint that takes stock counts on the segments it has seen: hence the turn.
fn shorten_log_in(store: &Arc<Store>, _turn: &MutexGuard<'_, ()>) -> Result<()> {
    let short = SHORT_LOG_BYTES.min(4 * store.memory.shares().log_segment_bytes);
    let bytes: u64 = lock(&store.log_segments).values().sum();
    if bytes <= short || !is_flushed(store) {
        return Ok(());
    }
    let mut commit = store.commit_for_job()?;
    // Now that nobody can write: look again.
    if store.log_current.load(Acquire) == 0 || !is_at_rest(store) || !is_flushed(store) {
        return Ok(());
    }
    // Too long, and of a lower number than the segment to come. Should that one not be made, it is needed again.
    let spare = lock(&store.log_spare).take();
    let segment = match commit.log.switch_to_short(&**store) {
        Ok(segment) => segment,
        Err(error) => {
            // Another may have been made meanwhile.
            let mut place = lock(&store.log_spare);
            *place = place.take().or(spare);
            drop(place);
            return Err(store.poison_if_unknown(error));
        }
    };
    store.log_current.store(segment, Release);
    // The records that tell which numbers were given out go with the segments.
    let last = Edit::LastSequence(commit.last_sequence);
    drop(commit);
    let mut manifest = store.manifest()?;
    let floor = log_floor(store, None);
    manifest
        .commit(&store.env, &[last, Edit::LogFloor(floor)])
        .map_err(|error| store.poison_if_unknown(error))?;
    remove_logs_below(store, floor);
    Ok(())
}

/// Whether nothing stands in memtables.
fn is_flushed(store: &Store) -> bool {
    let pinned = store.views.pin();
    let mut buffers = pinned.keyspaces.iter().flat_map(|view| view.buffers());
    buffers.all(|buffer| buffer.is_empty())
}

/// Whether a read gains by it that the keyspace's memtable becomes a table: the same bound as for runs
/// (see [`REST_RATIO`]), or else it would only become one more run.
fn is_worth_a_flush(view: &KeyspaceView) -> bool {
    let bytes = view.active.memtable.bytes() as u64;
    let mut levels = view
        .version
        .level_stats()
        .into_iter()
        .map(|level| level.bytes);
    let level0 = levels.next().unwrap_or(0);
    let below = levels.find(|&bytes| bytes > 0).unwrap_or(0);
    !view.active.is_empty()
        && bytes >= view.options.write_buffer_bytes / SMALL_FRACTION
        && (bytes + level0).saturating_mul(REST_RATIO) >= below
}
