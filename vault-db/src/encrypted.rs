//! Encrypted stores: a type of their own, so that nobody opens one for the other by accident.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use vault_core::{Error, Result};
use vault_crypto::keyring::KeyringInfo;
use vault_crypto::{EncryptedProtection, Kdf, KeyService, KeySource, Keyring};
use vault_lsm::{Lsm, LsmOptions};

/// A store of which every byte on disk is encrypted and authenticated.
///
/// It does all that [`Lsm`] does, which it derefs to, and what concerns its keys. The keys are wiped from memory by
/// [`lock`](Lsm::lock), by closing, and when the last handle goes.
///
/// ```
/// use vault_db::encryption::{Passphrase, SecretBytes};
/// use vault_db::engine::{EncryptedStore, Engine, Error, KeyspaceOptions, LsmOptions, Reader, WriteOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("store");
/// let passphrase = || Passphrase::new(SecretBytes::from_string("correct horse".to_owned())?);
/// let store = EncryptedStore::open(&path, LsmOptions::default(), passphrase()?)?;
/// let users = store.create_keyspace("users", &KeyspaceOptions::default())?;
/// store.put(users, b"alice", b"admin", &WriteOptions::SYNC)?;
///
/// store.lock()?;
/// assert!(matches!(store.get(users, b"alice"), Err(Error::Locked)));
/// store.unlock(&passphrase()?)?;
/// assert_eq!(store.get(users, b"alice")?.as_deref(), Some(&b"admin"[..]));
/// store.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EncryptedStore {
    engine: Lsm,
    keyring: Arc<Keyring>,
}

impl EncryptedStore {
    /// Opens the store in `directory`, or creates it, under the secret from `source`. A new one gets Argon2id with 64 MiB
    /// and three passes for a passphrase, and the fastest cipher that this build and this processor offer; one that exists has
    /// its own.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{EncryptedProtection, RawKey, SecretKey};
    /// # use vault_db::engine::{EncryptedStore, Engine, LsmOptions};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// # let key = |byte| RawKey::new(SecretKey::from_bytes(&mut [byte; 32]));
    /// let store = EncryptedStore::open(&path, LsmOptions::default(), key(7))?;
    /// store.close()?;
    /// assert!(EncryptedStore::open(&path, LsmOptions::default(), key(8)).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Lsm::open`]; [`WrongKey`](Error::WrongKey), [`NotEncrypted`](Error::NotEncrypted) where the store is a plain one,
    /// [`RolledBack`](Error::RolledBack), [`UnacceptableKeyring`](Error::UnacceptableKeyring), and what the source says
    /// ([`KeyUnavailable`](Error::KeyUnavailable), [`InvalidKey`](Error::InvalidKey)).
    pub fn open(
        directory: impl AsRef<Path>,
        options: LsmOptions,
        source: impl KeySource + 'static,
    ) -> Result<Self> {
        let protection = EncryptedProtection::with_source(Arc::new(source));
        Self::open_with(directory, options, protection)
    }

    /// As [`EncryptedStore::open`], with a say in how: the cipher and the key derivation of a new store, or a key service of
    /// the host.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{EncryptedProtection, RawKey, SecretKey};
    /// # use vault_db::engine::{EncryptedStore, Engine, LsmOptions};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// # let key = |byte| RawKey::new(SecretKey::from_bytes(&mut [byte; 32]));
    /// use std::sync::Arc;
    /// use vault_db::encryption::Algorithm;
    /// let protection = EncryptedProtection::with_source(Arc::new(key(7))).algorithm(Algorithm::ChaCha20Poly1305);
    /// let store = EncryptedStore::open_with(&path, LsmOptions::default(), protection)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`EncryptedStore::open`].
    pub fn open_with(
        directory: impl AsRef<Path>,
        options: LsmOptions,
        protection: EncryptedProtection,
    ) -> Result<Self> {
        let protection = Arc::new(protection);
        let engine = Lsm::open(directory, options.protection(protection.clone()))?;
        Self::new(engine, &protection)
    }

    /// Opens the store in `directory` for reading only, beside the process that writes it, if there is one.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{EncryptedProtection, RawKey, SecretKey};
    /// # use vault_db::engine::{EncryptedStore, Engine, LsmOptions};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// # let key = |byte| RawKey::new(SecretKey::from_bytes(&mut [byte; 32]));
    /// EncryptedStore::open(&path, LsmOptions::default(), key(7))?.close()?;
    /// let protection = EncryptedProtection::with_source(std::sync::Arc::new(key(7)));
    /// let store = EncryptedStore::open_read_only(&path, LsmOptions::default(), protection)?;
    /// assert!(store.check_writable().is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Lsm::open_read_only`] and [`EncryptedStore::open`].
    pub fn open_read_only(
        directory: impl AsRef<Path>,
        options: LsmOptions,
        protection: EncryptedProtection,
    ) -> Result<Self> {
        let protection = Arc::new(protection);
        let options = options.protection(protection.clone());
        let engine = Lsm::open_read_only(directory, &options)?;
        Self::new(engine, &protection)
    }

    fn new(engine: Lsm, protection: &EncryptedProtection) -> Result<Self> {
        // The engine holds it for as long as it is open.
        let keyring = protection.keyring().ok_or(Error::Closed)?;
        Ok(Self { engine, keyring })
    }

