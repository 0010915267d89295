//! Checkpoints: a copy of the store in another directory that shares its tables and blob files.
//!
//! All memtables are sealed at one moment and flushed; until the tables have been taken stock of, what is
//! sealed later is not flushed, and nothing is ingested, so the copy shows exactly that moment in every keyspace. The
//! tables are linked, and the copy's own manifest and pointer written, the pointer last: without it the
//! directory is no store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::transform::FileKind;
use vault_core::vfs::{FileSystem, read_exact_at};
use vault_core::{Error, Event, Result, SequenceNumber};

use crate::blob::BlobFile;
use crate::directory::place;
use crate::layout::{Env, create_directories, file_name};
use crate::manifest::{self, Manifest, State};
use crate::store::Store;
use crate::version::TableFile;

/// Bytes copied at a time where links are not possible.
const COPY_BYTES: usize = 1 << 20;

/// What a checkpoint holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointOutcome {
    /// The last write it holds.
    pub sequence: SequenceNumber,
    /// Tables it shares with the store.
    pub tables_linked: u64,
    /// Blob files it shares with the store.
    pub blobs_linked: u64,
    /// Bytes of both.
    pub bytes_linked: u64,
    /// Tables that had to be copied, because the target is on another file system.
    pub tables_copied: u64,
    /// Blob files that had to be copied.
    pub blobs_copied: u64,
}

/// Makes a checkpoint.
pub(crate) fn checkpoint(store: &Arc<Store>, target: &Path) -> Result<CheckpointOutcome> {
    store.check_writable()?;
    let fs = &store.env.fs;
    let target = &place(&**fs, target)?;
    if fs
        .kind(target)
        .map_err(|e| Error::io("look at", target, e))?
        .is_some()
    {
        return Err(Error::TargetExists {
            path: target.to_path_buf(),
        });
    }
    // One at a time: they share the barrier. Nor may keys go before they are copied.
    let turn = crate::store::lock(&store.checkpoint_turn);
    let stock = take_stock(store)?;
    let keys = store.env.transform.keys();
    let outcome = create_directories(&**fs, target)
        .and_then(|()| keys.map_or(Ok(()), |keys| keys.copy_to(target)))
        .and_then(|()| {
            drop(turn);
            fill(store, target, stock)
        })
        .inspect_err(|_| remove(store, target))?;
    let bytes_shared = outcome.bytes_linked;
    store.env.emit(&Event::Checkpointed {
        path: target.to_path_buf(),
        bytes_shared,
    });
    Ok(outcome)
}

/// The tables of one moment, and the edits that state them.
struct Stock {
    sequence: SequenceNumber,
    state: State,
    /// Held, so that their files stay.
    tables: Vec<Arc<TableFile>>,
    blobs: Vec<Arc<BlobFile>>,
}

/// Holds back the flushes of what is sealed after a moment.
struct Barrier<'a>(&'a Store);

impl Drop for Barrier<'_> {
    fn drop(&mut self) {
        self.0.flush_barrier.store(u64::MAX, Ordering::Release);
        self.0.background.wake();
        self.0.background.notify_progress();
    }
}

fn take_stock(store: &Arc<Store>) -> Result<Stock> {
    let _barrier = Barrier(store);
    let (sequence, waiting) = {
        let commit = store.commit()?;
        let pinned = store.views.pin();
        for view in &pinned.keyspaces {
            store.seal(&commit, view.keyspace.id);
        }
        store
            .flush_barrier
            .store(store.next_run.load(Ordering::Acquire), Ordering::Release);
        let pinned = store.views.pin();
        let waiting: Vec<_> = pinned
            .keyspaces
            .iter()
            .flat_map(|view| view.sealed.iter().cloned())
            .collect();
        (commit.last_sequence, waiting)
    };
    crate::flush::wait_until_flushed(store, &waiting)?;
    let manifest = store.manifest()?;
    let mut state = manifest.state().clone();
    // The copy has no log: everything of its moment is in tables.
    state.logs.clear();
    state.log_floor = 0;
    state.log_synced = (0, 0);
    state.last_sequence = sequence;
    let pinned = store.views.pin();
    let tables = pinned
        .keyspaces
        .iter()
        .flat_map(|view| view.version.tables().map(|(_, _, file)| Arc::clone(file)))
        .collect();
    let blobs = pinned
        .keyspaces
        .iter()
        .flat_map(|view| view.version.blobs().map(|(file, _)| Arc::clone(file)))
        .collect();
    Ok(Stock {
        sequence,
        state,
        tables,
        blobs,
    })
}

fn fill(store: &Store, target: &Path, stock: Stock) -> Result<CheckpointOutcome> {
    let mut outcome = CheckpointOutcome {
        sequence: stock.sequence,
        ..Default::default()
    };
    let share = |kind: FileKind, number: u64| {
        let name = file_name(kind, number);
        let (from, to) = (store.env.directory.join(&name), target.join(&name));
        match store.env.fs.hard_link(&from, &to) {
            Ok(()) => Ok(true),
            Err(e) if cannot_link(&e) => copy(&*store.env.fs, &from, &to).map(|()| false),
            Err(e) => Err(Error::io("link", &to, e)),
        }
    };
    for file in &stock.tables {
        if share(FileKind::Table, file.meta().number)? {
            outcome.tables_linked += 1;
            outcome.bytes_linked += file.meta().bytes;
        } else {
            outcome.tables_copied += 1;
        }
    }
    for file in &stock.blobs {
        if share(FileKind::Blob, file.meta().number)? {
            outcome.blobs_linked += 1;
            outcome.bytes_linked += file.meta().bytes;
        } else {
            outcome.blobs_copied += 1;
        }
    }
    let env = Env {
        directory: target.to_path_buf(),
        ..store.env.clone()
    };
    env.sync_directory()?;
    // The store itself is as it was, whatever became of the copy.
    Manifest::begin(&env, stock.state, 0, u64::MAX).map_err(manifest::cause)?;
    Ok(outcome)
}

/// Whether a copy must do where a link was wanted.
pub(crate) fn cannot_link(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(
        error.kind(),
        CrossesDevices | Unsupported | TooManyLinks | PermissionDenied
    )
}

/// Copies a file, durably but for its name.
pub(crate) fn copy(fs: &dyn FileSystem, from: &Path, to: &Path) -> Result<()> {
    let source = fs.open(from).map_err(|e| Error::io("open", from, e))?;
    let target = fs.create(to).map_err(|e| Error::io("create", to, e))?;
    let len = source.len().map_err(|e| Error::io("measure", from, e))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < len {
        let piece = &mut buffer[..(len - offset).min(COPY_BYTES as u64) as usize];
        read_exact_at(&*source, piece, offset).map_err(|e| Error::io("read", from, e))?;
        target
            .write_at(piece, offset)
            .map_err(|e| Error::io("write", to, e))?;
        offset += piece.len() as u64;
    }
    target.sync().map_err(|e| Error::io("sync", to, e))
}

/// Removes what was begun, best effort, the pointer first: without it the rest is no store.
fn remove(store: &Store, target: &Path) {
    let fs = &store.env.fs;
    let _ = fs.remove(&target.join(crate::layout::POINTER_NAME));
    for entry in fs.read_dir(target).unwrap_or_default() {
        let _ = fs.remove(&target.join(PathBuf::from(entry.name)));
    }
    let _ = fs.remove_dir(target);
}
