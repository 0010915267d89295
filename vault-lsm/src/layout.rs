//! Which files a store consists of, and how they are named. See `docs/format/store.md`.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vault_core::error::withheld;
use vault_core::random::Random;
use vault_core::transform::{
    BlockTransform, FileHeader, FileIdentity, FileKind, HEADER_BYTES, KEYRING_COPY_NAME,
    KEYRING_NAME, Salt, Transform,
};
use vault_core::vfs::{File, FileSystem, read_up_to};
use vault_core::{Clock, Error, Event, EventListener, Result};

/// Name of the pointer to the current manifest.
pub(crate) const POINTER_NAME: &str = "CURRENT";
/// Name of the file that carries the process lock.
pub(crate) const LOCK_NAME: &str = "LOCK";
/// Name of the directory in which repairs keep what they dropped.
pub(crate) const LOST_NAME: &str = "lost";
/// Name of the mark that the files are a copy, left by whoever copied them.
pub(crate) const RESTORED_NAME: &str = "RESTORED";
/// Ending of a file that is being made ready under its final name.
pub(crate) const UNFINISHED_SUFFIX: &str = ".new";
/// The highest number a file may have.
pub(crate) const FILE_NUMBER_MAX: u64 = 1 << 56;
/// How many numbers an opening can have given out without recording one of them: far more than it could make
/// files.
const UNRECORDED_MAX: u64 = 1 << 32;

/// What everything in the engine needs: where the store is, and the doors to the outside world.
#[derive(Clone)]
pub(crate) struct Env {
    pub(crate) directory: PathBuf,
    pub(crate) store: [u8; 16],
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) transform: Arc<dyn Transform>,
    pub(crate) listener: Option<Arc<dyn EventListener>>,
    /// How often the listener has panicked.
    pub(crate) listener_panics: Arc<AtomicU64>,
}

