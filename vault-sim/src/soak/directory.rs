//! The directory of the store against what the store says of itself.

use std::io;
use std::path::Path;

use vault_core::stats::EngineStats;
use vault_core::transform::{KEYRING_COPY_NAME, KEYRING_NAME};
use vault_core::vfs::{DiskFileSystem, EntryKind, FileSystem as _};

/// What lies in a store's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Found {
    pub(super) tables: u64,
    pub(super) logs: u64,
    pub(super) manifests: u64,
    /// Pointer and lock, and the two files of a keyring.
    pub(super) fixed: u64,
    /// Anything else: unfinished files, foreign ones.
    pub(super) others: u64,
    /// Bytes of all files, by their lengths.
    pub(super) bytes: u64,
}

impl Found {
    pub(super) const fn files(&self) -> u64 {
        self.tables + self.logs + self.manifests + self.fixed + self.others
    }
}

/// Counts the files of a directory. Files that go meanwhile are counted without their bytes.
pub(super) fn look_at(directory: &Path) -> Result<Found, String> {
    let fs = DiskFileSystem::new();
    let entries = fs
        .read_dir(directory)
        .map_err(|e| format!("list {}: {e}", directory.display()))?;
    let mut found = Found::default();
    for entry in entries {
        let name = entry.name.to_string_lossy().into_owned();
        const FIXED: [&str; 4] = ["CURRENT", "LOCK", KEYRING_NAME, KEYRING_COPY_NAME];
        let count = match name.rsplit_once('.') {
            Some((_, "tab" | "blob")) => &mut found.tables,
            Some((_, "log")) => &mut found.logs,
            Some((_, "man")) => &mut found.manifests,
            _ if FIXED.contains(&&name[..]) => &mut found.fixed,
            _ => &mut found.others,
        };
        *count += 1;
        let len = fs
            .open(&directory.join(&entry.name))
            .and_then(|file| file.len());
        found.bytes += len.unwrap_or(0);
    }
    Ok(found)
}

/// What the store names, by its own counts.
pub(super) fn named(stats: &EngineStats, encrypted: bool) -> Found {
    let tables = stats.keyspaces.iter().flat_map(|keyspace| &keyspace.levels);
    let blobs: u64 = stats.keyspaces.iter().map(|k| k.blobs.files).sum();
    Found {
        tables: tables.map(|level| level.tables as u64).sum::<u64>() + blobs,
        logs: stats.log.segments,
        manifests: 1,
        fixed: if encrypted { 4 } else { 2 },
        others: 0,
        bytes: 0,
    }
}

/// Checks that nothing is there that the store does not name, nor anything missing. Nobody may be at work.
pub(super) fn compare(
    directory: &Path,
    stats: &EngineStats,
    encrypted: bool,
    when: &str,
) -> Result<(), String> {
    let found = Found {
        bytes: 0,
        ..look_at(directory)?
    };
    let named = named(stats, encrypted);
    if found == named {
        return Ok(());
    }
    Err(format!(
        "{when}, the directory holds {found:?}, the store names {named:?}"
    ))
}

/// Removes a directory and all that is in it.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let fs = DiskFileSystem::new();
    for entry in fs.read_dir(path)? {
        let inner = path.join(&entry.name);
        match entry.kind {
            EntryKind::Directory => remove_tree(&inner)?,
            EntryKind::File | EntryKind::Other => fs.remove(&inner)?,
        }
    }
    fs.remove_dir(path)
}
