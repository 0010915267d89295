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
//!  10  transform        u16 0: checksum only
//!  12  domain           u32 keyspace whose key seals the file; 0: the store's own
//!  16  store id        16   random, the same in every file of a store
//!  32  file number      u64 never reused within a store
//!  40  salt            24   random, new for every file and every time a file's space is reused
//!  64  parameters      60   the transform's own; zero for checksums
//! 124  checksum         u32 CRC-32 of bytes 0..124
//! ```

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::codec::Decoder;
use crate::error::{Error, Result};
use crate::random::Random;

/// Length of the header that every file begins with, in bytes.
pub const HEADER_BYTES: usize = 128;
/// Bytes of the header that belong to the transform.
pub const PARAMETER_BYTES: usize = 60;
/// Bytes of random salt in each file.
pub const SALT_BYTES: usize = 24;
/// Offset of the header's own checksum.
const CHECKSUM_OFFSET: usize = HEADER_BYTES - 4;

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
        }
    }
}

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

/// A block that is not what was sealed: damaged, moved, or sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged;

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

    /// Starts a new file under a fresh salt; may fill in the header's parameters.
    ///
    /// # Errors
    /// What the transform says (a locked keyring, for instance).
    fn create(
        &self,
        file: &FileIdentity,
        salt: &[u8; SALT_BYTES],
        parameters: &mut [u8; PARAMETER_BYTES],
    ) -> Result<Arc<dyn BlockTransform>>;

    /// Takes up an existing file for reading.
    ///
    /// # Errors
    /// What the transform says.
    fn open(
        &self,
        file: &FileIdentity,
        salt: &[u8; SALT_BYTES],
        parameters: &[u8; PARAMETER_BYTES],
    ) -> Result<Arc<dyn BlockTransform>>;
}

/// Seals and opens the blocks of one file.
pub trait BlockTransform: Send + Sync + fmt::Debug {
    /// Bytes that sealing adds.
    fn overhead(&self) -> usize;

    /// Seals `buffer[start..]` in place and appends the [overhead](Self::overhead).
    ///
    /// # Errors
    /// What the transform says (too many blocks under one key, for instance).
    fn seal(&self, block: &BlockIdentity, buffer: &mut Vec<u8>, start: usize) -> Result<()>;

    /// Opens a sealed block in place and gives its content.
    ///
    /// # Errors
    /// [`Damaged`] where it is not what was sealed for this place.
    fn open<'a>(&self, block: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Damaged>;
}

/// The transform of plain stores: a CRC-32 behind each block, seeded with the block's context.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChecksumTransform;

impl ChecksumTransform {
    /// The id of this transform in a file's header.
    pub const ID: u16 = 0;
}

impl Transform for ChecksumTransform {
    fn id(&self) -> u16 {
        Self::ID
    }

    fn create(
        &self,
        file: &FileIdentity,
        salt: &[u8; SALT_BYTES],
        _parameters: &mut [u8; PARAMETER_BYTES],
    ) -> Result<Arc<dyn BlockTransform>> {
        Ok(Arc::new(Checksum::new(file, salt)))
    }

    fn open(
        &self,
        file: &FileIdentity,
        salt: &[u8; SALT_BYTES],
        _parameters: &[u8; PARAMETER_BYTES],
    ) -> Result<Arc<dyn BlockTransform>> {
        Ok(Arc::new(Checksum::new(file, salt)))
    }
}

/// Checksums of one file.
#[derive(Debug)]
struct Checksum {
    seed: u32,
}

const CHECKSUM_BYTES: usize = 4;

impl Checksum {
    fn new(file: &FileIdentity, salt: &[u8; SALT_BYTES]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&file.store);
        hasher.update(&[file.kind as u8]);
        hasher.update(&file.number.to_le_bytes());
        hasher.update(&file.domain.to_le_bytes());
        hasher.update(salt);
        Self {
            seed: hasher.finalize(),
        }
    }

    fn of(&self, block: &BlockIdentity, content: &[u8]) -> u32 {
        let mut context = [0; 18];
        context[..8].copy_from_slice(&block.ordinal.to_le_bytes());
        context[8] = block.block_type;
        context[9] = block.codec;
        context[10..].copy_from_slice(&(content.len() as u64).to_le_bytes());
        let mut hasher = crc32fast::Hasher::new_with_initial(self.seed);
        hasher.update(&context);
        hasher.update(content);
        hasher.finalize()
    }
}

