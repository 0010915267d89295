//! The real file system, and the one place of the crate that talks to it.
//!
//! - Interrupted calls are retried; reads and writes loop until the whole buffer is done.
//! - A mapped page always has its space on the medium: [`File::map`] reserves what is missing before it
//!   maps, because a store into a page that the file system cannot back kills the process (`SIGBUS`)
//!   where a write would merely have returned an error. For the same reason a handle refuses to be
//!   shortened while one of its maps lives. (File systems that write every change elsewhere, such as
//!   btrfs, can run out of space all the same; nothing portable prevents that.)
//! - A lock is the operating system's advisory lock on an open file: it ends with the process, however
//!   that ends. The lock file stays behind: removing it would let two processes lock two files of the
//!   same name. It is never opened through a symbolic link, because its holder's name is written into it.
//! - Only regular files are opened, and opening never waits: a pipe that has a file's name would
//!   otherwise hold the caller up until somebody writes into it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::{
    Claim, Claims, DirEntry, EntryKind, File, FileSystem, LockGuard, LockOutcome, Syncs, WriteMap,
};

#[cfg(test)]
mod tests;

/// How much of a lock file is read to say who holds it.
const HOLDER_BYTES_MAX: usize = 4096;

/// How much is written at once where space has to be reserved by writing.
const ZERO_FILL_BYTES: usize = 64 * 1024;

/// The finest grain at which file systems leave holes.
const HOLE_BYTES: usize = 512;

/// The file system of the operating system.
///
/// ```
/// use vault_core::vfs::{DiskFileSystem, FileSystem};
///
/// let file_system = DiskFileSystem::new();
/// assert!(file_system.kind("/no/such/file".as_ref())?.is_none());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default, Clone, Copy)]
pub struct DiskFileSystem;

impl DiskFileSystem {
    /// The file system of the operating system.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one real implementation of the file system"
)]
impl FileSystem for DiskFileSystem {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true);
        Ok(DiskFile::shared(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        open_regular(&mut options, path, OFlags::empty()).map(DiskFile::shared)
    }

    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true);
        open_regular(&mut options, path, OFlags::empty()).map(DiskFile::shared)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        fs::hard_link(existing, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = match entry.file_type() {
                // The name leads to what the link points at.
                Ok(kind) if kind.is_symlink() => {
                    fs::metadata(entry.path()).map_or(EntryKind::Other, |m| kind_of(m.file_type()))
                }
                Ok(kind) => kind_of(kind),
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            entries.push(DirEntry {
                name: entry.file_name(),
                kind,
            });
        }
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let directory = fs::File::open(path)?;
        if !directory.metadata()?.is_dir() {
            return Err(Errno::NOTDIR.into());
        }
        directory.sync_all()
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(kind_of(metadata.file_type()))),
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
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = open_regular(&mut options, path, OFlags::NOFOLLOW)?;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) => {
                    return Ok(LockOutcome::Held(read_holder(&file)?));
                }
                Err(fs::TryLockError::Error(error)) if is_interrupt(&error) => {}
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        // Written before it is cut to length, so that whoever reads meanwhile finds some holder.
        file.write_all_at(holder.as_bytes(), 0)?;
        file.set_len(holder.len() as u64)?;
        let path = path.to_path_buf();
        Ok(LockOutcome::Acquired(Box::new(DiskLock { file, path })))
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        std::path::absolute(path)
    }
}

/// Opens a regular file; anything else that has the name is refused, without waiting for it.
#[expect(
    clippy::disallowed_methods,
    reason = "part of the one real implementation of the file system"
)]
fn open_regular(options: &mut fs::OpenOptions, path: &Path, flags: OFlags) -> io::Result<fs::File> {
    let flags = (flags | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    if kind.is_dir() {
        // Opening a directory for reading works, and every read of it fails: say so at once.
        return Err(Errno::ISDIR.into());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "it is a pipe, a socket or a device, not a file",
    ))
}

/// An open file of the operating system.
#[derive(Debug)]
struct DiskFile {
    file: Arc<fs::File>,
    /// Shared with every live map, so that its count says whether there are any. Locked while the
    /// file is mapped or cut, so that neither happens in the middle of the other.
    maps: Mutex<Arc<()>>,
}

impl DiskFile {
    fn shared(file: fs::File) -> Arc<dyn File> {
        Arc::new(Self {
            file: Arc::new(file),
            maps: Mutex::default(),
        })
    }
}

impl File for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if is_interrupt(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: leaves out the times, but not the length, without which the data is not found.
        self.file.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        reserve(&self.file, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&maps) > 1 && len < self.len()? {
            return Err(Errno::BUSY.into());
        }
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn map(&self, len: usize) -> io::Result<Box<dyn WriteMap>> {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if len as u64 > self.len()? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the map would reach beyond the end of the file",
            ));
        }
        reserve(&self.file, len as u64)?;
        // The mapping is only written, through bounds-checked copies, and never lent out, so nobody relies on
        // its bytes staying as they are. Its pages exist for as long as it lives: the file is at least `len`
        // bytes long, the space was reserved just now, and this handle refuses to shorten the file meanwhile.
        // Other processes are kept away by the lock of the store that the file belongs to.
        let map = MmapOptions::new().len(len).map_raw(&self.file)?;
        Ok(Box::new(DiskMap {
            map,
            file: Arc::clone(&self.file),
            by_calls: AtomicBool::new(false),
            claims: Claims::new(len),
            _alive: Arc::clone(&maps),
        }))
    }
}

