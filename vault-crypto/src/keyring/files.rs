//! The two files of a keyring: reading both, and replacing them so that one is whole at every moment.
//!
//! A replacement is written under another name, synced, renamed, and the directory synced; the copy is begun when that is
//! done. So a loss of power leaves the old file or the new one, and a damaged one has a whole one beside it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::transform::{FileKind, HEADER_BYTES, KEYRING_COPY_NAME, KEYRING_NAME};
use vault_core::vfs::{FileSystem, read_beginning};
use vault_core::{Error, Result};

use super::format::{FILE_BYTES_MAX, Image};
use crate::kdf::KdfBounds;

/// Under which name a replacement is made ready.
const UNFINISHED_NAME: &str = "KEYRING.new";
/// The first bytes of a keyring.
const MAGIC: [u8; 8] = [
    b'V',
    b'A',
    b'U',
    b'L',
    b'T',
    0,
    FileKind::Keyring as u8,
    0x1a,
];

/// One of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Main,
    Copy,
}

impl Which {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Main => KEYRING_NAME,
            Self::Copy => KEYRING_COPY_NAME,
        }
    }

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Main => Self::Copy,
            Self::Copy => Self::Main,
        }
    }
}

/// What was found under a name.
pub(crate) enum Found {
    /// A keyring whose structure is sound.
    Whole(Image),
    /// None, or one that is damaged: the other file helps.
    Broken(Error),
    /// One that this build must not use, and not write over either.
    Refused(Error),
}

/// Why a replacement failed, and what that leaves.
pub(crate) enum WriteError {
    /// The file is as it was.
    Unchanged(Error),
    /// It may be the old one or the new one.
    Unknown(Error),
}

impl WriteError {
    /// The error for the caller: [`Error::Poisoned`] where it is open what is on disk.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Unchanged(error) => error,
            Self::Unknown(error @ Error::Poisoned { .. }) => error,
            Self::Unknown(cause) => Error::Poisoned {
                cause: Arc::new(cause),
            },
        }
    }
}

/// The directory in which a keyring is.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) path: PathBuf,
}

impl Directory {
    pub(crate) fn path_of(&self, which: Which) -> PathBuf {
        self.path.join(which.name())
    }

    /// Reads one of the files. `store` says whose it must be, where that is known.
    ///
    /// # Errors
    /// What the file system says, other than that nothing is there or that its bytes cannot be read.
    pub(crate) fn read(
        &self,
        which: Which,
        store: Option<&[u8; 16]>,
        bounds: &KdfBounds,
    ) -> Result<Found> {
        let path = self.path_of(which);
        let file = match self.fs.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Found::Broken(Error::corruption(&path, 0, "it is missing")));
            }
            Err(error) => return Err(Error::io("open", &path, error)),
        };
        // One byte more than there can be tells one that is too long.
        let bytes = match read_beginning(&*file, FILE_BYTES_MAX as u64 + 1) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Found::Broken(Error::io("read", &path, error))),
        };
        Ok(match Image::decode(&path, bytes, bounds) {
            Ok(image) if store.is_none_or(|store| *store == image.store) => Found::Whole(image),
            Ok(_) => Found::Refused(super::format::unacceptable(
                &path,
                "it is the keyring of another store; put back this store's own".to_owned(),
            )),
            Err(error @ Error::Corruption { .. }) => Found::Broken(error),
            Err(error) => Found::Refused(error),
        })
    }

    /// Replaces one of the files, durably.
    pub(crate) fn replace(&self, which: Which, bytes: &[u8]) -> Result<(), WriteError> {
        let unfinished = self.path.join(UNFINISHED_NAME);
        if let Err(error) = self.write_new(&unfinished, bytes) {
            // As far as it goes: what stays is replaced the next time.
            let _ = self.fs.remove(&unfinished);
            return Err(WriteError::Unchanged(error));
        }
        let path = self.path_of(which);
        if let Err(error) = self.fs.rename(&unfinished, &path) {
            return Err(match Error::io("rename", &unfinished, error) {
                // These are said before anything is done.
                error @ (Error::DiskFull { .. }
                | Error::Displaced { .. }
                | Error::Closed
                | Error::ReadOnlyMedium { .. }) => WriteError::Unchanged(error),
                error => WriteError::Unknown(error),
            });
        }
        self.sync()
    }

    /// Removes one of the files, durably. Does nothing where there is none.
    pub(crate) fn remove(&self, which: Which) -> Result<(), WriteError> {
        for path in [self.path_of(which), self.path.join(UNFINISHED_NAME)] {
            match self.fs.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(WriteError::Unknown(Error::io("remove", &path, error)));
                }
                _ => {}
            }
        }
        self.sync()
    }

    fn sync(&self) -> Result<(), WriteError> {
        self.fs
            .sync_dir(&self.path)
            .map_err(|error| WriteError::Unknown(Error::io("sync", &self.path, error)))
    }

    /// Writes a file that is not there, or what an interrupted attempt left under its name.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        match self.write_fresh(path, bytes) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                if !self.is_left_over(path)? {
                    return Err(Error::TargetExists {
                        path: path.to_path_buf(),
                    });
                }
                self.fs
                    .remove(path)
                    .map_err(|e| Error::io("remove", path, e))?;
                self.write_fresh(path, bytes)
            }
            outcome => outcome,
        }
    }

    /// Writes a file that is not there, synced.
    pub(crate) fn write_fresh(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let file = self
            .fs
            .create(path)
            .map_err(|e| Error::io("create", path, e))?;
        file.write_at(bytes, 0)
            .map_err(|e| Error::io("write", path, e))?;
        file.sync().map_err(|e| Error::io("sync", path, e))
    }

    /// Whether this is what an interrupted attempt left: the beginning of a keyring, or zeros where that never reached the
    /// disk. Anything else with this name is somebody else's.
    fn is_left_over(&self, path: &Path) -> Result<bool> {
        let file = self.fs.open(path).map_err(|e| Error::io("open", path, e))?;
        let begin =
            read_beginning(&*file, HEADER_BYTES as u64).map_err(|e| Error::io("read", path, e))?;
        Ok(begin.iter().all(|&byte| byte == 0) || begin.starts_with(&MAGIC))
    }
}
