//! The manifest: which keyspaces, tables and log segments make up the store. Bytes:
//! `docs/format/manifest.md`.
//!
//! [`edit`] lays edits out, [`state`] is what they add up to, [`pointer`] names the current file, and
//! [`Manifest`] appends to it.
//!
//! # Invariants
//! - An edit is durable before anything relies on it, and nothing is removed from disk before the edit
//!   that lets go of it is durable.
//! - A manifest that was opened for reading is never appended to: each opening writes a new one.
//! - A record that could not be written whole is never followed by another in the same file.

mod edit;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
pub(crate) mod inspect;
mod options;
mod pointer;
mod state;

use std::sync::Arc;

use vault_core::transform::{BlockTransform, FileKind, HEADER_BYTES, Keys, Salt};
use vault_core::vfs::{File, read_whole};
use vault_core::{Error, Result};

pub(crate) use edit::Edit;
pub(crate) use pointer::{POINTER_VERSION, Pointer};
pub(crate) use state::{Instance, KeyspaceState, State, TablePlace};

use crate::frame::{self, FRAME_BYTES, Next, Records, record_identity};
use crate::layout::{Env, NewFile};
use crate::log::rewrite;
use crate::store::{outcome_unknown, sync_failed, write_failed};

/// Version of the manifest's format.
pub(crate) const MANIFEST_VERSION: u16 = 1;
/// A manifest that has grown beyond its bound is replaced when it is also so many times longer than it
/// began: a store with many tables would write it anew all the time.
const REPLACE_GROWTH_MIN: u64 = 4;

/// The current manifest of a store that is open for writing.
pub(crate) struct Manifest {
    state: State,
    file: OpenManifest,
    generation: u64,
    /// The epoch of the pointer's key, or one before it; 0 where there is none.
    pointer_epoch: u32,
    /// Length beyond which the file is replaced.
    bytes_max: u64,
    /// Whether the file's tail is unknown after a failed write: the next commit starts a new file.
    tail_unknown: bool,
    bytes_written: u64,
}

struct OpenManifest {
    number: u64,
    salt: Salt,
    file: Arc<dyn File>,
    path: std::path::PathBuf,
    blocks: Arc<dyn BlockTransform>,
    header_checksum: u32,
    ordinal: u32,
    chain: u32,
    offset: u64,
    first_bytes: u64,
}

impl Manifest {
    /// Starts the manifest of this opening: writes a file that states everything, and points to it.
    /// Files that are no longer named are removed by the caller.
    /// It is replaced once it has outgrown `bytes_max`.
    ///
    /// # Errors
    /// [`Error::Poisoned`]: the pointer may name the new file or the old one. After any other error it names
    /// the old one.
    pub(crate) fn begin(
        env: &Env,
        mut state: State,
        generation: u64,
        bytes_max: u64,
    ) -> Result<Self> {
        let file = OpenManifest::create(env, &mut state)?;
        let mut manifest = Self {
            bytes_written: file.offset,
            state,
            file,
            generation,
            pointer_epoch: 0,
            bytes_max,
            tail_unknown: false,
        };
        manifest.point(env, (0, 0))?;
        Ok(manifest)
    }

    /// What all edits so far add up to.
    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    /// The generation of the pointer, one more with every replacement.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// The older of the epochs that the manifest and its pointer are sealed in; 0 where there are no keys.
    pub(crate) fn oldest_epoch(&self) -> u32 {
        self.file.blocks.epoch().min(self.pointer_epoch)
    }

    /// Number of the current file.
    pub(crate) const fn number(&self) -> u64 {
        self.file.number
    }

    /// Bytes of the current file.
    pub(crate) const fn len(&self) -> u64 {
        self.file.offset
    }

    /// Bytes written to manifests since opening.
    pub(crate) const fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Takes a file number that was never used and never will be again.
    ///
    /// Numbers are not recorded one by one: every number in use stands in some edit, and what was given
    /// out without an edit left either no file or one that the next opening sees and removes.
    pub(crate) fn next_file_number(&mut self) -> u64 {
        let number = self.state.next_file;
        self.state.next_file += 1;
        number
    }

    /// Makes edits durable, together or not at all, and applies them.
    ///
    /// # Errors
    /// [`Error::Poisoned`]: the edits may or may not come back with the next opening, so the store must
    /// not be written any more, and nothing that they name may be removed. After any other error
    /// nothing changed, and it may be tried again.
    pub(crate) fn commit(&mut self, env: &Env, edits: &[Edit]) -> Result<()> {
        let mut state = self.state.clone();
        for edit in edits {
            state
                .apply(edit)
                .map_err(|problem| Error::corruption(&self.file.path, self.file.offset, problem))
                .map_err(outcome_unknown)?;
        }
        let bound = self
            .bytes_max
            .max(REPLACE_GROWTH_MIN * self.file.first_bytes);
        let outgrown = self.file.offset > bound;
        if self.tail_unknown || outgrown {
            return self.replace(env, state);
        }
        let mut payload = Vec::new();
        edits.iter().for_each(|edit| edit.encode(&mut payload));
        let before = self.file.offset;
        if let Err(error) = self.file.append(&payload) {
            self.tail_unknown = true;
            return Err(write_failed(error));
        }
        // Whatever the reason, even a full disk: the record is written, and may become durable yet.
        self.file.sync().map_err(outcome_unknown)?;
        self.bytes_written += self.file.offset - before;
        self.state = state;
        Ok(())
    }