impl BlockTransform for Checksum {
    fn overhead(&self) -> usize {
        CHECKSUM_BYTES
    }

    fn seal(&self, block: &BlockIdentity, buffer: &mut Vec<u8>, start: usize) -> Result<()> {
        let checksum = self.of(block, &buffer[start..]);
        buffer.extend_from_slice(&checksum.to_le_bytes());
        Ok(())
    }

    fn open<'a>(&self, block: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Damaged> {
        let (content, stored) = sealed.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Damaged)?;
        if self.of(block, content) != u32::from_le_bytes(*stored) {
            return Err(Damaged);
        }
        Ok(content)
    }
}

/// The header that every file of a store begins with. See the [module](self) for its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHeader {
    /// Which file this is.
    pub identity: FileIdentity,
    /// Version of this kind's format.
    pub version: u16,
    /// Which transform sealed the file.
    pub transform: u16,
    /// Random bytes of this file.
    pub salt: [u8; SALT_BYTES],
    /// The transform's own bytes.
    pub parameters: [u8; PARAMETER_BYTES],
}

impl FileHeader {
    /// Starts a new file: draws a salt and makes its transform.
    ///
    /// # Errors
    /// What the random source or the transform says.
    pub fn create(
        identity: FileIdentity,
        version: u16,
        transform: &dyn Transform,
        random: &dyn Random,
    ) -> Result<(Self, Arc<dyn BlockTransform>)> {
        let mut salt = [0; SALT_BYTES];
        random.fill(&mut salt)?;
        let mut parameters = [0; PARAMETER_BYTES];
        let blocks = transform.create(&identity, &salt, &mut parameters)?;
        let header = Self {
            identity,
            version,
            transform: transform.id(),
            salt,
            parameters,
        };
        Ok((header, blocks))
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut rest = &mut out[..];
        let mut put = |bytes: &[u8]| {
            let (field, behind) = std::mem::take(&mut rest).split_at_mut(bytes.len());
            field.copy_from_slice(bytes);
            rest = behind;
        };
        put(&magic(self.identity.kind));
        put(&self.version.to_le_bytes());
        put(&self.transform.to_le_bytes());
        put(&self.identity.domain.to_le_bytes());
        put(&self.identity.store);
        put(&self.identity.number.to_le_bytes());
        put(&self.salt);
        put(&self.parameters);
        let checksum = crc32fast::hash(&out[..CHECKSUM_OFFSET]);
        out[CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads a header and checks that it is of the expected kind and of a version this build reads.
    ///
    /// # Errors
    /// [`Error::Corruption`], [`Error::NewerFormat`].
    pub fn decode(path: &Path, bytes: &[u8], kind: FileKind, version_max: u16) -> Result<Self> {
        let damaged = |offset: u64, problem: String| Err(Error::corruption(path, offset, problem));
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            let found = bytes.len();
            return damaged(
                found as u64,
                format!("header of {HEADER_BYTES} bytes expected, file ends after {found}"),
            );
        };
        if bytes[..8] != magic(kind) {
            return damaged(0, format!("this is not a {} of Vault", kind.name()));
        }
        let stored = u32::from_le_bytes([bytes[124], bytes[125], bytes[126], bytes[127]]);
        let found = crc32fast::hash(&bytes[..CHECKSUM_OFFSET]);
        if stored != found {
            return damaged(
                CHECKSUM_OFFSET as u64,
                format!("header checksum {stored:08x} stored, {found:08x} computed"),
            );
        }
        let mut decoder = Decoder::new(&bytes[8..]);
        let header = (|| {
            let version = decoder.u16()?;
            let transform = decoder.u16()?;
            let domain = decoder.u32()?;
            let store = decoder.array()?;
            let number = decoder.u64()?;
            let salt = decoder.array()?;
            let parameters = decoder.array()?;
            let identity = FileIdentity {
                store,
                kind,
                number,
                domain,
            };
            Some(Self {
                identity,
                version,
                transform,
                salt,
                parameters,
            })
        })();
        let Some(header) = header else {
            return damaged(0, "the header is shorter than its fields".to_owned());
        };
        if header.version == 0 || header.version > version_max {
            return Err(Error::NewerFormat {
                path: path.to_path_buf(),
                found: u32::from(header.version),
                supported: u32::from(version_max),
            });
        }
        Ok(header)
    }

    /// Makes the transform that opens this file's blocks.
    ///
    /// # Errors
    /// [`Error::OptionsConflict`] where the file was sealed by another kind of transform; else what
    /// the transform says.
    pub fn open(&self, path: &Path, transform: &dyn Transform) -> Result<Arc<dyn BlockTransform>> {
        if self.transform != transform.id() {
            return Err(Error::OptionsConflict {
                subject: path.display().to_string(),
                option: "transform",
                stored: describe_transform(self.transform),
                requested: describe_transform(transform.id()),
            });
        }
        transform.open(&self.identity, &self.salt, &self.parameters)
    }
}

fn describe_transform(id: u16) -> String {
    match id {
        ChecksumTransform::ID => "plain (checksums only)".to_owned(),
        other => format!("encrypted (transform {other})"),
    }
}

/// The first eight bytes of a file of this kind. The last one stops a text viewer; a damaged line end
/// conversion shows in the zero byte.
const fn magic(kind: FileKind) -> [u8; 8] {
    [b'V', b'A', b'U', b'L', b'T', 0, kind as u8, 0x1a]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    fn identity() -> FileIdentity {
        FileIdentity {
            store: [7; 16],
            kind: FileKind::Table,
            number: 42,
            domain: 3,
        }
    }

    #[test]
    fn headers_round_trip_and_any_flipped_byte_is_noticed() {
        let path = Path::new("000042.tab");
        let (header, _) =
            FileHeader::create(identity(), 1, &ChecksumTransform, &SeededRandom::new(1)).unwrap();
        let bytes = header.encode();
        assert_eq!(
            FileHeader::decode(path, &bytes, FileKind::Table, 1).unwrap(),
            header
        );
        for i in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[i] ^= 0x40;
            assert!(
                FileHeader::decode(path, &damaged, FileKind::Table, 1).is_err(),
                "byte {i}"
            );
        }
        assert!(FileHeader::decode(path, &bytes[..127], FileKind::Table, 1).is_err());
        assert!(FileHeader::decode(path, &bytes, FileKind::Log, 1).is_err());
    }

