//! Sealing and opening the blocks of an encrypted store, behind the traits of [`vault_core::transform`].
//!
//! - Each file has a key of its own, derived from the data key of its domain and epoch and from its header, whose random salt
//!   makes it single-use: `docs/format/keyring.md`.
//! - The nonce of a block is its ordinal, so no two blocks of a file have the same; an ordinal that was spent is refused, and
//!   so is sealing into a file that was opened for reading.
//! - Everything that says where a block belongs is authenticated with it.
//!
//! `protection` is what an engine is given, `file_seal` what it seals and opens blocks with, `open_files` the list of
//! these by which locking finds their keys.

mod file_seal;
pub(crate) mod open_files;
pub(crate) mod parameters;
mod protection;
pub(crate) mod providers;

use std::sync::Arc;

use vault_core::transform::{Assurance, BlockTransform, ENCRYPTED_ID, FileHeader, Keys, Transform};
use vault_core::{Error, Result};

use self::file_seal::{FileSeal, Use};
use self::parameters::{PARAMETERS_OFFSET, Parameters};
use crate::keyring::Keyring;

pub use protection::EncryptedProtection;

/// The transform of an encrypted store.
#[derive(Debug, Clone)]
pub struct KeyringTransform {
    keyring: Arc<Keyring>,
}

impl KeyringTransform {
    /// The id of this transform in a file's header.
    pub const ID: u16 = ENCRYPTED_ID;

    pub(crate) const fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring }
    }

    /// The keyring behind it.
    #[must_use]
    pub const fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    fn seal_of(
        &self,
        header: &FileHeader,
        parameters: Parameters,
        used: Use,
    ) -> Result<Arc<dyn BlockTransform>> {
        let seal = FileSeal::new(&self.keyring, header, parameters, used);
        seal.derive()?;
        Ok(seal)
    }
}

impl Transform for KeyringTransform {
    fn id(&self) -> u16 {
        ENCRYPTED_ID
    }

    fn assurance(&self) -> Assurance {
        Assurance::Authenticity
    }

    fn create(&self, header: &mut FileHeader) -> Result<Arc<dyn BlockTransform>> {
        let parameters = Parameters {
            algorithm: self.keyring.algorithm(),
            epoch: self.keyring.with_keys(|keys| Ok(keys.epoch()))?,
        };
        header.parameters = parameters.encode();
        self.seal_of(header, parameters, Use::Writing)
    }

    fn open(&self, header: &FileHeader) -> Result<Arc<dyn BlockTransform>> {
        let identity = &header.identity;
        let refused = |offset, problem: String| {
            let kind = identity.kind.name();
            let problem = format!("{kind} {}: {problem}", identity.number);
            Error::corruption(self.keyring.directory(), offset, problem)
        };
        let parameters = Parameters::decode(&header.parameters)
            .map_err(|problem| refused(PARAMETERS_OFFSET, problem.to_string()))?;
        if identity.store != *self.keyring.store() {
            return Err(refused(16, "it is a file of another store".to_owned()));
        }
        match self.seal_of(header, parameters, Use::Reading) {
            Err(Error::UnacceptableKeyring { .. }) if self.keyring.refresh()? => {
                self.seal_of(header, parameters, Use::Reading)
            }
            outcome => outcome,
        }
    }

    fn keys(&self) -> Option<&dyn Keys> {
        Some(&*self.keyring)
    }
}
