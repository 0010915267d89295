//! What fuzz targets reach of the manifest. See [`crate::fuzzing`].

use std::fmt;

use vault_core::codec::Decoder;
use vault_core::transform::FileKind;
use vault_core::vfs::{FileSystem, MemoryFileSystem, read_whole};
use vault_core::{KeyspaceOptions, Result};

use super::{Edit, Pointer, State, options};
use crate::fuzzing::{Chained, Seals, memory_env, put_file, stated_identity, stated_salt};
use crate::layout::{Env, POINTER_NAME};

/// An edit, decoded.
pub struct ManifestEdit(Edit);

/// Decodes the edit at the front; also gives how many bytes it took.
#[must_use]
pub fn manifest_edit(bytes: &[u8]) -> Option<(ManifestEdit, usize)> {
    let mut decoder = Decoder::new(bytes);
    let edit = Edit::decode(&mut decoder)?;
    Some((ManifestEdit(edit), bytes.len() - decoder.rest().len()))
}

impl ManifestEdit {
    /// The bytes that the writer would have laid out for it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.encode(&mut out);
        out
    }

    /// Applies edits to a store that has nothing yet; gives how many were accepted.
    #[must_use]
    pub fn apply_all(edits: &[Self]) -> usize {
        let mut state = State::default();
        edits
            .iter()
            .take_while(|edit| state.apply(&edit.0).is_ok())
            .count()
    }
}

impl fmt::Debug for ManifestEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Decodes the options of a keyspace.
#[must_use]
pub fn decode_options(bytes: &[u8]) -> Option<KeyspaceOptions> {
    options::decode(bytes)
}

/// Encodes the options of a keyspace.
#[must_use]
pub fn encode_options(keyspace_options: &KeyspaceOptions) -> Vec<u8> {
    options::encode(keyspace_options)
}

/// A manifest that is ready for reading.
pub struct ManifestFile {
    env: Env,
    pointer: Pointer,
}

/// What a manifest adds up to.
#[derive(Debug)]
pub struct ManifestRead(State);

impl ManifestFile {
    /// Makes a manifest ready. `durable` is the length that the pointer vouches for.
    #[must_use]
    pub fn new(bytes: &[u8], durable: u64, seals: Seals) -> Self {
        let (store, number) = stated_identity(bytes);
        let (env, fs) = memory_env(store, seals);
        let bytes = seals.prepare(bytes, Some(Chained::Yes));
        put_file(&fs, env.path(FileKind::Manifest, number), &bytes);
        let pointer = Pointer {
            manifest: number,
            manifest_salt: stated_salt(&bytes),
            keyring_version: 0,
            generation: 1,
            manifest_bytes: durable,
            log_end: (0, 0),
        };
        Self { env, pointer }
    }

    /// Reads it as opening a store does, for reading beside a writer if `live`.
    ///
    /// # Errors
    /// What the reader says.
    pub fn read(&self, live: bool) -> Result<ManifestRead> {
        super::read(&self.env, &self.pointer, live).map(ManifestRead)
    }
}

impl ManifestRead {
    /// The edits that a new manifest would begin with, encoded.
    #[must_use]
    pub fn statement(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.statement().iter().for_each(|e| e.encode(&mut out));
        out
    }

    /// What such edits add up to; `None` where they make no sense.
    #[must_use]
    pub fn of_statement(bytes: &[u8]) -> Option<Self> {
        let mut state = State::default();
        let mut decoder = Decoder::new(bytes);
        while !decoder.is_empty() {
            state.apply(&Edit::decode(&mut decoder)?).ok()?;
        }
        Some(Self(state))
    }
}

/// A pointer that is ready for reading.
pub struct PointerFile {
    fs: MemoryFileSystem,
    env: Env,
}

/// What a pointer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointerRead {
    pointer: Pointer,
    /// The store's id.
    pub store: [u8; 16],
}

impl PointerFile {
    /// Makes a pointer ready.
    #[must_use]
    pub fn new(bytes: &[u8], seals: Seals) -> Self {
        let (store, _) = stated_identity(bytes);
        let (env, fs) = memory_env(store, seals);
        put_file(
            &fs,
            env.directory.join(POINTER_NAME),
            &seals.prepare(bytes, None),
        );
        Self { fs, env }
    }

    /// Reads it as opening a store does.
    ///
    /// # Errors
    /// What the reader says.
    pub fn read(&self) -> Result<Option<PointerRead>> {
        let directory = &self.env.directory;
        let store = Pointer::store(&self.fs, directory)?;
        let pointer = Pointer::read(&self.fs, directory, &*self.env.transform)?;
        let read = store.zip(pointer);
        Ok(read.map(|(store, pointer)| PointerRead { pointer, store }))
    }

    /// Writes a pointer anew; gives the bytes of the file.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(&self, read: &PointerRead) -> Result<Vec<u8>> {
        read.pointer.write(&self.env, 1)?;
        let path = self.env.directory.join(POINTER_NAME);
        let file = self
            .fs
            .open(&path)
            .map_err(|e| vault_core::Error::io("open", &path, e))?;
        read_whole(&*file).map_err(|e| vault_core::Error::io("read", &path, e))
    }
}
