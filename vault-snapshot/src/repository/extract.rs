//! Restoring: a directory out of a snapshot, whole or not at all.
//!
//! 1. The target is absent or an empty directory.
//! 2. All of the snapshot is read and found whole. Until here nothing was written anywhere.
//! 3. The lock beside the target, `<target>.restoring.lock`, is taken: one restore at a time. It also says whose
//!    `<target>.restoring` is, so that what a crash left there can be removed, and nothing else ever is.
//! 4. The files are written into `<target>.restoring`, their hashes held against the manifest once more, and synced.
//! 5. The host prepares what was restored.
//! 6. `<target>.restoring` is renamed to the target, and that is made durable.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::Error as CoreError;
use vault_core::vfs::{
    EntryKind, File, FileSystem, LockGuard, LockOutcome, create_directories, parent_of,
};

use super::Repository;
use super::check::Receiver;
use crate::archive::path::{STORE_PREFIX, VAULTS_PREFIX};
use crate::archive::{BoxError, Entry, Error, Progress, Result, SnapshotName, Watcher};
use crate::syncer::{SYNC_BESIDE_BYTES, Syncer};

/// What is appended to the name of a target for the directory that becomes it.
const TEMPORARY_SUFFIX: &str = ".restoring";
/// And for the file whose lock is held meanwhile.
const LOCK_SUFFIX: &str = ".restoring.lock";

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// Where to.
    pub target: PathBuf,
    /// Files that were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Repository {
    /// Restores a snapshot into a directory that does not exist, or is empty.
    ///
    /// A file of the store, `store/<file>` in the archive, becomes `<target>/<file>`; a document, `vaults/<name>.json`, becomes
    /// `<target>/<name>.json`. Entries that `filter` does not want are left out, but verified with the rest. `prepare` is called
    /// with the directory before it becomes the target: what it changes it syncs itself.
    ///
    /// # Errors
    /// - [`Error::TargetOccupied`]: something is there; [`Error::Busy`]: it is being restored already.
    /// - [`Error::Damaged`], [`Error::Parent`] and the like, as [`verify`](Self::verify) gives them: nothing was written.
    /// - [`Error::Prepare`], [`Error::Cancelled`], and what the file system says, a full disk above all: what was written
    ///   was removed, and the target is as it was. Only where the directory above it cannot be synced in the end, the target is
    ///   there, whole, and a loss of power may take it.
    pub fn extract(
        &self,
        name: SnapshotName,
        file_system: &dyn FileSystem,
        target: &Path,
        filter: &dyn Fn(&Entry) -> bool,
        prepare: impl FnOnce(&Path) -> Result<(), BoxError>,
        watcher: &dyn Watcher,
    ) -> Result<Extracted> {
        let place = Place::new(file_system, target)?;
        place.check_target()?;
        let manifest = self.load(name)?.manifest;
        let chain = self.chain(&manifest)?;
        let chosen = manifest.entries.iter().filter(|entry| filter(entry));
        let (files, bytes) = chosen.fold((0, 0), |(n, b), entry| (n + 1, b + entry.bytes));
        let mut progress = Progress::begin(watcher, manifest.bytes() + bytes)?;
        self.read_content(&manifest, &chain, &|_| true, &mut (), &mut progress)?;

        let lock = place.lock()?;
        let restored = place.make_temporary().and_then(|directories| {
            let mut writer = Writer {
                place: &place,
                directories,
                file: None,
                syncer: Syncer::default(),
            };
            self.read_content(&manifest, &chain, filter, &mut writer, &mut progress)?;
            writer.syncer.finish()?;
            let directories = writer.directories;
            prepare(&place.temporary).map_err(|source| Error::Prepare {
                path: place.temporary.clone(),
                source,
            })?;
            place.put_in_place(&directories)
        });
        // Where something stays behind, so does the file that says whose it is.
        if restored.is_ok() || remove_tree(file_system, &place.temporary).is_ok() {
            place.unlock(lock);
        }
        restored.map(|()| Extracted {
            target: place.target.clone(),
            files,
            bytes,
        })
    }
}

