//! The virtual file system: every byte an engine reads or writes goes through these two traits.
//!
//! [`DiskFileSystem`] is the real one. [`MemoryFileSystem`] keeps apart what is written, what is synced
//! and which directory entries are synced, can be cloned as a loss of power would leave it, and can
//! fail any operation with a chosen error.
//!
//! # The medium, as it is assumed
//! - Data is durable after [`File::sync`]; what was written since may survive whole, in part (in pieces
//!   of 512 bytes, in any order), or not at all.
//! - A directory entry (create, rename, link, remove) is durable after [`FileSystem::sync_dir`]. Entries
//!   changed since may survive or not, each for itself. A rename is atomic.
//! - Once a sync has failed, nothing is known about what was written since the last good one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod disk;
mod locked;
mod map;
mod memory;
mod set;

pub use disk::DiskFileSystem;
pub use locked::{LockLost, LockedFileSystem};
pub use map::{Claim, Claims, Syncs, WriteMap};
pub use memory::{CrashPolicy, Fault, FaultKind, MemoryFileSystem, OperationClass};
pub use set::FileSet;

/// A file system.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// Creates a file for reading and writing. Fails where the name is taken.
    ///
    /// # Errors
    /// The operating system's.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading. Never waits, whatever has this name.
    ///
    /// # Errors
    /// The operating system's, also where it is no file.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// The operating system's.
    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Renames a file atomically, replacing the target.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name. Fails where the name is taken.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::CrossesDevices`] between file systems.
    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory in one that is there. Fails where the name is taken: of several that ask for it, one gets it.
    ///
    /// # Errors
    /// The operating system's.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory and those above it. Existing ones are no error.
    ///
    /// # Errors
    /// The operating system's.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The operating system's.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Lists the entries of a directory, in no particular order.
    ///
    /// # Errors
    /// The operating system's.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Makes the entries of a directory durable.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Whether the path exists, and as what.
    ///
    /// # Errors
    /// The operating system's, other than that it does not exist.
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>>;

    /// Takes the exclusive lock kept in a file (created where missing), and writes `holder` into it so
    /// that others can tell who has it.
    ///
    /// # Errors
    /// The operating system's.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<LockOutcome>;

    /// The same path, written so that it leads to the same place wherever the process goes: from the root
    /// on, where this file system knows a working directory. Links are left alone.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::InvalidInput`] for an empty path.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        if path.as_os_str().is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path is empty",
            ));
        }
        Ok(path.to_path_buf())
    }
}

/// An open file. Reads and writes name their offset, so that threads can share it.
pub trait File: Send + Sync + fmt::Debug {
    /// Reads into the whole buffer, or up to the end of the file; gives the number of bytes read.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes the whole buffer, extending the file where needed.
    ///
    /// # Errors
    /// The operating system's; some of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Puts the file's data, and what is needed to find it again, on stable storage.
    ///
    /// # Errors
    /// The operating system's. Final: see the [module](self).
    fn sync(&self) -> io::Result<()>;

    /// Reserves space up to `len` and extends the file with zeros to that length.
    ///
    /// # Errors
    /// The operating system's, [`io::ErrorKind::StorageFull`] above all: space that was reserved never
    /// runs out afterwards.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// The operating system's.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Maps the first `len` bytes for writing. Space must have been [allocated](Self::allocate) up to
    /// there. What is written through the map is handed to the operating system at once, and durable
    /// after [`File::sync`].
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where this file system does not map; else the operating system's.
    fn map(&self, len: usize) -> io::Result<Box<dyn WriteMap>>;
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name within the directory.
    pub name: std::ffi::OsString,
    /// What it is.
    pub kind: EntryKind,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// Something else: a socket, a device.
    Other,
}

/// What became of taking a lock.
#[derive(Debug)]
pub enum LockOutcome {
    /// Taken; held until the guard is dropped.
    Acquired(Box<dyn LockGuard>),
    /// Somebody else has it, who says of itself:
    Held(String),
}

/// Holds a lock until dropped.
pub trait LockGuard: Send + Sync + fmt::Debug {
    /// Whether the path under which the lock was taken still leads to the locked file. Where it does not,
    /// the directory around it was moved, removed or replaced.
    ///
    /// # Errors
    /// The operating system's, other than that nothing is there.
    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// Reads exactly `buffer.len()` bytes at `offset`.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] where the file ends before.
pub fn read_exact_at(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let read = file.read_at(buffer, offset)?;
    if read < buffer.len() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "{} bytes wanted at byte {offset}, {read} are there",
                buffer.len()
            ),
        ));
    }
    Ok(())
}

