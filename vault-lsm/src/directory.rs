//! What a directory holds before a store is opened in it, and taking it for this process.

use std::path::Path;

use vault_core::transform::{FileKind, HEADER_BYTES};
use vault_core::vfs::{EntryKind, FileSystem, LockGuard, LockOutcome, read_beginning};
use vault_core::{Error, Result};

use crate::frame::{self, FRAME_BYTES};
use crate::layout::{LOCK_NAME, NameMeaning, POINTER_NAME, meaning_of};

/// What a path holds.
pub(crate) enum Found {
    Nothing,
    /// A directory with nothing of a store in it, fit to become one.
    Empty,
    Store,
    Foreign(String),
}

pub(crate) fn look_at(fs: &dyn FileSystem, directory: &Path) -> Result<Found> {
    match fs
        .kind(directory)
        .map_err(|e| Error::io("look at", directory, e))?
    {
        None => return Ok(Found::Nothing),
        Some(EntryKind::Directory) => {}
        Some(_) => return Ok(Found::Foreign("it is a file, not a directory".to_owned())),
    }
    let pointer = directory.join(POINTER_NAME);
    let has_pointer = fs
        .kind(&pointer)
        .map_err(|e| Error::io("look at", &pointer, e))?
        .is_some();
    if has_pointer && begins_as_pointer(fs, &pointer)? {
        return Ok(Found::Store);
    }
    let entries = fs
        .read_dir(directory)
        .map_err(|e| Error::io("list", directory, e))?;
    if has_pointer {
        // Other stores have a file of this name too (LevelDB and its kin). One whose first bytes are
        // damaged still has its manifest beside it; that error is for whoever reads the pointer.
        let is_manifest = |name: &Path| {
            matches!(
                meaning_of(name),
                NameMeaning::Numbered(FileKind::Manifest, _)
            )
        };
        if entries
            .iter()
            .any(|entry| is_manifest(Path::new(&entry.name)))
        {
            return Ok(Found::Store);
        }
        let problem = format!("its {POINTER_NAME} is not Vault's, and it has no manifest");
        return Ok(Found::Foreign(problem));
    }
    let mut ours = false;
    for entry in &entries {
        match meaning_of(Path::new(&entry.name)) {
            // A store whose creation was interrupted: nothing was ever acknowledged by it.
            NameMeaning::Unfinished | NameMeaning::Fixed => {}
            NameMeaning::Numbered(FileKind::Manifest, 1) => {
                ours |= holds_edits(fs, &directory.join(&entry.name))?;
            }
            NameMeaning::Numbered(..) => ours = true,
            NameMeaning::Foreign => {
                let name = entry.name.to_string_lossy();
                return Ok(Found::Foreign(format!(
                    "it holds {name:?}, which is not Vault's"
                )));
            }
        }
    }
    if ours {
        let problem = format!(
            "files of a store are there, but not {POINTER_NAME}; restore it, or salvage the tables"
        );
        return Err(Error::corruption(&pointer, 0, problem));
    }
    Ok(Found::Empty)
}

/// Whether a manifest holds more than the record it begins with: then the store was in use. One whose
/// beginning is not whole is what an interrupted creation left.
fn holds_edits(fs: &dyn FileSystem, manifest: &Path) -> Result<bool> {
    const BEGIN_BYTES: usize = HEADER_BYTES + FRAME_BYTES;
    let failed = |e| Error::io("read", manifest, e);
    let file = fs.open(manifest).map_err(failed)?;
    let begin = read_beginning(&*file, BEGIN_BYTES as u64).map_err(failed)?;
    if begin.len() < BEGIN_BYTES {
        return Ok(false);
    }
    let word =
        |at: usize| u32::from_le_bytes([begin[at], begin[at + 1], begin[at + 2], begin[at + 3]]);
    let sealed_len = word(HEADER_BYTES);
    if begin[HEADER_BYTES..] != frame::encode(word(HEADER_BYTES - 4), 0, sealed_len) {
        return Ok(false);
    }
    Ok(file.len().map_err(failed)? > BEGIN_BYTES as u64 + u64::from(sealed_len))
}

/// Whether the file begins as all of Vault's do.
fn begins_as_pointer(fs: &dyn FileSystem, pointer: &Path) -> Result<bool> {
    const MAGIC: &[u8] = b"VAULT\0";
    let file = match fs.open(pointer) {
        Ok(file) => file,
        // It went between the two looks: whoever reads it next will say so.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(Error::io("open", pointer, e)),
    };
    let mut begin = [0; MAGIC.len()];
    let read = file
        .read_at(&mut begin, 0)
        .map_err(|e| Error::io("read", pointer, e))?;
    Ok(&begin[..read] == MAGIC)
}

pub(crate) fn take_lock(fs: &dyn FileSystem, directory: &Path) -> Result<Box<dyn LockGuard>> {
    let path = directory.join(LOCK_NAME);
    let program = std::env::current_exe().ok();
    let program = program
        .as_deref()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy());
    let program = program.as_deref().unwrap_or("an unknown program");
    let holder = format!("process {} ({program})", std::process::id());
    match fs
        .lock(&path, &holder)
        .map_err(|e| Error::io("lock", &path, e))?
    {
        LockOutcome::Acquired(guard) => Ok(guard),
        LockOutcome::Held(holder) => {
            let holder = if holder.is_empty() {
                "another process".to_owned()
            } else {
                holder
            };
            Err(Error::AlreadyOpen {
                path: directory.to_path_buf(),
                holder,
            })
        }
    }
}
