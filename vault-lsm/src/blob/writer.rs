//! Writes a blob file front to back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::transform::{
    BlockTransform, FileHeader, FileIdentity, FileKind, HEADER_BYTES, Salt,
};
use vault_core::vfs::{File, FileSystem};
use vault_core::{Compression, Error, KeyspaceId, Result};

use super::record::{put_end, put_value};
use super::{BLOB_VERSION, BlobMeta, Pointer};
use crate::frame::{self, FRAME_BYTES, record_identity};
use crate::layout::header_checksum;
use crate::memory::{Class, Reservation};
use crate::store::sync_failed;
use crate::table::TableEnv;

/// Records of a file, so that the number of each fits its frame, the last included.
const RECORDS_MAX: u64 = u32::MAX as u64 - 1;

/// A blob file that is being written. Drop it only after [`Self::finish`] or [`Self::abandon`]: otherwise its file stays
/// behind.
pub(crate) struct BlobWriter {
    fs: Arc<dyn FileSystem>,
    file: Arc<dyn File>,
    path: PathBuf,
    transform: Arc<dyn BlockTransform>,
    header_checksum: u32,
    number: u64,
    salt: Salt,
    /// Bytes that are gathered before the file is written to.
    write_bytes: usize,
    buffer: Vec<u8>,
    /// Bytes of the file before the buffer.
    written: u64,
    values: u64,
    value_bytes: u64,
    memory: Reservation,
}

impl BlobWriter {
    /// Creates the file.
    ///
    /// # Errors
    /// What the file system, the random source and the transform say. The file is then gone again.
    pub(crate) fn create(
        env: &TableEnv,
        path: &Path,
        number: u64,
        keyspace: KeyspaceId,
    ) -> Result<Self> {
        let identity = FileIdentity {
            store: env.store,
            kind: FileKind::Blob,
            number,
            domain: keyspace.0,
        };
        let (header, transform) =
            FileHeader::create(identity, BLOB_VERSION, &*env.transform, &*env.random)?;
        let file = env
            .fs
            .create(path)
            .map_err(|e| Error::io("create", path, e))?;
        let salt = header.salt;
        let header = header.encode();
        let write_bytes = env.memory.shares().write_bytes;
        let mut buffer = Vec::with_capacity(write_bytes + write_bytes / 4);
        buffer.extend_from_slice(&header);
        let held = buffer.capacity() as u64;
        Ok(Self {
            fs: Arc::clone(&env.fs),
            file,
            path: path.to_path_buf(),
            transform,
            header_checksum: header_checksum(&header),
            number,
            salt,
            write_bytes,
            buffer,
            written: 0,
            values: 0,
            value_bytes: 0,
            memory: Reservation::new(&env.memory, Class::Background, held),
        })
    }

    /// Adds a value.
    ///
    /// # Errors
    /// What the file system and the transform say; then [abandon](Self::abandon) the file.
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        value: &[u8],
        compression: Compression,
    ) -> Result<Pointer> {
        // Compressed where it is gathered, in which it may take its whole length and a little more.
        self.make_room(key.len() + value.len() + value.len() / 64);
        let start = self.begin_record();
        put_value(key, value, compression, &mut self.buffer);
        self.end_value(start, value.len() as u32)
    }

    /// Adds a value as it was stored in another file.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub(crate) fn add_stored(&mut self, payload: &[u8], raw: u32) -> Result<Pointer> {
        self.make_room(payload.len());
        let start = self.begin_record();
        self.buffer.extend_from_slice(payload);
        self.end_value(start, raw)
    }

    /// Bytes of the file so far.
    pub(crate) const fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Whether not one value more fits, however short.
    pub(crate) const fn is_full(&self) -> bool {
        self.values >= RECORDS_MAX
    }

    /// Writes what is left, and syncs the file. The directory is not synced.
    ///
    /// # Errors
    /// What the file system and the transform say; the file is then removed, as far as that works.
    pub(crate) fn finish(mut self) -> Result<BlobMeta> {
        assert!(self.values > 0, "a blob file has at least one value");
        match self.write_rest() {
            Ok(()) => Ok(BlobMeta {
                number: self.number,
                salt: self.salt,
                bytes: self.written,
                values: self.values,
                value_bytes: self.value_bytes,
            }),
            Err(error) => {
                self.abandon();
                Err(error)
            }
        }
    }

    /// Removes the file, as far as that works.
    pub(crate) fn abandon(self) {
        let Self { fs, file, path, .. } = self;
        drop(file);
        // The recovery of a store removes what stays behind, so a failure here is of no consequence.
        drop(fs.remove(&path));
    }

    /// Sees to it that memory is counted before it is taken for a value longer than what is mostly gathered.
    fn make_room(&mut self, bytes: usize) {
        let needed = (self.buffer.len() + bytes + self.write_bytes / 4) as u64;
        if needed > self.memory.bytes() {
            self.memory.resize(needed);
        }
    }

    fn begin_record(&mut self) -> usize {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; FRAME_BYTES]);
        start
    }

    fn end_value(&mut self, start: usize, raw: u32) -> Result<Pointer> {
        let (offset, ordinal) = (self.written + start as u64, self.values as u32);
        let stored = self.seal(start)?;
        self.values += 1;
        self.value_bytes += u64::from(stored);
        if self.buffer.len() >= self.write_bytes {
            self.write()?;
        }
        Ok(Pointer {
            file: self.number,
            ordinal,
            offset,
            stored,
            raw,
        })
    }

    /// Seals the record that begins at `start` of the buffer. Gives its length.
    fn seal(&mut self, start: usize) -> Result<u32> {
        let ordinal = self.values as u32;
        let payload = start + FRAME_BYTES;
        self.transform
            .seal(&record_identity(ordinal), &mut self.buffer, payload)?;
        let sealed = (self.buffer.len() - payload) as u32;
        let frame = frame::encode(self.header_checksum, ordinal, sealed);
        self.buffer[start..payload].copy_from_slice(&frame);
        Ok(sealed + FRAME_BYTES as u32)
    }

    fn write_rest(&mut self) -> Result<()> {
        let start = self.begin_record();
        put_end(self.values, self.value_bytes, &mut self.buffer);
        self.seal(start)?;
        self.write()?;
        debug_assert!(self.written > HEADER_BYTES as u64 + self.value_bytes);
        self.file
            .sync()
            .map_err(|e| sync_failed(Error::io("sync", &self.path, e)))
    }

    fn write(&mut self) -> Result<()> {
        self.file
            .write_at(&self.buffer, self.written)
            .map_err(|e| Error::io("write", &self.path, e))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        // What one large value needed is not kept for those that come.
        self.buffer.shrink_to(2 * self.write_bytes);
        let held = self.buffer.capacity() as u64;
        if held != self.memory.bytes() {
            self.memory.resize(held);
        }
        Ok(())
    }
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter")
            .field("path", &self.path)
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}
