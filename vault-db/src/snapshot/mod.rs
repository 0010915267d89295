//! Snapshots: taken at once, restored with certainty.
//!
//! [`Snapshots`] joins a database with a [`Repository`] in which its snapshots lie. Making one captures a moment and copies it while
//! everybody reads and writes on; a snapshot is listed once all of it is durable, and never before.
//!
//! # Two forms
//! - *Physical*, the default: the engine's own files, as they are. Small, fast, incremental, and of an encrypted database
//!   still encrypted: nobody needs a key to make, copy, keep or verify it.
//! - *Logical*: a document of JSON for each vault, for people and other programs. Of chosen vaults or a tenant, too. The
//!   documents of an encrypted database are in the clear, which has to be asked for.
//!
//! # Back again
//! - [`Snapshots::restore`]: in place, under open handles, at one moment. Everything, a tenant or chosen vaults.
//! - [`StoredSnapshots::restore_to`]: into a new directory.
//! - [`StoredSnapshots::open`]: nowhere. The snapshot is read where it lies.
//!
//! Everything of a snapshot is verified before anything is replaced.
//!
//! Of all this only making a snapshot and restoring in place need the database. The rest is [`StoredSnapshots`], for which the
//! repository is enough: for when the store is lost.

mod create;
mod drill;
#[cfg(feature = "fuzzing")]
pub(crate) mod log;
#[cfg(not(feature = "fuzzing"))]
mod log;
mod open;
mod runner;
mod stored;
mod worker;

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use vault_core::transform::KEYRING_NAME;
use vault_core::vfs::FileSystem;
use vault_crypto::KeySource;
pub use vault_lsm::shipping::Until;
pub use vault_snapshot::archive::{
    Error as ArchiveError, Form, Kind, Manifest, SnapshotName, Trigger, VaultCount, Watcher,
};
pub use vault_snapshot::destination::{Destination, Directory};
#[cfg(feature = "object-store")]
pub use vault_snapshot::destination::{ObjectStoreDestination, ObjectStoreOptions};
pub use vault_snapshot::repository::{
    Cleaned, Extracted, Limits, Parent, Repository, RepositoryOptions, Survey, Verified,
};
pub use vault_snapshot::retention::{PrunePlan, Reason, Retention};
pub use vault_snapshot::schedule::Schedule;

pub use create::SnapshotOptions;
pub use drill::DrillReport;
pub use log::{
    LogArchive, LogArchiver, LogArchiverStatus, LogChain, PointRestored, ReplayProgress,
};
pub use open::SnapshotVerified;
pub use runner::{SnapshotRunner, SnapshotRunnerStatus};
pub use stored::StoredSnapshots;

use crate::database::Database;
use crate::error::Result;

/// The snapshots of a database, in a repository. Whatever does not need the database is a method of [`StoredSnapshots`], which this
/// derefs to.
///
/// ```
/// use vault_db::{Database, Scope};
/// # fn main() -> vault_db::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let place = directory.path().join("snapshots");
/// let db = Database::temp()?;
/// let memory = db.vault("memory")?;
/// memory.put("mood", "good")?;
///
/// let snapshots = db.snapshots(&place)?;
/// let before = snapshots.create()?;
/// memory.put("mood", "bad")?;
///
/// snapshots.restore(before.name, &Scope::Everything)?;
/// assert_eq!(memory.get::<String>("mood")?.as_deref(), Some("good"));
/// assert_eq!(snapshots.list()?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Snapshots {
    database: Database,
    stored: StoredSnapshots,
}

impl Database {
    /// The snapshots of this database in a directory, which is made with the first one.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let place = directory.path().join("snapshots");
    /// # let db = vault_db::Database::temp()?;
    /// let snapshots = db.snapshots(&place)?;
    /// assert!(snapshots.list()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Snapshot`](crate::Error::Snapshot) where the path cannot be one.
    pub fn snapshots(&self, directory: impl AsRef<Path>) -> Result<Snapshots> {
        let clock = Arc::clone(&self.shared().clock);
        Ok(self.snapshots_in(stored::repository_at(directory.as_ref(), clock)?))
    }

