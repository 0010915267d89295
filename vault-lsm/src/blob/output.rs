//! Where values go while tables are written: which are put apart, which of those that are already are copied, and the blob
//! files that this makes.

use std::collections::BTreeSet;
use std::sync::Arc;

use vault_core::batch::OperationKind;
use vault_core::transform::FileKind;
use vault_core::{Compression, Result};
use vault_snapshot::collection;

use super::{BlobMeta, BlobWriter, pointer_of};
use crate::internal_key::{EXPIRY_BYTES, KIND_APART, has_expiry, kind_of};
use crate::keyspace::KeyspaceView;
use crate::read::get::malformed_entry;
use crate::store::Store;

/// What is done with the values of entries that are being written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placing {
    /// From this length on, values are put apart; `None`: those that are not stay as they are.
    pub(crate) from_bytes: Option<u32>,
    /// Blob files whose values are copied into new ones.
    pub(crate) leaving: BTreeSet<u64>,
}

/// Puts values apart while tables are written.
pub(crate) struct ValueOutput<'a> {
    store: &'a Arc<Store>,
    view: &'a KeyspaceView,
    placing: Placing,
    compression: Compression,
    /// A file that has come to this length is ended.
    file_bytes: u64,
    writer: Option<BlobWriter>,
    written: Vec<Arc<BlobMeta>>,
    /// The stored value that was made last.
    scratch: Vec<u8>,
    copied_bytes: u64,
}

impl<'a> ValueOutput<'a> {
    pub(crate) fn new(store: &'a Arc<Store>, view: &'a KeyspaceView, placing: Placing) -> Self {
        let total = view.version.blob_bytes();
        Self {
            store,
            view,
            placing,
            compression: view.options.compression,
            file_bytes: collection::file_bytes(total, view.options.table_bytes),
            writer: None,
            written: Vec::new(),
            scratch: Vec::new(),
            copied_bytes: 0,
        }
    }

    /// Puts the value of an entry where it belongs. `None`: the entry stays as it is. Else its new trailer and stored value.
    ///
    /// # Errors
    /// What reading the old value and writing the new one say.
    #[inline]
    pub(crate) fn place(
        &mut self,
        key: &[u8],
        trailer: u64,
        stored: &[u8],
    ) -> Result<Option<(u64, &[u8])>> {
        match pointer_of(trailer, stored) {
            None if self.is_large(trailer, stored) => self.put(key, trailer, stored).map(Some),
            None => Ok(None),
            Some(_) if self.placing.leaving.is_empty() => Ok(None),
            Some(pointer) => {
                let pointer = pointer.ok_or_else(|| malformed_entry(self.view))?;
                if !self.placing.leaving.contains(&pointer.file) {
                    return Ok(None);
                }
                self.copy(key, trailer, stored).map(Some)
            }
        }
    }

    /// Bytes of values that were copied since this was asked last.
    pub(crate) const fn take_copied_bytes(&mut self) -> u64 {
        std::mem::replace(&mut self.copied_bytes, 0)
    }

    /// Ends the last file. Gives those that were written; [`Self::abandon`] gives them up.
    pub(crate) fn finish(&mut self) -> Result<Vec<Arc<BlobMeta>>> {
        self.end_file()?;
        Ok(std::mem::take(&mut self.written))
    }

    /// Removes the files that were written.
    pub(crate) fn abandon(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.abandon();
        }
        for meta in self.written.drain(..) {
            // Should this fail, the next opening removes the orphan.
            let path = self.store.env.path(FileKind::Blob, meta.number);
            let _ = self.store.env.fs.remove(&path);
        }
    }

    #[inline]
    fn is_large(&self, trailer: u64, stored: &[u8]) -> bool {
        let Some(from) = self.placing.from_bytes else {
            return false;
        };
        let expiry = if has_expiry(trailer) { EXPIRY_BYTES } else { 0 };
        stored.len() >= from as usize + expiry && kind_of(trailer) == Some(OperationKind::Put)
    }

    fn put(&mut self, key: &[u8], trailer: u64, stored: &[u8]) -> Result<(u64, &[u8])> {
        let value = self.begin_stored(trailer, stored);
        let compression = self.compression;
        let pointer = self.writer()?.add(key, value, compression)?;
        pointer.encode(&mut self.scratch);
        Ok((trailer | u64::from(KIND_APART), &self.scratch))
    }

    fn copy(&mut self, key: &[u8], trailer: u64, stored: &[u8]) -> Result<(u64, &[u8])> {
        let malformed = || malformed_entry(self.view);
        let old = pointer_of(trailer, stored).flatten();
        let old = old.ok_or_else(malformed)?;
        let file = self.view.version.blob(old.file).ok_or_else(malformed)?;
        self.begin_stored(trailer, stored);
        let writer = self.writer()?;
        let pointer = file.with_stored(key, &old, |payload| writer.add_stored(payload, old.raw))?;
        self.copied_bytes += u64::from(old.stored);
        pointer.encode(&mut self.scratch);
        Ok((trailer, &self.scratch))
    }

    /// Begins a stored value with the expiry of `stored`. Gives what stands behind that.
    fn begin_stored<'s>(&mut self, trailer: u64, stored: &'s [u8]) -> &'s [u8] {
        let expiry = if has_expiry(trailer) { EXPIRY_BYTES } else { 0 };
        let (expiry, value) = stored.split_at(expiry.min(stored.len()));
        self.scratch.clear();
        self.scratch.extend_from_slice(expiry);
        value
    }

    fn writer(&mut self) -> Result<&mut BlobWriter> {
        let full = |writer: &BlobWriter| writer.bytes() >= self.file_bytes || writer.is_full();
        if self.writer.as_ref().is_some_and(full) {
            self.end_file()?;
        }
        if self.writer.is_none() {
            let number = self.store.manifest()?.next_file_number();
            let path = self.store.env.path(FileKind::Blob, number);
            let keyspace = self.view.keyspace.id;
            let writer = BlobWriter::create(&self.store.table_env, &path, number, keyspace)?;
            self.writer = Some(writer);
        }
        Ok(self.writer.as_mut().expect("made just above"))
    }

    fn end_file(&mut self) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            self.written.push(Arc::new(writer.finish()?));
        }
        Ok(())
    }
}
