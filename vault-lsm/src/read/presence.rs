//! Whether the filters of the oldest run are worth asking.
//!
//! A filter saves the search of a table that does not have the key. In the oldest run, where nine tenths of the data are, a
//! lookup of a key that exists mostly ends: its filter says yes, at the price of a miss of the processor's cache. So where
//! lookups have found what they were looking for lately, the oldest run is searched without asking; the first that
//! does not turns the filters on again, for many lookups to come, because an absent key costs ten times what is saved.

use std::sync::atomic::Ordering::Relaxed;

use crate::sync::atomic::AtomicU32;

/// Found keys, in samples, after which the filters are no longer asked.
const SAMPLES: u32 = 32;
/// One lookup in so many is a sample: threads seldom write to what all of them read. A power of two.
const SAMPLE_EVERY: u64 = 64;

/// What lookups of a keyspace have met in its oldest run.
pub(crate) struct Presence {
    /// Samples to go before filters are passed over; 0: they are.
    left: AtomicU32,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            left: AtomicU32::new(SAMPLES),
        }
    }
}

impl Presence {
    /// Whether the filters of the oldest run are to be asked.
    #[inline]
    pub(crate) fn is_uncertain(&self) -> bool {
        self.left.load(Relaxed) > 0
    }

    /// A lookup of a key with this hash came to the oldest run, and met the key there or not.
    #[inline]
    pub(crate) fn note(&self, met: bool, key_hash: u64) {
        let left = self.left.load(Relaxed);
        if !met {
            if left < SAMPLES {
                self.left.store(SAMPLES, Relaxed);
            }
        } else if left > 0 && key_hash.is_multiple_of(SAMPLE_EVERY) {
            // Samples that two threads take at once may count as one.
            self.left.store(left - 1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_passed_over_only_after_many_hits_and_until_the_first_miss() {
        let presence = Presence::default();
        let hits = u64::from(SAMPLES) * SAMPLE_EVERY;
        for hash in 0..hits {
            assert!(presence.is_uncertain() || hash > hits - SAMPLE_EVERY);
            presence.note(true, hash);
        }
        assert!(!presence.is_uncertain());
        presence.note(false, 1);
        assert!(presence.is_uncertain());
        presence.note(true, 0);
        assert!(presence.is_uncertain());
    }
}
