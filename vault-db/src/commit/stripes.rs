//! Locks over the keys of a vault.

use std::sync::{Mutex, MutexGuard};

use xxhash_rust::xxh3::xxh3_64;

use super::Recent;
use crate::database::lock;

/// Locks of a vault. Keys share them by their hash: with a few writers, two rarely meet.
pub(crate) const STRIPES: usize = 64;

/// Locks over the keys of a vault: whoever holds a key's stripe is the only one who changes it. Each guards what was
/// written to its keys of late.
pub(crate) struct Stripes {
    locks: [Mutex<Recent>; STRIPES],
}

/// A stripe, held.
pub(crate) type Stripe<'a> = MutexGuard<'a, Recent>;

/// Some stripes of a vault, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wanted(u64);

const _: () = assert!(STRIPES == u64::BITS as usize, "one bit for each stripe");

impl Wanted {
    /// Every stripe.
    pub(crate) const ALL: Self = Self(u64::MAX);

    /// The stripes of keys.
    pub(crate) fn of<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Self {
        Self(keys.fold(0, |wanted, key| wanted | 1 << number_of(key)))
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which stripe a key belongs to.
#[inline]
pub(crate) fn number_of(key: &[u8]) -> usize {
    (xxh3_64(key) % STRIPES as u64) as usize
}

impl Default for Stripes {
    fn default() -> Self {
        Self {
            locks: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Stripes {
    /// Locks the stripe of a key.
    #[inline]
    pub(crate) fn lock(&self, key: &[u8]) -> Stripe<'_> {
        lock(&self.locks[number_of(key)])
    }

    /// Locks several stripes, in order, and gives each with its number.
    pub(crate) fn lock_these(&self, wanted: Wanted) -> impl Iterator<Item = (usize, Stripe<'_>)> {
        let locks = self.locks.iter().enumerate();
        let these = locks.filter(move |(number, _)| wanted.0 >> number & 1 == 1);
        these.map(|(number, stripe)| (number, lock(stripe)))
    }

    /// Locks all stripes: nobody else commits to the vault.
    pub(crate) fn lock_all(&self) -> Vec<Stripe<'_>> {
        let all = self.lock_these(Wanted::ALL);
        all.map(|(_, stripe)| stripe).collect()
    }
}
