//! Between what callers hold and what a vault stores.

use std::fmt;
use std::ops::Deref;

use serde::de::DeserializeOwned;
use vault_core::{Slice, Timestamp};

use super::scratch::Scratch;
use crate::database::VaultState;
use crate::error::{Error, Result};
use crate::key::{self, DecodeKey, EncodeKey};
use crate::value::{self, Content, Mismatch, Stored};

/// Encodes a key.
#[inline]
pub(crate) fn encode_key(key: &impl EncodeKey) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(40);
    key.encode_key(&mut out)?;
    Ok(out)
}

/// Encodes a key for no longer than a call.
#[inline]
pub(crate) fn scratch_key(key: &impl EncodeKey) -> Result<Scratch> {
    Scratch::filled(|out| key.encode_key(out))
}

/// Reads a stored key as a type.
pub(crate) fn decode_key<K: DecodeKey>(vault: &VaultState, encoded: &[u8]) -> Result<K> {
    K::decode_key(encoded).map_err(|found| Error::KeyMismatch {
        vault: vault.name().to_string(),
        key: key::printable(encoded),
        expected: std::any::type_name::<K>(),
        found,
    })
}

/// Takes a stored value apart.
#[inline]
pub(crate) fn parse<'a>(vault: &VaultState, key: &[u8], stored: &'a [u8]) -> Result<Stored<'a>> {
    Stored::parse(stored).ok_or_else(|| Error::Malformed {
        what: format!(
            "the value of {} in vault {:?}",
            key::printable(key),
            vault.name()
        ),
        problem: "it begins with no form of value that this build knows".to_owned(),
    })
}

/// Reads a stored value as a type.
#[inline]
pub(crate) fn decode_value<V: DeserializeOwned>(
    vault: &VaultState,
    key: &[u8],
    stored: &[u8],
) -> Result<V> {
    parse(vault, key, stored)?
        .read()
        .map_err(|mismatch| mismatched(vault, key, mismatch))
}

/// Whether two stored values have the same content.
pub(crate) fn is_same_content(a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            a == b
                || Stored::parse(a)
                    .zip(Stored::parse(b))
                    .is_some_and(|(a, b)| a.content == b.content)
        }
        _ => false,
    }
}

/// The error of whoever reads a value as something that it is not.
#[cold]
pub(crate) fn mismatched(vault: &VaultState, key: &[u8], mismatch: Mismatch) -> Error {
    Error::TypeMismatch {
        vault: vault.name().to_string(),
        key: key::printable(key),
        expected: mismatch.expected,
        found: mismatch.found,
        problem: mismatch.problem,
    }
}

/// A counter after an addition: how it is stored, its expiry, which stays, and what it is.
pub(crate) fn increment(
    vault: &VaultState,
    key: &[u8],
    current: Option<&[u8]>,
    by: i64,
) -> Result<(Vec<u8>, Option<Timestamp>, i64)> {
    let (from, expiry) = match current {
        None => (0, None),
        Some(current) => {
            let stored = parse(vault, key, current)?;
            let from: i64 = stored
                .read()
                .map_err(|mismatch| mismatched(vault, key, mismatch))?;
            (from, stored.expiry)
        }
    };
    let sum = from.checked_add(by).ok_or_else(|| Error::CounterOverflow {
        vault: vault.name().to_string(),
        key: key::printable(key),
        from,
        by,
    })?;
    Ok((value::encode(&sum, expiry)?, expiry, sum))
}

/// Bytes as they were given to [`Vault::put_raw`](crate::Vault::put_raw), shared with the block they were read from where
/// they are long.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// let db = vault_db::Database::temp()?;
/// let blobs = db.vault("blobs")?;
/// blobs.put_raw("a", b"\x00\x01")?;
/// assert_eq!(&blobs.get_raw("a")?.unwrap()[..], b"\x00\x01");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RawValue {
    stored: Slice,
    start: u8,
}

impl RawValue {
    pub(crate) fn new(vault: &VaultState, key: &[u8], stored: Slice) -> Result<Self> {
        let parsed = parse(vault, key, &stored)?;
        let start = parsed.header_bytes() as u8;
        match parsed.content {
            Content::Raw(_) => Ok(Self { stored, start }),
            Content::MessagePack(_) => Err(mismatched(
                vault,
                key,
                Mismatch {
                    expected: "raw bytes",
                    found: parsed.kind(),
                    problem: "it was written by `put`, and `get` reads it".to_owned(),
                },
            )),
        }
    }
}

impl Deref for RawValue {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.stored[usize::from(self.start)..]
    }
}

impl fmt::Debug for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawValue({} bytes)", self.len())
    }
}

impl PartialEq<[u8]> for RawValue {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}
