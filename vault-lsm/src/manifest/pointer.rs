//! `CURRENT`: the pointer to the current manifest. Bytes: `docs/format/store.md`.

use std::path::{Path, PathBuf};

use vault_core::codec::Decoder;
use vault_core::transform::{
    FileHeader, FileKind, HEADER_BYTES, KEYRING_NAME, Keys, SALT_BYTES, Salt, Transform,
};
use vault_core::vfs::{EntryKind, FileSystem, read_up_to};
use vault_core::{Error, Result};

use crate::directory::is_ours;
use crate::frame::record_identity;
use crate::layout::{Env, NewFile, POINTER_NAME, UNFINISHED_SUFFIX};
use crate::store::{outcome_unknown, sync_failed, write_failed};

pub(crate) const POINTER_VERSION: u16 = 1;
const PAYLOAD_BYTES: usize = 6 * 8 + SALT_BYTES;
/// More than a pointer can be, whatever the transform adds.
const READ_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES + 256;

/// What `CURRENT` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// Number of the current manifest.
    pub(crate) manifest: u64,
    /// Its salt: another file with its number is not it.
    pub(crate) manifest_salt: Salt,
    /// The version of the keyring: an older one was put back. 0 without keys.
    pub(crate) keyring_version: u64,
    /// One more with every replacement.
    pub(crate) generation: u64,
    /// Bytes of the manifest that were durable when this was written.
    pub(crate) manifest_bytes: u64,
    /// The last log segment and where it ends, after a clean close; zeros otherwise.
    pub(crate) log_end: (u64, u64),
}

impl Pointer {
    /// The id of the store in `directory`, which needs no keys. `None` where there is no pointer.
    pub(crate) fn store(fs: &dyn FileSystem, directory: &Path) -> Result<Option<[u8; 16]>> {
        let header = Self::header(fs, directory)?;
        Ok(header.map(|header| header.identity.store))
    }

    /// The header of the pointer in `directory`, which needs no keys. `None` where there is no pointer.
    pub(crate) fn header(fs: &dyn FileSystem, directory: &Path) -> Result<Option<FileHeader>> {
        let read = read_file(fs, &directory.join(POINTER_NAME))?;
        Ok(read.map(|(header, _)| header))
    }

    /// Reads the pointer of the store in `directory`. `None` where there is none.
    pub(crate) fn read(
        fs: &dyn FileSystem,
        directory: &Path,
        transform: &dyn Transform,
    ) -> Result<Option<Self>> {
        let path = directory.join(POINTER_NAME);
        let Some((header, mut bytes)) = read_file(fs, &path)? else {
            return Ok(None);
        };
        let blocks = header.open(&path, transform)?;
        let damaged = || Error::corruption(&path, HEADER_BYTES as u64, "the pointer does not open");
        let payload = blocks
            .open(&record_identity(0), &mut bytes[HEADER_BYTES..])
            .map_err(|_| damaged())?;
        let mut decoder = Decoder::new(payload);
        let pointer = (|| {
            Some(Self {
                manifest: decoder.u64()?,
                generation: decoder.u64()?,
                manifest_bytes: decoder.u64()?,
                log_end: (decoder.u64()?, decoder.u64()?),
                keyring_version: decoder.u64()?,
                manifest_salt: decoder.array()?,
            })
        })();
        match pointer {
            Some(pointer) if decoder.is_empty() => Ok(Some(pointer)),
            _ => Err(damaged()),
        }
    }

    /// Refuses a keyring that is older than the one this pointer was written beside.
    pub(crate) fn check_keyring(&self, directory: &Path, transform: &dyn Transform) -> Result<()> {
        let found = transform.keys().map_or(0, Keys::version);
        if found >= self.keyring_version {
            return Ok(());
        }
        Err(Error::RolledBack {
            path: directory.join(KEYRING_NAME),
            found,
            least: self.keyring_version,
        })
    }

    /// Replaces the pointer atomically and durably.
    ///
    /// # Errors
    /// [`Error::Poisoned`]: the pointer may have been replaced. After any other error it was not.
    pub(crate) fn write(&self, env: &Env, number: u64) -> Result<()> {
        let current = env.directory.join(POINTER_NAME);
        let unfinished = env
            .directory
            .join(format!("{POINTER_NAME}{UNFINISHED_SUFFIX}"));
        match self.write_to(env, unfinished.clone(), number) {
            Err(error) if is_taken(&error) && is_left_over(env, &unfinished)? => {
                env.fs
                    .remove(&unfinished)
                    .map_err(|e| Error::io("remove", &unfinished, e))?;
                self.write_to(env, unfinished.clone(), number)?;
            }
            outcome => outcome?,
        }
        env.fs
            .rename(&unfinished, &current)
            .map_err(|e| write_failed(Error::io("rename", &unfinished, e)))?;
        env.sync_directory().map_err(outcome_unknown)
    }

    fn write_to(&self, env: &Env, path: PathBuf, number: u64) -> Result<()> {
        let NewFile {
            path, file, blocks, ..
        } = env.create_file_at(path, FileKind::Pointer, number, POINTER_VERSION)?;
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
        let fields = [
            self.manifest,
            self.generation,
            self.manifest_bytes,
            self.log_end.0,
            self.log_end.1,
            self.keyring_version,
        ];
        fields
            .iter()
            .for_each(|field| payload.extend_from_slice(&field.to_le_bytes()));
        payload.extend_from_slice(&self.manifest_salt);
        blocks.seal(&record_identity(0), &mut payload, 0)?;
        file.write_at(&payload, HEADER_BYTES as u64)
            .map_err(|e| Error::io("write", &path, e))?;
        file.sync()
            .map_err(|e| sync_failed(Error::io("sync", &path, e)))
    }
}

/// Reads the file whole, with its header. `None` where there is none.
fn read_file(fs: &dyn FileSystem, path: &Path) -> Result<Option<(FileHeader, Vec<u8>)>> {
    let file = match fs.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let mut bytes = vec![0; READ_BYTES_MAX];
    let read = read_up_to(&*file, &mut bytes, 0).map_err(|e| Error::io("read", path, e))?;
    bytes.truncate(read);
    let header = FileHeader::decode(path, &bytes, FileKind::Pointer, POINTER_VERSION)?;
    Ok(Some((header, bytes)))
}

fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists)
}

/// Whether the name is taken by a pointer that an earlier attempt left, and by nothing else.
fn is_left_over(env: &Env, unfinished: &Path) -> Result<bool> {
    let entries = env
        .fs
        .read_dir(&env.directory)
        .map_err(|e| Error::io("list", &env.directory, e))?;
    let is_file = entries
        .iter()
        .any(|entry| entry.kind == EntryKind::File && unfinished.ends_with(&entry.name));
    Ok(is_file && is_ours(&*env.fs, unfinished, None, None))
}
