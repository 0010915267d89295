//! What is handed out: open files, maps of them, and locks.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::fault::Verdict;
use super::tree::InodeId;
use super::{MemoryFileSystem, OperationClass, State};
use crate::vfs::{Claim, Claims, File, LockGuard, WriteMap};

/// Longest file, as on a real file system.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Keeps an inode alive, whatever becomes of its names.
struct Handle {
    file_system: MemoryFileSystem,
    inode: InodeId,
    path: PathBuf,
}

impl Handle {
    fn new(file_system: &MemoryFileSystem, state: &mut State, inode: InodeId, path: &Path) -> Self {
        state.tree.hold(inode);
        Self {
            file_system: file_system.clone(),
            inode,
            path: path.to_path_buf(),
        }
    }

    /// Writes into the file.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.file_system.state();
        let verdict = state
            .faults
            .check(OperationClass::Write, &[self.path.as_path()])?;
        if !matches!(offset.checked_add(bytes.len() as u64), Some(end) if end <= FILE_BYTES_MAX) {
            return Err(Errno::FBIG.into());
        }
        let wanted = match verdict {
            Verdict::Proceed => bytes,
            Verdict::Short => &bytes[..bytes.len() / 2],
        };
        self.put(&mut state, wanted, offset)?;
        match verdict {
            Verdict::Proceed => Ok(()),
            Verdict::Short => Err(short_write()),
        }
    }

    /// Changes the file; all ways of writing end here.
    fn put(&self, state: &mut State, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = state.tree.change_content(self.inode, |content, free| {
            content.write(offset, bytes, free)
        })?;
        if written < bytes.len() {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }
}

fn short_write() -> io::Error {
    io::Error::new(io::ErrorKind::WriteZero, "injected short write")
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.file_system.state().tree.release(self.inode);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.path).finish()
    }
}

/// An open file in memory.
#[derive(Debug)]
pub(super) struct MemoryFile {
    handle: Handle,
    writable: bool,
}

impl MemoryFile {
    pub(super) fn shared(
        file_system: &MemoryFileSystem,
        state: &mut State,
        inode: InodeId,
        path: &Path,
        writable: bool,
    ) -> Arc<dyn File> {
        Arc::new(Self {
            handle: Handle::new(file_system, state, inode, path),
            writable,
        })
    }

    fn require_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(Errno::BADF.into())
        }
    }

    /// Locks the file system and counts an operation on this file.
    fn begin(&self, class: OperationClass) -> io::Result<(MutexGuard<'_, State>, Verdict)> {
        let mut state = self.handle.file_system.state();
        let verdict = state.faults.check(class, &[self.handle.path.as_path()])?;
        Ok((state, verdict))
    }
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (state, verdict) = self.begin(OperationClass::Read)?;
        let content = state.tree.content(self.handle.inode)?;
        match verdict {
            Verdict::Proceed => Ok(content.read(buffer, offset)),
            Verdict::Short => {
                let there = content.len().saturating_sub(offset);
                let half = there.min(buffer.len() as u64) as usize / 2;
                Ok(content.read(&mut buffer[..half], offset))
            }
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.require_writable()?;
        self.handle.write(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.handle.file_system.state();
        let checked = state
            .faults
            .check(OperationClass::Sync, &[self.handle.path.as_path()]);
        // A frozen state is what a crash is to be derived from: nothing may touch it.
        let frozen = state.faults.crashed();
        state.tree.change_content(self.handle.inode, |content, _| {
            match checked {
                Ok(_) => content.sync(),
                Err(_) if !frozen => content.lose(),
                Err(_) => {}
            }
            checked.map(drop)
        })?
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.require_writable()?;
        let (mut state, _) = self.begin(OperationClass::Allocate)?;
        reserve(&mut state, self.handle.inode, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.require_writable()?;
        let (mut state, _) = self.begin(OperationClass::Write)?;
        if len > FILE_BYTES_MAX {
            return Err(Errno::FBIG.into());
        }
        if state.maps.contains_key(&self.handle.inode)
            && len < state.tree.content(self.handle.inode)?.len()
        {
            return Err(Errno::BUSY.into());
        }
        state
            .tree
            .change_content(self.handle.inode, |content, _| content.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        let (state, _) = self.begin(OperationClass::Metadata)?;
        Ok(state.tree.content(self.handle.inode)?.len())
    }

    fn map(&self, len: usize) -> io::Result<Box<dyn WriteMap>> {
        self.require_writable()?;
        let (mut state, _) = self.begin(OperationClass::Map)?;
        if len as u64 > state.tree.content(self.handle.inode)?.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the map would reach beyond the end of the file",
            ));
        }
        reserve(&mut state, self.handle.inode, len as u64)?;
        *state.maps.entry(self.handle.inode).or_default() += 1;
        let Handle {
            file_system,
            inode,
            path,
        } = &self.handle;
        Ok(Box::new(MemoryMap {
            handle: Handle::new(file_system, &mut state, *inode, path),
            claims: Claims::new(len),
            falling_short: Mutex::default(),
        }))
    }
}