thread_local! {
    /// Whether this thread is telling a listener something.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the caller is an event listener, which is called in the midst of the engine's work: it must not wait
/// for any of it to end.
pub(crate) fn is_telling() -> bool {
    TELLING.get()
}

impl Env {
    /// The path of a numbered file.
    pub(crate) fn path(&self, kind: FileKind, number: u64) -> PathBuf {
        self.directory.join(file_name(kind, number))
    }

    /// The identity under which the blocks of a file that belongs to the whole store are sealed.
    pub(crate) fn identity(&self, kind: FileKind, number: u64) -> FileIdentity {
        FileIdentity {
            store: self.store,
            kind,
            number,
            domain: 0,
        }
    }

    /// Whether no key, value or name of the store may stand in a message.
    pub(crate) fn is_confidential(&self) -> bool {
        self.transform.keys().is_some()
    }

    /// An error as it may be told.
    pub(crate) fn discreet(&self, error: Error) -> Error {
        if self.is_confidential() {
            error.withholding_content()
        } else {
            error
        }
    }

    /// The name of a keyspace as it may stand in a message.
    pub(crate) fn show_name(&self, name: &str) -> String {
        if self.is_confidential() {
            withheld(name.as_bytes())
        } else {
            name.to_owned()
        }
    }

    /// Tells the listener, if there is one. It is called in the middle of the engine's work, which must not
    /// end because somebody who only looks on fails: a panic of its own is counted, and goes no further.
    pub(crate) fn emit(&self, event: &Event) {
        if let Some(listener) = &self.listener {
            let before = TELLING.replace(true);
            let told = catch_unwind(AssertUnwindSafe(|| listener.on_event(event)));
            TELLING.set(before);
            if told.is_err() {
                self.listener_panics.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Makes the directory's entries durable.
    pub(crate) fn sync_directory(&self) -> Result<()> {
        self.fs
            .sync_dir(&self.directory)
            .map_err(|e| Error::io("sync directory", &self.directory, e))
    }

    /// Creates a numbered file that belongs to the whole store and writes its header.
    pub(crate) fn create_file(&self, kind: FileKind, number: u64, version: u16) -> Result<NewFile> {
        let path = self.path(kind, number);
        self.create_file_at(path, kind, number, version)
    }

    /// As [`Env::create_file`], under another path.
    pub(crate) fn create_file_at(
        &self,
        path: PathBuf,
        kind: FileKind,
        number: u64,
        version: u16,
    ) -> Result<NewFile> {
        let identity = self.identity(kind, number);
        let (header, blocks) =
            FileHeader::create(identity, version, &*self.transform, &*self.random)?;
        let salt = header.salt;
        let header = header.encode();
        let file = self
            .fs
            .create(&path)
            .map_err(|e| Error::io("create", &path, e))?;
        if let Err(e) = file.write_at(&header, 0) {
            // Best effort: the next opening removes what this leaves behind.
            let _ = self.fs.remove(&path);
            return Err(Error::io("write", &path, e));
        }
        Ok(NewFile {
            path,
            file,
            blocks,
            salt,
            header_checksum: header_checksum(&header),
        })
    }

    /// Opens a numbered file, reads its header and checks that it is the one it should be.
    pub(crate) fn open_file(
        &self,
        kind: FileKind,
        number: u64,
        version_max: u16,
    ) -> Result<NewFile> {
        let path = self.path(kind, number);
        let file = self
            .fs
            .open(&path)
            .map_err(|e| Error::io("open", &path, e))?;
        let mut header = [0; HEADER_BYTES];
        let read = read_up_to(&*file, &mut header, 0).map_err(|e| Error::io("read", &path, e))?;
        let decoded = FileHeader::decode(&path, &header[..read], kind, version_max)?;
        if decoded.identity != self.identity(kind, number) {
            return Err(Error::corruption(
                &path,
                16,
                format!(
                    "the header is that of file {} of store {:02x?}, not of file {number} of store {:02x?}",
                    decoded.identity.number, decoded.identity.store, self.store
                ),
            ));
        }
        let blocks = decoded.open(&path, &*self.transform)?;
        Ok(NewFile {
            path,
            file,
            blocks,
            salt: decoded.salt,
            header_checksum: header_checksum(&header),
        })
    }
}

/// An open file with its header read or written.
pub(crate) struct NewFile {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    pub(crate) blocks: Arc<dyn BlockTransform>,
    pub(crate) salt: Salt,
    pub(crate) header_checksum: u32,
}

impl NewFile {
    /// Refuses a file that is not the very one that was meant, but another with its number: an older one, or
    /// one of a copy of the store.
    pub(crate) fn check_salt(&self, expected: &Salt) -> Result<()> {
        if self.salt == *expected {
            return Ok(());
        }
        Err(another_file(&self.path))
    }
}

/// The error for a file with the right number that is not the one that was meant.
pub(crate) fn another_file(path: &Path) -> Error {
    let problem =
        "its salt is not the recorded one: another file with the same number was put in its place";
    Error::corruption(path, SALT_OFFSET, problem)
}

/// Where the salt stands in a header.
pub(crate) const SALT_OFFSET: u64 = 40;

/// The checksum that a header ends in, from which those of its file's frames are started.
pub(crate) fn header_checksum(header: &[u8; HEADER_BYTES]) -> u32 {
    let at = HEADER_BYTES - 4;
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// The name of a numbered file.
pub(crate) fn file_name(kind: FileKind, number: u64) -> String {
    let extension = match kind {
        FileKind::Log => "log",
        FileKind::Table => "tab",
        FileKind::Manifest => "man",
        FileKind::Blob => "blob",
        FileKind::Pointer | FileKind::Archive | FileKind::Keyring => "dat",
    };
    format!("{number:06}.{extension}")
}

/// What the name of a file in a store's directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameMeaning {
    /// The pointer, the lock, the keyring, or where repairs keep what they dropped.
    Fixed,
    /// A numbered file.
    Numbered(FileKind, u64),
    /// A file that was being made ready.
    Unfinished,
    /// None of Vault's.
    Foreign,
}

/// The number in a file's name, if it was, or may have been, given out by this store, whose next number is
/// `next`: what is beyond was made by somebody else.
pub(crate) fn possible_number(name: &Path, next: u64) -> Option<u64> {
    match meaning_of(name) {
        NameMeaning::Numbered(_, number) => {
            (number < next.saturating_add(UNRECORDED_MAX)).then_some(number)
        }
        _ => None,
    }
}

/// Reads a file name.
pub(crate) fn meaning_of(name: &Path) -> NameMeaning {
    let Some(name) = name.to_str() else {
        return NameMeaning::Foreign;
    };
    const FIXED: [&str; 6] = [
        POINTER_NAME,
        LOCK_NAME,
        LOST_NAME,
        RESTORED_NAME,
        KEYRING_NAME,
        KEYRING_COPY_NAME,
    ];
    if FIXED.contains(&name) {
        return NameMeaning::Fixed;
    }
    if let Some(stem) = name.strip_suffix(UNFINISHED_SUFFIX) {
        let ours = ![LOST_NAME, RESTORED_NAME].contains(&stem)
            && meaning_of(Path::new(stem)) != NameMeaning::Foreign;
        return if ours {
            NameMeaning::Unfinished
        } else {
            NameMeaning::Foreign
        };
    }
    let numbered = name.split_once('.').and_then(|(stem, extension)| {
        let kind = match extension {
            "log" => FileKind::Log,
            "tab" => FileKind::Table,
            "man" => FileKind::Manifest,
            "blob" => FileKind::Blob,
            _ => return None,
        };
        let number = stem.parse().ok().filter(|&n: &u64| n <= FILE_NUMBER_MAX)?;
        // Only the one spelling that this engine writes.
        (file_name(kind, number) == name).then_some(NameMeaning::Numbered(kind, number))
    });
    numbered.unwrap_or(NameMeaning::Foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_foreign_ones_left_alone() {
        let meaning = |name: &str| meaning_of(Path::new(name));
        assert_eq!(
            meaning("000012.log"),
            NameMeaning::Numbered(FileKind::Log, 12)
        );
        assert_eq!(
            meaning("1234567.tab"),
            NameMeaning::Numbered(FileKind::Table, 1_234_567)
        );
        assert_eq!(
            meaning("000007.blob"),
            NameMeaning::Numbered(FileKind::Blob, 7)
        );
        assert_eq!(meaning("CURRENT"), NameMeaning::Fixed);
        assert_eq!(meaning("CURRENT.new"), NameMeaning::Unfinished);
        assert_eq!(meaning("lost"), NameMeaning::Fixed);
        assert_eq!(meaning("RESTORED"), NameMeaning::Fixed);
        assert_eq!(meaning("KEYRING"), NameMeaning::Fixed);
        assert_eq!(meaning("KEYRING.copy"), NameMeaning::Fixed);
        assert_eq!(meaning("KEYRING.copy.new"), NameMeaning::Unfinished);
        for foreign in [
            "lost.new",
            "RESTORED.new",
            "12.log",
            "0000012.log",
            "000012.sst",
            "notes.txt",
            "x.new",
            "",
            "+00012.log",
            "72057594037927937.log",
            "18446744073709551615.tab",
        ] {
            assert_eq!(meaning(foreign), NameMeaning::Foreign, "{foreign}");
        }
    }
}
