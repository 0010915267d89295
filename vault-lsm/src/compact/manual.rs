//! Compactions that a caller asked for.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vault_core::{CompactionOutcome, CompactionProgress, KeyRange, KeyspaceId, Result};

use super::job;
use crate::keyspace::Keyspace;
use crate::store::{Store, unknown_keyspace};

/// How long to wait for a background compaction that works on the same tables.
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
    let _alone = Alone::new(store, &keyspace);
    let floor = store.manifest()?.next_file_number();
    let mut total = CompactionOutcome::default();
    if progress(CompactionProgress::default()).is_break() {
        return Err(vault_core::Error::Cancelled);
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

/// Holds background compactions of a keyspace back.
struct Alone<'a> {
    store: &'a Store,
    keyspace: &'a Keyspace,
}

impl<'a> Alone<'a> {
    fn new(store: &'a Store, keyspace: &'a Keyspace) -> Self {
        keyspace.manual_compactions.fetch_add(1, Ordering::AcqRel);
        Self { store, keyspace }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.keyspace
            .manual_compactions
            .fetch_sub(1, Ordering::AcqRel);
        super::shape_changed(self.store, self.keyspace.id);
    }
}
