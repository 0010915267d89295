//! Randomness, by trait.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Where random bytes come from: store ids, file salts, seeds.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills the buffer.
    ///
    /// # Errors
    /// [`Error::Io`] where the source fails.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The operating system's random generator.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        use std::io::Read;
        let path = std::path::Path::new("/dev/urandom");
        #[expect(
            clippy::disallowed_methods,
            reason = "the one real source of randomness"
        )]
        std::fs::File::open(path)
            .and_then(|mut device| device.read_exact(bytes))
            .map_err(|e| Error::io("read random bytes from", path, e))
    }
}

/// A generator whose every byte follows from its seed: `SplitMix64` (Steele, Lea, Flood: "Fast
/// splittable pseudorandom number generators", 2014). For simulations and tests, never for keys.
///
/// ```
/// use vault_core::random::SeededRandom;
/// let (a, b) = (SeededRandom::new(7), SeededRandom::new(7));
/// assert_eq!(a.next_u64(), b.next_u64());
/// ```
#[derive(Debug)]
pub struct SeededRandom {
    state: AtomicU64,
}

impl SeededRandom {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
        }
    }

    /// The next 64 random bits.
    pub fn next_u64(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .state
            .fetch_add(GAMMA, Ordering::Relaxed)
            .wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, not including, `bound` (0 where the bound is 0).
    pub fn below(&self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        (wide >> 64) as u64
    }

    /// True with the given probability in percent.
    pub fn percent(&self, probability: u64) -> bool {
        self.below(100) < probability
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_bytes_differ() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        SystemRandom.fill(&mut a).unwrap();
        SystemRandom.fill(&mut b).unwrap();
        assert_ne!(a, b);
    }

    #[test]
    fn below_stays_below() {
        let random = SeededRandom::new(1);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[random.below(7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(random.below(0), 0);
    }
}
