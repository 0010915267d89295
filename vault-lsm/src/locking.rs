//! Locking: the keys are wiped from memory while the store stays open, and resuming with keys that are there again.
//!
//! # The order in which a store is locked
//! 1. What is in memtables is flushed, while operations go on: mostly nothing is left to do once they may not.
//! 2. Callers are refused ([`Store::refuse_as_locked`]). Writers that were let in before hold the commit lock, or a turn, or
//!    wait for the lock in vain: with it taken once and all turns over, each has ended, its write in a memtable and in
//!    the log, or has nothing written.
//! 3. Under that lock the log's segments are let go of: the next record begins another. What was written last
//!    is flushed.
//! 4. The engine's own work is refused, and what of it is running gives up at its next look.
//! 5. What was decoded is dropped: the block cache, and what tables keep of their filters and indexes. A new view
//!    has the tables as they were when they were opened; the old ones go with their last reader. Whoever pins a view
//!    looks at the status *afterwards*, so that nobody fills the new tables any more.
//! 6. The keys are wiped.
//!
//! A flush that fails (a full disk, a poisoned store) keeps nobody from locking: what was not flushed stays in memory,
//! and in the log.
//!
//! # Where it may be asked for
//! From any thread. On one that is in the midst of the engine's work, an [`EventListener`](vault_core::EventListener)
//! for instance, none of this can be waited for: callers are refused at once, and the background does the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use vault_core::transform::Keys;
use vault_core::{Error, Event, Result};

use crate::background::IDLE_MAX;
use crate::flush::{self, Progressed};
use crate::keyspace::KeyspaceView;
use crate::layout::is_telling;
use crate::store::{Store, lock as take};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicBool;
use crate::{close, compact, keyspaces};

/// How often the idle time is looked at within itself.
const LOOKS: u32 = 8;
/// Should a notification be missed.
const CHECK_AFTER: Duration = Duration::from_millis(20);

/// Where locking stands.
#[derive(Default)]
pub(crate) struct Locking {
    /// Held by the one call that locks or resumes.
    turn: Mutex<()>,
    /// Whether the keys were wiped to the end of the order above.
    done: AtomicBool,
    /// Whether somebody asked who could not wait for it.
    requested: AtomicBool,
    /// Whether a keyspace was dropped whose keys could not be destroyed any more.
    pub(crate) erasing_is_due: AtomicBool,
    /// Since when nothing was asked; `None`: not looked at yet.
    quiet_since: Mutex<Option<Duration>>,
}

/// The store's keys.
pub(crate) fn keys_of(store: &Store) -> Result<&dyn Keys> {
    store.env.transform.keys().ok_or(Error::Unsupported {
        engine: "a store without encryption",
        operation: "what needs keys: locking, resuming and rotation",
    })
}

/// Locks the store. `idle` says that nobody asked for it.
pub(crate) fn lock(store: &Arc<Store>, idle: bool) -> Result<()> {
    let keys = keys_of(store)?;
    if is_telling() || store.background.is_at_work_here() {
        store.refuse_as_locked(false);
        store.locking.requested.store(true, Release);
        store.background.wake();
        return Ok(());
    }
    let turn = take(&store.locking.turn);
    if store.locking.done.load(Acquire) {
        return Ok(());
    }
    if !idle || store.is_quiet() {
        bring_to_rest(store);
        forget(store);
        keys.lock();
        store.locking.done.store(true, Release);
        store.locking.requested.store(false, Release);
        drop(turn);
        store.background.notify_progress();
        store.env.emit(&Event::Locked { idle });
    }
    Ok(())
}

/// Ends all work, with what is in memory in tables if that is possible.
fn bring_to_rest(store: &Arc<Store>) {
    // Best effort, each time: what cannot be flushed is in the log all the same.
    let _ = flush::flush_and_wait(store, None);
    store.refuse_as_locked(false);
    // Whoever waits for progress looks at the status again.
    store.background.notify_progress();
    if let Some(mut commit) = store.commit_unchecked() {
        let end = commit.log.end();
        commit.log.retire();
        if store.check_working().is_ok() {
            store.seal_under(&commit);
            close::give_back(store, Some(end));
        }
    }
    flush_what_is_sealed(store);
    store.refuse_as_locked(true);
    store.background.pause();
    while store.background.is_at_work_elsewhere() && !store.is_closed() {
        let ticket = store.background.ticket();
        if store.background.is_at_work_elsewhere() {
            store.background.wait_for_progress(ticket, CHECK_AFTER);
        }
    }
    // With this taken once, nobody is between a look at the status and what it allowed.
    drop(store.manifest_unchecked());
    if store.is_writing() {
        close::give_back(store, None);
    } else {
        drop(take(&store.log_spare).take());
    }
}

