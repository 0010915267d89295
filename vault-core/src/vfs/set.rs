//! A directory that is nowhere: files that are at hand, under names, for reading only.
//!
//! With it a store can be opened where it lies within something else, an archive or a capture, without being unpacked first.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DirEntry, EntryKind, File, FileSystem, LockGuard, LockOutcome};

/// A file system of one directory, whose files are at hand and are only read.
///
/// Whatever would change something is refused with [`io::ErrorKind::ReadOnlyFilesystem`].
///
/// ```
/// use std::path::Path;
/// use vault_core::vfs::{FileSet, FileSystem, MemoryFileSystem};
/// # fn main() -> std::io::Result<()> {
/// let elsewhere = MemoryFileSystem::new();
/// elsewhere.write_file("/000001.table", b"entries")?;
/// let set = FileSet::new("/store", [("000001.table", elsewhere.open(Path::new("/000001.table"))?)]);
/// assert_eq!(set.open(Path::new("/store/000001.table"))?.len()?, 7);
/// assert!(set.create(Path::new("/store/another")).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FileSet {
    directory: PathBuf,
    files: BTreeMap<String, Arc<dyn File>>,
}

impl FileSet {
    /// A directory of these files, under a path of the caller's choice.
    pub fn new<N: Into<String>>(
        directory: impl Into<PathBuf>,
        files: impl IntoIterator<Item = (N, Arc<dyn File>)>,
    ) -> Self {
        let files = files.into_iter().map(|(name, file)| (name.into(), file));
        Self {
            directory: directory.into(),
            files: files.collect(),
        }
    }

    /// The path of the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn find(&self, path: &Path) -> Option<&Arc<dyn File>> {
        let name = path.strip_prefix(&self.directory).ok()?.to_str()?;
        self.files.get(name)
    }
}

fn refuse<T>() -> io::Result<T> {
    let problem = "these files are for reading only";
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, problem))
}

/// Nobody writes here, so everybody may have the lock.
#[derive(Debug)]
struct Unshared;

impl LockGuard for Unshared {}

impl FileSystem for FileSet {
    fn create(&self, _: &Path) -> io::Result<Arc<dyn File>> {
        refuse()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let found = self.find(path).map(Arc::clone);
        found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn open_for_write(&self, _: &Path) -> io::Result<Arc<dyn File>> {
        refuse()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        match path == self.directory {
            true => Ok(()),
            false => refuse(),
        }
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        if path != self.directory {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let entries = self.files.keys().map(|name| DirEntry {
            name: name.into(),
            kind: EntryKind::File,
        });
        Ok(entries.collect())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        if path == self.directory {
            return Ok(Some(EntryKind::Directory));
        }
        Ok(self.find(path).map(|_| EntryKind::File))
    }

    fn lock(&self, _: &Path, _: &str) -> io::Result<LockOutcome> {
        Ok(LockOutcome::Acquired(Box::new(Unshared)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::MemoryFileSystem;

    fn set() -> FileSet {
        let elsewhere = MemoryFileSystem::new();
        elsewhere.write_file("/a", b"first").unwrap();
        elsewhere.write_file("/b", b"second").unwrap();
        let open = |name: &str| elsewhere.open(&Path::new("/").join(name)).unwrap();
        FileSet::new("/store", [("one", open("a")), ("two", open("b"))])
    }

    #[test]
    fn what_is_there_is_found_and_nothing_else() {
        let set = set();
        let names: Vec<_> = set.read_dir(Path::new("/store")).unwrap();
        assert_eq!(names.len(), 2);
        let kind = |path: &str| set.kind(Path::new(path)).unwrap();
        assert_eq!(kind("/store"), Some(EntryKind::Directory));
        assert_eq!(kind("/store/one"), Some(EntryKind::File));
        assert_eq!(kind("/store/three"), None);
        assert_eq!(kind("/elsewhere/one"), None);
        assert!(set.read_dir(Path::new("/elsewhere")).is_err());
        let missing = set.open(Path::new("/store/../a")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let mut bytes = [0; 6];
        let two = set.open(Path::new("/store/two")).unwrap();
        assert_eq!(two.read_at(&mut bytes, 0).unwrap(), 6);
        assert_eq!(&bytes, b"second");
    }

    #[test]
    fn nothing_can_be_changed() {
        let set = set();
        let one = Path::new("/store/one");
        let refusals = [
            set.create(Path::new("/store/new")).map(drop),
            set.open_for_write(one).map(drop),
            set.rename(one, Path::new("/store/uno")),
            set.hard_link(one, Path::new("/store/uno")),
            set.remove(one),
            set.remove_dir(Path::new("/store")),
            set.create_dir(Path::new("/store/new")),
            set.create_dir_all(Path::new("/other")),
        ];
        for refusal in refusals {
            let error = refusal.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
    }
}
