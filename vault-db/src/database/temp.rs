//! Directories that go away.

use std::path::{Path, PathBuf};

use vault_core::random::{Random, SystemRandom};
use vault_core::vfs::{DiskFileSystem, EntryKind, FileSystem};

use crate::error::Result;
use crate::hex::hex;

/// A directory under the system's one for temporary files. Goes with this value, with everything in it.
pub(crate) struct TemporaryDirectory {
    path: PathBuf,
}

impl TemporaryDirectory {
    pub(crate) fn create() -> Result<Self> {
        let mut random = [0; 16];
        SystemRandom.fill(&mut random)?;
        let path = std::env::temp_dir().join(format!("vault-{}", hex(&random)));
        DiskFileSystem.create_dir_all(&path).map_err(|error| {
            vault_core::Error::io("create the temporary directory", &path, error)
        })?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // Nobody is left to hear of an error; the system clears its directory in time.
        let _ = remove(&self.path);
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    for entry in DiskFileSystem.read_dir(path)? {
        let inside = path.join(&entry.name);
        match DiskFileSystem.kind(&inside)? {
            Some(EntryKind::Directory) => remove(&inside)?,
            _ => DiskFileSystem.remove(&inside)?,
        }
    }
    DiskFileSystem.remove_dir(path)
}
