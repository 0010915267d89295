//! Where snapshots lie, by trait: a directory, or a store of objects.
//!
//! A destination keeps two things under each name: the archive, `snapshot.zip`, and the manifest, `manifest.json`. The
//! manifest is put there last and at once, and only where none is: a snapshot exists from that moment on, and no longer
//! than its manifest does. What has no manifest is what an interrupted snapshot left behind.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use vault_core::vfs::LockGuard;

use crate::archive::{Result, SnapshotName};

mod directory;
#[cfg(feature = "object-store")]
mod object_store;

pub use directory::Directory;
#[cfg(feature = "object-store")]
pub use object_store::{ObjectStoreDestination, ObjectStoreOptions};

/// Name of the archive of a snapshot.
pub const ARCHIVE_FILE: &str = "snapshot.zip";
/// Name of the manifest of a snapshot.
pub const MANIFEST_FILE: &str = "manifest.json";

/// A place for snapshots.
pub trait Destination: Send + Sync + fmt::Debug {
    /// Where it is, or where the snapshot of this name is, for messages.
    fn location(&self, name: Option<SnapshotName>) -> String;

    /// Makes sure that nobody else writes here until the guard is dropped. `None` where this place has no locks:
    /// there, [`publish`](Self::publish) lets only one win.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::archive::Error::Busy), and what the place says.
    fn lock(&self) -> Result<Option<Box<dyn LockGuard>>>;

    /// What there is, in ascending order of the names. What has no name of a snapshot is passed over.
    ///
    /// # Errors
    /// What the place says.
    fn list(&self) -> Result<Vec<Found>>;

    /// Begins an archive under a name that nothing has.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::archive::Error::Busy) where the name is taken, and what the place says. Nothing is left then of what is
    /// certainly this call's own, and nothing else is removed: without locks, the name may be somebody else's by now.
    fn begin(&self, name: SnapshotName) -> Result<Box<dyn Upload>>;

    /// Puts the manifest in place, durably, whole or not at all, and only where there is none.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::archive::Error::Busy) where there is one, and what the place says.
    fn publish(&self, name: SnapshotName, manifest: &[u8]) -> Result<()>;

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Error::NoSuchSnapshot`](crate::archive::Error::NoSuchSnapshot),
    /// [`Error::OverLimit`](crate::archive::Error::OverLimit) beyond `bytes_max`, and what the place says.
    fn manifest(&self, name: SnapshotName, bytes_max: u64) -> Result<Vec<u8>>;

    /// Opens an archive for reading.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::archive::Error::Damaged) where it is missing, and what the place says.
    fn archive(&self, name: SnapshotName) -> Result<Arc<dyn Content>>;

    /// Removes the manifest, durably: from then on there is no such snapshot.
    ///
    /// # Errors
    /// What the place says. No manifest is no error.
    fn withdraw(&self, name: SnapshotName) -> Result<()>;

    /// Removes everything else under a name that has no manifest.
    ///
    /// # Errors
    /// What the place says. Nothing there is no error.
    fn discard(&self, name: SnapshotName) -> Result<()>;

    /// How old what has no manifest must be before it can be taken for interrupted rather than being written right now.
    /// Zero where the lock tells.
    fn interrupted_after(&self) -> Duration {
        Duration::ZERO
    }
}

/// What a destination has under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The name.
    pub name: SnapshotName,
    /// Whether something is there under the manifest's name, readable or not: whether it is a snapshot at all.
    pub manifest: bool,
}

/// An archive that is being written.
pub trait Upload: Send {
    /// Whether what was written can be written over. Where not, offsets only ascend, without gaps.
    fn rewrites(&self) -> bool;

    /// Writes at an offset.
    ///
    /// # Errors
    /// What the place says; then the upload is of no more use.
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()>;

    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// What the place says; then the upload is of no more use.
    fn finish(&mut self) -> Result<()>;

    /// Gives up what was written, as far as that can be done: [`Destination::discard`] does the rest.
    fn abort(&mut self);
}

/// An archive that can be read.
pub trait Content: Send + Sync {
    /// Reads into the whole buffer, or up to the end; gives the number of bytes read.
    ///
    /// # Errors
    /// What the place says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Length in bytes.
    ///
    /// # Errors
    /// What the place says.
    fn bytes(&self) -> io::Result<u64>;
}
