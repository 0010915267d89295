//! Writing an archive: entries one after the other, hashed beside, the manifest last.
//!
//! Files are stored as they are: they are compressed, and mostly encrypted, already, and a stored entry is read back at
//! the speed of the disk. Documents are deflated. An entry that may reach 4 GiB has the fields of Zip64. Where the place
//! can be written over, lengths stand before the bytes, so that the archive can be read as a stream as well; where not, behind them.

use std::io::{self, Write};
use std::mem;
use std::path::Path;
use std::sync::Arc;

use vault_core::Error as CoreError;
use vault_core::vfs::File;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, ZipWriter};

use super::digest::Hasher;
use super::error::{BoxError, Error, Result};
use super::hex::Sha256Hash;
use super::name::SnapshotName;
use super::progress::Progress;
use super::sink::{Sink, SinkHandle, sink};
use crate::destination::{MANIFEST_FILE, Upload};

/// From this length on an entry has the fields of Zip64: what the others can say, less what deflating may add.
const LARGE_BYTES: u64 = u32::MAX as u64 - (1 << 24);

/// An archive that is being written. It is given up when it is dropped before its end.
pub(crate) struct ArchiveWriter {
    zip: Zip,
    handle: SinkHandle,
    hasher: Hasher,
    options: SimpleFileOptions,
    finished: bool,
}

enum Zip {
    Done,
    Rewriting(ZipWriter<Sink>),
    Streaming(ZipWriter<StreamWriter<Sink>>),
}

impl ArchiveWriter {
    pub(crate) fn begin(upload: Box<dyn Upload>, name: SnapshotName) -> Result<Self> {
        let hasher = Hasher::start()?;
        let rewrites = upload.rewrites();
        let (sink, handle) = sink(upload);
        let zip = if rewrites {
            Zip::Rewriting(ZipWriter::new(sink))
        } else {
            Zip::Streaming(ZipWriter::new_stream(sink))
        };
        let options = SimpleFileOptions::default().unix_permissions(0o600);
        let options = match zip_time(name) {
            Some(time) => options.last_modified_time(time),
            None => options,
        };
        Ok(Self {
            zip,
            handle,
            hasher,
            options,
            finished: false,
        })
    }

    /// Stores the first `bytes` bytes of a file. Its hash is the next of [`hashes`](Self::hashes).
    pub(crate) fn add_file(
        &mut self,
        path: &str,
        bytes: u64,
        file: &dyn File,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        self.start(path, CompressionMethod::Stored, bytes)?;
        let mut offset = 0;
        while offset < bytes {
            let mut chunk = self.hasher.chunk()?;
            let wanted = chunk_part(&chunk, bytes - offset);
            let read = file.read_at(&mut chunk[..wanted], offset);
            let read = read.map_err(|e| CoreError::io("read", Path::new(path), e))?;
            if read < wanted {
                return Err(Error::SourceChanged {
                    name: path.to_owned(),
                    expected: bytes,
                    found: offset + read as u64,
                });
            }
            self.put(chunk, wanted)?;
            offset += wanted as u64;
            progress.add(wanted as u64)?;
        }
        self.hasher.end()
    }

    /// Stores what a reader gives, up to its end; gives how many bytes that were.
    pub(crate) fn add_stream(
        &mut self,
        path: &str,
        bytes: u64,
        from: &mut dyn FnMut(&mut [u8]) -> Result<usize>,
        progress: &mut Progress<'_>,
    ) -> Result<u64> {
        self.start(path, CompressionMethod::Stored, bytes)?;
        let mut stored = 0;
        loop {
            let mut chunk = self.hasher.chunk()?;
            let read = from(&mut chunk)?;
            self.put(chunk, read)?;
            if read == 0 {
                self.hasher.end()?;
                return Ok(stored);
            }
            stored += read as u64;
            progress.add(read as u64)?;
        }
    }

    /// Deflates what `write` writes; gives how many bytes that were, and what it answered.
    pub(crate) fn add_document<T>(
        &mut self,
        path: &str,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<T, BoxError>,
        progress: &mut Progress<'_>,
    ) -> Result<(u64, T)> {
        // Nobody knows how long it becomes.
        self.start(path, CompressionMethod::Deflated, u64::MAX)?;
        let mut document = DocumentWriter {
            archive: self,
            progress,
            chunk: Vec::new(),
            filled: 0,
            bytes: 0,
            failed: None,
        };
        let written = write(&mut document);
        // Our own reason comes first: theirs is only that writing failed.
        if let Some(error) = document.failed.take() {
            return Err(error);
        }
        let answer = written.map_err(|source| Error::Document {
            name: name.to_owned(),
            source,
        })?;
        document.hand_on()?;
        let bytes = document.bytes;
        self.hasher.end()?;
        Ok((bytes, answer))
    }

