//! Reading entries of an archive, with their hashes: what verifying and restoring have in common.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::archive::{ArchiveReader, Entry, Error, Hasher, Progress, Result, Sha256Hash};

/// What becomes of the bytes that are read.
pub(super) trait Receiver {
    /// An entry begins.
    fn begin(&mut self, _entry: &Entry) -> Result<()> {
        Ok(())
    }

    /// Bytes of it, in order.
    fn bytes(&mut self, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    /// All of it was given. Its hash may still be on the way.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Keeps nothing.
impl Receiver for () {}

/// Reads entries, hands their bytes on, and holds every hash against the manifest's before it returns.
pub(super) fn read_entries<'a>(
    archive: &mut ArchiveReader,
    location: &str,
    entries: impl Iterator<Item = &'a Entry>,
    hasher: &mut Hasher,
    receiver: &mut dyn Receiver,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let mut waiting: VecDeque<&Entry> = VecDeque::new();
    for entry in entries {
        let mut reader = archive.entry(entry)?;
        receiver.begin(entry)?;
        loop {
            let mut chunk = hasher.chunk()?;
            let read = reader.read(&mut chunk)?;
            let chunk = Arc::new(chunk);
            hasher.update(&chunk, read)?;
            if read == 0 {
                break;
            }
            receiver.bytes(&chunk[..read])?;
            progress.add(read as u64)?;
        }
        receiver.end()?;
        hasher.end()?;
        waiting.push_back(entry);
        while let Some(hash) = hasher.hash_at_hand() {
            check_hash(location, waiting.pop_front(), hash)?;
        }
    }
    while !waiting.is_empty() {
        let hash = hasher.hash()?;
        check_hash(location, waiting.pop_front(), hash)?;
    }
    Ok(())
}

/// Holds a hash against the manifest's.
pub(super) fn check_hash(location: &str, entry: Option<&Entry>, found: Sha256Hash) -> Result<()> {
    match entry {
        Some(entry) if entry.sha256 != found => Err(Error::damaged(
            format!("{location}: {}", entry.path),
            format!("its SHA-256 is {found}, the manifest says {}", entry.sha256),
        )),
        _ => Ok(()),
    }
}
