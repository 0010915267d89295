//! Marking files as those of a copy, so that who opens them for writing makes them an instance of its own.
//!
//! Checkpoints and captures need none of it: their manifest says what they are. A copy that was made file by file has the manifest of
//! the original, so the mark lies beside it, as an empty word: that the file is there is all that counts. Whoever takes it away gains
//! nothing: every file has a key of its own by its random salt, with or without another epoch.

use std::io;
use std::path::Path;

use vault_core::vfs::{EntryKind, FileSystem};
use vault_core::{Error, Result};

use crate::directory::{Found, look_at, place, take_lock};
use crate::layout::RESTORED_NAME;

/// What stands in the mark, for people who come across it.
const TEXT: &[u8] =
    b"These files are a copy. The next opening for writing makes them a store of their own, \
and removes this mark.\n";

/// Marks the store in `directory`, which nobody has open, as a copy: of its files, made by whatever means, or of a machine as a
/// whole. The next opening for writing draws a new [instance](crate::Lsm::instance) and, where the store is encrypted,
/// begins a new epoch of keys before it writes anything. What [`Lsm::checkpoint`](crate::Lsm::checkpoint) and
/// [`Lsm::capture`](crate::Lsm::capture) make is marked already. Marking twice is no error.
///
/// ```
/// # use vault_core::vfs::DiskFileSystem;
/// # use vault_core::Engine;
/// # use vault_lsm::{Lsm, LsmOptions, mark_restored};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let store = Lsm::open(directory.path(), LsmOptions::default())?;
/// let original = store.instance();
/// store.close()?;
/// // The files are copied to another machine, and there:
/// mark_restored(&DiskFileSystem::new(), directory.path())?;
/// let copy = Lsm::open(directory.path(), LsmOptions::default())?;
/// assert_ne!(copy.instance(), original);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::NoSuchStore`], [`Error::NotAStore`], [`Error::AlreadyOpen`], [`Error::Io`], [`Error::DiskFull`]. After these the store
/// is not marked, or is; nothing else of it was changed.
pub fn mark_restored(fs: &dyn FileSystem, directory: impl AsRef<Path>) -> Result<()> {
    let directory = &place(fs, directory.as_ref())?;
    let path = directory.to_path_buf();
    match look_at(fs, directory)? {
        Found::Store => {}
        Found::Foreign(problem) => return Err(Error::NotAStore { path, problem }),
        Found::Nothing | Found::Empty => return Err(Error::NoSuchStore { path }),
    }
    let _lock = take_lock(fs, directory)?;
    let mark = &directory.join(RESTORED_NAME);
    let made = (|| match fs.create(mark) {
        Ok(file) => {
            file.write_at(TEXT, 0)?;
            file.sync()
        }
        // It may not be durable yet.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    })();
    made.map_err(|e| Error::io("mark the store as a copy with", mark, e))?;
    fs.sync_dir(directory)
        .map_err(|e| Error::io("sync directory", directory, e))
}

/// Whether the store in `directory` is marked.
pub(crate) fn is_marked(fs: &dyn FileSystem, directory: &Path) -> Result<bool> {
    let mark = directory.join(RESTORED_NAME);
    let kind = fs.kind(&mark).map_err(|e| Error::io("look at", &mark, e))?;
    Ok(kind == Some(EntryKind::File))
}

/// Takes the mark away, durably.
pub(crate) fn unmark(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    let mark = directory.join(RESTORED_NAME);
    fs.remove(&mark)
        .map_err(|e| Error::io("remove", &mark, e))?;
    fs.sync_dir(directory)
        .map_err(|e| Error::io("sync directory", directory, e))
}
