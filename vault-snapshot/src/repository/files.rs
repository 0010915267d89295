//! The files of a physical snapshot where they lie: a store can be opened within its archives, without unpacking them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use vault_core::vfs::{File, FileSet, WriteMap};

use super::Repository;
use crate::archive::path::STORE_PREFIX;
use crate::archive::{Error, Form, Result, SnapshotName};
use crate::destination::Content;

impl Repository {
    /// The files of a physical snapshot, as a directory under a path of the caller's choice, read where they lie.
    ///
    /// Archives and manifests of the chain are held against each other; the hashes of what is read later are not:
    /// [verify](Self::verify) first where it matters. What a store checks and authenticates itself, it does as ever.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a logical snapshot, which has no files; else as [`verify`](Self::verify).
    pub fn files(&self, name: SnapshotName, directory: &Path) -> Result<FileSet> {
        let manifest = self.load(name)?.manifest;
        if manifest.form != Form::Physical {
            return Err(Error::request(format!(
                "{name} is a logical snapshot: it has documents and no files"
            )));
        }
        let mut files: BTreeMap<String, Arc<dyn File>> = BTreeMap::new();
        for holder in self.chain(&manifest)? {
            let held = manifest.entries.iter().filter(|e| e.holder == holder);
            let held: Vec<_> = held.collect();
            if held.is_empty() {
                continue;
            }
            let loaded = self.load(holder)?;
            self.check_references(&manifest, &loaded.manifest)?;
            let mut archive = self.open_archive(&loaded)?;
            let content = self.destination.archive(holder)?;
            for entry in held {
                let within = Within {
                    content: Arc::clone(&content),
                    start: archive.stored_at(entry)?,
                    bytes: entry.bytes,
                };
                let name = entry.path.strip_prefix(STORE_PREFIX).unwrap_or(&entry.path);
                files.insert(name.to_owned(), Arc::new(within));
            }
        }
        if files.len() != manifest.entries.len() {
            let location = self.file_location(name, crate::destination::MANIFEST_FILE);
            let problem = "an entry lies in no archive of the chain";
            return Err(Error::damaged(location, problem));
        }
        Ok(FileSet::new(directory, files))
    }
}

/// A piece of an archive, as a file.
struct Within {
    content: Arc<dyn Content>,
    start: u64,
    bytes: u64,
}

impl fmt::Debug for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within")
            .field("start", &self.start)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

fn refuse<T>() -> io::Result<T> {
    let problem = "a snapshot is for reading only";
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, problem))
}

impl File for Within {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.bytes.saturating_sub(offset);
        let wanted = (buffer.len() as u64).min(left) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        // Within the archive, whose length was checked: no overflow.
        self.content
            .read_at(&mut buffer[..wanted], self.start.saturating_add(offset))
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        refuse()
    }

    fn sync(&self) -> io::Result<()> {
        refuse()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        refuse()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        refuse()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn map(&self, _: usize) -> io::Result<Box<dyn WriteMap>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
