//! A disk on which files of one kind come late and go late: what is between two steps of a thread lasts long enough to be seen.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vault_core::clock::{Clock as _, SystemClock};
use vault_core::vfs::{DirEntry, DiskFileSystem, EntryKind, File, FileSystem, LockOutcome};

#[derive(Debug)]
pub(crate) struct SlowFiles {
    /// Of the files that are slow.
    pub(crate) extension: &'static str,
    /// How long one is there before whoever creates it is told.
    pub(crate) created_late: Duration,
    /// How long it is still there after somebody has asked for its removal.
    pub(crate) removed_late: Duration,
    pub(crate) disk: DiskFileSystem,
}

impl SlowFiles {
    fn linger(&self, path: &Path, time: Duration) {
        if path
            .extension()
            .is_some_and(|extension| extension == self.extension)
        {
            SystemClock::new().sleep(time);
        }
    }
}

impl FileSystem for SlowFiles {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let created = self.disk.create(path);
        self.linger(path, self.created_late);
        created
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.linger(path, self.removed_late);
        self.disk.remove(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open(path)
    }

    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open_for_write(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        self.disk.hard_link(existing, link)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.read_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.disk.kind(path)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<LockOutcome> {
        self.disk.lock(path, holder)
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.disk.absolute(path)
    }
}