/// A target, and the names beside it that are needed for a moment.
struct Place<'a> {
    file_system: &'a dyn FileSystem,
    target: PathBuf,
    temporary: PathBuf,
    lock_file: PathBuf,
    parent: PathBuf,
}

impl<'a> Place<'a> {
    fn new(file_system: &'a dyn FileSystem, target: &Path) -> Result<Self> {
        let absolute = file_system.absolute(target);
        let target = absolute.map_err(|e| CoreError::io("find", target, e))?;
        let Some(name) = target.file_name() else {
            let shown = target.display();
            return Err(Error::request(format!("{shown} cannot be restored into")));
        };
        let beside = |suffix: &str| {
            let mut beside = OsString::from(name);
            beside.push(suffix);
            target.with_file_name(beside)
        };
        Ok(Self {
            file_system,
            temporary: beside(TEMPORARY_SUFFIX),
            lock_file: beside(LOCK_SUFFIX),
            parent: parent_of(&target),
            target,
        })
    }

    fn kind(&self, path: &Path) -> Result<Option<EntryKind>> {
        let kind = self.file_system.kind(path);
        Ok(kind.map_err(|e| CoreError::io("look at", path, e))?)
    }

    fn is_empty(&self, path: &Path) -> Result<bool> {
        let entries = self.file_system.read_dir(path);
        Ok(entries
            .map_err(|e| CoreError::io("list", path, e))?
            .is_empty())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let synced = self.file_system.sync_dir(path);
        Ok(synced.map_err(|e| CoreError::io("sync", path, e))?)
    }

    /// Refuses a target in which there is something.
    fn check_target(&self) -> Result<()> {
        let problem = match self.kind(&self.target)? {
            None => return Ok(()),
            Some(EntryKind::Directory) if self.is_empty(&self.target)? => return Ok(()),
            Some(EntryKind::Directory) => "it is not empty; give a directory that does not exist",
            Some(_) => "it is no directory; give a directory that does not exist",
        };
        Err(self.occupied(&self.target, problem))
    }

    fn occupied(&self, path: &Path, problem: &str) -> Error {
        Error::TargetOccupied {
            path: path.to_path_buf(),
            problem: problem.to_owned(),
        }
    }

    /// Takes the lock, and sees to it that nothing stands at the temporary name.
    fn lock(&self) -> Result<Box<dyn LockGuard>> {
        create_directories(self.file_system, &self.parent)?;
        let ours_before = self.kind(&self.lock_file)?.is_some();
        let busy = |holder: String| Error::Busy {
            location: self.target.display().to_string(),
            holder,
        };
        let holder = format!("a restore by process {}", std::process::id());
        let outcome = self.file_system.lock(&self.lock_file, &holder);
        let outcome = outcome.map_err(|e| CoreError::io("lock", &self.lock_file, e))?;
        let guard = match outcome {
            LockOutcome::Acquired(guard) => guard,
            LockOutcome::Held(holder) => return Err(busy(holder)),
        };
        let in_place = guard.is_in_place();
        if !in_place.map_err(|e| CoreError::io("look at", &self.lock_file, e))? {
            return Err(busy("a restore that has just ended".into()));
        }
        let ready = self
            .clear_temporary(ours_before)
            .and_then(|()| self.check_target());
        match ready {
            Ok(()) => Ok(guard),
            Err(error) => {
                if !ours_before {
                    self.unlock(guard);
                }
                Err(error)
            }
        }
    }

    /// Removes what a crash left at the temporary name, and refuses what is somebody else's.
    fn clear_temporary(&self, ours: bool) -> Result<()> {
        match self.kind(&self.temporary)? {
            None => Ok(()),
            Some(EntryKind::Directory) if ours || self.is_empty(&self.temporary)? => {
                let removed = remove_tree(self.file_system, &self.temporary);
                Ok(removed.map_err(|e| CoreError::io("remove", &self.temporary, e))?)
            }
            Some(_) => Err(self.occupied(
                &self.temporary,
                "this name is needed for a moment, and something is there; move it away",
            )),
        }
    }

