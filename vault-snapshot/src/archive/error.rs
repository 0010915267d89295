//! What can go wrong with snapshots, sorted by what the caller can do about it.
//!
//! Messages say which snapshot or file, what was expected and found, and what to do next. [`Error::kind`] reduces them
//! to the decisions that a program can take, the same as those of every other part of Vault.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use vault_core::ErrorKind;

use super::hex::StoreId;

/// The result of something done with snapshots.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the host's own code, or of a store of objects.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error of a repository of snapshots.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system said no: a full disk, missing rights, a failed read.
    #[error(transparent)]
    Storage(#[from] vault_core::Error),
    /// A store of objects said no.
    #[error("cannot {operation} {location}: {source}; what was begun is not listed, try again")]
    Remote {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The object, or the prefix.
        location: String,
        /// Whether the credentials do not allow it, so that trying again is of no use.
        denied: bool,
        /// What the store of objects said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// An archive or manifest is not what was written, or was never one of ours.
    #[error(
        "{location} is damaged or forged: {problem}; nothing was restored from it, take another snapshot"
    )]
    Damaged {
        /// The archive or manifest, with the entry where one is meant.
        location: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The manifest was written by a newer Vault.
    #[error(
        "{location} has format version {found}, this build reads up to {supported}; use a newer Vault"
    )]
    NewerFormat {
        /// The manifest.
        location: String,
        /// The version found.
        found: u64,
        /// The newest version this build reads.
        supported: u64,
    },
    /// No whole snapshot has this name.
    #[error("there is no snapshot {name} at {location}; `list` tells which there are")]
    NoSuchSnapshot {
        /// The name that was asked for.
        name: String,
        /// The repository.
        location: String,
    },
    /// The snapshot has no entry of this path.
    #[error("snapshot {snapshot} has no entry {path:?}; its manifest lists those it has")]
    NoSuchEntry {
        /// The snapshot.
        snapshot: String,
        /// The path that was asked for.
        path: String,
    },
    /// A snapshot that another one builds on is missing, or is not of the same store.
    #[error("snapshot {snapshot} cannot build on {parent}: {problem}")]
    Parent {
        /// The incremental snapshot, or the one that was to be.
        snapshot: String,
        /// The one it names.
        parent: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The repository has snapshots of another store, or of several.
    #[error(
        "{location} is for the snapshots of one store: {snapshot} is of store {found}, not of {expected}; give each store a place of \
         its own; nothing was made or removed"
    )]
    OtherStore {
        /// The repository.
        location: String,
        /// The newest snapshot of the other store.
        snapshot: String,
        /// The store that it is of.
        found: StoreId,
        /// The store of the snapshot that was to be made, or of the newest that there is.
        expected: StoreId,
    },
    /// Somebody else is writing to the repository or to the target.
    #[error("{location} is in use by {holder}; wait for it to end, then try again")]
    Busy {
        /// The repository or target.
        location: String,
        /// Who holds it, as far as it is known.
        holder: String,
    },
    /// The directory to restore into holds something.
    #[error("cannot restore into {path}: {problem}; nothing there was changed", path = path.display())]
    TargetOccupied {
        /// The target, or the directory beside it that is needed for a moment.
        path: PathBuf,
        /// What is there, and what to do.
        problem: String,
    },
    /// A text that is not the name of a snapshot.
    #[error("{name:?} cannot name a snapshot: {problem}; names look like 2026-01-31T235959Z")]
    InvalidName {
        /// The text (cut after 64 characters).
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A path that no entry may have.
    #[error("{path:?} cannot be a path in an archive: {problem}")]
    InvalidPath {
        /// The path (cut after 128 characters).
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What was asked for contradicts itself.
    #[error("{problem}")]
    InvalidRequest {
        /// What is wrong and what is accepted.
        problem: String,
    },
    /// A file that was to be stored is not as long as it was said to be.
    #[error(
        "{name} was to give {expected} bytes and gave {found}; describe the source again, and try again"
    )]
    SourceChanged {
        /// The file.
        name: String,
        /// Bytes that it was said to have.
        expected: u64,
        /// Bytes that could be read.
        found: u64,
    },
    /// Something is larger than it may be.
    #[error(
        "{what}: {found} is over the limit of {max}; raise `{setting}` if it is meant to be that large"
    )]
    OverLimit {
        /// What is too large.
        what: String,
        /// How large it is.
        found: u64,
        /// How large it may be.
        max: u64,
        /// The field of [`Limits`](crate::repository::Limits) that says so.
        setting: &'static str,
    },
    /// The host failed to write a document.
    #[error("cannot write the document {name:?}: {source}")]
    Document {
        /// Name of the document.
        name: String,
        /// What the host said.
        source: BoxError,
    },
    /// The host failed to prepare a restored directory.
    #[error("cannot prepare what was restored into {path}: {source}; it was removed again", path = path.display())]
    Prepare {
        /// The temporary directory.
        path: PathBuf,
        /// What the host said.
        source: BoxError,
    },
    /// The caller asked for the work to stop.
    #[error("cancelled by the caller; what was begun was removed")]
    Cancelled,
}

impl Error {
    /// Says what the caller can do about this error.
    ///
    /// ```
    /// use vault_core::ErrorKind;
    /// use vault_snapshot::archive::Error;
    /// assert_eq!(Error::Cancelled.kind(), ErrorKind::Cancelled);
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Storage(error) => error.kind(),
            Self::Remote { denied: true, .. } => ErrorKind::Unavailable,
            Self::Remote { .. } | Self::Busy { .. } | Self::SourceChanged { .. } => {
                ErrorKind::Retry
            }
            Self::Damaged { .. } | Self::Parent { .. } => ErrorKind::Restore,
            Self::NewerFormat { .. } => ErrorKind::Unavailable,
            Self::Prepare { source, .. } if source.is::<vault_core::Error>() => source
                .downcast_ref()
                .map_or(ErrorKind::Input, vault_core::Error::kind),
            Self::NoSuchSnapshot { .. }
            | Self::NoSuchEntry { .. }
            | Self::OtherStore { .. }
            | Self::TargetOccupied { .. }
            | Self::InvalidName { .. }
            | Self::InvalidPath { .. }
            | Self::InvalidRequest { .. }
            | Self::OverLimit { .. }
            | Self::Document { .. }
            | Self::Prepare { .. } => ErrorKind::Input,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// Reports what is wrong with an archive or manifest.
    pub(crate) fn damaged(location: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::Damaged {
            location: location.to_string(),
            problem: problem.to_string(),
        }
    }

    pub(crate) fn request(problem: impl Into<String>) -> Self {
        Self::InvalidRequest {
            problem: problem.into(),
        }
    }
}
