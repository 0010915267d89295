//! Checkpoints: a copy of the store in another directory that shares its tables and blob files.
//!
//! Stock is taken of one moment ([`crate::stock`]), the tables and blob files of that moment are linked, and the copy's own
//! files written, the pointer last: without it the directory is no store.
//!
//! # Whose the directory is
//! It is created by an operation that fails where the name is taken, so that of several checkpoints to one path, in this process
//! or in others, one gets it. Where a checkpoint fails, it removes the files that it made itself, and no others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::transform::FileKind;
use vault_core::vfs::{File, FileSystem, create_new_directory, read_exact_at};
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
    // Before anything is flushed for it. Whether the name is free still, creating the directory tells.
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
    create_new_directory(&**fs, target)?;
    let mut begun = Begun {
        fs: &**fs,
        directory: target,
        files: Vec::new(),
    };
    let outcome = fill(store, &mut begun, &stock).inspect_err(|_| begun.remove())?;
    let bytes_shared = outcome.bytes_linked;
    store.env.emit(&Event::Checkpointed {
        path: target.to_path_buf(),
        bytes_shared,
    });
    Ok(outcome)
}

/// A directory that this checkpoint has created, and what it has put there.
struct Begun<'a> {
    fs: &'a dyn FileSystem,
    directory: &'a Path,
    files: Vec<PathBuf>,
}

impl Begun<'_> {
    /// Links a file, or copies it where that is not possible. Gives whether it was linked.
    fn share(&mut self, from: &Path, name: &str) -> Result<bool> {
        let to = self.directory.join(name);
        match self.fs.hard_link(from, &to) {
            Ok(()) => {
                self.files.push(to);
                Ok(true)
            }
            Err(e) if cannot_link(&e) => {
                let source = self.fs.open(from).map_err(|e| Error::io("open", from, e))?;
                self.write(&*source, from, to).map(|()| false)
            }
            Err(e) => Err(Error::io("link", &to, e)),
        }
    }

    /// Writes what a file holds that was opened at `from`, durably but for the name.
    fn write(&mut self, source: &dyn File, from: &Path, to: PathBuf) -> Result<()> {
        let file = self.fs.create(&to);
        let file = file.map_err(|e| Error::io("create", &to, e))?;
        let written = fill_file(source, from, &*file, &to);
        self.files.push(to);
        written
    }

    fn sync(&self) -> Result<()> {
        let synced = self.fs.sync_dir(self.directory);
        synced.map_err(|e| Error::io("sync directory", self.directory, e))
    }

    /// Removes what was made, best effort, the pointer first: without it the rest is no store.
    fn remove(&self) {
        for path in self.files.iter().rev() {
            let _ = self.fs.remove(path);
        }
        let _ = self.fs.remove_dir(self.directory);
    }
}

fn fill(store: &Store, begun: &mut Begun<'_>, stock: &Stock) -> Result<CheckpointOutcome> {
    let mut outcome = CheckpointOutcome {
        sequence: stock.sequence,
        ..Default::default()
    };
    let mut share = |kind: FileKind, number: u64| {
        let name = file_name(kind, number);
        begun.share(&store.env.directory.join(&name), &name)
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
    for made in &stock.made {
        let path = begun.directory.join(&made.name);
        if made.name == POINTER_NAME {
            begun.sync()?;
            let unfinished = format!("{POINTER_NAME}{UNFINISHED_SUFFIX}");
            let unfinished = begun.directory.join(unfinished);
            begun.write(&*made.content, &path, unfinished.clone())?;
            begun.files.push(path.clone());
            let renamed = begun.fs.rename(&unfinished, &path);
            renamed.map_err(|e| Error::io("rename", &unfinished, e))?;
        } else {
            begun.write(&*made.content, &path, path.clone())?;
        }
    }
    begun.sync()?;
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
    fill_file(&*source, from, &*target, to)
}

/// Writes what one file holds into another, durably.
fn fill_file(source: &dyn File, from: &Path, target: &dyn File, to: &Path) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use vault_core::vfs::MemoryFileSystem;

    use super::*;

    #[test]
    fn what_is_removed_is_what_was_made() {
        let fs = MemoryFileSystem::new();
        fs.write_file("/source", b"entries").unwrap();
        let directory = Path::new("/copy");
        create_new_directory(&fs, directory).unwrap();
        let mut begun = Begun {
            fs: &fs,
            directory,
            files: Vec::new(),
        };
        let source = Path::new("/source");
        assert!(begun.share(source, "linked").unwrap());
        let content = fs.open(source).unwrap();
        let written = begun.write(&*content, source, directory.join("written"));
        written.unwrap();
        // Somebody else's: one that was in the way, and one that was not.
        for theirs in ["/copy/taken", "/copy/beside"] {
            fs.write_file(theirs, b"theirs").unwrap();
        }
        assert!(begun.share(source, "taken").is_err());
        let taken = begun.write(&*content, source, directory.join("taken"));
        assert!(taken.is_err());
        begun.remove();
        let left: Vec<_> = fs.list().into_iter().map(|(path, _)| path).collect();
        let expected = ["/copy/beside", "/copy/taken", "/source"].map(PathBuf::from);
        assert_eq!(left, expected);
        assert_eq!(fs.read_file("/copy/taken").unwrap(), b"theirs");
    }
}