    /// States everything in a new file, points to it and removes the old one, with all that stood in it before.
    ///
    /// # Errors
    /// As [`Manifest::commit`].
    pub(crate) fn restate(&mut self, env: &Env) -> Result<()> {
        self.replace(env, self.state.clone())
    }

    /// States everything in a new file, points to it and removes the old one.
    fn replace(&mut self, env: &Env, mut state: State) -> Result<()> {
        // Numbers may have been taken meanwhile.
        state.next_file = state.next_file.max(self.state.next_file);
        let created = OpenManifest::create(env, &mut state);
        // Where it failed, a file with this number may be left that could not be removed.
        self.state.next_file = state.next_file;
        let new = created?;
        let old = std::mem::replace(&mut self.file, new);
        let old_state = std::mem::replace(&mut self.state, state);
        if let Err(error) = self.point(env, (0, 0)) {
            if matches!(error, Error::Poisoned { .. }) {
                // The pointer may name either file: both stay.
                return Err(error);
            }
            let failed = std::mem::replace(&mut self.file, old);
            let next_file = self.state.next_file;
            self.state = State {
                next_file,
                ..old_state
            };
            // Where the pointer may name it already, it has to stay.
            if !matches!(error, Error::Poisoned { .. }) {
                let _ = env.fs.remove(&failed.path);
            }
            return Err(error);
        }
        self.tail_unknown = false;
        self.bytes_written += self.file.offset;
        // The pointer is durable: the old file is nobody's any more. Should removal fail, the next
        // opening does it.
        let _ = env.fs.remove(&old.path);
        Ok(())
    }

    /// Notes in the pointer that the store was closed cleanly, with the log's end.
    pub(crate) fn close(&mut self, env: &Env, log_end: (u64, u64)) -> Result<()> {
        // Nothing more will be written here.
        self.point(env, log_end).map_err(cause)
    }

    /// Writes the pointer again, with what has changed beside the manifest.
    ///
    /// # Errors
    /// [`Error::Poisoned`]: nobody knows whether it was replaced.
    pub(crate) fn renew_pointer(&mut self, env: &Env) -> Result<()> {
        self.point(env, (0, 0))
    }

    fn point(&mut self, env: &Env, log_end: (u64, u64)) -> Result<()> {
        let pointer = Pointer {
            manifest: self.file.number,
            manifest_salt: self.file.salt,
            keyring_version: env.transform.keys().map_or(0, Keys::version),
            generation: self.generation + 1,
            manifest_bytes: self.file.offset,
            log_end,
        };
        let number = self.next_file_number();
        // Asked first: should an epoch begin meanwhile, this is none too new.
        let epoch = env.transform.keys().map_or(0, Keys::epoch);
        pointer.write(env, number)?;
        self.pointer_epoch = epoch;
        self.generation += 1;
        Ok(())
    }
}

impl OpenManifest {
    /// Creates a durable manifest that states everything.
    fn create(env: &Env, state: &mut State) -> Result<Self> {
        let number = state.next_file;
        state.next_file += 1;
        let NewFile {
            path,
            file,
            blocks,
            salt,
            header_checksum,
        } = env.create_file(FileKind::Manifest, number, MANIFEST_VERSION)?;
        let mut manifest = Self {
            number,
            salt,
            file,
            path,
            blocks,
            header_checksum,
            ordinal: 0,
            chain: header_checksum,
            offset: HEADER_BYTES as u64,
            first_bytes: 0,
        };
        let mut payload = Vec::new();
        // The pointer to this manifest takes a number too.
        state
            .statement()
            .iter()
            .for_each(|edit| edit.encode(&mut payload));
        let made = manifest.append(&payload).and_then(|()| manifest.sync());
        let made = made.and_then(|()| env.sync_directory().map_err(sync_failed));
        if let Err(error) = made {
            let _ = env.fs.remove(&manifest.path);
            return Err(error);
        }
        manifest.first_bytes = manifest.offset;
        Ok(manifest)
    }

