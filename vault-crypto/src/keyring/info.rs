//! What can be told of a keyring without its keys, and keeping one elsewhere.

use std::path::Path;
use std::sync::Arc;

use vault_core::vfs::FileSystem;
use vault_core::{Error, Result};

use super::Keyring;
use super::files::{Directory, Found, Which, WriteError};
use super::format::{FILE_BYTES_MAX, Image, Method};
use super::load::{Flaws, choose};
use crate::cipher::Algorithm;
use crate::kdf::{Kdf, KdfBounds};

/// What wraps the root key of a keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootWrapping {
    /// A passphrase or key, through this derivation.
    Secret(Kdf),
    /// A key service of the host.
    Service,
}

/// What can be told of a keyring. Without the secret nothing of it is proved: it is what the file says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeyringInfo {
    /// The store whose keys it holds.
    pub store: [u8; 16],
    /// One more with each change.
    pub version: u64,
    /// What seals new files.
    pub algorithm: Algorithm,
    /// The epoch under which new files are sealed.
    pub epoch: u32,
    /// What wraps the root key.
    pub wrapping: RootWrapping,
    /// Number of data keys: one for each keyspace, and the store's own, in each epoch that is in use.
    pub keys: usize,
    /// Length of the file in bytes.
    pub bytes: usize,
    /// How many epochs have keys; known while it is unlocked.
    pub epochs: Option<usize>,
    /// How many domains have keys: the keyspaces and the store's own; known while it is unlocked.
    pub domains: Option<usize>,
    /// What is wrong with `KEYRING`, where its copy stands in for it.
    pub main_flaw: Option<Error>,
    /// What is wrong with `KEYRING.copy`: it is missing, damaged or behind.
    pub copy_flaw: Option<Error>,
}

impl KeyringInfo {
    fn of(image: &Image, flaws: &Flaws) -> Self {
        Self {
            store: image.store,
            version: image.version,
            algorithm: image.algorithm,
            epoch: image.epoch,
            wrapping: match image.wrapping.method {
                Method::Secret(kdf) => RootWrapping::Secret(kdf),
                Method::Service(_) => RootWrapping::Service,
            },
            keys: image.keys(),
            bytes: image.bytes.len(),
            epochs: None,
            domains: None,
            main_flaw: flaws.main.clone(),
            copy_flaw: flaws.copy.clone(),
        }
    }
}

impl Keyring {
    /// What can be told of it. Holds no key.
    #[must_use]
    pub fn info(&self) -> KeyringInfo {
        let disk = self.disk();
        let mut info = KeyringInfo::of(&disk.image, &disk.flaws);
        if let Some(open) = &*self.keys() {
            info.epochs = Some(open.table.epochs().len());
            info.domains = Some(open.table.domains().count());
        }
        info
    }

    /// The bytes of its file, wrapped as they are on disk, to be kept elsewhere. Who has them and the secret of this moment can
    /// read what the store holds now, whatever the secret is changed to later.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        self.disk().image.bytes.clone()
    }
}

/// What can be told of the keyring of a store that need not be open, without any secret.
///
/// # Errors
/// [`Error::NotEncrypted`] where there is none, [`Error::Corruption`] where both files are damaged; what the file system says.
pub fn read_info(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<KeyringInfo> {
    let chosen = choose(&directory_at(fs, directory), None, &lenient())?;
    Ok(KeyringInfo::of(&chosen.image, &chosen.flaws))
}

/// The bytes of the keyring of a store that need not be open: see [`Keyring::export`].
///
/// # Errors
/// As [`read_info`].
pub fn export(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<Vec<u8>> {
    let chosen = choose(&directory_at(fs, directory), None, &lenient())?;
    Ok(chosen.image.bytes)
}

/// Puts back a keyring that was [exported](export), into a store that is not open and whose own two files are lost. Whether it
/// is recent enough, opening the store tells.
///
/// # Errors
/// [`Error::TargetExists`] where a keyring is there that is whole, [`Error::Corruption`] and the like where `bytes` are none;
/// what the file system says.
pub fn import(fs: &Arc<dyn FileSystem>, directory: &Path, bytes: &[u8]) -> Result<()> {
    let directory = directory_at(fs, directory);
    // What a caller gives is bounded before it is copied.
    let given = bytes[..bytes.len().min(FILE_BYTES_MAX + 1)].to_vec();
    let image = Image::decode(Path::new("the exported keyring"), given, &lenient())?;
    for which in [Which::Main, Which::Copy] {
        if !matches!(directory.read(which, None, &lenient())?, Found::Broken(_)) {
            return Err(Error::TargetExists {
                path: directory.path_of(which),
            });
        }
    }
    for which in [Which::Main, Which::Copy] {
        let written = directory.replace(which, &image.bytes);
        written.map_err(WriteError::into_error)?;
    }
    Ok(())
}

/// Where nothing is derived, weak parameters do no harm; those that no machine could satisfy are refused all the same.
const fn lenient() -> KdfBounds {
    KdfBounds::danger_weak()
}

fn directory_at(fs: &Arc<dyn FileSystem>, path: &Path) -> Directory {
    Directory {
        fs: Arc::clone(fs),
        path: path.to_path_buf(),
    }
}
