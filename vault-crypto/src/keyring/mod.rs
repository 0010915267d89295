//! The keys of an encrypted store, and the file they are kept in.
//!
//! A secret (passphrase, key, or a host's key service) gives the key-encryption key, which wraps a random root key, which
//! seals the data keys: one for each domain (a keyspace, or the store's own files) and epoch. From these each file's key is
//! derived ([`transform`](crate::transform)). Bytes and derivations: `docs/format/keyring.md`; reasons:
//! `docs/adr/0021-keyring.md`.
//!
//! Steps: `files` reads and replaces the two files, `format` takes their bytes apart, `envelope` does what needs a key,
//! `load` chooses and opens, `keys` is the table of data keys, `change` the verbs that change it.
//!
//! Invariants
//! - Nothing is decrypted before the secret was found right, and no parameter is used before it was checked.
//! - A change is durable in `KEYRING` before the keys in memory follow, and nothing is sealed under a key that is not.
//! - Destroyed keys, and an old secret's wrapping, are in neither file when the change that destroys them returns.
//! - Nothing is written by opening ([`Keyring::mend`] does, when the store was found sound).
//! - While it is locked, no key is in memory, neither here nor in an open file: a file's key is put in its place only while
//!   the data keys are held, and locking takes these away first.
//!
//! Locks, in the order in which they are taken: `disk` (one change, lock or unlock at a time), `keys`, the list of open files,
//! the key of a file.

mod change;
mod envelope;
mod files;
mod format;
mod info;
mod keys;
mod load;
mod lock;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vault_core::random::Random;
use vault_core::transform::StorePlace;
use vault_core::{Error, Result};

pub use info::{KeyringInfo, RootWrapping, export, import, read_info};

pub(crate) use envelope::{Access, NewAccess};
pub(crate) use load::OpenKeys;

use self::envelope::{Contents, new_wrapping};
use self::files::{Directory, Found, Which, WriteError};
use self::format::Image;
use self::keys::KeyTable;
use self::load::{Flaws, load};
use crate::cipher::Algorithm;
use crate::kdf::KdfBounds;
use crate::secret::SecretKey;
use crate::transform::open_files::OpenFiles;
use crate::transform::providers::Providers;

/// The version of a new keyring.
const VERSION_FIRST: u64 = 1;

/// The open keyring of a store. Shared by whoever locks and unlocks it and by the transform of all its files.
pub struct Keyring {
    directory: Directory,
    random: Arc<dyn Random>,
    store: [u8; 16],
    writable: bool,
    bounds: KdfBounds,
    providers: Providers,
    /// What was wrong with `KEYRING` when it was opened by its copy.
    recovered: Option<Error>,
    disk: Mutex<Disk>,
    /// `None` while it is locked.
    keys: RwLock<Option<OpenKeys>>,
    open_files: OpenFiles,
}

/// What is on disk.
struct Disk {
    /// What the newest of the two files holds.
    image: Image,
    /// What is wrong with either of them.
    flaws: Flaws,
    /// Why nothing may be changed any more: it is unknown what is there.
    poisoned: Option<Arc<Error>>,
}

/// What is the same in every keyring that a protection makes or opens.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) bounds: KdfBounds,
    pub(crate) providers: Providers,
}

impl Keyring {
    /// Makes the keyring of a new store, durably.
    ///
    /// # Errors
    /// [`Error::TargetExists`] where the directory holds a keyring that was in use; what the file system, the random source and
    /// the source of the secret say.
    pub(crate) fn create(
        place: &StorePlace<'_>,
        access: NewAccess<'_>,
        algorithm: Algorithm,
        means: Means,
    ) -> Result<Self> {
        let Means { bounds, providers } = means;
        let directory = directory_of(place);
        for which in [Which::Main, Which::Copy] {
            check_vacant(&directory, which, &bounds)?;
        }
        let random = &**place.random;
        let (kek, mut wrapping) = new_wrapping(&place.store, access, &bounds, random)?;
        let root = SecretKey::random(random)?;
        wrapping.seal_root(&place.store, algorithm, &providers, &kek, &root);
        let table = KeyTable::first(random)?;
        let contents = Contents {
            version: VERSION_FIRST,
            store: &place.store,
            algorithm,
            wrapping: &wrapping,
            root: &root,
            table: &table,
        };
        let image = Image::seal(&contents, &providers, random)?;
        for which in [Which::Main, Which::Copy] {
            let written = directory.replace(which, &image.bytes);
            written.map_err(WriteError::into_error)?;
        }
        let disk = Disk {
            image,
            flaws: Flaws::default(),
            poisoned: None,
        };
        let keys = OpenKeys { root, table };
        Ok(Self::new(place, bounds, providers, disk, keys))
    }

