//! The bytes of a keyring file, as `docs/format/keyring.md` has them: taking them apart and putting them together. Nothing is
//! decrypted here; what a key is needed for is in [`envelope`](super::envelope).

use std::ops::Range;
use std::path::Path;

use vault_core::codec::Decoder;
use vault_core::transform::{ENCRYPTED_ID, FileHeader, FileIdentity, FileKind, HEADER_BYTES};
use vault_core::{Error, Result};

use super::keys::{ENTRY_BYTES, KEYS_MAX};
use crate::cipher::{Algorithm, TAG_BYTES};
use crate::kdf::{Kdf, KdfBounds, SALT_BYTES};
use crate::secret::KEY_BYTES;
use crate::transform::parameters::{PARAMETERS_OFFSET, ParameterProblem, Parameters};

/// The version of the format that is written.
pub(crate) const KEYRING_VERSION: u16 = 1;
/// Longest that a key service may make of a key, in bytes.
pub(crate) const SERVICE_BYTES_MAX: usize = 16 << 10;
/// Bytes of the sealed root key.
pub(crate) const WRAPPED_BYTES: usize = KEY_BYTES + TAG_BYTES;
/// Longest keyring file, in bytes.
pub(crate) const FILE_BYTES_MAX: usize = 332 + SERVICE_BYTES_MAX + KEYS_MAX * ENTRY_BYTES;

const METHOD_SECRET: u8 = 1;
const METHOD_SERVICE: u8 = 2;
const CHECKSUM_BYTES: usize = 4;

/// How the key-encryption key is come by.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Method {
    /// Derived from a passphrase or key.
    Secret(Kdf),
    /// A random key that a key service has wrapped: what it made of it.
    Service(Vec<u8>),
}

/// The root key, wrapped. Changes with the secret alone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wrapping {
    pub(crate) method: Method,
    pub(crate) salt: [u8; SALT_BYTES],
    pub(crate) commitment: [u8; KEY_BYTES],
    pub(crate) wrap_salt: [u8; SALT_BYTES],
    pub(crate) root: [u8; WRAPPED_BYTES],
}

impl Wrapping {
    /// Appends what stands before the sealed root key.
    fn encode_clear(&self, out: &mut Vec<u8>) {
        let kdf;
        let (method, parameters) = match &self.method {
            Method::Secret(derivation) => {
                kdf = derivation.encode();
                (METHOD_SECRET, &kdf[..])
            }
            Method::Service(wrapped) => (METHOD_SERVICE, &wrapped[..]),
        };
        let len = u16::try_from(parameters.len()).expect("bounded by SERVICE_BYTES_MAX");
        out.extend_from_slice(&[method, 0]);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(parameters);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.commitment);
        out.extend_from_slice(&self.wrap_salt);
    }

    /// What is authenticated with the root key.
    pub(crate) fn authenticated(&self, store: &[u8; 16], algorithm: Algorithm) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(&KEYRING_VERSION.to_le_bytes());
        out.extend_from_slice(&ENCRYPTED_ID.to_le_bytes());
        out.extend_from_slice(store);
        out.extend_from_slice(&algorithm.id().to_le_bytes());
        self.encode_clear(&mut out);
        out
    }
}

/// A keyring file whose structure is sound. Whether it is authentic only its keys can tell.
pub(crate) struct Image {
    /// The whole file.
    pub(crate) bytes: Vec<u8>,
    /// Counts the changes.
    pub(crate) version: u64,
    /// Whose keys it holds.
    pub(crate) store: [u8; 16],
    /// What seals it, and new files.
    pub(crate) algorithm: Algorithm,
    /// The current epoch.
    pub(crate) epoch: u32,
    /// The wrapped root key.
    pub(crate) wrapping: Wrapping,
    /// Salt of the key that seals the body.
    pub(crate) body_salt: [u8; SALT_BYTES],
    body: Range<usize>,
}

/// What stands before the body of a keyring.
pub(crate) struct Front<'a> {
    pub(crate) version: u64,
    pub(crate) store: [u8; 16],
    pub(crate) header_salt: [u8; 24],
    pub(crate) parameters: Parameters,
    pub(crate) wrapping: &'a Wrapping,
    pub(crate) keys: usize,
    pub(crate) body_salt: [u8; SALT_BYTES],
}

impl Front<'_> {
    /// Its bytes: what is authenticated with the body.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let header = FileHeader {
            identity: FileIdentity {
                store: self.store,
                kind: FileKind::Keyring,
                number: self.version,
                domain: 0,
            },
            version: KEYRING_VERSION,
            transform: ENCRYPTED_ID,
            salt: self.header_salt,
            parameters: self.parameters.encode(),
        };
        let count = u32::try_from(self.keys).expect("bounded by KEYS_MAX");
        let mut out = header.encode().to_vec();
        self.wrapping.encode_clear(&mut out);
        out.extend_from_slice(&self.wrapping.root);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.body_salt);
        out
    }
}

impl Image {
    /// Puts a keyring together of what [`Front::encode`] gave and the sealed body.
    pub(crate) fn assemble(front: &Front<'_>, mut bytes: Vec<u8>, sealed_body: &[u8]) -> Self {
        let body = bytes.len()..bytes.len() + sealed_body.len();
        bytes.extend_from_slice(sealed_body);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        debug_assert!(bytes.len() <= FILE_BYTES_MAX, "the parts are bounded");
        Self {
            bytes,
            version: front.version,
            store: front.store,
            algorithm: front.parameters.algorithm,
            epoch: front.parameters.epoch,
            wrapping: front.wrapping.clone(),
            body_salt: front.body_salt,
            body,
        }
    }

