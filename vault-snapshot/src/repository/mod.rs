//! Repositories of snapshots: making, listing, verifying, restoring, merging and removing them.
//!
//! # What never happens
//! - A snapshot is never listed before all of it is durable, nor after a byte of it was removed.
//! - Nothing of a snapshot is restored before all of it was found whole; a target is never seen half restored.
//! - A snapshot is never removed while another one needs it.
//! - The store is never asked: everything but [`create`](Repository::create) works without it, and without its keys.
//!
//! One writer works on a repository at a time (create, consolidate, prune, remove, clean); readers need no lock. What a
//! writer that ended too early left behind has no manifest, is never listed, and is removed by [`clean`](Repository::clean),
//! unless a snapshot builds on it.

use std::fmt;
use std::sync::Arc;

use vault_core::{Clock, SystemClock};

use crate::archive::{ArchiveReader, FORMAT_VERSION};
use crate::archive::{Error, Manifest, ManifestProblem, Result, SnapshotName};
use crate::destination::{Destination, MANIFEST_FILE};

mod chain;
mod check;
mod clean;
mod consolidate;
mod create;
mod extract;
mod files;
mod list;
mod prune;
mod read;
mod verify;

pub use clean::Cleaned;
pub use create::{CreateOptions, Document, Parent, Source, SourceFile, WriteDocument};
pub use extract::Extracted;
pub use list::Survey;
pub use verify::Verified;

/// What a repository takes from whoever hands it archives, and gives itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest manifest, in bytes. It is read into memory.
    pub manifest_bytes_max: u64,
    /// Most entries of a snapshot. The directory of an archive is read into memory.
    pub entries_max: usize,
    /// Most bytes that a snapshot shows, not compressed.
    pub snapshot_bytes_max: u64,
    /// Longest chain of incremental snapshots. [`Parent::Newest`] begins a new one when it is full.
    pub chain_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes_max: 16 << 20,
            entries_max: 32 * 1024,
            snapshot_bytes_max: 64 << 40,
            chain_max: 64,
        }
    }
}

/// How a repository is opened.
#[derive(Debug, Clone)]
pub struct RepositoryOptions {
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// What is too large.
    pub limits: Limits,
}

impl Default for RepositoryOptions {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            limits: Limits::default(),
        }
    }
}

/// A repository of snapshots.
///
/// ```
/// use std::sync::Arc;
/// use vault_core::vfs::{FileSystem, MemoryFileSystem};
/// use vault_snapshot::archive::Form;
/// use vault_snapshot::destination::Directory;
/// use vault_snapshot::repository::{
///     CreateOptions, Repository, RepositoryOptions, Source, SourceFile,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let fs = MemoryFileSystem::new();
/// fs.write_file("/000001.table", b"sorted entries")?;
///
/// let place = Directory::new(Arc::new(fs.clone()), "/snapshots");
/// let repository = Repository::open(Arc::new(place), RepositoryOptions::default())?;
/// let mut source = Source::new([7; 16], Form::Physical);
/// source.files.push(SourceFile {
///     name: "000001.table".into(),
///     bytes: 14,
///     salt: Some([1; 24]),
///     immutable: true,
///     content: fs.open("/000001.table".as_ref())?,
/// });
/// let made = repository.create(source, &CreateOptions::default(), &())?;
///
/// assert_eq!(repository.list()?, [made.clone()]);
/// assert_eq!(repository.verify(made.name, &())?.bytes, 14);
/// repository.extract(made.name, &fs, "/restored".as_ref(), &|_| true, |_| Ok(()), &())?;
/// assert_eq!(fs.read_file("/restored/000001.table")?, b"sorted entries");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Repository {
    destination: Arc<dyn Destination>,
    clock: Arc<dyn Clock>,
    limits: Limits,
}

impl Repository {
    /// A repository at a destination, which need not have anything yet. Nothing is read or written.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] where the limits leave no room for a snapshot.
    pub fn open(destination: Arc<dyn Destination>, options: RepositoryOptions) -> Result<Self> {
        let RepositoryOptions { clock, limits } = options;
        if limits.chain_max == 0 || limits.entries_max == 0 || limits.manifest_bytes_max < 4096 {
            return Err(Error::request(
                "limits: `chain_max` and `entries_max` are at least 1, `manifest_bytes_max` at least 4096",
            ));
        }
        Ok(Self {
            destination,
            clock,
            limits,
        })
    }

    /// Where the snapshots lie.
    #[must_use]
    pub fn destination(&self) -> &Arc<dyn Destination> {
        &self.destination
    }

    /// The manifest of a snapshot.
    ///
    /// # Errors
    /// [`Error::NoSuchSnapshot`]; [`Error::Damaged`] and [`Error::NewerFormat`] where the manifest cannot be used;
    /// [`Error::OverLimit`]; what the destination says.
    pub fn manifest(&self, name: SnapshotName) -> Result<Manifest> {
        Ok(self.load(name)?.manifest)
    }

    /// Reads a manifest and keeps its bytes.
    fn load(&self, name: SnapshotName) -> Result<Loaded> {
        let max = self.limits.manifest_bytes_max;
        let json = self.destination.manifest(name, max)?;
        let location = || self.file_location(name, MANIFEST_FILE);
        let manifest = Manifest::parse(&json).map_err(|problem| match problem {
            ManifestProblem::Newer(found) => Error::NewerFormat {
                location: location(),
                found,
                supported: FORMAT_VERSION,
            },
            ManifestProblem::Malformed(problem) => Error::damaged(location(), problem),
        })?;
        if manifest.name != name {
            let problem = format!("it is the manifest of {}", manifest.name);
            return Err(Error::damaged(location(), problem));
        }
        self.check_size(location(), manifest.entries.len(), manifest.bytes())?;
        Ok(Loaded { manifest, json })
    }

    /// Holds a snapshot against the limits.
    fn check_size(&self, what: impl fmt::Display, entries: usize, bytes: u64) -> Result<()> {
        let over = |unit, found, max, setting| {
            Err(Error::OverLimit {
                what: format!("{unit} of {what}"),
                found,
                max,
                setting,
            })
        };
        let Limits {
            entries_max,
            snapshot_bytes_max,
            ..
        } = self.limits;
        if entries > entries_max {
            return over("entries", entries as u64, entries_max as u64, "entries_max");
        }
        if bytes > snapshot_bytes_max {
            return over("bytes", bytes, snapshot_bytes_max, "snapshot_bytes_max");
        }
        Ok(())
    }

    /// Opens the archive of a snapshot and holds it against its manifest.
    fn open_archive(&self, loaded: &Loaded) -> Result<ArchiveReader> {
        let name = loaded.manifest.name;
        let content = self.destination.archive(name)?;
        let location = self.file_location(name, crate::destination::ARCHIVE_FILE);
        ArchiveReader::open(content, location, &loaded.manifest, &loaded.json)
    }

    fn file_location(&self, name: SnapshotName, file: &str) -> String {
        format!("{}/{file}", self.destination.location(Some(name)))
    }
}

/// A manifest, and the bytes that it was read from.
struct Loaded {
    manifest: Manifest,
    json: Vec<u8>,
}
