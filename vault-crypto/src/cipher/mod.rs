//! Authenticated ciphers behind one trait.

#[cfg(feature = "ring")]
mod ring;
mod rust;

use std::fmt;

use crate::secret::SecretKey;

/// Length of a nonce in bytes.
pub const NONCE_BYTES: usize = 12;
/// Length of a tag in bytes.
pub const TAG_BYTES: usize = 16;

/// A cipher, by the number that a store records. Numbers are part of the format and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Algorithm {
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305 = 1,
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm = 2,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::ChaCha20Poly1305, Self::Aes256Gcm];

    /// The number that a store records.
    #[must_use]
    pub const fn id(self) -> u16 {
        self as u16
    }

    /// The algorithm of this number, if there is one.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.id() == id)
    }

    /// Its name, as its specification writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            Self::Aes256Gcm => "AES-256-GCM",
        }
    }
}

/// The text is longer than the cipher takes under one nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// What was to be opened is not what was sealed with this key, nonce and associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unauthentic;

/// A cipher with its key. Wipes its key schedule when dropped.
pub trait Aead: Send + Sync {
    /// Encrypts `buffer` in place and gives the tag.
    ///
    /// # Errors
    /// [`TooLong`]: over 64 GiB.
    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], TooLong>;

    /// Decrypts `buffer` in place. After an error its content is of no use.
    ///
    /// # Errors
    /// [`Unauthentic`].
    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Unauthentic>;
}

/// An implementation of an algorithm.
pub trait Provider: Send + Sync + fmt::Debug {
    /// Its name, for reports and benchmarks.
    fn name(&self) -> &'static str;

    /// What it implements.
    fn algorithm(&self) -> Algorithm;

    /// Prepares a key.
    fn key(&self, key: &SecretKey) -> Box<dyn Aead>;
}

/// All providers of this build, the best of each algorithm first.
#[must_use]
pub fn providers() -> &'static [&'static dyn Provider] {
    &[
        #[cfg(feature = "ring")]
        &ring::Ring(Algorithm::Aes256Gcm),
        #[cfg(feature = "ring")]
        &ring::Ring(Algorithm::ChaCha20Poly1305),
        &rust::Aes,
        &rust::ChaCha,
    ]
}

/// The best provider of an algorithm in this build, on this CPU. There is one for every algorithm in every build.
#[must_use]
pub fn provider(algorithm: Algorithm) -> &'static dyn Provider {
    providers()
        .iter()
        .copied()
        .find(|provider| provider.algorithm() == algorithm)
        .expect("every build has every algorithm in Rust")
}

/// The algorithm for new stores: the fastest in this build, on this CPU.
#[must_use]
pub fn preferred() -> Algorithm {
    Algorithm::ChaCha20Poly1305
}
