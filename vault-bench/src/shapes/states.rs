//! What is known of each key while several threads write: a word a key, claimed by whoever is at it.
//!
//! A read can be checked only if no write of the same key goes on beside it. So whoever works on a key claims it, and takes
//! another one where it is claimed. The claim is one exchange in memory, the same for all engines.

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};

const CLAIMED: u64 = 1 << 63;

/// A word for each key.
pub(super) struct States(Vec<AtomicU64>);

impl States {
    /// All keys with the same word, below 2⁶³.
    pub(super) fn new(keys: u64, word: u64) -> Self {
        Self((0..keys).map(|_| AtomicU64::new(word)).collect())
    }

    /// Claims `key`, or the next one that nobody is at, and gives it with its word.
    pub(super) fn claim(&self, mut key: u64) -> (u64, u64) {
        loop {
            let word = self.0[key as usize].fetch_or(CLAIMED, AcqRel);
            if word & CLAIMED == 0 {
                return (key, word);
            }
            key = (key + 1) % self.0.len() as u64;
            std::hint::spin_loop();
        }
    }

    /// Gives a key back with its new word.
    pub(super) fn release(&self, key: u64, word: u64) {
        self.0[key as usize].store(word, Release);
    }

    /// The words of all keys, once nobody is at any.
    pub(super) fn words(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|word| word.load(Acquire) & !CLAIMED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_key_is_passed_over_until_it_is_given_back() {
        let states = States::new(3, 7);
        assert_eq!(states.claim(1), (1, 7));
        assert_eq!(states.claim(1), (2, 7));
        assert_eq!(states.claim(1), (0, 7));
        states.release(1, 8);
        assert_eq!(states.claim(2), (1, 8));
        states.release(1, 9);
        assert_eq!(states.words().collect::<Vec<_>>(), [7, 9, 7]);
    }
}
