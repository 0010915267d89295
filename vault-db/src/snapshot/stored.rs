//! Snapshots without the database that they are of: what is left to work with when that is lost.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use vault_core::vfs::{DiskFileSystem, FileSystem};
use vault_core::{Clock, SystemClock};
use vault_crypto::KeySource;

use super::{Directory, Manifest, Repository, RepositoryOptions};
use crate::bounds::Bounds;
use crate::database::Database;
use crate::error::Result;

/// Most bytes of documents that are opened in memory: 1 GiB.
const DOCUMENTS_BYTES_MAX: u64 = 1 << 30;

/// The snapshots in a repository, without the database that they are of: listed, verified, read, compared, tried out and restored
/// into new directories. Nothing of it needs the store; it may be lost.
///
/// ```
/// use vault_db::Database;
/// use vault_db::snapshot::StoredSnapshots;
/// # fn main() -> vault_db::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let (place, target) = (directory.path().join("snapshots"), directory.path().join("restored"));
/// let db = Database::temp()?;
/// db.vault("v")?.put("a", &1)?;
/// let made = db.snapshots(&place)?.create()?;
/// drop(db); // The store is lost.
///
/// let snapshots = StoredSnapshots::at(&place)?;
/// assert_eq!(snapshots.list()?, [made.clone()]);
/// snapshots.restore_to(made.name, &target, None, &())?;
/// assert_eq!(Database::open(&target)?.vault("v")?.get::<i64>("a")?, Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StoredSnapshots {
    pub(super) repository: Repository,
    pub(super) file_system: Arc<dyn FileSystem>,
    pub(super) key: Option<Arc<dyn KeySource>>,
    pub(super) least_generation: u64,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) bounds: Bounds,
    /// Whether documents that are opened are kept off the disk.
    pub(super) documents_in_memory: bool,
    /// Most bytes of documents that are.
    pub(super) documents_bytes_max: u64,
}

impl StoredSnapshots {
    /// The snapshots in a directory.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// use vault_db::snapshot::StoredSnapshots;
    /// assert!(StoredSnapshots::at(place.path())?.list()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Engine`](crate::Error::Engine) where the path cannot be one.
    pub fn at(directory: impl AsRef<Path>) -> Result<Self> {
        let clock = Arc::new(SystemClock::new());
        Ok(Self::new(repository_at(directory.as_ref(), clock)?))
    }

    /// The snapshots in a repository, wherever that is.
    ///
    /// Nobody can tell of documents whether the database was encrypted that they are of: what is read of them stays in memory.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use std::sync::Arc;
    /// use vault_core::vfs::MemoryFileSystem;
    /// use vault_db::snapshot::{Directory, Repository, RepositoryOptions, StoredSnapshots};
    /// let place = Directory::new(Arc::new(MemoryFileSystem::new()), "/snapshots");
    /// let repository = Repository::open(Arc::new(place), RepositoryOptions::default())?;
    /// assert!(StoredSnapshots::new(repository).list()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new(repository: Repository) -> Self {
        Self {
            repository,
            file_system: Arc::new(DiskFileSystem),
            key: None,
            least_generation: 0,
            clock: Arc::new(SystemClock::new()),
            bounds: Bounds::default(),
            documents_in_memory: true,
            documents_bytes_max: DOCUMENTS_BYTES_MAX,
        }
    }

    /// Those of a database that is there.
    pub(super) fn of(database: &Database, repository: Repository) -> Self {
        let shared = database.shared();
        let lsm = shared.lsm.as_ref();
        Self {
            clock: Arc::clone(&shared.clock),
            bounds: shared.bounds,
            documents_in_memory: lsm.is_some_and(vault_lsm::Lsm::is_encrypted),
            ..Self::new(repository)
        }
    }

    /// Says what opens the snapshots of an encrypted database: see [`Snapshots::with_key`](super::Snapshots::with_key).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// use vault_db::encryption::KeyFile;
    /// use vault_db::snapshot::StoredSnapshots;
    /// let snapshots = StoredSnapshots::at(place.path())?.with_key(KeyFile::new("/etc/service/key"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_key(mut self, source: impl KeySource + 'static) -> Self {
        self.key = Some(Arc::new(source));
        self
    }

    /// Refuses snapshots of an earlier generation: see [`Snapshots::with_least_generation`](super::Snapshots::with_least_generation).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// use vault_db::snapshot::StoredSnapshots;
    /// let made = db.snapshots(place.path())?.create()?;
    /// let snapshots = StoredSnapshots::at(place.path())?.with_least_generation(made.generation + 1);
    /// assert!(snapshots.open(made.name).is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_least_generation(mut self, generation: u64) -> Self {
        self.least_generation = generation;
        self
    }

    /// Says how many bytes of documents, as the manifest states them, may be opened in memory: 1 GiB where nothing is said. A logical
    /// snapshot that has more is refused by whatever opens it (`OverLimit`), and can be restored into a directory.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// use vault_db::snapshot::StoredSnapshots;
    /// let snapshots = StoredSnapshots::at(place.path())?.with_documents_bytes_max(8 << 30);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_documents_bytes_max(mut self, bytes: u64) -> Self {
        self.documents_bytes_max = bytes;
        self
    }

    /// Says in which file system [`restore_to`](Self::restore_to) works. For tests with simulated disks.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// use std::sync::Arc;
    /// use vault_core::vfs::MemoryFileSystem;
    /// use vault_db::snapshot::StoredSnapshots;
    /// let disk = Arc::new(MemoryFileSystem::new());
    /// let snapshots = StoredSnapshots::at(place.path())?.on_file_system(disk);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_file_system(mut self, file_system: Arc<dyn FileSystem>) -> Self {
        self.file_system = file_system;
        self
    }

    /// Where the snapshots lie: to verify, prune, consolidate and look into them.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// use vault_db::snapshot::Retention;
    /// let snapshots = db.snapshots(place.path())?;
    /// let made = snapshots.create()?;
    /// let verified = snapshots.repository().verify(made.name, &())?;
    /// assert_eq!(verified.bytes, made.bytes());
    /// let retention = Retention { last: 7, ..Retention::default() };
    /// let plan = snapshots.repository().prune(&retention, true)?;
    /// assert!(plan.remove.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Every snapshot, the oldest first. One that was interrupted is none.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let place = tempfile::tempdir().unwrap();
    /// let snapshots = db.snapshots(place.path())?;
    /// let made = snapshots.create()?;
    /// assert_eq!(snapshots.list()?, [made]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Snapshot`](crate::Error::Snapshot).
    pub fn list(&self) -> Result<Vec<Manifest>> {
        Ok(self.repository.list()?)
    }
}

impl fmt::Debug for StoredSnapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSnapshots")
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

/// The repository in a directory, which need not be there yet.
pub(super) fn repository_at(directory: &Path, clock: Arc<dyn Clock>) -> Result<Repository> {
    let file_system: Arc<dyn FileSystem> = Arc::new(DiskFileSystem);
    let path = file_system
        .absolute(directory)
        .map_err(|error| vault_core::Error::io("find", directory, error))?;
    let place = Directory::new(file_system, path);
    let options = RepositoryOptions {
        clock,
        ..RepositoryOptions::default()
    };
    Ok(Repository::open(Arc::new(place), options)?)
}
