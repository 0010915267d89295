//! Captures: what a physical snapshot stores of one moment, held for as long as it takes to copy it.
//!
//! Stock is taken of one moment ([`crate::stock`]). Tables and blob files are lent as they lie in the store's directory, the
//! copy's own keyring, manifest and pointer as they were made in memory. Nobody needs a key to read any of it: the bytes are
//! those on disk.

use std::fmt;
use std::io;
use std::sync::Arc;

use vault_core::transform::{FileKind, Salt};
use vault_core::vfs::{File, WriteMap};
use vault_core::{Result, SequenceNumber};

use crate::layout::file_name;
use crate::stock;
use crate::store::Store;

/// What a physical snapshot of a store holds: its files as they are at one moment. [`Lsm::capture`](crate::Lsm::capture)
/// has an example.
///
/// Written into an empty directory under their names, all `files` together are a store that opens with exactly the writes up
/// to `sequence`. The pointer comes last: without it the others are no store.
///
/// # What becomes of the files meanwhile
/// Tables and blob files are the store's own. For as long as a [`CapturedFile::content`] exists, or a clone of it, its file is
/// neither changed nor removed, whatever compactions put in its place; its space is given back afterwards. When the
/// store is closed meanwhile the bytes stay readable all the same; the next opening may take away the name.
#[derive(Debug, Clone)]
pub struct Capture {
    /// The last write that the files hold.
    pub sequence: SequenceNumber,
    /// The store's id, in the header of each of its files.
    pub store: [u8; 16],
    /// [The instance](crate::Lsm::instance) that was captured. A store that is made of the files becomes another when it is first
    /// opened for writing.
    pub instance: Option<[u8; 16]>,
    /// [The generation](crate::Lsm::generation) of the store when it was captured. The pointer among the files tells it too, and
    /// a store that is made of them goes on from there.
    pub generation: u64,
    /// The files. The last one is the pointer to the others.
    pub files: Vec<CapturedFile>,
}

impl Capture {
    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A file of a [`Capture`].
#[derive(Debug, Clone)]
pub struct CapturedFile {
    /// Its name in the directory of a store.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The random bytes in its header, which tell it from every other file that ever had its name, in this store or in a copy.
    /// `None` is kept for files without such a header; there are none now.
    pub salt: Option<Salt>,
    /// Whether a file with this name, length and salt is the same in every capture that has it, so that it needs to be
    /// stored once only. Other files belong to this capture alone.
    pub immutable: bool,
    /// Its bytes, for reading only.
    pub content: Arc<dyn File>,
}

/// Captures the store.
pub(crate) fn capture(store: &Arc<Store>) -> Result<Capture> {
    store.check_writable()?;
    let stock = stock::take(store)?;
    let lent = |kind, number, bytes, salt, file, keeps| CapturedFile {
        name: file_name(kind, number),
        bytes,
        salt: Some(salt),
        immutable: true,
        content: Arc::new(Lent { file, keeps }),
    };
    let tables = stock.tables.iter().map(|table| {
        let (meta, (file, keeps)) = (table.meta(), table.pin());
        lent(
            FileKind::Table,
            meta.number,
            meta.bytes,
            meta.salt,
            file,
            keeps,
        )
    });
    let blobs = stock.blobs.iter().map(|blob| {
        let (meta, file) = (blob.meta(), blob.file());
        let keeps: Arc<dyn Send + Sync> = Arc::<crate::blob::BlobFile>::clone(blob);
        lent(
            FileKind::Blob,
            meta.number,
            meta.bytes,
            meta.salt,
            file,
            keeps,
        )
    });
    let mut files: Vec<_> = tables.chain(blobs).collect();
    files.extend(stock.made.into_iter().map(|made| CapturedFile {
        name: made.name,
        bytes: made.bytes,
        salt: Some(made.salt),
        immutable: false,
        content: made.content,
    }));
    Ok(Capture {
        sequence: stock.sequence,
        store: store.env.store,
        instance: stock.instance,
        generation: stock.generation,
        files,
    })
}

/// A file of the store, lent for reading.
struct Lent {
    file: Arc<dyn File>,
    #[expect(dead_code, reason = "it keeps the file in its place by being there")]
    keeps: Arc<dyn Send + Sync>,
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&self.file).finish()
    }
}

fn for_reading_only<T>() -> io::Result<T> {
    let problem = "a captured file is for reading only";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

impl File for Lent {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        for_reading_only()
    }

    fn sync(&self) -> io::Result<()> {
        for_reading_only()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        for_reading_only()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        for_reading_only()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn map(&self, _: usize) -> io::Result<Box<dyn WriteMap>> {
        for_reading_only()
    }
}