/// Reserves all the space or none.
fn reserve(state: &mut State, inode: InodeId, len: u64) -> io::Result<()> {
    if len > FILE_BYTES_MAX {
        return Err(Errno::FBIG.into());
    }
    let reserved = state.tree.change_content(inode, |content, free| {
        let fits = content.pages_to_reserve(len) <= free;
        if fits {
            content.reserve(len);
        }
        fits
    })?;
    if reserved {
        Ok(())
    } else {
        Err(Errno::NOSPC.into())
    }
}

/// A file in memory, mapped for writing.
#[derive(Debug)]
struct MemoryMap {
    handle: Handle,
    claims: Claims,
    /// The offsets of claims of which only half is to be filled.
    falling_short: Mutex<Vec<usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WriteMap for MemoryMap {
    fn len(&self) -> usize {
        self.claims.len()
    }

    /// Counts as the write.
    fn claim(&self, offset: usize, len: usize) -> io::Result<Claim> {
        let claim = self.claims.claim(offset, len)?;
        let mut state = self.handle.file_system.state();
        let path = [self.handle.path.as_path()];
        let verdict = state.faults.check(OperationClass::Write, &path)?;
        if verdict == Verdict::Short {
            lock(&self.falling_short).push(offset);
        }
        Ok(claim)
    }

    fn fill(&self, claim: Claim, bytes: &[u8]) -> io::Result<()> {
        let range = self.claims.redeem(claim, bytes)?;
        let offset = range.start as u64;
        let mut state = self.handle.file_system.state();
        // A frozen state is what a crash is to be derived from: nothing may touch it.
        if state.faults.crashed() {
            return Err(Errno::IO.into());
        }
        if lock(&self.falling_short).contains(&range.start) {
            let half = &bytes[..bytes.len() / 2];
            self.handle.put(&mut state, half, offset)?;
            return Err(short_write());
        }
        self.handle.put(&mut state, bytes, offset)
    }
}

impl Drop for MemoryMap {
    fn drop(&mut self) {
        let mut state = self.handle.file_system.state();
        if let Some(count) = state.maps.get_mut(&self.handle.inode) {
            *count -= 1;
            if *count == 0 {
                state.maps.remove(&self.handle.inode);
            }
        }
    }
}

/// Holds a lock in memory.
#[derive(Debug)]
pub(super) struct MemoryLock {
    handle: Handle,
}

impl MemoryLock {
    /// Takes the lock of a file of which the caller has found that nobody else has it.
    pub(super) fn boxed(
        file_system: &MemoryFileSystem,
        state: &mut State,
        inode: InodeId,
        path: &Path,
    ) -> Box<dyn LockGuard> {
        state.locked.insert(inode);
        Box::new(Self {
            handle: Handle::new(file_system, state, inode, path),
        })
    }
}

impl LockGuard for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.handle.file_system.state();
        state.locked.remove(&self.handle.inode);
    }
}
