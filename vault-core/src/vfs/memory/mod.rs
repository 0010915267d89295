//! A file system in memory that can lose power, run full, and fail on demand.
//!
//! It behaves as the real one does, down to the error numbers, and keeps apart what is now and what is
//! on the medium, so that [`MemoryFileSystem::crash`] can say what a loss of power at this moment
//! could leave:
//! - Of each file, each unsynced 512-byte sector is as it was when last synced or as it is now, each
//!   for itself; its length is the last synced one or one that it has had since. Where neither put
//!   bytes, there are zeros.
//! - Each unsynced create, link, rename and remove has happened or not, each for itself, a rename
//!   with both its halves. Only what makes no sense without an earlier change under the same name
//!   implies that. A file whose bytes were synced is still lost with its entry, or with that of a
//!   directory above.
//! - After a sync has failed, what it was to sync reads as before, but later syncs pass over it.
//!
//! Everything follows from the calls made and the seeds given: there is no time and no randomness.
//!
//! The parts: [`content`] is one file, [`tree`] the directories, [`fault`] the errors on demand, and
//! [`file`] what is handed out. One mutex guards them all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::fault::Faults;
use self::file::{MemoryFile, MemoryLock};
use self::tree::{InodeId, Tree};
use super::{DirEntry, EntryKind, File, FileSystem, LockOutcome};
use crate::random::SeededRandom;

mod content;
mod fault;
mod file;
mod tree;

#[cfg(test)]
mod tests;

pub use fault::{Fault, FaultKind, OperationClass};

/// A file system in memory. Clones are handles to the same one. The root is also the current
/// directory.
///
/// ```
/// use vault_core::vfs::{CrashPolicy, FileSystem, MemoryFileSystem};
///
/// let file_system = MemoryFileSystem::new();
/// let file = file_system.create("/log".as_ref())?;
/// file.write_at(b"synced", 0)?;
/// file.sync()?;
/// file_system.sync_dir("/".as_ref())?;
/// file.write_at(b"not synced", 6)?;
///
/// let after = file_system.crash(1, CrashPolicy::DropUnsynced);
/// assert_eq!(after.read_file("/log")?, b"synced");
/// assert_eq!(file_system.read_file("/log")?, b"syncednot synced");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct MemoryFileSystem {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    tree: Tree,
    faults: Faults,
    locked: BTreeSet<InodeId>,
    /// How many maps each file has.
    maps: BTreeMap<InodeId, u32>,
}

/// Which of the unsynced pieces a loss of power leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPolicy {
    /// None.
    DropUnsynced,
    /// All.
    KeepUnsynced,
    /// Each with this probability, by the seed.
    Random {
        /// From 0 to 100.
        percent: u8,
    },
}

/// A policy with its seed at work.
#[derive(Debug)]
struct CrashChoice {
    random: SeededRandom,
    policy: CrashPolicy,
}

impl CrashChoice {
    /// Whether the next piece is there.
    fn keeps(&self) -> bool {
        match self.policy {
            CrashPolicy::DropUnsynced => false,
            CrashPolicy::KeepUnsynced => true,
            CrashPolicy::Random { percent } => self.random.percent(u64::from(percent)),
        }
    }

    /// How many of the changes that follow each other are there: all with the probability of the
    /// policy, and otherwise, so that long sequences are not always cut near their end, any number.
    fn how_many(&self, changes: usize) -> usize {
        match self.policy {
            CrashPolicy::DropUnsynced | CrashPolicy::Random { percent: 0 } => 0,
            CrashPolicy::KeepUnsynced => changes,
            CrashPolicy::Random { .. } if self.keeps() => changes,
            CrashPolicy::Random { .. } => self.random.below(changes as u64 + 1) as usize,
        }
    }
}

impl MemoryFileSystem {
    /// An empty file system: a root directory, and no limit to the space.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The file system as a loss of power now could leave it, independent of this one. The seed says
    /// which pieces are left where the policy leaves a choice. Faults and locks are gone, the capacity
    /// is the same, the count of operations starts anew.
    #[must_use]
    pub fn crash(&self, seed: u64, policy: CrashPolicy) -> Self {
        let choice = CrashChoice {
            random: SeededRandom::new(seed),
            policy,
        };
        Self::from_tree(self.state().tree.crashed(&choice))
    }

    /// The file system as the end of the process leaves it, independent of this one: whatever was
    /// written is there, synced or not, and still at the mercy of a loss of power. Locks are released.
    #[must_use]
    pub fn kill(&self) -> Self {
        Self::from_tree(self.state().tree.killed())
    }

