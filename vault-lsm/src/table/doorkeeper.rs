//! Which blocks a full cache takes in: those that were wanted before.
//!
//! Where more is read than the cache can hold, most blocks that come in leave again before anybody wants them a second time.
//! Each of them costs an eviction, and a buffer whose memory has gone cold. So the cache, once it is full, lets a block wait at the
//! door the first time, and takes it in when it is wanted again. (The doorkeeper of Einziger, Friedman, Manes: "TinyLFU: a
//! highly efficient cache admission policy", ACM Transactions on Storage, 2017.)
//!
//! What was wanted is kept as one bit for each block, by its hash, and forgotten again little by little: every so many
//! blocks that wait empty one word of bits. Blocks whose bits coincide are taken in at once, which does no harm: it happens to about
//! a quarter of all, so that what is read from now on gets in even where it is read in turn.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One in so many blocks that wait empties a word of 64 bits. As each of them sets one, a fourth of all bits is set in the long run.
const EMPTIED_EVERY: u64 = 16;

/// Remembers blocks that were wanted, for a while.
pub(super) struct Doorkeeper {
    /// A power of two of them.
    words: Box<[AtomicU64]>,
}

impl Doorkeeper {
    /// For a cache of about so many blocks: remembers about a fourth as many.
    pub(super) fn new(blocks: u64) -> Self {
        let words = (blocks / 64).max(1).next_power_of_two();
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether the block of this hash was wanted before. It was from here on.
    pub(super) fn knows(&self, hash: u64) -> bool {
        let mask = self.words.len() - 1;
        let (word, bit) = (&self.words[(hash >> 6) as usize & mask], 1 << (hash & 63));
        if word.load(Relaxed) & bit != 0 {
            return true;
        }
        if (hash >> 32).is_multiple_of(EMPTIED_EVERY) {
            self.words[(hash >> 36) as usize & mask].store(0, Relaxed);
        }
        word.fetch_or(bit, Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use vault_core::random::SeededRandom;

    use super::*;

    const BLOCKS: u64 = 1 << 14;

    fn hashes(seed: u64) -> impl Iterator<Item = u64> {
        let random = SeededRandom::new(seed);
        std::iter::repeat_with(move || random.next_u64())
    }

    #[test]
    fn what_comes_again_soon_is_known() {
        let doorkeeper = Doorkeeper::new(BLOCKS);
        let few: Vec<u64> = hashes(1).take(BLOCKS as usize / 64).collect();
        let first = few.iter().filter(|&&hash| doorkeeper.knows(hash)).count();
        let again = few.iter().filter(|&&hash| doorkeeper.knows(hash)).count();
        assert!(
            first < few.len() / 10,
            "{first} were known before they came"
        );
        assert!(
            again > few.len() * 4 / 5,
            "{again} of {} are known",
            few.len()
        );
    }

    #[test]
    fn a_part_of_what_never_comes_again_is_let_in() {
        let doorkeeper = Doorkeeper::new(BLOCKS);
        let once = 20 * BLOCKS as usize;
        let known = hashes(2)
            .take(once)
            .filter(|&hash| doorkeeper.knows(hash))
            .count();
        let share = known as f64 / once as f64;
        assert!((0.1..0.4).contains(&share), "{share}");
    }
}
