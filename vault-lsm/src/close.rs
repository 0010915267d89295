//! Closing: end the work, make the log durable, say in the pointer where it ends, let go of the lock.
//!
//! Memtables are not flushed: their writes are in the log, and reading it back is cheaper than writing
//! tables. The unused ends of log segments are given back.

use std::sync::Arc;

use vault_core::Result;
use vault_core::transform::{FileKind, HEADER_BYTES};

use crate::store::{Store, lock};

/// Closes the store. Closing it again does nothing.
pub(crate) fn close(store: &Arc<Store>) -> Result<()> {
    let writable = store.check_writable().is_ok();
    if !store.mark_closed() {
        return Ok(());
    }
    store.background.stop();
    let outcome = if writable { finish(store) } else { Ok(()) };
    store.reclaim_files();
    store.unlock_process();
    outcome
}

fn finish(store: &Store) -> Result<()> {
    let Some(mut commit) = store.commit_unchecked() else {
        return Ok(());
    };
    let Some(mut manifest) = store.manifest_unchecked() else {
        return Ok(());
    };
    store.log_sync.wait_for(store.log_sync.position())?;
    let end = commit.log.end();
    // The mapping goes before the file is cut.
    commit.log.retire();
    let spare = lock(&store.log_spare).take().map(|spare| spare.number);
    manifest.close(&store.env, end)?;
    let unused = spare.map(|number| (number, HEADER_BYTES as u64));
    for (number, len) in [Some(end).filter(|end| end.0 != 0), unused]
        .into_iter()
        .flatten()
    {
        let path = store.env.path(FileKind::Log, number);
        // For the space only: a segment that keeps its zeros is read just as well.
        if let Ok(file) = store.env.fs.open_for_write(&path) {
            let _ = file.set_len(len);
        }
    }
    Ok(())
}