    fn append(&mut self, edits: &[u8]) -> Result<()> {
        let mut record = vec![0; FRAME_BYTES];
        record.extend_from_slice(&self.chain.to_le_bytes());
        record.extend_from_slice(edits);
        self.blocks
            .seal(&record_identity(self.ordinal), &mut record, FRAME_BYTES)?;
        let sealed = &record[FRAME_BYTES..];
        let sealed_checksum = crc32fast::hash(sealed);
        let sealed_len = u32::try_from(sealed.len()).map_err(|_| {
            Error::corruption(
                &self.path,
                self.offset,
                "more edits at once than a record can hold",
            )
        })?;
        let frame = frame::encode(self.header_checksum, self.ordinal, sealed_len);
        record[..FRAME_BYTES].copy_from_slice(&frame);
        self.file
            .write_at(&record, self.offset)
            .map_err(|e| Error::io("write", &self.path, e))?;
        self.ordinal += 1;
        self.chain = sealed_checksum;
        self.offset += record.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.file
            .sync()
            .map_err(|e| sync_failed(Error::io("sync", &self.path, e)))
    }
}

/// What lies behind an error that makes a store read-only, for where there is none that could become so.
pub(crate) fn cause(error: Error) -> Error {
    match error {
        Error::Poisoned { cause } => Error::clone(&cause),
        error => error,
    }
}

/// Reads the manifest that the pointer names.
///
/// With `live`, a writer may be appending meanwhile: the state ends at the last whole record.
///
/// # Errors
/// [`Error::Corruption`], [`Error::NewerFormat`], [`Error::Io`].
pub(crate) fn read(env: &Env, pointer: &Pointer, live: bool) -> Result<State> {
    let opened = env
        .open_file(FileKind::Manifest, pointer.manifest, MANIFEST_VERSION)
        .map_err(|error| match error {
            Error::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Error::corruption(&path, 0, "this manifest is the current one and is missing")
            }
            other => other,
        })?;
    opened.check_salt(&pointer.manifest_salt)?;
    let NewFile {
        path,
        file,
        blocks,
        header_checksum,
        ..
    } = opened;
    let mut bytes = read_whole(&*file).map_err(|e| Error::io("read", &path, e))?;
    let mut records = Records::new(&mut bytes, header_checksum, &*blocks);
    let mut state = State::default();
    let mut chain = header_checksum;
    loop {
        let offset = records.offset() as u64;
        match records.next() {
            Next::Record {
                payload,
                sealed_checksum,
                ..
            } => {
                let damaged = |problem| Error::corruption(&path, offset, problem);
                apply_record(&mut state, payload, chain).map_err(damaged)?;
                chain = sealed_checksum;
            }
            Next::End if offset >= pointer.manifest_bytes => break,
            Next::End => return Err(cut_short(&path, offset, pointer)),
            Next::Broken => {
                let torn = offset >= pointer.manifest_bytes
                    && (live || records.find_behind(|_| true).is_none());
                if torn {
                    break;
                }
                return Err(cut_short(&path, offset, pointer));
            }
        }
    }
    // The manifest's own number, and that of the pointer to it, stand in no edit.
    let number = state.use_number(pointer.manifest);
    number.map_err(|problem| Error::corruption(&path, 0, problem))?;
    Ok(state)
}

/// Makes what was read from the manifest durable, before anything is removed that it has let go of: edits
/// behind what the pointer says was durable may be in the page cache only, and a loss of power would bring
/// back a manifest that needs the files. As with the log, a sync alone does not do it
/// ([`crate::log::rewrite`]).
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn secure(env: &Env, pointer: &Pointer) -> Result<()> {
    let path = env.path(FileKind::Manifest, pointer.manifest);
    let file = env
        .fs
        .open_for_write(&path)
        .map_err(|e| Error::io("open", &path, e))?;
    let len = file.len().map_err(|e| Error::io("measure", &path, e))?;
    if len <= pointer.manifest_bytes {
        return Ok(());
    }
    rewrite(&*file, &path, pointer.manifest_bytes..len)?;
    file.sync().map_err(|e| Error::io("sync", &path, e))
}

fn cut_short(path: &std::path::Path, offset: u64, pointer: &Pointer) -> Error {
    let durable = pointer.manifest_bytes;
    let problem = format!("a record does not open; the manifest was durable up to byte {durable}");
    Error::corruption(path, offset, problem)
}

fn apply_record(state: &mut State, payload: &[u8], chain: u32) -> Result<(), String> {
    let mut decoder = vault_core::codec::Decoder::new(payload);
    let stored = decoder.u32().ok_or("a record without its chain")?;
    if stored != chain {
        return Err(format!(
            "the record follows {stored:08x}, but {chain:08x} stands before it"
        ));
    }
    while !decoder.is_empty() {
        let edit = Edit::decode(&mut decoder).ok_or("an edit that makes no sense")?;
        state.apply(&edit)?;
    }
    Ok(())
}
