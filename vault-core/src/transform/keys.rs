//! What the engine asks of whoever keeps a store's keys.
//!
//! The engine never sees a key. It says when a store comes into being or is opened ([`Protection`]), and what happens
//! to the files that keys seal ([`Keys`]): a keyspace comes or goes, a copy is made, all files of an epoch are gone.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::{ChecksumTransform, Transform};
use crate::error::Result;
use crate::random::Random;
use crate::vfs::FileSystem;

/// Name of the file in a store's directory that holds its keys, wrapped.
pub const KEYRING_NAME: &str = "KEYRING";
/// Name of the copy of it that helps when the first is damaged.
pub const KEYRING_COPY_NAME: &str = "KEYRING.copy";

/// The store that is being created or opened.
#[derive(Clone, Copy)]
pub struct StorePlace<'a> {
    /// Where files are. For a store that is opened for writing, this works only while its lock is held.
    pub fs: &'a Arc<dyn FileSystem>,
    /// Where new keys and salts come from.
    pub random: &'a Arc<dyn Random>,
    /// The store's directory.
    pub directory: &'a Path,
    /// The store's id.
    pub store: [u8; 16],
    /// Whether the store is opened for writing. Otherwise nothing may be written.
    pub writable: bool,
}

/// What protects a store. Asked once for each opening, when the store's lock is held and before anything else of it is
/// read or written.
pub trait Protection: Send + Sync + fmt::Debug {
    /// Prepares a new store, durably: its directory is there and holds no store. What an interrupted attempt left may be
    /// there too, and is overwritten.
    ///
    /// # Errors
    /// What the file system says, and where the keys come from.
    fn create(&self, place: &StorePlace<'_>) -> Result<Arc<dyn Transform>>;

    /// Takes up an existing store. Writes nothing: see [`Keys::mend`].
    ///
    /// # Errors
    /// As [`Protection::create`]; [`Error::WrongKey`](crate::Error::WrongKey),
    /// [`Error::NotEncrypted`](crate::Error::NotEncrypted) or [`Error::Encrypted`](crate::Error::Encrypted).
    fn open(&self, place: &StorePlace<'_>) -> Result<Arc<dyn Transform>>;
}

/// No protection but checksums against accidents.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Protection for Plain {
    fn create(&self, _: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        Ok(Arc::new(ChecksumTransform))
    }

    fn open(&self, _: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        Ok(Arc::new(ChecksumTransform))
    }
}

/// The keys of an open store: one for each domain (a keyspace, or 0 for the store's own files) and epoch.
///
/// Every change is durable when the call returns, and happens whole or not at all. After an error that leaves open which of
/// the two it was, the engine makes the store read-only.
pub trait Keys: Send + Sync {
    /// Counts the changes of the keyring. The pointer records it, so that an older keyring put back is noticed.
    fn version(&self) -> u64;

    /// The epoch under which new files are sealed, from 1.
    fn epoch(&self) -> u32;

    /// Whether a domain has keys. A keyspace without is a sign that an older keyring was put back.
    ///
    /// # Errors
    /// [`Error::Locked`](crate::Error::Locked).
    fn has_domain(&self, domain: u32) -> Result<bool>;

    /// Gives a domain keys, before its first file is created. Does nothing where it has them.
    ///
    /// # Errors
    /// What the file system and the random source say; [`Error::Locked`](crate::Error::Locked).
    fn add_domain(&self, domain: u32) -> Result<()>;

    /// Destroys all keys of each domain that is not in `kept` (0 always is): what they sealed cannot be opened any more.
    ///
    /// # Errors
    /// What the file system says; [`Error::Locked`](crate::Error::Locked).
    fn keep_domains(&self, kept: &[u32]) -> Result<()>;

    /// Begins a new epoch: fresh keys for all domains. Gives its number.
    ///
    /// # Errors
    /// As [`Keys::add_domain`].
    fn begin_epoch(&self) -> Result<u32>;

    /// Destroys the keys of all epochs before `oldest`: no file is sealed under them any more. Gives how many epochs went.
    ///
    /// # Errors
    /// As [`Keys::keep_domains`].
    fn retire_epochs(&self, oldest: u32) -> Result<u32>;

    /// The keyring of a copy of the store, to be put there as [`KEYRING_NAME`] and as [`KEYRING_COPY_NAME`]: the same secret
    /// opens it, and its first new file is sealed under an epoch of its own, so that nothing written to one of the two is
    /// ever taken for a part of the other. Its version is one more than the version here, where nothing changes.
    ///
    /// # Errors
    /// What the random source says; [`Error::Locked`](crate::Error::Locked).
    fn copied(&self) -> Result<Vec<u8>>;

    /// Writes anew what opening found missing, damaged or behind of what is kept twice. For whoever opens a store for writing,
    /// when its version was found to be no older than it must be and the rest of it sound.
    ///
    /// # Errors
    /// What the file system says. The keys are usable nevertheless.
    fn mend(&self) -> Result<()> {
        Ok(())
    }

    /// Writes everything anew as it was read, durably. For whoever opens a store for writing, where it is not known that what was
    /// read has ever reached the medium: a sync of the directory that failed may have left a name in the cache that no later
    /// sync writes.
    ///
    /// # Errors
    /// What the file system says. Nothing may rely on the keys then.
    fn secure(&self) -> Result<()> {
        self.mend()
    }

    /// Wipes the keys from memory, those of open files too. Whatever needs one from now on gets
    /// [`Error::Locked`](crate::Error::Locked).
    fn lock(&self);

    /// Whether the keys have been wiped.
    fn is_locked(&self) -> bool;
}
