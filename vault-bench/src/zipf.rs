//! Zipf-distributed ranks: few are asked for often, many hardly ever.
//!
//! The method of Gray et al., "Quickly generating billion-record synthetic databases" (1994), which
//! YCSB uses too: a rank follows from one uniform number in constant time, after a sum over all `n`
//! that is done once.

use crate::data::random_at;

/// The skew of the YCSB mixes.
pub const YCSB_THETA: f64 = 0.99;

/// Gives ranks from 0 (the most frequent) to `n - 1`.
#[derive(Debug, Clone)]
pub struct Zipf {
    n: u64,
    zeta_n: f64,
    alpha: f64,
    eta: f64,
    second: f64,
}

impl Zipf {
    /// Prepares ranks below `n` with a skew `theta` between 0 and 1, both excluded. Takes time in
    /// proportion to `n` (about 30 ns each).
    #[must_use]
    pub fn new(n: u64, theta: f64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-theta)).sum::<f64>();
        let zeta_n = zeta(n);
        Self {
            n,
            zeta_n,
            alpha: 1.0 / (1.0 - theta),
            eta: (1.0 - (2.0 / n as f64).powf(1.0 - theta)) / (1.0 - zeta(2) / zeta_n),
            second: 1.0 + 0.5_f64.powf(theta),
        }
    }

    /// The rank at a position of a random stream.
    #[inline]
    #[must_use]
    pub fn at(&self, stream: u64, position: u64) -> u64 {
        // The upper 53 bits make every double from 0 up to, not including, 1 equally likely.
        let uniform = (random_at(stream, position) >> 11) as f64 / (1_u64 << 53) as f64;
        let scaled = uniform * self.zeta_n;
        if scaled < 1.0 || self.n == 1 {
            return 0;
        }
        if scaled < self.second {
            return 1;
        }
        let rank = self.n as f64 * (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.n - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skew_is_that_of_zipf() {
        let (n, draws) = (1000, 200_000);
        let zipf = Zipf::new(n, YCSB_THETA);
        let mut counts = vec![0_u64; n as usize];
        for i in 0..draws {
            counts[zipf.at(9, i) as usize] += 1;
        }
        // Rank r is expected in proportion to 1 / (r + 1)^0.99.
        let expected = |rank: u64| draws as f64 / zipf.zeta_n / ((rank + 1) as f64).powf(0.99);
        for rank in [0, 1] {
            let ratio = counts[rank as usize] as f64 / expected(rank);
            assert!((0.95..1.05).contains(&ratio), "rank {rank}: {ratio}");
        }
        // The method is exact for the two first ranks and approximate behind: judge it by groups.
        for group in [10..100, 100..1000] {
            let found: u64 = counts[group.start as usize..group.end as usize]
                .iter()
                .sum();
            let ratio = found as f64 / group.clone().map(expected).sum::<f64>();
            assert!((0.9..1.1).contains(&ratio), "ranks {group:?}: {ratio}");
        }
    }

    #[test]
    fn ranks_stay_below_n_for_small_n() {
        for n in 1..5 {
            let zipf = Zipf::new(n, YCSB_THETA);
            assert!((0..1000).all(|i| zipf.at(3, i) < n), "{n}");
        }
    }
}