    /// Makes operations fail. Several faults count for themselves; at most one hits each operation.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.inject(fault);
    }

    /// Takes back all faults, other than the crash point.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Lets this many operations, counted as [`operations`](Self::operations) does, through, and fails
    /// all from then on without effect: the state stays as a crash between two operations meets it.
    /// `None` takes that back.
    pub fn set_crash_point(&self, operations: Option<u64>) {
        self.state().faults.set_crash_point(operations);
    }

    /// How many operations have been asked for, whether they failed or not. Closing, unlocking and
    /// unmapping cannot fail and don't count; neither do the methods of this type itself.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().faults.operations()
    }

    /// How many operations an injected fault has hit.
    #[must_use]
    pub fn faults_hit(&self) -> u64 {
        self.state().faults.hit()
    }

    /// Limits the space, in bytes. Space is given out in pages of 4096 bytes, to what is written or
    /// [allocated](File::allocate) in files that have a name or are open. Directories take none.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().tree.set_capacity(bytes);
    }

    /// How much space is taken, in bytes.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.state().tree.bytes_used()
    }

    /// Every file with its length in bytes, in order of the paths, which start at the root.
    #[must_use]
    pub fn list(&self) -> Vec<(PathBuf, u64)> {
        self.state().tree.files()
    }

    /// Reads a whole file. No fault hits this.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], [`io::ErrorKind::IsADirectory`] and the like.
    pub fn read_file(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let state = self.state();
        let content = state.tree.content(state.tree.lookup_file(path.as_ref())?)?;
        let mut bytes = vec![0; content.len() as usize];
        content.read(&mut bytes, 0);
        Ok(bytes)
    }

    /// Puts a file in place or replaces its bytes, durable at once. No fault hits this, and no limit
    /// of space.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without the directory, [`io::ErrorKind::IsADirectory`] and the like;
    /// [`io::ErrorKind::ResourceBusy`] where the file is mapped.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if let Ok(inode) = state.tree.lookup_file(path.as_ref())
            && state.maps.contains_key(&inode)
        {
            return Err(rustix::io::Errno::BUSY.into());
        }
        state.tree.put_durable(path.as_ref(), bytes)
    }

    fn from_tree(tree: Tree) -> Self {
        let state = State {
            tree,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// A panic elsewhere while the lock was held is reported there; every change here is complete
    /// before anything that could panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the file system and counts an operation.
    fn begin(&self, class: OperationClass, paths: &[&Path]) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.faults.check(class, paths)?;
        Ok(state)
    }
}

impl fmt::Debug for MemoryFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFileSystem")
            .field("operations", &self.operations())
            .field("bytes_used", &self.bytes_used())
            .finish_non_exhaustive()
    }
}

impl FileSystem for MemoryFileSystem {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.begin(OperationClass::Create, &[path])?;
        let inode = state.tree.create_file(path)?;
        Ok(MemoryFile::shared(self, &mut state, inode, path, true))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.begin(OperationClass::Open, &[path])?;
        let inode = state.tree.lookup_file(path)?;
        Ok(MemoryFile::shared(self, &mut state, inode, path, false))
    }

    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.begin(OperationClass::Open, &[path])?;
        let inode = state.tree.lookup_file(path)?;
        Ok(MemoryFile::shared(self, &mut state, inode, path, true))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.begin(OperationClass::Rename, &[from, to])?;
        state.tree.rename(from, to)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        let mut state = self.begin(OperationClass::Link, &[existing, link])?;
        state.tree.link(existing, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(OperationClass::Remove, &[path])?;
        state.tree.remove(path, EntryKind::File)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(OperationClass::Create, &[path])?;
        state.tree.create_directory(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(OperationClass::Create, &[path])?;
        state.tree.create_directories(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(OperationClass::Remove, &[path])?;
        state.tree.remove(path, EntryKind::Directory)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.begin(OperationClass::List, &[path])?;
        let entries = state.tree.list(path)?.into_iter();
        Ok(entries
            .map(|(name, kind)| DirEntry { name, kind })
            .collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if let Err(error) = state.faults.check(OperationClass::SyncDir, &[path]) {
            // A frozen state is what a crash is to be derived from: nothing may touch it.
            if !state.faults.crashed() {
                state.tree.lose_directory(path);
            }
            return Err(error);
        }
        state.tree.sync_directory(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        let state = self.begin(OperationClass::Metadata, &[path])?;
        match state.tree.lookup(path) {
            Ok(inode) => Ok(Some(state.tree.kind(inode))),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<LockOutcome> {
        let mut state = self.begin(OperationClass::Lock, &[path])?;
        let inode = match state.tree.lookup_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                state.tree.create_file(path)?
            }
            found => found?,
        };
        if state.locked.contains(&inode) {
            let content = state.tree.content(inode)?;
            let mut text = vec![0; content.len() as usize];
            content.read(&mut text, 0);
            return Ok(LockOutcome::Held(
                String::from_utf8_lossy(&text).into_owned(),
            ));
        }
        let written = state.tree.change_content(inode, |content, free| {
            content.set_len(0);
            content.write(0, holder.as_bytes(), free)
        })?;
        if written < holder.len() {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        let guard = MemoryLock::boxed(self, &mut state, inode, path);
        Ok(LockOutcome::Acquired(guard))
    }
}
