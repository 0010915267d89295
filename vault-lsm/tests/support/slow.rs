//! A disk whose log segments come late and go late: what is between two steps of a thread lasts long enough to be seen.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vault_core::clock::{Clock as _, SystemClock};
use vault_core::vfs::{DirEntry, DiskFileSystem, EntryKind, File, FileSystem, LockOutcome};

/// How long a log segment is there before whoever creates it is told.
const CREATED_LATE: Duration = Duration::from_millis(100);
/// How long it is still there after somebody has asked for its removal.
const REMOVED_LATE: Duration = Duration::from_millis(150);

#[derive(Debug)]
pub(crate) struct SlowLogs(DiskFileSystem);

impl SlowLogs {
    pub(crate) fn new() -> Self {
        Self(DiskFileSystem::new())
    }
}

fn linger(path: &Path, time: Duration) {
    if path.extension().is_some_and(|extension| extension == "log") {
        SystemClock::new().sleep(time);
    }
}

impl FileSystem for SlowLogs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let created = self.0.create(path);
        linger(path, CREATED_LATE);
        created
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        linger(path, REMOVED_LATE);
        self.0.remove(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.open(path)
    }

    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.open_for_write(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        self.0.hard_link(existing, link)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.read_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.0.kind(path)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<LockOutcome> {
        self.0.lock(path, holder)
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.absolute(path)
    }
}
