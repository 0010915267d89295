//! Single entries of a snapshot, wherever in its chain they lie.

use std::io::Write;
use std::path::Path;

use vault_core::Error as CoreError;

use super::Repository;
use super::check::Receiver;
use crate::archive::{Entry, Error, Progress, Result, SnapshotName, Watcher};

impl Repository {
    /// Reads one entry, whose path is as in the manifest, into memory.
    ///
    /// # Errors
    /// [`Error::NoSuchEntry`]; [`Error::OverLimit`] where it is longer than `bytes_max`; else as
    /// [`verify`](Self::verify).
    pub fn read_entry(&self, name: SnapshotName, path: &str, bytes_max: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.copy_entry(name, path, bytes_max, &mut bytes, &())?;
        Ok(bytes)
    }

    /// Writes one entry, of at most `bytes_max` bytes, somewhere else. Its hash is only known at the end: what was
    /// written is good when this returns.
    ///
    /// # Errors
    /// As [`read_entry`](Self::read_entry), [`Error::Cancelled`], and what the writer says, as [`Error::Storage`].
    pub fn copy_entry(
        &self,
        name: SnapshotName,
        path: &str,
        bytes_max: u64,
        to: &mut dyn Write,
        watcher: &dyn Watcher,
    ) -> Result<()> {
        let manifest = self.load(name)?.manifest;
        let Some(entry) = manifest.entry(path) else {
            return Err(Error::NoSuchEntry {
                snapshot: name.to_string(),
                path: path.chars().take(128).collect(),
            });
        };
        if entry.bytes > bytes_max {
            return Err(Error::OverLimit {
                what: format!("bytes of entry {path:?}"),
                found: entry.bytes,
                max: bytes_max,
                setting: "bytes_max",
            });
        }
        let chain = self.chain(&manifest)?;
        let mut progress = Progress::begin(watcher, entry.bytes)?;
        let wanted = |other: &Entry| other.path == entry.path;
        let mut receiver = Forward { to, path };
        self.read_content(&manifest, &chain, &wanted, &mut receiver, &mut progress)
    }
}

/// Passes bytes on to a writer.
struct Forward<'a> {
    to: &'a mut dyn Write,
    path: &'a str,
}

impl Receiver for Forward<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.to.write_all(bytes);
        Ok(written.map_err(|e| CoreError::io("pass on", Path::new(self.path), e))?)
    }
}
