//! A file system of a few files in memory that can fail: no more than tests of tables need.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use vault_core::vfs::{DirEntry, EntryKind, File, FileSystem, LockOutcome, WriteMap};

#[derive(Debug, Default)]
pub(super) struct SmallFileSystem {
    files: Mutex<BTreeMap<PathBuf, Arc<SmallFile>>>,
    countdown: Arc<AtomicU64>,
}

#[derive(Debug)]
struct SmallFile {
    bytes: Mutex<Vec<u8>>,
    /// The operation that brings this from 1 to 0 fails, and all after it.
    countdown: Arc<AtomicU64>,
}

const NEVER: u64 = 0;
const FAILING: u64 = u64::MAX;

impl SmallFileSystem {
    pub(super) fn bytes(&self, path: &Path) -> Vec<u8> {
        let files = self.files.lock().unwrap();
        files[path].bytes.lock().unwrap().clone()
    }

    pub(super) fn set_bytes(&self, path: &Path, bytes: Vec<u8>) {
        let file = SmallFile {
            bytes: Mutex::new(bytes),
            countdown: Arc::clone(&self.countdown),
        };
        self.files
            .lock()
            .unwrap()
            .insert(path.to_path_buf(), Arc::new(file));
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        self.files.lock().unwrap().contains_key(path)
    }

    /// Makes the write or sync number `n`, from 1, and all later ones fail. 0: none.
    pub(super) fn fail_from(&self, n: u64) {
        self.countdown.store(n, SeqCst);
    }

    fn find(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.files.lock().unwrap().get(path).cloned();
        file.map(|f| f as Arc<dyn File>)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SmallFile {
    fn count_down(&self) -> io::Result<()> {
        match self.countdown.load(SeqCst) {
            NEVER => return Ok(()),
            FAILING => {}
            1 => self.countdown.store(FAILING, SeqCst),
            left => {
                self.countdown.store(left - 1, SeqCst);
                return Ok(());
            }
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl FileSystem for SmallFileSystem {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if self.has(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.set_bytes(path, Vec::new());
        self.find(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.find(path)
    }

    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.find(path)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.files.lock().unwrap().remove(path);
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read_dir(&self, _: &Path) -> io::Result<Vec<DirEntry>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        Ok(self.has(path).then_some(EntryKind::File))
    }

    fn lock(&self, _: &Path, _: &str) -> io::Result<LockOutcome> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl File for SmallFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        self.count_down()?;
        let mut bytes = self.bytes.lock().unwrap();
        let end = offset as usize + new.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(new);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.count_down()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn map(&self, _: usize) -> io::Result<Box<dyn WriteMap>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