    /// Takes a keyring file apart.
    ///
    /// # Errors
    /// [`Error::Corruption`] where the bytes are not what was written; [`Error::NewerFormat`] and
    /// [`Error::UnacceptableKeyring`] where they are, so far as their checksum tells, and ask for what this build does not do.
    pub(crate) fn decode(path: &Path, bytes: Vec<u8>, bounds: &KdfBounds) -> Result<Self> {
        let header = FileHeader::decode(path, &bytes, FileKind::Keyring, KEYRING_VERSION)?;
        let damaged =
            |offset: usize, problem: &str| Error::corruption(path, offset as u64, problem);
        if bytes.len() > FILE_BYTES_MAX {
            return Err(damaged(FILE_BYTES_MAX, "it is longer than any keyring"));
        }
        let (content, stored) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or_else(|| damaged(0, "it is shorter than its checksum"))?;
        let (stored, found) = (u32::from_le_bytes(*stored), crc32fast::hash(content));
        if stored != found {
            let problem = format!("checksum {stored:08x} stored, {found:08x} computed");
            return Err(damaged(content.len(), &problem));
        }
        let parameters = check_header(path, &header)?;
        // A file that ends with its header has that header's checksum in the place of its own.
        let rest = content.get(HEADER_BYTES..);
        let mut decoder = Decoder::new(rest.ok_or_else(|| damaged(0, "it ends with its header"))?);
        let wrapping = decode_wrapping(path, &mut decoder, bounds)?;
        let body = (|| {
            let keys = decoder.u32()? as usize;
            let salt = decoder.array()?;
            Some((keys, salt))
        })();
        let (keys, body_salt) = body.ok_or_else(|| damaged(content.len(), "it ends early"))?;
        let body_bytes = decoder.rest().len();
        let body = content.len() - body_bytes..content.len();
        // Compared as 64-bit numbers, which no count of 32 bits makes overflow.
        if keys > KEYS_MAX || body_bytes as u64 != (keys * ENTRY_BYTES + TAG_BYTES) as u64 {
            let problem = format!("{keys} keys are announced, with {body_bytes} bytes for them");
            return Err(damaged(body.start, &problem));
        }
        Ok(Self {
            version: header.identity.number,
            store: header.identity.store,
            algorithm: parameters.algorithm,
            epoch: parameters.epoch,
            wrapping,
            body_salt,
            body,
            bytes,
        })
    }

    /// What is authenticated with the body.
    pub(crate) fn front(&self) -> &[u8] {
        &self.bytes[..self.body.start]
    }

    /// The sealed body.
    pub(crate) fn sealed_body(&self) -> &[u8] {
        &self.bytes[self.body.clone()]
    }

    /// Number of data keys.
    pub(crate) fn keys(&self) -> usize {
        (self.body.len() - TAG_BYTES) / ENTRY_BYTES
    }
}

fn check_header(path: &Path, header: &FileHeader) -> Result<Parameters> {
    let damaged = |offset: u64, problem: String| Err(Error::corruption(path, offset, problem));
    if header.transform != ENCRYPTED_ID {
        let found = header.transform;
        return damaged(
            10,
            format!("transform {found} where a keyring has {ENCRYPTED_ID}"),
        );
    }
    if header.identity.domain != 0 || header.identity.number == 0 {
        let (domain, number) = (header.identity.domain, header.identity.number);
        return damaged(
            12,
            format!("domain {domain}, version {number} where there are none such"),
        );
    }
    match Parameters::decode(&header.parameters) {
        Ok(parameters) => Ok(parameters),
        Err(problem @ ParameterProblem::EpochZero) => {
            damaged(PARAMETERS_OFFSET, problem.to_string())
        }
        Err(problem) => Err(unacceptable(
            path,
            format!("{problem}; open it with a newer Vault, or restore the keyring"),
        )),
    }
}

fn decode_wrapping(path: &Path, decoder: &mut Decoder<'_>, bounds: &KdfBounds) -> Result<Wrapping> {
    let early = || Error::corruption(path, HEADER_BYTES as u64, "it ends before its keys");
    let [method, zero] = decoder.array::<2>().ok_or_else(early)?;
    let len = decoder.u16().ok_or_else(early)? as usize;
    let parameters = decoder.take(len).ok_or_else(early)?;
    let method = match (method, zero) {
        (METHOD_SECRET, 0) => {
            let bytes = parameters.try_into().map_err(|_| {
                unacceptable(
                    path,
                    format!(
                        "its key derivation is described in {len} bytes, not {}",
                        Kdf::ENCODED_BYTES
                    ),
                )
            })?;
            Method::Secret(Kdf::decode(bytes, bounds).map_err(|problem| problem.in_keyring(path))?)
        }
        (METHOD_SERVICE, 0) if (1..=SERVICE_BYTES_MAX).contains(&len) => {
            Method::Service(parameters.to_vec())
        }
        (METHOD_SERVICE, 0) => {
            let problem =
                format!("a key service's {len} bytes are not between 1 and {SERVICE_BYTES_MAX}");
            return Err(unacceptable(path, problem));
        }
        (method, _) => {
            let problem = format!(
                "its root key is wrapped by method {method}, which this build does not know; open it with a newer Vault"
            );
            return Err(unacceptable(path, problem));
        }
    };
    (|| {
        Some(Wrapping {
            method,
            salt: decoder.array()?,
            commitment: decoder.array()?,
            wrap_salt: decoder.array()?,
            root: decoder.array()?,
        })
    })()
    .ok_or_else(early)
}

/// The error for a keyring that is whole and cannot be used.
pub(crate) fn unacceptable(path: &Path, problem: String) -> Error {
    Error::UnacceptableKeyring {
        path: path.to_path_buf(),
        problem,
    }
}
