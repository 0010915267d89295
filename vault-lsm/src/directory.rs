//! What a directory holds before a store is opened in it, and taking it for this process.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use vault_core::transform::{FileKind, HEADER_BYTES, KEYRING_COPY_NAME, KEYRING_NAME};
use vault_core::vfs::{EntryKind, FileSystem, LockGuard, LockOutcome, read_beginning, read_up_to};
use vault_core::{Error, Result};

use crate::frame::{self, FRAME_BYTES};
use crate::layout::{
    FILE_NUMBER_MAX, LOCK_NAME, NameMeaning, POINTER_NAME, UNFINISHED_SUFFIX, file_name, meaning_of,
};

/// How every file of Vault's begins.
const MAGIC: &[u8] = b"VAULT\0";
/// How the text in a lock file begins.
const HOLDER_PREFIX: &str = "process ";

/// What a path holds.
pub(crate) enum Found {
    Nothing,
    /// A directory with nothing of a store in it, fit to become one.
    Empty,
    Store,
    Foreign(String),
}

/// Where a path that a caller gave leads, whatever working directory the process changes to. Refuses one that is too long
/// for the files of a store before anything is made there.
pub(crate) fn place(fs: &dyn FileSystem, directory: &Path) -> Result<PathBuf> {
    let absolute = fs
        .absolute(directory)
        .map_err(|e| Error::io("find a place for a store at", directory, e))?;
    let mut longest = file_name(FileKind::Table, FILE_NUMBER_MAX);
    longest.push_str(UNFINISHED_SUFFIX);
    let longest = absolute.join(longest);
    let len = longest.as_os_str().len();
    fs.kind(&longest).map_err(|e| {
        let problem = match e.kind() {
            io::ErrorKind::InvalidFilename => io::Error::new(
                e.kind(),
                format!(
                    "a name in it is too long, or it is as a whole: \
                     with the longest name of a store's files it has {len} bytes; choose a shorter path"
                ),
            ),
            _ => e,
        };
        Error::io("find a place for a store at", &absolute, problem)
    })?;
    Ok(absolute)
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
    let pointer_kind = fs
        .kind(&pointer)
        .map_err(|e| Error::io("look at", &pointer, e))?;
    if pointer_kind.is_some_and(|kind| kind != EntryKind::File) {
        let problem = format!("its {POINTER_NAME} is not a file");
        return Ok(Found::Foreign(problem));
    }
    let has_pointer = pointer_kind.is_some();
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
        let path = directory.join(&entry.name);
        let foreign = match meaning_of(Path::new(&entry.name)) {
            NameMeaning::Foreign => true,
            _ if entry.kind != EntryKind::File => true,
            // Creation writes the keys first.
            NameMeaning::Fixed if is_keyring(&entry.name) => !is_ours(fs, &path, None, None),
            NameMeaning::Fixed => !is_lock(fs, &path)?,
            // A store whose creation was interrupted: nothing was ever acknowledged by it.
            NameMeaning::Unfinished => false,
            NameMeaning::Numbered(FileKind::Manifest, 1) => {
                ours |= holds_edits(fs, &path)?;
                false
            }
            NameMeaning::Numbered(..) => {
                ours = true;
                false
            }
        };
        if foreign {
            let name = entry.name.to_string_lossy();
            return Ok(Found::Foreign(format!(
                "it holds {name:?}, which is not Vault's"
            )));
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
    let file = match fs.open(pointer) {
        Ok(file) => file,
        // It went between the two looks: whoever reads it next will say so.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(Error::io("open", pointer, e)),
    };
    let mut begin = [0; MAGIC.len()];
    let read = read_up_to(&*file, &mut begin, 0).map_err(|e| Error::io("read", pointer, e))?;
    Ok(&begin[..read] == MAGIC)
}

fn is_keyring(name: &OsStr) -> bool {
    name == KEYRING_NAME || name == KEYRING_COPY_NAME
}

/// Whether a file may be the lock file, into which its holder's name will be written.
fn is_lock(fs: &dyn FileSystem, path: &Path) -> Result<bool> {
    let file = match fs.open(path) {
        Ok(file) => file,
        // It went between the two looks.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let mut begin = [0; HOLDER_PREFIX.len()];
    let read = read_up_to(&*file, &mut begin, 0).map_err(|e| Error::io("read", path, e))?;
    // The power may have failed before its text was on the disk.
    let unwritten = begin.iter().all(|&byte| byte == 0);
    Ok(unwritten || &begin[..read] == HOLDER_PREFIX.as_bytes())
}

/// Whether a file that carries a name of Vault's was written by this store, so far as it can be read: all
/// files of a store begin with its id and their number. One whose beginning never reached the disk counts as
/// the store's; one that cannot be read does not. Without an id, any store's will do.
pub(crate) fn is_ours(
    fs: &dyn FileSystem,
    path: &Path,
    store: Option<&[u8; 16]>,
    number: Option<u64>,
) -> bool {
    let mut begin = [0; HEADER_BYTES];
    let read = fs
        .open(path)
        .and_then(|file| read_up_to(&*file, &mut begin, 0))
        .unwrap_or_else(|e| {
            if e.kind() == io::ErrorKind::NotFound {
                0
            } else {
                HEADER_BYTES + 1
            }
        });
    let Some(begin) = begin.get(..read) else {
        return false;
    };
    if begin.iter().all(|&byte| byte == 0) {
        return true;
    }
    let names_store = |store: &[u8; 16]| begin.get(16..32).is_none_or(|id| id == store);
    let has_number = |number: u64| {
        begin
            .get(32..40)
            .is_none_or(|bytes| bytes == number.to_le_bytes())
    };
    begin.starts_with(MAGIC) && store.is_none_or(names_store) && number.is_none_or(has_number)
}

pub(crate) fn take_lock(fs: &dyn FileSystem, directory: &Path) -> Result<Box<dyn LockGuard>> {
    let path = directory.join(LOCK_NAME);
    let program = std::env::current_exe().ok();
    let program = program
        .as_deref()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy());
    let program = program.as_deref().unwrap_or("an unknown program");
    let holder = format!("{HOLDER_PREFIX}{} ({program})", std::process::id());
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
