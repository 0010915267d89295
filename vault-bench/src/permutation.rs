//! A random order of all numbers below `n`, without a list of them.
//!
//! A Feistel network of four rounds permutes the numbers below the next power of two; numbers that
//! land outside are sent through again until they land inside ("cycle walking", Black and Rogaway:
//! "Ciphers with arbitrary finite domains", 2002). Fewer than two passes on average, about 20 ns.

use crate::data::mix;

const ROUNDS: u64 = 4;

/// A bijection of the numbers below `n` onto themselves that looks random.
///
/// ```
/// use vault_bench::permutation::Permutation;
/// let order = Permutation::new(1000, 7);
/// let mut seen: Vec<u64> = (0..1000).map(|i| order.at(i)).collect();
/// seen.sort_unstable();
/// assert!(seen.into_iter().eq(0..1000));
/// ```
#[derive(Debug, Clone)]
pub struct Permutation {
    n: u64,
    /// Widths of the upper and lower part, which swap each round.
    widths: [u32; 2],
    round_keys: [u64; ROUNDS as usize],
}

impl Permutation {
    /// The permutation of the numbers below `n` that follows from `seed`.
    #[must_use]
    pub fn new(n: u64, seed: u64) -> Self {
        let bits = (64 - n.saturating_sub(1).leading_zeros()).max(2);
        let mut round_keys = [0; ROUNDS as usize];
        for (round, key) in (1..).zip(&mut round_keys) {
            *key = mix(seed ^ mix(round));
        }
        Self {
            n,
            widths: [bits / 2, bits - bits / 2],
            round_keys,
        }
    }

    /// How many numbers are permuted.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.n
    }

    /// Whether there is nothing to permute.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Where `position` goes.
    ///
    /// # Panics
    /// If `position` is not below `n`: walking the cycle of a number outside might never end.
    #[inline]
    #[must_use]
    pub fn at(&self, position: u64) -> u64 {
        assert!(position < self.n, "{position} is not below {}", self.n);
        let mut x = position;
        loop {
            x = self.pass(x);
            if x < self.n {
                return x;
            }
        }
    }

    /// One pass through the network. Each round replaces the upper part by itself xor a function of
    /// the lower one, then swaps them: it can be undone, whatever the function is.
    #[inline]
    fn pass(&self, x: u64) -> u64 {
        let [mut upper_width, mut lower_width] = self.widths;
        let (mut upper, mut lower) = (x >> lower_width, x & ((1 << lower_width) - 1));
        for key in self.round_keys {
            let scattered = mix(lower ^ key) & ((1 << upper_width) - 1);
            (upper, lower) = (lower, upper ^ scattered);
            (upper_width, lower_width) = (lower_width, upper_width);
        }
        (upper << lower_width) | lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_exactly_once() {
        for n in [1, 2, 3, 5, 8, 100, 1023, 1024, 1025, 50_000] {
            for seed in 0..3 {
                let order = Permutation::new(n, seed);
                let mut seen = vec![false; n as usize];
                for i in 0..n {
                    let at = order.at(i) as usize;
                    assert!(!seen[at], "n {n} seed {seed}: {at} comes twice");
                    seen[at] = true;
                }
            }
        }
    }

    #[test]
    fn the_order_looks_random_and_follows_from_the_seed() {
        let n = 100_000;
        let (a, b) = (Permutation::new(n, 1), Permutation::new(n, 2));
        let fixed = (0..n).filter(|&i| a.at(i) == i).count();
        let agreeing = (0..n).filter(|&i| a.at(i) == b.at(i)).count();
        let rising = (1..n).filter(|&i| a.at(i) > a.at(i - 1)).count() as f64;
        assert!(
            fixed < 20 && agreeing < 20,
            "{fixed} fixed, {agreeing} agreeing"
        );
        assert!((rising / n as f64 - 0.5).abs() < 0.02, "{rising} rise");
    }
}
