//! What can go wrong, sorted by what the caller can do about it.
//!
//! Each variant carries what a person needs at three in the morning: the file, the offset, what was
//! expected and what was found, and in its message what to do next. [`Error::kind`] reduces them to
//! the few decisions a program can take.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::engine::SequenceNumber;
use crate::vfs::LockLost;

/// The result of a Vault operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing is wrong; wait and try again.
    Retry,
    /// The request itself is at fault: mend the input.
    Input,
    /// There is no room: on the disk, in the memory budget, or for another file descriptor. Free some, then try
    /// again.
    Full,
    /// This handle is of no more use; open the store again.
    Reopen,
    /// Bytes on disk are damaged: verify, repair, or restore a copy.
    Restore,
    /// The store is there but cannot be used from here: another process, permissions, a newer format.
    Unavailable,
    /// The store is locked by its owner: unlock it.
    Unlock,
    /// The caller asked for the work to stop, and it did.
    Cancelled,
}

/// An error of a Vault engine.
///
/// Cloning is cheap: sources are shared.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key is longer than the engine accepts.
    #[error(
        "key of {len} bytes is over the limit of {max}; shorten it, or keep the long part in the value"
    )]
    KeyTooLong {
        /// Length of the key in bytes.
        len: usize,
        /// Longest accepted key in bytes.
        max: usize,
    },
    /// A value is longer than the engine accepts.
    #[error(
        "value of {len} bytes is over the limit of {max}; split it over several keys, \
         or raise `limits.value_bytes_max` (and `memory_bytes`, of which it is a small part)"
    )]
    ValueTooLong {
        /// Length of the value in bytes.
        len: usize,
        /// Longest accepted value in bytes.
        max: usize,
    },
    /// A batch holds more bytes than the engine writes at once.
    #[error(
        "batch of {len} bytes is over the limit of {max}; write it in parts, or ingest it as sorted data"
    )]
    BatchTooLarge {
        /// Length of the encoded batch in bytes.
        len: usize,
        /// Longest accepted batch in bytes.
        max: usize,
    },
    /// The bounds of a range delete, compaction or ingest are the wrong way round.
    #[error("the range starts at {start} and ends at {end}, before it starts; swap the bounds")]
    InvertedRange {
        /// Where the range starts, escaped for printing.
        start: String,
        /// Where it ends, escaped for printing.
        end: String,
    },
    /// A keyspace name is not one.
    #[error(
        "{name:?} cannot name a keyspace: {problem}; use 1 to 128 of A-Z a-z 0-9 _ - . not starting with a dot"
    )]
    InvalidKeyspaceName {
        /// The name as it was given (cut after 64 characters).
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No keyspace has this id: it was never created here, or it has been dropped.
    #[error(
        "keyspace {id} does not exist here: it was dropped, or the id is another store's; look it up by name again"
    )]
    UnknownKeyspace {
        /// The id that was given.
        id: u32,
    },
    /// A keyspace or a setting was opened with options that contradict what the store recorded.
    #[error(
        "option `{option}` of {subject} is {requested} here, but {stored} in the store; use the stored value, or copy the data"
    )]
    OptionsConflict {
        /// The keyspace or store that the option belongs to.
        subject: String,
        /// The option's name.
        option: &'static str,
        /// The value recorded in the store.
        stored: String,
        /// The value that was asked for.
        requested: String,
    },
    /// A setting is outside what it can be.
    #[error("setting `{setting}`: {problem}")]
    InvalidSetting {
        /// The setting's name.
        setting: &'static str,
        /// What is wrong with it and what is accepted.
        problem: String,
    },
    /// The keyspace was written with a merge operator that was not given when opening.
    #[error(
        "keyspace {keyspace:?} needs the merge operator {operator:?}, which was not registered; pass it when opening the store"
    )]
    MissingMergeOperator {
        /// Name of the keyspace.
        keyspace: String,
        /// Name of the operator that the store recorded.
        operator: String,
    },
    /// A merge was asked for in a keyspace that has no merge operator.
    #[error("keyspace {keyspace:?} has no merge operator; create it with `KeyspaceOptions::merge`")]
    NoMergeOperator {
        /// Name of the keyspace.
        keyspace: String,
    },
    /// The merge operator refused its operands.
    #[error("merge operator {operator:?} cannot apply its operands to key {key}: {problem}")]
    MergeFailed {
        /// Name of the operator.
        operator: String,
        /// The key, escaped for printing.
        key: String,
        /// What the operator said.
        problem: String,
    },
    /// An expiry lies at zero, in the past, or beyond what can be represented.
    #[error("expiry is {problem}; give a moment after now, in milliseconds since 1970")]
    InvalidExpiry {
        /// What is wrong with it.
        problem: String,
    },
    /// Sorted data handed to ingest was not sorted.
    #[error(
        "ingest needs strictly ascending keys: entry {index} has key {key}, which is not after {previous}"
    )]
    UnsortedInput {
        /// Position of the offending entry, from zero.
        index: u64,
        /// Its key, escaped for printing.
        key: String,
        /// The key before it, escaped for printing.
        previous: String,
    },
    /// A file operation failed.
    #[error("cannot {operation} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: Arc<io::Error>,
    },
    /// Bytes on disk are not what was written.
    #[error("{path} is damaged at byte {offset}: {problem}; run verify, then repair or restore a copy", path = path.display())]
    Corruption {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes from its start.
        offset: u64,
        /// What was expected and what was found.
        problem: String,
    },
    /// The directory or file is not a Vault store.
    #[error("{path} is not a Vault store: {problem}; point to an empty directory or to a store", path = path.display())]
    NotAStore {
        /// The path that was opened.
        path: PathBuf,
        /// What was found there.
        problem: String,
    },
    /// The store or a file in it was written by a newer format than this build reads.
    #[error("{path} has format version {found}, this build reads up to {supported}; open it with a newer Vault", path = path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version this build reads.
        supported: u32,
    },
    /// The store must exist and does not.
    #[error("there is no store at {path}; create one, or correct the path", path = path.display())]
    NoSuchStore {
        /// The path that was opened.
        path: PathBuf,
    },
    /// Another process (or another handle of this one) has the store open for writing.
    #[error("{path} is open for writing by {holder}; close it there, or open read-only", path = path.display())]
    AlreadyOpen {
        /// The store's directory.
        path: PathBuf,
        /// Who holds it: process id and program, as far as it is known.
        holder: String,
    },
    /// A write through a handle that was opened read-only.
    #[error("this handle was opened read-only; open the store for writing")]
    ReadOnly,
    /// The handle turned read-only because a write to the disk failed in a way that cannot be trusted.
    #[error(
        "the store went read-only after a failed write: {cause}; what was acknowledged is safe, close and open again"
    )]
    Poisoned {
        /// The failure that caused it.
        cause: Arc<Error>,
    },
    /// The engine was closed.
    #[error("the store is closed; open it again")]
    Closed,
    /// The engine would have had to make the caller wait.
    #[error("the store is busy catching up; try again in about {retry_after:?}")]
    Busy {
        /// Estimate of when room is there.
        retry_after: Duration,
    },
    /// The memory budget has no room for what was asked, whatever else gives way.
    #[error(
        "{what} would take {needed} bytes of memory, and the budget leaves {available}; \
         close cursors and snapshots that are not needed, or open the store with more `memory_bytes`"
    )]
    MemoryFull {
        /// What was asked for.
        what: &'static str,
        /// Bytes it would take, together with what holds the same share already.
        needed: u64,
        /// Bytes there are for it.
        available: u64,
    },
    /// The disk has no room.
    #[error("no space left while trying to {operation} {path}; free some space, then try again", path = path.display())]
    DiskFull {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The process, or the whole system, has as many files open as it may.
    #[error(
        "no file descriptor left while trying to {operation} {path}; \
         close some files or raise the limit (`ulimit -n`), then try again",
        path = path.display()
    )]
    TooManyOpenFiles {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The medium takes no writes.
    #[error(
        "cannot {operation} {path}: the medium is read-only; \
         open the store read-only, or make the medium writable",
        path = path.display()
    )]
    ReadOnlyMedium {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The directory does not lead to the open store any more.
    #[error(
        "{path} does not lead to this store any more: it was moved, removed or replaced; \
         close this handle and open the store where it is now",
        path = path.display()
    )]
    Displaced {
        /// The directory that the store was opened in.
        path: PathBuf,
    },
    /// The store is encrypted, and was opened as a plain one.
    #[error("{path} is encrypted; open it as an encrypted store, with its passphrase or key", path = path.display())]
    Encrypted {
        /// The file that says so.
        path: PathBuf,
    },
    /// The store is plain, and was opened as an encrypted one.
    #[error(
        "{path} is not encrypted; open it as a plain store, or copy its data into an encrypted one. \
         If it was encrypted before, somebody has replaced it",
        path = path.display()
    )]
    NotEncrypted {
        /// The file that says so.
        path: PathBuf,
    },
    /// The passphrase or key is not the one that the store was given.
    #[error("this passphrase or key does not open {path}; give the one that was set last", path = path.display())]
    WrongKey {
        /// The keyring.
        path: PathBuf,
    },
    /// The keys were wiped from memory.
    #[error("the store is locked; unlock it")]
    Locked,
    /// The passphrase or key could not be had from where it is kept.
    #[error("cannot get the key from {source_name}: {problem}")]
    KeyUnavailable {
        /// Where it was to come from: a file, an environment variable, a command, a key service.
        source_name: String,
        /// What went wrong and what to do.
        problem: String,
    },
    /// What was given cannot be a passphrase or key.
    #[error("this cannot be a key: {problem}")]
    InvalidKey {
        /// What is wrong with it and what is accepted. Says nothing of its content.
        problem: String,
    },
    /// A keyring asks for what this build does not do, or refuses to do.
    #[error("{path} cannot be used: {problem}", path = path.display())]
    UnacceptableKeyring {
        /// The keyring.
        path: PathBuf,
        /// What it asks for, and what is accepted.
        problem: String,
    },
    /// The store, or a file of it, is an older one than it must be.
    #[error(
        "{path} is from generation {found}, and {least} was reached already: an older copy was put back; \
         restore the current one, or accept the older one knowingly",
        path = path.display()
    )]
    RolledBack {
        /// The file that says so.
        path: PathBuf,
        /// The generation that was found.
        found: u64,
        /// The least that is acceptable.
        least: u64,
    },
    /// A target that must be empty or absent is not.
    #[error("{path} already exists; give a directory that does not", path = path.display())]
    TargetExists {
        /// The path that is in the way.
        path: PathBuf,
    },
    /// A part of the log that was to be shipped, or to be replayed, is not there.
    #[error("the shipped log has a gap behind write {behind}: {problem}")]
    LogGap {
        /// The last write before the gap.
        behind: SequenceNumber,
        /// What is missing, and what to do.
        problem: String,
    },
    /// Shipped log was given to a store that it cannot be replayed on.
    #[error("the shipped log cannot be replayed on {path}: {problem}", path = path.display())]
    UnfitLog {
        /// The store's directory.
        path: PathBuf,
        /// Why not, and what to do.
        problem: String,
    },
    /// The work was cancelled by its own caller; what was done so far stands.
    #[error("cancelled by the caller; what was done so far stands")]
    Cancelled,
    /// The engine does not offer this operation.
    #[error("{engine} does not support {operation}")]
    Unsupported {
        /// Name of the engine.
        engine: &'static str,
        /// The operation.
        operation: &'static str,
    },
}