/// A file of the operating system, mapped for writing.
#[derive(Debug)]
struct DiskMap {
    map: MmapRaw,
    file: Arc<fs::File>,
    /// Whether places are filled by writing to the file, beside the mapping: see [`Syncs::Many`].
    by_calls: AtomicBool,
    claims: Claims,
    _alive: Arc<()>,
}

impl WriteMap for DiskMap {
    fn len(&self) -> usize {
        self.claims.len()
    }

    #[inline]
    fn claim(&self, offset: usize, len: usize) -> io::Result<Claim> {
        self.claims.claim(offset, len)
    }

    #[inline]
    fn fill(&self, claim: Claim, bytes: &[u8]) -> io::Result<()> {
        let range = self.claims.redeem(claim, bytes)?;
        if self.by_calls.load(Ordering::Relaxed) {
            return self.file.write_all_at(bytes, range.start as u64);
        }
        #[expect(
            unsafe_code,
            reason = "several threads fill one mapping, each a place of its own"
        )]
        // SAFETY: the range lies within the mapping, which is `claims.len()` bytes long and whose pages exist for as
        // long as it lives (see `map`), and has the length of `bytes`. It was claimed of this mapping, each place of
        // which is given out once, and the claim is used up: so nobody else writes there, and nobody reads.
        unsafe {
            let place = self.map.as_mut_ptr().add(range.start);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
        }
        Ok(())
    }

    fn expect(&self, syncs: Syncs) {
        // Linux keeps one set of pages of a file, whichever way they are written. Others need not.
        let by_calls = cfg!(target_os = "linux") && syncs == Syncs::Many;
        self.by_calls.store(by_calls, Ordering::Relaxed);
    }
}

/// Ends the lock when dropped.
#[derive(Debug)]
struct DiskLock {
    file: fs::File,
    path: PathBuf,
}

impl LockGuard for DiskLock {
    fn is_in_place(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for DiskLock {
    fn drop(&mut self) {
        // Closing the file would do, were it not for processes that were forked meanwhile: they share the
        // open file, and with it a lock that nobody let go of. Should this fail, closing is what remains.
        let _ = self.file.unlock();
    }
}

/// Gives the first `len` bytes of a file their space on the medium and makes the file at least that
/// long, leaving the bytes that are there alone.
fn reserve(file: &fs::File, len: u64) -> io::Result<()> {
    if len == 0 {
        // Refused by the operating system, though there is nothing to do.
        return Ok(());
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            // The first two are one number on some systems and two on others.
            Err(error) if [Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS].contains(&error) => {
                return reserve_by_writing(file, len);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reserves space where the file system has no call for it: by writing zeros wherever zeros are read,
/// be it because the file has a hole there or because it is too short.
///
/// Unlike the call this is no atomic step: a write by somebody else between reading and writing would
/// be undone. No caller writes into a file while reserving its space.
fn reserve_by_writing(file: &fs::File, len: u64) -> io::Result<()> {
    let old_len = file.metadata()?.len();
    if old_len < len {
        // A limit on the length of files is hit here, before time goes into writing.
        file.set_len(len)?;
    }
    fill_holes(file, old_len, len).inspect_err(|_| {
        // Best effort: the space that ran out is given back. The error to report is the one at hand.
        if old_len < len {
            file.set_len(old_len).ok();
        }
    })
}

/// Writes zeros wherever zeros are read below `len`. Beyond `data_len` they are known to be zeros.
fn fill_holes(file: &fs::File, data_len: u64, len: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_FILL_BYTES];
    let mut found = vec![0; ZERO_FILL_BYTES];
    let mut offset = 0;
    while offset < len {
        let step = (len - offset).min(ZERO_FILL_BYTES as u64);
        if offset >= data_len {
            file.write_all_at(&zeros[..step as usize], offset)?;
        } else {
            let piece = &mut found[..step as usize];
            file.read_exact_at(piece, offset)?;
            for (index, block) in piece.chunks(HOLE_BYTES).enumerate() {
                if block.iter().all(|byte| *byte == 0) {
                    let at = offset + (index * HOLE_BYTES) as u64;
                    file.write_all_at(&zeros[..block.len()], at)?;
                }
            }
        }
        offset += step;
    }
    Ok(())
}

fn read_holder(file: &fs::File) -> io::Result<String> {
    let mut bytes = vec![0; HOLDER_BYTES_MAX];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if is_interrupt(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&bytes[..done]).into_owned())
}

fn kind_of(kind: fs::FileType) -> EntryKind {
    if kind.is_file() {
        EntryKind::File
    } else if kind.is_dir() {
        EntryKind::Directory
    } else {
        EntryKind::Other
    }
}

fn is_interrupt(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}