    #[test]
    fn a_newer_version_is_named() {
        let path = Path::new("000042.tab");
        let (header, _) =
            FileHeader::create(identity(), 9, &ChecksumTransform, &SeededRandom::new(1)).unwrap();
        let error = FileHeader::decode(path, &header.encode(), FileKind::Table, 1).unwrap_err();
        assert!(matches!(
            error,
            Error::NewerFormat {
                found: 9,
                supported: 1,
                ..
            }
        ));
    }

    #[test]
    fn a_block_opens_only_in_its_place() {
        let salt = [1; SALT_BYTES];
        let mut parameters = [0; PARAMETER_BYTES];
        let blocks = ChecksumTransform
            .create(&identity(), &salt, &mut parameters)
            .unwrap();
        let here = BlockIdentity {
            ordinal: 5,
            block_type: 1,
            codec: 0,
        };
        let mut sealed = b"..content".to_vec();
        blocks.seal(&here, &mut sealed, 2).unwrap();
        let sealed = &mut sealed[2..];
        assert_eq!(blocks.open(&here, sealed), Ok(&b"content"[..]));
        for elsewhere in [
            BlockIdentity { ordinal: 6, ..here },
            BlockIdentity {
                block_type: 2,
                ..here
            },
            BlockIdentity { codec: 1, ..here },
        ] {
            assert_eq!(blocks.open(&elsewhere, sealed), Err(Damaged));
        }
        let other = FileIdentity {
            number: 43,
            ..identity()
        };
        let other = ChecksumTransform.open(&other, &salt, &parameters).unwrap();
        assert_eq!(other.open(&here, sealed), Err(Damaged));
        sealed[0] ^= 1;
        assert_eq!(blocks.open(&here, sealed), Err(Damaged));
        assert_eq!(blocks.open(&here, &mut []), Err(Damaged));
    }
}
