//! The header that every file of a store begins with.

use std::path::Path;
use std::sync::Arc;

use super::{
    BlockTransform, ChecksumTransform, ENCRYPTED_ID, FileIdentity, FileKind, HEADER_BYTES,
    PARAMETER_BYTES, SALT_BYTES, Transform,
};
use crate::codec::Decoder;
use crate::error::{Error, Result};
use crate::random::Random;

/// Offset of the header's own checksum.
const CHECKSUM_OFFSET: usize = HEADER_BYTES - 4;

/// The header that every file of a store begins with. See the [module](crate::transform) for its bytes.
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
        let mut header = Self {
            identity,
            version,
            transform: transform.id(),
            salt,
            parameters: [0; PARAMETER_BYTES],
        };
        let blocks = transform.create(&mut header)?;
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
    /// [`Error::Encrypted`] or [`Error::NotEncrypted`] where the file was sealed by another kind of
    /// transform; else what the transform says.
    pub fn open(&self, path: &Path, transform: &dyn Transform) -> Result<Arc<dyn BlockTransform>> {
        let path = || path.to_path_buf();
        match (self.transform, transform.id()) {
            (found, wanted) if found == wanted => transform.open(self),
            (ChecksumTransform::ID, _) => Err(Error::NotEncrypted { path: path() }),
            (ENCRYPTED_ID, ChecksumTransform::ID) => Err(Error::Encrypted { path: path() }),
            (found, wanted) => Err(Error::NewerFormat {
                path: path(),
                found: u32::from(found),
                supported: u32::from(wanted),
            }),
        }
    }
}

/// The first eight bytes of a file of this kind. The last one stops a text viewer; a damaged line end
/// conversion shows in the zero byte.
const fn magic(kind: FileKind) -> [u8; 8] {
    [b'V', b'A', b'U', b'L', b'T', 0, kind as u8, 0x1a]
}
