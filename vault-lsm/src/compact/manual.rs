//! Compactions that a caller asked for, one at a time in a keyspace.
//!
//! # Why one at a time
//! A step takes several neighbouring tables of a run, and its outputs span the gap between them, which no busy table covers.
//! Whatever else would choose by the busy tables meanwhile could put a table into that gap, and the run would overlap.
//! So a caller waits for the one before it, and the background holds back from before the first step to after the last.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use vault_core::{CompactionOutcome, CompactionProgress, Error, KeyRange, KeyspaceId, Result};

use super::job;
use crate::keyspace::{Keyspace, ManualTurn};
use crate::store::{Store, unknown_keyspace};

/// How long to wait for a compaction that works on the same tables before another look.
const BUSY_WAIT: Duration = Duration::from_millis(20);

/// Rewrites a range into its most compact form: flushes, then carries out what the policy chooses for
/// the range until it wants nothing more.
pub(crate) fn compact_range(
    store: &Arc<Store>,
    id: KeyspaceId,
    range: &KeyRange,
    progress: &mut dyn FnMut(CompactionProgress) -> ControlFlow<()>,
) -> Result<CompactionOutcome> {
    range
        .check_order()
        .map_err(|error| store.env.discreet(error))?;
    crate::flush::flush_and_wait(store, Some(id))?;
    let keyspace = {
        let pinned = store.views.pin();
        Arc::clone(
            &pinned
                .keyspace(id)
                .ok_or_else(|| unknown_keyspace(id))?
                .keyspace,
        )
    };
    let _alone = Alone::begin(store, &keyspace, progress)?;
    let floor = store.manifest()?.next_file_number();
    let mut total = CompactionOutcome::default();
    if progress(CompactionProgress::default()).is_break() {
        return Err(Error::Cancelled);
    }
    loop {
        store.check_writable()?;
        let ticket = store.background.ticket();
        let Some(_place) = store.memory.begin_compaction() else {
            // As many run as there is memory for.
            store.background.wait_for_progress(ticket, BUSY_WAIT);
            continue;
        };
        let claim = job::claim(store, id, |view, shape| {
            view.planner.choose_range(shape, range, floor)
        });
        let Some(claim) = claim else {
            let pinned = store.views.pin();
            let view = pinned.keyspace(id).ok_or_else(|| unknown_keyspace(id))?;
            let busy = !view.keyspace.busy().is_empty();
            if !busy {
                break;
            }
            drop(_place);
            store.background.wait_for_progress(ticket, BUSY_WAIT);
            continue;
        };
        let done = claim.run(store, &mut |done| match store.check_writable() {
            Ok(()) => progress(done),
            // The compaction itself finds out why.
            Err(_) => ControlFlow::Continue(()),
        })?;
        drop(claim);
        super::shape_changed(store, id);
        total.bytes_read += done.bytes_read;
        total.bytes_written += done.bytes_written;
        total.entries_dropped += done.entries_dropped;
    }
    store.reclaim_files();
    Ok(total)
}

/// Keeps a keyspace to one caller that compacts it.
struct Alone<'a> {
    store: &'a Store,
    keyspace: &'a Keyspace,
}

impl<'a> Alone<'a> {
    /// Waits for the callers before this one. Nothing is held meanwhile, and the wait ends where the work would: when the
    /// store closes or is locked, when the keyspace is dropped, and when `progress` says so.
    fn begin(
        store: &'a Store,
        keyspace: &'a Keyspace,
        progress: &mut dyn FnMut(CompactionProgress) -> ControlFlow<()>,
    ) -> Result<Self> {
        loop {
            store.check_writable()?;
            if keyspace.is_dropped() {
                return Err(unknown_keyspace(keyspace.id));
            }
            let ticket = store.background.ticket();
            match keyspace.begin_manual_compaction() {
                ManualTurn::Begun => return Ok(Self { store, keyspace }),
                ManualTurn::OthersAtIt => {}
                // It would wait for itself.
                ManualTurn::WithinItself => {
                    let retry_after = BUSY_WAIT;
                    return Err(Error::Busy { retry_after });
                }
            }
            if progress(CompactionProgress::default()).is_break() {
                return Err(Error::Cancelled);
            }
            store.background.wait_for_progress(ticket, BUSY_WAIT);
        }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.keyspace.end_manual_compaction();
        super::shape_changed(self.store, self.keyspace.id);
        self.store.background.notify_progress();
    }
}
