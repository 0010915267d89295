//! Closing: end the work, make the log durable, say in the pointer where it ends, let go of the lock.
//!
//! Memtables are not flushed: their writes are in the log, and reading it back is cheaper than writing
//! tables. The unused ends of log segments are given back. Last, keys are wiped. A store that is locked when it is
//! closed has no key for a new pointer: the next opening reads the log as after a crash.

use std::sync::Arc;

use vault_core::transform::{FileKind, HEADER_BYTES};
use vault_core::{Error, Result};

use crate::locking;
use crate::store::{Store, lock};

/// Closes the store. Closing it again does nothing.
pub(crate) fn close(store: &Arc<Store>) -> Result<()> {
    // A store that is poisoned is left as it is, locked or not.
    let writable = store.is_writing();
    if !store.mark_closed() {
        return Ok(());
    }
    store.background.stop();
    let outcome = if writable { finish(store) } else { Ok(()) };
    store.reclaim_files();
    locking::wipe(store);
    store.unlock_process();
    outcome
}

fn finish(store: &Store) -> Result<()> {
    let Some(mut commit) = store.commit_unchecked() else {
        return Ok(());
    };
    // The last commits may have failed meanwhile: then nobody knows where the log ends.
    if store.is_poisoned() {
        return Ok(());
    }
    let Some(mut manifest) = store.manifest_unchecked() else {
        return Ok(());
    };
    store.log_sync.wait_for(store.log_sync.position())?;
    let end = commit.log.end();
    // The mapping goes before the file is cut.
    commit.log.retire();
    match manifest.close(&store.env, end) {
        // The log is whole without it.
        Ok(()) | Err(Error::Locked) => {}
        Err(error) => return Err(error),
    }
    give_back(store, Some(end));
    Ok(())
}

/// Gives back the unused ends of log segments that are not mapped any more: of the last one, which ends at `end`,
/// and of the one that was made ready for afterwards.
pub(crate) fn give_back(store: &Store, end: Option<(u64, u64)>) {
    let spare = lock(&store.log_spare).take().map(|spare| spare.number);
    let unused = spare.map(|number| (number, HEADER_BYTES as u64));
    for (number, len) in [end.filter(|end| end.0 != 0), unused].into_iter().flatten() {
        let path = store.env.path(FileKind::Log, number);
        // For the space only: a segment that keeps its zeros is read just as well.
        if let Ok(file) = store.env.fs.open_for_write(&path)
            && file.set_len(len).is_ok()
            && let Some(bytes) = lock(&store.log_segments).get_mut(&number)
        {
            *bytes = len;
        }
    }
}
