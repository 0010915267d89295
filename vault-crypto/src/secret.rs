//! Secrets in memory: wiped when they are dropped, without `Debug` or `Clone`, compared in constant time.

use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use vault_core::Result;
use vault_core::random::Random;
use zeroize::Zeroize;

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 32;

/// A key of 32 bytes.
pub struct SecretKey {
    bytes: Box<[u8; KEY_BYTES]>,
}

impl SecretKey {
    /// Takes a key, and wipes where it came from.
    #[must_use]
    pub fn from_bytes(bytes: &mut [u8; KEY_BYTES]) -> Self {
        let mut key = Self::zeroed();
        key.bytes.copy_from_slice(bytes);
        bytes.zeroize();
        key
    }

    /// Makes a key in place: `fill` writes all of it.
    ///
    /// # Errors
    /// What `fill` says.
    pub fn build<E>(fill: impl FnOnce(&mut [u8; KEY_BYTES]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self::zeroed();
        fill(&mut key.bytes)?;
        Ok(key)
    }

    /// A fresh random key.
    ///
    /// # Errors
    /// What the source says.
    pub fn random(random: &dyn Random) -> Result<Self> {
        Self::build(|bytes| random.fill(bytes))
    }

    /// The bytes of the key. Never copy them to where nothing wipes them.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// Whether the two are the same key, in a time that says nothing of where they differ.
    #[must_use]
    pub fn equals(&self, other: &[u8; KEY_BYTES]) -> bool {
        self.bytes.as_slice().ct_eq(other).into()
    }

    fn zeroed() -> Self {
        Self {
            bytes: Box::new([0; KEY_BYTES]),
        }
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// Secret bytes of any length: a passphrase.
pub struct SecretBytes {
    bytes: Vec<u8>,
}

impl SecretBytes {
    /// Copies the bytes. Whoever lends them wipes them.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
        }
    }

    /// The bytes. Never copy them to where nothing wipes them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// HKDF-Extract with SHA-256 (RFC 5869).
#[must_use]
pub fn extract(salt: &[u8], secret: &[u8]) -> SecretKey {
    let (mut prk, _) = Hkdf::<Sha256>::extract(Some(salt), secret);
    let mut bytes = [0; KEY_BYTES];
    bytes.copy_from_slice(&prk);
    prk.as_mut_slice().zeroize();
    SecretKey::from_bytes(&mut bytes)
}

/// HKDF-Expand with SHA-256 (RFC 5869) to 32 bytes. The parts of `info` are taken as one after the other: whoever calls
/// sees to it that they cannot be divided in two ways.
#[must_use]
pub fn expand(prk: &SecretKey, info: &[&[u8]]) -> SecretKey {
    let hkdf = Hkdf::<Sha256>::from_prk(prk.expose()).expect("32 bytes are a key for SHA-256");
    let mut key = SecretKey::zeroed();
    hkdf.expand_multi_info(info, key.bytes.as_mut_slice())
        .expect("32 bytes are below 255 blocks of SHA-256");
    key
}

/// Overwrites what calls before this one left on the stack, as far as it is within 32 KiB.
#[inline(never)]
pub fn wipe_stack() {
    let mut stack = [0xa5_u8; 32 << 10];
    std::hint::black_box(&mut stack);
    stack.zeroize();
}