    /// The hashes of all entries so far that were not asked for yet, in their order.
    pub(crate) fn hashes(&mut self, count: usize) -> Result<Vec<Sha256Hash>> {
        (0..count).map(|_| self.hasher.hash()).collect()
    }

    /// Adds the manifest and makes the archive durable.
    pub(crate) fn finish(mut self, manifest: &[u8]) -> Result<()> {
        self.start(
            MANIFEST_FILE,
            CompressionMethod::Deflated,
            manifest.len() as u64,
        )?;
        self.write(manifest)?;
        let finished = match mem::replace(&mut self.zip, Zip::Done) {
            Zip::Done => Ok(()),
            Zip::Rewriting(zip) => zip.finish().map(drop),
            Zip::Streaming(zip) => zip.finish().map(drop),
        };
        finished.map_err(|error| self.failure(&error.into()))?;
        self.handle.finish()?;
        self.finished = true;
        Ok(())
    }

    fn start(&mut self, path: &str, method: CompressionMethod, bytes: u64) -> Result<()> {
        let options = self.options.compression_method(method);
        let options = options.large_file(bytes >= LARGE_BYTES);
        let started = match &mut self.zip {
            Zip::Done => Ok(()),
            Zip::Rewriting(zip) => zip.start_file(path, options),
            Zip::Streaming(zip) => zip.start_file(path, options),
        };
        started.map_err(|error| self.failure(&error.into()))
    }

    /// Hashes a part of a chunk and writes it.
    fn put(&mut self, chunk: Vec<u8>, len: usize) -> Result<()> {
        let chunk = Arc::new(chunk);
        self.hasher.update(&chunk, len)?;
        self.write(&chunk[..len])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.zip {
            Zip::Done => Ok(()),
            Zip::Rewriting(zip) => zip.write_all(bytes),
            Zip::Streaming(zip) => zip.write_all(bytes),
        };
        written.map_err(|error| self.failure(&error))
    }

    /// What really went wrong: mostly the destination, whose own error tells more.
    fn failure(&self, error: &io::Error) -> Error {
        self.handle.failure().unwrap_or_else(|| {
            let error = io::Error::other(error.to_string());
            CoreError::io("write", Path::new("the archive"), error).into()
        })
    }
}

impl Drop for ArchiveWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.handle.give_up();
        }
    }
}

/// What a document is written into: it gathers chunks, and remembers why it failed.
struct DocumentWriter<'a, 'b> {
    archive: &'a mut ArchiveWriter,
    progress: &'a mut Progress<'b>,
    chunk: Vec<u8>,
    filled: usize,
    bytes: u64,
    failed: Option<Error>,
}

impl DocumentWriter<'_, '_> {
    fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.chunk.is_empty() {
            self.chunk = self.archive.hasher.chunk()?;
        }
        let taken = bytes.len().min(self.chunk.len() - self.filled);
        self.chunk[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        if self.filled == self.chunk.len() {
            self.hand_on()?;
        }
        Ok(taken)
    }

    fn hand_on(&mut self) -> Result<()> {
        let (chunk, filled) = (mem::take(&mut self.chunk), mem::take(&mut self.filled));
        if chunk.is_empty() {
            return Ok(());
        }
        self.archive.put(chunk, filled)?;
        self.bytes += filled as u64;
        self.progress.add(filled as u64)
    }
}

impl Write for DocumentWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed.is_none() {
            match self.take(bytes) {
                Ok(taken) => return Ok(taken),
                Err(error) => self.failed = Some(error),
            }
        }
        Err(io::Error::other(
            "the snapshot cannot be written any further",
        ))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How much of a chunk `left` bytes take.
fn chunk_part(chunk: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()))
}

/// The time of a snapshot as zip says it, where it can.
fn zip_time(name: SnapshotName) -> Option<zip::DateTime> {
    let at = name.civil();
    let [month, day, hour, minute, second] =
        [at.month(), at.day(), at.hour(), at.minute(), at.second()].map(i8::unsigned_abs);
    let year = at.year().unsigned_abs();
    zip::DateTime::from_date_and_time(year, month, day, hour, minute, second).ok()
}