/// Reads as [`File::read_at`] does, and holds it to its word: a read that gives fewer bytes than the file has
/// is an error, because what comes after would look as if it had never been written.
///
/// # Errors
/// The operating system's, and [`io::ErrorKind::UnexpectedEof`] where a read ends before the file does.
pub fn read_up_to(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let read = file.read_at(buffer, offset)?;
    // Another process may have cut the file meanwhile: its length now is what counts.
    if read < buffer.len() && file.len()? > offset + read as u64 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "{} bytes wanted at byte {offset}, {read} were given",
                buffer.len()
            ),
        ));
    }
    Ok(read)
}

/// Reads a whole file, as [`read_up_to`] does.
///
/// # Errors
/// As [`read_up_to`].
pub fn read_whole(file: &dyn File) -> io::Result<Vec<u8>> {
    read_beginning(file, u64::MAX)
}

/// Reads the first bytes of a file: `bytes_max`, or as many as there are.
///
/// # Errors
/// As [`read_whole`].
pub fn read_beginning(file: &dyn File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?.min(bytes_max);
    let too_long = |_| io::Error::new(io::ErrorKind::OutOfMemory, format!("{len} bytes"));
    let mut bytes = vec![0; usize::try_from(len).map_err(too_long)?];
    let read = read_up_to(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The directory that holds `path` (`.` for a bare name).
#[must_use]
pub fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Creates a directory and those above it, durably: each new one is an entry of the one above. The entry
/// of a directory that is there already is made durable too: whoever created it may not have done so.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io); then what was made is removed again, as far as that can be done.
pub fn create_directories(fs: &dyn FileSystem, directory: &Path) -> crate::Result<()> {
    let above = directories_above(fs, directory)?;
    fs.create_dir_all(directory).map_err(|e| {
        remove_made(fs, &above);
        crate::Error::io("create directory", directory, e)
    })?;
    sync_all(fs, &above)
}

/// As [`create_directories`], but the directory itself must be new: where this is `Ok`, nobody else has created it.
///
/// # Errors
/// [`Error::TargetExists`](crate::Error::TargetExists) where the name is taken, also by somebody who was faster;
/// [`Error::Io`](crate::Error::Io). Then what was made is removed again, as far as that can be done, and nothing else.
pub fn create_new_directory(fs: &dyn FileSystem, directory: &Path) -> crate::Result<()> {
    let above = directories_above(fs, directory)?;
    let parents = match above.first() {
        Some(parent) if above.len() > 1 => fs.create_dir_all(parent),
        _ => Ok(()),
    };
    parents.map_err(|e| {
        remove_made(fs, &above);
        crate::Error::io("create directory", directory, e)
    })?;
    fs.create_dir(directory).map_err(|e| {
        remove_made(fs, &above);
        match e.kind() {
            io::ErrorKind::AlreadyExists => crate::Error::TargetExists {
                path: directory.to_path_buf(),
            },
            _ => crate::Error::io("create directory", directory, e),
        }
    })?;
    sync_all(fs, &above).inspect_err(|_| {
        let _ = fs.remove_dir(directory);
        remove_made(fs, &above);
    })
}

/// The directories above one, the nearest first, up to the first that is there.
fn directories_above(fs: &dyn FileSystem, directory: &Path) -> crate::Result<Vec<PathBuf>> {
    let mut above = vec![parent_of(directory)];
    while let Some(path) = above.last()
        && fs
            .kind(path)
            .map_err(|e| crate::Error::io("look at", path, e))?
            .is_none()
    {
        let parent = parent_of(path);
        if parent == *path {
            break;
        }
        above.push(parent);
    }
    Ok(above)
}

/// Removes what was made of the directories above one. Those are empty: only such can be removed. The topmost was there.
fn remove_made(fs: &dyn FileSystem, above: &[PathBuf]) {
    let made = above.len().saturating_sub(1);
    for path in &above[..made] {
        let _ = fs.remove_dir(path);
    }
}

fn sync_all(fs: &dyn FileSystem, directories: &[PathBuf]) -> crate::Result<()> {
    directories.iter().try_for_each(|path| {
        fs.sync_dir(path)
            .map_err(|e| crate::Error::io("sync directory", path, e))
    })
}
