//! A directory of a file system as a place for snapshots.
//!
//! # Order of what is made durable
//! 1. The directory of the snapshot, and its name in the one above.
//! 2. The archive, then its name.
//! 3. The manifest under another name, then that name.
//! 4. The rename to `manifest.json`, which is the commit.
//!
//! Removing goes the other way, and the removal of the manifest is durable before the archive is touched. So whatever a loss
//! of power keeps of names that were not synced, a manifest never stands without its archive.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::Error as CoreError;
use vault_core::vfs::{
    DirEntry, EntryKind, File, FileSystem, LockGuard, LockOutcome, create_directories, parent_of,
    read_beginning,
};

use super::{ARCHIVE_FILE, Content, Destination, Found, MANIFEST_FILE, Upload};
use crate::archive::{Error, Result, SnapshotName};
use crate::syncer::{SYNC_BESIDE_BYTES, Syncer};

/// The manifest while it is being written.
const MANIFEST_NEW_FILE: &str = "manifest.json.new";
/// The file whose lock the writer of the repository holds.
const LOCK_FILE: &str = "repository.lock";

/// A repository in a directory, which is made when the first snapshot is.
///
/// ```
/// use std::sync::Arc;
/// use vault_core::vfs::MemoryFileSystem;
/// use vault_snapshot::destination::{Destination, Directory};
///
/// let place = Directory::new(Arc::new(MemoryFileSystem::new()), "/snapshots");
/// assert!(place.list().unwrap().is_empty());
/// ```
#[derive(Debug, Clone)]
pub struct Directory {
    file_system: Arc<dyn FileSystem>,
    root: PathBuf,
}

impl Directory {
    /// The directory at `root`, which need not exist yet.
    pub fn new(file_system: Arc<dyn FileSystem>, root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { file_system, root }
    }

    fn directory(&self, name: SnapshotName) -> PathBuf {
        self.root.join(name.to_string())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let synced = self.file_system.sync_dir(path);
        Ok(synced.map_err(|e| CoreError::io("sync", path, e))?)
    }

    /// Removes a file if it is there.
    fn remove_file(&self, path: &Path) -> Result<()> {
        match self.file_system.remove(path) {
            Err(error) if !is_absent(&error) => Err(CoreError::io("remove", path, error).into()),
            _ => Ok(()),
        }
    }

    /// Whether something has the manifest's name. A link, too: what cannot be read there was not interrupted.
    fn has_manifest(&self, name: SnapshotName) -> Result<bool> {
        let inside = self.entries(&self.directory(name))?;
        Ok(inside.iter().any(|entry| entry.name == MANIFEST_FILE))
    }

    fn entries(&self, path: &Path) -> Result<Vec<DirEntry>> {
        match self.file_system.read_dir(path) {
            Ok(entries) => Ok(entries),
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(CoreError::io("list", path, error).into()),
        }
    }