impl Error {
    /// Says what the caller can do about this error.
    ///
    /// ```
    /// use vault_core::{Error, ErrorKind};
    /// assert_eq!(Error::KeyTooLong { len: 70_000, max: 65_536 }.kind(), ErrorKind::Input);
    /// assert_eq!(Error::Closed.kind(), ErrorKind::Reopen);
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy { .. } => ErrorKind::Retry,
            Self::KeyTooLong { .. }
            | Self::ValueTooLong { .. }
            | Self::BatchTooLarge { .. }
            | Self::InvertedRange { .. }
            | Self::InvalidKeyspaceName { .. }
            | Self::UnknownKeyspace { .. }
            | Self::OptionsConflict { .. }
            | Self::InvalidSetting { .. }
            | Self::MissingMergeOperator { .. }
            | Self::NoMergeOperator { .. }
            | Self::MergeFailed { .. }
            | Self::InvalidExpiry { .. }
            | Self::UnsortedInput { .. }
            | Self::NoSuchStore { .. }
            | Self::NotAStore { .. }
            | Self::ReadOnly
            | Self::TargetExists { .. }
            | Self::Encrypted { .. }
            | Self::NotEncrypted { .. }
            | Self::InvalidKey { .. }
            | Self::LogGap { .. }
            | Self::UnfitLog { .. }
            | Self::Unsupported { .. } => ErrorKind::Input,
            Self::WrongKey { .. } | Self::Locked | Self::KeyUnavailable { .. } => ErrorKind::Unlock,
            Self::DiskFull { .. } | Self::MemoryFull { .. } | Self::TooManyOpenFiles { .. } => {
                ErrorKind::Full
            }
            Self::Poisoned { .. } | Self::Closed | Self::Displaced { .. } => ErrorKind::Reopen,
            Self::Corruption { .. } | Self::RolledBack { .. } => ErrorKind::Restore,
            // No such path can be: too long, or with a zero in it.
            Self::Io { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput
                ) =>
            {
                ErrorKind::Input
            }
            Self::Io { .. }
            | Self::NewerFormat { .. }
            | Self::UnacceptableKeyring { .. }
            | Self::AlreadyOpen { .. }
            | Self::ReadOnlyMedium { .. } => ErrorKind::Unavailable,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// This error without the keys, values and names of keyspaces in it: those of an encrypted store may not reach
    /// whoever reads its messages.
    #[must_use]
    pub fn withholding_content(self) -> Self {
        let hidden = || "(withheld: the store is encrypted)".to_owned();
        match self {
            Self::InvertedRange { .. } => Self::InvertedRange {
                start: hidden(),
                end: hidden(),
            },
            Self::InvalidKeyspaceName { problem, .. } => Self::InvalidKeyspaceName {
                name: hidden(),
                problem,
            },
            Self::OptionsConflict {
                option,
                stored,
                requested,
                ..
            } => Self::OptionsConflict {
                subject: format!("a keyspace {}", hidden()),
                option,
                stored,
                requested,
            },
            Self::MissingMergeOperator { operator, .. } => Self::MissingMergeOperator {
                keyspace: hidden(),
                operator,
            },
            Self::NoMergeOperator { .. } => Self::NoMergeOperator { keyspace: hidden() },
            // What the operator says may quote what it was given.
            Self::MergeFailed { operator, .. } => Self::MergeFailed {
                operator,
                key: hidden(),
                problem: hidden(),
            },
            Self::UnsortedInput { index, .. } => Self::UnsortedInput {
                index,
                key: hidden(),
                previous: hidden(),
            },
            Self::Poisoned { cause } => Self::Poisoned {
                cause: Arc::new(Self::clone(&cause).withholding_content()),
            },
            other => other,
        }
    }

