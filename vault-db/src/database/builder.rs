//! How a database is to be opened.

use std::path::Path;
use std::sync::Arc;

use vault_core::clock::SystemClock;
use vault_core::{Clock, Durability, Engine, KeyspaceOptions};
use vault_crypto::{EncryptedProtection, KeySource};
use vault_lsm::{Lsm, LsmOptions, OpenMode, Settings};

use super::Database;
use super::encrypted::EncryptedDatabase;
use super::open::{Opening, open};
use super::temp::TemporaryDirectory;
use crate::bounds::Bounds;
use crate::encrypted::EncryptedStore;
use crate::error::Result;

/// How a database is to be opened: [`Database::builder`] begins.
///
/// ```
/// use vault_db::engine::OpenMode;
/// use vault_db::{Bounds, Database, Durability};
/// # fn main() -> vault_db::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("store");
/// let db = Database::builder()
///     .mode(OpenMode::MustCreate)
///     .durability(Durability::Os)
///     .bounds(Bounds::TIGHT)
///     .memory_bytes(256 << 20)
///     .open(&path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it opens something"]
pub struct DatabaseBuilder {
    options: LsmOptions,
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    vaults: KeyspaceOptions,
}

impl Default for DatabaseBuilder {
    fn default() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self {
            options: LsmOptions::default()
                .durability(Durability::Sync)
                .clock(Arc::clone(&clock)),
            clock,
            bounds: Bounds::default(),
            vaults: KeyspaceOptions::default(),
        }
    }
}