    fn begin_archive(&self, name: SnapshotName) -> Result<Box<dyn Upload>> {
        let directory = self.directory(name);
        let made = self.file_system.create_dir_all(&directory);
        made.map_err(|e| CoreError::io("create", &directory, e))?;
        self.sync_dir(&self.root)?;
        let path = directory.join(ARCHIVE_FILE);
        let file = self.file_system.create(&path);
        let file = file.map_err(|e| CoreError::io("create", &path, e))?;
        let file_system = Arc::clone(&self.file_system);
        Ok(Box::new(FileUpload {
            file_system,
            file,
            path,
            syncer: Syncer::default(),
            unsynced_bytes: 0,
        }))
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

impl Destination for Directory {
    fn location(&self, name: Option<SnapshotName>) -> String {
        match name {
            None => self.root.display().to_string(),
            Some(name) => self.directory(name).display().to_string(),
        }
    }

    fn lock(&self) -> Result<Option<Box<dyn LockGuard>>> {
        create_directories(&*self.file_system, &self.root)?;
        let path = self.root.join(LOCK_FILE);
        let holder = format!("process {}", std::process::id());
        let taken = self.file_system.lock(&path, &holder);
        match taken.map_err(|e| CoreError::io("lock", &path, e))? {
            LockOutcome::Acquired(guard) => Ok(Some(guard)),
            LockOutcome::Held(holder) => Err(Error::Busy {
                location: self.location(None),
                holder,
            }),
        }
    }

    fn list(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in self.entries(&self.root)? {
            let name = entry.name.to_str().and_then(|name| name.parse().ok());
            let Some(name) = name.filter(|_| entry.kind == EntryKind::Directory) else {
                continue;
            };
            let manifest = self.has_manifest(name)?;
            found.push(Found { name, manifest });
        }
        found.sort_unstable_by_key(|found| found.name);
        Ok(found)
    }

    fn begin(&self, name: SnapshotName) -> Result<Box<dyn Upload>> {
        // The lock says that nobody else is at it.
        self.begin_archive(name)
            .inspect_err(|_| drop(self.discard(name)))
    }

    fn publish(&self, name: SnapshotName, manifest: &[u8]) -> Result<()> {
        let directory = self.directory(name);
        let (new, path) = (
            directory.join(MANIFEST_NEW_FILE),
            directory.join(MANIFEST_FILE),
        );
        let kind = self.file_system.kind(&path);
        if kind
            .map_err(|e| CoreError::io("look at", &path, e))?
            .is_some()
        {
            return Err(Error::Busy {
                location: self.location(Some(name)),
                holder: "another snapshot of this name".into(),
            });
        }
        let io = |operation, e| CoreError::io(operation, &new, e);
        let file = self.file_system.create(&new).map_err(|e| io("create", e))?;
        file.write_at(manifest, 0).map_err(|e| io("write", e))?;
        file.sync().map_err(|e| io("sync", e))?;
        self.sync_dir(&directory)?;
        let renamed = self.file_system.rename(&new, &path);
        renamed.map_err(|e| CoreError::io("rename into place", &path, e))?;
        self.sync_dir(&directory)
    }

    fn manifest(&self, name: SnapshotName, bytes_max: u64) -> Result<Vec<u8>> {
        let path = self.directory(name).join(MANIFEST_FILE);
        let io = |operation, e: io::Error| CoreError::io(operation, &path, e);
        let absent = || Error::NoSuchSnapshot {
            name: name.to_string(),
            location: self.location(None),
        };
        match self.file_system.kind(&path).map_err(|e| io("look at", e))? {
            Some(EntryKind::File) => {}
            None if !self.has_manifest(name)? => return Err(absent()),
            _ => return Err(Error::damaged(path.display(), "it leads to no file")),
        }
        let file = match self.file_system.open(&path) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Err(absent()),
            Err(error) => return Err(io("open", error).into()),
        };
        let bytes = file.len().map_err(|e| io("look at", e))?;
        if bytes > bytes_max {
            return Err(Error::OverLimit {
                what: format!("bytes of {}", path.display()),
                found: bytes,
                max: bytes_max,
                setting: "manifest_bytes_max",
            });
        }
        Ok(read_beginning(&*file, bytes_max).map_err(|e| io("read", e))?)
    }

    fn archive(&self, name: SnapshotName) -> Result<Arc<dyn Content>> {
        let path = self.directory(name).join(ARCHIVE_FILE);
        match self.file_system.open(&path) {
            Ok(file) => Ok(Arc::new(FileContent(file))),
            Err(error) if is_absent(&error) => Err(Error::damaged(
                path.display(),
                "the manifest is there, and the archive is missing",
            )),
            Err(error) => Err(CoreError::io("open", &path, error).into()),
        }
    }

    fn withdraw(&self, name: SnapshotName) -> Result<()> {
        let directory = self.directory(name);
        self.remove_file(&directory.join(MANIFEST_FILE))?;
        match self.file_system.sync_dir(&directory) {
            Err(error) if !is_absent(&error) => {
                Err(CoreError::io("sync", &directory, error).into())
            }
            _ => Ok(()),
        }
    }

    fn discard(&self, name: SnapshotName) -> Result<()> {
        let directory = self.directory(name);
        self.remove_file(&directory.join(MANIFEST_NEW_FILE))?;
        self.remove_file(&directory.join(ARCHIVE_FILE))?;
        // What somebody else put there stays, and so does the directory around it.
        if self.entries(&directory)?.is_empty() {
            match self.file_system.remove_dir(&directory) {
                Err(error) if !is_absent(&error) => {
                    return Err(CoreError::io("remove", &directory, error).into());
                }
                _ => {}
            }
        }
        self.sync_dir(&self.root)
    }
}

/// An archive that is being written into a file.
struct FileUpload {
    file_system: Arc<dyn FileSystem>,
    file: Arc<dyn File>,
    path: PathBuf,
    syncer: Syncer,
    /// Written since it was last said that it could be synced.
    unsynced_bytes: u64,
}

impl Upload for FileUpload {
    fn rewrites(&self) -> bool {
        true
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        let written = self.file.write_at(bytes, offset);
        written.map_err(|e| CoreError::io("write", &self.path, e))?;
        self.unsynced_bytes += bytes.len() as u64;
        if self.unsynced_bytes >= SYNC_BESIDE_BYTES {
            self.unsynced_bytes = 0;
            self.syncer.hint(&self.file, &self.path)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.syncer.finish()?;
        let synced = self.file.sync();
        synced.map_err(|e| CoreError::io("sync", &self.path, e))?;
        let directory = parent_of(&self.path);
        let synced = self.file_system.sync_dir(&directory);
        Ok(synced.map_err(|e| CoreError::io("sync", &directory, e))?)
    }

    fn abort(&mut self) {
        drop(self.file_system.remove(&self.path));
    }
}

/// An archive in a file.
struct FileContent(Arc<dyn File>);

impl Content for FileContent {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.0.len()
    }
}
