//! Latencies, recorded by each thread for itself and merged afterwards.
//!
//! [`vault_core::stats::Histogram`] is made for many threads at once and pays for it with atomic
//! operations. Here the recorder belongs to one thread, so that recording costs an addition and the
//! engines are not measured through a shared cache line.

/// Steps that a power of two is divided into: what is reported is at most 1 part in 32 too high.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.trailing_zeros();
const BUCKETS: usize = (STEPS as usize) * (64 - STEP_BITS as usize + 1);

/// Durations in nanoseconds, counted in buckets that grow with them (after Tene's `HdrHistogram`).
#[derive(Debug, Clone)]
pub struct Latencies {
    buckets: Box<[u64]>,
    count: u64,
    sum_ns: u64,
    max_ns: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            sum_ns: 0,
            max_ns: 0,
        }
    }
}

impl Latencies {
    /// Counts one duration.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.buckets[bucket_of(ns)] += 1;
        self.count += 1;
        self.sum_ns += ns;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds what another thread has counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// The buckets that anything was counted in, in order, each with its count.
    #[must_use]
    pub fn sparse(&self) -> Vec<(u32, u64)> {
        let buckets = (0..).zip(self.buckets.iter().copied());
        buckets.filter(|bucket| bucket.1 > 0).collect()
    }

    /// Puts together what [`Latencies::sparse`] has taken apart, and the longest of them; the sum is lost. Buckets that
    /// do not exist are passed over.
    #[must_use]
    pub fn from_sparse(buckets: &[(u32, u64)], max_ns: u64) -> Self {
        let mut latencies = Self {
            max_ns,
            ..Self::default()
        };
        for &(bucket, count) in buckets {
            if let Some(kept) = latencies.buckets.get_mut(bucket as usize) {
                *kept += count;
                latencies.count += count;
            }
        }
        latencies
    }

    /// How many were counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their mean in nanoseconds.
    #[must_use]
    pub fn mean_ns(&self) -> u64 {
        self.sum_ns.checked_div(self.count).unwrap_or(0)
    }

    /// The longest in nanoseconds.
    #[must_use]
    pub const fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The duration that this share of all (0.99, say) does not exceed, in nanoseconds.
    #[must_use]
    pub fn percentile_ns(&self, share: f64) -> u64 {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return top_of(bucket).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

#[inline]
const fn bucket_of(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let exponent = 63 - ns.leading_zeros() - STEP_BITS;
    (STEPS * (exponent as u64 + 1) + (ns >> exponent) - STEPS) as usize
}

const fn top_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let exponent = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS) << exponent) | ((1 << exponent) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_close_and_never_too_low() {
        let (mut odd, mut even) = (Latencies::default(), Latencies::default());
        for us in 1..=10_000_u64 {
            if us % 2 == 0 { &mut even } else { &mut odd }.record(us * 1000);
        }
        odd.merge(&even);
        assert_eq!(odd.count(), 10_000);
        assert_eq!(odd.max_ns(), 10_000_000);
        assert_eq!(odd.mean_ns(), 5_000_500);
        for (share, expected) in [(0.5, 5e6), (0.99, 9.9e6), (0.999, 9.99e6), (1.0, 1e7)] {
            let ratio = odd.percentile_ns(share) as f64 / expected;
            assert!((1.0..1.032).contains(&ratio), "{share}: {ratio}");
        }
        assert_eq!(Latencies::default().percentile_ns(0.5), 0);
    }

    #[test]
    fn a_histogram_survives_being_kept() {
        let mut latencies = Latencies::default();
        (1..5000_u64).for_each(|i| latencies.record(i * i));
        let kept = latencies.sparse();
        assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let again = Latencies::from_sparse(&kept, latencies.max_ns());
        assert_eq!(again.count(), 4999);
        for share in [0.1, 0.5, 0.99, 0.999, 1.0] {
            assert_eq!(again.percentile_ns(share), latencies.percentile_ns(share));
        }
        assert_eq!(Latencies::from_sparse(&[(u32::MAX, 7)], 0).count(), 0);
    }

    #[test]
    fn every_duration_has_a_bucket_that_holds_it() {
        for shift in 0..64 {
            for ns in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let bucket = bucket_of(ns);
                assert!(bucket < BUCKETS && top_of(bucket) >= ns, "{ns}");
                assert!(bucket == 0 || top_of(bucket - 1) < ns, "{ns}");
            }
        }
    }
}
