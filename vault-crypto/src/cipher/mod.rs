//! Authenticated ciphers behind one trait.
//!
//! A store records the [`Algorithm`] that its files are sealed with. Any build opens any of them, on any processor: which
//! [`Provider`] does the work is nobody's business but this process's. So what is chosen for speed is chosen twice:
//! [`preferred`] says which algorithm a new store gets, and [`provider`] who carries it out. The figures behind both are in
//! `docs/adr/0020-providers.md`.
//!
//! A cipher takes each nonce for one text only: with two texts under one nonce, both can be read, and anything can be forged.
//! That is up to whoever calls. Neither algorithm commits to its key: a text can be made that opens under two keys,
//! so that a key is checked by other means before anything is opened with it.

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

    /// How many bytes are authenticated with each block of a file: whole steps of what the algorithm is computed in at once, or what
    /// follows would be out of step.
    #[must_use]
    pub const fn bound_bytes(self) -> usize {
        match self {
            Self::ChaCha20Poly1305 => 64,
            Self::Aes256Gcm => 16,
        }
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

/// The text is longer than the cipher takes under one nonce: over 64 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// What was to be opened is not what was sealed with this key, nonce and associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unauthentic;

/// A cipher with its key. Wipes what it made of the key when it is dropped.
///
/// ```
/// use vault_crypto::SecretKey;
/// use vault_crypto::cipher::{Unauthentic, preferred, provider};
/// let cipher = provider(preferred()).key(&SecretKey::from_bytes(&mut [7; 32]));
/// let mut buffer = *b"a block of a file";
/// let tag = cipher.seal(&[0; 12], b"its place", &mut buffer).unwrap();
/// assert_ne!(&buffer, b"a block of a file");
///
/// let elsewhere = cipher.open(&[0; 12], b"another place", &mut buffer.clone(), &tag);
/// assert_eq!(elsewhere, Err(Unauthentic));
/// cipher.open(&[0; 12], b"its place", &mut buffer, &tag).unwrap();
/// assert_eq!(&buffer, b"a block of a file");
/// ```
pub trait Aead: Send + Sync {
    /// Encrypts `buffer` in place and gives the tag. No nonce is used twice with one key.
    ///
    /// # Errors
    /// [`TooLong`].
    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], TooLong>;

    /// Checks the tag and decrypts `buffer` in place. After an error it holds nothing that can be used, and never a part of the
    /// text.
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

    /// Up to which length sealing takes no more than some 200 ns, as
    /// [`BlockTransform::quick_bytes`](vault_core::transform::BlockTransform::quick_bytes) asks.
    fn quick_bytes(&self) -> usize {
        0
    }

    /// As [`BlockTransform::stride`](vault_core::transform::BlockTransform::stride).
    fn stride(&self) -> usize {
        1
    }
}

/// An implementation of an algorithm.
pub trait Provider: Send + Sync + fmt::Debug {
    /// Its name, for reports and benchmarks.
    fn name(&self) -> &'static str;

    /// What it implements.
    fn algorithm(&self) -> Algorithm;

    /// Prepares a key: once for each file, not for each block.
    fn key(&self, key: &SecretKey) -> Box<dyn Aead>;
}

impl<P: Provider + ?Sized> Provider for &P {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn algorithm(&self) -> Algorithm {
        (**self).algorithm()
    }

    fn key(&self, key: &SecretKey) -> Box<dyn Aead> {
        (**self).key(key)
    }
}

/// All providers of this build, the best of each algorithm first.
#[must_use]
pub fn providers() -> &'static [&'static dyn Provider] {
    &[
        #[cfg(feature = "ring")]
        ring::AES,
        #[cfg(feature = "ring")]
        ring::CHACHA,
        rust::AES,
        rust::CHACHA,
    ]
}

/// The best provider of an algorithm in this build. There is one for every algorithm in every build.
#[must_use]
pub fn provider(algorithm: Algorithm) -> &'static dyn Provider {
    #[cfg(feature = "ring")]
    use ring::{AES, CHACHA};
    #[cfg(not(feature = "ring"))]
    use rust::{AES, CHACHA};
    match algorithm {
        Algorithm::ChaCha20Poly1305 => CHACHA,
        Algorithm::Aes256Gcm => AES,
    }
}

/// The algorithm for new stores: AES-256-GCM where the processor has instructions for it, which are faster than
/// ChaCha20-Poly1305 with every provider, and ChaCha20-Poly1305 elsewhere.
#[must_use]
pub fn preferred() -> Algorithm {
    if has_aes_instructions() {
        Algorithm::Aes256Gcm
    } else {
        Algorithm::ChaCha20Poly1305
    }
}

/// Whether the processor computes AES, and the carry-less products of GCM. Without the two, AES in constant time is several
/// times as slow as ChaCha20.
fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_algorithms_are_part_of_the_format() {
        assert_eq!(Algorithm::from_id(1), Some(Algorithm::ChaCha20Poly1305));
        assert_eq!(Algorithm::from_id(2), Some(Algorithm::Aes256Gcm));
        for unknown in [0, 3, 0x0100, u16::MAX] {
            assert_eq!(Algorithm::from_id(unknown), None);
        }
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_id(algorithm.id()), Some(algorithm));
        }
    }

    #[test]
    fn every_build_has_every_algorithm_and_the_tuned_one_first() {
        for algorithm in Algorithm::ALL {
            let best = provider(algorithm);
            assert_eq!(best.algorithm(), algorithm);
            let tuned = cfg!(feature = "ring");
            assert_eq!(best.name(), if tuned { "ring" } else { "rust" });
            let of_it = providers().iter().filter(|p| p.algorithm() == algorithm);
            assert_eq!(of_it.count(), 1 + usize::from(tuned));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn new_stores_get_the_algorithm_that_the_processor_has() {
        #[expect(
            clippy::disallowed_methods,
            reason = "what the system says of the processor, which is no file"
        )]
        let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags: Vec<&str> = processor
            .lines()
            .filter(|line| line.starts_with("flags") || line.starts_with("Features"))
            .flat_map(str::split_whitespace)
            .collect();
        let products = flags.contains(&"pclmulqdq") || flags.contains(&"pmull");
        let expected = if flags.contains(&"aes") && products {
            Algorithm::Aes256Gcm
        } else {
            Algorithm::ChaCha20Poly1305
        };
        assert_eq!(preferred(), expected);
    }
}