    /// Makes the directory that becomes the target; gives the directories that are to be synced.
    fn make_temporary(&self) -> Result<BTreeSet<PathBuf>> {
        // From here on a crash leaves a lock file wherever it leaves anything.
        self.sync_dir(&self.parent)?;
        let made = self.file_system.create_dir_all(&self.temporary);
        made.map_err(|e| CoreError::io("create", &self.temporary, e))?;
        Ok(BTreeSet::from([self.temporary.clone()]))
    }

    fn put_in_place(&self, directories: &BTreeSet<PathBuf>) -> Result<()> {
        for directory in directories.iter().rev() {
            self.sync_dir(directory)?;
        }
        match self.file_system.rename(&self.temporary, &self.target) {
            Ok(()) => self.sync_dir(&self.parent),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty
                        | io::ErrorKind::AlreadyExists
                        | io::ErrorKind::NotADirectory
                ) =>
            {
                Err(self.occupied(&self.target, "something was put there meanwhile"))
            }
            Err(error) => Err(CoreError::io("rename into place", &self.target, error).into()),
        }
    }

    /// Removes the lock file while the lock is still held, so that nobody holds a file that others do not find.
    fn unlock(&self, lock: Box<dyn LockGuard>) {
        drop(self.file_system.remove(&self.lock_file));
        drop(lock);
    }
}

/// Writes entries into files.
struct Writer<'a> {
    place: &'a Place<'a>,
    directories: BTreeSet<PathBuf>,
    file: Option<Output>,
    syncer: Syncer,
}

struct Output {
    file: Arc<dyn File>,
    path: PathBuf,
    bytes: u64,
}

impl Receiver for Writer<'_> {
    fn begin(&mut self, entry: &Entry) -> Result<()> {
        // Paths were checked with the manifest: parts of them lead nowhere else.
        let inside = [STORE_PREFIX, VAULTS_PREFIX]
            .into_iter()
            .find_map(|prefix| entry.path.strip_prefix(prefix))
            .unwrap_or(&entry.path);
        let path = self.place.temporary.join(inside);
        let file_system = self.place.file_system;
        let mut directory = parent_of(&path);
        if !self.directories.contains(&directory) {
            let made = file_system.create_dir_all(&directory);
            made.map_err(|e| CoreError::io("create", &directory, e))?;
            while self.directories.insert(directory.clone()) {
                directory = parent_of(&directory);
            }
        }
        let file = file_system.create(&path);
        let file = file.map_err(|e| CoreError::io("create", &path, e))?;
        self.file = Some(Output {
            file,
            path,
            bytes: 0,
        });
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(output) = &mut self.file {
            let written = output.file.write_at(bytes, output.bytes);
            written.map_err(|e| CoreError::io("write", &output.path, e))?;
            output.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        match self.file.take() {
            Some(Output { file, path, bytes }) if bytes >= SYNC_BESIDE_BYTES => {
                Ok(self.syncer.sync(&file, &path)?)
            }
            Some(Output { file, path, .. }) => {
                Ok(file.sync().map_err(|e| CoreError::io("sync", &path, e))?)
            }
            None => Ok(()),
        }
    }
}

/// Removes a directory and what is in it. A link is removed, never followed.
fn remove_tree(file_system: &dyn FileSystem, path: &Path) -> io::Result<()> {
    let entries = match file_system.read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let inside = path.join(&entry.name);
        // What looks like a directory may be a link to one: removing it as a file works only then.
        match file_system.remove(&inside) {
            Err(_) if entry.kind == EntryKind::Directory => remove_tree(file_system, &inside)?,
            removed => removed?,
        }
    }
    file_system.remove_dir(path)
}
