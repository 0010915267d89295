//! Directories that go away.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

use vault_core::random::{Random, SystemRandom};
use vault_core::vfs::{DiskFileSystem, EntryKind, FileSystem};

use crate::error::Result;
use crate::hex::hex;

/// A directory under the system's one for temporary files, which nobody but the user may look into. Goes with this value, with
/// everything in it.
pub(crate) struct TemporaryDirectory {
    path: PathBuf,
}

impl TemporaryDirectory {
    pub(crate) fn create() -> Result<Self> {
        let mut random = [0; 16];
        SystemRandom.fill(&mut random)?;
        let path = std::env::temp_dir().join(format!("vault-{}", hex(&random)));
        create_private(&path).map_err(|error| {
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

/// Creates a directory for the user alone, where the system knows users.
fn create_private(path: &Path) -> std::io::Result<()> {
    if let Some(above) = path.parent() {
        DiskFileSystem.create_dir_all(above)?;
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
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

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn nobody_else_may_look_into_it_and_it_goes() {
        let directory = TemporaryDirectory::create().unwrap();
        let path = directory.path().to_owned();
        let mode = path.symlink_metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(directory);
        assert!(path.symlink_metadata().is_err());
    }
}
