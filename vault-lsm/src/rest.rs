//! A store at rest: space that only the next write would give back is given back without one.
//!
//! Compactions free what is deleted or has expired, but they see tables only. Where writing ends with deletes, the last of
//! them stay in a memtable, on top of all that they delete; and the log keeps segments that were made ready for writes which don't
//! come. So the flushing thread looks around every few seconds ([`crate::background::IDLE_MAX`]), and
//! 1. seals a memtable into which nothing was written since the last look, if flushing it is sure to free more than it writes
//!    ([`WriteBuffer::is_worth_flushing`](crate::keyspace::WriteBuffer::is_worth_flushing)): others stay in the log, from
//!    where reading them back is cheap ([ADR 0011](../../docs/adr/0011-no-flush-on-close.md));
//! 2. begins a small log segment once nothing was written to any keyspace and all memtables are empty, and lets go of the others, if
//!    they are large beside the tables.
//!
//! Both happen once: a store that nobody writes to is left alone from then on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use vault_core::{KeyspaceId, Result, SequenceNumber};

use crate::flush::{log_floor, remove_logs_below};
use crate::keyspace::KeyspaceView;
use crate::manifest::Edit;
use crate::store::{Store, lock};

/// A log of so many bytes is never worth the trouble.
const LOG_BYTES_MIN: u64 = 1 << 20;
/// Nor is one that is at most this part of the tables.
const LOG_SHARE: u64 = 64;

/// What the last look has found.
#[derive(Default)]
pub(crate) struct Rest {
    visible: SequenceNumber,
    /// Bytes of the memtable that takes a keyspace's writes.
    memtables: BTreeMap<KeyspaceId, (u64, usize)>,
}

impl Rest {
    /// Looks around. Gives whether something was done.
    pub(crate) fn look(&mut self, store: &Arc<Store>) -> Result<bool> {
        if store.check_job().is_err() {
            return Ok(false);
        }
        let view = store.views.pin();
        let now = store.env.clock.now();
        let visible = store.visible.load(Acquire);
        let mut worth_it = Vec::new();
        let mut found = BTreeMap::new();
        for keyspace in &view.keyspaces {
            let (id, active) = (keyspace.keyspace.id, &keyspace.active);
            let state = (active.first_log.load(Acquire), active.memtable.bytes());
            let is_quiet = self.memtables.get(&id) == Some(&state);
            if is_quiet && active.is_worth_flushing(now, entries_in_tables(keyspace)) {
                worth_it.push(id);
            }
            found.insert(id, state);
        }
        let is_quiet = self.visible == visible;
        (self.visible, self.memtables) = (visible, found);
        if !worth_it.is_empty() {
            let commit = store.commit()?;
            worth_it.iter().for_each(|&id| store.seal(&commit, id));
            return Ok(true);
        }
        let buffers = view.keyspaces.iter().flat_map(|view| view.buffers());
        if is_quiet && buffers.into_iter().all(|buffer| buffer.is_empty()) && has_long_log(store) {
            drop(view);
            return shorten_log(store, visible);
        }
        Ok(false)
    }
}

fn entries_in_tables(view: &KeyspaceView) -> u64 {
    let tables = view.version.tables();
    tables.map(|(_, _, file)| file.meta().entries).sum()
}

fn has_long_log(store: &Store) -> bool {
    let log: u64 = lock(&store.log_segments).values().sum();
    let view = store.views.pin();
    let tables: u64 = view
        .keyspaces
        .iter()
        .flat_map(|view| view.version.tables())
        .map(|(_, _, file)| file.meta().bytes)
        .sum();
    log > LOG_BYTES_MIN && log > tables / LOG_SHARE
}

/// Begins a small segment and lets go of all others, unless somebody has written since `visible`.
fn shorten_log(store: &Arc<Store>, visible: SequenceNumber) -> Result<bool> {
    let mut commit = store.commit()?;
    // A segment that was never written to is of the usual size only because it was made ready.
    if commit.last_sequence != visible || store.log_current.load(Acquire) == 0 {
        return Ok(false);
    }
    // Too large, and its number is below that of the segment to come: it goes with the others.
    drop(lock(&store.log_spare).take());
    let number = commit
        .log
        .begin_small(&**store)
        .map_err(|error| store.poison_if_unknown(error))?;
    store.log_current.store(number, Release);
    let floor = log_floor(store, None);
    let mut manifest = store.manifest()?;
    manifest
        .commit(&store.env, &[Edit::LogFloor(floor)])
        .map_err(|error| store.poison_if_unknown(error))?;
    drop(manifest);
    drop(commit);
    remove_logs_below(store, floor);
    Ok(true)
}
