//! What opening a store does about its keys: makes the keyring durable before anything relies on it, and destroys what an
//! earlier opening did not come to destroy.

use std::path::Path;

use vault_core::transform::{ENCRYPTED_ID, FileHeader, KEYRING_NAME};
use vault_core::{Error, Result};

use super::Opening;
use crate::manifest::{self, Manifest, State};

impl Opening {
    /// Refuses a keyring without keys for a keyspace that the manifest has: they are durable before it. Creating a keyspace
    /// does not replace the pointer, so its version alone does not tell that such a keyring is an older one.
    pub(super) fn check_keys(&self, state: &State) -> Result<()> {
        let Some(keys) = self.env.transform.keys() else {
            return Ok(());
        };
        for &id in state.keyspaces.keys() {
            if !keys.has_domain(id)? {
                let found = keys.version();
                return Err(Error::RolledBack {
                    path: self.env.directory.join(KEYRING_NAME),
                    found,
                    least: found + 1,
                });
            }
        }
        Ok(())
    }

    /// Makes the keyring durable as it was read, and writes whichever of its two files is damaged anew, before anything relies
    /// on it. What an end or a failed sync has interrupted can be read, and yet be gone after a loss of power: a pointer
    /// that names its version, or a file under one of its new keys, would then be of no use.
    pub(super) fn mend_keys(&self, read: &State) -> Result<()> {
        let Some(keys) = self.env.transform.keys() else {
            return Ok(());
        };
        let Some(pointer) = &self.pointer else {
            // It was made a moment ago.
            return Ok(());
        };
        // The pointer was written when the keyring of its version was durable.
        let is_durable = keys.version() <= pointer.keyring_version;
        let write = || {
            if is_durable {
                keys.mend()
            } else {
                keys.secure()
            }
        };
        let written = match write() {
            Err(Error::DiskFull { .. }) => self.make_room(read, pointer).and_then(|()| write()),
            written => written,
        };
        match written {
            // Only the other file could not be mended, which the keyring's info goes on saying.
            Err(error) if is_durable && !matches!(error, Error::Poisoned { .. }) => Ok(()),
            written => written.map_err(manifest::cause),
        }
    }

    /// Destroys the keys of keyspaces that were dropped, or that an opening before ended in the midst of creating.
    pub(super) fn finish_drops(&self, manifest: &mut Manifest) -> Result<()> {
        let Some(keys) = self.env.transform.keys() else {
            return Ok(());
        };
        let before = keys.version();
        let kept: Vec<u32> = manifest.state().keyspaces.keys().copied().collect();
        keys.keep_domains(&kept)?;
        if keys.version() == before {
            return Ok(());
        }
        // The keyring with the keys that are destroyed, put back, is to be noticed.
        manifest.renew_pointer(&self.env).map_err(manifest::cause)
    }
}

/// Whether a store is a plain one, or has lost its keyring, only the header of its pointer can tell.
pub(super) fn keyring_missing(error: Error, directory: &Path, pointer: &FileHeader) -> Error {
    match error {
        Error::NotEncrypted { .. } if pointer.transform == ENCRYPTED_ID => {
            let problem = "the store is encrypted, and its keyring and the copy of it are missing: without them nothing \
                of it can be read; put an exported keyring in their place";
            Error::corruption(&directory.join(KEYRING_NAME), 0, problem)
        }
        other => other,
    }
}
