//! The transform that seals and opens blocks, and the header that every file of a store begins with.
//!
//! The engine hands each block it writes to a [`BlockTransform`] and never learns whether that adds a
//! checksum or encrypts. The context of a block (store, file kind, file number, ordinal, type, codec,
//! length) is bound into its seal, so that a block cannot be moved, not even within its own file.
//!
//! # The file header, 128 bytes
//! ```text
//!   0  magic            8   "VAULT" 0x00 kind 0x1a
//!   8  format version   u16 of this kind of file
//!  10  transform        u16 0: checksum only, 1: encrypted
//!  12  domain           u32 keyspace whose key seals the file; 0: the store's own
//!  16  store id        16   random, the same in every file of a store
//!  32  file number      u64 never reused within a store
//!  40  salt            24   random, new for every file and every time a file's space is reused
//!  64  parameters      60   the transform's own; zero for checksums
//! 124  checksum         u32 CRC-32 of bytes 0..124
//! ```

mod checksum;
mod header;
mod keys;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub use checksum::ChecksumTransform;
pub use header::FileHeader;
pub use keys::{KEYRING_COPY_NAME, KEYRING_NAME, Keys, Plain, Protection, StorePlace};

use crate::error::Result;

/// The id of the transform that encrypts, in a file's header.
pub const ENCRYPTED_ID: u16 = 1;
/// Length of the header that every file begins with, in bytes.
pub const HEADER_BYTES: usize = 128;
/// Bytes of the header that belong to the transform.
pub const PARAMETER_BYTES: usize = 60;
/// Bytes of random salt in each file.
pub const SALT_BYTES: usize = 24;

/// What kind of file a block belongs to. Values are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FileKind {
    /// A segment of the write-ahead log.
    Log = 1,
    /// A sorted table.
    Table = 2,
    /// A manifest.
    Manifest = 3,
    /// The pointer to the current manifest.
    Pointer = 4,
    /// Large values kept apart from their keys.
    Blob = 5,
    /// A snapshot or backup.
    Archive = 6,
    /// The keys of an encrypted store.
    Keyring = 7,
}

impl FileKind {
    /// The kind as a person names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log segment",
            Self::Table => "table",
            Self::Manifest => "manifest",
            Self::Pointer => "manifest pointer",
            Self::Blob => "blob file",
            Self::Archive => "archive",
            Self::Keyring => "keyring",
        }
    }

    /// Whether files of this kind end in checksums over all their bytes. In others, a transform that encrypts puts a
    /// checksum behind each block, so that they can be checked without keys.
    #[must_use]
    pub const fn ends_in_checksums(self) -> bool {
        matches!(self, Self::Table)
    }
}

/// The random bytes of a file, which tell it from every other that ever had its number.
pub type Salt = [u8; SALT_BYTES];

/// Which file of which store a block belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// The store.
    pub store: [u8; 16],
    /// What kind of file.
    pub kind: FileKind,
    /// Its number, never reused within the store.
    pub number: u64,
    /// The keyspace whose key seals it; 0 for the store's own.
    pub domain: u32,
}

/// Which block of its file, and what it claims to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockIdentity {
    /// Its place in the order of blocks (or records) of the file, from 0. Never sealed twice.
    pub ordinal: u64,
    /// What kind of block, as the file's format numbers them.
    pub block_type: u8,
    /// How its content is compressed, as the file's format numbers it.
    pub codec: u8,
}

/// Why a block does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    /// It is not what was sealed: damaged, moved, or sealed under another key.
    Damaged,
    /// The keys were wiped: the store is locked.
    Locked,
}

/// What it proves that a block opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Assurance {
    /// That no accident changed or moved it. Whoever meant to could have.
    Structure,
    /// That it is what somebody who has the key wrote for this place.
    Authenticity,
}

/// Makes the transform of each file. One for a whole store.
pub trait Transform: Send + Sync + fmt::Debug {
    /// The id recorded in each file's header.
    fn id(&self) -> u16;

    /// What it proves that a block opens. A check of a store says so in its report.
    fn assurance(&self) -> Assurance {
        Assurance::Structure
    }

    /// Starts a new file. The header has all its fields but the parameters, which the transform may fill in.
    ///
    /// # Errors
    /// What the transform says ([`Error::Locked`](crate::Error::Locked), for instance).
    fn create(&self, header: &mut FileHeader) -> Result<Arc<dyn BlockTransform>>;

    /// Takes up an existing file for reading.
    ///
    /// # Errors
    /// What the transform says.
    fn open(&self, header: &FileHeader) -> Result<Arc<dyn BlockTransform>>;

    /// The keys behind it, where there are any. What a store holds is then confidential: no key, value or name of
    /// it may stand in a message, an event or a file that is not sealed.
    fn keys(&self) -> Option<&dyn Keys> {
        None
    }
}

/// Seals and opens the blocks of one file.
pub trait BlockTransform: Send + Sync + fmt::Debug {
    /// Bytes that sealing adds, to every block the same.
    fn overhead(&self) -> usize;

    /// Seals `buffer[start..]` in place and appends the [overhead](Self::overhead). Several threads may do so at once,
    /// each block under an ordinal of its own. These ascend: of blocks that are sealed at the same time, the last may
    /// be at most 64 ahead of the first. Only 0 may come at any time.
    ///
    /// # Errors
    /// What the transform says (too many blocks under one key, for instance).
    fn seal(&self, block: &BlockIdentity, buffer: &mut Vec<u8>, start: usize) -> Result<()>;

    /// Opens a sealed block in place and gives its content.
    ///
    /// # Errors
    /// [`Unopened`].
    fn open<'a>(&self, block: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Unopened>;

    /// The epoch of the key that seals the file; 0 where there is none.
    fn epoch(&self) -> u32 {
        0
    }

    /// Sees to it that blocks can be sealed from here on, until keys are wiped.
    ///
    /// # Errors
    /// [`Error::Locked`](crate::Error::Locked).
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Blocks of up to this many bytes are sealed in less time than two processors take to hand work to one another: some
    /// 200 ns. Longer ones are worth sealing while nobody waits for a lock.
    fn quick_bytes(&self) -> usize {
        0
    }

    /// Blocks of a multiple of so many bytes are sealed faster than somewhat shorter ones; 1 to 16.
    fn stride(&self) -> usize {
        1
    }
}
