//! Where the secret comes from.

use vault_core::{Error, Result};

use crate::secret::{SecretBytes, SecretKey};

/// What opens a store.
pub enum Secret {
    /// A passphrase, which a person can remember and others can guess.
    Passphrase(SecretBytes),
    /// A key of 32 random bytes.
    Key(SecretKey),
}

/// Where a secret comes from. Asked each time it is needed, and never kept longer than that.
pub trait KeySource: Send + Sync {
    /// Where it comes from, for messages. Says nothing of the secret.
    fn name(&self) -> String;

    /// Gets the secret.
    ///
    /// # Errors
    /// [`Error::KeyUnavailable`] where it cannot be had, [`Error::InvalidKey`] where it cannot be a secret.
    fn secret(&self) -> Result<Secret>;
}

/// A host's own key service, which wraps and unwraps keys and never gives away its own.
pub trait KeyService: Send + Sync {
    /// Which service and which of its keys, for messages.
    fn name(&self) -> String;

    /// Wraps a key, bound to the context: it unwraps under the same one only.
    ///
    /// # Errors
    /// [`Error::KeyUnavailable`].
    fn wrap(&self, key: &SecretKey, context: &[u8]) -> Result<Vec<u8>>;

    /// Unwraps a key.
    ///
    /// # Errors
    /// [`Error::KeyUnavailable`] where the service cannot be asked, [`Error::InvalidKey`] where it refuses.
    fn unwrap(&self, wrapped: &[u8], context: &[u8]) -> Result<SecretKey>;
}

/// A passphrase that is at hand.
pub struct Passphrase {
    passphrase: SecretBytes,
}

impl Passphrase {
    /// Takes a passphrase.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] where it is empty.
    pub fn new(passphrase: SecretBytes) -> Result<Self> {
        if passphrase.expose().is_empty() {
            return Err(Error::InvalidKey {
                problem: "the passphrase is empty; give one of at least one character".to_owned(),
            });
        }
        Ok(Self { passphrase })
    }
}

impl KeySource for Passphrase {
    fn name(&self) -> String {
        "the passphrase that was given".to_owned()
    }

    fn secret(&self) -> Result<Secret> {
        Ok(Secret::Passphrase(self.passphrase.duplicate()))
    }
}

/// A key that is at hand.
pub struct RawKey {
    key: SecretKey,
}

impl RawKey {
    /// Takes a key.
    #[must_use]
    pub fn new(key: SecretKey) -> Self {
        Self { key }
    }
}

impl KeySource for RawKey {
    fn name(&self) -> String {
        "the key that was given".to_owned()
    }

    fn secret(&self) -> Result<Secret> {
        Ok(Secret::Key(self.key.duplicate()))
    }
}
