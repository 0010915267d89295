//! A file system that works in a directory only while its lock is held, and in place.
//!
//! Files are named by paths, and a directory can be moved, removed or replaced under a program that works in
//! it. Then the same paths lead to nothing, or to files of somebody else, who may have locked the new directory
//! for himself. So before a name in the directory is used, the lock file is looked at: where the path does
//! not lead to the file that was locked, the operation is refused with [`LockLost`]. What is open stays
//! usable, because it needs no name.
//!
//! The look and the use are two steps. Whoever replaces a directory between them, within a microsecond, gets
//! past; what can never happen is that a handle goes on working in a directory that is not its own.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DirEntry, EntryKind, File, FileSystem, LockGuard, LockOutcome};

/// Why a name could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockLost {
    /// The path does not lead to the locked directory any more.
    Displaced(PathBuf),
    /// The lock was let go of.
    Released,
}

impl fmt::Display for LockLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Displaced(path) => write!(f, "{} was moved, removed or replaced", path.display()),
            Self::Released => f.write_str("the lock of the directory was let go of"),
        }
    }
}

impl std::error::Error for LockLost {}

/// A file system that works in a directory only while its lock is held, and in place.
///
/// Before a name in the directory is used, the lock file is looked at: where its path does not lead to the file
/// that was locked, the operation is refused with [`LockLost`].
#[derive(Debug)]
pub struct LockedFileSystem {
    inner: Arc<dyn FileSystem>,
    directory: PathBuf,
    guard: Mutex<Option<Box<dyn LockGuard>>>,
}

impl LockedFileSystem {
    /// Works in `directory` for as long as `guard` holds.
    #[must_use]
    pub fn new(inner: Arc<dyn FileSystem>, directory: &Path, guard: Box<dyn LockGuard>) -> Self {
        Self {
            inner,
            directory: directory.to_path_buf(),
            guard: Mutex::new(Some(guard)),
        }
    }

    /// Lets go of the lock. From here on no name in the directory is used.
    pub fn release(&self) {
        self.guard().take();
    }

    /// Refuses a name in the directory where the lock does not hold. Other names are the caller's own.
    fn check(&self, path: &Path) -> io::Result<()> {
        if path != self.directory && path.parent() != Some(&self.directory) {
            return Ok(());
        }
        match &*self.guard() {
            None => Err(io::Error::other(LockLost::Released)),
            Some(guard) if guard.is_in_place()? => Ok(()),
            Some(_) => Err(io::Error::other(LockLost::Displaced(
                self.directory.clone(),
            ))),
        }
    }

    fn guard(&self) -> MutexGuard<'_, Option<Box<dyn LockGuard>>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileSystem for LockedFileSystem {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check(path)?;
        self.inner.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check(path)?;
        self.inner.open(path)
    }

    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check(path)?;
        self.inner.open_for_write(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(from)?;
        self.check(to)?;
        self.inner.rename(from, to)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        self.check(existing)?;
        self.check(link)?;
        self.inner.hard_link(existing, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(path)?;
        self.inner.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.check(path)?;
        self.inner.create_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.check(path)?;
        self.inner.remove_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.check(path)?;
        self.inner.read_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.check(path)?;
        self.inner.sync_dir(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.check(path)?;
        self.inner.kind(path)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<LockOutcome> {
        self.inner.lock(path, holder)
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.absolute(path)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::vfs::MemoryFileSystem;
    use crate::{Error, ErrorKind};

    #[derive(Debug)]
    struct Guard(Arc<AtomicBool>);

    impl LockGuard for Guard {
        fn is_in_place(&self) -> io::Result<bool> {
            Ok(self.0.load(Ordering::Relaxed))
        }
    }

    /// Every verb that takes a name, on one in the directory.
    fn verbs(fs: &LockedFileSystem) -> Vec<io::Result<()>> {
        let path = |name: &str| Path::new("/store").join(name);
        vec![
            fs.open(&path("a")).map(drop),
            fs.open_for_write(&path("a")).map(drop),
            fs.kind(&path("a")).map(drop),
            fs.create(&path("b")).map(drop),
            fs.rename(&path("b"), &path("c")),
            fs.hard_link(&path("c"), Path::new("/elsewhere")),
            fs.remove(Path::new("/elsewhere")),
            fs.remove(&path("c")),
            fs.read_dir(Path::new("/store")).map(drop),
            fs.sync_dir(Path::new("/store")),
            fs.create_dir(&path("d")),
            fs.remove_dir(&path("d")),
        ]
    }

    #[test]
    fn names_are_used_only_while_the_lock_holds_and_is_in_place() {
        let memory = MemoryFileSystem::new();
        memory.create_dir_all(Path::new("/store")).unwrap();
        memory.write_file("/store/a", b"a").unwrap();
        let in_place = Arc::new(AtomicBool::new(true));
        let guard = Box::new(Guard(Arc::clone(&in_place)));
        let fs = LockedFileSystem::new(Arc::new(memory.clone()), Path::new("/store"), guard);
        for outcome in verbs(&fs) {
            outcome.unwrap();
        }
        let before = memory.list();
        in_place.store(false, Ordering::Relaxed);
        memory.write_file("/elsewhere", b"").unwrap();
        for (index, outcome) in verbs(&fs).into_iter().enumerate() {
            // The one name that is not in the directory.
            let Err(error) = outcome else {
                assert_eq!(index, 6);
                continue;
            };
            let error = Error::io("use", Path::new("/store/a"), error);
            assert!(
                matches!(&error, Error::Displaced { path } if path == "/store"),
                "{error:?}"
            );
            assert_eq!(error.kind(), ErrorKind::Reopen);
        }
        assert_eq!(memory.list(), before);
        in_place.store(true, Ordering::Relaxed);
        fs.open(Path::new("/store/a")).unwrap();
        fs.release();
        let error = fs.open(Path::new("/store/a")).map(drop).unwrap_err();
        let error = Error::io("open", Path::new("/store/a"), error);
        assert!(matches!(error, Error::Closed), "{error:?}");
    }
}
