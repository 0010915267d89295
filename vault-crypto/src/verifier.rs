//! Checking a secret without keeping it: what is kept is a hash that is dear to guess.

use vault_core::random::Random;
use vault_core::{Error, Result};

use crate::kdf::{Kdf, KdfBounds, SALT_BYTES};
use crate::secret::{SecretBytes, SecretKey, expand};
use crate::source::Secret;

/// Length of what is compared, in bytes.
const HASH_BYTES: usize = 32;
/// Sets these hashes apart from all else that is derived from passphrases.
const PURPOSE: &[u8] = b"vault secret verifier";

/// A hash of a secret, with its salt and how it was made: Argon2id by default (RFC 9106), then HKDF-Expand (RFC 5869).
///
/// ```
/// use vault_core::random::SystemRandom;
/// use vault_crypto::{Kdf, SecretBytes, SecretHash};
/// # fn main() -> vault_core::Result<()> {
/// let secret = || SecretBytes::from_string("correct horse".to_owned());
/// let hash = SecretHash::new(&secret()?, Kdf::danger_weak(), &SystemRandom)?; // for a test
/// let kept = SecretHash::decode(&hash.encode()).unwrap();
/// assert!(kept.verify(&secret()?)?);
/// assert!(!kept.verify(&SecretBytes::from_string("correct house".to_owned())?)?);
/// # Ok(())
/// # }
/// ```
pub struct SecretHash {
    kdf: Kdf,
    salt: [u8; SALT_BYTES],
    hash: [u8; HASH_BYTES],
}

impl SecretHash {
    /// Length of the encoded form in bytes: parameters, salt, hash.
    pub const ENCODED_BYTES: usize = Kdf::ENCODED_BYTES + SALT_BYTES + HASH_BYTES;

    /// Hashes a secret, which takes as long as `kdf` says.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for parameters out of bounds; [`Error::Io`] where the randomness fails.
    pub fn new(secret: &SecretBytes, kdf: Kdf, random: &dyn Random) -> Result<Self> {
        let mut salt = [0; SALT_BYTES];
        random.fill(&mut salt)?;
        let hash = *derive(secret, kdf, &salt)?.expose();
        Ok(Self { kdf, salt, hash })
    }

    /// What it was derived by: deriving another by the same takes as long.
    ///
    /// ```
    /// # fn main() -> vault_core::Result<()> {
    /// use vault_core::random::SystemRandom;
    /// use vault_crypto::{Kdf, SecretBytes, SecretHash};
    /// let secret = SecretBytes::from_string("correct horse".to_owned())?;
    /// let hash = SecretHash::new(&secret, Kdf::danger_weak(), &SystemRandom)?;
    /// assert_eq!(hash.kdf(), Kdf::danger_weak());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn kdf(&self) -> Kdf {
        self.kdf
    }

    /// Whether this is the secret. Takes as long for a wrong one as for the right one.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] where there is no memory for it.
    pub fn verify(&self, secret: &SecretBytes) -> Result<bool> {
        Ok(derive(secret, self.kdf, &self.salt)?.equals(&self.hash))
    }

    /// The encoded form: parameters, salt, hash.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut out = [0; Self::ENCODED_BYTES];
        let (kdf, rest) = out.split_at_mut(Kdf::ENCODED_BYTES);
        let (salt, hash) = rest.split_at_mut(SALT_BYTES);
        kdf.copy_from_slice(&self.kdf.encode());
        salt.copy_from_slice(&self.salt);
        hash.copy_from_slice(&self.hash);
        out
    }

    /// Reads the encoded form; `None` where it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kdf, rest) = bytes.split_first_chunk::<{ Kdf::ENCODED_BYTES }>()?;
        let (salt, hash) = rest.split_first_chunk()?;
        let kdf = Kdf::decode(kdf, &KdfBounds::danger_weak()).ok()?;
        Some(Self {
            kdf,
            salt: *salt,
            hash: hash.try_into().ok()?,
        })
    }
}

fn derive(secret: &SecretBytes, kdf: Kdf, salt: &[u8; SALT_BYTES]) -> Result<SecretKey> {
    let secret = Secret::Passphrase(secret.duplicate());
    let key = kdf
        .derive(&secret, salt)
        .map_err(|problem| -> Error { problem.in_setting("the hash of secrets") })?;
    Ok(expand(&key, &[PURPOSE]))
}

/// SHA-256 (FIPS 180-4) of several parts, one behind the other.
///
/// ```
/// let digest = vault_crypto::sha256(&[b"ab", b"c"]);
/// assert_eq!(digest[..4], [0xba, 0x78, 0x16, 0xbf]);
/// ```
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    use sha2::Digest;
    let mut hasher = sha2::Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}