impl DatabaseBuilder {
    /// Sets what may be there already.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::Database;
    /// use vault_db::engine::OpenMode;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// assert!(Database::builder().mode(OpenMode::MustExist).open(&path).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub const fn mode(mut self, mode: OpenMode) -> Self {
        self.options.settings.mode = mode;
        self
    }

    /// Sets what must have happened before a write returns; by default it is on stable storage.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::{Database, Durability};
    /// let db = Database::builder().durability(Durability::Os).temp()?;
    /// # Ok(())
    /// # }
    /// ```
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.options.settings.durability = durability;
        self
    }

    /// Sets how many bytes of memory the store may use in all; by default 1 GiB.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// let db = vault_db::Database::builder().memory_bytes(64 << 20).temp()?;
    /// # Ok(())
    /// # }
    /// ```
    pub const fn memory_bytes(mut self, bytes: u64) -> Self {
        self.options.settings.memory_bytes = bytes;
        self
    }

    /// Sets what callers are held to.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::{Bounds, Database};
    /// let db = Database::builder().bounds(Bounds::TIGHT).temp()?;
    /// # Ok(())
    /// # }
    /// ```
    pub const fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Sets the options of the keyspaces of vaults that are created from now on: compression, compaction, from which length on
    /// values are kept apart.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::Database;
    /// use vault_db::engine::KeyspaceOptions;
    /// let options = KeyspaceOptions::default().large_values_from(Some(64 << 10));
    /// let db = Database::builder().vault_options(options).temp()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn vault_options(mut self, options: KeyspaceOptions) -> Self {
        self.vaults = options;
        self
    }

    /// Sets everything that the engine can be told. Durability is the engine's default then: `Os`.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::engine::Settings;
    /// use vault_db::{Database, Durability};
    /// let settings = Settings { durability: Durability::Sync, memory_bytes: 64 << 20, ..Settings::default() };
    /// let db = Database::builder().settings(settings).temp()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn settings(mut self, settings: Settings) -> Self {
        self.options.settings = settings;
        self
    }

    /// Sets the clock that expiry, timeouts and statistics go by.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use std::sync::Arc;
    /// use vault_db::engine::ManualClock;
    /// use vault_db::{Database, Timestamp};
    /// let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    /// let db = Database::builder().clock(clock).temp()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.options = self.options.clock(Arc::clone(&clock));
        self.clock = clock;
        self
    }

    /// Changes the options of the engine that have no verb of their own here: file system, listener, and others. The clock is
    /// set by [`DatabaseBuilder::clock`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use std::sync::Arc;
    /// use vault_db::engine::vfs::MemoryFileSystem;
    /// use vault_db::Database;
    /// let in_memory = Arc::new(MemoryFileSystem::new());
    /// let db = Database::builder().engine_options(|options| options.file_system(in_memory)).open("/store")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn engine_options(mut self, change: impl FnOnce(LsmOptions) -> LsmOptions) -> Self {
        let clock = Arc::clone(&self.clock);
        self.options = change(self.options).clock(clock);
        self
    }

    /// Opens the database in a directory.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::Database;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// let db = Database::builder().open(&path)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::open`]; [`InvalidSetting`](vault_core::Error::InvalidSetting).
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Database> {
        self.check()?;
        let lsm = Lsm::open(directory, self.options.clone())?;
        self.on_lsm(lsm, None)
    }

    /// Opens the database in a directory for reading only, beside the process that writes it, if there is one. It shows the
    /// moment of its opening.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::Database;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// # Database::open(&path)?.vault("v")?.put("a", &1)?;
    /// let db = Database::builder().open_read_only(&path)?;
    /// assert_eq!(db.existing_vault("v")?.get::<i64>("a")?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Lsm::open_read_only`], and as [`Database::open`]. Every verb that writes answers
    /// [`ReadOnly`](vault_core::Error::ReadOnly).
    pub fn open_read_only(self, directory: impl AsRef<Path>) -> Result<Database> {
        self.check()?;
        let lsm = Lsm::open_read_only(directory, &self.options)?;
        self.on_lsm(lsm, None)
    }

    /// Opens an encrypted database in a directory, or creates it, under the secret from `source`.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::EncryptedDatabase;
    /// # use vault_db::encryption::{Kdf, RawKey, SecretKey};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// let key = RawKey::new(SecretKey::from_bytes(&mut [7; 32]));
    /// let db = EncryptedDatabase::builder().open_encrypted(&path, key)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`EncryptedStore::open`], and as [`Database::open`].
    pub fn open_encrypted(
        self,
        directory: impl AsRef<Path>,
        source: impl KeySource + 'static,
    ) -> Result<EncryptedDatabase> {
        self.open_encrypted_with(
            directory,
            EncryptedProtection::with_source(Arc::new(source)),
        )
    }

    /// As [`DatabaseBuilder::open_encrypted`], with a say in how.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::EncryptedDatabase;
    /// # use vault_db::encryption::{Kdf, RawKey, SecretKey};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// use std::sync::Arc;
    /// use vault_db::encryption::{Algorithm, EncryptedProtection};
    /// let key = Arc::new(RawKey::new(SecretKey::from_bytes(&mut [7; 32])));
    /// let protection = EncryptedProtection::with_source(key).algorithm(Algorithm::ChaCha20Poly1305);
    /// let db = EncryptedDatabase::builder().open_encrypted_with(&path, protection)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`DatabaseBuilder::open_encrypted`].
    pub fn open_encrypted_with(
        self,
        directory: impl AsRef<Path>,
        protection: EncryptedProtection,
    ) -> Result<EncryptedDatabase> {
        self.check()?;
        let store = EncryptedStore::open_with(directory, self.options.clone(), protection)?;
        let database = self.on_lsm(Lsm::clone(&store), None)?;
        Ok(EncryptedDatabase::new(database, store))
    }

    /// Opens an encrypted database for reading only, as [`DatabaseBuilder::open_read_only`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::EncryptedDatabase;
    /// # use vault_db::encryption::{Kdf, RawKey, SecretKey};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("store");
    /// use std::sync::Arc;
    /// use vault_db::encryption::EncryptedProtection;
    /// let key = || RawKey::new(SecretKey::from_bytes(&mut [7; 32]));
    /// EncryptedDatabase::open(&path, key())?.vault("v")?;
    /// let protection = EncryptedProtection::with_source(Arc::new(key()));
    /// let db = EncryptedDatabase::builder().open_encrypted_read_only(&path, protection)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`DatabaseBuilder::open_encrypted`].
    pub fn open_encrypted_read_only(
        self,
        directory: impl AsRef<Path>,
        protection: EncryptedProtection,
    ) -> Result<EncryptedDatabase> {
        self.check()?;
        let store = EncryptedStore::open_read_only(directory, self.options.clone(), protection)?;
        let database = self.on_lsm(Lsm::clone(&store), None)?;
        Ok(EncryptedDatabase::new(database, store))
    }

    /// Opens a database that goes with its last handle, as [`Database::temp`].
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// let db = vault_db::Database::builder().temp()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn temp(self) -> Result<Database> {
        self.check()?;
        let directory = TemporaryDirectory::create()?;
        let lsm = Lsm::open(directory.path(), self.options.clone())?;
        self.on_lsm(lsm, Some(directory))
    }

    /// Opens an encrypted database that goes with its last handle, as [`EncryptedDatabase::temp`], under the secret from `source`.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::EncryptedDatabase;
    /// use vault_db::encryption::{RawKey, SecretKey};
    /// let key = || RawKey::new(SecretKey::from_bytes(&mut [7; 32]));
    /// let db = EncryptedDatabase::builder().temp_encrypted(key())?;
    /// db.lock()?;
    /// db.unlock(&key())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`DatabaseBuilder::open_encrypted`].
    pub fn temp_encrypted(self, source: impl KeySource + 'static) -> Result<EncryptedDatabase> {
        self.check()?;
        let directory = TemporaryDirectory::create()?;
        let protection = EncryptedProtection::with_source(Arc::new(source));
        let store = EncryptedStore::open_with(directory.path(), self.options.clone(), protection)?;
        let database = self.on_lsm(Lsm::clone(&store), Some(directory))?;
        Ok(EncryptedDatabase::new(database, store))
    }

    /// Opens a database on any engine.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use vault_db::Database;
    /// use vault_db::engine::MemoryEngine;
    /// # fn main() -> vault_db::Result<()> {
    /// let db = Database::builder().on(Arc::new(MemoryEngine::new()))?;
    /// db.vault("scratch")?.put("a", &1)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn on(self, engine: Arc<dyn Engine>) -> Result<Database> {
        self.check()?;
        self.finish(engine, None, None)
    }

    fn check(&self) -> Result<()> {
        self.bounds.check()?;
        Ok(self.vaults.check()?)
    }

    fn on_lsm(self, lsm: Lsm, directory: Option<TemporaryDirectory>) -> Result<Database> {
        self.finish(Arc::new(lsm.clone()), Some(lsm), directory)
    }

    fn finish(
        self,
        engine: Arc<dyn Engine>,
        lsm: Option<Lsm>,
        directory: Option<TemporaryDirectory>,
    ) -> Result<Database> {
        let shared = open(Opening {
            engine,
            lsm,
            directory,
            clock: self.clock,
            bounds: self.bounds,
            vaults: self.vaults,
            durability: self.options.settings.durability,
        })?;
        Ok(Database::new(Arc::new(shared)))
    }
}

impl std::fmt::Debug for DatabaseBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseBuilder")
            .field("options", &self.options)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}