    /// Opens the keyring of a store.
    ///
    /// # Errors
    /// [`Error::WrongKey`], [`Error::NotEncrypted`] where there is no keyring, [`Error::Corruption`],
    /// [`Error::UnacceptableKeyring`]; what the file system and the source of the secret say.
    pub(crate) fn open(place: &StorePlace<'_>, access: Access<'_>, means: Means) -> Result<Self> {
        let Means { bounds, providers } = means;
        let directory = directory_of(place);
        let loaded = load(&directory, &place.store, &bounds, &providers, access)?;
        let recovered = loaded.flaws.main.clone();
        let disk = Disk {
            image: loaded.image,
            flaws: loaded.flaws,
            poisoned: None,
        };
        let mut keyring = Self::new(place, bounds, providers, disk, loaded.keys);
        keyring.recovered = recovered;
        Ok(keyring)
    }

    fn new(
        place: &StorePlace<'_>,
        bounds: KdfBounds,
        providers: Providers,
        disk: Disk,
        keys: OpenKeys,
    ) -> Self {
        Self {
            directory: directory_of(place),
            random: Arc::clone(place.random),
            store: place.store,
            writable: place.writable,
            bounds,
            providers,
            recovered: None,
            disk: Mutex::new(disk),
            keys: RwLock::new(Some(keys)),
            open_files: OpenFiles::default(),
        }
    }

    /// What was wrong with `KEYRING` where opening had to use `KEYRING.copy`.
    #[must_use]
    pub const fn recovered_from_copy(&self) -> Option<&Error> {
        self.recovered.as_ref()
    }

    pub(crate) fn directory(&self) -> &std::path::Path {
        &self.directory.path
    }

    pub(crate) const fn store(&self) -> &[u8; 16] {
        &self.store
    }

    pub(crate) const fn providers(&self) -> &Providers {
        &self.providers
    }

    pub(crate) const fn open_files(&self) -> &OpenFiles {
        &self.open_files
    }

    /// What seals new files.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.disk().image.algorithm
    }

    /// Lends the keys. For as long as they are lent, the keyring is not locked.
    ///
    /// # Errors
    /// [`Error::Locked`], or what `use_keys` says.
    pub(crate) fn with_keys<T>(&self, use_keys: impl FnOnce(&KeyTable) -> Result<T>) -> Result<T> {
        let keys = self.keys();
        let open = keys.as_ref().ok_or(Error::Locked)?;
        use_keys(&open.table)
    }

    // A panic while one of these was held is reported where it happened; each change of what they guard is a single
    // assignment.

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> RwLockReadGuard<'_, Option<OpenKeys>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys_mut(&self) -> RwLockWriteGuard<'_, Option<OpenKeys>> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("directory", &self.directory.path)
            .finish_non_exhaustive()
    }
}

fn directory_of(place: &StorePlace<'_>) -> Directory {
    Directory {
        fs: Arc::clone(place.fs),
        path: place.directory.to_path_buf(),
    }
}

/// Refuses to put a new keyring over one that may hold the only keys of a store. What an interrupted creation leaves has the
/// first version: a store counts on before it holds data.
fn check_vacant(directory: &Directory, which: Which, bounds: &KdfBounds) -> Result<()> {
    let path = directory.path_of(which);
    let missing = directory.fs.kind(&path);
    if missing
        .map_err(|e| Error::io("look at", &path, e))?
        .is_none()
    {
        return Ok(());
    }
    match directory.read(which, None, bounds)? {
        Found::Whole(image) if image.version == VERSION_FIRST => Ok(()),
        _ => Err(Error::TargetExists { path }),
    }
}