fn flush_what_is_sealed(store: &Arc<Store>) {
    // Where the store is closed meanwhile, there is nothing to wait for.
    while store.is_writing() {
        let ticket = store.background.ticket();
        match flush::flush_any(store) {
            Ok(Progressed::Flushed) => store.background.notify_progress(),
            Ok(Progressed::NothingLeft) | Err(_) => return,
            // A checkpoint holds flushes back until it has noticed, or another thread is at it.
            Ok(Progressed::OthersAtIt) => store.background.wait_for_progress(ticket, CHECK_AFTER),
        }
    }
}

/// Drops what was decoded.
pub(crate) fn forget(store: &Store) {
    let as_opened = |view: &KeyspaceView| {
        // It holds keys of the store. Callers are refused, so nobody leaves another.
        view.keyspace.gaps.clear();
        KeyspaceView {
            version: Arc::new(view.version.as_opened()),
            ..view.clone()
        }
    };
    store.views.update(|view| {
        let mut next = view.following();
        for keyspace in &mut next.keyspaces {
            *keyspace = Arc::new(as_opened(keyspace));
        }
        Some(next)
    });
    store.snapshots.change_dropped(as_opened);
    store.table_env.cache.shut();
}

/// Goes on after the keys have been unlocked. Where it fails with anything but what its first lines say, the store has
/// been resumed, and what was interrupted by the lock will be tried again.
pub(crate) fn resume(store: &Arc<Store>) -> Result<()> {
    let keys = keys_of(store)?;
    if is_telling() {
        return Err(Error::Unsupported {
            engine: "an event listener",
            operation: "resuming; do it on another thread",
        });
    }
    let turn = take(&store.locking.turn);
    if store.is_closed() {
        return Err(Error::Closed);
    }
    if keys.is_locked() {
        return Err(Error::Locked);
    }
    let was_locked = store.is_locked();
    store.locking.requested.store(false, Release);
    store.locking.done.store(false, Release);
    *take(&store.locking.quiet_since) = None;
    store.table_env.cache.reopen();
    store.background.unpause();
    store.accept_again();
    drop(turn);
    if was_locked {
        store.background.shapes_changed(store);
        compact::update_pressure(store);
        store.env.emit(&Event::Resumed);
    }
    keyspaces::erase_if_due(store)
}

/// Whether operations are refused.
pub(crate) fn is_locked(store: &Store) -> bool {
    store.is_locked()
}

/// Wipes the keys of a store that is being closed.
pub(crate) fn wipe(store: &Store) {
    if let Some(keys) = store.env.transform.keys() {
        forget(store);
        keys.lock();
    }
}

/// Locks the store if somebody asked who could not wait for it, or if nothing was asked for long enough. For
/// threads that are not in the midst of any work. Gives whether it did.
pub(crate) fn attend(store: &Arc<Store>) -> bool {
    if store.locking.requested.load(Acquire) {
        return lock(store, false).is_ok();
    }
    let Some(after) = store.settings.lock_after_idle else {
        return false;
    };
    if store.is_locked() || !has_been_quiet(store, after) {
        return false;
    }
    lock(store, true).is_ok() && store.is_locked()
}

/// Whether nothing was asked for as long as `after`. The time is counted from the first look that finds
/// nothing new: it may be an eighth more, never less.
fn has_been_quiet(store: &Store, after: Duration) -> bool {
    let now = store.env.clock.monotonic();
    let mut since = take(&store.locking.quiet_since);
    let quiet = store.is_quiet();
    match *since {
        Some(began) if quiet => now.saturating_sub(began) >= after,
        _ => {
            *since = Some(now);
            false
        }
    }
}

/// How long a thread without work may sleep before it has to look at the idle time.
pub(crate) fn look_after(store: &Store) -> Duration {
    let after = store.settings.lock_after_idle;
    after.map_or(IDLE_MAX, |after| (after / LOOKS).min(IDLE_MAX))
}