    /// Wraps an error of the operating system, telling apart what a caller can do something about: a full
    /// disk, no file descriptors, a medium that takes no writes.
    pub fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path_of = || path.to_path_buf();
        if let Some(Errno::MFILE | Errno::NFILE) = Errno::from_io_error(&source) {
            let path = path_of();
            return Self::TooManyOpenFiles { operation, path };
        }
        match source.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(LockLost::Displaced(directory)) => {
                let path = directory.clone();
                return Self::Displaced { path };
            }
            Some(LockLost::Released) => return Self::Closed,
            None => {}
        }
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::DiskFull {
                operation,
                path: path_of(),
            },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnlyMedium {
                operation,
                path: path_of(),
            },
            _ => Self::Io {
                operation,
                path: path_of(),
                source: Arc::new(source),
            },
        }
    }

    /// Reports damaged bytes at `offset` of `path`.
    pub fn corruption(path: &Path, offset: u64, problem: impl Into<String>) -> Self {
        Self::Corruption {
            path: path.to_path_buf(),
            offset,
            problem: problem.into(),
        }
    }
}

/// As [`printable`], but where the store is encrypted: says only how long they are.
#[must_use]
pub fn withheld(bytes: &[u8]) -> String {
    format!("({} bytes, withheld: the store is encrypted)", bytes.len())
}

/// Writes bytes so that a person can read them: printable ASCII as it is, the rest as `\xNN`, cut
/// after 32 bytes.
///
/// ```
/// assert_eq!(vault_core::error::printable(b"user\x00"), r#""user\x00""#);
/// ```
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 32;
    let shown = &bytes[..bytes.len().min(SHOWN_MAX)];
    let more = if bytes.len() > SHOWN_MAX { "…" } else { "" };
    format!("\"{}{more}\"", shown.escape_ascii())
}
