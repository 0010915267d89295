//! The database: named vaults over one store.

mod accesses;
mod builder;
mod callbacks;
mod copy;
mod encrypted;
mod erase;
mod exchange;
mod fill;
mod manage;
mod open;
mod registry;
mod shared;
mod temp;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use vault_core::Engine;
use vault_lsm::Lsm;

pub use builder::DatabaseBuilder;
pub(crate) use callbacks::Callbacks;
pub use encrypted::EncryptedDatabase;
pub(crate) use exchange::{Arrival, Departure, Epoch, Exchange};
pub use fill::CopyProgress;
pub(crate) use fill::{Begun, Filling};
pub(crate) use open::keyspaces_by_name;
pub(crate) use registry::{NO_TENANT, VaultState};
pub(crate) use shared::{Shared, lock};
pub(crate) use temp::TemporaryDirectory;

use crate::access::AccessRecord;
use crate::error::Result;
use crate::transaction::{self, Transaction, TransactionOptions};
use crate::vault::{Vault, VaultInfo};

/// Named vaults over one store, not encrypted. ([`EncryptedDatabase`] is a type of its own.)
///
/// A handle is cheap to clone, and serves any number of threads. The store is closed by [`Database::close`], or when the
/// last handle of the database and its vaults goes.
///
/// ```
/// use vault_db::Database;
/// # fn main() -> vault_db::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("store");
/// let db = Database::open(&path)?;
/// let users = db.vault("users")?;
/// users.put("alice", "admin")?;
/// db.close()?;
///
/// let db = Database::open(&path)?;
/// assert_eq!(db.vault("users")?.get::<String>("alice")?.as_deref(), Some("admin"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