    /// The snapshots of this database in a repository, wherever that is.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use std::sync::Arc;
    /// use vault_core::vfs::MemoryFileSystem;
    /// use vault_db::snapshot::{Directory, Repository, RepositoryOptions};
    /// let place = Directory::new(Arc::new(MemoryFileSystem::new()), "/snapshots");
    /// let repository = Repository::open(Arc::new(place), RepositoryOptions::default())?;
    /// let snapshots = db.snapshots_in(repository);
    /// snapshots.create()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn snapshots_in(&self, repository: Repository) -> Snapshots {
        Snapshots {
            database: self.clone(),
            stored: StoredSnapshots::of(self, repository),
        }
    }
}

impl Snapshots {
    /// Says what opens the snapshots of an encrypted database, wherever one has to be opened: to restore it in place, to compare
    /// it, for a drill. Making, keeping, verifying and pruning snapshots needs no key.
    ///
    /// A snapshot opens with the secret of its own time. A physical one that is not encrypted is refused where there is a key: who can write
    /// to the repository could put one of his own there.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::encryption::{Passphrase, SecretBytes};
    /// use vault_db::{EncryptedDatabase, Scope};
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let (path, place) = (directory.path().join("store"), directory.path().join("snapshots"));
    /// let passphrase = || Passphrase::new(SecretBytes::from_string("correct horse".to_owned())?);
    /// let db = EncryptedDatabase::open(&path, passphrase()?)?;
    /// let keys = db.vault("keys")?;
    /// keys.put("service", "secret")?;
    /// let made = db.snapshots(&place)?.create()?;
    /// keys.clear()?;
    ///
    /// let snapshots = db.snapshots(&place)?.with_key(passphrase()?);
    /// snapshots.restore(made.name, &Scope::Everything)?;
    /// assert_eq!(keys.get::<String>("service")?.as_deref(), Some("secret"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_key(mut self, source: impl KeySource + 'static) -> Self {
        self.stored = self.stored.with_key(source);
        self
    }

    /// Refuses snapshots of an earlier generation of the store ([`TooOld`](crate::Error::TooOld)) wherever one is opened or restored: in
    /// place, into a new directory, to look into it, for a drill, to go back to a point in time.
    ///
    /// Keep [`Lsm::generation`](crate::engine::Lsm::generation) where nobody who can write to the repository can: somebody who puts an
    /// older snapshot in the place of a newer one, and says in its manifest whatever he likes, is found out by the generation
    /// within the snapshot's own files. Of an encrypted one it is authentic; of a plain one whoever forges the manifest can forge
    /// the files as well. Documents tell none: there, as of an encrypted one without its key, it is only the manifest's.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::{Error, Scope};
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// let made = db.snapshots(place.path())?.create()?;
    /// let kept = made.generation;
    /// let snapshots = db.snapshots(place.path())?.with_least_generation(kept + 1);
    /// let refused = snapshots.restore(made.name, &Scope::Everything);
    /// assert!(matches!(refused, Err(Error::TooOld { .. })));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_least_generation(mut self, generation: u64) -> Self {
        self.stored = self.stored.with_least_generation(generation);
        self
    }

    /// Says in which file system [`StoredSnapshots::restore_to`] works. For tests with simulated disks.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// use std::sync::Arc;
    /// use vault_core::vfs::MemoryFileSystem;
    /// let snapshots = db.snapshots(place.path())?.on_file_system(Arc::new(MemoryFileSystem::new()));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_file_system(mut self, file_system: Arc<dyn FileSystem>) -> Self {
        self.stored = self.stored.on_file_system(file_system);
        self
    }
}

impl Deref for Snapshots {
    type Target = StoredSnapshots;

    fn deref(&self) -> &StoredSnapshots {
        &self.stored
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

/// Whether the files of a snapshot are encrypted. Documents never are.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// # let place = tempfile::tempdir().unwrap();
/// let made = db.snapshots(place.path())?.create()?;
/// assert!(!vault_db::snapshot::is_encrypted(&made));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn is_encrypted(manifest: &Manifest) -> bool {
    manifest.entry(&format!("store/{KEYRING_NAME}")).is_some()
}

/// The name of a vault with its tenant's in front, as manifests have it. Neither has a slash in it.
fn full_name(tenant: Option<&str>, vault: &str) -> String {
    tenant.map_or_else(|| vault.to_owned(), |tenant| format!("{tenant}/{vault}"))
}

/// The tenant and the vault of a full name.
fn parse_full_name(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((tenant, vault)) => (Some(tenant), vault),
        None => (None, name),
    }
}
