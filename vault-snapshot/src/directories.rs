//! Directories whose names survive a loss of power.

use std::path::Path;

use vault_core::vfs::{FileSystem, parent_of};
use vault_core::{Error, Result};

/// Creates a directory and those above it, durably: each new one is a name in the one above. The name of a directory that is
/// there already is made durable too: whoever created it may not have done so.
pub(crate) fn create_directories(file_system: &dyn FileSystem, directory: &Path) -> Result<()> {
    let mut above = vec![parent_of(directory)];
    while let Some(path) = above.last() {
        let kind = file_system.kind(path);
        let parent = parent_of(path);
        if kind.map_err(|e| Error::io("look at", path, e))?.is_some() || parent == *path {
            break;
        }
        above.push(parent);
    }
    if let Err(error) = file_system.create_dir_all(directory) {
        // Those that were made just now are empty, and only such can be removed. The topmost was there.
        for path in &above[..above.len() - 1] {
            drop(file_system.remove_dir(path));
        }
        return Err(Error::io("create", directory, error));
    }
    above.iter().try_for_each(|path| {
        let synced = file_system.sync_dir(path);
        synced.map_err(|e| Error::io("sync", path, e))
    })
}