    /// Makes the store usable again after [`lock`](Lsm::lock), or after it locked itself because nothing was asked for.
    /// Costs one key derivation. Does nothing where it is not locked, but checks the secret all the same.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{EncryptedProtection, RawKey, SecretKey};
    /// # use vault_db::engine::{EncryptedStore, Engine, LsmOptions};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// # let key = |byte| RawKey::new(SecretKey::from_bytes(&mut [byte; 32]));
    /// let store = EncryptedStore::open(&path, LsmOptions::default(), key(7))?;
    /// store.lock()?;
    /// assert!(store.unlock(&key(8)).is_err() && store.is_locked());
    /// store.unlock(&key(7))?;
    /// assert!(!store.is_locked());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`WrongKey`](Error::WrongKey): it stays locked. What the source says; [`Closed`](Error::Closed).
    pub fn unlock(&self, source: &dyn KeySource) -> Result<()> {
        self.unlock_with(|keyring| keyring.unlock(source))
    }

    /// As [`EncryptedStore::unlock`], by the key service that the store was opened with.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use std::sync::Arc;
    /// use vault_db::encryption::{EncryptedProtection, KeyService, SecretKey};
    /// use vault_db::engine::{EncryptedStore, LsmOptions, Result};
    ///
    /// /// Stands for a service that keeps its key to itself: this one keeps nothing.
    /// struct Toy;
    ///
    /// impl KeyService for Toy {
    ///     fn name(&self) -> String {
    ///         "a toy".to_owned()
    ///     }
    ///     fn wrap(&self, key: &SecretKey, _context: &[u8]) -> Result<Vec<u8>> {
    ///         Ok(key.expose().iter().map(|byte| byte ^ 0x55).collect())
    ///     }
    ///     fn unwrap(&self, wrapped: &[u8], _context: &[u8]) -> Result<SecretKey> {
    ///         let mut key = [0; 32];
    ///         key.iter_mut().zip(wrapped).for_each(|(byte, wrapped)| *byte = wrapped ^ 0x55);
    ///         Ok(SecretKey::from_bytes(&mut key))
    ///     }
    /// }
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// let protection = EncryptedProtection::with_service(Arc::new(Toy));
    /// let store = EncryptedStore::open_with(&path, LsmOptions::default(), protection)?;
    /// store.lock()?;
    /// store.unlock_by(&Toy)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`EncryptedStore::unlock`].
    pub fn unlock_by(&self, service: &dyn KeyService) -> Result<()> {
        self.unlock_with(|keyring| keyring.unlock_by(service))
    }

    /// Unlocks the keys, and has the engine go on.
    fn unlock_with(&self, unlock: impl Fn(&Keyring) -> Result<()>) -> Result<()> {
        unlock(&self.keyring)?;
        match self.engine.resume() {
            // Locking was under way, and has taken the keys away again when it ended: now it has.
            Err(Error::Locked) => {
                unlock(&self.keyring)?;
                self.engine.resume()
            }
            other => other,
        }
    }

    /// Replaces the passphrase or key, at once, however large the store is. `kdf` says how a passphrase becomes a key; without
    /// it, as for a new store. Older backups still open with the old secret; so that it opens nothing that is written from
    /// now on even together with an older keyring, [rotate the keys](Lsm::rotate_keys) too.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{EncryptedProtection, RawKey, SecretKey};
    /// # use vault_db::engine::{EncryptedStore, Engine, LsmOptions};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// # let key = |byte| RawKey::new(SecretKey::from_bytes(&mut [byte; 32]));
    /// let store = EncryptedStore::open(&path, LsmOptions::default(), key(7))?;
    /// store.change_secret(&key(8), None)?;
    /// store.close()?;
    /// assert!(EncryptedStore::open(&path, LsmOptions::default(), key(7)).is_err());
    /// assert!(EncryptedStore::open(&path, LsmOptions::default(), key(8)).is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Locked`](Error::Locked), [`Closed`](Error::Closed), [`ReadOnly`](Error::ReadOnly); what the source and the file system say.
    pub fn change_secret(&self, new: &dyn KeySource, kdf: Option<Kdf>) -> Result<()> {
        // Refuses where the pointer could not follow.
        self.engine.check_writable()?;
        self.keyring.change_secret(new, kdf)?;
        self.engine.keys_changed()
    }

    /// What can be told of the keys: cipher, derivation, epochs, and what is wrong with the keyring's files, if anything.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{EncryptedProtection, RawKey, SecretKey};
    /// # use vault_db::engine::{EncryptedStore, Engine, LsmOptions};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// # let key = |byte| RawKey::new(SecretKey::from_bytes(&mut [byte; 32]));
    /// let store = EncryptedStore::open(&path, LsmOptions::default(), key(7))?;
    /// assert_eq!(store.keyring_info().epoch, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn keyring_info(&self) -> KeyringInfo {
        self.keyring.info()
    }

    /// The keyring as a file, to be kept apart from the store for the day when both of its copies are damaged. It opens with
    /// the secret of this moment; keep it as you keep a backup.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::encryption::{EncryptedProtection, RawKey, SecretKey};
    /// # use vault_db::engine::{EncryptedStore, Engine, LsmOptions};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// # let key = |byte| RawKey::new(SecretKey::from_bytes(&mut [byte; 32]));
    /// let store = EncryptedStore::open(&path, LsmOptions::default(), key(7))?;
    /// let keyring = store.export_keyring(); // to be kept apart from the store
    /// assert!(!keyring.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn export_keyring(&self) -> Vec<u8> {
        self.keyring.export()
    }
}

impl Deref for EncryptedStore {
    type Target = Lsm;

    fn deref(&self) -> &Lsm {
        &self.engine
    }
}

impl fmt::Debug for EncryptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}