impl Database {
    /// Opens the database in a directory, or creates it.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::Database;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// let db = Database::open(&path)?;
    /// db.close()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Engine`](crate::Error::Engine) with what [`Lsm::open`] says,
    /// [`NewerFormat`](crate::Error::NewerFormat), [`Malformed`](crate::Error::Malformed).
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(directory)
    }

    /// Opens a database in a directory of its own under the system's one for temporary files, which goes with the last handle.
    /// For tests and examples.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// let db = vault_db::Database::temp()?;
    /// db.vault("scratch")?.put("a", &1)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn temp() -> Result<Self> {
        Self::builder().temp()
    }

    /// Begins to say how a database is to be opened.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::{Database, Durability};
    /// let db = Database::builder().durability(Durability::Os).temp()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> DatabaseBuilder {
        DatabaseBuilder::default()
    }

    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The vault of this name, created if there is none. The same name gives the same vault.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let (a, b) = (db.vault("users")?, db.vault("users")?);
    /// assert!(a.is_same(&b));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidVaultName`](crate::Error::InvalidVaultName), [`TooManyVaults`](crate::Error::TooManyVaults),
    /// [`Engine`](crate::Error::Engine).
    pub fn vault(&self, name: &str) -> Result<Vault> {
        self.shared
            .vault(NO_TENANT, name)
            .map(|state| self.handle(state))
    }

    /// The vault of this name, which must exist.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use vault_db::Error;
    /// assert!(matches!(db.existing_vault("missing"), Err(Error::NoSuchVault { .. })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NoSuchVault`](crate::Error::NoSuchVault), [`InvalidVaultName`](crate::Error::InvalidVaultName).
    pub fn existing_vault(&self, name: &str) -> Result<Vault> {
        self.shared
            .existing_vault(NO_TENANT, name)
            .map(|state| self.handle(state))
    }

    /// Creates a vault, which must not exist.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// db.create_vault("users")?;
    /// assert!(db.create_vault("users").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`VaultExists`](crate::Error::VaultExists), and as [`Database::vault`].
    pub fn create_vault(&self, name: &str) -> Result<Vault> {
        self.shared
            .create_vault(NO_TENANT, name)
            .map(|state| self.handle(state))
    }

    /// Whether there is a vault of this name.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// db.vault("users")?;
    /// assert!(db.contains_vault("users"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn contains_vault(&self, name: &str) -> bool {
        self.shared.registry().find(NO_TENANT, name).is_some()
    }

    /// What is known of every vault, in the order of their names. Reads none of their entries.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// db.vault("users")?.put("alice", "admin")?;
    /// db.vault("settings")?;
    /// let vaults: Vec<_> = db.vaults().into_iter().map(|info| (info.name, info.keys)).collect();
    /// assert_eq!(vaults, [("settings".to_owned(), 0), ("users".to_owned(), 1)]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn vaults(&self) -> Vec<VaultInfo> {
        self.shared.vaults_of(NO_TENANT)
    }

    /// Runs a closure as a serializable transaction that can change any vaults. Where what it read was changed by others
    /// before it could commit, it is run again: it should do nothing else than read and write through the transaction.
    ///
    /// Returning an error ends the transaction with nothing written. [`Database::write_with`] has other options.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let stock = db.vault("stock")?;
    /// stock.put("lamp", &3)?;
    /// let left = db.write(|tx| {
    ///     let left = tx.of(&stock)?.increment("lamp", -1)?;
    ///     tx.vault("orders")?.put(("alice", 1), "lamp")?;
    ///     Ok(left)
    /// })?;
    /// assert_eq!(left, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the closure returns; [`Conflict`](crate::Error::Conflict) where it collided too often,
    /// [`NestedTransaction`](crate::Error::NestedTransaction),
    /// [`TransactionTooLong`](crate::Error::TransactionTooLong),
    /// [`TransactionTooLarge`](crate::Error::TransactionTooLarge), [`Engine`](crate::Error::Engine).
    pub fn write<R>(&self, f: impl FnMut(&Transaction) -> Result<R>) -> Result<R> {
        transaction::write(&self.shared, NO_TENANT, TransactionOptions::default(), f)
    }

    /// As [`Database::write`], with options, and with any error that one of this crate can be turned into.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use vault_db::{Isolation, TransactionOptions};
    /// let options = TransactionOptions { isolation: Isolation::Snapshot, ..Default::default() };
    /// db.write_with(options, |tx| tx.vault("log")?.put(1, "begun"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::write`].
    pub fn write_with<R, E: From<crate::Error>>(
        &self,
        options: TransactionOptions,
        f: impl FnMut(&Transaction) -> Result<R, E>,
    ) -> Result<R, E> {
        transaction::write(&self.shared, NO_TENANT, options, f)
    }

    /// Runs a closure on one moment of the database, which it can read and not change.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// db.vault("a")?.put("k", &1)?;
    /// db.vault("b")?.put("k", &2)?;
    /// let sum = db.read(|tx| {
    ///     let a: i64 = tx.vault("a")?.get("k")?.unwrap_or(0);
    ///     let b: i64 = tx.vault("b")?.get("k")?.unwrap_or(0);
    ///     Ok(a + b)
    /// })?;
    /// assert_eq!(sum, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the closure returns; [`NestedTransaction`](crate::Error::NestedTransaction),
    /// [`Engine`](crate::Error::Engine).
    pub fn read<R>(&self, f: impl FnOnce(&Transaction) -> Result<R>) -> Result<R> {
        transaction::read(&self.shared, NO_TENANT, f)
    }

    /// Begins a transaction to be [committed](Transaction::commit) by hand. It is rolled back when it is dropped.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use vault_db::TransactionOptions;
    /// let tx = db.begin(TransactionOptions::default())?;
    /// tx.vault("v")?.put("a", &1)?;
    /// drop(tx); // rolled back
    /// assert!(db.vault("v")?.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NestedTransaction`](crate::Error::NestedTransaction) within a closure of [`write`](Database::write) or
    /// [`read`](Database::read), [`Engine`](crate::Error::Engine).
    pub fn begin(&self, options: TransactionOptions) -> Result<Transaction> {
        transaction::check_not_nested(&self.shared)?;
        Transaction::begin(&self.shared, NO_TENANT, options, transaction::Mode::Write)
    }

    /// Takes away what has expired in any vault. Gives how many entries that were. See [`Vault::cleanup_expired`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// assert_eq!(db.cleanup_expired()?, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Engine`](crate::Error::Engine).
    pub fn cleanup_expired(&self) -> Result<u64> {
        self.shared.cleanup_expired(None)
    }

    /// The engine underneath, whichever it is. What is written to it past the database is not counted.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// db.engine().flush(None)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn engine(&self) -> &dyn Engine {
        &*self.shared.engine
    }

    /// The engine underneath, where it is Vault's own: for [checkpoints](Lsm::checkpoint), statistics and the like.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let space = db.lsm().map(|lsm| lsm.explain_space()).transpose()?;
    /// assert!(space.is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn lsm(&self) -> Option<&Lsm> {
        self.shared.lsm.as_ref()
    }

    /// The latest accesses that were sampled, the last one first: at most 1024, over all vaults.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// db.vault("prices")?.put("lamp", &20)?;
    /// let last = &db.recent_accesses()[0];
    /// assert_eq!((last.vault.as_str(), &last.key), ("prices", &Some("lamp".into())));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn recent_accesses(&self) -> Vec<AccessRecord> {
        self.shared.recent_accesses(NO_TENANT)
    }

    /// Puts everything that was written on stable storage.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// db.sync()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Engine`](crate::Error::Engine).
    pub fn sync(&self) -> Result<()> {
        Ok(self.shared.engine.sync()?)
    }

    /// Closes the database, for every handle. Gives the error that dropping it would hide.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// db.close()?;
    /// assert!(db.vault("v").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Engine`](crate::Error::Engine).
    pub fn close(&self) -> Result<()> {
        self.shared.save_accesses();
        Ok(self.shared.engine.close()?)
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn handle(&self, state: Arc<VaultState>) -> Vault {
        Vault::new(Arc::clone(&self.shared), state)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("vaults", &self.shared.registry().count())
            .finish_non_exhaustive()
    }
}
