//! Checkpoints: a copy of the store in another directory that shares its tables and blob files.
//!
//! Stock is taken of one moment ([`crate::stock`]), the tables and blob files of that moment are linked, and the copy's own
//! files written, the pointer last: without it the directory is no store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::transform::FileKind;
use vault_core::vfs::{File, FileSystem, create_directories, read_exact_at};
use vault_core::{Error, Event, Result, SequenceNumber};

use crate::directory::place;
use crate::layout::{POINTER_NAME, UNFINISHED_SUFFIX, file_name};
use crate::stock::{self, Stock};
use crate::store::Store;

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
    let stock = stock::take(store)?;
    let outcome = create_directories(&**fs, target)
        .and_then(|()| fill(store, target, &stock))
        .inspect_err(|_| remove(store, target))?;
    let bytes_shared = outcome.bytes_linked;
    store.env.emit(&Event::Checkpointed {
        path: target.to_path_buf(),
        bytes_shared,
    });
    Ok(outcome)
}

fn fill(store: &Store, target: &Path, stock: &Stock) -> Result<CheckpointOutcome> {
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
    let fs = &*store.env.fs;
    let sync = || {
        fs.sync_dir(target)
            .map_err(|e| Error::io("sync directory", target, e))
    };
    for made in &stock.made {
        let path = target.join(&made.name);
        if made.name == POINTER_NAME {
            sync()?;
            let unfinished = target.join(format!("{POINTER_NAME}{UNFINISHED_SUFFIX}"));
            write(fs, &*made.content, &path, &unfinished)?;
            let renamed = fs.rename(&unfinished, &path);
            renamed.map_err(|e| Error::io("rename", &unfinished, e))?;
        } else {
            write(fs, &*made.content, &path, &path)?;
        }
    }
    sync()?;
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
    write(fs, &*source, from, to)
}

/// Writes what a file holds that was opened at `from`, durably but for the name.
fn write(fs: &dyn FileSystem, source: &dyn File, from: &Path, to: &Path) -> Result<()> {
    let target = fs.create(to).map_err(|e| Error::io("create", to, e))?;
    let len = source.len().map_err(|e| Error::io("measure", from, e))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < len {
        let piece = &mut buffer[..(len - offset).min(COPY_BYTES as u64) as usize];
        read_exact_at(source, piece, offset).map_err(|e| Error::io("read", from, e))?;
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
    let _ = fs.remove(&target.join(POINTER_NAME));
    for entry in fs.read_dir(target).unwrap_or_default() {
        let _ = fs.remove(&target.join(PathBuf::from(entry.name)));
    }
    let _ = fs.remove_dir(target);
}
