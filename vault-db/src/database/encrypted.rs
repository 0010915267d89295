//! Encrypted databases: a type of their own, so that nobody opens one for a plain one by accident.

use std::fmt;
use std::ops::Deref;
use std::path::Path;

use vault_core::random::{Random, SystemRandom};
use vault_crypto::source::RawKey;
use vault_crypto::{Kdf, KeySource, SecretKey};

use super::{Database, DatabaseBuilder};
use crate::encrypted::EncryptedStore;
use crate::error::Result;

/// A database of which every byte on disk is encrypted and authenticated: entries, names of vaults, counts, everything.
///
/// It does all that [`Database`] does, which it derefs to, and what concerns its keys. Each vault has a key of its own,
/// which is destroyed with the vault; see [`Vault::delete`](crate::Vault::delete).
///
/// ```
/// use vault_db::EncryptedDatabase;
/// use vault_db::encryption::{Passphrase, SecretBytes};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("store");
/// let passphrase = || Passphrase::new(SecretBytes::from_string("correct horse".to_owned())?);
/// let db = EncryptedDatabase::open(&path, passphrase()?)?;
/// db.vault("api keys")?.put("openai", "sk-...")?;
/// db.lock()?;
/// assert!(db.vault("api keys")?.get::<String>("openai").is_err());
/// db.unlock(&passphrase()?)?;
/// assert!(db.vault("api keys")?.get::<String>("openai")?.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EncryptedDatabase {
    /// Goes before the database, which may take its directory with it.
    store: EncryptedStore,
    database: Database,
}

impl EncryptedDatabase {
    /// Opens the encrypted database in a directory, or creates it, under the secret from `source`: a
    /// [passphrase](crate::encryption::Passphrase), a [key file](crate::encryption::KeyFile), a key service.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::EncryptedDatabase;
    /// # use vault_db::encryption::{Kdf, RawKey, SecretKey};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// let key = RawKey::new(SecretKey::from_bytes(&mut [7; 32]));
    /// let db = EncryptedDatabase::open(&path, key)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`EncryptedStore::open`] and [`Database::open`].
    pub fn open(directory: impl AsRef<Path>, source: impl KeySource + 'static) -> Result<Self> {
        Self::builder().open_encrypted(directory, source)
    }

    /// Opens a database in a directory of its own under the system's one for temporary files, under a random key, both of which
    /// go with the last handle. For tests and examples; with a secret of your own: [`DatabaseBuilder::temp_encrypted`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// let db = vault_db::EncryptedDatabase::temp()?;
    /// db.vault("scratch")?.put("a", &1)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`EncryptedDatabase::open`].
    pub fn temp() -> Result<Self> {
        let key = SecretKey::build(|bytes| SystemRandom.fill(bytes))?;
        Self::builder().temp_encrypted(RawKey::new(key))
    }

    /// Begins to say how a database is to be opened; [`DatabaseBuilder::open_encrypted`] ends it.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::EncryptedDatabase;
    /// # use vault_db::encryption::{Kdf, RawKey, SecretKey};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// let key = RawKey::new(SecretKey::from_bytes(&mut [7; 32]));
    /// let db = EncryptedDatabase::builder().memory_bytes(64 << 20).open_encrypted(&path, key)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> DatabaseBuilder {
        DatabaseBuilder::default()
    }

    pub(super) const fn new(database: Database, store: EncryptedStore) -> Self {
        Self { store, database }
    }

    /// Wipes the keys from memory. Every operation answers [`Locked`](vault_core::Error::Locked) until
    /// [`EncryptedDatabase::unlock`].
    ///
    /// # What stays in memory
    /// Names of vaults and tenants, what is known of them and how much is in them, so that they can still be listed; names of
    /// principals and roles with the hashes of secrets and tokens; what open transactions have read and want to write, and keys
    /// that were written beside them; the last few keys and values that each thread encoded. Keys of entries that were noted for
    /// statistics are forgotten here, but not where a database locks itself after idle time or is locked through
    /// [`EncryptedDatabase::store`]: the latest 1,024 (128 of each tenant) and the 32 most used of each vault stay until the last handle is dropped, or
    /// until this is called. Memory that was given back is not overwritten, but for that of keys.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::EncryptedDatabase;
    /// # use vault_db::encryption::{Kdf, RawKey, SecretKey};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// let key = RawKey::new(SecretKey::from_bytes(&mut [7; 32]));
    /// let db = EncryptedDatabase::open(&path, key)?;
    /// let vault = db.vault("v")?;
    /// db.lock()?;
    /// assert!(vault.put("a", &1).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Engine`](crate::Error::Engine).
    pub fn lock(&self) -> Result<()> {
        let shared = self.database.shared();
        shared.save_accesses();
        self.store.lock()?;
        shared.forget_accessed_keys();
        Ok(())
    }

    /// Makes the database usable again. Costs one key derivation.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::EncryptedDatabase;
    /// # use vault_db::encryption::{Kdf, RawKey, SecretKey};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// let key = || RawKey::new(SecretKey::from_bytes(&mut [7; 32]));
    /// let db = EncryptedDatabase::open(&path, key())?;
    /// db.lock()?;
    /// db.unlock(&key())?;
    /// db.vault("v")?.put("a", &1)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`WrongKey`](vault_core::Error::WrongKey): it stays locked. What the source says.
    pub fn unlock(&self, source: &dyn KeySource) -> Result<()> {
        self.store.unlock(source)?;
        self.database.shared().recall_accessed_keys();
        Ok(())
    }

    /// Replaces the passphrase or key, at once, however large the database is.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::EncryptedDatabase;
    /// # use vault_db::encryption::{Kdf, RawKey, SecretKey};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// let key = |byte| RawKey::new(SecretKey::from_bytes(&mut [byte; 32]));
    /// let db = EncryptedDatabase::open(&path, key(7))?;
    /// db.change_secret(&key(8), None)?;
    /// db.close()?;
    /// assert!(EncryptedDatabase::open(&path, key(7)).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`EncryptedStore::change_secret`].
    pub fn change_secret(&self, new: &dyn KeySource, kdf: Option<Kdf>) -> Result<()> {
        Ok(self.store.change_secret(new, kdf)?)
    }

    /// The store underneath, for everything else that concerns keys.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::EncryptedDatabase;
    /// # use vault_db::encryption::{Kdf, RawKey, SecretKey};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// let key = RawKey::new(SecretKey::from_bytes(&mut [7; 32]));
    /// let db = EncryptedDatabase::open(&path, key)?;
    /// assert_eq!(db.store().keyring_info().epoch, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn store(&self) -> &EncryptedStore {
        &self.store
    }
}

impl Deref for EncryptedDatabase {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

impl fmt::Debug for EncryptedDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedDatabase")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use vault_core::vfs::{DiskFileSystem, FileSystem};

    use super::*;

    #[test]
    fn a_temporary_one_goes_with_its_last_handle() -> Result<()> {
        let db = EncryptedDatabase::temp()?;
        let path = db
            .shared()
            ._directory
            .as_ref()
            .map(|it| it.path().to_owned());
        let path = path.expect("it is a temporary one");
        let vault = db.vault("v")?;
        vault.put("a", &1)?;
        drop(db.clone());
        drop(db);
        assert_eq!(vault.get::<i64>("a")?, Some(1));
        let is_there = || DiskFileSystem.kind(&path).unwrap().is_some();
        assert!(is_there());
        drop(vault);
        assert!(!is_there());
        Ok(())
    }
}
