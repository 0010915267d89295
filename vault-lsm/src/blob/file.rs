//! A blob file that is open for reading.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::transform::{
    BlockTransform, FileHeader, FileIdentity, FileKind, HEADER_BYTES, Unopened,
};
use vault_core::vfs::{File, read_exact_at, read_up_to};
use vault_core::{Error, KeyspaceId, Result, Slice};

use super::record::{Record, StoredValue};
use super::{BLOB_VERSION, BlobMeta, Pointer};
use crate::frame::{self, FRAME_BYTES, record_identity};
use crate::layout::{another_file, header_checksum};
use crate::memory::{LARGE_BLOCK_BYTES, Memory};
use crate::reclaim::{Held, ReclaimQueue};
use crate::sync::atomic::AtomicBool;
use crate::table::{MetadataBudget, TableEnv};

/// Most memory that a thread keeps for reading sealed records into.
const SCRATCH_BYTES_MAX: usize = 128 << 10;

thread_local! {
    /// Sealed bytes of the record that is being read: taken for the time of one read.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A blob file. Any number of threads share it. Once it is obsolete, its file goes with the last of them.
pub(crate) struct BlobFile {
    meta: BlobMeta,
    source: BlobSource,
    obsolete: AtomicBool,
    /// A value of it could not be copied: it is left where it is, and its file with it.
    damaged: AtomicBool,
    reclaim: Arc<ReclaimQueue>,
    budget: Arc<MetadataBudget>,
}

/// What an open file takes: its own structures, its seal, its places in a version and in the manifest.
const RESIDENT_BYTES: u64 = 1024;

/// The file itself, and what opens its records.
pub(crate) struct BlobSource {
    pub(super) file: Arc<dyn File>,
    pub(super) path: PathBuf,
    pub(super) transform: Arc<dyn BlockTransform>,
    pub(super) header_checksum: u32,
    pub(super) memory: Arc<Memory>,
    /// Length of the file.
    pub(super) bytes: u64,
}

impl BlobFile {
    /// Opens a blob file and checks that it is the one that `meta` describes. Reads the header and no value.
    ///
    /// # Errors
    /// [`Error::Corruption`] where it is not; else what the file system and the transform say.
    pub(crate) fn open(
        env: &TableEnv,
        path: &Path,
        keyspace: KeyspaceId,
        meta: BlobMeta,
        reclaim: &Arc<ReclaimQueue>,
    ) -> Result<Arc<Self>> {
        let source = BlobSource::open(env, path, keyspace, &meta)?;
        env.metadata_budget.reserve(RESIDENT_BYTES);
        Ok(Arc::new(Self {
            budget: Arc::clone(&env.metadata_budget),
            meta,
            source,
            obsolete: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            reclaim: Arc::clone(reclaim),
        }))
    }

    /// What is known of the file without reading it.
    pub(crate) const fn meta(&self) -> &BlobMeta {
        &self.meta
    }

    /// The bytes of the file as they are.
    pub(crate) fn file(&self) -> Arc<dyn File> {
        Arc::clone(&self.source.file)
    }

    /// The epoch of the key that seals the file; 0 where there is none.
    pub(crate) fn epoch(&self) -> u32 {
        self.source.transform.epoch()
    }

    /// Whether a value of it was found damaged when it was to be copied.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// The value of `key` that a pointer leads to.
    ///
    /// # Errors
    /// [`Error::Corruption`] where the pointer leads elsewhere, or the record is not what was written; [`Error::Locked`],
    /// [`Error::Io`].
    pub(crate) fn read(&self, key: &[u8], pointer: &Pointer) -> Result<Slice> {
        self.source.value(key, pointer)
    }

    /// Lends the payload of the record that a pointer leads to, as it is to be put into another file.
    ///
    /// # Errors
    /// As [`Self::read`]. The value is not decompressed, so that it cannot be is not noticed. Damage is remembered
    /// ([`Self::is_damaged`]): whoever copies values would meet it again and again.
    pub(crate) fn with_stored<T>(
        &self,
        key: &[u8],
        pointer: &Pointer,
        use_payload: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        let mut sound = false;
        let lent = self.source.with_payload(pointer, |payload| {
            self.source.stored_value(key, pointer, payload)?;
            sound = true;
            use_payload(payload)
        });
        if !sound && matches!(lent, Err(Error::Corruption { .. })) {
            self.damaged.store(true, Ordering::Relaxed);
        }
        lent
    }

    /// Lets go of the file once nobody reads it. Only after the manifest has let go of it.
    pub(crate) fn make_obsolete(&self) {
        if !self.obsolete.swap(true, Ordering::AcqRel) {
            let held = Held {
                bytes: self.meta.bytes,
                epoch: self.epoch(),
            };
            self.reclaim.retired(self.meta.number, held);
        }
    }
}

impl Drop for BlobFile {
    fn drop(&mut self) {
        self.budget.release(RESIDENT_BYTES);
        if *self.obsolete.get_mut() {
            let path = std::mem::take(&mut self.source.path);
            self.reclaim.push(path, self.meta.number);
        }
    }
}

impl std::fmt::Debug for BlobFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobFile")
            .field("path", &self.source.path)
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

impl BlobSource {
    pub(super) fn open(
        env: &TableEnv,
        path: &Path,
        keyspace: KeyspaceId,
        meta: &BlobMeta,
    ) -> Result<Self> {
        let file = env.fs.open(path).map_err(|e| Error::io("open", path, e))?;
        let mut bytes = [0; HEADER_BYTES];
        let read = read_up_to(&*file, &mut bytes, 0).map_err(|e| Error::io("read", path, e))?;
        let header = FileHeader::decode(path, &bytes[..read], FileKind::Blob, BLOB_VERSION)?;
        let expected = FileIdentity {
            store: env.store,
            kind: FileKind::Blob,
            number: meta.number,
            domain: keyspace.0,
        };
        if header.identity != expected {
            let found = header.identity;
            let problem = format!("header of {expected:?} expected, {found:?} found");
            return Err(Error::corruption(path, 0, problem));
        }
        if header.salt != meta.salt {
            return Err(another_file(path));
        }
        let len = file.len().map_err(|e| Error::io("measure", path, e))?;
        if len != meta.bytes {
            let problem = format!("file of {} bytes expected, {len} found", meta.bytes);
            return Err(Error::corruption(path, len.min(meta.bytes), problem));
        }
        Ok(Self {
            file,
            path: path.to_path_buf(),
            transform: header.open(path, &*env.transform)?,
            header_checksum: header_checksum(&bytes),
            memory: Arc::clone(&env.memory),
            bytes: len,
        })
    }

    /// The value of `key` that a pointer leads to.
    pub(super) fn value(&self, key: &[u8], pointer: &Pointer) -> Result<Slice> {
        self.with_payload(pointer, |payload| {
            let value = self.stored_value(key, pointer, payload)?;
            if let Some(value) = value.uncompressed() {
                return Ok(Slice::from(value));
            }
            let len = value.raw() as usize;
            let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
            let buffer = Arc::get_mut(&mut bytes).expect("nobody else has the new value yet");
            if !value.decompress_into(buffer) {
                return Err(self.damaged(pointer.offset, "a value that does not decompress"));
            }
            Ok(Slice::shared(&bytes, 0, len))
        })
    }

    /// Checks that a payload is the value that was meant.
    fn stored_value<'p>(
        &self,
        key: &[u8],
        pointer: &Pointer,
        payload: &'p [u8],
    ) -> Result<StoredValue<'p>> {
        let Some(Record::Value(value)) = Record::decode(payload) else {
            return Err(self.damaged(pointer.offset, "a record that makes no sense"));
        };
        if value.key != key {
            return Err(self.damaged(pointer.offset, "the value of another key"));
        }
        if value.raw() != pointer.raw {
            return Err(self.damaged(pointer.offset, "a value of another length"));
        }
        Ok(value)
    }

    /// Reads and opens the record that a pointer leads to, and lends its payload.
    pub(super) fn with_payload<T>(
        &self,
        pointer: &Pointer,
        use_payload: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        let end = pointer.offset.checked_add(u64::from(pointer.stored));
        if end.is_none_or(|end| end > self.bytes) {
            return Err(self.damaged(pointer.offset, "the end of the file"));
        }
        let len = pointer.stored as usize;
        let _large = (len > LARGE_BLOCK_BYTES).then(|| self.memory.begin_large_read(len));
        let mut scratch = SCRATCH.take();
        if scratch.len() < len {
            // Not by growing: that would keep the old bytes and take twice what is needed.
            drop(std::mem::take(&mut scratch));
            scratch = vec![0; len];
        }
        let record = &mut scratch[..len];
        let result = self
            .read_at(record, pointer.offset)
            .and_then(|()| self.open_record(pointer, record))
            .and_then(use_payload);
        if scratch.len() <= SCRATCH_BYTES_MAX {
            SCRATCH.set(scratch);
        }
        result
    }

    /// Opens a record that has been read.
    fn open_record<'r>(&self, pointer: &Pointer, record: &'r mut [u8]) -> Result<&'r [u8]> {
        let framed = frame::decode(self.header_checksum, record);
        let expected = (pointer.ordinal, record.len() - FRAME_BYTES);
        if framed != Some(expected) {
            return Err(self.damaged(pointer.offset, "a frame that is not that of the record"));
        }
        let identity = record_identity(pointer.ordinal);
        let opened = self.transform.open(&identity, &mut record[FRAME_BYTES..]);
        opened.map_err(|unopened| match unopened {
            Unopened::Damaged => self.damaged(
                pointer.offset,
                "a seal that does not match the content and its place",
            ),
            Unopened::Locked => Error::Locked,
        })
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(&*self.file, buffer, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::corruption(&self.path, offset, e.to_string())
            }
            _ => Error::io("read", &self.path, e),
        })
    }

    #[cold]
    fn damaged(&self, offset: u64, found: &str) -> Error {
        let problem = format!("a large value expected, {found} found");
        Error::corruption(&self.path, offset, problem)
    }
}
