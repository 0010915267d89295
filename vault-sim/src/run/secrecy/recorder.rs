//! A cipher that notes what it seals: no key may see a nonce twice, whatever happened in between.
//!
//! One ledger goes through a whole simulation: over crashes, retries, rotations, copies and copies that were put back.
//! It holds hashes, 40 bytes for each seal, of a bounded number of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vault_crypto::cipher::{
    self, Aead, Algorithm, NONCE_BYTES, Provider, TAG_BYTES, TooLong, Unauthentic,
};
use vault_crypto::secret::SecretKey;

use crate::digest::Digest;

/// Seals that are noted. A simulation makes some ten thousand.
const SEALS_MAX: usize = 1 << 20;

/// What one simulation has sealed.
#[derive(Debug, Default)]
pub(in crate::run) struct Ledger {
    /// The hash of what was sealed, by the hash of the key and the nonce.
    seals: BTreeMap<(u64, [u8; NONCE_BYTES]), u64>,
    keys: BTreeSet<u64>,
    counts: Sealed,
    problem: Option<String>,
}

/// How much was sealed.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::run) struct Sealed {
    /// Seals, all of them.
    pub(in crate::run) seals: u64,
    /// Keys that sealed something.
    pub(in crate::run) keys: u64,
    /// Seals of a text that had been sealed with the same key and nonce before.
    pub(in crate::run) repeated: u64,
    /// Seals beyond those that are noted.
    pub(in crate::run) unnoted: u64,
}

impl Ledger {
    fn note(&mut self, key: u64, nonce: [u8; NONCE_BYTES], aad: &[u8], text: &[u8]) {
        self.counts.seals += 1;
        if self.seals.len() >= SEALS_MAX {
            self.counts.unnoted += 1;
            return;
        }
        self.keys.insert(key);
        let hash = hash(&[aad, text]);
        match self.seals.insert((key, nonce), hash) {
            None => {}
            Some(before) if before == hash => self.counts.repeated += 1,
            Some(_) => {
                self.problem.get_or_insert_with(|| {
                    format!(
                        "a key sealed two texts under one nonce: nonce {nonce:02x?}, {} bytes of text, authenticated with {aad:02x?}",
                        text.len()
                    )
                });
            }
        }
    }
}

/// Implements a cipher by the best implementation there is, and notes what it seals.
#[derive(Debug)]
pub(in crate::run) struct Recorder {
    inner: &'static dyn Provider,
    ledger: Arc<Mutex<Ledger>>,
}

impl Recorder {
    pub(in crate::run) fn new(algorithm: Algorithm) -> Self {
        Self {
            inner: cipher::provider(algorithm),
            ledger: Arc::default(),
        }
    }

    /// How much was sealed so far.
    pub(in crate::run) fn counts(&self) -> Sealed {
        let ledger = lock(&self.ledger);
        Sealed {
            keys: ledger.keys.len() as u64,
            ..ledger.counts
        }
    }

    /// The first nonce that was used twice.
    ///
    /// # Errors
    /// What it was used for.
    pub(in crate::run) fn check(&self) -> Result<(), String> {
        lock(&self.ledger).problem.clone().map_or(Ok(()), Err)
    }
}

impl Provider for Recorder {
    fn name(&self) -> &'static str {
        "one that notes what it seals"
    }

    fn algorithm(&self) -> Algorithm {
        self.inner.algorithm()
    }

    fn key(&self, key: &SecretKey) -> Box<dyn Aead> {
        Box::new(Recording {
            inner: self.inner.key(key),
            key: hash(&[key.expose()]),
            ledger: Arc::clone(&self.ledger),
        })
    }
}

struct Recording {
    inner: Box<dyn Aead>,
    key: u64,
    ledger: Arc<Mutex<Ledger>>,
}

impl Aead for Recording {
    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], TooLong> {
        lock(&self.ledger).note(self.key, *nonce, aad, buffer);
        self.inner.seal(nonce, aad, buffer)
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Unauthentic> {
        self.inner.open(nonce, aad, buffer, tag)
    }
}

fn hash(parts: &[&[u8]]) -> u64 {
    let mut digest = Digest::default();
    parts.iter().for_each(|part| digest.add(part));
    digest.number()
}

/// A thread that panicked leaves nothing half-done behind.
fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_that_is_used_twice_is_noticed() {
        for algorithm in Algorithm::ALL {
            let recorder = Recorder::new(algorithm);
            let seal = |key: u8, nonce: u8, text: &[u8]| {
                let cipher = recorder.key(&SecretKey::from_bytes(&mut [key; 32]));
                let tag = cipher.seal(&[nonce; NONCE_BYTES], b"place", &mut text.to_vec());
                tag.unwrap();
            };
            seal(1, 1, b"text");
            seal(1, 2, b"other text");
            seal(2, 1, b"other text");
            seal(1, 1, b"text");
            recorder.check().unwrap();
            let Sealed {
                seals,
                keys,
                repeated,
                unnoted,
            } = recorder.counts();
            assert_eq!((seals, keys, repeated, unnoted), (4, 2, 1, 0));
            seal(1, 2, b"text");
            assert!(recorder.check().unwrap_err().contains("two texts"));
        }
    }
}
